//! Why a read that asked for a certain shape did not get it.

use std::fmt;
use std::io;

/// The error of [`readexactly`](crate::StreamReader::readexactly),
/// [`readuntil`](crate::StreamReader::readuntil) and [`readline`](crate::StreamReader::readline).
///
/// It becomes an [`io::Error`] by `?`: `UnexpectedEof`, `InvalidData` or the error itself.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// The stream ended first.
    #[doc(alias = "IncompleteReadError")]
    Incomplete {
        /// What was there; it has been taken out of the stream.
        partial: Vec<u8>,
        /// How many bytes were asked for, if it was a number.
        expected: Option<usize>,
    },
    /// The separator did not come within the reader's limit.
    #[doc(alias = "LimitOverrunError")]
    LimitOverrun {
        /// This many bytes from the front hold no separator.
        consumed: usize,
    },
    /// The connection failed.
    Io(io::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Incomplete { partial, expected } => {
                write!(f, "the stream ended after {} bytes", partial.len())?;
                match expected {
                    Some(expected) => write!(f, " of {expected}"),
                    None => f.write_str(", before the separator"),
                }
            }
            ReadError::LimitOverrun { consumed } => {
                write!(f, "no separator within the limit, in {consumed} bytes")
            }
            ReadError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ReadError::Io(error) => Some(error),
            ReadError::Incomplete { .. } | ReadError::LimitOverrun { .. } => None,
        }
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        ReadError::Io(error)
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Incomplete { .. } => io::Error::new(io::ErrorKind::UnexpectedEof, error),
            ReadError::LimitOverrun { .. } => io::Error::new(io::ErrorKind::InvalidData, error),
            ReadError::Io(error) => error,
        }
    }
}

/// The same error once more: one loss of a connection is told to everybody who asks.
pub(crate) fn copy_of(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

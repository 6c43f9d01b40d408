//! The errors of the library: each says what was tried, and where.
//!
//! Expected outcomes (would-block, end of stream) are values, not errors; how a task ended is
//! [`JoinError`](crate::JoinError), beside the task. Nothing here carries a backtrace: the world
//! failed, not the program.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A call on a loop that its present state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoopError {
    /// The loop is running already.
    Running,
    /// Another loop runs on this thread; a thread turns one loop at a time.
    OtherLoopRunning,
    /// `stop()` ended the run before the future was complete.
    Stopped,
    /// The loop was shut down.
    Closed,
    /// Ctrl-C ended the run before the future was complete.
    Interrupted,
}

impl fmt::Display for LoopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LoopError::Running => "this loop is running already",
            LoopError::OtherLoopRunning => {
                "another loop is running on this thread; a thread turns one loop at a time"
            }
            LoopError::Stopped => "the loop was stopped before the future was complete",
            LoopError::Closed => "the loop is closed",
            LoopError::Interrupted => "interrupted by Ctrl-C",
        })
    }
}

impl std::error::Error for LoopError {}

/// A [`LoopFuture`](crate::LoopFuture) or its [`Promise`](crate::Promise) could not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FutError {
    /// A result was asked for before there was one, or set where there was an end already; or a
    /// [`TimeoutScope`](crate::TimeoutScope) was rescheduled that is not running.
    #[doc(alias = "InvalidStateError")]
    InvalidState,
    /// It was cancelled, or its promise was dropped: there will be no result.
    #[doc(alias = "CancelledError")]
    Cancelled,
    /// It belongs to another loop than the one that awaits it.
    OtherLoop,
}

impl fmt::Display for FutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FutError::InvalidState => "there is no result yet, or the end has come already",
            FutError::Cancelled => "the future was cancelled",
            FutError::OtherLoop => "the future belongs to another loop",
        })
    }
}

impl std::error::Error for FutError {}

/// A runtime could not be built.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// A setting is out of its range; the text names it and what is allowed.
    Config(String),
    /// The operating system refused something; the text says what was tried.
    Os(&'static str, io::Error),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::Config(what) => f.write_str(what),
            BuildError::Os(tried, error) => write!(f, "cannot {tried}: {error}"),
        }
    }
}

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BuildError::Config(_) => None,
            BuildError::Os(_, error) => Some(error),
        }
    }
}

/// A socket could not be bound, listened on, connected or registered.
#[derive(Debug)]
pub struct NetError {
    tried: &'static str,
    at: At,
    error: io::Error,
    attempts: Vec<NetError>,
}

/// What a call on the network was aimed at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Nowhere,
    Internet(SocketAddr),
    /// A socket file.
    Path(PathBuf),
    /// An abstract name, or a host and a port to look up.
    Name(String),
}

impl From<Option<SocketAddr>> for At {
    fn from(addr: Option<SocketAddr>) -> Self {
        addr.map_or(At::Nowhere, At::Internet)
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Nowhere => Ok(()),
            At::Internet(addr) => addr.fmt(f),
            At::Path(path) => path.display().fmt(f),
            At::Name(name) => f.write_str(name),
        }
    }
}

impl NetError {
    pub(crate) fn new(tried: &'static str, at: impl Into<At>, error: io::Error) -> Self {
        NetError {
            tried,
            at: at.into(),
            error,
            attempts: Vec::new(),
        }
    }

    /// The loops that were to do it are closed.
    pub(crate) fn closed(tried: &'static str, at: impl Into<At>) -> Self {
        let closed = io::Error::new(io::ErrorKind::NotConnected, "the runtime is closed");
        NetError::new(tried, at, closed)
    }

    /// CONN-03: one failure is itself, and so are several that say the same; others become one error
    /// that tells them all.
    pub(crate) fn of_attempts(tried: &'static str, mut attempts: Vec<NetError>) -> Self {
        let texts: Vec<String> = attempts.iter().map(NetError::to_string).collect();
        let Some(first) = attempts.first() else {
            let nothing = io::Error::new(io::ErrorKind::InvalidInput, "no address was given");
            return NetError::new(tried, At::Nowhere, nothing);
        };
        if texts.iter().all(|text| *text == texts[0]) {
            return attempts.swap_remove(0);
        }
        let error = io::Error::new(first.kind(), texts.join("; "));
        NetError {
            attempts,
            ..NetError::new(tried, At::Nowhere, error)
        }
    }

    /// The kind of the underlying error; of the first one, if several addresses were tried.
    pub fn kind(&self) -> io::ErrorKind {
        self.error.kind()
    }

    /// The address that was tried, if there was one.
    pub fn addr(&self) -> Option<SocketAddr> {
        match self.at {
            At::Internet(addr) => Some(addr),
            _ => None,
        }
    }

    /// The socket file that was tried, if there was one.
    pub fn path(&self) -> Option<&Path> {
        match &self.at {
            At::Path(path) => Some(path),
            _ => None,
        }
    }

    /// What each address said, in the order of the addresses, if there were several and they did not
    /// all say the same.
    #[doc(alias = "all_errors")]
    pub fn attempts(&self) -> &[NetError] {
        &self.attempts
    }

    /// The error of the operating system.
    pub fn io_error(&self) -> &io::Error {
        &self.error
    }
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            At::Nowhere => write!(f, "cannot {}: {}", self.tried, self.error),
            at => write!(f, "cannot {} {at}: {}", self.tried, self.error),
        }
    }
}

impl std::error::Error for NetError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<NetError> for io::Error {
    fn from(error: NetError) -> Self {
        io::Error::new(error.kind(), error)
    }
}

/// The future given to [`timeout`](crate::timeout) was not complete in time, and was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(alias = "TimeoutError")]
pub struct TimedOut {
    /// The time it was given.
    pub after: Duration,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "timed out after {:?}", self.after)
    }
}

impl std::error::Error for TimedOut {}

impl From<TimedOut> for io::Error {
    fn from(error: TimedOut) -> Self {
        io::Error::new(io::ErrorKind::TimedOut, error)
    }
}

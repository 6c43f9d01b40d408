//! The errors of the library: each says what was tried, and where.
//!
//! Expected outcomes (would-block, end of stream) are values, not errors; how a task ended is
//! [`JoinError`](crate::JoinError), beside the task. Nothing here carries a backtrace: the world
//! failed, not the program.

use std::fmt;
use std::io;
use std::net::SocketAddr;
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
    addr: Option<SocketAddr>,
    error: io::Error,
}

impl NetError {
    pub(crate) fn new(tried: &'static str, addr: Option<SocketAddr>, error: io::Error) -> Self {
        NetError { tried, addr, error }
    }

    /// The loops that were to do it are closed.
    pub(crate) fn closed(tried: &'static str, addr: Option<SocketAddr>) -> Self {
        let closed = io::Error::new(io::ErrorKind::NotConnected, "the runtime is closed");
        NetError::new(tried, addr, closed)
    }

    /// The kind of the underlying error.
    pub fn kind(&self) -> io::ErrorKind {
        self.error.kind()
    }

    /// The address that was tried, if there was one.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.addr
    }

    /// The error of the operating system.
    pub fn io_error(&self) -> &io::Error {
        &self.error
    }
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addr {
            Some(addr) => write!(f, "cannot {} {addr}: {}", self.tried, self.error),
            None => write!(f, "cannot {}: {}", self.tried, self.error),
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

//! The name of one end of a stream connection, of whatever kind it is.
//!
//! asyncio's `peername` and `sockname`. A name is a value: it is read from the kernel once and says
//! nothing about the socket's present state.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketAddrUnix};

/// The name of one end of a stream connection.
///
/// ```
/// use garland::SocketName;
///
/// let name = SocketName::from(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
/// assert_eq!(name.to_string(), "127.0.0.1:80");
/// assert_eq!(SocketName::Unnamed.as_inet(), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketName {
    /// An internet socket.
    Inet(SocketAddr),
    /// A Unix socket bound to a file.
    Path(Box<Path>),
    /// A Unix socket in the abstract namespace; the name stands without its leading zero byte.
    Abstract(Box<[u8]>),
    /// Nothing has a name there: a Unix client that was not bound, one of a pair, the end of a pipe.
    Unnamed,
}

impl SocketName {
    /// The internet address, if it is one.
    pub fn as_inet(&self) -> Option<SocketAddr> {
        match self {
            SocketName::Inet(addr) => Some(*addr),
            _ => None,
        }
    }

    /// The file of a Unix socket, if it is bound to one.
    pub fn as_path(&self) -> Option<&Path> {
        match self {
            SocketName::Path(path) => Some(path),
            _ => None,
        }
    }

    /// What the other end of `socket` is called.
    pub(crate) fn of_peer(socket: impl AsFd) -> io::Result<Self> {
        rustix::net::getpeername(socket)?.try_into()
    }

    /// What `socket` itself is called.
    pub(crate) fn of_own(socket: impl AsFd) -> io::Result<Self> {
        Some(rustix::net::getsockname(socket)?).try_into()
    }
}

impl From<SocketAddr> for SocketName {
    fn from(addr: SocketAddr) -> Self {
        SocketName::Inet(addr)
    }
}

/// What the kernel gave: for a Unix client it may have no name at all to give.
impl TryFrom<Option<SocketAddrAny>> for SocketName {
    type Error = io::Error;

    fn try_from(name: Option<SocketAddrAny>) -> io::Result<Self> {
        let Some(name) = name else {
            return Ok(SocketName::Unnamed);
        };
        let unix = match SocketAddr::try_from(name.clone()) {
            Ok(addr) => return Ok(SocketName::Inet(addr)),
            Err(Errno::AFNOSUPPORT) => SocketAddrUnix::try_from(name)?,
            Err(error) => return Err(error.into()),
        };
        Ok(match (unix.path(), unix.abstract_name()) {
            (Some(path), _) => {
                SocketName::Path(Path::new(OsStr::from_bytes(path.to_bytes())).into())
            }
            (None, Some(name)) => SocketName::Abstract(name.into()),
            (None, None) => SocketName::Unnamed,
        })
    }
}

impl fmt::Display for SocketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketName::Inet(addr) => addr.fmt(f),
            SocketName::Path(path) => path.display().fmt(f),
            SocketName::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
            SocketName::Unnamed => f.write_str("(unnamed)"),
        }
    }
}

/// The same size as an internet address: a connection keeps one.
const _: () = assert!(size_of::<SocketName>() == size_of::<SocketAddr>());

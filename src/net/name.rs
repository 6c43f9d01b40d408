//! The name of one end of a stream connection, of whatever kind it is.
//!
//! asyncio's `peername` and `sockname`. A name is a value: it is read from the kernel once and says
//! nothing about the socket's present state.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::net::SocketAddrAny;
use socket2::{SockAddr, SockRef};

use crate::error::At;

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
        Ok(SockRef::from(&socket).peer_addr()?.into())
    }

    /// What the peer that came with an accepted `socket` is called: given with it, or asked for.
    pub(crate) fn of_accepted(socket: impl AsFd, peer: Option<SocketAddrAny>) -> io::Result<Self> {
        match peer.map(SocketAddr::try_from) {
            Some(Ok(addr)) => Ok(SocketName::Inet(addr)),
            _ => SocketName::of_peer(socket),
        }
    }

    /// What `socket` itself is called.
    pub(crate) fn of_own(socket: impl AsFd) -> io::Result<Self> {
        Ok(SockRef::from(&socket).local_addr()?.into())
    }
}

impl From<SocketAddr> for SocketName {
    fn from(addr: SocketAddr) -> Self {
        SocketName::Inet(addr)
    }
}

impl From<&SocketName> for At {
    fn from(name: &SocketName) -> Self {
        match name {
            SocketName::Inet(addr) => At::Internet(*addr),
            SocketName::Path(path) => At::Path(path.to_path_buf()),
            SocketName::Abstract(_) | SocketName::Unnamed => At::Name(name.to_string()),
        }
    }
}

/// What the kernel gave. Not by way of rustix: it takes no name for an empty one, and a path of the
/// full 108 bytes, which any client may bind, for a reason to panic.
impl From<SockAddr> for SocketName {
    fn from(addr: SockAddr) -> Self {
        if let Some(addr) = addr.as_socket() {
            SocketName::Inet(addr)
        } else if let Some(path) = addr.as_pathname() {
            SocketName::Path(path.into())
        } else if let Some(name) = addr.as_abstract_namespace() {
            SocketName::Abstract(name.into())
        } else {
            SocketName::Unnamed
        }
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

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    use crate::net::SocketName;

    #[test]
    fn trn_19_both_ends_of_every_kind_of_socket_have_a_name() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port exists");
        let addr = listener.local_addr().expect("it is bound");
        let client = TcpStream::connect(addr).expect("it listens");
        let name = SocketName::of_peer(&client).expect("connected");
        assert_eq!((name.as_inet(), name.as_path()), (Some(addr), None));
        let own = SocketName::of_own(&client).expect("connected");
        assert_eq!(own.as_inet(), client.local_addr().ok());

        let path = std::env::temp_dir().join(format!("garland-name-{}", std::process::id()));
        let listener = UnixListener::bind(&path).expect("nobody has this name");
        let client = UnixStream::connect(&path).expect("it listens");
        let (accepted, _) = listener.accept().expect("somebody came");
        let name = SocketName::of_peer(&client).expect("connected");
        assert_eq!((name.as_path(), name.as_inet()), (Some(&*path), None));
        assert_eq!(name.to_string(), path.display().to_string());
        assert_eq!(SocketName::of_own(&accepted).ok(), Some(name));
        let unnamed = SocketName::of_peer(&accepted).expect("connected");
        assert_eq!(unnamed, SocketName::Unnamed);
        std::fs::remove_file(&path).expect("it was bound");

        let name = format!("garland-name-{}\n", std::process::id());
        let addr = SocketAddr::from_abstract_name(&name).expect("it is short");
        let listener = UnixListener::bind_addr(&addr).expect("nobody has this name");
        let own = SocketName::of_own(&listener).expect("it is bound");
        assert_eq!(own, SocketName::Abstract(name.as_bytes().into()));
        assert_eq!(own.to_string(), format!("@{}", name.escape_default()));

        let (one, _other) = UnixStream::pair().expect("a pair");
        assert_eq!(SocketName::of_peer(&one).ok(), Some(SocketName::Unnamed));
    }

    #[test]
    fn trn_19_a_path_of_the_full_length_is_a_name_as_well() {
        let mut path = std::env::temp_dir()
            .into_os_string()
            .into_string()
            .expect("text");
        path.push_str(&format!("/garland-{}-", std::process::id()));
        path.push_str(&"x".repeat(108 - path.len()));
        let addr = rustix::net::SocketAddrUnix::new(&path).expect("108 bytes fit, just");
        let family = rustix::net::AddressFamily::UNIX;
        let kind = rustix::net::SocketType::STREAM;
        let socket = rustix::net::socket(family, kind, None).expect("a socket can be made");
        rustix::net::bind(&socket, &addr).expect("nobody has this name");
        let name = SocketName::of_own(&socket);
        std::fs::remove_file(&path).expect("it was bound");
        let name = name.expect("it is bound");
        assert_eq!(name.as_path(), Some(path.as_ref()));
    }

    #[test]
    fn a_lost_connection_has_no_name_to_ask_for() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port exists");
        let refused = SocketName::of_peer(&listener).expect_err("it is connected to nobody");
        assert_eq!(refused.kind(), std::io::ErrorKind::NotConnected);
    }
}

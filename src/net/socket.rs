//! Every socket option, in one place.
//!
//! Sockets are non-blocking and close-on-exec from their birth. IPv6 sockets are IPv6-only, whatever
//! the system's default, so that `[::]` and `0.0.0.0` can be served side by side in either order.

use std::io::{self, IoSlice};
use std::net::{AddrParseError, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::str::FromStr;

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::error::NetError;

/// Where and how a server listens.
///
/// ```
/// use garland::ListenOptions;
///
/// let listen: ListenOptions = "127.0.0.1:0".parse()?;
/// let listen = listen.backlog(128).max_connections(10_000);
/// # assert_eq!(listen.addrs().len(), 1);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    pub(crate) addrs: Vec<SocketAddr>,
    pub(crate) backlog: u32,
    pub(crate) nodelay: bool,
    pub(crate) max_connections: usize,
    pub(crate) share_port: bool,
}

impl ListenOptions {
    /// Listens on one address. Port 0 lets the system choose a port, the same for every loop.
    pub fn new(addr: SocketAddr) -> Self {
        ListenOptions {
            addrs: vec![addr],
            backlog: 1024,
            nodelay: true,
            max_connections: usize::MAX,
            share_port: false,
        }
    }

    /// Listens on one address more.
    #[must_use]
    pub fn and(mut self, addr: SocketAddr) -> Self {
        self.addrs.push(addr);
        self
    }

    /// Connections that the kernel keeps waiting for each listener. Default 1024; the system has a
    /// limit of its own (`net.core.somaxconn`).
    #[must_use]
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.backlog = backlog;
        self
    }

    /// Sends small writes at once (`TCP_NODELAY`). Default: yes.
    #[must_use]
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// Connections open at a time, over all loops; beyond it accepting pauses and the kernel's queue
    /// fills. Default: no limit.
    #[must_use]
    pub fn max_connections(mut self, max_connections: usize) -> Self {
        self.max_connections = max_connections;
        self
    }

    /// Allows other processes of the same user to listen on the same port and take a share of the
    /// connections, as for a rolling restart. Default: no, the port must be free.
    #[must_use]
    pub fn share_port(mut self, share_port: bool) -> Self {
        self.share_port = share_port;
        self
    }

    /// The addresses.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Binds `count` listeners to each address. The result has one row an address.
    pub(crate) fn bind(&self, count: usize) -> Result<Vec<Vec<ListenSocket>>, NetError> {
        let rows = self.addrs.iter().map(|addr| self.bind_row(*addr, count));
        rows.collect()
    }

    fn bind_row(&self, addr: SocketAddr, count: usize) -> Result<Vec<ListenSocket>, NetError> {
        if !self.share_port && addr.port() != 0 {
            // The listeners share their port, and so a second server of the same user could join
            // unnoticed and take half of the connections. A socket that does not share cannot be
            // bound while anybody listens.
            drop(bind_to(addr, PortUse::Alone)?);
        }
        let first = listen_on(addr, self.backlog, PortUse::Shared)?;
        let resolved = first.addr;
        let mut row = vec![first];
        for _ in 1..count {
            row.push(listen_on(resolved, self.backlog, PortUse::Shared)?);
        }
        Ok(row)
    }
}

impl From<SocketAddr> for ListenOptions {
    fn from(addr: SocketAddr) -> Self {
        ListenOptions::new(addr)
    }
}

impl FromStr for ListenOptions {
    type Err = AddrParseError;

    fn from_str(addr: &str) -> Result<Self, AddrParseError> {
        addr.parse().map(ListenOptions::new)
    }
}

/// A listening socket and the address it really got.
#[derive(Debug)]
pub(crate) struct ListenSocket {
    socket: Socket,
    pub(crate) addr: SocketAddr,
}

impl AsFd for ListenSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortUse {
    Alone,
    Shared,
}

pub(crate) fn listen_on(
    addr: SocketAddr,
    backlog: u32,
    port: PortUse,
) -> Result<ListenSocket, NetError> {
    let socket = bind_to(addr, port)?;
    let tried = |tried| move |error| NetError::new(tried, Some(addr), error);
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    socket.listen(backlog).map_err(tried("listen on"))?;
    let addr = socket.local_addr().and_then(std_addr);
    let addr = addr.map_err(tried("read the address bound for"))?;
    Ok(ListenSocket { socket, addr })
}

fn bind_to(addr: SocketAddr, port: PortUse) -> Result<Socket, NetError> {
    let tried = |tried| move |error| NetError::new(tried, Some(addr), error);
    let socket = new_stream_socket(addr).map_err(tried("make a socket for"))?;
    let options = || -> io::Result<()> {
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(port == PortUse::Shared)?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        Ok(())
    };
    options().map_err(tried("set the options of a socket for"))?;
    socket.bind(&addr.into()).map_err(tried("bind"))?;
    Ok(socket)
}

fn new_stream_socket(addr: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))
}

fn std_addr(addr: SockAddr) -> io::Result<SocketAddr> {
    let unexpected = || io::Error::new(io::ErrorKind::InvalidData, "not an internet address");
    addr.as_socket().ok_or_else(unexpected)
}

/// Accepts one connection that is waiting.
pub(crate) fn accept(listener: impl AsFd, nodelay: bool) -> io::Result<(OwnedFd, SocketAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (fd, peer) = rustix::net::acceptfrom_with(listener, flags)?;
    // From here on an error closes the descriptor.
    let peer = peer.ok_or(rustix::io::Errno::CONNABORTED)?;
    let peer = SocketAddr::try_from(peer)?;
    if nodelay {
        rustix::net::sockopt::set_tcp_nodelay(&fd, true)?;
    }
    Ok((fd, peer))
}

/// Begins to connect; the socket becomes writable when it is decided.
pub(crate) fn start_connecting(addr: SocketAddr) -> io::Result<OwnedFd> {
    let socket = new_stream_socket(addr)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&addr.into()) {
        Ok(()) => {}
        Err(error)
            if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        // Interrupted: the connection is being made all the same.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

pub(crate) fn recv(socket: impl AsFd, buf: &mut [u8]) -> io::Result<usize> {
    let (received, _) = rustix::net::recv(socket, buf, RecvFlags::empty())?;
    Ok(received)
}

pub(crate) fn peek(socket: impl AsFd, buf: &mut [u8]) -> io::Result<usize> {
    let (received, _) = rustix::net::recv(socket, buf, RecvFlags::PEEK)?;
    Ok(received)
}

/// Without a signal if the peer is gone: the error says so.
pub(crate) fn send(socket: impl AsFd, data: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(socket, data, SendFlags::NOSIGNAL)?)
}

/// Several pieces in one call, otherwise as [`send`].
pub(crate) fn send_gathered(socket: impl AsFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut nothing = SendAncillaryBuffer::default();
    Ok(rustix::net::sendmsg(
        socket,
        pieces,
        &mut nothing,
        SendFlags::NOSIGNAL,
    )?)
}

pub(crate) fn local_addr(socket: impl AsFd) -> io::Result<SocketAddr> {
    Ok(SocketAddr::try_from(rustix::net::getsockname(socket)?)?)
}

pub(crate) fn peer_addr(socket: impl AsFd) -> io::Result<SocketAddr> {
    let peer = rustix::net::getpeername(socket)?;
    Ok(SocketAddr::try_from(
        peer.ok_or(rustix::io::Errno::NOTCONN)?,
    )?)
}

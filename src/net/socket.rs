//! Every socket option, in one place.
//!
//! Sockets are non-blocking and close-on-exec from their birth. IPv6 sockets are IPv6-only, whatever
//! the system's default, so that `[::]` and `0.0.0.0` can be served side by side in either order.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrAny, SocketFlags, SocketType,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::error::NetError;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortUse {
    Alone,
    Shared,
}

/// A TCP socket for the family of `addr`.
pub(crate) fn new_stream(addr: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))
}

pub(crate) fn new_unix_stream() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)
}

/// Two sockets that are connected with each other.
pub(crate) fn unix_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let (one, other) = Socket::pair(Domain::UNIX, kind, None)?;
    Ok((one.into(), other.into()))
}

/// For a socket that somebody else has made.
pub(crate) fn check_stream(socket: impl AsFd) -> io::Result<()> {
    match rustix::net::sockopt::socket_type(socket)? {
        SocketType::STREAM => Ok(()),
        other => {
            let what = format!("a stream socket is needed, this is of type {other:?}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, what))
        }
    }
}

/// Accepts one connection that is waiting. It inherits the options of the listener. A peer without a
/// name, as most are on Unix sockets, may have no address at all.
pub(crate) fn accept(listener: impl AsFd) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(rustix::net::acceptfrom_with(listener, flags)?)
}

/// Begins to connect; the socket becomes writable when it is decided.
pub(crate) fn start_connecting(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&addr.into()) {
        Ok(()) => Ok(()),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => Ok(()),
        // Interrupted: the connection is being made all the same.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        Err(error) => Err(error),
    }
}

/// Opens a socket for datagrams, of the family of `at`, bound to `local` if there is one.
///
/// Never with `SO_REUSEADDR`: for datagrams it would let anybody bind to the same port.
pub(crate) fn open_datagram(
    at: SocketAddr,
    local: Option<SocketAddr>,
    port: PortUse,
) -> Result<OwnedFd, NetError> {
    let tried = |tried| move |error| NetError::new(tried, Some(at), error);
    let socket = new_datagram_socket(at).map_err(tried("make a socket for"))?;
    let options = || -> io::Result<()> {
        socket.set_reuse_port(port == PortUse::Shared)?;
        if at.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        Ok(())
    };
    options().map_err(tried("set the options of a socket for"))?;
    if let Some(local) = local {
        socket.bind(&local.into()).map_err(tried("bind"))?;
    }
    Ok(socket.into())
}

pub(crate) fn new_datagram_socket(family_of: SocketAddr) -> io::Result<Socket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    Socket::new(Domain::for_address(family_of), kind, Some(Protocol::UDP))
}

pub(crate) fn set_broadcast(socket: impl AsFd, allow: bool) -> io::Result<()> {
    SockRef::from(&socket).set_broadcast(allow)
}

/// Fixes the peer of a datagram socket: decided at once, nothing is sent.
pub(crate) fn connect_datagram(socket: impl AsFd, remote: SocketAddr) -> io::Result<()> {
    Ok(rustix::net::connect(socket, &remote)?)
}

/// One datagram; what does not fit is cut off, in the manner of the system.
pub(crate) fn recv_from(socket: impl AsFd, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    receive_from(socket, buf, RecvFlags::empty())
}

/// One datagram, left to be received again.
pub(crate) fn peek_from(socket: impl AsFd, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    receive_from(socket, buf, RecvFlags::PEEK)
}

fn receive_from(
    socket: impl AsFd,
    buf: &mut [u8],
    flags: RecvFlags,
) -> io::Result<(usize, SocketAddr)> {
    let (received, _, from) = rustix::net::recvfrom(socket, buf, flags)?;
    // A datagram of the internet families always has a source.
    let from = from.ok_or(Errno::AFNOSUPPORT)?;
    Ok((received, SocketAddr::try_from(from)?))
}

pub(crate) fn send_to(socket: impl AsFd, data: &[u8], to: SocketAddr) -> io::Result<usize> {
    Ok(rustix::net::sendto(socket, data, SendFlags::NOSIGNAL, &to)?)
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
pub(crate) fn send_gathered(
    socket: impl AsFd,
    pieces: &[IoSlice<'_>],
) -> rustix::io::Result<usize> {
    let mut nothing = SendAncillaryBuffer::default();
    rustix::net::sendmsg(socket, pieces, &mut nothing, SendFlags::NOSIGNAL)
}

pub(crate) fn local_addr(socket: impl AsFd) -> io::Result<SocketAddr> {
    Ok(SocketAddr::try_from(rustix::net::getsockname(socket)?)?)
}

pub(crate) fn peer_addr(socket: impl AsFd) -> io::Result<SocketAddr> {
    let peer = rustix::net::getpeername(socket)?;
    Ok(SocketAddr::try_from(peer.ok_or(Errno::NOTCONN)?)?)
}

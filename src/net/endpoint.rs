//! Where a datagram endpoint sits, and opening its sockets.
//!
//! Several sockets on one port, one a loop: the kernel chooses by a hash of the addresses of a
//! datagram, so the datagrams of one flow keep their order as long as no socket joins or leaves
//! (MC-10).

use std::io;
use std::net::{AddrParseError, IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::str::FromStr;

use crate::error::NetError;
use crate::net::batch::BATCH_MAX;
use crate::net::socket::{self, PortUse};

/// Where a datagram endpoint sits and whom it talks to.
///
/// Of several local or remote addresses the first that can be used is used; a local and a remote one
/// must be of the same family.
///
/// ```
/// use garland::EndpointOptions;
///
/// let server = EndpointOptions::new().local("127.0.0.1:7007".parse()?);
/// let client = EndpointOptions::new().remote("127.0.0.1:7007".parse()?);
/// let discovery = EndpointOptions::new().local("0.0.0.0:0".parse()?).allow_broadcast(true);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug)]
pub struct EndpointOptions {
    local: Vec<SocketAddr>,
    remote: Vec<SocketAddr>,
    reuse_port: bool,
    allow_broadcast: bool,
    batch: usize,
    socket: Option<UdpSocket>,
}

impl EndpointOptions {
    /// No address yet: at least one is needed.
    pub fn new() -> Self {
        EndpointOptions {
            local: Vec::new(),
            remote: Vec::new(),
            reuse_port: false,
            allow_broadcast: false,
            batch: BATCH_MAX,
            socket: None,
        }
    }

    /// Binds to this address; port 0 lets the system choose. Called again: another one to try.
    #[must_use]
    #[doc(alias = "local_addr")]
    pub fn local(mut self, addr: SocketAddr) -> Self {
        self.local.push(addr);
        self
    }

    /// Talks to this address alone: datagrams go there without an address, and others are not
    /// received. Called again: another one to try.
    #[must_use]
    #[doc(alias = "remote_addr")]
    pub fn remote(mut self, addr: SocketAddr) -> Self {
        self.remote.push(addr);
        self
    }

    /// Allows other sockets of the same user to bind to the same port and take a share of the
    /// datagrams. Default: no, the port must be free.
    #[must_use]
    pub fn reuse_port(mut self, reuse_port: bool) -> Self {
        self.reuse_port = reuse_port;
        self
    }

    /// Allows sending to broadcast addresses. Default: no.
    #[must_use]
    pub fn allow_broadcast(mut self, allow_broadcast: bool) -> Self {
        self.allow_broadcast = allow_broadcast;
        self
    }

    /// Datagrams received in one turn, with one system call: 1 to 32, values outside are moved to the
    /// nearest. Default 32. Fewer let other work of the loop in more often.
    #[must_use]
    pub fn batch(mut self, batch: usize) -> Self {
        self.batch = batch.clamp(1, BATCH_MAX);
        self
    }

    pub(crate) fn batch_len(&self) -> usize {
        self.batch
    }

    /// Opens one socket, for one loop.
    pub(crate) fn open(self) -> Result<DatagramSocket, NetError> {
        if self.socket.is_some() {
            return self.adopt();
        }
        let mut row = self.open_row(1)?;
        Ok(row.pop().expect("a row of one"))
    }

    /// Opens `count` sockets on the same local address, one for each loop.
    pub(crate) fn open_row(&self, count: usize) -> Result<Vec<DatagramSocket>, NetError> {
        if self.socket.is_some() || (count > 1 && !self.remote.is_empty()) {
            return Err(invalid(
                "a given socket or a remote address is for one loop, not for a row of them",
            ));
        }
        let mut first_error = None;
        for (local, remote) in self.combinations() {
            match self.bind_row(local, remote, count) {
                Ok(row) => return Ok(row),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| {
            let is_bare = self.local.is_empty() && self.remote.is_empty();
            invalid(match is_bare {
                true => "neither a local nor a remote address was given",
                false => "no local address has the family of a remote one",
            })
        }))
    }

    fn combinations(&self) -> Vec<(Option<SocketAddr>, Option<SocketAddr>)> {
        let some = |addrs: &[SocketAddr]| addrs.iter().copied().map(Some).collect::<Vec<_>>();
        let locals = some(&self.local);
        let remotes = some(&self.remote);
        match (locals.is_empty(), remotes.is_empty()) {
            (true, _) => remotes.into_iter().map(|remote| (None, remote)).collect(),
            (_, true) => locals.into_iter().map(|local| (local, None)).collect(),
            _ => locals
                .iter()
                .flat_map(|local| remotes.iter().map(|remote| (*local, *remote)))
                .filter(|(l, r)| l.map(|l| l.is_ipv4()) == r.map(|r| r.is_ipv4()))
                .collect(),
        }
    }

    fn bind_row(
        &self,
        local: Option<SocketAddr>,
        remote: Option<SocketAddr>,
        count: usize,
    ) -> Result<Vec<DatagramSocket>, NetError> {
        let Some(local) = local else {
            return Ok(vec![self.open_at(None, remote, PortUse::Alone)?]);
        };
        if count == 1 && !self.reuse_port {
            return Ok(vec![self.open_at(Some(local), remote, PortUse::Alone)?]);
        }
        if !self.reuse_port && local.port() != 0 {
            // As for listeners: what shares its port could be joined, or join somebody, unnoticed.
            drop(self.open_at(Some(local), None, PortUse::Alone)?);
        }
        let first = self.open_at(Some(local), remote, PortUse::Shared)?;
        let resolved = first.addr;
        let mut row = vec![first];
        for _ in 1..count {
            row.push(self.open_at(Some(resolved), remote, PortUse::Shared)?);
        }
        Ok(row)
    }

    fn open_at(
        &self,
        local: Option<SocketAddr>,
        remote: Option<SocketAddr>,
        port: PortUse,
    ) -> Result<DatagramSocket, NetError> {
        let at = local.or(remote).expect("a combination has one of them");
        let fd = socket::open_datagram(at, local, port)?;
        let tried = |tried, addr| move |error| NetError::new(tried, addr, error);
        if self.allow_broadcast {
            let allowed = socket::set_broadcast(&fd, true);
            allowed.map_err(tried("allow broadcast for", Some(at)))?;
        }
        if let Some(remote) = remote {
            let connected = socket::connect_datagram(&fd, remote);
            connected.map_err(tried("connect to", Some(remote)))?;
        }
        let addr = socket::local_addr(&fd);
        let addr = addr.map_err(tried("read the address bound for", Some(at)))?;
        Ok(DatagramSocket { fd, addr, remote })
    }

    /// Takes over the socket that was given.
    fn adopt(self) -> Result<DatagramSocket, NetError> {
        let is_bare = self.local.is_empty() && self.remote.is_empty();
        if !is_bare || self.reuse_port || self.allow_broadcast {
            return Err(invalid(
                "a given socket has its addresses and options already",
            ));
        }
        let socket = self.socket.expect("asked by the caller");
        let take_over = || -> io::Result<DatagramSocket> {
            socket.set_nonblocking(true)?;
            let addr = socket.local_addr()?;
            let remote = socket.peer_addr().ok();
            let fd = OwnedFd::from(socket);
            Ok(DatagramSocket { fd, addr, remote })
        };
        take_over().map_err(|error| NetError::new("take over a socket", None, error))
    }
}

impl Default for EndpointOptions {
    fn default() -> Self {
        EndpointOptions::new()
    }
}

/// A local address alone.
impl From<SocketAddr> for EndpointOptions {
    fn from(addr: SocketAddr) -> Self {
        EndpointOptions::new().local(addr)
    }
}

/// A local host and port: `([127, 0, 0, 1], 0)`.
impl<I: Into<IpAddr>> From<(I, u16)> for EndpointOptions {
    fn from(local: (I, u16)) -> Self {
        EndpointOptions::from(SocketAddr::from(local))
    }
}

/// A local address alone, as in `127.0.0.1:0`.
impl FromStr for EndpointOptions {
    type Err = AddrParseError;

    fn from_str(addr: &str) -> Result<Self, AddrParseError> {
        addr.parse::<SocketAddr>().map(EndpointOptions::from)
    }
}

/// A socket that was opened elsewhere, with its addresses and options; it cannot be given any here.
impl From<UdpSocket> for EndpointOptions {
    fn from(socket: UdpSocket) -> Self {
        EndpointOptions {
            socket: Some(socket),
            ..EndpointOptions::new()
        }
    }
}

/// An open socket, and the addresses it really has.
#[derive(Debug)]
pub(crate) struct DatagramSocket {
    pub(crate) fd: OwnedFd,
    pub(crate) addr: SocketAddr,
    pub(crate) remote: Option<SocketAddr>,
}

fn invalid(what: &'static str) -> NetError {
    let error = io::Error::new(io::ErrorKind::InvalidInput, what);
    NetError::new("open a datagram endpoint", None, error)
}

//! Where and how a server listens, and the sockets that come of it.
//!
//! Binding is done at once and on the calling thread, so that an error reaches whoever asked for the
//! server; listening begins with [`ListenSocket::listen`]. A loop gets a listener of its own for each
//! address (`SO_REUSEPORT`: the kernel spreads the connections), or, for a socket that exists once,
//! a descriptor of its own for the same queue: then the loop that comes first accepts.

use std::io;
use std::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::str::FromStr;
use std::sync::Arc;

use rustix::io::Errno;
use socket2::{SockRef, Socket};

use crate::error::NetError;
use crate::net::connect::look_up;
use crate::net::name::SocketName;
use crate::net::socket::{self, PortUse};
use crate::net::socket_file::SocketFile;

/// Connections that the kernel keeps waiting, if nothing else is asked for. asyncio's 100 is less
/// than one burst of clients at a restart; the system's own limit is 4096 today.
pub(crate) const BACKLOG: u32 = 1024;

/// Where and how a TCP server listens.
///
/// ```
/// use garland::ListenOptions;
///
/// let listen: ListenOptions = "127.0.0.1:0".parse()?;
/// let listen = listen.backlog(128).max_connections(10_000);
/// # assert_eq!(listen.addrs().len(), 1);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ListenOptions {
    addrs: Vec<SocketAddr>,
    /// Instead of addresses.
    socket: Option<Arc<OwnedFd>>,
    nodelay: bool,
    keep_alive: bool,
    reuse_address: bool,
    reuse_port: bool,
    common: Common,
}

/// What servers of every kind of socket have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Common {
    pub(crate) backlog: u32,
    pub(crate) max_connections: usize,
    pub(crate) start_serving: bool,
    pub(crate) balance: bool,
}

impl Default for Common {
    fn default() -> Self {
        Common {
            backlog: BACKLOG,
            max_connections: usize::MAX,
            start_serving: true,
            balance: true,
        }
    }
}

impl ListenOptions {
    /// Listens on one address. Port 0 lets the system choose a port, the same for every loop.
    pub fn new(addr: SocketAddr) -> Self {
        ListenOptions::on(vec![addr], None)
    }

    /// Listens on all interfaces: on IPv4 and on IPv6, whichever of them this machine has.
    ///
    /// With port 0 each of the two gets a port of its own.
    pub fn all_interfaces(port: u16) -> Self {
        ListenOptions::on(all_interfaces(port).to_vec(), None)
    }

    /// Listens on every address of these hosts: names, which are looked up without blocking the
    /// loop, or addresses. An empty name means all interfaces, and so do no hosts at all.
    ///
    /// # Errors
    /// A name that cannot be looked up.
    ///
    /// ```
    /// # let runtime = garland::Builder::new().loops(1).build()?;
    /// runtime.block_on(async {
    ///     let listen = garland::ListenOptions::hosts(["127.0.0.1", "::1"], 8080).await?;
    ///     assert_eq!(listen.addrs().len(), 2);
    ///     Ok::<(), garland::NetError>(())
    /// })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn hosts<'a>(
        hosts: impl IntoIterator<Item = &'a str>,
        port: u16,
    ) -> Result<Self, NetError> {
        let hosts: Vec<&str> = hosts.into_iter().collect();
        let mut addrs = Vec::new();
        for host in &hosts {
            match *host {
                "" => addrs.extend(all_interfaces(port)),
                host => addrs.extend(look_up("listen on", host, port).await?),
            }
        }
        if hosts.is_empty() {
            addrs.extend(all_interfaces(port));
        }
        Ok(ListenOptions::on(addrs, None))
    }

    /// Listens on a socket that is bound already, as one that was inherited. All loops accept from its
    /// one queue. It is closed with the server, once the clones of these options are gone.
    #[doc(alias = "sock")]
    pub fn socket(socket: impl Into<OwnedFd>) -> Self {
        ListenOptions::on(Vec::new(), Some(Arc::new(socket.into())))
    }

    fn on(addrs: Vec<SocketAddr>, socket: Option<Arc<OwnedFd>>) -> Self {
        ListenOptions {
            addrs,
            socket,
            nodelay: true,
            keep_alive: false,
            reuse_address: true,
            reuse_port: false,
            common: Common::default(),
        }
    }

    /// Listens on one address more. An address that is there already is bound once.
    #[must_use]
    pub fn and(mut self, addr: SocketAddr) -> Self {
        self.addrs.push(addr);
        self
    }

    /// Connections that the kernel keeps waiting for each listener. Default 1024; the system has a
    /// limit of its own (`net.core.somaxconn`).
    #[must_use]
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.common.backlog = backlog;
        self
    }

    /// Sends small writes at once (`TCP_NODELAY`). Default: yes.
    #[must_use]
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// Asks silent peers now and then whether they are still there (`SO_KEEPALIVE`). Default: no.
    #[must_use]
    pub fn keep_alive(mut self, keep_alive: bool) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// Connections open at a time, over all loops; beyond it accepting pauses and the kernel's queue
    /// fills. Default: no limit.
    #[must_use]
    pub fn max_connections(mut self, max_connections: usize) -> Self {
        self.common.max_connections = max_connections;
        self
    }

    /// Binds although old connections of the port still linger (`SO_REUSEADDR`). Default: yes.
    #[must_use]
    pub fn reuse_address(mut self, reuse_address: bool) -> Self {
        self.reuse_address = reuse_address;
        self
    }

    /// Allows other servers of the same user to listen on the same port and take a share of the
    /// connections, as for a rolling restart (`SO_REUSEPORT`). Default: no, the port must be free.
    #[must_use]
    pub fn reuse_port(mut self, reuse_port: bool) -> Self {
        self.reuse_port = reuse_port;
        self
    }

    /// Whether to listen at once. Default: yes; otherwise the addresses are only bound, and clients
    /// refused, until [`Server::start_serving`](crate::Server::start_serving).
    #[must_use]
    pub fn start_serving(mut self, start_serving: bool) -> Self {
        self.common.start_serving = start_serving;
        self
    }

    /// Whether a loop that accepts a connection gives it to another, if it would otherwise have more
    /// than that one by one and 12 %. Nothing has been made for it then. Later a connection with callbacks never moves;
    /// the socket of a task may leave a loop that is stuck. Default: yes; otherwise it stays where the kernel's hash
    /// of the client's address puts it.
    #[must_use]
    pub fn balance(mut self, balance: bool) -> Self {
        self.common.balance = balance;
        self
    }

    /// The addresses. None if a socket was given.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Binds a listener for each of `count` loops to each address.
    pub(crate) fn bind(self, count: usize) -> Result<Bound, NetError> {
        let rows = match &self.socket {
            Some(_) if !self.addrs.is_empty() => {
                let both = "a socket was given as well: give either a socket or addresses";
                let error = io::Error::new(io::ErrorKind::InvalidInput, both);
                return Err(NetError::new("listen on", Some(self.addrs[0]), error));
            }
            Some(socket) => vec![self.share_given(socket, count)?],
            None => self.bind_addrs(count)?,
        };
        Ok(Bound::new(rows, self.common))
    }

    /// One row an address. SRV-04: an address that this machine lacks is skipped, if another is left.
    fn bind_addrs(&self, count: usize) -> Result<Vec<Vec<ListenSocket>>, NetError> {
        let mut rows = Vec::new();
        let mut missing = Vec::new();
        for (place, addr) in self.addrs.iter().enumerate() {
            if self.addrs[..place].contains(addr) {
                continue;
            }
            match self.bind_row(*addr, count) {
                Ok(row) => rows.push(row),
                Err(error) if is_missing(&error) => missing.push(error),
                Err(error) => return Err(error),
            }
        }
        if rows.is_empty() {
            return Err(NetError::of_attempts("listen", missing));
        }
        for error in missing {
            tracing::warn!(%error, "serving without an address");
        }
        Ok(rows)
    }

    fn bind_row(&self, addr: SocketAddr, count: usize) -> Result<Vec<ListenSocket>, NetError> {
        let mut port_use = PortUse::Shared;
        if !self.reuse_port && count == 1 {
            port_use = PortUse::Alone;
        } else if !self.reuse_port && addr.port() != 0 {
            // The listeners share their port, and so a second server of the same user could join
            // unnoticed and take half of the connections. A socket that does not share cannot be
            // bound while anybody listens.
            drop(self.bind_to(addr, PortUse::Alone)?);
        }
        let first = self.bind_to(addr, port_use)?;
        let resolved = socket::local_addr(&first)
            .map_err(|error| NetError::new("read the address bound for", Some(addr), error))?;
        let mut sockets = vec![first];
        for _ in 1..count {
            sockets.push(self.bind_to(resolved, port_use)?);
        }
        let listener = |socket| ListenSocket::new(socket, resolved.into(), None);
        Ok(sockets.into_iter().map(listener).collect())
    }

    fn bind_to(&self, addr: SocketAddr, port_use: PortUse) -> Result<Socket, NetError> {
        let tried = |tried| move |error| NetError::new(tried, Some(addr), error);
        let socket = socket::new_stream(addr).map_err(tried("make a socket for"))?;
        let options = || -> io::Result<()> {
            socket.set_reuse_address(self.reuse_address)?;
            socket.set_reuse_port(port_use == PortUse::Shared)?;
            self.set_inherited(&socket)?;
            if addr.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            Ok(())
        };
        options().map_err(tried("set the options of a socket for"))?;
        socket.bind(&addr.into()).map_err(tried("bind"))?;
        Ok(socket)
    }

    /// What is accepted inherits these, which saves a call for each connection.
    fn set_inherited(&self, socket: &impl AsFd) -> io::Result<()> {
        let socket = SockRef::from(socket);
        socket.set_tcp_nodelay(self.nodelay)?;
        socket.set_keepalive(self.keep_alive)
    }

    fn share_given(&self, socket: &OwnedFd, count: usize) -> Result<Vec<ListenSocket>, NetError> {
        let share = || -> io::Result<Vec<ListenSocket>> {
            socket::check_stream(socket)?;
            let addr = socket::local_addr(socket).map_err(|_other_family| {
                let what = "not a TCP socket: for a Unix socket there is create_unix_server";
                io::Error::new(io::ErrorKind::InvalidInput, what)
            })?;
            self.set_inherited(socket)?;
            share(socket, &addr.into(), None, count)
        };
        share().map_err(|error| NetError::new("listen on the socket given", None, error))
    }
}

impl From<SocketAddr> for ListenOptions {
    fn from(addr: SocketAddr) -> Self {
        ListenOptions::new(addr)
    }
}

/// An address and a port: `([127, 0, 0, 1], 7007)`.
impl<I: Into<IpAddr>> From<(I, u16)> for ListenOptions {
    fn from((host, port): (I, u16)) -> Self {
        ListenOptions::new(SocketAddr::new(host.into(), port))
    }
}

impl From<std::net::TcpListener> for ListenOptions {
    fn from(listener: std::net::TcpListener) -> Self {
        ListenOptions::socket(listener)
    }
}

impl FromStr for ListenOptions {
    type Err = AddrParseError;

    fn from_str(addr: &str) -> Result<Self, AddrParseError> {
        addr.parse().map(ListenOptions::new)
    }
}

/// SRV-03: a socket a family, and IPv6 sockets are IPv6-only.
fn all_interfaces(port: u16) -> [SocketAddr; 2] {
    let all: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    all.map(|ip| SocketAddr::new(ip, port))
}

/// No such address here, or no such family at all.
fn is_missing(error: &NetError) -> bool {
    let errno = Errno::from_io_error(error.io_error());
    matches!(errno, Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

/// A descriptor of the same socket for each of `count` loops.
pub(crate) fn share(
    socket: &OwnedFd,
    name: &SocketName,
    file: Option<&Arc<SocketFile>>,
    count: usize,
) -> io::Result<Vec<ListenSocket>> {
    rustix::io::ioctl_fionbio(socket, true)?;
    let one = |_| {
        let socket = Socket::from(socket.try_clone()?);
        Ok(ListenSocket::new(socket, name.clone(), file.cloned()))
    };
    (0..count).map(one).collect()
}

/// What a server is made of: one row of sockets for each address, one socket of it for each loop.
#[derive(Debug)]
pub(crate) struct Bound {
    rows: Vec<Vec<ListenSocket>>,
    pub(crate) names: Vec<SocketName>,
    pub(crate) common: Common,
}

impl Bound {
    pub(crate) fn new(rows: Vec<Vec<ListenSocket>>, common: Common) -> Self {
        let names = rows.iter().map(|row| row[0].name.clone()).collect();
        Bound {
            rows,
            names,
            common,
        }
    }

    /// A service of datagrams at `addr`, which has its sockets elsewhere.
    pub(crate) fn for_datagrams(addr: SocketAddr) -> Self {
        Bound {
            rows: Vec::new(),
            names: vec![addr.into()],
            common: Common::default(),
        }
    }

    /// The sockets of one loop, the last one that has not been taken yet.
    pub(crate) fn take_last(&mut self) -> Vec<ListenSocket> {
        self.rows.iter_mut().filter_map(Vec::pop).collect()
    }
}

/// A bound socket and the name it really got.
#[derive(Debug)]
pub(crate) struct ListenSocket {
    socket: Socket,
    pub(crate) name: SocketName,
    /// Removed with the last socket that was bound to it.
    _file: Option<Arc<SocketFile>>,
}

impl ListenSocket {
    fn new(socket: Socket, name: SocketName, file: Option<Arc<SocketFile>>) -> Self {
        ListenSocket {
            socket,
            name,
            _file: file,
        }
    }

    pub(crate) fn listen(&self, backlog: u32) -> Result<(), NetError> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        let listening = self.socket.listen(backlog);
        listening.map_err(|error| NetError::new("listen on", &self.name, error))
    }
}

impl AsFd for ListenSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One listener that nobody shares, listening.
pub(crate) fn listen_alone(addr: SocketAddr) -> Result<ListenSocket, NetError> {
    let mut bound = ListenOptions::new(addr).bind(1)?;
    let socket = bound.take_last().pop().expect("one address, one socket");
    socket.listen(BACKLOG)?;
    Ok(socket)
}

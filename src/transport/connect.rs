//! `create_connection` and its relatives: connected sockets that get a protocol.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::error::NetError;
use crate::net::connect::{ConnectOptions, adopt, connect};
use crate::net::{SocketName, unix};
use crate::runtime::LocalLoop;
use crate::transport::connection::Connection;
use crate::transport::protocol::Protocol;
use crate::transport::stream::Transport;

impl LocalLoop {
    /// Connects to the first address that answers, and gives the connection the protocol that
    /// `factory` makes. `connection_made` has been called when this returns.
    ///
    /// Dropping the future closes the socket. If the protocol exists by then, which is so for one
    /// turn, it is told `connection_made` and `connection_lost`. A panic of `factory` is the
    /// caller's, and closes the socket too.
    ///
    /// # Errors
    /// Those of [`TcpStream::connect`](crate::TcpStream::connect), and a socket given that is not a
    /// connected stream.
    ///
    /// ```
    /// use garland::{Protocol, Transport};
    ///
    /// struct Hello;
    ///
    /// impl Protocol for Hello {
    ///     fn connection_made(&mut self, transport: &Transport) {
    ///         transport.write(b"hello");
    ///     }
    ///     fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}
    /// }
    ///
    /// # let runtime = garland::Builder::new().loops(1).build()?;
    /// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let addr = listener.local_addr()?;
    /// let local = runtime.local();
    /// let transport = runtime.block_on(local.create_connection(addr, || Hello))??;
    /// assert_eq!(transport.peer_addr(), Some(addr));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn create_connection<P: Protocol>(
        &self,
        to: impl Into<ConnectOptions>,
        factory: impl FnOnce() -> P,
    ) -> Result<Transport, NetError> {
        let socket = connect(to.into()).await?.into_fd();
        let peer = SocketName::of_peer(&socket);
        let peer = peer.map_err(|error| NetError::new("read the peer's address", None, error))?;
        Ok(Connection::open(self, socket, peer, Box::new(factory())).await)
    }

    /// The same for a Unix socket: a socket file, or an abstract name, which begins with a zero byte.
    /// For a socket that is connected already see [`ConnectOptions::socket`].
    ///
    /// # Errors
    /// Those of [`UnixStream::connect`](crate::UnixStream::connect).
    pub async fn create_unix_connection<P: Protocol>(
        &self,
        path: impl AsRef<Path>,
        factory: impl FnOnce() -> P,
    ) -> Result<Transport, NetError> {
        let socket = unix::connect(path.as_ref()).await?.into_fd();
        let peer = SocketName::of_peer(&socket);
        let peer = peer.map_err(|error| NetError::new("read the peer's name", None, error))?;
        Ok(Connection::open(self, socket, peer, Box::new(factory())).await)
    }

    /// Gives a socket that somebody else has accepted, TCP or Unix, a protocol on this loop. With
    /// [`LoopHandle::spawn_on`](crate::LoopHandle::spawn_on) it may be another loop than the one that
    /// has accepted it. `connection_made` has been called when this returns.
    ///
    /// Dropping the future ends the connection, as in
    /// [`create_connection`](LocalLoop::create_connection).
    ///
    /// # Errors
    /// Not a connected stream; the socket is closed.
    pub async fn connect_accepted_socket<P: Protocol>(
        &self,
        socket: impl Into<OwnedFd>,
        factory: impl FnOnce() -> P,
    ) -> Result<Transport, NetError> {
        let (socket, peer) = adopt(socket.into())?;
        Ok(Connection::open(self, socket, peer, Box::new(factory())).await)
    }
}

//! Unix stream sockets for tasks: [`UnixListener`], [`UnixStream`], and where a server of them
//! listens.
//!
//! A path that begins with a zero byte is an abstract name: it has no file, and is gone with the last
//! socket.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use socket2::SockAddr;

use crate::driver::Registration;
use crate::error::{At, NetError};
use crate::net::accept::{AcceptError, Backoff};
use crate::net::listen::{Bound, Common, ListenSocket, share};
use crate::net::name::SocketName;
use crate::net::socket;
use crate::net::socket_file::{SocketFile, remove_stale};
use crate::net::stream::{Stream, current_loop, futures_io_by_stream};
use crate::net::tcp::poll_accept;
use crate::time::sleep;

/// Where and how a server of Unix sockets listens.
///
/// All loops accept from one queue: the loop that comes first takes a connection, and keeps it unless it
/// has [too many](crate::ListenOptions::balance).
///
/// ```
/// use garland::UnixListenOptions;
///
/// let listen = UnixListenOptions::new("/run/garland.sock").max_connections(100);
/// let abstract_name = UnixListenOptions::new("\0garland");
/// # drop((listen, abstract_name));
/// ```
#[derive(Clone, Debug)]
pub struct UnixListenOptions {
    to: UnixName,
    cleanup_socket: bool,
    common: Common,
}

#[derive(Clone, Debug)]
enum UnixName {
    Path(PathBuf),
    Socket(Arc<OwnedFd>),
}

impl UnixListenOptions {
    /// Listens on a socket file, which is made. A socket file at which nobody listens any more is
    /// replaced; a file of another kind, or one with a server, is "address in use".
    pub fn new(path: impl Into<PathBuf>) -> Self {
        UnixListenOptions::on(UnixName::Path(path.into()))
    }

    /// Listens on a socket that is bound already, as one that was inherited. It is closed with the
    /// server, once the clones of these options are gone.
    #[doc(alias = "sock")]
    pub fn socket(socket: impl Into<OwnedFd>) -> Self {
        UnixListenOptions::on(UnixName::Socket(Arc::new(socket.into())))
    }

    fn on(to: UnixName) -> Self {
        UnixListenOptions {
            to,
            cleanup_socket: true,
            common: Common::default(),
        }
    }

    /// Removes the socket file when the last listener is closed, unless another file has taken its
    /// place. Default: yes.
    #[must_use]
    pub fn cleanup_socket(mut self, cleanup_socket: bool) -> Self {
        self.cleanup_socket = cleanup_socket;
        self
    }

    /// See [`ListenOptions::backlog`](crate::ListenOptions::backlog).
    #[must_use]
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.common.backlog = backlog;
        self
    }

    /// See [`ListenOptions::max_connections`](crate::ListenOptions::max_connections).
    #[must_use]
    pub fn max_connections(mut self, max_connections: usize) -> Self {
        self.common.max_connections = max_connections;
        self
    }

    /// See [`ListenOptions::start_serving`](crate::ListenOptions::start_serving).
    #[must_use]
    pub fn start_serving(mut self, start_serving: bool) -> Self {
        self.common.start_serving = start_serving;
        self
    }

    /// See [`ListenOptions::balance`](crate::ListenOptions::balance).
    #[must_use]
    pub fn balance(mut self, balance: bool) -> Self {
        self.common.balance = balance;
        self
    }

    /// Binds it once, with a descriptor for each of `count` loops.
    pub(crate) fn bind(self, count: usize) -> Result<Bound, NetError> {
        let (socket, at) = match &self.to {
            UnixName::Path(path) => (Arc::new(bind_path(path)?), at(path)),
            UnixName::Socket(socket) => {
                let at = At::Name("the socket given".to_owned());
                let checked = socket::check_stream(socket);
                checked.map_err(|error| NetError::new("listen on", at.clone(), error))?;
                (Arc::clone(socket), at)
            }
        };
        let sockets = || {
            let name = SocketName::of_own(&socket)?;
            let file = match (&name, self.cleanup_socket) {
                (SocketName::Inet(_), _) => {
                    let what = "not a Unix socket: for TCP there is create_server";
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
                }
                (SocketName::Path(path), true) => Some(Arc::new(SocketFile::of(path)?)),
                _ => None,
            };
            share(&socket, &name, file.as_ref(), count)
        };
        let row = sockets().map_err(|error| NetError::new("listen on", at, error))?;
        Ok(Bound::new(vec![row], self.common))
    }
}

impl From<&str> for UnixListenOptions {
    fn from(path: &str) -> Self {
        UnixListenOptions::new(path)
    }
}

impl From<&Path> for UnixListenOptions {
    fn from(path: &Path) -> Self {
        UnixListenOptions::new(path)
    }
}

impl From<PathBuf> for UnixListenOptions {
    fn from(path: PathBuf) -> Self {
        UnixListenOptions::new(path)
    }
}

impl From<std::os::unix::net::UnixListener> for UnixListenOptions {
    fn from(listener: std::os::unix::net::UnixListener) -> Self {
        UnixListenOptions::socket(listener)
    }
}

fn bind_path(path: &Path) -> Result<OwnedFd, NetError> {
    let bind = || {
        let addr = SockAddr::unix(path)?;
        remove_stale(path);
        let socket = socket::new_unix_stream()?;
        socket.bind(&addr)?;
        Ok(socket.into())
    };
    bind().map_err(|error| NetError::new("bind", at(path), error))
}

/// How an error calls it.
fn at(path: &Path) -> At {
    match path.as_os_str().as_encoded_bytes() {
        [0, name @ ..] => At::from(&SocketName::Abstract(name.into())),
        _ => At::Path(path.to_path_buf()),
    }
}

/// Connects; the stream is registered with the loop that runs on this thread.
pub(crate) async fn connect(path: &Path) -> Result<Stream, NetError> {
    let tried = |error| NetError::new("connect to", at(path), error);
    let addr = SockAddr::unix(path).map_err(tried)?;
    let mut backoff = Backoff::new();
    loop {
        let socket = socket::new_unix_stream().map_err(tried)?;
        match socket.connect(&addr) {
            Ok(()) => return Stream::register(socket.into()).map_err(tried),
            // The server's queue is full. Unlike TCP there is nothing under way, and no event says
            // when there is room.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                drop(socket);
                sleep(backoff.take()).await;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(tried(error)),
        }
    }
}

/// A listening Unix socket on the loop that made it.
///
/// For a server on all loops see [`LoopHandle::serve_unix`](crate::LoopHandle::serve_unix). Dropping
/// it closes the socket and removes its file.
///
/// ```
/// use garland::{UnixListener, UnixStream};
///
/// # let runtime = garland::Builder::new().loops(1).build()?;
/// # let name = format!("\0garland-doc-{}", std::process::id());
/// runtime.block_on(async {
///     let listener = UnixListener::bind(name.as_str())?;
///     let client = UnixStream::connect(&name).await?;
///     let (served, _peer) = listener.accept().await?;
///     client.write_all(b"hello").await?;
///     let mut buf = [0; 5];
///     assert_eq!(served.read(&mut buf).await?, 5);
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct UnixListener {
    registration: Registration<ListenSocket>,
}

impl UnixListener {
    /// Listens on the loop that runs on this thread.
    ///
    /// # Errors
    /// Those of the system, with the path.
    ///
    /// # Panics
    /// Outside a loop.
    pub fn bind(listen: impl Into<UnixListenOptions>) -> Result<Self, NetError> {
        let mut bound = listen.into().bind(1)?;
        let socket = bound.take_last().pop().expect("one name, one socket");
        socket.listen(bound.common.backlog)?;
        let name = socket.name.clone();
        let registered = current_loop().register(socket);
        let registration = registered.map_err(|error| NetError::new("register", &name, error))?;
        Ok(UnixListener { registration })
    }

    /// What it is called: its file, or its abstract name.
    pub fn local_name(&self) -> &SocketName {
        &self.registration.io().name
    }

    /// Waits for the next connection, and says what the client is called, which most are not. The
    /// stream is registered with the loop that accepts it. Dropping the future loses no connection.
    ///
    /// # Errors
    /// Those of [`TcpListener::accept`](crate::TcpListener::accept).
    pub async fn accept(&self) -> io::Result<(UnixStream, SocketName)> {
        loop {
            let accepted = poll_fn(|cx| poll_accept(&self.registration, cx)).await;
            match accepted {
                Ok((fd, peer)) => {
                    let peer = SocketName::of_accepted(&fd, peer)?;
                    return Ok((UnixStream::register(fd)?, peer));
                }
                Err(error) if AcceptError::of(&error) == AcceptError::Next => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A Unix connection, for one task or two.
///
/// Used as a [`TcpStream`](crate::TcpStream) is: reading and writing take `&self`, and it is
/// `AsyncRead` and `AsyncWrite` of `futures_io`.
///
/// Dropping it closes the connection; what was written can still be read.
pub struct UnixStream {
    stream: Stream,
}

impl UnixStream {
    /// Connects to a socket file or an abstract name, on the loop that runs on this thread. Waits if
    /// the queue of the server is full. Dropping the future closes the socket.
    ///
    /// # Errors
    /// Those of the system, with the path: nobody listens, no such file.
    ///
    /// # Panics
    /// Outside a loop.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Self, NetError> {
        let stream = connect(path.as_ref()).await?;
        Ok(UnixStream { stream })
    }

    /// Two streams that are connected with each other, on the loop that runs on this thread.
    ///
    /// # Errors
    /// Out of descriptors.
    ///
    /// # Panics
    /// Outside a loop.
    #[doc(alias = "socketpair")]
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socket::unix_pair()?;
        Ok((UnixStream::register(one)?, UnixStream::register(other)?))
    }

    pub(crate) fn register(fd: OwnedFd) -> io::Result<Self> {
        let stream = Stream::register(fd)?;
        Ok(UnixStream { stream })
    }

    /// See [`TcpStream::read`](crate::TcpStream::read).
    ///
    /// # Errors
    /// Those of the connection.
    pub fn read(&self, buf: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        self.stream.read(buf)
    }

    /// See [`TcpStream::read_with`](crate::TcpStream::read_with).
    ///
    /// # Errors
    /// Those of the connection.
    pub fn read_with<T>(
        &self,
        look: impl FnOnce(&[u8]) -> T,
    ) -> impl Future<Output = io::Result<T>> {
        self.stream.read_with(look)
    }

    /// See [`TcpStream::peek`](crate::TcpStream::peek).
    ///
    /// # Errors
    /// Those of the connection.
    pub fn peek(&self, buf: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        self.stream.peek(buf)
    }

    /// See [`TcpStream::write`](crate::TcpStream::write).
    ///
    /// # Errors
    /// Those of the connection.
    pub fn write(&self, data: &[u8]) -> impl Future<Output = io::Result<usize>> {
        self.stream.write(data)
    }

    /// See [`TcpStream::try_write`](crate::TcpStream::try_write).
    ///
    /// # Errors
    /// Those of the connection.
    pub fn try_write(&self, data: &[u8]) -> io::Result<usize> {
        self.stream.try_write(data)
    }

    /// See [`TcpStream::write_all`](crate::TcpStream::write_all).
    ///
    /// # Errors
    /// Those of the connection.
    pub fn write_all(&self, data: &[u8]) -> impl Future<Output = io::Result<()>> {
        self.stream.write_all(data)
    }

    /// See [`TcpStream::shutdown`](crate::TcpStream::shutdown).
    ///
    /// # Errors
    /// The connection is gone already.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.stream.shutdown(how)
    }

    /// What this end is called.
    ///
    /// # Errors
    /// Those of `getsockname`.
    pub fn local_name(&self) -> io::Result<SocketName> {
        SocketName::of_own(self)
    }

    /// What the other end is called: the server, if this is the client.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn peer_name(&self) -> io::Result<SocketName> {
        SocketName::of_peer(self)
    }
}

impl From<Stream> for UnixStream {
    fn from(stream: Stream) -> Self {
        UnixStream { stream }
    }
}

impl AsFd for UnixStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl fmt::Debug for UnixStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnixStream")
            .field("fd", &self.as_fd())
            .finish_non_exhaustive()
    }
}

futures_io_by_stream!(&UnixStream, self => self.stream, read);
futures_io_by_stream!(&UnixStream, self => self.stream, write);
futures_io_by_stream!(UnixStream, self => self.stream, read);
futures_io_by_stream!(UnixStream, self => self.stream, write);

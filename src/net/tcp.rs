//! TCP for tasks: [`TcpListener`], [`TcpStream`] and its halves.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::net::{SocketAddrAny, sockopt};
use socket2::SockRef;

use crate::driver::{Extent, Interest, Registration};
use crate::error::NetError;
use crate::net::accept::AcceptError;
use crate::net::connect::{ConnectOptions, connect};
use crate::net::listen::{ListenSocket, listen_alone};
use crate::net::socket;
use crate::net::stream::{Stream, current_loop, futures_io_by_stream};

/// A listening socket on the loop that made it.
///
/// For a server on all loops see [`LoopHandle::serve`](crate::LoopHandle::serve). Dropping it closes
/// the socket; connections still in its queue are reset by the kernel.
///
/// ```
/// use garland::{TcpListener, TcpStream};
///
/// # let runtime = garland::Builder::new().loops(1).build()?;
/// runtime.block_on(async {
///     let listener = TcpListener::bind("127.0.0.1:0".parse().expect("an address"))?;
///     let client = garland::spawn(TcpStream::connect(listener.local_addr()));
///     let (served, peer) = listener.accept().await?;
///     let client = client.await.expect("did not panic")?;
///     assert_eq!(peer, client.local_addr()?);
///     client.write_all(b"hello").await?;
///     let mut buf = [0; 5];
///     assert_eq!(served.read(&mut buf).await?, 5);
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TcpListener {
    registration: Registration<ListenSocket>,
    addr: SocketAddr,
}

impl TcpListener {
    /// Listens on `addr`, on the loop that runs on this thread.
    ///
    /// # Errors
    /// Those of the system, with the address.
    ///
    /// # Panics
    /// Outside a loop.
    pub fn bind(addr: SocketAddr) -> Result<Self, NetError> {
        let listener = listen_alone(addr)?;
        let registered = current_loop().register(listener);
        let registration =
            registered.map_err(|error| NetError::new("register", Some(addr), error))?;
        let addr = socket::local_addr(registration.io());
        let addr =
            addr.map_err(|error| NetError::new("read the address bound for", None, error))?;
        Ok(TcpListener { registration, addr })
    }

    /// The address really bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits for the next connection. The stream is registered with the loop that accepts it.
    ///
    /// Connections that failed before they could be accepted are skipped. Dropping the future loses
    /// no connection.
    ///
    /// # Errors
    /// Out of descriptors or memory: try again later, the connection waits. Anything else means that
    /// the listener is broken.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let accepted = poll_fn(|cx| poll_accept(&self.registration, cx)).await;
            match accepted {
                Ok((fd, peer)) => {
                    let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?;
                    return Ok((TcpStream::register(fd)?, SocketAddr::try_from(peer)?));
                }
                Err(error) if AcceptError::of(&error) == AcceptError::Next => {}
                Err(error) => return Err(error),
            }
        }
    }
}

pub(crate) fn poll_accept(
    listener: &Registration<ListenSocket>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<(OwnedFd, Option<SocketAddrAny>)>> {
    listener.poll_io(cx, Interest::Read, |listener| {
        Ok((socket::accept(listener)?, Extent::Full))
    })
}

/// A TCP connection, for one task or two.
///
/// Reading and writing take `&self`, so one task may read while another writes; two tasks in the
/// same direction would steal each other's wake-ups. Also `AsyncRead` and `AsyncWrite` of
/// `futures_io`, for the stream and for a reference to it. `TCP_NODELAY` is on.
///
/// Dropping it closes the connection. What was written is still sent, unless something was received that nobody read: then the
/// kernel resets the connection. To be sure, end sending with [`shutdown`](TcpStream::shutdown) and read to the end first.
///
/// # Receives first
///
/// Where eight movable tasks or more wait on a loop, and its steps take about ten microseconds at most, the first write behind a
/// read lets the others go first: it is pending for once, though there may be room, and its task goes to the end of the
/// queue, as by [`yield_now`](crate::yield_now). So the requests of a poll are all received before the first is answered,
/// which costs less than to do both alternately; a [`TurnBudget`](crate::TurnBudget) says how many. A task may be cancelled there like at any
/// `await`, with a request read and not answered. [`UnixStream`](crate::UnixStream) does the same;
/// [`try_write`](TcpStream::try_write) never waits.
pub struct TcpStream {
    stream: Stream,
}

impl TcpStream {
    /// Connects to the first address that answers; on the loop that runs on this thread. An address,
    /// several, or a host and a port, which are looked up without blocking the loop; everything else
    /// is said by [`ConnectOptions`].
    ///
    /// Dropping the future closes the socket.
    ///
    /// # Errors
    /// That of the look-up, or of the one address tried; with several, one error that tells what
    /// [each of them](NetError::attempts) said.
    ///
    /// # Panics
    /// Outside a loop.
    pub async fn connect(to: impl Into<ConnectOptions>) -> Result<Self, NetError> {
        let stream = connect(to.into().for_tcp()?).await?;
        Ok(TcpStream { stream })
    }

    pub(crate) fn register(fd: OwnedFd) -> io::Result<Self> {
        let stream = Stream::register(fd)?;
        Ok(TcpStream { stream })
    }

    /// Reads what is there, at most `buf.len()` bytes; waits if nothing is. 0 means that the peer
    /// has finished sending. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Those of the connection, such as a reset.
    pub fn read(&self, buf: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        self.stream.read(buf)
    }

    /// Reads as [`read`](TcpStream::read) does, into a buffer that the loop lends, and has `look` look at what
    /// has come; no bytes mean that the peer has finished sending. So a connection that waits holds no
    /// buffer of its own. With [`try_write`](TcpStream::try_write) an echo is:
    ///
    /// ```
    /// async fn echo(stream: garland::TcpStream) -> std::io::Result<()> {
    ///     loop {
    ///         let (came, rest) = stream.read_with(|bytes| {
    ///             let sent = stream.try_write(bytes)?;
    ///             Ok::<_, std::io::Error>((bytes.len(), bytes[sent..].to_vec()))
    ///         }).await??;
    ///         if came == 0 {
    ///             return Ok(());
    ///         }
    ///         // What the peer does not take at once; mostly nothing, and that needs no memory.
    ///         stream.write_all(&rest).await?;
    ///     }
    /// }
    /// # let runtime = garland::Builder::new().loops(1).build()?;
    /// # runtime.block_on(async {
    /// #     let listener = garland::TcpListener::bind("127.0.0.1:0".parse().expect("an address"))?;
    /// #     let client = garland::TcpStream::connect(listener.local_addr()).await?;
    /// #     garland::spawn(echo(listener.accept().await?.0));
    /// #     client.write_all(b"once").await?;
    /// #     let seen = client.read_with(|bytes| bytes.to_vec()).await?;
    /// #     assert_eq!(seen, b"once");
    /// #     Ok::<(), std::io::Error>(())
    /// # })??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// `look` is called once, when the future is ready; dropping the future before loses nothing. The buffer has
    /// 64 KiB. Away from a loop, or while `look` itself reads so, one is made for the purpose.
    ///
    /// # Errors
    /// Those of the connection, such as a reset.
    pub fn read_with<T>(
        &self,
        look: impl FnOnce(&[u8]) -> T,
    ) -> impl Future<Output = io::Result<T>> {
        self.stream.read_with(look)
    }

    /// Like [`read`](TcpStream::read), but leaves the bytes to be read again.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn peek(&self, buf: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        self.stream.peek(buf)
    }

    /// Writes some of `data`; waits if nothing can be written, and may [let others read first](TcpStream#receives-first).
    ///
    /// # Errors
    /// Those of the connection, such as a reset.
    pub fn write(&self, data: &[u8]) -> impl Future<Output = io::Result<usize>> {
        self.stream.write(data)
    }

    /// Writes as much of `data` as the socket takes now, which may be nothing; how much. Never waits: the non-waiting
    /// twin of [`write`](TcpStream::write).
    ///
    /// # Errors
    /// Those of the connection, such as a reset.
    pub fn try_write(&self, data: &[u8]) -> io::Result<usize> {
        self.stream.try_write(data)
    }

    /// Writes all of `data`; may [let others read first](TcpStream#receives-first). Dropping the future may leave a part
    /// of it written.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn write_all(&self, data: &[u8]) -> impl Future<Output = io::Result<()>> {
        self.stream.write_all(data)
    }

    /// Ends one direction, or both. After `Shutdown::Write` the peer reads the end of the stream,
    /// behind everything that was written; reading goes on.
    ///
    /// # Errors
    /// The connection is gone already.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.stream.shutdown(how)
    }

    /// Splits it into a reading and a writing half that may go to different tasks. The connection
    /// is closed when both are dropped.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        let stream = Arc::new(self);
        let read = ReadHalf {
            stream: Arc::clone(&stream),
        };
        (read, WriteHalf { stream })
    }

    /// The address of this end.
    ///
    /// # Errors
    /// Those of `getsockname`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        socket::local_addr(self)
    }

    /// The address of the other end.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        socket::peer_addr(self)
    }

    /// Whether small writes are sent at once.
    ///
    /// # Errors
    /// Those of `setsockopt`.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        Ok(sockopt::set_tcp_nodelay(self, nodelay)?)
    }

    /// Whether small writes are sent at once.
    ///
    /// # Errors
    /// Those of `getsockopt`.
    pub fn nodelay(&self) -> io::Result<bool> {
        Ok(sockopt::tcp_nodelay(self)?)
    }

    /// What closing does with bytes not sent yet: `Some(Duration::ZERO)` throws them away and resets
    /// the connection.
    ///
    /// # Errors
    /// Those of `setsockopt`.
    pub fn set_linger(&self, linger: Option<std::time::Duration>) -> io::Result<()> {
        SockRef::from(self).set_linger(linger)
    }

    /// The error that waits on the socket, if there is one; it is taken away.
    ///
    /// # Errors
    /// Those of `getsockopt`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        SockRef::from(self).take_error()
    }
}

impl From<Stream> for TcpStream {
    fn from(stream: Stream) -> Self {
        TcpStream { stream }
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpStream")
            .field("fd", &self.as_fd())
            .finish_non_exhaustive()
    }
}

futures_io_by_stream!(&TcpStream, self => self.stream, read);
futures_io_by_stream!(&TcpStream, self => self.stream, write);
futures_io_by_stream!(TcpStream, self => self.stream, read);
futures_io_by_stream!(TcpStream, self => self.stream, write);
futures_io_by_stream!(ReadHalf, self => self.stream.stream, read);
futures_io_by_stream!(WriteHalf, self => self.stream.stream, write);

/// The reading half of a [`TcpStream`].
#[derive(Debug)]
pub struct ReadHalf {
    stream: Arc<TcpStream>,
}

impl ReadHalf {
    /// See [`TcpStream::read`].
    ///
    /// # Errors
    /// Those of the connection.
    pub fn read(&mut self, buf: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        self.stream.read(buf)
    }
}

/// The writing half of a [`TcpStream`]. Dropping it does not end the stream: [`finish`](WriteHalf::finish) does.
#[derive(Debug)]
pub struct WriteHalf {
    stream: Arc<TcpStream>,
}

impl WriteHalf {
    /// See [`TcpStream::write_all`].
    ///
    /// # Errors
    /// Those of the connection.
    pub fn write_all(&mut self, data: &[u8]) -> impl Future<Output = io::Result<()>> {
        self.stream.write_all(data)
    }

    /// Ends the writing direction: the peer reads the end of the stream.
    ///
    /// # Errors
    /// The connection is gone already.
    pub fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }
}

//! TCP for tasks: [`TcpListener`], [`TcpStream`] and its halves.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};
use rustix::net::sockopt;
use socket2::SockRef;

use crate::driver::{Extent, Interest, Registration};
use crate::error::NetError;
use crate::net::accept::AcceptError;
use crate::net::socket::{self, ListenSocket, PortUse};
use crate::runtime::LocalLoop;

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
        let listener = socket::listen_on(addr, 1024, PortUse::Alone)?;
        let registered = current_loop().register(listener);
        let registration =
            registered.map_err(|error| NetError::new("register", Some(addr), error))?;
        Ok(TcpListener { registration })
    }

    /// The address really bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.registration.io().addr
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
            let accepted = poll_fn(|cx| poll_accept(&self.registration, true, cx)).await;
            match accepted {
                Ok((fd, peer)) => return Ok((TcpStream::register(fd)?, peer)),
                Err(error) if AcceptError::of(&error) == AcceptError::Next => {}
                Err(error) => return Err(error),
            }
        }
    }
}

pub(crate) fn poll_accept(
    listener: &Registration<ListenSocket>,
    nodelay: bool,
    cx: &mut Context<'_>,
) -> Poll<io::Result<(OwnedFd, SocketAddr)>> {
    listener.poll_io(cx, Interest::Read, |listener| {
        Ok((socket::accept(listener, nodelay)?, Extent::Full))
    })
}

fn current_loop() -> LocalLoop {
    LocalLoop::current().expect("sockets are made inside a loop")
}

/// A TCP connection, for one task or two.
///
/// Reading and writing take `&self`, so one task may read while another writes; two tasks in the
/// same direction would steal each other's wake-ups. Also [`AsyncRead`] and [`AsyncWrite`] of
/// `futures_io`, for the stream and for a reference to it. `TCP_NODELAY` is on.
///
/// Dropping it closes the connection; what was written is still sent.
pub struct TcpStream {
    registration: Registration<OwnedFd>,
}

impl TcpStream {
    /// Connects to the first address that answers, tried in order; on the loop that runs on this
    /// thread. A host name is looked up by the system, which blocks this thread: give addresses
    /// where that matters.
    ///
    /// Dropping the future closes the socket.
    ///
    /// # Errors
    /// That of the look-up, or of the one address tried; with several, one error that tells what
    /// each of them said.
    pub async fn connect(addrs: impl ToSocketAddrs) -> Result<Self, NetError> {
        let addrs = addrs.to_socket_addrs();
        let addrs = addrs.map_err(|error| NetError::new("look up the address", None, error))?;
        let mut failures = Vec::new();
        for addr in addrs {
            match Self::connect_one(addr).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failures.push(NetError::new("connect to", Some(addr), error)),
            }
        }
        Err(all_refused(failures))
    }

    async fn connect_one(addr: SocketAddr) -> io::Result<Self> {
        let stream = Self::register(socket::start_connecting(addr)?)?;
        poll_fn(|cx| stream.registration.poll_ready(cx, Interest::Write)).await;
        match stream.take_error()? {
            None => Ok(stream),
            Some(error) => Err(error),
        }
    }

    pub(crate) fn register(fd: OwnedFd) -> io::Result<Self> {
        Ok(TcpStream {
            registration: current_loop().register(fd)?,
        })
    }

    /// The socket, no longer registered anywhere.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.registration.into_io()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.registration.io().as_fd()
    }

    /// Reads what is there, at most `buf.len()` bytes; waits if nothing is. 0 means that the peer
    /// has finished sending. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Those of the connection, such as a reset.
    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_recv(cx, buf)).await
    }

    /// Like [`read`](TcpStream::read), but leaves the bytes to be read again.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| {
            self.registration.poll_io(cx, Interest::Read, |fd| {
                Ok((socket::peek(fd, buf)?, Extent::Full))
            })
        })
        .await
    }

    /// Writes some of `data`; waits if nothing can be written.
    ///
    /// # Errors
    /// Those of the connection, such as a reset.
    pub async fn write(&self, data: &[u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_send(cx, data)).await
    }

    /// Writes all of `data`. Dropping the future may leave a part of it written.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let written = self.write(data).await?;
            data = &data[written..];
        }
        Ok(())
    }

    /// Ends one direction, or both. After `Shutdown::Write` the peer reads the end of the stream,
    /// behind everything that was written; reading goes on.
    ///
    /// # Errors
    /// The connection is gone already.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        SockRef::from(self).shutdown(how)
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

    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.registration.poll_io(cx, Interest::Read, |fd| {
            let received = socket::recv(fd, buf)?;
            Ok((received, extent(received, buf.len())))
        })
    }

    fn poll_send(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.registration.poll_io(cx, Interest::Write, |fd| {
            let sent = socket::send(fd, data)?;
            Ok((sent, extent(sent, data.len())))
        })
    }
}

/// CONN-03: one failure is itself, several become one error that tells them all.
fn all_refused(mut failures: Vec<NetError>) -> NetError {
    if failures.len() == 1 {
        return failures.remove(0);
    }
    let Some(first) = failures.first() else {
        let nothing = io::Error::new(io::ErrorKind::InvalidInput, "no address was given");
        return NetError::new("connect", None, nothing);
    };
    let kind = first.kind();
    let texts: Vec<String> = failures.iter().map(NetError::to_string).collect();
    NetError::new(
        "connect to any address",
        None,
        io::Error::new(kind, texts.join("; ")),
    )
}

fn extent(done: usize, asked: usize) -> Extent {
    if done < asked {
        Extent::Short
    } else {
        Extent::Full
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpStream")
            .field("fd", &self.fd())
            .finish_non_exhaustive()
    }
}

impl AsyncRead for &TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_recv(cx, buf)
    }
}

impl AsyncWrite for &TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is kept back here.
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown(Shutdown::Write))
    }
}

/// The owned types read and write as a reference to their stream does.
macro_rules! io_by_reference {
    ($owner:ty, $self_:ident => $stream:expr, read) => {
        impl AsyncRead for $owner {
            fn poll_read(
                $self_: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut $stream).poll_read(cx, buf)
            }
        }
    };
    ($owner:ty, $self_:ident => $stream:expr, write) => {
        impl AsyncWrite for $owner {
            fn poll_write(
                $self_: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut $stream).poll_write(cx, buf)
            }

            fn poll_flush($self_: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut $stream).poll_flush(cx)
            }

            fn poll_close($self_: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut $stream).poll_close(cx)
            }
        }
    };
}

io_by_reference!(TcpStream, self => &*self, read);
io_by_reference!(TcpStream, self => &*self, write);
io_by_reference!(ReadHalf, self => &*self.stream, read);
io_by_reference!(WriteHalf, self => &*self.stream, write);

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
    pub async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buf).await
    }
}

/// The writing half of a [`TcpStream`]. Dropping it does not end the stream: close it for that.
#[derive(Debug)]
pub struct WriteHalf {
    stream: Arc<TcpStream>,
}

impl WriteHalf {
    /// See [`TcpStream::write_all`].
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        self.stream.write_all(data).await
    }

    /// Ends the writing direction: the peer reads the end of the stream.
    ///
    /// # Errors
    /// The connection is gone already.
    pub fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }
}

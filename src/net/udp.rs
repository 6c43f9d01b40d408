//! UDP for tasks: [`UdpSocket`].
//!
//! One datagram a call. What receives and answers many at a time is a
//! [`DatagramProtocol`](crate::DatagramProtocol), one layer up.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use socket2::SockRef;

use crate::atomics::{AtomicBool, AtomicU32, Ordering};
use crate::driver::{Extent, Interest, Registration};
use crate::error::NetError;
use crate::net::batch::BATCH_MAX;
use crate::net::endpoint::EndpointOptions;
use crate::net::socket;
use crate::runtime::LocalLoop;

/// A socket for datagrams, on the loop that made it; the tasks that use it may run anywhere.
///
/// All methods take `&self`, so one task may receive while another sends; two tasks in the same
/// direction would steal each other's wake-ups. A datagram is sent and received whole or not at all,
/// so dropping any of the futures loses nothing. Options without a method here are set through
/// [`AsFd`], with `socket2` for instance.
///
/// ```
/// use garland::UdpSocket;
///
/// # let runtime = garland::Builder::new().loops(1).build()?;
/// runtime.block_on(async {
///     let server = UdpSocket::bind("127.0.0.1:0".parse().expect("an address"))?;
///     let client = UdpSocket::connect(server.local_addr()?)?;
///     client.send(b"hello").await?;
///
///     let mut buf = [0; 1500];
///     let (len, from) = server.recv_from(&mut buf).await?;
///     assert_eq!((&buf[..len], from), (&b"hello"[..], client.local_addr()?));
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct UdpSocket {
    registration: Registration<OwnedFd>,
    /// Set, for good, when the kernel first refuses a datagram for want of room; before that nobody
    /// is told when there is room. Guards no other memory.
    watches_writes: AtomicBool,
    /// Datagrams that went either way without a wait between them. Guards no other memory.
    in_a_row: AtomicU32,
}

/// After so many datagrams in a row the task lets others of its loop run: as many come in and go out
/// again as in a batch of a protocol. A socket that is flooded is never found empty.
const IN_A_ROW_MAX: u32 = 2 * BATCH_MAX as u32;

impl UdpSocket {
    /// A socket bound to `addr`, on the loop that runs on this thread. Port 0 lets the system choose.
    ///
    /// # Errors
    /// Those of the system, with the address.
    ///
    /// # Panics
    /// Outside a loop.
    pub fn bind(addr: SocketAddr) -> Result<Self, NetError> {
        UdpSocket::open(addr.into())
    }

    /// A socket that talks to `addr` alone, from a port chosen by the system.
    ///
    /// # Errors
    /// Those of the system, with the address. That nobody is there cannot be known yet: it is an error
    /// of a later call.
    ///
    /// # Panics
    /// Outside a loop.
    pub fn connect(addr: SocketAddr) -> Result<Self, NetError> {
        UdpSocket::open(EndpointOptions::new().remote(addr))
    }

    /// A socket as `options` say; their batch is of no meaning here.
    ///
    /// # Errors
    /// Those of the system, with the address; options that contradict each other.
    ///
    /// # Panics
    /// Outside a loop.
    pub fn open(options: EndpointOptions) -> Result<Self, NetError> {
        let opened = options.open()?;
        let addr = opened.addr;
        let registered = UdpSocket::register(opened.fd);
        registered.map_err(|error| NetError::new("register", Some(addr), error))
    }

    fn register(fd: OwnedFd) -> io::Result<Self> {
        let local = LocalLoop::current().expect("sockets are made inside a loop");
        Ok(UdpSocket {
            registration: local.register_reads(fd)?,
            watches_writes: AtomicBool::new(false),
            in_a_row: AtomicU32::new(0),
        })
    }

    /// Receives one datagram and says who sent it. What does not fit into `buf` is lost.
    ///
    /// # Errors
    /// Those that earlier datagrams met on their way, if the peer is fixed: nobody listens there, for
    /// instance. The socket remains usable.
    pub async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        poll_fn(|cx| self.poll_recv(cx, |fd| socket::recv_from(fd, buf))).await
    }

    /// Receives one datagram of the fixed peer, or of anybody. What does not fit into `buf` is lost.
    ///
    /// # Errors
    /// As for [`recv_from`](UdpSocket::recv_from).
    pub async fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_recv(cx, |fd| socket::recv(fd, buf))).await
    }

    /// Like [`recv_from`](UdpSocket::recv_from), but leaves the datagram to be received again, whole.
    ///
    /// # Errors
    /// As for [`recv_from`](UdpSocket::recv_from).
    pub async fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        poll_fn(|cx| self.poll_recv(cx, |fd| socket::peek_from(fd, buf))).await
    }

    /// Sends `data` to `addr` as one datagram; empty ones are sent too. Waits if there is no room.
    ///
    /// # Errors
    /// Too large for a datagram, no way to the address, or what an earlier one met. The socket remains
    /// usable.
    #[doc(alias = "sendto")]
    pub async fn send_to(&self, data: &[u8], addr: SocketAddr) -> io::Result<usize> {
        poll_fn(|cx| self.poll_send(cx, |fd| socket::send_to(fd, data, addr))).await
    }

    /// Sends `data` to the fixed peer as one datagram; empty ones are sent too. Waits if there is no
    /// room.
    ///
    /// # Errors
    /// As for [`send_to`](UdpSocket::send_to); and there is no fixed peer.
    pub async fn send(&self, data: &[u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_send(cx, |fd| socket::send(fd, data))).await
    }

    /// The address of this end.
    ///
    /// # Errors
    /// Those of `getsockname`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        socket::local_addr(self)
    }

    /// The address of the fixed peer.
    ///
    /// # Errors
    /// There is none.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        socket::peer_addr(self)
    }

    /// Allows sending to broadcast addresses, or forbids it.
    ///
    /// # Errors
    /// Those of `setsockopt`.
    pub fn set_broadcast(&self, allow: bool) -> io::Result<()> {
        socket::set_broadcast(self, allow)
    }

    /// The error that waits on the socket, if there is one; it is taken away.
    ///
    /// # Errors
    /// Those of `getsockopt`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        SockRef::from(self).take_error()
    }

    fn poll_recv<T>(
        &self,
        cx: &mut Context<'_>,
        mut recv: impl FnMut(&OwnedFd) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        ready!(self.poll_turn(cx));
        // Only would-block says that no other datagram is there.
        let received = self
            .registration
            .poll_io(cx, Interest::Read, |fd| Ok((recv(fd)?, Extent::Full)));
        self.count_turn(received)
    }

    /// Pending, once, for a task that has had many datagrams in a row; it is woken already.
    fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.in_a_row.load(Ordering::Relaxed) < IN_A_ROW_MAX {
            return Poll::Ready(());
        }
        self.in_a_row.store(0, Ordering::Relaxed);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn count_turn<T>(&self, outcome: Poll<T>) -> Poll<T> {
        // Two tasks may count over each other, and then one of them waits a little earlier or later.
        let in_a_row = match outcome {
            Poll::Ready(_) => self.in_a_row.load(Ordering::Relaxed) + 1,
            Poll::Pending => 0,
        };
        self.in_a_row.store(in_a_row, Ordering::Relaxed);
        outcome
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        mut send: impl FnMut(&OwnedFd) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(cx));
        while !self.watches_writes.load(Ordering::Relaxed) {
            match send(self.registration.io()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.registration.watch_writes()?;
                    self.watches_writes.store(true, Ordering::Relaxed);
                }
                sent => return self.count_turn(Poll::Ready(sent)),
            }
        }
        let sent = self
            .registration
            .poll_io(cx, Interest::Write, |fd| Ok((send(fd)?, Extent::Full)));
        self.count_turn(sent)
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.registration.io().as_fd()
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket")
            .field("fd", &self.as_fd())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use crate::net::udp::UdpSocket;
    use crate::runtime::{Builder, spawn_local, yield_now};

    /// Over loopback UDP is never full; a pair of `AF_UNIX` is, after a few datagrams.
    #[test]
    fn a_send_waits_for_room_and_one_that_is_dropped_meanwhile_was_not_sent() {
        let runtime = Builder::new().loops(1).build();
        let runtime = runtime.expect("a runtime can be built");
        let sent = runtime.block_on(async {
            let (ours, peer) = UnixDatagram::pair().expect("descriptors are free");
            ours.set_nonblocking(true).expect("a socket");
            peer.set_nonblocking(true).expect("a socket");
            let socket = UdpSocket::register(ours.into()).expect("a loop is running");
            for _ in 0..3 {
                let mut waits = Box::pin(async {
                    loop {
                        socket.send(b"x").await.expect("a connected socket");
                    }
                });
                let given_up = async {
                    yield_now().await;
                    yield_now().await;
                };
                futures_lite::future::or(async { (&mut waits).await }, given_up).await;
                drop(waits);
                let mut held = 0;
                while peer.recv(&mut [0; 9]).is_ok() {
                    held += 1;
                }
                assert!(held > 0, "it was filled, and there was room again");
            }
            let socket = std::rc::Rc::new(socket);
            let sender = std::rc::Rc::clone(&socket);
            let many = spawn_local(async move {
                for _ in 0..500 {
                    sender.send(b"x").await.expect("a connected socket");
                }
            });
            let mut received = 0;
            while received < 500 {
                yield_now().await;
                while peer.recv(&mut [0; 9]).is_ok() {
                    received += 1;
                }
            }
            many.await.expect("no panic");
            received
        });
        assert_eq!(sent.expect("nobody stops it"), 500);
    }
}

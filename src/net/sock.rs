//! Sockets that garland did not make: asyncio's `sock_*` calls, as futures.
//!
//! Each call tries at once and waits only if the kernel says so, by a watch of its own
//! ([`Foreign`]), which ends with the call: calls on one socket know nothing of each other, and a
//! cancelled one takes nothing away from the next (SOCK-05). Bytes are received in the step that
//! returns them, so a receive that is dropped has taken none (SOCK-06).
//!
//! The socket stays the caller's. It must not block; that costs a question to the kernel for each
//! call, and saves a stopped loop. The calls belong inside a loop; where no waiting is needed they work
//! elsewhere, too.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use socket2::SockRef;

use crate::driver::{Extent, Interest};
use crate::net::foreign::{Directions, Foreign};
use crate::net::socket;
use crate::runtime::LoopHandle;

/// Receives at most `limit` bytes: at least one, or none at the end of the stream.
///
/// Dropping the future loses nothing.
///
/// # Errors
/// Those of the socket; `InvalidInput` for one that blocks. So for all calls of this kind.
///
/// # Panics
/// When it has to wait outside a loop. So do all calls of this kind.
///
/// ```
/// use std::io::Write;
/// use std::os::unix::net::UnixStream;
///
/// let (ours, mut theirs) = UnixStream::pair()?;
/// ours.set_nonblocking(true)?;
/// let runtime = garland::Builder::new().loops(1).build()?;
/// runtime.block_on(async {
///     theirs.write_all(b"hello")?;
///     assert_eq!(garland::sock_recv(&ours, 100).await?, b"hello");
///     garland::sock_sendall(&ours, b"and back").await
/// })??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn sock_recv(socket: &impl AsFd, limit: usize) -> io::Result<Vec<u8>> {
    let mut buf = vec![0; limit];
    let count = sock_recv_into(socket, &mut buf).await?;
    buf.truncate(count);
    Ok(buf)
}

/// Receives into `buf`, and says how much; 0 is the end of the stream. Otherwise as [`sock_recv`].
pub async fn sock_recv_into(socket: &impl AsFd, buf: &mut [u8]) -> io::Result<usize> {
    let socket = non_blocking(socket)?;
    perform(socket, Interest::Read, || socket::recv(socket, buf)).await
}

/// Receives one datagram, cut to `limit` bytes, and where it came from; `None` where the sender has no
/// internet address. Otherwise as [`sock_recv`].
pub async fn sock_recvfrom(
    socket: &impl AsFd,
    limit: usize,
) -> io::Result<(Vec<u8>, Option<SocketAddr>)> {
    let mut buf = vec![0; limit];
    let (count, from) = sock_recvfrom_into(socket, &mut buf).await?;
    buf.truncate(count);
    Ok((buf, from))
}

/// Receives one datagram into `buf`, as [`sock_recvfrom`].
pub async fn sock_recvfrom_into(
    socket: &impl AsFd,
    buf: &mut [u8],
) -> io::Result<(usize, Option<SocketAddr>)> {
    let socket = non_blocking(socket)?;
    perform(socket, Interest::Read, || {
        let (count, _, from) = rustix::net::recvfrom(socket, &mut *buf, RecvFlags::empty())?;
        Ok((count, from.and_then(|from| SocketAddr::try_from(from).ok())))
    })
    .await
}

/// Sends all of `data`, or fails.
///
/// If the future is dropped, or fails, a part of `data` may have been sent; it is not known how much.
pub async fn sock_sendall(socket: &impl AsFd, data: &[u8]) -> io::Result<()> {
    let socket = non_blocking(socket)?;
    let mut left = data;
    while !left.is_empty() {
        let sent = perform(socket, Interest::Write, || socket::send(socket, left)).await?;
        left = &left[sent..];
    }
    Ok(())
}

/// Sends one datagram to `to`, and says how much of it the kernel took. Dropped before it returns, it has
/// sent nothing.
pub async fn sock_sendto(socket: &impl AsFd, data: &[u8], to: SocketAddr) -> io::Result<usize> {
    let socket = non_blocking(socket)?;
    perform(socket, Interest::Write, || {
        Ok(rustix::net::sendto(socket, data, SendFlags::NOSIGNAL, &to)?)
    })
    .await
}

/// Connects to `to`, which needs no lookup; names are for [`resolve`](crate::resolve).
///
/// If the future is dropped the kernel goes on connecting; a second call then waits for the same
/// connection.
pub async fn sock_connect(socket: &impl AsFd, to: SocketAddr) -> io::Result<()> {
    let socket = non_blocking(socket)?;
    match rustix::net::connect(socket, &to) {
        Ok(()) => return Ok(()),
        // Begun, by this call or one before. Interrupted: it is being made all the same.
        Err(Errno::INPROGRESS | Errno::ALREADY | Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    wait_and_perform(socket, Interest::Write, || {
        rustix::net::sockopt::socket_error(socket)??;
        match rustix::net::getpeername(socket) {
            Ok(_) => Ok(()),
            Err(Errno::NOTCONN) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// Accepts one connection: a socket that does not block, and its peer; `None` where that has no
/// internet address. Dropped before it returns, it has accepted nothing.
pub async fn sock_accept(socket: &impl AsFd) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let socket = non_blocking(socket)?;
    perform(socket, Interest::Read, || {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (accepted, peer) = rustix::net::acceptfrom_with(socket, flags)?;
        Ok((
            accepted,
            peer.and_then(|peer| SocketAddr::try_from(peer).ok()),
        ))
    })
    .await
}

fn non_blocking(socket: &impl AsFd) -> io::Result<BorrowedFd<'_>> {
    if SockRef::from(socket).nonblocking()? {
        return Ok(socket.as_fd());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "the socket blocks: set_nonblocking(true) is missing",
    ))
}

/// Tries `operation`, and again whenever the socket becomes ready, until the kernel lets it happen.
async fn perform<T>(
    socket: BorrowedFd<'_>,
    interest: Interest,
    mut operation: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            done => return done,
        }
    }
    wait_and_perform(socket, interest, operation).await
}

/// As [`perform`], beginning with the waiting. The watch tells of readiness that is older than itself.
async fn wait_and_perform<T>(
    socket: BorrowedFd<'_>,
    interest: Interest,
    mut operation: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let watch = Foreign::new(socket, Directions::NONE.and(interest))?;
    let home = LoopHandle::current().expect("a socket is waited for inside a loop");
    let watch = home.register(watch)?;
    // Whatever the direction, the instance becomes readable.
    poll_fn(|cx| watch.poll_io(cx, Interest::Read, |_| Ok((operation()?, Extent::Short)))).await
}

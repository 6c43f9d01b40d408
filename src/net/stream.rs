//! Reading and writing of one connected socket: what TCP and Unix streams of the task model share.
//!
//! Knows no addresses. Reading and writing take `&self`: one task may read while another writes.
//!
//! What a request waits for is one future each, down to the public functions: an `async fn` in an `async fn` is a
//! second state machine, and cost a request 30 instructions a level.

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use socket2::SockRef;

use crate::atomics::{AtomicBool, Ordering};
use crate::driver::{Extent, Interest, Reader, Registration};
use crate::net::socket;
use crate::runtime::{LocalLoop, receives_first, with_lent_buffer};

/// A connected socket on the loop that made it.
pub(crate) struct Stream {
    registration: Registration<OwnedFd>,
    // Both relaxed: they order nothing, and where a receive and a send cross, a send gives way once more or less.
    /// Something was received since the last send. Set by a receive, cleared by the send behind it, which may let others
    /// receive first (`scheduler/cohort.rs`).
    has_received: AtomicBool,
    /// That send has let them, and goes out when it comes again, whatever is received meanwhile. Set and cleared by it.
    gave_way: AtomicBool,
}

impl Stream {
    /// Registers it with the loop that runs on this thread.
    ///
    /// # Panics
    /// Outside a loop.
    pub(crate) fn register(fd: OwnedFd) -> io::Result<Self> {
        Ok(Stream {
            registration: current_loop().register(fd)?,
            has_received: AtomicBool::new(false),
            gave_way: AtomicBool::new(false),
        })
    }

    /// The socket, no longer registered anywhere.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.registration.into_io()
    }

    /// Waits for the end of connecting.
    pub(crate) async fn connected(&self) -> io::Result<()> {
        poll_fn(|cx| self.registration.poll_ready(cx, Interest::Write)).await;
        match SockRef::from(self).take_error()? {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    pub(crate) fn read(&self, buf: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        poll_fn(move |cx| {
            let reader = Reader::new(&buf).with_buffer(buf);
            self.poll_recv_foreseen(cx, buf, reader)
        })
    }

    /// Receives into the buffer that the loop lends.
    pub(crate) fn read_with<T>(
        &self,
        look: impl FnOnce(&[u8]) -> T,
    ) -> impl Future<Output = io::Result<T>> {
        let mut look = Some(look);
        poll_fn(move |cx| {
            let reader = Reader::new(&look);
            let receive = |fd: &OwnedFd| {
                with_lent_buffer(|buf| {
                    let received = socket::recv(fd, buf)?;
                    let look = look.take().expect("not polled after it was ready");
                    Ok((look(&buf[..received]), extent(received, buf.len())))
                })
            };
            let looked = self
                .registration
                .poll_io_foreseen(cx, Interest::Read, reader, receive);
            self.after_receive(looked)
        })
    }

    pub(crate) fn peek(&self, buf: &mut [u8]) -> impl Future<Output = io::Result<usize>> {
        poll_fn(move |cx| {
            let reader = Reader::new(&buf).with_buffer(buf);
            let look = |fd: &OwnedFd| Ok((socket::peek(fd, buf)?, Extent::Full));
            self.registration
                .poll_io_foreseen(cx, Interest::Read, reader, look)
        })
    }

    pub(crate) fn write(&self, data: &[u8]) -> impl Future<Output = io::Result<usize>> {
        poll_fn(|cx| self.poll_send(cx, data))
    }

    /// Would-block is none.
    pub(crate) fn try_write(&self, data: &[u8]) -> io::Result<usize> {
        loop {
            match socket::send(self, data) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                sent => return sent,
            }
        }
    }

    pub(crate) fn write_all(&self, mut data: &[u8]) -> impl Future<Output = io::Result<()>> {
        poll_fn(move |cx| {
            while !data.is_empty() {
                let written = ready!(self.poll_send(cx, data))?;
                data = &data[written..];
            }
            Poll::Ready(Ok(()))
        })
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        SockRef::from(self).shutdown(how)
    }

    // Always, like `poll_send`: a request comes here three times, and a call costs a quarter of what is done.
    #[inline(always)]
    pub(crate) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let reader = Reader::new(self).with_buffer(buf);
        self.poll_recv_foreseen(cx, buf, reader)
    }

    // Always, as above.
    #[inline(always)]
    fn poll_recv_foreseen(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
        reader: Reader,
    ) -> Poll<io::Result<usize>> {
        let receive = |fd: &OwnedFd| {
            let received = socket::recv(fd, buf)?;
            Ok((received, extent(received, buf.len())))
        };
        let received = self
            .registration
            .poll_io_foreseen(cx, Interest::Read, reader, receive);
        self.after_receive(received)
    }

    /// Notes that something was received. A task that is about to wait for a request has its socket watched where it
    /// runs, if that was offered to it.
    #[inline(always)]
    fn after_receive<T>(&self, outcome: Poll<T>) -> Poll<T> {
        if outcome.is_ready() {
            self.has_received.store(true, Ordering::Relaxed);
        } else if self.registration.is_offered() {
            self.take_over();
        }
        outcome
    }

    #[cold]
    fn take_over(&self) {
        if let Some(here) = LocalLoop::current() {
            here.take_over(&self.registration);
        }
    }

    #[inline(always)]
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.has_received.load(Ordering::Relaxed) {
            ready!(self.poll_turn_to_send(cx));
        }
        self.registration.poll_io(cx, Interest::Write, |fd| {
            let sent = socket::send(fd, data)?;
            Ok((sent, extent(sent, data.len())))
        })
    }

    /// Of the first send behind a receive: pending for once, if others are to receive before it.
    fn poll_turn_to_send(&self, cx: &Context<'_>) -> Poll<()> {
        let gives_way = !self.gave_way.load(Ordering::Relaxed) && receives_first();
        self.gave_way.store(gives_way, Ordering::Relaxed);
        if gives_way {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.has_received.store(false, Ordering::Relaxed);
        Poll::Ready(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.registration.io().as_fd()
    }
}

pub(crate) fn current_loop() -> LocalLoop {
    LocalLoop::current().expect("sockets are made inside a loop")
}

fn extent(done: usize, asked: usize) -> Extent {
    if done < asked {
        Extent::Short
    } else {
        Extent::Full
    }
}

/// `AsyncRead` or `AsyncWrite` for a type, by the [`Stream`] in it: for a reference to a type, and
/// for the owned type.
macro_rules! futures_io_by_stream {
    ($type:ty, $self_:ident => $stream:expr, read) => {
        impl futures_io::AsyncRead for $type {
            fn poll_read(
                $self_: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &mut [u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                $stream.poll_recv(cx, buf)
            }
        }
    };
    ($type:ty, $self_:ident => $stream:expr, write) => {
        impl futures_io::AsyncWrite for $type {
            fn poll_write(
                $self_: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                $stream.poll_send(cx, buf)
            }

            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                _cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                // Nothing is kept back here.
                std::task::Poll::Ready(Ok(()))
            }

            fn poll_close(
                $self_: std::pin::Pin<&mut Self>,
                _cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::task::Poll::Ready($stream.shutdown(std::net::Shutdown::Write))
            }
        }
    };
}
pub(crate) use futures_io_by_stream;

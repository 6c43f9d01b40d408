//! Reading and writing of one connected socket: what TCP and Unix streams of the task model share.
//!
//! Knows no addresses. Reading and writing take `&self`: one task may read while another writes.

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};

use socket2::SockRef;

use crate::driver::{Extent, Interest, Registration};
use crate::net::socket;
use crate::runtime::LocalLoop;

/// A connected socket on the loop that made it.
pub(crate) struct Stream {
    registration: Registration<OwnedFd>,
}

impl Stream {
    /// Registers it with the loop that runs on this thread.
    ///
    /// # Panics
    /// Outside a loop.
    pub(crate) fn register(fd: OwnedFd) -> io::Result<Self> {
        Ok(Stream {
            registration: current_loop().register(fd)?,
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

    pub(crate) async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_recv(cx, buf)).await
    }

    pub(crate) async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| {
            self.registration.poll_io(cx, Interest::Read, |fd| {
                Ok((socket::peek(fd, buf)?, Extent::Full))
            })
        })
        .await
    }

    pub(crate) async fn write(&self, data: &[u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_send(cx, data)).await
    }

    pub(crate) async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let written = self.write(data).await?;
            data = &data[written..];
        }
        Ok(())
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        SockRef::from(self).shutdown(how)
    }

    pub(crate) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.registration.poll_io(cx, Interest::Read, |fd| {
            let received = socket::recv(fd, buf)?;
            Ok((received, extent(received, buf.len())))
        })
    }

    pub(crate) fn poll_send(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.registration.poll_io(cx, Interest::Write, |fd| {
            let sent = socket::send(fd, data)?;
            Ok((sent, extent(sent, data.len())))
        })
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

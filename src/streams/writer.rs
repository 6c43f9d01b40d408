//! The writing end: never blocks, and can be waited for.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use futures_io::AsyncWrite;

use crate::net::SocketName;
use crate::runtime::yield_now;
use crate::streams::link::Link;
use crate::transport::Transport;

/// The writing end of a stream connection, on its home loop. Clones are the same end: several tasks
/// may write, each call is in one piece.
///
/// [`write`](StreamWriter::write) never waits; a task that writes much waits in
/// [`drain`](StreamWriter::drain) now and then, or the buffer grows. Dropping the last clone closes
/// the connection, as [`close`](StreamWriter::close) does.
///
/// Also [`AsyncWrite`] of `futures_io`, whose writes do wait while the buffer is full; its `close`
/// is [`close`](StreamWriter::close) and [`wait_closed`](StreamWriter::wait_closed).
pub struct StreamWriter {
    end: Rc<WriteEnd>,
    /// Where [`AsyncWrite`] waits.
    ticket: Option<u64>,
}

struct WriteEnd {
    link: Rc<Link>,
    transport: Transport,
}

impl Drop for WriteEnd {
    fn drop(&mut self) {
        self.transport.close();
    }
}

impl StreamWriter {
    pub(crate) fn new(link: Rc<Link>, transport: Transport) -> Self {
        StreamWriter {
            end: Rc::new(WriteEnd { link, transport }),
            ticket: None,
        }
    }

    /// Sends `data`: at once if nothing waits before it, else buffered. An error of the network ends
    /// the connection and is told by [`drain`](StreamWriter::drain). After a close or the loss of the
    /// connection the data is ignored.
    ///
    /// # Panics
    /// After [`write_eof`](StreamWriter::write_eof): the stream was declared complete.
    pub fn write(&self, data: &[u8]) {
        self.end.transport.write(data);
    }

    /// Sends several pieces, in order. Nothing is put between them.
    ///
    /// # Panics
    /// As for [`write`](StreamWriter::write).
    #[doc(alias = "writelines")]
    pub fn write_lines<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>) {
        self.end.transport.write_lines(pieces);
    }

    /// Returns at once unless the write buffer is above its high mark; then it waits until the buffer
    /// is down to the low one. On a connection that is closing it lets a turn pass first, so that a
    /// loop of `write` and `drain` hears of the end. Any number of tasks may wait.
    ///
    /// # Errors
    /// That of the connection if reading or writing has failed, `ConnectionReset` if it is lost.
    pub async fn drain(&self) -> io::Result<()> {
        let link = &self.end.link;
        if let Some(error) = link.read_error() {
            return Err(error);
        }
        if self.is_closing() {
            yield_now().await;
        }
        if link.is_lost() {
            return Err(link.loss().unwrap_or_else(connection_lost));
        }
        if link.is_writing_paused() {
            link.waiters.wait().await;
        }
        link.loss().map_or(Ok(()), Err)
    }

    /// Ends the writing direction behind everything that was written; reading goes on. Twice, or
    /// while closing, it does nothing.
    pub fn write_eof(&self) {
        self.end.transport.write_eof();
    }

    /// Whether [`write_eof`](StreamWriter::write_eof) is possible.
    pub fn can_write_eof(&self) -> bool {
        self.end.transport.can_write_eof()
    }

    /// Stops reading, sends what is buffered, then ends the connection. Twice does nothing.
    pub fn close(&self) {
        self.end.transport.close();
    }

    /// True from [`close`](StreamWriter::close) or the first error of the connection on.
    pub fn is_closing(&self) -> bool {
        self.end.transport.is_closing()
    }

    /// Waits until the connection is gone. It does not close it.
    ///
    /// # Errors
    /// The one that ended the connection.
    pub async fn wait_closed(&self) -> io::Result<()> {
        let link = &self.end.link;
        while !link.is_lost() {
            link.waiters.wait().await;
        }
        link.loss().map_or(Ok(()), Err)
    }

    /// What the other end is called; also after the connection is lost.
    #[doc(alias = "get_extra_info")]
    #[doc(alias = "peername")]
    pub fn peer_name(&self) -> &SocketName {
        self.end.transport.peer_name()
    }

    /// The address of the other end, if it is an internet socket; also after the connection is lost.
    #[doc(alias = "get_extra_info")]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.end.transport.peer_addr()
    }

    /// The transport underneath: its marks, its addresses, [`abort`](Transport::abort).
    #[doc(alias = "get_extra_info")]
    pub fn transport(&self) -> &Transport {
        &self.end.transport
    }
}

fn connection_lost() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the connection is lost")
}

impl Clone for StreamWriter {
    fn clone(&self) -> Self {
        StreamWriter {
            end: Rc::clone(&self.end),
            ticket: None,
        }
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        self.end.link.waiters.forget(&mut self.ticket);
    }
}

impl fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamWriter")
            .field("transport", &self.end.transport)
            .finish_non_exhaustive()
    }
}

impl AsyncWrite for StreamWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.as_mut().poll_flush(cx))?;
        if self.is_closing() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.write(buf);
        Poll::Ready(Ok(buf.len()))
    }

    /// Like [`drain`](StreamWriter::drain): what is below the high mark goes by itself.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let link = &this.end.link;
        // Not `if`: the ticket may be an old one, or another writer has filled the buffer again.
        while link.is_writing_paused() && !link.is_lost() {
            ready!(link.waiters.poll(&mut this.ticket, cx));
        }
        Poll::Ready(link.loss().map_or(Ok(()), Err))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        let this = &mut *self;
        let link = &this.end.link;
        while !link.is_lost() {
            ready!(link.waiters.poll(&mut this.ticket, cx));
        }
        Poll::Ready(link.loss().map_or(Ok(()), Err))
    }
}

//! The reading end: lines, exact counts, separators, or whatever has come.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncBufRead, AsyncRead};

use crate::streams::buffer::ReadBuffer;
use crate::streams::error::ReadError;
use crate::streams::link::Link;
use crate::transport::Transport;

/// The reading end of a stream connection, on its home loop.
///
/// Reads take `&mut self`: one task reads at a time, and the compiler sees to it. Dropping the future
/// of a read loses nothing, the bytes stay for the next one. An error of the connection stands before
/// what was received: every read after it fails with it.
///
/// ```compile_fail,E0499
/// async fn strm_07_two_reads_at_a_time(mut reader: garland::StreamReader) {
///     let first = reader.readline();
///     let second = reader.readline();
///     drop((first.await, second.await));
/// }
/// ```
///
/// A reader that nobody reads from takes twice its [limit](StreamReader::set_limit), then the peer
/// has to wait. Dropping the reader lets the peer send on, and throws it away.
///
/// Also [`AsyncRead`] and [`AsyncBufRead`] of `futures_io`. Where a method of theirs has the name of
/// one of asyncio's ([`read`](StreamReader::read)), the latter is found first.
pub struct StreamReader {
    link: Rc<Link>,
    transport: Transport,
    /// Taken over from the link.
    held: ReadBuffer,
}

impl StreamReader {
    pub(crate) fn new(link: Rc<Link>, transport: Transport) -> Self {
        StreamReader {
            link,
            transport,
            held: ReadBuffer::default(),
        }
    }

    /// Waits until something is there, and returns at most `n` bytes of it: none only at the end of
    /// the stream, or for an `n` of zero.
    ///
    /// # Errors
    /// Those of the connection, such as a reset.
    pub async fn read(&mut self, n: usize) -> io::Result<Vec<u8>> {
        self.take_over()?;
        if n == 0 {
            return Ok(Vec::new());
        }
        if self.held.len() == 0 {
            self.more().await?;
        }
        Ok(self.take(n.min(self.held.len())))
    }

    /// Everything up to the end of the stream: asyncio's `read(-1)`. It has no limit.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        self.take_over()?;
        while self.more().await? {}
        Ok(self.take(self.held.len()))
    }

    /// A line with its newline; without one at the end of the stream, and empty behind it.
    ///
    /// # Errors
    /// [`ReadError::LimitOverrun`] for a line above the [limit](StreamReader::set_limit): it is
    /// thrown away, as far as it has arrived. Else those of the connection.
    pub async fn readline(&mut self) -> Result<Vec<u8>, ReadError> {
        match self.readuntil(b"\n").await {
            Err(ReadError::Incomplete { partial, .. }) => Ok(partial),
            Err(ReadError::LimitOverrun { consumed }) => {
                let is_whole = self.held.bytes().get(consumed) == Some(&b'\n');
                let dropped = if is_whole {
                    consumed + 1
                } else {
                    self.held.len()
                };
                self.discard(dropped);
                Err(ReadError::LimitOverrun { consumed })
            }
            line => line,
        }
    }

    /// Exactly `n` bytes, whatever the limit is.
    ///
    /// # Errors
    /// [`ReadError::Incomplete`] with what was there when the stream ends first. Else those of the
    /// connection.
    pub async fn readexactly(&mut self, n: usize) -> Result<Vec<u8>, ReadError> {
        self.take_over()?;
        while self.held.len() < n {
            if !self.more().await? {
                return Err(self.incomplete(Some(n)));
            }
        }
        Ok(self.take(n))
    }

    /// Everything up to the separator and the separator itself.
    ///
    /// # Errors
    /// [`ReadError::LimitOverrun`] if there are more bytes before it than the
    /// [limit](StreamReader::set_limit); they stay and can be read in another way.
    /// [`ReadError::Incomplete`] with what was there when the stream ends first. Else those of the
    /// connection.
    ///
    /// # Panics
    /// If the separator is empty.
    pub async fn readuntil(&mut self, separator: &[u8]) -> Result<Vec<u8>, ReadError> {
        self.readuntil_any(&[separator]).await
    }

    /// Like [`readuntil`](StreamReader::readuntil), up to the separator that ends first.
    ///
    /// # Errors
    /// As for [`readuntil`](StreamReader::readuntil).
    ///
    /// # Panics
    /// Without a separator, or if one is empty.
    pub async fn readuntil_any(&mut self, separators: &[&[u8]]) -> Result<Vec<u8>, ReadError> {
        let longest = separators.iter().map(|separator| separator.len()).max();
        let longest = longest.expect("readuntil_any() is given a separator");
        let none_is_empty = separators.iter().all(|separator| !separator.is_empty());
        assert!(none_is_empty, "a separator has at least one byte");
        self.take_over()?;
        let mut searched = 0;
        loop {
            if let Some((begin, end)) = self.held.find(searched, separators) {
                if begin > self.limit() {
                    return Err(ReadError::LimitOverrun { consumed: begin });
                }
                return Ok(self.take(end));
            }
            // The last bytes may be the beginning of a separator.
            searched = (self.held.len() + 1).saturating_sub(longest);
            if searched > self.limit() {
                return Err(ReadError::LimitOverrun { consumed: searched });
            }
            if !self.more().await? {
                return Err(self.incomplete(None));
            }
        }
    }

    /// Whether the peer has finished sending and everything was read.
    pub fn at_eof(&self) -> bool {
        self.link.is_at_eof()
    }

    /// How long a line may be, and half of what is held before the peer has to wait. Bytes; 64 KiB
    /// unless it is set.
    pub fn limit(&self) -> usize {
        self.link.limit()
    }

    /// Sets the [limit](StreamReader::limit), from the next byte on.
    ///
    /// # Panics
    /// If it is zero.
    #[track_caller]
    pub fn set_limit(&mut self, limit: usize) {
        assert!(limit > 0, "a reader's limit is above zero");
        self.link.set_limit(limit);
    }

    /// Makes every later read fail with `error`, as the loss of the connection does.
    pub fn set_exception(&mut self, error: io::Error) {
        self.link.fail_reading(error);
    }

    /// The error that every read fails with.
    pub fn exception(&self) -> Option<io::Error> {
        self.link.read_error()
    }

    /// Brings everything that has arrived before the eyes of this read, or fails.
    fn take_over(&mut self) -> io::Result<()> {
        self.link.take_over(&mut self.held)?;
        Ok(())
    }

    /// True when more is held, false at the end of the stream.
    async fn more(&mut self) -> io::Result<bool> {
        poll_fn(|cx| self.poll_more(cx)).await
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.link.poll_more(&self.transport, &mut self.held, cx)
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let taken = self.held.take(count);
        self.link.consumed(&self.transport, count);
        taken
    }

    fn discard(&mut self, count: usize) {
        self.held.discard(count);
        self.link.consumed(&self.transport, count);
    }

    fn incomplete(&mut self, expected: Option<usize>) -> ReadError {
        let partial = self.take(self.held.len());
        ReadError::Incomplete { partial, expected }
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        self.link.unhear(&self.transport);
    }
}

impl AsyncBufRead for StreamReader {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        this.take_over()?;
        if this.held.len() == 0 {
            ready!(this.poll_more(cx))?;
        }
        Poll::Ready(Ok(this.held.bytes()))
    }

    fn consume(self: Pin<&mut Self>, count: usize) {
        self.get_mut().discard(count);
    }
}

impl AsyncRead for StreamReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let held = ready!(self.as_mut().poll_fill_buf(cx))?;
        let count = held.len().min(buf.len());
        buf[..count].copy_from_slice(&held[..count]);
        self.consume(count);
        Poll::Ready(Ok(count))
    }
}

impl fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamReader")
            .field("limit", &self.limit())
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

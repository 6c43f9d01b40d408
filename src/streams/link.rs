//! What reader, writers and protocol of one connection share, and the protocol itself.
//!
//! Everything here belongs to the home loop. A waker is taken out of its place before it is called.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::streams::buffer::ReadBuffer;
use crate::streams::error::copy_of;
use crate::transport::{AfterEof, Protocol, Transport};

/// The limit of a reader that nobody has set, in bytes: asyncio's.
pub(crate) const DEFAULT_LIMIT: usize = 64 * 1024;

/// One connection, between its protocol and the two ends a task holds.
pub(crate) struct Link {
    /// Received, and not yet taken over by the reader.
    incoming: RefCell<Vec<u8>>,
    /// Received and not read, whether taken over or not. Bytes.
    unread: Cell<usize>,
    /// Reading pauses above twice of this and goes on at it. Bytes.
    limit: Cell<usize>,
    is_reading_paused: Cell<bool>,
    /// The reader was dropped: what arrives is thrown away.
    is_unheard: Cell<bool>,
    has_eof: Cell<bool>,
    read_error: RefCell<Option<io::Error>>,
    /// The one task that reads.
    reader: Cell<Option<Waker>>,

    is_writing_paused: Cell<bool>,
    /// How the connection was lost, once it is.
    lost: RefCell<Option<Option<io::Error>>>,
    /// Woken when writing resumes, and when the connection is lost.
    pub(crate) waiters: Waiters,
}

impl Link {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Link {
            incoming: RefCell::default(),
            unread: Cell::new(0),
            limit: Cell::new(DEFAULT_LIMIT),
            is_reading_paused: Cell::new(false),
            is_unheard: Cell::new(false),
            has_eof: Cell::new(false),
            read_error: RefCell::default(),
            reader: Cell::default(),
            is_writing_paused: Cell::new(false),
            lost: RefCell::default(),
            waiters: Waiters::default(),
        })
    }
}

/// Reading.
impl Link {
    fn feed(&self, transport: &Transport, data: &[u8]) {
        if self.is_unheard.get() {
            return;
        }
        self.incoming.borrow_mut().extend_from_slice(data);
        self.unread.set(self.unread.get() + data.len());
        if self.unread.get() > self.limit.get().saturating_mul(2) {
            transport.pause_reading();
            self.is_reading_paused.set(true);
        }
        self.wake_reader();
    }

    fn feed_eof(&self) {
        self.has_eof.set(true);
        self.wake_reader();
    }

    /// Every later read fails with it.
    pub(crate) fn fail_reading(&self, error: io::Error) {
        *self.read_error.borrow_mut() = Some(error);
        self.wake_reader();
    }

    pub(crate) fn read_error(&self) -> Option<io::Error> {
        self.read_error.borrow().as_ref().map(copy_of)
    }

    /// Whether the peer has finished and everything was read.
    pub(crate) fn is_at_eof(&self) -> bool {
        self.has_eof.get() && self.unread.get() == 0
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit.get()
    }

    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.set(limit);
    }

    /// The reader's task has used `count` bytes.
    pub(crate) fn consumed(&self, transport: &Transport, count: usize) {
        self.unread.set(self.unread.get() - count);
        if self.unread.get() <= self.limit.get() {
            self.resume_reading(transport);
        }
    }

    /// Moves what has arrived behind what is `held`; true if that was something.
    pub(crate) fn take_over(&self, held: &mut ReadBuffer) -> io::Result<bool> {
        if let Some(error) = self.read_error() {
            return Err(error);
        }
        let mut incoming = self.incoming.borrow_mut();
        let has_more = !incoming.is_empty();
        if has_more {
            held.append(&mut incoming);
        }
        Ok(has_more)
    }

    /// True with more bytes in `held`, false at the end of the stream. Waits if neither is so, and
    /// then receives on whatever the limit says: the task that waits needs more than it has (STRM-08).
    pub(crate) fn poll_more(
        &self,
        transport: &Transport,
        held: &mut ReadBuffer,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        if self.take_over(held)? {
            return Poll::Ready(Ok(true));
        }
        if self.has_eof.get() {
            return Poll::Ready(Ok(false));
        }
        self.resume_reading(transport);
        self.reader.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    fn resume_reading(&self, transport: &Transport) {
        if self.is_reading_paused.replace(false) {
            transport.resume_reading();
        }
    }

    /// Nobody will read: the stream is received and thrown away, so that its end is noticed and no
    /// unread byte turns the close into a reset.
    pub(crate) fn unhear(&self, transport: &Transport) {
        self.is_unheard.set(true);
        self.unread.set(0);
        let unread = self.incoming.take();
        drop(unread);
        self.resume_reading(transport);
    }

    fn wake_reader(&self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }
}

/// Writing and the end.
impl Link {
    pub(crate) fn is_writing_paused(&self) -> bool {
        self.is_writing_paused.get()
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.borrow().is_some()
    }

    /// The error that ended the connection, if it is lost and there was one.
    pub(crate) fn loss(&self) -> Option<io::Error> {
        let lost = self.lost.borrow();
        lost.as_ref()?.as_ref().map(copy_of)
    }

    fn lose(&self, error: Option<&io::Error>) {
        *self.lost.borrow_mut() = Some(error.map(copy_of));
        match error {
            None => self.feed_eof(),
            Some(error) => self.fail_reading(copy_of(error)),
        }
        self.waiters.wake_all();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("unread", &self.unread.get())
            .field("at_eof", &self.is_at_eof())
            .field("writing_paused", &self.is_writing_paused())
            .field("lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}

/// Tasks of one loop that wait for the same thing to happen, woken together in the order of coming.
/// Whoever gives up leaves nothing behind.
#[derive(Default)]
pub(crate) struct Waiters {
    next: Cell<u64>,
    /// It has happened for every ticket below.
    woken_below: Cell<u64>,
    wakers: RefCell<BTreeMap<u64, Waker>>,
}

impl Waiters {
    /// Ready when it happens, counted from the first poll, which draws the ticket.
    pub(crate) fn poll(&self, ticket: &mut Option<u64>, cx: &mut Context<'_>) -> Poll<()> {
        let mine = *ticket.get_or_insert_with(|| self.next.replace(self.next.get() + 1));
        if mine < self.woken_below.get() {
            *ticket = None;
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        let replaced = self.wakers.borrow_mut().insert(mine, waker);
        drop(replaced);
        Poll::Pending
    }

    pub(crate) fn forget(&self, ticket: &mut Option<u64>) {
        if let Some(ticket) = ticket.take() {
            let waker = self.wakers.borrow_mut().remove(&ticket);
            drop(waker);
        }
    }

    pub(crate) async fn wait(&self) {
        struct Waiting<'a>(&'a Waiters, Option<u64>);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.forget(&mut self.1);
            }
        }
        let mut waiting = Waiting(self, None);
        std::future::poll_fn(|cx| self.poll(&mut waiting.1, cx)).await;
    }

    fn wake_all(&self) {
        self.woken_below.set(self.next.get());
        for waker in self.wakers.take().into_values() {
            waker.wake();
        }
    }
}

/// What a server does with a connection once it stands.
pub(crate) type Serve = Rc<dyn Fn(&Transport, Rc<Link>)>;

/// The protocol under a reader and its writers.
pub(crate) struct StreamProtocol {
    link: Rc<Link>,
    /// `None` for a client: it has asked for the connection and waits.
    serve: Option<Serve>,
}

impl StreamProtocol {
    pub(crate) fn new(link: Rc<Link>, serve: Option<Serve>) -> Self {
        StreamProtocol { link, serve }
    }
}

impl Protocol for StreamProtocol {
    fn connection_made(&mut self, transport: &Transport) {
        if let Some(serve) = self.serve.take() {
            serve(transport, Rc::clone(&self.link));
        }
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.link.feed(transport, data);
    }

    fn eof_received(&mut self, _transport: &Transport) -> AfterEof {
        self.link.feed_eof();
        AfterEof::KeepOpen
    }

    fn pause_writing(&mut self, _transport: &Transport) {
        self.link.is_writing_paused.set(true);
    }

    fn resume_writing(&mut self, _transport: &Transport) {
        self.link.is_writing_paused.set(false);
        self.link.waiters.wake_all();
    }

    fn connection_lost(&mut self, _transport: &Transport, error: Option<&io::Error>) {
        self.link.lose(error);
    }
}

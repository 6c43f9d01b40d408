//! One stream connection of the callback model: the state behind a [`Transport`].
//!
//! The same for TCP, Unix sockets and pipes; what they differ in is the [`Descriptor`]'s.
//!
//! What most requests do not meet is kept out of line (`inline(never)`, `cold`): inlined, it made every request
//! save and restore the registers that only it needs, a tenth of the instructions of an echo.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;

use rustix::io::Errno;

use crate::net::SocketName;
use crate::net::server::{EndClients, OpenGuard, ServerCore};
use crate::runtime::{Interest, IoHandler, IoKey, LocalLoop, Ready, Received, yield_now};
use crate::transport::callee::Callee;
use crate::transport::descriptor::Descriptor;
use crate::transport::flow::{FlowCall, WriteBuffer};
use crate::transport::protocol::Protocol;
use crate::transport::reading::Held;
use crate::transport::stream::{Transport, Unclaimed};

/// From this many writes to a connection that is gone, a warning says so.
const WARN_AFTER_LOST_WRITES: u32 = 5;

// The state of a connection, one bit each. Set and cleared on the home loop only.

/// Set by `pause_reading`, cleared by `resume_reading`.
pub(super) const READING_PAUSED: u16 = 1;
/// There was news while nothing was to be read. Set by an event, cleared by `resume_reading`.
pub(super) const READ_DUE: u16 = 1 << 1;
/// A receive stands in the ready queue. Set by `queue_read`, cleared when its turn has come.
pub(super) const READ_QUEUED: u16 = 1 << 2;
/// A short read no longer proves that all was read (S10). Set by an event, never cleared: a receive
/// more is all it can cost.
pub(super) const NO_MORE_EDGES: u16 = 1 << 3;
/// Nothing is read any more. Set by the peer's end, never cleared; from the start at a writing end.
pub(super) const EOF_SEEN: u16 = 1 << 4;
/// Set by `write_eof`, never cleared; from the start at a reading end.
const EOF_WRITTEN: u16 = 1 << 5;
/// Set by `close`, `abort` or a fatal error, never cleared.
pub(super) const CLOSING: u16 = 1 << 6;
/// `connection_lost` is scheduled. Set once, never cleared; never without CLOSING.
const LOST_DUE: u16 = 1 << 7;
/// All is given back. Set once, never cleared.
const RELEASED: u16 = 1 << 8;
/// The reading end of a pipe. Set at the start, never cleared; never with WRITING_END.
pub(super) const READING_END: u16 = 1 << 9;
/// The writing end of a pipe. Set at the start, never cleared.
pub(super) const WRITING_END: u16 = 1 << 10;
/// Bytes wait to be sent. Set when the buffer takes some, cleared when it is empty again.
pub(super) const UNSENT: u16 = 1 << 11;
/// There is something in `held`. Set and cleared with it.
pub(super) const HELD: u16 = 1 << 12;

/// The connection itself: known to its loop by `key`, to the protocol's owner by [`Transport`].
pub(crate) struct Connection {
    pub(super) local: LocalLoop,
    /// Closed when the connection is lost.
    pub(super) descriptor: RefCell<Descriptor>,
    /// Taken when the connection is lost.
    pub(super) protocol: Callee,
    pub(super) buffer: RefCell<WriteBuffer>,
    pub(super) peer: SocketName,
    pub(super) key: Cell<Option<IoKey>>,
    state: Cell<u16>,
    lost_writes: Cell<u32>,
    /// The turn of the last receive, cut to 32 bits: a confusion delays a receive by one turn.
    pub(super) read_turn: Cell<u32>,
    /// What was received, and could not be delivered. Seldom anything.
    pub(super) held: Cell<Option<Box<Held>>>,
    open: Cell<Option<OpenGuard>>,
}

impl Connection {
    /// Schedules `connection_made`; reading begins after it. `open` counts the connection in its
    /// server.
    pub(crate) fn start(
        local: &LocalLoop,
        descriptor: impl Into<Descriptor>,
        peer: SocketName,
        protocol: Box<dyn Protocol>,
        open: Option<OpenGuard>,
    ) -> Transport {
        let descriptor = descriptor.into();
        let kind = match descriptor {
            Descriptor::ReadingEnd(_) => READING_END | EOF_WRITTEN,
            Descriptor::WritingEnd(_) => WRITING_END | EOF_SEEN,
            _ => 0,
        };
        let connection = Rc::new(Connection {
            local: local.clone(),
            descriptor: RefCell::new(descriptor),
            protocol: Callee::new(protocol),
            buffer: RefCell::default(),
            peer,
            key: Cell::new(None),
            state: Cell::new(kind),
            lost_writes: Cell::new(0),
            read_turn: Cell::new(0),
            held: Cell::new(None),
            open: Cell::new(open),
        });
        let key = local.insert_io(connection.clone());
        connection.key.set(Some(key));
        let made = Rc::clone(&connection);
        local.call_soon(move || made.make());
        Transport::new(connection)
    }

    /// The same for a connection that somebody waits for: when this returns, `connection_made` has
    /// been called. Dropping the future ends the connection (CONN-06).
    pub(crate) async fn open(
        local: &LocalLoop,
        descriptor: impl Into<Descriptor>,
        peer: SocketName,
        protocol: Box<dyn Protocol>,
    ) -> Transport {
        let transport = Connection::start(local, descriptor, peer, protocol, None);
        let unclaimed = Unclaimed::new(transport);
        // One turn: `connection_made` was scheduled before this task's next step.
        yield_now().await;
        unclaimed.claim()
    }

    fn make(self: &Rc<Self>) {
        if let Err(error) = self.call(|protocol, t| protocol.connection_made(t)) {
            return self.force_close(Some(error));
        }
        if self.has(LOST_DUE) {
            return;
        }
        if let Err(error) = self.register() {
            self.force_close(Some(error));
        }
    }

    fn register(&self) -> io::Result<()> {
        let descriptor = self.descriptor.borrow();
        let (Some(key), Some(fd)) = (self.key.get(), descriptor.fd()) else {
            return Ok(());
        };
        match self.local.watch_io(fd, key) {
            // A device like /dev/null: it has no readiness to report, and never blocks a writer.
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied && self.has(WRITING_END) =>
            {
                Ok(())
            }
            watched => watched,
        }
    }

    pub(super) fn has(&self, bits: u16) -> bool {
        self.state.get() & bits != 0
    }

    pub(super) fn set(&self, bits: u16) {
        self.state.set(self.state.get() | bits);
    }

    pub(super) fn clear(&self, bits: u16) {
        self.state.set(self.state.get() & !bits);
    }
}

/// Writing.
impl Connection {
    pub(super) fn write(self: &Rc<Self>, data: &[u8]) {
        if data.is_empty() || self.has(EOF_WRITTEN | CLOSING | UNSENT) {
            return self.write_later(data);
        }
        // Not shared: half the instructions.
        let Ok(descriptor) = self.descriptor.try_borrow_mut() else {
            return self.write_later(data);
        };
        let sent = descriptor.send(data);
        drop(descriptor);
        match sent {
            Ok(sent) if sent == data.len() => {}
            Ok(sent) => self.keep(data, sent),
            Err(errno) => self.write_again(data, errno),
        }
    }

    /// What cannot go out at once, or not in the shortest way.
    #[inline(never)]
    fn write_later(self: &Rc<Self>, data: &[u8]) {
        self.check_writable();
        if data.is_empty() {
            return;
        }
        if self.has(CLOSING) {
            return self.count_lost_write();
        }
        if self.has(UNSENT) {
            return self.keep(data, 0);
        }
        // Who writes from within `with_fd`.
        self.write_again(data, Errno::INTR);
    }

    #[inline(never)]
    fn write_again(self: &Rc<Self>, data: &[u8], refused: Errno) {
        match self.send(refused, |to| to.send(data)) {
            Ok(sent) if sent == data.len() => {}
            Ok(sent) => self.keep(data, sent),
            Err(errno) => self.force_close(Some(errno.into())),
        }
    }

    /// What is not sent of `data`, for when the kernel takes more.
    #[inline(never)]
    fn keep(self: &Rc<Self>, data: &[u8], sent: usize) {
        self.set(UNSENT);
        let call = self.buffer.borrow_mut().push(&data[sent..]);
        self.call_flow(call);
    }

    /// No piece is empty, and there is at least one.
    pub(super) fn write_gathered(self: &Rc<Self>, mut pieces: &mut [IoSlice<'_>]) {
        if self.has(CLOSING) {
            return self.count_lost_write();
        }
        if !self.has(UNSENT) {
            match self.send(Errno::INTR, |to| to.send_gathered(pieces)) {
                Ok(sent) => IoSlice::advance_slices(&mut pieces, sent),
                Err(errno) => return self.force_close(Some(errno.into())),
            }
        }
        if pieces.is_empty() {
            return;
        }
        self.set(UNSENT);
        let mut buffer = self.buffer.borrow_mut();
        let calls = pieces.iter().map(|piece| buffer.push(piece));
        let call = calls.fold(FlowCall::None, FlowCall::or);
        drop(buffer);
        self.call_flow(call);
    }

    /// # Panics
    /// After `write_eof`, and at the reading end of a pipe.
    pub(super) fn check_writable(&self) {
        assert!(
            !self.has(EOF_WRITTEN),
            "write() after write_eof(), or to the reading end of a pipe"
        );
    }

    /// As much as the kernel takes: would-block is none. `refused` is what it said before; an interruption is as good
    /// as not asked.
    fn send(
        &self,
        mut refused: Errno,
        send: impl Fn(&Descriptor) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        while refused == Errno::INTR {
            match send(&self.descriptor.borrow()) {
                Ok(sent) => return Ok(sent),
                Err(errno) => refused = errno,
            }
        }
        if refused == Errno::AGAIN {
            Ok(0)
        } else {
            Err(refused)
        }
    }

    /// Sends what waits, if the kernel has said that it takes more. Once: what it does not take now ends in a new edge,
    /// and what the protocol writes when it is resumed goes out by itself.
    #[inline(never)]
    fn flush(self: &Rc<Self>, ready: Ready) {
        if !ready.intersects(Interest::Write.mask()) {
            return;
        }
        let mut buffer = self.buffer.borrow_mut();
        let sent = match self.send(Errno::INTR, |to| to.send(buffer.pending())) {
            Ok(0) => return,
            Ok(sent) => sent,
            Err(errno) => {
                drop(buffer);
                return self.force_close(Some(errno.into()));
            }
        };
        let call = buffer.consume(sent);
        let is_empty = buffer.is_empty();
        drop(buffer);
        if is_empty {
            self.clear(UNSENT);
            if self.has(EOF_WRITTEN) {
                self.shut_down_writing();
            }
            if self.has(CLOSING) {
                self.schedule_lost(None);
            }
        }
        // Last, for the protocol may write again, pause again and even close.
        self.call_flow(call);
    }

    pub(super) fn write_eof(self: &Rc<Self>) {
        if self.has(EOF_WRITTEN | CLOSING) {
            return;
        }
        if self.has(WRITING_END) {
            return self.close();
        }
        self.set(EOF_WRITTEN);
        if !self.has(UNSENT) {
            self.shut_down_writing();
        }
    }

    fn shut_down_writing(&self) {
        let shut = self.descriptor.borrow().shut_down_writing();
        if let Err(error) = shut {
            // The peer has reset the connection already; reading will say so.
            tracing::debug!(%error, peer = %self.peer, "shutdown after write_eof");
        }
    }

    #[cold]
    fn count_lost_write(&self) {
        let count = self.lost_writes.get().saturating_add(1);
        self.lost_writes.set(count);
        if count >= WARN_AFTER_LOST_WRITES {
            tracing::warn!(peer = %self.peer, "a protocol keeps writing to a closed connection");
        }
    }
}

/// Ending.
impl Connection {
    pub(super) fn close(self: &Rc<Self>) {
        if self.has(CLOSING) {
            return;
        }
        self.set(CLOSING);
        if !self.has(UNSENT) {
            self.schedule_lost(None);
        }
    }

    #[cold]
    pub(super) fn force_close(self: &Rc<Self>, error: Option<io::Error>) {
        self.set(CLOSING);
        self.clear(UNSENT);
        self.buffer.borrow_mut().clear();
        self.schedule_lost(error);
    }

    /// For the sake of its server, if it is this one.
    pub(super) fn end_if_client_of(self: &Rc<Self>, server: &Arc<ServerCore>, how: EndClients) {
        let open = self.open.take();
        let is_client = open
            .as_ref()
            .is_some_and(|open| Arc::ptr_eq(open.server(), server));
        self.open.set(open);
        match how {
            _ if !is_client => {}
            EndClients::Close => self.close(),
            EndClients::Abort => self.force_close(None),
        }
    }

    /// `connection_lost` in the next turn, once.
    fn schedule_lost(self: &Rc<Self>, error: Option<io::Error>) {
        if self.has(LOST_DUE) {
            return;
        }
        self.set(LOST_DUE);
        let connection = Rc::clone(self);
        self.local.call_soon(move || connection.lose(error));
    }

    fn lose(self: &Rc<Self>, error: Option<io::Error>) {
        if let Err(panic) = self.call(|p, t| p.connection_lost(t, error.as_ref())) {
            tracing::debug!(%panic, peer = %self.peer, "connection_lost panicked");
        }
        self.release();
    }

    /// Gives back everything the connection held; the transport may live on, empty.
    fn release(&self) {
        // Counted as open until all of it is gone; and the protocol's own destructor comes last, for
        // if it panics nothing else may be kept.
        self.set(RELEASED | CLOSING);
        let _open = self.open.take();
        if let Some(key) = self.key.take() {
            self.local.remove_io(key);
        }
        // Closing the last descriptor takes it out of the selector; its token is never given again.
        self.descriptor.replace(Descriptor::Closed);
        self.clear(HELD);
        self.held.take();
        let protocol = self.protocol.take();
        drop(protocol);
    }
}

/// Calling the protocol.
impl Connection {
    fn call<T>(
        self: &Rc<Self>,
        call: impl FnOnce(&mut dyn Protocol, &Transport) -> T,
    ) -> io::Result<T> {
        self.protocol.call(&Transport::new(Rc::clone(self)), call)
    }

    pub(super) fn call_flow(self: &Rc<Self>, call: FlowCall) {
        if call != FlowCall::None {
            self.protocol.tell(&Transport::new(Rc::clone(self)), call);
        }
    }

    /// TRN-20: the next call-back goes to this one.
    pub(super) fn set_protocol(self: &Rc<Self>, protocol: Box<dyn Protocol>) {
        if !self.has(RELEASED) {
            self.protocol
                .replace(&Transport::new(Rc::clone(self)), protocol);
        }
    }
}

impl IoHandler for Connection {
    fn describe(&self) -> Cow<'static, str> {
        if self.has(READING_END) {
            "the reading end of a pipe".into()
        } else if self.has(WRITING_END) {
            "the writing end of a pipe".into()
        } else {
            format!("the connection with {}", self.peer).into()
        }
    }

    fn handle_ready(self: Rc<Self>, ready: Ready) {
        let transport = Transport::new(self);
        let this = &transport.connection;
        if is_plain(ready) || this.is_to_read(ready) {
            this.read(&transport);
        }
        if this.has(UNSENT) {
            this.flush(ready);
        }
    }

    fn receive_ahead(&self, ready: Ready, buf: &mut [u8]) -> Option<Received> {
        is_plain(ready).then(|| self.read_ahead(buf))?
    }

    fn handle_received(self: Rc<Self>, ready: Ready, received: Received, buf: &[u8]) {
        let transport = Transport::new(self);
        let this = &transport.connection;
        this.deliver::<true>(&transport, received, buf);
        if this.has(UNSENT) {
            this.flush(ready);
        }
    }

    fn handle_shutdown(self: Rc<Self>) {
        self.release();
    }
}

/// Nothing but bytes to read.
fn is_plain(ready: Ready) -> bool {
    ready.intersects(Ready::READABLE) && !ready.is_final()
}

// Memory of an idle connection is a promise (docs/MEASURING.md); a script in tests is larger.
#[cfg(not(test))]
const _: () = assert!(size_of::<Connection>() <= 184);

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

use crate::net::SocketName;
use crate::net::server::{EndClients, OpenGuard, ServerCore};
use crate::runtime::{Interest, IoHandler, IoKey, LocalLoop, Ready, yield_now};
use crate::transport::callee::Callee;
use crate::transport::descriptor::Descriptor;
use crate::transport::flow::{FlowCall, WriteBuffer};
use crate::transport::protocol::{AfterEof, Protocol};
use crate::transport::stream::Transport;

/// From this many writes to a connection that is gone, a warning says so.
const WARN_AFTER_LOST_WRITES: u32 = 5;

/// What a pipe says whose reader is gone, and what a socket says whose peer has ended.
const READER_GONE: Ready = Ready::READ_CLOSED.or(Ready::ERROR);

/// The bytes a buffered protocol is asked to have room for: what the loop reads at once otherwise.
const BUFFER_HINT: usize = 64 * 1024;

// The state of a connection, one bit each. Set and cleared on the home loop only.

/// Set by `pause_reading`, cleared by `resume_reading`.
pub(super) const READING_PAUSED: u16 = 1;
/// There was news while nothing was to be read. Set by an event, cleared by `resume_reading`.
const READ_DUE: u16 = 1 << 1;
/// A receive stands in the ready queue. Set by `queue_read`, cleared when its turn has come.
const READ_QUEUED: u16 = 1 << 2;
/// A short read no longer proves that all was read (S10). Set by an event, never cleared: a receive
/// more is all it can cost.
const NO_MORE_EDGES: u16 = 1 << 3;
/// Nothing is read any more. Set by the peer's end, never cleared; from the start at a writing end.
const EOF_SEEN: u16 = 1 << 4;
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
const WRITING_END: u16 = 1 << 10;
/// Bytes wait to be sent. Set when the buffer takes some, cleared when it is empty again.
const UNSENT: u16 = 1 << 11;

/// The connection itself: known to its loop by `key`, to the protocol's owner by [`Transport`].
pub(crate) struct Connection {
    pub(super) local: LocalLoop,
    /// Taken when the connection is lost.
    pub(super) descriptor: RefCell<Option<Descriptor>>,
    /// Taken when the connection is lost.
    pub(super) protocol: Callee,
    pub(super) buffer: RefCell<WriteBuffer>,
    pub(super) peer: SocketName,
    pub(super) key: Cell<Option<IoKey>>,
    state: Cell<u16>,
    lost_writes: Cell<u32>,
    /// The turn of the last receive, cut to 32 bits: a confusion delays a receive by one turn.
    read_turn: Cell<u32>,
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
            descriptor: RefCell::new(Some(descriptor)),
            protocol: Callee::new(protocol),
            buffer: RefCell::default(),
            peer,
            key: Cell::new(None),
            state: Cell::new(kind),
            lost_writes: Cell::new(0),
            read_turn: Cell::new(0),
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
        let unclaimed = Unclaimed(Some(transport));
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
        let (Some(key), Some(descriptor)) = (self.key.get(), &*self.descriptor.borrow()) else {
            return Ok(());
        };
        match self.local.watch_io(descriptor, key) {
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

    fn clear(&self, bits: u16) {
        self.state.set(self.state.get() & !bits);
    }

    fn transport(self: &Rc<Self>) -> Transport {
        Transport::new(Rc::clone(self))
    }
}

/// Reading. What may call the protocol is given the transport that the protocol will see, so that a request
/// makes one and not one for each call.
impl Connection {
    /// One receive a turn, so that connections take turns (TRN-17); what an edge will not announce
    /// again is queued behind the others.
    fn read(&self, transport: &Transport) {
        if !self.is_reading() {
            return self.set(READ_DUE);
        }
        // An event behind a queued receive, or a queued receive behind an event: this turn's share is
        // taken.
        let turn = self.local.turn();
        if self.read_turn.replace(turn) == turn {
            return self.queue_read();
        }
        let received = if self.protocol.is_buffered() {
            self.receive_buffered(transport)
        } else {
            self.local
                .with_read_buffer(|buf| self.receive(transport, buf))
        };
        if let Err(error) = received {
            self.receive_failed(transport, error);
        }
    }

    pub(super) fn is_reading(&self) -> bool {
        !self.has(READING_PAUSED | CLOSING | EOF_SEEN)
    }

    fn receive(&self, transport: &Transport, buf: &mut [u8]) -> io::Result<()> {
        let count = self.receive_into(buf)?;
        if count == 0 {
            return self.receive_eof(transport);
        }
        let data = &buf[..count];
        self.protocol
            .call(transport, |protocol, t| protocol.data_received(t, data))?;
        self.go_on_after(count, buf.len());
        Ok(())
    }

    /// A short read has drained the socket, unless no further edge will come.
    fn go_on_after(&self, count: usize, room: usize) {
        if count == room || self.has(NO_MORE_EDGES) {
            self.queue_read();
        }
    }

    /// One call of the protocol for both of its call-backs: the buffer is its own, and who installs
    /// another protocol meanwhile replaces it after that.
    #[inline(never)]
    fn receive_buffered(&self, transport: &Transport) -> io::Result<()> {
        let received = self.protocol.call(transport, |protocol, transport| {
            let protocol = protocol
                .as_buffered()
                .expect("it said so when it was installed");
            let buf = protocol.get_buffer(transport, BUFFER_HINT);
            let room = buf.len();
            if !self.is_reading() {
                self.set(READ_DUE);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            if room == 0 {
                return Err(io::Error::other("get_buffer() returned no room"));
            }
            let count = self.receive_into(buf)?;
            if count > 0 {
                protocol.buffer_updated(transport, count);
            }
            Ok((count, room))
        });
        match received.flatten()? {
            (0, _) => return self.receive_eof(transport),
            (count, room) => self.go_on_after(count, room),
        }
        Ok(())
    }

    fn receive_into(&self, buf: &mut [u8]) -> io::Result<usize> {
        match &*self.descriptor.borrow() {
            Some(descriptor) => descriptor.receive(buf),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    #[inline(never)]
    fn receive_eof(&self, transport: &Transport) -> io::Result<()> {
        self.set(EOF_SEEN);
        let told = self
            .protocol
            .call(transport, |protocol, t| protocol.eof_received(t))?;
        if told != AfterEof::KeepOpen || self.has(READING_END) {
            transport.connection.close();
        }
        Ok(())
    }

    #[inline(never)]
    fn receive_failed(&self, transport: &Transport, error: io::Error) {
        match error.kind() {
            io::ErrorKind::WouldBlock => {}
            io::ErrorKind::Interrupted => self.queue_read(),
            _ => transport.connection.force_close(Some(error)),
        }
    }

    pub(super) fn resume_reading(&self) {
        let state = self.state.get();
        self.clear(READING_PAUSED | READ_DUE);
        if state & READ_DUE != 0 {
            self.queue_read();
        }
    }

    /// A receive in the next turn, one however often this is called.
    #[inline(never)]
    fn queue_read(&self) {
        if let (Some(key), false) = (self.key.get(), self.has(READ_QUEUED)) {
            self.set(READ_QUEUED);
            self.local.requeue_io(key, Ready::NONE);
        }
    }
}

/// Writing.
impl Connection {
    pub(super) fn write(self: &Rc<Self>, data: &[u8]) {
        if data.is_empty() || self.has(EOF_WRITTEN | CLOSING | UNSENT) {
            return self.write_later(data);
        }
        let sent = self.send_once(|to| to.send(data));
        if !matches!(sent, Ok(sent) if sent == data.len()) {
            self.write_rest(data, sent);
        }
    }

    /// What must not go out now, or never.
    #[inline(never)]
    fn write_later(self: &Rc<Self>, data: &[u8]) {
        self.check_writable();
        if self.has(CLOSING) && !data.is_empty() {
            self.count_lost_write();
        } else if !data.is_empty() {
            self.keep(data);
        }
    }

    /// What the kernel has not taken at once.
    #[inline(never)]
    fn write_rest(self: &Rc<Self>, data: &[u8], sent: io::Result<usize>) {
        match self.settle(sent, |to| to.send(data)) {
            Ok(sent) if sent == data.len() => {}
            Ok(sent) => self.keep(&data[sent..]),
            Err(error) => self.force_close(Some(error)),
        }
    }

    /// For when the kernel takes more.
    fn keep(self: &Rc<Self>, rest: &[u8]) {
        self.set(UNSENT);
        let call = self.buffer.borrow_mut().push(rest);
        self.call_flow(call);
    }

    /// No piece is empty, and there is at least one.
    pub(super) fn write_gathered(self: &Rc<Self>, mut pieces: &mut [IoSlice<'_>]) {
        if self.has(CLOSING) {
            return self.count_lost_write();
        }
        if !self.has(UNSENT) {
            match self.send(|to| to.send_gathered(pieces)) {
                Ok(sent) => IoSlice::advance_slices(&mut pieces, sent),
                Err(error) => return self.force_close(Some(error)),
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

    /// As much as the kernel takes.
    fn send(&self, send: impl Fn(&Descriptor) -> io::Result<usize>) -> io::Result<usize> {
        self.settle(self.send_once(&send), &send)
    }

    /// What a first attempt comes to: would-block is none, and an interruption no answer.
    fn settle(
        &self,
        mut sent: io::Result<usize>,
        send: impl Fn(&Descriptor) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match sent {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    sent = self.send_once(&send);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                sent => return sent,
            }
        }
    }

    fn send_once(&self, send: impl Fn(&Descriptor) -> io::Result<usize>) -> io::Result<usize> {
        match &*self.descriptor.borrow() {
            Some(descriptor) => send(descriptor),
            None => Ok(0),
        }
    }

    /// Sends what waits, and there is something. Once: what the kernel does not take now ends in a new edge, and what the
    /// protocol writes when it is resumed goes out by itself.
    #[inline(never)]
    fn flush(self: &Rc<Self>) {
        let mut buffer = self.buffer.borrow_mut();
        let sent = match self.send(|to| to.send(buffer.pending())) {
            Ok(0) => return,
            Ok(sent) => sent,
            Err(error) => {
                drop(buffer);
                return self.force_close(Some(error));
            }
        };
        let call = buffer.consume(sent);
        let is_empty = buffer.is_empty();
        drop(buffer);
        if is_empty {
            self.clear(UNSENT);
            self.buffer_is_empty();
        }
        // Last, for the protocol may write again, pause again and even close.
        self.call_flow(call);
    }

    fn buffer_is_empty(self: &Rc<Self>) {
        if self.has(EOF_WRITTEN) {
            self.shut_down_writing();
        }
        if self.has(CLOSING) {
            self.schedule_lost(None);
        }
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
        if let Some(descriptor) = &*self.descriptor.borrow()
            && let Err(error) = descriptor.shut_down_writing()
        {
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

    /// The reader of a pipe is gone (PIPE-02): no write need find it out.
    #[cold]
    fn lose_reader(self: &Rc<Self>) {
        let is_cut = self.has(UNSENT);
        self.force_close(is_cut.then(|| io::ErrorKind::BrokenPipe.into()));
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
        let descriptor = self.descriptor.borrow_mut().take();
        drop(descriptor);
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
        self.protocol.call(&self.transport(), call)
    }

    pub(super) fn call_flow(self: &Rc<Self>, call: FlowCall) {
        if call != FlowCall::None {
            self.protocol.tell(&self.transport(), call);
        }
    }

    /// TRN-20: the next call-back goes to this one.
    pub(super) fn set_protocol(self: &Rc<Self>, protocol: Box<dyn Protocol>) {
        if !self.has(RELEASED) {
            self.protocol.replace(&self.transport(), protocol);
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
        if ready.is_final() {
            if this.has(WRITING_END) && ready.intersects(READER_GONE) {
                return this.lose_reader();
            }
            this.set(NO_MORE_EDGES);
        }
        // No news is the receive that was queued.
        let is_queued = ready == Ready::NONE;
        if is_queued {
            this.clear(READ_QUEUED);
        }
        if is_queued || ready.intersects(Interest::Read.mask()) {
            this.read(&transport);
        }
        if this.has(UNSENT) && ready.intersects(Interest::Write.mask()) {
            this.flush();
        }
    }

    fn handle_shutdown(self: Rc<Self>) {
        self.release();
    }
}

/// A transport whose owner may give up before he gets it.
struct Unclaimed(Option<Transport>);

impl Unclaimed {
    fn claim(mut self) -> Transport {
        self.0.take().expect("claimed only here")
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(transport) = &self.0 {
            transport.abort();
        }
    }
}

// Memory of an idle connection is a promise (docs/MEASURING.md); a script in tests is larger.
#[cfg(not(test))]
const _: () = assert!(size_of::<Connection>() <= 176);

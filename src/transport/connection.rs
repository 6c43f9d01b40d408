//! One stream connection of the callback model: the state behind a [`Transport`].
//!
//! The same for TCP, Unix sockets and pipes; what they differ in is the [`Descriptor`]'s.

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};

use crate::net::SocketName;
use crate::net::server::OpenGuard;
use crate::runtime::{
    ErrorContext, Interest, IoHandler, IoKey, LocalLoop, Ready, panic_text, yield_now,
};
use crate::transport::descriptor::Descriptor;
use crate::transport::flow::{FlowCall, WriteBuffer};
use crate::transport::protocol::{AfterEof, Protocol};
use crate::transport::stream::Transport;

/// From this many writes to a connection that is gone, a warning says so.
const WARN_AFTER_LOST_WRITES: u32 = 5;

// The state of a connection, one bit each. Set and cleared on the home loop only.

/// Set by `pause_reading`, cleared by `resume_reading`.
pub(super) const READING_PAUSED: u8 = 1;
/// There was news to read while reading was paused. Set by an event, cleared by `resume_reading`.
const READ_DUE: u8 = 1 << 1;
/// Set by the peer's end, never cleared: nothing is read any more.
pub(super) const EOF_SEEN: u8 = 1 << 2;
/// Set by `write_eof`, never cleared.
const EOF_WRITTEN: u8 = 1 << 3;
/// Set by `close`, `abort` or a fatal error, never cleared.
pub(super) const CLOSING: u8 = 1 << 4;
/// `connection_lost` is scheduled. Set once, never cleared; never without CLOSING.
const LOST_DUE: u8 = 1 << 5;

/// The connection itself: known to its loop by `key`, to the protocol's owner by [`Transport`].
pub(crate) struct Connection {
    pub(super) local: LocalLoop,
    /// Taken when the connection is lost.
    pub(super) descriptor: RefCell<Option<Descriptor>>,
    /// Borrowed while a call-back runs; taken when the connection is lost.
    protocol: RefCell<Option<Box<dyn Protocol>>>,
    pub(super) buffer: RefCell<WriteBuffer>,
    pub(super) peer: SocketName,
    key: Cell<Option<IoKey>>,
    state: Cell<u8>,
    /// A pause or resume that came up while the protocol was borrowed.
    flow_due: Cell<FlowCall>,
    lost_writes: Cell<u32>,
    open: Cell<Option<OpenGuard>>,
    /// To hand out transports from `&self`.
    this: Weak<Connection>,
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
        let connection = Rc::new_cyclic(|this| Connection {
            local: local.clone(),
            descriptor: RefCell::new(Some(descriptor.into())),
            protocol: RefCell::new(Some(protocol)),
            buffer: RefCell::default(),
            peer,
            key: Cell::new(None),
            state: Cell::new(0),
            flow_due: Cell::new(FlowCall::None),
            lost_writes: Cell::new(0),
            open: Cell::new(open),
            this: this.clone(),
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

    fn make(&self) {
        if let Err(error) = self.call_caught(|protocol, t| protocol.connection_made(t)) {
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
        self.local.watch_io(descriptor, key)
    }

    pub(super) fn has(&self, bits: u8) -> bool {
        self.state.get() & bits != 0
    }

    pub(super) fn set(&self, bits: u8) {
        self.state.set(self.state.get() | bits);
    }

    fn transport(&self) -> Transport {
        let connection = self.this.upgrade();
        Transport::new(connection.expect("called through a reference"))
    }
}

/// Reading.
impl Connection {
    /// One receive a turn, so that connections take turns (TRN-17); what an edge will not announce
    /// again is queued behind the others.
    fn read(&self, ready: Ready) {
        if self.has(READING_PAUSED) {
            return self.set(READ_DUE);
        }
        if self.has(CLOSING | EOF_SEEN) {
            return;
        }
        self.local.with_read_buffer(|buf| {
            let received = match &*self.descriptor.borrow() {
                Some(descriptor) => descriptor.receive(buf),
                None => return,
            };
            match received {
                Ok(0) => self.receive_eof(),
                Ok(count) => {
                    self.receive_data(&buf[..count]);
                    // A short read has drained the socket, unless no further edge will come (S10).
                    if count == buf.len() || ready.is_final() {
                        self.requeue(ready);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => self.requeue(ready),
                Err(error) => self.force_close(Some(error)),
            }
        });
    }

    fn receive_data(&self, data: &[u8]) {
        if let Err(error) = self.call_caught(|protocol, t| protocol.data_received(t, data)) {
            self.force_close(Some(error));
        }
    }

    fn receive_eof(&self) {
        self.set(EOF_SEEN);
        match self.call_caught(|protocol, t| protocol.eof_received(t)) {
            Ok(AfterEof::Close) => self.close(),
            Ok(AfterEof::KeepOpen) => {}
            Err(error) => self.force_close(Some(error)),
        }
    }

    pub(super) fn resume_reading(&self) {
        let state = self.state.get();
        self.state.set(state & !(READING_PAUSED | READ_DUE));
        if state & READ_DUE != 0 {
            // What the kernel said then is not kept; "final" only costs one receive more.
            self.requeue(Ready::READABLE.or(Ready::READ_CLOSED));
        }
    }

    fn requeue(&self, ready: Ready) {
        if let Some(key) = self.key.get() {
            self.local.requeue_io(key, ready);
        }
    }
}

/// Writing.
impl Connection {
    pub(super) fn write(&self, data: &[u8]) {
        assert!(!self.has(EOF_WRITTEN), "write() after write_eof()");
        if data.is_empty() {
            return;
        }
        if self.has(CLOSING) {
            return self.count_lost_write();
        }
        let mut buffer = self.buffer.borrow_mut();
        let sent = if buffer.is_empty() {
            match self.send(data) {
                Ok(sent) => sent,
                Err(error) => {
                    drop(buffer);
                    return self.force_close(Some(error));
                }
            }
        } else {
            0
        };
        if sent < data.len() {
            let call = buffer.push(&data[sent..]);
            drop(buffer);
            self.call_flow(call);
        }
    }

    /// As much as the kernel takes: would-block is none.
    fn send(&self, data: &[u8]) -> io::Result<usize> {
        let descriptor = self.descriptor.borrow();
        let Some(descriptor) = &*descriptor else {
            return Ok(0);
        };
        loop {
            match descriptor.send(data) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                sent => return sent,
            }
        }
    }

    /// Sends until the buffer is empty or the kernel takes no more, which ends in a new edge.
    fn flush(&self) {
        loop {
            let mut buffer = self.buffer.borrow_mut();
            if buffer.is_empty() {
                return;
            }
            let waiting = buffer.len();
            let sent = match self.send(buffer.pending()) {
                Ok(0) => return,
                Ok(sent) => sent,
                Err(error) => {
                    drop(buffer);
                    return self.force_close(Some(error));
                }
            };
            let call = buffer.consume(sent);
            drop(buffer);
            if sent == waiting {
                self.buffer_is_empty();
            }
            // Last, for the protocol may write again, pause again and even close.
            self.call_flow(call);
            if sent < waiting {
                return;
            }
        }
    }

    fn buffer_is_empty(&self) {
        if self.has(EOF_WRITTEN) {
            self.shut_down_writing();
        }
        if self.has(CLOSING) {
            self.schedule_lost(None);
        }
    }

    pub(super) fn write_eof(&self) {
        if self.has(EOF_WRITTEN | CLOSING) {
            return;
        }
        self.set(EOF_WRITTEN);
        if self.buffer.borrow().is_empty() {
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

    fn count_lost_write(&self) {
        let count = self.lost_writes.get() + 1;
        self.lost_writes.set(count);
        if count == WARN_AFTER_LOST_WRITES {
            tracing::warn!(peer = %self.peer, "a protocol keeps writing to a closed connection");
        }
    }
}

/// Ending.
impl Connection {
    pub(super) fn close(&self) {
        if self.has(CLOSING) {
            return;
        }
        self.set(CLOSING);
        if self.buffer.borrow().is_empty() {
            self.schedule_lost(None);
        }
    }

    pub(super) fn force_close(&self, error: Option<io::Error>) {
        self.set(CLOSING);
        self.buffer.borrow_mut().clear();
        self.schedule_lost(error);
    }

    /// `connection_lost` in the next turn, once.
    fn schedule_lost(&self, error: Option<io::Error>) {
        if self.has(LOST_DUE) {
            return;
        }
        self.set(LOST_DUE);
        let connection = self.this.upgrade().expect("called through a reference");
        self.local.call_soon(move || connection.lose(error));
    }

    fn lose(&self, error: Option<io::Error>) {
        if let Err(panic) = self.call_caught(|p, t| p.connection_lost(t, error.as_ref())) {
            tracing::debug!(%panic, peer = %self.peer, "connection_lost panicked");
        }
        self.release();
    }

    /// Gives back everything the connection held; the transport may live on, empty.
    fn release(&self) {
        // Counted as open until all of it is gone; and the protocol's own destructor comes last, for
        // if it panics nothing else may be kept.
        let _open = self.open.take();
        if let Some(key) = self.key.take() {
            self.local.remove_io(key);
        }
        // Closing the last descriptor takes it out of the selector; its token is never given again.
        let descriptor = self.descriptor.borrow_mut().take();
        drop(descriptor);
        let protocol = self.protocol.borrow_mut().take();
        drop(protocol);
    }
}

/// Calling the protocol.
impl Connection {
    /// Calls the protocol and then delivers what flow control owes it. A panic is reported and comes
    /// back as the error that ends the connection.
    fn call_caught<T: Default>(
        &self,
        call: impl FnOnce(&mut dyn Protocol, &Transport) -> T,
    ) -> io::Result<T> {
        let outcome = match self.protocol.try_borrow_mut() {
            Ok(mut protocol) => self.call_borrowed(&mut protocol, call),
            Err(_running) => unreachable!("one handle of a loop runs at a time"),
        };
        if self.flow_due.get() != FlowCall::None {
            self.deliver_flow();
        }
        outcome
    }

    fn call_borrowed<T: Default>(
        &self,
        protocol: &mut RefMut<'_, Option<Box<dyn Protocol>>>,
        call: impl FnOnce(&mut dyn Protocol, &Transport) -> T,
    ) -> io::Result<T> {
        let Some(protocol) = protocol.as_deref_mut() else {
            return Ok(T::default());
        };
        let transport = self.transport();
        catch_unwind(AssertUnwindSafe(|| call(protocol, &transport))).map_err(|payload| {
            let message = panic_text(payload.as_ref()).unwrap_or("(not a text)");
            let error = io::Error::other(format!("the protocol panicked: {message}"));
            let context = ErrorContext::new("a protocol panicked").with_peer(&self.peer);
            self.local.report(context.with_panic(payload));
            error
        })
    }

    /// Tells the protocol to pause or resume; later, if it is the one that is running.
    pub(super) fn call_flow(&self, call: FlowCall) {
        if call != FlowCall::None {
            self.flow_due.set(call);
            self.deliver_flow();
        }
    }

    fn deliver_flow(&self) {
        // As long as the protocol, while it is told, changes the state again.
        while self.flow_due.get() != FlowCall::None {
            let Ok(mut protocol) = self.protocol.try_borrow_mut() else {
                return;
            };
            let due = self.flow_due.replace(FlowCall::None);
            let told = self.call_borrowed(&mut protocol, |protocol, transport| match due {
                FlowCall::Pause => protocol.pause_writing(transport),
                FlowCall::Resume => protocol.resume_writing(transport),
                FlowCall::None => {}
            });
            drop(protocol);
            if let Err(error) = told {
                // FLOW-06: it counts as told, and the connection goes on.
                tracing::debug!(%error, "a flow call-back panicked");
            }
        }
    }
}

impl IoHandler for Connection {
    fn handle_ready(self: Rc<Self>, ready: Ready) {
        if ready.intersects(Interest::Read.mask()) {
            self.read(ready);
        }
        if ready.intersects(Interest::Write.mask()) {
            self.flush();
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

//! One datagram endpoint of the callback model, as its loop sees it.
//!
//! A turn of an endpoint is one batch: what has arrived is received with one system call, each
//! datagram is given to the protocol, and what the protocol sent meanwhile goes out with one system
//! call when the last of them has been given. What is sent outside of a batch goes at once.
//!
//! ```text
//!   opened ──> made ──> open ──close()──> closing: flushing ──empty──> lost
//!                        │                     └──abort()──────────────^
//!                        └──abort()────────────────────────────────────┘
//! ```
//! No error of a datagram ends an endpoint, and no panic of its protocol does.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use crate::net::batch::{self, BatchBuffer, Outbox, Receiver};
use crate::net::endpoint::DatagramSocket;
use crate::net::server::{ListenerGuard, ServerCore};
use crate::net::socket;
use crate::runtime::{ErrorContext, Interest, IoHandler, IoKey, LocalLoop, Ready, WatchWrites};
use crate::transport::datagram::DatagramTransport;
use crate::transport::flow::{Flow, FlowCall};
use crate::transport::protocol::DatagramProtocol;

// The state of an endpoint, one bit each. Set and cleared on the home loop only.

/// A batch is being given to the protocol: what is sent is kept. Set and cleared by `deliver`.
const COLLECTING: u8 = 1;
/// The kernel took no more and will say when it does. Set by `await_room`, cleared by the event.
const FULL: u8 = 1 << 1;
/// Set by `close` and `abort`, never cleared.
pub(super) const CLOSING: u8 = 1 << 2;
/// `connection_lost` is scheduled. Set once, never cleared; never without CLOSING.
const LOST_DUE: u8 = 1 << 3;

/// What a service on several loops shares, and this endpoint's place in it.
pub(crate) type InService = (Arc<ServerCore>, ListenerGuard);

/// The endpoint itself: known to its loop by `key`, to the protocol's owner by [`DatagramTransport`].
pub(crate) struct Endpoint {
    pub(super) local: LocalLoop,
    /// Taken when the endpoint is lost.
    socket: RefCell<Option<OwnedFd>>,
    pub(super) addr: SocketAddr,
    pub(super) remote: Option<SocketAddr>,
    /// Borrowed while a call-back runs; taken when the endpoint is lost.
    protocol: RefCell<Option<Box<dyn DatagramProtocol>>>,
    receiver: Receiver,
    /// That of the loop.
    buffer: Rc<BatchBuffer>,
    pub(super) outbox: RefCell<Outbox>,
    pub(super) flow: Cell<Flow>,
    key: Cell<Option<IoKey>>,
    state: Cell<u8>,
    /// A pause or resume that came up while the protocol was borrowed.
    flow_due: Cell<FlowCall>,
    service: RefCell<Option<InService>>,
    /// To hand out transports from `&self`.
    this: Weak<Endpoint>,
}

impl Endpoint {
    /// Schedules `connection_made`; receiving begins after it.
    pub(crate) fn start(
        local: &LocalLoop,
        opened: DatagramSocket,
        batch: usize,
        protocol: Box<dyn DatagramProtocol>,
        service: Option<InService>,
    ) -> io::Result<DatagramTransport> {
        let receiver = Receiver::new(opened.addr, batch)?;
        let endpoint = Rc::new_cyclic(|this| Endpoint {
            local: local.clone(),
            socket: RefCell::new(Some(opened.fd)),
            addr: opened.addr,
            remote: opened.remote,
            protocol: RefCell::new(Some(protocol)),
            receiver,
            buffer: local.attachment(),
            outbox: RefCell::default(),
            flow: Cell::default(),
            key: Cell::new(None),
            state: Cell::new(0),
            flow_due: Cell::new(FlowCall::None),
            service: RefCell::new(service),
            this: this.clone(),
        });
        let key = local.insert_io(endpoint.clone());
        endpoint.key.set(Some(key));
        let made = Rc::clone(&endpoint);
        local.call_soon(move || made.make());
        Ok(DatagramTransport { endpoint })
    }

    fn make(&self) {
        self.with_protocol(|called| called.call(|protocol, t| protocol.connection_made(t)));
        if self.has(LOST_DUE) {
            return;
        }
        if let Err(error) = self.watch_reads() {
            tracing::error!(%error, addr = %self.addr, "an endpoint could not be registered");
            self.end(Some(error));
        }
    }

    fn watch_reads(&self) -> io::Result<()> {
        let (Some(key), Some(socket)) = (self.key.get(), &*self.socket.borrow()) else {
            return Ok(());
        };
        self.local.watch_reads(socket, key)
    }

    pub(crate) fn key(&self) -> Option<IoKey> {
        self.key.get()
    }

    pub(super) fn has(&self, bits: u8) -> bool {
        self.state.get() & bits != 0
    }

    /// For tests of what is seen only from inside.
    #[cfg(test)]
    pub(super) fn is_full(&self) -> bool {
        self.has(FULL)
    }

    fn set(&self, bits: u8) {
        self.state.set(self.state.get() | bits);
    }

    fn clear(&self, bits: u8) {
        self.state.set(self.state.get() & !bits);
    }
}

/// Receiving.
impl Endpoint {
    /// One batch a turn, so that other work of the loop gets its turn (R23); what an edge will not
    /// announce again is queued behind it.
    fn receive(&self, ready: Ready) {
        if self.has(CLOSING) {
            return;
        }
        self.buffer.lend(self.receiver.limit(), |buf| {
            let received = match &*self.socket.borrow() {
                Some(socket) => self.receiver.recv(socket, buf),
                None => return,
            };
            match received {
                Ok(arrived) => {
                    self.deliver(&arrived);
                    // Fewer than asked for have drained the socket, unless an error stands between.
                    if arrived.is_full() || ready.is_final() {
                        self.look_again(ready);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    // What some datagram sent earlier met; those behind it are still there.
                    self.report(error);
                    self.look_again(ready);
                }
            }
        });
    }

    /// Gives the batch to the protocol, then sends what it answered.
    fn deliver(&self, arrived: &batch::Arrived<'_>) {
        self.set(COLLECTING);
        self.with_protocol(|called| {
            for (data, addr) in arrived.iter() {
                // UDP-11: it may have closed the endpoint.
                if self.has(CLOSING) {
                    break;
                }
                called.call(|protocol, t| protocol.datagram_received(t, data, addr));
                called.tell_flow();
            }
        });
        self.clear(COLLECTING);
        self.flush();
    }

    fn look_again(&self, ready: Ready) {
        if let Some(key) = self.key.get() {
            self.local.requeue_io(key, ready);
        }
    }
}

/// Sending.
impl Endpoint {
    pub(super) fn send(&self, data: &[u8], to: Option<SocketAddr>) {
        if self.has(CLOSING) {
            return;
        }
        let mut outbox = self.outbox.borrow_mut();
        if outbox.is_empty() && !self.has(COLLECTING) {
            match self.send_now(data, to) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.await_room(),
                Err(error) => {
                    drop(outbox);
                    return self.report(error);
                }
            }
        }
        outbox.push(data, to);
        let is_above = outbox.size() > self.flow.get().limits().high;
        drop(outbox);
        if !is_above {
            return;
        }
        if self.has(FULL) {
            return self.note_growth();
        }
        // It was not refused, only kept for the end of the batch: no reason to pause anybody.
        self.flush();
    }

    fn send_now(&self, data: &[u8], to: Option<SocketAddr>) -> io::Result<()> {
        let socket = self.socket.borrow();
        let Some(socket) = &*socket else {
            return Ok(());
        };
        loop {
            let sent = match to {
                Some(to) => socket::send_to(socket, data, to),
                None => socket::send(socket, data),
            };
            match sent {
                Ok(_all) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends what waited when it began, unless the kernel takes no more; what an error is about is
    /// dropped and reported, and the rest still goes (UDP-07).
    fn flush(&self) {
        let mut left = self.outbox.borrow().len();
        while left > 0 && !self.has(FULL) {
            match self.send_batch() {
                // Aborted by what was told of an error.
                Ok(0) => break,
                Ok(sent) => left = left.saturating_sub(sent),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.await_room();
                    break;
                }
                Err(error) => {
                    self.outbox.borrow_mut().remove_first(1);
                    left -= 1;
                    self.report(error);
                }
            }
        }
        self.after_flush();
    }

    fn send_batch(&self) -> io::Result<usize> {
        let mut outbox = self.outbox.borrow_mut();
        match &*self.socket.borrow() {
            Some(socket) if !outbox.is_empty() => outbox.send(socket),
            _ => Ok(0),
        }
    }

    fn after_flush(&self) {
        let size = self.outbox.borrow().size();
        if size == 0 {
            if self.has(CLOSING) {
                self.end(None);
            }
        } else if !self.has(FULL) {
            // Sent by those who were told of errors, and they could keep the loop; or nobody will say
            // when there is room.
            self.look_again(Ready::WRITABLE);
        }
        let mut flow = self.flow.get();
        let call = match flow.shrunk_to(size) {
            FlowCall::None => flow.grown_to(size),
            resume => resume,
        };
        self.flow.set(flow);
        // Last, for the protocol may send again, pause again and even close.
        self.call_flow(call);
    }

    fn note_growth(&self) {
        let mut flow = self.flow.get();
        let call = flow.grown_to(self.outbox.borrow().size());
        self.flow.set(flow);
        self.call_flow(call);
    }

    /// Has the kernel say when there is room. It says so at once if there is by now.
    fn await_room(&self) {
        if self.rewatch(WatchWrites::Yes) {
            self.set(FULL);
        }
    }

    /// There may be room: sends, and stops asking for it when nothing waits any more.
    fn resume(&self) {
        let was_full = self.has(FULL);
        self.clear(FULL);
        self.flush();
        if was_full && !self.has(FULL) {
            self.rewatch(WatchWrites::No);
        }
    }

    fn rewatch(&self, writes: WatchWrites) -> bool {
        let (Some(key), Some(socket)) = (self.key.get(), &*self.socket.borrow()) else {
            return false;
        };
        let watched = self.local.rewatch_io(socket, key, writes);
        if let Err(error) = &watched {
            // Not registered before `connection_made`, or no kernel memory: asked again every turn.
            tracing::debug!(%error, addr = %self.addr, "an endpoint could not be watched");
        }
        watched.is_ok()
    }
}

/// Ending.
impl Endpoint {
    pub(super) fn close(&self) {
        if self.has(CLOSING) {
            return;
        }
        self.set(CLOSING);
        if self.outbox.borrow().is_empty() {
            self.end(None);
        }
    }

    pub(super) fn abort(&self) {
        self.set(CLOSING);
        self.outbox.borrow_mut().clear();
        self.end(None);
    }

    /// `connection_lost` in the next turn, once.
    fn end(&self, error: Option<io::Error>) {
        self.set(CLOSING);
        if self.has(LOST_DUE) {
            return;
        }
        self.set(LOST_DUE);
        let endpoint = self.rc();
        self.local.call_soon(move || {
            let error = error.as_ref();
            endpoint.with_protocol(|called| called.call(|p, t| p.connection_lost(t, error)));
            endpoint.release();
        });
    }

    /// Gives back everything the endpoint held; the transport may live on, empty.
    fn release(&self) {
        // Counted as open until all of it is gone; and the protocol's own destructor comes last, for
        // if it panics nothing else may be kept.
        let _service = self.service.take();
        if let Some(key) = self.key.take() {
            self.local.remove_io(key);
        }
        self.outbox.borrow_mut().clear();
        let socket = self.socket.borrow_mut().take();
        drop(socket);
        let protocol = self.protocol.borrow_mut().take();
        drop(protocol);
    }

    fn rc(&self) -> Rc<Endpoint> {
        self.this.upgrade().expect("called through a reference")
    }
}

/// The protocol while it is called, borrowed once for a whole batch.
struct Called<'a> {
    endpoint: &'a Endpoint,
    protocol: &'a mut dyn DatagramProtocol,
    transport: &'a DatagramTransport,
}

impl Called<'_> {
    /// A panic is reported, and the endpoint stays open (UDP-10).
    fn call(&mut self, f: impl FnOnce(&mut dyn DatagramProtocol, &DatagramTransport)) {
        let Called {
            protocol,
            transport,
            ..
        } = self;
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| f(&mut **protocol, transport))) {
            let Endpoint { addr, local, .. } = self.endpoint;
            let context = ErrorContext::new(format!("the datagram protocol at {addr} panicked"));
            local.report(context.with_panic(payload));
        }
    }

    /// Delivers what flow control owes, as long as the protocol, while it is told, changes the state
    /// again.
    fn tell_flow(&mut self) {
        loop {
            match self.endpoint.flow_due.replace(FlowCall::None) {
                FlowCall::Pause => self.call(|protocol, t| protocol.pause_writing(t)),
                FlowCall::Resume => self.call(|protocol, t| protocol.resume_writing(t)),
                FlowCall::None => return,
            }
        }
    }
}

/// Calling the protocol.
impl Endpoint {
    /// False if the protocol is running just now: then `f` was not called.
    fn with_protocol(&self, f: impl FnOnce(&mut Called<'_>)) -> bool {
        let Ok(mut protocol) = self.protocol.try_borrow_mut() else {
            return false;
        };
        if let Some(protocol) = protocol.as_deref_mut() {
            let mut called = Called {
                endpoint: self,
                protocol,
                transport: &DatagramTransport {
                    endpoint: self.rc(),
                },
            };
            f(&mut called);
            called.tell_flow();
        }
        true
    }

    /// Tells the protocol to pause or resume; when it returns, if it is the one that is running.
    pub(super) fn call_flow(&self, call: FlowCall) {
        if call != FlowCall::None {
            self.flow_due.set(call);
            // Which tells all that is due.
            self.with_protocol(|_called| {});
        }
    }

    /// Tells the protocol of an error; in the next turn, if it is the one that is running.
    fn report(&self, error: io::Error) {
        if self.has(LOST_DUE) {
            return;
        }
        let told = self.with_protocol(|called| {
            called.call(|protocol, t| protocol.error_received(t, &error));
        });
        if !told {
            let endpoint = self.rc();
            self.local.call_soon(move || endpoint.report(error));
        }
    }
}

impl IoHandler for Endpoint {
    fn handle_ready(self: Rc<Self>, ready: Ready) {
        if ready.intersects(Interest::Read.mask()) {
            self.receive(ready);
        }
        if ready.intersects(Interest::Write.mask()) && !self.outbox.borrow().is_empty() {
            self.resume();
        }
        let is_over = |(core, _): &InService| core.is_closing();
        if self.service.borrow().as_ref().is_some_and(is_over) {
            self.close();
        }
    }

    fn handle_shutdown(self: Rc<Self>) {
        self.release();
    }
}

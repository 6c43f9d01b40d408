//! The protocol of a connection, and the way it is called.
//!
//! Never two calls at a time: a pause or resume that comes up while the protocol runs is delivered
//! when it has returned (it is `&mut` until then). A panic ends the call, not the loop. Another
//! protocol may take its place at any moment, from inside of a call too (TRN-20).

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

use crate::runtime::{ErrorContext, panic_text};
use crate::transport::flow::FlowCall;
use crate::transport::protocol::Protocol;
use crate::transport::stream::Transport;

/// The place of a protocol. Whose connection it is, each call says.
pub(super) struct Callee {
    /// Empty while the protocol runs, so that another may be put there; and when it is gone.
    place: Cell<Option<Box<dyn Protocol>>>,
    /// A pause or resume that came up while the protocol ran.
    flow_due: Cell<FlowCall>,
    /// It lends its own buffer.
    is_buffered: Cell<bool>,
}

impl Callee {
    pub(super) fn new(mut protocol: Box<dyn Protocol>) -> Self {
        Callee {
            is_buffered: Cell::new(protocol.as_buffered().is_some()),
            place: Cell::new(Some(protocol)),
            flow_due: Cell::new(FlowCall::None),
        }
    }

    pub(super) fn is_buffered(&self) -> bool {
        self.is_buffered.get()
    }

    /// Calls the protocol, then delivers what flow control owes it. A panic is reported, and comes
    /// back as the error that ends the connection.
    pub(super) fn call<T>(
        &self,
        transport: &Transport,
        call: impl FnOnce(&mut dyn Protocol, &Transport) -> T,
    ) -> io::Result<T> {
        let outcome = self.run(transport, call);
        // Nothing but the end takes it away, and one handle of a loop runs at a time.
        let outcome = outcome.expect("the protocol is in its place when its loop has news");
        match outcome {
            Ok(value) => {
                if self.flow_due.get() != FlowCall::None {
                    self.deliver_flow(transport);
                }
                Ok(value)
            }
            Err(payload) => Err(self.failed(transport, payload)),
        }
    }

    /// Calls `look` unless the protocol is gone, running, or another type. A panic goes on.
    pub(super) fn look<P: Protocol, T>(
        &self,
        transport: &Transport,
        look: impl FnOnce(&mut P) -> T,
    ) -> Option<T> {
        let outcome = self.run(transport, |protocol, _| {
            let protocol: &mut dyn Any = protocol;
            protocol.downcast_mut().map(look)
        })?;
        self.deliver_flow(transport);
        outcome.unwrap_or_else(|payload| resume_unwind(payload))
    }

    /// The one before is dropped; if it is running, when it has returned.
    pub(super) fn replace(&self, transport: &Transport, mut protocol: Box<dyn Protocol>) {
        self.is_buffered.set(protocol.as_buffered().is_some());
        if let Some(before) = self.place.replace(Some(protocol)) {
            drop_caught(transport, before);
        }
    }

    /// The connection is lost.
    pub(super) fn take(&self) -> Option<Box<dyn Protocol>> {
        self.place.take()
    }

    /// Tells the protocol to pause or resume; later, if it is running.
    pub(super) fn tell(&self, transport: &Transport, call: FlowCall) {
        self.flow_due.set(call);
        self.deliver_flow(transport);
    }

    /// The protocol panicked: reports it, and makes the error that ends the connection.
    #[cold]
    fn failed(&self, transport: &Transport, payload: Box<dyn Any + Send>) -> io::Error {
        self.deliver_flow(transport);
        let message = panic_text(payload.as_ref()).unwrap_or("(not a text)");
        let error = io::Error::other(format!("the protocol panicked: {message}"));
        report(transport, payload);
        error
    }

    #[inline(never)]
    fn deliver_flow(&self, transport: &Transport) {
        // As long as the protocol, while it is told, changes the state again.
        while self.flow_due.get() != FlowCall::None {
            let told = self.run(transport, |protocol, t| match self.flow_due.take() {
                FlowCall::Pause => protocol.pause_writing(t),
                FlowCall::Resume => protocol.resume_writing(t),
                FlowCall::None => {}
            });
            match told {
                Some(Ok(())) => {}
                // FLOW-06: it counts as told, and the connection goes on.
                Some(Err(payload)) => report(transport, payload),
                None => return,
            }
        }
    }

    /// `None` if the protocol is gone, or running.
    fn run<T>(
        &self,
        transport: &Transport,
        call: impl FnOnce(&mut dyn Protocol, &Transport) -> T,
    ) -> Option<thread::Result<T>> {
        let mut protocol = self.place.take()?;
        let outcome = catch_unwind(AssertUnwindSafe(|| call(&mut *protocol, transport)));
        // In both arms: a payload that waits for it is kept in memory, and so is what stands in its place.
        Some(match outcome {
            Ok(value) => {
                self.put_back(transport, protocol);
                Ok(value)
            }
            Err(payload) => {
                self.put_back(transport, protocol);
                Err(payload)
            }
        })
    }

    fn put_back(&self, transport: &Transport, protocol: Box<dyn Protocol>) {
        // At once, and taken out again in the rare case: half the work of looking first.
        if let Some(newer) = self.place.replace(Some(protocol))
            && let Some(older) = self.place.replace(Some(newer))
        {
            drop_caught(transport, older);
        }
    }
}

/// A destructor that panics must not keep the caller from what it has still to do.
#[cold]
fn drop_caught(transport: &Transport, protocol: Box<dyn Protocol>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(protocol))) {
        report(transport, payload);
    }
}

fn report(transport: &Transport, payload: Box<dyn Any + Send>) {
    let context = ErrorContext::new("a protocol panicked").with_peer(transport.peer_name());
    transport.local_loop().report(context.with_panic(payload));
}

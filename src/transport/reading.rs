//! Reading of a stream connection: when it receives, and what becomes of what it has received.

use std::io;
use std::mem;
use std::rc::Rc;

use rustix::io::Errno;

use crate::runtime::{Interest, Ready, Received};
use crate::transport::connection::{
    CLOSING, Connection, EOF_SEEN, HELD, NO_MORE_EDGES, READ_DUE, READ_QUEUED, READING_END,
    READING_PAUSED, UNSENT, WRITING_END,
};
use crate::transport::protocol::AfterEof;
use crate::transport::stream::Transport;

/// The bytes a buffered protocol is asked to have room for: what the loop reads at once otherwise.
const BUFFER_HINT: usize = 64 * 1024;

/// What a pipe says whose reader is gone, and what a socket says whose peer has ended.
const READER_GONE: Ready = Ready::READ_CLOSED.or(Ready::ERROR);

/// What may call the protocol is given the transport that the protocol will see, so that a request makes one and not
/// one for each call.
impl Connection {
    /// One receive a turn, so that connections take turns (TRN-17); what an edge will not announce
    /// again is queued behind the others.
    pub(super) fn read(self: &Rc<Self>, transport: &Transport) {
        if !self.may_receive() {
            return;
        }
        if self.protocol.is_buffered() {
            return self.receive_buffered(transport);
        }
        self.local.with_read_buffer(|buf| {
            let received = self.receive(buf);
            self.deliver::<false>(transport, received, buf);
        });
    }

    /// The same in two steps, which other connections may come between.
    pub(super) fn read_ahead(&self, buf: &mut [u8]) -> Option<Received> {
        let may_receive = !self.protocol.is_buffered() && self.may_receive();
        may_receive.then(|| self.receive(buf))
    }

    // Always, as `deliver`.
    #[inline(always)]
    fn may_receive(&self) -> bool {
        if !self.is_reading() {
            self.set(READ_DUE);
            return false;
        }
        // An event behind a queued receive, or a queued receive behind an event: this turn's share is
        // taken.
        let turn = self.local.turn();
        if self.read_turn.replace(turn) == turn {
            self.queue_read();
            return false;
        }
        true
    }

    /// Of an event that is not just bytes to read.
    #[inline(never)]
    pub(super) fn is_to_read(self: &Rc<Self>, ready: Ready) -> bool {
        // No news is the receive that was queued.
        if ready == Ready::NONE {
            self.clear(READ_QUEUED);
            return true;
        }
        if self.has(WRITING_END) && ready.intersects(READER_GONE) {
            // No write need find it out (PIPE-02).
            let is_cut = self.has(UNSENT);
            self.force_close(is_cut.then(|| io::ErrorKind::BrokenPipe.into()));
            return false;
        }
        if ready.is_final() {
            self.set(NO_MORE_EDGES);
        }
        ready.intersects(Interest::Read.mask())
    }

    pub(super) fn is_reading(&self) -> bool {
        !self.has(READING_PAUSED | CLOSING | EOF_SEEN)
    }

    /// What is held comes first.
    #[inline(always)]
    fn receive(&self, buf: &mut [u8]) -> Received {
        if self.has(HELD) {
            return self.receive_held(buf);
        }
        // Not shared: half the instructions, and nobody has it while a connection receives.
        self.descriptor.borrow_mut().receive(buf)
    }

    #[cold]
    fn receive_held(&self, buf: &mut [u8]) -> Received {
        let mut held = self.held.take().expect("as the state says");
        let received = held.receive(buf);
        if held.is_empty() {
            self.clear(HELD);
        } else {
            self.held.set(Some(held));
        }
        // The rest of it, and what an edge has announced since.
        self.queue_read();
        received
    }

    /// `AHEAD`: others have run since it was received, and may have paused this connection, ended it, or given it another
    /// protocol.
    // Always, and one for each of its callers: a call costs a request 30 instructions.
    #[inline(always)]
    pub(super) fn deliver<const AHEAD: bool>(
        self: &Rc<Self>,
        transport: &Transport,
        received: Received,
        buf: &[u8],
    ) {
        if AHEAD && (!self.is_reading() || self.protocol.is_buffered()) {
            return self.hold(received, buf);
        }
        let count = match received {
            Ok(0) => return self.receive_eof(transport),
            Ok(count) => count,
            Err(errno) => return self.receive_failed(errno),
        };
        let data = &buf[..count];
        let called = self
            .protocol
            .call(transport, |protocol, t| protocol.data_received(t, data));
        match called {
            Ok(()) => self.go_on_after(count, buf.len()),
            Err(error) => self.force_close(Some(error)),
        }
    }

    /// Until the connection reads again; one that has ended never does.
    #[cold]
    fn hold(&self, received: Received, buf: &[u8]) {
        if self.has(CLOSING) {
            return;
        }
        // What was held before has been received first: it is never more than a buffer has room for.
        debug_assert!(!self.has(HELD));
        let bytes = buf[..received.unwrap_or(0)].to_vec();
        self.held.set(Some(Box::new(Held { received, bytes })));
        self.set(HELD);
        self.queue_read();
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
    fn receive_buffered(self: &Rc<Self>, transport: &Transport) {
        let received = self.protocol.call(transport, |protocol, transport| {
            let protocol = protocol
                .as_buffered()
                .expect("it said so when it was installed");
            let buf = protocol.get_buffer(transport, BUFFER_HINT);
            let room = buf.len();
            if !self.is_reading() {
                self.set(READ_DUE);
                return Ok(Err(Errno::AGAIN));
            }
            if room == 0 {
                return Err(io::Error::other("get_buffer() returned no room"));
            }
            let received = self.receive(buf);
            if let Ok(count @ 1..) = received {
                protocol.buffer_updated(transport, count);
            }
            Ok(received.map(|count| (count, room)))
        });
        match received.flatten() {
            Ok(Ok((0, _))) => self.receive_eof(transport),
            Ok(Ok((count, room))) => self.go_on_after(count, room),
            Ok(Err(errno)) => self.receive_failed(errno),
            Err(error) => self.force_close(Some(error)),
        }
    }

    #[inline(never)]
    fn receive_eof(self: &Rc<Self>, transport: &Transport) {
        self.set(EOF_SEEN);
        let told = self
            .protocol
            .call(transport, |protocol, t| protocol.eof_received(t));
        match told {
            Ok(AfterEof::KeepOpen) if !self.has(READING_END) => {}
            Ok(_) => self.close(),
            Err(error) => self.force_close(Some(error)),
        }
    }

    #[inline(never)]
    fn receive_failed(self: &Rc<Self>, errno: Errno) {
        match errno {
            Errno::AGAIN => {}
            Errno::INTR => self.queue_read(),
            _ => self.force_close(Some(errno.into())),
        }
    }

    pub(super) fn resume_reading(&self) {
        let is_due = self.has(READ_DUE);
        self.clear(READING_PAUSED | READ_DUE);
        if is_due {
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

/// What was received when it could not be delivered: bytes, the end, or an error. It comes before what the socket has.
pub(super) struct Held {
    /// Would-block if there is nothing (more) of it.
    received: Received,
    /// As many as were received.
    bytes: Vec<u8>,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.received == Err(Errno::AGAIN)
    }

    /// Gives it out, in the manner of a socket.
    fn receive(&mut self, buf: &mut [u8]) -> Received {
        let received = mem::replace(&mut self.received, Err(Errno::AGAIN));
        let count = received?.min(buf.len());
        buf[..count].copy_from_slice(&self.bytes[..count]);
        self.bytes.drain(..count);
        if !self.bytes.is_empty() {
            self.received = Ok(self.bytes.len());
        }
        Ok(count)
    }
}

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use rustix::io::Errno;

    use crate::transport::reading::Held;

    #[test]
    fn what_is_held_comes_once_in_pieces_as_large_as_the_room() {
        let held = |received, bytes: &[u8]| Held {
            received,
            bytes: bytes.to_vec(),
        };
        let mut buf = [0; 2];
        let mut bytes = held(Ok(3), b"abc");
        assert_eq!((bytes.receive(&mut buf), &buf), (Ok(2), b"ab"));
        assert!(!bytes.is_empty());
        assert_eq!((bytes.receive(&mut buf), &buf), (Ok(1), b"cb"));
        assert!(bytes.is_empty());
        for other in [Ok(0), Err(Errno::CONNRESET)] {
            let mut held = held(other, b"");
            assert!(!held.is_empty());
            assert_eq!(held.receive(&mut buf), other);
            assert!(held.is_empty());
        }
    }
}

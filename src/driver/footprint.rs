//! Where the next step of a task is going to look, so that the processor fetches it ahead of time.
//!
//! A loop of a thousand connections finds little of any of them in its caches, and a step misses the lines one after
//! the other: the task's record, the socket, the buffer, the state of the future. An event says that the step is
//! near. So where a loop has many sockets ([`Slots`](super::slots::Slots)), the lines of all events of a poll are asked
//! for before the first is delivered, and they come at the same time: what that is worth stands in `docs/MEASURING.md`.
//!
//! Addresses for the caches alone: nobody looks at what is there, and one that is out of date costs a line fetched in
//! vain. On processors for which the crate knows no way, nothing is fetched.

use std::ptr;
use std::task::Waker;

use prefetch_index::prefetch_index;

/// The least that one fetch brings, on the machines of today.
const LINE: usize = 64;

/// The addresses of a future that reads; 0 where there is nothing.
// Two words, which stay in registers: a third would be stored by each step (20 instructions).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reader {
    /// Of where the bytes will go.
    buffer: usize,
    /// Of its own state, with that of those that wait for it around.
    state: usize,
}

impl Reader {
    pub(crate) fn new<F>(state: &F) -> Self {
        Reader {
            buffer: 0,
            state: ptr::from_ref(state).addr(),
        }
    }

    pub(crate) fn with_buffer(mut self, buffer: &[u8]) -> Self {
        self.buffer = buffer.as_ptr().addr();
        self
    }
}

/// All that the step of a task touches, as it was when it waited for the first time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Footprint {
    /// Of the task's record, where its waker leads to one.
    record: usize,
    /// Of what names the socket.
    socket: usize,
    reader: Reader,
}

impl Footprint {
    pub(super) fn new<S>(waker: &Waker, socket: &S, reader: Reader) -> Self {
        Footprint {
            record: waker.data().addr(),
            socket: ptr::from_ref(socket).addr(),
            reader,
        }
    }

    pub(super) fn prefetch(self) {
        prefetch_pair(self.record);
        prefetch(self.socket);
        for address in [self.reader.buffer, self.reader.state] {
            // A page that is not there would be looked for each time.
            if address != 0 {
                prefetch(address);
            }
        }
    }
}

/// The two lines at an address.
pub(super) fn prefetch_pair(address: usize) {
    prefetch(address);
    prefetch(address.wrapping_add(LINE));
}

pub(super) fn prefetch(address: usize) {
    // The crate takes a place in a slice, and one outside of it as well.
    let nothing: &[u8] = &[];
    let start = nothing.as_ptr().addr();
    prefetch_index(nothing, address.wrapping_sub(start));
}

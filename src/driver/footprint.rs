//! Where the next step of a task is going to look, so that the processor fetches it ahead of time.
//!
//! A loop of a thousand connections finds little of any of them in its caches, and a step misses the lines one after
//! the other: the task's record, the socket, the buffer, the state of the future. An event says that the step is
//! near. So before a poll's first event is delivered, the lines of all of them are asked for, and they come at the same time
//! (2 to 7 % of the CPU time of an echo of 1,024 connections, the more the slower the memory).
//!
//! Addresses for the caches alone: nobody looks at what is there, and one that is out of date costs a line fetched in
//! vain. On processors for which the crate knows no way, nothing is fetched.

use std::ptr;

use prefetch_index::prefetch_index;

/// The least that one fetch brings, on the machines of today.
const LINE: usize = 64;

/// Addresses, as they were when a task waited for the first time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Footprint {
    /// Of what names the socket.
    socket: usize,
    /// Of where its bytes will go.
    buffer: usize,
    /// Of the future that waits; those that wait for it have their state beside it.
    state: usize,
}

impl Footprint {
    pub(crate) fn of<S, F>(socket: &S, buffer: &[u8], state: &F) -> Self {
        Footprint {
            socket: ptr::from_ref(socket).addr(),
            buffer: buffer.as_ptr().addr(),
            state: ptr::from_ref(state).addr(),
        }
    }

    pub(super) fn prefetch(self) {
        prefetch(self.socket);
        prefetch(self.buffer);
        prefetch(self.state);
    }
}

/// The two lines at an address.
pub(super) fn prefetch_pair(address: usize) {
    prefetch(address);
    prefetch(address.wrapping_add(LINE));
}

fn prefetch(address: usize) {
    // The crate takes a place in a slice, and one outside of it as well.
    let nothing: &[u8] = &[];
    let start = nothing.as_ptr().addr();
    prefetch_index(nothing, address.wrapping_sub(start));
}

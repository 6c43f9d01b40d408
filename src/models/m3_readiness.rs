//! M3: two loops turn one driver, and an operation clears what it found used up (I3).
//!
//! The kernel reports an edge once, to whichever loop polls first. That loop records it late; meanwhile the task
//! may have read everything and met "would block", and new data may have come with an edge for the other loop.
//! If a clear takes a newer event away, the task waits for ever.

use std::sync::Arc;

use loom::{sync::Notify, thread};

use crate::{
    atomics::{AtomicBool, AtomicUsize, Ordering, explore},
    driver::readiness::{Interest, Look, Readiness, Ready},
};

/// A socket, the selector it is in, and what is known of it. The kernel's part is read-modify-writes: its own locks
/// order them.
#[derive(Debug)]
struct Socket {
    bytes: AtomicUsize,
    edge: AtomicBool,
    readiness: Readiness,
    waker: Notify,
}

impl Socket {
    fn new() -> Self {
        Socket {
            bytes: AtomicUsize::new(0),
            edge: AtomicBool::new(false),
            readiness: Readiness::new(),
            waker: Notify::new(),
        }
    }

    fn arrive(&self) {
        self.bytes.fetch_add(1, Ordering::AcqRel);
        self.edge.swap(true, Ordering::AcqRel);
    }

    /// One poll of the selector, and the record of what it brought.
    fn turn(&self) {
        if self.edge.swap(false, Ordering::AcqRel) {
            self.readiness.record(Ready::READABLE);
            self.waker.notify();
        }
    }

    fn read(&self) -> usize {
        self.bytes.swap(0, Ordering::AcqRel)
    }

    /// The task: reads until it has `wanted` bytes. A short read counts as drained.
    fn receive(&self, wanted: usize, clear: fn(&Readiness, Look)) {
        let mut got = 0;
        while got < wanted {
            match self.readiness.look(Interest::Read) {
                Some(seen) => {
                    got += self.read();
                    clear(&self.readiness, seen);
                }
                None => self.waker.wait(),
            }
        }
    }
}

/// Some data is there and known of; more comes, and the home and a thief poll, while the task reads.
fn home_and_thief(clear: fn(&Readiness, Look)) {
    explore(move || {
        let socket = Arc::new(Socket::new());
        socket.arrive();
        socket.turn();
        let thief = {
            let socket = Arc::clone(&socket);
            thread::spawn(move || socket.turn())
        };
        let home = {
            let socket = Arc::clone(&socket);
            thread::spawn(move || {
                socket.arrive();
                socket.turn();
            })
        };
        socket.receive(2, clear);
        thief.join().expect("the thief does not panic");
        home.join().expect("the home does not panic");
    });
}

#[test]
fn an_edge_recorded_after_the_look_survives_the_clear() {
    home_and_thief(|readiness, seen| readiness.clear(Interest::Read, seen));
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_that_clears_whatever_has_come_loses_an_edge() {
    home_and_thief(|readiness, _seen| {
        if let Some(now) = readiness.look(Interest::Read) {
            readiness.clear(Interest::Read, now);
        }
    });
}

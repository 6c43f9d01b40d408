//! M3: two loops turn one driver, an operation clears what it found used up, and waits for more (I3).
//!
//! The kernel reports an edge once, to whichever loop polls first. That loop records it late; meanwhile the task
//! may have read everything and met "would block", and new data may have come with an edge for the other loop.
//! If a clear takes a newer event away, if an event comes between the last look and the wait, or if it finds no
//! waker for who waits, the task waits for ever.

use std::sync::Arc;

use loom::{sync::Notify, thread};

use crate::{
    atomics::{AtomicBool, AtomicUsize, Mutex, Ordering, explore},
    driver::readiness::{Interest, Look, Readiness, Ready},
};

/// A socket, the selector it is in, and what is known of it. The kernel's part is read-modify-writes: its own locks
/// order them.
#[derive(Debug)]
struct Socket {
    bytes: AtomicUsize,
    edge: AtomicBool,
    readiness: Readiness,
    /// The slot: whether the task's waker is kept there.
    has_waker: Mutex<bool>,
    waker: Notify,
}

/// What a task does with its look when it has met the end of the data.
type Clear = fn(&Readiness, Look);
/// How a task waits when it has seen nothing; false if it may not.
type Wait = fn(&Socket, Look) -> bool;

impl Socket {
    fn new() -> Self {
        Socket {
            bytes: AtomicUsize::new(0),
            edge: AtomicBool::new(false),
            readiness: Readiness::default(),
            has_waker: Mutex::new(false),
            waker: Notify::new(),
        }
    }

    fn arrive(&self) {
        self.bytes.fetch_add(1, Ordering::AcqRel);
        self.edge.swap(true, Ordering::AcqRel);
    }

    /// One poll of the selector, and the record of what it brought (E1, E2).
    fn turn(&self) {
        if !self.edge.swap(false, Ordering::AcqRel) {
            return;
        }
        let has_waker = self
            .has_waker
            .lock()
            .expect("no model panics under this lock");
        let waiting = self.readiness.record(Ready::READABLE);
        let is_woken = waiting.includes(Interest::Read) && *has_waker;
        drop(has_waker);
        if is_woken {
            self.waker.notify();
        }
    }

    fn read(&self) -> usize {
        self.bytes.swap(0, Ordering::AcqRel)
    }

    fn keep_waker(&self) {
        *self
            .has_waker
            .lock()
            .expect("no model panics under this lock") = true;
    }

    /// The task: reads until it has `wanted` bytes (O1, O2). A short read counts as drained.
    fn receive(&self, wanted: usize, clear: Clear, wait: Wait) {
        let mut got = 0;
        while got < wanted {
            let seen = self.readiness.look(Interest::Read);
            if seen.ready().is_some() {
                got += self.read();
                clear(&self.readiness, seen);
            } else if wait(self, seen) {
                self.waker.wait();
            }
        }
    }
}

fn clear(readiness: &Readiness, seen: Look) {
    readiness.clear(Interest::Read, seen);
}

fn wait(socket: &Socket, seen: Look) -> bool {
    socket.keep_waker();
    socket.readiness.wait(Interest::Read, seen)
}

/// Some data is there and known of; more comes, and the home and a thief poll, while the task reads.
fn home_and_thief(clear: Clear, wait: Wait) {
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
        socket.receive(2, clear, wait);
        thief.join().expect("the thief does not panic");
        home.join().expect("the home does not panic");
    });
}

#[test]
fn an_edge_recorded_after_the_look_survives_the_clear_and_ends_the_wait() {
    home_and_thief(clear, wait);
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_that_clears_whatever_has_come_loses_an_edge() {
    home_and_thief(
        |readiness, _seen| {
            let now = readiness.look(Interest::Read);
            readiness.clear(Interest::Read, now);
        },
        wait,
    );
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_that_waits_whatever_has_come_sleeps_through_it() {
    home_and_thief(clear, |socket, _seen| {
        socket.keep_waker();
        let now = || socket.readiness.look(Interest::Read);
        while !socket.readiness.wait(Interest::Read, now()) {}
        true
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_that_waits_before_its_waker_is_kept_is_not_woken() {
    home_and_thief(clear, |socket, seen| {
        let waits = socket.readiness.wait(Interest::Read, seen);
        socket.keep_waker();
        waits
    });
}

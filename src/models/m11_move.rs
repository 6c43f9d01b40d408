//! M11: a socket moves from the selector of one loop to that of another while data arrives (I3, I8).
//!
//! The kernel of the model is what its manual promises of an edge-triggered selector: data makes an edge at each selector that
//! watches, and being watched anew makes one if there is data. The old loop may have fetched its edge and
//! find the slot gone when it comes to deliver it.

use std::sync::Arc;

use loom::thread;

use crate::{
    atomics::{Mutex, explore},
    driver::readiness::{Interest, Readiness, Ready},
};

/// The selector of the loop that is left, and of the one that takes over.
const OLD: usize = 0;
const NEW: usize = 1;

#[derive(Debug, Default)]
struct Kernel {
    has_data: bool,
    watches: [bool; 2],
    has_edge: [bool; 2],
}

impl Kernel {
    fn arrive(&mut self) {
        self.has_data = true;
        self.has_edge = self.watches;
    }

    fn watch(&mut self, selector: usize) {
        self.watches[selector] = true;
        self.has_edge[selector] = self.has_data;
    }

    fn end_watch(&mut self, selector: usize) {
        self.watches[selector] = false;
        self.has_edge[selector] = false;
    }
}

type Slot = Option<Arc<Readiness>>;

fn lock<T>(mutex: &Mutex<T>) -> impl std::ops::DerefMut<Target = T> + '_ {
    mutex.lock().expect("no model panics under a lock")
}

/// Fetches, and then delivers under the other lock, as a poll does.
fn poll(selector: usize, kernel: &Mutex<Kernel>, slot: &Mutex<Slot>) {
    let fetched = std::mem::take(&mut lock(kernel).has_edge[selector]);
    if let (true, Some(readiness)) = (fetched, &*lock(slot)) {
        let _nobody_waits = readiness.record(Ready::READABLE);
    }
}

/// The old loop polls and data arrives while the socket moves; then the new loop polls.
fn data_arrives_during_a_move(watch_anew: fn(&mut Kernel)) {
    explore(move || {
        let readiness = Arc::new(Readiness::default());
        let kernel = Arc::new(Mutex::new(Kernel::default()));
        let slot = Arc::new(Mutex::new(Some(Arc::clone(&readiness))));
        lock(&kernel).watch(OLD);
        let loop_and_peer = {
            let (kernel, slot) = (Arc::clone(&kernel), Arc::clone(&slot));
            thread::spawn(move || {
                lock(&kernel).arrive();
                poll(OLD, &kernel, &slot);
            })
        };
        watch_anew(&mut lock(&kernel));
        lock(&kernel).end_watch(OLD);
        *lock(&slot) = None;
        loop_and_peer.join().expect("it does not panic");
        poll(NEW, &kernel, &Mutex::new(Some(Arc::clone(&readiness))));
        assert!(
            readiness.look(Interest::Read).ready().is_some(),
            "an edge was lost"
        );
    });
}

#[test]
fn an_edge_is_found_by_one_of_the_two() {
    data_arrives_during_a_move(|kernel| kernel.watch(NEW));
}

#[test]
#[should_panic(expected = "an edge was lost")]
fn mutant_that_is_not_told_of_what_was_ready_before_loses_an_edge() {
    data_arrives_during_a_move(|kernel| kernel.watches[NEW] = true);
}

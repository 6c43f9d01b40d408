//! M8: a spawn against a shut-down against a steal (I10). No task is left in a queue, each is run or dropped once.

use std::sync::Arc;

use loom::thread;

use crate::{
    atomics::{AtomicUsize, Fence, Ordering, explore, without_fence},
    models::stub::Queue,
    scheduler::gate::Gate,
};

/// The tasks of the model; numbers, from 0.
const N_TASKS: usize = 2;

/// An injector with its gate, and the ledger of what became of each task.
struct Injector {
    queue: Queue,
    gate: Gate,
    ends: [AtomicUsize; N_TASKS],
}

impl Injector {
    fn new() -> Self {
        Self {
            queue: Queue::new(),
            gate: Gate::new(),
            ends: [AtomicUsize::new(0), AtomicUsize::new(0)],
        }
    }

    /// The task was run, or dropped.
    fn end(&self, task: usize) {
        self.ends[task].fetch_add(1, Ordering::Relaxed);
    }

    fn drain(&self) {
        while let Some(task) = self.queue.steal() {
            self.end(task);
        }
    }

    /// G1 to G3.
    fn post(&self, task: usize) {
        if self.gate.is_closed() {
            self.end(task);
            return;
        }
        self.queue.push(task);
        if self.gate.closed_behind() {
            self.drain();
        }
    }

    /// Z1 and Z2.
    fn shut_down(&self) {
        self.gate.close();
        self.drain();
    }
}

/// One thread posts two tasks, one steals one and runs it, one shuts down.
fn spawn_against_shutdown_against_steal(post: fn(&Injector, usize), shut_down: fn(&Injector)) {
    explore(move || {
        let injector = Arc::new(Injector::new());
        let poster = {
            let injector = Arc::clone(&injector);
            thread::spawn(move || (0..N_TASKS).for_each(|task| post(&injector, task)))
        };
        let thief = {
            let injector = Arc::clone(&injector);
            thread::spawn(move || {
                if let Some(task) = injector.queue.steal() {
                    injector.end(task);
                }
            })
        };
        shut_down(&injector);
        poster.join().expect("the poster does not panic");
        thief.join().expect("the thief does not panic");
        assert!(injector.queue.is_empty(), "left in the queue");
        for task in &injector.ends {
            assert_eq!(task.load(Ordering::Relaxed), 1, "each task ends once");
        }
    });
}

#[test]
fn no_task_is_left_behind() {
    spawn_against_shutdown_against_steal(Injector::post, Injector::shut_down);
}

#[test]
#[should_panic(expected = "left in the queue")]
fn mutant_without_the_fence_of_the_poster_leaves_a_task() {
    without_fence(Fence::GatePost, || {
        spawn_against_shutdown_against_steal(Injector::post, Injector::shut_down)
    });
}

#[test]
#[should_panic(expected = "left in the queue")]
fn mutant_without_the_fence_of_the_closer_leaves_a_task() {
    without_fence(Fence::GateClose, || {
        spawn_against_shutdown_against_steal(Injector::post, Injector::shut_down)
    });
}

#[test]
#[should_panic(expected = "left in the queue")]
fn mutant_that_does_not_look_behind_leaves_a_task() {
    spawn_against_shutdown_against_steal(
        |injector, task| {
            if injector.gate.is_closed() {
                injector.end(task);
            } else {
                injector.queue.push(task);
            }
        },
        Injector::shut_down,
    );
}

#[test]
#[should_panic(expected = "left in the queue")]
fn mutant_that_drains_before_it_closes_leaves_a_task() {
    spawn_against_shutdown_against_steal(Injector::post, |injector| {
        injector.drain();
        injector.gate.close();
    });
}

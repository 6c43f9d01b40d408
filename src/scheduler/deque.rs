//! The queues of movable tasks: one deque a loop, from which others steal, and one injector for all.
//!
//! FIFO: a thief takes a batch with one compare-and-swap, and first come, first served is what the
//! tail latency wants. The owner alone pushes to its deque; everyone else uses the injector.

use crossbeam_deque::{Injector, Steal, Stealer, Worker};

use crate::scheduler::gate::Gate;
use crate::task::Runnable;

/// Most tasks taken from a victim, or from the injector, at once; crossbeam takes at most half of what
/// is there, or what is left of one of the injector's blocks. A larger batch only moves the
/// imbalance. Guessed, see the benchmarks `stealing` and `spawn`.
pub(super) const STEAL_BATCH: usize = 16;
/// Attempts on one queue while others keep changing it; then the next one is tried.
const STEAL_RETRIES: usize = 4;

/// The end of a deque that its home loop holds.
#[derive(Debug)]
pub(crate) struct LocalDeque {
    worker: Worker<Runnable>,
}

impl LocalDeque {
    pub(crate) fn new() -> Self {
        LocalDeque {
            worker: Worker::new_fifo(),
        }
    }

    pub(crate) fn stealer(&self) -> Stealer<Runnable> {
        self.worker.stealer()
    }

    pub(crate) fn push(&self, task: Runnable) {
        self.worker.push(task);
    }

    pub(crate) fn pop(&self) -> Option<Runnable> {
        self.worker.pop()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.worker.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.worker.len()
    }

    /// Moves what outsiders have queued here: one task behind others, else at most `batch`, for a turn
    /// costs more than a small task.
    pub(crate) fn take_from(&self, outside: &SharedQueue, batch: usize) {
        let limit = if self.is_empty() { batch } else { 1 };
        outside.move_to(&self.worker, limit);
    }

    /// Moves up to half of a victim's tasks here; how many.
    pub(crate) fn steal_from(&self, victim: &Stealer<Runnable>) -> usize {
        // An attempt pins the epoch and fences; looking first is cheaper.
        if victim.is_empty() {
            return 0;
        }
        let before = self.worker.len();
        for _ in 0..STEAL_RETRIES {
            match victim.steal_batch_with_limit(&self.worker, STEAL_BATCH) {
                Steal::Success(()) => return self.worker.len().saturating_sub(before).max(1),
                Steal::Empty => return 0,
                Steal::Retry => {}
            }
        }
        0
    }
}

/// Tasks that come from outside any loop. Closing it is exact, by [`Gate`]: whoever pushes behind the
/// closing takes out what is there and ends it.
#[derive(Debug)]
pub(crate) struct SharedQueue {
    injector: Injector<Runnable>,
    gate: Gate,
}

impl SharedQueue {
    pub(crate) fn new() -> Self {
        SharedQueue {
            injector: Injector::new(),
            gate: Gate::new(),
        }
    }

    pub(crate) fn push(&self, task: Runnable) {
        self.injector.push(task);
        if self.gate.closed_behind() {
            self.end_all();
        }
    }

    pub(crate) fn pop(&self) -> Option<Runnable> {
        loop {
            match self.injector.steal() {
                Steal::Success(task) => return Some(task),
                Steal::Empty => return None,
                // Another loop took one just now, so each retry is somebody's progress.
                Steal::Retry => {}
            }
        }
    }

    /// Moves some tasks to `deque`, at most `limit`.
    fn move_to(&self, deque: &Worker<Runnable>, limit: usize) {
        // An attempt fences; looking first is cheaper.
        if self.is_empty() {
            return;
        }
        // As in `pop`.
        while self
            .injector
            .steal_batch_with_limit(deque, limit)
            .is_retry()
        {}
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.injector.is_empty()
    }

    /// Closes the queue and ends what is in it.
    pub(crate) fn close(&self) {
        self.gate.close();
        self.end_all();
    }

    fn end_all(&self) {
        while let Some(task) = self.pop() {
            // Dropping a queued task drops its future here and resolves its handle.
            drop(task);
        }
    }
}

//! What stands around the protocols in the models: queues, the kernel's part of an unpark, tasks that wait for
//! each other.
//!
//! Everything here is weaker than the real thing, or equal to it, so that no model passes thanks to a stub.

use loom::sync::Notify;

use crate::{
    atomics::{AtomicBool, AtomicUsize, Ordering, fence},
    scheduler::idle::{Idle, LeftIdle, LeftSearch},
};

/// A queue of up to two items, never reused, with crossbeam's orderings of push and steal.
///
/// crossbeam has SeqCst fences of its own inside `steal` and `Stealer::is_empty`, though not inside
/// `Injector::is_empty`. They are left out: the protocols must not live on what another crate happens to do, and they
/// would hide the mutants.
#[derive(Debug)]
pub(crate) struct Queue {
    slots: [AtomicUsize; 2],
    front: AtomicUsize,
    back: AtomicUsize,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self {
            slots: [AtomicUsize::new(0), AtomicUsize::new(0)],
            front: AtomicUsize::new(0),
            back: AtomicUsize::new(0),
        }
    }

    /// By the one owner: a relaxed store behind a Release fence, as in crossbeam's `Worker::push`.
    pub(crate) fn push(&self, item: usize) {
        let back = self.back.load(Ordering::Relaxed);
        self.slots[back].store(item, Ordering::Relaxed);
        fence(Ordering::Release);
        self.back.store(back + 1, Ordering::Relaxed);
    }

    pub(crate) fn is_empty(&self) -> bool {
        let front = self.front.load(Ordering::Acquire);
        self.back.load(Ordering::Acquire) <= front
    }

    /// By anybody. Repeats until it has an item or sees none.
    pub(crate) fn steal(&self) -> Option<usize> {
        loop {
            let front = self.front.load(Ordering::Acquire);
            if self.back.load(Ordering::Acquire) <= front {
                return None;
            }
            let item = self.slots[front].load(Ordering::Relaxed);
            let moved =
                self.front
                    .compare_exchange(front, front + 1, Ordering::AcqRel, Ordering::Relaxed);
            if moved.is_ok() {
                return Some(item);
            }
        }
    }
}

/// Something that happens once and that one thread waits for.
#[derive(Debug)]
pub(crate) struct Signal {
    happened: AtomicBool,
    bell: Notify,
}

impl Signal {
    pub(crate) fn new() -> Self {
        Self {
            happened: AtomicBool::new(false),
            bell: Notify::new(),
        }
    }

    pub(crate) fn set(&self) {
        self.happened.store(true, Ordering::Release);
        self.bell.notify();
    }

    pub(crate) fn wait(&self) {
        while !self.happened.load(Ordering::Acquire) {
            self.bell.wait();
        }
    }
}

/// A runtime of two loops and one queue that either of them may take from.
#[derive(Debug)]
pub(crate) struct Loops {
    pub(crate) idle: Idle,
    pub(crate) queue: Queue,
    /// The eventfd and selector of each loop. loom lets each wait end once without cause, which stands for
    /// a loop that its own selector woke.
    bells: [Notify; 2],
}

impl Loops {
    pub(crate) fn new() -> Self {
        Self {
            idle: Idle::new(),
            queue: Queue::new(),
            bells: [Notify::new(), Notify::new()],
        }
    }

    pub(crate) fn unpark(&self, id: usize) {
        self.bells[id].notify();
    }

    /// P2–P5 of `scheduler/idle.rs`.
    pub(crate) fn notify(&self) {
        if let Some(id) = self.idle.notify() {
            self.unpark(id);
        }
    }

    /// L3 and L4.
    pub(crate) fn look_again(&self) {
        if !self.queue.is_empty() {
            self.notify();
        }
    }

    /// K3 to K5, after the transition to idle.
    pub(crate) fn look_and_sleep(&self, id: usize) -> LeftIdle {
        if self.queue.is_empty() {
            self.sleep(id)
        } else {
            self.idle.leave_idle(id)
        }
    }

    /// The second half of K4, and K5.
    pub(crate) fn sleep(&self, id: usize) -> LeftIdle {
        if self.idle.is_idle(id) {
            self.bells[id].wait();
        }
        self.idle.leave_idle(id)
    }

    /// Takes one item after leaving idle, with the duties that come with it.
    pub(crate) fn take(&self, left: LeftIdle) -> Option<usize> {
        let item = self.queue.steal();
        let must_look = match left {
            LeftIdle::Retracted => item.is_some(),
            LeftIdle::Claimed(evidence) => self.idle.leave_search(evidence) == LeftSearch::Last,
        };
        if must_look {
            self.look_again();
        }
        item
    }

    /// Parks until there is an item, and takes it.
    pub(crate) fn park_until_work(&self, id: usize) -> usize {
        loop {
            self.idle.transition_to_idle(id, None);
            let left = self.look_and_sleep(id);
            if let Some(item) = self.take(left) {
                return item;
            }
        }
    }
}

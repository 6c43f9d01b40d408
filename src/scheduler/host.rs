//! A loop that is turned by a foreign one: one turn at a time, and what wakes the foreign loop in between.
//!
//! ```text
//!   run_once: leave_rest ── turn, at most until the limit ── rest
//!      ▲                                                       │ nothing to do: announce, watch the deadline
//!      └── the host sees the descriptor readable ◀─ event, ────┘ anything left: wake the host
//!                                       wake-up, deadline
//! ```
//!
//! Between two turns the loop rests: it does not stand in the idle word, for a loop that is claimed there
//! has to come at once, and when a host comes is not ours to say; movable tasks of the other loops
//! never wait for it. Instead it announces itself in a word of its own, under the same fences: set the
//! word, F2, look at the queues; push, F1, read the word. Whoever claims it writes its wake-up
//! descriptor, once, which makes the selector's descriptor readable. The model is `models/m10_host.rs`.

use std::ops::ControlFlow;
use std::rc::Rc;

use crate::atomics::{AtomicBool, Fence, Ordering, fence_at};
use crate::error::LoopError;
use crate::scheduler::context;
use crate::scheduler::ready::Handle;
use crate::scheduler::worker::{Stage, Worker};

/// Whether loop 0 rests in a foreign loop that waits for its descriptor.
#[derive(Debug, Default)]
pub(crate) struct Host {
    /// Set by loop 0, cleared by whoever claims it and by loop 0. What a claimer pushed is guarded by the
    /// locks of the queues; the order between word and queues is that of F1 and F2.
    ///
    /// Never a plain store: one would do, but only for swaps does loom know that nothing comes between what
    /// they read and what they write.
    waits: AtomicBool,
}

impl Host {
    /// By loop 0, when it has nothing to do. It looks at its queues after that.
    pub(crate) fn announce(&self) {
        self.waits.swap(true, Ordering::Relaxed);
        fence_at(Fence::F2);
    }

    /// By loop 0, before a turn, and when it wakes its host itself.
    pub(crate) fn withdraw(&self) {
        self.waits.swap(false, Ordering::Relaxed);
    }

    /// After a push and F1. True: the caller must unpark loop 0.
    #[must_use = "the host is claimed and must be woken"]
    pub(crate) fn claim(&self) -> bool {
        self.waits.load(Ordering::Relaxed) && self.waits.swap(false, Ordering::Relaxed)
    }
}

impl Worker {
    /// Makes one turn that brings something, or waits for one until `limit`, and rests. `Break` if the loop was
    /// stopped.
    pub(crate) fn run_once(self: &Rc<Self>, limit: u64) -> Result<ControlFlow<()>, LoopError> {
        let _entered = context::enter(self)?;
        self.leave_rest();
        // The first of them takes in what is ready, whatever waits here.
        self.tasks_since_poll.set(u32::MAX);
        while !self.turn(&mut || {}, limit) && self.driver().clock().now_ns() < limit {}
        // A turn that found nothing may count as a searcher still: nobody is to rely on it now.
        self.leave_search();
        self.end_of_run();
        let stopped = self.stopping.take();
        self.rest();
        Ok(match stopped {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    }

    fn rest(&self) {
        self.stage.set(Stage::Resting);
        self.shared().host.announce();
        if self.has_work() || !self.driver().watch_deadline() {
            // Whoever has claimed it already wakes the host once more, for nothing.
            self.shared().host.withdraw();
            self.driver().unpark();
        }
    }

    /// Before the next turn, whoever makes it.
    pub(super) fn leave_rest(&self) {
        if self.stage.get() == Stage::Resting {
            self.stage.set(Stage::Live);
            self.shared().host.withdraw();
            self.driver().leave_watch();
        }
    }

    /// What is scheduled from this loop's own thread while the loop rests.
    pub(super) fn push_at_rest(&self, handle: Handle) {
        self.ready.borrow_mut().push(handle);
        self.wake_host();
    }

    pub(super) fn wake_host(&self) {
        if self.shared().host.claim() {
            self.driver().unpark();
        }
    }
}

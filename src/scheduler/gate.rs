//! Closing a queue that cannot be closed: crossbeam's injector takes pushes as long as it exists.
//!
//! When the runtime stops, somebody drains the queue for the last time. A push that crosses this drain would
//! leave a task in a queue that nobody reads any more, and its handle waiting for ever. The gate makes
//! one of the two see the other. It does not hold the queue, and it does not drain.
//!
//! # The protocol
//!
//! **Post**
//! - G1 [`Gate::is_closed`]: refuse. Only a short cut, so that no work is made for nothing
//! - G2 push
//! - G3 fence, read the gate ([`Gate::closed_behind`]); closed: drain the queue and drop what is in it
//!
//! **Close**
//! - Z1 [`Gate::close`]: close the gate, fence
//! - Z2 drain the queue and drop what is in it
//!
//! # Nothing stays in the queue
//!
//! The fences of G3 and Z1 have an order. If G3's comes first, the push of G2 is visible to Z2. If Z1's comes first,
//! G3 sees the gate closed. So at least one drain starts after the push and after the close. Both may see it, and
//! a thief may come between: what is in the queue goes to exactly one of them because the queue hands out each item once. ∎
//!
//! A thief that moved a batch into its own deque must drain that one before it ends; its deque needs no gate
//! because only its owner pushes to it.
//!
//! The model is `models/m8_shutdown.rs`.

use crate::atomics::{AtomicBool, Fence, Ordering, fence_at};

/// Open, then closed for good.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Written once by the closer, read by posters. Promises nothing about other memory; the order against
    /// the queue comes from the fences [`Fence::GateClose`] and [`Fence::GatePost`].
    closed: AtomicBool,
}

impl Gate {
    /// An open gate.
    pub(crate) fn new() -> Self {
        Self {
            closed: AtomicBool::new(false),
        }
    }

    /// Whether a post would be in vain (G1). `false` promises nothing.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// By the closer, before its final drain (Z1).
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        fence_at(Fence::GateClose);
    }

    /// By a poster, after its push (G3). `true`: the poster itself must drain the queue and drop what is in it.
    #[must_use = "if the gate closed meanwhile, the poster must drain the queue"]
    pub(crate) fn closed_behind(&self) -> bool {
        fence_at(Fence::GatePost);
        self.is_closed()
    }
}

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use super::Gate;

    #[test]
    fn a_push_after_the_close_must_be_drained_by_its_poster() {
        let gate = Gate::new();
        assert!(!gate.is_closed());
        assert!(!gate.closed_behind());
        gate.close();
        assert!(gate.is_closed());
        assert!(gate.closed_behind());
    }
}

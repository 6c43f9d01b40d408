//! Receives first: where many requests wait, several are received before the first of them is answered.
//!
//! This is cohort scheduling (Larus and Parkes, *Using Cohort Scheduling to Enhance Server Performance*, USENIX ATC 2002):
//! steps of the same kind are made one behind the other. A receive and a send go through different code of the kernel, more
//! of it than a first-level cache holds, and in turns each finds itself evicted by the other. What it is worth stands
//! in `docs/MEASURING.md`.
//!
//! - *Callbacks.* Of the connections of a poll up to sixteen receive into parts of one buffer, then each is told (`news.rs`);
//!   what the first do to the others in between holds as ever (`transport/reading.rs`).
//! - *Tasks.* The first send behind a receive goes to the end of the queue once, as by [`yield_now`](crate::yield_now)
//!   (`net/stream.rs`). Nothing is kept back: the task can be stolen and cancelled there as anywhere.
//!
//! The price: an answer is later by what the others do before they answer, some ten microseconds, and the last is not
//! later at all. So only if steps are short, and no more tasks wait than a poll or two have brought. If one of those turns out to
//! hold its loop, the answers behind it are held, too, until another loop comes for them.
//!
//! No longer runs of receives: from the 33rd in a row on, the kernel interrupts the processor that sent them, to
//! have their buffers freed there (half of `net.core.skb_defer_max`). It was 1.2 to 1.5 per cent of the CPU time of
//! an echo server whose polls brought 64 and more.

use crate::scheduler::worker::Worker;

/// Fewer are not worth it. In a server in C, cohorts of 8 gained half of what cohorts of 32 did.
const LEAST: usize = 8;
/// The tasks of two polls that found many. Where more wait, it is not for their sockets.
const MOST: usize = 64;
/// A step that takes longer does something besides receiving and sending.
const QUICK_NS: u64 = 10_000;

impl Worker {
    /// Whether so many steps are to receive before the first of them sends.
    pub(super) fn is_cohort(&self, steps: usize) -> bool {
        (LEAST..=MOST).contains(&steps) && self.remote().step_time.is_below(QUICK_NS)
    }

    /// Whether the step of a task that runs just now, and has received, is to let the others receive.
    pub(super) fn gives_way(&self) -> bool {
        let gives_way = self.receives_first.get() && !self.deque.is_empty();
        self.gave_way
            .set(self.gave_way.get() + u64::from(gives_way));
        gives_way
    }
}

//! Receives first: where many requests wait, several are received before the first of them is answered.
//!
//! This is cohort scheduling (Larus and Parkes, *Using Cohort Scheduling to Enhance Server Performance*, USENIX ATC 2002):
//! steps of the same kind are made one behind the other. A receive and a send go through different code of the kernel, more
//! of it than a first-level cache holds; made alternately, each finds itself evicted by the other. What it is worth
//! stands in `docs/MEASURING.md`.
//!
//! - *Callbacks.* Of the connections of a poll up to sixteen receive into parts of one buffer, then each is told (`news.rs`);
//!   what the first do to the others in between holds as ever (`transport/reading.rs`).
//! - *Tasks.* The first send behind a receive goes to the end of the queue once, as by [`yield_now`](crate::yield_now)
//!   (`net/stream.rs`). Nothing is kept back: the task can be stolen and cancelled there as anywhere.
//!
//! The price: an answer is later by what the others do before they answer, some tens of microseconds, and the last is not
//! later at all. So only if steps are short, and no more tasks wait than a poll or two have brought. If one of those turns out to
//! hold its loop, the answers behind it are held, too; where loops steal, until another comes for them.
//!
//! A poll brings 32 events, so about as many are received in a row: from the 33rd on the kernel interrupts the
//! processor that sent them, to have their buffers freed there (half of `net.core.skb_defer_max`). That was more than a
//! hundredth of the CPU time of an echo server whose polls brought 64 and more.

use std::cell::Cell;

use crate::scheduler::backlog::StepTime;
use crate::scheduler::worker::Worker;

/// Fewer are not worth it. In a server in C, cohorts of 8 gained half of what cohorts of 32 did.
const LEAST: usize = 8;
/// What takes longer does something besides receiving and sending.
const QUICK_NS: u64 = 12_000;

/// Whether the steps of tasks were cut in two when many waited last, before the send.
#[derive(Debug, Default)]
pub(super) struct Steps {
    are_cut: Cell<bool>,
}

impl Steps {
    /// Whether requests take so little time that steps are cut from now on. Those that are seem twice as quick: judged
    /// like whole ones, they would stay cut though requests have become long.
    fn cut_if_quick(&self, usual: &StepTime) -> bool {
        let parts = if self.are_cut.get() { 2 } else { 1 };
        let is_quick = usual.is_below(QUICK_NS / parts);
        self.are_cut.set(is_quick);
        is_quick
    }
}

impl Worker {
    /// Whether so many connections of callbacks are to receive before the first is told.
    pub(super) fn is_cohort_of_callbacks(&self, news: usize) -> bool {
        news >= LEAST && self.remote().step_time.is_below(QUICK_NS)
    }

    /// Whether the tasks that wait are to receive before the first of them sends. Where more wait than two polls bring,
    /// it was not their sockets that woke them.
    pub(super) fn is_cohort_of_tasks(&self) -> bool {
        let most = self.shared().config.budget.events_idle.saturating_mul(2);
        if !(LEAST..=most).contains(&self.deque.len()) {
            return false;
        }
        self.steps.cut_if_quick(&self.remote().step_time)
    }

    /// Whether the step of a task that runs just now is to let the others receive before it sends.
    pub(super) fn receives_first(&self) -> bool {
        self.receives_first.get() && !self.deque.is_empty()
    }
}

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use crate::scheduler::backlog::StepTime;
    use crate::scheduler::cohort::Steps;

    /// Whether steps are cut behind many requests of so much time, with half of it before the send.
    fn are_cut(steps: &Steps, usual: &StepTime, request_ns: u64) -> bool {
        for _ in 0..1_000 {
            let parts = if steps.are_cut.get() { 2 } else { 1 };
            usual.add(request_ns, parts);
            steps.cut_if_quick(usual);
        }
        steps.are_cut.get()
    }

    #[test]
    fn steps_are_cut_as_long_as_requests_are_short() {
        let (steps, usual) = (Steps::default(), StepTime::default());
        assert!(are_cut(&steps, &usual, 7_000));
        // Its halves are short.
        assert!(!are_cut(&steps, &usual, 15_000));
        assert!(are_cut(&steps, &usual, 1_000));
    }
}

//! What waits on a loop, and whether another one should come for it.
//!
//! Waking a loop takes two system calls and some ten microseconds, and a task that changes loops finds its socket and
//! its memory in the caches of another core. An echo server's steps take five microseconds: two loops that send
//! for each other over three of them spend a tenth of their time on it. So a loop knows about how long its steps
//! take, and tasks that it will have run before anybody came are left to it.
//!
//! # What that leaves of I1
//!
//! Only a *running* loop has a deque that others may pass by: it looks into it before it parks. If it does not come to
//! that, a parked loop watches it (I6), finds it stuck, and takes whatever there is. A loop that was called
//! ([`LeftIdle::Claimed`](super::idle::LeftIdle)) takes whatever there is, too: who called it may wait for it. What a loop leaves in its
//! deque when nobody turns it any more is announced. Without rescue nothing is passed by (S7).

use crate::atomics::{AtomicU64, Ordering};
use crate::scheduler::shared::Remote;
use crate::scheduler::worker::Worker;

/// A backlog that takes longer is worth another loop's coming. About what a wake-up takes on a virtual machine; between
/// 50 and 250 µs it made no difference to an echo server.
const WORTH_NS: u64 = 50_000;
/// Steps are timed in one turn out of so many: two readings of the clock cost as much as a tenth of a step.
const SAMPLED_TURNS: u64 = 16;

/// What a step of a movable task takes, in the mean of the last few samples.
///
/// Written by the home loop, read by any. Relaxed: an old one makes a loop come in vain, or a little later.
#[derive(Debug)]
pub(crate) struct StepTime(AtomicU64);

impl StepTime {
    fn add(&self, span_ns: u64, steps: u32) {
        let mean = self.0.load(Ordering::Relaxed);
        let sample = span_ns / u64::from(steps);
        self.0
            .store(mean - mean / 8 + sample / 8, Ordering::Relaxed);
    }

    /// Whether so many tasks keep a loop busy for longer than it takes to have another one come.
    fn is_long(&self, waiting: usize) -> bool {
        let mean = self.0.load(Ordering::Relaxed);
        mean.saturating_mul(waiting as u64) >= WORTH_NS
    }
}

/// Long, until something is known: better one that comes in vain.
impl Default for StepTime {
    fn default() -> Self {
        StepTime(AtomicU64::new(WORTH_NS))
    }
}

impl Worker {
    /// Whether the steps of this turn are timed.
    pub(super) fn is_sampled_turn(&self) -> bool {
        self.counters().turns.get().is_multiple_of(SAMPLED_TURNS)
    }

    /// So many steps were made since then.
    pub(super) fn sample_steps(&self, started_ns: u64, steps: u32) {
        if steps > 0 {
            let now = self.driver().clock().now_ns();
            let span = now.saturating_sub(started_ns);
            self.remote().step_time.add(span, steps);
        }
    }

    /// Whether somebody should come for so many tasks of that loop.
    pub(super) fn is_worth_help(&self, of: &Remote, waiting: usize) -> bool {
        of.step_time.is_long(waiting) || !self.shared().is_rescuing()
    }

    /// Work that this loop should take from the others, or from all.
    pub(super) fn has_work_beside(&self) -> bool {
        let mut loops = self.shared().loops.iter().enumerate();
        !self.shared().injector.is_empty()
            || (self.is_stealing()
                && loops.any(|(id, one)| id != self.id() && self.is_worth_stealing_from(one)))
    }

    pub(super) fn is_worth_stealing_from(&self, victim: &Remote) -> bool {
        let waiting = victim.stealer.len();
        waiting > 0
            && (self.is_worth_help(victim, waiting)
                || self.lookout.saw_stuck()
                || !victim.pulse.look().is_running())
    }
}

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use crate::scheduler::backlog::StepTime;

    #[test]
    fn a_loop_of_short_steps_is_left_alone_with_a_few_of_them() {
        let time = StepTime::default();
        assert!(time.is_long(1), "nothing is known of it");
        for _ in 0..64 {
            time.add(50_000, 10);
        }
        assert!(!time.is_long(8));
        assert!(time.is_long(64));
        assert!(!time.is_long(0));
    }

    #[test]
    fn one_long_step_is_noticed_and_forgotten() {
        let time = StepTime::default();
        for _ in 0..64 {
            time.add(5_000, 1);
        }
        time.add(20_000_000, 1);
        assert!(time.is_long(1));
        for _ in 0..64 {
            time.add(5_000, 1);
        }
        assert!(!time.is_long(1));
    }

    #[test]
    fn a_span_that_nobody_lives_to_see_does_no_harm() {
        let time = StepTime::default();
        time.add(u64::MAX, 1);
        assert!(time.is_long(usize::MAX));
    }
}

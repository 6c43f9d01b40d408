//! What waits on a loop, and whether another one should come for it.
//!
//! Waking a loop takes two system calls and some ten microseconds, and a task that changes loops finds its socket and
//! its memory in the caches of another core. An echo server's steps take five microseconds: two loops that send
//! for each other over three of them spend a tenth of their time on it. So a loop knows about how long its steps
//! take, and tasks that it will have run before anybody came are left to it.
//!
//! What steps usually take is an old tale where a program begins something new. So a turn that time has ended while tasks
//! wait is judged by its own clock: if those are much at its pace, another loop is called at once.
//!
//! It also tells what a loop that stands still is likely to be doing. Where steps take hundreds of microseconds it is in
//! one of them. Where they take microseconds its core was taken away, by another process or by the host, and it has it
//! back before others have made much of what waits: they are in less of a hurry then (`rescue.rs`).
//!
//! # What that leaves of I1
//!
//! Only a *running* loop has a deque that others may pass by: it looks into it before it parks. If it does not come to
//! that, a parked loop watches it (I6), finds it stuck, and takes whatever there is. A loop that was called
//! ([`LeftIdle::Claimed`](super::idle::LeftIdle)) takes whatever there is, too: who called it may wait for it. What a loop leaves in its
//! deque when nobody turns it any more is announced. Without rescue, and where the clock is turned by hand, nobody
//! watches: then nothing is passed by, for the code that runs may wait for what it posted.

use crate::atomics::{AtomicU64, Ordering};
use crate::scheduler::shared::Remote;
use crate::scheduler::worker::Worker;

/// A step below this costs the more by being made elsewhere: cold caches take about five microseconds.
const SHORT_NS: u64 = 25_000;
/// A backlog of long steps that takes longer is worth another loop's coming. About what a wake-up takes on a virtual machine.
const WORTH_NS: u64 = 50_000;
/// The same of short steps. They are the dearer elsewhere, so this is what their clients are asked to wait.
const WORTH_SHORT_NS: u64 = 1_000_000;
/// After so many movable tasks the next turn polls, however many it may run.
const MOST_WITHOUT_POLL: u32 = 64;
/// Steps are timed in one turn out of so many: two readings of the clock cost as much as a tenth of a step. Odd, for requests
/// may come round in two turns or four, which must not always be met in the same one.
const SAMPLED_TURNS: u64 = 17;

/// What a step usually takes on a loop: a callback, or one step of a task.
///
/// It follows the samples down by a sixteenth of the difference, and up by a quarter, but of itself at most: one sample in
/// which the core was taken away must not count for a hundred, and a loop of which every sixth turn is long is one
/// of long steps.
///
/// Written by the home loop, read by any. Relaxed: an old one makes a loop come in vain, or a little later.
#[derive(Debug)]
pub(crate) struct StepTime(AtomicU64);

impl StepTime {
    pub(super) fn add(&self, span_ns: u64, steps: u64) {
        let usual = self.usual_ns();
        let sample = span_ns / steps;
        let up = sample.saturating_sub(usual).min(usual);
        let down = usual.saturating_sub(sample);
        // Rounded up: it grows from nothing, too.
        let next = usual + up.div_ceil(4) - down / 16;
        self.0.store(next.max(1), Ordering::Relaxed);
    }

    /// It takes so long by now, whatever it usually was.
    fn raise_to(&self, step_ns: u64) {
        self.0
            .store(self.usual_ns().max(step_ns), Ordering::Relaxed);
    }

    fn usual_ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn is_short(&self) -> bool {
        self.is_below(SHORT_NS)
    }

    pub(super) fn is_below(&self, step_ns: u64) -> bool {
        self.usual_ns() < step_ns
    }

    /// Whether so many tasks keep a loop busy for longer than is good for them.
    fn is_long(&self, waiting: usize) -> bool {
        is_long(self.usual_ns(), waiting)
    }
}

fn is_long(step_ns: u64, waiting: usize) -> bool {
    let worth = if step_ns < SHORT_NS {
        WORTH_SHORT_NS
    } else {
        WORTH_NS
    };
    step_ns.saturating_mul(waiting as u64) >= worth
}

/// Long, until something is known: better one that comes in vain.
impl Default for StepTime {
    fn default() -> Self {
        StepTime(AtomicU64::new(WORTH_NS))
    }
}

/// The beginning of a turn whose steps are timed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    began_ns: u64,
    steps: u64,
}

impl Worker {
    /// Before user code; `None` in most turns.
    pub(super) fn begin_sample(&self) -> Option<Sample> {
        let is_sampled = self.counters().turns.get().is_multiple_of(SAMPLED_TURNS);
        is_sampled.then(|| Sample {
            began_ns: self.driver().clock().now_ns(),
            steps: self.steps_made(),
        })
    }

    /// After it.
    pub(super) fn end_sample(&self, sample: Sample) {
        let steps = self.steps_made() - sample.steps;
        if steps > 0 {
            let now = self.driver().clock().now_ns();
            let span = now.saturating_sub(sample.began_ns);
            self.remote().step_time.add(span, steps);
        }
    }

    /// After a turn of movable tasks that time has ended while others wait: whether its steps were long. The others are
    /// announced then; and where the turn before was like that, so that it was not the core that had been taken away for
    /// once, this is what steps take from now on.
    pub(super) fn judge_pace(&self, spent_ns: u64, steps: u32) -> bool {
        let step = spent_ns / u64::from(steps.max(1));
        let is_slow = step >= SHORT_NS;
        if is_slow && self.was_slow.get() {
            self.remote().step_time.raise_to(step);
        }
        let waiting = self.deque.len();
        // One alone is run next, or is the one that woke itself.
        if waiting > 1 && is_long(step, waiting) {
            self.notify_thieves();
        }
        is_slow
    }

    /// One of a loop-bound task counts twice, which is near enough.
    fn steps_made(&self) -> u64 {
        self.counters().handles_run.get() + self.counters().tasks_run.get()
    }

    /// Whether somebody should come for so many tasks of that loop.
    pub(super) fn is_worth_help(&self, of: &Remote, waiting: usize) -> bool {
        of.step_time.is_long(waiting)
            || !self.shared().is_rescuing()
            || self.driver().clock().as_manual().is_some()
    }

    /// Whether this loop need not ask its selector just now: all that waits here are a few short steps of movable tasks,
    /// which come before anything that is in the kernel still. To fetch that too while they wait makes the queue ever
    /// longer, and what a request has touched when it was fetched has left the caches when it is run.
    pub(super) fn has_enough_to_do(&self) -> bool {
        let has_movable = !self.deque.is_empty() || !self.shared().injector.is_empty();
        let most = self.shared().config.budget.tasks.min(MOST_WITHOUT_POLL);
        has_movable
            && self.tasks_since_poll.get() < most
            && self.ready.borrow().is_empty()
            && self.remote().inbox.is_empty()
            && self.remote().step_time.is_short()
            && !self.driver().is_timer_due()
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
        assert!(time.is_short());
        assert!(!time.is_long(64));
        assert!(time.is_long(640));
        assert!(!time.is_long(0));
    }

    #[test]
    fn steps_that_have_become_long_are_noticed() {
        let time = StepTime::default();
        for _ in 0..64 {
            time.add(0, 1);
        }
        assert!(time.is_short());
        for _ in 0..128 {
            time.add(100_000, 1);
        }
        assert!(!time.is_short());
        assert!(time.is_long(1));
    }

    #[test]
    fn one_long_step_does_not_make_the_others_long() {
        let time = StepTime::default();
        for _ in 0..64 {
            time.add(5_000, 1);
        }
        time.add(20_000_000, 1);
        assert!(time.is_short());
        assert!(!time.is_long(16));
    }

    #[test]
    fn a_span_that_nobody_lives_to_see_does_no_harm() {
        let time = StepTime::default();
        time.add(u64::MAX, 1);
        assert!(time.is_long(usize::MAX));
        for _ in 0..1_000 {
            time.add(u64::MAX, 1);
        }
        assert!(time.is_long(1));
    }
}

//! The pulse of a loop: by it the others see whether it turns, sleeps, or is stuck.
//!
//! The home loop writes one word and never reads a clock for it: a plain store before each callback and each
//! step of a task. Who wants to know whether a loop is stuck looks twice, some time apart: a loop that
//! runs user code and shows the same beat both times has been in one callback, or one step, all the while.
//! Before a step of a task a second word says which task it is, for the report about a loop that is stuck.
//!
//! Pure. What is done about a loop that is stuck: `rescue.rs`; how it is reported: `stuck.rs`.

use crate::atomics::{AtomicU64, Ordering};

/// Set by the first beat after a sleep; cleared before the next one, and when nobody turns the loop. Not between
/// two turns: who fell asleep just then would take the loop for one that sleeps, and no later beat would tell it.
const RUNNING: u64 = 1;
/// Set by a program that knows it will hold its loop for long; cleared when it says so, or by the next beat.
const LONG: u64 = 1 << 1;
/// Set by the beat before a step of a task, cleared by the beat before anything else.
const TASK: u64 = 1 << 2;
/// Added by each beat, so that none looks like the one before.
const ONE_BEAT: u64 = 1 << 3;

/// One word per loop.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// Written by the home loop only, read by any. Relaxed: its value promises nothing about other memory; an old one
    /// makes the reader look again a little later.
    word: AtomicU64,
    /// The task whose step began with the beat, if the word has [`TASK`]. Written by the home loop only, read by any.
    /// Relaxed, like the word: whoever reads both may see one of them late, by far less than a step that is reported takes.
    task: AtomicU64,
    /// The word of the last stretch that was reported. Written by whoever reports, and nobody else reads it.
    reported: AtomicU64,
}

/// What a look at a pulse saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Beat(u64);

impl Pulse {
    /// By the home loop, before each callback.
    pub(crate) fn beat(&self) {
        let word = self.word.load(Ordering::Relaxed);
        let next = (word & !(LONG | TASK)).wrapping_add(ONE_BEAT) | RUNNING;
        self.word.store(next, Ordering::Relaxed);
    }

    /// By the home loop, before each step of a task.
    pub(crate) fn beat_for_task(&self, task: u64) {
        self.task.store(task, Ordering::Relaxed);
        let word = self.word.load(Ordering::Relaxed);
        let next = (word & !LONG).wrapping_add(ONE_BEAT) | RUNNING | TASK;
        self.word.store(next, Ordering::Relaxed);
    }

    /// By the home loop, when it is about to sleep, or is not turned any more.
    pub(crate) fn rest(&self) {
        let word = self.word.load(Ordering::Relaxed);
        self.word.store(word & !(RUNNING | LONG), Ordering::Relaxed);
    }

    /// By the home loop: what runs now is known to take long.
    pub(crate) fn announce_long(&self) {
        let word = self.word.load(Ordering::Relaxed);
        self.word.store(word | LONG, Ordering::Relaxed);
    }

    /// By the home loop: what was announced is over. The same callback, or step, goes on.
    pub(crate) fn end_long(&self) {
        let word = self.word.load(Ordering::Relaxed);
        let next = (word & !LONG).wrapping_add(ONE_BEAT);
        self.word.store(next, Ordering::Relaxed);
    }

    /// By anyone.
    pub(crate) fn look(&self) -> Beat {
        Beat(self.word.load(Ordering::Relaxed))
    }

    /// By anyone who has just looked: the task whose step it is; `None` for anything but a task.
    pub(crate) fn task(&self, beat: Beat) -> Option<u64> {
        (beat.0 & TASK != 0).then(|| self.task.load(Ordering::Relaxed))
    }

    /// By anyone who means to report the stretch that began with `beat`: true for the first one only.
    pub(crate) fn claim_report(&self, beat: Beat) -> bool {
        let word = beat.0 & !LONG;
        self.reported.swap(word, Ordering::Relaxed) != word
    }
}

impl Beat {
    /// The loop is awake.
    pub(crate) fn is_running(self) -> bool {
        self.0 & RUNNING != 0
    }

    /// It was announced that it will run for long.
    pub(crate) fn is_long(self) -> bool {
        self.0 & LONG != 0
    }

    /// Nothing has begun or ended between the two looks.
    pub(crate) fn is_same(self, other: Beat) -> bool {
        self.0 & !LONG == other.0 & !LONG
    }
}

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use crate::scheduler::pulse::Pulse;

    #[test]
    fn a_loop_that_sleeps_is_not_running() {
        let pulse = Pulse::default();
        assert!(!pulse.look().is_running());
        pulse.beat();
        assert!(pulse.look().is_running());
        pulse.rest();
        assert!(!pulse.look().is_running());
    }

    #[test]
    fn only_an_unchanged_pulse_is_the_same() {
        let pulse = Pulse::default();
        pulse.beat();
        let seen = pulse.look();
        assert!(seen.is_same(pulse.look()));
        pulse.beat();
        assert!(!seen.is_same(pulse.look()));
        pulse.rest();
        pulse.beat();
        assert!(!seen.is_same(pulse.look()));
    }

    #[test]
    fn an_announcement_ends_with_what_it_was_made_for() {
        let pulse = Pulse::default();
        pulse.beat();
        let seen = pulse.look();
        pulse.announce_long();
        assert!(pulse.look().is_long());
        assert!(seen.is_same(pulse.look()), "it is still the same step");
        pulse.beat();
        assert!(!pulse.look().is_long());
    }

    #[test]
    fn only_a_step_of_a_task_shows_a_task() {
        let pulse = Pulse::default();
        pulse.beat_for_task(7);
        assert_eq!(pulse.task(pulse.look()), Some(7));
        pulse.announce_long();
        pulse.end_long();
        assert_eq!(pulse.task(pulse.look()), Some(7), "the step goes on");
        assert!(!pulse.look().is_long());
        pulse.beat();
        assert_eq!(pulse.task(pulse.look()), None);
    }

    #[test]
    fn one_stretch_is_reported_once() {
        let pulse = Pulse::default();
        pulse.beat();
        let beat = pulse.look();
        assert!(pulse.claim_report(beat));
        pulse.announce_long();
        assert!(!pulse.claim_report(pulse.look()), "the same stretch");
        pulse.beat();
        assert!(pulse.claim_report(pulse.look()));
    }
}

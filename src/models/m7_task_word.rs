//! M7: cancels against the last poll of a task. Every task ends once, and every caller was told how.
//!
//! async-task's part, who runs a task that was woken, is a flag with async-task's ordering: a wake
//! is an `AcqRel` change of the task's state, and so is the start of a poll.

use std::sync::Arc;

use loom::{sync::Notify, thread};

use crate::{
    atomics::{AtomicBool, AtomicU8, AtomicUsize, Ordering, explore},
    task::word::{CancelRequest, TaskWord},
};

/// What the body returns.
const OUTPUT: usize = 7;

/// The decisions of a task word, so that the mutants can decide differently.
trait Word: Send + Sync + 'static {
    fn live() -> Self;
    fn request_cancel(&self) -> CancelRequest;
    fn cancel_requested(&self) -> bool;
    fn finish(&self) -> bool;
    fn body_dropped(&self) -> bool;
    fn is_done(&self) -> bool;
}

impl Word for TaskWord {
    fn live() -> Self {
        Self::new()
    }
    fn request_cancel(&self) -> CancelRequest {
        self.request_cancel()
    }
    fn cancel_requested(&self) -> bool {
        self.cancel_requested()
    }
    fn finish(&self) -> bool {
        self.finish()
    }
    fn body_dropped(&self) -> bool {
        self.body_dropped()
    }
    fn is_done(&self) -> bool {
        self.is_done()
    }
}

/// A task, its word, and what async-task does for it.
struct Task<W> {
    word: W,
    scheduled: AtomicBool,
    bell: Notify,
    output: AtomicUsize,
}

/// How the worker saw the task end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Output,
    OutputDropped,
    BodyDropped,
}

impl<W: Word> Task<W> {
    fn scheduled() -> Self {
        Self {
            word: W::live(),
            scheduled: AtomicBool::new(true),
            bell: Notify::new(),
            output: AtomicUsize::new(0),
        }
    }

    /// C1 and C2.
    fn cancel(&self) -> CancelRequest {
        let answer = self.word.request_cancel();
        if answer == CancelRequest::First {
            self.wake();
        }
        answer
    }

    fn wake(&self) {
        self.scheduled.swap(true, Ordering::AcqRel);
        self.bell.notify();
    }

    /// R1 and R2, until the task ends. The body returns its output at poll number `ready_at`.
    fn run(&self, ready_at: usize) -> End {
        let mut polls = 0;
        loop {
            while !self.scheduled.swap(false, Ordering::AcqRel) {
                self.bell.wait();
            }
            if self.word.cancel_requested() {
                assert!(self.word.body_dropped(), "the poller alone ends a task");
                return End::BodyDropped;
            }
            polls += 1;
            if polls == ready_at {
                self.output.store(OUTPUT, Ordering::Relaxed);
                return if self.word.finish() {
                    End::Output
                } else {
                    End::OutputDropped
                };
            }
        }
    }
}

/// Two cancels against a body that is ready at its first poll.
fn two_cancels_against_the_last_poll<W: Word>() {
    explore(|| {
        let task = Arc::new(Task::<W>::scheduled());
        let other = {
            let task = Arc::clone(&task);
            thread::spawn(move || task.cancel())
        };
        let worker = {
            let task = Arc::clone(&task);
            thread::spawn(move || task.run(1))
        };
        let mine = task.cancel();
        if mine == CancelRequest::TooLate {
            assert!(task.word.is_done());
            assert_eq!(
                task.output.load(Ordering::Relaxed),
                OUTPUT,
                "the output is there"
            );
        }
        if task.word.is_done() && task.word.request_cancel() == CancelRequest::TooLate {
            assert_eq!(
                task.output.load(Ordering::Relaxed),
                OUTPUT,
                "the output is there"
            );
        }
        let answers = [mine, other.join().expect("the canceller does not panic")];
        let end = worker.join().expect("the worker does not panic");
        let n_first = answers
            .iter()
            .filter(|answer| **answer == CancelRequest::First)
            .count();
        let cancelled = answers
            .iter()
            .any(|answer| *answer != CancelRequest::TooLate);
        assert_ne!(
            end == End::Output,
            cancelled,
            "one outcome: {end:?} {answers:?}"
        );
        assert_eq!(n_first, usize::from(cancelled), "one wake: {answers:?}");
        assert!(task.word.is_done(), "ended");
        assert!(!task.word.body_dropped(), "ended once");
    });
}

/// A cancel against a body that waits for a wake that never comes. `cancel` is how it is cancelled.
fn a_cancel_against_a_waiting_body(cancel: fn(&Task<TaskWord>)) {
    explore(move || {
        let task = Arc::new(Task::<TaskWord>::scheduled());
        let worker = {
            let task = Arc::clone(&task);
            thread::spawn(move || task.run(usize::MAX))
        };
        cancel(&task);
        assert_eq!(
            worker.join().expect("the worker does not panic"),
            End::BodyDropped
        );
    });
}

const LIVE: u8 = 0;
const CANCELLING: u8 = 1;
const CANCELLED: u8 = 2;
const DONE: u8 = 3;

/// What every mutant shares with the word.
fn answer(before: u8) -> CancelRequest {
    match before {
        LIVE => CancelRequest::First,
        DONE => CancelRequest::TooLate,
        _ => CancelRequest::Again,
    }
}

/// Finishes without regard to a cancel that came between.
struct BlindFinish(AtomicU8);

impl Word for BlindFinish {
    fn live() -> Self {
        Self(AtomicU8::new(LIVE))
    }
    fn request_cancel(&self) -> CancelRequest {
        let changed =
            self.0
                .compare_exchange(LIVE, CANCELLING, Ordering::Relaxed, Ordering::Acquire);
        answer(changed.unwrap_or_else(|state| state))
    }
    fn cancel_requested(&self) -> bool {
        matches!(self.0.load(Ordering::Relaxed), CANCELLING | CANCELLED)
    }
    fn finish(&self) -> bool {
        self.0.store(DONE, Ordering::Release);
        true
    }
    fn body_dropped(&self) -> bool {
        self.0.swap(CANCELLED, Ordering::AcqRel) < CANCELLED
    }
    fn is_done(&self) -> bool {
        self.0.load(Ordering::Acquire) >= CANCELLED
    }
}

/// Reads the state and writes it in two steps when cancelling.
struct TornCancel(BlindFinish);

impl Word for TornCancel {
    fn live() -> Self {
        Self(BlindFinish::live())
    }
    fn request_cancel(&self) -> CancelRequest {
        let before = self.0.0.load(Ordering::Acquire);
        if before == LIVE {
            self.0.0.store(CANCELLING, Ordering::Release);
        }
        answer(before)
    }
    fn cancel_requested(&self) -> bool {
        self.0.cancel_requested()
    }
    fn finish(&self) -> bool {
        self.0
            .0
            .compare_exchange(LIVE, DONE, Ordering::Release, Ordering::Relaxed)
            .is_ok()
    }
    fn body_dropped(&self) -> bool {
        self.0.body_dropped()
    }
    fn is_done(&self) -> bool {
        self.0.is_done()
    }
}

/// Publishes nothing with the end of the task.
struct RelaxedFinish(BlindFinish);

impl Word for RelaxedFinish {
    fn live() -> Self {
        Self(BlindFinish::live())
    }
    fn request_cancel(&self) -> CancelRequest {
        self.0.request_cancel()
    }
    fn cancel_requested(&self) -> bool {
        self.0.cancel_requested()
    }
    fn finish(&self) -> bool {
        let ended = self
            .0
            .0
            .compare_exchange(LIVE, DONE, Ordering::Relaxed, Ordering::Relaxed);
        if ended.is_err() {
            self.0.0.store(CANCELLED, Ordering::Release);
        }
        ended.is_ok()
    }
    fn body_dropped(&self) -> bool {
        self.0
            .0
            .fetch_update(Ordering::Release, Ordering::Relaxed, |state| {
                (state < CANCELLED).then_some(CANCELLED)
            })
            .is_ok()
    }
    fn is_done(&self) -> bool {
        self.0.is_done()
    }
}

#[test]
fn every_task_ends_once_and_every_canceller_knows_how() {
    two_cancels_against_the_last_poll::<TaskWord>();
}

#[test]
fn a_cancel_is_never_slept_through() {
    a_cancel_against_a_waiting_body(|task| assert_eq!(task.cancel(), CancelRequest::First));
}

#[test]
#[should_panic(expected = "one outcome")]
fn mutant_with_a_blind_finish_has_two_outcomes() {
    two_cancels_against_the_last_poll::<BlindFinish>();
}

#[test]
#[should_panic(expected = "one ")]
fn mutant_with_a_torn_cancel_has_two_outcomes() {
    two_cancels_against_the_last_poll::<TornCancel>();
}

#[test]
#[should_panic(expected = "the output is there")]
fn mutant_with_a_relaxed_finish_hides_the_output() {
    two_cancels_against_the_last_poll::<RelaxedFinish>();
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_the_wake_is_slept_through() {
    a_cancel_against_a_waiting_body(|task| {
        assert_eq!(task.word.request_cancel(), CancelRequest::First);
    });
}

/// The wake comes first, the request after it.
#[test]
#[should_panic(expected = "deadlock")]
fn mutant_that_wakes_before_it_asks_is_slept_through() {
    a_cancel_against_a_waiting_body(|task| {
        task.wake();
        assert_eq!(task.word.request_cancel(), CancelRequest::First);
    });
}

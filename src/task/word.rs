//! One byte per task that decides how the task ends: with its output, or cancelled.
//!
//! async-task decides *when* a task runs and who holds its memory; it has no say in whether a cancel that
//! crosses the last poll comes in time. Without one place that decides, `cancel()` could say "it will be
//! cancelled" and the handle could yield an output. This file is that place and nothing else: it
//! neither wakes nor drops the task, and it does not hold the output.
//!
//! ```text
//!           request_cancel: First            finish: false, body_dropped: true
//!   LIVE ──────────────────────▶ CANCELLING ──────────────────────────────────▶ CANCELLED
//!    │ │                                                                            ▲
//!    │ └───────────── body_dropped: true (the runtime shuts down) ──────────────────┘
//!    └── finish: true ──▶ DONE
//! ```
//!
//! # The protocol
//!
//! **Cancel**, by any thread
//! - C1 [`TaskWord::request_cancel`]; from then on the handle yields `Cancelled`
//! - C2 if it was [`CancelRequest::First`]: wake the task, so that a loop comes to drop it
//!
//! **Poll**, by the worker that runs the task
//! - R1 [`TaskWord::cancel_requested`]: drop the body instead of polling it, then [`TaskWord::body_dropped`]
//! - R2 poll; `Ready`: [`TaskWord::finish`] says whether the output is the task's result
//!
//! # What holds
//!
//! - Exactly one of `finish` = true and "some `request_cancel` was not [`CancelRequest::TooLate`]" becomes true: both
//!   are decided by the same change of the byte away from LIVE.
//! - Exactly one call of `finish` or `body_dropped` ends a task; of those only one `finish` = true, or
//!   one `finish` = false or `body_dropped` = true, is seen. So the ledger of tasks (I10) counts there.
//! - A cancel is never slept through: if R1 misses it, the wake of C2 comes after the start of that poll and
//!   leads to one more (I2). The wake also orders R1 after C1; the byte needs no ordering for that.
//!
//! The model is `models/m7_task_word.rs`.

use crate::atomics::{AtomicU8, Ordering};

/// The body may still be polled and may still end by itself. From the start; left for good.
const LIVE: u8 = 0;
/// A cancel came first. Set by `request_cancel`; left when the body is gone.
const CANCELLING: u8 = 1;
/// The body is gone without a result. Set by `finish` and `body_dropped`; final.
const CANCELLED: u8 = 2;
/// The body returned its output, which is the task's result. Set by `finish`; final.
const DONE: u8 = 3;

/// How one task ends. Shared by its body and its handle.
///
/// Written by the holder of the handle (cancel) and by the loop that runs the task (the rest), read by both. DONE and
/// CANCELLED promise that everything the body did is visible to who sees them (`finish` and `body_dropped` `Release`,
/// [`TaskWord::is_done`] `Acquire`).
#[derive(Debug)]
pub(crate) struct TaskWord(AtomicU8);

/// What became of a request to cancel a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the first request must wake the task"]
pub(crate) enum CancelRequest {
    /// The task was live; its handle will yield `Cancelled`. The caller must wake the task so that a loop drops it.
    First,
    /// The task was cancelled before; its handle yields `Cancelled`. Nothing to do.
    Again,
    /// The task has its output already, and keeps it.
    TooLate,
}

impl TaskWord {
    /// A live task.
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(LIVE))
    }

    /// Asks for the task's end (C1).
    pub(crate) fn request_cancel(&self) -> CancelRequest {
        // Acquire on failure: partner is finish; whoever is told TooLate may go and take the output.
        match self
            .0
            .compare_exchange(LIVE, CANCELLING, Ordering::Relaxed, Ordering::Acquire)
        {
            Ok(_) => CancelRequest::First,
            Err(DONE) => CancelRequest::TooLate,
            Err(_) => CancelRequest::Again,
        }
    }

    /// Looked at by a worker before each poll (R1). Relaxed: the wake of C2 orders it after C1.
    pub(crate) fn cancel_requested(&self) -> bool {
        matches!(self.0.load(Ordering::Relaxed), CANCELLING | CANCELLED)
    }

    /// By the poller when the body returned `Ready` (R2). `true`: its output is the task's result. `false`: a cancel
    /// came first, the output is to be dropped.
    #[must_use = "an output after a cancel must be dropped"]
    pub(crate) fn finish(&self) -> bool {
        // Release: partner is is_done.
        let ended = self
            .0
            .compare_exchange(LIVE, DONE, Ordering::Release, Ordering::Relaxed);
        if ended.is_err() {
            // Only a cancel can have come between, and nobody but the poller leads on from it.
            self.0.store(CANCELLED, Ordering::Release);
        }
        ended.is_ok()
    }

    /// By whoever dropped the body before it returned `Ready`: a worker that saw the cancel, or the shut-down.
    /// `true`: this call ended the task, without a result. `false`: it had ended before.
    pub(crate) fn body_dropped(&self) -> bool {
        // Release: partner is is_done.
        self.0
            .fetch_update(Ordering::Release, Ordering::Relaxed, |state| {
                matches!(state, LIVE | CANCELLING).then_some(CANCELLED)
            })
            .is_ok()
    }

    /// Whether the task has ended, either way. A task that is being cancelled has not, as long as its body exists.
    pub(crate) fn is_done(&self) -> bool {
        // Acquire: partner is finish or body_dropped.
        matches!(self.0.load(Ordering::Acquire), DONE | CANCELLED)
    }
}

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use super::{CancelRequest, TaskWord};

    #[test]
    fn a_cancel_that_comes_first_takes_the_output_away() {
        let word = TaskWord::new();
        assert!(!word.cancel_requested());
        assert_eq!(word.request_cancel(), CancelRequest::First);
        assert_eq!(word.request_cancel(), CancelRequest::Again);
        assert!(word.cancel_requested());
        assert!(!word.is_done(), "its body still exists");
        assert!(!word.finish());
        assert!(word.is_done());
        assert!(!word.body_dropped(), "it ended before");
        assert_eq!(word.request_cancel(), CancelRequest::Again);
    }

    #[test]
    fn a_cancel_after_the_end_is_too_late() {
        let word = TaskWord::new();
        assert!(word.finish());
        assert_eq!(word.request_cancel(), CancelRequest::TooLate);
        assert!(!word.cancel_requested());
        assert!(!word.body_dropped());
        assert!(word.is_done());
    }

    #[test]
    fn a_body_dropped_at_shut_down_ends_as_cancelled() {
        let word = TaskWord::new();
        assert!(word.body_dropped());
        assert!(word.is_done());
        assert!(!word.finish());
        assert_eq!(word.request_cancel(), CancelRequest::Again);
    }
}

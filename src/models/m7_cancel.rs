//! M7: cancels against the last step of a task. Every task ends once, and every caller was told how.
//!
//! async-task's part, who runs a task that was woken, is a flag with async-task's ordering: a wake
//! is an `AcqRel` change of the task's state, and so is the start of a step.

use std::{
    panic::Location,
    sync::Arc,
    task::{Wake, Waker},
};

use loom::{sync::Notify, thread};

use crate::{
    atomics::{AtomicBool, Ordering, explore},
    task::{
        Ended, TaskId,
        info::{Origin, TaskInfo, TaskKey},
        members::{CancelRequest, CancelsSeen, Kind, Members},
    },
};

/// The only task of its list, and what async-task does for it.
struct Task {
    members: Members,
    key: TaskKey,
    cancels: CancelsSeen,
    state: Arc<State>,
    /// Somebody was told that the cancel came in time.
    told: AtomicBool,
}

/// What its waker leads to.
struct State {
    scheduled: AtomicBool,
    bell: Notify,
}

impl Wake for State {
    fn wake(self: Arc<Self>) {
        self.scheduled.swap(true, Ordering::AcqRel);
        self.bell.notify();
    }
}

/// How the worker saw the task end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Output,
    OutputDropped,
    FutureDropped,
}

/// Whether it was in time.
type Cancel = fn(&Task) -> bool;
/// R1.
type Look = fn(&Task, &mut CancelsSeen) -> bool;
/// R2.
type Finish = fn(&Task) -> bool;

impl Task {
    fn scheduled() -> Self {
        let state = Arc::new(State {
            scheduled: AtomicBool::new(true),
            bell: Notify::new(),
        });
        let members = Members::default();
        let admitted = members.admit(Kind::Movable, |place| {
            let key = TaskKey {
                id: TaskId(place.number),
                place: place.key,
            };
            let origin = Origin::from(Location::caller());
            let waker = Waker::from(Arc::clone(&state));
            (waker, TaskInfo { key, origin }, (key, place.cancels))
        });
        let (key, cancels) = admitted.expect("the list is open");
        Task {
            members,
            key,
            cancels,
            state,
            told: AtomicBool::new(false),
        }
    }

    fn on_a_thread<T: 'static>(
        self: &Arc<Self>,
        does: impl FnOnce(&Task) -> T + 'static,
    ) -> thread::JoinHandle<T> {
        let task = Arc::clone(self);
        thread::spawn(move || does(&task))
    }

    /// R1 and R2, until the task ends. The future returns its output at step number `ready_at`.
    fn run(&self, ready_at: usize, look: Look, finish: Finish) -> End {
        let mut steps = 0;
        let mut seen = self.cancels;
        loop {
            while !self.state.scheduled.swap(false, Ordering::AcqRel) {
                self.state.bell.wait();
            }
            let told = self.told.load(Ordering::Acquire);
            if look(self, &mut seen) {
                self.members.leave(self.key, Ended::Cancelled);
                return End::FutureDropped;
            }
            assert!(!told, "no step begins after a cancel that came in time");
            steps += 1;
            if steps == ready_at {
                if finish(self) {
                    return End::Output;
                }
                self.members.leave(self.key, Ended::Cancelled);
                return End::OutputDropped;
            }
        }
    }
}

/// C1 and C2.
fn cancel(task: &Task) -> bool {
    match task.members.request_cancel(task.key) {
        CancelRequest::First(waker) => {
            waker.wake();
            true
        }
        CancelRequest::Again => true,
        CancelRequest::TooLate => false,
    }
}

/// C1 alone.
fn cancel_without_wake(task: &Task) -> bool {
    let request = task.members.request_cancel(task.key);
    matches!(request, CancelRequest::First(_))
}

fn look(task: &Task, seen: &mut CancelsSeen) -> bool {
    task.members.is_cancelled(task.key, seen)
}

fn finish(task: &Task) -> bool {
    task.members.finish(task.key)
}

/// Two cancels against a future that is ready at its first step.
fn two_cancels_against_the_last_step(cancel: Cancel, finish: Finish) {
    explore(move || {
        let task = Arc::new(Task::scheduled());
        let other = task.on_a_thread(cancel);
        let worker = task.on_a_thread(move |task| task.run(1, look, finish));
        let mine = cancel(&task);
        let theirs = other.join().expect("the canceller does not panic");
        let end = worker.join().expect("the worker does not panic");
        let is_live = task.members.is_live(task.key);
        let ledger = task.members.ledger();
        let (finished, cancelled) = (ledger.finished, ledger.cancelled);
        assert!(!is_live, "ended");
        assert_eq!((finished + cancelled, ledger.live), (1, 0), "ended once");
        assert_eq!(end == End::Output, finished == 1, "{end:?}");
        // Whoever came while it lived was told so, and kept its output from everybody.
        if mine || theirs {
            assert_ne!(end, End::Output, "one outcome: {mine} {theirs}");
        } else {
            assert_eq!(end, End::Output, "one outcome: nobody was in time");
        }
    });
}

/// One of two cancels is told that the other came first, and wakes the task for another reason.
fn a_second_cancel_and_a_wake() {
    explore(|| {
        let task = Arc::new(Task::scheduled());
        let other = task.on_a_thread(cancel);
        let worker = task.on_a_thread(move |task| task.run(usize::MAX, look, finish));
        let mine = cancel(&task);
        if mine {
            task.told.store(true, Ordering::Release);
            Arc::clone(&task.state).wake();
        }
        let theirs = other.join().expect("the canceller does not panic");
        assert!(mine || theirs, "one of them was first");
        let end = worker.join().expect("the worker does not panic");
        assert_eq!(end, End::FutureDropped);
    });
}

/// A cancel against a future that waits for a wake that never comes.
fn a_cancel_against_a_waiting_future(cancel: Cancel, look: Look) {
    explore(move || {
        let task = Arc::new(Task::scheduled());
        let worker = task.on_a_thread(move |task| task.run(usize::MAX, look, finish));
        assert!(cancel(&task), "it lives");
        let end = worker.join().expect("the worker does not panic");
        assert_eq!(end, End::FutureDropped);
    });
}

#[test]
fn every_task_ends_once_and_every_canceller_knows_how() {
    two_cancels_against_the_last_step(cancel, finish);
}

#[test]
fn whoever_was_told_that_it_came_in_time_sees_no_more_steps() {
    a_second_cancel_and_a_wake();
}

#[test]
fn a_cancel_is_never_slept_through() {
    a_cancel_against_a_waiting_future(cancel, look);
}

#[test]
#[should_panic(expected = "one outcome")]
fn mutant_with_a_blind_finish_has_two_outcomes() {
    two_cancels_against_the_last_step(cancel, |task| {
        task.members.leave(task.key, Ended::Finished);
        true
    });
}

/// Answers by a look at the list, and asks afterwards.
#[test]
#[should_panic(expected = "one outcome")]
fn mutant_with_a_torn_cancel_has_two_outcomes() {
    two_cancels_against_the_last_step(
        |task| {
            let was_live = task.members.is_live(task.key);
            cancel(task);
            was_live
        },
        finish,
    );
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_the_wake_is_slept_through() {
    a_cancel_against_a_waiting_future(cancel_without_wake, look);
}

/// The wake comes first, the request after it.
#[test]
#[should_panic(expected = "deadlock")]
fn mutant_that_wakes_before_it_asks_is_slept_through() {
    let cancel: Cancel = |task| {
        Arc::clone(&task.state).wake();
        cancel_without_wake(task)
    };
    a_cancel_against_a_waiting_future(cancel, look);
}

/// Notes what is counted by the time it has looked.
#[test]
#[should_panic(expected = "deadlock")]
fn mutant_that_notes_a_later_count_than_it_looked_at_is_slept_through() {
    a_cancel_against_a_waiting_future(cancel, |task, seen| {
        let is_cancelled = look(task, seen);
        // What this one finds is left alone, but not its count.
        let _late = look(task, seen);
        is_cancelled
    });
}

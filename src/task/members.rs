//! The live tasks that were spawned on one loop, and how each of them ends: with its output, or cancelled.
//!
//! A task that waits for something outside is in no queue: only its waker leads to it. The list keeps
//! one waker for each, so that shutting down can end them all, and so that a task can be cancelled. It is also the
//! ledger's count.
//!
//! async-task decides *when* a task runs and who holds its memory; it has no say in whether a cancel that
//! crosses the last step comes in time. The lock of the list has: a task leaves it with its output, or has been asked to
//! end before.
//!
//! ```text
//!           request_cancel: First              finish: false, leave
//!   live ───────────────────────▶ cancelling ───────────────────────▶ gone (cancelled)
//!    │ └── leave (dropped at shutdown, or a panic) ──▶ gone (cancelled, panicked)
//!    └── finish: true ──▶ gone (finished)
//! ```
//!
//! # The protocol
//!
//! **Cancel**, by any thread
//! - C1 [`Members::request_cancel`]: under the lock the member is marked, and the cancels of this list are counted
//! - C2 if it was [`CancelRequest::First`]: wake the task, so that a loop comes to drop it
//!
//! **Step**, by the worker that runs the task
//! - R1 [`Members::is_cancelled`]: drop the future instead of polling it. It locks only if a cancel was counted since the
//!   same task last looked
//! - R2 poll; `Ready`: [`Members::finish`] says whether the output is the task's result
//!
//! # What holds
//!
//! - At most one of `finish` = true and "some `request_cancel` was not [`CancelRequest::TooLate`]" becomes true: both
//!   are decided under one lock. Neither, if a panic or the shutdown came first.
//! - A cancel is never slept through: if R1 misses it, the wake of C2 comes after the start of that step and
//!   leads to one more (I2), which sees the count, for that came before the wake. Whoever sees the count locks
//!   behind C1, and finds the mark: had it locked before, it would have read the count before it was raised.
//!
//! The model is `models/m7_cancel.rs`.

use std::sync::PoisonError;
use std::task::Waker;

use crossbeam_utils::CachePadded;
use slab::Slab;

use crate::atomics::{AtomicU64, Mutex, MutexGuard, Ordering};
use crate::task::info::{TaskInfo, TaskKey};
use crate::task::{Ended, TaskId};

/// Wakers by member key. Touched by any thread: whoever spawns, cancels or asks, and whoever runs the last step.
#[derive(Debug, Default)]
pub(crate) struct Members {
    list: Mutex<List>,
    /// How many were asked to end. Raised under the lock, by who asks; looked at without, before each step of each
    /// member. Relaxed: the lock shows the mark. In a line of its own, for that changes seldom and the list at each spawn.
    cancels: CachePadded<AtomicU64>,
}

/// Up to which cancel a task has looked whether it was meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CancelsSeen(u64);

/// What became of a request to cancel a task.
#[derive(Debug)]
#[must_use = "the first request must wake the task"]
pub(crate) enum CancelRequest {
    /// The task was live; its handle will yield `Cancelled`. The caller must wake the task so that a loop drops it.
    First(Waker),
    /// It was asked before, and has not ended yet. Nothing to do.
    Again,
    /// It has ended.
    TooLate,
}

#[derive(Debug, Default)]
struct List {
    members: Slab<Entry>,
    /// Members that only their home loop may run and drop; see [`Members::bound`].
    bound: usize,
    /// Set by `close`, never cleared: no task joins a loop that has ended its members.
    closed: bool,
    ledger: Ledger,
}

impl List {
    /// A member, unless it has ended; its place may be another one's by then.
    fn get_mut(&mut self, task: TaskKey) -> Option<&mut Entry> {
        let entry = self.members.get_mut(task.place)?;
        (entry.info.key == task).then_some(entry)
    }

    fn wakers(&self) -> Vec<Waker> {
        let members = self.members.iter();
        members.map(|(_, entry)| entry.waker.clone()).collect()
    }
}

#[derive(Debug)]
struct Entry {
    waker: Waker,
    info: TaskInfo,
    kind: Kind,
    is_cancelled: bool,
}

/// Who may run and drop a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any thread.
    Movable,
    /// Its home loop alone.
    Bound,
}

/// What became of the tasks of one list: `joined` = `finished` + `cancelled` + `panicked` + live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) joined: u64,
    pub(crate) finished: u64,
    pub(crate) cancelled: u64,
    pub(crate) panicked: u64,
    pub(crate) live: u64,
}

/// The place a task will have, and its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) key: usize,
    pub(crate) number: u64,
    /// None of these is meant for it.
    pub(crate) cancels: CancelsSeen,
}

impl Members {
    /// Has the task made that takes the next place, before it is queued for the first time; `None` if the loop is
    /// closed. The list is locked meanwhile: `make` runs no user code.
    pub(crate) fn admit<T>(
        &self,
        kind: Kind,
        make: impl FnOnce(Place) -> (Waker, TaskInfo, T),
    ) -> Option<T> {
        let mut list = self.lock();
        if list.closed {
            drop(list);
            // It holds the future, whose drop is user code: not under the lock.
            drop(make);
            return None;
        }
        let number = list.ledger.joined + 1;
        let vacant = list.members.vacant_entry();
        let key = vacant.key();
        let (waker, info, made) = make(Place {
            key,
            number,
            cancels: CancelsSeen(self.cancels.load(Ordering::Relaxed)),
        });
        vacant.insert(Entry {
            waker,
            info,
            kind,
            is_cancelled: false,
        });
        list.ledger.joined = number;
        list.bound += usize::from(kind == Kind::Bound);
        Some(made)
    }

    /// Asks a member to end (C1).
    pub(crate) fn request_cancel(&self, task: TaskKey) -> CancelRequest {
        let mut list = self.lock();
        let Some(entry) = list.get_mut(task) else {
            return CancelRequest::TooLate;
        };
        if std::mem::replace(&mut entry.is_cancelled, true) {
            return CancelRequest::Again;
        }
        let waker = entry.waker.clone();
        self.cancels.fetch_add(1, Ordering::Relaxed);
        CancelRequest::First(waker)
    }

    /// Before each step of a member: whether it is to end (R1).
    #[inline]
    pub(crate) fn is_cancelled(&self, task: TaskKey, seen: &mut CancelsSeen) -> bool {
        let cancels = self.cancels.load(Ordering::Relaxed);
        if cancels == seen.0 {
            return false;
        }
        // Not what is counted by the time it has looked: a mark that comes meanwhile would be missed for good.
        *seen = CancelsSeen(cancels);
        self.is_marked(task)
    }

    /// At most once for each cancel of another member.
    #[cold]
    fn is_marked(&self, task: TaskKey) -> bool {
        let mut list = self.lock();
        list.get_mut(task).is_some_and(|entry| entry.is_cancelled)
    }

    /// By a member whose future has returned its output (R2). True: that is the result, and it has left the list. False: a
    /// cancel came first, the output is to be dropped before it leaves.
    #[must_use = "an output after a cancel must be dropped"]
    pub(crate) fn finish(&self, task: TaskKey) -> bool {
        let mut list = self.lock();
        let is_live = list.get_mut(task).is_some_and(|entry| !entry.is_cancelled);
        if is_live {
            remove(list, task.place, Ended::Finished);
        }
        is_live
    }

    /// By a member whose future is gone, without an output that counts.
    pub(crate) fn leave(&self, task: TaskKey, how: Ended) {
        remove(self.lock(), task.place, how);
    }

    /// Refuses new members and returns the wakers of those there are.
    pub(crate) fn close(&self) -> Vec<Waker> {
        let mut list = self.lock();
        list.closed = true;
        list.wakers()
    }

    /// The wakers of all members.
    pub(crate) fn wakers(&self) -> Vec<Waker> {
        self.lock().wakers()
    }

    /// The members, in the order of their ids.
    pub(crate) fn infos(&self) -> Vec<TaskInfo> {
        let list = self.lock();
        let members = list.members.iter();
        let mut infos: Vec<_> = members.map(|(_, entry)| entry.info.clone()).collect();
        drop(list);
        infos.sort_unstable_by_key(TaskInfo::id);
        infos
    }

    /// What is known of a member; `None` if it has ended.
    pub(crate) fn info(&self, task: TaskKey) -> Option<TaskInfo> {
        let mut list = self.lock();
        list.get_mut(task).map(|entry| entry.info.clone())
    }

    /// Whether `waker` is what wakes this member.
    pub(crate) fn is_woken_by(&self, task: TaskKey, waker: &Waker) -> bool {
        let mut list = self.lock();
        list.get_mut(task)
            .is_some_and(|entry| entry.waker.will_wake(waker))
    }

    /// Whether it has not ended yet. Who sees that it has sees all that it did.
    pub(crate) fn is_live(&self, task: TaskKey) -> bool {
        self.lock().get_mut(task).is_some()
    }

    /// As [`info`](Members::info); looks through all of them.
    pub(crate) fn find(&self, id: TaskId) -> Option<TaskInfo> {
        let list = self.lock();
        let mut members = list.members.iter();
        let found = members.find(|(_, entry)| entry.info.id() == id);
        found.map(|(_, entry)| entry.info.clone())
    }

    /// Bound members that have not ended. After
    /// [`close`](Members::close) and a wake of each, one that is in no queue of its loop is on its
    /// way there, in the hands of a thread that woke it.
    pub(crate) fn bound(&self) -> usize {
        self.lock().bound
    }

    pub(crate) fn ledger(&self) -> Ledger {
        let list = self.lock();
        Ledger {
            live: list.members.len() as u64,
            ..list.ledger
        }
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(mut list: MutexGuard<'_, List>, place: usize, how: Ended) {
    match how {
        Ended::Finished => list.ledger.finished += 1,
        Ended::Cancelled => list.ledger.cancelled += 1,
        Ended::Panicked => list.ledger.panicked += 1,
    }
    let entry = list.members.remove(place);
    list.bound -= usize::from(entry.kind == Kind::Bound);
    drop(list);
    // Its drop may free the task: not under the lock.
    drop(entry);
}

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use std::panic::Location;
    use std::task::Waker;

    use crate::task::info::{Origin, TaskInfo, TaskKey};
    use crate::task::members::{CancelRequest, CancelsSeen, Kind, Members};
    use crate::task::{Ended, TaskId};

    fn admit(members: &Members) -> (TaskKey, CancelsSeen) {
        let admitted = members.admit(Kind::Movable, |place| {
            let key = TaskKey {
                id: TaskId(place.number),
                place: place.key,
            };
            let origin = Origin::from(Location::caller());
            let info = TaskInfo { key, origin };
            (Waker::noop().clone(), info, (key, place.cancels))
        });
        admitted.expect("the list is open")
    }

    #[test]
    fn a_cancel_that_comes_first_takes_the_output_away() {
        let members = Members::default();
        let (task, mut seen) = admit(&members);
        assert!(!members.is_cancelled(task, &mut seen));
        let request = members.request_cancel(task);
        assert!(matches!(request, CancelRequest::First(_)));
        let request = members.request_cancel(task);
        assert!(matches!(request, CancelRequest::Again));
        assert!(members.is_live(task), "its future still exists");
        assert!(members.is_cancelled(task, &mut seen));
        assert!(!members.finish(task));
        members.leave(task, Ended::Cancelled);
        assert!(!members.is_live(task));
        assert_eq!(members.ledger().cancelled, 1);
    }

    #[test]
    fn a_cancel_after_the_end_is_too_late_and_is_not_the_next_tenants() {
        let members = Members::default();
        let (old, _) = admit(&members);
        assert!(members.finish(old));
        let (tenant, mut seen) = admit(&members);
        assert_eq!(old.place, tenant.place);
        let request = members.request_cancel(old);
        assert!(matches!(request, CancelRequest::TooLate));
        assert!(!members.is_cancelled(tenant, &mut seen));
        assert!(members.finish(tenant));
        assert_eq!(members.ledger().finished, 2);
    }

    #[test]
    fn one_that_is_dropped_or_panics_ends_once_whoever_comes_later() {
        let members = Members::default();
        for how in [Ended::Cancelled, Ended::Panicked] {
            let (task, _) = admit(&members);
            members.leave(task, how);
            let request = members.request_cancel(task);
            assert!(matches!(request, CancelRequest::TooLate));
        }
        let ledger = members.ledger();
        assert_eq!((ledger.cancelled, ledger.panicked, ledger.live), (1, 1, 0));
    }

    #[test]
    fn a_cancel_of_another_is_looked_at_once() {
        let members = Members::default();
        let ((task, mut seen), (other, _)) = (admit(&members), admit(&members));
        let request = members.request_cancel(other);
        assert!(matches!(request, CancelRequest::First(_)));
        let before = seen;
        assert!(!members.is_cancelled(task, &mut seen));
        assert_ne!(before, seen);
        let (_, later) = admit(&members);
        assert_eq!(later, seen, "a new one has nothing to look at");
    }
}

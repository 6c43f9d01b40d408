//! The live tasks that were spawned on one loop.
//!
//! A task that waits for something outside is in no queue: only its waker leads to it. The list keeps
//! one waker for each, so that shutting down can end them all. It is also the ledger's count.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use slab::Slab;

use crate::task::info::{TaskInfo, TaskKey};
use crate::task::{Ended, TaskId};

/// Wakers by member key. Touched by any thread: whoever spawns, and whoever runs the last step.
#[derive(Debug, Default)]
pub(crate) struct Members {
    list: Mutex<List>,
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
        let (waker, info, made) = make(Place { key, number });
        vacant.insert(Entry { waker, info, kind });
        list.ledger.joined = number;
        list.bound += usize::from(kind == Kind::Bound);
        Some(made)
    }

    pub(crate) fn leave(&self, key: usize, how: Ended) {
        let mut list = self.lock();
        match how {
            Ended::Finished => list.ledger.finished += 1,
            Ended::Cancelled => list.ledger.cancelled += 1,
            Ended::Panicked => list.ledger.panicked += 1,
        }
        let entry = list.members.remove(key);
        list.bound -= usize::from(entry.kind == Kind::Bound);
        drop(list);
        // Its drop may free the task: not under the lock.
        drop(entry);
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
    pub(crate) fn info(&self, key: TaskKey) -> Option<TaskInfo> {
        let list = self.lock();
        let info = &list.members.get(key.place)?.info;
        (info.key == key).then(|| info.clone())
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

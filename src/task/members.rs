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
        let wakers = self
            .members
            .iter()
            .filter_map(|(_, entry)| Some(entry.task.as_ref()?.0.clone()));
        wakers.collect()
    }
}

#[derive(Debug)]
struct Entry {
    /// `None` until the place is filled.
    task: Option<(Waker, TaskInfo)>,
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

/// A reserved place and the number of the task that will take it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) key: usize,
    pub(crate) number: u64,
}

impl Members {
    /// Reserves a place; `None` if the loop is closed.
    pub(crate) fn join(&self, kind: Kind) -> Option<Place> {
        let mut list = self.lock();
        if list.closed {
            return None;
        }
        list.ledger.joined += 1;
        let number = list.ledger.joined;
        let key = list.members.insert(Entry { task: None, kind });
        Some(Place { key, number })
    }

    /// Fills the reserved place, before the task is queued for the first time. False: the loop was
    /// closed in between, and the caller ends the task.
    #[must_use]
    pub(crate) fn fill(&self, place: Place, waker: Waker, info: TaskInfo) -> bool {
        let mut list = self.lock();
        if list.closed {
            drop(list);
            // Its drop may free the task: not under the lock.
            drop(waker);
            return false;
        }
        let entry = &mut list.members[place.key];
        entry.task = Some((waker, info));
        list.bound += usize::from(entry.kind == Kind::Bound);
        true
    }

    pub(crate) fn leave(&self, key: usize, how: Ended) {
        let mut list = self.lock();
        match how {
            Ended::Finished => list.ledger.finished += 1,
            Ended::Cancelled => list.ledger.cancelled += 1,
            Ended::Panicked => list.ledger.panicked += 1,
        }
        let entry = list.members.remove(key);
        if entry.kind == Kind::Bound && entry.task.is_some() {
            list.bound -= 1;
        }
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

    /// The members that have filled their place, in the order of their ids.
    pub(crate) fn infos(&self) -> Vec<TaskInfo> {
        let list = self.lock();
        let filled = list
            .members
            .iter()
            .filter_map(|(_, entry)| entry.task.as_ref());
        let mut infos: Vec<_> = filled.map(|(_, info)| info.clone()).collect();
        drop(list);
        infos.sort_unstable_by_key(TaskInfo::id);
        infos
    }

    /// One member that has filled its place.
    pub(crate) fn info(&self, key: TaskKey) -> Option<TaskInfo> {
        let list = self.lock();
        let (_, info) = list.members.get(key.place)?.task.as_ref()?;
        (info.key == key).then(|| info.clone())
    }

    /// As [`info`](Members::info); looks through all of them.
    pub(crate) fn find(&self, id: TaskId) -> Option<TaskInfo> {
        let list = self.lock();
        let mut filled = list
            .members
            .iter()
            .filter_map(|(_, entry)| entry.task.as_ref());
        let found = filled.find(|(_, info)| info.id() == id);
        found.map(|(_, info)| info.clone())
    }

    /// Bound members that have filled their place and have not ended. After
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

//! The phases of stopping, in order, and with a bound.
//!
//! 1. Refuse: the injector closes, so that nothing new comes from outside, and nothing new is given to an
//!    executor; what runs there is not waited for.
//! 2. Stop: every loop ends its run after its present batch.
//! 3. End: each loop, on its own thread, cancels its tasks, drops what is queued and lets go of its
//!    sockets. A destructor that spawns or wakes meanwhile finds closed doors.
//! 4. Wait: for the loops with threads of their own, until the limit. A loop whose task does not
//!    return is named in the report and left behind; its thread ends if the task ever does.
//!
//! Drivers go last, with the memory of the runtime.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::runtime::LoopId;
use crate::runtime::stats::RuntimeStats;
use crate::scheduler::{self, Home, Message, Shared};

/// How a shutdown went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Tasks that were cancelled by the shutdown.
    pub tasks_cancelled: u64,
    /// Loops that did not stop within the limit, because something that runs on them does not return.
    pub stuck: Vec<LoopId>,
}

impl ShutdownReport {
    /// True if every loop has stopped and every task has ended.
    pub fn is_clean(&self) -> bool {
        self.stuck.is_empty()
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tasks cancelled", self.tasks_cancelled)?;
        for id in &self.stuck {
            write!(f, "; {id} is stuck and was left behind")?;
        }
        Ok(())
    }
}

/// Between the thread that shuts down and the threads of the loops.
#[derive(Debug, Default)]
pub(crate) struct ShutdownGate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    requested: bool,
    ended: Vec<LoopId>,
}

impl ShutdownGate {
    /// By a loop that was stopped: rest until the runtime ends.
    pub(crate) fn wait_for_request(&self) {
        let state = self.lock();
        let state = self.changed.wait_while(state, |state| !state.requested);
        drop(state.unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn ended(&self, id: LoopId) {
        self.lock().ended.push(id);
        self.changed.notify_all();
    }

    fn request(&self) {
        self.lock().requested = true;
        self.changed.notify_all();
    }

    /// Waits until `count` loops have ended or the limit is over; who has.
    fn wait_for_end(&self, count: usize, limit: Duration) -> Vec<LoopId> {
        let state = self.lock();
        let waited = self
            .changed
            .wait_timeout_while(state, limit, |state| state.ended.len() < count);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.ended.clone()
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is needed to end a runtime, once.
#[derive(Debug)]
pub(crate) struct Shutdown {
    shared: Arc<Shared>,
    gate: Arc<ShutdownGate>,
    threads: Vec<(LoopId, JoinHandle<()>)>,
    is_over: bool,
}

impl Shutdown {
    /// What a runtime waits when it is dropped without a word.
    pub(crate) const LIMIT_ON_DROP: Duration = Duration::from_secs(5);

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Shutdown {
            shared,
            gate: Arc::default(),
            threads: Vec::new(),
            is_over: false,
        }
    }

    pub(crate) fn gate(&self) -> Arc<ShutdownGate> {
        Arc::clone(&self.gate)
    }

    pub(crate) fn add(&mut self, id: LoopId, thread: JoinHandle<()>) {
        self.threads.push((id, thread));
    }

    /// All phases; `close_lent` ends the loop that has no thread of its own, if there is one.
    pub(crate) fn run(&mut self, limit: Duration, close_lent: impl FnOnce()) -> ShutdownReport {
        self.is_over = true;
        let cancelled = |shared: &Shared| RuntimeStats::of(shared).total(|one| one.tasks_cancelled);
        let before = cancelled(&self.shared);
        self.shared.injector.close();
        self.shared.offload.close();
        self.gate.request();
        for id in 0..self.shared.loops.len() {
            let home = Home::new(&self.shared, id);
            // A loop that is closed already needs no telling.
            drop(home.send(Message::Stop));
        }
        close_lent();
        // A runtime dropped by one of its own tasks does not wait for the loop it is dropped on.
        let here = scheduler::with_current(|worker| {
            let own = worker.filter(|worker| worker.is_of(&self.shared));
            own.map(|worker| LoopId(worker.id()))
        });
        self.threads.retain(|(id, _)| Some(*id) != here);
        let ended = self.gate.wait_for_end(self.threads.len(), limit);
        let mut stuck = Vec::new();
        for (id, thread) in self.threads.drain(..) {
            if !ended.contains(&id) {
                stuck.push(id);
            } else if thread.join().is_err() {
                tracing::error!(%id, "the thread of a loop panicked after its end");
            }
        }
        ShutdownReport {
            tasks_cancelled: cancelled(&self.shared) - before,
            stuck,
        }
    }

    /// Called when a runtime is dropped: fine, but in debug mode worth a word.
    pub(crate) fn warn_unless_over(&self, is_debug: bool) {
        if is_debug && !self.is_over {
            tracing::warn!("a runtime was dropped and not shut down");
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }
}

/// A runtime that could not be completed must not leave threads behind.
impl Drop for Shutdown {
    fn drop(&mut self) {
        if !self.is_over {
            self.run(Self::LIMIT_ON_DROP, || {});
        }
    }
}

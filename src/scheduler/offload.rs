//! Where work that would block a loop goes, and how much of it is under way.
//!
//! One for each runtime. It starts no thread and makes no call of its own: who offloads takes the
//! executor from here with a permit, and the permit is given back when the work is over. No user code
//! runs under the lock.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::{Event, EventListener};
use rustix::thread::CpuSet;

/// Runs jobs that may block, on threads of its own.
///
/// Given to a runtime by [`LoopHandle::set_default_executor`](crate::LoopHandle::set_default_executor).
pub trait Executor: Send + Sync + 'static {
    /// Has `job` run once, on a thread that is not a loop's, and returns without waiting for it.
    ///
    /// Called on the loop that offloads, so it must not block. A job that is dropped without having
    /// run is an error for whoever awaits it. A job does not panic.
    fn execute(&self, job: Box<dyn FnOnce() + Send>);
}

/// The executor of one runtime, and the count of its unfinished jobs.
pub(crate) struct Offload {
    state: Mutex<State>,
    /// Notified when the last job is over.
    idle: Event,
    /// The cores of the thread that built the runtime, before any loop was pinned.
    cores: Option<CpuSet>,
}

#[derive(Default)]
struct State {
    /// `None`: the pool of the process.
    executor: Option<Arc<dyn Executor>>,
    jobs: usize,
    is_closed: bool,
}

impl Offload {
    pub(crate) fn new(cores: Option<CpuSet>) -> Arc<Self> {
        Arc::new(Offload {
            state: Mutex::default(),
            idle: Event::new(),
            cores,
        })
    }

    pub(crate) fn cores(&self) -> Option<CpuSet> {
        self.cores
    }

    /// Admits one job, and says who shall run it: an executor that was set, or else the pool of the
    /// process. `None` once closed.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<(Permit, Option<Arc<dyn Executor>>)> {
        let mut state = self.lock();
        if state.is_closed {
            return None;
        }
        state.jobs += 1;
        let executor = state.executor.clone();
        drop(state);
        Some((Permit(Arc::clone(self)), executor))
    }

    /// Puts `executor` in the place of the one before, whose jobs go on.
    pub(crate) fn set_executor(&self, executor: Arc<dyn Executor>) {
        let before = self.lock().executor.replace(executor);
        drop(before);
    }

    /// Refuses further jobs; those under way go on.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
    }

    /// Drops the executor that was set, if there is one.
    pub(crate) fn release(&self) {
        let executor = self.lock().executor.take();
        drop(executor);
    }

    /// Jobs admitted and not yet over.
    pub(crate) fn jobs(&self) -> usize {
        self.lock().jobs
    }

    /// Completes at the next moment without a job after this call.
    pub(crate) fn listen(&self) -> EventListener {
        self.idle.listen()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offload")
            .field("jobs", &self.jobs())
            .finish_non_exhaustive()
    }
}

/// One job under way; dropped when it is over.
pub(crate) struct Permit(Arc<Offload>);

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.jobs -= 1;
        let is_idle = state.jobs == 0;
        drop(state);
        if is_idle {
            self.0.idle.notify(usize::MAX);
        }
    }
}

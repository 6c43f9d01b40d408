//! A loop as other threads see it: `Send`, `Sync`, cheap to clone.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::panic::Location;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::driver::{Registration, TimerEntry};
use crate::error::LoopError;
use crate::runtime::LoopId;
use crate::runtime::callback::ThreadsafeCallHandle;
use crate::runtime::local::LocalLoop;
use crate::runtime::stats::RuntimeStats;
use crate::scheduler::{self, Handle, Home, Message, Offload, SharedCallback, SharedCallbackCell};
use crate::task::info::TaskInfo;
use crate::task::join::JoinHandle;

/// An event loop, for code on any thread.
///
/// It keeps the memory of the runtime alive, but not its loops: after a shutdown calls fail with
/// [`LoopError::Closed`], and spawned tasks are cancelled at once.
#[derive(Clone)]
pub struct LoopHandle {
    home: Arc<Home>,
}

impl LoopHandle {
    pub(crate) fn new(home: Arc<Home>) -> Self {
        LoopHandle { home }
    }

    pub(crate) fn home(&self) -> &Arc<Home> {
        &self.home
    }

    /// The loop that runs on this thread, if one does.
    pub fn current() -> Option<LoopHandle> {
        scheduler::with_current(|worker| worker.map(|w| LoopHandle::new(Arc::clone(w.home()))))
    }

    /// Which loop of its runtime this is.
    pub fn id(&self) -> LoopId {
        LoopId(self.home.id)
    }

    /// How many loops the runtime has.
    pub fn loops(&self) -> usize {
        self.home.shared.loops.len()
    }

    /// Another loop of the same runtime.
    ///
    /// # Panics
    /// If there is no such loop: `id` must be below [`loops`](LoopHandle::loops).
    pub fn on(&self, id: usize) -> LoopHandle {
        assert!(id < self.loops(), "loop {id} of {}", self.loops());
        LoopHandle::new(Arc::new(Home::new(&self.home.shared, id)))
    }

    /// Whether this loop was shut down. True forever then; false may change at any time.
    pub fn is_closed(&self) -> bool {
        self.home.remote().inbox.is_closed()
    }

    /// The time of the loops of this runtime.
    pub fn time(&self) -> Instant {
        self.home.now()
    }

    /// Runs `f` once on this loop and ends its sleep. Calls of one thread keep their order; a call
    /// from the loop's own thread queues behind what is ready.
    ///
    /// # Errors
    /// [`LoopError::Closed`] after the shutdown of the loop; `f` is dropped.
    #[track_caller]
    pub fn call_soon_threadsafe(
        &self,
        f: impl FnOnce() + Send + 'static,
    ) -> Result<ThreadsafeCallHandle, LoopError> {
        let callback: Arc<dyn SharedCallback> = Arc::new(SharedCallbackCell::new(f));
        let queued = Arc::clone(&callback);
        self.home.if_here(|worker| match worker {
            Some(worker) if worker.is_closed() => Err(LoopError::Closed),
            // Not through the inbox, which would put it behind what is scheduled later.
            Some(worker) => {
                worker.push_ready(Handle::SharedCall(queued));
                Ok(())
            }
            None => {
                let sent = self.home.send(Message::SharedCall(queued));
                sent.map_err(|_dropped| LoopError::Closed)
            }
        })?;
        Ok(ThreadsafeCallHandle::new(callback))
    }

    /// The live tasks that were spawned on this loop, in the order of their ids. Those of the other
    /// loops are asked [`on`](LoopHandle::on) them.
    pub fn all_tasks(&self) -> Vec<TaskInfo> {
        self.home.remote().members.infos()
    }

    /// Starts a task that any loop of the runtime may run, one step at a time.
    ///
    /// From a loop it starts there, unless more waits there than it is soon done with and another is idle; from
    /// elsewhere, wherever there is room. A thread that is no loop waits for the result with any executor:
    ///
    /// ```
    /// # let runtime = garland::Builder::new().loops(1).start()?;
    /// let answer = runtime.handle().spawn(async { 6 * 7 });
    /// assert_eq!(futures_lite::future::block_on(answer).expect("did not panic"), 42);
    /// # Ok::<(), garland::BuildError>(())
    /// ```
    #[track_caller]
    #[doc(alias = "run_coroutine_threadsafe")]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.home.spawn(future, Location::caller().into())
    }

    /// Starts a task on this loop, from any thread: `make` is called there, so that the future need
    /// not be `Send`.
    #[track_caller]
    pub fn spawn_on<M, F>(&self, make: M) -> JoinHandle<F::Output>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        self.home.spawn_made_here(make, Location::caller().into())
    }

    /// Ends the run of this loop when its present batch is done.
    ///
    /// Loop 0 returns from `run_forever` or `block_on` and may be run again. A loop with a thread of
    /// its own rests until the shutdown; movable tasks in its deque go to the others.
    pub fn stop(&self) {
        self.home.if_here(|worker| match worker {
            Some(worker) => worker.stop(),
            // A closed loop has stopped for good.
            None => drop(self.home.send(Message::Stop)),
        });
    }

    /// What the loops have done so far.
    pub fn stats(&self) -> RuntimeStats {
        RuntimeStats::of(&self.home.shared)
    }

    /// Whether the runtime was built in debug mode.
    pub(crate) fn is_debug(&self) -> bool {
        self.home.shared.config.debug
    }

    /// Calls `f` on this loop, as a handle of its ready queue.
    pub(crate) fn visit(
        &self,
        f: impl FnOnce(&LocalLoop) + Send + 'static,
    ) -> Result<(), LoopError> {
        let visit: scheduler::ready::Visit =
            Box::new(move |worker| f(&LocalLoop::new(worker.clone())));
        self.home
            .send(Message::Visit(visit))
            .map_err(|_dropped| LoopError::Closed)
    }

    /// What would block a loop of this runtime goes there instead.
    pub(crate) fn offload(&self) -> &Arc<Offload> {
        &self.home.shared.offload
    }

    pub(crate) fn timer_after(&self, delay: Duration, waker: Waker) -> TimerEntry {
        let driver = &self.home.remote().driver;
        TimerEntry::new(driver, driver.clock().ns_after(delay), waker)
    }

    /// Wakes every task of the runtime once, for those that must look at something again.
    pub(crate) fn wake_tasks(&self) {
        let loops = self.home.shared.loops.iter();
        for waker in loops.flat_map(|remote| remote.members.wakers()) {
            waker.wake();
        }
    }

    /// Registers a socket of a movable task with this loop.
    pub(crate) fn register<S: AsFd>(&self, io: S) -> io::Result<Registration<S>> {
        Registration::new(&self.home.remote().driver, io)
    }
}

impl fmt::Debug for LoopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopHandle")
            .field("id", &self.id())
            .field("loops", &self.loops())
            .finish()
    }
}

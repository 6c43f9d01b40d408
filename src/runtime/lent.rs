//! A runtime whose loop 0 runs on the thread that is lent to it.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use core_affinity::CoreId;

use crate::atomics::{AtomicBool, Ordering};
use crate::error::{BuildError, LoopError};
use crate::runtime::affinity::Borrowed;
use crate::runtime::builder::Builder;
use crate::runtime::handle::LoopHandle;
use crate::runtime::local::LocalLoop;
use crate::runtime::shutdown::{Shutdown, ShutdownReport};
use crate::runtime::stats::RuntimeStats;
use crate::scheduler::{Handle, Home, Message, Worker};
use crate::task::join::Panic;

/// A runtime: loop 0 on the calling thread whenever that thread is in [`block_on`](Runtime::block_on)
/// or [`run_forever`](Runtime::run_forever), the other loops on threads of their own.
///
/// In between, loop 0 does not turn: its listeners and timers wait, and nothing scheduled on it is
/// lost. Programs that cannot lend a thread use [`Builder::start`].
///
/// Dropping the runtime shuts it down, and waits at most five seconds for loops that do not stop.
///
/// ```
/// let runtime = garland::Runtime::new()?;
/// let sum = runtime.block_on(async {
///     let left = garland::spawn(async { 20 });
///     let right = garland::spawn(async { 22 });
///     left.await.expect("did not panic") + right.await.expect("did not panic")
/// })?;
/// assert_eq!(sum, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Runtime {
    handle: LoopHandle,
    local: LocalLoop,
    core: Option<CoreId>,
    shutdown: Shutdown,
    pinned: Vec<Option<usize>>,
}

impl Runtime {
    pub(crate) fn new_from(
        worker: Rc<Worker>,
        core: Option<CoreId>,
        shutdown: Shutdown,
        mut pinned: Vec<Option<usize>>,
    ) -> Self {
        pinned[worker.id()] = core.map(|core| core.id);
        Runtime {
            handle: LoopHandle::new(Arc::clone(worker.home())),
            local: LocalLoop::new(worker),
            core,
            shutdown,
            pinned,
        }
    }

    /// A runtime with the defaults of [`Builder`].
    ///
    /// # Errors
    /// As for [`Builder::build`].
    pub fn new() -> Result<Self, BuildError> {
        Builder::new().build()
    }

    /// Settings to build one from.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Loop 0, for any thread; the others by [`LoopHandle::on`].
    pub fn handle(&self) -> &LoopHandle {
        &self.handle
    }

    /// Loop 0, for this thread: what is scheduled before a run is run by it.
    pub fn local(&self) -> &LocalLoop {
        &self.local
    }

    /// What the loops have done so far.
    pub fn stats(&self) -> RuntimeStats {
        self.handle.stats()
    }

    /// The core each loop is pinned to; loop 0 only while it runs.
    pub fn pinning(&self) -> &[Option<usize>] {
        &self.pinned
    }

    /// Runs loop 0 until `future` is complete, and returns its output. The future need be neither
    /// `Send` nor `'static`: it is polled on this thread only, one step at a time among the other
    /// handles of the loop. If it panics, so does this call, and the loop can be run again.
    ///
    /// # Errors
    /// [`LoopError::Stopped`] if `stop()` came first: the future is dropped, unless it was lent as
    /// `&mut`. [`LoopError::Running`] and [`LoopError::OtherLoopRunning`] inside a loop: nothing has
    /// been polled then.
    #[doc(alias = "run_until_complete")]
    pub fn block_on<F: Future>(&self, future: F) -> Result<F::Output, LoopError> {
        let mut future = pin!(future);
        let root = Arc::new(RootWaker {
            home: Arc::clone(self.local.worker().home()),
            is_queued: AtomicBool::new(false),
        });
        let waker = Waker::from(Arc::clone(&root));
        let mut outcome: Option<Result<F::Output, Panic>> = None;
        let local = &self.local;
        self.run_worker(&mut || {
            if outcome.is_some() {
                return;
            }
            root.is_queued.swap(false, Ordering::AcqRel);
            let mut cx = Context::from_waker(&waker);
            let step = AssertUnwindSafe(|| Pin::as_mut(&mut future).poll(&mut cx));
            outcome = match catch_unwind(step) {
                Ok(Poll::Pending) => return,
                Ok(Poll::Ready(output)) => Some(Ok(output)),
                Err(payload) => Some(Err(payload)),
            };
            local.stop();
        })?;
        match outcome {
            Some(Ok(output)) => Ok(output),
            Some(Err(payload)) => resume_unwind(payload),
            None => Err(LoopError::Stopped),
        }
    }

    /// Runs loop 0 until it is stopped. May be called again: nothing scheduled is lost in between.
    ///
    /// # Errors
    /// [`LoopError::Running`] and [`LoopError::OtherLoopRunning`] inside a loop.
    pub fn run_forever(&self) -> Result<(), LoopError> {
        self.run_worker(&mut || {})
    }

    fn run_worker(&self, root: &mut dyn FnMut()) -> Result<(), LoopError> {
        let worker = self.local.worker();
        worker.check_may_run()?;
        let _pinned = Borrowed::pin(self.core);
        // The first step; for `run_forever` it does nothing.
        worker.push_ready(Handle::Root);
        worker.run(root)
    }

    /// Runs the whole of a program: `main` as in [`block_on`](Runtime::block_on); then the remaining tasks are
    /// cancelled, on their loops, what fails on the way is told to the exception handlers, and the
    /// runtime closes. It waits at most five seconds for loops that do not stop, and names them in the log.
    ///
    /// Jobs of [`run_in_executor`](crate::run_in_executor) that are still under way are not waited for, unlike in `asyncio.run`:
    /// await [`LoopHandle::shutdown_default_executor`] at the end of `main` if they must not be cut short by the end
    /// of the process.
    ///
    /// A runtime for several runs is one with several `block_on` and a [`shutdown`](Runtime::shutdown).
    ///
    /// ```
    /// let answer = garland::Runtime::new()?.run(async {
    ///     drop(garland::spawn(std::future::pending::<()>())); // cancelled at the end
    ///     garland::spawn(async { 6 * 7 }).await
    /// })?;
    /// assert_eq!(answer.expect("did not panic"), 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`block_on`](Runtime::block_on); the runtime is closed then, too.
    pub fn run<F: Future>(mut self, main: F) -> Result<F::Output, LoopError> {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.block_on(main)));
        let report = self.end(Shutdown::LIMIT_ON_DROP);
        if !report.is_clean() {
            tracing::warn!("a runtime did not end cleanly: {report}");
        }
        outcome.unwrap_or_else(|payload| resume_unwind(payload))
    }

    /// Ends every loop: tasks are cancelled and dropped on their loops, sockets are closed. Waits at
    /// most `limit` for loops that do not stop, and names them in the report. Jobs of
    /// [`run_in_executor`](crate::run_in_executor) are not waited for; see [`run`](Runtime::run).
    ///
    /// It takes the runtime, so that neither a second call nor one inside a run compiles:
    ///
    /// ```compile_fail,E0505
    /// # let runtime = garland::Runtime::new()?;
    /// runtime.block_on(async { runtime.shutdown(std::time::Duration::ZERO) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown(mut self, limit: Duration) -> ShutdownReport {
        self.end(limit)
    }

    fn end(&mut self, limit: Duration) -> ShutdownReport {
        let worker = self.local.worker();
        self.shutdown.run(limit, || worker.close())
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.shutdown.warn_unless_over(self.local.is_debug());
        if !self.shutdown.is_over() {
            self.end(Shutdown::LIMIT_ON_DROP);
        }
    }
}

/// Wakes the future of a `block_on`, from any thread.
struct RootWaker {
    home: Arc<Home>,
    /// Set by a waker, cleared before the step, both by a read-modify-write (AcqRel): what was done
    /// before a wake-up that finds it set is seen by the step that is still to come. A plain store
    /// would not do: the loads of the step may overtake it.
    is_queued: AtomicBool,
}

impl Wake for RootWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_queued.swap(true, Ordering::AcqRel) {
            return;
        }
        self.home.if_here(|worker| match worker {
            Some(worker) => worker.push_ready(Handle::Root),
            // Closed: the future it would wake is gone.
            None => drop(self.home.send(Message::Root)),
        });
    }
}

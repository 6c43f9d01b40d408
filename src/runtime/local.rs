//! The loop as its own code sees it: `!Send`, free to capture an `Rc`.

use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::driver::clock::Clock;
use crate::driver::{Driver, IoKey, Ready, Registration, Target, TimerEntry, WatchWrites};
use crate::error::LoopError;
use crate::runtime::LoopId;
use crate::runtime::callback::{CallHandle, TimerHandle};
use crate::runtime::handle::LoopHandle;
use crate::scheduler::{self, Callback, CallbackCell, Handle, IoHandler, LentBuffer, Worker};
use crate::task::join::JoinHandle;

/// An event loop, for code that runs on it.
///
/// What is scheduled here runs on this loop only, never two at a time, in the order in which it was
/// scheduled; so it may share state through `Rc` and `Cell`. Clones are the same loop. The type is not
/// `Send`: other threads use a [`LoopHandle`]. What asyncio finds in debug mode does not compile:
///
/// ```compile_fail,E0277
/// let runtime = garland::Builder::new().loops(1).build()?;
/// let local = runtime.local().clone();
/// std::thread::spawn(move || local.call_soon(|| ())); // on a foreign thread
/// # Ok::<(), garland::BuildError>(())
/// ```
///
/// ```compile_fail
/// async fn movable() {
///     let local = garland::LocalLoop::current();
///     garland::yield_now().await; // may go on on another loop
///     drop(local);
/// }
/// garland::spawn(movable());
/// ```
///
/// ```compile_fail,E0271
/// let local: garland::LocalLoop = unimplemented!();
/// local.call_soon(async {}); // a future where a callback is due
/// ```
///
/// ```
/// use std::cell::RefCell;
/// use std::rc::Rc;
/// use std::time::Duration;
///
/// let runtime = garland::Builder::new().loops(1).build()?;
/// let local = runtime.local();
/// let seen = Rc::new(RefCell::new(Vec::new()));
///
/// let (first, second, stop) = (seen.clone(), seen.clone(), local.clone());
/// local.call_later(Duration::from_millis(1), move || {
///     second.borrow_mut().push("later");
///     stop.stop();
/// });
/// local.call_soon(move || first.borrow_mut().push("soon"));
/// runtime.run_forever()?;
/// assert_eq!(*seen.borrow(), ["soon", "later"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct LocalLoop {
    worker: Rc<Worker>,
    /// Says what `Rc` says already, and must go on saying whatever the worker becomes.
    _not_send: PhantomData<*const ()>,
}

impl LocalLoop {
    pub(crate) fn new(worker: Rc<Worker>) -> Self {
        LocalLoop {
            worker,
            _not_send: PhantomData,
        }
    }

    /// The loop that runs on this thread, if one does.
    ///
    /// Inside a movable task this is the loop that polls it now; the next step may run on another.
    #[doc(alias = "get_running_loop")]
    #[doc(alias = "get_event_loop")]
    pub fn current() -> Option<LocalLoop> {
        scheduler::current().map(LocalLoop::new)
    }

    /// Which loop of its runtime this is.
    pub fn id(&self) -> LoopId {
        LoopId(self.worker.id())
    }

    /// A handle that may go to other threads.
    pub fn handle(&self) -> LoopHandle {
        LoopHandle::new(Arc::clone(self.worker.home()))
    }

    /// The time of this loop: monotonic, and advancing while a callback runs.
    pub fn time(&self) -> Instant {
        self.worker.home().now()
    }

    /// Runs `f` once, in a later step, behind everything that is ready already.
    ///
    /// On a loop that is closed `f` is dropped.
    #[track_caller]
    pub fn call_soon(&self, f: impl FnOnce() + 'static) -> CallHandle {
        let callback: Rc<dyn Callback> = Rc::new(CallbackCell::new(f));
        self.worker.push_ready(Handle::Call(Rc::clone(&callback)));
        CallHandle::new(callback)
    }

    /// Runs `f` once, `delay` from now at the soonest. A delay of zero is due in the next turn,
    /// behind what is ready already. Precision is that of the platform's timers, well below a
    /// millisecond; equal deadlines fire in the order of scheduling.
    #[track_caller]
    pub fn call_later(&self, delay: Duration, f: impl FnOnce() + 'static) -> TimerHandle {
        let deadline = self.driver().clock().ns_after(delay);
        TimerHandle::new(&self.worker, Rc::new(CallbackCell::new(f)), deadline)
    }

    /// Runs `f` once, at `when` at the soonest.
    #[track_caller]
    pub fn call_at(&self, when: Instant, f: impl FnOnce() + 'static) -> TimerHandle {
        let deadline = self.driver().clock().ns_at(when);
        TimerHandle::new(&self.worker, Rc::new(CallbackCell::new(f)), deadline)
    }

    /// Starts a task that stays on this loop and need not be `Send`. Its first step is scheduled as
    /// by [`call_soon`](LocalLoop::call_soon).
    #[track_caller]
    #[doc(alias = "create_task")]
    pub fn spawn_local<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let home = self.worker.home();
        home.spawn_bound(&self.worker, future, Location::caller().into())
    }

    /// Ends the run of this loop when its present batch is done. Before a run: that run makes one
    /// turn without waiting.
    pub fn stop(&self) {
        self.worker.stop();
    }

    /// Whether this loop is inside a run just now. True in everything it calls.
    pub fn is_running(&self) -> bool {
        scheduler::with_current(|worker| worker.is_some_and(|w| Rc::ptr_eq(w, &self.worker)))
            && !self.is_closed()
    }

    /// Whether the loop was shut down: what is scheduled from now on is dropped and never runs.
    pub fn is_closed(&self) -> bool {
        self.worker.is_closed()
    }

    /// Arms a timer on the loop of this thread, if one runs here.
    pub(crate) fn timer_here(
        waker: Waker,
        deadline: impl FnOnce(&Clock) -> u64,
    ) -> Option<TimerEntry> {
        scheduler::with_current(|worker| {
            let driver = worker?.driver();
            let deadline = deadline(driver.clock());
            Some(TimerEntry::at_home(driver, deadline, waker))
        })
    }

    /// Registers a socket of a movable task with this loop.
    pub(crate) fn register<S: AsFd>(&self, io: S) -> io::Result<Registration<S>> {
        Registration::new(self.driver(), io)
    }

    /// Takes over a socket from a loop of the same runtime, whose task runs here now.
    pub(crate) fn take_over<S: AsFd>(&self, registration: &Registration<S>) {
        let loops = &self.worker.shared().loops;
        let is_kin = |from: &Arc<Driver>| loops.iter().any(|one| Arc::ptr_eq(&one.driver, from));
        registration.follow(self.driver(), is_kin);
    }

    /// Registers a socket of datagrams of a movable task with this loop, for reading alone.
    pub(crate) fn register_reads<S: AsFd>(&self, io: S) -> io::Result<Registration<S>> {
        Registration::for_reads(self.driver(), io)
    }

    /// Makes a socket of callbacks known to this loop; nothing is reported before `watch_io`.
    pub(crate) fn insert_io(&self, handler: Rc<dyn IoHandler>) -> IoKey {
        self.worker.insert_io(handler)
    }

    /// Has the selector report `fd` to the handler behind `key`.
    pub(crate) fn watch_io(&self, fd: impl AsFd, key: IoKey) -> io::Result<()> {
        self.driver().watch(fd, Target::Local(key))
    }

    /// Has the selector report `fd`, a socket of datagrams, for reading alone.
    pub(crate) fn watch_reads(&self, fd: impl AsFd, key: IoKey) -> io::Result<()> {
        self.driver().watch_reads(fd, Target::Local(key))
    }

    /// Has writing reported too, or no longer, after [`watch_reads`](Self::watch_reads).
    pub(crate) fn rewatch_io(
        &self,
        fd: impl AsFd,
        key: IoKey,
        writes: WatchWrites,
    ) -> io::Result<()> {
        self.driver().rewatch(fd, Target::Local(key), writes)
    }

    /// The handlers of all sockets of callbacks on this loop.
    pub(crate) fn io_handlers(&self) -> Vec<Rc<dyn IoHandler>> {
        self.worker.io_handlers()
    }

    /// Forgets the handler. Closing its descriptor takes it out of the selector.
    pub(crate) fn remove_io(&self, key: IoKey) {
        self.worker.remove_io(key);
    }

    /// As if the kernel had reported it: for what an edge will not say again.
    pub(crate) fn requeue_io(&self, key: IoKey, ready: Ready) {
        self.worker.requeue_io(key, ready);
    }

    /// The number of the present turn, cut to 32 bits.
    pub(crate) fn turn(&self) -> u32 {
        self.worker.counters().turns.get() as u32
    }

    /// What a layer above keeps for this loop: one of each type, made at its first use.
    pub(crate) fn attachment<T: Default + 'static>(&self) -> Rc<T> {
        self.worker.attachments().get()
    }

    /// Whether a selector of this runtime watches this descriptor itself: then it is a socket of ours.
    pub(crate) fn is_watched(&self, fd: impl AsFd) -> io::Result<bool> {
        for remote in &self.worker.shared().loops {
            if remote.driver.is_watched(&fd)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// # Errors
    /// A loop that is closed.
    pub(crate) fn check_open(&self) -> io::Result<()> {
        if self.worker.is_closed() {
            let closed = io::Error::new(io::ErrorKind::NotConnected, LoopError::Closed);
            return Err(closed);
        }
        Ok(())
    }

    /// Lends the loop's read buffer. Not reentrant, and need not be: one handle runs at a time.
    pub(crate) fn with_read_buffer<T>(&self, f: impl FnOnce(&mut LentBuffer) -> T) -> T {
        self.worker.with_read_buffer(f)
    }

    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    pub(crate) fn driver(&self) -> &Arc<Driver> {
        self.worker.driver()
    }
}

impl fmt::Debug for LocalLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalLoop").field("id", &self.id()).finish()
    }
}

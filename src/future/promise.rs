//! A result that is not there yet: asyncio's `Future`, in two halves.
//!
//! ```text
//!              set_result                    result(), await: the value
//!   pending ────────────────────> finished
//!      └───────────────────────> cancelled   result(), await: FutError::Cancelled
//!         cancel, or the promise dropped
//! ```
//!
//! An end is final. Whoever waits, task or callback, is told in the order in which it began to wait;
//! a callback is always scheduled, never called from inside `set_result`, `cancel` or
//! `add_done_callback`.
//!
//! There is no `set_exception`: a value that may be an error is a `Result`, and what nobody looked
//! at is then the value's own affair. Nothing here is `Send`, so nothing is locked; what comes from
//! another thread comes through [`LocalLoop::wrap_future`].

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::error::FutError;
use crate::runtime::LocalLoop;

impl LocalLoop {
    /// A future of this loop, and the promise that will give it its result.
    ///
    /// ```
    /// let runtime = garland::Builder::new().loops(1).build()?;
    /// let local = runtime.local();
    /// let (promise, future) = local.create_future();
    ///
    /// let mut waiter = future.clone();
    /// let task = local.spawn_local(async move { waiter.await });
    /// local.call_soon(move || promise.set_result("done").expect("nobody cancelled it"));
    ///
    /// let seen = runtime.block_on(task)?.expect("did not panic");
    /// assert_eq!(seen, Ok("done"));
    /// assert_eq!(future.result(), Ok("done"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_future<T: 'static>(&self) -> (Promise<T>, LoopFuture<T>) {
        let shared = Rc::new(Shared {
            local: self.clone(),
            state: RefCell::new(State::Pending(Waiters::default())),
        });
        let promise = Promise {
            shared: Rc::clone(&shared),
        };
        (promise, LoopFuture::new(shared))
    }

    /// Makes any future one of this loop: many may await it, and it can be called back.
    ///
    /// A task of this loop drives it; what it waits for may come from any thread. Cancelling the
    /// result drops `future` in a later step, and if that was to end a task of another loop, hand in
    /// [`JoinHandle::cancel_on_drop`](crate::JoinHandle::cancel_on_drop). If `future` panics, or the
    /// loop is closed, the result is cancelled. Dropping the result lets `future` go on.
    ///
    /// The other way round, a thread awaits a future of this loop through the handle of a task:
    /// `local.spawn_local(future)` yields one, and it is `Send`.
    ///
    /// ```
    /// let runtime = garland::Builder::new().loops(1).build()?;
    /// let (sender, receiver) = garland::sync::channel::bounded(1);
    /// let answer = runtime.local().wrap_future(async move { receiver.recv().await.ok() });
    ///
    /// let thread = std::thread::spawn(move || sender.send_blocking(42));
    /// assert_eq!(runtime.block_on(answer)?, Ok(Some(42)));
    /// thread.join().expect("did not panic")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "ensure_future")]
    pub fn wrap_future<F>(&self, future: F) -> LoopFuture<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let (promise, wrapped) = self.create_future();
        let mut cancelled = wrapped.clone();
        let driver = self.spawn_local(async move {
            let mut future = pin!(future);
            let output = poll_fn(|cx| match future.as_mut().poll(cx) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending => cancelled.poll_done(cx).map(|()| None),
            });
            if let Some(output) = output.await {
                // It may have been cancelled in this very step: then nobody wants the output.
                promise.set_result(output).ok();
            }
        });
        drop(driver);
        wrapped
    }
}

/// The side that sets the result. Dropping it without one cancels the future.
pub struct Promise<T> {
    shared: Rc<Shared<T>>,
}

impl<T> Promise<T> {
    /// Ends the future with `result`: schedules its callbacks and wakes those who await it.
    ///
    /// # Errors
    /// [`FutError::InvalidState`] if it has a result or was cancelled; `result` is dropped.
    #[doc(alias = "set_exception")]
    pub fn set_result(&self, result: T) -> Result<(), FutError> {
        self.shared.settle(State::Finished(Rc::new(result)))
    }

    /// Ends the future without a result. False if it has ended before.
    pub fn cancel(&self) -> bool {
        self.shared.settle(State::Cancelled).is_ok()
    }

    /// True if the future has ended, in whatever way: there is nothing left to promise.
    pub fn done(&self) -> bool {
        self.shared.is_done()
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl<T> fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Promise").field(&self.shared.name()).finish()
    }
}

/// The side that waits for the result. Clones are the same future, and each may be awaited.
///
/// - Awaiting it yields a clone of the result; for what cannot be cloned use an `Rc`.
/// - Dropping it, or whoever awaits it, changes nothing for the others: it is not cancelled.
/// - It belongs to its loop: a task of another loop that awaits it while it is pending gets
///   [`FutError::OtherLoop`]. It is not `Send`.
///
/// ```
/// let runtime = garland::Builder::new().loops(1).build()?;
/// let (_promise, future) = runtime.local().create_future::<u32>();
/// assert_eq!(future.result(), Err(garland::FutError::InvalidState));
///
/// let stop = runtime.local().clone();
/// future.add_done_callback(move |future| {
///     assert!(future.cancelled());
///     stop.stop();
/// });
/// assert!(future.cancel());
/// runtime.run_forever()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "Future")]
pub struct LoopFuture<T> {
    shared: Rc<Shared<T>>,
    /// This clone's place among those that wait.
    place: Option<u64>,
}

/// Names one registration of [`LoopFuture::add_done_callback`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoneCallback(Option<u64>);

impl<T> LoopFuture<T> {
    fn new(shared: Rc<Shared<T>>) -> Self {
        LoopFuture {
            shared,
            place: None,
        }
    }

    /// True if it has ended: with a result, or cancelled.
    pub fn done(&self) -> bool {
        self.shared.is_done()
    }

    /// True if it was cancelled.
    pub fn cancelled(&self) -> bool {
        matches!(*self.shared.state.borrow(), State::Cancelled)
    }

    /// Ends it without a result, for all who wait for it. False if it has ended before.
    pub fn cancel(&self) -> bool {
        self.shared.settle(State::Cancelled).is_ok()
    }

    /// The result, without waiting.
    ///
    /// # Errors
    /// [`FutError::InvalidState`] as long as there is none, [`FutError::Cancelled`] if there will be
    /// none.
    #[doc(alias = "exception")]
    pub fn result(&self) -> Result<T, FutError>
    where
        T: Clone,
    {
        let state = self.shared.state.borrow();
        let result = match &*state {
            State::Pending(_) => return Err(FutError::InvalidState),
            State::Cancelled => return Err(FutError::Cancelled),
            State::Finished(result) => Rc::clone(result),
        };
        drop(state);
        // The clone is user code, and may use this future.
        Ok(T::clone(&result))
    }

    /// Schedules `callback`, as by [`LocalLoop::call_soon`], once it has ended; if it has ended already,
    /// now. The callback never runs inside this call. On a loop that is closed `callback` is dropped.
    pub fn add_done_callback(&self, callback: impl FnOnce(&LoopFuture<T>) + 'static) -> DoneCallback
    where
        T: 'static,
    {
        let mut state = self.shared.state.borrow_mut();
        if let State::Pending(waiters) = &mut *state {
            let schedule = Box::new(|shared: &Rc<Shared<T>>| shared.schedule(callback));
            return DoneCallback(Some(waiters.push(Waiter::Callback(schedule))));
        }
        drop(state);
        self.shared.schedule(callback);
        DoneCallback(None)
    }

    /// Forgets one registration. False if its callback was scheduled already, or removed before.
    pub fn remove_done_callback(&self, callback: DoneCallback) -> bool {
        callback.0.is_some_and(|place| self.shared.remove(place))
    }

    /// Waits for the end, without taking the result.
    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shared.state.borrow_mut();
        let State::Pending(waiters) = &mut *state else {
            return Poll::Ready(());
        };
        let replaced = match self.place {
            Some(place) => waiters.update(place, cx.waker()),
            None => {
                self.place = Some(waiters.push(Waiter::Task(cx.waker().clone())));
                None
            }
        };
        drop(state);
        // Its drop may free a task.
        drop(replaced);
        Poll::Pending
    }
}

impl<T: Clone> Future for LoopFuture<T> {
    type Output = Result<T, FutError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.done() && self.shared.is_of_another_loop() {
            return Poll::Ready(Err(FutError::OtherLoop));
        }
        std::task::ready!(self.poll_done(cx));
        Poll::Ready(self.result())
    }
}

/// The result is not pinned in it.
impl<T> Unpin for LoopFuture<T> {}

impl<T> Clone for LoopFuture<T> {
    fn clone(&self) -> Self {
        LoopFuture::new(Rc::clone(&self.shared))
    }
}

impl<T> Drop for LoopFuture<T> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.shared.remove(place);
        }
    }
}

impl<T> fmt::Debug for LoopFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.shared.name();
        f.debug_tuple("LoopFuture").field(&name).finish()
    }
}

struct Shared<T> {
    local: LocalLoop,
    state: RefCell<State<T>>,
}

enum State<T> {
    Pending(Waiters<T>),
    Finished(Rc<T>),
    Cancelled,
}

impl<T> Shared<T> {
    fn is_done(&self) -> bool {
        !matches!(*self.state.borrow(), State::Pending(_))
    }

    fn is_of_another_loop(&self) -> bool {
        let current = LocalLoop::current();
        current.is_some_and(|current| !Rc::ptr_eq(current.worker(), self.local.worker()))
    }

    /// The end: tells all who wait, in order, with no borrow held.
    fn settle(self: &Rc<Self>, end: State<T>) -> Result<(), FutError> {
        let mut state = self.state.borrow_mut();
        if !matches!(*state, State::Pending(_)) {
            drop(state);
            // `end` holds a value of the user: it goes without the borrow, too.
            drop(end);
            return Err(FutError::InvalidState);
        }
        let State::Pending(waiters) = mem::replace(&mut *state, end) else {
            return Err(FutError::InvalidState);
        };
        drop(state);
        for (_, waiter) in waiters.list {
            match waiter {
                Waiter::Callback(schedule) => schedule(self),
                // It may be foreign code; the others wait for their turn all the same.
                Waiter::Task(waker) => {
                    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
                        self.local.report_panic(payload);
                    }
                }
            }
        }
        Ok(())
    }

    fn schedule(self: &Rc<Self>, callback: impl FnOnce(&LoopFuture<T>) + 'static)
    where
        T: 'static,
    {
        let future = LoopFuture::new(Rc::clone(self));
        self.local.call_soon(move || callback(&future));
    }

    fn remove(&self, place: u64) -> bool {
        let mut state = self.state.borrow_mut();
        let State::Pending(waiters) = &mut *state else {
            return false;
        };
        let removed = waiters.remove(place);
        drop(state);
        removed.is_some()
    }

    fn name(&self) -> &'static str {
        match *self.state.borrow() {
            State::Pending(_) => "pending",
            State::Finished(_) => "finished",
            State::Cancelled => "cancelled",
        }
    }
}

/// Who waits, in the order of places.
struct Waiters<T> {
    list: Vec<(u64, Waiter<T>)>,
    next_place: u64,
}

enum Waiter<T> {
    /// Schedules the callback.
    Callback(Schedule<T>),
    Task(Waker),
}

type Schedule<T> = Box<dyn FnOnce(&Rc<Shared<T>>)>;

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Waiters {
            list: Vec::new(),
            next_place: 0,
        }
    }
}

impl<T> Waiters<T> {
    fn push(&mut self, waiter: Waiter<T>) -> u64 {
        let place = self.next_place;
        self.next_place += 1;
        self.list.push((place, waiter));
        place
    }

    /// Has the task at `place` woken by `waker` from now on; returns the waker it had.
    fn update(&mut self, place: u64, waker: &Waker) -> Option<Waker> {
        let at = self.list.binary_search_by_key(&place, |(place, _)| *place);
        let (_, waiter) = &mut self.list[at.expect("a clone that waits has its place")];
        match waiter {
            Waiter::Task(old) if !old.will_wake(waker) => Some(mem::replace(old, waker.clone())),
            _ => None,
        }
    }

    fn remove(&mut self, place: u64) -> Option<Waiter<T>> {
        let at = self.list.binary_search_by_key(&place, |(place, _)| *place);
        at.ok().map(|at| self.list.remove(at).1)
    }
}

//! Deadlines: for a task that is cancelled when it is late, and for a stretch of code whose deadline
//! may be moved.
//!
//! For a plain future with a fixed limit there is [`timeout`]. A deadline turns nothing but its own
//! expiry into [`TimedOut`]: errors of the code, and a cancellation from outside, pass untouched.

use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::error::{FutError, TimedOut};
use crate::runtime::{JoinError, JoinHandle, LocalLoop};
use crate::time::{Sleep, sleep_until, timeout};

/// Gives a task the time `limit`; then cancels it, waits until it has really ended, and returns
/// [`TimedOut`].
///
/// A task that ends by itself at its last chance keeps its result, and one that panics while it is
/// cancelled its panic. A limit of zero does not let the task begin; `None` waits for ever. Dropping
/// this future cancels the task. Where the task is to go on instead, await it by
/// [`timeout`]`(limit, &mut handle)`.
///
/// ```
/// # use std::time::Duration;
/// # let clock = garland::ManualClock::auto_advance();
/// # let runtime = garland::Builder::new().loops(1).clock(clock).build()?;
/// runtime.block_on(async {
///     let task = garland::spawn(std::future::pending::<()>());
///     let late = garland::wait_for(task, Duration::from_secs(3)).await;
///     assert!(late.is_err());
///     assert!(garland::LoopHandle::current().expect("a loop").all_tasks().is_empty());
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn wait_for<T>(
    handle: JoinHandle<T>,
    limit: impl Into<Option<Duration>>,
) -> impl Future<Output = Result<Result<T, JoinError>, TimedOut>> {
    let mut task = handle.cancel_on_drop();
    let limit = limit.into();
    async move {
        let Some(after) = limit else {
            return Ok(task.await);
        };
        if !after.is_zero()
            && let Ok(result) = timeout(after, &mut task).await
        {
            return Ok(result);
        }
        let cancelled = task.cancel();
        match task.await {
            Err(JoinError::Cancelled) if cancelled => Err(TimedOut { after }),
            result => Ok(result),
        }
    }
}

/// Runs `future` until `deadline`; then drops it and returns [`TimedOut`]. `None` is never.
///
/// A deadline that has passed lets `future` make its first step.
///
/// ```
/// # use std::time::Duration;
/// # let clock = garland::ManualClock::auto_advance();
/// # let runtime = garland::Builder::new().loops(1).clock(clock).build()?;
/// let deadline = runtime.handle().time() + Duration::from_secs(2);
/// let late = runtime.block_on(garland::timeout_at(deadline, std::future::pending::<()>()))?;
/// assert!(late.is_err());
/// assert_eq!(runtime.handle().time(), deadline);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn timeout_at<F: Future>(
    deadline: impl Into<Option<Instant>>,
    future: F,
) -> Result<F::Output, TimedOut> {
    TimeoutScope::at(deadline).run(future).await
}

/// A deadline that can be moved while the code under it runs: asyncio's `timeout()` block.
///
/// ```
/// # use std::time::Duration;
/// # let clock = garland::ManualClock::auto_advance();
/// # let runtime = garland::Builder::new().loops(1).clock(clock).build()?;
/// use garland::{TimeoutScope, sleep};
///
/// runtime.block_on(async {
///     let second = Duration::from_secs(1);
///     let scope = TimeoutScope::new(second);
///     let body = scope.run(async {
///         // There is progress: another two seconds.
///         scope.reschedule(scope.when().map(|when| when + 2 * second)).expect("it runs");
///         sleep(2 * second).await;
///         "in time"
///     });
///     assert_eq!(body.await, Ok("in time"));
///     assert!(!scope.expired());
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "Timeout")]
pub struct TimeoutScope {
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    deadline: Option<Instant>,
    /// Set by `reschedule`: the timer that runs is not that of the deadline.
    moved: bool,
    /// Of the task in `run`.
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    Running,
    Expired,
    Finished,
}

impl TimeoutScope {
    /// A scope that expires after `delay` from now; `None` is never.
    ///
    /// # Panics
    /// Outside a loop.
    #[track_caller]
    pub fn new(delay: impl Into<Option<Duration>>) -> Self {
        let local = LocalLoop::current();
        let now = local.expect("a timeout is made inside a loop").time();
        // A deadline that the clock cannot express does not come.
        TimeoutScope::at(delay.into().and_then(|delay| now.checked_add(delay)))
    }

    /// A scope that expires at `deadline`; `None` is never.
    #[doc(alias = "timeout_at")]
    pub fn at(deadline: impl Into<Option<Instant>>) -> Self {
        TimeoutScope {
            state: Mutex::new(State {
                phase: Phase::New,
                deadline: deadline.into(),
                moved: true,
                waker: None,
            }),
        }
    }

    /// Runs `future` under the deadline. Dropping this drops `future`.
    ///
    /// It makes its first step whatever the deadline, and a `future` that is complete at its last
    /// chance wins.
    ///
    /// # Errors
    /// [`TimedOut`] if the deadline came first; `future` is dropped by then.
    ///
    /// # Panics
    /// If it was run before, and outside a loop.
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output, TimedOut> {
        let local = LocalLoop::current();
        let begun = local.expect("a timeout runs inside a loop").time();
        {
            let mut state = self.lock();
            assert!(state.phase == Phase::New, "a TimeoutScope runs once");
            state.phase = Phase::Running;
        }
        let _leaving = Leaving(self);
        let mut timer = None;
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            std::task::ready!(self.poll_expired(&mut timer, cx));
            let deadline = self.when().unwrap_or(begun);
            let after = deadline.saturating_duration_since(begun);
            Poll::Ready(Err(TimedOut { after }))
        })
        .await
    }

    /// Moves the deadline, also to one that has passed; `None` is never. From any thread.
    ///
    /// # Errors
    /// [`FutError::InvalidState`] if the scope does not run: not yet, or no longer.
    pub fn reschedule(&self, deadline: impl Into<Option<Instant>>) -> Result<(), FutError> {
        let mut state = self.lock();
        if state.phase != Phase::Running {
            return Err(FutError::InvalidState);
        }
        state.deadline = deadline.into();
        state.moved = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// The present deadline; still answers after the end.
    pub fn when(&self) -> Option<Instant> {
        self.lock().deadline
    }

    /// True if the deadline came before the end of the code.
    pub fn expired(&self) -> bool {
        self.lock().phase == Phase::Expired
    }

    fn poll_expired(&self, timer: &mut Option<Sleep>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if mem::take(&mut state.moved) {
            *timer = state.deadline.map(sleep_until);
        }
        let replaced = state.waker.replace(cx.waker().clone());
        drop(state);
        // Its drop may free a task: not under the lock.
        drop(replaced);
        let Some(timer) = timer else {
            return Poll::Pending;
        };
        std::task::ready!(Pin::new(timer).poll(cx));
        self.lock().phase = Phase::Expired;
        Poll::Ready(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TimeoutScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("TimeoutScope")
            .field("phase", &state.phase)
            .field("when", &state.deadline)
            .finish()
    }
}

/// The end of `run`, also by being dropped.
struct Leaving<'a>(&'a TimeoutScope);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if state.phase == Phase::Running {
            state.phase = Phase::Finished;
        }
        let waker = state.waker.take();
        drop(state);
        drop(waker);
    }
}

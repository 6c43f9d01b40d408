//! L4a: waiting, in futures.
//!
//! A timer belongs to the loop that polled the future first and stays there, wherever its task goes
//! (MC-06). Precision is that of the platform's timers; never early.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;

use crate::driver::TimerEntry;
use crate::error::TimedOut;
use crate::runtime::LocalLoop;

/// Waits for `delay` at least, counted from the first poll. Zero means: until the next turn.
///
/// Dropping the future frees its timer.
///
/// # Panics
/// When polled for the first time outside a loop.
///
/// ```
/// # use std::time::Duration;
/// # let clock = garland::ManualClock::auto_advance();
/// # let runtime = garland::Builder::new().loops(1).clock(clock.clone()).build()?;
/// runtime.block_on(garland::sleep(Duration::from_micros(250)))?;
/// assert_eq!(clock.elapsed(), Duration::from_micros(250));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn sleep(delay: Duration) -> Sleep {
    Sleep {
        state: State::New(When::After(delay)),
    }
}

/// Waits until `deadline` at least; a deadline that has passed means: until the next turn.
///
/// # Panics
/// When polled for the first time outside a loop.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep {
        state: State::New(When::At(deadline)),
    }
}

/// The future of [`sleep`] and [`sleep_until`].
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    state: State,
}

enum State {
    New(When),
    Armed(TimerEntry),
    Done,
}

#[derive(Clone, Copy)]
enum When {
    After(Duration),
    At(Instant),
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.state {
            State::New(when) => {
                let timer = LocalLoop::timer_here(cx.waker().clone(), |clock| match *when {
                    When::After(delay) => clock.ns_after(delay),
                    When::At(instant) => clock.ns_at(instant),
                });
                self.state = State::Armed(timer.expect("a sleep is polled inside a loop"));
                Poll::Pending
            }
            State::Armed(timer) => {
                std::task::ready!(timer.poll(cx));
                self.state = State::Done;
                Poll::Ready(())
            }
            State::Done => Poll::Ready(()),
        }
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            State::New(_) => "Sleep(not polled)",
            State::Armed(_) => "Sleep(armed)",
            State::Done => "Sleep(done)",
        })
    }
}

/// Gives `future` the time `limit`; then drops it and returns [`TimedOut`].
///
/// The time counts from the first poll. A future that is complete at its last chance wins over the limit. Dropping this
/// drops the future.
///
/// # Panics
/// When it is first polled outside a loop, if `future` is not complete at once.
///
/// ```
/// # use std::time::Duration;
/// # let clock = garland::ManualClock::auto_advance();
/// # let runtime = garland::Builder::new().loops(1).clock(clock).build()?;
/// runtime.block_on(async {
///     let limit = Duration::from_secs(3);
///     assert_eq!(garland::timeout(limit, async { 1 }).await, Ok(1));
///     let late = garland::timeout(limit, std::future::pending::<()>()).await;
///     assert_eq!(late.expect_err("never completes").after, limit);
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "wait_for")]
pub fn timeout<F: Future>(limit: Duration, future: F) -> Timeout<F> {
    Timeout {
        future,
        limit,
        sleep: sleep(limit),
    }
}

pin_project! {
    /// The future of [`timeout`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless awaited"]
    pub struct Timeout<F> {
        #[pin]
        future: F,
        limit: Duration,
        sleep: Sleep,
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, TimedOut>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        std::task::ready!(Pin::new(this.sleep).poll(cx));
        Poll::Ready(Err(TimedOut { after: *this.limit }))
    }
}

/// Nothing comes due after this: it is the range of a loop's clock, 584 years. A longer period would
/// only overflow the timetable.
const LONGEST_PERIOD: Duration = Duration::from_nanos(u64::MAX);

/// Ticks every `period`, the first time one period after `tick` is first called (tokio's first tick is at once).
///
/// # Panics
/// If `period` is zero.
///
/// ```
/// # use std::time::Duration;
/// # let clock = garland::ManualClock::auto_advance();
/// # let runtime = garland::Builder::new().loops(1).clock(clock.clone()).build()?;
/// runtime.block_on(async {
///     let mut every_second = garland::interval(Duration::from_secs(1));
///     for _ in 0..3 {
///         every_second.tick().await;
///     }
/// })?;
/// assert_eq!(clock.elapsed(), Duration::from_secs(3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    assert!(!period.is_zero(), "an interval has a period above zero");
    let period = period.min(LONGEST_PERIOD);
    Interval {
        period,
        next: None,
        sleep: sleep(period),
    }
}

/// The ticks of [`interval`], on a fixed timetable: a late tick does not move the later ones, and
/// ticks that were missed altogether are skipped.
#[derive(Debug)]
pub struct Interval {
    period: Duration,
    /// The deadline `sleep` waits for; `None` before the first tick was asked for.
    next: Option<Instant>,
    sleep: Sleep,
}

impl Interval {
    /// Waits for the next tick and returns when it was due. Dropping this future loses no tick.
    ///
    /// # Panics
    /// When it is polled outside a loop.
    pub async fn tick(&mut self) -> Instant {
        let now = || {
            let local = LocalLoop::current();
            local.expect("an interval ticks inside a loop").time()
        };
        let due = match self.next {
            Some(due) => due,
            None => {
                let due = now() + self.period;
                self.sleep = sleep_until(due);
                self.next = Some(due);
                due
            }
        };
        (&mut self.sleep).await;
        let next = skip_missed(due, self.period, now());
        self.next = Some(next);
        self.sleep = sleep_until(next);
        due
    }
}

/// The first point of the timetable after `now`.
fn skip_missed(due: Instant, period: Duration, now: Instant) -> Instant {
    let next = due + period;
    if next > now {
        return next;
    }
    let missed = now.duration_since(due).as_nanos() / period.as_nanos();
    let missed = u32::try_from(missed).unwrap_or(u32::MAX);
    due + period.saturating_mul(missed.saturating_add(1))
}

//! The time a loop lives by: the monotonic clock, or one that a test turns by hand.
//!
//! The only file of the library that reads the operating system's clock. Inside the driver a point
//! in time is a `u64`: nanoseconds since the clock was made, which lasts 584 years.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::atomics::{AtomicU64, Ordering};

/// Wakes one parked loop, so that it looks at the clock again.
type WakeLoop = Box<dyn Fn() + Send + Sync>;

/// A source of monotonic time.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    manual: Option<ManualClock>,
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the clock"
    )]
    pub(crate) fn monotonic() -> Self {
        Clock {
            origin: Instant::now(),
            manual: None,
        }
    }

    pub(crate) fn manual(manual: ManualClock) -> Self {
        Clock {
            origin: manual.shared.origin,
            manual: Some(manual),
        }
    }

    pub(crate) fn as_manual(&self) -> Option<&ManualClock> {
        self.manual.as_ref()
    }

    /// Nanoseconds since the clock was made.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the clock"
    )]
    pub(crate) fn now_ns(&self) -> u64 {
        match &self.manual {
            None => saturating_ns(Instant::now().saturating_duration_since(self.origin)),
            Some(manual) => manual.now_ns(),
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.instant_at(self.now_ns())
    }

    pub(crate) fn instant_at(&self, ns: u64) -> Instant {
        self.origin + Duration::from_nanos(ns)
    }

    /// A point before the clock was made is its beginning, one too far away is the last.
    pub(crate) fn ns_at(&self, instant: Instant) -> u64 {
        saturating_ns(instant.saturating_duration_since(self.origin))
    }

    pub(crate) fn ns_after(&self, delay: Duration) -> u64 {
        self.now_ns().saturating_add(saturating_ns(delay))
    }
}

fn saturating_ns(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// A clock that stands still until it is told to advance: time for tests, without waiting.
///
/// Clones are the same clock. Give one to [`Builder::clock`](crate::Builder::clock). A parked loop
/// is woken by [`advance`](ManualClock::advance) and fires what has come due.
///
/// ```
/// use std::time::Duration;
/// use garland::{Builder, ManualClock};
///
/// let clock = ManualClock::auto_advance();
/// let runtime = Builder::new().loops(1).clock(clock.clone()).build()?;
/// // An hour passes at once: the loop has nothing else to do.
/// runtime.block_on(garland::sleep(Duration::from_secs(3600)))?;
/// assert_eq!(clock.elapsed(), Duration::from_secs(3600));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ManualClock {
    shared: Arc<ManualShared>,
}

struct ManualShared {
    origin: Instant,
    auto: bool,
    /// Written by `advance` (Release), read by every loop (Acquire): a loop that sees the new time
    /// sees what the advancing thread did before.
    now: AtomicU64,
    loops: Mutex<Vec<WakeLoop>>,
}

impl ManualClock {
    /// A clock that moves only by [`advance`](ManualClock::advance).
    pub fn new() -> Self {
        Self::with_auto(false)
    }

    /// A clock that jumps to the next deadline whenever its loop would go to sleep. For runtimes of
    /// one loop: with several, "nothing left to do" is not one loop's to decide.
    pub fn auto_advance() -> Self {
        Self::with_auto(true)
    }

    fn with_auto(auto: bool) -> Self {
        ManualClock {
            shared: Arc::new(ManualShared {
                origin: Clock::monotonic().origin,
                auto,
                now: AtomicU64::new(0),
                loops: Mutex::new(Vec::new()),
            }),
        }
    }

    /// Moves the time on by `span` and wakes every loop that lives by this clock.
    pub fn advance(&self, span: Duration) {
        self.shared
            .now
            .fetch_add(saturating_ns(span), Ordering::Release);
        let loops = self.shared.loops.lock();
        for wake in loops.unwrap_or_else(PoisonError::into_inner).iter() {
            wake();
        }
    }

    /// The time since the clock was made.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.now_ns())
    }

    pub(crate) fn is_auto(&self) -> bool {
        self.shared.auto
    }

    pub(crate) fn jump_to(&self, ns: u64) {
        self.shared.now.fetch_max(ns, Ordering::Release);
    }

    pub(crate) fn on_advance(&self, wake: WakeLoop) {
        let loops = self.shared.loops.lock();
        loops.unwrap_or_else(PoisonError::into_inner).push(wake);
    }

    fn now_ns(&self) -> u64 {
        self.shared.now.load(Ordering::Acquire)
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualClock")
            .field("elapsed", &self.elapsed())
            .field("auto", &self.shared.auto)
            .finish_non_exhaustive()
    }
}

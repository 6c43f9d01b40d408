//! The timer of one waiting task, armed on one loop's wheel.
//!
//! It stays on that wheel wherever its task goes (MC-06). Dropping it disarms it.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::driver::wheel::TimerKey;
use crate::driver::{Driver, TimerTarget};

/// An armed timer, or one that has fired.
#[derive(Debug)]
pub(crate) struct TimerEntry {
    driver: Arc<Driver>,
    /// `None` once it was seen to have fired.
    key: Option<TimerKey>,
}

impl TimerEntry {
    /// Arms a timer for `deadline`, in nanoseconds of the driver's clock, from any thread; it wakes
    /// `waker` once.
    pub(crate) fn new(driver: &Arc<Driver>, deadline: u64, waker: Waker) -> Self {
        TimerEntry {
            driver: Arc::clone(driver),
            key: Some(driver.arm_timer(deadline, TimerTarget::Task(waker))),
        }
    }

    /// As [`new`](Self::new), on the thread of the driver's loop.
    pub(crate) fn at_home(driver: &Arc<Driver>, deadline: u64, waker: Waker) -> Self {
        TimerEntry {
            driver: Arc::clone(driver),
            key: Some(driver.arm_timer_at_home(deadline, TimerTarget::Task(waker))),
        }
    }

    /// Ready once it has fired; until then the latest caller's waker waits.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.key {
            Some(key) if self.driver.update_timer(key, cx.waker()) => Poll::Pending,
            _ => {
                self.key = None;
                Poll::Ready(())
            }
        }
    }
}

impl Drop for TimerEntry {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            // None: it has fired, and its waker was used up.
            drop(self.driver.cancel_timer(key));
        }
    }
}

//! Scheduled callbacks that can be cancelled: asyncio's `Handle` and `TimerHandle`.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::driver::LocalTimerKey;
use crate::scheduler::{Callback, SharedCallback, Worker};

/// A callback scheduled by [`call_soon`](crate::LocalLoop::call_soon).
///
/// Dropping it does not cancel the callback.
pub struct CallHandle {
    callback: Rc<dyn Callback>,
}

impl CallHandle {
    pub(crate) fn new(callback: Rc<dyn Callback>) -> Self {
        CallHandle { callback }
    }

    /// Keeps the callback from running and drops what it captured, at once. False if it has run or
    /// was cancelled before; then nothing happens.
    pub fn cancel(&self) -> bool {
        self.callback.cancel()
    }

    /// True if it was cancelled, by hand or by the end of its loop: it has not run and never will.
    #[doc(alias = "is_cancelled")]
    pub fn cancelled(&self) -> bool {
        self.callback.is_cancelled()
    }
}

impl fmt::Debug for CallHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallHandle").finish_non_exhaustive()
    }
}

/// A callback sent by [`call_soon_threadsafe`](crate::LoopHandle::call_soon_threadsafe).
///
/// Dropping it does not cancel the callback.
pub struct ThreadsafeCallHandle {
    callback: Arc<dyn SharedCallback>,
}

impl ThreadsafeCallHandle {
    pub(crate) fn new(callback: Arc<dyn SharedCallback>) -> Self {
        ThreadsafeCallHandle { callback }
    }

    /// Keeps the callback from running and drops what it captured, on the calling thread. False if
    /// it has begun to run or was cancelled before.
    ///
    /// The answer is exact: of a callback for which this returned true no part ever runs. It does not wait
    /// for one that runs just now, for that would let one loop hold up another.
    pub fn cancel(&self) -> bool {
        self.callback.cancel()
    }

    /// True if it was cancelled, by hand or by the end of its loop: it has not run and never will.
    #[doc(alias = "is_cancelled")]
    pub fn cancelled(&self) -> bool {
        self.callback.is_cancelled()
    }
}

impl fmt::Debug for ThreadsafeCallHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadsafeCallHandle")
            .finish_non_exhaustive()
    }
}

/// A callback scheduled by [`call_later`](crate::LocalLoop::call_later) or
/// [`call_at`](crate::LocalLoop::call_at).
///
/// Dropping it does not cancel the callback.
pub struct TimerHandle {
    callback: Rc<dyn Callback>,
    worker: Rc<Worker>,
    timer: Option<LocalTimerKey>,
    deadline: u64,
}

impl TimerHandle {
    pub(crate) fn new(worker: &Rc<Worker>, callback: Rc<dyn Callback>, deadline: u64) -> Self {
        TimerHandle {
            timer: worker.arm_callback(deadline, &callback),
            callback,
            worker: Rc::clone(worker),
            deadline,
        }
    }

    /// The deadline; still answers after it has passed.
    pub fn when(&self) -> Instant {
        self.worker.driver().clock().instant_at(self.deadline)
    }

    /// Keeps the callback from running, drops what it captured and frees its timer, at once. False
    /// if it has run or was cancelled before.
    pub fn cancel(&self) -> bool {
        if let Some(timer) = self.timer {
            self.worker.disarm_callback(timer);
        }
        self.callback.cancel()
    }

    /// True if it was cancelled, by hand or by the end of its loop: it has not run and never will.
    #[doc(alias = "is_cancelled")]
    pub fn cancelled(&self) -> bool {
        self.callback.is_cancelled()
    }
}

impl fmt::Debug for TimerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerHandle")
            .field("when", &self.when())
            .finish_non_exhaustive()
    }
}

//! Debug mode as users set it: what a loop looks at more closely, at a price.
//!
//! On from the start with `GARLAND_DEBUG=1` or [`Builder::debug`](crate::Builder::debug). What it does is in
//! `scheduler/debug.rs`. Misuse that asyncio looks for at run time, a call from a wrong thread, does
//! not compile here.

use std::time::Duration;

use crate::runtime::local::LocalLoop;

/// Debug mode.
///
/// ```
/// use std::time::Duration;
///
/// let runtime = garland::Builder::new().loops(1).debug(true).build()?;
/// let local = runtime.local();
/// assert_eq!(local.slow_callback_duration(), Duration::from_millis(100));
///
/// local.set_debug(false);
/// assert!(!local.is_debug());
/// # Ok::<(), garland::BuildError>(())
/// ```
impl LocalLoop {
    /// Turns debug mode of this loop on or off, also while it runs.
    ///
    /// In debug mode the log (crate `tracing`, level `WARN`) names callbacks and steps of tasks that take
    /// [long](LocalLoop::set_slow_callback_duration), sockets of callbacks that are still open when the loop
    /// closes, and a runtime that is dropped instead of [shut down](crate::Runtime::shutdown).
    pub fn set_debug(&self, on: bool) {
        self.worker().set_debug(on);
    }

    /// Whether this loop is in debug mode.
    #[doc(alias = "get_debug")]
    pub fn is_debug(&self) -> bool {
        self.worker().is_debug()
    }

    /// From which duration on debug mode names a callback, or a step of a task. Default: 100 ms. A shorter one than
    /// [`Builder::stuck_after`](crate::Builder::stuck_after) also takes the place of that.
    pub fn set_slow_callback_duration(&self, duration: Duration) {
        self.worker().set_slow_callback_duration(duration);
    }

    /// What [`set_slow_callback_duration`](LocalLoop::set_slow_callback_duration) has set.
    pub fn slow_callback_duration(&self) -> Duration {
        self.worker().slow_callback_duration()
    }
}

//! A runtime inside a foreign loop: a graphical toolkit, a game, another runtime (LOOP-16).
//!
//! The foreign loop waits for one descriptor and then has loop 0 make one turn; how the loop rests in
//! between is in `scheduler/host.rs`.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::driver::alarm::NEVER;
use crate::error::LoopError;
use crate::runtime::lent::Runtime;

/// Turning loop 0 by hand, from a foreign loop.
///
/// The contract: after the first `run_once` the runtime's descriptor is readable whenever loop 0 has
/// something to do: an event, a due timer, a call from another thread or from this one. The host
/// waits for it along with its own descriptors, level-triggered and without reading from it, and then calls
/// `run_once(Some(Duration::ZERO))`. If more is left to do the descriptor is readable again at once.
///
/// ```
/// use std::ops::ControlFlow;
/// use std::time::Duration;
/// use rustix::event::{PollFd, PollFlags, poll};
///
/// let runtime = garland::Builder::new().loops(1).build()?;
/// let local = runtime.local();
/// let stopper = local.clone();
/// local.call_later(Duration::from_millis(1), move || stopper.stop());
///
/// // The foreign loop.
/// while runtime.run_once(Some(Duration::ZERO))? == ControlFlow::Continue(()) {
///     let mut fds = [PollFd::new(&runtime, PollFlags::IN)];
///     poll(&mut fds, None)?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl Runtime {
    /// Makes one turn of loop 0: takes in what is ready, waits for it for at most `timeout` if nothing is
    /// (`None`: without a limit), and runs it. `Break` if `stop` was called; the next turn is one as any
    /// other.
    ///
    /// The thread is not pinned. Between two turns loop 0 takes no part in the work of the other loops.
    ///
    /// # Errors
    /// [`LoopError::Running`] and [`LoopError::OtherLoopRunning`] inside a loop.
    pub fn run_once(&self, timeout: Option<Duration>) -> Result<ControlFlow<()>, LoopError> {
        let worker = self.local().worker();
        let limit = timeout.map_or(NEVER, |timeout| worker.driver().clock().ns_after(timeout));
        worker.run_once(limit)
    }

    /// When the next timer of loop 0 comes due, for hosts that cannot wait for a descriptor. An upper
    /// bound: another thread may arm an earlier one at any time.
    pub fn next_deadline(&self) -> Option<Instant> {
        let driver = self.local().worker().driver();
        let deadline = driver.next_deadline()?;
        Some(driver.clock().instant_at(deadline))
    }
}

/// What a host waits for: readable when [`run_once`](Runtime::run_once) has something to do. It must not be
/// changed, and nothing can be read from it.
impl AsFd for Runtime {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.local().worker().driver().as_fd()
    }
}

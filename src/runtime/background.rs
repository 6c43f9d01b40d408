//! A runtime whose loops all have threads of their own.

use std::sync::Arc;
use std::time::Duration;

use crate::runtime::handle::LoopHandle;
use crate::runtime::shutdown::{Shutdown, ShutdownReport};
use crate::runtime::stats::RuntimeStats;
use crate::scheduler::Home;

/// A runtime that runs by itself, for programs that cannot lend it a thread.
///
/// Dropping it shuts it down, and waits at most five seconds for loops that do not stop.
///
/// ```
/// let runtime = garland::Builder::new().loops(1).start()?;
/// let (sender, receiver) = std::sync::mpsc::channel();
/// runtime.handle().spawn(async move { sender.send(6 * 7) });
/// assert_eq!(receiver.recv()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct BackgroundRuntime {
    handle: LoopHandle,
    shutdown: Shutdown,
    pinned: Vec<Option<usize>>,
}

impl BackgroundRuntime {
    pub(crate) fn new(home: Arc<Home>, shutdown: Shutdown, pinned: Vec<Option<usize>>) -> Self {
        BackgroundRuntime {
            handle: LoopHandle::new(home),
            shutdown,
            pinned,
        }
    }

    /// Loop 0; the others by [`LoopHandle::on`].
    pub fn handle(&self) -> &LoopHandle {
        &self.handle
    }

    /// What the loops have done so far.
    pub fn stats(&self) -> RuntimeStats {
        self.handle.stats()
    }

    /// The core each loop is pinned to, if it is.
    pub fn pinning(&self) -> &[Option<usize>] {
        &self.pinned
    }

    /// Ends every loop: tasks are cancelled and dropped on their loops, sockets are closed. Waits at
    /// most `limit` for loops that do not stop, and names them in the report. Jobs of
    /// [`run_in_executor`](crate::run_in_executor) are not waited for; see [`Runtime::run`](crate::Runtime::run).
    pub fn shutdown(mut self, limit: Duration) -> ShutdownReport {
        self.shutdown.run(limit, || {})
    }
}

/// The fields end the loops.
impl Drop for BackgroundRuntime {
    fn drop(&mut self) {
        self.shutdown.warn_unless_over(self.handle.is_debug());
    }
}

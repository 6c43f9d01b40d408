//! L3: what a user holds in the hand.
//!
//! ```text
//!   Builder ──build()──> Runtime            lends its thread to loop 0: block_on, run_forever
//!           ──start()──> BackgroundRuntime  every loop has a thread of its own
//!                           │
//!                           └─ handle() ──> LoopHandle (any thread) ... LocalLoop (on the loop)
//!   either ──shutdown(limit)──> ShutdownReport        dropping it does the same, with five seconds
//! ```

mod affinity;
mod background;
mod builder;
mod callback;
mod debug;
mod errors;
mod handle;
mod hosted;
mod lent;
mod local;
mod repeating;
mod long_section;
mod shutdown;
mod stats;
mod task_builder;

use std::future::Future;
use std::panic::Location;

pub use crate::runtime::background::BackgroundRuntime;
pub use crate::runtime::builder::Builder;
pub use crate::runtime::callback::{CallHandle, ThreadsafeCallHandle, TimerHandle};
pub use crate::runtime::errors::ExceptionHandler;
pub use crate::runtime::handle::LoopHandle;
pub use crate::runtime::lent::Runtime;
pub use crate::runtime::local::LocalLoop;
pub use crate::runtime::long_section::{LongSection, long_section};
pub use crate::runtime::shutdown::ShutdownReport;
pub use crate::runtime::stats::{LoopStats, RuntimeStats};
pub use crate::runtime::task_builder::TaskBuilder;
pub use crate::scheduler::{ErrorContext, LoopId, StuckReport};

use crate::scheduler;
use crate::task::info::TaskInfo;

// What the layers above take from those below a runtime: handles of a loop's parts, by name.
pub(crate) use crate::driver::{Interest, IoKey, Ready, WatchWrites};
pub(crate) use crate::runtime::affinity::spread;
pub(crate) use crate::runtime::repeating::Repeating;
pub use crate::scheduler::offload::Executor;
pub(crate) use crate::scheduler::{
    IoHandler, Offload, Permit, Received, receives_first, with_lent_buffer,
};
pub(crate) use crate::task::drop_payload;
pub(crate) use crate::task::join::{
    CancelHandle, CancelOnDrop, JoinError, JoinHandle, Panic, panic_text,
};
pub(crate) use crate::task::yield_now::yield_now;

/// Starts a movable task on the runtime whose loop runs on this thread.
///
/// # Panics
/// Outside a loop: use [`LoopHandle::spawn`] there.
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let origin = Location::caller().into();
    let spawned =
        scheduler::with_current(|worker| worker.map(|worker| worker.home().spawn(future, origin)));
    spawned.expect("spawn() is called inside a loop; elsewhere use LoopHandle::spawn")
}

/// The task whose step runs on this thread.
///
/// `None` in a callback, in a protocol, and outside a loop; also in the future given to
/// [`block_on`](Runtime::block_on) or [`run`](Runtime::run), which is no task: it is lent, not spawned. A destructor that
/// runs after its task has ended, as that of a result which nobody takes, belongs to no task either.
pub fn current_task() -> Option<TaskInfo> {
    scheduler::with_current(|worker| worker.and_then(|worker| worker.current_task()))
}

/// Starts a loop-bound task on the loop that runs on this thread.
///
/// # Panics
/// Outside a loop: use [`LoopHandle::spawn_on`] there.
#[track_caller]
pub fn spawn_local<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let local = LocalLoop::current();
    let local = local.expect("spawn_local() is called inside a loop; elsewhere use spawn_on");
    local.spawn_local(future)
}

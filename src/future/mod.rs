//! L4b: futures of one loop, and waiting for several at once.
//!
//! ```text
//!   create_future() ──> Promise     set_result, cancel        the end is set on one side
//!                  └──> LoopFuture  awaited, called back      and seen on the other
//!
//!   JoinHandles ──> gather        all results, or the first error    dropped: cancels them
//!               ├─> wait          who has ended and who has not      dropped: leaves them alone
//!               ├─> as_completed  one by one, as they end            dropped: leaves them alone
//!               └─> wait_for      one result, or TimedOut            dropped: cancels it
//!   TaskGroup::scope ──> children that do not outlive it
//!   TimeoutScope     ──> a deadline that may be moved
//! ```
//!
//! Whoever owns a handle decides what dropping it means; each function here says so in its first
//! lines. The handles may be of movable and of loop-bound tasks, of any loop.

mod as_completed;
mod deadline;
mod gather;
mod group;
mod promise;
mod wait;

pub use crate::future::as_completed::{AsCompleted, as_completed};
pub use crate::future::deadline::{TimeoutScope, timeout_at, wait_for};
pub use crate::future::gather::{gather, gather_all, try_gather};
pub use crate::future::group::{GroupTask, TaskError, TaskGroup, TaskGroupError};
pub use crate::future::promise::{DoneCallback, LoopFuture, Promise};
pub use crate::future::wait::{When, wait};

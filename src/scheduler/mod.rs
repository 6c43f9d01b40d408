//! L2: who runs what, where, and when a loop may sleep. The page to read before any other file here.
//!
//! # The queues of a loop
//!
//! ```text
//!   selector, wheel ──> ready queue (FIFO, this loop only: callbacks, sockets, loop-bound tasks)
//!   other threads ────> inbox ─────────────┘
//!   selector, wheel, spawn ──> deque (FIFO, movable tasks) <──steal── other loops
//!   spawn from outside ──────> injector (one for all loops) ──> deque
//! ```
//!
//! # The states of a loop
//!
//! ```text
//!              nothing to do                  nothing found
//!   running ──────────────────> searching ─────────────────> parked (its idle bit is set)
//!      ^  ^  found: leave_search    │                          │  │
//!      │  └─────────────────────────┘     own event: leave_idle│  │claimed by a poster
//!      └───────────────────────────────────────────────────────┘  │(bit cleared, counted
//!                                   searching <───────────────────┘ as searching)
//! ```
//!
//! *Stuck* is what the others see of a running loop whose [`pulse`] stands still; one that lasts is
//! reported: [`stuck`].
//!
//! # The two protocols
//!
//! *Post work*: push; fence F1; if a loop is parked and nobody searches, claim one and unpark it.
//! *Go to sleep*: set the idle bit (and stop searching, in the same step); fence F2; look at every
//! queue again; only then wait in the selector. Steps, proof and models: [`idle`].
//!
//! Who notifies: a batch from the selector once, and a post from inside a callback or a task, if the loop cannot begin
//! all that waits at once and is not soon done with it ([`backlog`]); a turn that time has ended, if what is left is much
//! at its pace; a task that woke itself, never. Code that waits for what it posted is found by the watcher.
//!
//! Loop 0 may also be turned by a foreign loop, one turn at a time. In between it *rests*: it is not in
//! the idle word, but has a word of its own under the same fences: [`host`].
//!
//! # Failures
//!
//! A panic ends what panicked, never the loop. Each one takes the same way, to the exception handler of
//! the loop it happened on: [`failure`]. What a loop does more in debug mode: [`debug`].
//!
//! # The invariants
//!
//! - **I1 No lost wake-up.** If a movable task is queued and a loop is parked, then some loop is
//!   searching, or an unpark is under way, or the queue's loop runs it before it parks, and is watched until then. Kept by
//!   [`idle`], [`backlog`] and [`Worker::park`](worker::Worker).
//! - **I2 Single runner.** A task is polled by one thread at a time; a wake during a poll leads to
//!   exactly one more. Kept by async-task.
//! - **I3 No lost readiness.** Kept by [`readiness`](crate::driver::readiness).
//! - **I4 No stale delivery.** Kept by the generations in [`slots`](crate::driver::slots) and in the
//!   table of the home loop.
//! - **I5 Bounded starvation.** A turn runs what was ready when it began, then at most
//!   [`TurnBudget`](crate::TurnBudget) of movable tasks; then the selector is polled again, after the budget's number
//!   of tasks at the latest ([`backlog`]). The sockets and timers of a loop that is stuck are served by a parked
//!   loop, or a busy one, within the bounds in [`rescue`].
//! - **I6 Watched.** If a loop runs user code and another is parked, some parked loop has a limit to its
//!   sleep and will look at the pulses. Kept by [`watch`].
//! - **I7 Bounded critical sections.** No user code and no foreign waker under a lock of the driver.
//! - **I8 Home affinity.** Loop-bound work runs on its home only, and what it has registered stays there. The socket of
//!   a movable task moves for one reason: its loop was stuck while it had news. Kept by
//!   [`registration`](crate::driver::registration).
//! - **I9 The owner never waits for a thief** but before it parks: its polls try the driver's lock.
//! - **I10 Ledger.** Tasks created = finished + cancelled + panicked + live; after shutdown live = 0
//!   and no queue holds anything. Kept by [`Members`](crate::task::members::Members), the closing
//!   [`inbox`] and the [`gate`] of the injector.
//!
//! # The fences
//!
//! All are store-buffering shapes: each side writes one word and then reads the other's, which
//! acquire and release cannot order. F1/F2 here: push, F1, read idle word, against set idle bit, F2,
//! read queues. F3/F5 in [`alarm`](crate::driver::alarm): a loop that parks against a timer armed from
//! outside. F4 in [`watch`]: a loop that falls asleep for good against one that begins to run. The gate of the
//! injector: push, fence, read "closed", against close, fence, drain.

pub(crate) mod worker;
mod backlog;
mod intake;
mod cohort;
mod news;
mod closing;
pub(crate) mod failure;
pub(crate) mod debug;
pub(crate) mod host;
mod read_buffer;
pub(crate) mod ready;
pub(crate) mod deque;
pub(crate) mod inbox;
pub(crate) mod idle;
pub(crate) mod gate;
pub(crate) mod pulse;
pub(crate) mod watch;
mod rescue;
pub(crate) mod stuck;
pub(crate) mod shared;
pub(crate) mod offload;
pub(crate) mod counters;
pub(crate) mod context;
pub(crate) mod attachments;

pub(crate) use crate::scheduler::context::{
    current, receives_first, with_current, with_lent_buffer,
};
pub use crate::scheduler::failure::ErrorContext;
pub(crate) use crate::scheduler::failure::OnError;
pub(crate) use crate::scheduler::offload::{Offload, Permit};
pub(crate) use crate::scheduler::read_buffer::LentBuffer;
pub(crate) use crate::scheduler::ready::{
    Callback, CallbackCell, Handle, IoHandler, Message, Received, SharedCallback,
    SharedCallbackCell,
};
pub use crate::scheduler::shared::LoopId;
pub(crate) use crate::scheduler::shared::{Home, Remote, Shared};
pub(crate) use crate::scheduler::stuck::OnStuck;
pub use crate::scheduler::stuck::StuckReport;
pub(crate) use crate::scheduler::worker::Worker;

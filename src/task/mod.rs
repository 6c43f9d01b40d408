//! L1: one future, from spawn to join.
//!
//! A task is an `async-task` allocation: the future, its state, its output and its [`TaskKey`] in one
//! piece. This module adds what a server needs around it: panics are caught and become the task's
//! result, cancellation drops the future on a loop in a later step, and every task is a member of a
//! [`Members`] list, so that shutting down reaches those that nothing wakes any more.
//!
//! ```text
//!   spawn ──> queued ──run──> polled ──Pending──> waiting ──wake──> queued ...
//!                               │
//!                               ├─ Ready ────────> finished    ┐
//!                               ├─ panic ────────> panicked    ├─> JoinHandle resolves
//!              cancel(), shutdown: a loop drops the future ──> cancelled ┘
//! ```
//!
//! However it ends, its [`Body`] gives up its membership exactly once, and before the handle resolves:
//! who has joined every task finds the ledger (I10) at zero. Created = finished + cancelled +
//! panicked + live. The list of members also decides between a last step and a cancel that crosses it.
//!
//! That a task is polled by one thread at a time, and once more for a wake-up during a poll (I2), is
//! async-task's promise.
//!
//! It knows no queue and no loop: who schedules is a closure, who counts is a [`Membership`].

pub(crate) mod info;
pub(crate) mod join;
pub(crate) mod members;
pub(crate) mod yield_now;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_task::{Builder, ScheduleInfo, WithInfo};
use pin_project_lite::pin_project;

use crate::task::info::TaskKey;
use crate::task::join::{Failed, JoinHandle, Outcome, Panic};
use crate::task::members::{CancelsSeen, Members};

pub(crate) use crate::task::join::TaskId;

/// A task that waits in a queue for its next step. Dropping it ends the task: the future is dropped
/// there and then, and the handle yields `Cancelled`.
pub(crate) type Runnable = async_task::Runnable<TaskKey>;

/// How a task ended, for the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Finished,
    Cancelled,
    Panicked,
}

/// A task's place in a list; given back when it ends.
pub(crate) trait Membership {
    fn members(&self) -> &Members;
    fn task(&self) -> TaskKey;
    /// Who will hear of a panic of the step that runs now, if nobody takes the task's result.
    fn witness(&self) -> Witness;
}

/// What the handle of a task asks of the loop that lists it.
pub(crate) trait Registry: Send + Sync {
    fn members(&self) -> &Members;
    /// Whether this thread is in a step of `task`.
    fn is_current(&self, task: TaskKey) -> bool;
}

/// Told of a panic that nobody else will see. Must not panic: destructors call it.
pub(crate) type Witness = Box<dyn FnOnce(Panic) + Send>;

/// What a task is known by, and where.
pub(crate) struct Listed {
    pub(crate) key: TaskKey,
    pub(crate) cancels: CancelsSeen,
    pub(crate) registry: Arc<dyn Registry>,
}

/// Makes a task whose steps may run on any loop.
pub(crate) fn movable<F, G, S>(
    future: F,
    membership: G,
    listed: Listed,
    schedule: S,
) -> (Runnable, JoinHandle<F::Output>)
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
    G: Membership + Send + 'static,
    S: Fn(Runnable, ScheduleInfo) + Send + Sync + 'static,
{
    let body = Body::new(future, membership, listed.cancels);
    let (runnable, task) = Builder::new()
        .metadata(listed.key)
        .spawn(move |_| body, WithInfo(schedule));
    let handle = JoinHandle::new(task, listed);
    (runnable, handle)
}

/// Makes a task that only the present thread may run and drop.
pub(crate) fn bound<F, G, S>(
    future: F,
    membership: G,
    listed: Listed,
    schedule: S,
) -> (Runnable, JoinHandle<F::Output>)
where
    F: Future + 'static,
    F::Output: 'static,
    G: Membership + 'static,
    S: Fn(Runnable, ScheduleInfo) + Send + Sync + 'static,
{
    let body = Body::new(future, membership, listed.cancels);
    let (runnable, task) = Builder::new()
        .metadata(listed.key)
        .spawn_local(move |_| body, WithInfo(schedule));
    let handle = JoinHandle::new(task, listed);
    (runnable, handle)
}

pin_project! {
    /// A future with its place in the list of members. The future goes first, wherever it ends.
    // In this order: what each step looks at stands beside async-task's own, not behind the buffers of the future.
    #[repr(C)]
    struct Body<F, G: Membership> {
        membership: Option<G>,
        cancels: CancelsSeen,
        #[pin]
        future: Option<F>,
    }

    impl<F, G: Membership> PinnedDrop for Body<F, G> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let Some(membership) = this.membership.take() else {
                return;
            };
            // Dropped while it waited: cancelled. A panic of its destructor ends here, or the
            // handle would never hear of the end.
            let dropped = catch_unwind(AssertUnwindSafe(|| this.future.set(None)));
            match dropped {
                Ok(()) => membership.members().leave(membership.task(), Ended::Cancelled),
                Err(payload) => {
                    let witness = membership.witness();
                    membership.members().leave(membership.task(), Ended::Panicked);
                    witness(payload);
                }
            }
        }
    }
}

impl<F, G: Membership> Body<F, G> {
    fn new(future: F, membership: G, cancels: CancelsSeen) -> Self {
        Body {
            membership: Some(membership),
            cancels,
            future: Some(future),
        }
    }
}

impl<F: Future, G: Membership> Future for Body<F, G> {
    type Output = Outcome<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let membership = this.membership.as_ref();
        let membership = membership.expect("a finished task is not polled");
        let (members, task) = (membership.members(), membership.task());
        let step = catch_unwind(AssertUnwindSafe(|| {
            if members.is_cancelled(task, this.cancels) {
                this.future.set(None);
                return Poll::Ready(Err(Failed::Cancelled));
            }
            let future = this.future.as_mut().as_pin_mut();
            let future = future.expect("a finished task is not polled");
            let output = std::task::ready!(future.poll(cx));
            // Dropped here and not by async-task, so that a panic of its destructor is the task's.
            this.future.set(None);
            if members.finish(task) {
                Poll::Ready(Ok(output))
            } else {
                drop(output);
                Poll::Ready(Err(Failed::Cancelled))
            }
        }));
        let result = match step {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(result)) => result,
            Err(payload) => {
                // The panic is the result, even if a cancel came first: it is not kept from whoever asks.
                // What is left of the future goes here: async-task aborts where a destructor panics.
                let dropped = catch_unwind(AssertUnwindSafe(|| this.future.set(None)));
                if let Err(second) = dropped {
                    membership.witness()(second);
                }
                Err(Failed::Panicked(payload, membership.witness()))
            }
        };
        match &result {
            // It has left.
            Ok(_) => {}
            Err(Failed::Cancelled) => members.leave(task, Ended::Cancelled),
            Err(Failed::Panicked(..)) => members.leave(task, Ended::Panicked),
        }
        drop(this.membership.take());
        Poll::Ready(Outcome::new(result))
    }
}

/// Drops what a panic left behind; a payload whose own destructor panics is forgotten, for there is
/// nobody left to tell.
pub(crate) fn drop_payload(payload: Panic) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
}

//! L1: one future, from spawn to join.
//!
//! A task is an `async-task` allocation: the future, its state, its output and where it is [`Listed`] in one
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
//! It knows no queue and no loop: who schedules is a function, who counts is a [`Registry`].

pub(crate) mod info;
pub(crate) mod join;
pub(crate) mod members;
pub(crate) mod yield_now;

use std::any::Any;
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
pub(crate) type Runnable = async_task::Runnable<Listed>;

/// How a task ended, for the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Finished,
    Cancelled,
    Panicked,
}

/// Who lists tasks, and runs them or has them run.
pub(crate) trait Registry: Any + Send + Sync {
    fn members(&self) -> &Members;
    /// Whether this thread is in a step of `task`.
    fn is_current(&self, task: TaskKey) -> bool;
    /// Who will hear of a panic of the step of `task` that runs now, if nobody takes the task's result.
    fn witness(self: &Arc<Self>, task: TaskKey) -> Witness
    where
        Self: Sized;
}

/// Told of a panic that nobody else will see. Must not panic: destructors call it.
pub(crate) type Witness = Box<dyn FnOnce(Panic) + Send>;

/// What a task is known by, and where.
#[derive(Clone)]
pub(crate) struct Listed {
    pub(crate) key: TaskKey,
    pub(crate) registry: Arc<dyn Registry>,
}

/// A place in a list that is given back when its task ends.
pub(crate) struct Membership<R> {
    pub(crate) registry: Arc<R>,
    pub(crate) key: TaskKey,
    pub(crate) cancels: CancelsSeen,
}

impl<R: Registry> Membership<R> {
    fn listed(&self) -> Listed {
        let registry: Arc<dyn Registry> = Arc::<R>::clone(&self.registry);
        Listed {
            key: self.key,
            registry,
        }
    }

    fn members(&self) -> &Members {
        self.registry.members()
    }

    fn witness(&self) -> Witness {
        self.registry.witness(self.key)
    }
}

/// Makes a task whose steps may run on any loop.
///
/// `schedule` captures nothing: async-task would keep the task alive while it runs, at two locked instructions a wake-up.
pub(crate) fn movable<F, R, S>(
    future: F,
    membership: Membership<R>,
    schedule: S,
) -> (Runnable, JoinHandle<F::Output>)
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
    R: Registry,
    S: Fn(Runnable, ScheduleInfo) + Send + Sync + 'static,
{
    const { assert!(size_of::<S>() == 0) };
    let listed = membership.listed();
    let body = Body::new(future, membership);
    let (runnable, task) = Builder::new()
        .metadata(listed.clone())
        .spawn(move |_| body, WithInfo(schedule));
    (runnable, JoinHandle::new(task, listed))
}

/// Makes a task that only the present thread may run and drop; `schedule` as for [`movable`].
pub(crate) fn bound<F, R, S>(
    future: F,
    membership: Membership<R>,
    schedule: S,
) -> (Runnable, JoinHandle<F::Output>)
where
    F: Future + 'static,
    F::Output: 'static,
    R: Registry,
    S: Fn(Runnable, ScheduleInfo) + Send + Sync + 'static,
{
    const { assert!(size_of::<S>() == 0) };
    let listed = membership.listed();
    let body = Body::new(future, membership);
    let (runnable, task) = Builder::new()
        .metadata(listed.clone())
        .spawn_local(move |_| body, WithInfo(schedule));
    (runnable, JoinHandle::new(task, listed))
}

pin_project! {
    /// A future with its place in the list of members. The future goes first, wherever it ends.
    // In this order: what each step looks at stands beside async-task's own, not behind the buffers of the future.
    #[repr(C)]
    struct Body<F, R: Registry> {
        membership: Option<Membership<R>>,
        #[pin]
        future: Option<F>,
    }

    impl<F, R: Registry> PinnedDrop for Body<F, R> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let Some(membership) = this.membership.take() else {
                return;
            };
            // Dropped while it waited: cancelled. A panic of its destructor ends here, or the
            // handle would never hear of the end.
            let dropped = catch_unwind(AssertUnwindSafe(|| this.future.set(None)));
            match dropped {
                Ok(()) => membership.members().leave(membership.key, Ended::Cancelled),
                Err(payload) => {
                    let witness = membership.witness();
                    membership.members().leave(membership.key, Ended::Panicked);
                    witness(payload);
                }
            }
        }
    }
}

impl<F, R: Registry> Body<F, R> {
    fn new(future: F, membership: Membership<R>) -> Self {
        Body {
            membership: Some(membership),
            future: Some(future),
        }
    }
}

impl<F: Future, R: Registry> Future for Body<F, R> {
    type Output = Outcome<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let membership = this.membership.as_mut();
        let membership = membership.expect("a finished task is not polled");
        let (members, task) = (membership.registry.members(), membership.key);
        let step = catch_unwind(AssertUnwindSafe(|| {
            if members.is_cancelled(task, &mut membership.cancels) {
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

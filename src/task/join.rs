//! The handle of a task: wait for it, cancel it, or let it go.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_task::FallibleTask;

use crate::task::word::{CancelRequest, TaskWord};
use crate::task::{TaskMeta, Witness, drop_payload};

/// What a panic carries.
pub(crate) type Panic = Box<dyn Any + Send>;

/// Names a task, unique within its runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(pub(crate) u64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task-{}", self.0)
    }
}

/// Why a task has no result.
pub enum JoinError {
    /// It was cancelled, by [`JoinHandle::cancel`] or because its runtime was shut down.
    Cancelled,
    /// It panicked; this is what it panicked with.
    Panicked(Box<dyn Any + Send>),
}

impl JoinError {
    /// True if the task was cancelled.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, JoinError::Cancelled)
    }

    /// The message of a panic, if it had one.
    pub fn panic_message(&self) -> Option<&str> {
        match self {
            JoinError::Cancelled => None,
            JoinError::Panicked(payload) => panic_text(payload.as_ref()),
        }
    }
}

/// The text of a panic: `panic!` makes a `&str` or a `String`.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> Option<&str> {
    let literal = payload.downcast_ref::<&'static str>().copied();
    literal.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::Cancelled => f.write_str("Cancelled"),
            JoinError::Panicked(_) => write!(f, "Panicked({:?})", self.panic_message()),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.panic_message()) {
            (JoinError::Cancelled, _) => f.write_str("the task was cancelled"),
            (JoinError::Panicked(_), Some(message)) => write!(f, "the task panicked: {message}"),
            (JoinError::Panicked(_), None) => f.write_str("the task panicked"),
        }
    }
}

impl std::error::Error for JoinError {}

/// The result of a task on its way to the handle. If nobody takes it, because the task is detached, it
/// is dropped inside async-task, which ends the process where a destructor panics; so that panic ends
/// here, and the panic of the task goes to its witness (ERR-06).
pub(crate) struct Outcome<T>(Option<Result<T, Failed>>);

/// Why a task has no result, as long as nobody has asked.
pub(crate) enum Failed {
    Cancelled,
    Panicked(Panic, Witness),
}

impl<T> Outcome<T> {
    pub(crate) fn new(result: Result<T, Failed>) -> Self {
        Outcome(Some(result))
    }

    fn into_result(mut self) -> Result<T, JoinError> {
        let result = self.0.take().expect("taken by nobody else");
        result.map_err(|failed| match failed {
            Failed::Cancelled => JoinError::Cancelled,
            Failed::Panicked(payload, _unneeded) => JoinError::Panicked(payload),
        })
    }
}

impl<T> Drop for Outcome<T> {
    fn drop(&mut self) {
        let output = match self.0.take() {
            Some(Ok(output)) => output,
            Some(Err(Failed::Panicked(payload, witness))) => return witness(payload),
            Some(Err(Failed::Cancelled)) | None => return,
        };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(output))) {
            let message = panic_text(payload.as_ref()).unwrap_or("(not a text)");
            tracing::error!(message, "dropping the result of a detached task panicked");
            drop_payload(payload);
        }
    }
}

/// A running task. Await it for its result.
///
/// - Dropping the handle detaches the task: it goes on by itself.
/// - [`cancel`](JoinHandle::cancel) ends it: its future is dropped by a loop, in a later step.
/// - A panic of the task is an error here; nothing else is hurt by it. If nobody takes it, because the
///   handle is dropped, it is told to the exception handler of the loop on which the task panicked.
/// - Cancelling whoever awaits the handle detaches the task. Awaiting loses nothing: `&mut handle`
///   may be awaited again.
///
/// ```
/// # let runtime = garland::Builder::new().loops(1).build()?;
/// runtime.block_on(async {
///     let mut answer = garland::spawn(async { 6 * 7 });
///     assert_eq!((&mut answer).await.expect("did not panic"), 42);
///
///     let forever = garland::spawn(std::future::pending::<()>());
///     assert!(forever.cancel());
///     assert!(forever.await.expect_err("cancelled").is_cancelled());
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct JoinHandle<T> {
    inner: Inner<T>,
}

enum Inner<T> {
    Live(Live<T>),
    /// The runtime was closed when it should have been spawned.
    Refused,
    Taken,
}

struct Live<T> {
    id: TaskId,
    task: FallibleTask<Outcome<T>, TaskMeta>,
    word: Arc<TaskWord>,
    /// Queues the task for the step in which its future is dropped.
    waker: Waker,
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(
        id: TaskId,
        task: async_task::Task<Outcome<T>, TaskMeta>,
        word: Arc<TaskWord>,
        waker: Waker,
    ) -> Self {
        JoinHandle {
            inner: Inner::Live(Live {
                id,
                task: task.fallible(),
                word,
                waker,
            }),
        }
    }

    /// A handle of a task that was never made, because its runtime is closed.
    pub(crate) fn refused() -> Self {
        JoinHandle {
            inner: Inner::Refused,
        }
    }

    /// Asks for the task to be dropped at its present await, by a loop and in a later step, never
    /// inside this call. From any thread.
    ///
    /// Returns true if the task was live: its handle then yields [`JoinError::Cancelled`] once the
    /// future is gone, even if its body should complete in the step that runs just now; only a panic
    /// on the way is not kept back. False: it has ended by itself, and nothing changes.
    pub fn cancel(&self) -> bool {
        let Inner::Live(live) = &self.inner else {
            return false;
        };
        match live.word.request_cancel() {
            CancelRequest::First => {
                live.waker.wake_by_ref();
                true
            }
            CancelRequest::Again => true,
            CancelRequest::TooLate => false,
        }
    }

    /// True if the task has ended, in whatever way.
    pub fn is_finished(&self) -> bool {
        match &self.inner {
            Inner::Live(live) => live.word.is_done(),
            Inner::Refused | Inner::Taken => true,
        }
    }

    /// The task's name; `None` if a closed runtime refused it, or if its result was taken.
    pub fn id(&self) -> Option<TaskId> {
        match &self.inner {
            Inner::Live(live) => Some(live.id),
            Inner::Refused | Inner::Taken => None,
        }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match &mut self.inner {
            Inner::Live(live) => {
                let ended = std::task::ready!(Pin::new(&mut live.task).poll(cx));
                // None: dropped while it waited in a queue, by the end of its runtime.
                ended.map_or(Err(JoinError::Cancelled), Outcome::into_result)
            }
            Inner::Refused => Err(JoinError::Cancelled),
            Inner::Taken => panic!("a JoinHandle was awaited again after it gave its result"),
        };
        self.inner = Inner::Taken;
        Poll::Ready(result)
    }
}

/// Nothing is pinned in a handle: the future lives in the task.
impl<T> Unpin for JoinHandle<T> {}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if let Inner::Live(live) = std::mem::replace(&mut self.inner, Inner::Taken) {
            live.task.detach();
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("id", &self.id())
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

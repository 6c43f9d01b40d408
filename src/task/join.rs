//! The handle of a task: wait for it, cancel it, or let it go.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use async_task::FallibleTask;

use crate::task::members::CancelRequest;
use crate::task::{Listed, Witness, drop_payload};

/// What a panic carries.
pub(crate) type Panic = Box<dyn Any + Send>;

/// The id of a task, unique within its runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(pub(crate) u64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Task-{}", self.0)
    }
}

/// Why a task has no result.
pub enum JoinError {
    /// It was cancelled, by [`JoinHandle::cancel`] or because its runtime was shut down.
    #[doc(alias = "CancelledError")]
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

/// As an error of its own kind ([`io::ErrorKind::Other`]), with the text of this one.
impl From<JoinError> for io::Error {
    fn from(error: JoinError) -> Self {
        io::Error::other(error.to_string())
    }
}

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

    fn has_panicked(&self) -> bool {
        matches!(self.0, Some(Err(Failed::Panicked(..))))
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
/// Awaiting a handle is asyncio's `shield`: what happens to whoever awaits it does not reach the task.
///
/// - Dropping the handle detaches the task: it goes on by itself.
/// - [`cancel`](JoinHandle::cancel) ends it: its future is dropped by a loop, in a later step.
/// - A panic of the task is an error here; nothing else is hurt by it. If nobody takes it, because the
///   handle is dropped, it is told to the exception handler of the loop on which the task panicked.
/// - Cancelling whoever awaits the handle detaches the task. Awaiting loses nothing: `&mut handle`
///   may be awaited again until it has given the result; then it panics.
///   [`cancel_on_drop`](JoinHandle::cancel_on_drop) makes it otherwise.
/// - A task that awaits its own handle panics.
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
#[doc(alias = "shield")]
#[doc(alias = "Task")]
pub struct JoinHandle<T> {
    inner: Inner<T>,
}

enum Inner<T> {
    Live(Live<T>),
    /// It has ended, and the result waits to be taken. No id: a closed runtime refused it.
    Ended(Option<TaskId>, Outcome<T>),
    Taken,
}

struct Live<T> {
    task: FallibleTask<Outcome<T>, Listed>,
    cancel: CancelHandle,
}

const GAVE_ITS_RESULT: &str = "a JoinHandle was awaited again after it gave its result";

impl<T> Live<T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<T>> {
        let Poll::Ready(ended) = Pin::new(&mut self.task).poll(cx) else {
            // It would wait for ever, and its runtime with it.
            let Listed { key, registry } = &self.cancel.0;
            let by_itself =
                registry.is_current(*key) && registry.members().is_woken_by(*key, cx.waker());
            assert!(!by_itself, "{} cannot await itself", self.cancel.id());
            return Poll::Pending;
        };
        // None: dropped while it waited in a queue, by the end of its runtime.
        Poll::Ready(ended.unwrap_or_else(|| Outcome::new(Err(Failed::Cancelled))))
    }
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(task: async_task::Task<Outcome<T>, Listed>, listed: Listed) -> Self {
        JoinHandle {
            inner: Inner::Live(Live {
                task: task.fallible(),
                cancel: CancelHandle(listed),
            }),
        }
    }

    /// A handle of a task that was never made, because its runtime is closed.
    pub(crate) fn refused() -> Self {
        JoinHandle {
            inner: Inner::Ended(None, Outcome::new(Err(Failed::Cancelled))),
        }
    }

    /// Asks for the task to be dropped at its present await, by a loop and in a later step, never
    /// inside this call. From any thread.
    ///
    /// Returns true if the task was live: its handle then yields [`JoinError::Cancelled`] once the
    /// future is gone, even if its body should complete in the step that runs just now; only a panic
    /// on the way is not kept back. False: it has ended, and nothing changes.
    pub fn cancel(&self) -> bool {
        match &self.inner {
            Inner::Live(live) => live.cancel.cancel(),
            Inner::Ended(..) | Inner::Taken => false,
        }
    }

    /// Leave to cancel the task, for those who do not hold its handle. `None` if the handle has seen
    /// the end of the task.
    pub fn cancel_handle(&self) -> Option<CancelHandle> {
        match &self.inner {
            Inner::Live(live) => Some(live.cancel.clone()),
            Inner::Ended(..) | Inner::Taken => None,
        }
    }

    /// Waits for the end and keeps the result: the handle then yields it at once. True: a panic.
    pub(crate) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if let Inner::Live(live) = &mut self.inner {
            let result = std::task::ready!(live.poll(cx));
            self.inner = Inner::Ended(Some(live.cancel.id()), result);
        }
        match &self.inner {
            Inner::Ended(_, result) => Poll::Ready(result.has_panicked()),
            _ => panic!("{GAVE_ITS_RESULT}"),
        }
    }

    /// Ties the task to this handle: dropping what is returned cancels the task.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let clock = garland::ManualClock::auto_advance();
    /// # let runtime = garland::Builder::new().loops(1).clock(clock).build()?;
    /// runtime.block_on(async {
    ///     let held = std::sync::Arc::new(());
    ///     let inside = held.clone();
    ///     let task = garland::spawn(async move {
    ///         let _inside = inside;
    ///         std::future::pending::<()>().await;
    ///     });
    ///     drop(task.cancel_on_drop());
    ///     garland::sleep(Duration::from_millis(1)).await;
    ///     assert_eq!(std::sync::Arc::strong_count(&held), 1);
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel_on_drop(self) -> CancelOnDrop<T> {
        CancelOnDrop(self)
    }

    /// True if the task has ended, in whatever way.
    pub fn is_finished(&self) -> bool {
        match &self.inner {
            Inner::Live(live) => live.cancel.is_finished(),
            Inner::Ended(..) | Inner::Taken => true,
        }
    }

    /// The task's id; `None` if a closed runtime refused it, or if its result was taken.
    pub fn id(&self) -> Option<TaskId> {
        match &self.inner {
            Inner::Live(live) => Some(live.cancel.id()),
            Inner::Ended(id, _) => *id,
            Inner::Taken => None,
        }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Inner::Live(live) = &mut self.inner {
            let result = std::task::ready!(live.poll(cx));
            self.inner = Inner::Taken;
            return Poll::Ready(result.into_result());
        }
        match std::mem::replace(&mut self.inner, Inner::Taken) {
            Inner::Ended(_, result) => Poll::Ready(result.into_result()),
            _ => panic!("{GAVE_ITS_RESULT}"),
        }
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

/// Leave to cancel one task. Clones are leave to cancel the same one; dropping it does nothing.
///
/// It keeps neither the task alive nor its memory.
#[derive(Clone)]
pub struct CancelHandle(Listed);

impl CancelHandle {
    /// As [`JoinHandle::cancel`].
    pub fn cancel(&self) -> bool {
        match self.0.registry.members().request_cancel(self.0.key) {
            // Queued for the step in which its future is dropped.
            CancelRequest::First(waker) => {
                waker.wake();
                true
            }
            CancelRequest::Again => true,
            CancelRequest::TooLate => false,
        }
    }

    /// True if the task has ended, in whatever way.
    pub fn is_finished(&self) -> bool {
        !self.0.registry.members().is_live(self.0.key)
    }

    /// The task it cancels.
    pub fn id(&self) -> TaskId {
        self.0.key.id
    }
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelHandle")
            .field("id", &self.id())
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

/// A [`JoinHandle`] whose task does not outlive it: dropping it cancels the task, as by
/// [`JoinHandle::cancel`]. Await it for the result.
#[derive(Debug)]
#[must_use = "dropping it cancels the task"]
pub struct CancelOnDrop<T>(JoinHandle<T>);

impl<T> CancelOnDrop<T> {
    /// The handle, with the task no longer tied to it.
    pub fn detach(mut self) -> JoinHandle<T> {
        let inner = std::mem::replace(&mut self.0.inner, Inner::Taken);
        JoinHandle { inner }
    }
}

impl<T> Deref for CancelOnDrop<T> {
    type Target = JoinHandle<T>;

    fn deref(&self) -> &JoinHandle<T> {
        &self.0
    }
}

impl<T> Future for CancelOnDrop<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for CancelOnDrop<T> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

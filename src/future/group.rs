//! Tasks that do not outlive the code that started them.
//!
//! A scope ends when its body and all its children have ended. The first that fails, child or body,
//! ends the others: children are cancelled, the body is dropped at its present await, and the scope
//! waits until all of it is gone. Failing is returning an `Err`, or panicking; being cancelled is not.
//!
//! The group owns the handles of its children, so every end is seen here and exactly once; what a
//! child returned goes to its [`GroupTask`], what went wrong into the error of the scope.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use async_channel::{Receiver, Sender};
use futures_util::stream::{FuturesUnordered, Stream};

use crate::runtime::{CancelHandle, CancelOnDrop, JoinError, JoinHandle, panic_text};
use crate::runtime::{spawn, spawn_local};

/// Starts children of one [scope](TaskGroup::scope). Clones are the same group, and children may hold
/// one to start more.
///
/// ```
/// # let runtime = garland::Builder::new().loops(2).build()?;
/// use garland::TaskGroup;
///
/// let sum = runtime.block_on(TaskGroup::scope(|group| async move {
///     let one = group.spawn(async { "1".parse::<u32>() });
///     let two = group.spawn(async { "2".parse::<u32>() });
///     Ok(one.await.unwrap_or(0) + two.await.unwrap_or(0))
/// }))?;
/// assert_eq!(sum.expect("both are numbers"), 3);
///
/// let failed = runtime.block_on(TaskGroup::scope(|group| async move {
///     group.spawn(async { "one".parse::<u32>() });
///     group.spawn(std::future::pending::<Result<(), _>>());
///     Ok(())
/// }))?;
/// let errors = failed.expect_err("the first is no number").errors;
/// assert_eq!(errors.len(), 1, "that the other was cancelled is no error");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TaskGroup<E> {
    shared: Arc<Mutex<Arrivals<E>>>,
}

/// Children on their way from `spawn` to the scope.
struct Arrivals<E> {
    /// Left by the first failure and by the end of the scope, for good.
    open: bool,
    new: Vec<Child<E>>,
    /// Of the task that runs the scope.
    waker: Option<Waker>,
}

type Child<E> = CancelOnDrop<Result<(), E>>;

impl<E: 'static> TaskGroup<E> {
    /// Runs `body` and waits for it and for all children it, or they, start.
    ///
    /// Dropping this future drops the body and cancels the children, without waiting for their end.
    ///
    /// # Errors
    /// All that failed, body and children, in the order in which they failed.
    pub async fn scope<R, F, Fut>(body: F) -> Result<R, TaskGroupError<E>>
    where
        F: FnOnce(TaskGroup<E>) -> Fut,
        Fut: Future<Output = Result<R, E>>,
    {
        let group = TaskGroup {
            shared: Arc::new(Mutex::new(Arrivals {
                open: true,
                new: Vec::new(),
                waker: None,
            })),
        };
        let mut scope = Scope {
            group: group.clone(),
            children: FuturesUnordered::new(),
            errors: Vec::new(),
        };
        let mut body = pin!(Some(body(group)));
        let mut value = None;
        poll_fn(|cx| {
            if let Some(running) = body.as_mut().as_pin_mut()
                && let Poll::Ready(result) = poll_caught(running, cx)
            {
                body.set(None);
                match result {
                    Ok(returned) => value = Some(returned),
                    Err(error) => scope.fail(error),
                }
            }
            let ended = scope.poll_children(body.is_some(), cx);
            if !scope.errors.is_empty() {
                body.set(None);
            }
            ended
        })
        .await;
        match value {
            Some(value) if scope.errors.is_empty() => Ok(value),
            _ => Err(TaskGroupError {
                errors: mem::take(&mut scope.errors),
            }),
        }
    }

    /// Starts a movable child, on the loop that runs here.
    ///
    /// When the scope has ended or something in it has failed, `future` is dropped at once, and the
    /// handle says so.
    ///
    /// # Panics
    /// Outside a loop.
    #[track_caller]
    #[doc(alias = "create_task")]
    pub fn spawn<F, T>(&self, future: F) -> GroupTask<T>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Send,
    {
        let (sender, task) = GroupTask::new();
        if !self.lock().open {
            return task;
        }
        self.adopt(spawn(child(future, sender)), task)
    }

    /// Starts a child that stays on the loop that runs here.
    ///
    /// When the scope has ended or something in it has failed, `future` is dropped at once, and the
    /// handle says so.
    ///
    /// # Panics
    /// Outside a loop.
    #[track_caller]
    pub fn spawn_local<F, T>(&self, future: F) -> GroupTask<T>
    where
        F: Future<Output = Result<T, E>> + 'static,
        T: 'static,
    {
        let (sender, task) = GroupTask::new();
        if !self.lock().open {
            return task;
        }
        self.adopt(spawn_local(child(future, sender)), task)
    }

    fn adopt<T>(&self, handle: JoinHandle<Result<(), E>>, mut task: GroupTask<T>) -> GroupTask<T> {
        task.cancel = handle.cancel_handle();
        let child = handle.cancel_on_drop();
        let mut arrivals = self.lock();
        if !arrivals.open {
            // Closed in between, by another thread. The child is cancelled, not under the lock.
            drop(arrivals);
            drop(child);
            return task;
        }
        arrivals.new.push(child);
        let waker = arrivals.waker.take();
        drop(arrivals);
        if let Some(waker) = waker {
            waker.wake();
        }
        task
    }
}

impl<E> TaskGroup<E> {
    /// Refuses further children, and returns those that have not been taken over.
    fn close(&self) -> Vec<Child<E>> {
        let mut arrivals = self.lock();
        arrivals.open = false;
        mem::take(&mut arrivals.new)
    }

    fn lock(&self) -> MutexGuard<'_, Arrivals<E>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E> Clone for TaskGroup<E> {
    fn clone(&self) -> Self {
        TaskGroup {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<E> fmt::Debug for TaskGroup<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskGroup")
            .field("open", &self.lock().open)
            .finish_non_exhaustive()
    }
}

/// What a child does: its value goes to whoever holds its handle, if anybody does.
async fn child<T, E>(
    future: impl Future<Output = Result<T, E>>,
    sender: Sender<T>,
) -> Result<(), E> {
    let value = future.await?;
    sender.try_send(value).ok();
    Ok(())
}

/// A step of the body; its panic is an error like any other of the scope.
fn poll_caught<R, E>(
    body: Pin<&mut impl Future<Output = Result<R, E>>>,
    cx: &mut Context<'_>,
) -> Poll<Result<R, TaskError<E>>> {
    match catch_unwind(AssertUnwindSafe(|| body.poll(cx))) {
        Ok(step) => step.map_err(TaskError::Failed),
        Err(payload) => Poll::Ready(Err(TaskError::Panicked(payload))),
    }
}

/// The children of a running scope, and what went wrong. Dropping it cancels them.
struct Scope<E> {
    group: TaskGroup<E>,
    children: FuturesUnordered<Child<E>>,
    errors: Vec<TaskError<E>>,
}

impl<E> Scope<E> {
    /// Ready when all have ended, and no more can come. With a body there is no end.
    fn poll_children(&mut self, body: bool, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let may_end = !body || !self.errors.is_empty();
            let has_new = self.adopt(cx);
            match Pin::new(&mut self.children).poll_next(cx) {
                Poll::Ready(Some(ended)) => {
                    if let Some(error) = failure(ended) {
                        self.fail(error);
                    }
                }
                Poll::Ready(None) if may_end && !has_new && self.try_end() => {
                    return Poll::Ready(());
                }
                Poll::Ready(None) if may_end => {}
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Takes new children over; those that come later wake the scope.
    fn adopt(&mut self, cx: &mut Context<'_>) -> bool {
        let mut arrivals = self.group.lock();
        let new = mem::take(&mut arrivals.new);
        let replaced = arrivals.waker.replace(cx.waker().clone());
        drop(arrivals);
        // Its drop may free a task: not under the lock.
        drop(replaced);
        let has_new = !new.is_empty();
        self.children.extend(new);
        has_new
    }

    /// Refuses children from now on, unless one has come.
    fn try_end(&self) -> bool {
        let mut arrivals = self.group.lock();
        let ends = arrivals.new.is_empty();
        arrivals.open &= !ends;
        ends
    }

    /// The first failure ends the others.
    fn fail(&mut self, error: TaskError<E>) {
        self.errors.push(error);
        self.children.extend(self.group.close());
        for child in &self.children {
            child.cancel();
        }
    }
}

impl<E> Drop for Scope<E> {
    fn drop(&mut self) {
        drop(self.group.close());
    }
}

fn failure<E>(ended: Result<Result<(), E>, JoinError>) -> Option<TaskError<E>> {
    match ended {
        Ok(Ok(())) | Err(JoinError::Cancelled) => None,
        Ok(Err(error)) => Some(TaskError::Failed(error)),
        Err(JoinError::Panicked(payload)) => Some(TaskError::Panicked(payload)),
    }
}

/// A child of a [`TaskGroup`]. Await it for what it returned: `None` if it was cancelled or failed, and
/// then what went wrong is with the scope.
///
/// Dropping it, or whoever awaits it, changes nothing for the child.
pub struct GroupTask<T> {
    /// `None` if the group refused it.
    cancel: Option<CancelHandle>,
    value: Pin<Box<Receiver<T>>>,
}

impl<T> GroupTask<T> {
    fn new() -> (Sender<T>, Self) {
        let (sender, receiver) = async_channel::bounded(1);
        let task = GroupTask {
            cancel: None,
            value: Box::pin(receiver),
        };
        (sender, task)
    }

    /// Cancels this child alone, as by [`JoinHandle::cancel`]; the scope does not mind.
    pub fn cancel(&self) -> bool {
        self.cancel.as_ref().is_some_and(CancelHandle::cancel)
    }

    /// True if it has ended, in whatever way, or was refused.
    pub fn is_finished(&self) -> bool {
        self.cancel.as_ref().is_none_or(CancelHandle::is_finished)
    }
}

impl<T> Future for GroupTask<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.value.as_mut().poll_next(cx)
    }
}

impl<T> fmt::Debug for GroupTask<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GroupTask").field(&self.cancel).finish()
    }
}

/// What failed in a scope, in the order of failing; never empty.
#[doc(alias = "ExceptionGroup")]
pub struct TaskGroupError<E> {
    /// One for each child that failed, and one for the body if it did.
    pub errors: Vec<TaskError<E>>,
}

/// One failure in a scope.
pub enum TaskError<E> {
    /// It returned this.
    Failed(E),
    /// It panicked with this.
    Panicked(Box<dyn Any + Send>),
}

impl<E: fmt::Debug> fmt::Debug for TaskGroupError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TaskGroupError").field(&self.errors).finish()
    }
}

impl<E: fmt::Debug> fmt::Debug for TaskError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TaskError::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
            TaskError::Panicked(payload) => {
                write!(f, "Panicked({:?})", panic_text(payload.as_ref()))
            }
        }
    }
}

impl<E: fmt::Display> fmt::Display for TaskGroupError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of a group failed", self.errors.len())?;
        let first = self.errors.first();
        first.map_or(Ok(()), |first| write!(f, ", first: {first}"))
    }
}

impl<E: fmt::Display> fmt::Display for TaskError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TaskError::Failed(error) => error.fmt(f),
            TaskError::Panicked(payload) => {
                let text = panic_text(payload.as_ref()).unwrap_or("(not a text)");
                write!(f, "a panic: {text}")
            }
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for TaskGroupError<E> {}

impl<E: fmt::Debug + fmt::Display> std::error::Error for TaskError<E> {}

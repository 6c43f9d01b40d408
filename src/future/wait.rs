//! Waiting for several tasks without taking their results: who has ended, and who has not.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, Stream};

use crate::runtime::JoinHandle;
use crate::time::sleep;

/// What [`wait`] waits for. Its limit of time ends it in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(alias = "return_when")]
pub enum When {
    /// All have ended.
    #[doc(alias = "ALL_COMPLETED")]
    All,
    /// One has ended, in whatever way.
    #[doc(alias = "FIRST_COMPLETED")]
    FirstCompleted,
    /// One has panicked, or all have ended. A task that was cancelled has not failed, and an `Err` is a
    /// result as any other: for that there is [`try_gather`](crate::try_gather).
    #[doc(alias = "FIRST_EXCEPTION")]
    FirstFailure,
}

/// Waits for tasks and gives their handles back: those that have ended, whose results are there
/// without waiting, and those that have not. Each list is in the order of `handles`.
///
/// The end of the time `limit` is no error, and cancels nothing. Dropping this future detaches all
/// of them, as dropping their handles does.
///
/// # Panics
/// If there is no handle: nobody would ever end.
///
/// ```
/// # use std::time::Duration;
/// # let clock = garland::ManualClock::auto_advance();
/// # let runtime = garland::Builder::new().loops(1).clock(clock).build()?;
/// use garland::{When, sleep, spawn, wait};
///
/// runtime.block_on(async {
///     let after = |seconds| async move {
///         sleep(Duration::from_secs(seconds)).await;
///         seconds
///     };
///     let tasks = [3, 1, 2].map(|seconds| spawn(after(seconds)));
///     let (done, pending) = wait(tasks, None, When::FirstCompleted).await;
///     assert_eq!((done.len(), pending.len()), (1, 2));
///     for task in done {
///         assert_eq!(task.await.expect("did not panic"), 1);
///     }
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn wait<T>(
    handles: impl IntoIterator<Item = JoinHandle<T>>,
    limit: impl Into<Option<Duration>>,
    when: When,
) -> impl Future<Output = (Vec<JoinHandle<T>>, Vec<JoinHandle<T>>)> {
    let mut live = Ending::all(handles);
    let mut limit = limit.into().map(sleep);
    assert!(!live.is_empty(), "wait() needs a task to wait for");
    async move {
        let mut done = Vec::new();
        poll_fn(|cx| {
            let mut enough = false;
            while let Poll::Ready(ended) = Pin::new(&mut live).poll_next(cx) {
                let Some(ended) = ended else {
                    return Poll::Ready(());
                };
                enough |= match when {
                    When::All => false,
                    When::FirstCompleted => true,
                    When::FirstFailure => ended.has_failed,
                };
                done.push((ended.index, ended.handle));
            }
            match &mut limit {
                _ if enough => Poll::Ready(()),
                Some(sleep) => Pin::new(sleep).poll(cx),
                None => Poll::Pending,
            }
        })
        .await;
        let pending = live.into_iter().filter_map(Ending::into_place).collect();
        (in_order(done), in_order(pending))
    }
}

fn in_order<T>(mut places: Vec<(usize, JoinHandle<T>)>) -> Vec<JoinHandle<T>> {
    places.sort_unstable_by_key(|(index, _)| *index);
    places.into_iter().map(|(_, handle)| handle).collect()
}

/// Gives a handle back when its task has ended.
pub(crate) struct Ending<T> {
    index: usize,
    /// `None` after the end.
    handle: Option<JoinHandle<T>>,
}

/// A task that has ended, in the order of ending.
pub(crate) struct Ended<T> {
    pub(crate) index: usize,
    pub(crate) handle: JoinHandle<T>,
    pub(crate) has_failed: bool,
}

impl<T> Ending<T> {
    pub(crate) fn all(
        handles: impl IntoIterator<Item = JoinHandle<T>>,
    ) -> FuturesUnordered<Ending<T>> {
        let handles = handles.into_iter().enumerate();
        let ending = handles.map(|(index, handle)| Ending {
            index,
            handle: Some(handle),
        });
        ending.collect()
    }

    pub(crate) fn into_place(self) -> Option<(usize, JoinHandle<T>)> {
        Some((self.index, self.handle?))
    }
}

impl<T> Future for Ending<T> {
    type Output = Ended<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended<T>> {
        let handle = self.handle.as_mut().expect("not polled after the end");
        let has_failed = std::task::ready!(handle.poll_ended(cx));
        let handle = self.handle.take().expect("just polled");
        Poll::Ready(Ended {
            index: self.index,
            handle,
            has_failed,
        })
    }
}

/// A result that waits in its handle is not pinned there.
impl<T> Unpin for Ending<T> {}

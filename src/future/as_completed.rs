//! Tasks one by one, as they end.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, Stream};

use crate::error::TimedOut;
use crate::future::wait::Ending;
use crate::runtime::JoinHandle;
use crate::time::{Sleep, sleep};

/// The handles of tasks in the order in which the tasks end.
///
/// The time `limit` is for all of them together and begins with the first
/// [`next`](AsCompleted::next). Dropping what this returns detaches those that have not ended.
///
/// ```
/// # use std::time::Duration;
/// # let clock = garland::ManualClock::auto_advance();
/// # let runtime = garland::Builder::new().loops(1).clock(clock).build()?;
/// use garland::{as_completed, sleep, spawn};
///
/// let order = runtime.block_on(async {
///     let after = |seconds| async move {
///         sleep(Duration::from_secs(seconds)).await;
///         seconds
///     };
///     let mut tasks = as_completed([3, 1, 2].map(|seconds| spawn(after(seconds))), None);
///     let mut order = Vec::new();
///     while let Some(ended) = tasks.next().await {
///         let task = ended.expect("there is no limit");
///         order.push(task.await.expect("did not panic"));
///     }
///     order
/// })?;
/// assert_eq!(order, [1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn as_completed<T>(
    handles: impl IntoIterator<Item = JoinHandle<T>>,
    limit: impl Into<Option<Duration>>,
) -> AsCompleted<T> {
    AsCompleted {
        live: Ending::all(handles),
        limit: limit.into().map(|limit| Limit {
            after: limit,
            sleep: sleep(limit),
            n_late: None,
        }),
    }
}

/// The iteration of [`as_completed`].
#[must_use = "it does nothing unless asked for the next"]
pub struct AsCompleted<T> {
    live: FuturesUnordered<Ending<T>>,
    limit: Option<Limit>,
}

struct Limit {
    after: Duration,
    sleep: Sleep,
    /// Set when the time is over: how many items are still to fail.
    n_late: Option<usize>,
}

impl<T> AsCompleted<T> {
    /// The next task that has ended; its result is there without waiting. `None` after the last.
    ///
    /// Dropping this future loses nothing.
    ///
    /// # Errors
    /// [`TimedOut`] once for each task that had not ended in time.
    pub async fn next(&mut self) -> Option<Result<JoinHandle<T>, TimedOut>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The tasks that have not ended: to cancel them, or to wait on. In no particular order.
    pub fn into_pending(self) -> Vec<JoinHandle<T>> {
        let live = self.live.into_iter().filter_map(Ending::into_place);
        live.map(|(_, handle)| handle).collect()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<JoinHandle<T>, TimedOut>>> {
        if let Some(Limit {
            after,
            n_late: Some(n_late),
            ..
        }) = &mut self.limit
        {
            let late = n_late.checked_sub(1).map(|left| {
                *n_late = left;
                Err(TimedOut { after: *after })
            });
            return Poll::Ready(late);
        }
        if let Poll::Ready(ended) = Pin::new(&mut self.live).poll_next(cx) {
            return Poll::Ready(ended.map(|ended| Ok(ended.handle)));
        }
        let Some(limit) = &mut self.limit else {
            return Poll::Pending;
        };
        std::task::ready!(Pin::new(&mut limit.sleep).poll(cx));
        limit.n_late = Some(self.live.len());
        self.poll_next(cx)
    }
}

impl<T> fmt::Debug for AsCompleted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted")
            .field("live", &self.live.len())
            .finish_non_exhaustive()
    }
}

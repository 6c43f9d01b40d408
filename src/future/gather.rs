//! The results of several tasks, in the order of their handles.
//!
//! A gather owns its tasks: dropped before its end, it cancels those that live. After an error it
//! lets them go on, as asyncio does; [`TaskGroup`](crate::TaskGroup) ends them instead.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::{FuturesUnordered, Stream};

use crate::runtime::{CancelOnDrop, JoinError, JoinHandle};

/// Waits for all, and returns what they returned.
///
/// The first that panicked or was cancelled ends it at once; the others go on by themselves, and
/// what becomes of them is not reported. Dropping this future cancels all that have not ended.
/// No handle: an empty list, at once.
///
/// # Errors
/// That of the first task that has no result.
///
/// ```
/// # let runtime = garland::Builder::new().loops(1).build()?;
/// runtime.block_on(async {
///     let squares = (1..4).map(|n| garland::spawn(async move { n * n }));
///     assert_eq!(garland::gather(squares).await.expect("none panics"), [1, 4, 9]);
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "join_all")]
pub fn gather<T>(
    handles: impl IntoIterator<Item = JoinHandle<T>>,
) -> impl Future<Output = Result<Vec<T>, JoinError>> {
    Gather::new(handles, |result| result)
}

/// [`gather`] for tasks that return a `Result`: the first `Err` ends it, too.
///
/// # Errors
/// That of the first task that returned one, or that has no result.
///
/// ```
/// # let runtime = garland::Builder::new().loops(1).build()?;
/// let sum = runtime.block_on(async {
///     let halves = ["1", "two", "3"].map(|text| {
///         garland::spawn(async move { text.parse::<u32>().map_err(std::io::Error::other) })
///     });
///     garland::try_gather(halves).await
/// })?;
/// assert!(sum.is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn try_gather<T, E: From<JoinError>>(
    handles: impl IntoIterator<Item = JoinHandle<Result<T, E>>>,
) -> impl Future<Output = Result<Vec<T>, E>> {
    Gather::new(handles, |result| result?)
}

/// Waits for all, whatever becomes of each: panics and cancellations are items of the list.
///
/// Dropping this future cancels all that have not ended.
///
/// ```
/// # let runtime = garland::Builder::new().loops(1).build()?;
/// runtime.block_on(async {
///     let tasks = [1, 0].map(|n| garland::spawn(async move { 1 / n }));
///     let results = garland::gather_all(tasks).await;
///     assert!(results[0].is_ok() && results[1].is_err());
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "return_exceptions")]
pub fn gather_all<T>(
    handles: impl IntoIterator<Item = JoinHandle<T>>,
) -> impl Future<Output = Vec<Result<T, JoinError>>> {
    let all = Gather::new(handles, Ok::<_, Infallible>);
    async move {
        match all.await {
            Ok(results) => results,
            Err(never) => match never {},
        }
    }
}

/// `T` is what the tasks return, `V` what the list holds.
#[must_use = "futures do nothing unless awaited"]
struct Gather<T, V, E> {
    live: FuturesUnordered<Member<T>>,
    values: Vec<Option<V>>,
    judge: fn(Result<T, JoinError>) -> Result<V, E>,
}

impl<T, V, E> Gather<T, V, E> {
    fn new(
        handles: impl IntoIterator<Item = JoinHandle<T>>,
        judge: fn(Result<T, JoinError>) -> Result<V, E>,
    ) -> Self {
        let handles = handles.into_iter().enumerate();
        let members = handles.map(|(index, handle)| Member {
            index,
            task: handle.cancel_on_drop(),
        });
        let live: FuturesUnordered<_> = members.collect();
        let values = (0..live.len()).map(|_| None).collect();
        Gather {
            live,
            values,
            judge,
        }
    }
}

impl<T, V, E> Future for Gather<T, V, E> {
    type Output = Result<Vec<V>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        while let Some((index, result)) = std::task::ready!(Pin::new(&mut self.live).poll_next(cx))
        {
            match (self.judge)(result) {
                Ok(value) => self.values[index] = Some(value),
                Err(error) => {
                    let others = std::mem::take(&mut self.live);
                    others
                        .into_iter()
                        .for_each(|other| drop(other.task.detach()));
                    return Poll::Ready(Err(error));
                }
            }
        }
        let values = std::mem::take(&mut self.values).into_iter();
        let values = values.map(|value| value.expect("each member has ended with a value"));
        Poll::Ready(Ok(values.collect()))
    }
}

/// Members are cancelled in the order of their handles, as in asyncio; the set has an order of its own.
impl<T, V, E> Drop for Gather<T, V, E> {
    fn drop(&mut self) {
        let mut live: Vec<_> = std::mem::take(&mut self.live).into_iter().collect();
        live.sort_unstable_by_key(|member| member.index);
        live.into_iter().for_each(drop);
    }
}

/// Values wait in a list, not pinned.
impl<T, V, E> Unpin for Gather<T, V, E> {}

struct Member<T> {
    index: usize,
    task: CancelOnDrop<T>,
}

impl<T> Future for Member<T> {
    type Output = (usize, Result<T, JoinError>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = std::task::ready!(Pin::new(&mut self.task).poll(cx));
        Poll::Ready((self.index, result))
    }
}

/// As its handle.
impl<T> Unpin for Member<T> {}

//! Items between tasks: bounded, in an order of its own, with a count of what is still to be done.
//!
//! Where nothing of that is needed a [`channel`](crate::sync::channel) does, which also ends by itself
//! when its senders are gone.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::sync::{Mutex, MutexGuard};

use crate::sync::line::{HasLine, Line, Place, Wake, lock};

/// First in, first out.
pub type Queue<T> = BaseQueue<T, VecDeque<T>>;

/// Last in, first out.
pub type LifoQueue<T> = BaseQueue<T, Vec<T>>;

/// The lowest first. The items are compared under the queue's lock: `Ord` must not use the queue.
pub type PriorityQueue<T> = BaseQueue<T, BinaryHeap<Reverse<T>>>;

/// What [`Queue`], [`LifoQueue`] and [`PriorityQueue`] have in common: a queue that tasks of any loop,
/// and threads, may share by reference.
///
/// Who waits is woken in order, though a newcomer may come first. Dropping a future of
/// [`get`](BaseQueue::get) or [`put`](BaseQueue::put) loses no item but the one it was to put, and
/// passes its wake-up on.
///
/// ```
/// # let runtime = garland::Builder::new().loops(2).build()?;
/// use garland::sync::Queue;
///
/// let queue = std::sync::Arc::new(Queue::new(2));
/// runtime.block_on(async {
///     let jobs = queue.clone();
///     let worker = garland::spawn(async move {
///         let mut sum = 0;
///         while let Ok(job) = jobs.get().await {
///             sum += job;
///             jobs.task_done().expect("one for each get");
///         }
///         sum
///     });
///     for job in 1..=10 {
///         queue.put(job).await.expect("nobody has shut it down");
///     }
///     queue.join().await;
///     queue.shutdown();
///     assert_eq!(worker.await.expect("did not panic"), 55);
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct BaseQueue<T, S> {
    state: Mutex<State<T, S>>,
}

struct State<T, S> {
    items: S,
    /// Zero: no bound.
    maxsize: usize,
    /// Items that were put and not yet reported done.
    unfinished: usize,
    is_shut_down: bool,
    getters: Line<()>,
    putters: Line<()>,
    joiners: Line<()>,
    of: PhantomData<T>,
}

/// The order of a queue.
pub trait Store<T>: Default {
    /// Takes an item in.
    fn push(&mut self, item: T);
    /// The next item, if there is one.
    fn pop(&mut self) -> Option<T>;
    /// How many items there are.
    fn size(&self) -> usize;
}

/// A [`put`](BaseQueue::put) that was refused, with its item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutError<T> {
    /// There is no room; only [`put_nowait`](BaseQueue::put_nowait) says so.
    #[doc(alias = "QueueFull")]
    Full(T),
    /// The queue was shut down.
    #[doc(alias = "QueueShutDown")]
    ShutDown(T),
}

/// A [`get`](BaseQueue::get) without an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetError {
    /// There is none; only [`get_nowait`](BaseQueue::get_nowait) says so.
    #[doc(alias = "QueueEmpty")]
    Empty,
    /// The queue was shut down, and is empty.
    #[doc(alias = "QueueShutDown")]
    ShutDown,
}

/// More items were reported done than had been put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyDone;

impl<T, S: Store<T>> BaseQueue<T, S> {
    /// For `maxsize` items at most; zero is no bound.
    pub fn new(maxsize: usize) -> Self {
        BaseQueue {
            state: Mutex::new(State {
                items: S::default(),
                maxsize,
                unfinished: 0,
                is_shut_down: false,
                getters: Line::default(),
                putters: Line::default(),
                joiners: Line::default(),
                of: PhantomData,
            }),
        }
    }

    /// Puts an item in, as soon as there is room; if there is, without a pause.
    ///
    /// # Errors
    /// [`PutError::ShutDown`], also if that happens meanwhile.
    pub async fn put(&self, mut item: T) -> Result<(), PutError<T>> {
        loop {
            let place = {
                let mut state = self.lock();
                match state.put(item) {
                    Err(PutError::Full(refused)) => {
                        item = refused;
                        Place::<_, Putters>::join(&self.state, &mut *state)
                    }
                    put => {
                        drop(state);
                        return put.map(Wake::now);
                    }
                }
            };
            place.await;
        }
    }

    /// Puts an item in, if there is room.
    ///
    /// # Errors
    /// [`PutError`], with the item.
    pub fn put_nowait(&self, item: T) -> Result<(), PutError<T>> {
        let put = self.lock().put(item);
        put.map(Wake::now)
    }

    /// Takes the next item out, as soon as there is one; if there is, without a pause.
    ///
    /// # Errors
    /// [`GetError::ShutDown`] when the queue was shut down and is empty.
    pub async fn get(&self) -> Result<T, GetError> {
        loop {
            let place = {
                let mut state = self.lock();
                match state.get() {
                    Err(GetError::Empty) => Place::<_, Getters>::join(&self.state, &mut *state),
                    got => {
                        drop(state);
                        return got.map(taken);
                    }
                }
            };
            place.await;
        }
    }

    /// Takes the next item out, if there is one.
    ///
    /// # Errors
    /// [`GetError`].
    pub fn get_nowait(&self) -> Result<T, GetError> {
        let got = self.lock().get();
        got.map(taken)
    }

    /// Reports that one of the items taken out has been dealt with.
    ///
    /// # Errors
    /// [`TooManyDone`] if there is none left to report.
    pub fn task_done(&self) -> Result<(), TooManyDone> {
        let done = self.lock().done(1);
        done.map(Wake::now)
    }

    /// Waits until every item that was put has been reported done.
    pub async fn join(&self) {
        loop {
            let place = {
                let mut state = self.lock();
                if state.unfinished == 0 {
                    return;
                }
                Place::<_, Joiners>::join(&self.state, &mut *state)
            };
            place.await;
        }
    }

    /// Refuses items from now on; those that are there can still be taken out.
    pub fn shutdown(&self) {
        let wake = self.lock().shut_down();
        wake.now();
    }

    /// Refuses items from now on, drops those that are there, and counts them as done.
    #[doc(alias = "immediate")]
    pub fn shutdown_now(&self) {
        let mut state = self.lock();
        let dropped = mem::take(&mut state.items);
        // Less: items were reported done that nobody had taken out.
        let n = dropped.size().min(state.unfinished);
        let done = state.done(n).unwrap_or_default();
        let wake = state.shut_down().and(done);
        drop(state);
        wake.now();
    }

    /// How many items there are.
    #[doc(alias = "qsize")]
    pub fn len(&self) -> usize {
        self.lock().items.size()
    }

    /// True if there is no item.
    #[doc(alias = "empty")]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if there is no room.
    #[doc(alias = "full")]
    pub fn is_full(&self) -> bool {
        self.lock().is_full()
    }

    /// How many items there may be; zero is no bound.
    pub fn maxsize(&self) -> usize {
        self.lock().maxsize
    }

    fn lock(&self) -> MutexGuard<'_, State<T, S>> {
        lock(&self.state)
    }
}

/// An item, once the one it made room for is woken.
fn taken<T>((item, wake): (T, Wake)) -> T {
    wake.now();
    item
}

impl<T, S: Store<T>> State<T, S> {
    fn put(&mut self, item: T) -> Result<Wake, PutError<T>> {
        if self.is_shut_down {
            return Err(PutError::ShutDown(item));
        }
        if self.is_full() {
            return Err(PutError::Full(item));
        }
        self.items.push(item);
        self.unfinished += 1;
        Ok(self.getters.grant_first(()).unwrap_or_default())
    }

    fn get(&mut self) -> Result<(T, Wake), GetError> {
        match self.items.pop() {
            Some(item) => Ok((item, self.putters.grant_first(()).unwrap_or_default())),
            None if self.is_shut_down => Err(GetError::ShutDown),
            None => Err(GetError::Empty),
        }
    }

    fn done(&mut self, n: usize) -> Result<Wake, TooManyDone> {
        self.unfinished = self.unfinished.checked_sub(n).ok_or(TooManyDone)?;
        match self.unfinished {
            0 => Ok(self.joiners.grant_all(|_| ())),
            _ => Ok(Wake::nobody()),
        }
    }

    fn shut_down(&mut self) -> Wake {
        self.is_shut_down = true;
        let getters = self.getters.grant_all(|_| ());
        getters.and(self.putters.grant_all(|_| ()))
    }

    fn is_full(&self) -> bool {
        self.maxsize != 0 && self.items.size() >= self.maxsize
    }
}

/// Names the line of those who wait for an item.
enum Getters {}
/// Names the line of those who wait for room.
enum Putters {}
/// Names the line of those who wait for the count to be zero.
enum Joiners {}

impl<T, S: Store<T>> HasLine<Getters> for State<T, S> {
    type Grant = ();

    fn line(&mut self) -> &mut Line<()> {
        &mut self.getters
    }

    fn pass_on(&mut self, (): ()) -> Wake {
        match self.items.size() {
            0 => Wake::nobody(),
            _ => self.getters.grant_first(()).unwrap_or_default(),
        }
    }
}

impl<T, S: Store<T>> HasLine<Putters> for State<T, S> {
    type Grant = ();

    fn line(&mut self) -> &mut Line<()> {
        &mut self.putters
    }

    fn pass_on(&mut self, (): ()) -> Wake {
        match self.is_full() {
            true => Wake::nobody(),
            false => self.putters.grant_first(()).unwrap_or_default(),
        }
    }
}

impl<T, S: Store<T>> HasLine<Joiners> for State<T, S> {
    type Grant = ();

    fn line(&mut self) -> &mut Line<()> {
        &mut self.joiners
    }

    /// All who waited have one of their own.
    fn pass_on(&mut self, (): ()) -> Wake {
        Wake::nobody()
    }
}

impl<T> Store<T> for VecDeque<T> {
    fn push(&mut self, item: T) {
        self.push_back(item);
    }

    fn pop(&mut self) -> Option<T> {
        self.pop_front()
    }

    fn size(&self) -> usize {
        VecDeque::len(self)
    }
}

impl<T> Store<T> for Vec<T> {
    fn push(&mut self, item: T) {
        Vec::push(self, item);
    }

    fn pop(&mut self) -> Option<T> {
        Vec::pop(self)
    }

    fn size(&self) -> usize {
        Vec::len(self)
    }
}

impl<T: Ord> Store<T> for BinaryHeap<Reverse<T>> {
    fn push(&mut self, item: T) {
        BinaryHeap::push(self, Reverse(item));
    }

    fn pop(&mut self) -> Option<T> {
        BinaryHeap::pop(self).map(|Reverse(item)| item)
    }

    fn size(&self) -> usize {
        BinaryHeap::len(self)
    }
}

impl<T, S: Store<T>> fmt::Debug for BaseQueue<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Queue")
            .field("len", &state.items.size())
            .field("maxsize", &state.maxsize)
            .field("unfinished", &state.unfinished)
            .field("is_shut_down", &state.is_shut_down)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Display for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PutError::Full(_) => "the queue is full",
            PutError::ShutDown(_) => "the queue is shut down",
        })
    }
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GetError::Empty => "the queue is empty",
            GetError::ShutDown => "the queue is shut down",
        })
    }
}

impl fmt::Display for TooManyDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("more items were reported done than were put")
    }
}

impl<T: fmt::Debug> std::error::Error for PutError<T> {}
impl std::error::Error for GetError {}
impl std::error::Error for TooManyDone {}

//! Who waits, in order: first come, first served.
//!
//! A line stands in the state of a primitive, under its lock. A *grant* ends the wait of one place and
//! is taken by it when it is polled next; a grant whose place is dropped first is passed on by the
//! primitive, so no turn is lost to a cancellation. Since a grant names its place, no newcomer can take
//! it.
//!
//! Wakers come out of a line to be called, or dropped, without the lock: both may run other people's
//! code.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The places of those who wait for a `G`.
#[derive(Debug)]
pub(super) struct Line<G> {
    next_ticket: u64,
    /// By ticket, so the first has waited longest. No waker: not polled yet.
    waiting: BTreeMap<u64, Option<Waker>>,
    granted: BTreeMap<u64, G>,
}

impl<G> Default for Line<G> {
    fn default() -> Self {
        Line {
            next_ticket: 0,
            waiting: BTreeMap::new(),
            granted: BTreeMap::new(),
        }
    }
}

/// What a grant asks of its giver, once the lock is released.
#[derive(Debug, Default)]
#[must_use = "who is granted something must be woken"]
pub(super) struct Wake(Vec<Waker>);

impl Wake {
    pub(super) fn nobody() -> Self {
        Wake(Vec::new())
    }

    pub(super) fn and(mut self, other: Wake) -> Self {
        self.0.extend(other.0);
        self
    }

    /// In the order of the line. Not under a lock.
    pub(super) fn now(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

impl<G> Line<G> {
    /// How many wait for a grant.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Grants to who has waited longest; nobody there: the grant comes back.
    pub(super) fn grant_first(&mut self, grant: G) -> Result<Wake, G> {
        let Some((ticket, waker)) = self.waiting.pop_first() else {
            return Err(grant);
        };
        self.granted.insert(ticket, grant);
        Ok(Wake(waker.into_iter().collect()))
    }

    /// Grants to all who wait, in order; `grant` is told how many came before.
    pub(super) fn grant_all(&mut self, grant: impl Fn(usize) -> G) -> Wake {
        let waiting = std::mem::take(&mut self.waiting).into_iter().enumerate();
        let mut wake = Wake::nobody();
        for (nth, (ticket, waker)) in waiting {
            self.granted.insert(ticket, grant(nth));
            wake.0.extend(waker);
        }
        wake
    }

    fn join(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.insert(ticket, None);
        ticket
    }
}

/// The state of a primitive. A panic cannot leave it half changed: of foreign code only comparisons
/// of a priority queue run under the lock.
pub(super) fn lock<S>(state: &Mutex<S>) -> MutexGuard<'_, S> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A state that holds a line, and knows what to do with a grant that its place did not take.
pub(super) trait HasLine<Of> {
    type Grant;

    fn line(&mut self) -> &mut Line<Self::Grant>;

    fn pass_on(&mut self, grant: Self::Grant) -> Wake;
}

/// A place in a line: yields its grant. Dropping it leaves the line.
#[must_use = "dropping it leaves the line"]
pub(super) struct Place<'a, S: HasLine<Of>, Of> {
    state: &'a Mutex<S>,
    /// `None` when the grant is taken.
    ticket: Option<u64>,
    of: std::marker::PhantomData<fn() -> Of>,
}

impl<'a, S: HasLine<Of>, Of> Place<'a, S, Of> {
    /// The last place of the line in `held`, which is the locked `state`.
    pub(super) fn join(state: &'a Mutex<S>, held: &mut S) -> Self {
        Place {
            state,
            ticket: Some(held.line().join()),
            of: std::marker::PhantomData,
        }
    }
}

impl<S: HasLine<Of>, Of> Future for Place<'_, S, Of> {
    type Output = S::Grant;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<S::Grant> {
        let ticket = self.ticket.expect("not polled after the grant");
        let mut state = lock(self.state);
        let line = state.line();
        if let Some(grant) = line.granted.remove(&ticket) {
            drop(state);
            self.ticket = None;
            return Poll::Ready(grant);
        }
        let waker = line.waiting.entry(ticket).or_default();
        let replaced = waker.replace(cx.waker().clone());
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

/// Nothing is pinned in it.
impl<S: HasLine<Of>, Of> Unpin for Place<'_, S, Of> {}

impl<S: HasLine<Of>, Of> Drop for Place<'_, S, Of> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else {
            return;
        };
        let mut state = lock(self.state);
        let left = state.line().waiting.remove(&ticket);
        let wake = match state.line().granted.remove(&ticket) {
            Some(grant) => state.pass_on(grant),
            None => Wake::nobody(),
        };
        drop(state);
        drop(left);
        wake.now();
    }
}

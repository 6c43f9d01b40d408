//! The sockets of movable tasks that are registered with one loop, and the tokens they are known by.
//!
//! Keeps invariant I4 (no stale delivery): a token carries the generation of its slot, so an event
//! that was fetched before a socket was closed finds nothing, even when the slot has a new tenant.
//! The lock here is not the selector's: a loop holds that one while it sleeps, and sockets come and
//! go meanwhile.
//!
//! Sockets of callbacks are not in this table. They are known to their home loop alone, by a key of
//! its own, and their tokens are marked with [`LOCAL_BIT`], so that the home loop dispatches them
//! without any lock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use atomic_waker::AtomicWaker;
use slotmap::{Key, KeyData, SlotMap, new_key_type};

use crate::driver::readiness::{Interest, Readiness, Ready};

new_key_type! {
    /// A socket of a movable task in the slots of one driver.
    pub(crate) struct SourceKey;
    /// A socket of callbacks in the table of its home loop.
    pub(crate) struct IoKey;
}

/// Set in the token of a socket that belongs to callbacks. A key is a generation in the upper 32
/// bits and an index in the lower, and no table comes near 2^31 entries.
const LOCAL_BIT: u64 = 1 << 31;

/// Whom an event is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Local(IoKey),
    Source(SourceKey),
}

pub(crate) fn token_of(target: Target) -> mio::Token {
    let (bits, tag) = match target {
        Target::Local(key) => (key.data().as_ffi(), LOCAL_BIT),
        Target::Source(key) => (key.data().as_ffi(), 0),
    };
    assert!(
        bits & LOCAL_BIT == 0,
        "fewer than 2^31 sockets are open on a loop"
    );
    mio::Token((bits | tag) as usize)
}

pub(crate) fn target_of(token: mio::Token) -> Target {
    let bits = token.0 as u64;
    let key = KeyData::from_ffi(bits & !LOCAL_BIT);
    if bits & LOCAL_BIT == 0 {
        Target::Source(key.into())
    } else {
        Target::Local(key.into())
    }
}

/// One registered socket of a movable task: what is known of it, and who waits for what.
///
/// Touched by: whoever turns the driver (records, takes wakers) and the tasks that use the socket
/// (look, clear, register), each from any loop.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) readiness: Readiness,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Source {
    fn new() -> Self {
        Source {
            readiness: Readiness::new(),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        }
    }

    pub(crate) fn waiter(&self, interest: Interest) -> &AtomicWaker {
        match interest {
            Interest::Read => &self.reader,
            Interest::Write => &self.writer,
        }
    }

    /// Records the event and hands out the wakers it concerns, to be woken after the lock is gone.
    ///
    /// A direction that was ready already has nobody to wake: who waits has seen it not ready, registered,
    /// and looked once more; so whoever there is was taken by the event that made it ready. As good as every
    /// event says "writable" again, and a waker that is not taken spares a locked instruction.
    fn take_event(&self, ready: Ready, wakers: &mut Vec<Waker>) {
        let before = self.readiness.record(ready);
        for interest in [Interest::Read, Interest::Write] {
            let is_news = ready.intersects(interest.mask()) && !before.intersects(interest.mask());
            if is_news && let Some(waker) = self.waiter(interest).take() {
                wakers.push(waker);
            }
        }
    }
}

/// The table of one driver.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    sources: Mutex<SlotMap<SourceKey, Arc<Source>>>,
}

impl Slots {
    pub(crate) fn insert(&self) -> (SourceKey, Arc<Source>) {
        let source = Arc::new(Source::new());
        let key = self.lock().insert(Arc::clone(&source));
        (key, source)
    }

    pub(crate) fn remove(&self, key: SourceKey) {
        // The source may hold the last reference to a waker, whose drop is foreign code: it runs
        // after the lock is released, at the end of this statement's scope.
        let removed = self.lock().remove(key);
        drop(removed);
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Locks the table for a batch of events.
    pub(crate) fn begin(&self) -> Delivery<'_> {
        Delivery(self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, SlotMap<SourceKey, Arc<Source>>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events on their way to their sockets, under one lock.
pub(crate) struct Delivery<'a>(MutexGuard<'a, SlotMap<SourceKey, Arc<Source>>>);

impl Delivery<'_> {
    /// The wakers of who waits for it are appended to `wakers`.
    // Never: inlined, it takes registers from the events of callbacks, which go the same way (10 instructions each).
    #[inline(never)]
    pub(crate) fn deliver(&self, key: SourceKey, ready: Ready, wakers: &mut Vec<Waker>) {
        if let Some(source) = self.0.get(key) {
            source.take_event(ready, wakers);
        }
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use crate::driver::readiness::{Interest, Ready};
    use crate::driver::slots::{IoKey, Slots, Target, target_of, token_of};

    #[test]
    fn a_token_comes_back_as_the_target_it_was_made_of() {
        let slots = Slots::default();
        let (source, _) = slots.insert();
        assert_eq!(
            target_of(token_of(Target::Source(source))),
            Target::Source(source)
        );
        let mut local: SlotMap<IoKey, ()> = SlotMap::with_key();
        let key = local.insert(());
        assert_eq!(target_of(token_of(Target::Local(key))), Target::Local(key));
    }

    #[test]
    fn an_event_for_a_closed_socket_does_not_reach_the_next_tenant() {
        let slots = Slots::default();
        let (old, _) = slots.insert();
        slots.remove(old);
        let (new, tenant) = slots.insert();
        assert_ne!(old, new);
        slots.begin().deliver(old, Ready::READABLE, &mut Vec::new());
        assert!(tenant.readiness.look(Interest::Read).is_none());
    }
}

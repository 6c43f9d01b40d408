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

use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use slotmap::{Key, KeyData, SlotMap, new_key_type};

use crate::atomics::{AtomicBool, AtomicUsize, Ordering};
use crate::driver::footprint::{Footprint, prefetch, prefetch_pair};
use crate::driver::readiness::{Interest, Readiness, Ready};

new_key_type! {
    /// A socket of a movable task in the slots of one driver.
    pub(crate) struct SourceKey;
    /// A socket of callbacks in the table of its home loop.
    pub(crate) struct IoKey;
}

/// With what the kernel keeps of each, some eight kilobytes, so many sockets fill a second-level cache of a mebibyte.
const MANY: usize = 128;

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

/// One registered socket of a movable task: what is known of it, and whose waker is kept for it.
///
/// Touched by: whoever turns the driver (records) and the tasks that use the socket
/// (look, clear, wait), each from any loop.
// In this order: what a request looks at stands together, in one cache line if the allocator is kind. Who waits to write
// is last, for hardly anybody does.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Source {
    pub(crate) readiness: Readiness,
    reader: Kept,
    /// Set by a loop that found an event here in the place of the one whose socket this is, which was stuck: it would
    /// take the socket over. Cleared by the task that reads, which lets it or not. Relaxed: a hint, an old one does no harm.
    is_offered: AtomicBool,
    writer: Kept,
}

impl Source {
    pub(crate) fn offer(&self) {
        self.is_offered.store(true, Ordering::Relaxed);
    }

    pub(crate) fn decline(&self) {
        self.is_offered.store(false, Ordering::Relaxed);
    }

    pub(crate) fn is_offered(&self) -> bool {
        self.is_offered.load(Ordering::Relaxed)
    }

    /// Whether `waker` is what an event would wake; then there is nothing to do before a wait.
    pub(crate) fn keeps(&self, interest: Interest, waker: &Waker) -> bool {
        self.kept(interest).is(waker)
    }

    fn kept(&self, interest: Interest) -> &Kept {
        match interest {
            Interest::Read => &self.reader,
            Interest::Write => &self.writer,
        }
    }
}

/// Which waker the slot keeps for one direction: the two addresses that [`Waker::will_wake`] compares.
///
/// Written under the lock of the slots, after the waker; read without. Who finds its own waker here has it in the slot,
/// until another caller puts one in its place. What the reader sees of two that come at the same time, or of parts of
/// both, is as good as having been there first: the latest caller is woken. A kept waker keeps its memory, so
/// its address is nobody else's.
#[derive(Debug, Default)]
struct Kept {
    data: AtomicUsize,
    vtable: AtomicUsize,
}

impl Kept {
    fn is(&self, waker: &Waker) -> bool {
        let (data, vtable) = addresses(waker);
        // Acquire: partner is set.
        self.data.load(Ordering::Acquire) == data && self.vtable.load(Ordering::Acquire) == vtable
    }

    fn set(&self, (data, vtable): (usize, usize)) {
        // Release: partner is `is`.
        self.data.store(data, Ordering::Release);
        self.vtable.store(vtable, Ordering::Release);
    }
}

fn addresses(waker: &Waker) -> (usize, usize) {
    let vtable = ptr::from_ref(waker.vtable());
    (waker.data().addr(), vtable.addr())
}

/// A waker that goes into a slot. Made before any lock is taken, for a clone is foreign code.
pub(super) struct ToKeep {
    waker: Arc<Waker>,
    known_by: (usize, usize),
}

impl ToKeep {
    pub(super) fn new(waker: &Waker) -> Self {
        let clone = Arc::new(waker.clone());
        // A clone elsewhere leaves the caller's address to somebody else; such a waker is kept anew each time. (The table
        // of functions alone says nothing: a clone may have its own copy.)
        let known_by = if clone.data() == waker.data() {
            addresses(waker)
        } else {
            addresses(&clone)
        };
        ToKeep {
            waker: clone,
            known_by,
        }
    }
}

/// A source with its wakers. They stay when they are woken: as good as always it is the same task that waits
/// the next time, and then it need not bring another (half of the locked instructions of waiting and waking).
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    pub(crate) source: Arc<Source>,
    reader: Option<Arc<Waker>>,
    writer: Option<Arc<Waker>>,
    /// Of the task that reads.
    footprint: Footprint,
}

impl Slot {
    fn waker(&mut self, interest: Interest) -> &mut Option<Arc<Waker>> {
        match interest {
            Interest::Read => &mut self.reader,
            Interest::Write => &mut self.writer,
        }
    }
}

/// The table of one driver.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: Mutex<SlotMap<SourceKey, Slot>>,
    /// How many there are. Written under the lock, read by any thread: whoever turns the driver, a rescuer, the statistics.
    /// Relaxed: an old one does no harm.
    count: AtomicUsize,
}

impl Slots {
    pub(crate) fn insert(&self, slot: Slot) -> SourceKey {
        let mut slots = self.lock();
        let key = slots.insert(slot);
        self.count.store(slots.len(), Ordering::Relaxed);
        key
    }

    /// The same source, with the wakers that are kept for it now.
    pub(crate) fn copy(&self, key: SourceKey) -> Slot {
        let slots = self.lock();
        let slot = slots.get(key).expect("a registration has its slot");
        slot.clone()
    }

    pub(crate) fn remove(&self, key: SourceKey) {
        // The slot may hold the last reference to a waker, whose drop is foreign code.
        let mut slots = self.lock();
        let removed = slots.remove(key);
        self.count.store(slots.len(), Ordering::Relaxed);
        drop(slots);
        drop(removed);
    }

    /// Puts a waker in the place of the one that is kept for this direction.
    ///
    /// What was kept before is handed out: its drop is foreign code, and belongs behind the caller's locks.
    #[must_use = "to be dropped behind all locks"]
    pub(super) fn keep(
        &self,
        key: SourceKey,
        interest: Interest,
        ToKeep { waker, known_by }: ToKeep,
        footprint: Footprint,
    ) -> Option<Arc<Waker>> {
        let mut slots = self.lock();
        let slot = slots.get_mut(key).expect("a registration has its slot");
        let old = slot.waker(interest).replace(waker);
        slot.source.kept(interest).set(known_by);
        if interest == Interest::Read {
            slot.footprint = footprint;
        }
        old
    }

    /// What has this key, if it is still there.
    pub(crate) fn source(&self, key: SourceKey) -> Option<Arc<Source>> {
        self.lock().get(key).map(|slot| Arc::clone(&slot.source))
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// More than the caches hold of them: then it pays to ask ahead for what belongs to those of a poll.
    pub(super) fn are_many(&self) -> bool {
        self.len() >= MANY
    }

    /// Locks the table for a batch of events.
    pub(crate) fn begin(&self) -> Delivery<'_> {
        Delivery(self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, SlotMap<SourceKey, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events on their way to their sockets, under one lock.
pub(crate) struct Delivery<'a>(MutexGuard<'a, SlotMap<SourceKey, Slot>>);

impl Delivery<'_> {
    /// Has the processor fetch what [`deliver`](Self::deliver), and then the task, will look at.
    pub(crate) fn foresee(&self, key: SourceKey) {
        let Some(slot) = self.0.get(key) else {
            return;
        };
        prefetch_pair(Arc::as_ptr(&slot.source).addr());
        if let Some(reader) = &slot.reader {
            prefetch(Arc::as_ptr(reader).addr());
            slot.footprint.prefetch();
        }
    }

    /// Records the event. The wakers of who waits for it are appended to `wakers`, to be woken after the lock is
    /// gone.
    // Never: inlined, it takes registers from the events of callbacks, which go the same way (10 instructions each).
    #[inline(never)]
    pub(crate) fn deliver(&self, key: SourceKey, ready: Ready, wakers: &mut Vec<Arc<Waker>>) {
        let Some(slot) = self.0.get(key) else {
            return;
        };
        let waiting = slot.source.readiness.record(ready);
        if waiting.includes(Interest::Read)
            && let Some(reader) = &slot.reader
        {
            wakers.push(Arc::clone(reader));
        }
        if waiting.includes(Interest::Write)
            && let Some(writer) = &slot.writer
        {
            wakers.push(Arc::clone(writer));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use slotmap::SlotMap;

    use crate::driver::readiness::{Interest, Ready};
    use crate::driver::slots::{IoKey, Slot, Slots, Target, target_of, token_of};

    #[test]
    fn a_token_comes_back_as_the_target_it_was_made_of() {
        let slots = Slots::default();
        let source = slots.insert(Slot::default());
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
        let old = slots.insert(Slot::default());
        slots.remove(old);
        let slot = Slot::default();
        let tenant = Arc::clone(&slot.source);
        let new = slots.insert(slot);
        assert_ne!(old, new);
        slots.begin().deliver(old, Ready::READABLE, &mut Vec::new());
        assert!(tenant.readiness.look(Interest::Read).ready().is_none());
    }
}

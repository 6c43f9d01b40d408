//! What a loop counts about itself: a counter costs its loop one plain load and store.

use crate::atomics::{AtomicU64, Ordering};

/// A number that one thread writes and any thread reads.
///
/// Not a read-modify-write: two writers would lose counts. Relaxed, and its value promises nothing
/// about other memory.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// By the owner only.
    pub(crate) fn add(&self, n: u64) {
        let value = self.0.load(Ordering::Relaxed);
        self.0.store(value.wrapping_add(n), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters that the home loop writes.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) turns: Counter,
    pub(crate) polls: Counter,
    pub(crate) events: Counter,
    pub(crate) handles_run: Counter,
    pub(crate) tasks_run: Counter,
    pub(crate) callback_panics: Counter,
    pub(crate) messages: Counter,
    pub(crate) timers_fired: Counter,
    pub(crate) parks: Counter,
    pub(crate) searches: Counter,
    /// Tasks this loop took from others.
    pub(crate) stolen: Counter,
    /// Times this loop turned the driver of one that was stuck.
    pub(crate) rescues: Counter,
    /// Unparks this loop sent.
    pub(crate) unparks_sent: Counter,
}

//! What the connections of a TCP service have counted: how many began, how they ended, how much they were answered.
//!
//! One tally a loop, so that loops do not share a cache line. A connection counts on the loop that accepted it,
//! wherever its task runs.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use garland::LocalLoop;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The caller closed it, and has all its answers.
    End,
    /// Nothing moved for the idle timeout.
    Idle,
    /// Sending or receiving failed.
    Error,
    /// It was open when the daemon ended.
    Cut,
}

/// Every reason, with its label.
pub(crate) const REASONS: [(Reason, &str); 4] = [
    (Reason::End, "end"),
    (Reason::Idle, "idle"),
    (Reason::Error, "error"),
    (Reason::Cut, "cut"),
];

/// The tallies of one service, by loop.
pub(crate) type Tallies = Arc<[Tally]>;

/// What one loop has counted for one service. Each number is a plain count, which any thread may read.
#[derive(Debug, Default)]
#[repr(align(128))] // Two cache lines, which the processor fetches together.
pub(crate) struct Tally {
    accepted: AtomicU64,
    /// In the order of [`REASONS`].
    closed: [AtomicU64; REASONS.len()],
    bytes: AtomicU64,
}

impl Tally {
    /// One for each loop.
    pub(crate) fn for_loops(loops: usize) -> Tallies {
        (0..loops).map(|_| Tally::default()).collect()
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    pub(crate) fn closed(&self, reason: Reason) -> u64 {
        self.closed[reason as usize].load(Ordering::Relaxed)
    }

    /// Never below zero, although the numbers are read one after the other.
    pub(crate) fn open(&self) -> u64 {
        let closed = REASONS.iter().map(|(reason, _)| self.closed(*reason));
        let closed: u64 = closed.sum();
        self.accepted().saturating_sub(closed)
    }

    /// Bytes answered.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// One connection: counted in when it is made, and out when it is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    tallies: Tallies,
    home: usize,
    reason: Reason,
}

impl Counted {
    /// A connection that the loop of this thread has accepted.
    pub(crate) fn begin(tallies: &Tallies) -> Counted {
        let home = LocalLoop::current().expect("connections are accepted by loops");
        let home = home.id().index();
        tallies[home].accepted.fetch_add(1, Ordering::Relaxed);
        Counted {
            tallies: Arc::clone(tallies),
            home,
            reason: Reason::Cut,
        }
    }

    pub(crate) fn answered(&self, bytes: usize) {
        let count = &self.tallies[self.home].bytes;
        count.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Why it ends; without this it was cut.
    pub(crate) fn ends_by(&mut self, reason: Reason) {
        self.reason = reason;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let closed = &self.tallies[self.home].closed[self.reason as usize];
        closed.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use crate::tally::REASONS;

    #[test]
    fn each_reason_has_its_own_counter() {
        for (place, (reason, _)) in REASONS.iter().enumerate() {
            assert_eq!(*reason as usize, place);
        }
    }
}

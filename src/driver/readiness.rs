//! What the kernel has said about one socket, in one word.
//!
//! Keeps invariant I3 (no lost readiness): the selector is edge-triggered, so an event that is
//! forgotten never comes again. Each event raises the tick of its interest; an operation that met
//! "would block" may clear the direction only if the tick is still the one it saw *before* the
//! operation. An event that came in between keeps its flag.
//!
//! Pure: no selector, no socket. Wakers are beside the word, in [`Source`](super::slots::Source).

use crate::atomics::{AtomicU64, Ordering};

/// A set of things that may be true of a socket.
///
/// Where epoll has a bit for it, it is the same bit here: then the compiler makes one mask of what would be
/// a test for each (8 instructions an event).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ready(u8);

impl Ready {
    pub(crate) const NONE: Ready = Ready(0);
    pub(crate) const READABLE: Ready = Ready(1);
    /// Urgent data: a receive stops in front of it, however much is behind.
    pub(crate) const URGENT: Ready = Ready(1 << 1);
    pub(crate) const WRITABLE: Ready = Ready(1 << 2);
    pub(crate) const ERROR: Ready = Ready(1 << 3);
    /// The peer has finished sending, or the connection is gone.
    pub(crate) const READ_CLOSED: Ready = Ready(1 << 4);
    pub(crate) const WRITE_CLOSED: Ready = Ready(1 << 5);

    pub(crate) const fn or(self, other: Ready) -> Ready {
        Ready(self.0 | other.0)
    }

    pub(crate) const fn or_if(self, condition: bool, other: Ready) -> Ready {
        if condition { self.or(other) } else { self }
    }

    pub(crate) const fn intersects(self, other: Ready) -> bool {
        self.0 & other.0 != 0
    }

    /// No further edge will come for reading, or the kernel cuts reads short: a short read is not proof
    /// that all was read.
    pub(crate) const fn is_final(self) -> bool {
        self.intersects(Ready::READ_CLOSED.or(Ready::ERROR).or(Ready::URGENT))
    }
}

/// One of the two directions of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Read,
    Write,
}

impl Interest {
    /// What makes an operation in this direction worth trying.
    pub(crate) const fn mask(self) -> Ready {
        match self {
            Interest::Read => Ready::READABLE
                .or(Ready::READ_CLOSED)
                .or(Ready::ERROR)
                .or(Ready::URGENT),
            Interest::Write => Ready::WRITABLE.or(Ready::WRITE_CLOSED).or(Ready::ERROR),
        }
    }

    const fn tick_shift(self) -> u32 {
        match self {
            Interest::Write => FLAG_BITS,
            Interest::Read => FLAG_BITS + TICK_BITS,
        }
    }
}

const FLAG_BITS: u32 = 8;
/// A clear would go wrong only if exactly 2^28 events came between its look and its write.
const TICK_BITS: u32 = 28;
const TICK_MASK: u64 = (1 << TICK_BITS) - 1;
const _: () = assert!(FLAG_BITS + 2 * TICK_BITS == u64::BITS);

/// The word: `[ read tick : 28 | write tick : 28 | flags : 8 ]`. Ticks are raised by addition: the upper one wraps
/// by itself, and the lower one carries into it when it wraps, which keeps one clear from clearing. That
/// costs its direction a would-block more, once in 2^28 events.
///
/// Written by whoever turns the driver (`record`) and by the operations of the socket's owner
/// (`clear`), from any loop. `record` releases, `look` acquires: who sees a flag sees what the
/// recording thread did before it.
#[derive(Debug)]
pub(crate) struct Readiness(AtomicU64);

/// What an operation saw before it began; the evidence that `clear` asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) ready: Ready,
    tick: u64,
}

impl Readiness {
    pub(crate) fn new() -> Self {
        Readiness(AtomicU64::new(0))
    }

    /// Adds what an event said and raises the ticks of the directions it touches. Returns what was known before.
    pub(crate) fn record(&self, event: Ready) -> Ready {
        let mut ticks = 0;
        for interest in [Interest::Read, Interest::Write] {
            if event.intersects(interest.mask()) {
                ticks += 1 << interest.tick_shift();
            }
        }
        let add = |word: u64| Some((word | u64::from(event.0)).wrapping_add(ticks));
        let before = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, add);
        flags(before.expect("the closure never refuses"))
    }

    /// What is ready in this interest, if anything is.
    pub(crate) fn look(&self, interest: Interest) -> Option<Look> {
        let word = self.0.load(Ordering::Acquire);
        let ready = flags(word);
        ready.intersects(interest.mask()).then(|| Look {
            ready,
            tick: tick(word, interest),
        })
    }

    /// The kernel has just said "would block": nothing of what was seen is true any more, unless
    /// a newer event says so.
    pub(crate) fn clear(&self, interest: Interest, seen: Look) {
        let mut word = self.0.load(Ordering::Acquire);
        while tick(word, interest) == seen.tick {
            let cleared = word & !u64::from(interest.mask().0);
            match self
                .0
                .compare_exchange_weak(word, cleared, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return,
                Err(newer) => word = newer,
            }
        }
    }
}

fn flags(word: u64) -> Ready {
    Ready((word & ((1 << FLAG_BITS) - 1)) as u8)
}

fn tick(word: u64, interest: Interest) -> u64 {
    (word >> interest.tick_shift()) & TICK_MASK
}

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use crate::atomics::AtomicU64;
    use crate::driver::readiness::{FLAG_BITS, Interest, Readiness, Ready};

    #[test]
    fn an_event_between_look_and_clear_survives() {
        let readiness = Readiness::new();
        readiness.record(Ready::READABLE);
        let seen = readiness.look(Interest::Read).expect("recorded");
        readiness.record(Ready::READABLE);
        readiness.clear(Interest::Read, seen);
        assert!(readiness.look(Interest::Read).is_some());
    }

    #[test]
    fn clearing_one_direction_leaves_the_other() {
        let readiness = Readiness::new();
        readiness.record(Ready::READABLE.or(Ready::WRITABLE));
        let seen = readiness.look(Interest::Read).expect("recorded");
        readiness.clear(Interest::Read, seen);
        assert!(readiness.look(Interest::Read).is_none());
        assert!(readiness.look(Interest::Write).is_some());
    }

    #[test]
    fn a_write_event_does_not_protect_an_old_read_flag() {
        let readiness = Readiness::new();
        readiness.record(Ready::READABLE);
        let seen = readiness.look(Interest::Read).expect("recorded");
        readiness.record(Ready::WRITABLE);
        readiness.clear(Interest::Read, seen);
        assert!(readiness.look(Interest::Read).is_none());
    }

    #[test]
    fn a_tick_that_wraps_leaves_the_flags_and_at_worst_keeps_a_clear_from_clearing() {
        let readiness = Readiness(AtomicU64::new(u64::MAX << FLAG_BITS));
        readiness.record(Ready::READABLE);
        let read = readiness.look(Interest::Read).expect("recorded");
        assert_eq!(read.tick, 0);
        assert!(readiness.look(Interest::Write).is_none());
        // The write tick was at its end, and carries.
        readiness.record(Ready::WRITABLE);
        let write = readiness.look(Interest::Write).expect("recorded");
        assert_eq!(write.tick, 0);
        readiness.clear(Interest::Read, read);
        let read = readiness.look(Interest::Read).expect("kept once");
        readiness.clear(Interest::Read, read);
        assert!(readiness.look(Interest::Read).is_none());
        assert!(readiness.look(Interest::Write).is_some());
    }
}

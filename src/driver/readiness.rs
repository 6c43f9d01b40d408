//! What the kernel has said about one socket, in one word.
//!
//! Keeps invariant I3 (no lost readiness): the selector is edge-triggered, so an event that is
//! forgotten never comes again. Each event raises the tick of its interest; an operation that met
//! "would block" notes the tick that it saw *before* the operation. A direction is ready as long as its tick is
//! another one than was noted: an event that came in between keeps it ready.
//!
//! # The protocol
//!
//! **Operate**, by whoever uses the socket
//! - O1 [`Readiness::look`]; ready: try, and if there is nothing left, [`Readiness::clear`] with that look
//! - O2 not ready: have the waker kept in the slot, then [`Readiness::wait`] with that look. Refused: back to O1
//!
//! **Report**, by whoever turns the driver
//! - E1 under the lock of the slots, [`Readiness::record`]
//! - E2 whom it names as waiting: take hold of the waker that is kept for it; wake it when the lock is gone
//!
//! # Nobody waits for what has come
//!
//! `wait` and `record` change one word, so they have an order. If the record comes first, `wait` finds another word
//! than its look, and is refused. If the wait comes first, the record finds that somebody waits; and as the waker was kept before
//! that, under the same lock, E2 finds it, or that of a later caller. ∎
//!
//! Pure: no selector, no socket. Wakers are beside the word, in the [`Slots`](super::slots::Slots). The model is
//! `models/m3_readiness.rs`.

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

    const fn tick_mask(self) -> u64 {
        ((1 << TICK_BITS) - 1) << self.tick_shift()
    }

    /// Set by `wait`; cleared by `record`, which then has somebody to wake.
    const fn waited(self) -> u64 {
        match self {
            Interest::Write => 1 << 6,
            Interest::Read => 1 << 7,
        }
    }
}

const FLAG_BITS: u32 = 8;
/// What [`Ready`] has of them; the other two are [`Interest::waited`].
const READY_MASK: u64 = (1 << 6) - 1;
/// A clear would go wrong only if exactly 2^28 events came between its look and its write.
const TICK_BITS: u32 = 28;
const _: () = assert!(FLAG_BITS + 2 * TICK_BITS == u64::BITS);

/// What is known of one socket.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    /// `[ read tick : 28 | write tick : 28 | flags : 8 ]`. Ticks are raised by addition: the upper one wraps
    /// by itself, and the lower one carries into it when it wraps. That
    /// costs its direction a would-block more, once in 2^28 events.
    ///
    /// Written by whoever turns the driver (`record`) and by the operations of the socket's owner
    /// (`wait`), from any loop. `record` releases, `look` acquires: who sees a tick sees what the
    /// recording thread did before it.
    word: AtomicU64,
    /// The tick at which there was last nothing left to read, in its place. Written and read by the operations. Relaxed:
    /// an old one, or one of another operation, differs from the tick, and costs a would-block; the same one says what
    /// it says, whoever wrote it.
    read_drained: AtomicU64,
    /// The same for writing.
    write_drained: AtomicU64,
}

/// What an operation saw before it began; the evidence that `clear` and `wait` ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    word: u64,
    is_ready: bool,
}

impl Look {
    /// What is ready, if anything is.
    pub(crate) fn ready(self) -> Option<Ready> {
        self.is_ready.then(|| flags(self.word))
    }
}

/// Who waits for an event that was recorded.
#[derive(Clone, Copy, Debug)]
#[must_use = "they are to be woken"]
pub(crate) struct Waiting(u64);

impl Waiting {
    pub(crate) fn includes(self, interest: Interest) -> bool {
        self.0 & interest.waited() != 0
    }
}

impl Readiness {
    /// Adds what an event said and raises the ticks of the directions it touches (E1).
    pub(crate) fn record(&self, event: Ready) -> Waiting {
        let mut ticks = 0;
        let mut waited = 0;
        for interest in [Interest::Read, Interest::Write] {
            if event.intersects(interest.mask()) {
                ticks += 1 << interest.tick_shift();
                waited |= interest.waited();
            }
        }
        let add = |word: u64| Some(((word & !waited) | u64::from(event.0)).wrapping_add(ticks));
        let before = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, add);
        Waiting(before.expect("the closure never refuses") & waited)
    }

    /// Whether anything is ready in this interest (O1).
    pub(crate) fn look(&self, interest: Interest) -> Look {
        let word = self.word.load(Ordering::Acquire);
        let drained = self.drained(interest).load(Ordering::Relaxed);
        Look {
            word,
            is_ready: word & interest.tick_mask() != drained,
        }
    }

    /// The kernel has just said "would block": nothing of what was seen is true any more, unless
    /// a newer event says so.
    pub(crate) fn clear(&self, interest: Interest, seen: Look) {
        let tick = seen.word & interest.tick_mask();
        self.drained(interest).store(tick, Ordering::Relaxed);
    }

    /// The next event is to wake who waits for this interest, and whose waker is kept (O2). False: something has
    /// changed since the look, perhaps by that event.
    #[must_use = "refused: nobody will be woken"]
    pub(crate) fn wait(&self, interest: Interest, seen: Look) -> bool {
        // What was said of a direction that is used up is true no longer.
        let waiting = (seen.word & !u64::from(interest.mask().0)) | interest.waited();
        // Release: partner is record, for who is woken by it.
        let changed =
            self.word
                .compare_exchange(seen.word, waiting, Ordering::AcqRel, Ordering::Relaxed);
        changed.is_ok()
    }

    fn drained(&self, interest: Interest) -> &AtomicU64 {
        match interest {
            Interest::Read => &self.read_drained,
            Interest::Write => &self.write_drained,
        }
    }
}

fn flags(word: u64) -> Ready {
    Ready((word & READY_MASK) as u8)
}

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use crate::atomics::AtomicU64;
    use crate::driver::readiness::{FLAG_BITS, Interest, Readiness, Ready};

    #[test]
    fn an_event_between_look_and_clear_survives() {
        let readiness = Readiness::default();
        let _nobody = readiness.record(Ready::READABLE);
        let seen = readiness.look(Interest::Read);
        let _nobody = readiness.record(Ready::READABLE);
        readiness.clear(Interest::Read, seen);
        assert!(is_ready(&readiness, Interest::Read));
    }

    #[test]
    fn clearing_one_direction_leaves_the_other() {
        let readiness = Readiness::default();
        let _nobody = readiness.record(Ready::READABLE.or(Ready::WRITABLE));
        drain(&readiness, Interest::Read);
        assert!(!is_ready(&readiness, Interest::Read));
        assert!(is_ready(&readiness, Interest::Write));
    }

    #[test]
    fn a_write_event_does_not_protect_an_old_read_flag() {
        let readiness = Readiness::default();
        let _nobody = readiness.record(Ready::READABLE);
        let seen = readiness.look(Interest::Read);
        let _nobody = readiness.record(Ready::WRITABLE);
        readiness.clear(Interest::Read, seen);
        assert!(!is_ready(&readiness, Interest::Read));
    }

    #[test]
    fn an_event_names_who_waits_for_it_and_once() {
        let readiness = Readiness::default();
        let seen = readiness.look(Interest::Read);
        assert!(readiness.wait(Interest::Read, seen));
        let woken = readiness.record(Ready::WRITABLE);
        assert!(!woken.includes(Interest::Read) && !woken.includes(Interest::Write));
        let woken = readiness.record(Ready::READABLE);
        assert!(woken.includes(Interest::Read) && !woken.includes(Interest::Write));
        assert!(!readiness.record(Ready::READABLE).includes(Interest::Read));
    }

    #[test]
    fn a_wait_is_refused_if_an_event_has_come() {
        let readiness = Readiness::default();
        let seen = readiness.look(Interest::Read);
        let _nobody = readiness.record(Ready::READABLE);
        assert!(!readiness.wait(Interest::Read, seen));
        assert!(is_ready(&readiness, Interest::Read));
    }

    #[test]
    fn what_was_said_of_a_direction_is_forgotten_with_the_wait() {
        let readiness = Readiness::default();
        let _nobody = readiness.record(Ready::READABLE.or(Ready::URGENT));
        drain(&readiness, Interest::Read);
        let seen = readiness.look(Interest::Read);
        assert!(readiness.wait(Interest::Read, seen));
        let _reader = readiness.record(Ready::READABLE);
        let ready = readiness.look(Interest::Read).ready();
        assert_eq!(ready, Some(Ready::READABLE));
    }

    #[test]
    fn a_tick_that_wraps_at_worst_keeps_a_clear_from_clearing() {
        let all = u64::MAX << FLAG_BITS;
        let readiness = Readiness {
            word: AtomicU64::new(all),
            read_drained: AtomicU64::new(all & Interest::Read.tick_mask()),
            write_drained: AtomicU64::new(all & Interest::Write.tick_mask()),
        };
        let _nobody = readiness.record(Ready::READABLE);
        let read = readiness.look(Interest::Read);
        assert_eq!(read.ready(), Some(Ready::READABLE));
        assert!(!is_ready(&readiness, Interest::Write));
        // The write tick was at its end, and carries.
        let _nobody = readiness.record(Ready::WRITABLE);
        assert!(is_ready(&readiness, Interest::Write));
        readiness.clear(Interest::Read, read);
        assert!(is_ready(&readiness, Interest::Read), "kept once");
        drain(&readiness, Interest::Read);
        assert!(!is_ready(&readiness, Interest::Read));
        assert!(is_ready(&readiness, Interest::Write));
    }

    fn is_ready(readiness: &Readiness, interest: Interest) -> bool {
        readiness.look(interest).ready().is_some()
    }

    fn drain(readiness: &Readiness, interest: Interest) {
        readiness.clear(interest, readiness.look(interest));
    }
}

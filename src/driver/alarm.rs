//! The handshake between a loop that goes to sleep and a timer that another thread arms meanwhile.
//!
//! A loop sleeps until the earliest deadline of its wheel. If another thread inserts an earlier timer, either the
//! loop must see it before it blocks, or the inserter must see that the loop sleeps too long and unpark it. This
//! file holds the two words in which they see each other. It knows neither the wheel nor the
//! selector, and it reads no clock: times are nanoseconds of the driver's clock, [`NEVER`] stands for "no timer".
//!
//! # The protocol
//!
//! **Insert**, by any thread
//! - T1 under the wheel's lock: change the wheel, [`Alarm::publish`] its earliest deadline; unlock
//! - T2 fence F5
//! - T3 read how long the loop sleeps; past the new deadline: unpark it ([`Alarm::sleeps_past`])
//!
//! The loop's own thread needs no T2 ([`Alarm::rests_past`]): T3 reads what this very thread wrote last, and S1 comes
//! before T1 or after T3. It inserts while a foreign loop waits for it, or else finds it awake.
//!
//! **Park** ([`Alarm::park`]), by the loop, holding its driver's lock, so that nobody eats the unpark of T3
//! - S1 read the next deadline, publish it as the time the loop will sleep until
//! - S2 fence F3
//! - S3 read the next deadline again, and sleep until the earlier of the two
//! - S4 on waking, whatever the reason: [`Alarm::unpark`]
//!
//! # No timer is slept through
//!
//! Let `d` be the new deadline. The fences have one total order.
//! 1. F5 before F3: S3 reads the value of T1, or of a later T1. The wheel's lock orders those, so a later one
//!    is still no later than `d` unless the timer has fired or was cancelled. The loop sleeps until `d` at most.
//! 2. F3 before F5: T3 reads the value of S1, or of a later S4 or S1. If the loop still sleeps it is the value of S1, which
//!    is not earlier than the end of the sleep; so if the loop sleeps past `d`, T3 sees it.
//!
//! ∎
//!
//! S3 asks once, it does not repeat until nothing changes: what S1 published may be later than the real end
//! of the sleep, never earlier, and the price is an unpark too many. Without the bound, a thread that arms and
//! cancels timers could keep the loop from sleeping, and from waking others' timers, for as long as it likes.
//!
//! All accesses are `Relaxed`: what the words stand for is guarded by the wheel's lock, and the two fences give
//! the order between the words.
//!
//! The model is `models/m5_alarm.rs`.

use crate::atomics::{AtomicU64, Fence, Ordering, fence_at};

/// A deadline that never comes: the wheel is empty.
pub(crate) const NEVER: u64 = u64::MAX;

/// Value of [`Alarm::parked_until`] while the loop is awake: no deadline is before it.
const NOT_PARKED: u64 = 0;

/// The two words. One per loop.
#[derive(Debug)]
pub(crate) struct Alarm {
    /// Earliest deadline of the loop's wheel. Written under the wheel's lock by whoever changed the wheel; read by
    /// the loop without it. Promises nothing about other memory. Partner: S3 reads what T1 wrote.
    next_deadline: AtomicU64,
    /// Not before this time does the sleep of the loop end by itself; [`NOT_PARKED`] while it is awake. Written by the
    /// loop only, read by inserters. Promises nothing about other memory. Partner: T3 reads what S1 wrote.
    parked_until: AtomicU64,
}

impl Alarm {
    /// An empty wheel of a loop that is awake.
    pub(crate) fn new() -> Self {
        Self {
            next_deadline: AtomicU64::new(NEVER),
            parked_until: AtomicU64::new(NOT_PARKED),
        }
    }

    /// The earliest deadline of the wheel, as last published.
    pub(crate) fn next_deadline(&self) -> u64 {
        self.next_deadline.load(Ordering::Relaxed)
    }

    /// Under the wheel's lock, after every change of the wheel: its earliest deadline is now `next` (T1).
    pub(crate) fn publish(&self, next: u64) {
        self.next_deadline.store(next, Ordering::Relaxed);
    }

    /// By an inserter, after [`Alarm::publish`] and after unlocking the wheel (T2, T3). `true`: the loop sleeps past
    /// `deadline` and must be unparked.
    #[must_use = "a loop that sleeps past the deadline must be unparked"]
    pub(crate) fn sleeps_past(&self, deadline: u64) -> bool {
        fence_at(Fence::F5);
        self.rests_past(deadline)
    }

    /// As [`Alarm::sleeps_past`], asked by the thread of the loop itself (T3).
    #[must_use = "a foreign loop that waits past the deadline must be woken"]
    pub(crate) fn rests_past(&self, deadline: u64) -> bool {
        self.parked_until.load(Ordering::Relaxed) > deadline
    }

    /// By the loop, holding its driver's lock, before it blocks (S1–S3). Returns the time to sleep until.
    #[must_use = "the sleep must end at the time returned"]
    pub(crate) fn park(&self) -> u64 {
        let announced = self.next_deadline();
        self.parked_until.store(announced, Ordering::Relaxed);
        fence_at(Fence::F3);
        announced.min(self.next_deadline())
    }

    /// By the loop, on waking (S4).
    pub(crate) fn unpark(&self) {
        self.parked_until.store(NOT_PARKED, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use super::{Alarm, NEVER};

    #[test]
    fn a_loop_that_is_awake_never_sleeps_past_anything() {
        let alarm = Alarm::new();
        assert!(!alarm.sleeps_past(1));
        assert_eq!(alarm.park(), NEVER);
        alarm.unpark();
        assert!(!alarm.sleeps_past(1));
    }

    #[test]
    fn only_an_earlier_deadline_unparks() {
        let alarm = Alarm::new();
        alarm.publish(100);
        assert_eq!(alarm.park(), 100);
        assert!(alarm.sleeps_past(99));
        assert!(!alarm.sleeps_past(100));
        assert!(!alarm.sleeps_past(NEVER));
    }

    #[test]
    fn a_loop_without_timers_sleeps_past_every_deadline() {
        let alarm = Alarm::new();
        assert_eq!(alarm.park(), NEVER);
        assert!(alarm.sleeps_past(NEVER - 1));
    }
}

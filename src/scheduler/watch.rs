//! Who keeps watch while others sleep: one loop that is parked, and wakes now and then to look at the rest.
//!
//! A loop that is stuck cannot call for help. So as long as any loop runs user code, a parked one has a limit to
//! its sleep, and looks at the pulses when it is over. Where nothing runs nobody has to watch: then all may
//! sleep without a limit, *deeply*, and an idle process is woken by nobody.
//!
//! Pure: it says how long a loop may sleep and whom to wake; looking and helping are in `rescue.rs`.
//!
//! # The protocol
//!
//! **Fall asleep** ([`Watch::fall_asleep`]), by a loop whose idle bit is set
//! - W1 nobody keeps watch: take it over, and sleep for [`Sleep::Watch`]
//! - W2 somebody does, and this loop has not been at rest for long: [`Sleep::Late`], a longer limit
//! - W3 this loop has been at rest for long: give the watch back, set the deep bit; fence F4; somebody else keeps
//!   watch, or no pulse runs: [`Sleep::Deep`]. Neither: take the bit back, W1 or W2
//!
//! **Leave** ([`Watch::leave`]), by a loop that has left idle and has set its pulse running, which it stays until the
//! loop sleeps again; and by a loop that keeps watch and is not turned any more
//! - V1 give the watch back; fence F4; nobody keeps watch and a deep bit is set: wake that loop, which then takes
//!   the watch over
//!
//! # Watched (I6)
//!
//! Claim: if a loop runs user code and another is parked, then some parked loop has a limit to its sleep, or an
//! unpark is under way to one.
//!
//! Let `r` run, having passed F4(r) in V1, and let every parked loop sleep deeply. Let `d` be the one of them whose
//! F4(d) in W3 came last.
//! 1. F4(r) < F4(d): `d` saw that `r` runs, so it must have seen a loop `w` that kept watch. `w` was parked then,
//!    and is not any more (all that are parked sleep deeply): it left, and its V1 cleared the watch after `d` had
//!    read it. So F4(d) < F4(w), and `w` saw the bit of `d`: it woke `d`, or saw a loop that had taken the watch
//!    since, to which this step applies in turn.
//! 2. F4(d) < F4(r): `r` saw the bit of `d`, and woke it, or saw somebody who kept watch: as above. ∎
//!
//! A loop that leaves and is not followed by anybody who sleeps deeply wakes nobody: the others' limits end by
//! themselves, [`Sleep::Late`] at the latest. That is the price for a hand-over without a system call, and it is
//! in the bound of I5.
//!
//! The model is `models/m6_watch.rs`.

use crate::atomics::{AtomicU64, AtomicUsize, Fence, Ordering, fence_at};

/// Nobody keeps watch.
const NOBODY: usize = 0;

/// How long a parked loop may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the sleep must have this limit"]
pub(crate) enum Sleep {
    /// Until the next look at the others.
    Watch,
    /// A few times longer: somebody else keeps watch, but may leave.
    Late,
    /// Until it is woken.
    Deep,
}

/// One for the whole runtime.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// The loop that keeps watch, plus one; [`NOBODY`]. Set by a loop about itself, by CAS; cleared by the same loop.
    /// Partner: what W3 and V1 read, under F4.
    watcher: AtomicUsize,
    /// One bit per loop that sleeps without a limit. Set by the loop itself (W3), cleared by it. Partner: V1, under F4.
    deep: AtomicU64,
}

impl Watch {
    /// W1 to W3. `rested`: this loop has looked often enough, and found nothing that moved. `nobody_runs` reads the
    /// pulses of the others.
    pub(crate) fn fall_asleep(
        &self,
        id: usize,
        rested: bool,
        nobody_runs: impl FnOnce() -> bool,
    ) -> Sleep {
        if rested {
            self.give_back(id);
            self.deep.fetch_or(1 << id, Ordering::Relaxed);
            fence_at(Fence::F4Sleep);
            if self.watcher.load(Ordering::Relaxed) != NOBODY || nobody_runs() {
                return Sleep::Deep;
            }
            self.deep.fetch_and(!(1 << id), Ordering::Relaxed);
        }
        let me = id + 1;
        let taken = self
            .watcher
            .compare_exchange(NOBODY, me, Ordering::Relaxed, Ordering::Relaxed);
        match taken {
            Ok(_) => Sleep::Watch,
            Err(watcher) if watcher == me => Sleep::Watch,
            Err(_) => Sleep::Late,
        }
    }

    /// On waking, whatever the reason: this loop does not sleep deeply any more.
    pub(crate) fn wake(&self, id: usize) {
        if self.deep.load(Ordering::Relaxed) & (1 << id) != 0 {
            self.deep.fetch_and(!(1 << id), Ordering::Relaxed);
        }
    }

    /// V1, after the first beat of a turn that follows a sleep. The loop returned sleeps deeply, and must be unparked.
    #[must_use = "the loop returned has to take the watch over"]
    pub(crate) fn leave(&self, id: usize) -> Option<usize> {
        self.give_back(id);
        fence_at(Fence::F4Leave);
        let deep = self.deep.load(Ordering::Relaxed);
        if deep == 0 || self.watcher.load(Ordering::Relaxed) != NOBODY {
            return None;
        }
        Some(deep.trailing_zeros() as usize)
    }

    /// Asked by loop `id` about itself.
    pub(crate) fn is_kept_by(&self, id: usize) -> bool {
        self.watcher.load(Ordering::Relaxed) == id + 1
    }

    fn give_back(&self, id: usize) {
        if self.is_kept_by(id) {
            self.watcher.store(NOBODY, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use crate::scheduler::watch::{Sleep, Watch};

    #[test]
    fn one_loop_keeps_watch_and_the_others_sleep_longer() {
        let watch = Watch::default();
        assert_eq!(watch.fall_asleep(1, false, || false), Sleep::Watch);
        assert_eq!(watch.fall_asleep(0, false, || false), Sleep::Late);
        assert_eq!(watch.fall_asleep(1, false, || false), Sleep::Watch, "still");
    }

    #[test]
    fn while_a_loop_runs_the_last_one_awake_does_not_sleep_deeply() {
        let watch = Watch::default();
        assert_eq!(watch.fall_asleep(1, true, || false), Sleep::Watch);
        assert_eq!(watch.fall_asleep(2, true, || false), Sleep::Deep);
        assert_eq!(watch.leave(0), None, "loop 1 keeps watch");
        assert_eq!(watch.leave(1), Some(2));
    }

    #[test]
    fn where_nothing_runs_nobody_watches_until_the_first_leaves() {
        let watch = Watch::default();
        assert_eq!(watch.fall_asleep(0, true, || true), Sleep::Deep);
        assert_eq!(watch.fall_asleep(1, true, || true), Sleep::Deep);
        watch.wake(0);
        assert_eq!(watch.leave(0), Some(1));
        watch.wake(1);
        assert_eq!(watch.fall_asleep(1, false, || false), Sleep::Watch);
        assert_eq!(watch.leave(0), None);
    }
}

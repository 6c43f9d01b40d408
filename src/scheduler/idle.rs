//! Which loops are parked, how many are searching: one word, and the rules by which a push never gets lost.
//!
//! The word holds `[searching:16 | idle mask:48]`. It answers a poster's only question, "must I unpark
//! somebody, and whom?", in one read, and it makes "parked" and "no longer searching" one step, so that no
//! state lies in between.
//!
//! This file does not unpark, does not search and knows no queue: it decides, and the caller acts. It does
//! not know which loop parked last either; of the parked ones the lowest is taken, which keeps light load
//! on few cores and lets the others sleep deeply.
//!
//! # The protocols
//!
//! **Post** ([`Idle::notify`], or [`Idle::claim`] for one particular loop)
//! - P1 push the work into a queue (`Release`)
//! - P2 fence F1
//! - P3 read the word: somebody searches, or nobody is parked: done
//! - P4 claim a loop: clear its bit and count it as searching, in one CAS; the poster does this for the sleeper,
//!   because between the claim and the sleeper's first instruction others would claim more
//! - P5 unpark it
//!
//! **Park** ([`Idle::transition_to_idle`])
//! - K1 set the bit, and stop searching, in one step
//! - K2 fence F2
//! - K3 look into *every* queue: the inbox, the injector, all deques; not only the last loop to park does this. The
//!   deque of a running loop that will soon be done with it counts as empty (see [`backlog`](super::backlog))
//! - K4 something there: [`Idle::leave_idle`], go on. Nothing: lock the driver, ask [`Idle::is_idle`]
//!   again, block. The second question is not for the word's sake: a loop that turned our driver
//!   between K3 and the lock may have eaten the unpark
//! - K5 on waking, whatever the reason: [`Idle::leave_idle`]
//!
//! **Leave the search** ([`Idle::leave_search`]), before running what was found and before any callback: a
//! searcher that runs user code silences every notify
//! - L1 stop counting as searching
//! - L2 fence F1
//! - L3 if that made the count zero ([`LeftSearch::Last`]): look into every queue again, own deque included
//! - L4 work there: P2–P5
//!
//! **Carry on after a retreat**: a loop that left idle as [`LeftIdle::Retracted`] and takes work has L3 and L4
//! as its duty too. Some poster may have relied on it while it still searched; it takes one item or one
//! batch, and nobody else knows about the rest.
//!
//! A cleared idle bit *is* the claim. A separate token, stored after the claim, can arrive after the sleeper
//! has already gone on, and then keeps it from ever sleeping again.
//!
//! # No lost wake-up (I1)
//!
//! Claim: a posted item is never left in a queue while a loop is parked, nobody searches, no unpark is under
//! way and nobody is bound to look at the queues again.
//!
//! Let `x` be the item and `F1(x)` its poster's fence. SeqCst fences have one total order. A loop `k` that
//! is parked for good has passed `F2(k)`.
//! 1. `F1(x) < F2(k)`: K3 of `k` sees `x`, or that somebody took it.
//! 2. `F2(k) < F1(x)`: P3 sees the bit of `k`, or a later word. If it sees no searcher it claims somebody.
//! 3. It sees searchers. Let `h` be the one who, in the order of the word's changes, first brings the count to zero
//!    after the value P3 read. P3 did not see that step, so `F1(x)` is before the fence that follows
//!    it (L2 or K2), so the look of `h` that follows (L3 or K3) sees `x`, or that somebody took it.
//!    - In K3: `h` retreats and takes work; if that was not `x`, "carry on after a retreat" looks again.
//!    - In L3: `h` notifies. Its F1 is after `F1(x)`, hence after `F2(k)`: this P3 sees the bit of `k`. It
//!      claims somebody, or sees new searchers, to whom this step applies in turn.
//! 4. "Somebody took it" means a running loop has it in its hands or in its deque. A batch under way between two
//!    deques, or from the injector, can be seen in neither. Who did not search when it took one from the injector posts
//!    it anew (P2–P5) if there is more in it than it begins at once. A thief looks at the queues after the batch has landed (L3, or after a
//!    retreat); if it leaves as [`LeftSearch::NotLast`], the `AcqRel` of its L1 hands what it did to
//!    the L1 or K1 of the one who leaves last. Hence: move first, leave after.
//! 5. A claimed loop counts as a searcher from the very step that cleared its bit. ∎
//!
//! L3 looks before it notifies, where an unconditional notify would do. The look comes after the same
//! fence, so it misses only what was pushed after it, and that poster sees the count at zero and does P4 itself.
//! It saves an unpark at the end of each burst: the last searcher mostly took the last item.
//!
//! The models are `models/m1_post_against_park.rs` and `models/m2_leave_search.rs`.

use core::fmt;

use crossbeam_utils::CachePadded;

use crate::atomics::{AtomicU64, Fence, Ordering, fence_at};

/// How many loops fit into the idle mask.
pub(crate) const MAX_LOOPS: usize = 48;

/// One bit per parked loop. Set by the loop itself (K1); cleared by a poster, who claims it (P4), or by the loop
/// itself (K4, K5). Never set while the same loop counts as searching.
const IDLE_MASK: u64 = (1 << MAX_LOOPS) - 1;

/// One searching loop. Added by a loop that starts to search and by whoever claims a loop (P4); taken away
/// by that loop (L1, K1).
const ONE_SEARCHING: u64 = 1 << MAX_LOOPS;

const _: () = assert!(
    MAX_LOOPS < 1 << (u64::BITS as usize - MAX_LOOPS),
    "every loop at once must be countable as searching"
);

/// Who is parked and how many search. One for the whole runtime.
///
/// ```text
///             try_start_search            transition_to_idle
///   running ────────────────▶ searching ────────────────────▶ idle
///     ▲  ▲                     │     ▲                         │ │
///     │  └──── leave_search ───┘     └──── notify, claim ──────┘ │
///     │                                    (by somebody else)    │
///     └────────── leave_idle: Retracted ◀────────────────────────┘
/// ```
/// A running loop may also go to idle directly, if somebody else is searching.
pub(crate) struct Idle {
    /// Written by every loop about itself and by posters about the loop they claim; read by posters.
    ///
    /// A cleared bit promises the claimed loop that it sees what the claimer pushed (claim `Release`,
    /// [`Idle::leave_idle`] `Acquire`). A count that falls promises to whoever takes it
    /// down next that it sees what the former searchers moved (`AcqRel` with itself). The rest, work against
    /// parked loops, is the business of the fences F1 and F2, for which no ordering of this word suffices.
    word: CachePadded<AtomicU64>,
}

/// Evidence that this loop is counted as searching. It must end in [`Idle::leave_search`] or
/// [`Idle::transition_to_idle`]: as long as it lives, no poster unparks anybody.
#[derive(Debug)]
#[must_use = "while a loop counts as searching, no poster unparks anybody"]
pub(crate) struct Searching {
    _counted: (),
}

/// How a loop came out of idle.
#[derive(Debug)]
#[must_use = "a claimed loop counts as searching"]
pub(crate) enum LeftIdle {
    /// Nobody had claimed the loop. It does not count as searching, and may take work all the same; having
    /// taken some it must look at all queues again and [`notify`](Idle::notify) if it sees more.
    Retracted,
    /// Somebody claimed the loop and counted it as searching; it has to search, or to leave the search.
    Claimed(Searching),
}

/// What a loop has to do after leaving the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the last searcher must look at all queues again"]
pub(crate) enum LeftSearch {
    /// Nobody searches any more: look at all queues again, own deque included, and [`notify`](Idle::notify) if
    /// there is work.
    Last,
    /// Another loop searches, and will have that duty.
    NotLast,
}

impl Idle {
    /// Nobody parked, nobody searching.
    pub(crate) fn new() -> Self {
        Self {
            word: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// Called after a push (steps P2–P4): claims one parked loop, unless somebody searches.
    /// The caller must unpark the loop returned.
    #[must_use = "the loop returned is claimed and must be unparked"]
    pub(crate) fn notify(&self) -> Option<usize> {
        fence_at(Fence::F1);
        let mut word = self.word.load(Ordering::Relaxed);
        while searching(word) == 0 && word & IDLE_MASK != 0 {
            let id = (word & IDLE_MASK).trailing_zeros() as usize;
            match self.try_claim(word, id) {
                Ok(()) => return Some(id),
                Err(now) => word = now,
            }
        }
        None
    }

    /// Called after a message for loop `id` alone (P2–P4): inbox, stop, an earlier timer. Whether somebody searches
    /// does not matter, nobody else can do this loop's work. `true`: the caller must unpark loop `id`.
    #[must_use = "the loop is claimed and must be unparked"]
    pub(crate) fn claim(&self, id: usize) -> bool {
        fence_at(Fence::F1);
        let mut word = self.word.load(Ordering::Relaxed);
        while word & idle_bit(id) != 0 {
            match self.try_claim(word, id) {
                Ok(()) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// P4. Fails with the word as it is now; each failure is a step forward of another loop.
    fn try_claim(&self, seen: u64, id: usize) -> Result<(), u64> {
        let claimed = (seen & !idle_bit(id)) + ONE_SEARCHING;
        // Release: partner is the Acquire in leave_idle of the loop claimed.
        self.word
            .compare_exchange_weak(seen, claimed, Ordering::Release, Ordering::Relaxed)
            .map(drop)
    }

    /// Before looking for work in other loops' queues. `None`: somebody else searches already; one at a time
    /// is enough, because the last of them wakes the next if there is more.
    pub(crate) fn try_start_search(&self) -> Option<Searching> {
        // Relaxed: that a loop starts to search promises nobody anything; that it stops, does.
        self.word
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                (searching(word) == 0).then(|| word + ONE_SEARCHING)
            })
            .ok()
            .map(|_| Searching { _counted: () })
    }

    /// After something was found and moved, before it is run (L1, L2).
    pub(crate) fn leave_search(&self, evidence: Searching) -> LeftSearch {
        let Searching { _counted: () } = evidence;
        // AcqRel: partner is the same step, or transition_to_idle, of the next loop to stop searching; if
        // that is the last one it must see what we have moved.
        let before = self.word.fetch_sub(ONE_SEARCHING, Ordering::AcqRel);
        debug_assert!(
            searching(before) > 0,
            "evidence of a search that was not counted"
        );
        fence_at(Fence::F1LeaveSearch);
        if searching(before) == 1 {
            LeftSearch::Last
        } else {
            LeftSearch::NotLast
        }
    }

    /// Loop `id` is about to park (K1, K2). The caller must now look at all queues, and may block only if it
    /// found them empty.
    pub(crate) fn transition_to_idle(&self, id: usize, evidence: Option<Searching>) {
        let stop_searching = evidence.map_or(0, |Searching { _counted: () }| ONE_SEARCHING);
        let change = idle_bit(id).wrapping_sub(stop_searching);
        // AcqRel: as in leave_search; this may be the step that takes the count to zero.
        let before = self.word.fetch_add(change, Ordering::AcqRel);
        debug_assert!(before & idle_bit(id) == 0, "a loop parks once at a time");
        debug_assert!(
            stop_searching == 0 || searching(before) > 0,
            "evidence of a search that was not counted"
        );
        fence_at(Fence::F2);
    }

    /// Loop `id` goes on (K4, K5): after its look at the queues found work, after its selector returned, after
    /// an unpark.
    pub(crate) fn leave_idle(&self, id: usize) -> LeftIdle {
        // Acquire: partner is the claim; a claimed loop must find what it was claimed for.
        let before = self.word.fetch_and(!idle_bit(id), Ordering::Acquire);
        if before & idle_bit(id) != 0 {
            LeftIdle::Retracted
        } else {
            LeftIdle::Claimed(Searching { _counted: () })
        }
    }

    /// Whether loop `id` is parked and unclaimed. Asked by the loop itself under its driver's lock, before it
    /// blocks; the lock and the kernel order the answer, so that it needs no ordering of its own.
    pub(crate) fn is_idle(&self, id: usize) -> bool {
        self.word.load(Ordering::Relaxed) & idle_bit(id) != 0
    }
}

impl fmt::Debug for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.load(Ordering::Relaxed);
        f.debug_struct("Idle")
            .field("searching", &searching(word))
            .field("idle", &format_args!("{:#b}", word & IDLE_MASK))
            .finish()
    }
}

/// How many loops the word counts as searching.
fn searching(word: u64) -> u64 {
    word >> MAX_LOOPS
}

/// The idle bit of loop `id`.
fn idle_bit(id: usize) -> u64 {
    debug_assert!(
        id < MAX_LOOPS,
        "the builder allows no more than MAX_LOOPS loops"
    );
    1 << id
}

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use super::{Idle, LeftIdle, LeftSearch, MAX_LOOPS};

    #[test]
    fn nobody_parked_means_nobody_is_notified() {
        assert_eq!(Idle::new().notify(), None);
    }

    #[test]
    fn a_claimed_loop_counts_as_searching_until_it_leaves() {
        let idle = Idle::new();
        idle.transition_to_idle(3, None);
        idle.transition_to_idle(5, None);
        assert_eq!(idle.notify(), Some(3));
        assert_eq!(idle.notify(), None, "loop 3 searches already");
        assert!(idle.try_start_search().is_none());
        let LeftIdle::Claimed(evidence) = idle.leave_idle(3) else {
            panic!("loop 3 was claimed");
        };
        assert_eq!(idle.leave_search(evidence), LeftSearch::Last);
        assert_eq!(idle.notify(), Some(5));
        assert!(!idle.is_idle(0));
    }

    #[test]
    fn a_claim_of_one_loop_ignores_searchers_and_happens_once() {
        let idle = Idle::new();
        let evidence = idle.try_start_search().expect("nobody searches yet");
        idle.transition_to_idle(MAX_LOOPS - 1, None);
        assert!(!idle.claim(0), "loop 0 runs");
        assert!(idle.claim(MAX_LOOPS - 1));
        assert!(!idle.claim(MAX_LOOPS - 1));
        assert_eq!(idle.leave_search(evidence), LeftSearch::NotLast);
    }

    #[test]
    fn an_unclaimed_loop_retracts_and_is_not_counted() {
        let idle = Idle::new();
        let evidence = idle.try_start_search().expect("nobody searches yet");
        idle.transition_to_idle(0, Some(evidence));
        assert!(idle.is_idle(0));
        assert!(matches!(idle.leave_idle(0), LeftIdle::Retracted));
        assert!(!idle.is_idle(0));
        assert!(
            idle.try_start_search().is_some(),
            "the count is back at zero"
        );
    }
}

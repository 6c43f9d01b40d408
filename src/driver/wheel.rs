//! The timer wheel of one loop: arms, cancels and releases timers, to the nanosecond and in order.
//!
//! **Algorithm.** G. Varghese and T. Lauck, *Hashed and Hierarchical Timing Wheels* (SOSP 1987),
//! in its hierarchical form. Time is counted in ticks of 2^[`TICK_SHIFT`] ns and a tick number is
//! read as [`LEVELS`] digits of [`SLOT_BITS`] bits. The wheel has a *position*, also a tick. A
//! timer lives on the level of the highest digit in which its tick differs from the position, in
//! the slot that this digit names. From that follow three things:
//!
//! * Levels, and the slots of a level, are in order of time and never wrap: the earliest slot is
//!   found by two `trailing_zeros`, whatever the distance.
//! * Eight levels cover every `u64`, so there is no overflow list and no farthest deadline.
//! * When the position enters a slot of a higher level, its timers are dealt out to lower levels
//!   (a *cascade*). Empty slots cost nothing: a jump of ten years costs the occupied ones.
//!
//! **Order and exactness.** The wheel only groups timers; what is due is decided by the deadline
//! itself. A slot of level 0 is sorted by (deadline, insertion) when its turn comes, if it is
//! [`Wheel::shuffled`]; its due head is released, and the rest waits in place. Who was inserted
//! first is not written down: it stands before the others in the list (W4).
//!
//! **Bounds.** One call of [`Wheel::advance_to`] releases at most `limit` timers and cascades at
//! most [`MOVES_MAX`]; a slot half cascaded is remembered in [`Wheel::cascading`]. Not bounded is
//! the sort of one slot of level 0: it holds the deadlines of 65 µs, or deadlines that were past
//! when they were armed.
//!
//! **Memory.** An entry is 24 bytes and the `Option` of its target (48 bytes for the driver's), in one
//! slab, linked by index. A cancelled or released entry gives up its target at once and is reused
//! first. The slab does not shrink: it is as large as the most timers ever armed at one time.
//!
//! **Not here, on purpose:** no clock (`now` is an argument and may even go back), no thread, no
//! knowledge of what a target is, no periodic timers (`time.rs` arms them anew).
//!
//! Invariants, with `tick(t)` = `t >> TICK_SHIFT`:
//! * W1: no timer is released before its deadline, nor left behind by a finished advance after it.
//! * W2: a slot of level 0 lies at or after the position, a slot of a higher level after it, except
//!   [`Wheel::cascading`], which the position has entered. Deadlines before the position are kept
//!   in the position's own slot of level 0, which is therefore the earliest.
//! * W3: the bound of an occupied slot is at most the deadline of each of its timers; it is the
//!   deadline of the head if the slot is not shuffled.
//! * W4: of two timers with one deadline the one inserted first is before the other, if they are in
//!   one slot, and else in the slot that is dealt with earlier, [`Wheel::cascading`].

use core::mem;
use core::num::NonZeroU32;

/// Nanoseconds per tick, as a power of two: 65.5 µs. It decides only how many timers share a
/// sort; 16 is the value for which eight levels of six bits fill a `u64`.
const TICK_SHIFT: u32 = 16;
/// Bits of a tick that one level tells apart: one word of occupancy per level.
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 8;
const _: () = assert!(TICK_SHIFT + SLOT_BITS * LEVELS as u32 == u64::BITS);

/// Timers dealt to lower levels in one call of [`Wheel::advance_to`], so that a slot with a
/// million timers delays the loop's sockets by many short pauses and not by a long one.
/// Each costs some 20 ns, or three cache misses: guessed to be a fair share of one turn.
const MOVES_MAX: usize = 1024;

/// Elements of [`Wheel::scratch`] that are kept between sorts (16 bytes each).
const SCRATCH_KEPT: usize = 1024;

/// "No entry": ends lists and the free list.
const NIL: u32 = u32::MAX;

/// Names an armed timer. A key whose timer was released or cancelled is stale: it stays harmless
/// for ever, because an entry is never used twice under one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TimerKey {
    index: u32,
    generation: NonZeroU32,
}
const _: () = assert!(size_of::<TimerKey>() == 8 && size_of::<Option<TimerKey>>() == 8);

/// Timers of one loop; see the page of this file.
pub(crate) struct Wheel<T> {
    /// The tick up to which slots were dealt with; never goes back.
    position: u64,
    /// Bit n: level n has an occupied slot.
    levels: u32,
    /// Per level, bit n: slot n is not empty.
    occupied: [u64; LEVELS],
    /// Per level, bit n: the list of slot n may be out of order, and its bound too early.
    shuffled: [u64; LEVELS],
    slots: Box<[Slot; LEVELS * SLOTS]>,
    /// The slot of a higher level that the position has entered and that still holds timers.
    /// Nothing may be released before it is empty.
    cascading: Option<Place>,
    entries: Vec<Entry<T>>,
    /// First unused entry; the others follow by `next`.
    free: u32,
    armed: usize,
    /// [`MOVES_MAX`]; tests set less.
    moves_max: usize,
    /// Memory for [`Wheel::sort`]: deadlines, places in the list so far, indices.
    scratch: Vec<(u64, u32, u32)>,
}

/// Level and slot in one number, `level << SLOT_BITS | slot`: the index into [`Wheel::slots`].
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place(u16);

impl Place {
    fn new(level: u32, slot: u64) -> Self {
        debug_assert!(level < LEVELS as u32 && slot < SLOTS as u64);
        Self((level << SLOT_BITS) as u16 | slot as u16)
    }

    fn level(self) -> usize {
        usize::from(self.0) >> SLOT_BITS
    }

    fn bit(self) -> u64 {
        1 << (usize::from(self.0) % SLOTS)
    }

    fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// One list of timers. `bound` means something only while the slot is occupied (W3).
#[derive(Clone, Copy)]
struct Slot {
    head: u32,
    tail: u32,
    bound: u64,
}

const EMPTY: Slot = Slot {
    head: NIL,
    tail: NIL,
    bound: 0,
};

/// A timer, or an unused entry (`target` is `None`).
struct Entry<T> {
    deadline: u64,
    prev: u32,
    /// The next timer of the slot, or the next unused entry.
    next: u32,
    generation: NonZeroU32,
    place: Place,
    target: Option<T>,
}
const _: () = assert!(size_of::<Entry<core::num::NonZeroU64>>() == 24 + 8);

impl<T> Wheel<T> {
    /// An empty wheel that stands at `now_ns`.
    pub(crate) fn new(now_ns: u64) -> Self {
        Self {
            position: now_ns >> TICK_SHIFT,
            levels: 0,
            occupied: [0; LEVELS],
            shuffled: [0; LEVELS],
            slots: Box::new([EMPTY; LEVELS * SLOTS]),
            cascading: None,
            entries: Vec::new(),
            free: NIL,
            armed: 0,
            moves_max: MOVES_MAX,
            scratch: Vec::new(),
        }
    }

    /// Arms a timer, in constant time. Every deadline is legal: one that has passed is due at the
    /// next advance, `u64::MAX` after 584 years.
    pub(crate) fn insert(&mut self, deadline_ns: u64, target: T) -> TimerKey {
        let place = self.place_of(deadline_ns);
        let index = self.take_unused();
        let entry = &mut self.entries[index as usize];
        (entry.deadline, entry.target) = (deadline_ns, Some(target));
        let generation = entry.generation;
        self.armed += 1;
        self.link(index, place, [self.slots[place.index()].tail, NIL]);
        TimerKey { index, generation }
    }

    /// Disarms a timer, in constant time, and hands its target back. `None` if the timer was
    /// released or cancelled before.
    pub(crate) fn cancel(&mut self, key: TimerKey) -> Option<T> {
        self.get_mut(key)?;
        Some(self.remove(key.index))
    }

    /// The target of a timer that is still armed.
    pub(crate) fn get_mut(&mut self, key: TimerKey) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        (entry.generation == key.generation)
            .then_some(entry)?
            .target
            .as_mut()
    }

    /// When the loop has to come back at the latest: the earliest deadline, or a bound before it.
    ///
    /// It is exact while nothing was cancelled, and after cancels too unless the earliest slot was
    /// filled out of order; then the deadline of a cancelled timer of that slot may show through,
    /// as finding the true one would mean to read the whole slot. Coming back at such a bound is
    /// never in vain for long: [`Wheel::advance_to`] then moves the slot a level down or sorts it.
    /// After an advance to `now` that returned `false` the answer is later than `now`.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let bound = |place: Place| self.slots[place.index()].bound;
        let earliest = bound(self.earliest_slot()?);
        // A half cascaded slot overlaps with the slots its timers are dealt to.
        Some(
            self.cascading
                .map_or(earliest, |place| earliest.min(bound(place))),
        )
    }

    /// Moves the targets of timers with a deadline of at most `now_ns` to the end of `due`, in
    /// order of (deadline, insertion), and at most `limit` of them.
    ///
    /// `true`: come again before sleeping, more timers are due, or [`MOVES_MAX`] ended a cascade
    /// before it could be known; the next call goes on in the right order. A `now_ns` before an
    /// earlier one releases what is due by it, and does no harm.
    #[must_use = "`true` means that the loop may not sleep yet"]
    pub(crate) fn advance_to(&mut self, now_ns: u64, limit: usize, due: &mut Vec<T>) -> bool {
        let (mut releases, mut moves) = (limit, self.moves_max);
        while let Some(place) = self.cascading.or_else(|| self.earliest_slot()) {
            let level = place.level();
            let bound = self.slots[place.index()].bound;
            if level > 0 {
                // Above level 0 the timers of a slot agree in the digits from their level on.
                let span = TICK_SHIFT + SLOT_BITS * level as u32;
                if self.cascading.is_none() && bound >> span > now_ns >> span {
                    break;
                }
                if moves == 0 {
                    return true;
                }
                moves -= self.cascade(place, now_ns, moves);
            } else if bound > now_ns {
                break;
            } else if self.shuffled[level] & place.bit() != 0 {
                self.sort(place);
            } else if releases == 0 {
                return true;
            } else {
                // In a sorted slot the bound is the deadline of the head (W3), so the head is due.
                due.push(self.remove(self.slots[place.index()].head));
                releases -= 1;
            }
        }
        // Every slot that is left starts later, or is of level 0 and has its bound later (W2).
        self.position = self.position.max(now_ns >> TICK_SHIFT);
        false
    }

    /// How many timers are armed.
    pub(crate) fn len(&self) -> usize {
        self.armed
    }

    /// Deals at most `limit` timers of a slot of a higher level to lower levels; says how many. The
    /// last goes first, and each before those that are there: so they stay in order, and what is
    /// inserted while a cascade rests stands behind them (W4).
    fn cascade(&mut self, place: Place, now_ns: u64, limit: usize) -> usize {
        if self.cascading.is_none() {
            // Lower levels are empty, so nothing is armed before the bound: going there at once,
            // and not to the start of the slot, saves the levels between for a lonely timer.
            let bound = self.slots[place.index()].bound;
            self.position = self.position.max(bound.min(now_ns) >> TICK_SHIFT);
            self.cascading = Some(place);
        }
        let mut moved = 0;
        // Unlinking the last timer of the slot ends the cascade.
        while moved < limit && self.cascading.is_some() {
            let index = self.slots[place.index()].tail;
            self.unlink(index);
            let target = self.place_of(self.entries[index as usize].deadline);
            debug_assert!(target.level() < place.level());
            self.link(index, target, [NIL, self.slots[target.index()].head]);
            moved += 1;
        }
        moved
    }

    /// Brings the list of a slot into order of (deadline, insertion).
    fn sort(&mut self, place: Place) {
        let mut list = mem::take(&mut self.scratch);
        let mut index = self.slots[place.index()].head;
        while index != NIL {
            let entry = &self.entries[index as usize];
            list.push((entry.deadline, list.len() as u32, index));
            index = entry.next;
        }
        list.sort_unstable();
        self.slots[place.index()] = EMPTY;
        self.shuffled[place.level()] &= !place.bit();
        for (_, _, index) in list.drain(..) {
            self.link(index, place, [self.slots[place.index()].tail, NIL]);
        }
        list.shrink_to(SCRATCH_KEPT);
        self.scratch = list;
    }

    /// The slot with the earliest timers, [`Wheel::cascading`] apart.
    fn earliest_slot(&self) -> Option<Place> {
        if self.levels == 0 {
            return None;
        }
        let level = self.levels.trailing_zeros();
        let slot = self.occupied[level as usize].trailing_zeros();
        Some(Place::new(level, u64::from(slot)))
    }

    /// Where a deadline belongs, seen from the position.
    fn place_of(&self, deadline_ns: u64) -> Place {
        let tick = (deadline_ns >> TICK_SHIFT).max(self.position);
        let highest_difference = ((tick ^ self.position) | 1).ilog2();
        let level = highest_difference / SLOT_BITS;
        Place::new(level, (tick >> (level * SLOT_BITS)) % SLOTS as u64)
    }

    /// An entry to arm a timer in: the first unused one, or else a new one.
    fn take_unused(&mut self) -> u32 {
        let index = self.free;
        if index != NIL {
            self.free = self.entries[index as usize].next;
            return index;
        }
        let index = u32::try_from(self.entries.len()).unwrap_or(NIL);
        assert!(index != NIL, "more than {NIL} timers armed on one loop");
        self.entries.push(Entry {
            deadline: 0,
            prev: NIL,
            next: NIL,
            generation: NonZeroU32::MIN,
            place: Place(0),
            target: None,
        });
        index
    }

    /// Puts an entry between two others into the list of a slot, or at its end or beginning.
    fn link(&mut self, index: u32, place: Place, [prev, next]: [u32; 2]) {
        let entry = &mut self.entries[index as usize];
        (entry.prev, entry.next, entry.place) = (prev, next, place);
        let deadline = entry.deadline;
        let slot = &mut self.slots[place.index()];
        let mut is_ordered = true;
        // There is never an entry NIL.
        if let Some(before) = self.entries.get_mut(prev as usize) {
            before.next = index;
            is_ordered = before.deadline <= deadline;
        } else {
            slot.head = index;
        }
        if let Some(after) = self.entries.get_mut(next as usize) {
            after.prev = index;
            is_ordered &= deadline <= after.deadline;
        } else {
            slot.tail = index;
        }
        let level = place.level();
        if slot.head == slot.tail {
            slot.bound = deadline;
            self.occupied[level] |= place.bit();
            self.levels |= 1 << level;
        } else {
            slot.bound = slot.bound.min(deadline);
        }
        if !is_ordered {
            self.shuffled[level] |= place.bit();
        }
    }

    /// Takes an entry out of the list of its slot, and keeps W3.
    fn unlink(&mut self, index: u32) {
        let entry = &self.entries[index as usize];
        let (prev, next, place) = (entry.prev, entry.next, entry.place);
        let slot = &mut self.slots[place.index()];
        if let Some(after) = self.entries.get_mut(next as usize) {
            after.prev = prev;
        } else {
            slot.tail = prev;
        }
        if let Some(before) = self.entries.get_mut(prev as usize) {
            before.next = next;
            return;
        }
        slot.head = next;
        let level = place.level();
        if next == NIL {
            self.occupied[level] &= !place.bit();
            self.shuffled[level] &= !place.bit();
            if self.occupied[level] == 0 {
                self.levels &= !(1 << level);
            }
            if self.cascading == Some(place) {
                self.cascading = None;
            }
        } else if self.shuffled[level] & place.bit() == 0 {
            slot.bound = self.entries[next as usize].deadline;
        }
    }

    /// Unlinks an armed entry, frees it and returns its target.
    fn remove(&mut self, index: u32) -> T {
        self.unlink(index);
        self.armed -= 1;
        let entry = &mut self.entries[index as usize];
        // An entry that ran out of generations is given up (once in 2^32 uses) and not reused:
        // starting again would bring its first keys back to life.
        if let Some(generation) = entry.generation.checked_add(1) {
            entry.generation = generation;
            entry.next = mem::replace(&mut self.free, index);
        }
        entry.target.take().expect("only armed entries are linked")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};
    use std::rc::Rc;

    use proptest::collection::vec;
    use proptest::prelude::{Just, any, prop_assert, prop_assert_eq, prop_oneof};
    use proptest::test_runner::{Config, TestCaseError};

    use super::{LEVELS, NIL, NonZeroU32, SLOT_BITS, SLOTS, TICK_SHIFT, TimerKey, Wheel};

    const TEN_YEARS: u64 = 10 * 365 * 86_400 * 1_000_000_000;

    fn advance<T>(wheel: &mut Wheel<T>, now: u64) -> Vec<T> {
        let mut due = Vec::new();
        while wheel.advance_to(now, 100, &mut due) {}
        due
    }

    /// The wheel beside a sorted list of (deadline, insertion); the target is the insertion.
    struct Pair {
        wheel: Wheel<u64>,
        model: BTreeSet<(u64, u64)>,
        keys: Vec<(TimerKey, (u64, u64))>,
        now: u64,
        cancelled: bool,
    }

    impl Pair {
        /// A time of one of six kinds: extreme, near a boundary of a level, before or after now,
        /// in ten years, near the announced deadline.
        fn time(&self, kind: u8, raw: u64) -> u64 {
            let shift = TICK_SHIFT + SLOT_BITS * (raw % LEVELS as u64) as u32;
            let boundary = self.now.saturating_add((raw / 64 % 3) << shift) >> shift << shift;
            let from = match kind {
                0 => return [0, u64::MAX, u64::MAX - 1, raw][(raw / 4 % 4) as usize],
                1 => boundary,
                2 => self.now.saturating_sub(raw % (1 << 20)),
                3 => self.now.saturating_add(raw >> (24 + raw % 40)),
                4 => self.now.saturating_add(TEN_YEARS),
                _ => self.wheel.next_deadline().unwrap_or(self.now),
            };
            from.saturating_add_signed((raw / 256 % 3) as i64 - 1)
        }

        fn advance(&mut self, now: u64, limit: usize, moves: usize) -> Result<bool, TestCaseError> {
            (self.now, self.wheel.moves_max) = (now, moves);
            let mut due = Vec::new();
            let again = self.wheel.advance_to(now, limit, &mut due);
            prop_assert!(due.len() <= limit);
            for id in due {
                let (deadline, sequence) = self.model.pop_first().expect("released twice");
                prop_assert!(id == sequence && deadline <= now, "order, or early: {}", id);
            }
            let is_late = |deadline| deadline <= now;
            prop_assert!(again || !self.model.first().is_some_and(|first| is_late(first.0)));
            prop_assert!(again || !self.wheel.next_deadline().is_some_and(is_late));
            Ok(again)
        }

        /// Of eleven operations, six arm, two cancel and three advance; `pick` is the detail.
        fn apply(&mut self, operation: u8, time: u64, pick: usize) -> Result<(), TestCaseError> {
            if operation < 6 {
                let entry = (time, self.keys.len() as u64);
                self.model.insert(entry);
                self.keys.push((self.wheel.insert(time, entry.1), entry));
            } else if operation > 7 {
                self.advance(time, pick % 6, 1 + pick / 6 % 5)?;
            } else if !self.keys.is_empty() {
                let (key, entry) = self.keys[pick % self.keys.len()];
                let armed = self.model.remove(&entry).then_some(entry.1);
                prop_assert_eq!(self.wheel.get_mut(key).copied(), armed);
                prop_assert_eq!(self.wheel.cancel(key), armed);
                self.cancelled |= armed.is_some();
            }
            prop_assert_eq!(self.wheel.len(), self.model.len());
            let next = self.wheel.next_deadline();
            let first = self.model.first().map(|key| key.0);
            prop_assert!(next.is_some() == first.is_some() && next <= first);
            prop_assert!(self.cancelled || next == first);
            Ok(())
        }
    }

    proptest::proptest! {
        #![proptest_config(Config::with_cases(2000))]
        #[test]
        fn wheel_does_what_a_sorted_list_does(
            now in prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), 0..1u64 << 50],
            ops in vec((0..11u8, 0..6u8, any::<u64>(), any::<usize>()), 1..120),
        ) {
            let (wheel, model, keys) = (Wheel::new(now), BTreeSet::new(), Vec::new());
            let mut pair = Pair { wheel, model, keys, now, cancelled: false };
            for (operation, kind, raw, pick) in ops {
                pair.apply(operation, pair.time(kind, raw), pick)?;
            }
            // Waking at every announced time comes to an end: once per level and timer at most.
            let mut wakes = pair.wheel.len() * (LEVELS + 1);
            while let Some(next) = pair.wheel.next_deadline() {
                prop_assert!(wakes > 0, "woken in vain for ever");
                wakes -= 1;
                while pair.advance(next, 2, 3)? {}
            }
            prop_assert!(pair.model.is_empty() && pair.wheel.len() == 0);
        }
    }

    #[test]
    fn each_level_boundary_fires_exactly_once() {
        for (level, by) in (0..LEVELS as u32).flat_map(|level| [-1, 0, 1].map(|by| (level, by))) {
            let span = 1u64 << (TICK_SHIFT + SLOT_BITS * level);
            for start in [0, 1, 12_345_678_901_234_567, TEN_YEARS << 3, span - 1] {
                let deadline = (start + span).saturating_add_signed(by);
                let mut wheel = Wheel::new(start);
                wheel.insert(deadline, level);
                assert_eq!(advance(&mut wheel, deadline - 1), [0; 0]);
                assert_eq!(advance(&mut wheel, deadline), [level]);
                assert_eq!(advance(&mut wheel, u64::MAX), [0; 0]);
            }
        }
    }

    #[test]
    fn equal_deadlines_fire_in_registration_order() {
        let (mut wheel, deadline) = (Wheel::new(0), 5 << 40);
        // Armed from ever nearer positions, the timers start on different levels.
        let ahead = [5 << 40, 1 << 40, 1 << 30, 1 << 20, 1];
        for (id, ahead) in ahead.into_iter().enumerate() {
            assert_eq!(advance(&mut wheel, deadline - ahead), [0; 0]);
            wheel.insert(deadline, id);
        }
        assert_eq!(advance(&mut wheel, deadline), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn removing_the_earliest_timer_does_not_move_the_next() {
        for apart in [0, 1, 1 << TICK_SHIFT, 1 << 30, TEN_YEARS] {
            let mut wheel = Wheel::new(7);
            let earliest = wheel.insert(1000, 'e');
            wheel.insert(1000 + apart, 'n');
            assert_eq!(wheel.cancel(earliest), Some('e'));
            assert_eq!(wheel.next_deadline(), Some(1000 + apart));
            assert_eq!(advance(&mut wheel, 999 + apart), ['x'; 0]);
            assert_eq!(advance(&mut wheel, 1000 + apart), ['n']);
        }
    }

    #[test]
    fn jump_of_ten_years_costs_no_more_than_the_occupied_slots() {
        let (mut wheel, mut due) = (Wheel::new(3), Vec::new());
        let keys = [11, 10, 5, 1, 0].map(|id| wheel.insert(TEN_YEARS >> id, id));
        // A timer moves at most once per level, so the bound on moves is the bound on work.
        wheel.moves_max = keys.len() * (LEVELS - 1);
        assert!(!wheel.advance_to(TEN_YEARS, keys.len(), &mut due));
        assert_eq!(due, [11, 10, 5, 1, 0]);
    }

    #[test]
    fn cancelled_key_never_touches_its_successor() {
        let mut wheel = Wheel::new(0);
        let stale = wheel.insert(10, 'a');
        assert_eq!(wheel.cancel(stale), Some('a'));
        let key = wheel.insert(10, 'b');
        assert_eq!(key.index, stale.index);
        assert!(wheel.get_mut(stale).is_none() && wheel.cancel(stale).is_none());
        assert_eq!(advance(&mut wheel, 10), ['b']);
        // An entry out of generations is given up.
        wheel.entries[wheel.free as usize].generation = NonZeroU32::MAX;
        let last = wheel.insert(20, 'c');
        assert_eq!((wheel.cancel(last), wheel.free), (Some('c'), NIL));
        assert_eq!(wheel.cancel(last), None);
    }

    #[test]
    fn memory_stays_bounded_under_arm_and_cancel() {
        let (mut wheel, mut armed, target) = (Wheel::new(0), VecDeque::new(), Rc::new(()));
        for step in 0..100_000u64 {
            armed.push_back(wheel.insert(step * 977 % (1 << 34), target.clone()));
            if armed.len() > SLOTS {
                let oldest = armed.pop_front().expect("one was pushed");
                assert!(wheel.cancel(oldest).is_some());
            }
        }
        assert_eq!(wheel.entries.len(), SLOTS + 1);
        assert_eq!(Rc::strong_count(&target), SLOTS + 1);
    }
}

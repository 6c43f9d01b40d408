//! What became of every datagram of one sender: answered well, or lost, late, duplicated, reordered
//! or corrupted.
//!
//! Each datagram is counted once, so that the six counts add up to what was sent. To which of them
//! it belongs may change as more is seen: given up first, late when its answer comes after all,
//! duplicated with the second answer. When several hold, the gravest counts ([`Fate`] is in order
//! of gravity).
//!
//! Only what is outstanding and what is not well is kept, so a run without trouble needs no memory;
//! with more trouble than [`REMEMBERED_MAX`] the oldest is settled for good. Time and arrivals are
//! arguments: it knows no socket and no clock.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Add, AddAssign};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Datagrams in trouble that one sender remembers, so that further answers to them are counted
/// right: 4 MB.
const REMEMBERED_MAX: usize = 1 << 16;

/// What became of one datagram, from best to gravest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Good,
    Reordered,
    Late,
    Duplicated,
    Corrupted,
}

/// How many datagrams met which fate; all but `copies` and `strays` add up to `sent`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Datagrams {
    pub(crate) sent: u64,
    /// Answered once, whole, in order, in time.
    pub(crate) good: u64,
    /// Never answered.
    pub(crate) lost: u64,
    /// Answered after the settle time.
    pub(crate) late: u64,
    /// Answered more than once.
    pub(crate) duplicated: u64,
    /// Answered after a datagram that was sent later.
    pub(crate) reordered: u64,
    /// Answered with other bytes, or another number of bytes, than were sent.
    pub(crate) corrupted: u64,
    /// Answers beyond the first of each datagram.
    pub(crate) copies: u64,
    /// Answers to nothing that this run sent.
    pub(crate) strays: u64,
}

/// The moments of a datagram under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outstanding {
    pub(crate) sequence: u64,
    pub(crate) intended: Instant,
    pub(crate) sent_at: Instant,
}

/// The record of one sender.
#[derive(Debug)]
pub(crate) struct Ledger {
    settle: Duration,
    /// Datagrams up to here belong to the warm-up.
    measured_from: Instant,
    /// The first that belongs to the measured time, once it is known.
    first_measured: Option<u64>,
    next: u64,
    /// Answers are waited for, ascending.
    waiting: VecDeque<Outstanding>,
    /// All others that are not good.
    troubled: BTreeMap<u64, Trouble>,
    /// How many of them are given up.
    n_given_up: usize,
    /// What lies below is settled for good.
    settled_below: u64,
    /// The highest number answered so far.
    highest: Option<u64>,
    /// Answers whose number could not be read.
    n_unreadable: u64,
    warmup: Datagrams,
    measured: Datagrams,
}

#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// Not answered within the settle time.
    GivenUp(Outstanding),
    Known(Fate),
}

impl Ledger {
    /// An empty record: an answer later than `settle` after the send is late, and what is sent
    /// before `measured_from` is counted apart.
    pub(crate) fn new(settle: Duration, measured_from: Instant) -> Ledger {
        Ledger {
            settle,
            measured_from,
            first_measured: None,
            next: 0,
            waiting: VecDeque::new(),
            troubled: BTreeMap::new(),
            n_given_up: 0,
            settled_below: 0,
            highest: None,
            n_unreadable: 0,
            warmup: Datagrams::default(),
            measured: Datagrams::default(),
        }
    }

    /// Datagrams whose answers are waited for.
    pub(crate) fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether any datagram is without an answer, even if it was given up.
    pub(crate) fn is_owed(&self) -> bool {
        !self.waiting.is_empty() || self.n_given_up > 0
    }

    /// A datagram is being sent; returns its number.
    pub(crate) fn sent(&mut self, intended: Instant, sent_at: Instant) -> u64 {
        let sequence = self.next;
        self.next += 1;
        if intended >= self.measured_from {
            self.first_measured.get_or_insert(sequence);
        }
        self.counts(sequence).sent += 1;
        self.waiting.push_back(Outstanding {
            sequence,
            intended,
            sent_at,
        });
        sequence
    }

    /// An answer with a number that was read; `intact` says whether it is what was sent. Returns
    /// the datagram's moments if this is its first answer and intact: then it has a latency.
    pub(crate) fn arrived(
        &mut self,
        sequence: u64,
        intact: bool,
        at: Instant,
    ) -> Option<Outstanding> {
        if sequence >= self.next {
            self.stray();
            return None;
        }
        let Some(first) = self.take_unanswered(sequence) else {
            self.copy(sequence, intact);
            return None;
        };
        let fate = if !intact {
            Fate::Corrupted
        } else if at.saturating_duration_since(first.sent_at) > self.settle {
            Fate::Late
        } else if self.highest.is_some_and(|highest| sequence < highest) {
            Fate::Reordered
        } else {
            Fate::Good
        };
        self.highest = self.highest.max(Some(sequence));
        *self.count(sequence, fate) += 1;
        self.remember(sequence, fate);
        intact.then_some(first)
    }

    /// An answer whose number cannot be read.
    pub(crate) fn unreadable(&mut self) {
        self.n_unreadable += 1;
    }

    /// An answer to something else.
    pub(crate) fn stray(&mut self) {
        self.measured.strays += 1;
    }

    /// Waits no longer for what was sent more than the settle time before `now`.
    pub(crate) fn give_up(&mut self, now: Instant) {
        while let Some(oldest) = self.waiting.front().copied()
            && now.saturating_duration_since(oldest.sent_at) > self.settle
        {
            self.waiting.pop_front();
            self.n_given_up += 1;
            self.insert(oldest.sequence, Trouble::GivenUp(oldest));
        }
    }

    /// What was never answered is lost. Returns the counts of warm-up and measured time.
    pub(crate) fn finish(mut self) -> (Datagrams, Datagrams) {
        for outstanding in std::mem::take(&mut self.waiting) {
            self.counts(outstanding.sequence).lost += 1;
        }
        for (sequence, trouble) in std::mem::take(&mut self.troubled) {
            if let Trouble::GivenUp(_) = trouble {
                self.counts(sequence).lost += 1;
            }
        }
        // An answer without a readable number belongs to one of those without an answer.
        for counts in [&mut self.measured, &mut self.warmup] {
            let n = self.n_unreadable.min(counts.lost);
            counts.lost -= n;
            counts.corrupted += n;
            self.n_unreadable -= n;
        }
        self.measured.copies += self.n_unreadable;
        (self.warmup, self.measured)
    }

    fn take_unanswered(&mut self, sequence: u64) -> Option<Outstanding> {
        let place = self.waiting.iter().position(|w| w.sequence == sequence);
        if let Some(place) = place {
            return self.waiting.remove(place);
        }
        match self.troubled.get(&sequence) {
            Some(Trouble::GivenUp(outstanding)) => {
                self.n_given_up -= 1;
                Some(*outstanding)
            }
            _ => None,
        }
    }

    /// A further answer to a datagram that was answered before.
    fn copy(&mut self, sequence: u64, intact: bool) {
        self.counts(sequence).copies += 1;
        if sequence < self.settled_below {
            return;
        }
        let before = match self.troubled.get(&sequence) {
            Some(Trouble::Known(fate)) => *fate,
            _ => Fate::Good,
        };
        let after = before.max(if intact {
            Fate::Duplicated
        } else {
            Fate::Corrupted
        });
        *self.count(sequence, before) -= 1;
        *self.count(sequence, after) += 1;
        self.remember(sequence, after);
    }

    fn remember(&mut self, sequence: u64, fate: Fate) {
        if fate > Fate::Good {
            self.insert(sequence, Trouble::Known(fate));
        }
    }

    fn insert(&mut self, sequence: u64, trouble: Trouble) {
        self.troubled.insert(sequence, trouble);
        if self.troubled.len() > REMEMBERED_MAX
            && let Some((oldest, trouble)) = self.troubled.pop_first()
        {
            self.settled_below = oldest + 1;
            if let Trouble::GivenUp(_) = trouble {
                self.n_given_up -= 1;
                self.counts(oldest).lost += 1;
            }
        }
    }

    fn count(&mut self, sequence: u64, fate: Fate) -> &mut u64 {
        let counts = self.counts(sequence);
        match fate {
            Fate::Good => &mut counts.good,
            Fate::Reordered => &mut counts.reordered,
            Fate::Late => &mut counts.late,
            Fate::Duplicated => &mut counts.duplicated,
            Fate::Corrupted => &mut counts.corrupted,
        }
    }

    fn counts(&mut self, sequence: u64) -> &mut Datagrams {
        if self.first_measured.is_some_and(|first| sequence >= first) {
            &mut self.measured
        } else {
            &mut self.warmup
        }
    }
}

impl Datagrams {
    /// Good and troubled ones together; equals `sent` once the run is over.
    pub(crate) fn accounted(&self) -> u64 {
        self.good + self.lost + self.late + self.duplicated + self.reordered + self.corrupted
    }
}

impl Add for Datagrams {
    type Output = Datagrams;

    fn add(self, other: Datagrams) -> Datagrams {
        Datagrams {
            sent: self.sent + other.sent,
            good: self.good + other.good,
            lost: self.lost + other.lost,
            late: self.late + other.late,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
            corrupted: self.corrupted + other.corrupted,
            copies: self.copies + other.copies,
            strays: self.strays + other.strays,
        }
    }
}

impl AddAssign for Datagrams {
    fn add_assign(&mut self, other: Datagrams) {
        *self = *self + other;
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Datagrams, Ledger, REMEMBERED_MAX};

    const SETTLE: Duration = Duration::from_millis(100);

    /// A ledger without a warm-up and `n` datagrams sent at its zero.
    fn sent(n: u64) -> (Ledger, Instant) {
        let zero = Instant::now();
        let mut ledger = Ledger::new(SETTLE, zero);
        for sequence in 0..n {
            assert_eq!(ledger.sent(zero, zero), sequence);
        }
        (ledger, zero)
    }

    fn measured(ledger: Ledger) -> Datagrams {
        let (warmup, measured) = ledger.finish();
        assert_eq!(warmup, Datagrams::default());
        assert_eq!(measured.accounted(), measured.sent);
        measured
    }

    #[test]
    fn each_fate_has_its_own_count_and_together_they_are_all() {
        let (mut ledger, zero) = sent(6);
        let soon = zero + Duration::from_millis(1);
        assert!(ledger.arrived(0, true, soon).is_some());
        assert!(ledger.arrived(2, true, soon).is_some());
        assert!(ledger.arrived(1, true, soon).is_some(), "reordered");
        assert!(ledger.arrived(3, false, soon).is_none(), "corrupted");
        assert!(ledger.arrived(0, true, soon).is_none(), "duplicated");
        ledger.give_up(zero + SETTLE * 2);
        assert_eq!(ledger.n_waiting(), 0);
        assert!(ledger.arrived(4, true, zero + SETTLE * 2).is_some(), "late");
        let expected = Datagrams {
            sent: 6,
            good: 1,
            lost: 1,
            late: 1,
            duplicated: 1,
            reordered: 1,
            corrupted: 1,
            copies: 1,
            strays: 0,
        };
        assert_eq!(measured(ledger), expected);
    }

    /// The slot is given back only by `give_up`, but the fate depends on the moments alone.
    #[test]
    fn answer_after_the_settle_time_is_late_even_if_it_was_not_given_up_yet() {
        let (mut ledger, zero) = sent(2);
        ledger.arrived(0, true, zero + SETTLE);
        ledger.arrived(1, true, zero + SETTLE + Duration::from_nanos(1));
        let counts = measured(ledger);
        assert_eq!((counts.good, counts.late), (1, 1));
    }

    #[test]
    fn gravest_fate_counts_whatever_the_order_of_answers() {
        for answers in [
            [true, true, false],
            [false, true, true],
            [true, false, true],
        ] {
            let (mut ledger, zero) = sent(1);
            for intact in answers {
                ledger.arrived(0, intact, zero);
            }
            let counts = measured(ledger);
            assert_eq!((counts.corrupted, counts.copies), (1, 2), "{answers:?}");
        }
        let (mut ledger, zero) = sent(1);
        ledger.give_up(zero + SETTLE * 2);
        for _ in 0..3 {
            ledger.arrived(0, true, zero + SETTLE * 3);
        }
        let counts = measured(ledger);
        assert_eq!(
            (counts.duplicated, counts.copies),
            (1, 2),
            "late, then twice more"
        );
    }

    #[test]
    fn unreadable_answer_stands_for_one_that_would_be_lost() {
        let (mut ledger, zero) = sent(2);
        ledger.unreadable();
        ledger.arrived(0, true, zero);
        ledger.unreadable();
        let counts = measured(ledger);
        assert_eq!((counts.good, counts.corrupted, counts.lost), (1, 1, 0));
        assert_eq!(counts.copies, 1, "the other can only be a copy");
    }

    #[test]
    fn number_that_was_never_sent_is_a_stray() {
        let (mut ledger, zero) = sent(1);
        assert!(ledger.arrived(1, true, zero).is_none());
        ledger.arrived(0, true, zero);
        let counts = measured(ledger);
        assert_eq!((counts.good, counts.strays), (1, 1));
    }

    #[test]
    fn warm_up_is_counted_apart() {
        let zero = Instant::now();
        let from = zero + Duration::from_millis(10);
        let mut ledger = Ledger::new(SETTLE, from);
        ledger.sent(zero, zero);
        ledger.sent(zero, zero);
        ledger.sent(from, from);
        ledger.arrived(0, true, from);
        ledger.arrived(2, true, from);
        let (warmup, measured) = ledger.finish();
        assert_eq!((warmup.sent, warmup.good, warmup.lost), (2, 1, 1));
        assert_eq!((measured.sent, measured.good), (1, 1));
    }

    /// More trouble than is remembered: the counts still add up, and copies of what is settled
    /// change no fate.
    #[test]
    fn oldest_trouble_is_settled_when_there_is_too_much() {
        let n = REMEMBERED_MAX as u64 + 10;
        let (mut ledger, zero) = sent(n);
        ledger.give_up(zero + SETTLE * 2);
        assert!(
            ledger.arrived(3, true, zero + SETTLE * 2).is_none(),
            "settled as lost"
        );
        assert!(
            ledger.arrived(10, true, zero + SETTLE * 2).is_some(),
            "still remembered"
        );
        let counts = measured(ledger);
        assert_eq!((counts.lost, counts.late, counts.copies), (n - 1, 1, 1));
    }
}

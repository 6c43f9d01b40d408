//! The open loop of one thread: which request is due next, and which lane may carry it.
//!
//! Requests are due when the timetable says, whether or not the target keeps up. One that finds no
//! free lane stays at the head of the timetable, its intended moment unchanged, until a lane is
//! free: the wait is in its latency. So there is no queue, only a timetable that is behind.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::pace::Pacer;
use crate::timetable::Share;

/// The state of an open loop.
#[derive(Debug)]
pub(crate) struct OpenLoop {
    timetable: Share,
    start: Instant,
    /// When the next request is due.
    next: Instant,
    /// Room for one request each; a lane of depth n stands here up to n times, and may stand here
    /// though it can take nothing any more.
    free: VecDeque<Slot>,
    pub(crate) pacer: Pacer,
    /// Time spent spinning for nothing.
    pub(crate) spun: Duration,
}

/// Room for a request on a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) lane: usize,
    /// Since when there is room.
    pub(crate) since: Instant,
}

impl OpenLoop {
    pub(crate) fn new(timetable: Share, start: Instant, pacer: Pacer) -> OpenLoop {
        let mut open = OpenLoop {
            timetable,
            start,
            next: start,
            free: VecDeque::new(),
            pacer,
            spun: Duration::ZERO,
        };
        open.advance();
        open
    }

    /// When the next request is due.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// The next request has been sent or will never be.
    pub(crate) fn advance(&mut self) {
        let offset = self.timetable.next().expect("a timetable has no end");
        self.next = self.start + offset;
    }

    /// A lane has room for a request since `since`.
    pub(crate) fn release(&mut self, lane: usize, since: Instant) {
        self.free.push_back(Slot { lane, since });
    }

    /// The room that has been there longest.
    pub(crate) fn take_slot(&mut self) -> Option<Slot> {
        self.free.pop_front()
    }

    pub(crate) fn has_slot(&self) -> bool {
        !self.free.is_empty()
    }

    /// Skips the requests that were due in `from..end` and will never be sent; how many.
    pub(crate) fn count_missed(&mut self, from: Instant, end: Instant) -> u64 {
        let mut missed = 0;
        while self.next < end {
            missed += u64::from(self.next >= from);
            self.advance();
        }
        missed
    }
}

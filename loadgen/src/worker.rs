//! The work of a generator thread: a bare poll loop over its lanes.
//!
//! In a closed loop each lane sends its next request as soon as the last one was answered. A
//! request costs one `send`, one `recv`, a share of an `epoll_wait`, one reading of the clock and
//! no allocation: the cheaper the generator, the less of what it measures is itself. In an open
//! loop [`OpenLoop`] says when a request is due and which lane has room; that costs one reading of
//! the clock more, for the real moment of the send.
//!
//! It shares nothing with other threads but the [`Load`], which never changes, and the
//! [`Interrupt`] flag.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Poll, Token};

use crate::failure::{Failure, Tally};
use crate::generator::Assignment;
use crate::interrupt::Interrupt;
use crate::lane::{Lane, Load};
use crate::ledger::Datagrams;
use crate::news::Summary;
use crate::open_loop::{OpenLoop, Slot};
use crate::pace::{Pacer, Wait};
use crate::recorder::{Recorder, Schedule};
use crate::usage::{Reading, Usage};

/// Events taken from the kernel in one poll.
const EVENTS_PER_POLL: usize = 1024;
/// Longest sleep of a thread without events: how soon it sees [`Interrupt`].
const LOOK_UP: Duration = Duration::from_millis(50);
/// Up to this size the moment a request is answered is also the moment the next one is sent: what
/// lies between, the comparison, takes less than the reading of the clock it saves.
const ONE_CLOCK_MAX_BYTES: usize = 1024;
/// How long before the measured phase [`Usage`] is first read: reading takes some 100 us, in which
/// answers wait, and those are then answers to requests of the warm-up.
const USAGE_LEAD: Duration = Duration::from_millis(2);
/// Receive buffer: requests up to the larger figure are read at once.
const BUFFER_BYTES: (usize, usize) = (4096, 256 * 1024);
/// Receive buffer for datagrams: more than the longest.
const DATAGRAM_BUFFER_BYTES: usize = 1 << 16;
/// Overdue datagrams are looked for this often in the settle time, within these bounds. How a
/// datagram is counted does not depend on it, only how soon its lane sends again.
const GIVE_UPS_PER_SETTLE: u32 = 16;
const GIVE_UP_EVERY: (Duration, Duration) = (Duration::from_millis(1), LOOK_UP);
/// How long after the last answer further copies of it are waited for.
const LINGER: Duration = Duration::from_millis(50);

/// Requests sent in a row before answers are looked for again: a timetable far behind must not make
/// the answers wait.
const SENDS_PER_TURN: usize = 32;

/// In the first of so many equal parts of the drain an open loop still sends what was due.
const DRAIN_PARTS: u32 = 2;

/// The thread's lanes and what it needs to drive them.
pub(crate) struct Worker<L> {
    poll: Poll,
    /// By token; none once it failed.
    lanes: Vec<Option<L>>,
    n_alive: usize,
    n_in_flight: usize,
    /// Lanes that are being opened anew.
    n_opening: usize,
    /// None in a closed loop.
    open: Option<OpenLoop>,
    load: Arc<Load>,
    buffer: Vec<u8>,
    recorder: Recorder,
    tally: Tally,
    datagrams: [Datagrams; 2],
    schedule: Schedule,
    drain: Duration,
    interrupt: Interrupt,
    core: Option<usize>,
    n_polls: u64,
    /// When overdue datagrams are looked for next.
    next_give_up: Option<Instant>,
    /// Since when the thread spins without an event.
    spinning_since: Option<Instant>,
    /// Since when nothing is outstanding after the end.
    settled_at: Option<Instant>,
    /// Whether [`Worker::usage_from`] is as near to the measured phase as it gets.
    is_measuring: bool,
    usage_from: Option<Reading>,
    usage: Option<Usage>,
}

impl<L: Lane> Worker<L> {
    pub(crate) fn new(
        assignment: Assignment,
        schedule: Schedule,
        poll: Poll,
        lanes: Vec<L>,
    ) -> Result<Worker<L>, Failure> {
        let load = assignment.load;
        let mut open = None;
        if let Some((share, pace)) = assignment.open {
            let pacer =
                Pacer::new(pace, &poll).map_err(|e| Failure::from_io("making a timer", &e))?;
            open = Some(OpenLoop::new(share, schedule.start, pacer));
        }
        // One byte more than a request: its echo is then a short read, which needs no second one.
        let size = (load.pattern.size_max() * load.depth + 1).clamp(BUFFER_BYTES.0, BUFFER_BYTES.1);
        Ok(Worker {
            poll,
            n_alive: lanes.len(),
            lanes: lanes.into_iter().map(Some).collect(),
            n_in_flight: 0,
            n_opening: 0,
            open,
            buffer: vec![
                0;
                if L::DATAGRAMS {
                    DATAGRAM_BUFFER_BYTES
                } else {
                    size
                }
            ],
            load,
            recorder: Recorder::new(
                schedule.clone(),
                assignment.kinds,
                assignment.outlet,
                assignment.empty,
            ),
            tally: Tally::default(),
            datagrams: Default::default(),
            drain: assignment.drain,
            interrupt: assignment.interrupt,
            core: assignment.core,
            n_polls: 0,
            next_give_up: L::DATAGRAMS.then_some(schedule.start),
            spinning_since: None,
            settled_at: None,
            schedule,
            is_measuring: false,
            usage_from: None,
            usage: None,
        })
    }

    /// Drives the load to its end.
    pub(crate) fn run(mut self) -> Summary {
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        self.usage_from = Some(self.reading());
        self.read_usage(Instant::now());
        // A request sent before the start would belong to no phase.
        thread::sleep(
            self.schedule
                .start
                .saturating_duration_since(Instant::now()),
        );
        self.start_lanes();
        loop {
            let now = Instant::now();
            self.recorder.advance_to(now);
            self.end_spin(now);
            self.read_usage(now);
            if self.interrupt.is_raised() {
                self.recorder.end_by(now);
            }
            self.give_up_overdue(now);
            self.send_due(now);
            if self.is_over(now) {
                return self.finish(now);
            }
            if let Err(e) = self.wait(now, &mut events) {
                self.tally.add(Failure::from_io("waiting for events", &e));
                return self.finish(now);
            }
            for event in &events {
                self.handle(event);
            }
        }
    }

    /// Gives every lane its first work; in an open loop each has its turn before any has another, and
    /// all have been free since the start, however late this thread is.
    fn start_lanes(&mut self) {
        for lane in self.lanes.iter_mut().flatten() {
            lane.start(&self.load, self.schedule.measured_from);
        }
        match &mut self.open {
            Some(open) => {
                for _ in 0..self.load.depth {
                    (0..self.lanes.len()).for_each(|i| open.release(i, self.schedule.start));
                }
            }
            None => (0..self.lanes.len()).for_each(|i| self.refill(i, Instant::now())),
        }
    }

    /// Waits for events, as long as there is nothing else to do.
    fn wait(&mut self, now: Instant, events: &mut Events) -> io::Result<()> {
        let mut timeout = self.until_next_duty(now);
        let last_send = self.last_send();
        if let Some(open) = &mut self.open
            && open.has_slot()
            && self.recorder.may_send(open.next())
            && now <= last_send
            && open.pacer.wait(now, open.next())? == Wait::Spin
        {
            timeout = Duration::ZERO;
            self.spinning_since = Some(now);
        }
        self.n_polls += 1;
        match self.poll.poll(events, Some(timeout)) {
            // A signal: the flag is looked at in the next round.
            Err(e) if e.kind() == ErrorKind::Interrupted => events.clear(),
            polled => polled?,
        }
        if !events.is_empty() {
            self.spinning_since = None;
        }
        Ok(())
    }

    /// A round without an event that did not sleep was spent for nothing.
    fn end_spin(&mut self, now: Instant) {
        if let (Some(since), Some(open)) = (self.spinning_since.take(), &mut self.open) {
            open.spun += now.saturating_duration_since(since);
        }
    }

    /// Sends what the timetable of an open loop says, as far as there is room. What was due before
    /// the end is sent after it too, for a part of the drain; the rest of it is for the answers.
    fn send_due(&mut self, now: Instant) {
        let last_send = self.last_send();
        for _ in 0..SENDS_PER_TURN {
            let Some(open) = &mut self.open else { return };
            let intended = open.next();
            if intended > now || now > last_send || !self.recorder.may_send(intended) {
                return;
            }
            let Some(Slot { lane: index, since }) = open.take_slot() else {
                return;
            };
            // The slot may have outlived its lane, or the lane's last request before it is closed.
            let Some(lane) = &mut self.lanes[index] else {
                continue;
            };
            if !lane.can_begin(&self.load) {
                continue;
            }
            open.advance();
            let sent_at = Instant::now();
            self.recorder.began_open(intended, sent_at, since);
            self.n_in_flight += 1;
            match lane.begin(intended, sent_at, &self.load) {
                Ok(n) => self.recorder.sent_bytes(n),
                Err(failure) => self.lose(index, failure),
            }
        }
    }

    /// When an open loop that is behind gives up what is due.
    fn last_send(&self) -> Instant {
        self.recorder.end() + self.drain / DRAIN_PARTS
    }

    /// Brings one lane as far as it goes without waiting.
    fn handle(&mut self, event: &Event) {
        let index = event.token().0;
        // The alarm of an open loop has no lane: it has done its work by ending the wait.
        let Some(Some(lane)) = self.lanes.get_mut(index) else {
            return;
        };
        if lane.is_opening() {
            return self.look_whether_open(index);
        }
        if event.is_writable() {
            match lane.send_rest(&self.load) {
                Ok(n) => self.recorder.sent_bytes(n),
                Err(failure) => return self.lose(index, failure),
            }
        }
        if !event.is_readable() && !event.is_read_closed() && !event.is_error() {
            return;
        }
        // The end of a stream may come with an echo and makes no edge of its own any more: read on
        // to it.
        while self.receive(index) && event.is_read_closed() {}
    }

    /// Takes what has arrived and sends what may follow; whether there may be more.
    fn receive(&mut self, index: usize) -> bool {
        let Some(lane) = &mut self.lanes[index] else {
            return false;
        };
        let n_before = lane.n_in_flight();
        let mut answered_at = None;
        let recorder = &mut self.recorder;
        let received = lane.receive(&mut self.buffer, &self.load, |answer| {
            recorder.answered(&answer);
            answered_at = Some(answer.at);
        });
        let n_freed = n_before - lane.n_in_flight();
        self.n_in_flight -= n_freed;
        match received {
            Ok(bytes) => {
                recorder.received_bytes(bytes);
                if n_freed > 0 {
                    // A damaged datagram makes room like any other, but has no moment of an answer.
                    let at = answered_at.unwrap_or_else(Instant::now);
                    self.give_work(index, at, n_freed);
                }
                bytes > 0
            }
            // The run is over and the target knows: nothing was asked, so nothing is missing.
            Err(_) if n_before == 0 && !self.recorder.may_send(Instant::now()) => {
                self.drop_lane(index);
                false
            }
            Err(failure) => {
                self.lose(index, failure);
                false
            }
        }
    }

    /// A lane has room for `n_freed` more requests since `at`: the present moment, or that of an
    /// answer just now.
    fn give_work(&mut self, index: usize, at: Instant, n_freed: usize) {
        if self.load.churn.is_some() && self.reopen_if_worn(index) {
            return;
        }
        match &mut self.open {
            Some(open) => (0..n_freed).for_each(|_| open.release(index, at)),
            None => self.refill(index, at),
        }
    }

    /// Sends on a lane what it may have in flight, unless the run has ended.
    fn refill(&mut self, index: usize, at: Instant) {
        let one_clock = self.load.depth == 1 && self.load.pattern.size_max() <= ONE_CLOCK_MAX_BYTES;
        while let Some(lane) = &mut self.lanes[index]
            && lane.can_begin(&self.load)
        {
            let now = if one_clock { at } else { Instant::now() };
            if !self.recorder.may_send(now) {
                return;
            }
            self.recorder.began(now);
            self.n_in_flight += 1;
            match lane.begin(now, now, &self.load) {
                Ok(n) => self.recorder.sent_bytes(n),
                Err(failure) => return self.lose(index, failure),
            }
        }
    }

    /// Closes a lane that has carried all it may and begins to open it anew; whether it was one.
    fn reopen_if_worn(&mut self, index: usize) -> bool {
        let Some(lane) = self.lanes[index].as_mut().filter(|l| l.is_worn(&self.load)) else {
            return false;
        };
        if self.recorder.may_send(Instant::now()) {
            self.n_opening += 1;
            if let Err(failure) = lane.reopen(&self.poll, &self.load, Token(index)) {
                self.lose(index, failure);
            }
        }
        true
    }

    fn look_whether_open(&mut self, index: usize) {
        let Some(lane) = &mut self.lanes[index] else {
            return;
        };
        match lane.opened(&self.load) {
            Ok(None) => {}
            Ok(Some(since)) => {
                let now = Instant::now();
                self.n_opening -= 1;
                self.recorder.connected(since, now);
                self.give_work(index, now, self.load.depth);
            }
            Err(failure) => self.lose(index, failure),
        }
    }

    /// Closes a lane of which a request failed.
    fn lose(&mut self, index: usize, failure: Failure) {
        self.drop_lane(index);
        self.recorder.failed();
        self.tally.add(failure);
    }

    fn drop_lane(&mut self, index: usize) {
        if let Some(lane) = self.lanes[index].take() {
            self.n_alive -= 1;
            self.n_in_flight -= lane.n_in_flight();
            self.n_opening -= usize::from(lane.is_opening());
            self.settle(lane);
        }
    }

    fn settle(&mut self, lane: L) {
        let settled = lane.finish();
        let [warmup, measured] = [&settled.warmup, &settled.measured];
        debug_assert_eq!(
            measured.accounted(),
            measured.sent,
            "each datagram has one fate"
        );
        debug_assert_eq!(
            warmup.accounted(),
            warmup.sent,
            "each datagram has one fate"
        );
        self.datagrams[0] += settled.warmup;
        self.datagrams[1] += settled.measured;
        self.tally.merge(settled.tally);
    }

    /// Lets lanes with overdue datagrams send again.
    fn give_up_overdue(&mut self, now: Instant) {
        if self.next_give_up.is_none_or(|next| now < next) {
            return;
        }
        for index in 0..self.lanes.len() {
            let Some(lane) = &mut self.lanes[index] else {
                continue;
            };
            let n_before = lane.n_in_flight();
            lane.give_up(now);
            let n_given_up = n_before - lane.n_in_flight();
            if n_given_up > 0 {
                self.n_in_flight -= n_given_up;
                self.give_work(index, now, n_given_up);
            }
        }
        let (least, most) = GIVE_UP_EVERY;
        let every = (self.load.settle / GIVE_UPS_PER_SETTLE).clamp(least, most);
        self.next_give_up = Some(now + every);
    }

    /// Whether all there is to wait for has come, or the time for it has run out.
    fn is_over(&mut self, now: Instant) -> bool {
        if now >= self.recorder.end() + self.drain {
            return true;
        }
        let may_send = match &self.open {
            Some(open) => {
                let is_behind = self.recorder.may_send(open.next()) && now <= self.last_send();
                self.n_alive > 0 && (now < self.recorder.end() || is_behind)
            }
            None => self.n_opening > 0 && self.recorder.may_send(now),
        };
        if self.n_in_flight > 0 || may_send || self.lanes.iter().flatten().any(L::is_owed) {
            self.settled_at = None;
            return false;
        }
        let settled_at = *self.settled_at.get_or_insert(now);
        !L::DATAGRAMS || now >= settled_at + LINGER
    }

    /// Reads the thread's own counters just before the measured phase begins and when it ends.
    fn read_usage(&mut self, now: Instant) {
        let measured_from = self.schedule.measured_from;
        if !self.is_measuring && now + USAGE_LEAD >= measured_from {
            self.is_measuring = true;
            // A thread that comes late keeps the reading from before the start: its wait counts.
            if self.usage_from.is_none() || now <= measured_from {
                self.usage_from = Some(self.reading());
            }
        }
        if self.usage.is_none() && now >= self.recorder.end() {
            self.take_usage();
        }
    }

    fn take_usage(&mut self) {
        let from = self.usage_from.as_ref().filter(|_| self.is_measuring);
        self.usage = from.map(|from| self.reading().since(from));
    }

    fn reading(&self) -> Reading {
        let spun = self.open.as_ref().map_or(Duration::ZERO, |open| open.spun);
        Reading::take(self.n_polls, spun)
    }

    fn until_next_duty(&self, now: Instant) -> Duration {
        let end = self.recorder.end();
        let mut duty = if now < end {
            self.recorder.next_edge().unwrap_or(end).min(end)
        } else {
            end + self.drain
        };
        if let Some(next) = self.next_give_up {
            duty = duty.min(next);
        }
        duty.saturating_duration_since(now).min(LOOK_UP)
    }

    fn finish(mut self, now: Instant) -> Summary {
        let measured_from = self.schedule.measured_from;
        self.recorder.end_by(now);
        // Earlier than planned when interrupted or when no lane is left.
        let end = self.recorder.end();
        if self.usage.is_none() {
            self.take_usage();
        }
        let n_dropped = L::n_dropped(&self.lanes);
        for index in 0..self.lanes.len() {
            if L::DATAGRAMS {
                // What is more than was waited for may still lie in the socket.
                while self.receive(index) {}
            }
            match self.lanes[index].as_ref().and_then(L::timed_out) {
                Some(failure) => self.lose(index, failure),
                None => self.drop_lane(index),
            }
        }
        let n_missed = self
            .open
            .map_or(0, |mut open| open.count_missed(measured_from, end));
        Summary {
            measured: end.saturating_duration_since(measured_from),
            warmed_up: end
                .min(measured_from)
                .saturating_duration_since(self.schedule.start),
            recorded: self.recorder.finish(now),
            n_missed,
            n_dropped,
            datagrams: L::DATAGRAMS.then_some(self.datagrams),
            tally: self.tally,
            core: self.core,
            usage: self.usage,
        }
    }
}

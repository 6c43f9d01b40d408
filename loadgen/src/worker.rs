//! One generator thread: a bare poll loop over its connections, closed loop.
//!
//! Each connection sends its next request as soon as the last one was answered. A request costs one
//! `send`, one `recv`, a share of an `epoll_wait`, one reading of the clock and no allocation: the
//! cheaper the generator, the less of what it measures is itself.
//!
//! It shares nothing with other threads but the [`Pattern`], which never changes, and the
//! [`Interrupt`] flag.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use hdrhistogram::Histogram;
use mio::event::Event;
use mio::{Events, Poll};

use crate::connect;
use crate::failure::{Failure, Kind, Tally};
use crate::interrupt::Interrupt;
use crate::news::{News, Outlet, Summary};
use crate::pattern::Pattern;
use crate::plan::Verify;
use crate::recorder::{Recorder, Schedule};
use crate::tcp::{Connection, Received};
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

/// What a thread is started with.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) address: SocketAddr,
    /// Number of the first connection; the thread's connections are numbered on from there.
    pub(crate) first_connection: u64,
    pub(crate) n_connections: usize,
    pub(crate) core: Option<usize>,
    pub(crate) pattern: Arc<Pattern>,
    pub(crate) verify: Verify,
    pub(crate) drain: Duration,
    pub(crate) interrupt: Interrupt,
    pub(crate) outlet: Outlet,
    /// Brings the schedule once every thread is ready.
    pub(crate) start: Receiver<Schedule>,
    /// Brings used histograms back.
    pub(crate) empty: Receiver<Histogram<u64>>,
}

/// The body of a generator thread, from opening its connections to its summary.
pub(crate) fn run(assignment: Assignment) {
    let outlet = assignment.outlet.clone();
    let (poll, connections) = match prepare(&assignment) {
        Ok(prepared) => prepared,
        Err(failure) => {
            outlet.send(News::NotReady(failure));
            return;
        }
    };
    outlet.send(News::Ready);
    // No schedule comes when another thread was not ready.
    let Ok(schedule) = assignment.start.recv() else {
        return;
    };
    let summary = Worker::new(assignment, schedule, poll, connections).run();
    outlet.send(News::Finished(Box::new(summary)));
}

fn prepare(assignment: &Assignment) -> Result<(Poll, Vec<Connection>), Failure> {
    if let Some(core) = assignment.core
        && !core_affinity::set_for_current(CoreId { id: core })
    {
        return Err(Failure::new(
            Kind::Other,
            format!("cannot pin a generator thread to CPU {core}"),
        ));
    }
    let mut poll = Poll::new().map_err(|e| Failure::from_io("making a selector", &e))?;
    let n = assignment.n_connections;
    let streams = connect::open_all(&mut poll, assignment.address, n, &assignment.interrupt)?;
    let numbers = assignment.first_connection..;
    Ok((
        poll,
        streams
            .into_iter()
            .zip(numbers)
            .map(|(s, n)| Connection::new(s, n))
            .collect(),
    ))
}

struct Worker {
    poll: Poll,
    /// By token; none once it failed.
    connections: Vec<Option<Connection>>,
    n_in_flight: usize,
    pattern: Arc<Pattern>,
    verify: Verify,
    buffer: Vec<u8>,
    recorder: Recorder,
    tally: Tally,
    schedule: Schedule,
    drain: Duration,
    interrupt: Interrupt,
    core: Option<usize>,
    n_polls: u64,
    usage_from: Option<Reading>,
    usage: Option<Usage>,
}

impl Worker {
    fn new(
        assignment: Assignment,
        schedule: Schedule,
        poll: Poll,
        connections: Vec<Connection>,
    ) -> Worker {
        let size = assignment.pattern.size();
        Worker {
            poll,
            connections: connections.into_iter().map(Some).collect(),
            n_in_flight: 0,
            // One byte more than a request: its echo is then a short read, which needs no second
            // one.
            buffer: vec![0; (size + 1).clamp(BUFFER_BYTES.0, BUFFER_BYTES.1)],
            pattern: assignment.pattern,
            verify: assignment.verify,
            recorder: Recorder::new(schedule.clone(), assignment.outlet, assignment.empty),
            tally: Tally::default(),
            schedule,
            drain: assignment.drain,
            interrupt: assignment.interrupt,
            core: assignment.core,
            n_polls: 0,
            usage_from: None,
            usage: None,
        }
    }

    fn run(mut self) -> Summary {
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        self.read_usage(Instant::now());
        // A request sent before the start would belong to no phase.
        thread::sleep(
            self.schedule
                .start
                .saturating_duration_since(Instant::now()),
        );
        for index in 0..self.connections.len() {
            self.begin(index, Instant::now());
        }
        loop {
            let now = Instant::now();
            self.recorder.advance_to(now);
            self.read_usage(now);
            if self.interrupt.is_raised() {
                self.recorder.end_by(now);
            }
            if self.n_in_flight == 0 {
                return self.finish(now);
            }
            if now >= self.recorder.end() + self.drain {
                self.give_up_outstanding();
                return self.finish(now);
            }
            let timeout = self.until_next_duty(now);
            self.n_polls += 1;
            match self.poll.poll(&mut events, Some(timeout)) {
                Ok(()) => {}
                // A signal: the flag is looked at in the next round.
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => {
                    self.tally.add(Failure::from_io("waiting for events", &e));
                    return self.finish(now);
                }
            }
            for event in &events {
                self.handle(event);
            }
        }
    }

    /// Brings one connection as far as it goes without waiting.
    fn handle(&mut self, event: &Event) {
        let index = event.token().0;
        if event.is_writable() {
            self.advance(index, |connection, pattern| connection.send_rest(pattern));
        }
        if !event.is_readable() && !event.is_read_closed() && !event.is_error() {
            return;
        }
        loop {
            let Some(connection) = &mut self.connections[index] else {
                return;
            };
            let was_in_flight = connection.is_in_flight();
            match connection.receive(&mut self.buffer, &self.pattern, self.verify) {
                Ok(Received::Part { bytes }) => {
                    self.recorder.received_bytes(bytes);
                    return;
                }
                Ok(Received::Whole { sent_at, at, bytes }) => {
                    self.n_in_flight -= 1;
                    self.recorder.answered(sent_at, at);
                    self.recorder.received_bytes(bytes);
                    self.begin(index, at);
                    // The end of the stream came with the echo and makes no edge of its own any
                    // more: read on to it.
                    if !event.is_read_closed() {
                        return;
                    }
                }
                Err(failure) if was_in_flight => return self.lose(index, failure),
                // The run is over and the target knows: nothing was asked, so nothing is missing.
                Err(_) => {
                    self.connections[index] = None;
                    return;
                }
            }
        }
    }

    /// Sends the next request of a connection, unless the run has ended.
    fn begin(&mut self, index: usize, answered_at: Instant) {
        let now = if self.pattern.size() <= ONE_CLOCK_MAX_BYTES {
            answered_at
        } else {
            Instant::now()
        };
        if self.connections[index].is_none() || !self.recorder.may_send(now) {
            return;
        }
        self.n_in_flight += 1;
        self.advance(index, |connection, pattern| connection.begin(now, pattern));
    }

    fn advance(
        &mut self,
        index: usize,
        send: impl FnOnce(&mut Connection, &Pattern) -> Result<usize, Failure>,
    ) {
        let Some(connection) = &mut self.connections[index] else {
            return;
        };
        match send(connection, &self.pattern) {
            Ok(n) => self.recorder.sent_bytes(n),
            Err(failure) => self.lose(index, failure),
        }
    }

    /// Closes a connection whose request failed.
    fn lose(&mut self, index: usize, failure: Failure) {
        self.connections[index] = None;
        self.n_in_flight -= 1;
        self.recorder.failed();
        self.tally.add(failure);
    }

    fn give_up_outstanding(&mut self) {
        for index in 0..self.connections.len() {
            if let Some(connection) = self.connections[index]
                .as_ref()
                .filter(|c| c.is_in_flight())
            {
                let failure = connection.timed_out(&self.pattern);
                self.lose(index, failure);
            }
        }
    }

    /// Reads the thread's own counters just before the measured phase begins and when it ends.
    fn read_usage(&mut self, now: Instant) {
        if self.usage_from.is_none() && now + USAGE_LEAD >= self.schedule.measured_from {
            self.usage_from = Some(Reading::take(self.n_polls));
        }
        if self.usage.is_none() && now >= self.recorder.end() {
            self.take_usage();
        }
    }

    fn take_usage(&mut self) {
        let from = self.usage_from.as_ref();
        self.usage = from.map(|from| Reading::take(self.n_polls).since(from));
    }

    fn until_next_duty(&self, now: Instant) -> Duration {
        let end = self.recorder.end();
        let duty = if now < end {
            self.recorder.next_edge().unwrap_or(end).min(end)
        } else {
            end + self.drain
        };
        duty.saturating_duration_since(now).min(LOOK_UP)
    }

    fn finish(mut self, now: Instant) -> Summary {
        if self.usage.is_none() {
            self.take_usage();
        }
        // Earlier than planned when interrupted or when no connection is left.
        let end = self.recorder.end().min(now);
        let Schedule {
            start,
            measured_from,
            ..
        } = self.schedule;
        Summary {
            measured: end.saturating_duration_since(measured_from),
            warmed_up: end.min(measured_from).saturating_duration_since(start),
            late_warmup: self.recorder.finish(now),
            tally: self.tally,
            core: self.core,
            usage: self.usage,
        }
    }
}

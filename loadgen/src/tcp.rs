//! One TCP connection: sends requests, receives their echoes in the same order, compares.
//!
//! Sockets are edge-triggered: [`Connection::send_rest`] writes until all is sent or the kernel
//! refuses, and [`Connection::receive`] reads until a read comes back short. A short read has
//! emptied the socket; what arrives later makes a new edge (epoll(7), question 9), so no second
//! read is spent on hearing `WouldBlock`.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Poll, Token};

use crate::connect;
use crate::failure::{Failure, Kind};
use crate::interrupt::Interrupt;
use crate::lane::{Answer, Lane, Load};
use crate::pattern::Request;
use crate::plan::Verify;

/// A connection, open from its making until it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// Unique over all threads.
    number: u64,
    n_begun: u64,
    /// Requests begun since it was opened.
    n_begun_here: u64,
    /// Since when it is being opened anew.
    opening_since: Option<Instant>,
    /// Oldest first. Its capacity is the depth, so nothing is allocated for a request.
    flights: VecDeque<Flight>,
    /// How many of the youngest flights are not wholly sent.
    n_unsent: usize,
    /// Bytes sent of the oldest of those.
    sent: usize,
    /// Bytes received of the oldest flight.
    received: usize,
}

/// A request under way.
#[derive(Debug)]
struct Flight {
    request: Request,
    intended: Instant,
    sent_at: Instant,
}

impl Connection {
    fn new(stream: TcpStream, number: u64, depth: usize) -> Connection {
        Connection {
            stream,
            number,
            n_begun: 0,
            n_begun_here: 0,
            opening_since: None,
            flights: VecDeque::with_capacity(depth),
            n_unsent: 0,
            sent: 0,
            received: 0,
        }
    }

    /// Compares `chunk` with what is waited for and tells of the requests it completes at `at`.
    fn accept(
        &mut self,
        mut chunk: &[u8],
        at: Instant,
        load: &Load,
        on_answer: &mut impl FnMut(Answer),
    ) -> Result<(), Failure> {
        while let Some(flight) = self.flights.front() {
            let wanted = flight.request.len - self.received;
            let (echoed, rest) = chunk.split_at(chunk.len().min(wanted));
            if load.verify == Verify::Full
                && let Err(mut failure) =
                    load.pattern.compare(&flight.request, self.received, echoed)
            {
                failure.message = format!("{}: {}", self.doing("comparing"), failure.message);
                return Err(failure);
            }
            self.received += echoed.len();
            if self.received < flight.request.len {
                return Ok(());
            }
            on_answer(Answer {
                intended: flight.intended,
                sent_at: flight.sent_at,
                at,
            });
            self.flights.pop_front();
            self.received = 0;
            chunk = rest;
            if chunk.is_empty() {
                return Ok(());
            }
        }
        self.check_surplus(chunk.len(), load.verify)
    }

    fn check_surplus(&self, surplus: usize, verify: Verify) -> Result<(), Failure> {
        if surplus == 0 || verify == Verify::Off {
            return Ok(());
        }
        Err(Failure::new(
            Kind::Corrupted,
            format!(
                "{}: {surplus} more bytes came back than were sent: the target does not echo \
                 what it receives",
                self.doing("receiving")
            ),
        ))
    }

    fn closed_early(&self) -> Failure {
        Failure::new(
            Kind::ClosedEarly,
            format!(
                "{}: the target closed the connection after {}",
                self.doing("receiving"),
                self.progress()
            ),
        )
    }

    /// `12 of 64 bytes`, of the oldest request in flight.
    fn progress(&self) -> String {
        match self.flights.front() {
            Some(flight) => format!("{} of {} bytes", self.received, flight.request.len),
            None => "the last answer".to_owned(),
        }
    }

    /// Names the oldest request in flight.
    fn doing(&self, what: &str) -> String {
        let younger = self.flights.len().saturating_sub(1) as u64;
        format!(
            "{what}, request {} of connection {}",
            self.n_begun - younger,
            self.number
        )
    }
}

impl Lane for Connection {
    const DATAGRAMS: bool = false;

    fn open_all(
        poll: &mut Poll,
        load: &Load,
        first: u64,
        n: usize,
        interrupt: &Interrupt,
    ) -> Result<Vec<Connection>, Failure> {
        let streams = connect::open_all(poll, load.address, n, interrupt)?;
        let numbered = streams.into_iter().zip(first..);
        Ok(numbered
            .map(|(stream, number)| Connection::new(stream, number, load.depth))
            .collect())
    }

    fn start(&mut self, _load: &Load, _measured_from: Instant) {}

    fn n_in_flight(&self) -> usize {
        self.flights.len()
    }

    fn can_begin(&self, load: &Load) -> bool {
        self.flights.len() < load.depth
            && self.opening_since.is_none()
            && load.churn.is_none_or(|limit| self.n_begun_here < limit)
    }

    fn begin(
        &mut self,
        intended: Instant,
        sent_at: Instant,
        load: &Load,
    ) -> Result<usize, Failure> {
        self.n_begun += 1;
        self.n_begun_here += 1;
        self.flights.push_back(Flight {
            request: load.pattern.request(self.number, self.n_begun),
            intended,
            sent_at,
        });
        self.n_unsent += 1;
        if self.n_unsent > 1 {
            // An older one waits for the kernel already.
            return Ok(0);
        }
        self.send_rest(load)
    }

    fn send_rest(&mut self, load: &Load) -> Result<usize, Failure> {
        let mut total = 0;
        while self.n_unsent > 0 {
            let flight = &self.flights[self.flights.len() - self.n_unsent];
            let bytes = load.pattern.bytes(&flight.request);
            match self.stream.write(&bytes[self.sent..]) {
                Ok(n) => {
                    total += n;
                    self.sent += n;
                    if self.sent == bytes.len() {
                        self.sent = 0;
                        self.n_unsent -= 1;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Failure::from_io(&self.doing("sending"), &e)),
            }
        }
        Ok(total)
    }

    fn receive(
        &mut self,
        buffer: &mut [u8],
        load: &Load,
        mut on_answer: impl FnMut(Answer),
    ) -> Result<usize, Failure> {
        let mut total = 0;
        loop {
            let n = match self.stream.read(buffer) {
                Ok(0) => return Err(self.closed_early()),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(total),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(Failure::from_io(&self.doing("receiving"), &e)),
            };
            total += n;
            // The clock is read before the comparison: checking the echo is the generator's time,
            // not the target's.
            self.accept(&buffer[..n], Instant::now(), load, &mut on_answer)?;
            if n < buffer.len() {
                return Ok(total);
            }
        }
    }

    fn is_worn(&self, load: &Load) -> bool {
        self.flights.is_empty()
            && self.opening_since.is_none()
            && load.churn.is_some_and(|limit| self.n_begun_here >= limit)
    }

    fn reopen(&mut self, poll: &Poll, load: &Load, token: Token) -> Result<(), Failure> {
        self.opening_since = Some(Instant::now());
        self.n_begun_here = 0;
        self.stream = connect::start(poll, load.address, token)?;
        Ok(())
    }

    fn is_opening(&self) -> bool {
        self.opening_since.is_some()
    }

    fn opened(&mut self, load: &Load) -> Result<Option<Instant>, Failure> {
        let Some(since) = self.opening_since else {
            return Ok(None);
        };
        if !connect::is_open(&self.stream, load.address)? {
            return Ok(None);
        }
        self.opening_since = None;
        Ok(Some(since))
    }

    fn timed_out(&self) -> Option<Failure> {
        let (doing, progress) = (self.doing("waiting"), self.progress());
        let message = format!("{doing}: {progress} came back before the run was over");
        self.flights
            .front()
            .map(|_| Failure::new(Kind::TimedOut, message))
    }
}

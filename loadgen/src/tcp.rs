//! One TCP connection with at most one request in flight: sends a request, receives its echo,
//! compares.
//!
//! Sockets are edge-triggered: [`Connection::send_rest`] writes until all is sent or the kernel
//! refuses, and [`Connection::receive`] reads until a read comes back short. A short read has
//! emptied the socket; what arrives later makes a new edge (epoll(7), question 9), so no second
//! read is spent on hearing `WouldBlock`.
//!
//! It neither decides when to send nor records anything; [`crate::worker`] does.

use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use mio::net::TcpStream;

use crate::failure::{Failure, Kind};
use crate::pattern::Pattern;
use crate::plan::Verify;

/// A connection, open from [`Connection::new`] until it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// Unique over all threads.
    number: u64,
    request: u64,
    in_flight: Option<InFlight>,
}

/// The request under way.
#[derive(Debug)]
struct InFlight {
    window: usize,
    sent_at: Instant,
    sent: usize,
    received: usize,
}

/// What [`Connection::receive`] found; the caller must act on it.
#[derive(Debug)]
#[must_use]
pub(crate) enum Received {
    /// Send the next request, or rest.
    Whole {
        sent_at: Instant,
        at: Instant,
        bytes: usize,
    },
    /// Wait for the next event.
    Part { bytes: usize },
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, number: u64) -> Connection {
        Connection {
            stream,
            number,
            request: 0,
            in_flight: None,
        }
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Begins the next request, sent at `now`, and sends as much of it as the kernel takes. Returns
    /// the bytes sent.
    pub(crate) fn begin(&mut self, now: Instant, pattern: &Pattern) -> Result<usize, Failure> {
        debug_assert!(
            self.in_flight.is_none(),
            "one request in flight a connection"
        );
        self.request += 1;
        let window = pattern.window(self.number, self.request);
        self.in_flight = Some(InFlight {
            window,
            sent_at: now,
            sent: 0,
            received: 0,
        });
        self.send_rest(pattern)
    }

    /// Sends what the kernel did not take before. Returns the bytes sent.
    pub(crate) fn send_rest(&mut self, pattern: &Pattern) -> Result<usize, Failure> {
        let Some(flight) = &mut self.in_flight else {
            return Ok(0);
        };
        let before = flight.sent;
        let request = pattern.request(flight.window);
        while flight.sent < request.len() {
            match self.stream.write(&request[flight.sent..]) {
                Ok(n) => flight.sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Failure::from_io(&self.doing("sending"), &e)),
            }
        }
        Ok(flight.sent - before)
    }

    /// Reads what is there into `buffer`, up to the end of the request under way, and compares it
    /// as `verify` says.
    ///
    /// `buffer` is larger than one byte and may be smaller than a request.
    pub(crate) fn receive(
        &mut self,
        buffer: &mut [u8],
        pattern: &Pattern,
        verify: Verify,
    ) -> Result<Received, Failure> {
        let mut bytes = 0;
        loop {
            let n = match self.stream.read(buffer) {
                Ok(0) => return Err(self.closed_early(pattern)),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Received::Part { bytes }),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(Failure::from_io(&self.doing("receiving"), &e)),
            };
            bytes += n;
            let Some(flight) = &mut self.in_flight else {
                self.check_surplus(n, verify)?;
                return Ok(Received::Part { bytes });
            };
            let wanted = pattern.size() - flight.received;
            // The clock is read before the comparison: checking the echo is the generator's time,
            // not the target's.
            let whole_at = (n >= wanted).then(Instant::now);
            let useful = n.min(wanted);
            if verify == Verify::Full {
                let echoed = &buffer[..useful];
                if let Err(mut failure) = pattern.compare(flight.window, flight.received, echoed) {
                    failure.message = format!("{}: {}", self.doing("comparing"), failure.message);
                    return Err(failure);
                }
            }
            flight.received += useful;
            let sent_at = flight.sent_at;
            if let Some(at) = whole_at {
                self.check_surplus(n - useful, verify)?;
                self.in_flight = None;
                return Ok(Received::Whole { sent_at, at, bytes });
            }
            if n < buffer.len() {
                return Ok(Received::Part { bytes });
            }
        }
    }

    /// The request under way was given up after waiting for it.
    pub(crate) fn timed_out(&self, pattern: &Pattern) -> Failure {
        let received = self.in_flight.as_ref().map_or(0, |flight| flight.received);
        Failure::new(
            Kind::TimedOut,
            format!(
                "{}: {received} of {} bytes came back before the run was over",
                self.doing("waiting"),
                pattern.size()
            ),
        )
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

    fn closed_early(&self, pattern: &Pattern) -> Failure {
        let received = self.in_flight.as_ref().map_or(0, |flight| flight.received);
        Failure::new(
            Kind::ClosedEarly,
            format!(
                "{}: the target closed the connection after {received} of {} bytes",
                self.doing("receiving"),
                pattern.size()
            ),
        )
    }

    fn doing(&self, what: &str) -> String {
        format!(
            "{what}, request {} of connection {}",
            self.request, self.number
        )
    }
}

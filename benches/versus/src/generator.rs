//! The closed-loop client: every connection has exactly one request under way.
//!
//! It has to be cheaper than the cheapest server, otherwise it would be measured instead: one
//! edge-triggered mio loop, one shared receive buffer, requests that are slices of one table, no
//! allocation and no copy per request. It verifies every byte; each request of a connection differs
//! from the one before, and neighbours differ from each other, so old, foreign, lost and doubled
//! bytes are all found.
//!
//! It deliberately measures no latency while the loop is closed: that would be coordinated omission. The same
//! connections can also be driven by a timetable, see [`paced`](crate::paced), and there it is measured.
//!
//! Invariants: a connection is either idle or waits for one answer; `waiting` is the number of
//! those that wait; a `run` ends one batch of events after its duration, or 5 s later at most if
//! nothing was answered by then.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{self, SocketAddr};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::paced::Pace;

/// Distinct requests per connection before they repeat; also distinguishes neighbours.
pub(crate) const VARIANTS: usize = 256;
/// Step from one connection's first request to its neighbour's: odd, so all variants are used.
pub(crate) const NEIGHBOUR_STEP: usize = 97;
/// Bytes taken by one `read`.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// Events taken by one wait; the same as in the mio server.
pub(crate) const EVENTS: usize = 1024;
/// How long one connect may take: on loopback it is instant unless the accept queue is full.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long answers may take that are still waited for when the time of a run is over.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What load to put on a server.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Where the server listens.
    pub server: SocketAddr,
    /// How many connections.
    pub connections: usize,
    /// Bytes of one request.
    pub size: usize,
}

/// What one run has done.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Requests that were answered, and verified to the last byte.
    pub requests: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Latency, if the requests came by a timetable.
    pub pace: Option<Pace>,
}

/// Open connections to one server, and the loop that drives them.
#[derive(Debug)]
pub struct Generator {
    poll: Poll,
    events: Events,
    pub(crate) fleet: Fleet,
}

impl Generator {
    /// Opens all connections, one after the other; sends nothing yet.
    ///
    /// # Errors
    /// When a connection cannot be made or registered.
    pub fn connect(load: &Load) -> Result<Self, LoadError> {
        assert!(load.size > 0, "an empty request has no answer");
        let poll = Poll::new().map_err(|error| LoadError::socket(0, "make a selector", error))?;
        let mut connections = Vec::with_capacity(load.connections);
        for index in 0..load.connections {
            let failed = |error| LoadError::socket(index, "connect", error);
            let stream = net::TcpStream::connect_timeout(&load.server, CONNECT_LIMIT);
            let stream = stream.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            stream.set_nonblocking(true).map_err(failed)?;
            let mut stream = TcpStream::from_std(stream);
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry()
                .register(&mut stream, Token(index), interest)
                .map_err(failed)?;
            connections.push(Connection {
                stream,
                variant: index * NEIGHBOUR_STEP % VARIANTS,
                sent: load.size,
                received: load.size,
                due: Instant::now(),
            });
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            fleet: Fleet {
                connections,
                idle: (0..load.connections).collect(),
                table: pseudo_random_bytes(load.size + VARIANTS),
                buffer: vec![0; RECEIVE_BUFFER],
                size: load.size,
                answered: 0,
                waiting: 0,
                repeat: false,
            },
        })
    }

    /// Keeps one request under way on each connection for `duration`.
    ///
    /// The requests under way at its end stay so: the next `run` or [`Self::finish`] gets their
    /// answers. Without a single answer it goes on for at most 5 s until there is one.
    ///
    /// # Errors
    /// When an answer is wrong, a connection ends, or nothing at all was answered.
    pub fn run(&mut self, duration: Duration) -> Result<Progress, LoadError> {
        let start = Instant::now();
        let end = start + duration;
        let before = self.fleet.answered;
        self.fleet.repeat = true;
        self.fleet.start_idle()?;
        loop {
            let now = Instant::now();
            let requests = self.fleet.answered - before;
            if now >= end && requests > 0 {
                return Ok(Progress {
                    requests,
                    elapsed: now - start,
                    pace: None,
                });
            }
            // A short run on a busy machine may see no answer at all: it waits for the first.
            let last = if requests > 0 {
                end
            } else {
                end + ANSWER_LIMIT
            };
            if now >= last {
                return Err(self.fleet.stalled(now - start));
            }
            self.turn(last - now)?;
        }
    }

    /// Sends one request on each idle connection and waits for all answers.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn echo_once(&mut self) -> Result<(), LoadError> {
        self.fleet.start_idle()?;
        self.finish()
    }

    /// Waits for the answers under way and sends nothing more; at most 5 s.
    ///
    /// # Errors
    /// When an answer is wrong or missing, or a connection ends.
    pub fn finish(&mut self) -> Result<(), LoadError> {
        self.fleet.repeat = false;
        let end = Instant::now() + ANSWER_LIMIT;
        while self.fleet.waiting > 0 {
            let now = Instant::now();
            if now >= end {
                return Err(self.fleet.stalled(ANSWER_LIMIT));
            }
            self.turn(end - now)?;
        }
        Ok(())
    }

    /// Requests that were answered since the connections were opened.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.fleet.answered
    }

    fn turn(&mut self, limit: Duration) -> Result<(), LoadError> {
        self.wait(limit)?;
        self.handle()
    }

    /// Fetches the next events.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<(), LoadError> {
        match self.poll.poll(&mut self.events, Some(limit)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            Err(error) => Err(LoadError::socket(0, "wait for events", error)),
        }
    }

    /// Handles the events that were fetched.
    pub(crate) fn handle(&mut self) -> Result<(), LoadError> {
        for event in &self.events {
            self.fleet.handle(event)?;
        }
        Ok(())
    }
}

/// One connection; both counters are at the request's size while it is idle.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// Where in the table its current request starts.
    variant: usize,
    sent: usize,
    received: usize,
    /// When its current request was meant to be sent, if that is said by a timetable.
    pub(crate) due: Instant,
}

/// Everything but the selector, so that events can be borrowed while it changes.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) connections: Vec<Connection>,
    /// Those that wait for no answer; the one that has been idle longest comes first.
    pub(crate) idle: VecDeque<usize>,
    table: Vec<u8>,
    buffer: Vec<u8>,
    size: usize,
    pub(crate) answered: u64,
    waiting: usize,
    /// Whether an answer is followed by the next request.
    pub(crate) repeat: bool,
}

impl Fleet {
    fn start_idle(&mut self) -> Result<(), LoadError> {
        while let Some(index) = self.idle.pop_front() {
            self.request(index)?;
        }
        Ok(())
    }

    fn handle(&mut self, event: &Event) -> Result<(), LoadError> {
        let index = event.token().0;
        let closed = event.is_read_closed() || event.is_error();
        if event.is_readable() || closed {
            self.receive(index)?;
        }
        if closed {
            // The generator is always the first to close, so data before the end changes nothing.
            return Err(LoadError::Closed { connection: index });
        }
        if event.is_writable() && self.connections[index].sent < self.size {
            self.send(index)?;
        }
        Ok(())
    }

    /// Starts the next request of a connection that was idle.
    pub(crate) fn request(&mut self, index: usize) -> Result<(), LoadError> {
        let connection = &mut self.connections[index];
        connection.variant = (connection.variant + 1) % VARIANTS;
        connection.sent = 0;
        connection.received = 0;
        self.waiting += 1;
        self.send(index)
    }

    /// Sends until the request is out or the socket is full; then a writable event continues.
    fn send(&mut self, index: usize) -> Result<(), LoadError> {
        let connection = &mut self.connections[index];
        let end = connection.variant + self.size;
        while connection.sent < self.size {
            let rest = &self.table[connection.variant + connection.sent..end];
            match connection.stream.write(rest) {
                Ok(written) => connection.sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(LoadError::socket(index, "send", error)),
            }
        }
        Ok(())
    }

    /// Receives until the socket is empty. A read that leaves room in the buffer has emptied it:
    /// what comes later makes a new edge, so the read that would say so is saved.
    fn receive(&mut self, index: usize) -> Result<(), LoadError> {
        loop {
            let count = match self.connections[index].stream.read(&mut self.buffer) {
                Ok(0) => return Err(LoadError::Closed { connection: index }),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(LoadError::socket(index, "receive", error)),
            };
            self.accept_answer(index, count)?;
            if count < self.buffer.len() {
                return Ok(());
            }
        }
    }

    /// Compares `count` received bytes with those that were sent.
    fn accept_answer(&mut self, index: usize, count: usize) -> Result<(), LoadError> {
        let connection = &mut self.connections[index];
        if connection.received + count > connection.sent {
            let excess = connection.received + count - connection.sent;
            return Err(LoadError::Excess {
                connection: index,
                bytes: excess,
            });
        }
        let start = connection.variant + connection.received;
        let expected = &self.table[start..start + count];
        let answer = &self.buffer[..count];
        if answer != expected {
            let differing = answer
                .iter()
                .zip(expected)
                .position(|(got, sent)| got != sent);
            let within = differing.expect("slices of one length that differ do so at some byte");
            let byte = connection.received + within;
            return Err(LoadError::Mismatch {
                connection: index,
                byte,
            });
        }
        connection.received += count;
        if connection.received == self.size {
            self.answered += 1;
            self.waiting -= 1;
            if self.repeat {
                self.request(index)?;
            } else {
                self.idle.push_back(index);
            }
        }
        Ok(())
    }

    pub(crate) fn stalled(&self, limit: Duration) -> LoadError {
        LoadError::Stalled {
            waiting: self.waiting,
            answered: self.answered,
            limit,
        }
    }
}

/// Bytes without a short period (xorshift), the same in every run.
pub(crate) fn pseudo_random_bytes(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..count).map(|_| next()).collect()
}

/// What a server did wrong, or what kept the generator from asking it.
#[derive(Debug)]
pub enum LoadError {
    /// A system call failed.
    Socket {
        /// Number of the connection.
        connection: usize,
        /// What was tried.
        attempt: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// The server ended a connection.
    Closed {
        /// Number of the connection.
        connection: usize,
    },
    /// An answer is not what was sent.
    Mismatch {
        /// Number of the connection.
        connection: usize,
        /// First wrong byte of the answer.
        byte: usize,
    },
    /// More came back than was sent.
    Excess {
        /// Number of the connection.
        connection: usize,
        /// How many bytes too many.
        bytes: usize,
    },
    /// Answers did not come.
    Stalled {
        /// Connections that wait for an answer.
        waiting: usize,
        /// Requests answered since the connections were opened.
        answered: u64,
        /// How long they were waited for.
        limit: Duration,
    },
}

impl LoadError {
    pub(crate) fn socket(connection: usize, attempt: &'static str, error: io::Error) -> Self {
        Self::Socket {
            connection,
            attempt,
            error,
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket {
                connection,
                attempt,
                error,
            } => {
                write!(f, "connection {connection}: cannot {attempt}: {error}")
            }
            Self::Closed { connection } => {
                write!(
                    f,
                    "connection {connection}: closed by the server while in use"
                )
            }
            Self::Mismatch { connection, byte } => {
                write!(
                    f,
                    "connection {connection}: byte {byte} of an answer is not what was sent"
                )
            }
            Self::Excess { connection, bytes } => {
                write!(
                    f,
                    "connection {connection}: {bytes} bytes more than were sent"
                )
            }
            Self::Stalled {
                waiting,
                answered,
                limit,
            } => write!(
                f,
                "{waiting} connections without an answer after {limit:?}, {answered} answers before"
            ),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Socket { error, .. } => Some(error),
            _ => None,
        }
    }
}

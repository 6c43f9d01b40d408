//! The open-loop client: sends what a trace says when the trace says it, whatever the server does.
//!
//! One thread sleeps until the next request is due and sends it; the caller's thread receives. A latency counts from
//! the intended moment, so a server that stalls is charged with every request that waits meanwhile. Every answer is
//! compared: the same 16 bytes, and within a connection in order.
//!
//! On a machine with as many CPUs as the server has, both threads compete with it. They run at the highest priority
//! the kernel grants, so that requests leave in time; what they take from the server, they take from all servers
//! alike. How late requests were sent is part of the outcome.
//!
//! It ends a fixed time after the last request is due, at the latest.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{self, SocketAddr};
use std::num::NonZeroU64;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use rustix::process::setpriority_process;
use rustix::thread::set_current_timer_slack;

use crate::generator::{EVENTS, LoadError};
use crate::spin::{self, ASK_HOME};
use crate::trace::Trace;

/// From the last connect to the start, so that nothing of it disturbs the first requests.
const LEAD: Duration = Duration::from_millis(20);
/// How long a connect, or the answer to a question for the home, may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Connections that are tried until enough of them have one home.
const HOME_TRIES: usize = 200;
/// The priority of both threads, where the kernel grants it.
const NICE: i32 = -20;

/// What became of a trace.
#[derive(Debug)]
pub struct Outcome {
    /// For each request: from its intended moment to its answer; none for one that was not answered in time.
    pub latency_ns: Vec<Option<u64>>,
    /// For each request that was sent: how late.
    pub late_ns: Vec<u64>,
}

/// Plays the trace. Answers are waited for until `limit` after the last request is due.
///
/// # Errors
/// When an answer is wrong, a connection ends, or a socket call fails.
pub fn play(server: SocketAddr, trace: &Trace, limit: Duration) -> Result<Outcome, LoadError> {
    let poll = Poll::new().map_err(|error| LoadError::socket(0, "make a selector", error))?;
    let registry = poll.registry().try_clone();
    let registry = registry.map_err(|error| LoadError::socket(0, "share the selector", error))?;
    let lanes = Lanes {
        streams: (0..trace.connections()).map(|_| OnceLock::new()).collect(),
        registry,
    };
    for (index, stream) in standing(server, trace)?.into_iter().enumerate() {
        lanes.add(index, stream)?;
    }
    let start = Instant::now() + LEAD;
    let (sent, received) = thread::scope(|scope| {
        let sender = scope.spawn(|| send(server, trace, &lanes, start));
        let received = scope
            .spawn(|| receive(trace, &lanes, poll, start, limit))
            .join();
        (sender.join(), received)
    });
    // What the receiver has seen explains more than a send that failed for it.
    let latency_ns = received.expect("receiving does not panic")?;
    let late_ns = sent.expect("sending does not panic")?;
    Ok(Outcome {
        latency_ns,
        late_ns,
    })
}

/// Connections by number; the sender adds to them, the receiver finds them by their events.
struct Lanes {
    streams: Vec<OnceLock<TcpStream>>,
    registry: Registry,
}

impl Lanes {
    /// Nothing is sent before this has returned, so no event comes for a stream that is not there.
    fn add(&self, index: usize, stream: net::TcpStream) -> Result<(), LoadError> {
        let failed = |error| LoadError::socket(index, "prepare a connection", error);
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_nonblocking(true).map_err(failed)?;
        let mut stream = TcpStream::from_std(stream);
        self.registry
            .register(&mut stream, Token(index), Interest::READABLE)
            .map_err(failed)?;
        let added = self.streams[index].set(stream);
        added.expect("a connection is made once");
        Ok(())
    }
}

fn connect(server: SocketAddr, index: usize) -> Result<net::TcpStream, LoadError> {
    let stream = net::TcpStream::connect_timeout(&server, CONNECT_LIMIT);
    stream.map_err(|error| LoadError::socket(index, "connect", error))
}

/// The connections that are there before the start; for a trace with one home, all accepted by one loop.
fn standing(server: SocketAddr, trace: &Trace) -> Result<Vec<net::TcpStream>, LoadError> {
    if !trace.one_home {
        return (0..trace.standing)
            .map(|index| connect(server, index))
            .collect();
    }
    let mut homes: HashMap<u64, Vec<net::TcpStream>> = HashMap::new();
    for index in 0..HOME_TRIES {
        let mut stream = connect(server, index)?;
        let home = ask_home(&mut stream);
        let home = home.map_err(|error| LoadError::socket(index, "ask for the home", error))?;
        let there = homes.entry(home).or_default();
        there.push(stream);
        if there.len() == trace.standing {
            return Ok(homes.remove(&home).expect("it was just there"));
        }
    }
    let error = ErrorKind::NotFound.into();
    Err(LoadError::socket(
        HOME_TRIES,
        "find connections with one home",
        error,
    ))
}

fn ask_home(stream: &mut net::TcpStream) -> std::io::Result<u64> {
    stream.set_read_timeout(Some(CONNECT_LIMIT))?;
    stream.write_all(&spin::request(0, ASK_HOME))?;
    let mut answer = [0; spin::SIZE];
    stream.read_exact(&mut answer)?;
    Ok(spin::service_of(&answer))
}

/// Makes the calling thread wake up when it should. Refused to an ordinary user; lateness shows what that costs.
fn hasten() {
    if let Err(error) = setpriority_process(None, NICE) {
        eprintln!("the generator keeps its ordinary priority: {error}");
    }
    if let Err(error) = set_current_timer_slack(NonZeroU64::new(1)) {
        eprintln!("the generator's timers keep their slack: {error}");
    }
}

fn send(
    server: SocketAddr,
    trace: &Trace,
    lanes: &Lanes,
    start: Instant,
) -> Result<Vec<u64>, LoadError> {
    hasten();
    let mut late_ns = Vec::with_capacity(trace.requests.len());
    for (number, request) in trace.requests.iter().enumerate() {
        let due = start + Duration::from_nanos(request.at_ns);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        late_ns.push(nanoseconds(due.elapsed()));
        let index = request.connection;
        if lanes.streams[index].get().is_none() {
            lanes.add(index, connect(server, index)?)?;
        }
        let mut stream = lanes.streams[index].get().expect("it is there by now");
        // Requests are so small that they fit whole or not at all, and a socket that takes no more is a failure.
        let sent = stream.write_all(&spin::request(number as u64, request.service_ns));
        sent.map_err(|error| LoadError::socket(index, "send", error))?;
    }
    Ok(late_ns)
}

fn receive(
    trace: &Trace,
    lanes: &Lanes,
    mut poll: Poll,
    start: Instant,
    limit: Duration,
) -> Result<Vec<Option<u64>>, LoadError> {
    hasten();
    let mut receiver = Receiver::new(trace);
    let last = trace.requests.last().map_or(0, |request| request.at_ns);
    let end = start + Duration::from_nanos(last) + limit;
    let mut events = Events::with_capacity(EVENTS);
    while receiver.waiting > 0 {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match poll.poll(&mut events, Some(left)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(LoadError::socket(0, "wait for events", error)),
        }
        for event in &events {
            let index = event.token().0;
            let stream = lanes.streams[index].get();
            receiver.take(index, stream.expect("it sent before this event"), start)?;
        }
    }
    Ok(receiver.latency_ns)
}

struct Receiver<'t> {
    trace: &'t Trace,
    latency_ns: Vec<Option<u64>>,
    waiting: usize,
    lanes: Vec<Expected>,
    buffer: Vec<u8>,
}

/// What comes next on a connection.
#[derive(Default)]
struct Expected {
    /// Numbers of its requests, the next one last.
    numbers: Vec<usize>,
    /// The beginning of an answer.
    partial: Vec<u8>,
}

impl<'t> Receiver<'t> {
    fn new(trace: &'t Trace) -> Self {
        let mut lanes = Vec::new();
        lanes.resize_with(trace.connections(), Expected::default);
        for (number, request) in trace.requests.iter().enumerate().rev() {
            lanes[request.connection].numbers.push(number);
        }
        Self {
            trace,
            latency_ns: vec![None; trace.requests.len()],
            waiting: trace.requests.len(),
            lanes,
            buffer: vec![0; 4096],
        }
    }

    /// Everything that is there, to the last byte: the next edge comes only then.
    fn take(
        &mut self,
        index: usize,
        mut stream: &TcpStream,
        start: Instant,
    ) -> Result<(), LoadError> {
        loop {
            let count = match stream.read(&mut self.buffer) {
                Ok(0) => return Err(LoadError::Closed { connection: index }),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(LoadError::socket(index, "receive", error)),
            };
            let now_ns = nanoseconds(start.elapsed());
            self.lanes[index].partial.extend(&self.buffer[..count]);
            self.compare(index, now_ns)?;
        }
    }

    fn compare(&mut self, index: usize, now_ns: u64) -> Result<(), LoadError> {
        let lane = &mut self.lanes[index];
        let whole = lane.partial.len() / spin::SIZE * spin::SIZE;
        for answer in lane.partial[..whole].chunks_exact(spin::SIZE) {
            let excess = LoadError::Excess {
                connection: index,
                bytes: spin::SIZE,
            };
            let number = lane.numbers.pop().ok_or(excess)?;
            let request = self.trace.requests[number];
            let expected = spin::request(number as u64, request.service_ns);
            if let Some(byte) = answer
                .iter()
                .zip(expected)
                .position(|(got, sent)| *got != sent)
            {
                let connection = index;
                return Err(LoadError::Mismatch { connection, byte });
            }
            self.latency_ns[number] = Some(now_ns.saturating_sub(request.at_ns));
            self.waiting -= 1;
        }
        lane.partial.drain(..whole);
        Ok(())
    }
}

pub(crate) fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).expect("a run is shorter than 584 years")
}

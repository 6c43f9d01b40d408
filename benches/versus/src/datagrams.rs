//! The closed-loop client for UDP: every socket has exactly one datagram under way.
//!
//! Like [`generator`](crate::generator), which see for why it is as it is: one edge-triggered mio
//! loop, one receive buffer, requests that are slices of one table, every byte compared. With so few
//! datagrams under way loopback loses none, so one that is not answered is the server's fault, and
//! [`finish`](Datagrams::finish) says so.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};

use crate::generator::{
    ANSWER_LIMIT, EVENTS, Load, LoadError, NEIGHBOUR_STEP, Progress, VARIANTS, pseudo_random_bytes,
};

/// Bytes taken by one receive: more than any datagram has.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// Sockets that talk to one server, and the loop that drives them.
#[derive(Debug)]
pub struct Datagrams {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    table: Vec<u8>,
    buffer: Vec<u8>,
    size: usize,
    answered: u64,
    waiting: usize,
    /// Whether an answer is followed by the next request.
    repeat: bool,
}

#[derive(Debug)]
struct Client {
    socket: UdpSocket,
    /// Where in the table its current request starts.
    variant: usize,
    is_waiting: bool,
}

impl Datagrams {
    /// Makes all sockets; sends nothing yet.
    ///
    /// # Errors
    /// When a socket cannot be made or registered.
    pub fn connect(load: &Load) -> Result<Self, LoadError> {
        let poll = Poll::new().map_err(|error| LoadError::socket(0, "make a selector", error))?;
        let mut clients = Vec::with_capacity(load.connections);
        for index in 0..load.connections {
            let failed = |error| LoadError::socket(index, "make a socket", error);
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let mut socket = UdpSocket::bind(any).map_err(failed)?;
            socket.connect(load.server).map_err(failed)?;
            poll.registry()
                .register(&mut socket, Token(index), Interest::READABLE)
                .map_err(failed)?;
            clients.push(Client {
                socket,
                variant: index * NEIGHBOUR_STEP % VARIANTS,
                is_waiting: false,
            });
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            clients,
            table: pseudo_random_bytes(load.size + VARIANTS),
            buffer: vec![0; RECEIVE_BUFFER],
            size: load.size,
            answered: 0,
            waiting: 0,
            repeat: false,
        })
    }

    /// Keeps one request under way on each socket for `duration`; those under way at its end stay so.
    ///
    /// # Errors
    /// When an answer is wrong, or nothing at all was answered.
    pub fn run(&mut self, duration: Duration) -> Result<Progress, LoadError> {
        let start = Instant::now();
        let before = self.answered;
        self.repeat = true;
        for index in 0..self.clients.len() {
            if !self.clients[index].is_waiting {
                self.request(index)?;
            }
        }
        loop {
            let elapsed = start.elapsed();
            let requests = self.answered - before;
            if elapsed >= duration && requests > 0 {
                let pace = None;
                return Ok(Progress {
                    requests,
                    elapsed,
                    pace,
                });
            }
            if elapsed >= duration + ANSWER_LIMIT {
                return Err(self.stalled(elapsed));
            }
            self.turn(duration.saturating_sub(elapsed))?;
        }
    }

    /// Waits for the answers under way and sends nothing more; at most 5 s.
    ///
    /// # Errors
    /// When an answer is wrong or missing.
    pub fn finish(&mut self) -> Result<(), LoadError> {
        self.repeat = false;
        let start = Instant::now();
        while self.waiting > 0 {
            let left = ANSWER_LIMIT.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(self.stalled(ANSWER_LIMIT));
            }
            self.turn(left)?;
        }
        Ok(())
    }

    fn turn(&mut self, limit: Duration) -> Result<(), LoadError> {
        // A run that is over goes on until its first answer.
        let limit = limit.max(Duration::from_millis(1));
        match self.poll.poll(&mut self.events, Some(limit)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(LoadError::socket(0, "wait for events", error)),
        }
        let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        ready.into_iter().try_for_each(|index| self.receive(index))
    }

    fn request(&mut self, index: usize) -> Result<(), LoadError> {
        let client = &mut self.clients[index];
        client.variant = (client.variant + 1) % VARIANTS;
        client.is_waiting = true;
        self.waiting += 1;
        let request = &self.table[client.variant..client.variant + self.size];
        let sent = client.socket.send(request);
        sent.map_err(|error| LoadError::socket(index, "send", error))?;
        Ok(())
    }

    /// Takes the one answer that can be there. The next one makes an edge of its own, for it answers a
    /// request that is sent after this.
    fn receive(&mut self, index: usize) -> Result<(), LoadError> {
        let client = &mut self.clients[index];
        let count = match client.socket.recv(&mut self.buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(LoadError::socket(index, "receive", error)),
        };
        let expected = &self.table[client.variant..client.variant + self.size];
        if !client.is_waiting || self.buffer[..count] != *expected {
            let answer = self.buffer[..count].iter();
            let byte = answer.zip(expected).take_while(|(a, b)| a == b).count();
            let connection = index;
            return Err(LoadError::Mismatch { connection, byte });
        }
        client.is_waiting = false;
        self.answered += 1;
        self.waiting -= 1;
        if self.repeat {
            self.request(index)?;
        }
        Ok(())
    }

    fn stalled(&self, limit: Duration) -> LoadError {
        LoadError::Stalled {
            waiting: self.waiting,
            answered: self.answered,
            limit,
        }
    }
}

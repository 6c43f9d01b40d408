//! One UDP sender: numbers its datagrams, matches the answers by their number, compares.
//!
//! A datagram whose answer does not come within the settle time is given up, so that a loss never
//! stops the sender; nothing is sent twice. [`crate::ledger`] keeps what became of each.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use mio::net::UdpSocket;
use mio::{Interest, Poll, Token};

use crate::drops;
use crate::failure::{Failure, Kind, Tally};
use crate::header::{HEADER_BYTES, Header};
use crate::interrupt::Interrupt;
use crate::lane::{Answer, Lane, Load, Settled};
use crate::ledger::Ledger;
use crate::plan::Verify;

/// A connected socket: the kernel lets in only what the target sends.
#[derive(Debug)]
pub(crate) struct Sender {
    socket: UdpSocket,
    number: u32,
    ledger: Ledger,
    /// Room for the datagram to send.
    out: Vec<u8>,
    /// Numbers from here on wait for room in the socket's send buffer.
    first_unsent: u64,
    n_begun: u64,
    /// What came back damaged, and what was refused.
    tally: Tally,
}

impl Sender {
    fn open(poll: &Poll, load: &Load, number: u64, token: Token) -> Result<Sender, Failure> {
        let any = match load.address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let tried = || format!("opening a socket towards {}", load.address);
        let mut socket = UdpSocket::bind(any).map_err(|e| Failure::from_io(&tried(), &e))?;
        socket
            .connect(load.address)
            .and_then(|()| {
                let both = Interest::READABLE | Interest::WRITABLE;
                poll.registry().register(&mut socket, token, both)
            })
            .map_err(|e| Failure::from_io(&tried(), &e))?;
        Ok(Sender {
            socket,
            number: u32::try_from(number).expect("a plan allows fewer senders than 2^32"),
            ledger: Ledger::new(load.settle, Instant::now()),
            out: Vec::with_capacity(load.pattern.size_max()),
            first_unsent: 0,
            n_begun: 0,
            tally: Tally::default(),
        })
    }

    /// Writes datagram `sequence` into `out`.
    fn compose(&mut self, sequence: u64, load: &Load) {
        let request = load.pattern.request(u64::from(self.number), sequence);
        let header = Header {
            epoch: load.epoch,
            sequence,
            sender: self.number,
        };
        self.out.clear();
        self.out.extend(header.encode());
        self.out
            .extend(&load.pattern.bytes(&request)[HEADER_BYTES..]);
    }

    /// Looks at one answer, received at `at`.
    fn accept(&mut self, answer: &[u8], at: Instant, load: &Load) -> Option<Answer> {
        let Some(header) = Header::decode(answer) else {
            self.ledger.unreadable();
            let n = answer.len();
            self.complain(format!(
                "a datagram of {n} bytes came back without its number"
            ));
            return None;
        };
        if header.epoch != load.epoch || header.sender != self.number {
            self.ledger.stray();
            return None;
        }
        let checked = self.check(header.sequence, answer, load);
        let first = self.ledger.arrived(header.sequence, checked.is_ok(), at);
        if let Err(message) = checked {
            self.complain(format!("datagram {}: {message}", header.sequence));
        }
        first.map(|first| Answer {
            intended: first.intended,
            sent_at: first.sent_at,
            at,
        })
    }

    fn check(&self, sequence: u64, answer: &[u8], load: &Load) -> Result<(), String> {
        if load.verify == Verify::Off {
            return Ok(());
        }
        let request = load.pattern.request(u64::from(self.number), sequence);
        if answer.len() != request.len {
            let (n, sent) = (answer.len(), request.len);
            return Err(format!("{n} bytes came back, sent were {sent}"));
        }
        if load.verify == Verify::Length {
            return Ok(());
        }
        load.pattern
            .compare(&request, HEADER_BYTES, &answer[HEADER_BYTES..])
            .map_err(|failure| failure.message)
    }

    fn complain(&mut self, message: String) {
        let message = format!("sender {}, {message}", self.number);
        self.tally.add(Failure::new(Kind::Corrupted, message));
    }

    /// The kernel tells at the next call that a datagram found nobody: that one is lost, and the
    /// call did nothing else.
    fn refused(&mut self, error: &io::Error, load: &Load) {
        let mut failure = Failure::from_io(&format!("datagrams to {}", load.address), error);
        failure
            .message
            .push_str("; is a server listening there for udp?");
        self.tally.add(failure);
    }
}

impl Lane for Sender {
    const DATAGRAMS: bool = true;

    fn open_all(
        poll: &mut Poll,
        load: &Load,
        first: u64,
        n: usize,
        _interrupt: &Interrupt,
    ) -> Result<Vec<Sender>, Failure> {
        (0..n)
            .map(|index| Sender::open(poll, load, first + index as u64, Token(index)))
            .collect()
    }

    fn start(&mut self, load: &Load, measured_from: Instant) {
        self.ledger = Ledger::new(load.settle, measured_from);
    }

    fn n_in_flight(&self) -> usize {
        self.ledger.n_waiting()
    }

    fn can_begin(&self, load: &Load) -> bool {
        self.ledger.n_waiting() < load.depth
    }

    fn begin(
        &mut self,
        intended: Instant,
        sent_at: Instant,
        load: &Load,
    ) -> Result<usize, Failure> {
        self.n_begun = self.ledger.sent(intended, sent_at) + 1;
        self.send_rest(load)
    }

    fn send_rest(&mut self, load: &Load) -> Result<usize, Failure> {
        let mut total = 0;
        while self.first_unsent < self.n_begun {
            self.compose(self.first_unsent, load);
            match self.socket.send(&self.out) {
                Ok(n) => total += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
                    self.refused(&e, load);
                    continue;
                }
                Err(e) => {
                    let doing = format!(
                        "sending datagram {} of sender {}",
                        self.first_unsent, self.number
                    );
                    return Err(Failure::from_io(&doing, &e));
                }
            }
            self.first_unsent += 1;
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
        // A datagram more than is waited for stays in the socket: the next answer makes an edge of
        // its own, so nothing is spent on hearing `WouldBlock`.
        loop {
            let n = match self.socket.recv(buffer) {
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(total),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
                    self.refused(&e, load);
                    continue;
                }
                Err(e) => {
                    let doing = format!("receiving, sender {}", self.number);
                    return Err(Failure::from_io(&doing, &e));
                }
            };
            total += n;
            let at = Instant::now();
            if let Some(answer) = self.accept(&buffer[..n], at, load) {
                on_answer(answer);
            }
            if self.ledger.n_waiting() == 0 {
                return Ok(total);
            }
        }
    }

    fn give_up(&mut self, now: Instant) {
        self.ledger.give_up(now);
    }

    fn is_owed(&self) -> bool {
        self.ledger.is_owed()
    }

    fn n_dropped(lanes: &[Option<Sender>]) -> u64 {
        let addresses = lanes.iter().flatten().map(|lane| lane.socket.local_addr());
        drops::dropped(&addresses.flatten().map(|address| address.port()).collect())
    }

    fn finish(self) -> Settled {
        let (warmup, measured) = self.ledger.finish();
        Settled {
            warmup,
            measured,
            tally: self.tally,
        }
    }
}

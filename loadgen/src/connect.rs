//! Opens connections: those of one thread before the run, some at a time, all or none; and one
//! anew during the run.
//!
//! A run with fewer connections than asked for would answer another question, so the first failure
//! ends it.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::failure::{Failure, Kind};
use crate::interrupt::Interrupt;

/// Connection attempts under way at a time and thread: below the usual backlog of 128 pending
/// connections, above which the kernel drops the first packet and repeats it only a second later.
/// Guessed.
const MAX_CONNECTING: usize = 64;
/// How long the target may take until the next connection is open.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How often a wait looks at [`Interrupt`].
const LOOK_UP: Duration = Duration::from_millis(50);

/// Opens `n` connections and registers each with its index as token, for reading and writing,
/// edge-triggered.
pub(crate) fn open_all(
    poll: &mut Poll,
    address: SocketAddr,
    n: usize,
    interrupt: &Interrupt,
) -> Result<Vec<TcpStream>, Failure> {
    let mut opening = Opening {
        address,
        streams: Vec::with_capacity(n),
        open: vec![false; n],
        n_open: 0,
    };
    let mut events = Events::with_capacity(MAX_CONNECTING);
    let mut last_opened = Instant::now();
    while opening.n_open < n {
        while opening.streams.len() < n && opening.streams.len() - opening.n_open < MAX_CONNECTING {
            opening.start_next(poll)?;
        }
        match poll.poll(&mut events, Some(LOOK_UP)) {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                return Err(Failure::from_io("waiting for connections", &e));
            }
            _ => {}
        }
        for event in &events {
            if opening.finish(event.token().0)? {
                last_opened = Instant::now();
            }
        }
        if interrupt.is_raised() {
            return Err(Failure::new(
                Kind::Other,
                "interrupted before all connections were open".to_owned(),
            ));
        }
        if last_opened.elapsed() > CONNECT_LIMIT {
            return Err(opening.stalled(n));
        }
    }
    Ok(opening.streams)
}

/// Begins to open one connection and registers it.
pub(crate) fn start(poll: &Poll, address: SocketAddr, token: Token) -> Result<TcpStream, Failure> {
    let mut stream = TcpStream::connect(address).map_err(|e| failed(address, &e))?;
    poll.registry()
        .register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)
        .map_err(|e| failed(address, &e))?;
    Ok(stream)
}

/// Looks whether a connection is open; it is then ready for requests.
pub(crate) fn is_open(stream: &TcpStream, address: SocketAddr) -> Result<bool, Failure> {
    if let Some(error) = stream.take_error().map_err(|e| failed(address, &e))? {
        return Err(failed(address, &error));
    }
    match stream.peer_addr() {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotConnected => return Ok(false),
        Err(e) => return Err(failed(address, &e)),
    }
    // One small write a request: waiting for more to send would add the wait to the latency.
    stream.set_nodelay(true).map_err(|e| failed(address, &e))?;
    Ok(true)
}

fn failed(address: SocketAddr, error: &io::Error) -> Failure {
    let mut failure = Failure::from_io(&format!("connect to {address}"), error);
    failure.message.push_str(match error.kind() {
        io::ErrorKind::ConnectionRefused => "; is the server listening there?",
        io::ErrorKind::AddrNotAvailable => {
            "; no local port is free, use fewer connections or less churn"
        }
        // EMFILE has no name of its own in io::ErrorKind.
        _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            "; raise the limit (ulimit -Hn) or use fewer connections"
        }
        _ => "",
    });
    failure
}

struct Opening {
    address: SocketAddr,
    streams: Vec<TcpStream>,
    open: Vec<bool>,
    n_open: usize,
}

impl Opening {
    fn start_next(&mut self, poll: &Poll) -> Result<(), Failure> {
        let token = Token(self.streams.len());
        self.streams.push(start(poll, self.address, token)?);
        Ok(())
    }

    /// Looks whether connection `index` is open now; true if it was not before.
    fn finish(&mut self, index: usize) -> Result<bool, Failure> {
        if self.open[index] || !is_open(&self.streams[index], self.address)? {
            return Ok(false);
        }
        self.open[index] = true;
        self.n_open += 1;
        Ok(true)
    }

    fn stalled(&self, n: usize) -> Failure {
        Failure::new(
            Kind::TimedOut,
            format!(
                "connect to {}: {} of {n} connections open, no further one within \
                 {CONNECT_LIMIT:?}; \
                 is the server accepting?",
                self.address, self.n_open
            ),
        )
    }
}

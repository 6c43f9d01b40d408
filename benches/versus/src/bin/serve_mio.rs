//! The floor: a TCP echo on a bare mio loop, one thread, edge-triggered, receive then send.
//!
//! It does what no runtime can do without: one wait per batch, one `recv` and one `send` per
//! request, and a slab from tokens to sockets. It deliberately has no tasks, no timers, no stealing
//! and no buffer per connection: bytes are kept only for a peer that does not read.

use std::io::{self, ErrorKind, Read, Write};
use std::process;

use clap::Parser;
use garland_versus::serving::{self, Placement};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;

/// The listener's token; slab keys grow from 0 and cannot reach it.
const LISTENER: Token = Token(usize::MAX - 1);
/// Events taken by one wait.
const EVENTS: usize = 1024;
/// Bytes taken by one `recv`; one buffer serves all connections.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// Bare mio echo server: the floor of the comparison
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    placement: Placement,
}

fn main() -> anyhow::Result<()> {
    Options::parse().placement.pin()?;
    let mut poll = Poll::new()?;
    let address = "127.0.0.1:0".parse().expect("a literal address");
    let mut listener = TcpListener::bind(address)?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    serving::at_end_of_stdin(|| process::exit(0))?;
    serving::announce(listener.local_addr()?)?;

    let mut server = Server {
        connections: Slab::new(),
        buffer: vec![0; RECEIVE_BUFFER],
    };
    let mut events = Events::with_capacity(EVENTS);
    loop {
        match poll.poll(&mut events, None) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            if event.token() == LISTENER {
                server.accept(&listener, poll.registry())?;
            } else {
                server.handle(event);
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    /// Received, and not yet taken by the peer; empty unless the peer does not read.
    unsent: Vec<u8>,
}

struct Server {
    connections: Slab<Connection>,
    buffer: Vec<u8>,
}

impl Server {
    fn accept(&mut self, listener: &TcpListener, registry: &Registry) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Ok(()),
                    // The peer was gone before we came; the next one may be waiting.
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted => continue,
                    _ => return Err(error),
                },
            };
            stream.set_nodelay(true)?;
            let entry = self.connections.vacant_entry();
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut stream, Token(entry.key()), interest)?;
            entry.insert(Connection {
                stream,
                unsent: Vec::new(),
            });
        }
    }

    fn handle(&mut self, event: &Event) {
        let key = event.token().0;
        let connection = &mut self.connections[key];
        match echo(connection, event.is_read_closed(), &mut self.buffer) {
            Ok(Echo::Open) => {}
            // A reset is how some clients end, so it is an end and no failure of the server.
            Ok(Echo::Ended) | Err(_) => drop(self.connections.remove(key)),
        }
    }
}

enum Echo {
    Open,
    Ended,
}

/// Moves bytes until the socket is empty, or full in the other direction.
///
/// A `recv` that leaves room in the buffer has emptied the socket, and what comes later makes a new
/// edge; only when the end of the stream is already there must the zero be fetched.
fn echo(connection: &mut Connection, ending: bool, buffer: &mut [u8]) -> io::Result<Echo> {
    if !connection.unsent.is_empty() {
        let unsent = std::mem::take(&mut connection.unsent);
        let sent = send(&mut connection.stream, &unsent)?;
        connection.unsent.extend_from_slice(&unsent[sent..]);
    }
    while connection.unsent.is_empty() {
        let count = match connection.stream.read(buffer) {
            Ok(0) => return Ok(Echo::Ended),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let sent = send(&mut connection.stream, &buffer[..count])?;
        connection.unsent.extend_from_slice(&buffer[sent..count]);
        if count < buffer.len() && !ending {
            break;
        }
    }
    Ok(Echo::Open)
}

/// Sends until all is out or the socket is full; says how much is out.
fn send(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

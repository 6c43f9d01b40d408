//! The UDP echo servers that are bare loops or garland: four ways to receive a datagram and send it back, each on one thread.
//!
//! - *mio*: the floor of those that move one datagram a system call
//! - *mio-batch*: the floor of those that move many: `recvmmsg`, then `sendmmsg`, nothing else
//! - *garland-task*: `loop { recv_from; send_to }` in a task
//! - *garland-callback*: a `DatagramProtocol` that answers each datagram
//!
//! In one program, because each is a few lines; only the chosen one runs. The peers' are in their own programs.

use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::process;

use clap::{Parser, ValueEnum};
use garland::{Builder, DatagramProtocol, DatagramTransport};
use garland_versus::serving::{self, Placement};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};

/// What one datagram is received into, where that is up to the server.
const DATAGRAM_BUFFER: usize = 4 * 1024;

/// UDP echo server on one CPU
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    placement: Placement,
    /// Which server
    server: Which,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    Mio,
    MioBatch,
    GarlandCallback,
    GarlandTask,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    options.placement.pin()?;
    serving::at_end_of_stdin(|| process::exit(0))?;
    match options.server {
        Which::Mio => mio_loop(echo_one_by_one),
        Which::MioBatch => {
            let throw_away = std::net::UdpSocket::bind(any_port())?;
            let state = UdpSocketState::new(UdpSockRef::from(&throw_away))?;
            mio_loop(move |socket, buffer| echo_in_batches(&state, socket, buffer))
        }
        Which::GarlandCallback => garland_callback(),
        Which::GarlandTask => garland_task(),
    }
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A bare loop around `echo`, which answers all that is there.
fn mio_loop(
    mut echo: impl FnMut(&UdpSocket, &mut [u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut socket = UdpSocket::bind(any_port())?;
    let mut poll = Poll::new()?;
    poll.registry()
        .register(&mut socket, Token(0), Interest::READABLE)?;
    serving::announce(socket.local_addr()?)?;
    let mut events = Events::with_capacity(16);
    let mut buffer = vec![0; BATCH_SIZE * DATAGRAM_BUFFER];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            polled => polled?,
        }
        echo(&socket, &mut buffer)?;
    }
}

fn echo_one_by_one(socket: &UdpSocket, buffer: &mut [u8]) -> anyhow::Result<()> {
    loop {
        match socket.recv_from(buffer) {
            Ok((count, from)) => socket.send_to(&buffer[..count], from)?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
    }
}

fn echo_in_batches(
    state: &UdpSocketState,
    socket: &UdpSocket,
    buffer: &mut [u8],
) -> anyhow::Result<()> {
    let mut meta = [RecvMeta::default(); BATCH_SIZE];
    loop {
        let mut places: Vec<_> = buffer
            .chunks_exact_mut(DATAGRAM_BUFFER)
            .map(IoSliceMut::new)
            .collect();
        let count = match state.recv(UdpSockRef::from(socket), &mut places, &mut meta) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let received = buffer.chunks_exact(DATAGRAM_BUFFER).zip(&meta[..count]);
        let answers: Vec<_> = received
            .map(|(place, meta)| (IoSlice::new(&place[..meta.len]), meta.addr.as_any()))
            .collect();
        let mut controls: [SendAncillaryBuffer<'_, '_, '_>; BATCH_SIZE] = Default::default();
        let mut messages: Vec<_> = answers
            .iter()
            .zip(&mut controls)
            .map(|((data, to), control)| {
                MMsgHdr::new_with_addr(to, std::slice::from_ref(data), control)
            })
            .collect();
        sendmmsg(socket, &mut messages, SendFlags::empty())?;
        if count < BATCH_SIZE {
            return Ok(());
        }
    }
}

struct Echo;

impl DatagramProtocol for Echo {
    fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], addr: SocketAddr) {
        transport.send_to(data, addr);
    }
}

fn garland_callback() -> anyhow::Result<()> {
    let runtime = Builder::new().loops(1).build()?;
    let server = runtime
        .handle()
        .create_datagram_endpoint(any_port(), |_| Echo)?;
    serving::announce(server.local_addr())?;
    Ok(runtime.run_forever()?)
}

fn garland_task() -> anyhow::Result<()> {
    let runtime = Builder::new().loops(1).build()?;
    runtime.block_on(async {
        let echo = garland::spawn(async {
            let socket = garland::UdpSocket::bind(any_port())?;
            serving::announce(socket.local_addr()?)?;
            let mut buffer = [0; DATAGRAM_BUFFER];
            loop {
                let (count, from) = socket.recv_from(&mut buffer).await?;
                socket.send_to(&buffer[..count], from).await?;
            }
        });
        echo.await.expect("nobody cancels it, and a panic may pass")
    })?
}

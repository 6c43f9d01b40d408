//! compio: a runtime a CPU on `io_uring`, sharing the port by `SO_REUSEPORT`.
//!
//! Its reads and writes take a buffer and give it back, so each connection's buffer is a `Vec` that goes round.

use std::process;

use clap::Parser;
use compio::BufResult;
use compio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream, UdpSocket};
use compio::runtime::Runtime;
use garland_versus::serving::{self, CONNECTION_BUFFER, Placement, Service};
use garland_versus::spin;

/// compio server
#[derive(Parser)]
struct Options {
    /// What it does
    #[arg(long, value_enum, default_value = "echo")]
    service: Service,
    #[command(flatten)]
    placement: Placement,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    options.placement.pin()?;
    serving::at_end_of_stdin(|| process::exit(0))?;
    if let Err(error) = Runtime::new() {
        return serving::refuse(format_args!("no runtime: {error}"));
    }
    match options.service {
        Service::Udp => Runtime::new()?.block_on(echo_datagrams()),
        Service::Echo => serving::one_loop_a_cpu(&options.placement, |_, listener| {
            Runtime::new()?.block_on(accept(listener, echo))
        }),
        Service::Spin => serving::one_loop_a_cpu(&options.placement, |home, listener| {
            Runtime::new()?.block_on(accept(listener, move |stream| spin(stream, home)))
        }),
    }
}

async fn accept<F: Future<Output = ()> + 'static>(
    listener: std::net::TcpListener,
    handler: impl Fn(TcpStream) -> F,
) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        compio::runtime::spawn(handler(stream)).detach();
    }
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = Vec::with_capacity(CONNECTION_BUFFER);
    loop {
        // A reset is how some clients end, so an error is an end and no failure of the server.
        let BufResult(received, filled) = stream.read(buffer).await;
        let Ok(1..) = received else { return };
        let BufResult(sent, emptied) = stream.write_all(filled).await;
        if sent.is_err() {
            return;
        }
        buffer = emptied;
        buffer.clear();
    }
}

async fn spin(mut stream: TcpStream, home: usize) {
    let mut request = [0; spin::SIZE];
    loop {
        let BufResult(received, mut filled) = stream.read_exact(request).await;
        if received.is_err() {
            return;
        }
        spin::answer(&mut filled, home);
        let BufResult(sent, emptied) = stream.write_all(filled).await;
        if sent.is_err() {
            return;
        }
        request = emptied;
    }
}

async fn echo_datagrams() -> anyhow::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    serving::announce(socket.local_addr()?)?;
    let mut buffer = Vec::with_capacity(CONNECTION_BUFFER);
    loop {
        let BufResult(received, filled) = socket.recv_from(buffer).await;
        let (_, from) = received?;
        let BufResult(sent, emptied) = socket.send_to(filled, from).await;
        sent?;
        buffer = emptied;
        buffer.clear();
    }
}

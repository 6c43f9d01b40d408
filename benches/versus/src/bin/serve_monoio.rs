//! monoio: a runtime a CPU, on epoll or on `io_uring`, sharing the port by `SO_REUSEPORT`.
//!
//! Its reads and writes take a buffer and give it back, so each connection's buffer is a `Vec` that goes round.

use std::process;

use clap::{Parser, ValueEnum};
use garland_versus::serving::{self, CONNECTION_BUFFER, Placement, Service};
use garland_versus::spin;
use monoio::io::{AsyncReadRent, AsyncReadRentExt, AsyncWriteRentExt};
use monoio::net::udp::UdpSocket;
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

/// monoio server
#[derive(Parser)]
struct Options {
    /// How it learns from the kernel
    driver: Driver,
    /// What it does
    #[arg(long, value_enum, default_value = "echo")]
    service: Service,
    #[command(flatten)]
    placement: Placement,
}

#[derive(Clone, Copy, ValueEnum)]
enum Driver {
    Epoll,
    Uring,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    options.placement.pin()?;
    serving::at_end_of_stdin(|| process::exit(0))?;
    if matches!(options.driver, Driver::Uring) && !monoio::utils::detect_uring() {
        return serving::refuse("the kernel refuses io_uring, or lacks operations monoio needs");
    }
    if options.service == Service::Udp {
        return match options.driver {
            Driver::Epoll => epoll()?.block_on(echo_datagrams()),
            Driver::Uring => uring()?.block_on(echo_datagrams()),
        };
    }
    let serve: fn(usize, std::net::TcpListener) -> anyhow::Result<()> =
        match (options.driver, options.service) {
            (Driver::Epoll, Service::Spin) => {
                |home, listener| epoll()?.block_on(accept(listener, move |s| spin(s, home)))
            }
            (Driver::Uring, Service::Spin) => {
                |home, listener| uring()?.block_on(accept(listener, move |s| spin(s, home)))
            }
            (Driver::Epoll, _) => |_, listener| epoll()?.block_on(accept(listener, echo)),
            (Driver::Uring, _) => |_, listener| uring()?.block_on(accept(listener, echo)),
        };
    serving::one_loop_a_cpu(&options.placement, serve)
}

fn epoll() -> anyhow::Result<monoio::Runtime<LegacyDriver>> {
    Ok(RuntimeBuilder::<LegacyDriver>::new().build()?)
}

fn uring() -> anyhow::Result<monoio::Runtime<IoUringDriver>> {
    Ok(RuntimeBuilder::<IoUringDriver>::new().build()?)
}

async fn accept<F: Future<Output = ()> + 'static>(
    listener: std::net::TcpListener,
    handler: impl Fn(TcpStream) -> F,
) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        monoio::spawn(handler(stream));
    }
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = Vec::with_capacity(CONNECTION_BUFFER);
    loop {
        // A reset is how some clients end, so an error is an end and no failure of the server.
        let (received, filled) = stream.read(buffer).await;
        let Ok(1..) = received else { return };
        let (sent, emptied) = stream.write_all(filled).await;
        if sent.is_err() {
            return;
        }
        buffer = emptied;
    }
}

async fn spin(mut stream: TcpStream, home: usize) {
    let mut request = Box::new([0; spin::SIZE]);
    loop {
        let (received, mut filled) = stream.read_exact(request).await;
        if received.is_err() {
            return;
        }
        spin::answer(&mut filled, home);
        let (sent, emptied) = stream.write_all(filled).await;
        if sent.is_err() {
            return;
        }
        request = emptied;
    }
}

async fn echo_datagrams() -> anyhow::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    serving::announce(socket.local_addr()?)?;
    let mut buffer = Vec::with_capacity(CONNECTION_BUFFER);
    loop {
        let (received, filled) = socket.recv_from(buffer).await;
        let (_, from) = received?;
        let (sent, emptied) = socket.send_to(filled, from).await;
        sent?;
        buffer = emptied;
    }
}

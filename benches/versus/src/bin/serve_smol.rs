//! smol: one executor, run by as many threads as there are CPUs, a task per connection.
//!
//! The threads are made here and not by `smol::spawn`, whose number of threads comes from the environment;
//! the executor is the same. async-io adds a thread of its own, which waits when no other does.

use std::process;
use std::sync::Arc;
use std::thread;

use clap::Parser;
use garland_versus::serving::{self, CONNECTION_BUFFER, Placement, Service};
use garland_versus::spin;
use smol::Executor;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::{TcpListener, TcpStream, UdpSocket};

/// smol server
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
    let executor = Arc::new(Executor::new());
    let server = executor.spawn(serve(Arc::clone(&executor), options.service));
    for _ in 1..options.placement.loops() {
        let executor = Arc::clone(&executor);
        thread::spawn(move || smol::block_on(executor.run(smol::future::pending::<()>())));
    }
    smol::block_on(executor.run(server))
}

async fn serve(executor: Arc<Executor<'static>>, service: Service) -> anyhow::Result<()> {
    if service == Service::Udp {
        return echo_datagrams().await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    serving::announce(listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        match service {
            Service::Spin => executor.spawn(spin(stream)).detach(),
            Service::Echo | Service::Udp => executor.spawn(echo(stream)).detach(),
        }
    }
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = [0; CONNECTION_BUFFER];
    // A reset is how some clients end, so an error is an end and no failure of the server.
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn spin(mut stream: TcpStream) {
    let mut request = [0; spin::SIZE];
    while stream.read_exact(&mut request).await.is_ok() {
        spin::answer(&mut request, 0);
        if stream.write_all(&request).await.is_err() {
            return;
        }
    }
}

async fn echo_datagrams() -> anyhow::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    serving::announce(socket.local_addr()?)?;
    let mut buffer = [0; CONNECTION_BUFFER];
    loop {
        let (count, from) = socket.recv_from(&mut buffer).await?;
        socket.send_to(&buffer[..count], from).await?;
    }
}

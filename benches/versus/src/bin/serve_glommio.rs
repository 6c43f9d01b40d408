//! glommio: an executor a CPU on `io_uring`, sharing the port by `SO_REUSEPORT`.
//!
//! It binds its listeners itself: the first one finds a port, the others share it.

use std::net::SocketAddr;
use std::process;
use std::sync::mpsc::{Sender, channel};

use anyhow::anyhow;
use clap::Parser;
use garland_versus::serving::{self, CONNECTION_BUFFER, Placement, Service};
use garland_versus::spin;
use glommio::net::{TcpListener, TcpStream, UdpSocket};
use glommio::{LocalExecutorBuilder, Placement as Executors};
use smol::io::{AsyncReadExt, AsyncWriteExt};

/// glommio server
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
    let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
    let (bound, addresses) = channel();
    let service = options.service;
    let mut executors = Vec::new();
    for (home, &cpu) in options.placement.cpus.iter().enumerate() {
        let bound = bound.clone();
        let builder = LocalExecutorBuilder::new(Executors::Fixed(cpu));
        match builder.spawn(move || serve_or_exit(service, address, home, bound)) {
            Ok(executor) => executors.push(executor),
            Err(error) => return serving::refuse(format_args!("no executor: {error}")),
        }
        address = addresses.recv()?;
    }
    serving::announce(address)?;
    for executor in executors {
        if let Err(error) = executor.join() {
            anyhow::bail!("an executor has failed: {error}");
        }
    }
    Ok(())
}

/// A future of an executor has nobody to give an error to.
async fn serve_or_exit(
    service: Service,
    address: SocketAddr,
    home: usize,
    bound: Sender<SocketAddr>,
) {
    if let Err(error) = serve(service, address, home, bound).await {
        eprintln!("{error:#}");
        process::exit(1);
    }
}

async fn serve(
    service: Service,
    address: SocketAddr,
    home: usize,
    bound: Sender<SocketAddr>,
) -> anyhow::Result<()> {
    if service == Service::Udp {
        return echo_datagrams(address, bound).await;
    }
    let listener = TcpListener::bind(address).map_err(|error| anyhow!("{error}"))?;
    bound.send(listener.local_addr().map_err(|error| anyhow!("{error}"))?)?;
    loop {
        let stream = listener
            .accept()
            .await
            .map_err(|error| anyhow!("{error}"))?;
        stream
            .set_nodelay(true)
            .map_err(|error| anyhow!("{error}"))?;
        match service {
            Service::Spin => glommio::spawn_local(spin(stream, home)).detach(),
            Service::Echo | Service::Udp => glommio::spawn_local(echo(stream)).detach(),
        };
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

async fn spin(mut stream: TcpStream, home: usize) {
    let mut request = [0; spin::SIZE];
    while stream.read_exact(&mut request).await.is_ok() {
        spin::answer(&mut request, home);
        if stream.write_all(&request).await.is_err() {
            return;
        }
    }
}

async fn echo_datagrams(address: SocketAddr, bound: Sender<SocketAddr>) -> anyhow::Result<()> {
    let socket = UdpSocket::bind(address).map_err(|error| anyhow!("{error}"))?;
    bound.send(socket.local_addr().map_err(|error| anyhow!("{error}"))?)?;
    let mut buffer = [0; CONNECTION_BUFFER];
    loop {
        let received = socket.recv_from(&mut buffer).await;
        let (count, from) = received.map_err(|error| anyhow!("{error}"))?;
        let sent = socket.send_to(&buffer[..count], from).await;
        sent.map_err(|error| anyhow!("{error}"))?;
    }
}

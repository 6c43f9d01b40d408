//! tokio, in both its forms: the usual multi-thread runtime, and a current-thread runtime a CPU.
//!
//! As many workers as CPUs, so that on one CPU it competes for it like the others. The accept loop
//! of the first is a task too: in `block_on` it would live on a thread of its own and pay a thread switch per
//! connection. The second shares the port by `SO_REUSEPORT` and nothing else. It deliberately uses no
//! `io::copy` or `split`: `loop { read; write_all }` is what people write.

use std::io::ErrorKind;
use std::process;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use garland_versus::serving::{self, CONNECTION_BUFFER, Placement, Service};
use garland_versus::spin;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Builder;

/// tokio server
#[derive(Parser)]
struct Options {
    /// The runtime
    runtime: Form,
    /// What it does
    #[arg(long, value_enum, default_value = "echo")]
    service: Service,
    #[command(flatten)]
    placement: Placement,
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    /// One multi-thread runtime, a worker a CPU
    MultiThread,
    /// A current-thread runtime a CPU, each with a listener of its own; TCP only
    PerCore,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    options.placement.pin()?;
    serving::at_end_of_stdin(|| process::exit(0))?;
    match (options.runtime, options.service) {
        (Form::MultiThread, service) => {
            let runtime = Builder::new_multi_thread()
                .worker_threads(options.placement.loops())
                .enable_io()
                .build()
                .context("cannot build the tokio runtime")?;
            runtime.block_on(async move { tokio::spawn(serve(service)).await })?
        }
        (Form::PerCore, Service::Spin) => {
            serving::one_loop_a_cpu(&options.placement, |home, listener| {
                on_one_core(listener, move |stream| spin(stream, home))
            })
        }
        (Form::PerCore, _) => serving::one_loop_a_cpu(&options.placement, |_, listener| {
            on_one_core(listener, echo)
        }),
    }
}

async fn serve(service: Service) -> anyhow::Result<()> {
    if service == Service::Udp {
        return echo_datagrams().await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    serving::announce(listener.local_addr()?)?;
    if service == Service::Spin {
        return accept(listener, |stream| spin(stream, 0)).await;
    }
    accept(listener, echo).await
}

fn on_one_core<F: Future<Output = ()> + Send + 'static>(
    listener: std::net::TcpListener,
    handler: impl Fn(TcpStream) -> F,
) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async { accept(TcpListener::from_std(listener)?, handler).await })
}

async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    handler: impl Fn(TcpStream) -> F,
) -> anyhow::Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                stream.set_nodelay(true)?;
                tokio::spawn(handler(stream));
            }
            // The peer was gone before we came; the next one may be waiting.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error.into()),
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

async fn spin(mut stream: TcpStream, home: usize) {
    let mut request = [0; spin::SIZE];
    while stream.read_exact(&mut request).await.is_ok() {
        spin::answer(&mut request, home);
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

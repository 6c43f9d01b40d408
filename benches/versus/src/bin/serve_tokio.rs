//! The peer: the usual tokio echo, a task per connection on the multi-thread runtime.
//!
//! One worker thread, so that it competes for one core like the others. The accept loop is a task
//! too: in `block_on` it would live on a second thread and pay a thread switch per connection.
//! It deliberately uses no `io::copy` or `split`: `loop { read; write_all }` is what people write.

use std::io::ErrorKind;
use std::process;

use anyhow::Context;
use clap::Parser;
use garland_versus::serving::{self, CONNECTION_BUFFER, Placement};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// tokio echo server: multi-thread runtime, one worker
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    placement: Placement,
}

fn main() -> anyhow::Result<()> {
    Options::parse().placement.pin()?;
    serving::at_end_of_stdin(|| process::exit(0))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_io()
        .build()
        .context("cannot build the tokio runtime")?;
    runtime.block_on(async { tokio::spawn(accept()).await })?
}

async fn accept() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    serving::announce(listener.local_addr()?)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                stream.set_nodelay(true)?;
                tokio::spawn(echo(stream));
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

//! The subject: garland on one loop, as `callback` (a protocol on a transport) or as `task` (a
//! future per connection).
//!
//! Both are what a user would write first. One loop on the caller's thread, which is pinned here
//! like in the other servers and therefore not by garland; stealing stays at its default, because
//! nobody turns it off for a server. Deliberately no option of garland is tuned for this test.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use garland::{Builder, Pin, Protocol, TcpStream, Transport};
use garland_versus::serving::{self, CONNECTION_BUFFER, Placement};

/// How long the runtime may take to stop; the driver waits a little longer.
const GRACE: Duration = Duration::from_secs(2);

/// garland echo server: one loop
#[derive(Parser)]
struct Options {
    /// The programming model
    model: Model,
    #[command(flatten)]
    placement: Placement,
}

#[derive(Clone, Copy, ValueEnum)]
enum Model {
    /// `Protocol::data_received` writes to its transport
    Callback,
    /// A task per connection: `loop { read; write_all }`, 4 KiB buffer
    Task,
    /// A task per connection that reads into the loop's buffer, and has none of its own
    Lent,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    options.placement.pin()?;
    let runtime = Builder::new().loops(1).pin(Pin::Off).build()?;
    let handle = runtime.handle();
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = match options.model {
        Model::Callback => handle.create_server(address, |_| || Echo),
        Model::Task => handle.serve(address, echo),
        Model::Lent => handle.serve(address, echo_lent),
    };
    let server = server.context("cannot listen on 127.0.0.1")?;

    let stopper = handle.clone();
    serving::at_end_of_stdin(move || stopper.stop())?;
    serving::announce(server.local_addr())?;
    runtime.run_forever()?;
    let report = runtime.shutdown(GRACE);
    ensure!(report.is_clean(), "shutdown: {report}");
    Ok(())
}

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }

    // A peer that does not read must not fill our memory: take nothing more until it does.
    fn pause_writing(&mut self, transport: &Transport) {
        transport.pause_reading();
    }

    fn resume_writing(&mut self, transport: &Transport) {
        transport.resume_reading();
    }
}

async fn echo(stream: TcpStream) {
    let mut buffer = [0; CONNECTION_BUFFER];
    // A reset is how some clients end, so an error is an end and no failure of the server.
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn echo_lent(stream: TcpStream) {
    loop {
        let received = stream.read_with(|bytes| {
            let sent = stream.try_write(bytes)?;
            Ok((bytes.len(), bytes[sent..].to_vec()))
        });
        match received.await.flatten() {
            Ok((1.., rest)) => {
                if stream.write_all(&rest).await.is_err() {
                    return;
                }
            }
            Ok((0, _)) | Err(_) => return,
        }
    }
}

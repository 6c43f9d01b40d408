//! The subject: garland with a loop a CPU, as `callback` (a protocol on a transport) or as `task` (a
//! future per connection).
//!
//! Both are what a user would write first. Deliberately no option of garland is tuned for this test; stealing
//! and rescue can be turned off, to see the difference they make.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Parser, ValueEnum};
use garland::{Builder, LoopHandle, Protocol, TcpStream, Transport};
use garland_versus::serving::{self, CONNECTION_BUFFER, Placement, Service};
use garland_versus::spin;

/// How long the runtime may take to stop; the driver waits a little longer.
const GRACE: Duration = Duration::from_secs(2);

/// garland server
#[derive(Parser)]
struct Options {
    /// The programming model
    model: Model,
    /// What it does: callbacks only echo
    #[arg(long, value_enum, default_value = "echo")]
    service: Service,
    /// An idle loop may not take another one's tasks
    #[arg(long)]
    no_steal: bool,
    /// A stuck loop's sockets and timers are not served by the others
    #[arg(long)]
    no_rescue: bool,
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
    let runtime = Builder::new()
        .loops(options.placement.loops())
        .steal(!options.no_steal)
        .rescue(!options.no_rescue)
        .build()?;
    let handle = runtime.handle();
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = match (options.model, options.service) {
        (Model::Callback, Service::Echo) => handle.create_server(address, |_| || Echo),
        (Model::Task, Service::Echo) => handle.serve(address, echo),
        (Model::Lent, Service::Echo) => handle.serve(address, echo_lent),
        (Model::Task, Service::Spin) => handle.serve(address, |stream| spin(stream, home())),
        _ => bail!("there is no such server; serve_udp has those for datagrams"),
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

/// The loop that accepts a connection: the one this is called on.
fn home() -> usize {
    let here = LoopHandle::current().expect("connections are accepted on a loop");
    here.id().index()
}

async fn spin(stream: TcpStream, home: usize) {
    let mut request = [0; spin::SIZE];
    while read_exact(&stream, &mut request).await {
        spin::answer(&mut request, home);
        if stream.write_all(&request).await.is_err() {
            return;
        }
    }
}

/// False at the end of the connection.
async fn read_exact(stream: &TcpStream, buffer: &mut [u8]) -> bool {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]).await {
            Ok(count @ 1..) => filled += count,
            Ok(0) | Err(_) => return false,
        }
    }
    true
}

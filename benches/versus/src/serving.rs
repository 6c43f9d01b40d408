//! The frame of every server: pin to one CPU, announce the port, end when stdin ends.
//!
//! It holds what must be alike in all of them, so that a difference in the table is a difference of
//! the runtimes. It deliberately knows no socket: accepting, reading and writing are what is
//! compared.
//!
//! Invariant: a server never outlives its driver, because the driver's end closes the pipe.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::thread;

use anyhow::{Context, ensure};
use clap::Args;

/// What each task or connection reads into, in the servers that have a buffer per connection.
///
/// 4 KiB is what the usual echo example of every runtime takes.
pub const CONNECTION_BUFFER: usize = 4 * 1024;

/// The line that tells the driver where to connect starts with this.
pub const ANNOUNCEMENT: &str = "listening ";

/// The options that every server has.
#[derive(Args, Clone, Copy, Debug)]
pub struct Placement {
    /// CPU that all threads of this server run on
    #[arg(long, default_value_t = 0)]
    pub cpu: usize,
}

impl Placement {
    /// Pins the calling thread; threads that it makes afterwards inherit the CPU.
    ///
    /// # Errors
    /// When the kernel refuses the CPU: it does not exist or is not allowed to this process.
    pub fn pin(self) -> anyhow::Result<()> {
        let id = core_affinity::CoreId { id: self.cpu };
        let cpu = self.cpu;
        ensure!(
            core_affinity::set_for_current(id),
            "cannot pin to CPU {cpu}: not allowed here, choose another one with --cpu"
        );
        Ok(())
    }
}

/// Tells the driver, or a person, which port the server got.
///
/// # Errors
/// When stdout is closed.
pub fn announce(address: SocketAddr) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{ANNOUNCEMENT}{address}")
        .and_then(|()| stdout.flush())
        .context("cannot announce the address on stdout")
}

/// Calls `end` on a thread of its own as soon as stdin is at its end.
///
/// The thread sleeps in `read` all the time, so it costs no CPU and no context switch.
///
/// # Errors
/// When the thread cannot be made.
pub fn at_end_of_stdin(end: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let watch = move || {
        // An unreadable stdin is treated as its end: nobody could end this server otherwise.
        let copied = io::copy(&mut io::stdin(), &mut io::sink());
        if let Err(error) = copied {
            eprintln!("stdin cannot be read, ending: {error}");
        }
        end();
    };
    thread::Builder::new()
        .name("stdin".into())
        .spawn(watch)
        .context("cannot start the thread that watches stdin")?;
    Ok(())
}

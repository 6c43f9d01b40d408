//! The frame of every server: stay on its CPUs, announce the port, end when stdin ends.
//!
//! It holds what must be alike in all of them, so that a difference in the table is a difference of
//! the runtimes. It deliberately knows no socket: accepting, reading and writing are what is
//! compared.
//!
//! Invariant: a server never outlives its driver, because the driver's end closes the pipe.

use std::fmt::Display;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use rustix::net::{AddressFamily, SocketType, bind, listen, socket, sockopt};
use rustix::thread::{CpuSet, sched_setaffinity};

/// What each task or connection reads into, in the servers that have a buffer per connection.
///
/// 4 KiB is what the usual echo example of every runtime takes.
pub const CONNECTION_BUFFER: usize = 4 * 1024;

/// The line that tells the driver where to connect starts with this.
pub const ANNOUNCEMENT: &str = "listening ";

/// A server that cannot run on this machine says so with a line that starts with this, and why.
pub const REFUSAL: &str = "cannot run here: ";

/// Connections that may wait to be accepted, where that is up to the server.
const BACKLOG: i32 = 1024;

/// What a server does with what it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Service {
    /// TCP: the same bytes back
    Echo,
    /// UDP: the same datagram back
    Udp,
    /// TCP: burn the CPU time that a request asks for, then send the request back
    Spin,
}

/// The options that every server has.
#[derive(Args, Clone, Debug)]
pub struct Placement {
    /// CPUs that the threads of this server run on; it has as many loops
    #[arg(long = "cpu", value_delimiter = ',', default_value = "0")]
    pub cpus: Vec<usize>,
}

impl Placement {
    /// Binds the calling thread to the CPUs; threads that it makes afterwards inherit them.
    ///
    /// # Errors
    /// When the kernel refuses: one does not exist or is not allowed to this process.
    pub fn pin(&self) -> anyhow::Result<()> {
        pin_to(&self.cpus)
    }

    /// How many loops the server has: one a CPU.
    #[must_use]
    pub fn loops(&self) -> usize {
        self.cpus.len()
    }
}

/// Binds the calling thread to `cpus`.
///
/// # Errors
/// When the kernel refuses: one does not exist or is not allowed to this process.
pub fn pin_to(cpus: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        ensure!(cpu < CpuSet::MAX_CPU, "CPU {cpu} is beyond what is known");
        set.set(cpu);
    }
    sched_setaffinity(None, &set)
        .with_context(|| format!("cannot pin to CPU {cpus:?}: choose others with --cpu"))
}

/// One listener a CPU, all on one port (`SO_REUSEPORT`): how servers without a shared queue share the load.
///
/// # Errors
/// When the kernel has no such socket.
pub fn listeners(count: usize) -> anyhow::Result<Vec<TcpListener>> {
    let mut address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        sockopt::set_socket_reuseport(&fd, true)?;
        bind(&fd, &address)?;
        listen(&fd, BACKLOG)?;
        let listener = TcpListener::from(fd);
        listener.set_nonblocking(true)?;
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Runs `serve` once a CPU, each time on a thread that is bound to it, with a listener of its own;
/// announces the port. Returns the first failure.
///
/// # Errors
/// When there is no listener or no thread, and when a server fails.
pub fn one_loop_a_cpu(
    placement: &Placement,
    serve: fn(usize, TcpListener) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let listeners = listeners(placement.loops())?;
    let address = listeners.first().context("no CPU was named")?.local_addr();
    let cpus = placement.cpus.iter().copied();
    let threads: Vec<_> = cpus
        .zip(listeners)
        .enumerate()
        .map(|(index, (cpu, listener))| {
            thread::spawn(move || {
                pin_to(&[cpu])?;
                serve(index, listener)
            })
        })
        .collect();
    announce(address?)?;
    for thread in threads {
        thread.join().expect("a server that panics has said so")?;
    }
    Ok(())
}

/// Tells the driver that this server cannot run on this machine, which is no failure of its.
///
/// # Errors
/// When stdout is closed.
pub fn refuse(reason: impl Display) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{REFUSAL}{reason}").context("cannot say on stdout that this cannot run here")
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

//! A server as a child process, from its first line to its exit.
//!
//! ```text
//! start --first line--> listening --end(): stdin closes--> ended
//!   \--limit, death--> error with stderr      \--limit--> killed
//! ```
//!
//! Every wait has a limit. Dropping a [`ServerProcess`] kills the child; its stdin is a pipe, so it
//! ends even when the driver itself is killed. It deliberately does not restart anything: a server
//! that died is a result.

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};

use crate::serving::{self, ANNOUNCEMENT, REFUSAL};
use crate::usage;

/// From the start of the process to its line with the port.
const START_LIMIT: Duration = Duration::from_secs(10);
/// From the end of stdin to the exit; garland's own shutdown is bounded by 5 s.
const END_LIMIT: Duration = Duration::from_secs(8);
/// For counts that must be reached: connections accepted, connections closed.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at such a count.
const SETTLE_STEP: Duration = Duration::from_millis(2);
/// How much of the end of a server's stderr is kept for the report.
const STDERR_KEPT: usize = 8 * 1024;
/// Descriptors a runtime may open for itself after its start.
const OWN_DESCRIPTORS: usize = 8;

/// A running server.
pub struct ServerProcess {
    child: Child,
    address: SocketAddr,
    /// Gets the tail of stderr when the server has closed it, in practice when it is dead.
    stderr: Receiver<String>,
    /// Open descriptors after the start, without any connection.
    descriptors: usize,
}

impl ServerProcess {
    /// Starts `program` on `cpus`, waits until it listens and checks that it stays there.
    ///
    /// # Errors
    /// [`Refused`] when it says that it cannot run on this machine. Others when it cannot be
    /// started, says nothing for 10 s, dies, or is not pinned.
    pub fn start(program: &Path, arguments: &[&str], cpus: &[usize]) -> anyhow::Result<Self> {
        let list: Vec<String> = cpus.iter().map(usize::to_string).collect();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg(format!("--cpu={}", list.join(",")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn_on(cpus, command)
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = child.stdout.take().expect("stdout was asked to be a pipe");
        let stderr = child.stderr.take().expect("stderr was asked to be a pipe");
        let mut server = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            stderr: in_background("stderr", move || tail(stderr))?,
            descriptors: 0,
        };
        let first_line = in_background("stdout", move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        })?;
        let line = match first_line.recv_timeout(START_LIMIT) {
            Ok(line) => line.context("cannot read the server's stdout")?,
            Err(_) => bail!("no line on stdout within {START_LIMIT:?}"),
        };
        if let Some(reason) = line.strip_prefix(REFUSAL) {
            return Err(Refused(reason.trim().to_owned()).into());
        }
        let Some(address) = line.strip_prefix(ANNOUNCEMENT) else {
            return Err(server.explain(anyhow!("the first line on stdout is {line:?}")));
        };
        server.address = address
            .trim()
            .parse()
            .with_context(|| format!("bad line {line:?}"))?;
        server.descriptors = usage::open_descriptors(server.pid())?;
        usage::check_pinned(server.pid(), cpus)?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has accepted `connections`; at most 10 s.
    ///
    /// # Errors
    /// When it does not accept them in time.
    pub fn wait_accepted(&self, connections: usize) -> anyhow::Result<()> {
        let goal = self.descriptors + connections;
        let open = self.wait_for_descriptors(|open| open >= goal)?;
        ensure!(
            open >= goal,
            "{open} descriptors of {goal} after {SETTLE_LIMIT:?}: not accepted"
        );
        Ok(())
    }

    /// Waits until the connections of the last load are closed, so that their end is not measured
    /// with the next one; at most 10 s.
    ///
    /// # Errors
    /// When descriptors stay open: the server leaks connections.
    pub fn wait_closed(&self) -> anyhow::Result<()> {
        let goal = self.descriptors + OWN_DESCRIPTORS;
        let open = self.wait_for_descriptors(|open| open <= goal)?;
        ensure!(
            open <= goal,
            "{open} descriptors after all connections were closed: leaked"
        );
        Ok(())
    }

    /// Ends it by closing its stdin.
    ///
    /// # Errors
    /// When it does not end in time or with a failure.
    pub fn end(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        match self.stderr.recv_timeout(END_LIMIT) {
            Ok(stderr) => {
                let status = self.child.wait().context("cannot wait for the server")?;
                ensure!(status.success(), "ended with {status}; stderr: {stderr}");
                Ok(())
            }
            Err(_) => bail!("still running {END_LIMIT:?} after the end of its stdin"),
        }
    }

    /// Adds to a failure whether the server has died, and its last words.
    pub fn explain(&mut self, failure: anyhow::Error) -> anyhow::Error {
        // A server that died closes its sockets a moment before its stderr; give it that moment.
        match self.stderr.recv_timeout(Duration::from_secs(1)) {
            Ok(stderr) => {
                let status = self
                    .child
                    .wait()
                    .map_or_else(|e| e.to_string(), |s| s.to_string());
                failure.context(format!(
                    "the server has died with {status}; stderr: {stderr}"
                ))
            }
            Err(RecvTimeoutError::Timeout) => failure.context("the server is still running"),
            Err(RecvTimeoutError::Disconnected) => failure,
        }
    }

    fn wait_for_descriptors(&self, reached: impl Fn(usize) -> bool) -> anyhow::Result<usize> {
        let end = Instant::now() + SETTLE_LIMIT;
        loop {
            let open = usage::open_descriptors(self.pid())?;
            if reached(open) || Instant::now() >= end {
                return Ok(open);
            }
            thread::sleep(SETTLE_STEP);
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        // Only a failed run comes here with a living child. If it cannot be killed it is dead.
        if self.child.kill().is_ok()
            && let Err(error) = self.child.wait()
        {
            eprintln!("cannot wait for the killed server {}: {error}", self.pid());
        }
    }
}

impl fmt::Debug for ServerProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server {} on {}", self.pid(), self.address)
    }
}

/// A server that cannot run on this machine, with its reason; no failure, but to be told.
#[derive(Debug)]
pub struct Refused(pub String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Starts it from a thread that is bound to `cpus`, so that programs are bound that cannot do it themselves.
fn spawn_on(cpus: &[usize], mut command: Command) -> anyhow::Result<Child> {
    let spawn = || {
        serving::pin_to(cpus)?;
        Ok(command.spawn()?)
    };
    thread::scope(|scope| scope.spawn(spawn).join()).expect("starting a program does not panic")
}

/// Runs a blocking reader on a thread, because a pipe has no read with a limit.
fn in_background<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<Receiver<T>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            if sender.send(work()).is_err() {
                // Nobody waits any more: the run has ended without needing this.
            }
        })
        .with_context(|| format!("cannot start the thread that reads {name}"))?;
    Ok(receiver)
}

/// Reads to the end, so that the server never blocks on a full pipe, and keeps the last part.
fn tail(mut stream: ChildStderr) -> String {
    let mut kept = VecDeque::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        kept.extend(&chunk[..count]);
        kept.drain(..kept.len().saturating_sub(STDERR_KEPT));
    }
    let bytes: Vec<u8> = kept.into();
    match String::from_utf8_lossy(&bytes).trim() {
        "" => "(empty)".into(),
        text => text.into(),
    }
}

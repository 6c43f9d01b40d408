//! `loadgen demo`: an echo server in a process of its own, driven over loopback.
//!
//! The program starts itself again as the server, so that instrument and server never share a
//! process: not a thread, not an allocator, not a lock. The server ends when its standard input
//! does, so it cannot outlive this process.

use std::env;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::DemoArgs;
use crate::options::Options;
use crate::target::Target;

/// How long the server may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long the server may take to end after its standard input has.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How often an ending server is looked at.
const LOOK_UP: Duration = Duration::from_millis(10);

/// The demo's server, running.
pub(crate) struct DemoServer {
    process: Child,
    pub(crate) target: Target,
    pub(crate) loops: usize,
}

impl DemoServer {
    /// Starts the server with all `cpus` but one, and waits until it listens.
    pub(crate) fn start(cpus: &[usize]) -> Result<DemoServer, String> {
        let loops = cpus.len().saturating_sub(1).max(1);
        let program = env::current_exe()
            .map_err(|e| format!("cannot find this program to start it as the server: {e}"))?;
        let mut process = Command::new(&program)
            .args(["__serve", "--loops", &loops.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A terminal sends Ctrl-C to the whole group: the server must outlive the drain of the
            // load.
            .process_group(0)
            .spawn()
            .map_err(|e| format!("cannot start the server ({}): {e}", program.display()))?;
        let stderr = process.stderr.take().expect("standard error is piped");
        match first_address(stderr) {
            Ok(target) => Ok(DemoServer {
                process,
                target,
                loops,
            }),
            Err(reason) => {
                end(process);
                Err(reason)
            }
        }
    }

    /// Ends the server; a bounded wait, then by force.
    pub(crate) fn stop(self) {
        end(self.process);
    }
}

/// The load of the demo, with the generator on the last CPU when the server can have another.
pub(crate) fn load(args: &DemoArgs, target: Target, cpus: &[usize]) -> Options {
    Options {
        target: Some(target),
        connections: Some(args.connections),
        size: Some(args.size),
        rate: (!args.closed).then_some(args.rate),
        duration: Some(args.duration),
        pin: match cpus {
            [] | [_] => Vec::new(),
            [.., last] => vec![*last],
        },
        ..Options::default()
    }
}

/// What the demo is about to do.
pub(crate) fn introduction(server: &DemoServer, cpus: &[usize]) -> String {
    let mut text = format!(
        "demo: an echo server with {} loop{} listens on {} in a process of its own (pid {}); \
         driving it over loopback",
        server.loops,
        if server.loops == 1 { "" } else { "s" },
        server.target,
        server.process.id(),
    );
    if let [_] | [] = cpus {
        text.push_str(
            "\nthere is one CPU only: server and generator take turns on it, so the figures are \
             no measurement",
        );
    }
    text
}

/// What to do after the demo.
pub(crate) const WHAT_NEXT: &str = "\
try next:
  loadgen demo --closed                         as fast as it goes
  loadgen demo --connections 1 --closed         latency without queueing
  loadgen demo --size 16KiB                     larger requests
  loadgen run tcp://HOST:PORT --out results     your own server, with files for the HdrHistogram plotter
  loadgen run --help                            every option";

/// Waits for the line that names the address.
///
/// A thread reads what the server says, to its end: a pipe nobody reads would fill up and stop the
/// server. What comes after that line is passed on.
fn first_address(stderr: ChildStderr) -> Result<Target, String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut said = String::new();
        let mut found = false;
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if found {
                eprintln!("demo server: {line}");
            } else if let Some(target) = address_in(&line) {
                found = true;
                send(&sender, Ok(target));
            } else {
                said.push_str(&line);
                said.push('\n');
            }
        }
        if !found {
            let said = said.trim();
            send(
                &sender,
                Err(format!(
                    "the server ended before it listened; it said: {said}"
                )),
            );
        }
    });
    receiver
        .recv_timeout(START_LIMIT)
        .unwrap_or_else(|_| Err(format!("the server did not listen within {START_LIMIT:?}")))
}

fn send(sender: &Sender<Result<Target, String>>, found: Result<Target, String>) {
    if sender.send(found).is_err() {
        // The demo has given up waiting and is ending the server.
    }
}

/// `listening demo tcp 127.0.0.1:4711 (1 loops)`
fn address_in(line: &str) -> Option<Target> {
    let mut words = line
        .split_whitespace()
        .skip_while(|word| *word != "listening");
    let address = words.nth(3)?;
    format!("tcp://{address}").parse().ok()
}

fn end(mut process: Child) {
    drop(process.stdin.take());
    let until = Instant::now() + STOP_LIMIT;
    while Instant::now() < until {
        if let Ok(Some(_)) = process.try_wait() {
            return;
        }
        thread::sleep(LOOK_UP);
    }
    eprintln!(
        "demo server (pid {}) did not end within {STOP_LIMIT:?}; it is ended by force",
        process.id()
    );
    if process
        .kill()
        .and_then(|()| process.wait().map(drop))
        .is_err()
    {
        // It ended between the last look and now.
    }
}

#[cfg(test)]
mod tests {
    use super::address_in;

    #[test]
    fn address_is_found_in_the_listening_line_only() {
        let found =
            address_in("listening demo tcp 127.0.0.1:4711 (1 loops)\n").map(|t| t.to_string());
        assert_eq!(found.as_deref(), Some("tcp://127.0.0.1:4711"));
        let stamped = address_in("2026-01-01 INFO listening demo tcp [::1]:7 (3 loops)")
            .map(|t| t.to_string());
        assert_eq!(stamped.as_deref(), Some("tcp://[::1]:7"));
        assert_eq!(address_in("loops 1, pinned"), None);
        assert_eq!(address_in("listening"), None);
    }
}

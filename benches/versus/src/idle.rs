//! How often a process wakes that has nothing to do, and what that costs.
//!
//! Every server has one connection that has echoed once and is idle since. All of them are watched at once: idle servers
//! do not disturb each other, and one that is not idle shows in its own line.

use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::generator::{Generator, Load};
use crate::process::ServerProcess;
use crate::table::Table;
use crate::usage::Usage;

/// From the one echo to the first look: what is put off for a moment is done by then.
const SETTLE: Duration = Duration::from_secs(1);
/// Bytes of the one echo.
const SIZE: usize = 64;

/// What one idle server did.
#[derive(Clone, Debug, Serialize)]
pub struct Idle {
    /// Name of the server.
    pub server: String,
    /// How long it was watched.
    pub seconds: f64,
    /// How often a thread of it went to sleep again, so had been awake.
    pub wakeups: u64,
    /// CPU time of the process.
    pub cpu_ns: u64,
}

impl Idle {
    /// 0 is what there is to do.
    #[must_use]
    pub fn wakeups_per_second(&self) -> f64 {
        self.wakeups as f64 / self.seconds
    }
}

/// Watches them for that long, and a little longer.
pub fn watch<'s>(
    servers: impl Iterator<Item = (&'s str, &'s ServerProcess)>,
    span: Duration,
) -> Vec<(&'s str, anyhow::Result<Idle>)> {
    let echoed: Vec<_> = servers
        .map(|(name, server)| (name, server, one_echo(server)))
        .collect();
    thread::sleep(SETTLE);
    let begun: Vec<_> = echoed
        .into_iter()
        .map(|(name, server, open)| (name, server, open.and_then(|open| begin(server, open))))
        .collect();
    thread::sleep(span);
    let ended = begun.into_iter().map(|(name, server, begun)| {
        let idle = begun.and_then(|begun| begun.end(server, name));
        (name, idle)
    });
    ended.collect()
}

fn one_echo(server: &ServerProcess) -> anyhow::Result<Generator> {
    let mut open = Generator::connect(&Load {
        server: server.address(),
        connections: 1,
        size: SIZE,
    })?;
    open.echo_once()?;
    Ok(open)
}

struct Begun {
    /// Kept open, and used once more at the end: it was served all the time.
    open: Generator,
    before: Usage,
    at: Instant,
}

fn begin(server: &ServerProcess, open: Generator) -> anyhow::Result<Begun> {
    Ok(Begun {
        open,
        before: Usage::of(server.pid())?,
        at: Instant::now(),
    })
}

impl Begun {
    fn end(mut self, server: &ServerProcess, name: &str) -> anyhow::Result<Idle> {
        let spent = Usage::of(server.pid())?.since(&self.before);
        let seconds = self.at.elapsed().as_secs_f64();
        self.open.echo_once()?;
        Ok(Idle {
            server: name.into(),
            seconds,
            wakeups: spent.voluntary_switches,
            cpu_ns: u64::try_from(spent.cpu.as_nanos())?,
        })
    }
}

/// A line per server.
#[must_use]
pub fn table(idle: &[Idle]) -> Table {
    let seconds = idle.first().map_or(0.0, |idle| idle.seconds);
    let title = format!("An idle process, 2 CPUs, one connection, {seconds:.0} s");
    let mut table = Table::new(title, ["server", "wake-ups/s", "CPU us/s"]);
    for idle in idle {
        let cpu_us = idle.cpu_ns as f64 / 1e3 / idle.seconds;
        let cells = [
            format!("{:.1}", idle.wakeups_per_second()),
            format!("{cpu_us:.1}"),
        ];
        table.row(&idle.server, cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use crate::idle::{Idle, table};

    #[test]
    fn figures_are_per_second() {
        let idle = Idle {
            server: "mio".into(),
            seconds: 10.0,
            wakeups: 25,
            cpu_ns: 3_000_000,
        };
        let text = table(&[idle]).to_string();
        let line = text.lines().nth(2).expect("a line below the head");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words, ["mio", "2.5", "300.0"]);
    }
}

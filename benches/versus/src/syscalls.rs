//! What a request costs in system calls: counted by `strace -f -c`, outside of every timed window.
//!
//! The counts are those of a server that is slowed down many times: the generator is always ahead of it, so with many
//! connections they are those of a saturated server. With one connection there is nothing to batch, and they are exact.
//! It deliberately does not say how long calls take: under `strace` that means nothing.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use crate::generator::{Generator, Load};
use crate::process::{Refused, ServerProcess};
use crate::table::Table;
use crate::usage;

/// How long requests are counted.
const COUNTED: Duration = Duration::from_millis(700);
/// For `strace` to attach, or to detach and report.
const TRACER_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at it.
const TRACER_STEP: Duration = Duration::from_millis(2);
/// So many kinds of calls stand in the table, the most frequent first.
const KINDS_SHOWN: usize = 4;

/// The system calls of one server for one number of connections.
#[derive(Clone, Debug, Serialize)]
pub struct Syscalls {
    /// Name of the server.
    pub server: String,
    /// Open connections.
    pub connections: usize,
    /// Requests that were answered meanwhile.
    pub requests: u64,
    /// Calls by their names.
    pub calls: BTreeMap<String, u64>,
}

impl Syscalls {
    /// Of all kinds together.
    #[must_use]
    pub fn per_request(&self) -> f64 {
        self.calls.values().sum::<u64>() as f64 / self.requests as f64
    }

    fn kinds(&self) -> String {
        let mut kinds: Vec<(&String, &u64)> = self.calls.iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let kinds = kinds.into_iter().take(KINDS_SHOWN).map(|(name, count)| {
            let each = *count as f64 / self.requests as f64;
            format!("{name} {each:.2}")
        });
        kinds.collect::<Vec<String>>().join(", ")
    }
}

/// Counts the calls of a server that has no connection yet.
///
/// # Errors
/// [`Refused`] when there is no `strace` or it may not trace; others when the server fails.
pub fn count(server: &mut ServerProcess, name: &str, load: &Load) -> anyhow::Result<Syscalls> {
    let mut generator = Generator::connect(load)?;
    // Accepting and first sizes of buffers are no cost of a request.
    generator.echo_once()?;
    let strace = Strace::attach(server.pid())?;
    let before = generator.answered();
    generator.run(COUNTED)?;
    generator.finish()?;
    let requests = generator.answered() - before;
    let calls = strace.detach()?;
    drop(generator);
    server.wait_closed()?;
    Ok(Syscalls {
        server: name.into(),
        connections: load.connections,
        requests,
        calls,
    })
}

/// The table; a line per server, a column per number of connections.
#[must_use]
pub fn table(counted: &[Syscalls], servers: &[&str], connections: &[usize]) -> Table {
    let columns: Vec<String> = connections
        .iter()
        .map(|count| format!("{count} conn"))
        .collect();
    let mut head = vec!["server"];
    head.extend(columns.iter().map(String::as_str));
    head.push("which, with most connections");
    let mut table = Table::new("System calls per request", head);
    for server in servers {
        let own = |count: usize| {
            let mut all = counted.iter();
            all.find(|one| one.server == *server && one.connections == count)
        };
        let Some(last) = connections.last().and_then(|count| own(*count)) else {
            continue;
        };
        let cell = |count: &usize| {
            own(*count).map_or("-".into(), |one| format!("{:.2}", one.per_request()))
        };
        let cells = connections.iter().map(cell).chain([last.kinds()]);
        table.row(server, cells);
    }
    table
}

/// An attached `strace`; dropped, it is killed, and the kernel lets the server go.
struct Strace(Child);

impl Strace {
    /// Returns when every thread is traced.
    fn attach(pid: u32) -> anyhow::Result<Self> {
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-q", "-p", &pid.to_string()]);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => Refused("there is no `strace`".into()).into(),
            _ => anyhow::Error::from(error).context("cannot start strace"),
        })?;
        let mut strace = Self(child);
        let end = Instant::now() + TRACER_LIMIT;
        while !usage::is_traced(pid)? {
            if strace.0.try_wait()?.is_some() || Instant::now() >= end {
                return Err(Refused(format!("strace cannot attach: {}", strace.end()?)).into());
            }
            thread::sleep(TRACER_STEP);
        }
        Ok(strace)
    }

    fn detach(mut self) -> anyhow::Result<BTreeMap<String, u64>> {
        kill_process(Pid::from_child(&self.0), Signal::INT).context("cannot interrupt strace")?;
        let end = Instant::now() + TRACER_LIMIT;
        while self.0.try_wait()?.is_none() && Instant::now() < end {
            thread::sleep(TRACER_STEP);
        }
        let report = self.end()?;
        let calls = calls(&report);
        ensure!(!calls.is_empty(), "strace has counted nothing: {report:?}");
        Ok(calls)
    }

    /// What it has said; it is ended if it still runs.
    fn end(&mut self) -> anyhow::Result<String> {
        self.0.kill().context("cannot end strace")?;
        self.0.wait().context("cannot wait for strace")?;
        let mut said = String::new();
        let stderr = self.0.stderr.as_mut().expect("it was asked to be a pipe");
        stderr
            .read_to_string(&mut said)
            .context("cannot read what strace says")?;
        Ok(said.trim().into())
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("cannot end strace: {error}");
        }
    }
}

/// Reads the report of `strace -c`: share, seconds, us a call, calls, errors if there were some, name.
fn calls(report: &str) -> BTreeMap<String, u64> {
    let call = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [share, _, _, calls, .., name] = words[..] else {
            return None;
        };
        let is_line_of_a_call = share.parse::<f64>().is_ok() && name != "total";
        let calls = calls.parse().ok()?;
        is_line_of_a_call.then(|| (name.to_owned(), calls))
    };
    report.lines().filter_map(call).collect()
}

#[cfg(test)]
mod tests {
    use crate::syscalls::{Syscalls, calls, table};

    const REPORT: &str = "\
strace: Process 4711 attached with 2 threads
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 49.46    0.003171           3      1000           sendto
 40.01    0.002565           2      1001         1 recvfrom
 10.53    0.000675           4       150           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    0.006411           3      2151         1 total
";

    #[test]
    fn a_report_is_read_without_its_sum() {
        let calls = calls(REPORT);
        let expected = [("epoll_wait", 150), ("recvfrom", 1001), ("sendto", 1000)];
        let expected = expected.map(|(name, count)| (name.to_owned(), count));
        assert_eq!(calls, expected.into());
        // Older ones leave out the time of a call in the sum.
        let old = REPORT.replace("0.006411           3 ", "0.006411             ");
        assert_eq!(super::calls(&old), calls);
        assert!(super::calls("strace: attach: Operation not permitted").is_empty());
    }

    #[test]
    fn the_table_is_per_request() {
        let counted = |connections, requests| Syscalls {
            server: "mio".into(),
            connections,
            requests,
            calls: calls(REPORT),
        };
        let counted = [counted(1, 1000), counted(64, 500)];
        let text = table(&counted, &["mio", "tokio"], &[1, 64]).to_string();
        assert_eq!(text.lines().count(), 3, "{text}");
        let line = text.lines().nth(2).expect("a line below the head");
        for part in [
            "2.15",
            "4.30",
            "recvfrom 2.00, sendto 2.00, epoll_wait 0.30",
        ] {
            assert!(line.contains(part), "{part} in {text}");
        }
    }
}

//! Where a run took place: kernel, CPUs, affinity, version, command line. Without it a figure
//! cannot be repeated.

use std::env;
use std::fs;

use serde::{Deserialize, Serialize};

/// What is the same for the whole process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Environment {
    /// Version of this program.
    loadgen: String,
    kernel: String,
    /// Name of the machine.
    host: String,
    /// As the kernel names it; not on every architecture.
    cpu: Option<String>,
    n_cpus: usize,
    /// CPUs this process may use, ascending.
    pub(crate) allowed: Vec<usize>,
    command: String,
}

impl Environment {
    pub(crate) fn read() -> Environment {
        let name = rustix::system::uname();
        let words = [name.sysname(), name.release(), name.machine()];
        let allowed: Vec<usize> = core_affinity::get_core_ids()
            .unwrap_or_default()
            .into_iter()
            .map(|core| core.id)
            .collect();
        Environment {
            loadgen: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: words
                .map(|word| word.to_string_lossy().into_owned())
                .join(" "),
            host: name.nodename().to_string_lossy().into_owned(),
            cpu: cpu_model(),
            n_cpus: online_cpus().unwrap_or(allowed.len()),
            allowed,
            command: env::args()
                .map(|word| quoted(&word))
                .collect::<Vec<_>>()
                .join(" "),
        }
    }

    /// The same as names and values.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        let cpu = self.cpu.as_deref().unwrap_or("unknown");
        let (n, allowed) = (self.n_cpus, ranges(&self.allowed));
        vec![
            ("Generator on", self.host.clone()),
            ("Kernel", self.kernel.clone()),
            ("CPU", format!("{cpu}; {n} online, may use {allowed}")),
            ("loadgen", self.loadgen.clone()),
        ]
    }

    /// The machine and its kernel.
    pub(crate) fn place(&self) -> String {
        format!("{} ({})", self.host, self.kernel)
    }

    /// What was typed.
    pub(crate) fn command(&self) -> &str {
        &self.command
    }

    /// The lines of the report.
    pub(crate) fn lines(&self) -> [String; 2] {
        [
            format!(
                "{}, {} CPUs online, may use {}, loadgen {}",
                self.kernel,
                self.n_cpus,
                ranges(&self.allowed),
                self.loadgen
            ),
            self.command.clone(),
        ]
    }
}

/// The machine's CPUs; those this process may use can be fewer.
fn online_cpus() -> Option<usize> {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    let n_in_range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let first: usize = first.parse().ok()?;
        let last: usize = last.parse().ok()?;
        Some(last.checked_sub(first)? + 1)
    };
    online.trim().split(',').map(n_in_range).sum()
}

fn cpu_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// `0-3,6`: how CPU lists are written everywhere.
fn ranges(cpus: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for cpu in cpus {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
            _ => runs.push((*cpu, *cpu)),
        }
    }
    let text = |(first, last): &(usize, usize)| {
        if first == last {
            format!("{first}")
        } else {
            format!("{first}-{last}")
        }
    };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

/// A word as a shell takes it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::{quoted, ranges};

    #[test]
    fn cpu_lists_are_written_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 3, 6]), "0-3,6");
        assert_eq!(ranges(&[5]), "5");
        assert_eq!(ranges(&[]), "");
    }

    #[test]
    fn words_are_quoted_only_where_a_shell_needs_it() {
        assert_eq!(quoted("tcp://127.0.0.1:7"), "tcp://127.0.0.1:7");
        assert_eq!(quoted("p99 < 2ms"), "'p99 < 2ms'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}

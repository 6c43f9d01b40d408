//! Where, when and of what a measurement was taken: without these a figure means nothing.

use std::fmt;
use std::fs;
use std::process::Command;

use serde::Serialize;

/// Stands above every table, in the JSON and in the chart.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// CPUs of the machine.
    pub cpus: usize,
    /// Release of the kernel.
    pub kernel: String,
    /// What is measured, if this is a git checkout; `-dirty` if it has changes.
    pub commit: Option<String>,
    /// When it began, in UTC.
    pub date: String,
    /// Programs that were ready to run, in the mean of the last minute before it began: others' work spoils figures.
    pub load: String,
}

impl Machine {
    /// This one, now.
    #[must_use]
    pub fn here() -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let mut models = processors
            .lines()
            .filter_map(|line| line.strip_prefix("model name"));
        let cpus = models.clone().count();
        let model = models.next().unwrap_or("unknown");
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            processor: model.trim_start_matches([' ', '\t', ':']).into(),
            cpus,
            kernel: kernel.trim().into(),
            commit: line_of(Command::new("git").args([
                "-C",
                env!("CARGO_MANIFEST_DIR"),
                "describe",
                "--always",
                "--dirty",
                "--abbrev=12",
            ])),
            date: line_of(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))
                .unwrap_or_else(|| "unknown".into()),
            load: load.split_whitespace().next().unwrap_or("unknown").into(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commit = self.commit.as_deref().unwrap_or("unknown");
        let Self {
            processor,
            cpus,
            kernel,
            date,
            load,
            ..
        } = self;
        write!(
            f,
            "{processor}, {cpus} CPUs, Linux {kernel}; commit {commit}; {date}; load before {load}"
        )
    }
}

fn line_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| text.trim().into())
}

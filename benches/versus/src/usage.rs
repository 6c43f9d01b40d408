//! What the kernel says a process has consumed: CPU time, context switches, memory, descriptors.
//!
//! Read from outside, so that the servers need no code for it and cannot get it wrong.
//!
//! CPU time comes from the process's own CPU clock: it is exact to the nanosecond, includes the
//! thread that runs right now and threads that have ended. The ticks of `/proc/PID/stat` (10 ms) are
//! used only for the share of user time, and `schedstat` not at all, because it is brought up to
//! date only when a thread is switched.
//!
//! Linux only, as everything here that reads `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::time::ClockId;
use nix::unistd::Pid;

/// What a process has consumed since its start; the difference of two is what a window cost.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// CPU time of all threads.
    pub cpu: Duration,
    /// User part, in ticks: only its ratio to `system_ticks` is meant to be used.
    pub user_ticks: u64,
    /// System part, in ticks.
    pub system_ticks: u64,
    /// How often a thread gave up its CPU by waiting.
    pub voluntary_switches: u64,
    /// How often a thread was taken off its CPU.
    pub involuntary_switches: u64,
}

impl Usage {
    /// Reads the counters of a living process.
    ///
    /// # Errors
    /// When the process does not exist any more.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let (user_ticks, system_ticks) = ticks(pid)?;
        let mut usage = Self {
            cpu: cpu_time(pid)?,
            user_ticks,
            system_ticks,
            voluntary_switches: 0,
            involuntary_switches: 0,
        };
        for status in thread_statuses(pid)? {
            usage.voluntary_switches += number(&status, "voluntary_ctxt_switches:")?;
            usage.involuntary_switches += number(&status, "nonvoluntary_ctxt_switches:")?;
        }
        Ok(usage)
    }

    /// What was consumed since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        // The switches of a thread that has ended since then are gone from /proc: count it as none.
        let switched = |now: u64, then: u64| now.saturating_sub(then);
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            user_ticks: self.user_ticks - earlier.user_ticks,
            system_ticks: self.system_ticks - earlier.system_ticks,
            voluntary_switches: switched(self.voluntary_switches, earlier.voluntary_switches),
            involuntary_switches: switched(self.involuntary_switches, earlier.involuntary_switches),
        }
    }
}

/// Fails unless every thread of the process may run on some of `cpus` only.
///
/// # Errors
/// Names the first thread that may run elsewhere.
pub fn check_pinned(pid: u32, cpus: &[usize]) -> anyhow::Result<()> {
    for status in thread_statuses(pid)? {
        let allowed = field(&status, "Cpus_allowed_list:")?;
        if !listed(allowed)?.iter().all(|cpu| cpus.contains(cpu)) {
            let thread = field(&status, "Name:")?;
            bail!("thread {thread:?} may run on CPUs {allowed}, the rules say {cpus:?} only");
        }
    }
    Ok(())
}

/// Whether every thread of the process is being traced.
///
/// # Errors
/// When the process does not exist any more.
pub fn is_traced(pid: u32) -> anyhow::Result<bool> {
    let tracers: anyhow::Result<Vec<u64>> = thread_statuses(pid)?
        .iter()
        .map(|status| number(status, "TracerPid:"))
        .collect();
    Ok(tracers?.iter().all(|tracer| *tracer != 0))
}

/// The numbers in a list like `0-2,5`.
fn listed(list: &str) -> anyhow::Result<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        numbers.extend(first.parse::<usize>()?..=last.parse()?);
    }
    Ok(numbers)
}

/// Memory of the process that is in RAM, in bytes.
///
/// # Errors
/// When the process does not exist any more.
pub fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    // statm is cheaper, but its counters are batched per CPU and can be off by many pages.
    let rollup = read(pid, "smaps_rollup")?;
    let kib = field(&rollup, "Rss:")?.trim_end_matches("kB").trim();
    Ok(kib
        .parse::<u64>()
        .with_context(|| format!("Rss is {kib:?}"))?
        * 1024)
}

/// How many descriptors the process has open.
///
/// # Errors
/// When the process does not exist any more.
pub fn open_descriptors(pid: u32) -> anyhow::Result<usize> {
    let path = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&path)
        .with_context(|| format!("cannot list {path}"))?
        .count())
}

fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let pid = Pid::from_raw(i32::try_from(pid)?);
    let clock = ClockId::pid_cpu_clock_id(pid).with_context(|| format!("no CPU clock of {pid}"))?;
    Ok(clock
        .now()
        .with_context(|| format!("cannot read the CPU clock of {pid}"))?
        .into())
}

fn ticks(pid: u32) -> anyhow::Result<(u64, u64)> {
    let stat = read(pid, "stat")?;
    // The name, in parentheses, may itself hold spaces and parentheses; field 3 follows it.
    let (_, numbers) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let mut numbers = numbers.split_ascii_whitespace().skip(14 - 3);
    let mut next = || -> anyhow::Result<u64> {
        let number = numbers
            .next()
            .context("/proc/PID/stat has too few fields")?;
        number
            .parse()
            .with_context(|| format!("/proc/PID/stat has {number:?} for ticks"))
    };
    Ok((next()?, next()?))
}

fn thread_statuses(pid: u32) -> anyhow::Result<Vec<String>> {
    let path = format!("/proc/{pid}/task");
    let mut statuses = Vec::new();
    for thread in fs::read_dir(&path).with_context(|| format!("cannot list {path}"))? {
        match fs::read_to_string(thread?.path().join("status")) {
            Ok(status) => statuses.push(status),
            // It ended between the listing and the reading: ENOENT or ESRCH.
            Err(error) => drop(error),
        }
    }
    Ok(statuses)
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

fn field<'text>(text: &'text str, name: &str) -> anyhow::Result<&'text str> {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(value.with_context(|| format!("no field {name}"))?.trim())
}

fn number(text: &str, name: &str) -> anyhow::Result<u64> {
    let value = field(text, name)?;
    value
        .parse()
        .with_context(|| format!("{name} is {value:?}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use crate::usage::{Usage, cpu_time, listed, open_descriptors, resident_bytes};

    #[test]
    fn cpu_time_grows_by_what_was_burnt() {
        let me = std::process::id();
        let before = Usage::of(me).expect("this process exists");
        let goal = before.cpu + Duration::from_millis(30);
        let mut spins = 0_u64;
        while cpu_time(me).expect("this process exists") < goal {
            spins += 1;
        }
        let spent = Usage::of(me).expect("this process exists").since(&before);
        assert!(
            spins > 0 && spent.cpu >= Duration::from_millis(30),
            "{spent:?}"
        );
        assert!(spent.cpu < Duration::from_secs(20), "{spent:?}");
    }

    #[test]
    fn descriptors_are_counted() {
        let me = std::process::id();
        let files: Vec<_> = (0..50)
            .map(|_| fs::File::open("/dev/null").expect("it is there"))
            .collect();
        let with = open_descriptors(me).expect("this process exists");
        assert!(with >= files.len(), "{with}");
    }

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(listed("0-2,5").expect("a list"), [0, 1, 2, 5]);
        assert!(listed("0-x").is_err());
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        // Above the largest pid_max a kernel allows.
        assert!(Usage::of(1 << 23).is_err());
        assert!(resident_bytes(1 << 23).is_err());
    }
}

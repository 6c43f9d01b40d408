//! What this process may use of the machine: cores, CPU quota, open files.
//!
//! Read-only but for [`raise_file_limit`]. It decides nothing: how many loops there are and whether they
//! are pinned is the library's decision, this file only lets the daemon check and explain it.

use std::{fs, io, path::Path, thread, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the threads of the loops are called, before a dash and their number.
pub(crate) const LOOP_THREADS: &str = "echod";

/// The cores that the affinity mask allows; a quota does not count.
pub(crate) fn cores() -> usize {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => usize::try_from(set.count()).unwrap_or(1).max(1),
        // More CPUs than the mask type holds; the standard library asks with a larger one.
        Err(_) => thread::available_parallelism().map_or(1, usize::from),
    }
}

/// The CPU quota of this process's control group in CPUs; `None` when there is none.
///
/// Limits add up on the way to the root, so the smallest one counts. Version 1 has one quota file in
/// the group's own folder, and only that is read.
pub(crate) fn cpu_quota() -> Option<f64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let root = Path::new("/sys/fs/cgroup");
    let mut least: Option<f64> = None;
    let mut note = |quota: Option<f64>| {
        least = match (least, quota) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    };
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let group = group.trim_start_matches('/');
        if id == "0" {
            // In a container the path may not exist below the mount; its ancestors (the mount) do.
            let folder = root.join(group);
            for folder in folder
                .ancestors()
                .take_while(|folder| folder.starts_with(root))
            {
                note(
                    fs::read_to_string(folder.join("cpu.max"))
                        .ok()
                        .and_then(|t| quota_v2(&t)),
                );
            }
        } else if controllers.split(',').any(|controller| controller == "cpu") {
            for folder in [root.join("cpu").join(group), root.join("cpu")] {
                note(quota_v1(&folder));
            }
        }
    }
    least
}

/// `cpu.max` holds "QUOTA PERIOD" in microseconds, or "max PERIOD".
fn quota_v2(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

/// Version 1: two files; a quota of -1 is none.
fn quota_v1(folder: &Path) -> Option<f64> {
    let read = |name: &str| {
        let text = fs::read_to_string(folder.join(name)).ok()?;
        text.trim().parse::<f64>().ok()
    };
    let quota = read("cpu.cfs_quota_us").filter(|quota| *quota > 0.0)?;
    Some(quota / read("cpu.cfs_period_us")?)
}

/// The CPU time that the threads of the loops have had, as far as the kernel tells.
///
/// A loop does nothing but its work, so this is how long it was busy; and it costs the loops nothing.
pub(crate) fn loop_cpu_times(loops: usize) -> Vec<(usize, Duration)> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    let mut times: Vec<_> = threads
        .filter_map(|thread| cpu_time_of_loop(&thread.ok()?.path()))
        .filter(|(id, _)| *id < loops)
        .collect();
    times.sort_unstable();
    times
}

/// `None` for a thread that is no loop, or that has ended meanwhile.
fn cpu_time_of_loop(thread: &Path) -> Option<(usize, Duration)> {
    let name = fs::read_to_string(thread.join("comm")).ok()?;
    let id = name
        .trim_end()
        .strip_prefix(LOOP_THREADS)?
        .strip_prefix('-')?;
    let id = id.parse().ok()?;
    // The first number: nanoseconds on a CPU.
    let times = fs::read_to_string(thread.join("schedstat")).ok()?;
    let time = times.split_whitespace().next()?.parse().ok()?;
    Some((id, Duration::from_nanos(time)))
}

/// Sets the soft limit on open files to `wanted`, or to the hard limit; gives back what holds now.
pub(crate) fn raise_file_limit(wanted: Option<u64>) -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    let current = match wanted {
        None => limit.maximum,
        Some(wanted) => Some(wanted),
    };
    // Only a privileged process may go above the hard limit; the kernel says so if we are none.
    let above_hard = matches!((current, limit.maximum), (Some(new), Some(hard)) if new > hard);
    let maximum = if above_hard { current } else { limit.maximum };
    setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
    Ok(current)
}

#[cfg(test)]
mod tests {
    use crate::machine::quota_v2;

    #[test]
    fn quota_of_a_group_is_read_in_cpus() {
        assert_eq!(quota_v2("150000 100000\n"), Some(1.5));
        assert_eq!(quota_v2("max 100000\n"), None);
        assert_eq!(quota_v2(""), None);
    }
}

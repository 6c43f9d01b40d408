//! What this process may use of the machine: cores.
//!
//! It decides nothing: how many loops there are and whether they are pinned is the library's decision,
//! this file only lets the daemon check and explain it.

use std::thread;

/// The cores that the affinity mask allows; a quota does not count.
pub(crate) fn cores() -> usize {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => usize::try_from(set.count()).unwrap_or(1).max(1),
        // More CPUs than the mask type holds; the standard library asks with a larger one.
        Err(_) => thread::available_parallelism().map_or(1, usize::from),
    }
}

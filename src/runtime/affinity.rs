//! Which loop goes to which core, and giving a lent thread its old cores back.

use core_affinity::CoreId;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::config::{Pin, RuntimeConfig};
use crate::error::BuildError;

/// The core of each loop; `None` where the operating system places the thread.
pub(crate) fn plan(config: &RuntimeConfig) -> Result<Vec<Option<CoreId>>, BuildError> {
    let nowhere = vec![None; config.loops];
    if config.pin == Pin::Off {
        return Ok(nowhere);
    }
    // Only the cores in this process's affinity mask.
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if config.loops <= cores.len() {
        // A quota below the number of cores means that somebody else decides how long each of
        // them is ours; a pinned loop would be frozen with its core.
        let has_quota = num_cpus::get() < cores.len();
        if config.pin == Pin::Auto && has_quota {
            return Ok(nowhere);
        }
        return Ok(cores.into_iter().take(config.loops).map(Some).collect());
    }
    match config.pin {
        Pin::On => Err(BuildError::Config(format!(
            "pin = on with {} loops: this process may use {} cores; lower the loops or unpin",
            config.loops,
            cores.len()
        ))),
        Pin::Auto | Pin::Off => Ok(nowhere),
    }
}

/// Pins the calling thread for good; false if the operating system refuses.
pub(crate) fn pin(core: CoreId) -> bool {
    core_affinity::set_for_current(core)
}

/// The cores that the calling thread may use; `None` if the operating system does not tell.
pub(crate) fn current() -> Option<CpuSet> {
    sched_getaffinity(None).ok()
}

/// Has the operating system place the calling thread on any of `cores`.
pub(crate) fn spread(cores: &CpuSet) {
    if let Err(error) = sched_setaffinity(None, cores) {
        tracing::warn!(%error, "a thread could not be given its cores back");
    }
}

/// Pins the calling thread until it is dropped, then gives it the cores it had before.
#[derive(Debug)]
pub(crate) struct Borrowed {
    before: Option<CpuSet>,
}

impl Borrowed {
    pub(crate) fn pin(core: Option<CoreId>) -> Self {
        let before = core.and_then(|core| {
            let before = current()?;
            pin(core).then_some(before)
        });
        Borrowed { before }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            spread(before);
        }
    }
}

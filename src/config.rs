//! Plain settings of a runtime, their defaults, and what is allowed.
//!
//! Knows no file format: the daemon parses TOML into its own types and then calls the builder.

use std::time::Duration;

use crate::error::BuildError;

/// More loops than this are refused: the idle mask has one bit for each.
pub(crate) const MAX_LOOPS: usize = 48;

/// Set to `1`, it turns debug mode on where a program does not say otherwise.
const DEBUG_VARIABLE: &str = "GARLAND_DEBUG";

/// The others look at a loop every half millisecond, at best: less is not to be told from nothing.
const STUCK_AFTER_MIN: Duration = Duration::from_millis(1);

/// Whether loops are pinned to cores.
///
/// Threads and processes that are started on a pinned loop inherit its core: start them before the run or by
/// [`run_in_executor`](crate::run_in_executor) (in the default pool), or do not pin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pin {
    /// Pin when every loop can have a core of its own and no CPU quota is set.
    #[default]
    Auto,
    /// Pin, and refuse to build where a loop would have to share a core.
    On,
    /// Let the operating system place the threads.
    Off,
}

/// How much a loop does before it looks elsewhere. The defaults suit servers: 64 tasks, 100 µs, 16 and 32 events.
///
/// ```
/// let mut budget = garland::TurnBudget::default();
/// budget.tasks = 16;
/// let runtime = garland::Builder::new().budget(budget).build()?;
/// # Ok::<(), garland::BuildError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TurnBudget {
    /// Movable tasks run in one turn, and between two polls of the selector.
    pub tasks: u32,
    /// Time for movable tasks in one turn; whichever of the two ends first. The next turn sees to timers, messages
    /// and callbacks, and polls the selector too, unless short steps of movable tasks are all that waits.
    pub time: Duration,
    /// Events taken from the selector in one turn while tasks are waiting: a small batch leaves
    /// the rest in the kernel, where another loop could still take it.
    pub events_busy: usize,
    /// Events taken in one turn when nothing is waiting. Where eight movable tasks wait or more, up to twice this number,
    /// and steps are short, all of those receive before the first sends; more than 32 receives in a row make the
    /// kernel interrupt the processors that have sent.
    pub events_idle: usize,
}

impl Default for TurnBudget {
    fn default() -> Self {
        TurnBudget {
            tasks: 64,
            time: Duration::from_micros(100),
            events_busy: 16,
            events_idle: 32,
        }
    }
}

/// Everything a runtime is built from.
#[derive(Clone, Debug)]
pub(crate) struct RuntimeConfig {
    pub(crate) loops: usize,
    pub(crate) pin: Pin,
    pub(crate) steal: bool,
    pub(crate) rescue: bool,
    /// A loop in one callback, or step, for so long is reported.
    pub(crate) stuck_after: Duration,
    pub(crate) thread_name: String,
    pub(crate) budget: TurnBudget,
    /// Seed of the order in which victims are tried; a fixed one makes a run repeatable.
    pub(crate) seed: u64,
    pub(crate) debug: bool,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        RuntimeConfig {
            // Knows the affinity mask and the quota of a control group.
            loops: num_cpus::get().clamp(1, MAX_LOOPS),
            pin: Pin::Auto,
            steal: true,
            rescue: true,
            stuck_after: Duration::from_millis(100),
            thread_name: "garland".to_owned(),
            budget: TurnBudget::default(),
            seed: fastrand::u64(..),
            debug: std::env::var_os(DEBUG_VARIABLE).is_some_and(|value| value == "1"),
        }
    }
}

impl RuntimeConfig {
    /// Whether loops help each other out at all.
    pub(crate) fn is_rescuing(&self) -> bool {
        self.rescue && self.loops > 1
    }

    /// Refuses what no runtime can be built from; the message names the setting and its range.
    pub(crate) fn validate(&self) -> Result<(), BuildError> {
        let complain = |what: String| Err(BuildError::Config(what));
        if !(1..=MAX_LOOPS).contains(&self.loops) {
            return complain(format!(
                "loops = {}: allowed is 1 to {MAX_LOOPS}",
                self.loops
            ));
        }
        if self.thread_name.contains('\0') {
            return complain("thread name: must not contain a zero byte".to_owned());
        }
        if self.stuck_after < STUCK_AFTER_MIN {
            return complain(format!(
                "stuck after = {:?}: allowed is {STUCK_AFTER_MIN:?} and more",
                self.stuck_after
            ));
        }
        let budget = &self.budget;
        if budget.tasks == 0 || budget.events_busy == 0 || budget.events_idle == 0 {
            return complain("turn budget: tasks and events must be at least 1".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{MAX_LOOPS, RuntimeConfig};

    #[test]
    fn a_loop_count_out_of_range_is_refused_with_its_range() {
        for loops in [0, MAX_LOOPS + 1] {
            let config = RuntimeConfig {
                loops,
                ..RuntimeConfig::default()
            };
            let error = config.validate().expect_err("out of range").to_string();
            assert!(error.contains("1 to 48"), "{error}");
        }
    }
}

//! What one generator thread used of its CPU: running, ready but kept waiting, asleep.
//!
//! A generator that never sleeps, or that the kernel keeps off the CPU, measures itself; these
//! figures are how a reader sees it. The thread reads its own counters, twice a run. What the
//! kernel does not tell is left out, not guessed.

use std::fs;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// The counters of the calling thread at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    at: Instant,
    running: Duration,
    waiting: Option<Duration>,
    sleeps: Option<u64>,
    polls: u64,
    spun: Duration,
}

impl Reading {
    /// Reads the counters of the calling thread; `polls` is the thread's own count of its calls of
    /// `epoll_wait`, `spun` the time it spent spinning for nothing.
    pub(crate) fn take(polls: u64, spun: Duration) -> Reading {
        let running = clock_gettime(ClockId::ThreadCPUTime);
        Reading {
            at: Instant::now(),
            running: Duration::new(
                u64::try_from(running.tv_sec).unwrap_or(0),
                u32::try_from(running.tv_nsec).unwrap_or(0),
            ),
            waiting: fs::read_to_string("/proc/thread-self/schedstat")
                .ok()
                .and_then(|text| waiting_from_schedstat(&text)),
            sleeps: fs::read_to_string("/proc/thread-self/status")
                .ok()
                .and_then(|text| sleeps_from_status(&text)),
            polls,
            spun,
        }
    }

    /// What was used between `earlier` and this reading.
    pub(crate) fn since(&self, earlier: &Reading) -> Usage {
        let span = self.at.saturating_duration_since(earlier.at).as_secs_f64();
        let share = |part: Duration| {
            if span > 0.0 {
                part.as_secs_f64() / span
            } else {
                0.0
            }
        };
        let spun = self.spun.saturating_sub(earlier.spun);
        let ran = self.running.saturating_sub(earlier.running);
        Usage {
            busy: share(ran.saturating_sub(spun)),
            spinning: share(spun),
            waiting: self
                .waiting
                .zip(earlier.waiting)
                .map(|(now, then)| share(now.saturating_sub(then))),
            sleeps: self
                .sleeps
                .zip(earlier.sleeps)
                .map(|(now, then)| now.saturating_sub(then)),
            polls: self.polls.saturating_sub(earlier.polls),
        }
    }
}

/// What a thread used during the measured time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Share of the time spent working on a CPU, 0 to 1.
    pub(crate) busy: f64,
    /// Share of the time spent spinning until the next send was due.
    pub(crate) spinning: f64,
    /// Share of the time spent ready to run without a CPU.
    pub(crate) waiting: Option<f64>,
    /// Times the thread gave up its CPU because no event was there.
    pub(crate) sleeps: Option<u64>,
    /// Calls of `epoll_wait`.
    pub(crate) polls: u64,
}

impl Usage {
    /// A thread that has work for more than this share of its time has no room left to send on
    /// time.
    const BUSY_LIMIT: f64 = 0.95;
    /// A thread that sleeps in fewer of its polls than one in this many never runs out of events.
    const POLLS_PER_SLEEP: u64 = 100;
    /// While a thread waits for a CPU every request in flight gets older: about this share of all
    /// latency is then the generator's own.
    const WAITING_LIMIT: f64 = 0.1;

    /// Running, or ready to, nearly all the time. Who spins until the next send has time left.
    pub(crate) fn has_no_time_left(&self) -> bool {
        self.busy + self.waiting.unwrap_or(0.0) > Self::BUSY_LIMIT
    }

    /// Events never ran out either: in a closed loop the generator sets the rate, not the target.
    pub(crate) fn is_never_idle(&self) -> bool {
        self.sleeps
            .is_none_or(|n| n < self.polls / Self::POLLS_PER_SLEEP + 1)
    }

    /// Kept off its CPU long enough to falsify what it measures, open loop or closed.
    pub(crate) fn is_starved(&self) -> bool {
        self.waiting
            .is_some_and(|share| share > Self::WAITING_LIMIT)
    }
}

/// Second field: nanoseconds spent ready on a run queue.
fn waiting_from_schedstat(text: &str) -> Option<Duration> {
    text.split_whitespace()
        .nth(1)?
        .parse()
        .ok()
        .map(Duration::from_nanos)
}

fn sleeps_from_status(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Reading, Usage, sleeps_from_status, waiting_from_schedstat};

    fn usage(busy: f64, sleeps: Option<u64>) -> Usage {
        Usage {
            busy,
            spinning: 0.0,
            waiting: Some(0.02),
            sleeps,
            polls: 1000,
        }
    }

    #[test]
    fn time_left_and_idleness_are_told_apart() {
        assert!(usage(0.99, Some(3)).has_no_time_left() && usage(0.99, Some(3)).is_never_idle());
        assert!(
            usage(0.99, None).is_never_idle(),
            "nothing says that it slept"
        );
        assert!(!usage(0.99, Some(500)).is_never_idle(), "it slept");
        assert!(!usage(0.90, Some(0)).has_no_time_left());
        let starved = Usage {
            waiting: Some(0.39),
            ..usage(0.6, Some(0))
        };
        assert!(starved.has_no_time_left() && starved.is_starved());
    }

    #[test]
    fn kernel_counters_are_read() {
        assert_eq!(
            waiting_from_schedstat("118135 2115394 2"),
            Some(Duration::from_nanos(2_115_394))
        );
        assert_eq!(waiting_from_schedstat("118135"), None);
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t42\nnonvoluntary_ctxt_switches:\t7\n";
        assert_eq!(sleeps_from_status(status), Some(42));
        assert_eq!(sleeps_from_status(""), None);
    }

    #[test]
    fn spinning_thread_uses_cpu_time_and_a_blocked_one_none() {
        let before = Reading::take(0, Duration::ZERO);
        let spin_until = Instant::now() + Duration::from_millis(30);
        while Instant::now() < spin_until {
            std::hint::spin_loop();
        }
        let spun = Reading::take(0, Duration::ZERO);
        let (_sender, receiver) = std::sync::mpsc::channel::<()>();
        assert!(receiver.recv_timeout(Duration::from_millis(30)).is_err());
        let slept = Reading::take(0, Duration::ZERO);
        let spinning = spun.since(&before);
        // Other programs may hold the CPU meanwhile: running and waiting together fill the time.
        assert!(
            spinning.busy + spinning.waiting.unwrap_or(1.0) > 0.6,
            "{spinning:?}"
        );
        assert!(slept.since(&spun).busy < 0.5, "{:?}", slept.since(&spun));
    }
}

//! Whether the figures are the target's, or the generator's own.
//!
//! A generator without time left or without a CPU, one that sends late, one that lets answers fall:
//! each measures itself. About a tenth of the latency may be its own; beyond that the verdict is
//! *generator-bound*, and no figure of the run is valid.

use std::time::Duration;

use crate::outcome::Outcome;
use crate::pace::Pace;
use crate::quantity::{count, span};

/// Lag of the generator's own making that is always forgiven: what a timer and a wake-up take.
const LAG_FLOOR: Duration = Duration::from_micros(100);
/// Beyond it the generator's p99 lag may be this part of the p99 of the result.
const LAG_SHARE: f64 = 0.1;
const PERCENTILE: f64 = 99.0;
/// Fewer late sends are chance, however short the run was.
const LATE_MIN: u64 = 5;

/// Why the run is generator-bound; empty for a valid one. `pace` is that of an open loop: only what
/// was not tried is advised.
pub(crate) fn reasons(outcome: &Outcome, pace: Option<Pace>) -> Vec<String> {
    let (or_sleep, or_spin) = match pace {
        None => ("", ""),
        Some(Pace::Spin) => (", or use --pace sleep", ""),
        Some(Pace::Sleep) => ("", "--pace spin, "),
        Some(Pace::Hybrid) => (", or use --pace sleep", "--pace spin, "),
    };
    let or_less = match pace {
        None => "fewer --connections",
        Some(_) => "a lower --rate",
    };
    let mut reasons = Vec::new();
    let samples = &outcome.measured.samples;
    for (index, thread) in outcome.threads.iter().enumerate() {
        let Some(usage) = &thread.usage else { continue };
        let waiting = usage.waiting.unwrap_or(0.0);
        // An open loop may sleep though it is behind: for want of a free connection.
        if usage.has_no_time_left() && (samples.open.is_some() || usage.is_never_idle()) {
            reasons.push(format!(
                "generator thread {index} had work {:.0} % of the time: it, not the target, set \
                 the rate and the latency; use more --threads or {or_less}",
                (usage.busy + waiting) * 100.0,
            ));
        }
        if usage.is_starved() {
            reasons.push(format!(
                "generator thread {index} was ready but had to wait for a CPU {:.0} % of the \
                 time, and about that share of the latency is this wait; give it a CPU of its own \
                 (--pin, and nothing else there){or_sleep}",
                waiting * 100.0
            ));
        }
    }
    // Without an answer there is no latency that the lag could have falsified.
    if let Some(open) = &samples.open
        && !samples.latency.is_empty()
    {
        let result = samples.latency.value_at_percentile(PERCENTILE) as f64;
        let limit = (LAG_FLOOR.as_nanos() as f64).max(result * LAG_SHARE);
        let n = open.own_lag.len();
        let n_late = open.own_lag.count_between(limit as u64 + 1, u64::MAX);
        if n_late >= LATE_MIN && n_late as f64 > n as f64 * (1.0 - PERCENTILE / 100.0) {
            reasons.push(format!(
                "{} of {} requests were sent more than {} later than they could have been, which \
                 a p99 of {} does not bear: the generator had no CPU in time; use --pin, {or_spin}\
                 more --threads or a lower --rate",
                count(n_late),
                count(n),
                span(limit),
                span(result)
            ));
        }
    }
    if outcome.n_dropped > 0 {
        reasons.push(format!(
            "{} answers were dropped by this machine because the generator did not fetch them in \
             time: some of the loss is its own; use more --threads or more --connections",
            count(outcome.n_dropped)
        ));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::reasons;
    use crate::interval::SampleKinds;
    use crate::outcome::{Outcome, ThreadUse};
    use crate::pace::Pace;
    use crate::usage::Usage;

    /// An open loop whose requests all took `latency_us` and were sent `lag_us` late.
    fn outcome(latency_us: u64, lag_us: u64) -> Outcome {
        let kinds = SampleKinds {
            open: true,
            connect: false,
        };
        let mut outcome = Outcome::new(kinds);
        let samples = &mut outcome.measured.samples;
        samples.latency.saturating_record_n(latency_us * 1000, 1000);
        let open = samples.open.as_mut().expect("an open loop");
        open.own_lag.saturating_record_n(lag_us * 1000, 1000);
        outcome
    }

    #[test]
    fn small_lag_is_forgiven_and_a_tenth_of_the_latency() {
        let pace = Some(Pace::Hybrid);
        assert!(reasons(&outcome(50, 90), pace).is_empty());
        assert!(reasons(&outcome(100_000, 9_000), pace).is_empty());
        for late in [outcome(50, 200), outcome(100_000, 11_000)] {
            let found = reasons(&late, pace);
            assert!(
                found.len() == 1 && found[0].contains("sent more than"),
                "{found:?}"
            );
        }
    }

    #[test]
    fn thread_without_time_or_cpu_and_dropped_answers_are_reasons() {
        let mut outcome = outcome(50, 1);
        outcome.n_dropped = 3;
        let usage = |busy, waiting| ThreadUse {
            core: None,
            usage: Some(Usage {
                busy,
                spinning: 0.0,
                waiting: Some(waiting),
                sleeps: Some(0),
                polls: 1000,
            }),
        };
        outcome.threads = vec![usage(0.5, 0.05), usage(0.99, 0.0), usage(0.5, 0.2)];
        let found = reasons(&outcome, Some(Pace::Hybrid));
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(
            found[0].starts_with("generator thread 1 had work"),
            "{found:?}"
        );
        assert!(
            found[1].starts_with("generator thread 2 was ready but"),
            "{found:?}"
        );
        assert!(found[2].starts_with("3 answers were dropped"), "{found:?}");
    }

    #[test]
    fn what_is_advised_can_be_done_and_was_not_tried() {
        let mut outcome = outcome(50, 200);
        outcome.threads = vec![ThreadUse {
            core: None,
            usage: Some(Usage {
                busy: 0.9,
                spinning: 0.0,
                waiting: Some(0.2),
                sleeps: Some(0),
                polls: 1000,
            }),
        }];
        for (pace, sleep, spin) in [
            (Some(Pace::Spin), true, false),
            (Some(Pace::Sleep), false, true),
            (Some(Pace::Hybrid), true, true),
        ] {
            let found = reasons(&outcome, pace).concat();
            assert_eq!(found.contains("--pace sleep"), sleep, "{pace:?}: {found}");
            assert_eq!(found.contains("--pace spin"), spin, "{pace:?}: {found}");
            assert!(!found.contains("--connections"), "{found}");
        }
        outcome.measured.samples.latency.reset();
        let unanswered = reasons(&outcome, Some(Pace::Hybrid));
        assert_eq!(unanswered.len(), 2, "of the thread alone: {unanswered:?}");
        outcome.measured.samples.open = None;
        let found = reasons(&outcome, None).concat();
        assert!(
            !found.contains("--pace") && !found.contains("--rate"),
            "{found}"
        );
        assert!(found.contains("fewer --connections"), "{found}");
    }
}

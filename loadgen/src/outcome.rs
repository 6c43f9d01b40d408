//! What a run came to: sums over threads and intervals, and whether the result describes the load
//! that was asked for.
//!
//! Plain data, stored in `run.json` as it is. Whether the generator was fast enough is
//! [`crate::verdict`]'s to say.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::assertion::{Measured, Metric};
use crate::failure::{Kind, Tally};
use crate::gaps::Gaps;
use crate::interval::{Interval, Phase, SampleKinds, Samples};
use crate::ledger::Datagrams;
use crate::news::Summary;
use crate::quantity::{count, per_second};
use crate::stored;
use crate::usage::Usage;

/// The sums of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// When the load began, since 1970.
    #[serde(with = "stored::seconds")]
    pub(crate) started: Duration,
    pub(crate) warmup: PhaseSum,
    pub(crate) measured: PhaseSum,
    /// In order of time.
    pub(crate) series: Vec<IntervalSum>,
    /// What became of the datagrams of warm-up and measured time, if the requests were some.
    pub(crate) datagrams: Option<[Datagrams; 2]>,
    /// The arrival process; of an open loop.
    pub(crate) gaps: Gaps,
    /// Requests of the measured time that were due before a connection was free.
    pub(crate) n_held: u64,
    /// Requests of the measured time that were due and never sent.
    pub(crate) n_missed: u64,
    /// Answers that this machine dropped.
    pub(crate) n_dropped: u64,
    pub(crate) tally: Tally,
    /// In the order of the threads.
    pub(crate) threads: Vec<ThreadUse>,
    /// Why the measured phase was shorter than asked for.
    pub(crate) cut_short: Option<CutShort>,
}

/// What ends a run early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CutShort {
    Interrupted,
    /// Every connection had failed.
    NoneLeft,
}

/// What one phase came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PhaseSum {
    pub(crate) samples: Samples,
    #[serde(with = "stored::seconds")]
    pub(crate) span: Duration,
    /// Requests sent.
    pub(crate) sent: u64,
    /// Answers within the phase, to whichever request: what the target did in that time. The
    /// samples hold the answers to requests of the phase, whenever they came.
    pub(crate) answered_in_time: u64,
    pub(crate) bytes_out: u64,
    pub(crate) bytes_in: u64,
}

/// What one interval came to; latencies in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct IntervalSum {
    pub(crate) phase: Phase,
    /// Since the start of the load.
    #[serde(with = "stored::seconds")]
    pub(crate) from: Duration,
    #[serde(with = "stored::seconds")]
    pub(crate) span: Duration,
    pub(crate) answered: u64,
    pub(crate) errors: u64,
    pub(crate) bytes_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) mean: f64,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
}

/// What one generator thread used.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ThreadUse {
    pub(crate) core: Option<usize>,
    pub(crate) usage: Option<Usage>,
}

impl CutShort {
    /// What happened.
    pub(crate) fn words(self) -> &'static str {
        match self {
            CutShort::Interrupted => "interrupted",
            CutShort::NoneLeft => "ended early, no connection was left",
        }
    }
}

impl ThreadUse {
    /// The thread in words.
    pub(crate) fn describe(&self) -> String {
        let mut text = match self.core {
            Some(core) => format!("pinned to CPU {core}"),
            None => "not pinned".to_owned(),
        };
        if let Some(usage) = &self.usage {
            text.push_str(&format!(", {:.1} % busy", usage.busy * 100.0));
            if usage.spinning > 0.0 {
                text.push_str(&format!(", {:.1} % spinning", usage.spinning * 100.0));
            }
            if let Some(waiting) = usage.waiting {
                text.push_str(&format!(", {:.1} % waiting for a CPU", waiting * 100.0));
            }
            if let Some(sleeps) = usage.sleeps {
                text.push_str(&format!(
                    ", slept {} times in {} polls",
                    count(sleeps),
                    count(usage.polls)
                ));
            }
        }
        text
    }
}

impl PhaseSum {
    fn new(kinds: SampleKinds) -> PhaseSum {
        PhaseSum {
            samples: Samples::new(kinds),
            span: Duration::ZERO,
            sent: 0,
            answered_in_time: 0,
            bytes_out: 0,
            bytes_in: 0,
        }
    }

    /// Answers a second within the phase.
    pub(crate) fn rate(&self) -> f64 {
        per_second(self.answered_in_time, self.span)
    }
}

impl IntervalSum {
    fn new(interval: &Interval, start: Instant) -> IntervalSum {
        let latency = &interval.samples.latency;
        IntervalSum {
            phase: interval.phase,
            from: interval.from.saturating_duration_since(start),
            span: interval.span(),
            answered: latency.len() + interval.carried_over,
            errors: interval.errors,
            bytes_out: interval.bytes_out,
            bytes_in: interval.bytes_in,
            mean: latency.mean(),
            p50: latency.value_at_percentile(50.0),
            p99: latency.value_at_percentile(99.0),
            max: latency.max(),
        }
    }
}

impl Outcome {
    pub(crate) fn new(kinds: SampleKinds) -> Outcome {
        Outcome {
            started: Duration::ZERO,
            warmup: PhaseSum::new(kinds),
            measured: PhaseSum::new(kinds),
            series: Vec::new(),
            datagrams: None,
            gaps: Gaps::default(),
            n_held: 0,
            n_missed: 0,
            n_dropped: 0,
            tally: Tally::default(),
            threads: Vec::new(),
            cut_short: None,
        }
    }

    /// Adds an interval, already summed over the threads, of a load that began at `start`.
    pub(crate) fn add(&mut self, interval: &Interval, start: Instant) {
        let sum = match interval.phase {
            Phase::WarmUp => &mut self.warmup,
            Phase::Measured | Phase::Drain => &mut self.measured,
        };
        sum.samples.add(&interval.samples);
        if interval.phase != Phase::Drain {
            sum.answered_in_time += interval.samples.latency.len() + interval.carried_over;
        }
        sum.bytes_out += interval.bytes_out;
        sum.bytes_in += interval.bytes_in;
        self.series.push(IntervalSum::new(interval, start));
    }

    /// Adds what a thread knew only at its end.
    pub(crate) fn finish(&mut self, summary: Summary) {
        let recorded = summary.recorded;
        self.warmup.samples.add(&recorded.late_warmup);
        self.warmup.span = self.warmup.span.max(summary.warmed_up);
        self.measured.span = self.measured.span.max(summary.measured);
        self.warmup.sent += recorded.sent[0];
        self.measured.sent += recorded.sent[1];
        self.gaps.merge(&recorded.gaps);
        self.n_held += recorded.n_held;
        self.n_missed += summary.n_missed;
        self.n_dropped += summary.n_dropped;
        if let Some([warmup, measured]) = summary.datagrams {
            let sum = self.datagrams.get_or_insert_default();
            sum[0] += warmup;
            sum[1] += measured;
        }
        self.tally.merge(summary.tally);
        self.threads.push(ThreadUse {
            core: summary.core,
            usage: summary.usage,
        });
    }

    /// From the intended send time to the whole answer: the result.
    pub(crate) fn latency(&self) -> &Histogram<u64> {
        &self.measured.samples.latency
    }

    /// Why the result does not describe the load that was asked for; empty when it does.
    ///
    /// Any failure counts: a stream loses the connection with it, so what follows is a smaller
    /// load.
    pub(crate) fn reasons_against(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.latency().is_empty() {
            let why = match self.cut_short {
                Some(CutShort::Interrupted) => {
                    "nothing was measured: interrupted before a request of the measured time \
                     was answered"
                }
                _ => "nothing was measured: no request of the measured time was answered",
            };
            reasons.push(why.to_owned());
        }
        for kind in Kind::ALL {
            let n = self.tally.count(kind);
            if n > 0 {
                let first = self.tally.first(kind).unwrap_or_default();
                reasons.push(format!("{n} x {}, first: {first}", kind.label()));
            }
        }
        reasons
    }
}

impl Measured for Outcome {
    fn value(&self, metric: Metric) -> Option<f64> {
        let latency = self.latency();
        let some = |value: f64| (!latency.is_empty()).then_some(value);
        let of = |count: fn(&Datagrams) -> u64| {
            let [_, measured] = self.datagrams.as_ref()?;
            Some(count(measured) as f64)
        };
        match metric {
            Metric::Min => some(latency.min() as f64),
            Metric::Mean => some(latency.mean()),
            Metric::Percentile(p) => some(latency.value_at_percentile(p) as f64),
            Metric::Max => some(latency.max() as f64),
            Metric::Rate => Some(self.measured.rate()),
            Metric::Errors => Some(self.tally.total() as f64),
            Metric::Loss => of(|datagrams| datagrams.lost),
            Metric::Late => of(|datagrams| datagrams.late),
            Metric::Dup => of(|datagrams| datagrams.duplicated),
            Metric::Reorder => of(|datagrams| datagrams.reordered),
        }
    }

    fn n_sent(&self) -> u64 {
        self.measured.sent
    }
}

#[cfg(test)]
mod tests {
    use super::{CutShort, Outcome};
    use crate::failure::{Failure, Kind};
    use crate::interval::SampleKinds;

    #[test]
    fn answered_requests_without_failure_are_a_result() {
        let mut outcome = Outcome::new(SampleKinds::default());
        outcome
            .measured
            .samples
            .latency
            .record(1000)
            .expect("within the bounds");
        assert!(outcome.reasons_against().is_empty());
        outcome
            .tally
            .add(Failure::new(Kind::Reset, "receiving".to_owned()));
        assert_eq!(outcome.reasons_against(), ["1 x reset, first: receiving"]);
    }

    #[test]
    fn run_without_an_answer_is_worth_nothing() {
        let mut outcome = Outcome::new(SampleKinds::default());
        assert_eq!(outcome.reasons_against().len(), 1);
        outcome.cut_short = Some(CutShort::Interrupted);
        assert!(outcome.reasons_against()[0].contains("interrupted before"));
    }
}

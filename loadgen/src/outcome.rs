//! What a run came to: sums over threads and intervals, and whether the result is worth anything.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::failure::{Kind, Tally};
use crate::interval::{self, Interval, Phase, new_histogram};
use crate::ledger::Datagrams;
use crate::news::Summary;
use crate::usage::Usage;

/// The sums of one run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) warmup: PhaseSum,
    pub(crate) measured: PhaseSum,
    /// What became of the datagrams of warm-up and measured time, if the requests were some.
    pub(crate) datagrams: Option<[Datagrams; 2]>,
    pub(crate) tally: Tally,
    /// In the order of the threads.
    pub(crate) threads: Vec<ThreadUse>,
    /// Why the measured phase was shorter than asked for.
    pub(crate) cut_short: Option<CutShort>,
}

/// What ends a run early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutShort {
    Interrupted,
    /// Every connection had failed.
    NoneLeft,
}

/// What one phase came to.
#[derive(Debug)]
pub(crate) struct PhaseSum {
    pub(crate) latency: Histogram<u64>,
    pub(crate) span: Duration,
    /// Requests sent.
    pub(crate) sent: u64,
    pub(crate) bytes_out: u64,
    pub(crate) bytes_in: u64,
}

/// What one generator thread used.
#[derive(Debug)]
pub(crate) struct ThreadUse {
    pub(crate) core: Option<usize>,
    pub(crate) usage: Option<Usage>,
}

impl Default for Outcome {
    fn default() -> Outcome {
        Outcome {
            warmup: PhaseSum::new(),
            measured: PhaseSum::new(),
            datagrams: None,
            tally: Tally::default(),
            threads: Vec::new(),
            cut_short: None,
        }
    }
}

impl PhaseSum {
    fn new() -> PhaseSum {
        PhaseSum {
            latency: new_histogram(),
            span: Duration::ZERO,
            sent: 0,
            bytes_out: 0,
            bytes_in: 0,
        }
    }
}

impl Outcome {
    /// Adds an interval, already summed over the threads.
    pub(crate) fn add(&mut self, interval: &Interval) {
        let sum = match interval.phase {
            Phase::WarmUp => &mut self.warmup,
            Phase::Measured => &mut self.measured,
        };
        interval::add(&mut sum.latency, &interval.latency);
        sum.bytes_out += interval.bytes_out;
        sum.bytes_in += interval.bytes_in;
    }

    /// Adds what a thread knew only at its end.
    pub(crate) fn finish(&mut self, summary: Summary) {
        interval::add(&mut self.warmup.latency, &summary.late_warmup);
        self.warmup.span = self.warmup.span.max(summary.warmed_up);
        self.measured.span = self.measured.span.max(summary.measured);
        self.warmup.sent += summary.sent[0];
        self.measured.sent += summary.sent[1];
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

    /// Why the result does not describe the load that was asked for; empty when it does.
    ///
    /// Any failure counts: a closed loop loses the connection with it, so what follows is a smaller
    /// load.
    pub(crate) fn reasons_against(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.measured.latency.is_empty() {
            reasons.push(match self.cut_short {
                Some(CutShort::Interrupted) => {
                    "nothing was measured: interrupted before a request of the measured time \
                     was answered"
                }
                _ => "nothing was measured: no request of the measured time was answered",
            });
        }
        let mut reasons: Vec<String> = reasons.into_iter().map(str::to_owned).collect();
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

#[cfg(test)]
mod tests {
    use super::{CutShort, Outcome};
    use crate::failure::{Failure, Kind};

    #[test]
    fn answered_requests_without_failure_are_a_result() {
        let mut outcome = Outcome::default();
        outcome
            .measured
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
        let mut outcome = Outcome::default();
        assert_eq!(outcome.reasons_against().len(), 1);
        outcome.cut_short = Some(CutShort::Interrupted);
        assert!(outcome.reasons_against()[0].contains("interrupted before"));
    }
}

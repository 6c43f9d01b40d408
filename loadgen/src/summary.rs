//! The figures of a run that a reader of `run.json` looks for first, ready to use.
//!
//! All of it follows from the rest of the record; reports compute with the histograms themselves.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::gaps::Moments;
use crate::interval::Samples;
use crate::outcome::Outcome;
use crate::plan::RunPlan;

/// What the figures are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Valid,
    GeneratorBound,
    NothingMeasured,
}

impl Verdict {
    /// As every report prints it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Verdict::Valid => "valid: the generator was not the bottleneck",
            Verdict::GeneratorBound => "INVALID: generator-bound",
            Verdict::NothingMeasured => "nothing was measured",
        }
    }
}

/// The figures of one histogram, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    count: u64,
    min: u64,
    mean: f64,
    p50: u64,
    p75: u64,
    p90: u64,
    p99: u64,
    #[serde(rename = "p99.9")]
    p99_9: u64,
    #[serde(rename = "p99.99")]
    p99_99: u64,
    max: u64,
}

impl Figures {
    fn of(histogram: &Histogram<u64>) -> Figures {
        let at = |percentile| histogram.value_at_percentile(percentile);
        Figures {
            count: histogram.len(),
            min: histogram.min(),
            mean: histogram.mean(),
            p50: at(50.0),
            p75: at(75.0),
            p90: at(90.0),
            p99: at(99.0),
            p99_9: at(99.9),
            p99_99: at(99.99),
            max: histogram.max(),
        }
    }
}

/// Mean and coefficient of variation of gaps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct GapFigures {
    /// Seconds.
    mean: f64,
    variation: f64,
}

impl GapFigures {
    fn of(gaps: &Moments) -> GapFigures {
        GapFigures {
            mean: gaps.mean(),
            variation: gaps.variation(),
        }
    }
}

/// What an open loop asked for and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Arrived {
    asked: GapFigures,
    realised: GapFigures,
}

/// The first figures of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) verdict: Verdict,
    /// Requests a second; none in a closed loop.
    asked_rate: Option<f64>,
    achieved_rate: f64,
    errors: u64,
    /// Latency from the intended send: the result.
    intended: Figures,
    /// Latency from the real send: for diagnosis.
    real: Figures,
    arrivals: Option<Arrived>,
}

impl Summary {
    pub(crate) fn of(plan: &RunPlan, outcome: &Outcome, is_generator_bound: bool) -> Summary {
        let samples: &Samples = &outcome.measured.samples;
        // Without an answer there is no figure that could be the generator's.
        let verdict = if samples.latency.is_empty() {
            Verdict::NothingMeasured
        } else if is_generator_bound {
            Verdict::GeneratorBound
        } else {
            Verdict::Valid
        };
        Summary {
            verdict,
            asked_rate: plan.open.as_ref().map(|open| open.rate),
            achieved_rate: outcome.measured.rate(),
            errors: outcome.tally.total(),
            intended: Figures::of(&samples.latency),
            real: Figures::of(samples.since_send()),
            arrivals: plan.open.as_ref().map(|_| Arrived {
                asked: GapFigures::of(&outcome.gaps.asked),
                realised: GapFigures::of(&outcome.gaps.realised),
            }),
        }
    }
}

//! The record of one run: all that a report needs, and what `run.json` holds.
//!
//! Plain data without a reference to anything that runs: a stored record gives the same report as
//! the run itself did.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::assertion::Checked;
use crate::confidence::Confidence;
use crate::environment::Environment;
use crate::interval::Phase;
use crate::outcome::Outcome;
use crate::plan::RunPlan;
use crate::verdict;

/// Version of the record's shape: raised when a field changes its meaning or goes.
pub(crate) const SCHEMA: u32 = 1;

/// One run, from what was asked to what it is worth.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    pub(crate) schema: u32,
    pub(crate) plan: RunPlan,
    pub(crate) environment: Environment,
    pub(crate) outcome: Outcome,
    pub(crate) confidence: Option<Confidence>,
    /// Why the figures are the generator's own and not valid; empty otherwise.
    pub(crate) generator_bound: Vec<String>,
    /// The conditions that were asked for.
    pub(crate) assertions: Vec<Checked>,
}

impl RunRecord {
    /// Judges an outcome.
    pub(crate) fn new(plan: &RunPlan, environment: &Environment, outcome: Outcome) -> RunRecord {
        let checks = plan.assertions.iter().map(|a| a.check(&outcome));
        RunRecord {
            schema: SCHEMA,
            assertions: checks.collect(),
            confidence: confidence(plan, &outcome),
            generator_bound: verdict::reasons(&outcome),
            plan: plan.clone(),
            environment: environment.clone(),
            outcome,
        }
    }

    /// Writes the record as JSON.
    pub(crate) fn write(&self, mut out: impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut out, self)?;
        writeln!(out)?;
        out.flush()
    }
}

/// From the whole intervals of the measured time: what is left at its end is too short to be one.
fn confidence(plan: &RunPlan, outcome: &Outcome) -> Option<Confidence> {
    let whole = outcome.series.iter().filter(|interval| {
        interval.phase == Phase::Measured
            && interval.mean > 0.0
            && interval.span >= plan.interval / 2
    });
    let means: Vec<f64> = whole.map(|interval| interval.mean).collect();
    Confidence::of(&means)
}

//! The record of one run: all that a report needs, and what `run.json` holds.
//!
//! Plain data without a reference to anything that runs: a stored record gives the same report as
//! the run itself did. `schema/run-1.json` describes every field; a change of meaning raises
//! [`SCHEMA`], and records of another version are refused, not guessed at.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::assertion::Checked;
use crate::confidence::Confidence;
use crate::environment::Environment;
use crate::interval::Phase;
use crate::outcome::{IntervalSum, Outcome};
use crate::plan::RunPlan;
use crate::summary::Summary;
use crate::verdict;

/// Tells a record from other JSON.
const FORMAT: &str = "loadgen-run";
/// Version of the record's shape: raised when a field changes its meaning or goes.
pub(crate) const SCHEMA: u32 = 1;

/// One run, from what was asked to what it is worth.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    format: String,
    pub(crate) schema: u32,
    pub(crate) summary: Summary,
    pub(crate) plan: RunPlan,
    pub(crate) environment: Environment,
    pub(crate) outcome: Outcome,
    pub(crate) confidence: Option<Confidence>,
    /// Why the figures are the generator's own and not valid; empty otherwise.
    pub(crate) generator_bound: Vec<String>,
    /// The conditions that were asked for.
    pub(crate) assertions: Vec<Checked>,
}

/// What must be right before anything else is looked at.
#[derive(Deserialize)]
struct Head {
    format: Option<String>,
    schema: Option<u32>,
}

impl RunRecord {
    /// Judges an outcome.
    pub(crate) fn new(plan: &RunPlan, environment: &Environment, outcome: Outcome) -> RunRecord {
        let checks = plan.assertions.iter().map(|a| a.check(&outcome));
        let generator_bound = verdict::reasons(&outcome, plan.open.as_ref().map(|open| open.pace));
        RunRecord {
            format: FORMAT.to_owned(),
            schema: SCHEMA,
            summary: Summary::of(plan, &outcome, !generator_bound.is_empty()),
            assertions: checks.collect(),
            confidence: confidence(plan, &outcome),
            generator_bound,
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

    /// Reads a stored record. An error names the file and what is wrong with it.
    pub(crate) fn read(path: &Path) -> Result<RunRecord, String> {
        let text =
            fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        RunRecord::parse(&text).map_err(|what| format!("{}: {what}", path.display()))
    }

    fn parse(text: &str) -> Result<RunRecord, String> {
        let json: serde_json::Value =
            serde_json::from_str(text).map_err(|e| format!("is not JSON: {e}"))?;
        let other = || "is no run record of loadgen; give a run.json of `loadgen run --out`";
        let head: Head = serde_json::from_value(json).map_err(|_| other())?;
        match (head.format.as_deref(), head.schema) {
            (Some(FORMAT), Some(SCHEMA)) => {}
            (Some(FORMAT), Some(version)) => {
                return Err(format!(
                    "has schema {version}; this loadgen reads {SCHEMA}: use the loadgen that wrote it"
                ));
            }
            _ => return Err(other().to_owned()),
        }
        serde_json::from_str(text).map_err(|e| format!("is damaged: {e}"))
    }

    /// The whole intervals of the measured time: what is left at its end is too short to be one.
    pub(crate) fn whole_intervals(&self) -> impl Iterator<Item = &IntervalSum> {
        whole_intervals(&self.plan, &self.outcome)
    }
}

fn whole_intervals<'a>(
    plan: &'a RunPlan,
    outcome: &'a Outcome,
) -> impl Iterator<Item = &'a IntervalSum> {
    outcome.series.iter().filter(|interval| {
        interval.phase == Phase::Measured
            && interval.mean > 0.0
            && interval.span >= plan.interval / 2
    })
}

fn confidence(plan: &RunPlan, outcome: &Outcome) -> Option<Confidence> {
    let means: Vec<f64> = whole_intervals(plan, outcome).map(|i| i.mean).collect();
    Confidence::of(&means)
}

#[cfg(test)]
mod tests {
    use super::RunRecord;

    #[test]
    fn what_is_no_record_of_this_version_is_refused_with_the_reason() {
        for (text, part) in [
            ("", "is not JSON"),
            ("{", "is not JSON"),
            ("[1, 2]", "is no run record"),
            ("{}", "is no run record"),
            (r#"{"schema": 1}"#, "is no run record"),
            (r#"{"format": "other", "schema": 1}"#, "is no run record"),
            (
                r#"{"format": "loadgen-run", "schema": 2}"#,
                "has schema 2; this loadgen reads 1",
            ),
            (
                r#"{"format": "loadgen-run", "schema": 1}"#,
                "is damaged: missing field",
            ),
        ] {
            let error = RunRecord::parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}

//! `loadgen compare`: whether two stored runs differ by more than their own noise.
//!
//! What is compared are the intervals of the measured time: their mean latency, p50 and p99, and in
//! a closed loop, where it is a result, their rate. [`welch`] tests each; a difference counts when
//! chance explains it in fewer than [`CHANCE`] of all comparisons of two equal runs *and* it is
//! large enough to matter (`--least`). The second condition is no mercy: the noise of a machine that
//! changes more slowly than a run lasts is in neither run, and only its user knows it.
//!
//! Runs that are not valid are not compared. [`text`] and [`mod@page`] show the result.

mod page;
mod text;
mod welch;

use crate::chart;
use crate::chart::{Curve, curves};
use crate::confidence::Spread;
use crate::outcome::IntervalSum;
use crate::quantity::per_second;
use crate::record::RunRecord;
use crate::summary::Verdict;

pub(crate) use crate::compare::page::page;
use crate::compare::welch::Welch;

/// Probability that two runs of equal servers are called different, over all rows together. Small,
/// because the noise between two runs comes on top of the noise within them.
pub(crate) const CHANCE: f64 = 0.002;
/// Intervals that a run must have: fewer tell nothing about their noise.
const INTERVALS_MIN: usize = 5;

/// What a row is about, and in which unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Nanoseconds,
    PerSecond,
}

/// A figure of an interval that is compared.
struct Figure {
    name: &'static str,
    unit: Unit,
    of: fn(&IntervalSum) -> f64,
}

const LATENCIES: [Figure; 3] = [
    Figure {
        name: "mean",
        unit: Unit::Nanoseconds,
        of: |interval| interval.mean,
    },
    Figure {
        name: "p50",
        unit: Unit::Nanoseconds,
        of: |interval| interval.p50 as f64,
    },
    Figure {
        name: "p99",
        unit: Unit::Nanoseconds,
        of: |interval| interval.p99 as f64,
    },
];
const RATE: Figure = Figure {
    name: "rate",
    unit: Unit::PerSecond,
    of: |interval| per_second(interval.answered, interval.span),
};

/// One figure in both runs.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    /// Means of the intervals.
    pub(crate) means: [f64; 2],
    pub(crate) n_effective: [f64; 2],
    /// Part of the first mean: the difference, and how far it may be off at 95 %.
    pub(crate) share: f64,
    pub(crate) share_off: f64,
    pub(crate) p: f64,
    /// More than chance, and large enough to matter.
    pub(crate) differs: bool,
}

/// Two runs side by side.
#[derive(Debug)]
pub(crate) struct Comparison<'a> {
    pub(crate) names: [String; 2],
    pub(crate) runs: [&'a RunRecord; 2],
    pub(crate) rows: Vec<Row>,
    /// Smallest part of a figure that matters.
    pub(crate) least: f64,
    /// Ways in which the loads differ: then so may the figures.
    pub(crate) unlike: Vec<String>,
}

impl<'a> Comparison<'a> {
    /// Compares two valid runs; an error says why they cannot be.
    pub(crate) fn of(
        names: [String; 2],
        runs: [&'a RunRecord; 2],
        least: f64,
    ) -> Result<Comparison<'a>, String> {
        for (name, run) in names.iter().zip(runs) {
            let n = run.whole_intervals().count();
            if n < INTERVALS_MIN {
                return Err(format!(
                    "{name} has {n} whole intervals, and {INTERVALS_MIN} are needed to know its \
                     noise: measure with a longer --duration or a shorter --interval"
                ));
            }
        }
        let is_closed = runs.iter().all(|run| run.plan.open.is_none());
        let figures: Vec<&Figure> = LATENCIES.iter().chain(is_closed.then_some(&RATE)).collect();
        let chance = CHANCE / figures.len() as f64;
        Ok(Comparison {
            rows: figures
                .into_iter()
                .map(|figure| Row::of(figure, runs, chance, least))
                .collect(),
            unlike: unlike(runs),
            names,
            runs,
            least,
        })
    }

    /// Which of the runs are not valid.
    pub(crate) fn invalid(&self) -> Vec<String> {
        let both = self.names.iter().zip(self.runs);
        let invalid = both.filter(|(_, run)| run.summary.verdict != Verdict::Valid);
        invalid
            .map(|(name, run)| format!("{name}: {}", run.summary.verdict.label()))
            .collect()
    }

    /// The rows that differ.
    pub(crate) fn differences(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.differs)
    }

    /// The percentile curves over each other.
    pub(crate) fn picture(&self, size: chart::Size) -> String {
        let [one, two] = self.runs.map(|run| run.outcome.latency());
        let shown = [
            Curve {
                class: "one",
                name: &format!("A: {}", self.names[0]),
                histogram: one,
            },
            Curve {
                class: "two",
                name: &format!("B: {}", self.names[1]),
                histogram: two,
            },
        ];
        curves(
            "Latency by percentile, from the intended send",
            &shown,
            size,
        )
    }
}

impl Row {
    fn of(figure: &Figure, runs: [&RunRecord; 2], chance: f64, least: f64) -> Row {
        let [one, two] = runs.map(|run| {
            let values: Vec<f64> = run.whole_intervals().map(figure.of).collect();
            Spread::of(&values)
        });
        let welch = Welch::of(&one, &two);
        let share = welch.difference / one.mean;
        Row {
            name: figure.name,
            unit: figure.unit,
            means: [one.mean, two.mean],
            n_effective: [one.n_effective, two.n_effective],
            share,
            share_off: welch.half_width(0.05) / one.mean,
            p: welch.p,
            differs: welch.p < chance && share.abs() >= least,
        }
    }
}

/// What makes the loads of two runs different ones. Seed and target may differ: they often are what
/// is compared.
fn unlike(runs: [&RunRecord; 2]) -> Vec<String> {
    let [one, two] = runs.map(|run| (run.plan.describe(), run.plan.interval));
    let mut unlike = Vec::new();
    if one.0 != two.0 {
        unlike.push(format!("the loads differ: {} against {}", one.0, two.0));
    }
    if one.1 != two.1 {
        unlike.push(format!(
            "the intervals differ: {:?} against {:?}",
            one.1, two.1
        ));
    }
    let [one, two] = runs.map(|run| run.environment.place());
    if one != two {
        unlike.push(format!("the generators ran on {one} and on {two}"));
    }
    unlike
}

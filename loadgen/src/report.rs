//! The text report: what was asked, what came out, what speaks against believing it.
//!
//! It states; it does not decide. [`crate::outcome`] says what a run is worth, [`crate::usage`]
//! what the generator used.

use std::fmt::{self, Display, Formatter};

use crate::environment::Environment;
use crate::failure::Kind;
use crate::ledger::Datagrams;
use crate::outcome::{CutShort, Outcome, PhaseSum, ThreadUse};
use crate::plan::RunPlan;
use crate::quantity::{count, duration, per_second, span, throughput};

/// The percentiles of the contract.
const PERCENTILES: [f64; 6] = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99];
/// Column where what follows a label begins.
const LABEL: usize = 13;

/// Prints as the report of one run.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub(crate) plan: &'a RunPlan,
    pub(crate) environment: &'a Environment,
    pub(crate) outcome: &'a Outcome,
}

impl Display for Report<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let outcome = self.outcome;
        line(
            f,
            "target",
            &format!("{} ({})", self.plan.target, self.plan.address),
        )?;
        line(f, "load", &format!("closed loop, {}", self.plan.describe()))?;
        if !self.plan.warmup.is_zero() {
            let sum = phase_line(&outcome.warmup);
            let p99 = outcome.warmup.latency.value_at_percentile(99.0) as f64;
            line(
                f,
                "warm-up",
                &format!("{sum}, p99 {} (left out of the result)", span(p99)),
            )?;
        }
        line(f, "measured", &phase_line(&outcome.measured))?;
        if let Some(why) = outcome.cut_short {
            let why = match why {
                CutShort::Interrupted => "interrupted",
                CutShort::NoneLeft => "ended early, no connection was left",
            };
            line(
                f,
                "",
                &format!("{why}: {} were asked for", duration(self.plan.duration)),
            )?;
        }
        let sum = &outcome.measured;
        let bytes = |n| format!("{} B, {}", count(n), throughput(n, sum.span));
        line(f, "sent", &bytes(sum.bytes_out))?;
        line(f, "received", &bytes(sum.bytes_in))?;
        line(f, "errors", &errors(outcome))?;
        if let Some([_, measured]) = &outcome.datagrams {
            line(f, "datagrams", &datagrams(measured))?;
        }
        latency(f, sum)?;
        for (index, thread) in outcome.threads.iter().enumerate() {
            line(f, &format!("thread {index}"), &thread_line(thread))?;
        }
        let [machine, command] = self.environment.lines();
        line(f, "environment", &machine)?;
        line(f, "command", &command)?;
        for note in notes(outcome) {
            line(f, "note", &note)?;
        }
        Ok(())
    }
}

fn line(f: &mut Formatter<'_>, label: &str, text: &str) -> fmt::Result {
    writeln!(f, "{label:<LABEL$}{text}")
}

fn phase_line(sum: &PhaseSum) -> String {
    let n = sum.latency.len();
    let rate = per_second(n, sum.span);
    format!(
        "{}, {} requests answered, {rate:.1}/s",
        duration(sum.span),
        count(n)
    )
}

fn errors(outcome: &Outcome) -> String {
    if outcome.tally.total() == 0 {
        return "none".to_owned();
    }
    let counts = Kind::ALL.map(|kind| format!("{} {}", kind.label(), outcome.tally.count(kind)));
    counts.join(", ")
}

/// The fates of all datagrams, which add up to those sent.
fn datagrams(counts: &Datagrams) -> String {
    let mut text = format!(
        "{} sent = {} good + {} lost + {} late + {} duplicated + {} reordered + {} corrupted",
        counts.sent,
        counts.good,
        counts.lost,
        counts.late,
        counts.duplicated,
        counts.reordered,
        counts.corrupted
    );
    if counts.strays > 0 {
        text.push_str(&format!("; {} strays", counts.strays));
    }
    text
}

fn latency(f: &mut Formatter<'_>, sum: &PhaseSum) -> fmt::Result {
    line(
        f,
        "latency",
        "from the send of a request to its whole echo received",
    )?;
    let histogram = &sum.latency;
    if histogram.is_empty() {
        return line(f, "", "no request was answered");
    }
    let mut row = |name: &str, nanos: f64| writeln!(f, "  {name:<8}{:>12}", span(nanos));
    row("min", histogram.min() as f64)?;
    row("mean", histogram.mean())?;
    for percentile in PERCENTILES {
        row(
            &format!("p{percentile}"),
            histogram.value_at_percentile(percentile) as f64,
        )?;
    }
    row("max", histogram.max() as f64)
}

fn thread_line(thread: &ThreadUse) -> String {
    let mut text = match thread.core {
        Some(core) => format!("pinned to CPU {core}"),
        None => "not pinned".to_owned(),
    };
    if let Some(usage) = &thread.usage {
        text.push_str(&format!(", {:.1} % busy", usage.busy * 100.0));
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

/// What a reader must know before believing the figures above.
fn notes(outcome: &Outcome) -> Vec<String> {
    let mut notes = vec![
        "closed loop: a target that stalls is sent nothing meanwhile, so its stalls weigh less \
         here than they do for users who keep coming"
            .to_owned(),
    ];
    for (index, thread) in outcome.threads.iter().enumerate() {
        let Some(usage) = &thread.usage else { continue };
        if usage.is_saturated() {
            notes.push(format!(
                "generator thread {index} had work {:.0} % of the time and never ran out of \
                 events: it, not the target, may have set the rate and the latency; use more \
                 --threads or fewer --connections",
                (usage.busy + usage.waiting.unwrap_or(0.0)) * 100.0
            ));
        }
        if usage.is_starved() {
            notes.push(format!(
                "generator thread {index} had to wait for a CPU {:.0} % of the time: the \
                 latencies hold that wait; give it a CPU of its own (--pin, and nothing else \
                 on that CPU)",
                usage.waiting.unwrap_or(0.0) * 100.0
            ));
        }
    }
    if outcome.tally.count(Kind::TimedOut) > 0 {
        notes.push(
            "requests that timed out have no latency: the percentiles are better than the truth"
                .to_owned(),
        );
    }
    notes
}

//! The text report: what was asked, what came out, what speaks against believing it.
//!
//! It states; it does not decide. [`crate::outcome`] says what a run is worth, [`crate::verdict`]
//! whether it is the target's.

use std::fmt::{self, Display, Formatter};

use crate::ledger::Datagrams;
use crate::outcome::PhaseSum;
use crate::quantity::{count, duration, span, throughput};
use crate::record::RunRecord;
use crate::report::facts::{self, errors, latency_rows, notes, percentiles, sends};

/// Column where what follows a label begins.
const LABEL: usize = 13;

/// Prints as the report of one run.
#[derive(Debug)]
pub(crate) struct Report<'a>(pub(crate) &'a RunRecord);

impl Display for Report<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Report(record) = self;
        let (plan, outcome) = (&record.plan, &record.outcome);
        line(f, "target", &format!("{} ({})", plan.target, plan.address))?;
        line(
            f,
            "load",
            &format!("{}, seed {}", plan.describe(), plan.seed),
        )?;
        if !plan.warmup.is_zero() {
            let sum = phase_line(&outcome.warmup);
            let latency = &outcome.warmup.samples.latency;
            let p99 = if latency.is_empty() {
                String::new()
            } else {
                format!(", p99 {}", span(latency.value_at_percentile(99.0) as f64))
            };
            line(
                f,
                "warm-up",
                &format!("{sum}{p99} (left out of the result)"),
            )?;
        }
        line(f, "measured", &phase_line(&outcome.measured))?;
        if let Some(why) = outcome.cut_short {
            let asked = duration(plan.duration);
            line(f, "", &format!("{}: {asked} were asked for", why.words()))?;
        }
        let sum = &outcome.measured;
        let bytes = |n| format!("{} B, {}", count(n), throughput(n, sum.span));
        line(f, "sent", &bytes(sum.bytes_out))?;
        line(f, "received", &bytes(sum.bytes_in))?;
        line(f, "errors", &errors(outcome))?;
        if let Some([_, measured]) = &outcome.datagrams {
            line(f, "datagrams", &datagrams(measured))?;
        }
        latency(f, record)?;
        open_loop(f, record)?;
        for (index, thread) in outcome.threads.iter().enumerate() {
            line(f, &format!("thread {index}"), &thread.describe())?;
        }
        let [machine, command] = record.environment.lines();
        line(f, "environment", &machine)?;
        line(f, "command", &command)?;
        for note in notes(record) {
            line(f, "note", &note)?;
        }
        for checked in &record.assertions {
            let holds = if checked.holds { "holds" } else { "FAILS" };
            let (condition, measured) = (&checked.condition, &checked.measured);
            line(f, "assertion", &format!("{condition} {holds}: {measured}"))?;
        }
        for reason in &record.generator_bound {
            line(f, "invalid", reason)?;
        }
        for failure in outcome.reasons_against() {
            line(f, "failed", &failure)?;
        }
        line(f, "verdict", facts::verdict(record).1)
    }
}

fn line(f: &mut Formatter<'_>, label: &str, text: &str) -> fmt::Result {
    writeln!(f, "{label:<LABEL$}{text}")
}

/// Where the target is behind, its answers within the phase and those to the requests of the phase
/// are two things, and a reader who divides must see which one is the rate.
fn phase_line(sum: &PhaseSum) -> String {
    let (answered, in_time) = (sum.samples.latency.len(), sum.answered_in_time);
    let in_that_time = if answered.abs_diff(in_time) * 100 > answered {
        format!(" in the end, {} answers in that time", count(in_time))
    } else {
        String::new()
    };
    format!(
        "{}, {} requests answered{in_that_time}, {:.1}/s",
        duration(sum.span),
        count(answered),
        sum.rate()
    )
}

/// The fates of all datagrams, which add up to those sent.
fn datagrams(counts: &Datagrams) -> String {
    let mut text = format!(
        "{} sent = {} good + {} lost + {} late + {} duplicated + {} reordered + {} corrupted",
        count(counts.sent),
        count(counts.good),
        count(counts.lost),
        count(counts.late),
        count(counts.duplicated),
        count(counts.reordered),
        count(counts.corrupted)
    );
    if counts.strays > 0 {
        text.push_str(&format!("; {} strays", count(counts.strays)));
    }
    text
}

fn latency(f: &mut Formatter<'_>, record: &RunRecord) -> fmt::Result {
    let samples = &record.outcome.measured.samples;
    let both = [&samples.latency, samples.since_send()];
    line(f, "latency", "to the whole echo received, from")?;
    if samples.latency.is_empty() {
        return line(f, "", "no request was answered");
    }
    writeln!(f, "  {:<8}{:>15}{:>15}", "", "intended send", "real send")?;
    for (name, intended, real) in latency_rows(both) {
        writeln!(f, "  {name:<8}{:>15}{:>15}", span(intended), span(real))?;
    }
    if let Some(confidence) = &record.confidence {
        let (mean, half_width) = (span(confidence.mean), span(confidence.half_width));
        let (n, effective) = (confidence.n_intervals, confidence.n_effective);
        line(
            f,
            "confidence",
            &format!(
                "mean of the intervals {mean} ± {half_width} at 95 %, from {n} intervals that \
                 count for {effective:.1}"
            ),
        )?;
    }
    match &samples.connect {
        Some(connect) => line(f, "connect", &percentiles(connect)),
        None => Ok(()),
    }
}

/// What an open loop tells about itself.
fn open_loop(f: &mut Formatter<'_>, record: &RunRecord) -> fmt::Result {
    let outcome = &record.outcome;
    let (Some(open), Some(lags)) = (&record.plan.open, &outcome.measured.samples.open) else {
        return Ok(());
    };
    let (achieved, asked) = (outcome.measured.rate(), open.rate);
    let share = achieved / asked * 100.0;
    line(
        f,
        "rate",
        &format!("{achieved:.1}/s of {asked:.1}/s asked, {share:.1} %"),
    )?;
    let gaps = &outcome.gaps;
    let [done, asked] = [&gaps.realised, &gaps.asked].map(|gap| {
        format!(
            "{}, variation {:.3}",
            span(gap.mean() * 1e9),
            gap.variation()
        )
    });
    // A thread's part of a process has gaps of another law than the whole.
    let law = match record.plan.threads {
        1 => format!(" ({} has {:.3})", open.arrivals, open.arrivals.variation()),
        _ => " between sends of one thread".to_owned(),
    };
    let gaps = match gaps.realised.n() {
        0 => "none".to_owned(),
        n => format!("mean of {} gaps {done}; asked: {asked}{law}", count(n)),
    };
    line(f, "arrivals", &gaps)?;
    line(f, "send lag", &percentiles(&lags.send_lag))?;
    line(f, "own lag", &percentiles(&lags.own_lag))?;
    line(f, "sends", &sends(record))
}

//! The text report: what was asked, what came out, what speaks against believing it.
//!
//! It states; it does not decide. [`crate::outcome`] says what a run is worth, [`crate::verdict`]
//! whether it is the target's.

use std::fmt::{self, Display, Formatter};

use hdrhistogram::Histogram;

use crate::failure::Kind;
use crate::ledger::Datagrams;
use crate::outcome::{CutShort, Outcome, PhaseSum, ThreadUse};
use crate::quantity::{count, duration, span, throughput};
use crate::record::RunRecord;

/// The percentiles of the contract.
const PERCENTILES: [f64; 6] = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99];
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
            let p99 = outcome.warmup.samples.latency.value_at_percentile(99.0);
            let p99 = span(p99 as f64);
            line(
                f,
                "warm-up",
                &format!("{sum}, p99 {p99} (left out of the result)"),
            )?;
        }
        line(f, "measured", &phase_line(&outcome.measured))?;
        if let Some(why) = outcome.cut_short {
            let why = match why {
                CutShort::Interrupted => "interrupted",
                CutShort::NoneLeft => "ended early, no connection was left",
            };
            let asked = duration(plan.duration);
            line(f, "", &format!("{why}: {asked} were asked for"))?;
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
            line(f, &format!("thread {index}"), &thread_line(thread))?;
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
        line(f, "verdict", verdict(record))
    }
}

fn line(f: &mut Formatter<'_>, label: &str, text: &str) -> fmt::Result {
    writeln!(f, "{label:<LABEL$}{text}")
}

fn verdict(record: &RunRecord) -> &'static str {
    if !record.generator_bound.is_empty() {
        "INVALID: generator-bound"
    } else if record.outcome.latency().is_empty() {
        "nothing was measured"
    } else {
        "valid: the generator was not the bottleneck"
    }
}

fn phase_line(sum: &PhaseSum) -> String {
    format!(
        "{}, {} requests answered, {:.1}/s",
        duration(sum.span),
        count(sum.samples.latency.len()),
        sum.rate()
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

fn latency(f: &mut Formatter<'_>, record: &RunRecord) -> fmt::Result {
    let samples = &record.outcome.measured.samples;
    let both = [&samples.latency, samples.since_send()];
    line(f, "latency", "to the whole echo received, from")?;
    if samples.latency.is_empty() {
        return line(f, "", "no request was answered");
    }
    writeln!(f, "  {:<8}{:>15}{:>15}", "", "intended send", "real send")?;
    let mut row = |name: &str, value: &dyn Fn(&Histogram<u64>) -> f64| {
        let [intended, real] = both.map(|histogram| span(value(histogram)));
        writeln!(f, "  {name:<8}{intended:>15}{real:>15}")
    };
    row("min", &|h| h.min() as f64)?;
    row("mean", &|h| h.mean())?;
    for percentile in PERCENTILES {
        row(&format!("p{percentile}"), &|h| {
            h.value_at_percentile(percentile) as f64
        })?;
    }
    row("max", &|h| h.max() as f64)?;
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
    let n = count(gaps.realised.n());
    let gaps = format!("mean of {n} gaps {done}; asked: {asked}{law}");
    line(f, "arrivals", &gaps)?;
    line(f, "send lag", &percentiles(&lags.send_lag))?;
    line(f, "own lag", &percentiles(&lags.own_lag))?;
    let (held, missed) = (count(outcome.n_held), count(outcome.n_missed));
    line(
        f,
        "sends",
        &format!("{held} waited for a free connection, {missed} missed"),
    )
}

fn percentiles(histogram: &Histogram<u64>) -> String {
    if histogram.is_empty() {
        return "none".to_owned();
    }
    let at = |percentile| span(histogram.value_at_percentile(percentile) as f64);
    format!(
        "p50 {}, p99 {}, p99.9 {}, max {} of {}",
        at(50.0),
        at(99.0),
        at(99.9),
        span(histogram.max() as f64),
        count(histogram.len())
    )
}

fn thread_line(thread: &ThreadUse) -> String {
    let mut text = match thread.core {
        Some(core) => format!("pinned to CPU {core}"),
        None => "not pinned".to_owned(),
    };
    if let Some(usage) = &thread.usage {
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

/// What a reader must know before believing the figures above.
fn notes(record: &RunRecord) -> Vec<String> {
    let outcome = &record.outcome;
    let mut notes = Vec::new();
    if record.plan.open.is_none() {
        notes.push(
            "closed loop: a target that stalls is sent nothing meanwhile, so its stalls weigh less \
             here than they do for users who keep coming; intended and real send are one moment"
                .to_owned(),
        );
    }
    if outcome.n_held * 100 > outcome.measured.sent {
        notes.push(format!(
            "{} of {} requests were due before a connection was free, and their wait is in their \
             latency: the target is saturated, or --connections and --depth are too few for its \
             latency",
            count(outcome.n_held),
            count(outcome.measured.sent)
        ));
    }
    if outcome.n_missed > 0 {
        notes.push(format!(
            "{} requests were due and could not be sent before the run was over: they have no \
             latency, and the percentiles are better than the truth",
            count(outcome.n_missed)
        ));
    }
    if outcome.tally.count(Kind::TimedOut) > 0 {
        notes.push(
            "requests that timed out have no latency: the percentiles are better than the truth"
                .to_owned(),
        );
    }
    if let Some(drift) = record.confidence.as_ref().and_then(|c| c.drift) {
        let (by, way) = (span(drift.abs()), if drift > 0.0 { "rose" } else { "fell" });
        notes.push(format!(
            "not stationary: the mean {way} by {by} from the first half to the second, so one \
             figure does not describe the run; use a longer --warmup or --duration"
        ));
    }
    notes
}

//! What all forms of the report say in the same words.

use hdrhistogram::Histogram;

use crate::failure::Kind;
use crate::html::Tone;
use crate::outcome::Outcome;
use crate::quantity::{count, duration, span};
use crate::record::RunRecord;
use crate::summary::Verdict;

/// The percentiles of the contract.
const PERCENTILES: [f64; 6] = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99];

/// A percentile with fewer requests beyond it is their chance.
const FEW: f64 = 10.0;
/// With so many requests p99.9 is not [`FEW`]. What p99.99 takes, hardly a run has.
const MANY: u64 = 10_000;

/// The rows of a table of latencies: a name, and the value in each of two histograms.
pub(crate) fn latency_rows(both: [&Histogram<u64>; 2]) -> Vec<(String, f64, f64)> {
    let row = |name: String, value: &dyn Fn(&Histogram<u64>) -> f64| {
        let [one, other] = both.map(value);
        (name, one, other)
    };
    let mut rows = vec![
        row("min".to_owned(), &|h| h.min() as f64),
        row("mean".to_owned(), &|h| h.mean()),
    ];
    rows.extend(PERCENTILES.map(|percentile| {
        row(format!("p{percentile}"), &|h| {
            h.value_at_percentile(percentile) as f64
        })
    }));
    rows.push(row("max".to_owned(), &|h| h.max() as f64));
    rows
}

pub(crate) fn errors(outcome: &Outcome) -> String {
    if outcome.tally.total() == 0 {
        return "none".to_owned();
    }
    let counts = Kind::ALL.map(|kind| format!("{} {}", kind.label(), outcome.tally.count(kind)));
    let all = counts.join(", ");
    // What fails before the measured time costs its connection too.
    if outcome.warmup.span.is_zero() {
        all
    } else {
        format!("{all}; warm-up included")
    }
}

pub(crate) fn percentiles(histogram: &Histogram<u64>) -> String {
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

/// The requests of an open loop that were not sent when they were due, for want of room.
pub(crate) fn sends(record: &RunRecord) -> String {
    let outcome = &record.outcome;
    format!(
        "{} waited for a free {}, {} missed",
        count(outcome.n_held),
        record.plan.target.protocol.lane(),
        count(outcome.n_missed)
    )
}

/// What a lost datagram costs those that are due after it.
fn held_by_losses(record: &RunRecord) -> String {
    match &record.outcome.datagrams {
        Some([_, measured]) if measured.lost + measured.late > 0 => format!(
            "; a datagram without an answer holds its place for --settle ({})",
            duration(record.plan.settle)
        ),
        _ => String::new(),
    }
}

/// The last word on a run: how good the news are, and what they are.
pub(crate) fn verdict(record: &RunRecord) -> (Tone, &'static str) {
    match record.summary.verdict {
        Verdict::Valid if !record.outcome.reasons_against().is_empty() => (
            Tone::Warning,
            "requests failed: this was not the load that was asked for",
        ),
        Verdict::Valid if record.assertions.iter().any(|checked| !checked.holds) => {
            (Tone::Warning, "valid, and an assertion failed")
        }
        valid @ Verdict::Valid => (Tone::Good, valid.label()),
        other => (Tone::Bad, other.label()),
    }
}

/// What a reader must know before believing the figures above.
pub(crate) fn notes(record: &RunRecord) -> Vec<String> {
    let outcome = &record.outcome;
    let mut notes = Vec::new();
    if record.plan.open.is_none() {
        notes.push(
            "closed loop: a target that stalls is sent nothing meanwhile, so its stalls weigh less \
             here than they do for users who keep coming; intended and real send are one moment"
                .to_owned(),
        );
    }
    let n = outcome.latency().len();
    let is_few = |percentile: &f64| (n as f64) * (100.0 - percentile) / 100.0 < FEW;
    if let Some(first) = PERCENTILES.into_iter().find(is_few)
        && (1..MANY).contains(&n)
    {
        notes.push(format!(
            "p{first} and all beyond it are made by fewer than {FEW} of the {} requests: measure \
             longer before believing them",
            count(n)
        ));
    }
    if outcome.n_held * 100 > outcome.measured.sent {
        notes.push(format!(
            "{} of {} requests were due before a {} was free, and their wait is in their \
             latency: the target is saturated, or --connections and --depth are too few for its \
             latency{}",
            count(outcome.n_held),
            count(outcome.measured.sent),
            record.plan.target.protocol.lane(),
            held_by_losses(record)
        ));
    }
    // Where nothing was answered there are no percentiles to doubt.
    let is_answered = !outcome.latency().is_empty();
    if outcome.n_missed > 0 && is_answered {
        notes.push(format!(
            "{} requests were due and could not be sent before the run was over: they have no \
             latency, and the percentiles are better than the truth",
            count(outcome.n_missed)
        ));
    }
    if outcome.tally.count(Kind::TimedOut) > 0 && is_answered {
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

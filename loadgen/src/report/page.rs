//! The report as a page: verdict first, then the figures, then what stands behind them.
//!
//! Every section says in a sentence how it is to be read: whoever opens the page may never have
//! seen the terminal.

use std::time::UNIX_EPOCH;

use crate::chart;
use crate::html;
use crate::ledger::Datagrams;
use crate::outcome::ThreadUse;
use crate::quantity::{count, duration, short_count, span, throughput};
use crate::record::RunRecord;
use crate::report::facts::{self, errors, latency_rows, notes, percentiles, sends};
use crate::summary::Verdict;

/// Makes `report.html`.
pub(crate) fn page(record: &RunRecord) -> String {
    let target = &record.plan.target;
    let body = [
        head(record),
        verdict(record),
        tiles(record),
        html::section(
            "Latency",
            about_latency(record),
            &(html::picture(|size| chart::latency(record, size)) + &latency_table(record)),
        ),
        html::section(
            "Over time",
            "Point at an interval for its figures. A warm-up is shaded and left out of the result.",
            &html::picture(|size| chart::timeline(record, size)),
        ),
        datagrams(record),
        arrivals(record),
        self_check(record),
        assertions(record),
        environment(record),
    ];
    html::document(&format!("{target}: loadgen report"), &body.concat())
}

fn head(record: &RunRecord) -> String {
    let plan = &record.plan;
    let began = humantime::format_rfc3339_seconds(UNIX_EPOCH + record.outcome.started);
    format!(
        "<h1>{}</h1>\n<p class=\"under\">{}, seed {}. {began}</p>\n",
        chart::escaped(&plan.target.to_string()),
        chart::escaped(&plan.describe()),
        plan.seed,
    )
}

fn verdict(record: &RunRecord) -> String {
    let mut reasons = record.generator_bound.clone();
    let failures = record.outcome.reasons_against();
    let failed = record.assertions.iter().filter(|c| !c.holds);
    let failed: Vec<String> = failed
        .map(|c| format!("assertion {} fails: {}", c.condition, c.measured))
        .collect();
    let (tone, words) = facts::verdict(record);
    reasons.extend(failures);
    reasons.extend(failed);
    if let Some(why) = record.outcome.cut_short {
        let asked = duration(record.plan.duration);
        reasons.push(format!("{}: {asked} were asked for", why.words()));
    }
    html::banner(tone, words, &reasons)
}

fn about_latency(record: &RunRecord) -> &'static str {
    match record.plan.open {
        Some(_) => {
            "Both axes are logarithmic: further right are the slowest requests, the last point is \
             the slowest of all. The result counts from the moment a request was due; the other \
             curve, from the moment it was really sent, leaves out how long it had to wait for that."
        }
        None => {
            "Both axes are logarithmic: further right are the slowest requests, the last point is \
             the slowest of all. In a closed loop a request is due when it is sent: while the \
             target stalls nobody comes, and its stalls weigh less than they do for users."
        }
    }
}

fn tiles(record: &RunRecord) -> String {
    let outcome = &record.outcome;
    let latency = outcome.latency();
    let at = |percentile| span(latency.value_at_percentile(percentile) as f64);
    let rate = outcome.measured.rate();
    let about_rate = match &record.plan.open {
        Some(open) => format!(
            "{:.1} % of {} asked",
            rate / open.rate * 100.0,
            short_count(open.rate)
        ),
        None => "closed loop".to_owned(),
    };
    let n_errors = outcome.tally.total();
    let mut tiles = String::new();
    if !latency.is_empty() {
        tiles += &html::tile("p50", &at(50.0), "half of the requests");
        tiles += &html::tile("p99", &at(99.0), "all but one in 100");
        tiles += &html::tile("p99.9", &at(99.9), "all but one in 1,000");
        tiles += &html::tile("max", &span(latency.max() as f64), "the slowest");
    }
    tiles += &html::tile(
        "rate",
        &format!("{}/s", count(rate.round() as u64)),
        &about_rate,
    );
    let answered = format!("beside {} answered", count(latency.len()));
    tiles += &html::tile("errors", &count(n_errors), &answered);
    if let Some([_, measured]) = &outcome.datagrams {
        let share = measured.lost as f64 / (measured.sent as f64).max(1.0) * 100.0;
        let about = format!("{share:.3} % of {}", count(measured.sent));
        tiles += &html::tile("lost", &count(measured.lost), &about);
    }
    // Figures of the generator's own must not look like a result.
    let class = match record.summary.verdict {
        Verdict::GeneratorBound => "tiles doubtful",
        _ => "tiles",
    };
    format!("<div class=\"{class}\">\n{tiles}</div>\n")
}

fn latency_table(record: &RunRecord) -> String {
    let samples = &record.outcome.measured.samples;
    if samples.latency.is_empty() {
        return String::new();
    }
    let rows = latency_rows([&samples.latency, samples.since_send()]);
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(name, intended, real)| vec![name, span(intended), span(real)])
        .collect();
    let mut text = html::table(&["", "from the intended send", "from the real send"], &rows);
    let mut below = Vec::new();
    if let Some(c) = &record.confidence {
        below.push((
            "Means of intervals",
            format!(
                "{} ± {} at 95 %: {} intervals that count for {:.1} independent ones",
                span(c.mean),
                span(c.half_width),
                c.n_intervals,
                c.n_effective
            ),
        ));
    }
    if let Some(connect) = &samples.connect {
        below.push(("Connecting", percentiles(connect)));
    }
    if !below.is_empty() {
        text += &html::facts(&below);
    }
    text
}

/// The fates of datagrams, which add up to those sent.
fn datagrams(record: &RunRecord) -> String {
    let Some([_, measured]) = &record.outcome.datagrams else {
        return String::new();
    };
    let Datagrams {
        sent,
        good,
        lost,
        late,
        duplicated,
        reordered,
        corrupted,
        copies,
        strays,
    } = *measured;
    let share = |n: u64| n as f64 / (sent as f64).max(1.0);
    let bar = html::bar(&[
        ("fine", "good", share(good)),
        (
            "trouble",
            "late, duplicated, reordered",
            share(late + duplicated + reordered),
        ),
        ("lost", "lost, corrupted", share(lost + corrupted)),
    ]);
    let fates = [
        ("good", good, "answered once, whole, in order, in time"),
        ("lost", lost, "never answered"),
        ("late", late, "answered after the settle time"),
        ("duplicated", duplicated, "answered more than once"),
        ("reordered", reordered, "answered after a later one"),
        ("corrupted", corrupted, "answered with other bytes"),
    ];
    let mut rows: Vec<Vec<String>> = fates
        .iter()
        .map(|(name, n, meaning)| {
            let percent = format!("{:.3} %", share(*n) * 100.0);
            vec![format!("{name}: {meaning}"), count(*n), percent]
        })
        .collect();
    rows.push(vec!["sent".to_owned(), count(sent), "100 %".to_owned()]);
    let extra = format!(
        "Besides, {} copies of answers and {} answers to nothing that was sent.",
        count(copies),
        count(strays)
    );
    html::section(
        "Datagrams",
        &format!("Each has one fate, and together they are all that were sent. {extra}"),
        &(bar + &html::table(&["fate", "datagrams", "share"], &rows)),
    )
}

fn arrivals(record: &RunRecord) -> String {
    let (Some(open), Some(lags)) = (&record.plan.open, &record.outcome.measured.samples.open)
    else {
        return String::new();
    };
    let gaps = &record.outcome.gaps;
    let row = |name: &str, of: &crate::gaps::Moments| {
        vec![
            name.to_owned(),
            span(of.mean() * 1e9),
            format!("{:.3}", of.variation()),
        ]
    };
    let table = match gaps.realised.n() {
        0 => String::new(),
        _ => html::table(
            &["gaps between sends", "mean", "variation"],
            &[row("asked", &gaps.asked), row("realised", &gaps.realised)],
        ),
    };
    let facts = html::facts(&[
        ("Send lag", percentiles(&lags.send_lag)),
        ("Own lag", percentiles(&lags.own_lag)),
        ("Sends", sends(record)),
    ]);
    let whose = match record.plan.threads {
        1 => String::new(),
        _ => ", here between the sends of one thread".to_owned(),
    };
    let about = format!(
        "Requests were due by a timetable ({}, {:.1} a second) that does not wait for answers. The \
         variation is the standard deviation of the gaps divided by their mean{whose}: 0 for a \
         metronome, 1 for users who know nothing of each other. Send lag is how much later than due \
         a request was sent; own lag is the part that the generator made.",
        open.arrivals, open.rate
    );
    html::section("Arrival process", &about, &(table + &facts))
}

fn self_check(record: &RunRecord) -> String {
    let threads = record.outcome.threads.iter().enumerate();
    let mut content: String = threads
        .map(|(index, thread)| one_thread(index, thread))
        .collect();
    let dropped = record.outcome.n_dropped;
    if record.outcome.datagrams.is_some() {
        let words = format!("{} dropped by this machine unfetched", count(dropped));
        content += &html::facts(&[("Answers", words)]);
    }
    let notes: String = notes(record)
        .iter()
        .map(|note| format!("<li>{}</li>\n", chart::escaped(note)))
        .collect();
    if !notes.is_empty() {
        content += &format!("<ul class=\"notes\">\n{notes}</ul>\n");
    }
    html::section(
        "Self-check",
        "What the generator used of its own CPUs. One that is busy all the time, or ready and kept \
         waiting for a CPU, measures itself; then the verdict says so.",
        &content,
    )
}

fn one_thread(index: usize, thread: &ThreadUse) -> String {
    let Some(usage) = &thread.usage else {
        let words = "the run ended before anything was known".to_owned();
        return html::facts(&[(&format!("Thread {index}"), words)]);
    };
    let waiting = usage.waiting.unwrap_or(0.0);
    let bar = html::bar(&[
        ("busy", "working", usage.busy),
        ("spinning", "spinning until the next send", usage.spinning),
        ("waiting", "ready, waiting for a CPU", waiting),
    ]);
    html::facts(&[(&format!("Thread {index}"), thread.describe())]) + &bar
}

fn assertions(record: &RunRecord) -> String {
    if record.assertions.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = record
        .assertions
        .iter()
        .map(|checked| {
            let holds = if checked.holds { "holds" } else { "FAILS" };
            let (condition, measured) = (checked.condition.clone(), checked.measured.clone());
            vec![condition, measured, holds.to_owned()]
        })
        .collect();
    let table = html::table(&["condition", "measured", ""], &rows);
    html::section("Assertions", "", &table)
}

fn environment(record: &RunRecord) -> String {
    let outcome = &record.outcome;
    let bytes = |n: u64| format!("{} B, {}", count(n), throughput(n, outcome.measured.span));
    let mut rows = vec![("Address", record.plan.address.to_string())];
    rows.extend(record.environment.facts());
    rows.extend([
        ("Measured", duration(outcome.measured.span)),
        ("Warm-up", duration(outcome.warmup.span)),
        ("Sent", bytes(outcome.measured.bytes_out)),
        ("Received", bytes(outcome.measured.bytes_in)),
    ]);
    if outcome.tally.total() > 0 {
        rows.push(("Errors", errors(outcome)));
    }
    let command = chart::escaped(record.environment.command());
    html::section(
        "Environment",
        "Without it a figure cannot be repeated.",
        &(html::facts(&rows) + &format!("<p></p><code>{command}</code>\n")),
    )
}

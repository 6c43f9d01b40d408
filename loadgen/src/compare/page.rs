//! A comparison as a page: `compare.html`.

use crate::compare::{CHANCE, Comparison};
use crate::html::{self, Tone};
use crate::quantity::span;
use crate::report::latency_rows;

/// Makes the page.
pub(crate) fn page(comparison: &Comparison<'_>) -> String {
    let [a, b] = &comparison.names;
    let tone = match comparison.differences().next() {
        _ if !comparison.invalid().is_empty() => Tone::Bad,
        Some(_) => Tone::Warning,
        None => Tone::Good,
    };
    let body = [
        "<h1>Two runs compared</h1>\n".to_owned(),
        html::banner(tone, &comparison.verdict(), &comparison.meaning()),
        runs(comparison),
        html::section(
            "Latency",
            "All requests of both runs. Curves lie apart for many reasons; whether by more than \
             noise, the next table says.",
            &(html::picture(|size| comparison.picture(size)) + &percentiles(comparison)),
        ),
        html::section("Intervals", &about(), &intervals(comparison)),
    ];
    html::document(&format!("{a} and {b}: loadgen compare"), &body.concat())
}

fn about() -> String {
    format!(
        "Welch's test on the figures of the intervals, each run counted as its effective sample \
         size: intervals resemble their neighbours, and count for fewer. Two equal runs are called \
         different in at most {:.0} of 1,000 comparisons, as far as their noise is within them.",
        CHANCE * 1000.0
    )
}

fn runs(comparison: &Comparison<'_>) -> String {
    let both = comparison.names.iter().zip(comparison.runs);
    let rows: Vec<String> = both
        .map(|(name, run)| {
            let plan = &run.plan;
            format!(
                "{name}: {}, {}, seed {}",
                plan.target,
                plan.describe(),
                plan.seed
            )
        })
        .collect();
    let [a, b] = [rows[0].clone(), rows[1].clone()];
    html::section("The runs", "", &html::facts(&[("A", a), ("B", b)]))
}

fn percentiles(comparison: &Comparison<'_>) -> String {
    let [a, b] = comparison.runs.map(|run| run.outcome.latency());
    let rows: Vec<Vec<String>> = latency_rows([a, b])
        .into_iter()
        .map(|(name, a, b)| {
            let change = if a > 0.0 { (b / a - 1.0) * 100.0 } else { 0.0 };
            vec![name, span(a), span(b), format!("{change:+.1} %")]
        })
        .collect();
    html::table(&["", "A", "B", "B − A"], &rows)
}

fn intervals(comparison: &Comparison<'_>) -> String {
    let rows: Vec<Vec<String>> = comparison
        .rows
        .iter()
        .map(|row| {
            let [a, b] = row.means.map(|mean| row.value(mean));
            let [n_a, n_b] = row.n_effective.map(|n| format!("{n:.1}"));
            vec![
                row.name.to_owned(),
                a,
                b,
                row.change(),
                format!("{:.4}", row.p),
                format!("{n_a}, {n_b}"),
                row.finding().to_owned(),
            ]
        })
        .collect();
    let head = [
        "",
        "A",
        "B",
        "B − A at 95 %",
        "p",
        "effective sizes",
        "finding",
    ];
    html::table(&head, &rows)
}

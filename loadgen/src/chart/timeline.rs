//! The timeline: latency above, rate below, interval by interval.
//!
//! The warm-up is shaded. What came after the end of the run belongs to no interval of it and is
//! left out.

use crate::chart::scale::Scale;
use crate::chart::svg::{Anchor, Svg};
use crate::chart::{ROOMY, Size};
use crate::interval::Phase;
use crate::outcome::IntervalSum;
use crate::quantity::{count, per_second, short_count, span, tick};
use crate::record::RunRecord;

const TOP: f64 = 52.0;
const RIGHT: f64 = 22.0;
const BOTTOM: f64 = 44.0;
const LEFT: f64 = 58.0;
/// Between the two plots, with the title of the second.
const BETWEEN: f64 = 44.0;
/// Part of the height that the rate gets.
const RATE_SHARE: f64 = 0.36;

/// The lines of latency: class and value.
type Line = (&'static str, fn(&IntervalSum) -> u64);
const LINES: [Line; 3] = [("max", |i| i.max), ("p99", |i| i.p99), ("p50", |i| i.p50)];

/// Where everything stands.
struct Frame {
    across: Scale,
    latency: Scale,
    rate: Scale,
    size: Size,
    /// What the lines of the rate are.
    legend: String,
    /// Lower end of the latency, upper and lower end of the rate.
    edges: [f64; 3],
}

/// Draws the intervals of a record.
pub(crate) fn draw(record: &RunRecord, size: Size) -> String {
    let series: Vec<&IntervalSum> = record
        .outcome
        .series
        .iter()
        .filter(|interval| interval.phase != Phase::Drain)
        .collect();
    let mut svg = Svg::new("Latency and rate over time", size);
    svg.text("title", Anchor::Start, (8.0, 18.0), "Latency over time");
    let Some(last) = series.last() else {
        let middle = (size.width / 2.0, size.height / 2.0);
        svg.text("", Anchor::Middle, middle, "no interval was completed");
        return svg.finish();
    };
    let asked = record.plan.open.as_ref().map(|open| open.rate);
    let frame = Frame::new(&series, (last.from + last.span).as_secs_f64(), asked, size);
    let is_answered = series.iter().any(|interval| interval.max > 0);
    frame.grid(&mut svg, is_answered);
    frame.warm_up(&mut svg, &series);
    for (class, value) in LINES {
        for run in answered_runs(&series) {
            let points: Vec<(f64, f64)> = run
                .iter()
                .map(|i| (frame.middle(i), frame.latency.at(value(i) as f64)))
                .collect();
            svg.path(class, &points);
        }
    }
    let rate: Vec<(f64, f64)> = series
        .iter()
        .map(|i| {
            (
                frame.middle(i),
                frame.rate.at(per_second(i.answered, i.span)),
            )
        })
        .collect();
    svg.area("area", &rate, frame.edges[2]);
    svg.path("rate", &rate);
    if let Some(asked) = asked {
        let y = frame.rate.at(asked);
        svg.line("line asked", (LEFT, y), (size.width - RIGHT, y));
    }
    for interval in &series {
        frame.touch(&mut svg, interval);
    }
    svg.finish()
}

impl Frame {
    fn new(series: &[&IntervalSum], end: f64, asked: Option<f64>, size: Size) -> Frame {
        let answered = series.iter().filter(|interval| interval.max > 0);
        let least = answered.clone().map(|i| i.p50).min().unwrap_or(1);
        let most = answered.map(|i| i.max).max().unwrap_or(1);
        let rates = series.iter().map(|i| per_second(i.answered, i.span));
        let rate = rates.chain(asked).fold(0.0, f64::max);
        let floor = size.height - BOTTOM;
        let room = floor - TOP - BETWEEN;
        let middle = TOP + room * (1.0 - RATE_SHARE);
        let rate_top = middle + BETWEEN;
        let mut legend = "answers a second".to_owned();
        if asked.is_some() {
            legend.push_str("; dashed: asked");
        }
        if series.iter().any(|interval| interval.errors > 0) {
            legend.push_str("; red: requests failed");
        }
        Frame {
            legend,
            across: Scale::between((0.0, end.max(1e-3)), (LEFT, size.width - RIGHT)),
            latency: Scale::log(least as f64, most as f64, (middle, TOP)),
            rate: Scale::from_zero(rate, 3, (floor, rate_top)),
            size,
            edges: [middle, rate_top, floor],
        }
    }

    fn middle(&self, interval: &IntervalSum) -> f64 {
        self.across
            .at((interval.from + interval.span / 2).as_secs_f64())
    }

    /// Axes and names; those of the latency only when there is one.
    fn grid(&self, svg: &mut Svg, is_answered: bool) {
        let [middle, rate_top, floor] = self.edges;
        let right = self.size.width - RIGHT;
        let mut x = LEFT;
        for (class, _) in LINES.iter().rev() {
            svg.line(&format!("line {class}"), (x, 33.0), (x + 20.0, 33.0));
            svg.text("", Anchor::Start, (x + 26.0, 37.0), class);
            x += 70.0;
        }
        if is_answered {
            self.latency_grid(svg);
        } else {
            let at = ((LEFT + right) / 2.0, (TOP + middle) / 2.0);
            svg.text("", Anchor::Middle, at, "no request was answered");
        }
        svg.text("title", Anchor::Start, (8.0, rate_top - 14.0), "Rate");
        svg.text("", Anchor::Start, (LEFT, rate_top - 14.0), &self.legend);
        for rate in self.rate.ticks(3) {
            let y = self.rate.at(rate);
            svg.line("grid", (LEFT, y), (right, y));
            svg.text("", Anchor::End, (LEFT - 8.0, y + 4.0), &short_count(rate));
        }
        let n = if self.size.width > ROOMY { 12 } else { 5 };
        for seconds in self.across.ticks(n) {
            let x = self.across.at(seconds);
            svg.line("axis", (x, floor), (x, floor + 4.0));
            svg.text("", Anchor::Middle, (x, floor + 18.0), &tick(seconds * 1e9));
        }
        svg.line("axis", (LEFT, floor), (right, floor));
        svg.line("axis", (LEFT, middle), (right, middle));
        let words = "since the start of the load";
        svg.text(
            "",
            Anchor::Middle,
            ((LEFT + right) / 2.0, floor + 36.0),
            words,
        );
    }

    fn latency_grid(&self, svg: &mut Svg) {
        let [middle, _, _] = self.edges;
        let right = self.size.width - RIGHT;
        for nanos in self.latency.ticks(((middle - TOP) / 28.0) as usize) {
            let y = self.latency.at(nanos);
            svg.line("grid", (LEFT, y), (right, y));
            svg.text("", Anchor::End, (LEFT - 8.0, y + 4.0), &tick(nanos));
        }
    }

    fn warm_up(&self, svg: &mut Svg, series: &[&IntervalSum]) {
        let warm = series.iter().rfind(|i| i.phase == Phase::WarmUp);
        let Some(last) = warm else { return };
        let width = self.across.at((last.from + last.span).as_secs_f64()) - LEFT;
        let [middle, rate_top, floor] = self.edges;
        for (from, to) in [(TOP, middle), (rate_top, floor)] {
            let height = to - from;
            svg.rectangle("warm", (LEFT, from), Size { width, height }, None);
        }
        // Only where the word fits.
        if width > 60.0 {
            let at = (LEFT + width / 2.0, middle + 15.0);
            svg.text("", Anchor::Middle, at, "warm-up");
        }
    }

    /// The words for who points at an interval, and a mark if requests failed in it.
    fn touch(&self, svg: &mut Svg, interval: &IntervalSum) {
        let [_, _, floor] = self.edges;
        let from = self.across.at(interval.from.as_secs_f64());
        let to = self
            .across
            .at((interval.from + interval.span).as_secs_f64());
        if interval.errors > 0 {
            svg.line("bad", (from, floor), (to, floor));
        }
        let nanos = |value: u64| span(value as f64);
        let latency = if interval.max > 0 {
            let [p50, p99, max] = [interval.p50, interval.p99, interval.max].map(nanos);
            format!("p50 {p50}, p99 {p99}, max {max}")
        } else {
            "no latency".to_owned()
        };
        let words = format!(
            "{:.1} s: {:.0} answers a second, {latency}, {} errors",
            interval.from.as_secs_f64(),
            per_second(interval.answered, interval.span),
            count(interval.errors),
        );
        let size = Size {
            width: to - from,
            height: floor - TOP,
        };
        svg.rectangle("hit", (from, TOP), size, Some(&words));
    }
}

/// Stretches of intervals in which requests were answered: a line is broken where none were.
fn answered_runs<'a>(series: &'a [&'a IntervalSum]) -> impl Iterator<Item = &'a [&'a IntervalSum]> {
    series
        .split(|interval| interval.max == 0)
        .filter(|run| !run.is_empty())
}

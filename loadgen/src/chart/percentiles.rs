//! The percentile curve: which latency a share of the requests did not exceed.
//!
//! Both axes are logarithmic. Across stands the share that is left above the percentile, halved and
//! halved again, so that the slowest of a million requests have as much room as the median; it ends
//! at the slowest one of all.

use hdrhistogram::Histogram;

use crate::chart::scale::Scale;
use crate::chart::svg::{Anchor, Svg};
use crate::chart::{ROOMY, Size};
use crate::quantity::{count, span, tick};

/// One histogram as a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Curve<'a> {
    pub(crate) class: &'static str,
    pub(crate) name: &'a str,
    pub(crate) histogram: &'a Histogram<u64>,
}

/// Points of a curve in each tenfold step towards 100 %.
const POINTS_PER_DECADE: f64 = 60.0;
/// Percentiles with a dot and words for who points at it.
const DOTS: [f64; 6] = [50.0, 90.0, 99.0, 99.9, 99.99, 99.999];
/// Space around the plot: above for title and names, right for half a tick, below and left for
/// ticks.
const TOP: f64 = 30.0;
const RIGHT: f64 = 22.0;
const BOTTOM: f64 = 44.0;
const LEFT: f64 = 58.0;
/// Height of the line that names a curve.
const NAME: f64 = 18.0;

/// Draws the curves of histograms of nanoseconds over each other.
pub(crate) fn curves(title: &str, curves: &[Curve<'_>], size: Size) -> String {
    let mut svg = Svg::new(title, size);
    svg.text("title", Anchor::Start, (8.0, 18.0), title);
    let filled: Vec<&Curve<'_>> = curves.iter().filter(|c| !c.histogram.is_empty()).collect();
    let Some(most) = filled.iter().map(|c| c.histogram.max()).max() else {
        let middle = (size.width / 2.0, size.height / 2.0);
        svg.text("", Anchor::Middle, middle, "no request was answered");
        return svg.finish();
    };
    let least = filled.iter().map(|c| c.histogram.min()).min().unwrap_or(1);
    let longest = filled.iter().map(|c| c.histogram.len()).max().unwrap_or(1);
    // Beyond one in ten, or the plot would end before the first tick.
    let decades = (longest as f64).log10().max(1.0);
    let top = TOP + NAME * curves.len() as f64;
    let across = Scale::between((0.0, decades), (LEFT, size.width - RIGHT));
    let up = Scale::log(least as f64, most as f64, (size.height - BOTTOM, top));
    axes(&mut svg, &across, &up, top, size);
    for (index, curve) in curves.iter().enumerate() {
        let y = TOP + NAME * index as f64 + 6.0;
        svg.line(
            &format!("line {}", curve.class),
            (LEFT, y),
            (LEFT + 24.0, y),
        );
        let n = count(curve.histogram.len());
        let name = if size.width > ROOMY {
            format!("{} ({n} requests)", curve.name)
        } else {
            curve.name.to_owned()
        };
        svg.text("", Anchor::Start, (LEFT + 32.0, y + 4.0), &name);
    }
    // The result lies over what it is compared with.
    for curve in filled.iter().rev() {
        draw(&mut svg, curve, &across, &up);
    }
    svg.finish()
}

fn draw(svg: &mut Svg, curve: &Curve<'_>, across: &Scale, up: &Scale) {
    let histogram = curve.histogram;
    let decades = (histogram.len() as f64).log10();
    let at = |decade: f64| {
        let nanos = histogram.value_at_quantile(1.0 - 10_f64.powf(-decade));
        (across.at(decade), up.at(nanos as f64))
    };
    let n_points = (decades * POINTS_PER_DECADE).ceil() as usize;
    let mut points: Vec<(f64, f64)> = (0..n_points)
        .map(|point| at(point as f64 / POINTS_PER_DECADE))
        .collect();
    points.push((across.at(decades), up.at(histogram.max() as f64)));
    svg.path(curve.class, &points);
    for percentile in DOTS {
        let decade = decade(percentile);
        if decade <= decades {
            let latency = span(histogram.value_at_percentile(percentile) as f64);
            let words = format!("p{percentile} {}: {latency}", curve.name);
            svg.dot(curve.class, at(decade), Some(&words));
        }
    }
}

/// How many tenfold steps towards 100 % a percentile is.
fn decade(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).log10()
}

fn axes(svg: &mut Svg, across: &Scale, up: &Scale, top: f64, size: Size) {
    let floor = size.height - BOTTOM;
    let right = size.width - RIGHT;
    for nanos in up.ticks(((floor - top) / 32.0) as usize) {
        let y = up.at(nanos);
        svg.line("grid", (LEFT, y), (right, y));
        svg.text("", Anchor::End, (LEFT - 8.0, y + 4.0), &tick(nanos));
    }
    let mut labelled = vec![0.0];
    if size.width > ROOMY {
        labelled.extend([50.0, 75.0]);
    }
    labelled.extend([90.0, 99.0, 99.9, 99.99, 99.999, 99.9999, 99.99999]);
    let mut free_from = 0.0;
    for percentile in labelled {
        let x = across.at(decade(percentile));
        if x >= right && percentile > 90.0 {
            break;
        }
        svg.line("grid", (x, top), (x, floor));
        let label = format!("{percentile} %");
        // About seven units a letter.
        let half = label.len() as f64 * 3.5;
        if x - half >= free_from {
            let middle = x.min(size.width - half);
            svg.text("", Anchor::Middle, (middle, floor + 18.0), &label);
            free_from = x + half + 4.0;
        }
    }
    svg.line("axis", (LEFT, floor), (right, floor));
    let middle = (LEFT + right) / 2.0;
    let words = "share of the requests that took no longer";
    svg.text("", Anchor::Middle, (middle, floor + 36.0), words);
}

#[cfg(test)]
mod tests {
    use super::{Curve, curves, decade};
    use crate::chart::{NARROW, WIDE};
    use crate::interval::new_histogram;

    #[test]
    fn percentiles_are_as_far_apart_as_their_tails() {
        for (percentile, expected) in [(0.0, 0.0), (90.0, 1.0), (99.0, 2.0), (99.9, 3.0)] {
            assert!((decade(percentile) - expected).abs() < 1e-9, "{percentile}");
        }
    }

    #[test]
    fn curve_rises_to_the_right_and_ends_at_the_maximum() {
        let mut histogram = new_histogram();
        for micros in 1..=1000 {
            histogram.saturating_record(micros * 1000);
        }
        let curve = Curve {
            class: "one",
            name: "all",
            histogram: &histogram,
        };
        for size in [WIDE, NARROW] {
            let text = curves("t", &[curve], size);
            let (_, rest) = text.split_once("line one\" d=\"M").expect("a line");
            let (data, _) = rest.split_once('"').expect("an end");
            let points: Vec<(f64, f64)> = data
                .split('L')
                .map(|point| {
                    let (x, y) = point.split_once(' ').expect("two numbers");
                    (x.parse().expect("x"), y.parse().expect("y"))
                })
                .collect();
            assert_eq!(points.len(), 181, "three decades and the end");
            assert!(
                points
                    .windows(2)
                    .all(|w| w[0].0 <= w[1].0 && w[0].1 >= w[1].1)
            );
            assert!(text.contains("p99 all: 990.2 us"), "{text}");
            assert!(!text.contains("p99.99 all"), "of a thousand there is none");
        }
    }

    #[test]
    fn nothing_measured_is_said() {
        let histogram = new_histogram();
        let curve = Curve {
            class: "one",
            name: "all",
            histogram: &histogram,
        };
        assert!(curves("t", &[curve], WIDE).contains("no request was answered"));
    }
}

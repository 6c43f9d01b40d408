//! Pure: bar charts as SVG, one below the other: a bar is a median, a thin line its least and greatest value.
//!
//! Each group has a scale of its own, and every bar its value in figures; a line that leaves the scale is cut. Less is
//! better throughout, and garland's bars have a colour of their own.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::table::Spread;

const WIDTH: f64 = 760.0;
const LABELS: f64 = 150.0;
const BARS: f64 = 420.0;
const LINE: f64 = 18.0;
/// A scale ends at this multiple of the median bar, so that one that is far off does not flatten the others.
const SCALE: f64 = 3.0;

/// Bars that are compared with each other.
#[derive(Clone, Debug)]
pub struct Group {
    /// What is shown, and its unit.
    pub title: String,
    /// Name and value of each bar.
    pub bars: Vec<(String, Spread)>,
}

impl Group {
    /// A bar for each server that has a value, the best first.
    pub fn of<'n>(
        title: String,
        servers: impl Iterator<Item = &'n str>,
        value: impl Fn(&str) -> Option<Spread>,
    ) -> Self {
        let servers: BTreeSet<&str> = servers.collect();
        let valued = servers
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), value(name)?)));
        let mut bars: Vec<(String, Spread)> = valued.collect();
        bars.sort_by(|(_, a), (_, b)| a.median.total_cmp(&b.median));
        Self { title, bars }
    }
}

/// The whole picture; `note` stands below the title.
#[must_use]
pub fn svg(title: &str, note: &str, groups: &[Group]) -> String {
    let lines: usize = groups.iter().map(|group| group.bars.len() + 2).sum();
    let height = (lines + 4) as f64 * LINE;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let mut y = LINE * 1.5;
    label(
        &mut text,
        10.0,
        y,
        "font-size=\"15\" font-weight=\"bold\"",
        title,
    );
    y += LINE;
    label(&mut text, 10.0, y, "font-size=\"9\" fill=\"#555555\"", note);
    for group in groups {
        y += LINE * 1.6;
        label(&mut text, 10.0, y, "font-weight=\"bold\"", &group.title);
        let end = scale(group);
        for (name, spread) in &group.bars {
            y += LINE;
            bar(&mut text, y, name, *spread, BARS / end);
        }
    }
    text + "</svg>\n"
}

/// The value at the end of the scale.
fn scale(group: &Group) -> f64 {
    let medians = || group.bars.iter().map(|(_, spread)| spread.median);
    let greatest = medians().fold(0.0, f64::max);
    let middle = Spread::of(medians()).map_or(1.0, |spread| spread.median);
    greatest.min(SCALE * middle).max(f64::MIN_POSITIVE)
}

fn bar(text: &mut String, y: f64, name: &str, spread: Spread, unit: f64) {
    let long = |value: f64| (value * unit).min(BARS);
    let colour = match name {
        _ if name.starts_with("garland") => "#2a7f62",
        "mio" | "mio-batch" | "oracle" => "#999999",
        _ => "#7da7d9",
    };
    label(text, 10.0, y, "", name);
    let (top, middle) = (y - LINE * 0.65, y - LINE * 0.25);
    let (from, to) = (LABELS + long(spread.least), LABELS + long(spread.greatest));
    writeln!(
        text,
        "<rect x=\"{LABELS}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\n\
         <line x1=\"{from:.1}\" y1=\"{middle:.1}\" x2=\"{to:.1}\" y2=\"{middle:.1}\" stroke=\"#222222\"/>",
        long(spread.median),
        LINE * 0.8,
    )
    .expect("a String takes everything");
    let value = Spread::text(Some(spread));
    label(text, LABELS + BARS + 10.0, y, "", &value);
}

fn label(text: &mut String, x: f64, y: f64, style: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    writeln!(
        text,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{words}</text>"
    )
    .expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use crate::chart::{BARS, Group, svg};
    use crate::table::Spread;

    #[test]
    fn every_bar_has_its_length_and_its_figures() {
        let spread = |median| Spread {
            median,
            least: median / 2.0,
            greatest: median * 100.0,
        };
        let bars = vec![
            ("mio".into(), spread(1.0)),
            ("a & b".into(), spread(2.0)),
            ("far".into(), spread(500.0)),
        ];
        let title = "times < one".into();
        let text = svg("title", "note", &[Group { title, bars }]);
        // The scale ends at three times the middle bar.
        for width in [BARS / 6.0, BARS / 3.0, BARS] {
            assert!(
                text.contains(&format!("width=\"{width:.1}\"")),
                "{width} in {text}"
            );
        }
        assert!(
            text.contains("a &amp; b") && text.contains("times &lt; one"),
            "{text}"
        );
        assert!(text.contains("500.00 [250.00-50000.00]"), "{text}");
        assert_eq!(text.matches("<line").count(), 3);
    }
}

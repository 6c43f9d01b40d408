//! Pure: the medians of each test, as bar charts in SVG, one below the other, and as tables: one a test.
//!
//! A bar is a median, a thin line its least and greatest value.
//! Each group has a scale of its own, and every bar its value in figures; a line that leaves the scale is cut. Less is
//! better throughout, and garland's bars have a colour of their own.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::table::{Spread, Table, digits};

const WIDTH: f64 = 760.0;
const LABELS: f64 = 150.0;
const BARS: f64 = 420.0;
const LINE: f64 = 18.0;
/// A scale ends at this multiple of the median bar, so that one that is far off does not flatten the others.
const SCALE: f64 = 3.0;

/// Bars that are compared with each other.
#[derive(Clone, Debug)]
pub struct Group {
    /// What is shown, and its unit; groups of one table share it.
    pub title: String,
    /// The shape of load: the column of that table.
    pub column: String,
    /// Name and value of each bar.
    pub bars: Vec<(String, Spread)>,
}

impl Group {
    /// A bar for each server that has a value, the best first.
    pub fn of<'n>(
        title: &str,
        column: String,
        servers: impl Iterator<Item = &'n str>,
        value: impl Fn(&str) -> Option<Spread>,
    ) -> Self {
        let servers: BTreeSet<&str> = servers.collect();
        let valued = servers
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), value(name)?)));
        let mut bars: Vec<(String, Spread)> = valued.collect();
        bars.sort_by(|(_, a), (_, b)| a.median.total_cmp(&b.median));
        Self {
            title: title.into(),
            column,
            bars,
        }
    }

    fn cell(&self, server: &str) -> String {
        let own = self.bars.iter().find(|(name, _)| name == server);
        match own.map(|(_, spread)| *spread) {
            Some(Spread {
                median,
                least,
                greatest,
            }) if least == greatest => format!("{median:.0$}", digits(median)),
            spread => Spread::text(spread),
        }
    }
}

/// One table for each title: a server is a line, a group a column. The lines are in the order of `servers`.
#[must_use]
pub fn tables<'n>(groups: &[Group], servers: impl Iterator<Item = &'n str> + Clone) -> Vec<Table> {
    let tables = groups.chunk_by(|one, other| one.title == other.title);
    let tables = tables.map(|groups| {
        let columns = groups.iter().map(|group| group.column.as_str());
        let mut table = Table::new(&groups[0].title, ["server"].into_iter().chain(columns));
        let has = |server: &str| {
            let mut bars = groups.iter().flat_map(|group| &group.bars);
            bars.any(|(name, _)| name == server)
        };
        let mut seen = BTreeSet::new();
        for server in servers.clone() {
            if seen.insert(server) && has(server) {
                table.row(server, groups.iter().map(|group| group.cell(server)));
            }
        }
        table
    });
    tables.collect()
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
        let title = format!("{}, {}", group.title, group.column);
        label(&mut text, 10.0, y, "font-weight=\"bold\"", &title);
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
        "mio" | "c-epoll" | "mio-batch" | "oracle" => "#999999",
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
    use crate::chart::{BARS, Group, svg, tables};
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
        let group = Group {
            title: "times < one".into(),
            column: "all".into(),
            bars,
        };
        let text = svg("title", "note", &[group]);
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
        assert!(text.contains("500 [250-50000]"), "{text}");
        assert_eq!(text.matches("<line").count(), 3);
    }
    #[test]
    fn groups_of_one_title_are_columns_of_one_table() {
        let group = |title: &str, column: &str, server: &str, least| Group {
            title: title.into(),
            column: column.into(),
            bars: vec![(
                server.into(),
                Spread {
                    median: 2.0,
                    least,
                    greatest: 2.0,
                },
            )],
        };
        let groups = [
            group("echo", "1 connection", "tokio", 1.0),
            group("echo", "64 connections", "mio", 2.0),
            group("hog", "p99", "mio", 2.0),
        ];
        let tables = tables(&groups, ["mio", "mio", "tokio", "go"].into_iter());
        let text: Vec<String> = tables.iter().map(|table| table.markdown()).collect();
        let echo = "## echo\n\n| server | 1 connection | 64 connections |\n|---|--:|--:|\n\
                    | mio | - | 2.00 |\n| tokio | 2.00 [1.00-2.00] | - |\n\n";
        assert_eq!(
            text,
            [
                echo,
                "## hog\n\n| server | p99 |\n|---|--:|\n| mio | 2.00 |\n\n"
            ]
        );
    }
}

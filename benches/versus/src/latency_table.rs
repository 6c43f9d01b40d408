//! Pure: from runs of the open loop to medians, ratios within a round, and tables.
//!
//! As in [`echo_table`](crate::echo_table), which see: ratios are taken within a round and never between rounds.

use crate::hog::HogWindow;
use crate::skew::SkewWindow;
use crate::table::{Spread, Table};

/// The server that all others are measured against.
const ORACLE: &str = "oracle";

/// Per round: the 99th percentile of a server divided by that of the ideal queue on the same trace.
#[must_use]
pub fn against_ideal(windows: &[SkewWindow], server: &str, column: &str) -> Option<Spread> {
    let own = of(windows, server, column);
    Spread::of(own.map(|window| window.p99_us / window.ideal_p99_us))
}

/// Per round in which both ran: the 99th percentile of a server divided by the oracle's.
#[must_use]
pub fn against_oracle(windows: &[SkewWindow], server: &str, column: &str) -> Option<Spread> {
    Spread::of(of(windows, server, column).filter_map(|window| {
        let mut oracle = of(windows, ORACLE, column);
        let same_round = oracle.find(|oracle| oracle.round == window.round)?;
        Some(window.p99_us / same_round.p99_us)
    }))
}

fn of<'w>(
    windows: &'w [SkewWindow],
    server: &str,
    column: &str,
) -> impl Iterator<Item = &'w SkewWindow> {
    windows
        .iter()
        .filter(move |window| window.server == server && window.column == column)
}

/// The table of one column; a line per server that has at least one window.
#[must_use]
pub fn skew(windows: &[SkewWindow], servers: &[&str], column: &str) -> Table {
    let title = format!("requests with work, 8 connections, 2 CPUs: {column}");
    let mut head = vec!["server", "p50 ms", "p99 ms", "p99 / ideal", "p99 / oracle"];
    head.extend(["sent late us", "overhead us", "not answered"]);
    let mut table = Table::new(title, head);
    for server in servers {
        let spread =
            |value: fn(&SkewWindow) -> f64| Spread::of(of(windows, server, column).map(value));
        let Some(p99) = spread(|window| window.p99_us / 1e3) else {
            continue;
        };
        let median = |value| spread(value).map_or(0.0, |spread| spread.median);
        let missing: usize = of(windows, server, column)
            .map(|window| window.requests - window.answered)
            .sum();
        let cells = [
            format!("{:.2}", median(|window| window.p50_us / 1e3)),
            Spread::text(Some(p99)),
            Spread::text(against_ideal(windows, server, column)),
            Spread::text(against_oracle(windows, server, column)),
            format!("{:.0}", median(|window| window.late_p99_us)),
            format!("{:.1}", median(|window| window.overhead_us)),
            missing.to_string(),
        ];
        table.row(server, cells);
    }
    table
}

/// All columns in one table: the median 99th percentile in ms, and in parentheses that of the ratios to the ideal.
#[must_use]
pub fn summary(windows: &[SkewWindow], servers: &[&str], columns: &[&str]) -> Table {
    let head = ["server"].into_iter().chain(columns.iter().copied());
    let mut table = Table::new("requests with work: p99 in ms (/ ideal)", head);
    let ideal = columns.iter().map(|column| {
        let own = windows.iter().filter(|window| window.column == *column);
        let ideal = Spread::of(own.map(|window| window.ideal_p99_us / 1e3));
        ideal.map_or("-".into(), |ideal| format!("{:.1}", ideal.median))
    });
    table.row("ideal", ideal);
    for server in servers {
        if !windows.iter().any(|window| window.server == *server) {
            continue;
        }
        let cell = |column: &&str| {
            let p99 = Spread::of(of(windows, server, column).map(|window| window.p99_us / 1e3));
            let (Some(p99), Some(ratio)) = (p99, against_ideal(windows, server, column)) else {
                return "-".into();
            };
            format!("{:.1} ({:.1})", p99.median, ratio.median)
        };
        table.row(server, columns.iter().map(cell));
    }
    table
}

/// The table of held loops; a line per server that has at least one window.
#[must_use]
pub fn hog(windows: &[HogWindow], servers: &[&str]) -> Table {
    let title = "a loop held by one request, 2 CPUs";
    let mut head = vec!["server", "answered", "p99 ms", "max ms"];
    head.extend(["connects", "connects' p99 ms"]);
    let mut table = Table::new(title, head);
    for server in servers {
        let own: Vec<&HogWindow> = windows
            .iter()
            .filter(|window| window.server == *server)
            .collect();
        if own.is_empty() {
            continue;
        }
        let sum = |value: fn(&HogWindow) -> usize| own.iter().map(|w| value(w)).sum::<usize>();
        let spread = |value: fn(&HogWindow) -> f64| {
            Spread::text(Spread::of(own.iter().map(|window| value(window))))
        };
        let cells = [
            format!("{} of {}", sum(|w| w.answered), sum(|w| w.requests)),
            spread(|window| window.p99_us / 1e3),
            spread(|window| window.max_us / 1e3),
            format!(
                "{} of {}",
                sum(|w| w.connects_answered),
                sum(|w| w.connects)
            ),
            spread(|window| window.connects_p99_us / 1e3),
        ];
        table.row(server, cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use crate::latency_table::{against_oracle, skew, summary};
    use crate::skew::SkewWindow;

    fn window(server: &str, round: usize, p99_us: f64) -> SkewWindow {
        SkewWindow {
            round,
            server: server.into(),
            column: "exp .5",
            requests: 100,
            answered: 99,
            p50_us: 700.0,
            p99_us,
            max_us: 9_000.0,
            ideal_p99_us: 2_000.0,
            late_p99_us: 50.0,
            overhead_us: 12.0,
        }
    }

    #[test]
    fn the_oracle_of_the_same_round_counts() {
        // The host was twice as slow in round 1, which is the oracle's only round beside the server's second.
        let windows = [
            window("smol", 0, 3_000.0),
            window("oracle", 1, 4_000.0),
            window("smol", 1, 6_000.0),
        ];
        let spread = against_oracle(&windows, "smol", "exp .5").expect("one round has both");
        let all = [spread.least, spread.median, spread.greatest];
        assert!(
            all.iter().all(|ratio| (ratio - 1.5).abs() < 1e-9),
            "{spread:?}"
        );
        assert_eq!(against_oracle(&windows, "smol", "exp .7"), None);
    }

    #[test]
    fn tables_show_ratios_and_what_is_missing() {
        let windows = [window("smol", 0, 3_000.0)];
        let text = skew(&windows, &["oracle", "smol"], "exp .5").to_string();
        assert_eq!(text.lines().count(), 3, "{text}");
        let parts = ["0.70", "3.00 [3.00-3.00]", "1.50 [1.50-1.50]", "12.0", " 1"];
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        let text = summary(&windows, &["oracle", "smol"], &["exp .5", "exp .7"]).to_string();
        assert!(text.contains("2.0") && text.contains("3.0 (1.5)"), "{text}");
    }
}

//! Pure: from measured windows to medians, per-round ratios and lines of text.
//!
//! A ratio is always taken within one round and one connection count, between windows that ran
//! seconds apart; the median and the spread are taken over those ratios. The ratio of two medians is
//! deliberately not offered: the host drifts by more than what is to be seen.

use std::fmt::Write;

use crate::measure::{Memory, Window};

/// Median, least and greatest of a few values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one, or the mean of the middle two.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Spread {
    /// Nothing for no values.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (least, greatest) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self {
            median,
            least,
            greatest,
        })
    }

    /// As it stands in tables; a dash for nothing.
    #[must_use]
    pub fn text(spread: Option<Self>) -> String {
        match spread {
            Some(Self {
                median,
                least,
                greatest,
            }) => {
                format!("{median:.2} [{least:.2}-{greatest:.2}]")
            }
            None => "-".into(),
        }
    }
}

/// CPU time of the server per answered request, in microseconds.
#[must_use]
pub fn cpu_us_per_request(window: &Window) -> f64 {
    window.cpu_ns as f64 / 1e3 / window.requests as f64
}

/// Per round in which both ran: CPU per request of `server` divided by that of `baseline`.
#[must_use]
pub fn ratio(
    windows: &[Window],
    server: &str,
    baseline: &str,
    connections: usize,
) -> Option<Spread> {
    let find = |name: &str, round: usize| {
        windows.iter().find(|window| {
            window.server == name && window.round == round && window.connections == connections
        })
    };
    let rounds = windows
        .iter()
        .map(|window| window.round + 1)
        .max()
        .unwrap_or(0);
    Spread::of((0..rounds).filter_map(|round| {
        let (server, baseline) = (find(server, round)?, find(baseline, round)?);
        Some(cpu_us_per_request(server) / cpu_us_per_request(baseline))
    }))
}

/// The table of one connection count; a line per server that has at least one window.
#[must_use]
pub fn speed(windows: &[Window], servers: &[&str], connections: usize) -> String {
    let mut text = format!(
        "{:<16} {:>10} {:>5} {:>5} {:>20} {:>7} {:>10} {:>7} {:>17} {:>17}\n",
        "server",
        "requests/s",
        "busy",
        "gen",
        "CPU us/request",
        "user us",
        "sleeps/req",
        "intr/s",
        "x mio",
        "x tokio"
    );
    for server in servers {
        let own: Vec<&Window> = windows
            .iter()
            .filter(|window| window.server == *server && window.connections == connections)
            .collect();
        let median = |value: fn(&Window) -> f64| {
            Spread::of(own.iter().map(|window| value(window))).map_or(0.0, |spread| spread.median)
        };
        let Some(cost) = Spread::of(own.iter().map(|window| cpu_us_per_request(window))) else {
            continue;
        };
        writeln!(
            text,
            "{server:<16} {:>10.0} {:>4.0}% {:>4.0}% {:>20} {:>7.2} {:>10.3} {:>7.0} {:>17} {:>17}",
            median(|window| per_second(window, window.requests)),
            median(|window| per_second(window, window.cpu_ns) / 1e7),
            median(|window| per_second(window, window.generator_cpu_ns) / 1e7),
            Spread::text(Some(cost)),
            cost.median * user_share(&own),
            median(|window| window.voluntary_switches as f64 / window.requests as f64),
            median(|window| per_second(window, window.involuntary_switches)),
            Spread::text(ratio(windows, server, "mio", connections)),
            Spread::text(ratio(windows, server, "tokio", connections)),
        )
        .expect("a String takes everything");
    }
    text
}

fn per_second(window: &Window, count: u64) -> f64 {
    count as f64 * 1e9 / window.elapsed_ns as f64
}

/// The table of the memory of idle connections.
#[must_use]
pub fn memory(measured: &[Memory]) -> String {
    let mut text = format!(
        "{:<17} {:>12} {:>16} {:>22}\n",
        "server", "before KiB", "idle B/conn", "after one echo B/conn"
    );
    for memory in measured {
        let each = |bytes: u64| {
            let grown = bytes as f64 - memory.before_bytes as f64;
            format!("{:.0}", grown / memory.connections as f64)
        };
        writeln!(
            text,
            "{:<17} {:>12} {:>16} {:>22}",
            memory.server,
            memory.before_bytes / 1024,
            each(memory.idle_bytes),
            memory.echoed_bytes.map_or("-".into(), each),
        )
        .expect("a String takes everything");
    }
    text
}

/// Over all windows together: a single one has too few ticks.
fn user_share(windows: &[&Window]) -> f64 {
    let user: u64 = windows.iter().map(|window| window.user_ticks).sum();
    let system: u64 = windows.iter().map(|window| window.system_ticks).sum();
    user as f64 / (user + system).max(1) as f64
}

#[cfg(test)]
mod tests {
    use crate::measure::{Memory, Window};
    use crate::table::{Spread, memory, ratio, speed};

    fn window(server: &str, round: usize, cpu_ns: u64) -> Window {
        Window {
            round,
            server: server.into(),
            connections: 64,
            requests: 1000,
            elapsed_ns: 1_000_000_000,
            cpu_ns,
            user_ticks: 1,
            system_ticks: 3,
            generator_cpu_ns: 900_000_000,
            voluntary_switches: 500,
            involuntary_switches: 0,
        }
    }

    #[test]
    fn median_of_an_even_number_is_the_mean_of_the_middle_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 100.0]).expect("four values");
        assert_eq!(
            spread,
            Spread {
                median: 3.5,
                least: 1.0,
                greatest: 100.0
            }
        );
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The host doubled its speed between the rounds: the ratio of medians would be 1.33.
        let windows = [
            window("mio", 0, 4_000_000),
            window("tokio", 0, 4_800_000),
            window("tokio", 1, 2_400_000),
            window("mio", 1, 2_000_000),
            window("mio", 2, 2_000_000),
        ];
        let spread = ratio(&windows, "tokio", "mio", 64).expect("two rounds have both");
        for value in [spread.median, spread.least, spread.greatest] {
            assert!((value - 1.2).abs() < 1e-9, "{spread:?}");
        }
        assert_eq!(ratio(&windows, "tokio", "mio", 1), None);
        assert_eq!(ratio(&windows, "tokio", "smol", 64), None);
    }

    #[test]
    fn table_has_a_line_per_server_that_ran() {
        let windows = [window("mio", 0, 4_000_000), window("tokio", 0, 5_000_000)];
        let text = speed(&windows, &["mio", "tokio", "garland-task"], 64);
        assert_eq!(text.lines().count(), 3, "{text}");
        let tokio = text.lines().nth(2).expect("three lines");
        for part in [
            "tokio",
            "1000",
            "5.00 [5.00-5.00]",
            "1.25",
            "0.500",
            "1.25 [1.25-1.25]",
        ] {
            assert!(tokio.contains(part), "{part} in {tokio}");
        }
    }

    #[test]
    fn memory_is_growth_per_connection() {
        let measured = Memory {
            server: "mio".into(),
            connections: 100,
            before_bytes: 1_024_000,
            idle_bytes: 1_034_000,
            echoed_bytes: Some(1_524_000),
        };
        let text = memory(&[measured]);
        let line = text.lines().nth(1).expect("a line below the head");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words, ["mio", "1000", "100", "5000"]);
    }
}

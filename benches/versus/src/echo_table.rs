//! Pure: from measured windows of echo to medians, per-round ratios and tables.
//!
//! A ratio is always taken within one round and one connection count, between windows that ran
//! seconds apart; the median and the spread are taken over those ratios. The ratio of two medians is
//! deliberately not offered: the host drifts by more than what is to be seen.

use crate::measure::{Memory, Window};
use crate::paced::Pace;
use crate::table::{Spread, Table};

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

/// A server that answers less than this part of what was due cannot keep the rate.
const KEPT: f64 = 0.98;

/// A column of ratios: its head, and for a server the one it is compared with.
pub type Against = (&'static str, fn(&str) -> &'static str);

/// What the servers of an ordinary comparison are measured by.
pub const FLOORS: &[Against] = &[("x mio", |_| "mio"), ("x tokio", |_| "tokio")];

/// What stealing and rescue are measured by: the same server without either.
pub const WITHOUT_EITHER: &[Against] = &[("x neither", |server| match server {
    _ if server.starts_with("garland-callback") => "garland-callback-neither",
    _ => "garland-neither",
})];

/// A column of latencies: its head, and its value.
type Latency = (&'static str, fn(&Pace) -> f64);

/// These are there if requests came at a fixed rate.
const LATENCIES: [Latency; 4] = [
    ("p50 us", |pace| pace.p50_us),
    ("p90 us", |pace| pace.p90_us),
    ("p99 us", |pace| pace.p99_us),
    ("sent late us", |pace| pace.late_p99_us),
];

/// The table of one connection count; a line per server that has at least one window.
#[must_use]
pub fn speed(
    title: String,
    windows: &[Window],
    servers: &[&str],
    connections: usize,
    against: &[Against],
) -> Table {
    let is_paced = windows.iter().any(|window| window.pace.is_some());
    let latencies = if is_paced { &LATENCIES[..] } else { &[] };
    let mut head = vec!["server", "requests/s", "busy", "gen", "CPU us/request"];
    head.extend(["user us", "sleeps/req", "intr/s"]);
    head.extend(latencies.iter().map(|(head, _)| head));
    head.extend(against.iter().map(|(head, _)| head));
    let mut table = Table::new(title, head);
    for server in servers {
        let own: Vec<&Window> = windows
            .iter()
            .filter(|window| window.server == *server && window.connections == connections)
            .collect();
        let median = |value: &dyn Fn(&Window) -> f64| {
            Spread::of(own.iter().map(|window| value(window))).map_or(0.0, |spread| spread.median)
        };
        let Some(cost) = Spread::of(own.iter().map(|window| cpu_us_per_request(window))) else {
            continue;
        };
        let answered = median(&|window| per_second(window, window.requests));
        let only = if is_too_slow(&own) { "only " } else { "" };
        let mut cells = vec![
            format!("{only}{answered:.0}"),
            format!(
                "{:.0}%",
                median(&|window| per_second(window, window.cpu_ns) / 1e7)
            ),
            format!(
                "{:.0}%",
                median(&|window| per_second(window, window.generator_cpu_ns) / 1e7)
            ),
            Spread::text(Some(cost)),
            format!("{:.2}", cost.median * user_share(&own)),
            format!(
                "{:.3}",
                median(&|window| window.voluntary_switches as f64 / window.requests as f64)
            ),
            format!(
                "{:.0}",
                median(&|window| per_second(window, window.involuntary_switches))
            ),
        ];
        cells.extend(latencies.iter().map(|(_, latency)| {
            let latency = |window: &Window| window.pace.as_ref().map_or(f64::NAN, latency);
            format!("{:.1}", median(&latency))
        }));
        cells.extend(against.iter().map(|(_, baseline)| {
            Spread::text(ratio(windows, server, baseline(server), connections))
        }));
        table.row(server, cells);
    }
    table
}

/// Whether requests came at a rate that the server did not keep, all windows together.
#[must_use]
pub fn is_too_slow(windows: &[&Window]) -> bool {
    let due = windows.iter().filter_map(|window| Some(window.pace?.due));
    let answered: u64 = windows.iter().map(|window| window.requests).sum();
    (answered as f64) < KEPT * due.sum::<u64>() as f64
}

fn per_second(window: &Window, count: u64) -> f64 {
    count as f64 * 1e9 / window.elapsed_ns as f64
}

/// The table of the memory of idle connections.
#[must_use]
pub fn memory(measured: &[Memory]) -> Table {
    let connections = measured.first().map_or(0, |memory| memory.connections);
    let head = [
        "server",
        "before KiB",
        "idle B/conn",
        "after one echo B/conn",
    ];
    let mut table = Table::new(format!("Memory of {connections} idle connections"), head);
    for memory in measured {
        let each = |bytes: u64| {
            let grown = bytes as f64 - memory.before_bytes as f64;
            format!("{:.0}", grown / memory.connections as f64)
        };
        let cells = [
            (memory.before_bytes / 1024).to_string(),
            each(memory.idle_bytes),
            memory.echoed_bytes.map_or("-".into(), each),
        ];
        table.row(&memory.server, cells);
    }
    table
}

/// Over all windows together: a single one has too few ticks.
fn user_share(windows: &[&Window]) -> f64 {
    let user: u64 = windows.iter().map(|window| window.user_ticks).sum();
    let system: u64 = windows.iter().map(|window| window.system_ticks).sum();
    user as f64 / (user + system).max(1) as f64
}

#[cfg(test)]
mod tests {
    use crate::echo_table::{FLOORS, WITHOUT_EITHER, memory, ratio, speed};
    use crate::measure::{Memory, Window};
    use crate::paced::Pace;

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
            pace: None,
        }
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
        let servers = ["mio", "tokio", "garland-task"];
        let text = speed("title".into(), &windows, &servers, 64, FLOORS).to_string();
        assert_eq!(text.lines().count(), 4, "{text}");
        let tokio = text.lines().nth(3).expect("four lines");
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
    fn a_server_that_is_slower_than_the_rate_is_marked() {
        let pace = Pace {
            due: 1010,
            p50_us: 12.5,
            p90_us: 20.0,
            p99_us: 99.0,
            late_p99_us: 1.5,
        };
        let mut windows = [window("mio", 0, 4_000_000), window("tokio", 0, 5_000_000)];
        windows[0].pace = Some(pace);
        windows[1].pace = Some(Pace { due: 1100, ..pace });
        let text = speed("title".into(), &windows, &["mio", "tokio"], 64, FLOORS).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("p99 us"), "{text}");
        assert!(
            !lines[2].contains("only") && lines[2].contains("12.5"),
            "{text}"
        );
        assert!(lines[3].contains("only 1000"), "{text}");
    }

    #[test]
    fn stealing_and_rescue_are_measured_by_their_own_model() {
        let [(_, baseline)] = WITHOUT_EITHER else {
            panic!("one column");
        };
        assert_eq!(baseline("garland-no-rescue"), "garland-neither");
        assert_eq!(baseline("garland-callback"), "garland-callback-neither");
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
        let text = memory(&[measured]).to_string();
        let line = text.lines().nth(2).expect("a line below the head");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words, ["mio", "1000", "100", "5000"]);
    }
}

//! Requests with work, played on one server: how long the slowest of them took, beside the ideal queue.

use std::time::Duration;

use serde::Serialize;

use crate::ideal;
use crate::open_loop::{self, Outcome};
use crate::process::ServerProcess;
use crate::trace::{self, Column, SERVERS};
use crate::usage::Usage;

/// How long answers are waited for after the last request: an overloaded server has a queue to work off.
const DRAIN: Duration = Duration::from_secs(5);
/// Two columns of one round have different seeds, and so have two rounds.
const SEEDS_A_ROUND: u64 = 100;

/// One column of one server in one round.
#[derive(Clone, Debug, Serialize)]
pub struct SkewWindow {
    /// Round, from 0; the servers of one round are sent the same.
    pub round: usize,
    /// Name of the server.
    pub server: String,
    /// Name of the column.
    pub column: &'static str,
    /// Requests sent.
    pub requests: usize,
    /// Requests answered in time; the others count as answered at the very end.
    pub answered: usize,
    /// Median latency from the intended moment.
    pub p50_us: f64,
    /// 99 of 100 were at least as fast.
    pub p99_us: f64,
    /// The slowest.
    pub max_us: f64,
    /// The 99th percentile of the ideal queue on the same trace.
    pub ideal_p99_us: f64,
    /// How late requests were sent: the 99th percentile.
    pub late_p99_us: f64,
    /// CPU time of the server for a request, beyond what the request asked for.
    pub overhead_us: f64,
}

/// Plays one column on one server.
///
/// # Errors
/// When the server gives a wrong answer, dies, or keeps connections open.
pub fn window(
    server: &mut ServerProcess,
    name: &str,
    round: usize,
    column_index: usize,
    seconds: f64,
) -> anyhow::Result<SkewWindow> {
    let column = &trace::COLUMNS[column_index];
    let seed = round as u64 * SEEDS_A_ROUND + column_index as u64;
    match play(server, column, seconds, seed) {
        Ok(window) => Ok(SkewWindow {
            round,
            server: name.into(),
            ..window
        }),
        Err(error) => Err(server.explain(error)),
    }
}

fn play(
    server: &ServerProcess,
    column: &Column,
    seconds: f64,
    seed: u64,
) -> anyhow::Result<SkewWindow> {
    let trace = trace::skewed(column, seconds, seed);
    let before = Usage::of(server.pid())?;
    let Outcome {
        latency_ns,
        late_ns,
    } = open_loop::play(server.address(), &trace, DRAIN)?;
    let cpu = Usage::of(server.pid())?.since(&before).cpu;
    server.wait_closed()?;
    let last_ns = trace.requests.last().map_or(0, |request| request.at_ns);
    let end_ns = last_ns + u64::try_from(DRAIN.as_nanos())?;
    let known = latency_ns.iter().zip(&trace.requests);
    let latencies = known.map(|(latency, request)| latency.unwrap_or(end_ns - request.at_ns));
    let latencies = Percentiles::of(latencies.collect());
    let asked: u64 = trace
        .requests
        .iter()
        .map(|request| request.service_ns)
        .sum();
    let requests = trace.requests.len();
    Ok(SkewWindow {
        round: 0,
        server: String::new(),
        column: column.name,
        requests,
        answered: latency_ns.iter().flatten().count(),
        p50_us: latencies.us(0.5),
        p99_us: latencies.us(0.99),
        max_us: latencies.us(1.0),
        ideal_p99_us: Percentiles::of(ideal::latencies_ns(&trace, SERVERS)).us(0.99),
        late_p99_us: Percentiles::of(late_ns).us(0.99),
        overhead_us: (cpu.as_nanos() as f64 - asked as f64) / 1e3 / requests.max(1) as f64,
    })
}

/// Sorted latencies: all of them are kept, so a percentile is one of them and no estimate.
#[derive(Debug)]
pub struct Percentiles(Vec<u64>);

impl Percentiles {
    /// Of values in ns.
    #[must_use]
    pub fn of(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        Self(values)
    }

    /// The least value, in us, that at least this part of all values does not exceed; 0 if there are none.
    #[must_use]
    pub fn us(&self, part: f64) -> f64 {
        let rank = (part * self.0.len() as f64).ceil() as usize;
        let value = self.0.get(rank.saturating_sub(1)).copied();
        value.unwrap_or(0) as f64 / 1e3
    }
}

#[cfg(test)]
mod tests {
    use crate::skew::Percentiles;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let hundred = Percentiles::of((1..=100).rev().map(|value| value * 1000).collect());
        let us = [0.5, 0.99, 1.0].map(|part| hundred.us(part));
        assert_eq!(us, [50.0, 99.0, 100.0]);
        assert_eq!(Percentiles::of(Vec::new()).us(0.99).to_bits(), 0);
    }
}

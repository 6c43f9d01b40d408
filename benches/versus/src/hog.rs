//! One request that holds a loop for seconds, and what becomes of everybody else meanwhile.
//!
//! Fifty standing connections send a thousand requests a second together, and forty more connections a second are made,
//! all without work. Each of them may have been accepted by the loop that is held: nothing here asks.

use std::time::Duration;

use serde::Serialize;

use crate::open_loop;
use crate::process::ServerProcess;
use crate::skew::Percentiles;
use crate::trace::{Request, Trace};

/// Connections besides the one of the hog.
const NEIGHBOURS: usize = 50;
/// From one request of a neighbour, whichever it is, to the next.
const REQUEST_GAP_NS: u64 = 1_000_000;
/// From one new connection to the next.
const CONNECT_GAP_NS: u64 = 25_000_000;
/// When the hog comes: by then everything runs.
const HOG_AT_NS: u64 = 300_000_000;
/// How long answers are waited for after the last request, which is due when the hog should end.
const DRAIN: Duration = Duration::from_secs(4);

/// What one server did while it was held.
#[derive(Clone, Debug, Serialize)]
pub struct HogWindow {
    /// Round, from 0.
    pub round: usize,
    /// Name of the server.
    pub server: String,
    /// How long the hog held its loop.
    pub held_ms: f64,
    /// Requests of the standing connections that were due meanwhile...
    pub requests: usize,
    /// ... and answered before its end.
    pub answered: usize,
    /// Latency of all of them, also those answered after its end.
    pub p99_us: f64,
    /// The slowest.
    pub max_us: f64,
    /// New connections meanwhile...
    pub connects: usize,
    /// ... whose request was answered before the hog's end.
    pub connects_answered: usize,
    /// From the moment they were to be made to the answer.
    pub connects_p99_us: f64,
}

/// Holds one loop of the server for that long.
///
/// # Errors
/// When the server gives a wrong answer, dies, keeps connections open, or does not answer the hog.
pub fn window(
    server: &mut ServerProcess,
    name: &str,
    round: usize,
    seconds: f64,
) -> anyhow::Result<HogWindow> {
    match play(server, seconds) {
        Ok(window) => Ok(HogWindow {
            round,
            server: name.into(),
            ..window
        }),
        Err(error) => Err(server.explain(error)),
    }
}

fn play(server: &ServerProcess, seconds: f64) -> anyhow::Result<HogWindow> {
    let trace = trace((seconds * 1e9) as u64);
    let outcome = open_loop::play(server.address(), &trace, DRAIN)?;
    server.wait_closed()?;
    let hog = trace
        .requests
        .iter()
        .position(|request| request.connection == 0);
    let hog = hog.expect("the hog is part of the trace");
    let Some(held_ns) = outcome.latency_ns[hog] else {
        anyhow::bail!("the hog was not answered");
    };
    let end_ns = HOG_AT_NS + held_ns;
    let (mut standing, mut made) = (Group::default(), Group::default());
    for (request, latency_ns) in trace.requests.iter().zip(&outcome.latency_ns) {
        let group = match request.connection {
            _ if request.at_ns < HOG_AT_NS => continue,
            0 => continue,
            1..=NEIGHBOURS => &mut standing,
            _ => &mut made,
        };
        group.add(request.at_ns, *latency_ns, end_ns);
    }
    let [latencies, connects] = [standing.latencies_ns, made.latencies_ns].map(Percentiles::of);
    Ok(HogWindow {
        round: 0,
        server: String::new(),
        held_ms: held_ns as f64 / 1e6,
        requests: standing.due,
        answered: standing.answered,
        p99_us: latencies.us(0.99),
        max_us: latencies.us(1.0),
        connects: made.due,
        connects_answered: made.answered,
        connects_p99_us: connects.us(0.99),
    })
}

#[derive(Default)]
struct Group {
    due: usize,
    answered: usize,
    latencies_ns: Vec<u64>,
}

impl Group {
    fn add(&mut self, at_ns: u64, latency_ns: Option<u64>, end_ns: u64) {
        self.due += 1;
        self.answered += usize::from(latency_ns.is_some_and(|latency| at_ns + latency <= end_ns));
        // One that was never answered has waited at least until the drain was over.
        let drained = end_ns + u64::try_from(DRAIN.as_nanos()).expect("a few seconds");
        self.latencies_ns
            .push(latency_ns.unwrap_or(drained - at_ns));
    }
}

fn trace(hog_ns: u64) -> Trace {
    let end_ns = HOG_AT_NS + hog_ns;
    let steps = |gap_ns: u64| (0..end_ns / gap_ns).map(move |step| step * gap_ns);
    let neighbours = steps(REQUEST_GAP_NS).zip((1..=NEIGHBOURS).cycle());
    let made = steps(CONNECT_GAP_NS).zip(NEIGHBOURS + 1..);
    let idle = neighbours.chain(made).map(|(at_ns, connection)| Request {
        at_ns,
        connection,
        service_ns: 0,
    });
    let mut requests: Vec<Request> = idle.collect();
    requests.push(Request {
        at_ns: HOG_AT_NS,
        connection: 0,
        service_ns: hog_ns,
    });
    requests.sort_by_key(|request| request.at_ns);
    Trace {
        standing: NEIGHBOURS + 1,
        one_home: false,
        requests,
    }
}

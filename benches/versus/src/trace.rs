//! What an open loop sends, all of it drawn beforehand: when, on which connection, and how much work.
//!
//! The servers of one round get the same trace, and so does the simulator of the ideal queue: what differs
//! in their figures is not luck of the draw. A trace is a function of its seed.

use fastrand::Rng;

/// Connections that a trace with work uses.
const CONNECTIONS: usize = 8;
/// CPUs of a server; the utilisation is that of all of them together.
pub const SERVERS: usize = 2;
/// Mean of the exponential distribution.
const EXPONENTIAL_NS: f64 = 500_000.0;
/// Bimodal: most requests take this long...
const SHORT_NS: f64 = 100_000.0;
/// ... and this part of them ...
const LONG_PART: f64 = 0.01;
/// ... takes this long.
const LONG_NS: f64 = 20_000_000.0;

/// One request of an open loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it is to be sent, after the start.
    pub at_ns: u64,
    /// On which connection; one that is not among the standing ones is made then.
    pub connection: usize,
    /// How much CPU time it asks for.
    pub service_ns: u64,
}

/// Everything that one run sends.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Connections 0 to this one, exclusive, are made before the start.
    pub standing: usize,
    /// Whether the standing ones have to be accepted by one and the same loop.
    pub one_home: bool,
    /// In the order of their times.
    pub requests: Vec<Request>,
}

impl Trace {
    /// One more than the highest number of a connection.
    #[must_use]
    pub fn connections(&self) -> usize {
        let used = self.requests.iter().map(|request| request.connection + 1);
        used.max().unwrap_or(0).max(self.standing)
    }
}

/// How long requests take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Exponential, 500 us in the mean.
    Exponential,
    /// 99 % take 100 us, 1 % takes 20 ms.
    Bimodal,
}

impl Work {
    fn mean_ns(self) -> f64 {
        match self {
            Work::Exponential => EXPONENTIAL_NS,
            Work::Bimodal => SHORT_NS + LONG_PART * (LONG_NS - SHORT_NS),
        }
    }

    fn draw_ns(self, rng: &mut Rng) -> f64 {
        match self {
            Work::Exponential => exponential(rng, EXPONENTIAL_NS),
            Work::Bimodal if rng.f64() < LONG_PART => LONG_NS,
            Work::Bimodal => SHORT_NS,
        }
    }
}

/// A column of the table: what work, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// As it stands in tables.
    pub name: &'static str,
    /// How long requests take.
    pub work: Work,
    /// Part of the CPUs' time that is asked for.
    pub utilisation: f64,
    /// Whether every connection is accepted by one loop.
    pub hot: bool,
}

/// All columns.
pub const COLUMNS: [Column; 8] = [
    column("exp .5", Work::Exponential, 0.5, false),
    column("exp .7", Work::Exponential, 0.7, false),
    column("exp .8", Work::Exponential, 0.8, false),
    column("bi .5", Work::Bimodal, 0.5, false),
    column("bi .7", Work::Bimodal, 0.7, false),
    column("hot .3", Work::Exponential, 0.3, true),
    column("hot .45", Work::Exponential, 0.45, true),
    column("hot-bi .3", Work::Bimodal, 0.3, true),
];

const fn column(name: &'static str, work: Work, utilisation: f64, hot: bool) -> Column {
    Column {
        name,
        work,
        utilisation,
        hot,
    }
}

/// Poisson arrivals for that long, each on a connection drawn at random.
#[must_use]
pub fn skewed(column: &Column, seconds: f64, seed: u64) -> Trace {
    let mut rng = Rng::with_seed(seed);
    let gap_ns = column.work.mean_ns() / (column.utilisation * SERVERS as f64);
    let mut requests = Vec::new();
    let mut at_ns = exponential(&mut rng, gap_ns);
    while at_ns < seconds * 1e9 {
        requests.push(Request {
            at_ns: at_ns as u64,
            connection: rng.usize(..CONNECTIONS),
            service_ns: column.work.draw_ns(&mut rng) as u64,
        });
        at_ns += exponential(&mut rng, gap_ns);
    }
    Trace {
        standing: CONNECTIONS,
        one_home: column.hot,
        requests,
    }
}

pub(crate) fn exponential(rng: &mut Rng, mean: f64) -> f64 {
    -mean * (1.0 - rng.f64()).ln()
}

#[cfg(test)]
mod tests {
    use crate::trace::{COLUMNS, skewed};

    #[test]
    fn a_trace_asks_for_the_utilisation_of_its_column() {
        for column in &COLUMNS {
            let trace = skewed(column, 200.0, 3);
            let work: u64 = trace.requests.iter().map(|r| r.service_ns).sum();
            let utilisation = work as f64 / 200e9 / 2.0;
            let off = (utilisation / column.utilisation - 1.0).abs();
            assert!(off < 0.05, "{}: {utilisation}", column.name);
            assert!(trace.requests.is_sorted_by_key(|r| r.at_ns));
        }
    }

    #[test]
    fn a_seed_is_a_trace() {
        let [column, ..] = &COLUMNS;
        let trace = |seed| skewed(column, 1.0, seed).requests;
        assert_eq!(trace(1), trace(1));
        assert_ne!(trace(1), trace(2));
    }
}

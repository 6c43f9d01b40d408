//! What is known about the requests that ended between two moments, and the one shape of histogram
//! used for it.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Significant decimal digits of every latency: 0.1 % of its value.
const DIGITS: u8 = 3;
/// Longest latency told apart; longer ones count as this long.
const LONGEST: Duration = Duration::from_secs(3600);

/// An empty histogram of nanoseconds, of the one shape used everywhere, so that any two can be
/// added.
pub(crate) fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, DIGITS)
        .expect("the bounds and digits are constants that hdrhistogram accepts")
}

/// What the requests of a phase are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Shown, and left out of the result.
    WarmUp,
    /// The result.
    Measured,
}

/// What was seen between two edges, by one thread or by all.
#[derive(Debug)]
pub(crate) struct Interval {
    pub(crate) phase: Phase,
    pub(crate) from: Instant,
    pub(crate) to: Instant,
    pub(crate) latency: Histogram<u64>,
    pub(crate) bytes_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) errors: u64,
}

impl Interval {
    pub(crate) fn new(phase: Phase, from: Instant, latency: Histogram<u64>) -> Interval {
        Interval {
            phase,
            from,
            to: from,
            latency,
            bytes_out: 0,
            bytes_in: 0,
            errors: 0,
        }
    }
    /// Adds what another thread saw in the same interval.
    pub(crate) fn merge(&mut self, other: &Interval) {
        self.from = self.from.min(other.from);
        self.to = self.to.max(other.to);
        add(&mut self.latency, &other.latency);
        self.bytes_out += other.bytes_out;
        self.bytes_in += other.bytes_in;
        self.errors += other.errors;
    }

    pub(crate) fn span(&self) -> Duration {
        self.to.saturating_duration_since(self.from)
    }
}

/// Adds `other` to `sum`; both come from [`new_histogram`].
pub(crate) fn add(sum: &mut Histogram<u64>, other: &Histogram<u64>) {
    sum.add(other)
        .expect("all histograms have the bounds of new_histogram");
}

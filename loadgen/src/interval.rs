//! What is known about the requests that ended between two moments, and the one shape of histogram
//! used for it.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::stored;

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

/// Nanoseconds of a span, as histograms take them.
pub(crate) fn nanos(from: Instant, to: Instant) -> u64 {
    let span = to.saturating_duration_since(from);
    span.as_secs() * 1_000_000_000 + u64::from(span.subsec_nanos())
}

/// The histograms of a run, in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Samples {
    /// From the intended send time to the whole answer: the result.
    #[serde(with = "stored::histogram")]
    pub(crate) latency: Histogram<u64>,
    /// Only for an open loop; in a closed one the intended and the real send are one moment.
    pub(crate) open: Option<OpenSamples>,
    /// How long it took to open a connection anew; only with churn.
    #[serde(with = "stored::histogram_option")]
    pub(crate) connect: Option<Histogram<u64>>,
}

/// What an open loop has beside the result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OpenSamples {
    /// From the real send time to the whole answer: for diagnosis.
    #[serde(with = "stored::histogram")]
    pub(crate) from_send: Histogram<u64>,
    /// Real minus intended send time.
    #[serde(with = "stored::histogram")]
    pub(crate) send_lag: Histogram<u64>,
    /// The part of it that the generator made: real send time minus the moment at which the request
    /// was due and a connection free for it.
    #[serde(with = "stored::histogram")]
    pub(crate) own_lag: Histogram<u64>,
}

/// Which histograms a run needs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SampleKinds {
    pub(crate) open: bool,
    pub(crate) connect: bool,
}

impl Samples {
    pub(crate) fn new(kinds: SampleKinds) -> Samples {
        Samples {
            latency: new_histogram(),
            open: kinds.open.then(|| OpenSamples {
                from_send: new_histogram(),
                send_lag: new_histogram(),
                own_lag: new_histogram(),
            }),
            connect: kinds.connect.then(new_histogram),
        }
    }

    /// Latency from the real send time.
    pub(crate) fn since_send(&self) -> &Histogram<u64> {
        self.open
            .as_ref()
            .map_or(&self.latency, |open| &open.from_send)
    }

    /// Every histogram there is with its tag in interval logs; the result has none, because tools
    /// take untagged lines for it.
    pub(crate) fn tagged(&self) -> Vec<(Option<&'static str>, &Histogram<u64>)> {
        let mut all = vec![(None, &self.latency)];
        if let Some(open) = &self.open {
            all.push((Some("real-send"), &open.from_send));
            all.push((Some("send-lag"), &open.send_lag));
            all.push((Some("own-lag"), &open.own_lag));
        }
        if let Some(connect) = &self.connect {
            all.push((Some("connect"), connect));
        }
        all
    }

    /// Adds `other`, which has the same kinds.
    pub(crate) fn add(&mut self, other: &Samples) {
        add(&mut self.latency, &other.latency);
        if let (Some(mine), Some(others)) = (&mut self.open, &other.open) {
            add(&mut mine.from_send, &others.from_send);
            add(&mut mine.send_lag, &others.send_lag);
            add(&mut mine.own_lag, &others.own_lag);
        }
        if let (Some(mine), Some(others)) = (&mut self.connect, &other.connect) {
            add(mine, others);
        }
    }

    /// Makes them empty for another use.
    pub(crate) fn reset(&mut self) {
        self.latency.reset();
        if let Some(open) = &mut self.open {
            open.from_send.reset();
            open.send_lag.reset();
            open.own_lag.reset();
        }
        if let Some(connect) = &mut self.connect {
            connect.reset();
        }
    }
}

/// What the requests of a phase are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Phase {
    /// Shown, and left out of the result.
    WarmUp,
    /// The result.
    Measured,
    /// After the end: answers to requests of the measured time. They belong to the result, but not
    /// to its rate.
    Drain,
}

/// What was seen between two edges, by one thread or by all.
#[derive(Debug)]
pub(crate) struct Interval {
    pub(crate) phase: Phase,
    pub(crate) from: Instant,
    pub(crate) to: Instant,
    pub(crate) samples: Samples,
    /// Answers to requests of the warm-up that came after it: they are in no result, but the target
    /// gave them now.
    pub(crate) carried_over: u64,
    pub(crate) bytes_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) errors: u64,
}

impl Interval {
    pub(crate) fn new(phase: Phase, from: Instant, samples: Samples) -> Interval {
        Interval {
            phase,
            from,
            to: from,
            samples,
            carried_over: 0,
            bytes_out: 0,
            bytes_in: 0,
            errors: 0,
        }
    }

    /// Adds what another thread saw in the same interval.
    pub(crate) fn merge(&mut self, other: &Interval) {
        self.from = self.from.min(other.from);
        self.to = self.to.max(other.to);
        self.samples.add(&other.samples);
        self.carried_over += other.carried_over;
        self.bytes_out += other.bytes_out;
        self.bytes_in += other.bytes_in;
        self.errors += other.errors;
    }

    pub(crate) fn span(&self) -> Duration {
        self.to.saturating_duration_since(self.from)
    }

    /// Whether nothing happened in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.samples.latency.is_empty() && self.bytes_in + self.bytes_out + self.errors == 0
    }
}

/// Adds `other` to `sum`; both come from [`new_histogram`].
pub(crate) fn add(sum: &mut Histogram<u64>, other: &Histogram<u64>) {
    sum.add(other)
        .expect("all histograms have the bounds of new_histogram");
}

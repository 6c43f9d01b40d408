//! The timetable of an open loop: when each request is due, whatever the target does.
//!
//! There is one for the whole run. Each thread walks all of it and takes every so-manieth entry, so
//! that the requests of all threads together are exactly the process that was asked for. Pure: it
//! counts from zero and knows no clock; the same seed gives the same times.

use std::fmt;
use std::iter::{Skip, StepBy};
use std::str::FromStr;
use std::time::Duration;

use crate::random::Random;

/// Most requests in one burst: more would be one flood, not an arrival process.
const BURST_MAX: u64 = 1_000_000;

/// The law of the gaps between requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrivals {
    /// All gaps alike.
    Constant,
    /// Exponential gaps: users who know nothing of each other.
    Poisson,
    /// So many at the same moment, at evenly spaced moments.
    Burst(u64),
}

impl Arrivals {
    /// Standard deviation of the gaps divided by their mean.
    pub(crate) fn variation(self) -> f64 {
        match self {
            Arrivals::Constant => 0.0,
            Arrivals::Poisson => 1.0,
            // Of n gaps one is n times the mean, the others are 0.
            Arrivals::Burst(n) => (n as f64 - 1.0).sqrt(),
        }
    }
}

impl FromStr for Arrivals {
    type Err = String;

    fn from_str(text: &str) -> Result<Arrivals, String> {
        let n = |text: &str| text.parse().ok().filter(|n| (1..=BURST_MAX).contains(n));
        match text.split_once(':') {
            None if text == "constant" => Ok(Arrivals::Constant),
            None if text == "poisson" => Ok(Arrivals::Poisson),
            Some(("burst", count)) => n(count).map(Arrivals::Burst).ok_or_else(|| {
                format!("{count:?} is no size of a burst; allowed: 1 to {BURST_MAX}")
            }),
            _ => Err(format!(
                "{text:?} is no arrival process; use constant, poisson or burst:N"
            )),
        }
    }
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arrivals::Constant => f.write_str("constant"),
            Arrivals::Poisson => f.write_str("poisson"),
            Arrivals::Burst(n) => write!(f, "burst:{n}"),
        }
    }
}

/// The moments at which requests are due, counted from the start; without end.
#[derive(Clone, Debug)]
pub(crate) struct Timetable {
    arrivals: Arrivals,
    /// Mean gap in nanoseconds.
    gap: f64,
    random: Random,
    n: u64,
    /// The last moment of a Poisson process, in nanoseconds: exact to the nanosecond for 100 days.
    last: f64,
}

impl Timetable {
    /// A timetable of `rate` requests a second.
    pub(crate) fn new(arrivals: Arrivals, rate: f64, seed: u64) -> Timetable {
        Timetable {
            arrivals,
            gap: 1e9 / rate,
            random: Random::new(seed),
            n: 0,
            last: 0.0,
        }
    }

    /// The entries of thread `thread` out of `n_threads`.
    pub(crate) fn share(self, thread: usize, n_threads: usize) -> Share {
        self.skip(thread).step_by(n_threads)
    }
}

/// One thread's entries.
pub(crate) type Share = StepBy<Skip<Timetable>>;

impl Iterator for Timetable {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let nanos = match self.arrivals {
            Arrivals::Constant => self.n as f64 * self.gap,
            Arrivals::Poisson => {
                self.last += self.random.exponential() * self.gap;
                self.last
            }
            Arrivals::Burst(size) => (self.n / size * size) as f64 * self.gap,
        };
        self.n += 1;
        Some(Duration::from_nanos(nanos as u64))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Arrivals, Timetable};
    use crate::gaps::Moments;

    const RATE: f64 = 20_000.0;
    const N: usize = 100_000;

    fn gaps(arrivals: Arrivals) -> Vec<f64> {
        let moments: Vec<Duration> = Timetable::new(arrivals, RATE, 42).take(N + 1).collect();
        moments
            .windows(2)
            .map(|two| (two[1] - two[0]).as_secs_f64())
            .collect()
    }

    fn moments(arrivals: Arrivals) -> (f64, f64) {
        let mut moments = Moments::default();
        for gap in gaps(arrivals) {
            moments.add(gap);
        }
        (moments.mean(), moments.variation())
    }

    /// Largest distance between the distribution of the gaps and the exponential law, against the
    /// critical value 1.628 / sqrt(n) of the one per cent level.
    #[test]
    fn poisson_gaps_pass_a_kolmogorov_smirnov_test_at_1_per_cent() {
        let mut gaps = gaps(Arrivals::Poisson);
        gaps.sort_by(f64::total_cmp);
        let n = gaps.len() as f64;
        let distance = gaps.iter().enumerate().fold(0.0_f64, |worst, (i, gap)| {
            let law = 1.0 - (-gap * RATE).exp();
            let (below, above) = (i as f64 / n, (i + 1) as f64 / n);
            worst.max(law - below).max(above - law)
        });
        assert!(distance < 1.628 / n.sqrt(), "{distance}");
    }

    /// The test above is able to fail: gaps that are only nearly exponential do not pass.
    #[test]
    fn rounded_gaps_would_not_pass() {
        let mut gaps: Vec<f64> = gaps(Arrivals::Poisson)
            .into_iter()
            .map(|gap| (gap * 1e6).round() / 1e6 + 2e-6)
            .collect();
        gaps.sort_by(f64::total_cmp);
        let n = gaps.len() as f64;
        let distance = gaps.iter().enumerate().fold(0.0_f64, |worst, (i, gap)| {
            worst.max((1.0 - (-gap * RATE).exp() - i as f64 / n).abs())
        });
        assert!(distance > 1.628 / n.sqrt(), "{distance}");
    }

    /// Mean and variation of the gaps of each process are those of its law: four standard errors
    /// are 1.3 % for the Poisson mean of 100,000 gaps.
    #[test]
    fn gaps_have_the_mean_and_variation_of_their_law() {
        for (arrivals, slack) in [
            (Arrivals::Constant, 1e-3),
            (Arrivals::Poisson, 0.013),
            (Arrivals::Burst(10), 1e-3),
        ] {
            let (mean, variation) = moments(arrivals);
            assert!((mean * RATE - 1.0).abs() < slack, "{arrivals}: mean {mean}");
            let law = arrivals.variation();
            assert!(
                (variation - law).abs() < slack * 2.0,
                "{arrivals}: {variation}, law {law}"
            );
        }
    }

    #[test]
    fn shares_of_the_threads_together_are_the_timetable() {
        let whole = Timetable::new(Arrivals::Poisson, RATE, 3);
        let mut shares: Vec<_> = (0..3).map(|i| whole.clone().share(i, 3)).collect();
        for (n, moment) in whole.take(3000).enumerate() {
            assert_eq!(shares[n % 3].next(), Some(moment));
        }
    }

    #[test]
    fn same_seed_gives_the_same_times_and_another_seed_others() {
        let of = |seed| {
            Timetable::new(Arrivals::Poisson, RATE, seed)
                .take(10)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn constant_and_burst_moments_are_exact() {
        let of = |arrivals| {
            let nanos = Timetable::new(arrivals, 1000.0, 0).map(|m| m.as_nanos());
            nanos.take(5).collect::<Vec<_>>()
        };
        let ms = 1_000_000;
        assert_eq!(of(Arrivals::Constant), [0, ms, 2 * ms, 3 * ms, 4 * ms]);
        assert_eq!(of(Arrivals::Burst(2)), [0, 0, 2 * ms, 2 * ms, 4 * ms]);
    }

    #[test]
    fn processes_are_read_and_written_back() {
        for text in ["constant", "poisson", "burst:16"] {
            assert_eq!(text.parse::<Arrivals>().expect(text).to_string(), text);
        }
        for text in ["", "uniform", "burst", "burst:0", "burst:x", "poisson:2"] {
            assert!(text.parse::<Arrivals>().is_err(), "{text}");
        }
    }
}

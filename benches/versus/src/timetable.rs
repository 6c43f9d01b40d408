//! Pure: when requests are due at a fixed rate: Poisson arrivals, a function of rate and seed.

use std::time::Duration;

use fastrand::Rng;

use crate::trace::exponential;

/// The moments, counted from the start, without end.
#[derive(Clone, Debug)]
pub struct Timetable {
    rng: Rng,
    gap_ns: f64,
    at_ns: f64,
}

impl Timetable {
    /// So many requests a second in the mean.
    #[must_use]
    pub fn new(rate: f64, seed: u64) -> Self {
        assert!(rate > 0.0, "{rate} requests a second never come");
        Self {
            rng: Rng::with_seed(seed),
            gap_ns: 1e9 / rate,
            at_ns: 0.0,
        }
    }

    /// The next moment; never before the one before it.
    pub fn next_due(&mut self) -> Duration {
        self.at_ns += exponential(&mut self.rng, self.gap_ns);
        Duration::from_nanos(self.at_ns as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::timetable::Timetable;

    fn moments(rate: f64, seed: u64, count: usize) -> Vec<Duration> {
        let mut timetable = Timetable::new(rate, seed);
        (0..count).map(|_| timetable.next_due()).collect()
    }

    #[test]
    fn the_rate_is_kept_in_the_mean_and_gaps_are_exponential() {
        let moments = moments(100_000.0, 5, 200_000);
        assert!(moments.is_sorted());
        let seconds = moments.last().expect("many").as_secs_f64();
        assert!((seconds / 2.0 - 1.0).abs() < 0.02, "{seconds}");
        // Of exponential gaps 1/e are longer than their mean of 10 us.
        let gaps = moments.windows(2).map(|pair| pair[1] - pair[0]);
        let long = gaps.filter(|gap| *gap > Duration::from_micros(10)).count();
        let part = long as f64 / 200_000.0;
        assert!((part - (-1.0_f64).exp()).abs() < 0.01, "{part}");
    }

    #[test]
    fn a_seed_is_a_timetable() {
        assert_eq!(moments(1e3, 1, 50), moments(1e3, 1, 50));
        assert_ne!(moments(1e3, 1, 50), moments(1e3, 2, 50));
    }
}

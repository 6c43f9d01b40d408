//! The arrival process as it came out: mean and variation of the gaps between sends, beside those
//! of the timetable.
//!
//! With several threads the gaps are those between the sends of one thread, both of what was asked
//! and of what was done, so that the two can be compared; the sums of all threads are added.

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// Count, mean and variation of a stream of numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Moments {
    n: u64,
    sum: f64,
    sum_of_squares: f64,
}

impl Moments {
    pub(crate) fn add(&mut self, value: f64) {
        self.n += 1;
        self.sum += value;
        self.sum_of_squares += value * value;
    }

    pub(crate) fn merge(&mut self, other: &Moments) {
        self.n += other.n;
        self.sum += other.sum;
        self.sum_of_squares += other.sum_of_squares;
    }

    pub(crate) fn n(&self) -> u64 {
        self.n
    }

    pub(crate) fn mean(&self) -> f64 {
        self.sum / (self.n as f64).max(1.0)
    }

    /// Standard deviation divided by mean.
    pub(crate) fn variation(&self) -> f64 {
        let mean = self.mean();
        if mean == 0.0 {
            return 0.0;
        }
        let variance = self.sum_of_squares / self.n as f64 - mean * mean;
        variance.max(0.0).sqrt() / mean
    }
}

/// Gaps in seconds, as asked and as realised, of the measured time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Gaps {
    pub(crate) asked: Moments,
    pub(crate) realised: Moments,
    /// The last intended and real moment of a send.
    #[serde(skip)]
    last: Option<(Instant, Instant)>,
}

impl Gaps {
    /// A request that was due at `intended` is sent at `sent_at`.
    pub(crate) fn sent(&mut self, intended: Instant, sent_at: Instant) {
        if let Some((last_intended, last_sent)) = self.last.replace((intended, sent_at)) {
            let seconds = |from, to: Instant| to.saturating_duration_since(from).as_secs_f64();
            self.asked.add(seconds(last_intended, intended));
            self.realised.add(seconds(last_sent, sent_at));
        }
    }

    /// Adds the gaps of another thread.
    pub(crate) fn merge(&mut self, other: &Gaps) {
        self.asked.merge(&other.asked);
        self.realised.merge(&other.realised);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Gaps, Moments};

    /// Of 1, 2, 3, 4 the mean is 2.5 and the variance 1.25.
    #[test]
    fn moments_are_those_of_the_numbers() {
        let (mut one, mut two) = (Moments::default(), Moments::default());
        one.add(1.0);
        one.add(2.0);
        two.add(3.0);
        two.add(4.0);
        one.merge(&two);
        assert_eq!((one.n(), one.mean()), (4, 2.5));
        assert!((one.variation() - 1.25_f64.sqrt() / 2.5).abs() < 1e-12);
        assert_eq!(
            (Moments::default().mean(), Moments::default().variation()),
            (0.0, 0.0)
        );
    }

    #[test]
    fn asked_and_realised_gaps_are_kept_apart() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let mut gaps = Gaps::default();
        for (intended, sent) in [(0, 0), (10, 16), (20, 20)] {
            gaps.sent(at(intended), at(sent));
        }
        assert_eq!((gaps.asked.n(), gaps.realised.n()), (2, 2));
        assert!((gaps.asked.mean() - 0.010).abs() < 1e-12 && gaps.asked.variation() < 1e-6);
        assert!((gaps.realised.mean() - 0.010).abs() < 1e-12);
        assert!((gaps.realised.variation() - 0.6).abs() < 1e-9);
    }
}

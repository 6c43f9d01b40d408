//! How far the mean of a run may be trusted, from the means of its intervals.
//!
//! Neighbouring intervals are alike: a queue that is long now is long a moment later. So n
//! intervals tell less than n independent ones would; the effective sample size n / (1 + 2 Σ ρ)
//! says how much less, with the autocorrelations ρ summed until they vanish. Pure.

use serde::{Deserialize, Serialize};

use crate::student;

/// Intervals below which nothing is said about the mean, and about a change in it.
const INTERVALS_MIN: usize = 3;
const INTERVALS_FOR_DRIFT: usize = 10;
/// A difference between the halves of a run counts from so many of its standard errors on, if it
/// also is more than this part of the mean.
const DRIFT_ERRORS: f64 = 3.0;
const DRIFT_SHARE: f64 = 0.05;

/// Probability that the true mean lies outside of the interval that is given.
const OUTSIDE: f64 = 0.05;

/// What the intervals say about the mean latency; values in the unit of the samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Confidence {
    pub(crate) n_intervals: usize,
    /// As many independent intervals would say as much.
    pub(crate) n_effective: f64,
    /// Mean of the interval means.
    pub(crate) mean: f64,
    /// The 95 % interval is the mean plus and minus this.
    pub(crate) half_width: f64,
    /// How much the second half of the run lies above the first, when that is no chance.
    pub(crate) drift: Option<f64>,
}

impl Confidence {
    /// Judges the means of the intervals, in order of time; none with too few of them.
    pub(crate) fn of(means: &[f64]) -> Option<Confidence> {
        if means.len() < INTERVALS_MIN {
            return None;
        }
        let all = Spread::of(means);
        Some(Confidence {
            n_intervals: means.len(),
            n_effective: all.n_effective,
            mean: all.mean,
            half_width: student::critical(OUTSIDE, all.n_effective - 1.0) * all.error(),
            drift: drift(means),
        })
    }
}

/// A change between the halves of the run that is more than chance and worth a word.
fn drift(means: &[f64]) -> Option<f64> {
    if means.len() < INTERVALS_FOR_DRIFT {
        return None;
    }
    let (first, second) = means.split_at(means.len() / 2);
    let (first, second) = (Spread::of(first), Spread::of(second));
    let difference = second.mean - first.mean;
    let error = first.error().hypot(second.error());
    let is_large = difference.abs() > DRIFT_SHARE * first.mean.abs();
    (difference.abs() > DRIFT_ERRORS * error && is_large).then_some(difference)
}

/// Mean and noise of a series whose neighbours resemble each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) mean: f64,
    pub(crate) variance: f64,
    /// As many independent values would say as much about the mean.
    pub(crate) n_effective: f64,
}

impl Spread {
    pub(crate) fn of(values: &[f64]) -> Spread {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let covariance = |lag: usize| {
            let pairs = values.iter().zip(&values[lag..]);
            pairs.map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>() / n
        };
        let at_zero = covariance(0);
        let mut inflation = 1.0;
        if at_zero > 0.0 {
            // Until the first that is not positive: what follows is noise.
            inflation += 2.0
                * (1..values.len() / 2 + 1)
                    .map(|lag| covariance(lag) / at_zero)
                    .take_while(|rho| *rho > 0.0)
                    .sum::<f64>();
        }
        Spread {
            mean,
            variance: at_zero * n / (n - 1.0),
            n_effective: (n / inflation).clamp(2.0, n),
        }
    }

    /// Standard error of the mean.
    fn error(&self) -> f64 {
        (self.variance / self.n_effective).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::Confidence;
    use crate::random::Random;

    /// Noise around 100 of which each value keeps `memory` of the one before.
    fn series(memory: f64, n: usize, seed: u64) -> Vec<f64> {
        let mut random = Random::new(seed);
        let mut last = 0.0;
        (0..n)
            .map(|_| {
                // Exponential minus its mean: variance 1.
                last = memory * last + random.exponential() - 1.0;
                100.0 + last
            })
            .collect()
    }

    /// Of 400 series the interval must hold the true mean in about 95 %; for strongly correlated
    /// ones the naive interval would hold it in fewer than 60 %.
    #[test]
    fn interval_holds_the_mean_nearly_as_often_as_it_says_even_when_correlated() {
        for (memory, least) in [(0.0, 365), (0.8, 345)] {
            let held = (0..400)
                .filter(|seed| {
                    let means = series(memory, 200, *seed);
                    let c = Confidence::of(&means).expect("enough intervals");
                    (c.mean - 100.0).abs() <= c.half_width
                })
                .count();
            assert!(
                (least..=398).contains(&held),
                "memory {memory}: {held} of 400"
            );
        }
    }

    /// In theory (1 - 0.8) / (1 + 0.8) of 2,000 are 222.
    #[test]
    fn correlated_intervals_count_for_fewer() {
        let of = |memory| {
            Confidence::of(&series(memory, 2000, 1))
                .expect("enough")
                .n_effective
        };
        assert!(of(0.0) > 1600.0, "{}", of(0.0));
        assert!((120.0..400.0).contains(&of(0.8)), "{}", of(0.8));
    }

    /// 10, 12, 14: mean 12, variance 4; 4.302653 is the t of two degrees of freedom.
    #[test]
    fn three_intervals_by_hand() {
        let c = Confidence::of(&[10.0, 14.0, 12.0]).expect("three are enough");
        assert_eq!((c.n_intervals, c.mean, c.n_effective), (3, 12.0, 3.0));
        assert!((c.half_width - 4.302_653 * (4.0_f64 / 3.0).sqrt()).abs() < 1e-5);
        assert_eq!(Confidence::of(&[1.0, 2.0]), None);
        let same = Confidence::of(&[5.0; 12]).expect("enough");
        assert_eq!((same.half_width, same.drift), (0.0, None));
    }

    #[test]
    fn step_is_a_drift_and_noise_is_none() {
        let mut means = series(0.0, 40, 3);
        assert_eq!(Confidence::of(&means).and_then(|c| c.drift), None);
        for late in &mut means[20..] {
            *late += 30.0;
        }
        let drift = Confidence::of(&means)
            .and_then(|c| c.drift)
            .expect("a step");
        assert!((28.0..32.0).contains(&drift), "{drift}");
    }
}

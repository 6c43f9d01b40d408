//! Welch's test: whether the means of two series differ by more than their own noise explains.
//!
//! The series are interval means, which resemble their neighbours; so each counts as its
//! [effective sample size](crate::confidence::Spread), not as its length. Pure.

use crate::confidence::Spread;
use crate::student;

/// The difference of two means, second minus first, and what is known about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Welch {
    pub(crate) difference: f64,
    /// Standard error of the difference.
    pub(crate) error: f64,
    /// Degrees of freedom, by Welch and Satterthwaite.
    pub(crate) freedom: f64,
    /// How likely a difference as large is when there is none.
    pub(crate) p: f64,
}

impl Welch {
    pub(crate) fn of(first: &Spread, second: &Spread) -> Welch {
        let difference = second.mean - first.mean;
        let parts = [first, second].map(|s| (s.variance / s.n_effective, s.n_effective - 1.0));
        let sum: f64 = parts.iter().map(|(variance, _)| variance).sum();
        let error = sum.sqrt();
        if error == 0.0 {
            // Two series without any noise: equal or not, with certainty.
            let p = if difference == 0.0 { 1.0 } else { 0.0 };
            let freedom = first.n_effective + second.n_effective - 2.0;
            return Welch {
                difference,
                error,
                freedom,
                p,
            };
        }
        let fourth: f64 = parts.iter().map(|(v, freedom)| v * v / freedom).sum();
        let freedom = sum * sum / fourth;
        Welch {
            difference,
            error,
            freedom,
            p: student::two_sided(difference / error, freedom),
        }
    }

    /// The difference lies within plus and minus this of what was found, but for the share `p` of
    /// all cases.
    pub(crate) fn half_width(&self, p: f64) -> f64 {
        self.error * student::critical(p, self.freedom)
    }
}

#[cfg(test)]
mod tests {
    use super::Welch;
    use crate::confidence::Spread;
    use crate::random::Random;

    fn independent(values: &[f64]) -> Spread {
        Spread {
            n_effective: values.len() as f64,
            ..Spread::of(values)
        }
    }

    /// The statistic by its formula, the probability by integrating the density of t numerically.
    #[test]
    fn unequal_samples_give_the_known_statistic() {
        let a = [
            27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7,
            21.4,
        ];
        let b = [
            27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 30.5,
            24.4,
        ];
        let welch = Welch::of(&independent(&a), &independent(&b));
        assert!((welch.freedom - 27.887_304).abs() < 1e-4, "{welch:?}");
        let t = welch.difference / welch.error;
        assert!((t - 2.852_955).abs() < 1e-5, "{t} {welch:?}");
        assert!((welch.p - 0.008_071_94).abs() < 1e-7, "{welch:?}");
        assert!(welch.half_width(0.05) > welch.error * 2.0);
    }

    #[test]
    fn series_without_noise_are_equal_or_not() {
        let (five, six) = (Spread::of(&[5.0; 8]), Spread::of(&[6.0; 8]));
        assert_eq!(Welch::of(&five, &five).p, 1.0);
        let differ = Welch::of(&five, &six);
        assert_eq!((differ.p, differ.difference), (0.0, 1.0));
        assert_eq!(differ.half_width(0.05), 0.0);
    }

    /// Two series of one law, each value of which keeps 0.7 of the one before: at 1 % about 4 of
    /// 400 pairs may seem different; counted as independent, more than 60 do.
    #[test]
    fn correlated_series_of_one_law_seldom_differ() {
        let series = |seed| {
            let mut random = Random::new(seed);
            let mut last = 0.0;
            let next = || {
                last = 0.7 * last + random.exponential() - 1.0;
                100.0 + last
            };
            std::iter::repeat_with(next).take(100).collect::<Vec<f64>>()
        };
        let mut differ = [0, 0];
        for pair in 0..400 {
            let (a, b) = (series(2 * pair), series(2 * pair + 1));
            let corrected = Welch::of(&Spread::of(&a), &Spread::of(&b));
            let naive = Welch::of(&independent(&a), &independent(&b));
            differ[0] += usize::from(corrected.p < 0.01);
            differ[1] += usize::from(naive.p < 0.01);
        }
        assert!(differ[0] <= 16 && differ[1] > 60, "{differ:?}");
    }

    #[test]
    fn difference_that_is_there_is_found() {
        let mut random = Random::new(7);
        let mut series = |mean: f64| -> Vec<f64> {
            let next = || mean + random.exponential() - 1.0;
            std::iter::repeat_with(next).take(60).collect()
        };
        let (a, b) = (series(20.0), series(21.0));
        let welch = Welch::of(&Spread::of(&a), &Spread::of(&b));
        assert!(welch.p < 0.001, "{welch:?}");
        assert!((welch.difference - 1.0).abs() < welch.half_width(0.01));
    }
}

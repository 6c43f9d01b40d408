//! Where a value stands on an axis, and which values are written there. Pure.

/// The law of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Law {
    Linear,
    Log,
}

/// An axis from one value to another, drawn between two coordinates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    law: Law,
    values: (f64, f64),
    place: (f64, f64),
}

impl Scale {
    /// From 0 to at least `most`, ending at a round number.
    pub(crate) fn from_zero(most: f64, n_ticks: usize, place: (f64, f64)) -> Scale {
        let most = if most > 0.0 { most } else { 1.0 };
        let step = round_step(most, n_ticks);
        Scale {
            law: Law::Linear,
            values: (0.0, (most / step - 1e-9).ceil() * step),
            place,
        }
    }

    /// Exactly between two values.
    pub(crate) fn between(values: (f64, f64), place: (f64, f64)) -> Scale {
        Scale {
            law: Law::Linear,
            values,
            place,
        }
    }

    /// Logarithmic, widened to round numbers; what is below 1 stands at the lower end.
    pub(crate) fn log(least: f64, most: f64, place: (f64, f64)) -> Scale {
        let (least, most) = (least.max(1.0), most.max(1.0));
        let below = log_ticks(least / 10.0, least, &[1.0, 2.0, 5.0]).pop();
        let above = log_ticks(most, most * 10.0, &[1.0, 2.0, 5.0])
            .into_iter()
            .find(|tick| *tick > least);
        Scale {
            law: Law::Log,
            values: (below.unwrap_or(least), above.unwrap_or(most * 10.0)),
            place,
        }
    }

    /// The coordinate of a value; what lies outside stands at the end.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let (from, to) = self.values;
        let share = match self.law {
            Law::Linear => (value - from) / (to - from),
            Law::Log => (value.max(from) / from).ln() / (to / from).ln(),
        };
        self.place.0 + share.clamp(0.0, 1.0) * (self.place.1 - self.place.0)
    }

    /// Values to write on the axis, about `n` of them.
    pub(crate) fn ticks(&self, n: usize) -> Vec<f64> {
        let (from, to) = self.values;
        match self.law {
            Law::Linear => {
                let step = round_step(to - from, n);
                let first = (from / step - 1e-9).ceil() as i64;
                let last = (to / step + 1e-9).floor() as i64;
                (first..=last).map(|k| k as f64 * step).collect()
            }
            Law::Log => {
                let finest = [[1.0, 2.0, 5.0].as_slice(), &[1.0, 3.0], &[1.0]]
                    .map(|digits| log_ticks(from, to, digits));
                let [.., decades] = &finest;
                let fits = finest.iter().find(|ticks| ticks.len() <= n + 1);
                fits.unwrap_or(decades).clone()
            }
        }
    }
}

/// The step of 1, 2 or 5 times a power of ten that divides `span` into at most about `n` parts.
fn round_step(span: f64, n: usize) -> f64 {
    let rough = span / n.max(1) as f64;
    let decade = 10_f64.powf(rough.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let factor = factors.iter().find(|f| **f * decade >= rough * 0.999);
    factor.unwrap_or(&10.0) * decade
}

/// The numbers from `from` to `to` that are a digit of `digits` times a power of ten.
fn log_ticks(from: f64, to: f64, digits: &[f64]) -> Vec<f64> {
    let decades = from.log10().floor() as i32..=to.log10().ceil() as i32;
    let all = decades.flat_map(|decade| digits.iter().map(move |d| d * 10_f64.powi(decade)));
    let slack = 1e-9;
    all.filter(|tick| *tick >= from * (1.0 - slack) && *tick <= to * (1.0 + slack))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Scale, log_ticks, round_step};

    #[test]
    fn steps_are_one_two_or_five() {
        for (span, n, step) in [
            (10.0, 5, 2.0),
            (10.0, 4, 5.0),
            (3.0, 5, 1.0),
            (1_234.0, 6, 500.0),
            (0.7, 7, 0.1),
        ] {
            let found = round_step(span, n);
            assert!((found / step - 1.0).abs() < 1e-9, "{span} in {n}: {found}");
        }
    }

    #[test]
    fn linear_axis_from_zero_ends_at_a_round_number() {
        let scale = Scale::from_zero(47_300.0, 5, (100.0, 0.0));
        assert_eq!(
            scale.ticks(5),
            [0.0, 10_000.0, 20_000.0, 30_000.0, 40_000.0, 50_000.0]
        );
        assert_eq!((scale.at(0.0), scale.at(50_000.0)), (100.0, 0.0));
        assert_eq!(scale.at(25_000.0), 50.0);
        assert_eq!(Scale::from_zero(0.0, 5, (0.0, 1.0)).at(0.0), 0.0);
    }

    #[test]
    fn log_axis_has_equal_room_for_equal_factors_and_holds_its_values() {
        let scale = Scale::log(130.0, 90_000.0, (0.0, 300.0));
        assert_eq!(scale.values, (100.0, 100_000.0));
        assert!((scale.at(1_000.0) - 100.0).abs() < 1e-9);
        assert!((scale.at(10_000.0) - 200.0).abs() < 1e-9);
        assert_eq!((scale.at(1.0), scale.at(1e9)), (0.0, 300.0));
        for ticks in [scale.ticks(12), scale.ticks(6), scale.ticks(4)] {
            assert!(
                ticks.contains(&100.0) && ticks.contains(&1_000.0),
                "{ticks:?}"
            );
        }
        assert_eq!(scale.ticks(4), [100.0, 1_000.0, 10_000.0, 100_000.0]);
    }

    /// One value, or none at all, still makes an axis.
    #[test]
    fn degenerate_axes_have_two_ends() {
        for (least, most) in [(500.0, 500.0), (0.0, 0.0), (0.0, 77.0)] {
            let scale = Scale::log(least, most, (0.0, 1.0));
            assert!(scale.values.0 < scale.values.1, "{scale:?}");
            assert!(scale.at(most).is_finite(), "{scale:?}");
        }
        assert_eq!(log_ticks(100.0, 100.0, &[1.0]), [100.0]);
    }
}

//! Student's t distribution: how likely a deviation is, and which deviation is how likely. Pure.

/// Rounds of bisection: more than the bits of an f64.
const BISECTIONS: usize = 200;
/// Terms of the continued fraction, which needs about the root of the larger parameter.
const TERMS_MAX: usize = 10_000;
/// Relative error at which the continued fraction ends.
const PRECISION: f64 = 1e-14;

/// How likely a deviation of at least `t` standard errors in either direction is by chance.
pub(crate) fn two_sided(t: f64, freedom: f64) -> f64 {
    if t.is_nan() {
        return 1.0;
    }
    incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + t * t))
}

/// The deviation that chance exceeds, in either direction, with probability `p`.
pub(crate) fn critical(p: f64, freedom: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while two_sided(high, freedom) > p {
        high *= 2.0;
    }
    for _ in 0..BISECTIONS {
        let middle = (low + high) / 2.0;
        if two_sided(middle, freedom) > p {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The regularised incomplete beta function, by its continued fraction (Lentz's method).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // The fraction converges fast on this side of the mean only.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let front = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p();
    let away_from_zero = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for term in 1..TERMS_MAX {
        let m = term as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for coefficient in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + coefficient * d);
            c = away_from_zero(1.0 + coefficient / c);
            change = c * d;
            fraction *= change;
        }
        if (change - 1.0).abs() < PRECISION {
            break;
        }
    }
    (front.exp() * fraction / a).clamp(0.0, 1.0)
}

/// The logarithm of the gamma function of a positive number: Stirling's series, after the argument
/// was raised to where it is exact.
fn ln_gamma(mut x: f64) -> f64 {
    const LARGE: f64 = 15.0;
    let mut product = 1.0;
    while x < LARGE {
        product *= x;
        x += 1.0;
    }
    let (inverse, square) = (1.0 / x, 1.0 / (x * x));
    let series =
        inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)));
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - product.ln()
}

#[cfg(test)]
mod tests {
    use super::{critical, incomplete_beta, ln_gamma, two_sided};

    #[test]
    fn gamma_is_the_factorial_and_the_root_of_pi() {
        for (x, expected) in [
            (1.0, 0.0),
            (5.0, 24_f64.ln()),
            (11.0, 3_628_800_f64.ln()),
            (0.5, std::f64::consts::PI.sqrt().ln()),
        ] {
            assert!((ln_gamma(x) - expected).abs() < 1e-12, "{x}");
        }
    }

    /// I(1, 1) is the uniform law, I(2, 2) is 3x² - 2x³, and I(a, b, x) = 1 - I(b, a, 1 - x).
    #[test]
    fn incomplete_beta_has_its_closed_forms() {
        for x in [0.0, 0.1, 0.5, 0.77, 1.0] {
            assert!((incomplete_beta(1.0, 1.0, x) - x).abs() < 1e-12);
            let cubic = 3.0 * x * x - 2.0 * x * x * x;
            assert!((incomplete_beta(2.0, 2.0, x) - cubic).abs() < 1e-12);
            let mirrored = 1.0 - incomplete_beta(0.5, 7.0, 1.0 - x);
            assert!((incomplete_beta(7.0, 0.5, x) - mirrored).abs() < 1e-12);
        }
    }

    /// The printed tables of the t distribution, 97.5 % and 99.5 % points.
    #[test]
    fn critical_values_are_those_of_the_tables() {
        for (freedom, p95, p99) in [
            (1.0, 12.706, 63.657),
            (2.0, 4.303, 9.925),
            (5.0, 2.571, 4.032),
            (10.0, 2.228, 3.169),
            (30.0, 2.042, 2.750),
            (120.0, 1.980, 2.617),
            (1e6, 1.960, 2.576),
        ] {
            assert!((critical(0.05, freedom) - p95).abs() < 6e-4, "{freedom}");
            assert!((critical(0.01, freedom) - p99).abs() < 6e-4, "{freedom}");
        }
    }

    /// With one degree of freedom it is Cauchy's law, with two p is 1 - t / sqrt(2 + t²).
    #[test]
    fn probabilities_have_their_closed_forms() {
        for t in [0.0_f64, 0.3, 1.0, 4.0, 100.0] {
            let cauchy = 1.0 - 2.0 / std::f64::consts::PI * t.atan();
            assert!((two_sided(t, 1.0) - cauchy).abs() < 1e-12, "{t}");
            let two = 1.0 - t / (2.0 + t * t).sqrt();
            assert!((two_sided(t, 2.0) - two).abs() < 1e-12, "{t}");
            assert_eq!(two_sided(t, 7.0), two_sided(-t, 7.0));
        }
        assert_eq!(two_sided(f64::INFINITY, 3.0), 0.0);
        assert_eq!(two_sided(f64::NAN, 3.0), 1.0);
    }
}

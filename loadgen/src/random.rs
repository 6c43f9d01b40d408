//! Random numbers that two runs with the same seed draw alike: SplitMix64, as a stream and as a
//! function of a place.
//!
//! Not for secrets. Its quality is enough for arrival times and for sizes of requests: the tests of
//! [`crate::timetable`] hold its exponential gaps against the law.

/// The odd constant by which the state walks: 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mixed(self.0)
    }

    /// Exponentially distributed with mean 1.
    pub(crate) fn exponential(&mut self) -> f64 {
        exponential(self.next())
    }
}

/// The number that belongs to the place (`row`, `column`): the same whenever it is asked for, so
/// that what was sent need not be kept.
pub(crate) fn at(seed: u64, row: u64, column: u64) -> u64 {
    let row = mixed(seed.wrapping_add(row.wrapping_mul(STEP)));
    mixed(row.wrapping_add(column.wrapping_mul(STEP)))
}

/// A random number as a share: above 0, at most 1.
pub(crate) fn share(random: u64) -> f64 {
    // 53 bits are what an f64 holds exactly.
    ((random >> 11) + 1) as f64 / (1_u64 << 53) as f64
}

/// A random number as an exponentially distributed one with mean 1.
pub(crate) fn exponential(random: u64) -> f64 {
    -share(random).ln()
}

fn mixed(state: u64) -> u64 {
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::{Random, at, share};

    /// The reference values of SplitMix64 for seed 1234567.
    #[test]
    fn stream_is_that_of_the_reference() {
        let mut random = Random::new(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(
            drawn,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn shares_stay_above_0_and_reach_1() {
        assert!(share(0) > 0.0);
        assert_eq!(share(u64::MAX), 1.0);
    }

    #[test]
    fn place_has_one_number_and_neighbours_have_others() {
        assert_eq!(at(1, 2, 3), at(1, 2, 3));
        assert_ne!(at(1, 2, 3), at(1, 3, 2));
        assert_ne!(at(1, 2, 3), at(2, 2, 3));
    }
}

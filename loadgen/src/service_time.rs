//! How long a `tcp-spin` server shall work on a request: `500us`, `fixed:500us`, `exp:500us`,
//! `bimodal:100us,20ms,0.01`.
//!
//! Such a request is 16 bytes: a number, then the nanoseconds of work, both as little-endian `u64`.
//! The answer is the same 16 bytes, when the work is done.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::random;

/// Bytes of a request that asks for work.
pub(crate) const REQUEST_BYTES: usize = 16;
/// Longest mean: a request of an hour is a typing error.
const LONGEST: Duration = Duration::from_secs(60);

/// The law of the service times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ServiceTime {
    Fixed(Duration),
    /// Exponential with this mean.
    Exponential(Duration),
    /// The first, or with the given probability the second.
    Bimodal(Duration, Duration, f64),
}

impl ServiceTime {
    /// Draws with a random number.
    pub(crate) fn draw(&self, random: u64) -> Duration {
        match *self {
            ServiceTime::Fixed(time) => time,
            ServiceTime::Exponential(mean) => mean.mul_f64(random::exponential(random)),
            ServiceTime::Bimodal(often, seldom, probability) => {
                if random::share(random) <= probability {
                    seldom
                } else {
                    often
                }
            }
        }
    }

    pub(crate) fn mean(&self) -> Duration {
        match *self {
            ServiceTime::Fixed(time) | ServiceTime::Exponential(time) => time,
            ServiceTime::Bimodal(often, seldom, probability) => {
                often.mul_f64(1.0 - probability) + seldom.mul_f64(probability)
            }
        }
    }
}

/// The bytes of request `id` that asks for `work`.
pub(crate) fn request(id: u64, work: Duration) -> [u8; REQUEST_BYTES] {
    let nanos = u64::try_from(work.as_nanos()).unwrap_or(u64::MAX);
    let mut bytes = [0; REQUEST_BYTES];
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    bytes[8..].copy_from_slice(&nanos.to_le_bytes());
    bytes
}

impl FromStr for ServiceTime {
    type Err = String;

    fn from_str(text: &str) -> Result<ServiceTime, String> {
        let wrong = |why: &str| {
            format!(
                "{text:?} is no service time{why}; use fixed:500us, exp:500us or \
                 bimodal:100us,20ms,0.01 (at most {LONGEST:?})"
            )
        };
        let time = |word: &str| {
            let time =
                humantime::parse_duration(word.trim()).map_err(|e| wrong(&format!(": {e}")))?;
            if time > LONGEST {
                return Err(wrong(": it is too long"));
            }
            Ok(time)
        };
        let (law, rest) = text.split_once(':').unwrap_or(("fixed", text));
        let words: Vec<&str> = rest.split(',').collect();
        match (law, words.as_slice()) {
            ("fixed", [fixed]) => Ok(ServiceTime::Fixed(time(fixed)?)),
            ("exp", [mean]) => Ok(ServiceTime::Exponential(time(mean)?)),
            ("bimodal", [often, seldom, probability]) => {
                let probability = probability.trim().parse().ok();
                match probability.filter(|p| (0.0..=1.0).contains(p)) {
                    Some(p) => Ok(ServiceTime::Bimodal(time(often)?, time(seldom)?, p)),
                    None => Err(wrong(": the probability is from 0 to 1")),
                }
            }
            _ => Err(wrong("")),
        }
    }
}

impl fmt::Display for ServiceTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = humantime::format_duration;
        match self {
            ServiceTime::Fixed(fixed) => write!(f, "fixed:{}", time(*fixed)),
            ServiceTime::Exponential(mean) => write!(f, "exp:{}", time(*mean)),
            ServiceTime::Bimodal(often, seldom, probability) => {
                write!(
                    f,
                    "bimodal:{},{},{probability}",
                    time(*often),
                    time(*seldom)
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ServiceTime, request};
    use crate::random::Random;

    #[test]
    fn laws_are_read_and_written_back() {
        for text in ["fixed:500us", "exp:2ms", "bimodal:100us,20ms,0.01"] {
            let law: ServiceTime = text.parse().expect(text);
            assert_eq!(law.to_string(), text);
        }
        assert_eq!(
            "1ms".parse(),
            Ok(ServiceTime::Fixed(Duration::from_millis(1)))
        );
        for text in [
            "",
            "exp",
            "gauss:1ms",
            "exp:1h",
            "bimodal:1ms,2ms",
            "bimodal:1ms,2ms,1.5",
        ] {
            let error = text.parse::<ServiceTime>().expect_err(text);
            assert!(error.contains("bimodal:100us,20ms,0.01"), "{text}: {error}");
        }
    }

    /// 200,000 draws: four standard errors of an exponential mean are 0.9 %, of this bimodal one
    /// 4.5 %.
    #[test]
    fn drawn_times_have_the_mean_of_their_law() {
        for (text, slack) in [
            ("fixed:3us", 0.0),
            ("exp:500us", 0.009),
            ("bimodal:100us,20ms,0.01", 0.06),
        ] {
            let law: ServiceTime = text.parse().expect(text);
            let mut random = Random::new(7);
            let n = 200_000;
            let sum: f64 = (0..n).map(|_| law.draw(random.next()).as_secs_f64()).sum();
            let off = sum / f64::from(n) / law.mean().as_secs_f64() - 1.0;
            assert!(off.abs() <= slack + 1e-9, "{text}: {off}");
        }
    }

    #[test]
    fn request_holds_number_and_nanoseconds_little_endian() {
        let bytes = request(0x0102, Duration::from_nanos(0x0304));
        assert_eq!(bytes, [2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0]);
    }
}

//! Quantities as people write and read them: sizes, spans of time, rates, counts.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A number of bytes: `64`, `4KiB`, `4k`, `1MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) usize);

/// Units a size may be written in, with what each stands for.
const SIZE_UNITS: [(&str, usize); 8] = [
    ("", 1),
    ("b", 1),
    ("k", 1024),
    ("kib", 1024),
    ("kb", 1000),
    ("m", 1024 * 1024),
    ("mib", 1024 * 1024),
    ("mb", 1_000_000),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim().to_ascii_lowercase();
        let wrong =
            || format!("{text:?} is not a size; use bytes or a unit, such as 64, 4KiB or 1MiB");
        let number: usize = number.parse().map_err(|_| wrong())?;
        let (_, factor) = SIZE_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?;
        number.checked_mul(*factor).map(Size).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n >= 1 << 20 && n % (1 << 20) == 0 => write!(f, "{} MiB", n >> 20),
            n if n >= 1 << 10 && n % (1 << 10) == 0 => write!(f, "{} KiB", n >> 10),
            n => write!(f, "{n} B"),
        }
    }
}

/// A range of sizes, both ends included: `64`, or `64..4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sizes {
    pub(crate) least: usize,
    pub(crate) most: usize,
}

impl Sizes {
    pub(crate) fn exactly(size: usize) -> Sizes {
        Sizes {
            least: size,
            most: size,
        }
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Sizes, String> {
        let (least, most) = text.split_once("..").unwrap_or((text, text));
        let sizes = Sizes {
            least: least.parse::<Size>()?.0,
            most: most.parse::<Size>()?.0,
        };
        if sizes.least > sizes.most {
            return Err(format!(
                "{text:?} is no range of sizes: {} is more than {}",
                Size(sizes.least),
                Size(sizes.most)
            ));
        }
        Ok(sizes)
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.least == self.most {
            return Size(self.least).fmt(f);
        }
        write!(f, "{} to {}", Size(self.least), Size(self.most))
    }
}

/// A span of time: `10s`, `1m 30s`, `500us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        humantime::parse_duration(text).map(Span).map_err(|e| {
            format!("{text:?} is no span of time: {e}; use a number and its unit, such as 500us, 10s or 1m")
        })
    }
}

/// How many a second: `200`, `50k`, `1.5M`, `50k/s`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate(pub(crate) f64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        let number = text.trim().trim_end_matches("/s");
        let (number, factor) = match number.char_indices().last() {
            Some((at, 'k' | 'K')) => (&number[..at], 1e3),
            Some((at, 'M')) => (&number[..at], 1e6),
            _ => (number, 1.0),
        };
        match number.trim().parse::<f64>() {
            Ok(n) if n.is_finite() && n >= 0.0 => Ok(Rate(n * factor)),
            _ => Err(format!(
                "{text:?} is no rate; use requests a second, such as 200, 50k or 1.5M"
            )),
        }
    }
}

/// A span with four digits and the unit that suits it: `12.35 us`, `1.002 s`.
pub(crate) fn span(nanos: f64) -> String {
    let (value, unit) = match nanos {
        n if n < 1e3 => return format!("{n:.0} ns"),
        n if n < 1e6 => (n / 1e3, "us"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    format!("{} {unit}", four_digits(value))
}

/// [`span`] of a [`Duration`].
pub(crate) fn duration(span_of: Duration) -> String {
    span(span_of.as_nanos() as f64)
}

/// A round span for an axis: `200 us`, `1.5 s`, `0`.
pub(crate) fn tick(nanos: f64) -> String {
    let (value, unit) = match nanos {
        n if n < 0.5 => return "0".to_owned(),
        n if n < 999.5 => (n, "ns"),
        n if n < 999.5e3 => (n / 1e3, "us"),
        n if n < 999.5e6 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    format!("{} {unit}", trimmed(value))
}

/// A round number for an axis: `20k`, `1.5M`.
pub(crate) fn short_count(n: f64) -> String {
    match n {
        n if n < 999.5 => trimmed(n),
        n if n < 999.5e3 => format!("{}k", trimmed(n / 1e3)),
        n => format!("{}M", trimmed(n / 1e6)),
    }
}

/// Two decimals at most.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// How many bytes a second: `7.530 MB/s`.
pub(crate) fn throughput(bytes: u64, over: Duration) -> String {
    let rate = per_second(bytes, over);
    let (value, unit) = match rate {
        r if r < 1e3 => (r, "B/s"),
        r if r < 1e6 => (r / 1e3, "kB/s"),
        r if r < 1e9 => (r / 1e6, "MB/s"),
        r => (r / 1e9, "GB/s"),
    };
    format!("{} {unit}", four_digits(value))
}

/// How many a second; 0 over no time at all.
pub(crate) fn per_second(n: u64, over: Duration) -> f64 {
    if over.is_zero() {
        0.0
    } else {
        n as f64 / over.as_secs_f64()
    }
}

/// `1 234 567`: digits in groups of three.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

fn four_digits(value: f64) -> String {
    let decimals = match value {
        v if v < 9.9995 => 3,
        v if v < 99.995 => 2,
        v if v < 999.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Rate, Size, Sizes, Span, count, short_count, span, throughput, tick};

    #[test]
    fn sizes_are_read_with_and_without_unit() {
        for (text, bytes) in [
            ("64", 64),
            ("4KiB", 4096),
            ("4k", 4096),
            ("2 kB", 2000),
            ("1MiB", 1 << 20),
            ("7B", 7),
        ] {
            assert_eq!(text.parse::<Size>(), Ok(Size(bytes)), "{text}");
        }
        for text in [
            "",
            "KiB",
            "-1",
            "1.5k",
            "4 potatoes",
            "99999999999999999999",
            "9999999999999999MiB",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn size_ranges_have_two_ends_in_order() {
        let range = Sizes {
            least: 64,
            most: 4096,
        };
        assert_eq!("64..4KiB".parse(), Ok(range));
        assert_eq!("64".parse(), Ok(Sizes::exactly(64)));
        assert_eq!(range.to_string(), "64 B to 4 KiB");
        for (text, part) in [
            ("4096..64", "4 KiB is more than 64 B"),
            ("64..", "not a size"),
            ("..64", "not a size"),
            ("1..2..3", "not a size"),
        ] {
            let error = text.parse::<Sizes>().expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn rates_and_spans_are_read_with_their_units() {
        for (text, rate) in [
            ("200", 200.0),
            ("50k", 50e3),
            ("1.5M", 1.5e6),
            ("2k/s", 2e3),
        ] {
            assert_eq!(text.parse(), Ok(Rate(rate)), "{text}");
        }
        for text in ["", "k", "-1", "fast", "1G", "inf"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        assert_eq!("500us".parse(), Ok(Span(Duration::from_micros(500))));
        assert!("10".parse::<Span>().is_err());
    }

    #[test]
    fn spans_keep_four_digits() {
        for (nanos, text) in [
            (0.0, "0 ns"),
            (999.0, "999 ns"),
            (12_345.0, "12.35 us"),
            (999_960.0, "1000 us"),
            (1_000_000.0, "1.000 ms"),
            (1.002e9, "1.002 s"),
            (3.6e12, "3600 s"),
        ] {
            assert_eq!(span(nanos), text);
        }
    }

    #[test]
    fn ticks_are_short() {
        let spans = [0.0, 1.0, 500.0, 1e3, 2e5, 1e6, 1.5e9, 2e10];
        let words = [
            "0", "1 ns", "500 ns", "1 us", "200 us", "1 ms", "1.5 s", "20 s",
        ];
        assert_eq!(spans.map(tick), words);
        let counts = [0.0, 0.5, 200.0, 1e3, 2.5e4, 1e6];
        assert_eq!(
            counts.map(short_count),
            ["0", "0.5", "200", "1k", "25k", "1M"]
        );
    }

    #[test]
    fn counts_are_grouped_and_throughput_has_a_unit() {
        assert_eq!(
            (count(0), count(999), count(1_234_567)),
            ("0".into(), "999".into(), "1 234 567".into())
        );
        assert_eq!(throughput(7_530_000, Duration::from_secs(1)), "7.530 MB/s");
        assert_eq!(throughput(5, Duration::ZERO), "0.000 B/s");
    }
}

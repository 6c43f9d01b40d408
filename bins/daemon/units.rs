//! Sizes and durations as people write them: `64KiB`, `10s`, `1m 30s`.
//!
//! Durations are humantime's; sizes are read here, because there are four units of them. Powers of ten
//! (`kB`) are not offered: every size of the daemon is a buffer. What is printed reads back as the
//! same value.

use std::fmt;

/// Units from the largest, so that printing finds the largest that divides.
const UNITS: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// Reads `64KiB`, `64 KiB` or `65536B`; `None` when the unit is missing, unknown or too large.
    pub(crate) fn parse(text: &str) -> Option<ByteSize> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = &text[digits.len()..];
        let digits = digits.trim_end();
        // `u64::from_str` would take a leading plus sign.
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let (_, scale) = UNITS.iter().find(|(known, _)| *known == unit)?;
        digits
            .parse::<u64>()
            .ok()?
            .checked_mul(*scale)
            .map(ByteSize)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |scale: u64| self.0 >= scale && self.0.is_multiple_of(scale);
        let (unit, scale) = UNITS
            .iter()
            .find(|(_, scale)| fits(*scale))
            .unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / scale)
    }
}

#[cfg(test)]
mod tests {
    use crate::units::ByteSize;

    #[test]
    fn printed_size_reads_back_as_the_same_size() {
        for bytes in [0, 1, 1023, 1024, 65_536, 65_537, 3 << 20, 5 << 30, u64::MAX] {
            let size = ByteSize(bytes);
            assert_eq!(
                ByteSize::parse(&size.to_string()),
                Some(size),
                "printed as {size}"
            );
        }
        assert_eq!(ByteSize(65_536).to_string(), "64KiB");
    }

    #[test]
    fn size_without_a_known_unit_is_refused() {
        for text in [
            "",
            "64",
            "KiB",
            "64xB",
            "64KB",
            "64kib",
            "-1B",
            "1.5KiB",
            "6 4B",
            "99999999999GiB",
        ] {
            assert_eq!(ByteSize::parse(text), None, "{text:?}");
        }
        assert_eq!(ByteSize::parse("64 KiB"), Some(ByteSize(65_536)));
    }
}

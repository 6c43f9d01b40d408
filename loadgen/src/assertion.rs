//! Conditions on the result: `p99.9<2ms`, `rate>=45k`, `loss==0`, `loss<0.1%`.
//!
//! `--assert` checks them after a run; `find-max` searches with them.

use std::fmt;
use std::str::FromStr;

use crate::quantity::{Rate, Span, span};

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Metric {
    Min,
    Mean,
    Percentile(f64),
    Max,
    Rate,
    Errors,
    Loss,
    Late,
    Dup,
    Reorder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Less,
    AtMost,
    Greater,
    AtLeast,
    Equal,
    Unequal,
}

/// Longer signs first, so that `<=` is not read as `<`.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("==", Comparison::Equal),
    ("!=", Comparison::Unequal),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

/// What a metric is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    /// Nanoseconds, requests a second, or a count.
    Value(f64),
    /// Part of the requests sent.
    Share(f64),
}

/// One condition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Assertion {
    text: String,
    metric: Metric,
    comparison: Comparison,
    limit: Limit,
}

/// What a condition is held against.
pub(crate) trait Measured {
    /// Nanoseconds, requests a second, or a count; none when there is nothing to tell from.
    fn value(&self, metric: Metric) -> Option<f64>;
    /// Requests sent.
    fn n_sent(&self) -> u64;
}

/// Whether a condition holds, and why.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Checked {
    pub(crate) condition: String,
    pub(crate) holds: bool,
    /// What was measured, in words.
    pub(crate) measured: String,
}

impl Assertion {
    /// Holds the condition against a result. Nothing measured fulfils no condition.
    pub(crate) fn check(&self, result: &impl Measured) -> Checked {
        let value = result.value(self.metric);
        let holds = value.is_some_and(|value| match self.limit {
            Limit::Value(limit) => self.compare(value, limit),
            Limit::Share(share) => self.compare(value, share * result.n_sent() as f64),
        });
        let measured = value.map_or("nothing was measured".to_owned(), |value| self.show(value));
        Checked {
            condition: self.text.clone(),
            holds,
            measured,
        }
    }

    fn compare(&self, value: f64, limit: f64) -> bool {
        match self.comparison {
            Comparison::Less => value < limit,
            Comparison::AtMost => value <= limit,
            Comparison::Greater => value > limit,
            Comparison::AtLeast => value >= limit,
            Comparison::Equal => value == limit,
            Comparison::Unequal => value != limit,
        }
    }

    fn show(&self, value: f64) -> String {
        match self.metric {
            Metric::Min | Metric::Mean | Metric::Percentile(_) | Metric::Max => span(value),
            Metric::Rate => format!("{value:.1}/s"),
            _ => format!("{value}"),
        }
    }
}

impl Metric {
    fn is_latency(self) -> bool {
        matches!(
            self,
            Metric::Min | Metric::Mean | Metric::Percentile(_) | Metric::Max
        )
    }

    /// Whether it exists only where requests are datagrams.
    fn is_of_datagrams(self) -> bool {
        matches!(
            self,
            Metric::Loss | Metric::Late | Metric::Dup | Metric::Reorder
        )
    }
}

impl Assertion {
    /// Whether it can be held against streams too.
    pub(crate) fn is_of_datagrams(&self) -> bool {
        self.metric.is_of_datagrams()
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(text: &str) -> Result<Metric, String> {
        let metric = match text {
            "min" => Metric::Min,
            "mean" => Metric::Mean,
            "max" => Metric::Max,
            "rate" => Metric::Rate,
            "errors" => Metric::Errors,
            "loss" => Metric::Loss,
            "late" => Metric::Late,
            "dup" => Metric::Dup,
            "reorder" => Metric::Reorder,
            _ => {
                let number = text.strip_prefix('p').and_then(|n| n.parse().ok());
                match number.filter(|p| (0.0..=100.0).contains(p)) {
                    Some(percentile) => Metric::Percentile(percentile),
                    None => {
                        return Err(format!(
                            "{text:?} is no metric; use min, mean, p50, p99.9, max, rate, \
                             errors, loss, late, dup or reorder"
                        ));
                    }
                }
            }
        };
        Ok(metric)
    }
}

impl FromStr for Assertion {
    type Err = String;

    fn from_str(text: &str) -> Result<Assertion, String> {
        let found = COMPARISONS
            .iter()
            .filter_map(|(sign, comparison)| Some((text.find(sign)?, sign, *comparison)))
            // The first sign in the text; of two at one place the longer, which stands first.
            .min_by_key(|(at, ..)| *at);
        let Some((at, sign, comparison)) = found else {
            return Err(format!(
                "{text:?} compares nothing; use a metric, one of < <= > >= == !=, and a limit, \
                 such as 'p99<1ms'"
            ));
        };
        let metric: Metric = text[..at].trim().parse()?;
        Ok(Assertion {
            limit: limit(metric, text[at + sign.len()..].trim())?,
            text: text.to_owned(),
            metric,
            comparison,
        })
    }
}

fn limit(metric: Metric, text: &str) -> Result<Limit, String> {
    if metric.is_latency() {
        let Span(limit) = text.parse()?;
        return Ok(Limit::Value(limit.as_nanos() as f64));
    }
    if metric == Metric::Rate {
        let Rate(limit) = text.parse()?;
        return Ok(Limit::Value(limit));
    }
    let (number, is_share) = match text.strip_suffix('%') {
        Some(number) => (number.trim(), true),
        None => (text, false),
    };
    let number: f64 = number
        .parse()
        .ok()
        .filter(|n: &f64| n.is_finite() && *n >= 0.0)
        .ok_or_else(|| format!("{text:?} is no count; use a number or a share such as 0.1%"))?;
    Ok(if is_share {
        Limit::Share(number / 100.0)
    } else {
        Limit::Value(number)
    })
}

impl fmt::Display for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::{Assertion, Measured, Metric};

    /// A latency of 1.5 ms everywhere, 50,000/s, 10 of 1,000 lost.
    struct Fixed;

    impl Measured for Fixed {
        fn value(&self, metric: Metric) -> Option<f64> {
            match metric {
                Metric::Rate => Some(50_000.0),
                Metric::Loss => Some(10.0),
                Metric::Errors | Metric::Late | Metric::Dup | Metric::Reorder => Some(0.0),
                Metric::Max => None,
                _ => Some(1.5e6),
            }
        }

        fn n_sent(&self) -> u64 {
            1000
        }
    }

    #[test]
    fn conditions_hold_or_fail_at_their_limit() {
        for (text, holds) in [
            ("p99.9<2ms", true),
            ("p99.9<1500us", false),
            ("p99.9 <= 1500us", true),
            ("mean>1ms", true),
            ("min>=2ms", false),
            ("rate>=50k", true),
            ("rate>50k", false),
            ("errors==0", true),
            ("errors!=0", false),
            ("loss==0", false),
            ("loss<=1%", true),
            ("loss<1%", false),
            ("dup == 0", true),
            ("max<1s", false),
        ] {
            let assertion: Assertion = text.parse().expect(text);
            assert_eq!(assertion.check(&Fixed).holds, holds, "{text}");
        }
    }

    #[test]
    fn result_of_a_check_says_what_was_measured() {
        let assertion: Assertion = "p99<1ms".parse().expect("a condition");
        let checked = assertion.check(&Fixed);
        assert_eq!(
            (checked.condition.as_str(), checked.measured.as_str()),
            ("p99<1ms", "1.500 ms")
        );
        let nothing: Assertion = "max<1ms".parse().expect("a condition");
        assert_eq!(nothing.check(&Fixed).measured, "nothing was measured");
    }

    #[test]
    fn bad_conditions_say_what_is_allowed() {
        for (text, part) in [
            ("p99", "compares nothing"),
            ("p101<1ms", "is no metric"),
            ("median<1ms", "use min, mean"),
            ("p99<fast", "span of time"),
            ("rate>many", "is no rate"),
            ("loss<-1", "is no count"),
            ("loss<x%", "is no count"),
        ] {
            let error = text.parse::<Assertion>().expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}

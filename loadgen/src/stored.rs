//! How histograms and spans of time stand in `run.json`: readable without any library, and read
//! back without loss.
//!
//! A histogram is a list of `[value, count]`, values in nanoseconds, each the lowest of its bucket.
//! A span is a number of seconds.

/// A histogram of [`new_histogram`](crate::interval::new_histogram)'s shape.
pub(crate) mod histogram {
    use hdrhistogram::Histogram;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::interval::new_histogram;

    pub(crate) fn serialize<S: Serializer>(
        histogram: &Histogram<u64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(histogram.iter_recorded().map(|bucket| {
            let lowest = histogram.lowest_equivalent(bucket.value_iterated_to());
            (lowest, bucket.count_at_value())
        }))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Histogram<u64>, D::Error> {
        let mut histogram = new_histogram();
        for (value, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            histogram.saturating_record_n(value, count);
        }
        Ok(histogram)
    }
}

/// A histogram that may be missing.
pub(crate) mod histogram_option {
    use hdrhistogram::Histogram;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Stored(#[serde(with = "super::histogram")] Histogram<u64>);

    pub(crate) fn serialize<S: Serializer>(
        histogram: &Option<Histogram<u64>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        // A clone once a run costs less than a second form of the list.
        histogram.clone().map(Stored).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Histogram<u64>>, D::Error> {
        Ok(Option::<Stored>::deserialize(deserializer)?.map(|stored| stored.0))
    }
}

/// What is written as on the command line.
pub(crate) mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(crate) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// The same, where it may be missing.
pub(crate) mod text_option {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<T: Display, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(T::to_string).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom))
            .transpose()
    }
}

/// A span of time.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        span: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(span.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::{Deserialize, Serialize};

    use crate::interval::{SampleKinds, Samples};

    #[derive(Serialize, Deserialize)]
    struct Stored {
        samples: Samples,
        #[serde(with = "super::seconds")]
        span: Duration,
    }

    #[test]
    fn histograms_and_spans_are_read_back_without_loss() {
        let kinds = SampleKinds {
            open: true,
            connect: true,
        };
        let mut samples = Samples::new(kinds);
        for value in [0, 1, 2047, 123_456, 987_654_321, 3_599_000_000_000] {
            samples.latency.saturating_record_n(value, value % 7 + 1);
        }
        let stored = Stored {
            samples,
            span: Duration::from_millis(1500),
        };
        let text = serde_json::to_string(&stored).expect("plain data");
        let read: Stored = serde_json::from_str(&text).expect("what was just written");
        assert_eq!(read.samples.latency, stored.samples.latency);
        assert_eq!(read.span, stored.span);
        assert!(read.samples.connect.is_some_and(|h| h.is_empty()));
        assert!(text.contains("\"span\":1.5"), "{text}");
    }
}

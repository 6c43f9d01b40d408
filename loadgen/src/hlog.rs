//! `run.hlog`: an HdrHistogram interval log, one line for each interval of the measured phase and
//! each of its histograms, written as the run goes on.
//!
//! Histograms are V2 with deflate, in nanoseconds, as are the maxima. The result, latency from the
//! intended send, carries no tag: tools that read such logs take untagged lines as the result. The
//! others are tagged [as their interval says](crate::interval::Samples::tagged). The warm-up is
//! left out.

use std::io::{self, Write};
use std::time::{Instant, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};

use crate::interval::Interval;

/// An interval log that is being written.
pub(crate) struct Hlog<W: Write> {
    out: W,
    serializer: V2DeflateSerializer,
    /// Zero of the first column: when the first interval began.
    zero: Option<Instant>,
}

impl<W: Write> Hlog<W> {
    pub(crate) fn new(out: W) -> Hlog<W> {
        Hlog {
            out,
            serializer: V2DeflateSerializer::new(),
            zero: None,
        }
    }

    pub(crate) fn out(&self) -> &W {
        &self.out
    }

    /// Ends the log.
    pub(crate) fn into_out(self) -> W {
        self.out
    }

    /// Adds one interval, after the header if it is the first.
    pub(crate) fn write(&mut self, interval: &Interval) -> io::Result<()> {
        // A builder without header lines writes nothing of its own. One is made for each interval,
        // because a writer borrows file and serializer for as long as it lives.
        let mut builder = IntervalLogWriterBuilder::new();
        if self.zero.is_none() {
            let began = SystemTime::now() - interval.from.elapsed();
            builder
                .add_comment(
                    "latency from the intended send to the whole echo received; values and maxima \
                 in nanoseconds",
                )
                .with_start_time(began)
                .with_base_time(began);
        }
        let zero = *self.zero.get_or_insert(interval.from);
        let from = interval.from.saturating_duration_since(zero);
        let mut writer = builder.begin_log_with(&mut self.out, &mut self.serializer)?;
        for (tag, histogram) in interval.samples.tagged() {
            let tag = tag.map(|tag| Tag::new(tag).expect("tags are words without separators"));
            writer
                .write_histogram(histogram, from, interval.span(), tag)
                .map_err(|error| match error {
                    IntervalLogWriterError::IoError(error) => error,
                    IntervalLogWriterError::SerializeError(error) => {
                        io::Error::other(error.to_string())
                    }
                })?;
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::Hlog;
    use crate::interval::{Interval, Phase, SampleKinds, Samples};

    #[test]
    fn header_comes_once_and_times_count_from_the_first_interval() {
        let start = Instant::now();
        let mut out = Vec::new();
        let mut log = Hlog::new(&mut out);
        for second in 0..3 {
            let from = start + Duration::from_secs(second);
            let mut interval =
                Interval::new(Phase::Measured, from, Samples::new(SampleKinds::default()));
            interval.to = from + Duration::from_millis(1000 + second);
            log.write(&interval).expect("a Vec takes everything");
        }
        let entries: Vec<_> = IntervalLogIterator::new(&out)
            .map(|e| e.expect("a log that can be read"))
            .collect();
        let times: Vec<_> = entries
            .iter()
            .filter_map(|entry| match entry {
                LogEntry::Interval(i) => {
                    Some((i.start_timestamp().as_secs(), i.duration().as_millis()))
                }
                _ => None,
            })
            .collect();
        assert_eq!(times, [(0, 1000), (1, 1001), (2, 1002)]);
        assert_eq!(entries.len(), 5, "start time, base time, three intervals");
    }

    #[test]
    fn histograms_beside_the_result_have_a_tag_each() {
        let kinds = SampleKinds {
            open: true,
            connect: true,
        };
        let mut out = Vec::new();
        let mut interval = Interval::new(Phase::Measured, Instant::now(), Samples::new(kinds));
        interval.samples.latency.saturating_record(7);
        Hlog::new(&mut out)
            .write(&interval)
            .expect("a Vec takes everything");
        let tags: Vec<_> = IntervalLogIterator::new(&out)
            .filter_map(|entry| match entry.expect("a log that can be read") {
                LogEntry::Interval(i) => Some(i.tag().map(|tag| tag.as_str().to_owned())),
                _ => None,
            })
            .collect();
        let tags: Vec<_> = tags.iter().map(Option::as_deref).collect();
        let expected = ["real-send", "send-lag", "own-lag", "connect"].map(Some);
        assert_eq!(tags[0], None);
        assert_eq!(tags[1..], expected);
    }
}

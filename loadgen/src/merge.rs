//! `loadgen merge`: interval logs of several generators, or machines, into one, interval by interval.
//!
//! Intervals are put together by the wall clock of their logs, so generators that began together
//! (`--start-at`) have a common timeline. Histograms are added bucket by bucket: the merged
//! percentiles are those of all requests, which no average of percentiles would be. Nothing is left
//! out: what lies between two intervals goes to the nearer one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag,
};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};

use crate::new_file::NewFile;
use crate::quantity::{count, duration, span};
use crate::report::latency_rows;

/// Part by which the intervals of two logs may differ in length.
const LENGTH_SLACK: f64 = 0.1;
/// Part of an interval by which logs may be apart without a word about it.
const OFFSET_SLACK: f64 = 0.1;

/// One line of a log.
#[derive(Clone, Debug)]
struct Entry {
    /// Since 1970 where the log says when it began, otherwise since the log began.
    from: Duration,
    span: Duration,
    tag: Option<String>,
    histogram: Histogram<u64>,
}

/// A log that was read.
#[derive(Debug)]
struct Log {
    name: String,
    has_clock: bool,
    entries: Vec<Entry>,
}

/// The histograms of one interval; the result, which has no tag, stands first.
#[derive(Debug)]
struct Slot {
    from: Duration,
    to: Duration,
    histograms: BTreeMap<Option<String>, Histogram<u64>>,
}

/// Several logs as one.
#[derive(Debug)]
pub(crate) struct Merged {
    n_logs: usize,
    /// Since 1970, if every log said when it began.
    began: Option<Duration>,
    zero: Duration,
    slots: BTreeMap<u64, Slot>,
    notes: Vec<String>,
}

/// Reads logs and writes their sum to `out`, which must not be there yet: a forgotten first
/// argument would otherwise cost a log.
pub(crate) fn merge(out: &Path, logs: &[PathBuf]) -> Result<Merged, String> {
    if out.exists() {
        return Err(format!(
            "{} exists and is not overwritten: name a new file first, then the logs to merge",
            out.display()
        ));
    }
    for (index, log) in logs.iter().enumerate() {
        if logs[..index].contains(log) {
            return Err(format!(
                "{} is named twice, and would count twice",
                log.display()
            ));
        }
    }
    let logs = logs.iter().map(|path| Log::read(path));
    let merged = Merged::of(&logs.collect::<Result<Vec<Log>, String>>()?)?;
    let mut file = NewFile::begin(out)?;
    merged.write(&mut file).map_err(|e| file.failed(&e))?;
    file.complete()?;
    Ok(merged)
}

impl Log {
    fn read(path: &Path) -> Result<Log, String> {
        let name = path.display().to_string();
        let bytes = fs::read(path).map_err(|e| format!("cannot read {name}: {e}"))?;
        Log::parse(&name, &bytes)
    }

    fn parse(name: &str, bytes: &[u8]) -> Result<Log, String> {
        let line_of = |offset: usize| bytes[..offset].iter().filter(|b| **b == b'\n').count() + 1;
        let mut base = None;
        let mut entries = Vec::new();
        for entry in IntervalLogIterator::new(bytes) {
            let entry = entry.map_err(|error| {
                let hdrhistogram::serialization::interval_log::LogIteratorError::ParseError {
                    offset,
                } = error;
                format!(
                    "{name}: line {} is no line of an interval log",
                    line_of(offset)
                )
            })?;
            let LogEntry::Interval(interval) = entry else {
                if let LogEntry::BaseTime(time) | LogEntry::StartTime(time) = entry {
                    base.get_or_insert(time);
                }
                continue;
            };
            let histogram = decode(interval.encoded_histogram())
                .map_err(|error| format!("{name}: histogram {}: {error}", entries.len() + 1))?;
            entries.push(Entry {
                from: base.unwrap_or_default() + interval.start_timestamp(),
                span: interval.duration(),
                tag: interval.tag().map(|tag| tag.as_str().to_owned()),
                histogram,
            });
        }
        if entries.is_empty() {
            return Err(format!("{name} holds no interval"));
        }
        Ok(Log {
            name: name.to_owned(),
            has_clock: base.is_some(),
            entries,
        })
    }

    fn began(&self) -> Duration {
        let starts = self.entries.iter().map(|entry| entry.from);
        starts.min().unwrap_or_default()
    }

    /// The length of most intervals: the last ones of a run are shorter.
    fn interval(&self) -> f64 {
        let mut spans: Vec<Duration> = self.entries.iter().map(|entry| entry.span).collect();
        spans.sort_unstable();
        spans[spans.len() / 2].as_secs_f64().max(1e-3)
    }
}

fn decode(text: &str) -> Result<Histogram<u64>, String> {
    let bytes = BASE64_STANDARD
        .decode(text)
        .map_err(|e| format!("is no base64: {e}"))?;
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|e| format!("is no HdrHistogram: {e}"))
}

impl Merged {
    fn of(logs: &[Log]) -> Result<Merged, String> {
        let Some(first) = logs.first() else {
            return Err("no log to merge".to_owned());
        };
        let interval = first.interval();
        let mut notes = Vec::new();
        let has_clock = logs.iter().all(|log| log.has_clock);
        if !has_clock {
            notes.push(
                "not every log says when it began: they are merged as if they had begun together"
                    .to_owned(),
            );
        }
        let zero = match has_clock {
            true => logs.iter().map(Log::began).min().unwrap_or_default(),
            false => Duration::ZERO,
        };
        let mut merged = Merged {
            n_logs: logs.len(),
            began: has_clock.then_some(zero),
            zero,
            slots: BTreeMap::new(),
            notes,
        };
        for log in logs {
            if (log.interval() / interval - 1.0).abs() > LENGTH_SLACK {
                return Err(format!(
                    "intervals of {:.3} s in {} and of {interval:.3} s in {}: measure with the same \
                     --interval",
                    log.interval(),
                    log.name,
                    first.name
                ));
            }
            merged.add(log, has_clock, interval)?;
        }
        Ok(merged)
    }

    fn add(&mut self, log: &Log, has_clock: bool, interval: f64) -> Result<(), String> {
        let own_zero = if has_clock { self.zero } else { log.began() };
        let late = log.began().saturating_sub(own_zero).as_secs_f64();
        let apart = (late / interval - (late / interval).round()).abs();
        if late > interval / 2.0 || apart > OFFSET_SLACK {
            self.notes.push(format!(
                "{} began {late:.3} s after the first: use --start-at to begin together",
                log.name
            ));
        }
        for entry in &log.entries {
            let from = entry.from.saturating_sub(own_zero);
            let index = (from.as_secs_f64() / interval).round() as u64;
            let slot = self.slots.entry(index).or_insert_with(|| Slot {
                from,
                to: from,
                histograms: BTreeMap::new(),
            });
            slot.from = slot.from.min(from);
            slot.to = slot.to.max(from + entry.span);
            match slot.histograms.get_mut(&entry.tag) {
                Some(sum) => sum
                    .add(&entry.histogram)
                    .map_err(|e| format!("{}: histograms cannot be added: {e}", log.name))?,
                None => {
                    let mut sum = entry.histogram.clone();
                    // Another program's histogram may reach further than ours.
                    sum.auto(true);
                    slot.histograms.insert(entry.tag.clone(), sum);
                }
            }
        }
        Ok(())
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut serializer = V2DeflateSerializer::new();
        let mut builder = IntervalLogWriterBuilder::new();
        builder.add_comment(&format!("merged from {} interval logs", self.n_logs));
        if let Some(began) = self.began {
            builder
                .with_start_time(UNIX_EPOCH + began)
                .with_base_time(UNIX_EPOCH + began);
        }
        let mut writer = builder.begin_log_with(out, &mut serializer)?;
        for slot in self.slots.values() {
            for (tag, histogram) in &slot.histograms {
                let tag = tag.as_deref().and_then(Tag::new);
                writer
                    .write_histogram(histogram, slot.from, slot.to - slot.from, tag)
                    .map_err(|error| io::Error::other(format!("{error:?}")))?;
            }
        }
        Ok(())
    }

    /// All intervals of one tag as one histogram.
    fn total(&self, tag: Option<&str>) -> Option<Histogram<u64>> {
        let mut found = self
            .slots
            .values()
            .filter_map(|slot| slot.histograms.get(&tag.map(str::to_owned)));
        let mut sum = found.next()?.clone();
        for histogram in found {
            sum += histogram;
        }
        Some(sum)
    }
}

impl Display for Merged {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let end = self.slots.values().map(|slot| slot.to).max();
        write!(
            f,
            "merged       {} logs, {} intervals over {}",
            self.n_logs,
            self.slots.len(),
            duration(end.unwrap_or_default())
        )?;
        if let Some(began) = self.began {
            let began = humantime::format_rfc3339_millis(UNIX_EPOCH + began);
            write!(f, ", from {began}")?;
        }
        let tags: BTreeSet<&Option<String>> = self
            .slots
            .values()
            .flat_map(|slot| slot.histograms.keys())
            .collect();
        writeln!(f)?;
        for tag in tags {
            let name = tag.as_deref().unwrap_or("result");
            if let Some(sum) = self.total(tag.as_deref()) {
                let rows: Vec<String> = latency_rows([&sum, &sum])
                    .into_iter()
                    .map(|(name, value, _)| format!("{name} {}", span(value)))
                    .collect();
                writeln!(
                    f,
                    "{name:<13}{} values: {}",
                    count(sum.len()),
                    rows.join(", ")
                )?;
            }
        }
        for note in &self.notes {
            writeln!(f, "note         {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Entry, Log, Merged};
    use crate::interval::new_histogram;

    /// A log of three intervals of a second and a short last one, each with one value of `micros`.
    fn log(name: &str, began_ms: u64, micros: u64) -> Log {
        let entry = |from_ms: u64, span_ms| {
            let mut histogram = new_histogram();
            histogram.saturating_record(micros * 1000);
            Entry {
                from: Duration::from_millis(began_ms + from_ms),
                span: Duration::from_millis(span_ms),
                tag: None,
                histogram,
            }
        };
        Log {
            name: name.to_owned(),
            has_clock: true,
            entries: vec![
                entry(0, 1000),
                entry(1000, 1000),
                entry(2000, 1000),
                entry(3000, 20),
            ],
        }
    }

    #[test]
    fn intervals_of_logs_that_began_together_are_added_one_by_one() {
        let merged = Merged::of(&[log("a", 50_000, 10), log("b", 50_003, 30)]).expect("alike");
        assert!(merged.notes.is_empty(), "{:?}", merged.notes);
        assert_eq!(merged.slots.len(), 4);
        for slot in merged.slots.values() {
            let sum = &slot.histograms[&None];
            assert_eq!((sum.len(), sum.min(), sum.max() / 100), (2, 10_000, 300));
        }
        assert_eq!(merged.slots[&0].to, Duration::from_millis(1003));
        assert_eq!(merged.began, Some(Duration::from_secs(50)));
    }

    #[test]
    fn log_that_began_later_keeps_its_place_and_is_named() {
        let merged = Merged::of(&[log("a", 0, 10), log("late", 2000, 30)]).expect("alike");
        let lens: Vec<u64> = merged
            .slots
            .values()
            .map(|slot| slot.histograms[&None].len())
            .collect();
        assert_eq!(lens, [1, 1, 2, 2, 1, 1]);
        assert!(merged.notes[0].contains("late began 2.000 s after"));
    }

    #[test]
    fn logs_without_a_clock_are_taken_to_have_begun_together() {
        let mut other = log("b", 7_000, 30);
        other.has_clock = false;
        let merged = Merged::of(&[log("a", 90_000, 10), other]).expect("alike");
        assert_eq!((merged.slots.len(), merged.began), (4, None));
        assert!(merged.notes[0].contains("not every log"));
    }

    #[test]
    fn other_lengths_and_other_files_are_refused() {
        let mut long = log("long", 0, 10);
        for entry in &mut long.entries {
            entry.span *= 2;
        }
        let error = Merged::of(&[log("a", 0, 10), long]).expect_err("unlike");
        assert!(error.contains("the same --interval"), "{error}");
        for (text, part) in [
            ("", "holds no interval"),
            ("#nothing\n", "holds no interval"),
            ("hello\n", "line 1 is no line"),
            ("#c\n1,2\n", "line 2 is no line"),
            ("0.1,1.0,2.0,%%%%\n", "is no base64"),
            ("0.1,1.0,2.0,AAAAAAAA\n", "is no HdrHistogram"),
        ] {
            let error = Log::parse("x", text.as_bytes()).expect_err(text);
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}

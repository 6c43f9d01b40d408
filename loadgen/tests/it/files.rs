//! The files of `--out`, read back: by hdrhistogram's own reader for the log, as the plotter reads
//! for the table.

use std::fs;
use std::path::Path;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use crate::support::{Ran, echo_server, fresh_folder, run};

fn run_with_files(folder: &Path) -> Ran {
    let out = folder.to_str().expect("the folder's name is ASCII");
    let ran = run(
        echo_server(),
        &[
            "--connections",
            "4",
            "--warmup",
            "100ms",
            "--duration",
            "500ms",
            "--interval",
            "100ms",
            "--out",
            out,
        ],
    );
    assert!(ran.is_ok(), "{ran:#?}");
    ran
}

/// Sum and number of the histograms of an interval log.
fn read_hlog(path: &Path) -> (Histogram<u64>, usize) {
    let log = fs::read(path).expect("the log is there");
    let mut sum = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("valid bounds");
    let mut n = 0;
    for entry in IntervalLogIterator::new(&log) {
        if let LogEntry::Interval(interval) = entry.expect("the log can be parsed") {
            assert_eq!(interval.tag(), None);
            let bytes = base64_decoded(interval.encoded_histogram());
            let histogram: Histogram<u64> = Deserializer::new()
                .deserialize(&mut bytes.as_slice())
                .expect("V2 with deflate");
            sum.add(&histogram).expect("the same bounds");
            n += 1;
        }
    }
    (sum, n)
}

/// The plotter takes the lines of four numbers and skips the rest: value in microseconds,
/// percentile, count, ratio.
fn read_hgrm(path: &Path) -> Vec<[f64; 4]> {
    let text = fs::read_to_string(path).expect("the table is there");
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let numbers: Vec<f64> = line
                .split_whitespace()
                .filter_map(|w| w.parse().ok())
                .collect();
            numbers.try_into().ok()
        })
        .collect()
}

#[test]
fn log_and_table_read_back_equal_to_each_other_and_to_the_report() {
    let folder = fresh_folder("read-back");
    let ran = run_with_files(&folder);
    let (log, n_intervals) = read_hlog(&folder.join("run.hlog"));
    assert!(
        (5..=6).contains(&n_intervals),
        "500 ms in intervals of 100 ms, the warm-up left out, and what came after the end: \
         {n_intervals}"
    );
    assert_eq!(log.len(), ran.answered("measured"));
    let table = read_hgrm(&folder.join("run.hgrm"));
    assert!(table.len() > 10, "{table:?}");
    for [micros, quantile, total, ratio] in &table {
        // The value of a row is the first whose count reaches the row's percentile; the count is
        // all up to it. Tables name a bucket by its highest value.
        let nanos = log.highest_equivalent(log.value_at_quantile(*quantile)) as f64;
        assert!(
            (micros * 1e3 - nanos).abs() < 1.0,
            "p{}: {micros} us, {nanos} ns",
            quantile * 100.0
        );
        assert_eq!(*total as u64, log.count_between(0, nanos as u64));
        assert!(
            (ratio * (1.0 - quantile) - 1.0).abs() < 0.01,
            "{ratio} at {quantile}"
        );
    }
    for percentile in [50.0, 99.0] {
        let reported = ran.nanos(&format!("p{percentile}"));
        let logged = log.value_at_percentile(percentile) as f64;
        assert!(
            (reported / logged - 1.0).abs() < 1e-3,
            "p{percentile}: {reported} and {logged}"
        );
    }
    let text = fs::read_to_string(folder.join("run.hgrm")).expect("the table is there");
    assert!(text.contains("microseconds"), "the unit is named: {text}");
    assert!(
        text.contains(&format!("Total count    = {:>12}]", log.len())),
        "{text}"
    );
    fs::remove_dir_all(&folder).expect("the folder is ours");
}

#[test]
fn second_run_replaces_the_files_of_the_first() {
    let folder = fresh_folder("replace");
    run_with_files(&folder);
    let ran = run_with_files(&folder);
    let (log, n_intervals) = read_hlog(&folder.join("run.hlog"));
    assert_eq!(log.len(), ran.answered("measured"));
    assert!((5..=6).contains(&n_intervals), "{n_intervals}");
    fs::remove_dir_all(&folder).expect("the folder is ours");
}

/// A folder below a file can be made by nobody, not even by root.
#[test]
fn unwritable_folder_is_refused_before_the_run() {
    let folder = fresh_folder("unwritable");
    fs::create_dir_all(&folder).expect("the target's folder is writable");
    let file = folder.join("a-file");
    fs::write(&file, "not a folder").expect("the folder is writable");
    let out = file.join("below");
    let ran = run(echo_server(), &["--out", out.to_str().expect("ASCII")]);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(ran.stderr.contains("cannot make the folder"), "{ran:#?}");
    assert!(
        ran.took.as_secs_f64() < 3.0,
        "a run would have taken eleven seconds: {ran:#?}"
    );
    assert_eq!(ran.stdout, "");
    fs::remove_dir_all(&folder).expect("the folder is ours");
}

/// Standard base64, decoded here to stay independent of the writer.
fn base64_decoded(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut bits, mut n_bits) = (0_u32, 0);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let value = ALPHABET
            .iter()
            .position(|l| *l == letter)
            .expect("a base64 letter");
        bits = (bits << 6) | value as u32;
        n_bits += 6;
        if n_bits >= 8 {
            n_bits -= 8;
            bytes.push((bits >> n_bits) as u8);
        }
    }
    bytes
}

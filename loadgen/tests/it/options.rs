//! What the options of a run do: pipelining, sizes, churn, plan files, assertions, the record.

use std::fs;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::{echo, echo_server, eventually, fresh_folder, loadgen, run, server};

/// The server answers four requests at a time: with fewer in flight it would never answer.
#[test]
fn depth_is_the_number_of_requests_in_flight() {
    let address = server(|mut stream| {
        let mut four = [0; 4 * 64];
        while stream.read_exact(&mut four).is_ok() {
            if stream.write_all(&four).is_err() {
                return;
            }
        }
    });
    let options = [
        "--connections",
        "2",
        "--warmup",
        "0s",
        "--duration",
        "200ms",
    ];
    let ran = run(
        address,
        &[options.as_slice(), &["--depth", "4", "--drain", "200ms"]].concat(),
    );
    assert!(ran.answered("measured") > 8, "{ran:#?}");
    let shallow = run(
        address,
        &[options.as_slice(), &["--depth", "3", "--drain", "200ms"]].concat(),
    );
    assert_eq!(shallow.code, Some(1), "{shallow:#?}");
    assert_eq!(shallow.answered("measured"), 0, "{shallow:#?}");
}

#[test]
fn echoes_of_a_pipeline_are_compared_in_order() {
    let options = [
        "--connections",
        "3",
        "--depth",
        "16",
        "--size",
        "1..3000",
        "--warmup",
        "0s",
        "--duration",
        "300ms",
    ];
    let ran = run(echo_server(), &options);
    assert!(ran.is_ok(), "{ran:#?}");
    assert!(ran.answered("measured") > 100, "{ran:#?}");
    // One wrong byte far into the stream.
    let address = server(|stream| {
        let mut n = 0;
        echo(stream, move |bytes| {
            n += bytes.len();
            if n > 100_000 {
                bytes[0] ^= 1;
            }
            true
        });
    });
    let ran = run(address, &options);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(ran.line("errors").contains("corrupted 3"), "{ran:#?}");
}

/// Every connection the server saw was either there from the start or is in the histogram.
#[test]
fn churn_reopens_connections_and_measures_the_opening() {
    let n_accepted = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&n_accepted);
    let address = server(move |stream| {
        counter.fetch_add(1, Ordering::Relaxed);
        let mut n = 0;
        echo(stream, move |bytes| {
            n += bytes.len();
            n <= 10 * 64
        });
    });
    for more in [
        ["--rate", "2k"].as_slice(),
        &["--depth", "3"],
        &["--depth", "1"],
    ] {
        n_accepted.store(0, Ordering::Relaxed);
        let options = [
            "--connections",
            "4",
            "--churn",
            "10",
            "--warmup",
            "0s",
            "--duration",
            "400ms",
        ];
        let ran = run(address, &[options.as_slice(), more].concat());
        assert!(ran.is_ok(), "{more:?}: {ran:#?}");
        let (_, n_opened) = ran
            .line("connect")
            .rsplit_once(" of ")
            .expect("a count stands last");
        let n_opened: u64 = n_opened.replace(' ', "").parse().expect("a count");
        assert!(n_opened >= 4, "{more:?}: {ran:#?}");
        // Those that were being opened when the run ended are in no histogram.
        let n_seen = n_accepted.load(Ordering::Relaxed);
        assert!(
            (n_opened + 4..=n_opened + 8).contains(&n_seen),
            "{n_seen} {more:?}: {ran:#?}"
        );
        let answered = ran.answered("measured");
        assert!(answered <= n_seen * 10, "{more:?}: {ran:#?}");
        assert!(answered + 4 * 10 >= n_opened * 10, "{more:?}: {ran:#?}");
    }
}

#[test]
fn failed_assertion_exits_with_3_and_says_what_was_measured() {
    // Ten answers a second, so that the generator has a CPU when it needs one.
    let address = server(|stream| {
        echo(stream, |_| {
            thread::sleep(Duration::from_millis(100));
            true
        });
    });
    let base = [
        "--connections",
        "1",
        "--warmup",
        "0s",
        "--duration",
        "400ms",
    ];
    let with = |code, assertions: &[&'static str]| {
        let flags = assertions.iter().flat_map(|a| ["--assert", a]);
        let options: Vec<_> = base.iter().copied().chain(flags).collect();
        eventually(|| run(address, &options), |ran| ran.code == Some(code))
    };
    let held = with(0, &["max<1h", "rate>1", "errors==0"]);
    assert!(
        held.line("assertion").starts_with("max<1h holds: "),
        "{held:#?}"
    );
    let failed = with(3, &["rate>1", "p50<1ns"]);
    assert!(
        failed.stderr.contains("assertion p50<1ns fails: "),
        "{failed:#?}"
    );
    assert!(failed.stdout.contains("p50<1ns FAILS: "), "{failed:#?}");
}

#[test]
fn plan_file_is_read_and_the_command_line_wins() {
    let folder = fresh_folder("plan");
    fs::create_dir_all(&folder).expect("the target's folder is writable");
    let path = folder.join("load.toml");
    let text = format!(
        "target = \"tcp://{}\"\nconnections = 2\nsize = 100\nduration = \"30s\"\nwarmup = \"0s\"\n",
        echo_server()
    );
    fs::write(&path, text).expect("the folder is writable");
    let plan = path.to_str().expect("ASCII");
    let ran = loadgen(&["run", "--plan", plan, "--duration", "200ms"]);
    assert!(ran.is_ok(), "{ran:#?}");
    assert!(ran.line("load").contains("2 connections"), "{ran:#?}");
    assert!(ran.line("load").contains("requests of 100 B"), "{ran:#?}");
    fs::write(&path, "depth = 1\nsise = 3\n").expect("the folder is writable");
    let ran = loadgen(&["run", "--plan", plan]);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(
        ran.stderr
            .contains(&format!("{plan}:2:1: unknown field `sise`")),
        "{ran:#?}"
    );
    let ran = loadgen(&["run", "--plan", "/no/such/plan.toml"]);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(
        ran.stderr
            .contains("--plan /no/such/plan.toml: cannot read"),
        "{ran:#?}"
    );
    fs::remove_dir_all(&folder).expect("the folder is ours");
}

/// The record holds what the report says: counts, both histograms, the series.
#[test]
fn record_on_standard_output_is_the_one_in_the_folder() {
    let folder = fresh_folder("record");
    let out = folder.to_str().expect("ASCII");
    let options = [
        "--connections",
        "2",
        "--rate",
        "500",
        "--warmup",
        "100ms",
        "--duration",
        "400ms",
        "--interval",
        "100ms",
        "--seed",
        "9",
        "--json",
        "--out",
        out,
    ];
    let ran = run(echo_server(), &options);
    assert!(ran.is_ok(), "{ran:#?}");
    let record: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let stored = fs::read_to_string(folder.join("run.json")).expect("it is there");
    assert_eq!(ran.stdout, stored);
    assert_eq!(record["schema"], 1);
    assert_eq!(
        (&record["plan"]["seed"], &record["plan"]["duration"]),
        (&9.into(), &0.4.into())
    );
    let measured = &record["outcome"]["measured"];
    let total = |histogram: &Value| {
        let buckets = histogram.as_array().expect("a list of buckets");
        buckets
            .iter()
            .filter_map(|bucket| bucket[1].as_u64())
            .sum::<u64>()
    };
    let sent = measured["sent"].as_u64().expect("a count");
    assert!(sent > 100, "{record:#}");
    assert_eq!(total(&measured["samples"]["latency"]), sent);
    assert_eq!(total(&measured["samples"]["open"]["from_send"]), sent);
    let series = record["outcome"]["series"]
        .as_array()
        .expect("a list of intervals");
    let phases = |phase| series.iter().filter(|i| i["phase"] == phase).count();
    assert_eq!((phases("warm-up"), phases("measured")), (1, 4));
    assert_eq!(record["confidence"]["n_intervals"], 4);
    fs::remove_dir_all(&folder).expect("the folder is ours");
}

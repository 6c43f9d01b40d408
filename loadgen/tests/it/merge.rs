//! `merge` of real logs, and generators that begin together.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::{echo_server, finish, fresh_folder, loadgen, run, start};

/// Requests that a line of `merge` counts.
fn count(line: &str) -> u64 {
    let (count, _) = line.split_once(" values").expect("a count");
    count.replace(' ', "").parse().expect("a number")
}

#[test]
fn two_generators_begin_together_and_their_logs_become_one() {
    let folder = fresh_folder("merge");
    let target = format!("tcp://{}", echo_server());
    let begin = SystemTime::now() + Duration::from_millis(1500);
    let since = begin.duration_since(UNIX_EPOCH).expect("after 1970");
    let at = format!("@{:.3}", since.as_secs_f64());
    let started = ["one", "two"].map(|name| {
        let out = folder.join(name);
        start(&[
            "run",
            &target,
            "--rate",
            "300",
            "--connections",
            "4",
            "--warmup",
            "0s",
            "--duration",
            "1s",
            "--interval",
            "200ms",
            "--start-at",
            &at,
            "--out",
            out.to_str().expect("ASCII"),
        ])
    });
    let ran = started.map(finish);
    assert!(ran.iter().all(|ran| ran.is_ok()), "{ran:#?}");
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    for name in ["one", "two"] {
        let text = fs::read_to_string(folder.join(name).join("run.json")).expect("it is there");
        let record: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let began = record["outcome"]["started"].as_f64().expect("seconds");
        assert!((began - since.as_secs_f64()).abs() < 0.02, "{began} {at}");
    }
    let (one, two, all) = (path("one/run.hlog"), path("two/run.hlog"), path("all.hlog"));
    let merged = loadgen(&["merge", &all, &one, &two]);
    assert_eq!(merged.code, Some(0), "{merged:#?}");
    let expected = ran[0].answered("measured") + ran[1].answered("measured");
    assert_eq!(count(merged.line("result")), expected, "{merged:#?}");
    assert_eq!(count(merged.line("real-send")), expected, "{merged:#?}");
    let intervals = merged.line("merged").split(' ').nth(2).expect("a number");
    assert!(
        matches!(intervals, "5" | "6"),
        "five of 200 ms, and what came after the end: {merged:#?}"
    );
    assert!(!merged.stdout.contains("note"), "{merged:#?}");

    // What was merged is a log again; and an existing file is not overwritten.
    let again = loadgen(&["merge", &path("again.hlog"), &all]);
    assert_eq!(count(again.line("result")), expected, "{again:#?}");
    let twice = loadgen(&["merge", &path("twice.hlog"), &one, &two, &one]);
    assert_eq!(twice.code, Some(1), "{twice:#?}");
    assert!(twice.stderr.contains("is named twice"), "{twice:#?}");
    let refused = loadgen(&["merge", &one, &two]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(
        refused.stderr.contains("exists and is not overwritten"),
        "{refused:#?}"
    );
    fs::remove_dir_all(&folder).expect("ours");
}

#[test]
fn start_in_the_past_and_no_moment_are_refused() {
    let ran = run(echo_server(), &["--start-at", "2020-01-01T00:00:00Z"]);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(ran.stderr.contains("choose a later time"), "{ran:#?}");
    let ran = run(echo_server(), &["--start-at", "soon"]);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(ran.stderr.contains("is no moment"), "{ran:#?}");
}

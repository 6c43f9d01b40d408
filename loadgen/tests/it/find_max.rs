//! `loadgen find-max` against targets whose highest rate is known.

use std::fs;
use std::io::{self, Read};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::{echo, echo_server, finish, fresh_folder, loadgen, server, signal, start};

/// 32 connections, 100 ms a request: 320 a second at most, by Little's law; a machine that others
/// use too makes less of it.
#[test]
fn highest_rate_is_found_below_what_can_be_carried() {
    let address = server(|stream| {
        echo(stream, |_| {
            thread::sleep(Duration::from_millis(100));
            true
        });
    });
    let target = format!("tcp://{address}");
    let arguments = [
        "find-max",
        &target,
        "--slo",
        "p50<500ms",
        "--connections",
        "32",
        "--from",
        "100",
        "--precision",
        "20",
        "--arrivals",
        "constant",
        "--duration",
        "600ms",
        "--warmup",
        "100ms",
        "--json",
    ];
    // With 4 the generator had no CPU in time: the search says so, and what it found is no maximum.
    let ran = loadgen(&arguments);
    assert!(ran.is_ok(), "{ran:#?}");
    let found: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(
        found["is_generator_bound"],
        ran.code == Some(4),
        "{found:#}"
    );
    let Some(rate) = found["rate"].as_f64() else {
        assert_eq!(ran.code, Some(4), "{found:#}");
        return;
    };
    let least = if ran.code == Some(4) { 1.0 } else { 100.0 };
    assert!((least..352.0).contains(&rate), "{found:#}");
    let trials = found["trials"].as_array().expect("the trajectory");
    let asked: Vec<f64> = trials.iter().filter_map(|t| t["asked"].as_f64()).collect();
    assert!(asked[0] == 100.0, "{found:#}");
    let reasons: String = trials.iter().map(|t| t["against"].to_string()).collect();
    assert!(
        ["saturated", "p50<500ms fails", "generator"]
            .iter()
            .any(|reason| reasons.contains(reason)),
        "{found:#}"
    );
    assert_eq!(
        found["confirmation"]["plan"]["open"]["rate"], rate,
        "{found:#}"
    );
    assert_eq!(
        found["confirmation"]["plan"]["duration"], 1.2,
        "twice the window"
    );
}

#[test]
fn objective_that_no_rate_keeps_exits_with_3_and_shows_the_trajectory() {
    let target = format!("tcp://{}", echo_server());
    let ran = loadgen(&[
        "find-max",
        &target,
        "--slo",
        "p50<1ns",
        "--connections",
        "2",
        "--from",
        "16",
        "--arrivals",
        "constant",
        "--duration",
        "300ms",
        "--warmup",
        "0s",
    ]);
    assert!(matches!(ran.code, Some(3 | 4)), "{ran:#?}");
    assert!(ran.stdout.contains("p50<1ns fails: "), "{ran:#?}");
    for asked in ["4/s asked", "2/s asked", "1/s asked"] {
        assert!(ran.stdout.contains(asked), "{asked}: {ran:#?}");
    }
    let result = ran.line("result");
    assert!(
        result == "no rate holds" || result.contains("INVALID"),
        "{ran:#?}"
    );
}

/// The first line of progress proves that a window is done; the search goes on for long.
#[test]
fn interrupted_search_reports_and_keeps_its_trajectory() {
    let folder = fresh_folder("find-max");
    let out = folder.to_str().expect("ASCII");
    let target = format!("tcp://{}", echo_server());
    let mut started = start(&[
        "find-max",
        &target,
        "--slo",
        "p50<1h",
        "--connections",
        "2",
        "--from",
        "10",
        "--up-to",
        "1M",
        "--duration",
        "1s",
        "--warmup",
        "0s",
        "--progress",
        "plain",
        "--out",
        out,
    ]);
    let mut stderr = started.0.stderr.take().expect("standard error is piped");
    let mut line = [0; 40];
    stderr
        .read_exact(&mut line)
        .expect("a line of progress comes");
    signal(started.0.id(), "INT");
    let drained = thread::spawn(move || io::copy(&mut stderr, &mut io::sink()));
    let ran = finish(started);
    drained
        .join()
        .expect("reading does not panic")
        .expect("a pipe can be read");
    // On a busy machine the generator may have spoilt the only window.
    let (code, result) = match ran.code {
        Some(1) => (1, "interrupted; no rate held so far"),
        _ => (0, "interrupted; 10/s held so far, unconfirmed"),
    };
    assert_eq!(ran.code, Some(code), "{ran:#?}");
    assert_eq!(ran.line("result"), result, "{ran:#?}");
    assert!(ran.stdout.contains("10/s asked"), "{ran:#?}");
    let stored = fs::read_to_string(folder.join("find-max.json")).expect("it is there");
    let stored: Value = serde_json::from_str(&stored).expect("JSON");
    assert_eq!(stored["is_interrupted"], true);
    assert!(
        stored["trials"]
            .as_array()
            .is_some_and(|trials| !trials.is_empty())
    );
    fs::remove_dir_all(&folder).expect("the folder is ours");
}

/// Three trials of two connections are served, the next finds nobody: what was measured is kept.
#[test]
fn target_that_goes_away_ends_the_search_with_what_it_found() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener
        .local_addr()
        .expect("a bound listener has an address");
    thread::spawn(move || {
        for _ in 0..6 {
            let (stream, _) = listener.accept().expect("accepting on loopback");
            thread::spawn(move || echo(stream, |_| true));
        }
    });
    let ran = loadgen(&[
        "find-max",
        &format!("tcp://{address}"),
        "--slo",
        "p50<1h",
        "--connections",
        "2",
        "--from",
        "20",
        "--duration",
        "200ms",
        "--warmup",
        "0s",
    ]);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert_eq!(ran.line("trajectory"), "3 windows", "{ran:#?}");
    assert!(ran.line("result").contains("refused"), "{ran:#?}");
    assert!(ran.stderr.contains("connect to"), "{ran:#?}");
}

#[test]
fn wrong_usage_is_named() {
    for (arguments, part) in [
        (
            ["--slo", "p99<1ms", "--rate", "5"].as_slice(),
            "find-max sets the --rate itself",
        ),
        (
            &["--slo", "p99<1ms", "--assert", "max<1s"],
            "from --slo, not from --assert",
        ),
        (
            &["--slo", "p99<1ms", "--from", "20k", "--up-to", "10k"],
            "--from is 20000",
        ),
        (
            &["--slo", "p99<1ms", "--precision", "0"],
            "--precision is 0",
        ),
        (&["--slo", "loss==0"], "only against udp"),
        (&["--slo", "fast"], "compares nothing"),
    ] {
        let ran = loadgen(&[["find-max", "tcp://127.0.0.1:9"].as_slice(), arguments].concat());
        assert_eq!(ran.code, Some(1), "{arguments:?}: {ran:#?}");
        assert!(ran.stderr.contains(part), "{arguments:?}: {ran:#?}");
    }
}

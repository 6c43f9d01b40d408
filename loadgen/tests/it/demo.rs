//! `loadgen demo`, with the server it starts.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::loadgen;

#[test]
fn demo_reports_exits_with_0_and_leaves_no_server_behind() {
    let ran = loadgen(&[
        "demo",
        "--duration",
        "300ms",
        "--connections",
        "4",
        "--size",
        "1KiB",
    ]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(ran.line("errors"), "none");
    let load = ran.line("load");
    assert!(load.starts_with("open loop of 20000.0/s"), "{ran:#?}");
    assert!(ran.answered("measured") > 0, "{ran:#?}");
    assert!(
        ran.stdout
            .contains("4 connections, 1 generator thread, requests of 1 KiB"),
        "{ran:#?}"
    );
    assert!(ran.stdout.contains("try next:"), "{ran:#?}");
    let (_, rest) = ran
        .stdout
        .split_once("(pid ")
        .expect("the demo names its server");
    let (pid, _) = rest.split_once(')').expect("a closing bracket");
    let process = PathBuf::from(format!("/proc/{pid}"));
    let until = Instant::now() + Duration::from_secs(5);
    while process.exists() {
        assert!(
            Instant::now() < until,
            "the server (pid {pid}) outlives the demo"
        );
        std::thread::yield_now();
    }
}

#[test]
fn demo_goes_as_fast_as_it_can_if_it_is_told_so() {
    let ran = loadgen(&["demo", "--closed", "--duration", "300ms"]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert!(ran.line("load").starts_with("closed loop"), "{ran:#?}");
}

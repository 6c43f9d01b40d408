//! Figures against arithmetic: counts, bytes, known delays.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{echo, echo_server, finish, run, server, signal, start};

#[test]
fn every_request_the_server_saw_is_in_the_report() {
    let seen = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&seen);
    let address = server(move |stream| {
        echo(stream, |bytes| {
            counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            true
        });
    });
    let ran = run(
        address,
        &[
            "--connections",
            "7",
            "--threads",
            "2",
            "--size",
            "100",
            "--warmup",
            "100ms",
            "--duration",
            "300ms",
        ],
    );
    assert!(ran.is_ok(), "{ran:#?}");
    let answered = ran.answered("warm-up") + ran.answered("measured");
    assert!(answered > 20, "{ran:#?}");
    assert_eq!(answered * 100, seen.load(Ordering::Relaxed), "{ran:#?}");
    assert_eq!(ran.line("errors"), "none");
    assert!(ran.stdout.contains("thread 1 "), "{ran:#?}");
    assert!(ran.line("environment").contains("loadgen"), "{ran:#?}");
    assert!(ran.line("command").contains("--connections 7"), "{ran:#?}");
    assert!(
        !ran.stderr.contains("p50"),
        "standard error is no terminal, so it shows no progress: {ran:#?}"
    );
}

#[test]
fn bytes_both_ways_and_rate_follow_from_the_count() {
    let ran = run(
        echo_server(),
        &[
            "--connections",
            "3",
            "--size",
            "1KiB",
            "--warmup",
            "0s",
            "--duration",
            "400ms",
        ],
    );
    assert!(ran.is_ok(), "{ran:#?}");
    let answered = ran.answered("measured");
    let bytes = |label: &str| {
        let (count, _) = ran
            .line(label)
            .split_once(" B,")
            .expect("bytes, then a rate");
        count.replace(' ', "").parse::<u64>().expect("a count")
    };
    assert_eq!(
        (bytes("sent"), bytes("received")),
        (answered * 1024, answered * 1024),
        "{ran:#?}"
    );
    let (_, rate) = ran
        .line("measured")
        .rsplit_once(", ")
        .expect("the rate stands last");
    let rate: f64 = rate.trim_end_matches("/s").parse().expect("a rate");
    // Answers that came after the end, one a connection at most, are no part of the rate.
    let late = answered as f64 - rate * 0.4;
    assert!((-0.1..=3.1).contains(&late), "{late}: {ran:#?}");
    assert!(!ran.stdout.contains("warm-up"), "there was none: {ran:#?}");
}

/// The delay is in the server, before the echo: no request can be faster, and an idle machine adds
/// little.
#[test]
fn known_delay_of_the_server_is_the_latency_reported() {
    const DELAY: Duration = Duration::from_millis(5);
    let address = server(|stream| {
        echo(stream, |_| {
            thread::sleep(DELAY);
            true
        });
    });
    let ran = run(
        address,
        &[
            "--connections",
            "4",
            "--warmup",
            "50ms",
            "--duration",
            "700ms",
        ],
    );
    assert!(ran.is_ok(), "{ran:#?}");
    assert!(ran.nanos("min") >= 5e6, "faster than the server: {ran:#?}");
    // Slack for a machine that others use too; a clock read at the wrong moment is wrong by the
    // whole delay.
    assert!((5e6..10e6).contains(&ran.nanos("p50")), "{ran:#?}");
    assert!(
        ran.nanos("p50") <= ran.nanos("p99") && ran.nanos("p99") <= ran.nanos("max"),
        "{ran:#?}"
    );
    // Four connections, one request in flight each, 5 ms a request: at most 800/s, by Little's law.
    assert!(ran.answered("measured") <= 4 * 700 / 5 + 4, "{ran:#?}");
}

/// Larger than the socket buffers: neither side can write it in one go, and each must read while it
/// writes.
#[test]
fn request_larger_than_the_socket_buffers_is_echoed_whole() {
    let ran = run(
        echo_server(),
        &[
            "--connections",
            "2",
            "--size",
            "9MiB",
            "--warmup",
            "0s",
            "--duration",
            "300ms",
            "--drain",
            "10s",
        ],
    );
    assert!(ran.is_ok(), "{ran:#?}");
    assert!(ran.answered("measured") >= 2, "{ran:#?}");
}

#[test]
fn echo_that_comes_in_single_bytes_is_one_answer() {
    let address = server(|mut stream| {
        let mut request = [0; 16];
        while stream.read_exact(&mut request).is_ok() {
            for byte in request {
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
            }
        }
    });
    let ran = run(
        address,
        &[
            "--connections",
            "2",
            "--size",
            "16",
            "--warmup",
            "0s",
            "--duration",
            "200ms",
        ],
    );
    assert!(ran.is_ok(), "{ran:#?}");
    assert!(ran.answered("measured") > 2, "{ran:#?}");
}

#[test]
fn interrupted_run_reports_what_was_measured() {
    let target = format!("tcp://{}", echo_server());
    let mut started = start(&[
        "run",
        &target,
        "--warmup",
        "0s",
        "--duration",
        "60s",
        "--progress",
        "plain",
        "--interval",
        "100ms",
    ]);
    // The first progress line proves that the load runs and the signal is taken over.
    let mut stderr = started.0.stderr.take().expect("standard error is piped");
    let mut byte = [0];
    stderr.read_exact(&mut byte).expect("a progress line comes");
    signal(started.0.id(), "INT");
    let drained = thread::spawn(move || {
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).map(|_| rest)
    });
    let ran = finish(started);
    assert!(ran.is_ok(), "{ran:#?}");
    assert!(ran.took < Duration::from_secs(10), "{ran:#?}");
    assert!(ran.answered("measured") > 0, "{ran:#?}");
    assert!(
        ran.stdout.contains("interrupted: 60.00 s were asked for"),
        "{ran:#?}"
    );
    let rest = drained
        .join()
        .expect("reading does not panic")
        .expect("progress is UTF-8");
    assert!(rest.contains("p50") && rest.contains("errors 0"), "{rest}");
}

#[test]
fn second_interrupt_exits_at_once() {
    // Never answers, so that the drain of a minute would follow the first signal.
    let address = server(|mut stream| while stream.read(&mut [0; 64]).is_ok_and(|n| n > 0) {});
    let target = format!("tcp://{address}");
    let mut started = start(&[
        "run",
        &target,
        "--warmup",
        "0s",
        "--duration",
        "60s",
        "--drain",
        "60s",
        "--progress",
        "plain",
        "--interval",
        "100ms",
    ]);
    let mut stderr = started.0.stderr.take().expect("standard error is piped");
    stderr.read_exact(&mut [0]).expect("a progress line comes");
    signal(started.0.id(), "INT");
    // Repeated, because a second signal that arrives while the first is being handled counts as one
    // with it.
    while started
        .0
        .try_wait()
        .expect("a child can be looked at")
        .is_none()
    {
        assert!(
            started.1.elapsed() < Duration::from_secs(10),
            "still running"
        );
        signal(started.0.id(), "TERM");
    }
    let ran = finish(started);
    assert_eq!(ran.code, Some(130), "{ran:#?}");
    assert_eq!(ran.stdout, "", "no report: {ran:#?}");
}

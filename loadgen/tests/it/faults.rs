//! Targets that misbehave: each fault is named, counted, and gives exit code 1; what was measured
//! before is printed.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use crate::support::{echo, loadgen, run, server};

/// The load of these tests: small and short.
const SHORT: [&str; 6] = [
    "--warmup",
    "0s",
    "--duration",
    "300ms",
    "--connections",
    "3",
];

fn short(more: &[&'static str]) -> Vec<&'static str> {
    SHORT.iter().chain(more).copied().collect()
}

#[test]
fn one_corrupted_byte_is_found_and_named() {
    let address = server(|stream| {
        let mut requests = 0;
        echo(stream, move |bytes| {
            requests += 1;
            if requests == 20 {
                bytes[17] ^= 0x40;
            }
            true
        });
    });
    let ran = run(address, &short(&[]));
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(ran.line("errors").contains("corrupted 3"), "{ran:#?}");
    assert!(ran.stderr.contains("request 20 of connection"), "{ran:#?}");
    assert!(
        ran.stderr.contains("byte 17 of 64 came back as"),
        "{ran:#?}"
    );
    assert_eq!(
        ran.answered("measured"),
        3 * 19,
        "what was right before is kept: {ran:#?}"
    );
}

/// A server that always answers with what it heard first: full verification finds it, the others
/// are told not to look.
#[test]
fn stale_echo_passes_only_where_contents_are_not_verified() {
    let address = server(|stream| {
        let mut first = None;
        echo(stream, move |bytes| {
            bytes.clone_from(first.get_or_insert_with(|| bytes.clone()));
            true
        });
    });
    let passes = |verify| run(address, &short(&["--verify", verify])).is_ok();
    assert_eq!(
        (passes("full"), passes("length"), passes("off")),
        (false, true, true)
    );
}

#[test]
fn surplus_bytes_pass_only_where_nothing_is_verified() {
    let address = server(|stream| {
        echo(stream, |bytes| {
            bytes.push(b'!');
            true
        });
    });
    let full = run(address, &short(&["--verify", "full"]));
    assert!(
        full.stderr
            .contains("1 more bytes came back than were sent"),
        "{full:#?}"
    );
    assert_eq!(full.code, Some(1), "{full:#?}");
    let passes = |verify| run(address, &short(&["--verify", verify])).is_ok();
    assert_eq!((passes("length"), passes("off")), (false, true));
}

#[test]
fn server_that_closes_mid_run_is_named_and_the_run_ends_early() {
    let address = server(|stream| {
        let mut requests = 0;
        echo(stream, move |_| {
            requests += 1;
            requests <= 10
        });
    });
    let ran = run(
        address,
        &["--warmup", "0s", "--duration", "30s", "--connections", "3"],
    );
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(
        ran.took < Duration::from_secs(5),
        "no connection was left: {ran:#?}"
    );
    assert!(ran.line("errors").contains("closed early 3"), "{ran:#?}");
    assert!(
        ran.stderr
            .contains("the target closed the connection after 0 of 64 bytes"),
        "{ran:#?}"
    );
    assert_eq!(ran.answered("measured"), 30, "{ran:#?}");
    assert!(
        ran.line("failed").starts_with("3 x closed early, first: "),
        "{ran:#?}"
    );
    assert!(!ran.line("verdict").starts_with("valid"), "{ran:#?}");
}

/// What is not there has no figure, in the warm-up as little as in the measured time.
#[test]
fn target_that_never_answers_has_no_latency_not_even_zero() {
    let address = server(|mut stream| {
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
    });
    let times = ["--warmup", "100ms", "--duration", "100ms", "--drain", "0s"];
    for load in [[].as_slice(), &["--rate", "50"]] {
        let ran = run(address, &[times.as_slice(), load].concat());
        assert_eq!(ran.code, Some(1), "{ran:#?}");
        assert!(!ran.line("warm-up").contains("p99"), "{ran:#?}");
        assert!(ran.stdout.contains("no request was answered"), "{ran:#?}");
        assert!(!ran.stdout.contains("better than the truth"), "{ran:#?}");
        assert!(
            ran.stderr.contains("timed out") && ran.stderr.contains("nothing was measured"),
            "{ran:#?}"
        );
    }
}

/// A request takes 50 ms on the one connection, 40 a second are due, so it is behind at once: what
/// is answered in the end is more than what is answered in the time.
#[test]
fn answers_within_the_time_are_told_from_those_in_the_end() {
    let address = server(|stream| {
        echo(stream, |_| {
            thread::sleep(Duration::from_millis(50));
            true
        });
    });
    let options = [
        "--warmup",
        "0s",
        "--duration",
        "600ms",
        "--connections",
        "1",
    ];
    let ran = run(
        address,
        &[
            options.as_slice(),
            &["--rate", "40", "--arrivals", "constant"],
        ]
        .concat(),
    );
    assert!(ran.is_ok(), "{ran:#?}");
    let line = ran.line("measured");
    let (_, in_time) = line
        .split_once(" in the end, ")
        .unwrap_or_else(|| panic!("{ran:#?}"));
    let in_time: u64 = in_time
        .split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a count");
    assert!(
        in_time <= 12 && in_time < ran.answered("measured"),
        "{ran:#?}"
    );
    let rate = format!(", {:.1}/s", in_time as f64 / 0.6);
    assert!(line.ends_with(&rate), "{rate}: {ran:#?}");
}

/// A server that closes with bytes unread answers with RST.
#[test]
fn reset_is_told_from_an_orderly_close() {
    let address = server(|mut stream| {
        let mut half = [0; 32];
        if stream.read_exact(&mut half).is_err() {
            // The test sees the missing answer.
        }
    });
    let ran = run(
        address,
        &["--warmup", "0s", "--duration", "30s", "--connections", "3"],
    );
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(
        ran.line("errors").contains("reset 3, closed early 0"),
        "{ran:#?}"
    );
    assert!(
        ran.stdout
            .contains("ended early, no connection was left: 30.00 s"),
        "{ran:#?}"
    );
}

/// The echo and the end of the stream come in one event: both must be seen.
#[test]
fn close_together_with_the_last_echo_is_seen() {
    let address = server(|mut stream| {
        let mut request = [0; 64];
        if stream.read_exact(&mut request).is_ok() && stream.write_all(&request).is_err() {
            // The test sees the missing answer.
        }
    });
    let ran = run(
        address,
        &["--warmup", "0s", "--duration", "30s", "--connections", "3"],
    );
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(ran.took < Duration::from_secs(5), "{ran:#?}");
    assert_eq!(ran.answered("measured"), 3, "{ran:#?}");
}

#[test]
fn server_that_never_answers_ends_in_bounded_time_with_what_is_outstanding() {
    let address = server(|mut stream| while stream.read(&mut [0; 64]).is_ok_and(|n| n > 0) {});
    let ran = run(address, &short(&["--drain", "200ms"]));
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!((0.5..3.0).contains(&ran.took.as_secs_f64()), "{ran:#?}");
    assert!(ran.line("errors").contains("timed out 3"), "{ran:#?}");
    assert!(ran.stderr.contains("nothing was measured"), "{ran:#?}");
    assert!(ran.stdout.contains("no request was answered"), "{ran:#?}");
}

/// The stall is longer than what is left of the run: the request counts with its whole latency, not
/// at all or cut off.
#[test]
fn request_slow_at_the_end_is_waited_for_and_counted() {
    let address = server(|stream| {
        echo(stream, |_| {
            thread::sleep(Duration::from_millis(400));
            true
        });
    });
    let ran = run(
        address,
        &[
            "--warmup",
            "0s",
            "--duration",
            "200ms",
            "--connections",
            "2",
        ],
    );
    assert_eq!(
        (ran.is_ok(), ran.answered("measured")),
        (true, 2),
        "{ran:#?}"
    );
    assert!(ran.nanos("min") >= 400e6, "{ran:#?}");
}

#[test]
fn refused_port_is_an_error_that_says_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener
        .local_addr()
        .expect("a bound listener has an address");
    drop(listener);
    let ran = run(address, &[]);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(
        ran.stderr.contains(&format!("connect to {address}")),
        "{ran:#?}"
    );
    assert!(
        ran.stderr.contains("is the server listening there?"),
        "{ran:#?}"
    );
    assert_eq!(ran.stdout, "");
    let other = loadgen(&["run", &format!("tcp://localhost:{}", address.port())]);
    assert_eq!(other.code, Some(1), "{other:#?}");
    assert!(
        other.stderr.contains("is the server listening"),
        "{other:#?}"
    );
}

/// A name under `.invalid` never resolves (RFC 2606).
#[test]
fn unknown_host_is_named() {
    let ran = loadgen(&["run", "tcp://no-such-host.invalid:7"]);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(
        ran.stderr
            .contains("cannot resolve host \"no-such-host.invalid\""),
        "{ran:#?}"
    );
}

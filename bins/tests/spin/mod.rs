//! The spin service of a running daemon: what it burns, in which order it answers, and how a daemon ends with it.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{Daemon, LIMIT, admin::get, connect};

/// A daemon with one spin service and an admin port.
pub(crate) fn start(sets: &[&str]) -> Daemon {
    let mut daemon = Daemon::spawn_from("tcp-spin.toml", &["tcp-spin"], sets);
    daemon.wait_for_line("started ");
    daemon
}

pub(crate) fn request(id: u64, time: Duration) -> [u8; 16] {
    let time = u64::try_from(time.as_nanos()).expect("the test asks for less");
    let mut request = [0; 16];
    request[..8].copy_from_slice(&id.to_le_bytes());
    request[8..].copy_from_slice(&time.to_le_bytes());
    request
}

#[track_caller]
fn answer(stream: &mut TcpStream) -> [u8; 16] {
    let mut answer = [0; 16];
    stream.read_exact(&mut answer).expect("the daemon answers");
    answer
}

/// CPU time the daemon's process has had, in clock ticks of 10 ms.
fn cpu_time(daemon: &Daemon) -> Duration {
    let path = format!("/proc/{}/stat", daemon.child.id());
    let stat = fs::read_to_string(path).expect("the daemon runs");
    let fields = stat.rsplit_once(") ").expect("the name is in brackets").1;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |field: usize| fields[field].parse::<u64>().expect("a number");
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

#[test]
fn each_request_burns_what_it_asks_for_and_comes_back() {
    let daemon = start(&[]);
    let mut stream = daemon.connect("tcp-spin");
    let before = cpu_time(&daemon);
    let begun = Instant::now();
    for id in 0..5 {
        let request = request(id, Duration::from_millis(60));
        stream.write_all(&request).expect("open");
        assert_eq!(answer(&mut stream), request);
    }
    assert!(begun.elapsed() >= Duration::from_millis(300));
    // Two ticks of tolerance.
    let burnt = cpu_time(&daemon) - before;
    assert!(burnt >= Duration::from_millis(280), "{burnt:?}");
}

#[test]
fn pipelined_requests_in_any_pieces_are_answered_in_order() {
    let daemon = start(&[]);
    for piece in [1, 7, 16, 33, 4096] {
        let mut stream = daemon.connect("tcp-spin");
        let requests: Vec<u8> = (0..200)
            .flat_map(|id| request(id, Duration::from_micros(id % 3)))
            .collect();
        for piece in requests.chunks(piece) {
            stream.write_all(piece).expect("open");
        }
        // Not a whole request: it is not answered.
        stream.write_all(&[1; 15]).expect("open");
        stream.shutdown(Shutdown::Write).expect("open");
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).expect("it closes");
        assert!(answers == requests, "in pieces of {piece}");
    }
}

#[test]
fn what_came_before_the_end_of_stream_is_answered() {
    let daemon = start(&[]);
    let mut stream = daemon.connect("tcp-spin");
    let requests: Vec<u8> = (0..3)
        .flat_map(|id| request(id, Duration::from_millis(20)))
        .collect();
    stream.write_all(&requests).expect("open");
    stream.shutdown(Shutdown::Write).expect("open");
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).expect("it closes");
    assert_eq!(answers, requests);
}

#[test]
fn an_absurd_service_time_is_cut_to_the_limit() {
    let mut daemon = start(&["service.tcp-spin.max_service_time=5ms"]);
    let mut stream = daemon.connect("tcp-spin");
    let absurd = [0xFF; 16];
    for _ in 0..3 {
        stream.write_all(&absurd).expect("open");
        assert_eq!(answer(&mut stream), absurd);
    }
    drop(stream);
    daemon.signal(Signal::TERM);
    daemon.wait_for_line("stopping ");
    let (code, lines) = daemon.wait_for_end();
    assert_eq!(code, Some(0), "{lines:#?}");
}

#[test]
fn connections_share_the_loops() {
    let daemon = start(&[]);
    let mut streams: Vec<TcpStream> = (0..8).map(|_| daemon.connect("tcp-spin")).collect();
    for round in 0..10 {
        for (stream, id) in streams.iter_mut().zip(0..) {
            let request = request(round << 32 | id, Duration::from_millis(2));
            stream.write_all(&request).expect("open");
        }
        for (stream, id) in streams.iter_mut().zip(0..) {
            let request = request(round << 32 | id, Duration::from_millis(2));
            assert_eq!(answer(stream), request);
        }
    }
    let metrics = get(daemon.address("admin"), "/metrics").body;
    let run = |id| metrics.value(&format!("garland_loop_tasks_run_total{{loop=\"{id}\"}}"));
    assert!(run(0) > 0.0 && run(1) > 0.0, "{}", metrics.0);
}

/// Holds one loop for much longer than anything else in the test takes.
fn hold_a_loop(daemon: &Daemon) -> TcpStream {
    let mut stream = daemon.connect("tcp-spin");
    // Answered: it is open, and both sides know.
    let first = request(0, Duration::ZERO);
    stream.write_all(&first).expect("open");
    assert_eq!(answer(&mut stream), first);
    let long = request(1, Duration::from_secs(600));
    stream.write_all(&long).expect("open");
    stream
}

const HOLDING: [&str; 2] = [
    "service.tcp-spin.max_service_time=10m",
    "shutdown.grace=400ms",
];

#[test]
fn a_loop_that_is_held_is_named_and_nothing_else_waits_for_it() {
    let mut daemon = start(&HOLDING);
    let _held = hold_a_loop(&daemon);
    // Within a step of a task, by its id and the line of the library that spawned it.
    let named = daemon.wait_for_text(" is stuck for ");
    assert!(named.contains("WARN"), "{named}");
    assert!(named.contains(" in a step of Task-"), "{named}");
    let admin = daemon.address("admin");
    let metrics = get(admin, "/metrics").body;
    let stuck = |id| metrics.value(&format!("garland_loop_stuck_total{{loop=\"{id}\"}}"));
    assert_eq!(stuck(0) + stuck(1), 1.0, "{}", metrics.0);
    assert_eq!(get(admin, "/live").status, 200);
    // Whatever loop they are accepted by: about half of them by the one that is stuck.
    for id in 0..16 {
        let mut stream = daemon.connect("tcp-spin");
        let request = request(id, Duration::from_micros(10));
        stream.write_all(&request).expect("open");
        assert_eq!(answer(&mut stream), request);
    }
}

#[test]
fn the_drain_is_bounded_although_a_loop_is_held() {
    let mut daemon = start(&HOLDING);
    let mut held = hold_a_loop(&daemon);
    daemon.wait_for_text(" is stuck for ");
    let begun = Instant::now();
    daemon.signal(Signal::TERM);
    daemon.wait_for_line("stopping ");
    // Accepting stops on both loops; who is in a queue is still taken and cut in the end.
    let address = daemon.address("tcp-spin");
    let deadline = Instant::now() + LIMIT;
    while !matches!(connect(address), Err(error) if error.kind() == ErrorKind::ConnectionRefused) {
        assert!(Instant::now() < deadline, "it accepts on and on");
    }
    let (code, lines) = daemon.wait_for_end();
    assert_eq!(code, Some(3), "{lines:#?}");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(400), "{took:?}");
    assert!(
        lines.iter().any(|line| line.contains("left behind")),
        "{lines:#?}"
    );
    let last = lines.last().expect("the daemon has said something");
    assert!(last.starts_with("stopped tcp-spin: "), "{last}");
    let end = held.read(&mut [0; 16]);
    assert!(matches!(end, Ok(0) | Err(_)), "cut, not answered: {end:?}");
}

#[test]
fn a_second_signal_cuts_at_once_although_a_loop_is_held() {
    let mut daemon = start(&[HOLDING[0], "shutdown.grace=1h"]);
    let _held = hold_a_loop(&daemon);
    daemon.wait_for_text(" is stuck for ");
    daemon.signal(Signal::TERM);
    daemon.wait_for_line("stopping ");
    daemon.signal(Signal::TERM);
    let (code, lines) = daemon.wait_for_end();
    assert_eq!(code, Some(3), "{lines:#?}");
}

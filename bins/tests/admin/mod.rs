//! The admin port of a running daemon: what it answers, what it refuses, and that it waits for nobody.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{Daemon, LIMIT, ask, connect};

/// One answer, taken apart.
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Body,
}

/// The text of an answer.
pub(crate) struct Body(pub(crate) String);

impl Body {
    /// The value of the one sample that is called so, labels and all.
    #[track_caller]
    pub(crate) fn value(&self, sample: &str) -> f64 {
        let lines = self.0.lines();
        let mut values = lines.filter_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        let (Some(value), None) = (values.next(), values.next()) else {
            panic!("not one sample {sample} in:\n{}", self.0)
        };
        value.parse().expect("a number")
    }

    /// The sum over all samples whose name and labels begin so.
    fn sum(&self, start: &str) -> f64 {
        let lines = self.0.lines().filter(|line| line.starts_with(start));
        lines
            .map(|line| {
                let value = line.rsplit_once(' ').expect("a sample has a value").1;
                value.parse::<f64>().expect("a number")
            })
            .sum()
    }
}

#[track_caller]
fn exchange(admin: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = connect(admin).expect("the port is announced, so it listens");
    stream.write_all(request).expect("it reads");
    read_answer(&mut stream)
}

#[track_caller]
fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .expect("it answers and closes");
    let (head, body) = text.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.strip_prefix("HTTP/1.1 ").expect("HTTP/1.1");
    Answer {
        status: status[..3].parse().expect("a status"),
        head: head.to_owned(),
        body: Body(body.to_owned()),
    }
}

#[track_caller]
pub(crate) fn get(admin: SocketAddr, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    exchange(admin, request.as_bytes())
}

#[test]
fn live_and_ready_answer_while_the_daemon_serves() {
    let daemon = Daemon::start(&[]);
    let admin = daemon.address("admin");
    for (path, body) in [
        ("/live", "live\n"),
        ("/ready", "ready\n"),
        ("/ready?x=1", "ready\n"),
    ] {
        let answer = get(admin, path);
        assert_eq!((answer.status, answer.body.0.as_str()), (200, body));
        assert!(
            answer.head.contains("\r\nContent-Type: text/plain"),
            "{}",
            answer.head
        );
    }
}

/// The metrics, once `is_it` holds: a connection is counted out when its loop has seen its end.
#[track_caller]
fn metrics_when(admin: SocketAddr, is_it: impl Fn(&Body) -> bool) -> Body {
    let deadline = Instant::now() + LIMIT;
    loop {
        let answer = get(admin, "/metrics");
        assert_eq!(answer.status, 200);
        if is_it(&answer.body) {
            return answer.body;
        }
        assert!(Instant::now() < deadline, "{}", answer.body.0);
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn metrics_count_what_the_services_do() {
    let daemon = Daemon::start(&["service.task-echo.idle_timeout=300ms"]);
    let mut streams: Vec<_> = (0..6).map(|_| daemon.connect("protocol-echo")).collect();
    streams.iter_mut().for_each(|stream| ask(stream, &[7; 100]));
    let mut idle = daemon.connect("task-echo");
    ask(&mut idle, b"once");
    assert_eq!(idle.read(&mut [0; 1]).expect("closed in good order"), 0);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port exists");
    socket.set_read_timeout(Some(LIMIT)).expect("not zero");
    let sent = socket.send_to(&[1; 50], daemon.address("udp-echo"));
    assert_eq!(sent.expect("loopback takes it"), 50);
    socket.recv(&mut [0; 64]).expect("it is answered");
    streams.truncate(2);

    let closed = "echod_connections_closed_total";
    let metrics = metrics_when(daemon.address("admin"), |body| {
        let of = |service| body.sum(&format!("{closed}{{service=\"{service}\","));
        let open = |service| body.sum(&format!("echod_connections_open{{service=\"{service}\","));
        // One answer may have been written on both sides of an end.
        (of("protocol-echo"), open("protocol-echo")) == (4.0, 2.0)
            && (of("task-echo"), open("task-echo")) == (1.0, 0.0)
    });
    for (start, expected) in [
        ("connections_open{service=\"protocol-echo\",", 2.0),
        ("connections_accepted_total{service=\"protocol-echo\",", 6.0),
        ("connections_open{service=\"task-echo\",", 0.0),
        ("answered_bytes_total{service=\"protocol-echo\",", 600.0),
        ("answered_bytes_total{service=\"task-echo\",", 4.0),
        ("answered_bytes_total{service=\"udp-echo\",", 50.0),
    ] {
        let sum = metrics.sum(&format!("echod_{start}"));
        assert_eq!(sum, expected, "{start} in\n{}", metrics.0);
    }
    let on_both = |name: &str, service: &str, label: &str| {
        let of = |id| format!("{name}{{service=\"{service}\",loop=\"{id}\",{label}}}");
        metrics.value(&of(0)) + metrics.value(&of(1))
    };
    assert_eq!(on_both(closed, "protocol-echo", "reason=\"end\""), 4.0);
    assert_eq!(on_both(closed, "task-echo", "reason=\"idle\""), 1.0);
    let datagrams = "echod_datagrams_total";
    assert_eq!(on_both(datagrams, "udp-echo", "outcome=\"echoed\""), 1.0);
}

#[test]
fn metrics_are_open_metrics_text_with_the_numbers_of_each_loop() {
    let daemon = Daemon::start(&[]);
    ask(&mut daemon.connect("task-echo"), b"work");
    let answer = get(daemon.address("admin"), "/metrics");
    let kind = "\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
    assert!(answer.head.contains(kind), "{}", answer.head);
    let metrics = answer.body;
    assert!(metrics.0.ends_with("\n# EOF\n"), "{}", metrics.0);
    for line in metrics.0.lines() {
        let comments = ["# HELP ", "# TYPE ", "# UNIT ", "# EOF"];
        let is_comment = comments.iter().any(|start| line.starts_with(start));
        let value = line.rsplit_once(' ').map(|(_, value)| value.parse::<f64>());
        let is_sample = matches!(value, Some(Ok(_)));
        assert!(
            is_comment || is_sample,
            "{line:?} is no line of OpenMetrics"
        );
    }
    for name in [
        "turns",
        "tasks_run",
        "tasks_stolen",
        "tasks_stolen_from",
        "rescues",
        "stuck",
        "parks",
        "wakeups_sent",
        "timers_fired",
        "busy_seconds",
    ] {
        for id in 0..2 {
            metrics.value(&format!("garland_loop_{name}_total{{loop=\"{id}\"}}"));
        }
    }
    for name in ["turns", "tasks_run", "busy_seconds"] {
        assert!(metrics.sum(&format!("garland_loop_{name}_total{{")) > 0.0);
    }
}

#[test]
fn what_is_not_asked_for_rightly_is_refused() {
    let daemon = Daemon::start(&[]);
    let admin = daemon.address("admin");
    assert_eq!(get(admin, "/").status, 404);
    assert_eq!(get(admin, "/metrics/").status, 404);
    let post = exchange(
        admin,
        b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    );
    assert_eq!(post.status, 405);
    assert!(
        post.head.contains("\r\nAllow: GET, HEAD\r\n"),
        "{}",
        post.head
    );
    for request in [
        &b"GET /live HTTP/1.1\r\n\r\n"[..],
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
    ] {
        assert_eq!(exchange(admin, request).status, 400, "{request:?}");
    }
    let mut long = b"GET /live HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
    long.resize(20_000, b'x');
    assert_eq!(exchange(admin, &long).status, 431);
    assert_eq!(get(admin, "/live").status, 200);
}

#[test]
fn head_has_the_length_and_no_body() {
    let daemon = Daemon::start(&[]);
    let admin = daemon.address("admin");
    let answer = exchange(admin, b"HEAD /live HTTP/1.0\r\n\r\n");
    assert_eq!((answer.status, answer.body.0.as_str()), (200, ""));
    assert!(
        answer.head.contains("\r\nContent-Length: 5\r\n"),
        "{}",
        answer.head
    );
}

#[test]
fn callers_that_say_nothing_are_bounded_in_number_and_in_time() {
    let daemon = Daemon::start(&[]);
    let admin = daemon.address("admin");
    let mut silent: Vec<TcpStream> = (0..40)
        .map(|_| connect(admin).expect("the kernel connects it"))
        .collect();
    // Those beyond the bound are hung up on at once, the others told after a while.
    let mut told = 0;
    for stream in &mut silent {
        let mut text = String::new();
        if stream.read_to_string(&mut text).is_ok() && !text.is_empty() {
            assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
            told += 1;
        }
    }
    assert!((1..=16).contains(&told), "{told} were told");
    drop(silent);
    // Their threads end a moment later.
    let deadline = Instant::now() + LIMIT;
    let is_served = || {
        let mut stream = connect(admin).expect("the kernel connects it");
        let mut text = String::new();
        let asked = stream.write_all(b"GET /live HTTP/1.0\r\n\r\n");
        asked.is_ok() && stream.read_to_string(&mut text).is_ok() && text.contains(" 200 OK")
    };
    while !is_served() {
        assert!(Instant::now() < deadline, "nobody is served any more");
    }
}

#[test]
fn ready_fails_from_the_signal_on_and_live_does_not() {
    let mut daemon = Daemon::start(&["shutdown.grace=1h"]);
    let admin = daemon.address("admin");
    let mut stream = daemon.connect("protocol-echo");
    ask(&mut stream, b"hello");
    daemon.signal(Signal::TERM);
    daemon.wait_for_line("stopping ");
    let ready = get(admin, "/ready");
    assert_eq!((ready.status, ready.body.0.as_str()), (503, "draining\n"));
    assert_eq!(get(admin, "/live").status, 200);
    assert_eq!(get(admin, "/metrics").status, 200);
    ask(&mut stream, b"still here");
    drop(stream);
    let (code, lines) = daemon.wait_for_end();
    assert_eq!(code, Some(0), "{lines:#?}");
}

#[test]
fn an_admin_address_in_use_ends_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let daemon = Daemon::spawn(&[&format!("admin.bind={address}")]);
    let (code, lines) = daemon.wait_for_end();
    assert_eq!(code, Some(1), "{lines:#?}");
    let expected = format!("echod: cannot listen on admin.bind = {address}: ");
    assert!(
        lines.iter().any(|line| line.starts_with(&expected)),
        "{lines:#?}"
    );
    assert!(
        !lines.iter().any(|line| line.starts_with("listening ")),
        "{lines:#?}"
    );
}

#[test]
fn without_the_table_there_is_no_admin_port() {
    let mut daemon = Daemon::spawn_bare("tcp-echo.toml", &["service.tcp-echo.bind=127.0.0.1:0"]);
    daemon.wait_for_line("started ");
    assert!(
        !daemon.seen.iter().any(|line| line.contains("admin")),
        "{:#?}",
        daemon.seen
    );
}

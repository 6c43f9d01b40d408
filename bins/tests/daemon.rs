//! The daemon as a process: it echoes through both models, drains on a signal, and ends as it must.
//!
//! Each test starts its own `echod` on port 0 from `configs/echo.toml`, reads the addresses from its
//! standard error, and talks to it with plain blocking sockets. Every wait is bounded by [`LIMIT`].

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

mod admin;
mod spin;
mod udp;

/// Longest wait for anything: far more than a loaded machine needs, far less than a hung build.
const LIMIT: Duration = Duration::from_secs(30);
/// Both TCP services of `configs/echo.toml`: one per model.
const SERVICES: [&str; 2] = ["protocol-echo", "task-echo"];
/// All services of that file.
const SERVICES_ALL: [&str; 3] = ["protocol-echo", "task-echo", "udp-echo"];

/// A running `echod`; killed when a test ends before it did.
struct Daemon {
    /// As many as it was told to have.
    loops: String,
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Daemon {
    fn spawn(sets: &[&str]) -> Daemon {
        Daemon::spawn_from("echo.toml", &SERVICES_ALL, sets)
    }

    /// One that runs a shipped file with these services, and an admin port.
    fn spawn_from(file: &str, services: &[&str], sets: &[&str]) -> Daemon {
        let ports = services
            .iter()
            .map(|name| format!("service.{name}.bind=127.0.0.1:0"));
        let ports: Vec<String> = ports.collect();
        let mut all = vec!["admin.bind=127.0.0.1:0"];
        all.extend(ports.iter().map(String::as_str));
        all.extend(sets);
        Daemon::spawn_bare(file, &all)
    }

    /// One that runs a shipped file as it is, but for these settings.
    fn spawn_bare(file: &str, sets: &[&str]) -> Daemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_echod"));
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs");
        command.arg("-c").arg(format!("{folder}/{file}"));
        let quiet = ["runtime.loops=2", "runtime.pin=false", "log.level=debug"];
        let mut loops = String::new();
        for set in quiet.iter().chain(sets) {
            command.args(["--set", set]);
            if let Some(asked) = set.strip_prefix("runtime.loops=") {
                loops = asked.to_owned();
            }
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("echod was built with this test");
        let stderr = child.stderr.take().expect("standard error is a pipe");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let lines = BufReader::new(stderr).lines().map_while(Result::ok);
            // The test may have ended and dropped its side; then nobody wants the rest.
            lines
                .take_while(|line| sender.send(line.clone()).is_ok())
                .for_each(drop);
        });
        Daemon {
            loops,
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Starts a daemon and waits until it has said that it runs.
    fn start(sets: &[&str]) -> Daemon {
        let mut daemon = Daemon::spawn(sets);
        daemon.wait_for_line("started ");
        daemon
    }

    #[track_caller]
    fn wait_for_line(&mut self, start: &str) -> String {
        self.wait_for(start, |line| line.starts_with(start))
    }

    #[track_caller]
    fn wait_for_text(&mut self, part: &str) -> String {
        self.wait_for(part, |line| line.contains(part))
    }

    #[track_caller]
    fn wait_for(&mut self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if is_it(&line) {
                        return line;
                    }
                }
                Err(error) => panic!("no line {what:?} ({error}); echod said {:#?}", self.seen),
            }
        }
    }

    /// The address that the service was announced with.
    #[track_caller]
    fn address(&self, service: &str) -> SocketAddr {
        let transport = if service == "udp-echo" { "udp" } else { "tcp" };
        let start = format!("listening {service} {transport} ");
        let line = self.seen.iter().find_map(|line| line.strip_prefix(&start));
        let Some(line) = line else {
            panic!("{service} is not announced in {:#?}", self.seen)
        };
        let (address, loops) = line
            .split_once(' ')
            .expect("the loops stand behind the address");
        let expected = if service == "admin" {
            "(no loop)".to_owned()
        } else {
            format!("({} loops)", self.loops)
        };
        assert_eq!(loops, expected);
        address.parse().expect("an address is announced as one")
    }

    #[track_caller]
    fn connect(&self, service: &str) -> TcpStream {
        connect(self.address(service)).expect("the service is announced, so it listens")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the daemon runs");
    }

    /// Waits until the process has ended; gives its exit code and its last words.
    #[track_caller]
    fn wait_for_end(mut self) -> (Option<i32>, Vec<String>) {
        let deadline = Instant::now() + LIMIT;
        // Its standard error ends when it does.
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("echod does not end; it said {:#?}", self.seen)
                }
            }
        }
        let status = self.child.wait().expect("the child can be waited for");
        (status.code(), std::mem::take(&mut self.seen))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Fails when it was waited for already, which is the usual case.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[track_caller]
fn ask(stream: &mut TcpStream, question: &[u8]) {
    stream
        .write_all(question)
        .expect("the daemon takes the request");
    let mut answer = vec![0; question.len()];
    stream.read_exact(&mut answer).expect("the daemon answers");
    assert_eq!(answer, question);
}

/// Bytes in which a lost, doubled or displaced block shows (a small generator; the period is 2^32).
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..length).map(|_| next()).collect()
}

/// Sends all of it and then the end of stream, while reading to the end.
#[track_caller]
fn echo_to_the_end(mut stream: TcpStream, sent: &[u8]) {
    let mut reader = stream.try_clone().expect("a socket can be cloned");
    let received = thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut received = Vec::new();
            reader.read_to_end(&mut received).map(|_| received)
        });
        stream.write_all(sent).expect("the daemon reads on");
        stream
            .shutdown(Shutdown::Write)
            .expect("the connection is open");
        reader.join().expect("the reader does not panic")
    });
    let received = received.expect("the daemon answers and closes");
    assert_eq!(received.len(), sent.len());
    // No assert_eq: a mebibyte of numbers helps nobody.
    let differs = received
        .iter()
        .zip(sent)
        .position(|(one, other)| one != other);
    assert_eq!(differs, None, "first byte that differs");
}

#[test]
fn mebibyte_comes_back_byte_for_byte() {
    let daemon = Daemon::start(&[]);
    let sent = pattern(1 << 20);
    for service in SERVICES {
        echo_to_the_end(daemon.connect(service), &sent);
    }
}

#[test]
fn rest_is_echoed_after_the_callers_end_of_stream() {
    let daemon = Daemon::start(&[]);
    for service in SERVICES {
        echo_to_the_end(daemon.connect(service), b"last words");
        echo_to_the_end(daemon.connect(service), b"");
    }
}

#[test]
fn many_connections_are_answered_at_once() {
    let daemon = Daemon::start(&[]);
    for service in SERVICES {
        let mut streams: Vec<TcpStream> = (0..100).map(|_| daemon.connect(service)).collect();
        for round in 0..5_u32 {
            for (number, stream) in streams.iter_mut().enumerate() {
                ask(
                    stream,
                    format!("round {round} of connection {number}").as_bytes(),
                );
            }
        }
    }
}

/// Writes the block over and over until the daemon takes no more.
#[track_caller]
fn fill(stream: &mut TcpStream, block: &[u8]) -> usize {
    /// More than the kernel's buffers of both sides hold together with ours.
    const TOO_MUCH: usize = 256 << 20;
    let patience = Some(Duration::from_millis(500));
    stream
        .set_write_timeout(patience)
        .expect("half a second is valid");
    let mut n_sent = 0;
    loop {
        match stream.write(&block[n_sent % block.len()..]) {
            Ok(n_written) => n_sent += n_written,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return n_sent,
                // The daemon gave up first, as one test wants; the other goes on to read and sees it.
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => return n_sent,
                _ => panic!("{n_sent} bytes sent: {error}"),
            },
        }
        assert!(
            n_sent < TOO_MUCH,
            "the daemon reads on and on, {n_sent} bytes"
        );
    }
}

#[test]
fn caller_that_does_not_read_is_not_read_from() {
    let daemon = Daemon::start(&[]);
    let block = pattern(64 << 10);
    for service in SERVICES {
        let mut stream = daemon.connect(service);
        let n_sent = fill(&mut stream, &block);
        stream
            .shutdown(Shutdown::Write)
            .expect("the connection is open");
        let mut received = Vec::new();
        stream
            .read_to_end(&mut received)
            .expect("the daemon answers and closes");
        assert_eq!(received.len(), n_sent, "{service}");
        let mut chunks = received.chunks(block.len());
        let wrong = chunks.position(|chunk| chunk != &block[..chunk.len()]);
        assert_eq!(wrong, None, "{service}: first block that differs");
    }
}

#[test]
fn caller_that_never_reads_is_cut_by_the_idle_timeout() {
    let sets = SERVICES.map(|name| format!("service.{name}.idle_timeout=700ms"));
    let mut daemon = Daemon::start(&["shutdown.grace=1h", &sets[0], &sets[1]]);
    let block = pattern(64 << 10);
    let mut streams = SERVICES.map(|name| daemon.connect(name));
    for stream in &mut streams {
        fill(stream, &block);
    }
    // The callers stay and do not read; so the daemon can only end by giving them up.
    daemon.signal(Signal::TERM);
    daemon.wait_for_line("stopping ");
    let (code, lines) = daemon.wait_for_end();
    assert_eq!(code, Some(0), "{lines:#?}");
    drop(streams);
}

#[test]
fn idle_connection_is_closed_and_a_busy_one_is_not() {
    const TIMEOUT: Duration = Duration::from_millis(800);
    let sets = SERVICES.map(|name| format!("service.{name}.idle_timeout=800ms"));
    let daemon = Daemon::start(&[&sets[0], &sets[1]]);
    let mut streams = SERVICES.map(|name| daemon.connect(name));
    let begin = Instant::now();
    while begin.elapsed() < 2 * TIMEOUT {
        for stream in &mut streams {
            ask(stream, b"still here");
        }
    }
    let begin = Instant::now();
    for stream in &mut streams {
        ask(stream, b"once more");
    }
    for (service, stream) in SERVICES.into_iter().zip(&mut streams) {
        assert_eq!(
            stream.read(&mut [0; 1]).expect("closed in good order"),
            0,
            "{service}"
        );
        // Their clocks may stand a turn behind ours.
        let waited = begin.elapsed() + Duration::from_millis(50);
        assert!(waited >= TIMEOUT, "{service} closed after {waited:?}");
    }
}

#[test]
fn connection_beyond_the_limit_waits_for_a_place() {
    let sets = SERVICES.map(|name| format!("service.{name}.max_connections=1"));
    let daemon = Daemon::start(&[&sets[0], &sets[1]]);
    for service in SERVICES {
        let mut first = daemon.connect(service);
        ask(&mut first, b"first");
        // The kernel connects it; it waits in the backlog of one of the loops.
        let mut second = daemon.connect(service);
        second.write_all(b"second").expect("the kernel takes it");
        second
            .set_read_timeout(Some(Duration::from_millis(300)))
            .expect("valid");
        let early = second.read(&mut [0; 6]).map_err(|error| error.kind());
        assert_eq!(
            early,
            Err(ErrorKind::WouldBlock),
            "{service} answered beyond its limit"
        );
        drop(first);
        second.set_read_timeout(Some(LIMIT)).expect("valid");
        let mut answer = [0; 6];
        second
            .read_exact(&mut answer)
            .expect("there is a place now");
        assert_eq!(&answer, b"second");
    }
}

#[test]
fn sigterm_drains_and_ends_with_0() {
    for (service, signal) in SERVICES.into_iter().zip([Signal::TERM, Signal::INT]) {
        let mut daemon = Daemon::start(&[]);
        let mut stream = daemon.connect(service);
        ask(&mut stream, b"before");
        // In flight: sent before the signal, read after it.
        stream
            .write_all(b"in flight, ")
            .expect("the daemon takes the request");
        daemon.signal(signal);
        daemon.wait_for_line("stopping ");
        stream
            .write_all(b"and after")
            .expect("the daemon still reads");
        let mut answer = [0; 20];
        stream
            .read_exact(&mut answer)
            .expect("the daemon still answers");
        assert_eq!(&answer, b"in flight, and after");
        drop(stream);
        let (code, lines) = daemon.wait_for_end();
        assert_eq!(code, Some(0), "{lines:#?}");
        let counts = format!("{service}: 1 accepted, 1 finished, 0 cut");
        let last = lines.last().expect("the daemon has said something");
        assert!(
            last.starts_with("stopped ") && last.contains(&counts),
            "{last}"
        );
    }
}

#[test]
fn nobody_new_is_accepted_while_draining() {
    let mut daemon = Daemon::start(&["shutdown.grace=1h"]);
    let mut stream = daemon.connect("protocol-echo");
    ask(&mut stream, b"hello");
    daemon.signal(Signal::TERM);
    daemon.wait_for_line("stopping ");
    // The loops close their listeners a moment later; who is in the queue by then is still served.
    let deadline = Instant::now() + LIMIT;
    for service in SERVICES {
        let address = daemon.address(service);
        while !matches!(connect(address), Err(error) if error.kind() == ErrorKind::ConnectionRefused)
        {
            assert!(Instant::now() < deadline, "{service} accepts on and on");
            thread::yield_now();
        }
    }
    ask(&mut stream, b"still here");
    drop(stream);
    let (code, lines) = daemon.wait_for_end();
    assert_eq!(code, Some(0), "{lines:#?}");
}

#[test]
fn daemon_without_connections_ends_at_once() {
    let daemon = Daemon::start(&["shutdown.grace=1h"]);
    daemon.signal(Signal::TERM);
    let (code, lines) = daemon.wait_for_end();
    assert_eq!(code, Some(0), "{lines:#?}");
}

#[test]
fn connection_is_cut_when_the_grace_period_runs_out() {
    for service in SERVICES {
        let mut daemon = Daemon::start(&["shutdown.grace=200ms"]);
        let mut stream = daemon.connect(service);
        ask(&mut stream, b"hello");
        daemon.signal(Signal::TERM);
        daemon.wait_for_line("stopping ");
        // Cut, not forgotten: end of stream or reset, whichever is first.
        match stream.read(&mut [0; 1]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("{service} was not cut: {other:?}"),
        }
        let (code, lines) = daemon.wait_for_end();
        assert_eq!(code, Some(3), "{lines:#?}");
        let counts = format!("{service}: 1 accepted, 0 finished, 1 cut");
        let last = lines.last().expect("the daemon has said something");
        assert!(last.contains(&counts), "{last}");
    }
}

#[test]
fn second_signal_cuts_at_once() {
    let mut daemon = Daemon::start(&["shutdown.grace=1h"]);
    let mut stream = daemon.connect("task-echo");
    ask(&mut stream, b"hello");
    daemon.signal(Signal::TERM);
    daemon.wait_for_line("stopping ");
    daemon.signal(Signal::TERM);
    let (code, lines) = daemon.wait_for_end();
    assert_eq!(code, Some(3), "{lines:#?}");
}

#[test]
fn address_in_use_ends_with_1_and_says_which() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    // The second service: the first one is up by then, and must be taken down again unannounced.
    let daemon = Daemon::spawn(&[&format!("service.task-echo.bind={address}")]);
    let (code, lines) = daemon.wait_for_end();
    assert_eq!(code, Some(1), "{lines:#?}");
    let last = lines.last().expect("the daemon has said something");
    assert!(
        last.starts_with("echod: cannot start service task-echo: "),
        "{last}"
    );
    assert!(last.contains(&address), "{last}");
    assert!(last.to_lowercase().contains("in use"), "{last}");
    assert!(
        !lines.iter().any(|line| line.starts_with("listening ")),
        "{lines:#?}"
    );
}

#[test]
fn start_is_reported_on_one_line() {
    let daemon = Daemon::start(&["runtime.file_limit=256"]);
    let started = daemon.seen.last().expect("the daemon has said something");
    let expected = "started 2 loops, not pinned (pin = false), ";
    assert!(started.starts_with(expected), "{started}");
    assert!(started.ends_with(", up to 256 open files"), "{started}");
}

#[test]
fn json_log_is_one_object_a_line() {
    let sets = ["log.format=json", "runtime.file_limit=256"];
    let mut daemon = Daemon::start(&sets);
    let line = daemon.wait_for_line("{");
    // Two services of 100000 connections and two loops do not fit into 256 files.
    for part in ["\"level\":\"WARN\"", "\"files\":256", "\"needed\":200032"] {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
    assert!(line.ends_with('}'), "{line}");
}

//! Servers of known behaviour, and the run of the binary with a bound on its time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// No run of these tests takes longer unless it hangs.
const RUN_LIMIT: Duration = Duration::from_secs(20);

/// A server on a free port of loopback that runs `serve` on a thread for each connection; it ends
/// with the test process.
pub(crate) fn server(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
    let address = listener
        .local_addr()
        .expect("a bound listener has an address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("accepting on loopback");
            stream.set_nodelay(true).expect("a TCP socket");
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Echoes whatever comes after `change` has had it, until the peer or `change` (by `false`) ends
/// it.
pub(crate) fn echo(mut stream: TcpStream, mut change: impl FnMut(&mut Vec<u8>) -> bool) {
    let mut buffer = vec![0; 65536];
    loop {
        let n = match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) => n,
        };
        let mut answer = buffer[..n].to_vec();
        if !change(&mut answer) || stream.write_all(&answer).is_err() {
            return;
        }
    }
}

/// A faultless echo server.
pub(crate) fn echo_server() -> SocketAddr {
    server(|stream| echo(stream, |_| true))
}

/// A folder of this test process that no other test uses.
pub(crate) fn fresh_folder(name: &str) -> PathBuf {
    static N_FOLDERS: AtomicUsize = AtomicUsize::new(0);
    let number = N_FOLDERS.fetch_add(1, Ordering::Relaxed);
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("{name}-{}-{number}", std::process::id()));
    assert!(
        !folder.exists(),
        "{} is left from another run",
        folder.display()
    );
    folder
}

/// What a run of the binary came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Ran {
    /// Whether the run went well: whether the generator was fast enough for valid figures depends on
    /// who else uses this machine.
    pub(crate) fn is_ok(&self) -> bool {
        matches!(self.code, Some(0 | 4))
    }

    /// The rest of the first report line with this label.
    pub(crate) fn line(&self, label: &str) -> &str {
        self.stdout
            .lines()
            .find_map(|line| line.trim_start().strip_prefix(label)?.strip_prefix(' '))
            .unwrap_or_else(|| panic!("no line {label:?} in {self:#?}"))
            .trim()
    }

    /// A latency of the report in nanoseconds, from the intended send.
    pub(crate) fn nanos(&self, label: &str) -> f64 {
        self.both_nanos(label)[0]
    }

    /// A latency from the intended and from the real send, in nanoseconds.
    pub(crate) fn both_nanos(&self, label: &str) -> [f64; 2] {
        let words: Vec<&str> = self.line(label).split_whitespace().collect();
        match words.as_slice() {
            [one, its_unit, other, others_unit] => {
                [nanos(one, its_unit), nanos(other, others_unit)]
            }
            other => panic!("no two latencies: {other:?}"),
        }
    }

    /// One figure of a line of percentiles, such as `p99` of `send lag`, in nanoseconds.
    pub(crate) fn percentile(&self, label: &str, name: &str) -> f64 {
        let figures = self.line(label).split(", ");
        let mut words = figures.map(|figure| figure.split(' ').collect::<Vec<_>>());
        words
            .find_map(|words| match words.as_slice() {
                [first, number, unit, ..] if *first == name => Some(nanos(number, unit)),
                _ => None,
            })
            .unwrap_or_else(|| panic!("no {name} of {label} in {self:#?}"))
    }

    /// Requests answered in a phase of the report.
    pub(crate) fn answered(&self, phase: &str) -> u64 {
        let text = self.line(phase);
        let (_, rest) = text
            .split_once(", ")
            .expect("the span stands before the count");
        let (count, _) = rest
            .split_once(" requests answered")
            .expect("a count of requests");
        count.replace(' ', "").parse().expect("a count")
    }
}

fn nanos(number: &str, unit: &str) -> f64 {
    let factor = match unit {
        "ns" => 1.0,
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        other => panic!("unit {other:?}"),
    };
    number.parse::<f64>().expect("a number") * factor
}

/// Runs `loadgen` to its end, which must come within [`RUN_LIMIT`].
pub(crate) fn loadgen(arguments: &[&str]) -> Ran {
    finish(start(arguments))
}

/// Runs `loadgen run` against `address`.
pub(crate) fn run(address: SocketAddr, options: &[&str]) -> Ran {
    let target = format!("tcp://{address}");
    let mut arguments = vec!["run", target.as_str()];
    arguments.extend(options);
    loadgen(&arguments)
}

/// A measurement on a machine that others use too may be spoilt; a wrong instrument spoils all.
const ATTEMPTS: usize = 4;

/// Runs until `is_right` of a run, at most [`ATTEMPTS`] times.
pub(crate) fn eventually(measure: impl Fn() -> Ran, is_right: impl Fn(&Ran) -> bool) -> Ran {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let ran = measure();
        if is_right(&ran) {
            return ran;
        }
        last = Some(ran);
    }
    panic!("wrong {ATTEMPTS} times, at last: {last:#?}");
}

/// A process of the binary and when it began.
pub(crate) type Started = (Child, Instant);

pub(crate) fn start(arguments: &[&str]) -> Started {
    let child = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cargo has built the binary");
    (child, Instant::now())
}

/// Waits for the end of a started process; one that hangs is killed and fails the test with what it
/// said.
pub(crate) fn finish((child, began): Started) -> Ran {
    let pid = child.id();
    let (sender, receiver) = std::sync::mpsc::channel();
    let waiter = thread::spawn(move || {
        let output = child.wait_with_output();
        if sender.send(()).is_err() {
            // The test gave up waiting and has failed already.
        }
        output
    });
    let hung = receiver.recv_timeout(RUN_LIMIT).is_err();
    if hung {
        signal(pid, "KILL");
    }
    let Output {
        status,
        stdout,
        stderr,
    } = waiter
        .join()
        .expect("the waiter does not panic")
        .expect("a child can be waited for");
    let ran = Ran {
        code: status.code(),
        stdout: String::from_utf8(stdout).expect("the report is UTF-8"),
        stderr: String::from_utf8(stderr).expect("messages are UTF-8"),
        took: began.elapsed(),
    };
    assert!(!hung, "did not end within {RUN_LIMIT:?}: {ran:#?}");
    ran
}

/// Says that a check was left out, past the test harness, which shows what a passing test prints to
/// nobody.
pub(crate) fn skipped(why: &str) {
    writeln!(std::io::stderr(), "SKIPPED: {why}").expect("standard error is open");
}

/// Sends a signal to one process.
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status();
    assert!(
        status.expect("kill exists on every Unix").success(),
        "kill -{name} {pid}"
    );
}

//! Claims about the servers and about the instrument itself: both must be right before a figure
//! means anything. Everything runs on loopback with port 0, on one CPU, with bounded waits.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use garland_versus::generator::{Generator, Load, LoadError};
use garland_versus::hog;
use garland_versus::idle;
use garland_versus::measure::{self, Protocol, Shape, Traffic};
use garland_versus::open_loop;
use garland_versus::process::{Refused, ServerProcess};
use garland_versus::skew;
use garland_versus::syscalls;
use garland_versus::timetable::Timetable;
use garland_versus::trace::{COLUMNS, Request, Trace};

/// Every server of this package that echoes over TCP, as its program and arguments.
const SERVERS: &[(&str, &[&str])] = &[
    (env!("CARGO_BIN_EXE_serve_mio"), &[]),
    (env!("CARGO_BIN_EXE_serve_tokio"), &["multi-thread"]),
    (env!("CARGO_BIN_EXE_serve_tokio"), &["per-core"]),
    (env!("CARGO_BIN_EXE_serve_garland"), &["callback"]),
    (env!("CARGO_BIN_EXE_serve_garland"), &["task"]),
    (env!("CARGO_BIN_EXE_serve_garland"), &["lent"]),
    #[cfg(feature = "peers")]
    (env!("CARGO_BIN_EXE_serve_smol"), &[]),
    #[cfg(feature = "peers")]
    (env!("CARGO_BIN_EXE_serve_monoio"), &["epoll"]),
    #[cfg(feature = "peers")]
    (env!("CARGO_BIN_EXE_serve_monoio"), &["uring"]),
    #[cfg(feature = "peers")]
    (env!("CARGO_BIN_EXE_serve_glommio"), &[]),
    #[cfg(feature = "peers")]
    (env!("CARGO_BIN_EXE_serve_compio"), &[]),
];

/// Those for datagrams.
const UDP_SERVERS: &[(&str, &[&str])] = &[
    (env!("CARGO_BIN_EXE_serve_udp"), &["mio"]),
    (env!("CARGO_BIN_EXE_serve_udp"), &["mio-batch"]),
    (env!("CARGO_BIN_EXE_serve_udp"), &["garland-callback"]),
    (env!("CARGO_BIN_EXE_serve_udp"), &["garland-task"]),
    (
        env!("CARGO_BIN_EXE_serve_tokio"),
        &["multi-thread", "--service=udp"],
    ),
    #[cfg(feature = "peers")]
    (env!("CARGO_BIN_EXE_serve_smol"), &["--service=udp"]),
    #[cfg(feature = "peers")]
    (
        env!("CARGO_BIN_EXE_serve_monoio"),
        &["epoll", "--service=udp"],
    ),
    #[cfg(feature = "peers")]
    (
        env!("CARGO_BIN_EXE_serve_monoio"),
        &["uring", "--service=udp"],
    ),
    #[cfg(feature = "peers")]
    (env!("CARGO_BIN_EXE_serve_glommio"), &["--service=udp"]),
    #[cfg(feature = "peers")]
    (env!("CARGO_BIN_EXE_serve_compio"), &["--service=udp"]),
];

/// Those that work.
const SPIN_SERVERS: &[(&str, &[&str])] = &[
    (env!("CARGO_BIN_EXE_serve_oracle"), &[]),
    (
        env!("CARGO_BIN_EXE_serve_garland"),
        &["task", "--service=spin"],
    ),
    (
        env!("CARGO_BIN_EXE_serve_tokio"),
        &["multi-thread", "--service=spin"],
    ),
    (
        env!("CARGO_BIN_EXE_serve_tokio"),
        &["per-core", "--service=spin"],
    ),
    #[cfg(feature = "peers")]
    (env!("CARGO_BIN_EXE_serve_smol"), &["--service=spin"]),
    #[cfg(feature = "peers")]
    (
        env!("CARGO_BIN_EXE_serve_monoio"),
        &["epoll", "--service=spin"],
    ),
    #[cfg(feature = "peers")]
    (
        env!("CARGO_BIN_EXE_serve_monoio"),
        &["uring", "--service=spin"],
    ),
    #[cfg(feature = "peers")]
    (env!("CARGO_BIN_EXE_serve_glommio"), &["--service=spin"]),
    #[cfg(feature = "peers")]
    (env!("CARGO_BIN_EXE_serve_compio"), &["--service=spin"]),
];

/// Nothing if it says that it cannot run here: a kernel may refuse what some servers need.
fn start((program, arguments): &(&str, &[&str])) -> Option<ServerProcess> {
    start_on(program, arguments, &[0])
}

fn start_on(program: &str, arguments: &[&str], cpus: &[usize]) -> Option<ServerProcess> {
    match ServerProcess::start(Path::new(program), arguments, cpus) {
        Ok(server) => Some(server),
        Err(error) if error.is::<Refused>() => {
            eprintln!("left out: {program}: {error}");
            None
        }
        Err(error) => panic!("{program} {arguments:?}: {error:#}"),
    }
}

/// A server on a thread that serves one connection; the thread ends with that connection.
fn lying_server(answer: impl Fn(&mut Vec<u8>) + Send + 'static) -> Load {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let server = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the generator connects");
        let mut request = [0; 64];
        while let Ok(()) = stream.read_exact(&mut request) {
            let mut bytes = request.to_vec();
            answer(&mut bytes);
            if bytes.is_empty() || stream.write_all(&bytes).is_err() {
                return;
            }
        }
    });
    Load {
        server,
        connections: 1,
        size: 64,
    }
}

fn verdict(load: &Load) -> LoadError {
    let mut generator = Generator::connect(load).expect("it listens");
    generator
        .run(Duration::from_secs(5))
        .expect_err("the answers are wrong")
}

#[test]
fn every_server_echoes_every_byte_in_every_shape() {
    for server in SERVERS {
        let Some(mut process) = start(server) else {
            continue;
        };
        for (connections, size) in [(1, 1), (3, 64), (200, 64), (2, 4096), (3, 1_000_003)] {
            let shape = Shape {
                protocol: Protocol::Tcp,
                connections,
                size,
                seconds: 0.1,
                rate: None,
            };
            let window = measure::window(&mut process, "server", 0, &shape);
            let window = window.unwrap_or_else(|error| panic!("{server:?} {shape:?}: {error:#}"));
            assert!(window.requests > 0 && window.cpu_ns > 0, "{window:?}");
        }
        process.end().expect("it ends with its stdin");
    }
}

#[test]
fn every_udp_server_echoes_every_byte() {
    for server in UDP_SERVERS {
        let Some(mut process) = start(server) else {
            continue;
        };
        for (connections, size) in [(1, 1), (64, 64), (2, 4096)] {
            let shape = Shape {
                protocol: Protocol::Udp,
                connections,
                size,
                seconds: 0.1,
                rate: None,
            };
            let window = measure::window(&mut process, "server", 0, &shape);
            let window = window.unwrap_or_else(|error| panic!("{server:?} {shape:?}: {error:#}"));
            assert!(window.requests > 0 && window.cpu_ns > 0, "{window:?}");
        }
        process.end().expect("it ends with its stdin");
    }
}

#[test]
fn two_loops_echo_every_byte_without_stealing_and_rescue() {
    for model in ["callback", "task"] {
        let arguments = [model, "--no-rescue", "--no-steal"];
        let program = env!("CARGO_BIN_EXE_serve_garland");
        let mut process = start_on(program, &arguments, &[0, 1]).expect("it runs everywhere");
        let window = measure::window(&mut process, "server", 0, &paced(64, None));
        let window = window.unwrap_or_else(|error| panic!("{model}: {error:#}"));
        assert!(window.requests > 0 && window.pace.is_none(), "{window:?}");
        process.end().expect("it ends with its stdin");
    }
}

fn paced(connections: usize, rate: Option<f64>) -> Shape {
    Shape {
        protocol: Protocol::Tcp,
        connections,
        size: 64,
        seconds: 0.3,
        rate,
    }
}

#[test]
fn a_rate_is_kept_and_latency_is_measured() {
    let mut process = start(&SERVERS[0]).expect("this one runs everywhere");
    let window = measure::window(&mut process, "mio", 0, &paced(8, Some(1000.0)));
    let window = window.expect("it echoes");
    let pace = window.pace.expect("there was a rate");
    // 300 in the mean; five times the deviation of a Poisson count to either side.
    assert!((213..=387).contains(&pace.due), "{window:?}");
    assert!(window.requests + 8 >= pace.due, "{window:?}");
    assert!(0.0 < pace.p50_us && pace.p50_us <= pace.p90_us, "{pace:?}");
    assert!(pace.p90_us <= pace.p99_us, "{pace:?}");
    process.end().expect("it ends with its stdin");
}

#[test]
fn a_rate_that_one_connection_cannot_carry_shows_in_count_and_latency() {
    let mut process = start(&SERVERS[0]).expect("this one runs everywhere");
    let window = measure::window(&mut process, "mio", 0, &paced(1, Some(5e6)));
    let window = window.expect("what is sent is echoed");
    let pace = window.pace.expect("there was a rate");
    assert!(window.requests * 2 < pace.due, "{window:?}");
    // Those that never left have waited too: half of all for half of the time or longer.
    assert!(pace.p50_us > 100_000.0, "{pace:?}");
    process.end().expect("it ends with its stdin");
}

#[test]
fn a_wrong_answer_at_a_rate_is_found() {
    let load = lying_server(|answer| answer[63] ^= 1);
    let mut generator = Generator::connect(&load).expect("it listens");
    let timetable = Timetable::new(1000.0, 1);
    let error = generator.run_by(timetable, Duration::from_secs(5));
    let error = error.expect_err("the answers are wrong");
    assert!(
        matches!(error, LoadError::Mismatch { byte: 63, .. }),
        "{error}"
    );
}

#[test]
fn no_answer_at_a_rate_is_found() {
    let load = lying_server(|answer| answer.truncate(63));
    let mut generator = Generator::connect(&load).expect("it listens");
    let timetable = Timetable::new(1000.0, 1);
    let error = generator.run_by(timetable, Duration::from_millis(100));
    let error = error.expect_err("no answer is complete");
    assert!(
        matches!(error, LoadError::Stalled { answered: 0, .. }),
        "{error}"
    );
}

#[test]
fn system_calls_of_a_bare_loop_are_counted() {
    let mut process = start(&SERVERS[0]).expect("this one runs everywhere");
    let load = Load {
        server: process.address(),
        connections: 1,
        size: 64,
    };
    match syscalls::count(&mut process, "mio", &load) {
        Ok(counted) => {
            // It waits, receives and sends, each once; attaching adds a few.
            let each = counted.per_request();
            let few = 10.0 / counted.requests as f64;
            assert!((2.9..=3.1 + few).contains(&each), "{counted:?}");
        }
        Err(error) if error.is::<Refused>() => eprintln!("not counted: {error}"),
        Err(error) => panic!("{error:#}"),
    }
    process.end().expect("it ends with its stdin");
}

#[test]
fn a_bare_loop_sleeps_while_there_is_nothing_to_do() {
    let process = start(&SERVERS[0]).expect("this one runs everywhere");
    let servers = [("mio", &process)].into_iter();
    let [(_, idle)] = &idle::watch(servers, Duration::from_millis(300))[..] else {
        panic!("one server was watched");
    };
    let idle = idle.as_ref().expect("it echoes");
    assert_eq!(idle.wakeups, 0, "{idle:?}");
    assert!(idle.seconds >= 0.3, "{idle:?}");
    process.end().expect("it ends with its stdin");
}

#[test]
fn every_spin_server_answers_every_request_after_its_work() {
    let hot = COLUMNS.iter().position(|column| column.name == "hot .3");
    for (program, arguments) in SPIN_SERVERS {
        let Some(mut process) = start_on(program, arguments, &[0, 1]) else {
            continue;
        };
        let window = skew::window(&mut process, "server", 0, hot.expect("it is a column"), 0.3);
        let window = window.unwrap_or_else(|error| panic!("{program} {arguments:?}: {error:#}"));
        assert!(window.requests > 0 && window.answered > 0, "{window:?}");
        assert!(
            window.overhead_us > 0.0,
            "less CPU than was asked for: {window:?}"
        );
        process.end().expect("it ends with its stdin");
    }
}

#[test]
fn a_hog_holds_up_a_server_that_has_one_loop() {
    let (program, _) = SPIN_SERVERS[0];
    let mut process = start_on(program, &[], &[0]).expect("this one runs everywhere");
    let window = hog::window(&mut process, "server", 0, 0.3).expect("it answers in the end");
    assert!(
        window.held_ms >= 300.0 && window.requests > 200,
        "{window:?}"
    );
    assert!(window.answered < window.requests / 2, "{window:?}");
    assert!(
        window.max_us > 200_000.0 && window.connects > 8,
        "{window:?}"
    );
    process.end().expect("it ends with its stdin");
}

#[test]
fn a_wrong_answer_to_work_is_found() {
    let load = lying_server(|answer| answer.swap(0, 16));
    let requests = (0..8).map(|step| Request {
        at_ns: step,
        connection: 0,
        service_ns: 7,
    });
    let trace = Trace {
        standing: 1,
        one_home: false,
        requests: requests.collect(),
    };
    let outcome = open_loop::play(load.server, &trace, Duration::from_secs(5));
    let error = outcome.expect_err("the first two answers have changed places");
    assert!(
        matches!(
            error,
            LoadError::Mismatch {
                connection: 0,
                byte: 0
            }
        ),
        "{error}"
    );
}

#[test]
fn a_server_that_cannot_run_here_says_so() {
    let script = ["-c", "echo 'cannot run here: no such kernel'"];
    let error = ServerProcess::start(Path::new("/bin/sh"), &script, &[0]);
    let error = error.expect_err("it does not listen");
    let refused = error.downcast_ref::<Refused>().expect("it is no failure");
    assert_eq!(refused.0, "no such kernel");
}

#[test]
fn every_server_echoes_what_came_before_a_half_close() {
    for server in SERVERS {
        let Some(process) = start(server) else {
            continue;
        };
        let mut stream = TcpStream::connect(process.address()).expect("it listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("not zero");
        stream.write_all(b"last words").expect("it is open");
        stream.shutdown(Shutdown::Write).expect("it is open");
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .expect("the server closes after us");
        assert_eq!(answer, b"last words", "{server:?}");
        process.end().expect("it ends with its stdin");
    }
}

#[test]
fn every_server_ends_with_its_stdin_while_connections_are_open() {
    for server in SERVERS {
        let Some(process) = start(server) else {
            continue;
        };
        let load = Load {
            server: process.address(),
            connections: 5,
            size: 64,
        };
        let mut generator = Generator::connect(&load).expect("it listens");
        generator.echo_once().expect("it echoes");
        process.end().expect("it ends with its stdin");
    }
}

#[test]
fn idle_connections_cost_every_server_memory() {
    for server in SERVERS {
        let Some(mut process) = start(server) else {
            continue;
        };
        let shape = Shape {
            protocol: Protocol::Tcp,
            connections: 500,
            size: 64,
            seconds: 1.0,
            rate: None,
        };
        let memory = measure::memory(&mut process, "server", &shape, Traffic::OneEcho);
        let memory = memory.unwrap_or_else(|error| panic!("{server:?}: {error:#}"));
        assert!(
            memory.idle_bytes > memory.before_bytes,
            "{server:?} {memory:?}"
        );
        assert!(memory.echoed_bytes.is_some());
        process.end().expect("it ends with its stdin");
    }
}

#[test]
fn changed_byte_is_found() {
    let load = lying_server(|answer| answer[63] ^= 1);
    assert!(matches!(
        verdict(&load),
        LoadError::Mismatch {
            connection: 0,
            byte: 63
        }
    ));
}

#[test]
fn answer_to_the_request_before_is_found() {
    let before = std::sync::Mutex::new(None);
    let load = lying_server(move |answer| {
        let mut before = before.lock().expect("nobody panics while holding it");
        let first = before.get_or_insert_with(|| answer.clone());
        answer.clone_from(first);
    });
    assert!(matches!(verdict(&load), LoadError::Mismatch { .. }));
}

#[test]
fn doubled_bytes_are_found() {
    let load = lying_server(|answer| answer.push(0));
    assert!(matches!(
        verdict(&load),
        LoadError::Excess { .. } | LoadError::Mismatch { .. }
    ));
}

#[test]
fn closed_connection_is_found() {
    let load = lying_server(Vec::clear);
    let error = verdict(&load);
    assert!(
        matches!(error, LoadError::Closed { .. } | LoadError::Socket { .. }),
        "{error}"
    );
}

#[test]
fn withheld_answer_is_found() {
    let load = lying_server(|answer| answer.truncate(63));
    let mut generator = Generator::connect(&load).expect("it listens");
    let error = generator
        .run(Duration::from_millis(200))
        .expect_err("no answer is complete");
    assert!(
        matches!(
            error,
            LoadError::Stalled {
                waiting: 1,
                answered: 0,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn server_that_cannot_start_is_reported_with_its_stderr() {
    let (program, _) = SERVERS[0];
    let error = ServerProcess::start(Path::new(program), &["--no-such-option"], &[0]);
    let text = format!("{:#}", error.expect_err("the option is unknown"));
    assert!(
        text.contains("exit status: 2") && text.contains("--no-such-option"),
        "{text}"
    );
}

#[test]
fn server_that_dies_under_load_is_reported_with_its_stderr() {
    let (program, _) = SERVERS[0];
    let few_descriptors = ["-c", "ulimit -n 40; exec \"$0\" \"$@\"", program];
    let server = ServerProcess::start(Path::new("/bin/sh"), &few_descriptors, &[0]);
    let mut server = server.expect("40 descriptors are enough to start");
    let shape = Shape {
        protocol: Protocol::Tcp,
        connections: 100,
        size: 64,
        seconds: 0.1,
        rate: None,
    };
    let error = measure::window(&mut server, "mio", 0, &shape);
    let text = format!(
        "{:#}",
        error.expect_err("there is no descriptor for the 41st")
    );
    assert!(
        text.contains("has died") && text.contains("Too many open files"),
        "{text}"
    );
}

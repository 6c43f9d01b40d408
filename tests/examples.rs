//! The programs in examples/, and what each of them prints, line for line.
//!
//! An example prints to the standard output like any program, so each runs in a process of its own: this
//! binary again, told to run one test, in which the example is compiled. So it is never a stale build
//! that is compared, whatever cargo was asked to build.
#![allow(clippy::print_stdout, reason = "what is printed is what is compared")]

use std::any::type_name;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use garland::{Builder, ManualClock};
use rustix::process::{Pid, Signal, kill_process};

#[path = "../examples/call_later.rs"]
#[expect(dead_code, reason = "tests do not call its `main`")]
mod call_later;
#[path = "../examples/chat.rs"]
#[expect(dead_code, reason = "tests do not call its `main`")]
mod chat;
#[path = "../examples/echo_tcp.rs"]
#[expect(dead_code, reason = "tests do not call its `main`")]
mod echo_tcp;
#[path = "../examples/echo_udp.rs"]
#[expect(dead_code, reason = "tests do not call its `main`")]
mod echo_udp;
#[path = "../examples/fetch.rs"]
#[expect(dead_code, reason = "tests do not call its `main`")]
mod fetch;
#[path = "../examples/generator.rs"]
mod generator;
#[path = "../examples/one_or_many.rs"]
mod one_or_many;
#[path = "../examples/pipeline.rs"]
#[expect(dead_code, reason = "tests do not call its `main`")]
mod pipeline;
#[path = "../examples/promise.rs"]
mod promise;
#[path = "../examples/scheduler.rs"]
mod scheduler;
#[path = "../examples/tree.rs"]
mod tree;

/// How long an example may take.
const LIMIT: Duration = Duration::from_secs(30);

type Outcome = Result<(), Box<dyn Error>>;

/// Set in a process that runs one example, to its arguments.
const CHILD: &str = "GARLAND_EXAMPLE";
/// What stands around that which the example prints.
const BEGIN: &str = "=== the example begins";
const END: &str = "=== the example has ended";

/// An example that runs in a process of its own.
struct Shown {
    process: Child,
    lines: mpsc::Receiver<String>,
}

impl Shown {
    /// Runs `test` again, in which `example` is then called with `args`. Returns in the first process
    /// only.
    fn start<T: Fn()>(_test: T, args: &[&str], example: impl FnOnce(&[&str]) -> Outcome) -> Shown {
        if let Ok(args) = std::env::var(CHILD) {
            println!("\n{BEGIN}");
            let args: Vec<&str> = args.split_whitespace().collect();
            let outcome = example(&args);
            println!("{END}");
            let failure = outcome.inspect_err(|error| eprintln!("{error}")).is_err();
            std::process::exit(i32::from(failure));
        }
        let name = type_name::<T>().rsplit("::").next();
        let name = name.expect("a function has a name");
        let program = std::env::current_exe().expect("a running program has a path");
        let mut process = Command::new(program)
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, args.join(" "))
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started again");
        let stdout = process.stdout.take().expect("it is piped");
        let (line, lines) = mpsc::channel();
        let reading = thread::Builder::new().spawn(move || {
            for text in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.send(text).is_err() {
                    return;
                }
            }
        });
        reading.expect("a thread can be started");
        let mut shown = Shown { process, lines };
        while shown.line() != BEGIN {}
        shown
    }

    /// The next line, or the failure of the test.
    fn line(&mut self) -> String {
        match self.lines.recv_timeout(LIMIT) {
            Ok(line) => line,
            Err(error) => panic!("no line: {error}"),
        }
    }

    /// The next line that begins with `prefix`, without it; the lines before it are skipped.
    fn after(&mut self, prefix: &str) -> String {
        loop {
            let line = self.line();
            if let Some(rest) = line.strip_prefix(prefix) {
                return rest.trim_start().to_owned();
            }
        }
    }

    /// Ctrl-C.
    fn interrupt(&self) {
        let process = Pid::from_child(&self.process);
        kill_process(process, Signal::INT).expect("it runs");
    }

    /// The rest of what it prints, when it has ended well.
    fn rest(mut self) -> Vec<String> {
        let mut rest = Vec::new();
        loop {
            let line = self.line();
            if line == END {
                break;
            }
            rest.push(line);
        }
        let status = self.process.wait().expect("it is our child");
        assert!(status.success(), "it failed: {status}; {rest:#?}");
        rest
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.process.kill().expect("it is our child");
            self.process.wait().expect("it is our child");
        }
    }
}

/// Compares all that an example prints.
#[track_caller]
fn prints<T: Fn()>(test: T, example: impl FnOnce() -> Outcome, expected: &str) {
    let printed = Shown::start(test, &[], |_args| example()).rest().join("\n");
    let expected: Vec<&str> = expected.trim().lines().map(str::trim).collect();
    let printed: Vec<&str> = printed.lines().map(str::trim).collect();
    assert_eq!(printed, expected);
}

#[test]
fn task_02_generator_makes_a_value_when_it_is_asked_for() {
    prints(
        task_02_generator_makes_a_value_when_it_is_asked_for,
        generator::main,
        "
        eager:
          made 0
          made 1
          made 2
          used 0
          used 1
          used 2
        lazy:
          made 0
          used 0
          made 1
          used 1
          made 2
          used 2
        lazy, and only two are asked for:
          made 0
          used 0
          made 1
          used 1
        lazy, and waiting in between:
          made 0
          used 0
          made 1
          used 1
          made 2
          used 2
    ",
    );
}

#[test]
fn task_02_pipeline_pushes_and_pulls_the_same() {
    let example = || {
        let folder = std::env::temp_dir().join(format!("garland-pipeline-{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        for file in ["b.rs", "notes.txt", "a.rs", "c.rs.orig"] {
            std::fs::write(folder.join(file), "")?;
        }
        let outcome = pipeline::run(&folder, ".rs");
        std::fs::remove_dir_all(&folder)?;
        outcome
    };
    prints(
        task_02_pipeline_pushes_and_pulls_the_same,
        example,
        "
        pushed:
        a.rs
        b.rs
        pulled:
        a.rs
        b.rs
    ",
    );
}

#[test]
fn task_02_tree_is_walked_in_order_with_fewer_hands_by_delegation() {
    prints(
        task_02_tree_is_walked_in_order_with_fewer_hands_by_delegation,
        tree::main,
        "
        without delegation: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], through 49 hands
        with delegation: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], through 15 hands
    ",
    );
}

#[test]
fn task_01_scheduler_and_loop_interleave_line_for_line() {
    let turns = "
        down 5
        up 1
        down 4
        up 2
        down 3
        up 3
        down 2
        task 2 terminated
        down 1
        task 1 terminated
    ";
    let both = format!("by the scheduler:{turns}by the loop:{turns}");
    prints(
        task_01_scheduler_and_loop_interleave_line_for_line,
        scheduler::main,
        &both,
    );
}

#[test]
fn time_01_call_later_prints_in_the_order_of_deadlines() {
    let example = || call_later::run(Builder::new().clock(ManualClock::auto_advance()));
    prints(
        time_01_call_later_prints_in_the_order_of_deadlines,
        example,
        "
        scheduling
        running
        soon
        soon, and schedules one more
        after 0 ms
        in the next turn
        after 20 ms
        at 40 ms
        tick at 0 ms
        tick at 20 ms
        tick at 40 ms
        tick at 60 ms
        tick at 80 ms
    ",
    );
}

#[test]
fn fut_01_promise_is_resolved_after_three_sleeps() {
    prints(
        fut_01_promise_is_resolved_after_three_sleeps,
        promise::main,
        "
        waiting
        slept 1
        slept 2
        slept 3
        called back with Ok(\"the answer\")
        got \"the answer\"
    ",
    );
}

#[test]
fn strm_01_fetch_prints_the_page_of_its_own_server() {
    prints(
        strm_01_fetch_prints_the_page_of_its_own_server,
        || fetch::run(None),
        "
        header> HTTP/1.0 200 OK
        header> Content-Length: 36
        You asked: GET /index.html HTTP/1.0
    ",
    );
}

#[test]
fn strm_01_chat_is_heard_by_everybody_in_the_room() {
    prints(
        strm_01_chat_is_heard_by_everybody_in_the_room,
        chat::demonstrate,
        "
        ann hears: name?
        ann hears: * ann joined
        bob hears: name?
        bob hears: * bob joined
        ann hears: * bob joined
        ann hears: ann: hello, bob
        bob hears: ann: hello, bob
        ann hears: * 2 here
        bob hears: * 2 here
        ann hears: * bob left
    ",
    );
}

#[test]
fn mc_08_one_or_many_serves_the_same_protocol() {
    prints(
        mc_08_one_or_many_serves_the_same_protocol,
        one_or_many::main,
        "
        served on 1: 20 connections
        served on 4: 20 connections
    ",
    );
}

#[test]
fn sig_01_echo_tcp_names_its_peer_and_runs_until_it_is_interrupted() {
    let test = sig_01_echo_tcp_names_its_peer_and_runs_until_it_is_interrupted;
    let mut both = Shown::start(test, &[], echo_tcp::run);
    // One loop speaks for the server and one for the client: their lines come in any order.
    let mut lines: Vec<String> = (0..6).map(|_| both.line()).collect();
    lines.sort();
    let peer = lines[2].strip_prefix("server: connection from ");
    let peer = peer.expect("the server names its peer").to_owned();
    assert!(peer.starts_with("127.0.0.1:"), "{peer}");
    let addr = lines[3].strip_prefix("server: listening on ");
    let expected = [
        format!(
            "client: connected to {}",
            addr.expect("the server names itself")
        ),
        "client: received \"Re: This is the message.\"".to_owned(),
        format!("server: connection from {peer}"),
        lines[3].clone(),
        format!("server: lost {peer}"),
        "server: received \"This is the message.\"".to_owned(),
    ];
    assert_eq!(lines, expected);
    both.interrupt();
    assert_eq!(both.rest(), ["interrupted"]);
}

#[test]
fn sig_01_echo_tcp_is_a_server_or_a_client() {
    let test = sig_01_echo_tcp_is_a_server_or_a_client;
    let mut server = Shown::start(test, &["--server", "127.0.0.1:0"], echo_tcp::run);
    let addr = server.after("server: listening on");
    let mut client = Shown::start(test, &["--client", &addr], echo_tcp::run);
    assert_eq!(
        client.after("client: received"),
        "\"Re: This is the message.\""
    );
    client.interrupt();
    assert_eq!(client.rest(), ["interrupted"]);
    server.after("server: lost");
    server.interrupt();
    assert_eq!(server.rest(), ["interrupted"]);
}

#[test]
fn sig_01_echo_udp_answers_its_sender_and_runs_until_it_is_interrupted() {
    let test = sig_01_echo_udp_answers_its_sender_and_runs_until_it_is_interrupted;
    let mut both = Shown::start(test, &[], echo_udp::run);
    both.after("server: listening on");
    let sender = both.after("client: sending from");
    let expected = [
        format!("server: received \"This is the message.\" from {sender}"),
        "client: received \"This is the message.\"".to_owned(),
        "client: closed".to_owned(),
    ];
    assert_eq!([both.line(), both.line(), both.line()], expected);
    both.interrupt();
    assert_eq!(both.rest(), ["interrupted"]);
}

#[test]
fn sig_01_echo_udp_is_a_server_or_a_client() {
    let test = sig_01_echo_udp_is_a_server_or_a_client;
    let mut server = Shown::start(test, &["--server", "127.0.0.1:0"], echo_udp::run);
    let addr = server.after("server: listening on");
    let mut client = Shown::start(test, &["--client", &addr], echo_udp::run);
    let from = client.after("client: sending from");
    let text = "\"This is the message.\"";
    assert_eq!(
        server.after("server: received"),
        format!("{text} from {from}")
    );
    assert_eq!(client.after("client: received"), text);
    client.after("client: closed");
    client.interrupt();
    assert_eq!(client.rest(), ["interrupted"]);
    server.interrupt();
    assert_eq!(server.rest(), ["interrupted"]);
}

//! The server of `loadgen demo`: announced, answering, and gone with its standard input.
//!
//! `demo::serve` takes over the standard streams, so it runs in a process of its own: this test binary
//! again, asked for one test and told by the environment that it is the server.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, ExitCode, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(30);

/// Set in the process that is to be the server.
const IS_SERVER: &str = "GARLAND_TEST_DEMO_SERVER";

/// Not a test of its own: the body of the process that the test below starts.
#[test]
fn demo_process() {
    if std::env::var_os(IS_SERVER).is_none() {
        return;
    }
    assert_eq!(
        format!("{:?}", garland_echod::demo::serve(2)),
        format!("{:?}", ExitCode::SUCCESS)
    );
}

#[test]
fn demo_answers_until_its_standard_input_ends() {
    let mut child = Command::new(std::env::current_exe().expect("this process has a file"))
        .args(["--exact", "demo_process", "--nocapture"])
        .env(IS_SERVER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this test can be started again");
    let stderr = child.stderr.take().expect("standard error is a pipe");
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let lines = BufReader::new(stderr).lines().map_while(Result::ok);
        lines
            .take_while(|line| sender.send(line.clone()).is_ok())
            .for_each(drop);
    });
    let line = lines
        .recv_timeout(LIMIT)
        .expect("the demo announces itself");
    let address = line
        .strip_prefix("listening demo tcp ")
        .expect("this is its first line");
    let address = address
        .strip_suffix(" (2 loops)")
        .expect("the loops stand at the end");
    let address = address.parse().expect("an address is announced as one");

    let mut stream = TcpStream::connect_timeout(&address, LIMIT).expect("it listens");
    stream.set_read_timeout(Some(LIMIT)).expect("valid");
    stream.write_all(b"hello").expect("it takes the request");
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).expect("it answers");
    assert_eq!(&answer, b"hello");

    drop(child.stdin.take());
    while let Ok(line) = lines.recv_timeout(LIMIT) {
        // Nothing more is expected, but a panic would be worth reading.
        eprintln!("demo: {line}");
    }
    let status = child.wait().expect("the child can be waited for");
    assert!(status.success(), "{status}");
}

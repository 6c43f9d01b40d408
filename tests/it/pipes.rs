//! Rows PIPE: the ends of pipes that call a protocol.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use garland::{AfterEof, LocalLoop, Transport, yield_now};

use crate::sockets::{
    Event, Log, Reaction, Recorder, finish_lent, is_alone, lent, open_fds, pattern, until,
};
use crate::wire::{reaction, silent};

/// More than a pipe holds.
const TOO_MUCH: usize = 4 * 1024 * 1024;

/// Runs `script` on a loop of one, two and four, and checks the ledger.
fn play(script: impl AsyncFn(&LocalLoop, &Log)) {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let local = runtime.local().clone();
        let log = Log::default();
        runtime.block_on(script(&local, &log)).expect("not stopped");
        drop(local);
        finish_lent(runtime);
    }
}

fn recorder(log: &Log, reaction: &Reaction, after_eof: AfterEof) -> Recorder {
    Recorder {
        log: log.clone(),
        reaction: reaction.clone(),
        after_eof,
    }
}

async fn reading(local: &LocalLoop, log: &Log, pipe: impl Into<OwnedFd>) -> Transport {
    let factory = || recorder(log, &silent(), AfterEof::KeepOpen);
    let connected = local.connect_read_pipe(pipe, factory).await;
    connected.expect("it can be read")
}

async fn writing(local: &LocalLoop, log: &Log, pipe: impl Into<OwnedFd>) -> Transport {
    let factory = || recorder(log, &silent(), AfterEof::KeepOpen);
    let connected = local.connect_write_pipe(pipe, factory).await;
    connected.expect("it can be written")
}

async fn lost(log: &Log) {
    until("connection_lost", || log.is_lost()).await;
    for _ in 0..3 {
        yield_now().await;
    }
}

fn pair() -> (PipeReader, PipeWriter) {
    io::pipe().expect("a pipe can be made")
}

fn nonblocking(end: impl AsFd) {
    rustix::io::ioctl_fionbio(end, true).expect("a pipe");
}

/// Takes what is there, `count` bytes at most.
fn take(mut from: impl Read, count: usize) -> usize {
    let mut buf = vec![0; count];
    match from.read(&mut buf) {
        Ok(count) => count,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn pipe_01_made_data_eof_lost_whatever_eof_answers() {
    play(async |local, log| {
        let (reader, mut writer) = pair();
        let transport = reading(local, log, reader).await;
        assert_eq!(log.lines(), ["made"]);
        assert_eq!(transport.peer_name().to_string(), "(unnamed)");
        assert_eq!(transport.peer_addr(), None);
        writer.write_all(&pattern(30_000)).expect("there is room");
        until("data", || log.has("data 30000")).await;
        writer.write_all(b"more").expect("there is room");
        drop(writer);
        // `KeepOpen` is answered, and there is nothing to keep it open for.
        lost(log).await;
        assert_eq!(log.lines(), ["made", "data 30004", "eof", "lost none"]);
        assert!(transport.is_closing());
    });
}

#[test]
fn pipe_01_a_reading_end_pauses_closes_and_cannot_write() {
    play(async |local, log| {
        let (reader, mut writer) = pair();
        let writes = reaction(|event, transport| {
            if matches!(event, Event::Data(_)) {
                transport.write(b"to a reading end");
            }
        });
        let factory = || recorder(log, &writes, AfterEof::Close);
        let transport = local.connect_read_pipe(reader, factory).await;
        let transport = transport.expect("it can be read");
        assert!(!transport.can_write_eof());
        transport.write_eof();
        transport.pause_reading();
        writer.write_all(b"go").expect("there is room");
        for _ in 0..10 {
            yield_now().await;
        }
        assert_eq!(log.lines(), ["made"]);
        transport.resume_reading();
        lost(log).await;
        assert_eq!(log.lines(), ["made", "data 2", "lost Other"]);
        // Given back: the writer has no reader any more.
        let refused = writer.write_all(b"?").expect_err("nobody reads");
        assert_eq!(refused.kind(), ErrorKind::BrokenPipe);

        let (reader, mut writer) = pair();
        let second = Log::default();
        let transport = reading(local, &second, reader).await;
        writer.write_all(b"never heard").expect("there is room");
        transport.close();
        lost(&second).await;
        assert_eq!(second.lines(), ["made", "lost none"]);
    });
}

#[test]
fn pipe_01_a_stream_larger_than_the_pipe_arrives_whole() {
    play(async |local, log| {
        let (reader, writer) = pair();
        nonblocking(&writer);
        let total = Rc::new(RefCell::new(Vec::new()));
        let all = total.clone();
        let collects = reaction(move |event, _| {
            if let Event::Data(data) = event {
                all.borrow_mut().extend_from_slice(data);
            }
        });
        let factory = || recorder(log, &collects, AfterEof::Close);
        let connected = local.connect_read_pipe(reader, factory).await;
        drop(connected.expect("it can be read"));
        let sent = pattern(TOO_MUCH);
        let mut rest = &sent[..];
        while !rest.is_empty() {
            match (&writer).write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            yield_now().await;
        }
        drop(writer);
        lost(log).await;
        assert!(*total.borrow() == sent);
    });
}

#[test]
fn pipe_01_pipe_02_fifos_sockets_and_devices_only() {
    play(async |local, log| {
        let path = std::env::temp_dir().join(format!("garland-pipe-{}", std::process::id()));
        let file = || {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(true);
            options.open(&path).expect("a temporary file")
        };
        let directory = || File::open(std::env::temp_dir()).expect("it exists");
        let never = || -> Recorder { panic!("the factory is not called") };
        for refused in [file(), directory()] {
            let error = local.connect_read_pipe(refused, never).await;
            let error = error.expect_err("no pipe");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("no FIFO"), "{error}");
        }
        for refused in [file(), directory()] {
            let error = local.connect_write_pipe(refused, never).await;
            assert_eq!(error.expect_err("no pipe").kind(), ErrorKind::InvalidInput);
        }
        std::fs::remove_file(&path).expect("it was created");

        // Sockets.
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        reading(local, log, ours).await;
        theirs.write_all(b"sock").expect("there is room");
        drop(theirs);
        lost(log).await;
        assert_eq!(log.lines(), ["made", "data 4", "eof", "lost none"]);
        // Devices: one that always takes everything and reports nothing.
        let null = || OpenOptions::new().write(true).open("/dev/null");
        let second = Log::default();
        let transport = writing(local, &second, null().expect("Linux has it")).await;
        transport.write(&vec![0; TOO_MUCH]);
        assert_eq!(transport.write_buffer_size(), 0);
        transport.close();
        lost(&second).await;
        assert_eq!(second.lines(), ["made", "lost none"]);
        // One that cannot be waited for has nothing to read: the protocol hears why.
        let third = Log::default();
        reading(
            local,
            &third,
            File::open("/dev/null").expect("Linux has it"),
        )
        .await;
        lost(&third).await;
        assert_eq!(third.lines(), ["made", "lost PermissionDenied"]);
    });
}

#[test]
fn pipe_02_what_is_written_arrives_and_write_eof_closes() {
    play(async |local, log| {
        let (reader, writer) = pair();
        nonblocking(&reader);
        let transport = writing(local, log, writer).await;
        assert!(transport.can_write_eof());
        assert!(!transport.is_reading());
        transport.write(&pattern(TOO_MUCH));
        assert_eq!(log.lines(), ["made", "pause"]);
        transport.write_eof();
        assert!(transport.is_closing());
        transport.write_eof();
        let mut got = Vec::new();
        let mut buf = vec![0; 256 * 1024];
        loop {
            match (&reader).read(&mut buf) {
                Ok(0) => break,
                Ok(count) => got.extend_from_slice(&buf[..count]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            yield_now().await;
        }
        assert!(got == pattern(TOO_MUCH), "{} bytes", got.len());
        lost(log).await;
        assert_eq!(log.lines(), ["made", "pause", "resume", "lost none"]);
    });
}

#[test]
fn pipe_02_pieces_are_gathered_too() {
    play(async |local, log| {
        let (mut reader, writer) = pair();
        let transport = writing(local, log, writer).await;
        let pieces: [&[u8]; 4] = [b"one ", b"", b"write", b"v"];
        transport.write_lines(pieces);
        let mut buf = [0; 10];
        reader.read_exact(&mut buf).expect("it was sent at once");
        assert_eq!(&buf, b"one writev");
        transport.abort();
        lost(log).await;
    });
}

#[test]
fn pipe_02_the_readers_end_is_noticed_without_writing() {
    // Nothing is buffered: no error.
    play(async |local, log| {
        let (reader, writer) = pair();
        let transport = writing(local, log, writer).await;
        yield_now().await;
        drop(reader);
        lost(log).await;
        assert_eq!(log.lines(), ["made", "lost none"]);
        transport.write(b"ignored");
    });
    // Something is: it will never arrive.
    play(async |local, log| {
        let (reader, writer) = pair();
        let transport = writing(local, log, writer).await;
        transport.write(&vec![1; TOO_MUCH]);
        yield_now().await;
        drop(reader);
        lost(log).await;
        assert_eq!(log.lines(), ["made", "pause", "lost BrokenPipe"]);
        assert_eq!(transport.write_buffer_size(), 0);
    });
    // The same while it is closing, for a socket and before it was even connected.
    play(async |local, log| {
        let (theirs, ours) = UnixStream::pair().expect("a pair");
        let transport = writing(local, log, ours).await;
        transport.write(&vec![1; TOO_MUCH]);
        transport.close();
        yield_now().await;
        assert!(!log.is_lost());
        drop(theirs);
        lost(log).await;
        assert_eq!(log.lines(), ["made", "pause", "lost BrokenPipe"]);

        let (reader, writer) = pair();
        drop(reader);
        let second = Log::default();
        writing(local, &second, writer).await;
        lost(&second).await;
        assert_eq!(second.lines(), ["made", "lost none"]);
    });
}

#[test]
fn pipe_02_a_write_that_finds_no_reader_is_a_broken_pipe() {
    play(async |local, log| {
        let (reader, writer) = pair();
        let transport = writing(local, log, writer).await;
        drop(reader);
        // Before the loop has turned.
        transport.write(b"too late");
        assert!(!log.is_lost(), "not from inside of the call");
        lost(log).await;
        assert_eq!(log.lines(), ["made", "lost BrokenPipe"]);
    });
}

#[test]
fn pipe_02_abort_drops_and_close_waits() {
    play(async |local, log| {
        let (reader, writer) = pair();
        nonblocking(&reader);
        let transport = writing(local, log, writer).await;
        transport.write(&vec![1; TOO_MUCH]);
        transport.close();
        for _ in 0..10 {
            yield_now().await;
        }
        assert!(!log.is_lost());
        assert!(take(&reader, 1024) > 0);
        transport.abort();
        lost(log).await;
        assert_eq!(log.lines(), ["made", "pause", "lost none"]);
    });
}

#[test]
fn pipe_01_who_gives_up_while_it_is_made_leaks_nothing() {
    if !is_alone("pipes::pipe_01_who_gives_up_while_it_is_made_leaks_nothing") {
        return;
    }
    play(async |local, log| {
        let before = open_fds();
        let (reader, writer) = pair();
        let factory = || recorder(log, &silent(), AfterEof::Close);
        let connecting = local.connect_read_pipe(reader, factory);
        // One step, which is not enough.
        let ready = futures_lite::future::poll_once(connecting).await;
        assert!(ready.is_none());
        lost(log).await;
        assert_eq!(log.lines(), ["made", "lost none"]);
        drop(writer);
        assert_eq!(open_fds(), before);

        // A factory that fails: the descriptor is closed.
        let (reader, mut writer) = pair();
        let fails = || -> Recorder { panic!("of a factory") };
        let failing = local.connect_read_pipe(reader, fails);
        let caught = futures_lite::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(failing));
        assert!(caught.await.is_err());
        let refused = writer.write_all(b"?").expect_err("nobody reads");
        assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
    });
}

/// A TCP socket is a pipe as well as any.
#[test]
fn pipe_01_a_tcp_socket_can_be_read_as_a_pipe() {
    play(async |local, log| {
        let (listener, addr) = crate::sockets::raw_listener();
        let mut client = TcpStream::connect(addr).expect("it listens");
        let (accepted, _) = listener.accept().expect("somebody came");
        reading(local, log, accepted).await;
        client.write_all(b"tcp").expect("there is room");
        drop(client);
        lost(log).await;
        assert_eq!(log.lines(), ["made", "data 3", "eof", "lost none"]);
    });
}

#[test]
fn dbg_an_end_that_is_open_when_its_loop_closes_is_named() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        runtime.local().set_debug(true);
        let local = runtime.local().clone();
        let log = Log::default();
        let connected = runtime.block_on(async {
            let (reader, writer) = pair();
            let reading = reading(&local, &log, reader).await;
            (reading, writing(&local, &log, writer).await)
        });
        drop(connected.expect("not stopped"));
        drop(local);
        let warnings = crate::log::Log::default();
        warnings.during(|| finish_lent(runtime));
        let warned = warnings.take().join("; ");
        assert!(warned.contains("reading end of a pipe"), "{warned}");
        assert!(warned.contains("writing end of a pipe"), "{warned}");
        assert_eq!(log.lines(), ["made", "made"]);
    }
}

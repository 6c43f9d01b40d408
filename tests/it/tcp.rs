//! TCP of the task model, and `create_connection`: connecting, reading, writing, ending.
//!
//! One side is garland, the other a plain blocking socket on a thread of its own or in the test.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use garland::{AfterEof, LoopHandle, TcpListener, TcpStream};

use crate::sockets::{
    Event, LIMIT, Log, Recorder, any_port, background, connect, echo_once, echo_task, finish,
    finish_lent, lent, pattern, raw_listener, read_exactly, reset, until,
};

#[test]
fn a_task_echoes_on_one_loop_and_on_two() {
    for loops in [1, 2] {
        let runtime = background(loops);
        let served = runtime.handle().serve(any_port(), echo_task);
        let server = served.expect("a free port exists");
        for size in [1, 1000, 100_000] {
            let mut client = connect(server.local_addr());
            let data = pattern(size);
            for _ in 0..3 {
                echo_once(&mut client, &data);
            }
        }
        server.close();
        assert!(server.wait_idle(LIMIT));
        assert_eq!(server.stats().accepted, 3);
        finish(runtime);
    }
}

#[test]
fn half_close_works_both_ways() {
    let runtime = lent(1);
    let (listener, addr) = raw_listener();
    let peer = thread::spawn(move || {
        let (mut peer, _) = listener.accept().expect("a client comes");
        let mut heard = String::new();
        peer.read_to_string(&mut heard).expect("to its end");
        peer.write_all(b"answer")
            .expect("the other direction is open");
        peer.shutdown(Shutdown::Write).expect("connected");
        heard
    });
    let outcome = runtime.block_on(async {
        let stream = TcpStream::connect(addr).await.expect("it listens");
        stream.write_all(b"question").await.expect("it reads");
        stream.shutdown(Shutdown::Write).expect("connected");
        let late = stream.write(b"late").await;
        assert_eq!(late.expect_err("ended").kind(), ErrorKind::BrokenPipe);
        let mut buf = [0; 100];
        let mut answer = Vec::new();
        while let count @ 1.. = stream.read(&mut buf).await.expect("orderly") {
            answer.extend_from_slice(&buf[..count]);
        }
        // The end stays the end.
        assert_eq!(stream.read(&mut buf).await.expect("orderly"), 0);
        answer
    });
    assert_eq!(outcome.expect("not stopped"), b"answer");
    assert_eq!(peer.join().expect("no panic"), "question");
    finish_lent(runtime);
}

#[test]
fn the_peer_may_end_first_and_still_read() {
    let runtime = lent(1);
    let (listener, addr) = raw_listener();
    let peer = thread::spawn(move || {
        let (mut peer, _) = listener.accept().expect("a client comes");
        peer.shutdown(Shutdown::Write).expect("connected");
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).expect("to its end");
        heard
    });
    let data = pattern(3_000_000);
    let run = runtime.block_on(async {
        let stream = TcpStream::connect(addr).await.expect("it listens");
        assert_eq!(stream.read(&mut [0; 10]).await.expect("orderly"), 0);
        stream.write_all(&data).await.expect("it reads");
    });
    run.expect("not stopped");
    assert!(peer.join().expect("no panic") == data);
    finish_lent(runtime);
}

#[test]
fn a_reset_ends_a_waiting_read_with_an_error() {
    let runtime = lent(1);
    let (listener, addr) = raw_listener();
    let run = runtime.block_on(async {
        let stream = TcpStream::connect(addr).await.expect("it listens");
        let (peer, _) = listener.accept().expect("it is waiting");
        let reading = garland::spawn(async move {
            let mut buf = [0; 10];
            stream.read(&mut buf).await.map_err(|error| error.kind())
        });
        garland::yield_now().await;
        reset(peer);
        let outcome = garland::timeout(LIMIT, reading).await.expect("in time");
        let outcome = outcome.expect("did not panic");
        assert_eq!(outcome, Err(ErrorKind::ConnectionReset));
    });
    run.expect("not stopped");
    finish_lent(runtime);
}

#[test]
fn a_reset_ends_a_waiting_write_with_an_error() {
    let runtime = lent(1);
    let (listener, addr) = raw_listener();
    let run = runtime.block_on(async {
        let stream = TcpStream::connect(addr).await.expect("it listens");
        let (peer, _) = listener.accept().expect("it is waiting");
        let writing = garland::spawn(async move {
            let data = vec![1; 1024 * 1024];
            loop {
                if let Err(error) = stream.write_all(&data).await {
                    return error.kind();
                }
            }
        });
        // Long enough that the kernel's buffers are full and the write waits.
        garland::sleep(Duration::from_millis(50)).await;
        assert!(!writing.is_finished());
        reset(peer);
        let outcome = garland::timeout(LIMIT, writing).await.expect("in time");
        let kind = outcome.expect("did not panic");
        let expected = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(expected.contains(&kind), "{kind:?}");
    });
    run.expect("not stopped");
    finish_lent(runtime);
}

#[test]
fn peek_leaves_the_bytes_to_be_read() {
    let runtime = lent(1);
    let (listener, addr) = raw_listener();
    let run = runtime.block_on(async {
        let stream = TcpStream::connect(addr).await.expect("it listens");
        let (mut peer, _) = listener.accept().expect("it is waiting");
        peer.write_all(b"garland").expect("connected");
        let mut buf = [0; 7];
        assert_eq!(stream.peek(&mut buf[..3]).await.expect("orderly"), 3);
        assert_eq!(stream.peek(&mut buf).await.expect("orderly"), 7);
        assert_eq!(&buf, b"garland");
        buf.fill(0);
        assert_eq!(stream.read(&mut buf).await.expect("orderly"), 7);
        assert_eq!(&buf, b"garland");
        // Drained: a peek waits for more, and is woken by it.
        let peeked = future::or(async { stream.peek(&mut [0; 9]).await.ok() }, async {
            garland::sleep(Duration::from_millis(10)).await;
            None
        });
        assert_eq!(peeked.await, None);
        peer.write_all(b"x").expect("connected");
        assert_eq!(stream.peek(&mut buf).await.expect("orderly"), 1);
        drop(peer);
        assert_eq!(stream.read(&mut buf).await.expect("orderly"), 1);
        assert_eq!(stream.peek(&mut buf).await.expect("orderly"), 0);
    });
    run.expect("not stopped");
    finish_lent(runtime);
}

#[test]
fn the_halves_work_in_two_tasks_and_close_when_both_are_gone() {
    for loops in [1, 2] {
        let runtime = background(loops);
        let (listener, addr) = raw_listener();
        let data = pattern(5_000_000);
        let (sent, expected) = (data.clone(), data.clone());
        let (report, received) = mpsc::channel();
        let main = runtime.handle().spawn(async move {
            let stream = TcpStream::connect(addr).await.expect("it listens");
            let (mut read, mut write) = stream.into_split();
            let writer = garland::spawn(async move {
                write.write_all(&sent).await.expect("it reads");
                write.finish().expect("connected");
            });
            let reader = garland::spawn(async move {
                let mut all = Vec::new();
                let mut buf = vec![0; 10_000];
                while let count @ 1.. = read.read(&mut buf).await.expect("orderly") {
                    all.extend_from_slice(&buf[..count]);
                }
                all
            });
            writer.await.expect("did not panic");
            let echoed = reader.await.expect("did not panic");
            report.send(echoed == expected).expect("the test waits");
        });
        let (peer, _) = listener.accept().expect("a client comes");
        let mut from = peer.try_clone().expect("a descriptor is free");
        let copied = std::io::copy(&mut from, &mut &peer).expect("orderly");
        assert_eq!(copied, data.len() as u64);
        peer.shutdown(Shutdown::Write).expect("connected");
        assert_eq!(received.recv_timeout(LIMIT), Ok(true));
        drop(main);
        // Both halves are dropped by now, or will be: the descriptor is closed.
        peer.set_read_timeout(Some(LIMIT)).expect("not zero");
        finish(runtime);
    }
}

#[test]
fn futures_io_helpers_copy_and_read_exactly() {
    let runtime = lent(2);
    let data = pattern(1_000_000);
    let run = runtime.block_on(async {
        let bound = TcpListener::bind(([127, 0, 0, 1], 0).into());
        let listener = bound.expect("a free port exists");
        let addr = listener.local_addr();
        let echo = garland::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client comes");
            let copied = futures_lite::io::copy(&stream, &stream).await;
            (&stream).close().await.expect("connected");
            copied.expect("orderly")
        });
        let stream = TcpStream::connect(addr).await.expect("it listens");
        let (mut read, mut write) = stream.into_split();
        let sent = data.clone();
        let writer = garland::spawn(async move {
            AsyncWriteExt::write_all(&mut write, &sent)
                .await
                .expect("it reads");
            AsyncWriteExt::flush(&mut write)
                .await
                .expect("nothing is kept");
            AsyncWriteExt::close(&mut write).await.expect("connected");
        });
        let mut got = vec![0; data.len()];
        AsyncReadExt::read_exact(&mut read, &mut got)
            .await
            .expect("all of it");
        assert!(got == data);
        let more = AsyncReadExt::read_exact(&mut read, &mut [0; 1]).await;
        assert_eq!(more.expect_err("the end").kind(), ErrorKind::UnexpectedEof);
        writer.await.expect("did not panic");
        assert_eq!(echo.await.expect("did not panic"), data.len() as u64);
    });
    run.expect("not stopped");
    finish_lent(runtime);
}

#[test]
fn sixty_four_mebibytes_arrive_byte_for_byte_with_large_reads() {
    transfer(64 * 1024 * 1024, 1024 * 1024, 2);
}

#[test]
fn bytes_arrive_one_for_one_with_small_reads() {
    transfer(2 * 1024 * 1024, 61, 1);
}

/// Through the task model in both directions: raw client -> echo task -> raw client.
fn transfer(count: usize, read_size: usize, loops: usize) {
    let runtime = background(loops);
    let served = runtime
        .handle()
        .serve(any_port(), move |stream| async move {
            let mut buf = vec![0; read_size];
            while let Ok(count @ 1..) = stream.read(&mut buf).await {
                stream.write_all(&buf[..count]).await.expect("it reads");
            }
        });
    let server = served.expect("a free port exists");
    let client = connect(server.local_addr());
    let mut sender = client.try_clone().expect("a descriptor is free");
    let block = pattern(1024 * 1024);
    let sent = block.clone();
    let sending = thread::spawn(move || {
        for _ in 0..count / sent.len() {
            sender.write_all(&sent).expect("the server reads");
        }
        sender.shutdown(Shutdown::Write).expect("connected");
    });
    let mut client = client;
    for round in 0..count / block.len() {
        let got = read_exactly(&mut client, block.len());
        assert!(got == block, "MiB {round}");
    }
    assert_eq!(client.read(&mut [0; 1]).expect("orderly"), 0);
    sending.join().expect("no panic");
    server.close();
    assert!(server.wait_idle(LIMIT));
    finish(runtime);
}

#[test]
fn dropping_a_read_future_loses_nothing() {
    let runtime = lent(1);
    let (listener, addr) = raw_listener();
    let data = pattern(20_000);
    let sent = data.clone();
    let peer = thread::spawn(move || {
        let (mut peer, _) = listener.accept().expect("a client comes");
        for piece in sent.chunks(100) {
            peer.write_all(piece).expect("it reads");
            thread::sleep(Duration::from_micros(300));
        }
    });
    let run = runtime.block_on(async {
        let stream = TcpStream::connect(addr).await.expect("it listens");
        let mut got = Vec::new();
        let mut dropped = 0;
        let mut buf = [0; 70];
        while got.len() < data.len() {
            let limit = Duration::from_micros(50);
            match garland::timeout(limit, stream.read(&mut buf)).await {
                Ok(count) => match count.expect("orderly") {
                    0 => break,
                    count => got.extend_from_slice(&buf[..count]),
                },
                Err(_timed_out) => dropped += 1,
            }
        }
        assert!(got == data, "{} of {} bytes", got.len(), data.len());
        assert!(dropped > 0, "no read was ever dropped");
    });
    run.expect("not stopped");
    peer.join().expect("no panic");
    finish_lent(runtime);
}

#[test]
fn a_stream_may_move_to_a_task_of_another_loop() {
    let runtime = background(2);
    let (listener, addr) = raw_listener();
    let (hand_over, streams) = mpsc::channel();
    let made = runtime.handle().on(0).spawn_on(move || async move {
        let stream = TcpStream::connect(addr).await.expect("it listens");
        stream.write_all(b"from loop 0").await.expect("connected");
        hand_over.send(stream).expect("the test waits");
    });
    let stream = streams.recv_timeout(LIMIT).expect("it connects");
    let echo = runtime.handle().on(1).spawn_on(move || async move {
        let id = LoopHandle::current().expect("on a loop").id();
        echo_task(stream).await;
        id
    });
    let (mut peer, _) = listener.accept().expect("it is waiting");
    peer.set_read_timeout(Some(LIMIT)).expect("not zero");
    assert_eq!(read_exactly(&mut peer, 11), b"from loop 0");
    let stats = runtime.stats();
    assert_eq!(
        stats.loops[0].sockets_registered, 1,
        "its home stays loop 0"
    );
    for _ in 0..10 {
        echo_once(&mut peer, &pattern(50_000));
    }
    drop(peer);
    let done = future::block_on(echo).expect("did not panic");
    assert_eq!(done.index(), 1);
    future::block_on(made).expect("did not panic");
    finish(runtime);
}

#[test]
fn a_protocol_can_talk_to_a_task() {
    let runtime = lent(2);
    let served = runtime.handle().serve(any_port(), echo_task);
    let server = served.expect("a free port exists");
    let run = runtime.block_on(async {
        let log = Log::default();
        let local = garland::LocalLoop::current().expect("on a loop");
        let heard = Rc::new(Cell::new(0));
        let sum = heard.clone();
        let protocol = Recorder {
            log: log.clone(),
            reaction: Rc::new(move |event, transport| match event {
                Event::Made => transport.write(&pattern(300_000)),
                Event::Data(data) => {
                    sum.set(sum.get() + data.len());
                    if sum.get() == 300_000 {
                        transport.close();
                    }
                }
                _ => {}
            }),
            after_eof: AfterEof::Close,
        };
        let connecting = local.create_connection(server.local_addr(), || protocol);
        connecting.await.expect("it listens");
        until("connection_lost", || log.is_lost()).await;
        assert_eq!(heard.get(), 300_000);
        assert!(log.has("lost none"), "{log:?}");
    });
    run.expect("not stopped");
    server.close();
    finish_lent(runtime);
}

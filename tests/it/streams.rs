//! Rows STRM: where readers and writers come from, writing, and the end of a connection.
//!
//! The peer of most tests is a plain socket of the same thread; so is every order decided by the loop.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::poll_once;
use futures_lite::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, StreamExt};
use garland::{
    ListenOptions, LocalLoop, LoopHandle, StreamReader, StreamWriter, WriteLimits, open_connection,
    open_unix_connection, start_server, yield_now,
};

use crate::sockets::{
    any_port, connect, echo_once, finish, finish_lent, lent, pattern, raw_listener, read_exactly,
    read_some, read_to_end, reset, until,
};
use crate::support::run;
use crate::wire::TOO_MUCH;

/// Plays `script` with a peer and the two ends of its connection, with 1, 2 and 4 loops.
pub(crate) fn play(script: impl AsyncFn(TcpStream, StreamReader, StreamWriter)) {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (listener, addr) = raw_listener();
        run(&runtime, async {
            let (reader, writer) = open_connection(addr).await.expect("it listens");
            let (peer, from) = listener.accept().expect("it is connected");
            assert_eq!(writer.peer_addr(), Some(addr));
            assert_eq!(writer.peer_name().to_string(), addr.to_string());
            assert_eq!(writer.transport().local_addr(), Some(from));
            peer.set_nonblocking(true).expect("a socket");
            script(peer, reader, writer).await;
        });
        finish_lent(runtime);
    }
}

pub(crate) fn send(mut peer: &TcpStream, data: &[u8]) {
    peer.write_all(data).expect("the kernel has room");
}

pub(crate) fn end(peer: &TcpStream) {
    peer.shutdown(Shutdown::Write).expect("connected");
}

/// How much was received and not read.
pub(crate) fn unread(reader: &StreamReader) -> usize {
    let text = format!("{reader:?}");
    let (_, unread) = text.split_once("unread: ").expect("it says so");
    let unread = unread.split(',').next().map(str::parse);
    unread.expect("not empty").expect("a number")
}

/// Waits until so much was received, without reading it.
pub(crate) async fn arrived(reader: &StreamReader, count: usize) {
    until("the bytes", || unread(reader) >= count).await;
    assert_eq!(unread(reader), count);
}

/// Gives what must not happen its chance.
pub(crate) async fn settle() {
    garland::sleep(Duration::from_millis(20)).await;
}

/// Writes more than the kernel takes, so that the writer is paused.
fn overfill(writer: &StreamWriter) {
    writer.write(&vec![7; TOO_MUCH]);
}

#[test]
fn strm_01_a_server_on_every_loop_calls_back_in_tasks_of_that_loop() {
    for loops in [1, 2, 4] {
        let runtime = crate::sockets::background(loops);
        let (made, makes) = std::sync::mpsc::channel();
        let server = runtime.handle().start_server(any_port(), move |local| {
            made.send(local.id()).expect("the test waits");
            let (seen, home) = (Rc::new(Cell::new(0)), local.id());
            async move |mut reader: StreamReader, writer: StreamWriter| {
                // Shared with the neighbours of this loop, without a lock.
                seen.set(seen.get() + 1);
                while let line = reader.readline().await?
                    && !line.is_empty()
                {
                    yield_now().await;
                    let here = LocalLoop::current().expect("in a task").id();
                    assert_eq!(here, home, "a stream stays on its loop");
                    writer.write(&line);
                    writer.drain().await?;
                }
                Ok(())
            }
        });
        let server = server.expect("a free port exists");
        let mut clients: Vec<_> = (0..16).map(|_| connect(server.local_addr())).collect();
        for client in &mut clients {
            echo_once(client, b"one\n");
            echo_once(client, b"two\n");
        }
        let mut ids: Vec<_> = makes.try_iter().map(|id| id.index()).collect();
        ids.sort_unstable();
        assert_eq!(ids, Vec::from_iter(0..loops), "once on each loop");
        assert_eq!(server.stats().accepted, 16);
        drop(clients);
        server.close();
        assert!(server.wait_idle(crate::sockets::LIMIT));
        finish(runtime);
    }
}

#[test]
fn strm_01_a_local_server_and_a_client_share_an_rc() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let seen = Rc::new(RefCell::new(Vec::new()));
        let noted = Rc::clone(&seen);
        let server = runtime
            .local()
            .start_server(any_port(), async move |mut reader, writer| {
                let line = reader.readline().await?;
                noted.borrow_mut().push(line.clone());
                writer.write(&line);
                Ok(())
            });
        let server = server.expect("a free port exists");
        run(&runtime, async {
            let (mut reader, writer) = open_connection(server.local_addr()).await?;
            writer.write(b"hello\n");
            assert_eq!(reader.read_to_end().await?, b"hello\n");
            Ok::<(), std::io::Error>(())
        })
        .expect("the server answers");
        assert_eq!(*seen.borrow(), [b"hello\n"]);
        finish_lent(runtime);
    }
}

#[test]
fn strm_01_start_server_serves_on_the_loop_that_calls_it_and_on_no_thread_without_one() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let last = runtime.handle().on(loops - 1);
        let home = last.id().index();
        let made = last.spawn_on(move || async move {
            start_server(any_port(), async move |_reader, writer: StreamWriter| {
                let here = LocalLoop::current().expect("in a task").id().index();
                assert_eq!(here, home, "a stream stays on its loop");
                writer.write(here.to_string().as_bytes());
                Ok(())
            })
        });
        run(&runtime, async {
            let server = made.await.expect("no panic").expect("a free port exists");
            for _ in 0..8 {
                let (mut reader, _writer) = open_connection(server.local_addr()).await?;
                assert_eq!(reader.read_to_end().await?, home.to_string().as_bytes());
            }
            Ok::<(), std::io::Error>(())
        })
        .expect("the server answers");
        let outside = std::panic::catch_unwind(|| start_server(any_port(), async |_, _| Ok(())));
        assert!(outside.is_err(), "no loop runs on this thread");
        finish_lent(runtime);
    }
}

#[test]
fn strm_01_a_callback_that_fails_closes_its_connection_and_no_other() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let kept = Rc::new(RefCell::new(Vec::new()));
        let keep = Rc::clone(&kept);
        let reports = Rc::new(RefCell::new(Vec::new()));
        let heard = Rc::clone(&reports);
        runtime.local().set_exception_handler(move |_, context| {
            let is_told = context.peer().is_some() || context.task().is_some();
            assert!(is_told, "which connection it was: {context}");
            let text = context.panic_message().unwrap_or(context.message());
            heard.borrow_mut().push(text.to_owned());
        });
        let server = runtime
            .local()
            .start_server(any_port(), async move |mut reader, writer| {
                // A clone lives on: only the failure closes the connection.
                keep.borrow_mut().push(writer.clone());
                match &reader.readline().await?[..] {
                    b"panic\n" => panic!("of the callback"),
                    b"error\n" => Err(ErrorKind::Other.into()),
                    _ => Ok(()),
                }
            });
        let addr = server.expect("a free port exists").local_addr();
        run(&runtime, async {
            let lines: [&[u8]; 3] = [b"fine\n", b"panic\n", b"error\n"];
            let clients = lines.map(|line| {
                let client = connect(addr);
                client.set_nonblocking(true).expect("a socket");
                send(&client, line);
                client
            });
            for client in &clients[1..] {
                assert_eq!(read_to_end(client).await.expect("orderly"), b"");
            }
            until("three callbacks", || kept.borrow().len() == 3).await;
            let is_closing = |writer: &StreamWriter| writer.is_closing();
            let closing = kept.borrow().iter().filter(|w| is_closing(w)).count();
            assert_eq!(closing, 2, "the callback that returned leaves it open");
            reports.borrow_mut().sort();
            let expected = ["of the callback", "the callback of a stream server failed"];
            assert_eq!(*reports.borrow(), expected);
        });
        kept.take();
        finish_lent(runtime);
    }
}

#[test]
fn strm_01_a_failed_or_dropped_open_leaves_nothing() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        run(&runtime, async {
            let (refused, _held) = crate::sockets::refusing_addr();
            let error = open_connection(refused).await.expect_err("nobody listens");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            let (listener, addr) = raw_listener();
            assert!(poll_once(open_connection(addr)).await.is_none());
            drop(listener);
        });
        assert_eq!(runtime.stats().total(|one| one.sockets_registered), 0);
        finish_lent(runtime);
    }
}

#[test]
fn strm_09_writes_keep_their_order() {
    play(async |peer, _reader, writer| {
        let mut expected = Vec::new();
        for round in 0..200 {
            let piece = pattern(5000 + round);
            writer.write(&piece);
            writer.write_lines([&b"a"[..], b"", b"bc"]);
            expected.extend_from_slice(&piece);
            expected.extend_from_slice(b"abc");
        }
        assert!(writer.can_write_eof());
        writer.write_eof();
        assert!(read_to_end(&peer).await.expect("orderly") == expected);
    });
}

#[test]
fn strm_09_drain_returns_at_once_unless_the_writer_is_paused() {
    play(async |peer, _reader, writer| {
        writer.write(b"little");
        let drained = poll_once(writer.drain()).await;
        drained.expect("at once").expect("open");
        overfill(&writer);
        assert!(poll_once(writer.drain()).await.is_none(), "paused");
        let drains = [writer.clone(), writer.clone(), writer.clone()].map(|writer| {
            garland::spawn_local(async move {
                writer.drain().await?;
                Ok::<_, std::io::Error>(writer.transport().write_buffer_size())
            })
        });
        // One of them gives up; the others are not harmed.
        let [given_up, second, third] = drains;
        yield_now().await;
        given_up.cancel();
        read_some(&peer, 6 + TOO_MUCH).await;
        for drain in [second, third] {
            let left = drain.await.expect("did not panic").expect("open");
            assert!(
                left <= writer.transport().write_limits().low,
                "{left} bytes"
            );
        }
        writer.drain().await.expect("open");
    });
}

#[test]
fn strm_09_whoever_waited_passes_even_if_the_first_of_them_fills_the_buffer_again() {
    play(async |peer, _reader, writer| {
        overfill(&writer);
        let (first, second) = (writer.clone(), writer.clone());
        let first = garland::spawn_local(async move {
            first.drain().await.expect("open");
            overfill(&first);
        });
        let second = garland::spawn_local(async move { second.drain().await });
        yield_now().await;
        read_some(&peer, TOO_MUCH).await;
        first.await.expect("did not panic");
        second.await.expect("did not panic").expect("open");
        assert!(poll_once(writer.drain()).await.is_none(), "paused again");
        writer.transport().abort();
    });
}

#[test]
fn strm_09_drain_tells_the_loss_of_the_connection() {
    play(async |peer, _reader, writer| {
        overfill(&writer);
        let waiting = writer.clone();
        let waiting = garland::spawn_local(async move { waiting.drain().await });
        yield_now().await;
        reset(peer);
        let error = waiting.await.expect("did not panic").expect_err("lost");
        assert!(matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
        ));
        let later = writer.drain().await.expect_err("lost");
        assert_eq!(later.kind(), error.kind());
        assert_eq!(later.raw_os_error(), error.raw_os_error());
    });
    play(async |_peer, _reader, writer| {
        overfill(&writer);
        let waiting = writer.clone();
        let waiting = garland::spawn_local(async move { waiting.drain().await });
        yield_now().await;
        writer.transport().abort();
        // As in asyncio: who waits is let go, who comes later is told.
        waiting
            .await
            .expect("did not panic")
            .expect("no error ended it");
        let later = writer.drain().await.expect_err("lost");
        assert_eq!(later.kind(), ErrorKind::ConnectionReset);
        writer.write(b"ignored");
    });
}

#[test]
fn strm_09_drain_lets_a_turn_pass_when_the_connection_is_closing() {
    play(async |peer, _reader, writer| {
        // The classic loop that would never end: no await in it would let the loss be noticed.
        writer.write(b"x");
        reset(peer);
        let mut rounds = 0;
        while writer.drain().await.is_ok() {
            writer.write(b"x");
            rounds += 1;
            assert!(rounds < 10_000, "the loss is noticed");
        }
    });
    play(async |_peer, _reader, writer| {
        overfill(&writer);
        writer.close();
        assert!(writer.is_closing());
        assert!(poll_once(writer.drain()).await.is_none());
        writer.transport().abort();
    });
}

#[test]
fn strm_10_wait_closed_returns_when_the_connection_is_lost() {
    play(async |peer, reader, writer| {
        overfill(&writer);
        writer.close();
        let waiting = writer.clone();
        let waiting = garland::spawn_local(async move { waiting.wait_closed().await });
        assert!(poll_once(writer.wait_closed()).await.is_none());
        settle().await;
        assert!(!waiting.is_finished(), "bytes wait to be sent");
        assert_eq!(read_to_end(&peer).await.expect("orderly").len(), TOO_MUCH);
        waiting.await.expect("did not panic").expect("no error");
        assert!(
            writer.transport().local_addr().is_none(),
            "the socket is gone"
        );
        writer.wait_closed().await.expect("at once, and again");
        assert!(reader.at_eof());
    });
}

#[test]
fn strm_10_wait_closed_tells_the_error_that_ended_it() {
    play(async |peer, _reader, writer| {
        let waiting = writer.clone();
        let waiting = garland::spawn_local(async move { waiting.wait_closed().await });
        yield_now().await;
        reset(peer);
        let error = waiting.await.expect("did not panic").expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let again = writer.wait_closed().await.expect_err("the same");
        assert_eq!(again.raw_os_error(), error.raw_os_error());
    });
}

#[test]
fn strm_10_at_eof_needs_the_end_and_an_empty_buffer() {
    play(async |peer, mut reader, _writer| {
        assert!(!reader.at_eof());
        send(&peer, b"ab");
        end(&peer);
        arrived(&reader, 2).await;
        assert!(!reader.at_eof(), "two bytes are left");
        assert_eq!(reader.read(1).await.expect("open"), b"a");
        assert!(!reader.at_eof(), "one byte is left");
        assert_eq!(reader.read(1).await.expect("open"), b"b");
        assert!(reader.at_eof());
    });
}

#[test]
fn strm_11_the_peers_end_does_not_close_our_side() {
    play(async |peer, mut reader, writer| {
        end(&peer);
        assert_eq!(reader.read(1).await.expect("the end"), b"");
        settle().await;
        assert!(!writer.is_closing());
        writer.write(b"answer");
        writer.drain().await.expect("open");
        assert_eq!(read_some(&peer, 6).await, b"answer");
        writer.close();
        writer.wait_closed().await.expect("orderly");
    });
}

#[test]
fn dropping_both_ends_closes_and_what_was_written_is_still_sent() {
    play(async |peer, reader, writer| {
        let kept = writer.clone();
        overfill(&writer);
        drop((reader, writer));
        assert!(!kept.is_closing(), "a clone lives");
        drop(kept);
        assert_eq!(read_to_end(&peer).await.expect("orderly").len(), TOO_MUCH);
    });
}

#[test]
fn a_dropped_reader_lets_the_peer_send_on_and_hears_its_end() {
    play(async |peer, mut reader, writer| {
        reader.set_limit(10);
        send(&peer, &[1; 100]);
        until("the pause", || !writer.transport().is_reading()).await;
        drop(reader);
        let data = vec![0; TOO_MUCH];
        let sender = std::thread::spawn(move || {
            peer.set_nonblocking(false).expect("a socket");
            send(&peer, &data);
            peer
        });
        until("the peer has sent", || sender.is_finished()).await;
        let peer = sender.join().expect("sent");
        // Nothing unread is left to turn the close into a reset.
        writer.write(b"bye");
        writer.close();
        writer.wait_closed().await.expect("orderly");
        assert_eq!(read_exactly(&mut { peer }, 3), b"bye");
    });
}

#[test]
fn readers_and_writers_are_those_of_futures_io() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let data = pattern(TOO_MUCH);
        run(&runtime, async {
            let server = runtime
                .local()
                .start_server(any_port(), async |reader, mut writer| {
                    futures_lite::io::copy(reader, &mut writer).await?;
                    AsyncWriteExt::close(&mut writer).await
                });
            let addr = server.expect("a free port exists").local_addr();
            let (mut reader, mut writer) = open_connection(addr).await.expect("it listens");
            let limits = WriteLimits::high(100_000);
            writer.transport().set_write_limits(limits).expect("valid");
            let sent = data.clone();
            let sender = garland::spawn_local(async move {
                for piece in sent.chunks(10_000) {
                    writer.write_all(piece).await?;
                    // Without waiting it would hold everything.
                    assert!(writer.transport().write_buffer_size() <= 110_000);
                }
                writer.flush().await?;
                writer.write_eof();
                writer.wait_closed().await
            });
            let mut got = Vec::new();
            AsyncReadExt::read_to_end(&mut reader, &mut got)
                .await
                .expect("orderly");
            assert!(got == data);
            drop(reader);
            // The writer's task has the last end: it waits for ever unless somebody closes.
            sender.cancel();
            let (reader, writer) = open_connection(addr).await.expect("it listens");
            writer.write(b"one\ntwo\nthree");
            writer.write_eof();
            let lines: Vec<String> = reader
                .lines()
                .map(|line| line.expect("text"))
                .collect()
                .await;
            assert_eq!(lines, ["one", "two", "three"]);
        });
        finish_lent(runtime);
    }
}

#[test]
fn async_write_on_a_closed_writer_fails() {
    play(async |_peer, _reader, mut writer| {
        overfill(&writer);
        assert!(poll_once(writer.write_all(b"x")).await.is_none(), "paused");
        writer.transport().abort();
        let error = writer.write_all(b"x").await.expect_err("closed");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        AsyncWriteExt::close(&mut writer)
            .await
            .expect("lost without an error");
    });
}

/// The same call for one loop and for many: only the factory differs.
#[test]
fn start_server_refuses_a_port_that_is_taken() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (_taken, addr) = raw_listener();
        let listen = || ListenOptions::new(addr);
        let handle: &LoopHandle = runtime.handle();
        let refused = handle.start_server(listen(), |_| async |_, _| Ok(()));
        assert_eq!(refused.expect_err("taken").kind(), ErrorKind::AddrInUse);
        let refused = runtime.local().start_server(listen(), async |_, _| Ok(()));
        assert_eq!(refused.expect_err("taken").kind(), ErrorKind::AddrInUse);
        finish_lent(runtime);
    }
}

#[test]
fn strm_01_a_unix_server_of_one_loop_or_of_all_is_used_as_one_of_tcp() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let shout = async |mut reader: StreamReader, writer: StreamWriter| {
            writer.write(&reader.readline().await?.to_ascii_uppercase());
            writer.drain().await
        };
        let name = |which| format!("\0garland-it-streams-{}-{which}", std::process::id());
        let (one, all) = (name("one"), name("all"));
        let local = runtime.local().start_unix_server(one.as_str(), shout);
        let everywhere = runtime
            .handle()
            .start_unix_server(all.as_str(), move |_| shout);
        let servers = [local, everywhere].map(|server| server.expect("the name is free"));
        run(&runtime, async {
            for path in [&one, &all] {
                for _ in 0..5 {
                    let (mut reader, writer) =
                        open_unix_connection(path).await.expect("it listens");
                    writer.write(b"hello\n");
                    assert_eq!(reader.readline().await.expect("a line"), b"HELLO\n");
                    assert_eq!(reader.read_to_end().await.expect("orderly"), b"");
                }
            }
            for server in &servers {
                assert_eq!(server.stats().accepted, 5);
                server.close();
                server.wait_closed().await;
            }
            let refused = open_unix_connection(&one).await.expect_err("it is closed");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        });
        finish_lent(runtime);
    }
}

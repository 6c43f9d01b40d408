//! Rows TRN: what a transport promises: writing, closing, aborting, pausing.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::Write;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use garland::{AfterEof, SocketName, Transport, WriteLimits, yield_now};

use crate::sockets::{
    Event, Log, Recorder, any_port, connect, finish_lent, lent, pattern, read_some, read_to_end,
    until,
};
use crate::wire::{TOO_MUCH, fill, play, reaction, silent};

#[test]
fn trn_01_order_is_kept_and_the_buffer_is_the_callers_again() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        let mut expected = Vec::new();
        let mut reused = vec![0; 10_000];
        for round in 0..400_u32 {
            let fill = pattern(10_000 + round as usize);
            reused.copy_from_slice(&fill[round as usize..]);
            expected.extend_from_slice(&reused);
            transport.write(&reused);
            let two: [&[u8]; 2] = [b"x", b"yz"];
            transport.write_lines(two);
            expected.extend_from_slice(b"xyz");
        }
        reused.fill(0xff);
        transport.close();
        let got = read_to_end(wire.client()).await.expect("orderly");
        assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
        wire.lost().await;
        assert_eq!(wire.log.count("lost none"), 1);
    });
}

#[test]
fn trn_01_write_does_not_block_with_a_peer_that_never_reads() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        for _ in 0..4 {
            transport.write(&vec![7; TOO_MUCH]);
        }
        assert!(transport.write_buffer_size() > 3 * TOO_MUCH);
        transport.abort();
        wire.lost().await;
        assert_eq!(wire.log.lines(), ["made", "pause", "lost none"]);
    });
}

#[test]
fn trn_02_an_empty_buffer_sends_at_once_and_the_rest_before_the_loop_sleeps() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        transport.write(b"now");
        assert_eq!(transport.write_buffer_size(), 0);
        // The loop has not turned since: the bytes were sent inside of the call.
        let mut buf = [0; 3];
        let peeked = wire.client().peek(&mut buf).expect("they are here");
        assert_eq!(&buf[..peeked], b"now");
    });
}

#[test]
fn trn_03_empty_writes_do_nothing_but_fail_after_write_eof() {
    let react = reaction(|event, transport| {
        if matches!(event, Event::Data(_)) {
            transport.write(b"");
            transport.write_eof();
            transport.write(b"");
        }
    });
    play(&react, AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        transport.write(b"");
        assert_eq!(transport.write_buffer_size(), 0);
        wire.send(b"go");
        wire.lost().await;
        assert_eq!(wire.panics(), 1);
        assert_eq!(wire.log.lines(), ["made", "data 2", "lost Other"]);
    });
}

#[test]
fn trn_04_write_lines_skips_empty_pieces_and_checks_the_mark() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        let pieces: [&[u8]; 5] = [b"", b"a", b"", b"bc", b""];
        transport.write_lines(pieces);
        transport.write_lines([]);
        assert_eq!(read_some(wire.client(), 3).await, b"abc");
        let filled = fill(&transport).await;
        let held = transport.write_buffer_size();
        let limits = WriteLimits { high: held, low: 0 };
        transport
            .set_write_limits(limits)
            .expect("low is below high");
        transport.write_lines([&b""[..], &b""[..]]);
        assert_eq!(transport.write_buffer_size(), held);
        // With nothing but empty pieces behind it, close must not hang.
        transport.close();
        let got = read_to_end(wire.client()).await.expect("orderly");
        assert_eq!(got.len(), filled);
        wire.lost().await;
    });
}

#[test]
fn trn_05_write_eof_flushes_then_ends_and_reading_goes_on() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        assert!(transport.can_write_eof());
        transport.write(&vec![1; TOO_MUCH]);
        transport.write_eof();
        transport.write_eof();
        let got = read_to_end(wire.client()).await.expect("orderly");
        assert_eq!(got.len(), TOO_MUCH);
        wire.send(b"still heard");
        until("data", || wire.log.has("data 11")).await;
        transport.close();
        transport.write_eof();
        wire.lost().await;
        let lines = ["made", "pause", "resume", "data 11", "lost none"];
        assert_eq!(wire.log.lines(), lines);
    });
}

#[test]
fn trn_06_writing_after_write_eof_is_an_error() {
    for lines in [false, true] {
        let react = reaction(move |event, transport| {
            if matches!(event, Event::Data(_)) {
                transport.write_eof();
                if lines {
                    transport.write_lines([&b"late"[..]]);
                } else {
                    transport.write(b"late");
                }
            }
        });
        play(&react, AfterEof::Close, async |wire| {
            wire.send(b"go");
            wire.lost().await;
            assert_eq!(wire.log.lines(), ["made", "data 2", "lost Other"]);
            assert_eq!(wire.panics(), 1);
            assert_eq!(read_to_end(wire.client()).await.expect("orderly"), b"");
        });
    }
}

#[test]
fn trn_07_close_stops_reading_and_sends_what_is_buffered() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        transport.write(&vec![3; TOO_MUCH]);
        wire.send(b"heard never");
        // This step runs in the next turn, in front of the event of the bytes just sent.
        yield_now().await;
        transport.close();
        assert!(transport.is_closing());
        assert!(!transport.is_reading());
        wire.send(b"nor this");
        // The kernel resets a connection that is closed with bytes unread, and the client may lose
        // the tail by that; how it ends here is no matter, that everything was sent is.
        let end = read_to_end(wire.client()).await;
        assert!(end.map_or(0, |all| all.len()) <= TOO_MUCH);
        wire.lost().await;
        let lines = wire.log.lines();
        assert_eq!(lines, ["made", "pause", "resume", "lost none"]);
    });
}

#[test]
fn trn_08_connection_lost_never_comes_from_inside_a_call() {
    for abort in [false, true] {
        let inside = Rc::new(Cell::new(false));
        let watched = inside.clone();
        let react = reaction(move |event, transport| match event {
            Event::Data(_) => {
                watched.set(true);
                if abort {
                    transport.abort();
                } else {
                    transport.close();
                }
                watched.set(false);
            }
            Event::Lost(_) => assert!(!watched.get(), "inside of close or abort"),
            _ => {}
        });
        play(&react, AfterEof::Close, async |wire| {
            wire.send(b"go");
            wire.lost().await;
            assert_eq!(wire.log.lines(), ["made", "data 2", "lost none"]);
            assert_eq!(wire.panics(), 0);
        });
    }
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        wire.reset();
        // The send fails or the reset is read, whichever the loop meets first.
        transport.write(b"into the void");
        transport.write(b"into the void");
        assert!(!wire.log.is_lost(), "write() returned first");
        wire.lost().await;
        assert!(!wire.log.has("lost none"));
    });
}

#[test]
fn trn_09_close_and_abort_are_idempotent_and_abort_cuts_a_close_short() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        transport.write(&vec![3; TOO_MUCH]);
        transport.close();
        transport.close();
        for _ in 0..5 {
            yield_now().await;
        }
        assert!(!wire.log.is_lost());
        transport.abort();
        transport.abort();
        transport.close();
        assert_eq!(transport.write_buffer_size(), 0);
        wire.lost().await;
        transport.abort();
        transport.close();
        yield_now().await;
        assert_eq!(wire.log.lines(), ["made", "pause", "lost none"]);
    });
}

#[test]
fn trn_10_abort_drops_the_buffer_and_ends_in_the_next_turn() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        transport.write(&vec![3; TOO_MUCH]);
        transport.abort();
        assert_eq!(transport.write_buffer_size(), 0);
        assert!(!wire.log.is_lost());
        yield_now().await;
        assert!(wire.log.has("lost none"));
        let got = read_to_end(wire.client()).await.map_or(0, |all| all.len());
        assert!(got < TOO_MUCH, "the buffer was thrown away");
    });
}

#[test]
fn trn_11_writes_after_the_end_are_ignored() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        transport.write(b"before");
        transport.close();
        for _ in 0..10 {
            transport.write(b"after close");
        }
        wire.lost().await;
        for _ in 0..10 {
            transport.write(b"after loss");
        }
        assert_eq!(transport.write_buffer_size(), 0);
        assert_eq!(
            read_to_end(wire.client()).await.expect("orderly"),
            b"before"
        );
        assert_eq!(wire.log.lines(), ["made", "lost none"]);
    });
}

#[test]
fn trn_11_a_write_after_close_is_ignored_while_data_is_pending() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        transport.write(&vec![3; TOO_MUCH]);
        transport.close();
        let held = transport.write_buffer_size();
        transport.write(b"late");
        assert_eq!(transport.write_buffer_size(), held);
        let got = read_to_end(wire.client()).await.expect("orderly");
        assert_eq!(got.len(), TOO_MUCH);
        wire.lost().await;
    });
}

#[test]
fn trn_12_a_failing_send_drops_the_buffer_and_ends_with_the_error_once() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        transport.pause_reading();
        transport.write(&vec![3; TOO_MUCH]);
        wire.reset();
        wire.lost().await;
        assert_eq!(transport.write_buffer_size(), 0);
        assert_eq!(wire.log.lines(), ["made", "pause", "lost ConnectionReset"]);
    });
}

#[test]
fn trn_13_a_reset_is_an_error_without_eof() {
    play(&silent(), AfterEof::Close, async |wire| {
        wire.made().await;
        wire.reset();
        wire.lost().await;
        assert_eq!(wire.log.lines(), ["made", "lost ConnectionReset"]);
    });
}

#[test]
fn trn_14_close_with_a_peer_that_never_reads_waits_until_abort() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        transport.write(&vec![3; TOO_MUCH]);
        transport.close();
        garland::sleep(Duration::from_millis(100)).await;
        assert!(!wire.log.is_lost());
        assert!(transport.write_buffer_size() > 0);
        transport.abort();
        wire.lost().await;
        assert!(wire.log.has("lost none"));
    });
}

#[test]
fn trn_15_no_data_after_pause_until_resume() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        wire.send(b"one");
        // This step comes before the event of those bytes.
        yield_now().await;
        transport.pause_reading();
        transport.pause_reading();
        assert!(!transport.is_reading());
        for _ in 0..20 {
            yield_now().await;
        }
        assert_eq!(wire.log.lines(), ["made"]);
        transport.resume_reading();
        transport.resume_reading();
        assert!(transport.is_reading());
        until("data", || wire.log.has("data 3")).await;
        transport.close();
        transport.pause_reading();
        transport.resume_reading();
        wire.lost().await;
        assert_eq!(wire.log.lines(), ["made", "data 3", "lost none"]);
    });
}

#[test]
fn trn_15_reading_may_be_paused_inside_connection_made() {
    let react = reaction(|event, transport| {
        if matches!(event, Event::Made) {
            transport.pause_reading();
        }
    });
    play(&react, AfterEof::Close, async |wire| {
        wire.send(b"early");
        let transport = wire.made().await;
        garland::sleep(Duration::from_millis(20)).await;
        assert_eq!(wire.log.lines(), ["made"]);
        transport.resume_reading();
        until("data", || wire.log.has("data 5")).await;
    });
}

#[test]
fn trn_16_on_resume_data_then_eof_then_lost_follow() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        transport.pause_reading();
        wire.send(&pattern(200_000));
        wire.client().shutdown(Shutdown::Write).expect("connected");
        garland::sleep(Duration::from_millis(20)).await;
        assert_eq!(wire.log.lines(), ["made"]);
        transport.resume_reading();
        wire.lost().await;
        let lines = ["made", "data 200000", "eof", "lost none"];
        assert_eq!(wire.log.lines(), lines);
    });
}

#[test]
fn trn_19_the_peer_is_known_even_when_the_connection_is_lost() {
    let react = reaction(|event, transport| {
        if matches!(event, Event::Lost(_)) {
            assert!(
                transport.local_addr().is_some(),
                "not closed before the last call"
            );
            assert!(transport.peer_addr().is_some_and(|peer| peer.port() != 0));
        }
    });
    play(&react, AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        let client = wire.client().local_addr().expect("connected");
        assert_eq!(transport.peer_addr(), Some(client));
        assert_eq!(transport.local_addr(), Some(wire.server.local_addr()));
        transport.close();
        wire.lost().await;
        assert_eq!(transport.peer_addr(), Some(client));
        assert!(transport.local_addr().is_none());
        assert_eq!(wire.panics(), 0);
    });
}

#[test]
fn trn_11_from_the_fifth_write_after_the_end_a_warning_says_so() {
    let warnings = crate::log::Log::default();
    warnings.during(|| {
        play(&silent(), AfterEof::Close, async |wire| {
            let transport = wire.made().await;
            transport.close();
            for _ in 0..2 {
                transport.write(b"one");
                transport.write_lines([&b"two"[..], &b"and three"[..]]);
            }
            assert_eq!(warnings.take(), [""; 0]);
            transport.write(b"five");
            let warned = warnings.take();
            assert_eq!(warned.len(), 1, "{warned:?}");
            assert!(warned[0].contains("keeps writing"), "{warned:?}");
            wire.lost().await;
            transport.write(b"six");
            assert_eq!(warnings.take().len(), 1);
        });
    });
}

#[test]
fn trn_04_many_pieces_keep_their_order_across_short_writes() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        let all = pattern(TOO_MUCH);
        // More pieces than one call takes, of every size, and more bytes than the kernel takes.
        let mut pieces = Vec::new();
        let mut rest = &all[..];
        let mut size = 0;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(size));
            pieces.push(piece);
            rest = after;
            size = (size + 997) % 60_000;
        }
        assert!(pieces.len() > 200);
        transport.write_lines(pieces.iter().copied());
        assert_eq!(wire.log.count("pause"), 1, "inside of the call");
        transport.close();
        let got = read_to_end(wire.client()).await.expect("orderly");
        assert!(got == all, "{} of {} bytes", got.len(), all.len());
        wire.lost().await;
        assert_eq!(wire.log.lines(), ["made", "pause", "resume", "lost none"]);
    });
}

#[test]
fn trn_04_an_iterator_that_uses_the_transport_itself() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        let other = transport.clone();
        let pieces = (0..3).map(|round| {
            // It may: its own bytes go out before those that are still being gathered.
            other.write(b"inner ");
            [&b"one "[..], b"two ", b"three "][round]
        });
        transport.write_lines(pieces);
        let expected = b"inner inner inner one two three ";
        assert_eq!(read_some(wire.client(), expected.len()).await, expected);
    });
}

#[test]
fn trn_17_connections_take_turns_however_much_waits_for_them() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let turns = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::new(RefCell::new(Vec::new()));
        let (noted, made) = (turns.clone(), seen.clone());
        let handle = runtime.handle().clone();
        let factory = move || {
            let (noted, made, handle) = (noted.clone(), made.clone(), handle.clone());
            Recorder {
                log: Log::default(),
                reaction: Rc::new(
                    move |event: &Event<'_>, transport: &Transport| match event {
                        Event::Made => {
                            transport.pause_reading();
                            made.borrow_mut().push(transport.clone());
                        }
                        Event::Data(data) => {
                            let turn = handle.stats().loops[0].turns;
                            let peer = transport.peer_addr().expect("TCP");
                            noted.borrow_mut().push((turn, peer.port(), data.len()));
                        }
                        _ => {}
                    },
                ),
                after_eof: AfterEof::Close,
            }
        };
        let server = runtime.local().create_server(any_port(), factory);
        let server = server.expect("a free port exists");
        let clients = [connect(server.local_addr()), connect(server.local_addr())];
        let sent = pattern(400_000);
        let played = runtime.block_on(async {
            until("both", || seen.borrow().len() == 2).await;
            for client in &clients {
                let mut client = client;
                client.set_nonblocking(true).expect("a socket");
                let mut rest = &sent[..];
                // What the kernel takes while nobody reads; the rest while they do.
                while let Ok(count @ 1..) = client.write(rest) {
                    rest = &rest[count..];
                }
                client.shutdown(Shutdown::Write).expect("connected");
            }
            for transport in &*seen.borrow() {
                transport.resume_reading();
            }
            let closed = || seen.borrow().iter().all(Transport::is_closing);
            until("both ended", closed).await;
        });
        played.expect("not stopped");
        let turns = turns.take();
        let mut last = HashMap::new();
        for (turn, port, count) in &turns {
            assert!(*count <= 256 * 1024);
            let before = last.insert(*port, *turn);
            assert!(before < Some(*turn), "two receives in a turn: {turns:?}");
        }
        // As long as both have something, neither is served twice while the other waits.
        let ports: Vec<u16> = turns.iter().map(|(_, port, _)| *port).collect();
        assert!(ports.len() >= 4, "more than one receive each: {turns:?}");
        assert!(ports[0] != ports[1] && ports[1] != ports[2], "{turns:?}");
        seen.borrow_mut().clear();
        finish_lent(runtime);
    }
}

#[test]
fn trn_18_is_closing_and_is_reading_change_at_once() {
    play(&silent(), AfterEof::KeepOpen, async |wire| {
        let transport = wire.made().await;
        assert!(!transport.is_closing() && transport.is_reading());
        transport.pause_reading();
        assert!(!transport.is_closing() && !transport.is_reading());
        transport.resume_reading();
        assert!(transport.is_reading());
        wire.client().shutdown(Shutdown::Write).expect("connected");
        until("eof", || wire.log.has("eof")).await;
        assert!(!transport.is_closing() && !transport.is_reading());
        transport.close();
        assert!(transport.is_closing());
        wire.lost().await;
        assert!(transport.is_closing() && !transport.is_reading());
    });
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        transport.abort();
        assert!(transport.is_closing() && !transport.is_reading());
        wire.lost().await;
    });
    // An error: from the moment it is met, not from connection_lost on.
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        transport.pause_reading();
        wire.reset();
        until("the failing write", || {
            transport.write(b"?");
            transport.is_closing()
        })
        .await;
        wire.lost().await;
        assert!(!wire.log.has("lost none"));
    });
}

#[test]
fn trn_19_names_options_and_what_is_not_there() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        let peer = wire.client().local_addr().expect("connected");
        assert_eq!(transport.peer_name(), &SocketName::Inet(peer));
        assert_eq!(transport.peer_name().to_string(), peer.to_string());
        assert_eq!(transport.peer_name().as_path(), None);
        let own = SocketName::from(wire.server.local_addr());
        assert_eq!(transport.local_name().ok(), Some(own));
        // CONN-07: and the descriptor can be asked for whatever has no getter.
        let nodelay = transport.with_fd(|fd| socket2::SockRef::from(&fd).tcp_nodelay());
        assert!(matches!(nodelay, Some(Ok(true))));
        transport.close();
        wire.lost().await;
        assert!(transport.local_name().is_err());
        assert_eq!(transport.with_fd(|_| ()), None);
    });
}

//! Rows TRN, PROTO and FLOW: what a transport promises to its protocol, step by step.
//!
//! The script of each test runs on the loop itself, as the future of `block_on`, between the turns
//! of the connection it watches; the client is a plain non-blocking socket in the same thread. So
//! every order is decided by the loop and none by luck.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use garland::Server;
use garland::{AfterEof, Transport, WriteLimits};
use garland::{LocalLoop, yield_now};

use crate::sockets::{
    Event, Log, Reaction, Recorder, any_port, connect, finish_lent, lent, pattern, read_some,
    read_to_end, reset, until,
};

/// More than the kernel takes for one connection whose peer does not read.
const TOO_MUCH: usize = 16 * 1024 * 1024;

/// A script's view: the client, what the protocol was told, and the transport.
struct Wire {
    client: Option<TcpStream>,
    log: Log,
    seen: Rc<RefCell<Option<Transport>>>,
    local: LocalLoop,
    server: Server,
}

impl Wire {
    async fn made(&self) -> Transport {
        until("connection_made", || self.seen.borrow().is_some()).await;
        self.seen.borrow().clone().expect("just seen")
    }

    async fn lost(&self) {
        until("connection_lost", || self.log.is_lost()).await;
        // Whatever comes after it would be an error, and has had its chance.
        for _ in 0..3 {
            yield_now().await;
        }
        let last = self.log.lines().pop().expect("not empty");
        assert!(last.starts_with("lost"), "lost is last: {:?}", self.log);
    }

    fn send(&self, data: &[u8]) {
        let mut client = self.client();
        client
            .write_all(data)
            .expect("the kernel's buffer has room");
    }

    fn client(&self) -> &TcpStream {
        self.client.as_ref().expect("not reset yet")
    }

    /// The client resets the connection.
    fn reset(&mut self) {
        reset(self.client.take().expect("not reset yet"));
    }

    fn panics(&self) -> u64 {
        let stats = self.local.handle().stats();
        stats.total(|one| one.callback_panics)
    }
}

fn silent() -> Reaction {
    Rc::new(|_, _| {})
}

fn reaction(react: impl Fn(&Event<'_>, &Transport) + 'static) -> Reaction {
    Rc::new(react)
}

/// Plays `script` against one connection, with one loop and with two, and checks the ledger.
fn play(reaction: &Reaction, after_eof: AfterEof, script: impl AsyncFn(&mut Wire)) {
    for loops in [1, 2] {
        let runtime = lent(loops);
        let log = Log::default();
        let seen = Rc::new(RefCell::new(None));
        let (logged, noted, reaction) = (log.clone(), seen.clone(), reaction.clone());
        let factory = move || {
            let (noted, reaction) = (noted.clone(), reaction.clone());
            Recorder {
                log: logged.clone(),
                reaction: Rc::new(move |event: &Event<'_>, transport: &Transport| {
                    if matches!(event, Event::Made) {
                        *noted.borrow_mut() = Some(transport.clone());
                    }
                    reaction(event, transport);
                }),
                after_eof,
            }
        };
        let server = runtime.local().create_server(any_port(), factory);
        let server = server.expect("a free port exists");
        let client = connect(server.local_addr());
        client.set_nonblocking(true).expect("a socket");
        let mut wire = Wire {
            client: Some(client),
            log,
            seen,
            local: runtime.local().clone(),
            server,
        };
        runtime.block_on(script(&mut wire)).expect("not stopped");
        drop(wire);
        finish_lent(runtime);
    }
}

/// Fills the kernel's buffers, so that what is written from now on is held by the transport.
async fn fill(transport: &Transport) -> usize {
    let mut written = 0;
    let mut before = usize::MAX;
    // Until a whole round of turns changed nothing: the kernel takes no more.
    while transport.write_buffer_size() == 0 || transport.write_buffer_size() != before {
        if transport.write_buffer_size() == 0 {
            transport.write(&vec![b'.'; 1024 * 1024]);
            written += 1024 * 1024;
        }
        before = transport.write_buffer_size();
        garland::sleep(Duration::from_millis(5)).await;
    }
    written
}

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
        let paused_before = wire.log.count("pause");
        assert_eq!(paused_before, 1, "filling goes above the default mark");
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
        let mut got = 0;
        while got < TOO_MUCH {
            got += read_some(wire.client(), 1024 * 1024).await.len();
        }
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
                transport.local_addr().is_ok(),
                "not closed before the last call"
            );
            assert_ne!(transport.peer_addr().port(), 0);
        }
    });
    play(&react, AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        let client = wire.client().local_addr().expect("connected");
        assert_eq!(transport.peer_addr(), client);
        assert_eq!(transport.local_addr().ok(), Some(wire.server.local_addr()));
        transport.close();
        wire.lost().await;
        assert_eq!(transport.peer_addr(), client);
        assert!(transport.local_addr().is_err());
        assert_eq!(wire.panics(), 0);
    });
}

#[test]
fn proto_01_made_data_eof_lost_in_this_order() {
    play(&silent(), AfterEof::Close, async |wire| {
        wire.send(&pattern(100_000));
        wire.client().shutdown(Shutdown::Write).expect("connected");
        wire.lost().await;
        let lines = ["made", "data 100000", "eof", "lost none"];
        assert_eq!(wire.log.lines(), lines);
        assert_eq!(read_to_end(wire.client()).await.expect("orderly"), b"");
    });
}

#[test]
fn proto_01_lost_is_last_even_with_a_pause_and_data_outstanding() {
    let react = reaction(|event, transport| {
        if matches!(event, Event::Data(_)) {
            transport.write(&vec![1; TOO_MUCH]);
            transport.abort();
        }
    });
    play(&react, AfterEof::Close, async |wire| {
        wire.send(&pattern(150_000));
        wire.lost().await;
        let lines = wire.log.lines();
        assert_eq!(lines[0], "made");
        assert!(lines[1].starts_with("data "));
        assert_eq!(lines[2..], ["pause", "lost none"]);
    });
}

#[test]
fn proto_03_close_after_eof_flushes_first() {
    let react = reaction(|event, transport| {
        if matches!(event, Event::Eof) {
            transport.write(&vec![9; TOO_MUCH]);
        }
    });
    play(&react, AfterEof::Close, async |wire| {
        wire.client().shutdown(Shutdown::Write).expect("connected");
        let got = read_to_end(wire.client()).await.expect("orderly");
        assert_eq!(got.len(), TOO_MUCH);
        wire.lost().await;
        let lines = ["made", "eof", "pause", "resume", "lost none"];
        assert_eq!(wire.log.lines(), lines);
    });
}

#[test]
fn proto_03_keep_open_leaves_writing_open_and_does_not_spin() {
    play(&silent(), AfterEof::KeepOpen, async |wire| {
        let transport = wire.made().await;
        wire.client().shutdown(Shutdown::Write).expect("connected");
        until("eof", || wire.log.has("eof")).await;
        assert!(!transport.is_closing());
        let before = wire.local.handle().stats().loops[0];
        garland::sleep(Duration::from_millis(100)).await;
        let after = wire.local.handle().stats().loops[0];
        let turns = after.turns - before.turns;
        assert!(turns < 50, "a readable end must not spin: {turns} turns");
        transport.write(b"half open");
        assert_eq!(read_some(wire.client(), 9).await, b"half open");
        transport.close();
        wire.lost().await;
        assert_eq!(wire.log.lines(), ["made", "eof", "lost none"]);
    });
}

#[test]
fn proto_04_data_after_write_eof_and_then_the_peers_end() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        transport.write(b"bye");
        transport.write_eof();
        assert_eq!(read_to_end(wire.client()).await.expect("orderly"), b"bye");
        wire.send(b"answer");
        until("data", || wire.log.has("data 6")).await;
        wire.client().shutdown(Shutdown::Write).expect("connected");
        wire.lost().await;
        assert_eq!(wire.log.lines(), ["made", "data 6", "eof", "lost none"]);
    });
}

#[test]
fn proto_05_lost_says_whether_it_was_an_error() {
    let endings: [(fn(&Transport), &str); 2] = [
        (Transport::close, "lost none"),
        (Transport::abort, "lost none"),
    ];
    for (end, line) in endings {
        play(&silent(), AfterEof::Close, async |wire| {
            end(&wire.made().await);
            wire.lost().await;
            assert_eq!(wire.log.lines(), ["made", line]);
        });
    }
    play(&silent(), AfterEof::KeepOpen, async |wire| {
        wire.made().await;
        wire.reset();
        wire.lost().await;
        assert_eq!(wire.log.lines(), ["made", "lost ConnectionReset"]);
    });
}

#[test]
fn proto_06_a_panic_is_reported_and_ends_that_connection_with_it() {
    let text = Rc::new(RefCell::new(String::new()));
    let noted = text.clone();
    let react = reaction(move |event, _| match event {
        Event::Data(b"panic") => panic!("of data_received"),
        Event::Eof => panic!("of eof_received"),
        Event::Lost(Some(error)) => *noted.borrow_mut() = error.to_string(),
        _ => {}
    });
    play(&react, AfterEof::Close, async |wire| {
        wire.send(b"panic");
        wire.lost().await;
        assert_eq!(wire.panics(), 1);
        assert!(text.borrow().contains("of data_received"), "{text:?}");
        assert_eq!(wire.log.lines(), ["made", "data 5", "lost Other"]);
    });
    play(&react, AfterEof::KeepOpen, async |wire| {
        wire.client().shutdown(Shutdown::Write).expect("connected");
        wire.lost().await;
        assert_eq!(wire.panics(), 1);
        assert!(text.borrow().contains("of eof_received"), "{text:?}");
        assert_eq!(wire.log.lines(), ["made", "eof", "lost Other"]);
    });
}

#[test]
fn proto_07_a_panic_of_made_or_lost_is_reported_and_the_socket_is_closed() {
    let react = reaction(|event, _| {
        if matches!(event, Event::Made) {
            panic!("of connection_made");
        }
    });
    play(&react, AfterEof::Close, async |wire| {
        wire.send(b"never heard");
        wire.lost().await;
        assert_eq!(wire.panics(), 1);
        assert_eq!(wire.log.lines(), ["made", "lost Other"]);
        let end = read_to_end(wire.client()).await;
        let is_reset = |error: &std::io::Error| error.kind() == ErrorKind::ConnectionReset;
        assert!(end.as_ref().map_or_else(is_reset, Vec::is_empty), "{end:?}");
    });
    let react = reaction(|event, _| {
        if matches!(event, Event::Lost(_)) {
            panic!("of connection_lost");
        }
    });
    play(&react, AfterEof::Close, async |wire| {
        wire.client().shutdown(Shutdown::Write).expect("connected");
        wire.lost().await;
        assert_eq!(wire.panics(), 1);
        assert_eq!(wire.log.lines(), ["made", "eof", "lost none"]);
        assert_eq!(read_to_end(wire.client()).await.expect("orderly"), b"");
        assert_eq!(wire.server.stats().open, 0);
    });
}

#[test]
fn proto_08_ending_inside_connection_made_delivers_no_data() {
    let endings: [fn(&Transport); 2] = [Transport::close, Transport::abort];
    for end in endings {
        let react = reaction(move |event, transport| {
            if matches!(event, Event::Made) {
                end(transport);
            }
        });
        play(&react, AfterEof::Close, async |wire| {
            wire.send(b"never heard");
            wire.lost().await;
            assert_eq!(wire.log.lines(), ["made", "lost none"]);
        });
    }
}

#[test]
fn proto_08_close_inside_connection_made_still_flushes() {
    let react = reaction(|event, transport| {
        if matches!(event, Event::Made) {
            transport.write(&vec![5; TOO_MUCH]);
            transport.close();
        }
    });
    play(&react, AfterEof::Close, async |wire| {
        let got = read_to_end(wire.client()).await.expect("orderly");
        assert_eq!(got.len(), TOO_MUCH);
        wire.lost().await;
        let lines = ["made", "pause", "resume", "lost none"];
        assert_eq!(wire.log.lines(), lines);
    });
}

#[test]
fn flow_01_the_default_marks_and_what_is_refused() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        let limits = transport.write_limits();
        assert_eq!((limits.high, limits.low), (64 * 1024, 16 * 1024));
        let wrong = WriteLimits { high: 1, low: 2 };
        let refused = transport.set_write_limits(wrong);
        assert!(
            refused
                .expect_err("low above high")
                .to_string()
                .contains("low (2)")
        );
        assert_eq!(transport.write_limits(), limits);
        transport
            .set_write_limits(WriteLimits::low(100))
            .expect("valid");
        assert_eq!(transport.write_limits().high, 400);
        transport
            .set_write_limits(WriteLimits::high(0))
            .expect("valid");
        assert_eq!(transport.write_limits().low, 0);
    });
}

#[test]
fn flow_02_pause_comes_above_the_mark_not_at_it_and_once() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        let wide = WriteLimits {
            high: usize::MAX,
            low: 0,
        };
        transport.set_write_limits(wide).expect("valid");
        fill(&transport).await;
        let held = transport.write_buffer_size();
        let limits = WriteLimits {
            high: held + 100,
            low: 10,
        };
        transport.set_write_limits(limits).expect("valid");
        transport.write(&[0; 100]);
        assert_eq!(transport.write_buffer_size(), held + 100);
        assert!(!wire.log.has("pause"), "at the mark");
        transport.write(&[0; 1]);
        assert_eq!(wire.log.count("pause"), 1, "inside of the write call");
        transport.write(&[0; 1000]);
        assert_eq!(wire.log.count("pause"), 1, "once");
    });
}

#[test]
fn flow_03_resume_comes_at_the_low_mark_once_and_by_the_loop() {
    let at_resume = Rc::new(Cell::new(usize::MAX));
    let noted = at_resume.clone();
    let react = reaction(move |event, transport| {
        if matches!(event, Event::Resume) {
            noted.set(transport.write_buffer_size());
        }
    });
    play(&react, AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        let limits = WriteLimits {
            high: 100_000,
            low: 50_000,
        };
        transport.set_write_limits(limits).expect("valid");
        transport.write(&vec![1; TOO_MUCH]);
        assert_eq!(wire.log.lines(), ["made", "pause"]);
        garland::sleep(Duration::from_millis(20)).await;
        // Raising the mark does not resume: only a flush does (FLOW-05).
        transport
            .set_write_limits(WriteLimits::high(usize::MAX))
            .expect("valid");
        yield_now().await;
        assert!(!wire.log.has("resume"));
        transport.set_write_limits(limits).expect("valid");
        read_some(wire.client(), TOO_MUCH).await;
        until("resume", || wire.log.has("resume")).await;
        assert!(at_resume.get() <= 50_000, "{} bytes", at_resume.get());
        transport.close();
        wire.lost().await;
        assert_eq!(wire.log.lines(), ["made", "pause", "resume", "lost none"]);
    });
}

#[test]
fn flow_04_pauses_and_resumes_come_in_strict_pairs() {
    // Writes until it is paused, from inside of resume_writing too, eight times (FLOW-07).
    let rounds = Rc::new(Cell::new(0));
    let count = rounds.clone();
    let react = reaction(move |event, transport| {
        if matches!(event, Event::Made) {
            count.set(0);
        }
        if matches!(event, Event::Made | Event::Resume) {
            count.set(count.get() + 1);
            if count.get() <= 8 {
                transport.write(&vec![2; TOO_MUCH / 2]);
            } else {
                transport.close();
            }
        }
    });
    play(&react, AfterEof::Close, async |wire| {
        let got = read_to_end(wire.client()).await.expect("orderly");
        assert_eq!(got.len(), 8 * (TOO_MUCH / 2));
        wire.lost().await;
        let lines = wire.log.lines();
        assert_eq!(lines.len(), 2 + 16, "{lines:?}");
        for pair in lines[1..17].chunks(2) {
            assert_eq!(pair, ["pause", "resume"]);
        }
        assert_eq!(rounds.get(), 9);
    });
}

#[test]
fn flow_05_lowering_the_mark_pauses_at_once() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        transport
            .set_write_limits(WriteLimits::high(usize::MAX))
            .expect("valid");
        fill(&transport).await;
        assert!(!wire.log.has("pause"));
        transport
            .set_write_limits(WriteLimits::high(1))
            .expect("valid");
        assert!(wire.log.has("pause"));
    });
}

#[test]
fn flow_06_a_panic_of_a_flow_call_is_reported_and_the_connection_goes_on() {
    let react = reaction(|event, _| {
        if matches!(event, Event::Pause | Event::Resume) {
            panic!("of a flow call");
        }
    });
    play(&react, AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        transport.write(&vec![1; TOO_MUCH]);
        assert_eq!(wire.panics(), 1);
        read_some(wire.client(), TOO_MUCH).await;
        until("resume", || wire.log.has("resume")).await;
        assert_eq!(wire.panics(), 2);
        transport.write(b"still here");
        assert_eq!(read_some(wire.client(), 10).await, b"still here");
        transport.close();
        wire.lost().await;
        assert_eq!(wire.log.lines(), ["made", "pause", "resume", "lost none"]);
    });
}

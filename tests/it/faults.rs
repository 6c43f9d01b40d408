//! What the world does to real connections: resets, numbers of descriptors that are used again,
//! edges that come only once. The same by tables and without a kernel: `src/transport/faults.rs`.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::rc::Rc;

use garland::{AfterEof, Transport, WriteLimits, yield_now};

use crate::sockets::{
    Event, Log, Recorder, any_port, connect, finish_lent, lent, pattern, read_some, read_to_end,
    reset, until,
};
use crate::wire::{TOO_MUCH, play, reaction, silent};

/// The transports of a server, in the order in which they were made, and the log of each.
type Made = Rc<RefCell<Vec<(Transport, Log)>>>;

/// A server on loop 0 whose protocols keep a log each; `script` gets its transports and an address.
fn serve(script: impl AsyncFn(&Made, std::net::SocketAddr)) {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let made = Made::default();
        let noted = made.clone();
        let factory = move || {
            let log = Log::default();
            let (noted, logged) = (noted.clone(), log.clone());
            Recorder {
                log,
                reaction: Rc::new(move |event: &Event<'_>, transport: &Transport| {
                    if matches!(event, Event::Made) {
                        noted.borrow_mut().push((transport.clone(), logged.clone()));
                    }
                }),
                after_eof: AfterEof::Close,
            }
        };
        let server = runtime.local().create_server(any_port(), factory);
        let server = server.expect("a free port exists");
        let played = runtime.block_on(script(&made, server.local_addr()));
        played.expect("not stopped");
        made.borrow_mut().clear();
        finish_lent(runtime);
    }
}

async fn next(made: &Made, count: usize) -> (Transport, Log) {
    until("connection_made", || made.borrow().len() > count).await;
    made.borrow()[count].clone()
}

fn number(transport: &Transport) -> Option<i32> {
    transport.with_fd(|fd| fd.as_raw_fd())
}

/// Trap 7: what a lost connection's owner still does must not reach the next one with its number.
#[test]
fn trap_07_the_owner_of_a_lost_connection_does_not_touch_the_next_one() {
    serve(async |made, addr| {
        let mut reused = 0;
        for round in 0..20 {
            let count = 2 * round;
            let first = connect(addr);
            let (old, old_log) = next(made, count).await;
            let old_number = number(&old).expect("open");
            old.abort();
            until("lost", || old_log.is_lost()).await;
            assert_eq!(number(&old), None);
            drop(first);
            let client = connect(addr);
            client.set_nonblocking(true).expect("a socket");
            let (new, log) = next(made, count + 1).await;
            reused += usize::from(number(&new) == Some(old_number));
            old.write(b"to nobody");
            old.write_lines([&b"to nobody"[..]]);
            old.resume_reading();
            old.pause_reading();
            old.write_eof();
            old.abort();
            old.close();
            new.write(b"mine");
            assert_eq!(read_some(&client, 4).await, b"mine");
            (&client).write_all(b"yours").expect("there is room");
            until("data", || log.has("data 5")).await;
            assert_eq!(log.lines(), ["made", "data 5"]);
            new.close();
            until("lost", || log.is_lost()).await;
            assert_eq!(read_to_end(&client).await.expect("orderly"), b"");
        }
        assert!(
            reused > 0,
            "no number was ever used again: nothing was tested"
        );
    });
}

/// Trap 6: after an abort, an error or the loss nobody is resumed any more.
#[test]
fn trap_06_no_resume_after_the_end() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        let narrow = WriteLimits { high: 10, low: 2 };
        transport.set_write_limits(narrow).expect("low is below");
        transport.write(&vec![1; TOO_MUCH]);
        assert_eq!(wire.log.count("pause"), 1);
        transport.abort();
        // There is room again at once.
        let end = read_to_end(wire.client()).await;
        assert!(end.is_ok_and(|got| got.len() < TOO_MUCH));
        wire.lost().await;
        assert_eq!(wire.log.lines(), ["made", "pause", "lost none"]);
    });
    // And a protocol that closed from inside of resume_writing hears nothing but the end.
    let closes = reaction(|event, transport| {
        if matches!(event, Event::Resume) {
            transport.close();
            transport.write(b"ignored");
        }
    });
    play(&closes, AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        transport.write(&vec![1; TOO_MUCH]);
        let got = read_to_end(wire.client()).await.expect("orderly");
        assert_eq!(got.len(), TOO_MUCH);
        wire.lost().await;
        assert_eq!(wire.log.lines(), ["made", "pause", "resume", "lost none"]);
    });
}

/// Trap 3: an edge comes once; pausing, resuming and bounded reads must not lose what it announced.
#[test]
fn trap_03_no_stall_under_pauses_at_every_moment() {
    let paused = Rc::new(Cell::new(0_usize));
    let count = paused.clone();
    let react = reaction(move |event, transport| {
        if matches!(event, Event::Data(_)) {
            transport.pause_reading();
            count.set(count.get() + 1);
            let transport = transport.clone();
            let local = transport.local_loop().clone();
            // Now at once, now a turn later.
            if count.get().is_multiple_of(3) {
                transport.resume_reading();
            } else {
                local.call_soon(move || transport.resume_reading());
            }
        }
    });
    let sent = pattern(3_000_000);
    play(&react, AfterEof::Close, async |wire| {
        wire.made().await;
        let mut rest = &sent[..];
        while !rest.is_empty() {
            match wire.client().write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(_would_block) => garland::sleep(std::time::Duration::from_micros(200)).await,
            }
            yield_now().await;
        }
        wire.client().shutdown(Shutdown::Write).expect("connected");
        wire.lost().await;
        let lines = ["made", "data 3000000", "eof", "lost none"];
        assert_eq!(wire.log.lines(), lines);
    });
    assert!(paused.get() > 3 * (sent.len() / (64 * 1024)));
}

/// Traps 4 and 8, under everything at once: both directions full, and then a reset.
#[test]
fn trap_04_a_reset_in_the_middle_of_everything_is_one_loss() {
    serve(async |made, addr| {
        for round in 0..10 {
            let client = connect(addr);
            client.set_nonblocking(true).expect("a socket");
            let (transport, log) = next(made, round).await;
            transport.write(&vec![1; TOO_MUCH]);
            let sent = (&client).write(&pattern(100_000)).expect("there is room");
            assert!(sent > 0);
            match round % 3 {
                0 => transport.pause_reading(),
                1 => transport.close(),
                _ => yield_now().await,
            }
            reset(client);
            transport.write(b"more");
            assert!(!log.is_lost());
            until("lost", || log.is_lost()).await;
            for _ in 0..3 {
                yield_now().await;
            }
            let lines = log.lines();
            let lost = lines.iter().filter(|line| line.starts_with("lost"));
            assert_eq!(lost.count(), 1, "{lines:?}");
            assert!(lines.last().is_some_and(|line| line.starts_with("lost ")));
            assert!(!log.has("lost none"), "a reset is an error: {lines:?}");
            assert_eq!(transport.write_buffer_size(), 0);
        }
    });
}

/// Writing into a connection whose peer resets it, again and again, takes nothing down.
#[test]
fn trn_12_a_storm_of_resets_leaves_nothing_behind() {
    serve(async |made, addr| {
        let clients: Vec<TcpStream> = (0..30).map(|_| connect(addr)).collect();
        until("all", || made.borrow().len() == clients.len()).await;
        for client in clients {
            reset(client);
        }
        let all = made.borrow().clone();
        for (transport, _) in &all {
            transport.write(b"to whom it may concern");
        }
        for (_, log) in &all {
            until("lost", || log.is_lost()).await;
            assert!(!log.has("lost none"));
        }
    });
}

//! Rows PROTO and FLOW: which call-backs come, in which order, and when writing is paused.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use garland::{AfterEof, Transport, WriteLimits, yield_now};

use crate::sockets::{Event, pattern, read_some, read_to_end, until};
use crate::wire::{TOO_MUCH, fill, play, reaction, silent};

#[test]
fn proto_01_proto_02_made_data_eof_lost_in_this_order() {
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
    let endings: [fn(&Transport); 2] = [Transport::close, Transport::abort];
    for end in endings {
        play(&silent(), AfterEof::Close, async |wire| {
            end(&wire.made().await);
            wire.lost().await;
            assert_eq!(wire.log.lines(), ["made", "lost none"]);
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

#[test]
fn flow_05_raising_the_mark_leaves_it_paused_until_a_flush_reaches_the_low_mark() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        transport.write(&vec![1; TOO_MUCH]);
        assert_eq!(wire.log.lines(), ["made", "pause"]);
        let held = transport.write_buffer_size();
        // Both marks far above what is held: nothing of it happens inside of the call, nor later.
        let high = WriteLimits {
            high: 4 * held,
            low: 2 * held,
        };
        transport.set_write_limits(high).expect("low is below");
        for _ in 0..5 {
            yield_now().await;
        }
        assert_eq!(wire.log.lines(), ["made", "pause"]);
        // The next flush, however little it sends, is what resumes.
        read_some(wire.client(), TOO_MUCH - held).await;
        until("resume", || wire.log.has("resume")).await;
        assert_eq!(wire.log.count("resume"), 1);
        transport.abort();
        wire.lost().await;
    });
}

#[test]
fn flow_07_resume_may_close_and_there_is_no_recursion() {
    let depth = Rc::new(Cell::new(0));
    let deepest = Rc::new(Cell::new(0));
    let (now, most) = (depth.clone(), deepest.clone());
    let react = reaction(move |event, transport| {
        now.set(now.get() + 1);
        most.set(most.get().max(now.get()));
        match event {
            Event::Resume => {
                // Above the mark, below it only by a flush, and the end.
                transport.write(&vec![2; TOO_MUCH]);
                transport.close();
            }
            Event::Pause => transport.write(b"while paused"),
            _ => {}
        }
        now.set(now.get() - 1);
    });
    play(&react, AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        transport.write(&vec![1; TOO_MUCH]);
        let got = read_to_end(wire.client()).await.expect("orderly");
        // The second pause comes after close(): what is written then is ignored.
        assert_eq!(got.len(), 2 * TOO_MUCH + b"while paused".len());
        wire.lost().await;
        let lines = wire.log.lines();
        assert_eq!(lines[..4], ["made", "pause", "resume", "pause"]);
        assert_eq!(lines.last().map(String::as_str), Some("lost none"));
    });
    assert_eq!((depth.get(), deepest.get()), (0, 1));
}

#[test]
fn flow_08_the_size_is_what_is_held_here_and_the_limits_are_what_was_set() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        assert_eq!(transport.write_buffer_size(), 0);
        let limits = WriteLimits {
            high: 1000,
            low: 999,
        };
        transport.set_write_limits(limits).expect("low is below");
        assert_eq!(transport.write_limits(), limits);
        let filled = fill(&transport).await;
        let held = transport.write_buffer_size();
        transport.write(&[0; 1234]);
        transport.write_lines([&[0; 500][..], &[], &[0; 66]]);
        assert_eq!(transport.write_buffer_size(), held + 1800);
        assert_eq!(
            read_some(wire.client(), filled + 1800).await.len(),
            filled + 1800
        );
        until("the last byte sent", || transport.write_buffer_size() == 0).await;
        transport.write(&vec![0; TOO_MUCH]);
        assert!(transport.write_buffer_size() > 0);
        transport.abort();
        assert_eq!(transport.write_buffer_size(), 0);
        wire.lost().await;
        assert_eq!(transport.write_buffer_size(), 0);
        assert_eq!(transport.write_limits(), limits);
    });
}

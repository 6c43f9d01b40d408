//! Rows PROTO-09 and TRN-20: protocols that lend the buffer they are read into, and protocols that
//! take each other's place.

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use garland::{AfterEof, Buffered, BufferedProtocol, Protocol, Transport, WriteLimits, yield_now};

use crate::sockets::{Event, Log, Reaction, Recorder, pattern, read_some, until};
use crate::wire::{TOO_MUCH, play, play_as, reaction, silent};

/// A recorder that is read into a buffer of its own, of `room` bytes.
struct Lending {
    recorder: Recorder,
    buffer: Vec<u8>,
    is_lent: bool,
}

impl Lending {
    fn new(recorder: Recorder, room: usize) -> Self {
        Lending {
            recorder,
            buffer: vec![0; room],
            is_lent: false,
        }
    }

    fn note(&self, line: &str) {
        self.recorder.log.add(line);
    }
}

impl BufferedProtocol for Lending {
    fn connection_made(&mut self, transport: &Transport) {
        self.recorder.connection_made(transport);
    }

    fn get_buffer(&mut self, transport: &Transport, hint: usize) -> &mut [u8] {
        assert!(hint > 0);
        self.is_lent = true;
        // The empty piece of data stands for "lend me something".
        (self.recorder.reaction)(&Event::Data(b""), transport);
        &mut self.buffer
    }

    fn buffer_updated(&mut self, transport: &Transport, count: usize) {
        assert!(std::mem::take(&mut self.is_lent), "lent first");
        let data = &self.buffer[..count];
        self.recorder.data_received(transport, data);
    }

    fn eof_received(&mut self, transport: &Transport) -> AfterEof {
        self.recorder.eof_received(transport)
    }

    fn pause_writing(&mut self, transport: &Transport) {
        self.recorder.pause_writing(transport);
    }

    fn resume_writing(&mut self, transport: &Transport) {
        self.recorder.resume_writing(transport);
    }

    fn connection_lost(&mut self, transport: &Transport, error: Option<&io::Error>) {
        self.recorder.connection_lost(transport, error);
    }
}

fn lending(room: usize) -> impl Fn(Recorder) -> Buffered<Lending> + Clone + 'static {
    move |recorder| Buffered(Lending::new(recorder, room))
}

#[test]
fn proto_09_bytes_arrive_in_the_protocols_own_buffer_however_small_it_is() {
    let sent = pattern(10_000);
    for room in [1, 7, 10_000, 1_000_000] {
        // Few bytes for the smallest, for each costs a turn.
        let sent = if room == 1 { &sent[..500] } else { &sent[..] };
        let echo = reaction(|event, transport| {
            if let Event::Data(data @ [_, ..]) = event {
                transport.write(data);
            }
        });
        play_as(lending(room), &echo, AfterEof::Close, async |wire| {
            wire.send(sent);
            assert!(read_some(wire.client(), sent.len()).await == sent);
            wire.client().shutdown(Shutdown::Write).expect("connected");
            wire.lost().await;
            let data = format!("data {}", sent.len());
            assert_eq!(wire.log.lines(), ["made", &data, "eof", "lost none"]);
            assert_eq!(wire.panics(), 0);
        });
    }
}

#[test]
fn proto_09_the_end_and_flow_control_are_as_for_any_protocol() {
    let react = reaction(|event, transport| {
        if matches!(event, Event::Eof) {
            transport.write(&vec![1; TOO_MUCH]);
        }
    });
    play_as(lending(4096), &react, AfterEof::KeepOpen, async |wire| {
        let transport = wire.made().await;
        wire.client().shutdown(Shutdown::Write).expect("connected");
        until("pause", || wire.log.has("pause")).await;
        assert!(!transport.is_closing());
        read_some(wire.client(), TOO_MUCH).await;
        until("resume", || wire.log.has("resume")).await;
        transport.close();
        wire.lost().await;
        let lines = ["made", "eof", "pause", "resume", "lost none"];
        assert_eq!(wire.log.lines(), lines);
    });
}

#[test]
fn proto_09_a_buffer_without_room_is_fatal() {
    play_as(lending(0), &silent(), AfterEof::Close, async |wire| {
        wire.send(b"nowhere to go");
        wire.lost().await;
        assert_eq!(wire.log.lines(), ["made", "lost Other"]);
        assert_eq!(wire.panics(), 0);
    });
}

#[test]
fn proto_09_a_panic_of_either_call_is_fatal() {
    for in_get_buffer in [true, false] {
        let react = reaction(move |event, _| {
            if let Event::Data(data) = event {
                assert!(data.is_empty() != in_get_buffer, "of this one");
            }
        });
        play_as(lending(64), &react, AfterEof::Close, async |wire| {
            wire.send(b"bytes");
            wire.lost().await;
            assert_eq!(wire.panics(), 1);
            let lines = wire.log.lines();
            assert_eq!(lines.last().map(String::as_str), Some("lost Other"));
            assert_eq!(wire.log.has("data 5"), !in_get_buffer);
        });
    }
}

#[test]
fn proto_09_who_pauses_instead_of_lending_gets_the_bytes_on_resume() {
    let react = reaction(|event, transport| {
        if let Event::Data(b"") = event {
            transport.pause_reading();
        }
    });
    play_as(lending(64), &react, AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        wire.send(b"later");
        until("the pause", || !transport.is_reading()).await;
        for _ in 0..5 {
            yield_now().await;
        }
        assert_eq!(wire.log.lines(), ["made"]);
        // A protocol that takes them.
        transport.set_protocol(recorder(&wire.log, &silent()));
        transport.resume_reading();
        until("data", || wire.log.has("data 5")).await;
        transport.close();
        wire.lost().await;
    });
}

#[test]
fn proto_09_bytes_that_somebody_else_received_go_the_same_way() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        let log = Log::default();
        let mut buffered = Buffered(Lending::new(recorder(&log, &silent()), 4));
        buffered.data_received(&transport, b"ten bytes.");
        assert_eq!(log.lines(), ["data 10"]);
    });
}

fn recorder(log: &Log, reaction: &Reaction) -> Recorder {
    Recorder {
        log: log.clone(),
        reaction: reaction.clone(),
        after_eof: AfterEof::Close,
    }
}

/// Notes when it is dropped.
struct Marked<P>(P, Log);

impl<P> Drop for Marked<P> {
    fn drop(&mut self) {
        self.1.add("dropped");
    }
}

impl<P: Protocol> Protocol for Marked<P> {
    fn connection_made(&mut self, transport: &Transport) {
        self.0.connection_made(transport);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.0.data_received(transport, data);
        self.1.add("returns");
    }
}

#[test]
fn trn_20_the_next_event_goes_to_the_new_protocol_and_the_old_one_goes_when_it_returned() {
    let second = Log::default();
    let seconds = second.clone();
    let react = reaction(move |event, transport| {
        if matches!(event, Event::Data(_)) {
            transport.set_protocol(recorder(&seconds, &silent()));
            assert!(transport.with_protocol(|_: &mut Recorder| ()).is_some());
        }
    });
    let old = Log::default();
    let olds = old.clone();
    let make = move |recorder| Marked(recorder, olds.clone());
    play_as(make, &react, AfterEof::Close, async |wire| {
        wire.send(b"first");
        until("the swap", || old.has("dropped")).await;
        assert_eq!(old.lines(), ["returns", "dropped"]);
        wire.send(b"second");
        wire.client().shutdown(Shutdown::Write).expect("connected");
        until("lost", || second.is_lost()).await;
        assert_eq!(wire.log.lines(), ["made", "data 5"]);
        // Not "made": the connection was.
        assert_eq!(second.lines(), ["data 6", "eof", "lost none"]);
        second.clear();
        old.clear();
    });
}

#[test]
fn trn_20_plain_and_buffered_protocols_take_each_others_place() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        wire.send(b"a");
        until("plain", || wire.log.has("data 1")).await;
        let second = Log::default();
        let lending = Lending::new(recorder(&second, &silent()), 3);
        lending.note("installed");
        transport.set_protocol(Buffered(lending));
        wire.send(b"four");
        until("buffered", || second.has("data 4")).await;
        let third = Log::default();
        transport.set_protocol(recorder(&third, &silent()));
        wire.send(b"fifth");
        until("plain again", || third.has("data 5")).await;
        transport.close();
        until("lost", || third.is_lost()).await;
        assert_eq!(wire.log.lines(), ["made", "data 1"]);
        assert_eq!(second.lines(), ["installed", "data 4"]);
        assert_eq!(third.lines(), ["data 5", "lost none"]);
    });
}

#[test]
fn trn_20_a_pause_of_the_old_one_is_resumed_at_the_new_one() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        transport.write(&vec![1; TOO_MUCH]);
        let second = Log::default();
        transport.set_protocol(recorder(&second, &silent()));
        read_some(wire.client(), TOO_MUCH).await;
        until("resume", || second.has("resume")).await;
        transport.abort();
        until("lost", || second.is_lost()).await;
        assert_eq!(wire.log.lines(), ["made", "pause"]);
    });
}

#[test]
fn trn_20_a_replaced_protocol_whose_destructor_panics_is_reported() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("of a destructor");
        }
    }
    impl Protocol for Bomb {
        fn data_received(&mut self, transport: &Transport, data: &[u8]) {
            transport.set_protocol(Echo);
            transport.write(data);
        }
    }
    struct Echo;
    impl Protocol for Echo {
        fn data_received(&mut self, transport: &Transport, data: &[u8]) {
            transport.write(data);
        }
    }
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        transport.set_protocol(Bomb);
        // More than one read, so that the rest hangs on what follows the panic.
        let sent = pattern(300_000);
        wire.send(&sent);
        assert!(read_some(wire.client(), sent.len()).await == sent);
        assert_eq!(wire.panics(), 1);
        // From outside of a call as well.
        transport.set_protocol(Bomb);
        transport.set_protocol(Echo);
        assert_eq!(wire.panics(), 2);
        wire.send(b"alive");
        assert_eq!(read_some(wire.client(), 5).await, b"alive");
    });
}

#[test]
fn trn_20_the_protocol_can_be_looked_at_from_outside() {
    let inside = Rc::new(Cell::new(0));
    let seen = inside.clone();
    let react = reaction(move |event, transport| {
        if matches!(event, Event::Data(_) | Event::Lost(_)) {
            // It runs: nobody else may have it.
            assert!(transport.with_protocol(|_: &mut Recorder| ()).is_none());
            seen.set(seen.get() + 1);
        }
    });
    play(&react, AfterEof::Close, async |wire| {
        inside.set(0);
        let transport = wire.made().await;
        let answer = transport.with_protocol(|recorder: &mut Recorder| {
            recorder.log.add("looked at");
            // Told when the look is over, as from a call-back.
            transport.write(&vec![1; TOO_MUCH]);
            recorder.log.add("written");
            42
        });
        assert_eq!(answer, Some(42));
        assert_eq!(wire.log.lines(), ["made", "looked at", "written", "pause"]);
        assert!(
            transport
                .with_protocol(|_: &mut Marked<Recorder>| ())
                .is_none()
        );
        let look = || transport.with_protocol(|_: &mut Recorder| panic!("of the look"));
        assert!(catch_unwind(AssertUnwindSafe(look)).is_err());
        wire.send(b"still there");
        until("data", || wire.log.has("data 11")).await;
        transport.abort();
        wire.lost().await;
        assert_eq!(inside.get(), 2);
        assert_eq!(wire.panics(), 0);
        assert!(transport.with_protocol(|_: &mut Recorder| ()).is_none());
    });
}

#[test]
fn trn_20_after_the_loss_a_new_protocol_is_dropped() {
    play(&silent(), AfterEof::Close, async |wire| {
        let transport = wire.made().await;
        transport.abort();
        wire.lost().await;
        let log = Log::default();
        transport.set_protocol(Marked(recorder(&log, &silent()), log.clone()));
        assert_eq!(log.lines(), ["dropped"]);
        let limits = WriteLimits::high(1);
        transport.set_write_limits(limits).expect("valid");
        transport.write(b"ignored");
        yield_now().await;
        assert_eq!(log.lines(), ["dropped"]);
    });
}

//! Rows UDP of the callback model: which call-backs come, in which order, what an error does, and
//! what is sent when.
//!
//! The clients are plain sockets of `std`. Where an order matters the script runs on the loop itself,
//! between the turns of the endpoint it watches.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;

use garland::{
    DatagramProtocol, DatagramTransport, EndpointOptions, InvalidLimits, Runtime, WriteLimits,
    yield_now,
};

use crate::sockets::{LIMIT, finish_lent, lent, pattern, until};
use crate::support::run;

pub(crate) fn localhost() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A client whose every call is bounded.
pub(crate) fn client() -> UdpSocket {
    let client = UdpSocket::bind(localhost()).expect("a free port exists");
    client.set_read_timeout(Some(LIMIT)).expect("not zero");
    client
}

pub(crate) fn addr_of(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("it is bound")
}

pub(crate) fn receive(client: &UdpSocket) -> Vec<u8> {
    let mut buf = vec![0; 65_536];
    let len = client.recv(&mut buf).expect("a datagram comes in time");
    buf.truncate(len);
    buf
}

/// What a protocol was told, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    pub(crate) fn note(&self, what: impl Into<String>) {
        self.0.borrow_mut().push(what.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.borrow().clone()
    }

    pub(crate) fn count(&self, what: &str) -> usize {
        let lines = self.0.borrow();
        lines.iter().filter(|line| line.starts_with(what)).count()
    }

    pub(crate) async fn has(&self, what: &str, times: usize) {
        until(&format!("{what} x{times} in {:?}", self.lines()), || {
            self.count(what) >= times
        })
        .await;
    }
}

pub(crate) type Reaction = Box<dyn FnMut(&DatagramTransport, &[u8], SocketAddr)>;

/// Notes everything, and does to each datagram what the test wants.
pub(crate) struct Recorder {
    log: Log,
    reaction: Reaction,
}

impl Recorder {
    pub(crate) fn new(
        log: &Log,
        reaction: impl FnMut(&DatagramTransport, &[u8], SocketAddr) + 'static,
    ) -> Self {
        Recorder {
            log: log.clone(),
            reaction: Box::new(reaction),
        }
    }

    pub(crate) fn silent(log: &Log) -> Self {
        Recorder::new(log, |_, _, _| {})
    }

    pub(crate) fn echo(log: &Log) -> Self {
        Recorder::new(log, |transport, data, addr| transport.send_to(data, addr))
    }
}

impl DatagramProtocol for Recorder {
    fn connection_made(&mut self, _transport: &DatagramTransport) {
        self.log.note("made");
    }

    fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], addr: SocketAddr) {
        self.log
            .note(format!("data {}", String::from_utf8_lossy(data)));
        (self.reaction)(transport, data, addr);
    }

    fn error_received(&mut self, _transport: &DatagramTransport, error: &io::Error) {
        self.log.note(format!("error {:?}", error.kind()));
    }

    fn pause_writing(&mut self, _transport: &DatagramTransport) {
        self.log.note("pause");
    }

    fn resume_writing(&mut self, _transport: &DatagramTransport) {
        self.log.note("resume");
    }

    fn connection_lost(&mut self, _transport: &DatagramTransport, error: Option<&io::Error>) {
        self.log.note(format!("lost {error:?}"));
    }
}

pub(crate) fn endpoint(
    runtime: &Runtime,
    options: impl Into<EndpointOptions>,
    protocol: Recorder,
) -> DatagramTransport {
    let made = runtime
        .local()
        .create_datagram_endpoint(options, move || protocol);
    made.expect("loopback has a free port")
}

/// Lets whatever may still come, come.
pub(crate) async fn settle() {
    for _ in 0..3 {
        yield_now().await;
    }
}

#[test]
fn udp_01_udp_09_made_once_datagrams_then_lost_once_and_last() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let log = Log::default();
        let transport = endpoint(&runtime, localhost(), Recorder::echo(&log));
        assert!(log.lines().is_empty(), "never inside the call that opens");
        let client = client();
        run(&runtime, async {
            for word in ["one", "two"] {
                client
                    .send_to(word.as_bytes(), transport.local_addr())
                    .expect("loopback takes it");
            }
            log.has("data", 2).await;
            transport.close();
            assert!(transport.is_closing());
            assert_eq!(log.count("lost"), 0, "not inside close()");
            transport.close();
            log.has("lost", 1).await;
            client
                .send_to(b"late", transport.local_addr())
                .expect("sending says nothing");
            transport.send_to(b"ignored", addr_of(&client));
            transport.abort();
            settle().await;
        });
        let all = ["made", "data one", "data two", "lost None"];
        assert_eq!(log.lines(), all);
        assert_eq!(receive(&client), b"one");
        assert_eq!(receive(&client), b"two");
        client.set_nonblocking(true).expect("a socket");
        assert!(client.recv(&mut [0; 9]).is_err(), "nothing after close()");
        finish_lent(runtime);
    }
}

#[test]
fn udp_03_udp_05_r21_one_call_a_datagram_empty_and_largest_ones_included() {
    let runtime = lent(1);
    let sizes: Rc<RefCell<Vec<usize>>> = Rc::default();
    let seen = Rc::clone(&sizes);
    let log = Log::default();
    let echo = Recorder::new(&log, move |transport, data, addr| {
        seen.borrow_mut().push(data.len());
        transport.send_to(data, addr);
    });
    let transport = endpoint(&runtime, localhost(), echo);
    let client = client();
    let largest = pattern(65_507);
    for data in [&b""[..], b"x", b"", &largest] {
        client
            .send_to(data, transport.local_addr())
            .expect("loopback takes it");
    }
    run(&runtime, log.has("data", 4));
    assert_eq!(*sizes.borrow(), [0, 1, 0, 65_507]);
    for data in [&b""[..], b"x", b"", &largest] {
        assert!(receive(&client) == data, "byte for byte, in order");
    }
    finish_lent(runtime);
}

#[test]
fn r21_the_largest_ipv6_datagram_is_larger_than_the_path_and_comes_back_whole() {
    let runtime = lent(1);
    let log = Log::default();
    let any = "[::1]:0".parse().expect("an address");
    let Ok(client) = UdpSocket::bind::<SocketAddr>(any) else {
        // A machine without IPv6: the IPv4 test above has seen the rest.
        return finish_lent(runtime);
    };
    client.set_read_timeout(Some(LIMIT)).expect("not zero");
    let transport = endpoint(&runtime, any, Recorder::echo(&log));
    let largest = pattern(65_527);
    client
        .send_to(&largest, transport.local_addr())
        .expect("an ordinary socket fragments");
    run(&runtime, log.has("data", 1));
    assert!(receive(&client) == largest, "ours fragments too");
    finish_lent(runtime);
}

#[test]
fn udp_04_a_fixed_peer_needs_no_address_and_takes_no_other() {
    let runtime = lent(1);
    let log = Log::default();
    let (peer, stranger) = (client(), client());
    let options = EndpointOptions::new().remote(addr_of(&peer));
    let fixed = endpoint(&runtime, options, Recorder::silent(&log));
    fixed.send(b"without");
    fixed.send_to(b"equal", addr_of(&peer));
    assert_eq!(receive(&peer), b"without");
    assert_eq!(receive(&peer), b"equal");
    stranger
        .send_to(b"unheard", fixed.local_addr())
        .expect("loopback takes it");
    peer.send_to(b"heard", fixed.local_addr())
        .expect("loopback takes it");
    run(&runtime, log.has("data heard", 1));
    assert_eq!(log.count("data"), 1);

    let open = endpoint(&runtime, localhost(), Recorder::silent(&log));
    let panics = |f: &dyn Fn()| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).expect_err("a bug of the caller")
    };
    panics(&|| fixed.send_to(b"x", addr_of(&stranger)));
    panics(&|| open.send(b"x"));
    finish_lent(runtime);
}

#[test]
fn udp_06_r22_errors_are_received_and_the_endpoint_stays_usable() {
    let runtime = lent(1);
    let log = Log::default();
    let gone = client();
    let addr = addr_of(&gone);
    drop(gone);
    let options = EndpointOptions::new().remote(addr);
    let transport = endpoint(&runtime, options, Recorder::silent(&log));
    run(&runtime, async {
        transport.send(b"nobody");
        log.has("error ConnectionRefused", 1).await;
        // Too large to be a datagram; told inside the call, for nothing runs just now.
        let errors = log.count("error");
        transport.send(&[0; 65_508]);
        assert_eq!(log.count("error"), errors + 1, "{:?}", log.lines());
        let here = UdpSocket::bind(addr).expect("the port is free again");
        here.set_read_timeout(Some(LIMIT)).expect("not zero");
        transport.send(b"somebody");
        assert_eq!(receive(&here), b"somebody");
        here.send_to(b"answer", transport.local_addr())
            .expect("loopback takes it");
        log.has("data answer", 1).await;
    });
    assert_eq!(log.count("lost"), 0);
    finish_lent(runtime);
}

#[test]
fn udp_06_r22_a_client_that_is_gone_does_not_disturb_the_others() {
    let runtime = lent(1);
    let log = Log::default();
    let transport = endpoint(&runtime, localhost(), Recorder::echo(&log));
    let client = client();
    run(&runtime, async {
        for round in 1..=20 {
            let gone = UdpSocket::bind(localhost()).expect("a free port exists");
            gone.send_to(b"bye", transport.local_addr())
                .expect("loopback takes it");
            drop(gone);
            client
                .send_to(b"here", transport.local_addr())
                .expect("loopback takes it");
            log.has("data here", round).await;
        }
    });
    for _ in 0..20 {
        assert_eq!(receive(&client), b"here");
    }
    assert_eq!(log.count("data bye"), 20);
    finish_lent(runtime);
}

#[test]
fn udp_07_a_datagram_that_fails_in_a_batch_is_reported_and_the_rest_goes_out() {
    let runtime = lent(1);
    let log = Log::default();
    let answer = Recorder::new(&log, |transport, data, addr| {
        for _ in 0..2 {
            transport.send_to(&[0; 65_508], addr);
            transport.send_to(data, addr);
        }
    });
    let transport = endpoint(&runtime, localhost(), answer);
    let client = client();
    for word in [b"one", b"two"] {
        client
            .send_to(word, transport.local_addr())
            .expect("loopback takes it");
    }
    run(&runtime, log.has("error", 4));
    for word in [b"one", b"one", b"two", b"two"] {
        assert_eq!(receive(&client), word);
    }
    assert_eq!(transport.write_buffer_size(), 0);
    finish_lent(runtime);
}

#[test]
fn udp_06_an_error_is_never_received_inside_another_callback() {
    let runtime = lent(1);
    let log = Log::default();
    let (inner, limit) = (log.clone(), Rc::new(Cell::new(0)));
    struct Stubborn(Log, Rc<Cell<u32>>, bool);
    impl DatagramProtocol for Stubborn {
        fn connection_made(&mut self, transport: &DatagramTransport) {
            transport.send_to(&[0; 65_508], localhost());
            assert!(!self.2, "would be told in the middle of this");
        }

        fn datagram_received(&mut self, _: &DatagramTransport, _: &[u8], _: SocketAddr) {}

        fn error_received(&mut self, transport: &DatagramTransport, _error: &io::Error) {
            self.2 = true;
            self.0.note("error");
            // Each of them fails too: one a turn, and the loop does other things between them.
            if self.1.replace(self.1.get() + 1) < 50 {
                transport.send_to(&[0; 65_508], localhost());
            }
        }
    }
    let made = runtime
        .local()
        .create_datagram_endpoint(localhost(), || Stubborn(inner, limit, false));
    made.expect("loopback has a free port");
    run(&runtime, async {
        while log.count("error") < 51 {
            let before = log.count("error");
            yield_now().await;
            assert!(log.count("error") <= before + 1, "told a turn at a time");
        }
    });
    finish_lent(runtime);
}

#[test]
fn udp_09_close_in_a_batch_sends_what_was_collected_and_abort_does_not() {
    for is_abort in [false, true] {
        let runtime = lent(1);
        let log = Log::default();
        let end = Recorder::new(&log, move |transport, data, addr| {
            transport.send_to(data, addr);
            match is_abort {
                true => transport.abort(),
                false => transport.close(),
            }
            transport.send_to(b"ignored", addr);
        });
        let transport = endpoint(&runtime, localhost(), end);
        let client = client();
        // Both wait when the endpoint is first looked at, so they are one batch.
        for word in [b"one", b"two"] {
            client
                .send_to(word, transport.local_addr())
                .expect("loopback takes it");
        }
        run(&runtime, log.has("lost", 1));
        run(&runtime, settle());
        // UDP-11: the second one was received with the first, and is not handed out.
        assert_eq!(log.lines(), ["made", "data one", "lost None"]);
        client.set_nonblocking(true).expect("a socket");
        let mut buf = [0; 16];
        let received = client.recv(&mut buf).ok();
        assert_eq!(received, (!is_abort).then_some(3));
        assert!(client.recv(&mut buf).is_err(), "and nothing else");
        finish_lent(runtime);
    }
}

#[test]
fn udp_10_a_panic_of_the_protocol_is_reported_and_the_endpoint_stays() {
    let runtime = lent(1);
    let log = Log::default();
    let bad = Recorder::new(&log, |transport, data, addr| {
        assert!(data != b"bad", "this one is not liked");
        transport.send_to(data, addr);
    });
    let transport = endpoint(&runtime, localhost(), bad);
    let client = client();
    for word in [b"one", b"bad", b"two"] {
        client
            .send_to(word, transport.local_addr())
            .expect("loopback takes it");
    }
    run(&runtime, log.has("data", 3));
    assert_eq!(receive(&client), b"one");
    assert_eq!(receive(&client), b"two");
    let panics = runtime.stats().total(|one| one.callback_panics);
    assert_eq!((panics, log.count("lost")), (1, 0));
    finish_lent(runtime);
}

#[test]
fn udp_11_nothing_is_received_after_close_or_abort_returned() {
    let runtime = lent(1);
    let log = Log::default();
    let client = client();
    for end in [DatagramTransport::close, DatagramTransport::abort] {
        let transport = endpoint(&runtime, localhost(), Recorder::silent(&log));
        run(&runtime, settle());
        client
            .send_to(b"waits", transport.local_addr())
            .expect("loopback takes it");
        end(&transport);
        run(&runtime, settle());
    }
    assert_eq!(log.count("data"), 0, "{:?}", log.lines());
    assert_eq!(log.count("lost None"), 2);
    finish_lent(runtime);
}

#[test]
fn udp_12_r23_a_turn_takes_one_batch_and_answers_it_before_the_next_poll() {
    let runtime = lent(1);
    let log = Log::default();
    let options = EndpointOptions::from(localhost()).batch(4);
    let kept: Rc<RefCell<Vec<usize>>> = Rc::default();
    let sizes = Rc::clone(&kept);
    let echo = Recorder::new(&log, move |transport, data, addr| {
        sizes.borrow_mut().push(transport.write_buffer_size());
        transport.send_to(data, addr);
    });
    let transport = endpoint(&runtime, options, echo);
    let client = client();
    for _ in 0..10 {
        client
            .send_to(b"12", transport.local_addr())
            .expect("loopback takes it");
    }
    client.set_nonblocking(true).expect("a socket");
    run(&runtime, async {
        let mut seen = Vec::new();
        while seen.last() != Some(&10) {
            yield_now().await;
            let received = log.count("data");
            let mut answers = 0;
            while client.recv(&mut [0; 9]).is_ok() {
                answers += 1;
            }
            assert_eq!(transport.write_buffer_size(), 0, "sent within the turn");
            let before = seen.last().copied().unwrap_or(0);
            assert_eq!(answers, received - before, "answered within the turn");
            if received > before {
                seen.push(received);
            }
        }
        assert_eq!(seen, [4, 8, 10], "the loop had its turn between batches");
    });
    let expected = [0, 10, 20, 30];
    assert_eq!(kept.borrow()[..4], expected, "kept until the batch ends");
    finish_lent(runtime);
}

#[test]
fn flow_01_udp_08_marks_are_set_and_checked_as_for_streams() {
    let runtime = lent(1);
    let log = Log::default();
    let transport = endpoint(&runtime, localhost(), Recorder::silent(&log));
    assert_eq!(transport.write_limits(), WriteLimits::default());
    let wrong = WriteLimits { high: 1, low: 2 };
    assert_eq!(transport.set_write_limits(wrong), Err(InvalidLimits(wrong)));
    let right = WriteLimits::low(8);
    assert_eq!(transport.set_write_limits(right), Ok(()));
    assert_eq!(transport.write_limits(), right);
    finish_lent(runtime);
}

#[test]
fn flow_02_a_batch_larger_than_the_high_mark_is_sent_in_parts_and_pauses_nobody() {
    let runtime = lent(1);
    let log = Log::default();
    let amplify = Recorder::new(&log, |transport, data, addr| {
        let answer = vec![data[0]; 30_000];
        (0..10).for_each(|_| transport.send_to(&answer, addr));
        assert!(transport.write_buffer_size() <= WriteLimits::DEFAULT_HIGH);
    });
    let transport = endpoint(&runtime, localhost(), amplify);
    let client = client();
    let mut buf = vec![0; 65_536];
    for number in 0..10 {
        client
            .send_to(&[number], transport.local_addr())
            .expect("loopback takes it");
        run(&runtime, log.has("data", usize::from(number) + 1));
        // The client's own buffer may be too small for all ten: the first is there.
        let len = client.recv(&mut buf).expect("answered");
        assert_eq!((len, buf[0]), (30_000, number));
        client.set_nonblocking(true).expect("a socket");
        while client.recv(&mut buf).is_ok() {}
        client.set_nonblocking(false).expect("a socket");
    }
    assert_eq!((log.count("pause"), log.count("resume")), (0, 0));
    finish_lent(runtime);
}

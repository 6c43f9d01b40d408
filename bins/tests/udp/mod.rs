//! UDP echo of a running daemon: what is answered, what is not, and what it says of it in the end.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{Daemon, LIMIT, pattern};

fn client() -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").expect("a free port exists");
    client.set_read_timeout(Some(LIMIT)).expect("not zero");
    client
}

fn port_of(client: &UdpSocket) -> u16 {
    client.local_addr().expect("it is bound").port()
}

#[track_caller]
fn ask(client: &UdpSocket, address: SocketAddr, question: &[u8]) {
    client
        .send_to(question, address)
        .expect("loopback takes it");
    let mut answer = vec![0; 65_536];
    let (length, from) = client.recv_from(&mut answer).expect("it is answered");
    assert!(&answer[..length] == question, "byte for byte");
    assert_eq!(from, address, "from where it was sent to");
}

/// Nothing has come for this client. Asked when an answer would have come: after one to a later
/// datagram, or after the daemon has ended.
#[track_caller]
fn unanswered(client: &UdpSocket) {
    client.set_nonblocking(true).expect("a socket");
    let error = client.recv(&mut [0; 9]).expect_err("no answer");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

/// Ends the daemon and gives what it says the service did.
fn last_counts(daemon: Daemon) -> String {
    daemon.signal(Signal::TERM);
    let (code, lines) = daemon.wait_for_end();
    assert_eq!(code, Some(0), "{lines:#?}");
    let last = lines.last().expect("the daemon has said something");
    let counts = last.split("udp-echo: ").nth(1);
    counts.expect("the service is in the last line").to_owned()
}

#[test]
fn every_datagram_is_answered_once_byte_for_byte() {
    let daemon = Daemon::start(&[]);
    let address = daemon.address("udp-echo");
    let clients: Vec<UdpSocket> = (0..8).map(|_| client()).collect();
    for size in [0, 1, 64, 1472, 9000, 65_507] {
        for client in &clients {
            ask(client, address, &pattern(size));
        }
    }
    clients.iter().for_each(unanswered);
    assert_eq!(last_counts(daemon), "48 echoed, 0 refused, 0 dropped");
}

#[test]
fn r21_larger_datagrams_than_allowed_are_dropped_and_never_cut() {
    let daemon = Daemon::start(&["service.udp-echo.max_datagram=100"]);
    let address = daemon.address("udp-echo");
    let client = client();
    client
        .send_to(&pattern(101), address)
        .expect("loopback takes it");
    client
        .send_to(&pattern(65_507), address)
        .expect("loopback takes it");
    // Of one sender, so behind the others.
    ask(&client, address, &pattern(100));
    unanswered(&client);
    assert_eq!(last_counts(daemon), "1 echoed, 0 refused, 2 dropped");
}

#[test]
fn r20_refused_sources_get_no_answer() {
    let refused = client();
    let set = format!(
        "service.udp-echo.refuse_source_ports=[{}]",
        port_of(&refused)
    );
    // One loop has one socket: what is answered at last came behind all the others.
    let daemon = Daemon::start(&[&set, "runtime.loops=1"]);
    let address = daemon.address("udp-echo");
    for _ in 0..3 {
        refused.send_to(b"x", address).expect("loopback takes it");
    }
    // The own port, from another address of this machine.
    let twin = UdpSocket::bind(("127.0.0.2", address.port())).expect("the port is free there");
    twin.send_to(b"x", address).expect("loopback takes it");
    ask(&client(), address, b"answered");
    assert_eq!(last_counts(daemon), "1 echoed, 4 refused, 0 dropped");
    unanswered(&refused);
    unanswered(&twin);
}

/// Two daemons and one datagram that seems to come from the other: without the refusal they would
/// answer each other for ever. Without privileges a source cannot be forged; but a socket may stand
/// between them that hands on what each says to the other, as the network would.
#[test]
fn r20_two_daemons_do_not_keep_each_other_busy() {
    let (to_one, to_other) = (client(), client());
    let port = port_of(&to_other);
    let set = format!("service.udp-echo.refuse_source_ports=[{port}]");
    let one = Daemon::start(&[&set]);
    let other = Daemon::start(&[]);
    let (one_at, other_at) = (one.address("udp-echo"), other.address("udp-echo"));
    // The datagram that starts it: to the one, as if the other had sent it, and handed on both ways
    // as long as there is something to hand on.
    to_one.send_to(b"ping", one_at).expect("loopback takes it");
    let mut handed_on = 0;
    let deadline = Instant::now() + Duration::from_millis(300);
    for client in [&to_one, &to_other] {
        let wait = Duration::from_millis(10);
        client.set_read_timeout(Some(wait)).expect("not zero");
    }
    let mut buf = [0; 16];
    while Instant::now() < deadline {
        // What the one answers is said to the other by the socket the one refuses ...
        if let Ok(length) = to_one.recv(&mut buf) {
            to_other
                .send_to(&buf[..length], other_at)
                .expect("loopback takes it");
            handed_on += 1;
        }
        // ... and what the other answers is said to the one from there: refused.
        if let Ok(length) = to_other.recv(&mut buf) {
            to_other
                .send_to(&buf[..length], one_at)
                .expect("loopback takes it");
            handed_on += 1;
        }
    }
    assert_eq!(handed_on, 2, "once there and once back");
    assert_eq!(last_counts(one), "1 echoed, 1 refused, 0 dropped");
    assert_eq!(last_counts(other), "1 echoed, 0 refused, 0 dropped");
}

#[test]
fn an_address_in_use_ends_with_1_and_says_which() {
    let taken = client();
    let address = taken.local_addr().expect("it is bound");
    let set = format!("service.udp-echo.bind={address}");
    let (code, lines) = Daemon::spawn(&[&set]).wait_for_end();
    assert_eq!(code, Some(1));
    let text = lines.join("\n");
    assert!(
        text.contains("cannot start service udp-echo") && text.contains(&address.to_string()),
        "{text}"
    );
}

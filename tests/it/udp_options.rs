//! Row UDP-02: which sockets an endpoint can be opened on, and what their options become.

use std::io;
use std::net::SocketAddr;

use garland::EndpointOptions;

use crate::sockets::{finish_lent, lent};
use crate::support::run;
use crate::udp::{Log, Recorder, addr_of, client, endpoint, localhost, receive, settle};

#[test]
fn udp_02_the_first_usable_combination_of_one_family_is_used() {
    let runtime = lent(1);
    let log = Log::default();
    let taken = client();
    let options = EndpointOptions::new()
        .local(addr_of(&taken))
        .local(localhost());
    let transport = endpoint(&runtime, options, Recorder::silent(&log));
    assert_ne!(transport.local_addr(), addr_of(&taken));
    assert_eq!(transport.peer_addr(), None);

    // An IPv6 remote has no local address of its family, the IPv4 one has.
    let v6 = "[::1]:9".parse().expect("an address");
    let options = EndpointOptions::new()
        .local(localhost())
        .remote(v6)
        .remote(addr_of(&taken));
    let transport = endpoint(&runtime, options, Recorder::silent(&log));
    assert_eq!(transport.peer_addr(), Some(addr_of(&taken)));
    finish_lent(runtime);
}

#[test]
fn udp_02_what_cannot_be_opened_says_why() {
    let runtime = lent(2);
    let local = runtime.local().clone();
    let open = |options: EndpointOptions| {
        let log = Log::default();
        let opened = local.create_datagram_endpoint(options, || Recorder::silent(&log));
        opened.expect_err("not possible")
    };
    let (one, other) = (client(), client());
    let both = EndpointOptions::new()
        .local(addr_of(&one))
        .local(addr_of(&other));
    let first = open(both);
    assert_eq!(first.kind(), io::ErrorKind::AddrInUse);
    assert_eq!(first.addr(), Some(addr_of(&one)), "the first one's error");

    assert_eq!(
        open(EndpointOptions::new()).kind(),
        io::ErrorKind::InvalidInput
    );
    let v6 = "[::1]:9".parse().expect("an address");
    let mixed = EndpointOptions::new().local(localhost()).remote(v6);
    assert!(open(mixed).to_string().contains("family"));

    let given = EndpointOptions::from(client()).local(localhost());
    assert_eq!(open(given).kind(), io::ErrorKind::InvalidInput);
    // MC-10: a fixed peer is for one loop.
    let fixed = EndpointOptions::new().remote(addr_of(&one));
    let row = runtime
        .handle()
        .create_datagram_endpoint(fixed, |_| Recorder::silent(&Log::default()));
    assert_eq!(
        row.expect_err("two loops").kind(),
        io::ErrorKind::InvalidInput
    );
    finish_lent(runtime);
}

#[test]
fn udp_02_a_local_address_alone_is_enough() {
    let runtime = lent(1);
    let log = Log::default();
    let spelled: EndpointOptions = "127.0.0.1:0".parse().expect("an address");
    let paired = EndpointOptions::from(([127, 0, 0, 1], 0));
    for options in [spelled, paired, localhost().into()] {
        let transport = endpoint(&runtime, options, Recorder::silent(&log));
        assert_eq!(transport.local_addr().ip(), localhost().ip());
        assert_ne!(transport.local_addr().port(), 0);
        assert_eq!(transport.peer_addr(), None);
    }
    assert!("localhost:0".parse::<EndpointOptions>().is_err());
    finish_lent(runtime);
}

#[test]
fn udp_02_a_given_socket_is_used_as_it_is() {
    let runtime = lent(1);
    let log = Log::default();
    let (given, client) = (client(), client());
    let seen_from_outside = given.try_clone().expect("a descriptor is free");
    let probing = || {
        let fd = &seen_from_outside;
        let mtu = rustix::net::sockopt::ip_mtu_discover(fd).expect("an IPv4 socket");
        let tos = rustix::net::sockopt::ip_recvtos(fd).expect("an IPv4 socket");
        (format!("{mtu:?}"), tos)
    };
    let before = probing();
    let addr = addr_of(&given);
    let transport = endpoint(&runtime, given, Recorder::echo(&log));
    assert_eq!(transport.local_addr(), addr);
    client.send_to(b"x", addr).expect("loopback takes it");
    run(&runtime, log.has("data", 1));
    assert_eq!(receive(&client), b"x");
    assert_eq!(before, probing(), "fragmentation is as the system has it");
    finish_lent(runtime);
}

#[test]
fn udp_02_ports_are_shared_and_broadcast_allowed_only_if_asked() {
    let runtime = lent(1);
    let log = Log::default();
    let shared = || EndpointOptions::new().reuse_port(true);
    let first = endpoint(
        &runtime,
        shared().local(localhost()),
        Recorder::silent(&log),
    );
    let second = shared().local(first.local_addr());
    endpoint(&runtime, second, Recorder::silent(&log));
    let alone = EndpointOptions::new().local(first.local_addr());
    let refused = runtime
        .local()
        .create_datagram_endpoint(alone, || Recorder::silent(&log));
    assert_eq!(
        refused.expect_err("it would not share").kind(),
        io::ErrorKind::AddrInUse
    );

    let broadcast = SocketAddr::from(([127, 255, 255, 255], 9));
    let mute = endpoint(&runtime, localhost(), Recorder::silent(&log));
    mute.send_to(b"x", broadcast);
    run(&runtime, log.has("error PermissionDenied", 1));
    let allowed = EndpointOptions::from(localhost()).allow_broadcast(true);
    endpoint(&runtime, allowed, Recorder::silent(&log)).send_to(b"x", broadcast);
    run(&runtime, settle());
    assert_eq!(log.count("error"), 1, "{:?}", log.lines());
    finish_lent(runtime);
}

//! Datagrams on several loops, and the sockets of tasks.
//!
//! What one endpoint does is in `udp`; here it is where datagrams go, what closing a service does,
//! and what a future that is dropped leaves behind.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use futures_lite::future::or;
use garland::{
    BackgroundRuntime, DatagramProtocol, DatagramTransport, EndpointOptions, Server, UdpSocket,
    timeout, yield_now,
};

use crate::sockets::{LIMIT, background, finish, finish_lent, lent};
use crate::support::run;
use crate::udp::{addr_of, client, localhost, receive};

/// Which thread heard whom say what.
type Heard = Arc<Mutex<Vec<(ThreadId, SocketAddr, Vec<u8>)>>>;

struct Echo(Heard);

impl DatagramProtocol for Echo {
    fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], addr: SocketAddr) {
        let here = (thread::current().id(), addr, data.to_vec());
        self.0.lock().expect("nobody panicked").push(here);
        transport.send_to(data, addr);
    }
}

fn serve(runtime: &BackgroundRuntime) -> (Server, Heard) {
    let heard = Heard::default();
    let for_loops = Arc::clone(&heard);
    let server = runtime
        .handle()
        .create_datagram_endpoint(localhost(), move |_| Echo(Arc::clone(&for_loops)))
        .expect("loopback has a free port");
    (server, heard)
}

#[test]
fn mc_10_one_sender_is_heard_by_one_loop_and_in_order() {
    for loops in [1, 2, 4] {
        let runtime = background(loops);
        let (server, heard) = serve(&runtime);
        assert_eq!(server.stats().listeners, loops as u64);
        let clients: Vec<StdSocket> = (0..32).map(|_| client()).collect();
        for round in 0..50_u8 {
            for client in &clients {
                client
                    .send_to(&[round], server.local_addr())
                    .expect("loopback takes it");
            }
            for client in &clients {
                assert_eq!(receive(client), [round]);
            }
        }
        let mut flows: HashMap<SocketAddr, (ThreadId, Vec<u8>)> = HashMap::new();
        for (thread, addr, data) in heard.lock().expect("nobody panicked").iter() {
            let flow = flows.entry(*addr).or_insert((*thread, Vec::new()));
            assert_eq!(flow.0, *thread, "a flow stays on its loop");
            flow.1.extend(data);
        }
        assert_eq!(flows.len(), clients.len());
        let in_order: Vec<u8> = (0..50).collect();
        assert!(flows.values().all(|(_, rounds)| *rounds == in_order));
        let used: std::collections::HashSet<_> = flows.values().map(|flow| flow.0).collect();
        assert!(loops == 1 || used.len() > 1, "32 flows are spread");
        server.close();
        finish(runtime);
    }
}

#[test]
fn udp_09_closing_a_service_ends_every_endpoint_and_frees_the_port() {
    for loops in [1, 2, 4] {
        let runtime = background(loops);
        let (server, _heard) = serve(&runtime);
        let addr = server.local_addr();
        assert!(StdSocket::bind(addr).is_err(), "nobody may join");
        let client = client();
        client.send_to(b"x", addr).expect("loopback takes it");
        assert_eq!(receive(&client), b"x");
        server.close();
        assert!(server.wait_idle(LIMIT), "{:?}", server.stats());
        assert_eq!(server.stats().listeners, 0);
        StdSocket::bind(addr).expect("the port is free");
        server.close();
        finish(runtime);
    }
}

#[test]
fn mc_19_a_service_ends_with_its_runtime() {
    for loops in [1, 2, 4] {
        let runtime = background(loops);
        let (server, _heard) = serve(&runtime);
        let client = client();
        for _ in 0..100 {
            client
                .send_to(b"x", server.local_addr())
                .expect("loopback takes it");
        }
        finish(runtime);
        assert!(server.wait_idle(LIMIT), "{:?}", server.stats());
        server.close();
    }
}

#[test]
fn udp_12_i3_every_datagram_of_a_burst_is_answered() {
    for loops in [1, 2, 4] {
        let runtime = background(loops);
        let (server, _heard) = serve(&runtime);
        let client = client();
        // A window that fits any default buffer, larger than two batches.
        let window = 80;
        for round in 0..100_u8 {
            for number in 0..window {
                client
                    .send_to(&[round, number], server.local_addr())
                    .expect("loopback takes it");
            }
            for number in 0..window {
                assert_eq!(receive(&client), [round, number], "{loops} loops");
            }
        }
        server.close();
        finish(runtime);
    }
}

#[test]
fn tasks_send_and_receive_datagrams_wherever_they_run() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        run(&runtime, async {
            let server = UdpSocket::bind(localhost()).expect("a free port exists");
            let addr = server.local_addr().expect("bound");
            let echo = garland::spawn(async move {
                let mut buf = vec![0; 65_536];
                loop {
                    let (len, from) = server.recv_from(&mut buf).await?;
                    server.send_to(&buf[..len], from).await?;
                    if len == 4 && &buf[..4] == b"stop" {
                        return Ok::<(), std::io::Error>(());
                    }
                }
            });
            let clients = (0..8_u8).map(|id| {
                garland::spawn(async move {
                    let socket = UdpSocket::connect(addr).expect("a free port exists");
                    assert_eq!(socket.peer_addr().expect("fixed"), addr);
                    for round in 0..200_u8 {
                        let sent = vec![id; usize::from(round)];
                        socket.send(&sent).await.expect("somebody is there");
                        let mut buf = [0; 256];
                        let len = socket.recv(&mut buf).await.expect("it answers");
                        assert_eq!(buf[..len], sent);
                    }
                })
            });
            for client in clients.collect::<Vec<_>>() {
                client.await.expect("it did not panic");
            }
            let last = UdpSocket::connect(addr).expect("a free port exists");
            last.send(b"stop").await.expect("somebody is there");
            echo.await.expect("no panic").expect("no error");
        });
        finish_lent(runtime);
    }
}

#[test]
fn a_dropped_receive_loses_no_datagram() {
    let runtime = lent(1);
    run(&runtime, async {
        let socket = UdpSocket::bind(localhost()).expect("a free port exists");
        let addr = socket.local_addr().expect("bound");
        let client = client();
        let mut buf = [0; 16];
        for _ in 0..50 {
            // The datagram comes while the future waits, and the future is dropped before it is
            // polled again.
            let gives_up = async {
                yield_now().await;
                client.send_to(b"kept", addr).expect("loopback takes it");
                None
            };
            let receives = async { Some(socket.recv_from(&mut buf).await) };
            assert!(or(receives, gives_up).await.is_none());
            let mut buf = [0; 16];
            let peeked = socket.peek_from(&mut buf).await.expect("it is there");
            let received = socket.recv_from(&mut buf).await.expect("it is there");
            assert_eq!(peeked, received);
            assert_eq!(
                (&buf[..received.0], received.1),
                (&b"kept"[..], addr_of(&client))
            );
        }
        let nothing = timeout(Duration::from_millis(1), socket.recv(&mut buf)).await;
        assert!(nothing.is_err(), "each came once");
    });
    finish_lent(runtime);
}

#[test]
fn r23_a_task_that_never_finds_its_socket_empty_lets_others_run() {
    let runtime = lent(1);
    run(&runtime, async {
        let socket = UdpSocket::bind(localhost()).expect("a free port exists");
        let addr = socket.local_addr().expect("bound");
        // It keeps itself busy: each datagram it receives is sent to itself again.
        socket.send_to(b"for ever", addr).await.expect("sent");
        let hog = garland::spawn(async move {
            let mut buf = [0; 16];
            loop {
                let (len, from) = socket.recv_from(&mut buf).await.expect("it is there");
                socket.send_to(&buf[..len], from).await.expect("sent");
            }
        });
        for _ in 0..100 {
            yield_now().await;
        }
        hog.cancel();
        assert!(hog.await.is_err(), "it ended because it was cancelled");
    });
    finish_lent(runtime);
}

#[test]
fn udp_03_udp_05_empty_and_cut_datagrams_are_whole_calls() {
    let runtime = lent(1);
    run(&runtime, async {
        let socket = UdpSocket::bind(localhost()).expect("a free port exists");
        let peer = client();
        let to = addr_of(&peer);
        assert_eq!(socket.send_to(b"", to).await.expect("sent"), 0);
        assert_eq!(receive(&peer), b"");
        let addr = socket.local_addr().expect("bound");
        peer.send_to(b"much too long", addr).expect("sent");
        peer.send_to(b"", addr).expect("sent");
        let mut buf = [0; 4];
        let (len, from) = socket.recv_from(&mut buf).await.expect("it is there");
        assert_eq!((&buf[..len], from), (&b"much"[..], to));
        assert_eq!(socket.recv(&mut buf).await.expect("the next one"), 0);
    });
    finish_lent(runtime);
}

#[test]
fn udp_06_a_task_hears_of_a_peer_that_is_not_there_and_goes_on() {
    let runtime = lent(1);
    run(&runtime, async {
        let gone = client();
        let addr = addr_of(&gone);
        drop(gone);
        let socket = UdpSocket::connect(addr).expect("a free port exists");
        socket.send(b"anybody").await.expect("not known yet");
        let mut buf = [0; 16];
        let refused = socket.recv(&mut buf).await.expect_err("nobody");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        let here = StdSocket::bind(addr).expect("the port is free again");
        socket.send(b"somebody").await.expect("there is");
        here.set_read_timeout(Some(LIMIT)).expect("not zero");
        assert_eq!(receive(&here), b"somebody");
        here.send_to(b"yes", socket.local_addr().expect("bound"))
            .expect("sent");
        assert_eq!(socket.recv(&mut buf).await.expect("an answer"), 3);
    });
    finish_lent(runtime);
}

#[test]
fn udp_02_a_task_opens_sockets_by_the_same_options() {
    let runtime = lent(1);
    run(&runtime, async {
        let shared = || EndpointOptions::new().reuse_port(true);
        let one = UdpSocket::open(shared().local(localhost())).expect("a free port exists");
        let addr = one.local_addr().expect("bound");
        UdpSocket::open(shared().local(addr)).expect("shared");
        assert!(UdpSocket::bind(addr).is_err(), "it would not share");
        one.set_broadcast(true).expect("a socket");
        let broadcast = SocketAddr::from(([127, 255, 255, 255], 9));
        one.send_to(b"x", broadcast).await.expect("allowed");
        assert!(one.peer_addr().is_err());
        assert!(one.take_error().expect("a socket").is_none());
    });
    finish_lent(runtime);
}

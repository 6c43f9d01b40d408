//! Sockets that garland did not make: each call waits by itself, and a cancelled one leaves the next
//! alone.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use garland::{Runtime, sock_accept, sock_connect, sock_recv, sock_recv_into, sock_recvfrom};
use garland::{sock_recvfrom_into, sock_sendall, sock_sendto};
use socket2::{Domain, SockRef, Socket, Type};

use crate::sockets::refusing_addr;
use crate::support::{LIMIT, end, lent, run, wait_until};

/// A connected pair: ours does not block, theirs is bounded.
fn pair() -> (Arc<UnixStream>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("descriptors are free");
    ours.set_nonblocking(true).expect("a socket");
    theirs.set_read_timeout(Some(LIMIT)).expect("not zero");
    theirs.set_write_timeout(Some(LIMIT)).expect("not zero");
    (Arc::new(ours), theirs)
}

fn non_blocking_tcp() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor is free");
    socket.set_nonblocking(true).expect("a socket");
    socket
}

/// Listens on loopback, without blocking, with room for this many beside the first.
fn listener(backlog: i32) -> (Socket, SocketAddr) {
    let listener = non_blocking_tcp();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    listener.bind(&any.into()).expect("a free port exists");
    listener.listen(backlog).expect("it is bound");
    let addr = listener.local_addr().expect("it is bound");
    (listener, addr.as_socket().expect("it is IPv4"))
}

/// Waits until this many calls wait for a socket.
async fn waiting(runtime: &Runtime, calls: u64) {
    let begun = std::time::Instant::now();
    let registered = || runtime.stats().total(|one| one.sockets_registered);
    while registered() != calls {
        assert!(
            begun.elapsed() < LIMIT,
            "{} wait, not {calls}",
            registered()
        );
        garland::yield_now().await;
    }
}

#[test]
fn sock_01_a_receive_tries_at_once() {
    let (ours, mut theirs) = pair();
    theirs.write_all(b"here already").expect("there is room");
    // Without a loop: it could not wait.
    let got = futures_lite::future::block_on(sock_recv(&ours, 4));
    assert_eq!(got.expect("connected"), b"here");
    let mut buf = [0; 20];
    let got = futures_lite::future::block_on(sock_recv_into(&ours, &mut buf));
    assert_eq!(got.expect("connected"), 8);
    assert_eq!(&buf[..8], b" already");
}

#[test]
fn sock_01_a_receive_waits_and_the_end_is_no_bytes() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (ours, mut theirs) = pair();
        run(&runtime, async {
            let socket = Arc::clone(&ours);
            let receive = garland::spawn(async move { sock_recv(&socket, 100).await });
            waiting(&runtime, 1).await;
            theirs.write_all(b"late").expect("there is room");
            let got = receive.await.expect("did not panic");
            assert_eq!(got.expect("connected"), b"late");
            let socket = Arc::clone(&ours);
            let receive = garland::spawn(async move {
                let mut buf = [0; 10];
                sock_recv_into(&socket, &mut buf).await
            });
            waiting(&runtime, 1).await;
            drop(theirs);
            let got = receive.await.expect("did not panic");
            assert_eq!(got.expect("an orderly end"), 0);
        });
        end(runtime);
    }
}

#[test]
fn sock_01_sock_02_datagrams_go_out_and_come_in_with_their_sender() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let bound = || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port exists");
            socket.set_nonblocking(true).expect("a socket");
            let addr = socket.local_addr().expect("it is bound");
            (Arc::new(socket), addr)
        };
        let ((left, left_addr), (right, right_addr)) = (bound(), bound());
        run(&runtime, async {
            let socket = Arc::clone(&right);
            let receive = garland::spawn(async move { sock_recvfrom(&socket, 100).await });
            waiting(&runtime, 1).await;
            let sent = sock_sendto(&left, b"one datagram", right_addr).await;
            assert_eq!(sent.expect("loopback"), 12);
            let (data, from) = receive.await.expect("did not panic").expect("it came");
            assert_eq!(
                (data.as_slice(), from),
                (&b"one datagram"[..], Some(left_addr))
            );
            let sent = sock_sendto(&right, b"", left_addr).await;
            assert_eq!(sent.expect("an empty one"), 0);
            let mut buf = [7; 4];
            let got = sock_recvfrom_into(&left, &mut buf).await;
            assert_eq!(got.expect("it came"), (0, Some(right_addr)));
        });
        end(runtime);
    }
}

#[test]
fn sock_02_sendall_sends_more_than_the_kernel_takes_at_once() {
    const BYTES: usize = 3_000_000;
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (ours, mut theirs) = pair();
        let data: Vec<u8> = (0..BYTES).map(|n| (n % 251) as u8).collect();
        let expected = data.clone();
        let reader = thread::spawn(move || {
            let mut got = vec![0; BYTES];
            theirs.read_exact(&mut got).expect("all of it comes");
            assert!(got == expected, "in order, and nothing else");
        });
        let sent = run(&runtime, async {
            let send = garland::spawn(async move { sock_sendall(&ours, &data).await });
            send.await.expect("did not panic")
        });
        sent.expect("the peer reads");
        reader.join().expect("it got what was sent");
        end(runtime);
    }
}

#[test]
fn sock_02_sending_to_a_peer_that_is_gone_is_an_error() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (ours, theirs) = pair();
        run(&runtime, async {
            let socket = Arc::clone(&ours);
            let data = vec![0; 10_000_000];
            let send = garland::spawn(async move { sock_sendall(&socket, &data).await });
            waiting(&runtime, 1).await;
            drop(theirs);
            let sent = send.await.expect("did not panic");
            let error = sent.expect_err("nobody is there");
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        });
        end(runtime);
    }
}

#[test]
fn sock_03_sock_04_connect_and_accept_meet() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (listener, addr) = listener(10);
        run(&runtime, async {
            let accept = garland::spawn(async move { sock_accept(&listener).await });
            waiting(&runtime, 1).await;
            let client = non_blocking_tcp();
            sock_connect(&client, addr).await.expect("it listens");
            let (accepted, peer) = accept
                .await
                .expect("did not panic")
                .expect("it was connected");
            let local = client.local_addr().expect("it is connected");
            assert_eq!(peer, local.as_socket());
            assert!(SockRef::from(&accepted).nonblocking().expect("a socket"));
            sock_sendall(&client, b"?").await.expect("connected");
            assert_eq!(sock_recv(&accepted, 9).await.expect("connected"), b"?");
        });
        end(runtime);
    }
}

#[test]
fn sock_03_a_refused_connection_is_an_error() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (addr, _holds_the_port) = refusing_addr();
        let client = non_blocking_tcp();
        let refused = run(&runtime, sock_connect(&client, addr));
        let error = refused.expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        end(runtime);
    }
}

/// A listener whose queue is full lets the next one wait: its connection is in progress.
async fn in_progress(runtime: &Runtime) -> (Socket, Vec<Socket>, Arc<Socket>, SocketAddr) {
    let (listener, addr) = listener(0);
    let mut inside = Vec::new();
    loop {
        let client = Arc::new(non_blocking_tcp());
        let socket = Arc::clone(&client);
        let connect = garland::spawn(async move { sock_connect(&socket, addr).await });
        let in_time = std::time::Duration::from_millis(100);
        if garland::timeout(in_time, connect).await.is_err() {
            // Its awaiter was dropped, which detaches the task: it still waits.
            waiting(runtime, 1).await;
            return (listener, inside, client, addr);
        }
        inside.push(Arc::into_inner(client).expect("the task is over"));
        assert!(inside.len() < 100, "the queue of a listener has a bound");
    }
}

#[test]
fn sock_03_a_connection_in_progress_is_waited_for() {
    let runtime = lent(2);
    run(&runtime, async {
        let (listener, inside, client, addr) = in_progress(&runtime).await;
        // The first call still waits; this one waits for the same connection.
        let second = garland::spawn(async move {
            sock_connect(&client, addr).await?;
            client.peer_addr()
        });
        waiting(&runtime, 2).await;
        for _ in 0..=inside.len() {
            sock_accept(&listener).await.expect("somebody waits");
        }
        let peer = second
            .await
            .expect("did not panic")
            .expect("there is room now");
        assert_eq!(peer.as_socket(), Some(addr));
        waiting(&runtime, 0).await;
    });
    end(runtime);
}

#[test]
fn sock_05_racing_a_connect_after_a_cancelled_one_works() {
    for loops in [1, 2] {
        let runtime = lent(loops);
        run(&runtime, async {
            let (listener, addr) = listener(0);
            let mut inside = Vec::new();
            // Fill the queue, until a call has to wait; dropping it is the cancellation.
            let client = loop {
                let client = non_blocking_tcp();
                let in_time = std::time::Duration::from_millis(100);
                let connected = garland::timeout(in_time, sock_connect(&client, addr)).await;
                if connected.is_err() {
                    break client;
                }
                inside.push(client);
            };
            waiting(&runtime, 0).await;
            let again = garland::spawn(async move {
                sock_connect(&client, addr).await?;
                client.peer_addr()
            });
            waiting(&runtime, 1).await;
            for _ in 0..=inside.len() {
                sock_accept(&listener).await.expect("somebody waits");
            }
            let peer = again
                .await
                .expect("did not panic")
                .expect("there is room now");
            assert_eq!(peer.as_socket(), Some(addr));
        });
        end(runtime);
    }
}

#[test]
fn sock_05_racing_a_receive_after_a_cancelled_one_works() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (ours, mut theirs) = pair();
        run(&runtime, async {
            for round in 0..20_u8 {
                let start = |socket: Arc<UnixStream>| {
                    garland::spawn(async move { sock_recv(&socket, 100).await })
                };
                let old = start(Arc::clone(&ours));
                waiting(&runtime, 1).await;
                // The new one begins before, or after, the old one is gone.
                let new = if round % 2 == 0 {
                    let new = start(Arc::clone(&ours));
                    waiting(&runtime, 2).await;
                    assert!(old.cancel());
                    new
                } else {
                    assert!(old.cancel());
                    start(Arc::clone(&ours))
                };
                assert!(old.await.expect_err("cancelled").is_cancelled());
                waiting(&runtime, 1).await;
                theirs.write_all(&[round]).expect("there is room");
                let got = new.await.expect("did not panic");
                assert_eq!(got.expect("connected"), [round]);
            }
        });
        end(runtime);
    }
}

#[test]
fn sock_05_racing_a_send_after_a_cancelled_one_works() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (ours, mut theirs) = pair();
        run(&runtime, async {
            let socket = Arc::clone(&ours);
            let data = vec![b'o'; 10_000_000];
            let old = garland::spawn(async move { sock_sendall(&socket, &data).await });
            waiting(&runtime, 1).await;
            let socket = Arc::clone(&ours);
            let new = garland::spawn(async move { sock_sendall(&socket, b"new").await });
            waiting(&runtime, 2).await;
            assert!(old.cancel());
            assert!(old.await.expect_err("cancelled").is_cancelled());
            let reader = thread::spawn(move || {
                let mut all = Vec::new();
                theirs.read_to_end(&mut all).expect("it ends");
                all
            });
            new.await.expect("did not panic").expect("there is room");
            drop(ours);
            let got = reader.join().expect("it only reads");
            // A part of the old one went out before it was cancelled; then all of the new one.
            let (old, new) = got.split_at(got.len() - 3);
            assert!(!old.is_empty() && old.iter().all(|byte| *byte == b'o'));
            assert_eq!(new, b"new");
        });
        end(runtime);
    }
}

#[test]
fn sock_05_racing_an_accept_after_a_cancelled_one_works() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (listener, addr) = listener(10);
        let listener = Arc::new(listener);
        run(&runtime, async {
            let socket = Arc::clone(&listener);
            let old = garland::spawn(async move { sock_accept(&socket).await.map(drop) });
            waiting(&runtime, 1).await;
            assert!(old.cancel());
            let socket = Arc::clone(&listener);
            let new =
                garland::spawn(async move { sock_accept(&socket).await.map(|(_, peer)| peer) });
            assert!(old.await.expect_err("cancelled").is_cancelled());
            waiting(&runtime, 1).await;
            let client = non_blocking_tcp();
            sock_connect(&client, addr).await.expect("it listens");
            let peer = new.await.expect("did not panic").expect("it was connected");
            let local = client.local_addr().expect("it is connected");
            assert_eq!(peer, local.as_socket());
        });
        end(runtime);
    }
}

#[test]
fn sock_05_the_two_directions_of_a_socket_do_not_touch() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (ours, mut theirs) = pair();
        run(&runtime, async {
            let socket = Arc::clone(&ours);
            let receive = garland::spawn(async move { sock_recv(&socket, 1).await });
            waiting(&runtime, 1).await;
            let socket = Arc::clone(&ours);
            let data = vec![1; 1_000_000];
            let send = garland::spawn(async move { sock_sendall(&socket, &data).await });
            waiting(&runtime, 2).await;
            assert!(receive.cancel());
            assert!(receive.await.expect_err("cancelled").is_cancelled());
            let reader = thread::spawn(move || {
                let mut all = vec![0; 1_000_000];
                theirs.read_exact(&mut all).expect("all of it comes");
                theirs
            });
            send.await.expect("did not panic").expect("the peer reads");
            drop(reader.join().expect("it only reads"));
        });
        end(runtime);
    }
}

#[test]
fn sock_05_a_cancelled_call_leaves_no_watch_behind() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (ours, _theirs) = pair();
        run(&runtime, async {
            let socket = Arc::clone(&ours);
            let receive = garland::spawn(async move { sock_recv(&socket, 1).await });
            waiting(&runtime, 1).await;
            assert!(receive.cancel());
            assert!(receive.await.expect_err("cancelled").is_cancelled());
        });
        let registered = || runtime.stats().total(|one| one.sockets_registered);
        assert_eq!(registered(), 0);
        assert_eq!(Arc::strong_count(&ours), 1);
        end(runtime);
    }
}

#[test]
fn sock_06_what_a_cancelled_receive_has_not_read_stays_in_the_socket() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (ours, mut theirs) = pair();
        run(&runtime, async {
            for _ in 0..50 {
                let mut receive = Box::pin(sock_recv(&ours, 100));
                let early = futures_lite::future::poll_once(&mut receive).await;
                assert!(early.is_none(), "there is nothing yet");
                theirs.write_all(b"kept").expect("there is room");
                garland::yield_now().await;
                drop(receive);
                let got = sock_recv(&ours, 100).await;
                assert_eq!(got.expect("connected"), b"kept");
            }
        });
        end(runtime);
    }
}

#[test]
fn dbg_05_a_socket_that_blocks_is_refused() {
    let runtime = lent(1);
    let (left, _right) = UnixStream::pair().expect("descriptors are free");
    let to = SocketAddr::from(([127, 0, 0, 1], 9));
    run(&runtime, async {
        let errors = [
            sock_recv(&left, 1).await.map(drop),
            sock_recv_into(&left, &mut [0]).await.map(drop),
            sock_recvfrom(&left, 1).await.map(drop),
            sock_recvfrom_into(&left, &mut [0]).await.map(drop),
            sock_sendall(&left, b"!").await,
            sock_sendto(&left, b"!", to).await.map(drop),
            sock_connect(&left, to).await,
            sock_accept(&left).await.map(drop),
        ];
        for error in errors {
            let error = error.expect_err("it blocks");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    });
    end(runtime);
}

#[test]
fn mc_06_a_socket_is_waited_for_across_loops() {
    for loops in [2, 4] {
        let runtime = lent(loops);
        let handle = runtime.handle().clone();
        run(&runtime, async {
            let mut tasks = Vec::new();
            for _ in 0..20 {
                let (ours, mut theirs) = pair();
                let echo = garland::spawn(async move {
                    for _ in 0..20 {
                        let got = sock_recv(&ours, 100).await.expect("connected");
                        sock_sendall(&ours, &got).await.expect("connected");
                    }
                });
                let client = garland::run_in_executor(move || {
                    let mut buf = [0; 3];
                    for _ in 0..20 {
                        theirs.write_all(b"abc").expect("connected");
                        theirs.read_exact(&mut buf).expect("it is echoed");
                    }
                });
                tasks.push((echo, client));
            }
            for (echo, client) in tasks {
                client.await.expect("it is answered");
                echo.await.expect("did not panic");
            }
        });
        let is_quiet = || handle.stats().total(|one| one.sockets_registered) == 0;
        wait_until("no call waits", &handle, is_quiet);
        end(runtime);
    }
}

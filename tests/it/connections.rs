//! Rows CONN: outgoing connections, and sockets that somebody else has connected.
//!
//! The other end is a plain socket of `std::net`.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use garland::{
    AfterEof, ConnectOptions, ListenOptions, LocalLoop, LoopHandle, NetError, Protocol, TcpStream,
    Transport, timeout,
};
use rustix::net::sockopt;

use crate::sockets::{
    Echo, LIMIT, Log, Recorder, any_port, connect, echo_once, eventually, raw_listener,
    read_exactly, refusing_addr, until,
};
use crate::support::{background, end, end_background, lent, run};

/// With one loop, two and four.
fn each(test: impl AsyncFn(&LocalLoop)) {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        run(&runtime, test(runtime.local()));
        end(runtime);
    }
}

fn recorder(log: &Log) -> Recorder {
    Recorder {
        log: log.clone(),
        reaction: Rc::new(|_, _| {}),
        after_eof: AfterEof::Close,
    }
}

fn sockets_registered() -> u64 {
    let stats = LoopHandle::current().expect("on a loop").stats();
    stats.total(|one| one.sockets_registered)
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// An address that answers neither yes nor no: the queue of its listener is full. Who holds the
/// listener and the client in its queue may let one in.
fn silent_addr() -> (SocketAddr, socket2::Socket, Vec<socket2::Socket>) {
    let stream = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let listener = stream().expect("a descriptor is free");
    listener
        .bind(&loopback(0).into())
        .expect("a free port exists");
    listener.listen(0).expect("it is bound");
    let addr = listener.local_addr().expect("it is bound");
    let mut queued = Vec::new();
    // One for the queue; whether there is room for a second is the kernel's affair.
    loop {
        let client = stream().expect("a descriptor is free");
        let connected = client.connect_timeout(&addr, Duration::from_millis(100));
        queued.push(client);
        if connected.is_err() {
            let addr = addr.as_socket().expect("it is IPv4");
            return (addr, listener, queued);
        }
    }
}

#[test]
fn conn_02_names_are_looked_up_without_blocking_the_loop() {
    each(async |_local| {
        let (listener, addr) = raw_listener();
        let port = addr.port();
        let by_name: [ConnectOptions; 4] = [
            ("localhost", port).into(),
            format!("localhost:{port}").into(),
            format!("127.0.0.1:{port}").as_str().into(),
            ("127.0.0.1".to_owned(), port).into(),
        ];
        for to in by_name {
            let stream = TcpStream::connect(to).await.expect("it listens");
            assert_eq!(stream.peer_addr().expect("connected"), addr);
            drop(listener.accept().expect("it is waiting"));
        }
        for (bad, hint) in [
            ("localhost", "neither an address nor a host and a port"),
            ("localhost:http", "neither an address nor a host and a port"),
            ("does-not-exist.invalid:80", "does-not-exist.invalid"),
        ] {
            let error = TcpStream::connect(bad).await.expect_err("no such address");
            assert!(error.to_string().contains(hint), "{error}");
            assert!(error.to_string().contains(bad), "{error}");
        }
    });
}

#[test]
fn conn_03_several_failures_are_one_error_that_lists_them_in_order() {
    each(async |local| {
        let (first, _held) = refusing_addr();
        let (second, _held_too) = refusing_addr();
        let connecting = local.create_connection(vec![first, second, first], || Echo);
        let error = connecting.await.expect_err("nobody listens");
        let tried: Vec<_> = error.attempts().iter().map(NetError::addr).collect();
        assert_eq!(tried, [Some(first), Some(second), Some(first)]);
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(error.addr(), None, "none of them alone");

        let same = TcpStream::connect(vec![first, first]).await;
        let error = same.expect_err("nobody listens");
        assert_eq!(error.addr(), Some(first), "the same text: the first one");
        assert!(error.attempts().is_empty());
    });
}

#[test]
fn conn_04_the_local_address_is_bound_if_its_family_is_that_of_the_target() {
    each(async |_local| {
        let (listener, addr) = raw_listener();
        let from = SocketAddr::from(([127, 0, 0, 7], 0));
        let ipv6: SocketAddr = "[::1]:0".parse().expect("an address");
        let to = ConnectOptions::from(addr).local_addr(ipv6).local_addr(from);
        let stream = TcpStream::connect(to).await.expect("it listens");
        let (_peer, client) = listener.accept().expect("it is waiting");
        assert_eq!(client.ip(), from.ip());
        assert_eq!(stream.local_addr().expect("connected"), client);

        let to = ConnectOptions::from(addr).local_addr(ipv6);
        let error = TcpStream::connect(to).await.expect_err("no IPv4 address");
        assert_eq!(error.addr(), Some(addr));
        assert!(error.to_string().contains("no local address of its family"));
    });
}

#[test]
fn conn_04_a_local_address_that_cannot_be_bound_is_named_and_the_next_is_tried() {
    each(async |_local| {
        let (listener, addr) = raw_listener();
        let (taken, _held) = refusing_addr();
        let to = ConnectOptions::from(addr).local_addr(taken);
        let error = TcpStream::connect(to).await.expect_err("it is taken");
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert_eq!(error.addr(), Some(taken));
        assert_eq!(sockets_registered(), 0);

        let free = SocketAddr::from(([127, 0, 0, 9], 0));
        let to = ConnectOptions::from(addr)
            .local_addr(taken)
            .local_addr(free);
        let stream = TcpStream::connect(to).await.expect("the second is free");
        assert_eq!(stream.local_addr().expect("connected").ip(), free.ip());
        drop(listener);
    });
}

#[test]
fn conn_05_a_socket_may_be_given_and_becomes_non_blocking() {
    each(async |local| {
        let (listener, addr) = raw_listener();
        let given = std::net::TcpStream::connect(addr).expect("it listens");
        let (mut peer, _) = listener.accept().expect("it is waiting");
        let log = Log::default();
        let connecting = local.create_connection(given, || recorder(&log));
        let transport = connecting.await.expect("it is connected");
        assert_eq!(log.lines(), ["made"]);
        assert_eq!(transport.peer_addr(), Some(addr));
        let flags = transport.with_fd(|fd| rustix::fs::fcntl_getfl(fd).expect("it is open"));
        let flags = flags.expect("not lost");
        assert!(flags.contains(rustix::fs::OFlags::NONBLOCK));
        peer.write_all(b"hello").expect("connected");
        until("data", || log.has("data 5")).await;
        transport.close();
        until("the end", || log.is_lost()).await;

        // For tasks too; and a Unix socket is a stream as well, for a protocol.
        let given = std::net::TcpStream::connect(addr).expect("it listens");
        let stream = TcpStream::connect(given).await.expect("it is connected");
        assert_eq!(stream.peer_addr().expect("connected"), addr);
        let (one, _other) = std::os::unix::net::UnixStream::pair().expect("descriptors");
        let unix = ConnectOptions::socket(one);
        let transport = local
            .create_connection(unix, || Echo)
            .await
            .expect("a stream");
        assert_eq!(transport.peer_addr(), None);
        transport.abort();
        drop(stream);
    });
}

#[test]
fn conn_05_a_socket_given_must_be_a_connected_stream() {
    each(async |local| {
        let datagram = UdpSocket::bind("127.0.0.1:0").expect("a free port exists");
        let (_addr, unconnected) = refusing_addr();
        let bad: [(OwnedFd, &str); 2] = [
            (datagram.into(), "a stream socket is needed"),
            (unconnected.into(), "not connected"),
        ];
        for (socket, hint) in bad {
            let twin = socket.try_clone().expect("a descriptor is free");
            let never = || -> Echo { unreachable!("it is no stream") };
            let error = local
                .create_connection(ConnectOptions::socket(socket), never)
                .await;
            let error = error.expect_err(hint).to_string();
            assert!(error.contains(hint), "{error}");
            let error = local.connect_accepted_socket(twin, never).await;
            let error = error.expect_err(hint).to_string();
            assert!(error.contains(hint), "{error}");
        }
        // Neither an address nor a socket.
        let none = TcpStream::connect(Vec::new())
            .await
            .expect_err("no address");
        assert_eq!(none.kind(), ErrorKind::InvalidInput);
        let (unix, _other) = std::os::unix::net::UnixStream::pair().expect("descriptors");
        let wrong = TcpStream::connect(ConnectOptions::socket(unix)).await;
        let error = wrong.expect_err("not TCP").to_string();
        assert!(error.contains("not a TCP socket"), "{error}");
    });
}

/// What a protocol finds on its socket.
struct Options(std::sync::mpsc::Sender<(bool, bool)>);

impl Protocol for Options {
    fn connection_made(&mut self, transport: &Transport) {
        let found = transport.with_fd(|fd| {
            let nodelay = sockopt::tcp_nodelay(fd).expect("a TCP socket");
            let keep_alive = sockopt::socket_keepalive(fd).expect("a socket");
            (nodelay, keep_alive)
        });
        self.0
            .send(found.expect("not lost"))
            .expect("the test waits");
    }

    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}
}

#[test]
fn conn_07_nodelay_is_set_on_every_tcp_transport() {
    each(async |local| {
        let (listener, addr) = raw_listener();
        let (send, found) = std::sync::mpsc::channel();
        let connecting = local.create_connection(addr, || Options(send.clone()));
        let outgoing = connecting.await.expect("it listens");
        let (accepted, _) = listener.accept().expect("it is waiting");
        let accepting = local.connect_accepted_socket(accepted, || Options(send.clone()));
        let incoming = accepting.await.expect("it is connected");
        let given = std::net::TcpStream::connect(addr).expect("it listens");
        let given = local
            .create_connection(given, || Options(send.clone()))
            .await;
        let given = given.expect("it is connected");
        let nodelay: Vec<bool> = found.try_iter().map(|(nodelay, _)| nodelay).collect();
        assert_eq!(nodelay, [true; 3]);
        [outgoing, incoming, given]
            .iter()
            .for_each(Transport::abort);
    });
}

#[test]
fn conn_07_srv_08_what_is_accepted_has_nodelay_and_keep_alive_as_asked() {
    let plain: fn(ListenOptions) -> ListenOptions = |listen| listen;
    let unusual: fn(ListenOptions) -> ListenOptions = |l| l.nodelay(false).keep_alive(true);
    for (options, expected) in [(plain, (true, false)), (unusual, (false, true))] {
        for loops in [1, 2, 4] {
            let runtime = background(loops);
            let handle = runtime.handle();
            let (send, found) = std::sync::mpsc::channel();
            let send_too = send.clone();
            let given = TcpListener::bind("127.0.0.1:0").expect("a free port exists");
            let [callbacks, given] = [any_port(), given.into()].map(|listen| {
                let send = send.clone();
                handle.create_server(options(listen), move |_| {
                    let send = send.clone();
                    move || Options(send.clone())
                })
            });
            let tasks = handle.serve(options(any_port()), move |stream| {
                let nodelay = stream.nodelay().expect("a TCP socket");
                let keep_alive = sockopt::socket_keepalive(&stream).expect("a socket");
                send_too
                    .send((nodelay, keep_alive))
                    .expect("the test waits");
                async {}
            });
            for server in [callbacks, given, tasks] {
                let server = server.expect("a free port exists");
                drop(connect(server.local_addr()));
                assert_eq!(found.recv_timeout(LIMIT), Ok(expected));
                server.close();
                assert!(server.wait_idle(LIMIT));
            }
            end_background(runtime);
        }
    }
}

#[test]
fn conn_08_the_next_address_is_tried_while_the_first_is_silent() {
    each(async |local| {
        let (silent, _queue, _queued) = silent_addr();
        let (listener, addr) = raw_listener();
        let to = ConnectOptions::from(&[silent, addr][..])
            .happy_eyeballs_delay(Duration::from_millis(20));
        let begun = local.time();
        let stream = TcpStream::connect(to).await.expect("the second answers");
        assert!(
            local.time() - begun >= Duration::from_millis(20),
            "not at once"
        );
        assert_eq!(stream.peer_addr().expect("connected"), addr);
        assert_eq!(sockets_registered(), 1, "the silent one is given up");

        // Without a delay nobody else is asked.
        let to = ConnectOptions::from(&[silent, addr][..]);
        let waiting = timeout(Duration::from_millis(60), TcpStream::connect(to)).await;
        waiting.expect_err("the first is silent");
        drop(listener.accept().expect("the connection above"));
        listener.set_nonblocking(true).expect("a socket");
        let none = listener.accept().expect_err("it was not asked again");
        assert_eq!(none.kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn conn_08_a_refusal_does_not_wait_for_the_delay_and_the_last_address_is_waited_for() {
    each(async |_local| {
        let (refusing, _held) = refusing_addr();
        let (other, _held_too) = refusing_addr();
        let (listener, addr) = raw_listener();
        let hour = Duration::from_secs(3600);
        let to = ConnectOptions::from(&[refusing, addr][..]).happy_eyeballs_delay(hour);
        let stream = timeout(LIMIT, TcpStream::connect(to)).await;
        let stream = stream.expect("without the delay").expect("it listens");
        assert_eq!(stream.peer_addr().expect("connected"), addr);
        drop(listener);

        let to = ConnectOptions::from(&[refusing, other][..]).happy_eyeballs_delay(hour);
        let failed = timeout(LIMIT, TcpStream::connect(to)).await;
        let error = failed.expect("in time").expect_err("nobody listens");
        assert_eq!(error.attempts().len(), 2);
    });
}

#[test]
fn conn_06_conn_08_dropping_a_race_closes_every_attempt() {
    each(async |_local| {
        let (silent, _queue, _queued) = silent_addr();
        let (mute, _queue_too, _queued_too) = silent_addr();
        let to = ConnectOptions::from(&[silent, mute][..])
            .happy_eyeballs_delay(Duration::from_millis(1));
        {
            let mut racing = pin!(TcpStream::connect(to));
            poll_fn(|cx| {
                assert!(racing.as_mut().poll(cx).is_pending(), "nobody answers");
                match sockets_registered() {
                    2 => Poll::Ready(()),
                    _ => Poll::Pending,
                }
            })
            .await;
        }
        assert_eq!(sockets_registered(), 0);
    });
}

#[test]
fn conn_08_families_take_turns() {
    let Ok(ipv6) = TcpListener::bind("[::1]:0") else {
        return eprintln!("this machine has no IPv6 loopback");
    };
    each(async |_local| {
        let (first, _held) = refusing_addr();
        let (second, _held_too) = refusing_addr();
        let addr = ipv6.local_addr().expect("it is bound");
        // By turns the IPv6 address is second, and answers before the last is asked.
        let all = [first, second, addr];
        let to = ConnectOptions::from(&all[..]).interleave(1);
        let stream = TcpStream::connect(to).await.expect("it listens");
        assert_eq!(stream.peer_addr().expect("connected"), addr);
        drop(ipv6.accept().expect("it is waiting"));
        let refusing = ConnectOptions::from(&[first, second, SocketAddr::new(addr.ip(), 1)][..]);
        let error = TcpStream::connect(refusing.interleave(1)).await;
        let error = error.expect_err("nobody listens at port 1");
        let order: Vec<_> = error.attempts().iter().filter_map(NetError::addr).collect();
        assert_eq!(order, [first, SocketAddr::new(addr.ip(), 1), second]);
    });
}

/// Says on which loop it lives, and echoes.
struct HomeEcho;

impl Protocol for HomeEcho {
    fn connection_made(&mut self, transport: &Transport) {
        let here = LoopHandle::current().expect("on a loop").id();
        assert_eq!(transport.local_loop().id(), here);
        transport.write(&[here.index() as u8]);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        let here = LoopHandle::current().expect("on a loop").id();
        assert_eq!(transport.local_loop().id(), here, "MC-07");
        transport.write(data);
    }
}

#[test]
fn conn_09_mc_07_mc_09_an_accepted_socket_may_be_handed_to_any_loop() {
    for loops in [1, 2, 4] {
        let runtime = background(loops);
        let (listener, addr) = raw_listener();
        let mut clients: Vec<_> = (0..8).map(|_| connect(addr)).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            let (accepted, _) = listener.accept().expect("it is waiting");
            let home = runtime.handle().on(number % loops);
            // Detached: it ends when the protocol has its connection.
            drop(home.spawn_on(move || async move {
                let local = LocalLoop::current().expect("on a loop");
                let made = local.connect_accepted_socket(accepted, || HomeEcho).await;
                made.map(drop).expect("it is connected");
            }));
            assert_eq!(read_exactly(client, 1), [(number % loops) as u8]);
            echo_once(client, b"hello");
        }
        drop(clients);
        eventually("no task is left", || {
            runtime.stats().total(|one| one.tasks_live) == 0
        });
        end_background(runtime);
    }
}

#[test]
fn conn_02_addresses_are_tried_in_order_and_the_first_that_answers_wins() {
    each(async |_local| {
        let (refusing, _held) = refusing_addr();
        let (first, first_addr) = raw_listener();
        let (second, second_addr) = raw_listener();
        second.set_nonblocking(true).expect("a socket");
        let addrs = [refusing, first_addr, second_addr];
        let stream = TcpStream::connect(&addrs[..]).await.expect("one listens");
        assert_eq!(stream.peer_addr().expect("connected"), first_addr);
        let (_, client) = first.accept().expect("it is waiting");
        assert_eq!(stream.local_addr().expect("connected"), client);
        let none = second.accept().expect_err("it was not asked");
        assert_eq!(none.kind(), ErrorKind::WouldBlock);
        let stats = LoopHandle::current().expect("on a loop").stats();
        let open = stats.total(|one| one.sockets_registered);
        assert_eq!(open, 1, "the socket that was refused is gone");
    });
}

#[test]
fn conn_03_a_refused_connection_names_the_address() {
    each(async |_local| {
        let (addr, _held) = refusing_addr();
        let (other, _held_too) = refusing_addr();
        let error = TcpStream::connect(addr).await.expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(error.addr(), Some(addr));
        let text = error.to_string();
        assert!(text.contains(&addr.to_string()), "{text}");
        assert!(text.contains("refused"), "{text}");

        let both = TcpStream::connect(&[addr, other][..]).await;
        let error = both.expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let text = error.to_string();
        assert!(
            text.contains(&addr.to_string()),
            "every failure counts: {text}"
        );
        assert!(
            text.contains(&other.to_string()),
            "every failure counts: {text}"
        );

        let none = TcpStream::connect(&[][..]).await.expect_err("no address");
        assert_eq!(none.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn conn_01_connected_then_factory_then_made_then_reading_then_the_caller() {
    each(async |local| {
        let (listener, addr) = raw_listener();
        let log = Log::default();
        let connecting = local.create_connection(addr, || {
            log.add("factory");
            recorder(&log)
        });
        let transport = connecting.await.expect("it listens");
        assert_eq!(log.lines(), ["factory", "made"]);
        let (mut peer, _) = listener.accept().expect("it is waiting");
        peer.write_all(b"hello").expect("connected");
        until("data", || log.has("data 5")).await;
        transport.write(b"world");
        assert_eq!(read_exactly(&mut peer, 5), b"world");
        drop(peer);
        until("connection_lost", || log.is_lost()).await;
        let lines = ["factory", "made", "data 5", "eof", "lost none"];
        assert_eq!(log.lines(), lines);
    });
}

#[test]
fn conn_06_a_failed_connection_makes_no_protocol() {
    each(async |local| {
        let (addr, _held) = refusing_addr();
        let called = Cell::new(false);
        let connecting = local.create_connection(addr, || {
            called.set(true);
            recorder(&Log::default())
        });
        let error = connecting.await.expect_err("nobody listens");
        assert_eq!(error.addr(), Some(addr));
        assert!(!called.get());
    });
}

#[test]
fn conn_06_cancelling_while_connecting_closes_the_socket() {
    each(async |local| {
        let (listener, addr) = raw_listener();
        let log = Log::default();
        {
            let connecting = pin!(local.create_connection(addr, || recorder(&log)));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(connecting.poll(&mut cx).is_pending());
        }
        let (mut peer, _) = listener.accept().expect("loopback connects at once");
        let read = peer.read(&mut [0; 1]);
        assert_eq!(read.expect("orderly"), 0, "the socket was closed");
        assert!(log.lines().is_empty());
    });
}

#[test]
fn conn_06_cancelling_at_any_step_leaves_no_connection_behind() {
    each(async |local| {
        let (listener, addr) = raw_listener();
        let log = Log::default();
        {
            let factory = || {
                log.add("factory");
                recorder(&log)
            };
            let mut connecting = pin!(local.create_connection(addr, factory));
            // Until the protocol exists, and not one step further.
            let stepping = poll_fn(|cx| {
                let finished = connecting.as_mut().poll(cx).is_ready();
                assert!(!finished, "connection_made comes in a turn of its own");
                if log.has("factory") {
                    return Poll::Ready(());
                }
                Poll::Pending
            });
            stepping.await;
        }
        let (peer, _) = listener.accept().expect("it is waiting");
        peer.set_nonblocking(true).expect("a socket");
        let end = |_: ()| (&peer).read(&mut [0; 1]).map_err(|error| error.kind());
        until("the end", || end(()) != Err(ErrorKind::WouldBlock)).await;
        let lines = log.lines();
        let expected = ["factory", "made", "lost none"];
        assert!(lines.len() == 1 || lines == expected, "{lines:?}");
    });
}

#[test]
fn conn_10_a_panicking_factory_reaches_the_caller_and_closes_the_socket() {
    each(async |_local| {
        let (listener, addr) = raw_listener();
        let task = garland::spawn_local(async move {
            let local = LocalLoop::current().expect("on a loop");
            let panicking = || -> Recorder { panic!("of the factory") };
            local.create_connection(addr, panicking).await.map(drop)
        });
        let failed = task.await.expect_err("the factory panicked");
        assert!(failed.to_string().contains("of the factory"), "{failed}");
        let (mut peer, _) = listener.accept().expect("it is waiting");
        assert_eq!(peer.read(&mut [0; 1]).expect("orderly"), 0);
    });
}

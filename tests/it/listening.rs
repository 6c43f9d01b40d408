//! Rows SRV: where a server listens, when it begins and how it ends, by its owner's calls.
//!
//! What happens to the connections themselves is in `servers`.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use futures_lite::future::{block_on, poll_once};
use garland::{ListenOptions, LoopHandle, NetError, Protocol, Server, Transport};

use crate::servers::{Model, assert_refused};
use crate::sockets::{
    Echo, LIMIT, any_port, connect, echo_once, echo_task, eventually, read_exactly, refusing_addr,
};
use crate::support::{background, end, end_background, lent, run, turn};

/// Both models, with one loop, two and four.
fn each(test: impl Fn(Model, &LoopHandle)) {
    for model in Model::BOTH {
        for loops in [1, 2, 4] {
            let runtime = background(loops);
            test(model, runtime.handle());
            end_background(runtime);
        }
    }
}

fn try_echo(model: Model, handle: &LoopHandle, listen: ListenOptions) -> Result<Server, NetError> {
    match model {
        Model::Callbacks => handle.create_server(listen, |_local| || Echo),
        Model::Tasks => handle.serve(listen, echo_task),
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port exists");
    listener.local_addr().expect("it is bound").port()
}

/// Whether no socket at all is bound to it.
fn is_free(addr: SocketAddr) -> bool {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    socket
        .expect("a descriptor is free")
        .bind(&addr.into())
        .is_ok()
}

fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

fn close(server: &Server) {
    server.close();
    assert!(server.wait_idle(LIMIT), "{server:?}");
}

#[test]
fn srv_03_all_interfaces_is_a_socket_for_each_family() {
    each(|model, handle| {
        let everywhere = ListenOptions::all_interfaces(0);
        let by_name = |hosts: &[&'static str]| {
            let hosts = hosts.to_vec();
            let task = handle.spawn(async move { ListenOptions::hosts(hosts, 0).await });
            block_on(task)
                .expect("did not panic")
                .expect("nothing to look up")
        };
        for listen in [everywhere, by_name(&[]), by_name(&[""])] {
            let server = model.echo(handle, listen);
            let addrs = server.local_addrs();
            assert_eq!(addrs.len(), 1 + usize::from(has_ipv6()));
            let port = addrs[0].port();
            echo_once(&mut connect(([127, 0, 0, 1], port).into()), b"IPv4");
            echo_once(&mut connect(([127, 0, 0, 5], port).into()), b"IPv4");
            if let Some(ipv6) = addrs.get(1) {
                assert!(ipv6.is_ipv6());
                let loopback = "::1".parse().expect("an address");
                echo_once(
                    &mut connect(SocketAddr::new(loopback, ipv6.port())),
                    b"IPv6",
                );
            }
            close(&server);
        }
        // One number for both families: the IPv6 socket does not take the IPv4 port.
        let server = model.echo(handle, ListenOptions::all_interfaces(free_port()));
        assert_eq!(server.local_addrs().len(), 1 + usize::from(has_ipv6()));
        close(&server);
    });
}

#[test]
fn srv_03_a_list_of_hosts_is_served_and_duplicates_are_bound_once() {
    each(|model, handle| {
        let port = free_port();
        let hosts = ["127.0.0.1", "127.0.0.2", "localhost", "127.0.0.1"];
        let task = handle.spawn(async move { ListenOptions::hosts(hosts, port).await });
        let listen = block_on(task)
            .expect("did not panic")
            .expect("localhost is known");
        let server = model.echo(handle, listen);
        let ipv4: Vec<&SocketAddr> = server
            .local_addrs()
            .iter()
            .filter(|a| a.is_ipv4())
            .collect();
        let expected = [[127, 0, 0, 1], [127, 0, 0, 2]].map(|ip| SocketAddr::from((ip, port)));
        assert_eq!(ipv4, expected.iter().collect::<Vec<_>>());
        for addr in server.local_addrs() {
            echo_once(&mut connect(*addr), b"hello");
        }
        close(&server);

        let unknown = handle.spawn(ListenOptions::hosts(["nobody.invalid"], 80));
        let error = block_on(unknown)
            .expect("did not panic")
            .expect_err("no such host");
        assert!(error.to_string().contains("nobody.invalid"), "{error}");
    });
}

/// Set aside for documentation: no machine has it.
const NOT_HERE: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    0,
);

#[test]
fn srv_04_an_address_that_this_machine_lacks_is_skipped_if_another_is_left() {
    each(|model, handle| {
        let server = model.echo(handle, ListenOptions::new(NOT_HERE).and(loopback()));
        assert_eq!(server.local_addrs().len(), 1);
        echo_once(&mut connect(server.local_addr()), b"hello");
        close(&server);

        let alone = try_echo(model, handle, NOT_HERE.into());
        let error = alone.expect_err("nothing is left");
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
        assert_eq!(error.addr(), Some(NOT_HERE));
    });
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

#[test]
fn srv_04_another_error_closes_what_was_opened_and_names_the_address() {
    each(|model, handle| {
        let (taken, _held) = refusing_addr();
        let free = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let refused = try_echo(model, handle, ListenOptions::new(free).and(taken));
        let error = refused.expect_err("the second is taken");
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert_eq!(error.addr(), Some(taken));
        assert!(error.to_string().contains(&taken.to_string()), "{error}");
        TcpListener::bind(free).expect("the first was closed again");
    });
}

#[test]
fn srv_05_a_bound_socket_may_be_given_and_all_loops_accept_from_it() {
    each(|model, handle| {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port exists");
        let addr = socket.local_addr().expect("it is bound");
        let server = model.echo(handle, socket.into());
        assert_eq!(server.local_addrs(), [addr]);
        assert_eq!(server.stats().listeners, handle.loops() as u64);
        let mut clients: Vec<TcpStream> = (0..40).map(|_| connect(addr)).collect();
        for client in &mut clients {
            echo_once(client, b"hello");
        }
        close_with(&server, clients);
        assert_eq!(server.stats().accepted, 40);
        assert_refused(addr);
    });
}

/// The end of a descriptor does not end the watch of what it stands for, if it has a duplicate.
#[test]
fn srv_05_a_socket_that_lives_on_elsewhere_is_not_watched_any_more() {
    each(|model, handle| {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port exists");
        let twin = socket.try_clone().expect("a descriptor is free");
        let server = model.echo(handle, socket.into());
        echo_once(&mut connect(server.local_addr()), b"hello");
        close(&server);
        let turns = || handle.stats().total(|one| one.turns);
        let mut before = turns();
        eventually("the loops are idle", || {
            thread::sleep(Duration::from_millis(10));
            before == std::mem::replace(&mut before, turns())
        });
        twin.set_nonblocking(false).expect("a socket");
        for _ in 0..10 {
            let _client = connect(server.local_addr());
            drop(twin.accept().expect("it is waiting"));
        }
        let woken = turns() - before;
        assert!(woken < 10, "{woken} turns for connections of somebody else");
    });
}

fn close_with(server: &Server, clients: Vec<TcpStream>) {
    server.close();
    drop(clients);
    assert!(server.wait_idle(LIMIT), "{server:?}");
}

#[test]
fn srv_05_a_socket_given_must_be_a_tcp_socket_and_excludes_addresses() {
    each(|model, handle| {
        let datagram = UdpSocket::bind("127.0.0.1:0").expect("a free port exists");
        let (unix, _other) = std::os::unix::net::UnixStream::pair().expect("descriptors");
        let bad: [(OwnedFd, &str); 2] = [
            (datagram.into(), "a stream socket is needed"),
            (unix.into(), "create_unix_server"),
        ];
        for (socket, hint) in bad {
            let refused = try_echo(model, handle, ListenOptions::socket(socket));
            let error = refused.expect_err(hint).to_string();
            assert!(error.contains(hint), "{error}");
        }
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port exists");
        let both = ListenOptions::socket(socket).and(loopback());
        let error = try_echo(model, handle, both).expect_err("one or the other");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("either"), "{error}");
    });
}

#[test]
fn srv_05_the_backlog_bounds_the_queue() {
    // One listener, which nobody empties: its loop is not run.
    let runtime = lent(1);
    let listen = any_port().backlog(3);
    let server = runtime.local().create_server(listen, || Echo);
    let server = server.expect("a free port exists");
    turn(&runtime);
    let addr = server.local_addr();
    let mut queued = Vec::new();
    while let Ok(client) = TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
        queued.push(client);
        assert!(queued.len() < 20, "asked for 3");
    }
    assert_eq!(queued.len(), 4, "the kernel adds one");
    drop(queued);
    end(runtime);
}

#[test]
fn srv_05_reuse_address_is_on_and_can_be_turned_off() {
    each(|model, handle| {
        let server = model.echo(handle, any_port());
        let addr = server.local_addr();
        // The server ends first, and so the connection lingers on its port.
        let mut client = connect(addr);
        echo_once(&mut client, b"hello");
        server.abort_clients();
        assert_eq!(client.read(&mut [0; 1]).expect("orderly"), 0);
        drop(client);
        close(&server);
        let careful = ListenOptions::new(addr).reuse_address(false);
        let error = try_echo(model, handle, careful).expect_err("it lingers");
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        close(&model.echo(handle, addr.into()));
    });
}

#[test]
fn srv_07_nobody_is_served_before_start_serving() {
    each(|model, handle| {
        let server = model.echo(handle, any_port().start_serving(false));
        let addr = server.local_addr();
        assert_ne!(addr.port(), 0, "it is bound");
        assert!(!server.is_serving());
        assert_refused(addr);
        server.start_serving().expect("not closed");
        assert!(server.is_serving());
        // It listens when the call returns, and twice is once.
        let mut client = connect(addr);
        server.start_serving().expect("it serves already");
        echo_once(&mut client, b"hello");
        assert_eq!(server.stats().accepted, 1);
        close_with(&server, vec![client]);
        assert!(!server.is_serving());
        let error = server.start_serving().expect_err("it is closed");
        assert_eq!(error.addr(), Some(addr));
        assert!(error.to_string().contains("closed"), "{error}");
    });
}

#[test]
fn srv_07_a_server_of_one_loop_can_be_started_by_any_thread() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        // The factory is not `Send`.
        let made = std::rc::Rc::new(Cell::new(0));
        let counted = made.clone();
        let listen = any_port().start_serving(false);
        let server = runtime.local().create_server(listen, move || {
            counted.set(counted.get() + 1);
            Echo
        });
        let server = server.expect("a free port exists");
        assert_refused(server.local_addr());
        let starter = server.clone();
        let client = thread::spawn(move || {
            starter.start_serving().expect("not closed");
            echo_once(&mut connect(starter.local_addr()), b"hello");
            starter.close();
        });
        run(&runtime, server.wait_closed());
        client.join().expect("no panic");
        assert_eq!(made.get(), 1);
        end(runtime);
    }
}

#[test]
fn srv_07_a_server_that_never_started_gives_its_port_back() {
    each(|model, handle| {
        let server = model.echo(handle, any_port().start_serving(false));
        let addr = server.local_addr();
        assert!(!is_free(addr), "it is bound");
        close(&server);
        assert!(is_free(addr), "it is closed");
        let server = model.echo(handle, any_port().start_serving(false));
        let addr = server.local_addr();
        drop(server);
        assert!(is_free(addr), "nobody could start it any more");
    });
}

#[test]
fn srv_09_at_most_sixteen_are_accepted_in_a_turn_and_nobody_is_forgotten() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let server = runtime.local().create_server(any_port(), || Echo);
        let server = server.expect("a free port exists");
        turn(&runtime);
        let clients: Vec<TcpStream> = (0..40).map(|_| connect(server.local_addr())).collect();
        let mut accepted = 0;
        for _ in 0..LIMIT.as_millis() {
            turn(&runtime);
            let now = server.stats().accepted;
            assert!(now - accepted <= 16, "{} in one turn", now - accepted);
            accepted = now;
            if accepted == 40 {
                break;
            }
        }
        assert_eq!(accepted, 40);
        server.close();
        drop(clients);
        run(&runtime, server.wait_closed());
        end(runtime);
    }
}

#[test]
fn srv_13_wait_closed_waits_for_the_close_and_for_the_last_connection() {
    each(|model, handle| {
        let server = model.echo(handle, any_port());
        let ended = Arc::new(AtomicUsize::new(0));
        let waiters: Vec<_> = (0..6)
            .map(|number| {
                let (server, ended) = (server.clone(), ended.clone());
                let home = handle.on(number % handle.loops());
                home.spawn_on(move || async move {
                    server.wait_closed().await;
                    ended.fetch_add(1, Ordering::Relaxed);
                })
            })
            .collect();
        let mut client = connect(server.local_addr());
        echo_once(&mut client, b"hello");
        drop(client);
        eventually("it has ended", || server.stats().closed == 1);
        assert!(!server.wait_idle(Duration::from_millis(5)), "not closed");

        let mut last = connect(server.local_addr());
        echo_once(&mut last, b"hello");
        server.close();
        eventually("no listener", || server.stats().listeners == 0);
        assert!(!server.wait_idle(Duration::from_millis(5)), "still open");
        assert_eq!(ended.load(Ordering::Relaxed), 0);
        echo_once(&mut last, b"still served");
        drop(last);
        for waiter in waiters {
            block_on(waiter).expect("did not panic");
        }
        assert_eq!(ended.load(Ordering::Relaxed), 6);
        // Afterwards at once, and on no loop at all.
        block_on(server.wait_closed());
        assert!(server.wait_idle(Duration::ZERO));
    });
}

#[test]
fn srv_14_close_clients_and_abort_clients_end_the_connections_and_nothing_else() {
    each(|model, handle| {
        let server = model.echo(handle, any_port());
        let bystander = model.echo(handle, any_port());
        let mut other = connect(bystander.local_addr());
        echo_once(&mut other, b"hello");
        for end_clients in [Server::close_clients, Server::abort_clients] {
            let mut clients: Vec<TcpStream> =
                (0..12).map(|_| connect(server.local_addr())).collect();
            for client in &mut clients {
                echo_once(client, b"hello");
            }
            end_clients(&server);
            for client in &mut clients {
                assert_eq!(client.read(&mut [0; 1]).expect("orderly"), 0);
            }
            eventually("all are gone", || server.stats().open == 0);
            assert!(server.is_serving(), "the listeners stay");
        }
        echo_once(&mut other, b"another server's");
        let mut client = connect(server.local_addr());
        echo_once(&mut client, b"who comes later is served");
        close_with(&server, vec![client]);
        close_with(&bystander, vec![other]);
    });
}

/// Answers with more than a socket holds.
struct Flood;

/// No buffer of the kernel holds this much.
const FLOOD: usize = 32 * 1024 * 1024;

impl Protocol for Flood {
    fn data_received(&mut self, transport: &Transport, _data: &[u8]) {
        transport.write(&vec![7; FLOOD]);
        transport.write(b"end");
    }
}

#[test]
fn srv_14_close_clients_sends_what_is_buffered_and_abort_clients_drops_it() {
    for loops in [1, 2, 4] {
        let runtime = background(loops);
        let server = runtime.handle().create_server(any_port(), |_| || Flood);
        let server = server.expect("a free port exists");
        for (end_clients, is_whole) in [
            (Server::close_clients as fn(&Server), true),
            (Server::abort_clients, false),
        ] {
            let mut client = connect(server.local_addr());
            client.write_all(b"go").expect("connected");
            assert_eq!(read_exactly(&mut client, 1), [7], "it has been written");
            end_clients(&server);
            if !is_whole {
                // A client that reads meanwhile may get all of it before the loop hears of the end.
                eventually("it is aborted", || server.stats().open == 0);
            }
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).expect("orderly");
            assert_eq!(rest.len() == FLOOD - 1 + 3, is_whole, "{}", rest.len());
        }
        close(&server);
        end_background(runtime);
    }
}

#[test]
fn srv_15_serve_forever_starts_serves_and_ends_with_the_server() {
    each(|model, handle| {
        let server = model.echo(handle, any_port().start_serving(false));
        let serving = {
            let server = server.clone();
            handle.spawn(async move { server.serve_forever().await })
        };
        eventually("it serves", || server.is_serving());
        let mut client = connect(server.local_addr());
        echo_once(&mut client, b"hello");
        let second = block_on(server.serve_forever()).expect_err("one at a time");
        assert!(second.to_string().contains("serve_forever"), "{second}");
        echo_once(&mut client, b"the refused call changed nothing");

        server.close();
        eventually("no listener", || server.stats().listeners == 0);
        echo_once(&mut client, b"clients are left alone");
        assert!(!serving.is_finished(), "it waits for them");
        drop(client);
        let ended = block_on(serving).expect("did not panic");
        ended.expect("an orderly end");
        let error = block_on(server.serve_forever()).expect_err("it is closed");
        assert!(error.to_string().contains("closed"), "{error}");
    });
}

#[test]
fn srv_15_dropping_serve_forever_closes_the_server_and_leaves_its_clients() {
    each(|model, handle| {
        let server = model.echo(handle, any_port());
        let mut client = connect(server.local_addr());
        echo_once(&mut client, b"hello");
        {
            let mut serving = pin!(server.serve_forever());
            assert!(block_on(poll_once(serving.as_mut())).is_none());
        }
        eventually("no listener", || server.stats().listeners == 0);
        assert_refused(server.local_addr());
        echo_once(&mut client, b"still here");
        close_with(&server, vec![client]);
    });
}

#[test]
fn srv_16_a_scope_serves_closes_the_server_at_its_end_and_waits() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let server = Model::Tasks.echo(runtime.handle(), any_port().start_serving(false));
        run(&runtime, async {
            let left_open = Cell::new(None);
            let mut scope = pin!(server.scope(async {
                let addr = server.local_addr();
                let client = garland::TcpStream::connect(addr).await.expect("it serves");
                client.write_all(b"hello").await.expect("it reads");
                assert_eq!(client.read(&mut [0; 5]).await.expect("it echoes"), 5);
                left_open.set(Some(client));
                "output"
            }));
            poll_fn(|cx| {
                assert!(scope.as_mut().poll(cx).is_pending(), "a client is there");
                let client = left_open.take();
                let has_ended = client.is_some();
                left_open.set(client);
                assert_eq!(server.is_serving(), !has_ended);
                if has_ended {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
            drop(left_open.take());
            assert_eq!(scope.await.expect("it could start"), "output");
        });
        run(&runtime, server.scope(async {})).expect_err("it is closed");
        end(runtime);
    }
}

#[test]
fn srv_16_dropping_a_scope_closes_the_server() {
    each(|model, handle| {
        let server = model.echo(handle, any_port());
        assert!(block_on(poll_once(server.scope(std::future::pending::<()>()))).is_none());
        assert!(!server.is_serving());
        assert!(server.wait_idle(LIMIT));
        assert_refused(server.local_addr());
    });
}

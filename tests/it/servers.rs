//! Servers of both models: one port for all loops, closing, limits, errors of accept.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use futures_lite::future::block_on;
use garland::{
    ListenOptions, LocalLoop, LoopHandle, Protocol, Server, ServerStats, Transport, WriteLimits,
};

use crate::sockets::{
    Echo, LIMIT, any_port, assert_ledger_is_zero, background, connect, echo_once, echo_task,
    eventually, finish, pattern, read_exactly,
};
use crate::support::stress;

/// The two ways to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    Callbacks,
    Tasks,
}

impl Model {
    pub(crate) const BOTH: [Model; 2] = [Model::Callbacks, Model::Tasks];

    pub(crate) fn echo(self, handle: &LoopHandle, listen: ListenOptions) -> Server {
        let server = match self {
            Model::Callbacks => handle.create_server(listen, |_local| || Echo),
            Model::Tasks => handle.serve(listen, echo_task),
        };
        server.expect("a free port exists")
    }
}

/// Both models, on one loop, on two and on four.
fn each(test: impl Fn(Model, usize)) {
    for model in Model::BOTH {
        for loops in [1, 2, 4] {
            test(model, loops);
        }
    }
}

pub(crate) fn assert_refused(addr: SocketAddr) {
    let refused = TcpStream::connect_timeout(&addr, LIMIT);
    let error = refused.expect_err("nobody listens any more");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

/// Waits until the kernel has finished the handshakes of `count` clients on the server's side too.
/// A client is told before that, and a listener that closes in between resets it: no server can
/// serve a connection that it cannot see.
fn await_established(server: SocketAddr, count: usize) {
    let local = format!("0100007F:{:04X}", server.port());
    eventually("the handshakes end", || {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
        let is_served = |line: &&str| {
            let mut columns = line.split_whitespace().skip(1);
            columns.next() == Some(&local) && columns.nth(1) == Some("01")
        };
        table.lines().filter(is_served).count() >= count
    });
}

/// Keeps one loop from turning until the sender is used or dropped.
pub(crate) fn block_loop(handle: &LoopHandle) -> mpsc::Sender<()> {
    let (release, released) = mpsc::channel();
    let (begin, begun) = mpsc::channel();
    let callback = move || {
        begin.send(()).expect("the test waits");
        // The end of waiting is what counts: the sender is used, dropped, or forgotten.
        let ended = released.recv_timeout(LIMIT);
        assert_ne!(ended, Err(mpsc::RecvTimeoutError::Timeout), "forgotten");
    };
    handle.call_soon_threadsafe(callback).expect("not closed");
    begun.recv_timeout(LIMIT).expect("the loop turns");
    release
}

/// The loop has turned a few times since this was called.
fn let_turn(handle: &LoopHandle) {
    for _ in 0..20 {
        let (send, receive) = mpsc::channel();
        let callback = move || send.send(()).expect("the test waits");
        handle.call_soon_threadsafe(callback).expect("not closed");
        receive.recv_timeout(LIMIT).expect("the loop turns");
    }
}

/// Says on which loop it lives.
struct SayLoop;

impl Protocol for SayLoop {
    fn connection_made(&mut self, transport: &Transport) {
        let here = LoopHandle::current().expect("on a loop").id();
        assert_eq!(transport.local_loop().id(), here);
        transport.write(&[here.index() as u8]);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }
}

#[test]
fn srv_01_mc_08_port_zero_is_resolved_once_and_every_loop_serves_it() {
    for loops in [1, 2, 4] {
        let runtime = background(loops);
        let server = runtime.handle().create_server(any_port(), |_| || SayLoop);
        let server = server.expect("a free port exists");
        assert_ne!(server.local_addr().port(), 0);
        assert_eq!(server.local_addrs().len(), 1);
        assert_eq!(server.stats().listeners, loops as u64);
        let mut served = vec![0; loops];
        // The kernel spreads by a hash of the client's port: no loop goes without one of 64.
        for _ in 0..64 {
            let mut client = connect(server.local_addr());
            served[usize::from(read_exactly(&mut client, 1)[0])] += 1;
            echo_once(&mut client, b"hello");
        }
        assert!(served.iter().all(|count| *count > 0), "{served:?}");
        server.close();
        assert!(server.wait_idle(LIMIT));
        assert_eq!(server.stats().accepted, 64);
        finish(runtime);
    }
}

#[test]
fn srv_03_a_second_address_has_listeners_of_its_own() {
    each(|model, loops| {
        let runtime = background(loops);
        let any = SocketAddr::from(([127, 0, 0, 2], 0));
        let server = model.echo(runtime.handle(), any_port().and(any));
        let addrs = server.local_addrs();
        assert_eq!(addrs.len(), 2);
        assert_ne!(addrs[0], addrs[1]);
        assert_eq!(server.stats().listeners, 2 * loops as u64);
        for addr in addrs {
            echo_once(&mut connect(*addr), b"hello");
        }
        server.close();
        assert!(server.wait_idle(LIMIT));
        finish(runtime);
    });
}

#[test]
fn srv_02_made_comes_in_the_order_of_accept_and_before_any_data() {
    struct Numbered(Arc<Mutex<Vec<SocketAddr>>>, bool);
    impl Protocol for Numbered {
        fn connection_made(&mut self, transport: &Transport) {
            self.1 = true;
            let mut made = self.0.lock().expect("no panic");
            made.push(transport.peer_addr().expect("an internet socket"));
        }
        fn data_received(&mut self, transport: &Transport, data: &[u8]) {
            assert!(self.1, "data before connection_made");
            transport.write(data);
        }
    }
    for loops in [1, 2, 4] {
        let runtime = background(loops);
        let made = Arc::new(Mutex::new(Vec::new()));
        let noted = made.clone();
        // In the order of accept on one loop: so one loop serves.
        let server = runtime.handle().spawn_on(move || async move {
            let local = LocalLoop::current().expect("on a loop");
            local.create_server(any_port(), move || Numbered(noted.clone(), false))
        });
        let server = block_on(server).expect("did not panic");
        let server = server.expect("a free port exists");
        // More than one batch of accept, all there before the first one.
        let release = block_loop(runtime.handle());
        let mut clients: Vec<TcpStream> = (0..50).map(|_| connect(server.local_addr())).collect();
        for client in &mut clients {
            client.write_all(b"early").expect("connected");
        }
        drop(release);
        for client in &mut clients {
            assert_eq!(read_exactly(client, 5), b"early");
        }
        let ports = |client: &TcpStream| client.local_addr().expect("connected");
        let expected: Vec<SocketAddr> = clients.iter().map(ports).collect();
        assert_eq!(*made.lock().expect("no panic"), expected);
        assert_eq!(runtime.stats().total(|one| one.callback_panics), 0);
        drop(clients);
        server.close();
        assert!(server.wait_idle(LIMIT));
        finish(runtime);
    }
}

#[test]
fn srv_06_a_second_server_on_the_port_is_refused_unless_both_reuse_it() {
    each(|model, loops| {
        let runtime = background(loops);
        let server = model.echo(runtime.handle(), any_port().reuse_port(true));
        let addr = server.local_addr();
        let second = match model {
            Model::Callbacks => runtime.handle().create_server(addr, |_local| || Echo),
            Model::Tasks => runtime.handle().serve(addr, echo_task),
        };
        let error = second.expect_err("the port is taken");
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert_eq!(error.addr(), Some(addr));
        let text = error.to_string();
        assert!(text.contains(&addr.to_string()), "{text}");
        // The attempt has not disturbed the first.
        for _ in 0..10 {
            echo_once(&mut connect(addr), b"hello");
        }
        let sharing = ListenOptions::new(addr).reuse_port(true);
        let second = model.echo(runtime.handle(), sharing);
        eventually("both serve", || {
            echo_once(&mut connect(addr), b"hello");
            second.stats().accepted > 0
        });
        server.close();
        second.close();
        assert!(server.wait_idle(LIMIT) && second.wait_idle(LIMIT));
        finish(runtime);
    });
}

#[test]
fn srv_12_close_refuses_new_connections_and_leaves_the_others_alone() {
    each(|model, loops| {
        let runtime = background(loops);
        let server = model.echo(runtime.handle(), any_port());
        let mut clients: Vec<TcpStream> = (0..8).map(|_| connect(server.local_addr())).collect();
        for client in &mut clients {
            echo_once(client, b"before");
        }
        server.close();
        server.close();
        eventually("no listener", || server.stats().listeners == 0);
        assert_refused(server.local_addr());
        for client in &mut clients {
            echo_once(client, b"after");
        }
        assert!(!server.wait_idle(Duration::from_millis(20)));
        assert_eq!(server.stats().open, 8);
        drop(clients);
        assert!(server.wait_idle(LIMIT));
        assert!(server.wait_idle(Duration::ZERO), "afterwards at once");
        let ServerStats {
            accepted,
            open,
            closed,
            ..
        } = server.stats();
        assert_eq!((accepted, open, closed), (8, 0, 8));
        finish(runtime);
    });
}

#[test]
fn srv_12_mc_08_connections_in_the_accept_queue_at_close_are_served() {
    each(|model, loops| {
        let runtime = background(loops);
        let handle = runtime.handle();
        let server = model.echo(handle, any_port());
        // Let the listeners settle, then keep the last loop from seeing the connections.
        echo_once(&mut connect(server.local_addr()), b"hello");
        let release = block_loop(&handle.on(loops - 1));
        let mut clients: Vec<TcpStream> = (0..40).map(|_| connect(server.local_addr())).collect();
        await_established(server.local_addr(), 40);
        server.close();
        if loops > 1 {
            let_turn(handle);
        }
        drop(release);
        for (number, client) in clients.iter_mut().enumerate() {
            let name = format!("client {number} of {model:?} on {loops} loops");
            client.write_all(name.as_bytes()).expect(&name);
            let mut echoed = vec![0; name.len()];
            client.read_exact(&mut echoed).expect(&name);
            assert_eq!(echoed, name.as_bytes());
        }
        drop(clients);
        assert!(server.wait_idle(LIMIT));
        assert_eq!(server.stats().accepted, 41);
        finish(runtime);
    });
}

#[test]
fn srv_12_mc_08_in_a_storm_who_was_connected_before_close_is_served() {
    each(|model, loops| {
        let runtime = background(loops);
        let server = model.echo(runtime.handle(), any_port());
        let addr = server.local_addr();
        for round in 0..3 * stress() {
            // Each round has a server of its own, which is accepting while it is told to close.
            let server = model.echo(runtime.handle(), any_port());
            let mut clients: Vec<TcpStream> =
                (0..30).map(|_| connect(server.local_addr())).collect();
            await_established(server.local_addr(), 30);
            server.close();
            for client in &mut clients {
                client.write_all(b"storm").expect("connected");
                let mut echoed = [0; 5];
                let read = client.read_exact(&mut echoed);
                assert!(
                    read.is_ok(),
                    "{model:?}, {loops} loops, round {round}: {read:?}"
                );
            }
            drop(clients);
            assert!(server.wait_idle(LIMIT));
            assert_eq!(server.stats().accepted, 30);
        }
        echo_once(&mut connect(addr), b"the other server goes on");
        server.close();
        assert!(server.wait_idle(LIMIT));
        finish(runtime);
    });
}

#[test]
fn max_connections_is_never_exceeded_and_those_who_wait_are_served_in_the_end() {
    each(|model, loops| {
        let runtime = background(loops);
        let server = model.echo(runtime.handle(), any_port().max_connections(3));
        let addr = server.local_addr();
        let mut waiting: Vec<TcpStream> = (0..20).map(|_| connect(addr)).collect();
        for client in &mut waiting {
            client.write_all(b"hello").expect("connected");
            client.set_nonblocking(true).expect("a socket");
        }
        let mut highest = 0;
        let mut served = 0;
        let start = Instant::now();
        while !waiting.is_empty() {
            assert!(start.elapsed() < LIMIT, "{model:?}: {:?}", server.stats());
            highest = highest.max(server.stats().open);
            let mut buf = [0; 5];
            let before = waiting.len();
            let is_waiting = |mut client: &TcpStream| match client.read(&mut buf) {
                Ok(count) => {
                    assert_eq!(&buf[..count], b"hello");
                    false
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    true
                }
            };
            // Who is served leaves, and makes room.
            let mut is_waiting = is_waiting;
            waiting.retain(|client| is_waiting(client));
            served += before - waiting.len();
            thread::sleep(Duration::from_micros(200));
        }
        assert_eq!(served, 20);
        assert!(
            highest <= 3,
            "{model:?} on {loops} loops: {highest} were open"
        );
        assert!(server.stats().accept_pauses > 0);
        server.close();
        assert!(server.wait_idle(LIMIT));
        assert_eq!(server.stats().accepted, 20);
        finish(runtime);
    });
}

#[test]
fn a_runtime_may_end_while_a_full_server_rests() {
    each(|model, loops| {
        let runtime = background(loops);
        let handle = runtime.handle().clone();
        let server = model.echo(&handle, any_port().max_connections(1));
        let mut first = connect(server.local_addr());
        echo_once(&mut first, b"hello");
        let _second = connect(server.local_addr());
        eventually("a pause", || server.stats().accept_pauses > 0);
        finish(runtime);
        let ServerStats {
            open, listeners, ..
        } = server.stats();
        assert_eq!((open, listeners), (0, 0));
        server.close();
        assert!(server.wait_idle(Duration::ZERO));
        assert_ledger_is_zero(&handle);
    });
}

#[test]
fn srv_11_a_panicking_factory_or_handler_costs_one_connection() {
    each(|model, loops| {
        let runtime = background(loops);
        let count = Arc::new(AtomicUsize::new(0));
        let panics_each_third = move || {
            assert!(count.fetch_add(1, Ordering::Relaxed) % 3 != 2, "the third");
        };
        let panics_each_third = Arc::new(panics_each_third);
        let server = match model {
            Model::Callbacks => runtime.handle().create_server(any_port(), move |_| {
                let panics = panics_each_third.clone();
                move || {
                    panics();
                    Echo
                }
            }),
            // Inside of the call that makes the future, not of the future.
            Model::Tasks => runtime.handle().serve(any_port(), move |stream| {
                panics_each_third();
                echo_task(stream)
            }),
        };
        let server = server.expect("a free port exists");
        let mut lost = 0;
        for _ in 0..30 {
            let mut client = connect(server.local_addr());
            let mut echoed = [0; 5];
            // Who meets the panic finds the connection closed, at the write or the read.
            let echo = client
                .write_all(b"hello")
                .and_then(|()| client.read_exact(&mut echoed));
            match echo {
                Ok(()) => assert_eq!(&echoed, b"hello"),
                Err(error) => {
                    assert_ne!(
                        error.kind(),
                        ErrorKind::WouldBlock,
                        "{model:?}: nobody serves"
                    );
                    lost += 1;
                }
            }
        }
        assert_eq!(lost, 10, "{model:?} on {loops} loops");
        // The client may see its end before the report is made.
        eventually("every panic is reported", || {
            let stats = runtime.stats();
            stats.total(|one| one.callback_panics + one.tasks_panicked) == 10
        });
        server.close();
        assert!(server.wait_idle(LIMIT));
        assert_eq!(server.stats().accepted, server.stats().closed);
        finish(runtime);
    });
}

#[test]
fn a_panicking_connection_task_costs_that_connection() {
    let runtime = background(2);
    let served = runtime.handle().serve(any_port(), |stream| async move {
        let mut buf = [0; 5];
        while let Ok(count @ 1..) = stream.read(&mut buf).await {
            assert_ne!(&buf, b"panic", "as asked");
            stream.write_all(&buf[..count]).await.expect("it reads");
        }
    });
    let server = served.expect("a free port exists");
    let mut bystander = connect(server.local_addr());
    for _ in 0..5 {
        let mut client = connect(server.local_addr());
        client.write_all(b"panic").expect("connected");
        assert_eq!(client.read(&mut [0; 1]).expect("closed in order"), 0);
        echo_once(&mut bystander, b"alive");
    }
    eventually("every panic is reported", || {
        runtime.stats().total(|one| one.tasks_panicked) == 5
    });
    drop(bystander);
    server.close();
    assert!(server.wait_idle(LIMIT));
    finish(runtime);
}

/// Echoes as [`Echo`] does, and notes the largest write buffer it ever had.
struct Measured {
    largest: Arc<AtomicUsize>,
    paused: Arc<AtomicUsize>,
}

impl Protocol for Measured {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
        self.largest
            .fetch_max(transport.write_buffer_size(), Ordering::Relaxed);
    }

    fn pause_writing(&mut self, transport: &Transport) {
        self.paused.fetch_add(1, Ordering::Relaxed);
        transport.pause_reading();
    }

    fn resume_writing(&mut self, transport: &Transport) {
        self.paused.fetch_sub(1, Ordering::Relaxed);
        transport.resume_reading();
    }
}

#[test]
fn a_client_that_sends_and_never_reads_costs_bounded_memory() {
    const CLIENTS: usize = 6;
    const BYTES: usize = 16 * 1024 * 1024;
    for loops in [1, 2] {
        let runtime = background(loops);
        let largest = Arc::new(AtomicUsize::new(0));
        let paused = Arc::new(AtomicUsize::new(0));
        let (grown, counted) = (largest.clone(), paused.clone());
        let make = move |_: &LocalLoop| {
            let (largest, paused) = (grown.clone(), counted.clone());
            move || Measured {
                largest: largest.clone(),
                paused: paused.clone(),
            }
        };
        let server = runtime.handle().create_server(any_port(), make);
        let server = server.expect("a free port exists");
        let data = Arc::new(pattern(BYTES));
        let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(server.local_addr())).collect();
        let send = |client: &TcpStream| {
            let mut client = client.try_clone().expect("a descriptor is free");
            let data = data.clone();
            thread::spawn(move || client.write_all(&data).expect("in the end it is read"))
        };
        let senders: Vec<_> = clients.iter().map(send).collect();
        eventually("all are paused", || {
            paused.load(Ordering::Relaxed) == CLIENTS
        });
        for mut client in &clients {
            let mut got = vec![0; BYTES];
            client.read_exact(&mut got).expect("every byte arrives");
            assert!(got == *data);
        }
        for sender in senders {
            sender.join().expect("no panic");
        }
        let bound = WriteLimits::DEFAULT_HIGH + 65_536;
        let largest = largest.load(Ordering::Relaxed);
        assert!(largest <= bound, "{largest} bytes in one write buffer");
        drop(clients);
        server.close();
        assert!(server.wait_idle(LIMIT));
        finish(runtime);
    }
}

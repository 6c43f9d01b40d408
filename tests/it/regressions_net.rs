//! Faults a review found in sockets and servers, each brought back by one test.
//!
//! What went wrong stands above each test. Those of the scheduler are in `regressions.rs`.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};

use garland::{LoopHandle, Protocol, Server, Transport};
use rustix::process::{Resource, setrlimit};
use socket2::{Domain, SockRef, Socket, Type};

use crate::descriptors::limit_descriptors;
use crate::regressions::PanickingWaker;
use crate::servers::{Model, block_loop};
use crate::sockets::{
    Echo, LIMIT, any_port, assert_ledger_is_zero, background, connect, echo_once, echo_task,
    eventually, finish, finish_lent, is_alone, lent, raw_listener, until,
};
use crate::support::run;

/// The panic left `block_on`, as that of a timer's waker did.
#[test]
fn a_waker_of_a_socket_that_panics_does_not_end_the_run() {
    let runtime = lent(1);
    let (listener, addr) = raw_listener();
    run(&runtime, async {
        let stream = garland::TcpStream::connect(addr).await;
        let stream = stream.expect("it listens");
        let (mut peer, _) = listener.accept().expect("it is connected");
        let bomb = Arc::new(PanickingWaker::default());
        let waker = Waker::from(Arc::clone(&bomb));
        let mut buf = [0; 8];
        let mut reading = pin!(stream.read(&mut buf));
        let polled = reading.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        peer.write_all(b"hello").expect("connected");
        until("the data wakes", || bomb.was_woken.load(Ordering::SeqCst)).await;
        assert_eq!(reading.await.expect("connected"), 5);
    });
    let panics = runtime.stats().total(|one| one.callback_panics);
    assert_eq!(panics, 1);
    finish_lent(runtime);
}

/// Ends its connection at the first data, and panics when it is dropped.
struct PanicsOnDrop;

impl Protocol for PanicsOnDrop {
    fn data_received(&mut self, transport: &Transport, _: &[u8]) {
        transport.close();
    }
}

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("of a protocol's destructor");
    }
}

/// The panic skipped the rest of the release: socket, table entry and count stayed for ever.
#[test]
fn a_protocol_whose_destructor_panics_still_gives_its_connection_back() {
    let runtime = background(1);
    let server = runtime
        .handle()
        .create_server(any_port(), |_local| || PanicsOnDrop);
    let server = server.expect("a free port exists");
    let mut client = connect(server.local_addr());
    client.write_all(b"x").expect("connected");
    let end = client.read(&mut [0; 8]);
    assert_eq!(end.expect("the socket is closed"), 0);
    server.close();
    assert!(server.wait_idle(LIMIT), "{:?}", server.stats());
    let panics = runtime.stats().total(|one| one.callback_panics);
    assert_eq!(panics, 1);
    finish(runtime);
}

/// Passes on what it receives.
struct PassOn(mpsc::Sender<Vec<u8>>);

impl Protocol for PassOn {
    fn data_received(&mut self, _: &Transport, data: &[u8]) {
        self.0.send(data.to_vec()).expect("the test waits");
    }
}

/// A server of either model that passes on what it receives.
fn pass_on(model: Model, handle: &LoopHandle, to: mpsc::Sender<Vec<u8>>) -> Server {
    let server = match model {
        Model::Callbacks => handle.create_server(any_port(), move |_local| {
            let to = to.clone();
            move || PassOn(to.clone())
        }),
        Model::Tasks => handle.serve(any_port(), move |stream| {
            let to = to.clone();
            async move {
                let mut buf = [0; 64];
                while let Ok(count @ 1..) = stream.read(&mut buf).await {
                    to.send(buf[..count].to_vec()).expect("the test waits");
                }
            }
        }),
    };
    server.expect("a free port exists")
}

/// Waits until the kernel holds `count` bytes that the server has not read from `client`.
fn await_unread(server: SocketAddr, client: &TcpStream, count: u32) {
    let here = client.local_addr().expect("connected");
    let column = |addr: SocketAddr| format!("0100007F:{:04X}", addr.port());
    let ends = format!(" {} {} 01 ", column(server), column(here));
    eventually("all of it has arrived", || {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
        let line = table.split_once(&ends).map(|(_, rest)| rest);
        // The queues come next: sending:receiving.
        let queues = line.and_then(|rest| rest.split([':', ' ']).nth(1));
        queues.is_some_and(|unread| u32::from_str_radix(unread, 16) == Ok(count))
    });
}

/// A receive stops in front of urgent data: it was taken for the end of what is there, and no
/// further edge came for the rest.
#[test]
fn data_behind_urgent_data_is_received() {
    for model in Model::BOTH {
        let runtime = background(1);
        let (to, from) = mpsc::channel();
        let server = pass_on(model, runtime.handle(), to);
        let mut client = connect(server.local_addr());
        client.write_all(b"first").expect("connected");
        assert_eq!(from.recv_timeout(LIMIT).expect("it arrives"), b"first");
        // All of it is there before the loop receives any of it.
        let release = block_loop(runtime.handle());
        client.write_all(b"abc").expect("connected");
        let urgent = SockRef::from(&client).send_out_of_band(b"d");
        assert_eq!(urgent.expect("connected"), 1);
        client.write_all(b"efg").expect("connected");
        await_unread(server.local_addr(), &client, 7);
        release.send(()).expect("the loop waits");
        let mut received = Vec::new();
        while received.len() < 6 {
            let more = from.recv_timeout(LIMIT);
            received.extend(more.unwrap_or_else(|_| panic!("{model:?}: only {received:?}")));
        }
        assert_eq!(received, b"abcefg", "{model:?}");
        drop(client);
        server.close();
        assert!(server.wait_idle(LIMIT), "{:?}", server.stats());
        finish(runtime);
    }
}

/// The listener tried for ever to take what waits, and never let go.
fn closes_without_descriptors(model: Model, loops: usize) {
    let runtime = background(loops);
    let server = model.echo(runtime.handle(), any_port());
    // It listens, and has nothing to give back.
    echo_once(&mut connect(server.local_addr()), b"hello");
    eventually("the first client has gone", || server.stats().open == 0);
    let waits = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor is free");
    let before = limit_descriptors(3);
    let connected = waits.connect(&server.local_addr().into());
    connected.expect("the queue has room");
    eventually("the listener pauses, and again", || {
        server.stats().accept_pauses >= 2
    });
    server.close();
    let is_idle = server.wait_idle(LIMIT);
    setrlimit(Resource::Nofile, before).expect("as it was");
    assert!(is_idle, "{:?}", server.stats());
    finish(runtime);
}

#[test]
fn srv_10_a_callback_server_without_descriptors_can_be_closed() {
    if is_alone("regressions_net::srv_10_a_callback_server_without_descriptors_can_be_closed") {
        for loops in [1, 2, 4] {
            closes_without_descriptors(Model::Callbacks, loops);
        }
    }
}

#[test]
fn srv_10_a_task_server_without_descriptors_can_be_closed() {
    if is_alone("regressions_net::srv_10_a_task_server_without_descriptors_can_be_closed") {
        for loops in [1, 2, 4] {
            closes_without_descriptors(Model::Tasks, loops);
        }
    }
}

/// `serve` and the loop's own `create_server` said Ok, and nobody ever listened.
#[test]
fn a_closed_runtime_refuses_every_kind_of_server() {
    let runtime = lent(1);
    let (local, handle) = (runtime.local().clone(), runtime.handle().clone());
    finish_lent(runtime);
    let refused = [
        handle.create_server(any_port(), |_local| || Echo),
        handle.serve(any_port(), echo_task),
        local.create_server(any_port(), || Echo),
        handle.create_unix_server("\0garland-closed", |_local| Echo::default),
        local.create_unix_server("\0garland-closed", || Echo),
    ];
    for server in refused {
        let error = server.expect_err("it is closed").to_string();
        assert!(error.contains("the runtime is closed"), "{error}");
    }
    assert_ledger_is_zero(&handle);
}

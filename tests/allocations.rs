//! What a request costs once a server runs: no allocation in any model, and no poll of its own where several wait.
//!
//! A test binary of its own, for it counts what its allocator does, on every thread: nothing else may run beside it. The
//! clients are threads of nobody and blocking sockets, which allocate nothing either.

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream as Client};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use garland::{Builder, LoopHandle, NetError, Pin, Protocol, Server, TcpStream, Transport};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CONNECTIONS: usize = 16;
/// Rounds until every queue and buffer has its size.
const WARM_UP: usize = 20;
const ROUNDS: usize = 200;
const LIMIT: Duration = Duration::from_secs(30);

/// Starts an echo server.
type Serve = fn(&LoopHandle, SocketAddr) -> Result<Server, NetError>;

const MODELS: [(&str, Serve); 3] = [
    ("callback", |handle, listen| {
        handle.create_server(listen, |_| || Echo)
    }),
    ("task", |handle, listen| handle.serve(listen, echo)),
    ("task that lends", |handle, listen| {
        handle.serve(listen, echo_lent)
    }),
];

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }
}

async fn echo(stream: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn echo_lent(stream: TcpStream) {
    while let Ok((1.., rest)) = stream
        .read_with(|bytes| {
            let sent = stream.try_write(bytes)?;
            Ok((bytes.len(), bytes[sent..].to_vec()))
        })
        .await
        .flatten()
    {
        if stream.write_all(&rest).await.is_err() {
            return;
        }
    }
}

struct Clients(Vec<Client>);

impl Clients {
    fn connect(to: SocketAddr) -> Self {
        let connect = |_| {
            let client = Client::connect(to).expect("the server listens");
            let limited = client.set_read_timeout(Some(LIMIT));
            limited.expect("the limit is not zero");
            client
        };
        Clients((0..CONNECTIONS).map(connect).collect())
    }

    fn send(&mut self) {
        for client in &mut self.0 {
            client.write_all(&[7; 64]).expect("connected");
        }
    }

    fn receive(&mut self) {
        for client in &mut self.0 {
            let mut answer = [0; 64];
            client.read_exact(&mut answer).expect("an echo");
            assert_eq!(answer, [7; 64]);
        }
    }

    fn echo(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.send();
            self.receive();
        }
    }
}

#[test]
fn a_served_request_allocates_nothing_and_requests_that_wait_share_a_poll() {
    for (model, serve) in MODELS {
        let runtime = Builder::new().loops(1).pin(Pin::Off).start();
        let runtime = runtime.expect("a runtime can be started");
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = serve(runtime.handle(), listen).expect("a port is free");
        let mut clients = Clients::connect(server.local_addr());
        clients.echo(WARM_UP);
        assert!(COUNTING.stats().allocations > 0, "the allocator counts");

        let region = Region::new(COUNTING);
        clients.echo(ROUNDS);
        let counted = region.change();
        let requests = CONNECTIONS * ROUNDS;
        let each = counted.allocations + counted.deallocations;
        assert_eq!(each, 0, "{model}: {requests} requests, {counted:?}");
        // A list of the loop grows when more is ready at once than ever before: a few times in its life.
        let grown = counted.reallocations;
        assert!(grown <= 4, "{model}: {requests} requests, {counted:?}");

        // The loop is held while the requests come in: then all of them are taken at once.
        let barrier = Arc::new(Barrier::new(2));
        let held = Arc::clone(&barrier);
        let polls = || runtime.stats().loops[0].polls;
        let holding = runtime.handle().call_soon_threadsafe(move || {
            held.wait();
            held.wait();
        });
        holding.expect("the loop is open");
        barrier.wait();
        let before = polls();
        clients.send();
        barrier.wait();
        clients.receive();
        let polled = polls() - before;
        assert!(
            polled <= 3,
            "{model}: {CONNECTIONS} requests, {polled} polls"
        );

        drop(clients);
        let report = runtime.shutdown(LIMIT);
        assert!(report.is_clean(), "{model}: {report}");
    }
}

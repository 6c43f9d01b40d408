//! Which loop a connection gets: evenly spread before it begins, and never moved afterwards.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::Arc;

use garland::{ListenOptions, LoopHandle, Protocol, Server, Transport};

use crate::servers::{Model, block_loop};
use crate::sockets::{LIMIT, any_port, connect, read_exactly};
use crate::support::{background, builder, end, end_background, lent, run};

/// As many as a small service has.
const CLIENTS: usize = 64;

/// The number of the loop that runs this.
fn here() -> u8 {
    LoopHandle::current().expect("on a loop").id().index() as u8
}

/// Answers whatever it gets with the number of its loop.
struct SayLoop;

impl Protocol for SayLoop {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        assert_eq!(
            transport.local_loop().id().index(),
            usize::from(here()),
            "MC-07"
        );
        transport.write(&vec![here(); data.len()]);
    }
}

/// A server that tells its clients which loop is their home.
fn serve(model: Model, handle: &LoopHandle, listen: ListenOptions) -> Server {
    let server = match model {
        Model::Callbacks => handle.create_server(listen, |_local| || SayLoop),
        Model::Tasks => handle.serve(listen, |stream| {
            // The handler is called at home; its task may be polled elsewhere later.
            let home = here();
            async move {
                let mut buf = [0; 16];
                while let Ok(count @ 1..) = stream.read(&mut buf).await {
                    let answer = vec![home; count];
                    stream.write_all(&answer).await.expect("it reads");
                }
            }
        }),
    };
    server.expect("a free port exists")
}

fn home_of(client: &mut TcpStream) -> u8 {
    client.write_all(b"?").expect("connected");
    read_exactly(client, 1)[0]
}

/// Connects that many clients, one after the other, and counts them for each loop.
fn fill(server: &Server, loops: usize, clients: &mut Vec<TcpStream>, count: usize) -> Vec<u64> {
    let mut homes = vec![0; loops];
    for _ in 0..count {
        let mut client = connect(server.local_addr());
        homes[usize::from(home_of(&mut client))] += 1;
        clients.push(client);
    }
    homes
}

fn close(server: &Server, clients: Vec<TcpStream>) {
    server.close();
    drop(clients);
    assert!(server.wait_idle(LIMIT), "{server:?}");
}

#[test]
fn mc_09_two_loops_have_as_many_connections_to_one_and_twelve_percent() {
    for model in Model::BOTH {
        let runtime = background(2);
        let server = serve(model, runtime.handle(), any_port());
        let mut clients = Vec::new();
        let homes = fill(&server, 2, &mut clients, CLIENTS);
        let stats = server.stats();
        // A machine that is too busy to run both loops makes them keep what they have.
        let kept = stats.taken_back;
        let least = homes[0].min(homes[1]) + kept;
        let most = homes[0].max(homes[1]).saturating_sub(kept);
        assert!(
            100 * most <= 112 * least + 100,
            "{model:?}: {homes:?}, {stats:?}"
        );
        assert_eq!(stats.open, CLIENTS as u64);
        close(&server, clients);
        end_background(runtime);
    }
}

#[test]
fn mc_09_no_loop_of_four_goes_without_and_one_alone_keeps_all() {
    for model in Model::BOTH {
        for loops in [1, 4] {
            let runtime = background(loops);
            let server = serve(model, runtime.handle(), any_port());
            let mut clients = Vec::new();
            let homes = fill(&server, loops, &mut clients, CLIENTS);
            let stats = server.stats();
            let least = homes.iter().min().expect("a loop") + stats.taken_back;
            assert!(
                least >= (CLIENTS / loops / 2) as u64,
                "{model:?}: {homes:?}, {stats:?}"
            );
            assert!(loops > 1 || stats.handed_over + stats.taken_back == 0);
            close(&server, clients);
            end_background(runtime);
        }
    }
}

#[test]
fn mc_09_who_goes_makes_room_for_who_comes() {
    for model in Model::BOTH {
        let runtime = background(2);
        let server = serve(model, runtime.handle(), any_port());
        let mut clients = Vec::new();
        fill(&server, 2, &mut clients, CLIENTS);
        // All clients of loop 0 leave: those who come next are more than the kernel sends there.
        clients.retain_mut(|client| home_of(client) != 0);
        let left = clients.len() as u64;
        crate::sockets::eventually("they are gone", || server.stats().open == left);
        let homes = fill(&server, 2, &mut clients, left as usize);
        let stats = server.stats();
        let (new, kept) = (homes[0] + stats.taken_back, left + homes[1]);
        assert!(
            100 * kept.saturating_sub(stats.taken_back) <= 112 * new + 100,
            "{homes:?}"
        );
        close(&server, clients);
        end_background(runtime);
    }
}

#[test]
fn mc_07_a_connection_stays_where_it_began_while_others_come_and_go() {
    for model in Model::BOTH {
        for loops in [1, 2, 4] {
            let runtime = background(loops);
            let server = serve(model, runtime.handle(), any_port());
            let mut clients: Vec<(TcpStream, u8)> = Vec::new();
            for round in 0..CLIENTS {
                let mut client = connect(server.local_addr());
                let home = home_of(&mut client);
                clients.push((client, home));
                if round % 3 == 0 {
                    clients.swap_remove(round / 7 % clients.len());
                }
            }
            for (client, home) in &mut clients {
                assert_eq!(home_of(client), *home);
            }
            close(
                &server,
                clients.into_iter().map(|(client, _)| client).collect(),
            );
            end_background(runtime);
        }
    }
}

#[test]
fn mc_07_without_balance_or_with_one_loop_nothing_is_given_away() {
    for model in Model::BOTH {
        let runtime = background(4);
        let server = serve(model, runtime.handle(), any_port().balance(false));
        let mut clients = Vec::new();
        fill(&server, 4, &mut clients, CLIENTS);
        let stats = server.stats();
        assert_eq!((stats.handed_over, stats.taken_back), (0, 0));
        close(&server, clients);
        end_background(runtime);
    }
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let server = runtime.local().create_server(any_port(), || SayLoop);
        let server = server.expect("a free port exists");
        let clients = std::thread::spawn({
            let server = server.clone();
            move || {
                let mut clients = Vec::new();
                let homes = fill(&server, loops, &mut clients, CLIENTS);
                assert_eq!(homes[0], CLIENTS as u64);
                server.close();
            }
        });
        run(&runtime, server.wait_closed());
        clients.join().expect("no panic");
        end(runtime);
    }
}

/// All loops accept from one queue, so the loop that is held takes none: what it is offered comes back.
#[test]
fn what_is_offered_to_a_loop_that_is_held_is_taken_back_and_served() {
    let runtime = builder(2).rescue(false).start();
    let runtime = runtime.expect("a runtime can be started");
    let name = format!("\0garland-it-placement-{}", std::process::id());
    let home = Arc::new(std::sync::Mutex::new(Vec::new()));
    let homes = Arc::clone(&home);
    let server = runtime.handle().serve_unix(name.as_str(), move |stream| {
        homes.lock().expect("no panic").push(here());
        async move {
            stream.write_all(b"!").await.expect("it reads");
            assert_eq!(stream.read(&mut [0]).await.expect("orderly"), 0);
        }
    });
    let server = server.expect("the name is free");
    let release = block_loop(&runtime.handle().on(0));
    let name = SocketAddr::from_abstract_name(&name[1..]).expect("a name");
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = UnixStream::connect_addr(&name).expect("it listens");
        client.set_read_timeout(Some(LIMIT)).expect("not zero");
        clients.push(client.try_clone().expect("a descriptor is free"));
        client.read_exact(&mut [0]).expect("it is answered");
    }
    assert_eq!(*home.lock().expect("no panic"), [1; 10]);
    let stats = server.stats();
    assert_eq!((stats.accepted, stats.handed_over), (10, 0));
    assert_eq!(stats.taken_back, 9, "all but the first were one too many");
    drop(release);
    server.close();
    drop(clients);
    assert!(server.wait_idle(LIMIT), "{server:?}");
    end_background(runtime);
}

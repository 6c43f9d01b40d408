//! Out of descriptors: who is in stays in, who comes later waits, and no loop spins.
//!
//! Each test lowers the limit of a process of its own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::servers::Model;
use crate::sockets::{LIMIT, any_port, background, echo_once, eventually, finish, is_alone};

/// Lets this process open descriptors up to this number; what it was before.
pub(crate) fn limit_descriptors(highest: u64) -> Rlimit {
    let before = getrlimit(Resource::Nofile);
    let lowered = Rlimit {
        current: Some(highest),
        maximum: before.maximum,
    };
    setrlimit(Resource::Nofile, lowered).expect("lowering is always allowed");
    before
}

#[test]
fn srv_10_out_of_descriptors_callbacks_wait_without_spinning() {
    if is_alone("descriptors::srv_10_out_of_descriptors_callbacks_wait_without_spinning") {
        out_of_descriptors(Model::Callbacks, 1);
    }
}

#[test]
fn srv_10_out_of_descriptors_tasks_wait_without_spinning() {
    if is_alone("descriptors::srv_10_out_of_descriptors_tasks_wait_without_spinning") {
        out_of_descriptors(Model::Tasks, 1);
    }
}

#[test]
fn srv_10_out_of_descriptors_many_loops_wait_without_spinning() {
    if is_alone("descriptors::srv_10_out_of_descriptors_many_loops_wait_without_spinning") {
        for loops in [2, 4] {
            out_of_descriptors(Model::Callbacks, loops);
            out_of_descriptors(Model::Tasks, loops);
        }
    }
}

fn out_of_descriptors(model: Model, loops: usize) {
    const CLIENTS: usize = 40;
    const ROOM: u64 = 10;
    let runtime = background(loops);
    let server = model.echo(runtime.handle(), any_port());
    // Clients have their descriptors before the limit falls, and connect after it.
    let unconnected = |_| {
        let (domain, kind) = (socket2::Domain::IPV4, socket2::Type::STREAM);
        socket2::Socket::new(domain, kind, None).expect("a descriptor is free")
    };
    let clients: Vec<socket2::Socket> = (0..CLIENTS).map(unconnected).collect();
    let highest = clients
        .iter()
        .map(AsRawFd::as_raw_fd)
        .max()
        .expect("not empty");
    let before = limit_descriptors(highest as u64 + 1 + ROOM);
    let addr = server.local_addr().into();
    let mut waiting = Vec::new();
    for client in clients {
        client.connect(&addr).expect("the queue has room");
        let mut client = TcpStream::from(client);
        client.write_all(b"hello").expect("connected");
        client.set_nonblocking(true).expect("a socket");
        waiting.push(client);
    }
    let mut served = Vec::new();
    let mut collect = |waiting: &mut Vec<TcpStream>| {
        let mut buf = [0; 5];
        let is_served = |client: &mut TcpStream| matches!(client.read(&mut buf), Ok(5));
        served.extend(waiting.extract_if(.., is_served));
        served.len()
    };
    eventually("there is room for some", || {
        collect(&mut waiting) == ROOM as usize
    });
    eventually("accept fails", || server.stats().accept_errors > 0);
    let numbers: Vec<i32> = server.accept_errors().iter().map(|one| one.0).collect();
    assert_eq!(numbers, [Errno::MFILE.raw_os_error()]);
    let turns = || runtime.stats().total(|one| one.turns);
    let (turns_before, errors_before) = (turns(), server.stats().accept_errors);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(collect(&mut waiting), ROOM as usize, "no more than that");
    let errors = server.stats().accept_errors - errors_before;
    // 10, 20, 40, 80, 160 ms: six attempts of each listener at the most.
    assert!(errors <= 6 * loops as u64, "{errors} errors in 300 ms");
    let turns = turns() - turns_before;
    assert!(turns < 200 * loops as u64, "{turns} turns in 300 ms");
    for client in &mut served {
        client.set_nonblocking(false).expect("a socket");
        client.set_read_timeout(Some(LIMIT)).expect("not zero");
        echo_once(client, b"who is in stays in");
    }
    setrlimit(Resource::Nofile, before).expect("as it was");
    eventually("everybody is served", || {
        let mut buf = [0; 5];
        waiting.retain_mut(|client| !matches!(client.read(&mut buf), Ok(5)));
        waiting.is_empty()
    });
    assert_eq!(server.stats().accepted, CLIENTS as u64);
    drop(served);
    server.close();
    finish(runtime);
}

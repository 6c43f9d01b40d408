//! Many connections that come and go, and a shutdown among them: everything is given back.
//!
//! Each test has a process of its own, where it may count descriptors. `GARLAND_STRESS=N` makes them
//! N times longer.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::servers::Model;
use crate::sockets::{
    LIMIT, any_port, assert_ledger_is_zero, background, connect, echo_once, eventually, finish,
    is_alone, open_fds, reset,
};
use crate::support::stress;

/// Connections open at the same time, so that descriptors suffice.
const WAVE: usize = 200;
const WAVES: usize = 25;

#[test]
fn churn_of_callbacks_gives_everything_back() {
    if is_alone("churn::churn_of_callbacks_gives_everything_back") {
        churn(Model::Callbacks);
    }
}

#[test]
fn churn_of_tasks_gives_everything_back() {
    if is_alone("churn::churn_of_tasks_gives_everything_back") {
        churn(Model::Tasks);
    }
}

fn churn(model: Model) {
    let runtime = background(2);
    let server = model.echo(runtime.handle(), any_port());
    // What is made on first use is there before it is counted.
    echo_once(&mut connect(server.local_addr()), b"first");
    eventually("the first is closed", || server.stats().open == 0);
    let sockets = || runtime.stats().total(|one| one.sockets_registered);
    let tasks = || runtime.stats().total(|one| one.tasks_live);
    let (fds, sockets_before, tasks_before) = (open_fds(), sockets(), tasks());
    let waves = WAVES * stress() as usize;
    for wave in 0..waves {
        let mut clients: Vec<TcpStream> = (0..WAVE).map(|_| connect(server.local_addr())).collect();
        for client in &mut clients {
            client.write_all(b"through the mill").expect("connected");
        }
        for (number, mut client) in clients.into_iter().enumerate() {
            let mut echoed = [0; 16];
            client.read_exact(&mut echoed).expect("an echo");
            assert_eq!(&echoed, b"through the mill");
            // Every way to end takes its turn.
            match (wave + number) % 4 {
                0 => reset(client),
                1 => {
                    client.shutdown(Shutdown::Write).expect("connected");
                    assert_eq!(client.read(&mut echoed).expect("an orderly end"), 0);
                }
                2 => {
                    client.write_all(b"never read").expect("connected");
                    drop(client);
                }
                _ => drop(client),
            }
        }
    }
    let opened = (waves * WAVE + 1) as u64;
    eventually("everything is closed", || server.stats().closed == opened);
    let stats = server.stats();
    assert_eq!((stats.accepted, stats.open), (opened, 0));
    assert_eq!(stats.accept_errors, 0);
    eventually("the tasks have ended", || tasks() == tasks_before);
    assert_eq!(sockets(), sockets_before);
    assert_eq!(open_fds(), fds);
    server.close();
    assert!(server.wait_idle(LIMIT));
    eventually("the listeners have ended", || {
        tasks() == 0 && sockets() == 0
    });
    finish(runtime);
}

#[test]
fn shutdown_under_load_of_callbacks_is_clean_and_bounded() {
    if is_alone("churn::shutdown_under_load_of_callbacks_is_clean_and_bounded") {
        shut_down_under_load(Model::Callbacks);
    }
}

#[test]
fn shutdown_under_load_of_tasks_is_clean_and_bounded() {
    if is_alone("churn::shutdown_under_load_of_tasks_is_clean_and_bounded") {
        shut_down_under_load(Model::Tasks);
    }
}

fn shut_down_under_load(model: Model) {
    let fds = open_fds();
    for round in 0..10 * stress() as usize {
        let loops = 1 + round % 2;
        let runtime = background(loops);
        let handle = runtime.handle().clone();
        let server = model.echo(&handle, any_port());
        let addr = server.local_addr();
        let over = Arc::new(AtomicBool::new(false));
        let hammer = |_| {
            let over = over.clone();
            thread::spawn(move || hammer(addr, &over))
        };
        let clients: Vec<_> = (0..4).map(hammer).collect();
        eventually("load", || server.stats().accepted > 40);
        let start = Instant::now();
        let report = runtime.shutdown(LIMIT);
        assert!(report.is_clean(), "{model:?}, {loops} loops: {report}");
        let took = start.elapsed();
        assert!(took < Duration::from_secs(5), "it took {took:?}");
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("no panic");
        }
        assert_ledger_is_zero(&handle);
        let stats = server.stats();
        assert_eq!((stats.open, stats.listeners), (0, 0), "{model:?}");
        assert_eq!(stats.accepted, stats.closed);
    }
    assert_eq!(open_fds(), fds);
}

/// Connects, talks and goes, again and again; errors are what the end of a server looks like.
fn hammer(addr: SocketAddr, over: &AtomicBool) {
    let data = [7; 3000];
    let mut buf = [0; 3000];
    while !over.load(Ordering::Relaxed) {
        let Ok(mut client) = TcpStream::connect_timeout(&addr, LIMIT) else {
            thread::yield_now();
            continue;
        };
        client.set_read_timeout(Some(LIMIT)).expect("not zero");
        for _ in 0..5 {
            let echoed = client
                .write_all(&data)
                .and_then(|()| client.read_exact(&mut buf));
            if echoed.is_err() {
                break;
            }
            assert_eq!(buf, data);
        }
    }
}

#[test]
fn a_task_that_waits_away_from_home_ends_with_the_runtime() {
    for round in 0..40 * stress() {
        let runtime = background(2);
        let handle = runtime.handle().clone();
        // Made on one loop, often run by the other, mostly waiting.
        let make = move || {
            for number in 0..50 {
                let pause = Duration::from_micros(20 + number % 7);
                drop(garland::spawn(async move {
                    loop {
                        garland::sleep(pause).await;
                    }
                }));
            }
        };
        handle.call_soon_threadsafe(make).expect("not closed");
        eventually("they move", || {
            let stats = handle.stats();
            let spawned = stats.total(|one| one.tasks_spawned);
            spawned == 50 && stats.total(|one| one.timers_fired) > 200
        });
        finish(runtime);
        let ledger = handle.stats();
        let cancelled = ledger.total(|one| one.tasks_cancelled);
        assert_eq!(cancelled, 50, "round {round}");
    }
}

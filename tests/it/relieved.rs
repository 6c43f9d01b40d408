//! A loop that is stuck while its sockets have news is relieved of them, one at a time.

use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use garland::LoopHandle;

use crate::stuck_loop::{echo_homed_on, exchange, finish, hog};
use crate::support::{background, end_background, receive, wait_until};

/// How many sockets of tasks each loop has.
fn sockets(handle: &LoopHandle) -> Vec<u64> {
    let loops = handle.stats().loops;
    loops.iter().map(|one| one.sockets_registered).collect()
}

#[test]
fn mc_06_a_stuck_loop_is_relieved_of_one_socket_by_each_loop_that_serves_it() {
    for loops in [2, 4] {
        let runtime = background(loops);
        let handle = runtime.handle().clone();
        let mut clients: Vec<StdStream> = (0..8).map(|_| echo_homed_on(0, &handle)).collect();
        let before = sockets(&handle);
        assert_eq!(before[0], 8);
        let done = Arc::new(AtomicBool::new(false));
        let hog = hog(0, &handle, &done);
        for client in &mut clients {
            exchange(client, 20);
        }
        // The echo comes before the step of its task ends, in which the socket moves.
        wait_until("a socket has moved", &handle, || sockets(&handle)[0] < 8);
        for client in &mut clients {
            exchange(client, 20);
        }
        let now = sockets(&handle);
        assert_eq!(now.iter().sum::<u64>(), 8, "{now:?}");
        let moved = 8 - now[0];
        assert!(moved < loops as u64, "{now:?}");
        drop(clients);
        finish(runtime, &done, &hog);
    }
}

#[test]
fn a_socket_that_has_moved_needs_no_rescue() {
    let runtime = background(2);
    let handle = runtime.handle().clone();
    let mut client = echo_homed_on(0, &handle);
    let done = Arc::new(AtomicBool::new(false));
    let held = hog(0, &handle, &done);
    exchange(&mut client, 1);
    wait_until("it has moved", &handle, || sockets(&handle) == [0, 1]);
    // Its events come to the other loop, whether the first is held or not.
    let events = |of: usize| handle.stats().loops[of].events;
    let (first, second) = (events(0), events(1));
    exchange(&mut client, 50);
    assert!(events(1) >= second + 50, "{:#?}", handle.stats());
    done.store(true, Ordering::Release);
    assert!(receive(&held, &handle), "the hog was let go");
    exchange(&mut client, 50);
    assert_eq!(events(0), first, "{:#?}", handle.stats());
    drop(client);
    end_background(runtime);
}

//! M2: a poster that relies on a searcher, and a searcher that has other things to do (I1, F1 in `leave_search`).
//!
//! In each model some task waits for another one. Whoever counts on the loop of the first task to come back
//! soon has lost: the second task must be run by the other loop.

use std::sync::Arc;

use loom::thread;

use crate::{
    atomics::{Fence, explore, without_fence},
    models::stub::{Loops, Queue, Signal},
    scheduler::idle::{LeftIdle, LeftSearch, Searching},
};

/// Loop 0 searches and finds a task that waits for the posted one; loop 1 parks. `leave` is how loop 0
/// leaves the search.
fn a_searcher_finds_other_work(leave: fn(&Loops, Searching)) {
    explore(move || {
        let loops = Arc::new(Loops::new());
        let posted_ran = Arc::new(Signal::new());
        let evidence = loops.idle.try_start_search().expect("nobody else searches");
        let searcher = {
            let (loops, posted_ran) = (Arc::clone(&loops), Arc::clone(&posted_ran));
            thread::spawn(move || {
                leave(&loops, evidence);
                posted_ran.wait();
            })
        };
        let parker = {
            let (loops, posted_ran) = (Arc::clone(&loops), Arc::clone(&posted_ran));
            thread::spawn(move || {
                assert_eq!(loops.park_until_work(1), 7);
                posted_ran.set();
            })
        };
        loops.queue.push(7);
        loops.notify();
        searcher.join().expect("the searcher does not panic");
        parker.join().expect("the parker does not panic");
    });
}

/// L1 to L4.
fn leave_and_look(loops: &Loops, evidence: Searching) {
    if loops.idle.leave_search(evidence) == LeftSearch::Last {
        loops.look_again();
    }
}

/// L1 and L2 only.
fn leave_without_a_look(loops: &Loops, evidence: Searching) {
    assert_eq!(loops.idle.leave_search(evidence), LeftSearch::Last);
}

/// Loop 0 searches and parks, loop 1 parks, two tasks are posted that wait for each other to start. `take` is what a loop does
/// when it has left idle.
fn two_tasks_that_wait_for_each_other(take: fn(&Loops, LeftIdle) -> Option<usize>) {
    explore(move || {
        let loops = Arc::new(Loops::new());
        let started = Arc::new([Signal::new(), Signal::new()]);
        let evidence = loops.idle.try_start_search().expect("nobody else searches");
        let spawn = |id: usize, mut evidence: Option<Searching>| {
            let (loops, started) = (Arc::clone(&loops), Arc::clone(&started));
            thread::spawn(move || {
                let task = loop {
                    loops.idle.transition_to_idle(id, evidence.take());
                    let left = loops.look_and_sleep(id);
                    if let Some(task) = take(&loops, left) {
                        break task;
                    }
                };
                started[task].set();
                started[1 - task].wait();
            })
        };
        let parkers = [spawn(0, Some(evidence)), spawn(1, None)];
        loops.queue.push(0);
        loops.queue.push(1);
        loops.notify();
        for parker in parkers {
            parker.join().expect("a parker does not panic");
        }
    });
}

/// Takes work after a retreat as if nobody could have relied on this loop.
fn take_without_a_look(loops: &Loops, left: LeftIdle) -> Option<usize> {
    match left {
        LeftIdle::Retracted => loops.queue.steal(),
        LeftIdle::Claimed(_) => loops.take(left),
    }
}

/// Both loops search. Loop 0 has a batch of two in its hands, of which the first task waits for the second; loop 1 finds
/// nothing, ends its search by `stop`, and parks. `thief` moves the rest of the batch into the deque of loop 0 and leaves the search.
fn a_batch_under_way(thief: fn(&Loops, &Queue, Searching), stop: fn(&Loops, Searching)) {
    explore(move || {
        let loops = Arc::new(Loops::new());
        let second_ran = Arc::new(Signal::new());
        let evidence = loops.idle.try_start_search().expect("nobody else searches");
        loops.idle.transition_to_idle(1, None);
        assert!(loops.idle.claim(1));
        let other = {
            let (loops, second_ran) = (Arc::clone(&loops), Arc::clone(&second_ran));
            thread::spawn(move || {
                let LeftIdle::Claimed(evidence) = loops.idle.leave_idle(1) else {
                    panic!("loop 1 was claimed");
                };
                stop(&loops, evidence);
                loops.park_until_work(1);
                second_ran.set();
            })
        };
        thief(&loops, &loops.queue, evidence);
        second_ran.wait();
        other.join().expect("the other loop does not panic");
    });
}

/// Loop 0 runs, and has taken a batch of two from the injector, of which the first task waits for the second. The other loop
/// parks while the batch is under way. `land` is what loop 0 does when the batch is in its deque.
fn a_batch_from_outside(land: fn(&Loops)) {
    explore(move || {
        let loops = Arc::new(Loops::new());
        let second_ran = Arc::new(Signal::new());
        let other = {
            let (loops, second_ran) = (Arc::clone(&loops), Arc::clone(&second_ran));
            thread::spawn(move || {
                loops.park_until_work(1);
                second_ran.set();
            })
        };
        loops.queue.push(2);
        land(&loops);
        second_ran.wait();
        other.join().expect("the other loop does not panic");
    });
}

/// Move first, leave after.
fn move_then_leave(loops: &Loops, own: &Queue, evidence: Searching) {
    own.push(2);
    leave_and_look(loops, evidence);
}

/// The other way round.
fn leave_then_move(loops: &Loops, own: &Queue, evidence: Searching) {
    leave_and_look(loops, evidence);
    own.push(2);
}

/// Ends the search by parking: K1 to K5 once.
fn park_once(loops: &Loops, evidence: Searching) {
    loops.idle.transition_to_idle(1, Some(evidence));
    if let LeftIdle::Claimed(evidence) = loops.look_and_sleep(1) {
        leave_and_look(loops, evidence);
    }
}

#[test]
fn a_searcher_that_leaves_hands_over_what_was_posted() {
    a_searcher_finds_other_work(leave_and_look);
}

#[test]
fn a_loop_that_retracts_hands_over_the_rest() {
    two_tasks_that_wait_for_each_other(Loops::take);
}

#[test]
fn a_batch_under_way_is_seen_by_the_last_searcher() {
    a_batch_under_way(move_then_leave, leave_and_look);
}

#[test]
fn a_batch_under_way_is_seen_by_a_searcher_that_parks() {
    a_batch_under_way(move_then_leave, park_once);
}

#[test]
fn a_batch_from_outside_is_announced_once_it_has_landed() {
    a_batch_from_outside(Loops::notify);
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_that_does_not_announce_a_batch_from_outside_loses_a_wakeup() {
    a_batch_from_outside(|_| {});
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_f1_loses_a_wakeup() {
    without_fence(Fence::F1, || a_searcher_finds_other_work(leave_and_look));
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_f1_in_leave_search_loses_a_wakeup() {
    without_fence(Fence::F1LeaveSearch, || {
        a_searcher_finds_other_work(leave_and_look)
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_f2_loses_a_wakeup() {
    without_fence(Fence::F2, || a_searcher_finds_other_work(leave_and_look));
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_the_last_look_loses_a_wakeup() {
    a_searcher_finds_other_work(leave_without_a_look);
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_a_look_after_the_retreat_loses_a_wakeup() {
    two_tasks_that_wait_for_each_other(take_without_a_look);
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_that_leaves_before_the_batch_has_landed_loses_a_wakeup() {
    a_batch_under_way(leave_then_move, leave_and_look);
}

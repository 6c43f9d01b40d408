//! M1: a post against loops that park (I1, fences F1 and F2).
//!
//! One poster, two parking loops. No execution may end with the item in the queue and both loops asleep; a message
//! for one loop reaches that loop.

use std::sync::Arc;

use loom::thread;

use crate::{
    atomics::{AtomicBool, Fence, Ordering, explore, without_fence},
    models::stub::Loops,
    scheduler::idle::{LeftIdle, LeftSearch},
};

/// The two loops park until one of them has run the item and stopped both.
fn one_item_for_two_parking_loops() {
    explore(|| {
        let loops = Arc::new(Loops::new());
        let stopped = Arc::new(AtomicBool::new(false));
        let parkers = [0, 1].map(|id| {
            let (loops, stopped) = (Arc::clone(&loops), Arc::clone(&stopped));
            thread::spawn(move || park_until_stopped(&loops, &stopped, id))
        });
        loops.queue.push(7);
        loops.notify();
        let runs: usize = parkers
            .map(|parker| parker.join().expect("a parker does not panic"))
            .iter()
            .sum();
        assert_eq!(runs, 1, "the item ran once");
    });
}

/// Returns how many items the loop ran.
fn park_until_stopped(loops: &Loops, stopped: &AtomicBool, id: usize) -> usize {
    loop {
        loops.idle.transition_to_idle(id, None);
        let left = loops.look_and_sleep(id);
        if loops.take(left).is_some() {
            stopped.store(true, Ordering::Release);
            loops.unpark(1 - id);
            return 1;
        }
        if stopped.load(Ordering::Acquire) {
            return 0;
        }
    }
}

/// The queue is the inbox of loop 1 here. Loop 0 does not exist; somebody searches all the time,
/// which must not keep the poster from unparking loop 1.
fn a_message_for_one_parking_loop() {
    explore(|| {
        let loops = Arc::new(Loops::new());
        let evidence = loops.idle.try_start_search().expect("nobody else searches");
        let parker = {
            let loops = Arc::clone(&loops);
            thread::spawn(move || loops.park_until_work(1))
        };
        loops.queue.push(7);
        if loops.idle.claim(1) {
            loops.unpark(1);
        }
        assert_eq!(parker.join().expect("the parker does not panic"), 7);
        assert_eq!(loops.idle.leave_search(evidence), LeftSearch::Last);
    });
}

/// A loop that finds itself claimed before it ever slept has only the word to tell it of the post.
fn a_claim_before_the_sleep() {
    explore(|| {
        let loops = Arc::new(Loops::new());
        let parker = {
            let loops = Arc::clone(&loops);
            thread::spawn(move || {
                loops.idle.transition_to_idle(1, None);
                if let LeftIdle::Claimed(evidence) = loops.idle.leave_idle(1) {
                    assert_eq!(loops.queue.steal(), Some(7), "claimed for this");
                    assert_eq!(loops.idle.leave_search(evidence), LeftSearch::Last);
                }
            })
        };
        loops.queue.push(7);
        loops.notify();
        parker.join().expect("the parker does not panic");
    });
}

#[test]
fn a_claimed_loop_sees_what_it_was_claimed_for() {
    a_claim_before_the_sleep();
}

#[test]
fn a_post_is_never_slept_through() {
    one_item_for_two_parking_loops();
}

#[test]
fn a_message_reaches_its_loop() {
    a_message_for_one_parking_loop();
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_f1_loses_a_wakeup() {
    without_fence(Fence::F1, one_item_for_two_parking_loops);
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_f2_loses_a_wakeup() {
    without_fence(Fence::F2, one_item_for_two_parking_loops);
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_f1_loses_a_message() {
    without_fence(Fence::F1, a_message_for_one_parking_loop);
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_f2_loses_a_message() {
    without_fence(Fence::F2, a_message_for_one_parking_loop);
}

/// A loop that looked before it set its bit, and not again.
#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_the_look_after_the_bit_loses_a_wakeup() {
    explore(|| {
        let loops = Arc::new(Loops::new());
        let parker = {
            let loops = Arc::clone(&loops);
            thread::spawn(move || {
                while loops.queue.is_empty() {
                    loops.idle.transition_to_idle(1, None);
                    let _left = loops.sleep(1);
                }
            })
        };
        loops.queue.push(7);
        loops.notify();
        parker.join().expect("the parker does not panic");
    });
}

//! M10: posts against a loop that rests in a foreign one (fences F1 and F2).
//!
//! The host turns the loop only when its descriptor says so. No execution may end with an item in the queue and
//! the host asleep.

use std::sync::Arc;

use loom::{sync::Notify, thread};

use crate::{
    atomics::{Fence, explore, without_fence},
    models::stub::Queue,
    scheduler::{host::Host, idle::Idle},
};

/// Loop 0 of a runtime of one, its queue, and the descriptor its host waits for.
#[derive(Debug)]
struct Hosted {
    idle: Idle,
    host: Host,
    queue: Queue,
    descriptor: Notify,
}

impl Hosted {
    fn new() -> Self {
        Self {
            idle: Idle::new(),
            host: Host::default(),
            queue: Queue::new(),
            descriptor: Notify::new(),
        }
    }

    fn wake_host(&self) {
        if self.host.claim() {
            self.descriptor.notify();
        }
    }

    /// As `Shared::notify`: nobody is idle, so the host it is.
    fn post(&self, item: usize) {
        self.queue.push(item);
        assert_eq!(self.idle.notify(), None);
        self.wake_host();
    }

    /// As `Home::send`.
    fn post_message(&self, item: usize) {
        self.queue.push(item);
        assert!(!self.idle.claim(0));
        self.wake_host();
    }

    /// The host: a turn, a rest, until all items have run.
    fn turn_until(&self, items: usize, look_again: bool) {
        let mut ran = 0;
        loop {
            self.host.withdraw();
            while self.queue.steal().is_some() {
                ran += 1;
            }
            if ran == items {
                return;
            }
            self.host.announce();
            if look_again && !self.queue.is_empty() {
                self.host.withdraw();
                self.descriptor.notify();
            }
            self.descriptor.wait();
        }
    }
}

fn posts_against_a_host(items: usize, post: fn(&Hosted, usize), look_again: bool) {
    explore(move || {
        let hosted = Arc::new(Hosted::new());
        let host = {
            let hosted = Arc::clone(&hosted);
            thread::spawn(move || hosted.turn_until(items, look_again))
        };
        (0..items).for_each(|item| post(&hosted, item));
        host.join().expect("the host does not panic");
    });
}

#[test]
fn a_host_sees_every_post() {
    posts_against_a_host(1, Hosted::post, true);
}

#[test]
fn a_host_sees_every_message() {
    posts_against_a_host(1, Hosted::post_message, true);
}

#[test]
fn a_host_sees_every_one_of_two_posts() {
    posts_against_a_host(2, Hosted::post, true);
}

#[test]
fn a_host_sees_every_one_of_two_messages() {
    posts_against_a_host(2, Hosted::post_message, true);
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_f1_loses_a_post() {
    without_fence(Fence::F1, || posts_against_a_host(1, Hosted::post, true));
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_f2_loses_a_post() {
    without_fence(Fence::F2, || posts_against_a_host(1, Hosted::post, true));
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_f1_loses_a_message() {
    let posts = || posts_against_a_host(1, Hosted::post_message, true);
    without_fence(Fence::F1, posts);
}

/// A loop that rests without a look at its queues.
#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_the_look_after_the_announcement_loses_a_post() {
    posts_against_a_host(1, Hosted::post, false);
}

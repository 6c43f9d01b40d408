//! M5, the other half: a timer that has come due against a cancel, and against a thief that turns the wheel.
//!
//! The wheel and the inbox are the production ones; what the driver and the rescue do around them is spelled out.

use std::sync::Arc;

use loom::{sync::Notify, thread};

use crate::{
    atomics::{AtomicUsize, Fence, Mutex, Ordering, explore, without_fence},
    driver::wheel::{TimerKey, Wheel},
    scheduler::{
        idle::{Idle, LeftIdle},
        inbox::Inbox,
    },
};

/// The loop of the wheel. Loop 0 is the thief, which does not sleep.
const HOME: usize = 1;
/// All timers of the models are due.
const NOW: u64 = 1 << 30;

/// A loop's wheel with one timer, its inbox, and its sleep.
struct Home {
    wheel: Mutex<Wheel<()>>,
    timer: TimerKey,
    inbox: Inbox<()>,
    idle: Idle,
    bell: Notify,
    /// How often the timer has fired, or was cancelled.
    ends: AtomicUsize,
}

impl Home {
    fn new() -> Self {
        let mut wheel = Wheel::new(0);
        Home {
            timer: wheel.insert(NOW - 1, ()),
            wheel: Mutex::new(wheel),
            inbox: Inbox::new(),
            idle: Idle::new(),
            bell: Notify::new(),
            ends: AtomicUsize::new(0),
        }
    }

    /// As `Driver::take_due`: how many.
    fn take_due(&self) -> usize {
        let mut due = Vec::new();
        let mut wheel = self.wheel.lock().expect("no model panics under this lock");
        let _more_are_due: bool = wheel.advance_to(NOW, 8, &mut due);
        due.len()
    }

    /// As `Driver::cancel_timer`.
    fn cancel(&self) -> Option<()> {
        let mut wheel = self.wheel.lock().expect("no model panics under this lock");
        wheel.cancel(self.timer)
    }

    fn count(&self, ended: usize) {
        self.ends.fetch_add(ended, Ordering::Relaxed);
    }

    /// As `Worker::rescue`, for the timers of callbacks.
    fn send_due_home(&self, wake: fn(&Home)) {
        for _ in 0..self.take_due() {
            assert_eq!(self.inbox.push(()), Ok(()), "the home is not closing");
            wake(self);
        }
    }

    /// As `Shared::wake`.
    fn wake(&self) {
        if self.idle.claim(HOME) {
            self.bell.notify();
        }
    }

    /// The home, out of its long callback: turns and sleeps until the timer has fired.
    fn turn_until_fired(&self) {
        loop {
            let mut messages = Vec::new();
            self.inbox.take(&mut messages);
            let fired = messages.len() + self.take_due();
            if fired > 0 {
                return self.count(fired);
            }
            self.idle.transition_to_idle(HOME, None);
            if self.inbox.is_empty() && self.idle.is_idle(HOME) {
                self.bell.wait();
            }
            if let LeftIdle::Claimed(evidence) = self.idle.leave_idle(HOME) {
                let _nobody_else_searches = self.idle.leave_search(evidence);
            }
        }
    }
}

/// A task that may be anywhere drops its timer, while the home and a thief both turn the wheel.
fn cancel_against_two_who_turn(take_due: fn(&Home) -> usize) {
    explore(move || {
        let home = Arc::new(Home::new());
        let turners = [(); 2].map(|()| {
            let home = Arc::clone(&home);
            thread::spawn(move || home.count(take_due(&home)))
        });
        home.count(home.cancel().iter().count());
        for turner in turners {
            turner.join().expect("who turns does not panic");
        }
        let ends = home.ends.load(Ordering::Relaxed);
        assert_eq!(ends, 1, "a timer fires once or is cancelled");
    });
}

/// A thief takes the timer of a callback just when its home has come back, finds nothing to do, and falls asleep.
fn a_thief_against_a_home_that_parks(wake: fn(&Home)) {
    explore(move || {
        let home = Arc::new(Home::new());
        let thief = {
            let home = Arc::clone(&home);
            thread::spawn(move || home.send_due_home(wake))
        };
        home.turn_until_fired();
        thief.join().expect("the thief does not panic");
        assert!(home.inbox.is_empty(), "it has fired twice");
        assert_eq!(home.ends.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_timer_fires_once_or_is_cancelled() {
    cancel_against_two_who_turn(Home::take_due);
}

#[test]
fn what_a_thief_sends_home_is_never_slept_through() {
    a_thief_against_a_home_that_parks(Home::wake);
}

/// Looks under one lock and takes under another.
#[test]
#[should_panic(expected = "fires once or is cancelled")]
fn mutant_that_lets_go_between_look_and_take_ends_a_timer_twice() {
    cancel_against_two_who_turn(|home| {
        let mut wheel = home.wheel.lock().expect("no model panics under this lock");
        let is_armed = wheel.get_mut(home.timer).is_some();
        drop(wheel);
        let _taken = home.take_due();
        usize::from(is_armed)
    });
}

/// The home was stuck when the thief looked: that does not mean that it still is.
#[test]
#[should_panic(expected = "deadlock")]
fn mutant_that_does_not_wake_the_home_loses_a_timer() {
    a_thief_against_a_home_that_parks(|_| {});
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_f1_loses_a_timer() {
    without_fence(Fence::F1, || a_thief_against_a_home_that_parks(Home::wake));
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_f2_loses_a_timer() {
    without_fence(Fence::F2, || a_thief_against_a_home_that_parks(Home::wake));
}

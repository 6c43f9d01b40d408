//! M5: a timer inserted by another thread against a loop that parks (fences F3 and F5).
//!
//! The clock stands still until the loop sleeps no later than the earliest deadline. If it sleeps later, and
//! nobody unparks it, it sleeps for ever.

use std::sync::Arc;

use loom::{sync::Notify, thread};

use crate::{
    atomics::{Fence, Mutex, explore, without_fence},
    driver::alarm::{Alarm, NEVER},
};

/// A loop's wheel, alarm and selector.
#[derive(Debug)]
struct Sleeper {
    /// Earliest deadlines of up to three timers; [`NEVER`] where there is none.
    wheel: Mutex<[u64; 3]>,
    alarm: Alarm,
    bell: Notify,
}

impl Sleeper {
    fn new() -> Self {
        Self {
            wheel: Mutex::new([NEVER; 3]),
            alarm: Alarm::new(),
            bell: Notify::new(),
        }
    }

    /// T1: changes one timer of the wheel.
    fn set(&self, timer: usize, deadline: u64) {
        let mut wheel = self.wheel.lock().expect("no model panics under this lock");
        wheel[timer] = deadline;
        let earliest = wheel.iter().copied().min().unwrap_or(NEVER);
        self.alarm.publish(earliest);
    }

    /// T2 and T3.
    fn unpark_if_it_sleeps_past(&self, deadline: u64) {
        if self.alarm.sleeps_past(deadline) {
            self.bell.notify();
        }
    }

    fn insert(&self, timer: usize, deadline: u64) {
        self.set(timer, deadline);
        self.unpark_if_it_sleeps_past(deadline);
    }

    /// S1 to S4, until it sleeps no later than `deadline`.
    fn sleep_until(&self, deadline: u64, park: fn(&Alarm) -> u64) {
        while park(&self.alarm) > deadline {
            self.bell.wait();
            self.alarm.unpark();
        }
        self.alarm.unpark();
    }
}

/// Two threads arm one timer each, the loop must end up sleeping until the earlier one.
fn two_inserters(insert: fn(&Sleeper, usize, u64), park: fn(&Alarm) -> u64) {
    explore(move || {
        let sleeper = Arc::new(Sleeper::new());
        let inserter = {
            let sleeper = Arc::clone(&sleeper);
            thread::spawn(move || insert(&sleeper, 0, 50))
        };
        let parker = {
            let sleeper = Arc::clone(&sleeper);
            thread::spawn(move || sleeper.sleep_until(50, park))
        };
        insert(&sleeper, 1, 100);
        inserter.join().expect("the inserter does not panic");
        parker.join().expect("the parker does not panic");
        assert_eq!(sleeper.alarm.next_deadline(), 50);
    });
}

/// One thread arms a timer and cancels it, which must not hide the later one that another thread arms.
fn arm_and_cancel_against_insert() {
    explore(|| {
        let sleeper = Arc::new(Sleeper::new());
        let canceller = {
            let sleeper = Arc::clone(&sleeper);
            thread::spawn(move || {
                sleeper.insert(0, 50);
                sleeper.set(0, NEVER);
            })
        };
        let parker = {
            let sleeper = Arc::clone(&sleeper);
            thread::spawn(move || {
                loop {
                    match sleeper.alarm.park() {
                        100 => break,
                        NEVER => sleeper.bell.wait(),
                        // It sleeps until the timer is due, and fires it, unless it was cancelled meanwhile.
                        _ => sleeper.set(0, NEVER),
                    }
                    sleeper.alarm.unpark();
                }
                sleeper.alarm.unpark();
            })
        };
        sleeper.insert(1, 100);
        canceller.join().expect("the canceller does not panic");
        parker.join().expect("the parker does not panic");
    });
}

/// Parks without S3: sleeps until what it announced.
fn park_without_a_second_look(alarm: &Alarm) -> u64 {
    let announced = alarm.next_deadline();
    announced.max(alarm.park())
}

#[test]
fn an_earlier_timer_is_never_slept_through() {
    two_inserters(Sleeper::insert, Alarm::park);
}

#[test]
fn a_cancelled_timer_does_not_hide_a_later_one() {
    arm_and_cancel_against_insert();
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_f3_sleeps_through_a_timer() {
    without_fence(Fence::F3, || two_inserters(Sleeper::insert, Alarm::park));
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_f5_sleeps_through_a_timer() {
    without_fence(Fence::F5, || two_inserters(Sleeper::insert, Alarm::park));
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_the_second_look_sleeps_through_a_timer() {
    two_inserters(Sleeper::insert, park_without_a_second_look);
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_that_asks_before_it_publishes_sleeps_through_a_timer() {
    two_inserters(
        |sleeper, timer, deadline| {
            sleeper.unpark_if_it_sleeps_past(deadline);
            sleeper.set(timer, deadline);
        },
        Alarm::park,
    );
}

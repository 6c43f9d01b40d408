//! M6: a loop that falls asleep for good against one that begins to run, and against one that ends its watch (I6).
//!
//! The runner is a hog: it ends only when some other loop has looked after it. A loop that sleeps with a limit looks
//! by itself; one that sleeps deeply has to be woken.

use std::sync::Arc;

use loom::{sync::Notify, thread};

use crate::{
    atomics::{Fence, explore, without_fence},
    models::stub::Signal,
    scheduler::{
        pulse::Pulse,
        watch::{Sleep, Watch},
    },
};

/// A runtime of three loops, as far as the watch knows it.
#[derive(Debug)]
struct Loops {
    watch: Watch,
    pulses: [Pulse; 3],
    bells: [Notify; 3],
    /// Somebody looks after the hog.
    rescued: Signal,
}

/// What differs in the mutants.
#[derive(Clone, Copy)]
struct Steps {
    begin: fn(&Loops, usize),
    sleep: fn(&Loops, usize) -> Sleep,
}

const PRODUCTION: Steps = Steps {
    begin: |loops, id| {
        loops.pulses[id].beat();
        loops.leave(id);
    },
    sleep: |loops, id| {
        let nobody_runs = || loops.nobody_runs_but(id);
        loops.watch.fall_asleep(id, true, nobody_runs)
    },
};

impl Loops {
    fn new() -> Self {
        Loops {
            watch: Watch::default(),
            pulses: [Pulse::default(), Pulse::default(), Pulse::default()],
            bells: [Notify::new(), Notify::new(), Notify::new()],
            rescued: Signal::new(),
        }
    }

    fn nobody_runs_but(&self, id: usize) -> bool {
        let mut pulses = self.pulses.iter().enumerate();
        pulses.all(|(other, pulse)| other == id || !pulse.look().is_running())
    }

    /// V1.
    fn leave(&self, id: usize) {
        if let Some(deep) = self.watch.leave(id) {
            self.bells[deep].notify();
        }
    }

    /// Runs until it is rescued.
    fn hog(&self, id: usize, steps: Steps) {
        (steps.begin)(self, id);
        self.rescued.wait();
    }

    /// Sleeps once as one that has rested, and afterwards, as one that was woken, with a limit: it looks.
    fn sleep_and_look(&self, id: usize, steps: Steps) {
        if (steps.sleep)(self, id) == Sleep::Deep {
            self.bells[id].wait();
        }
        self.watch.wake(id);
        self.rescued.set();
    }
}

/// Loop 0 begins to run while loop 1, the only other, falls asleep.
fn one_sleeps_while_one_begins(steps: Steps) {
    explore(move || {
        let loops = Arc::new(Loops::new());
        let sleeper = {
            let loops = Arc::clone(&loops);
            thread::spawn(move || loops.sleep_and_look(1, steps))
        };
        let hog = {
            let loops = Arc::clone(&loops);
            thread::spawn(move || loops.hog(0, steps))
        };
        sleeper.join().expect("the sleeper does not panic");
        hog.join().expect("the hog does not panic");
    });
}

/// Loop 0 runs on and on; loop 2 keeps watch and begins to run, and never looks again; loop 1 falls asleep.
fn the_watch_is_handed_over(steps: Steps) {
    explore(move || {
        let loops = Arc::new(Loops::new());
        loops.pulses[0].beat();
        assert_eq!(loops.watch.fall_asleep(2, false, || false), Sleep::Watch);
        let sleeper = {
            let loops = Arc::clone(&loops);
            thread::spawn(move || loops.sleep_and_look(1, steps))
        };
        let watcher = {
            let loops = Arc::clone(&loops);
            thread::spawn(move || loops.hog(2, steps))
        };
        sleeper.join().expect("the sleeper does not panic");
        watcher.join().expect("the watcher does not panic");
    });
}

/// Loop 0 begins to run while loops 1 and 2, all the others, fall asleep.
fn two_sleep_while_one_begins(steps: Steps) {
    explore(move || {
        let loops = Arc::new(Loops::new());
        let sleepers = [1, 2].map(|id| {
            let loops = Arc::clone(&loops);
            thread::spawn(move || {
                loops.sleep_and_look(id, steps);
                // The model ends with the rescue: the other need not sleep on.
                loops.bells[3 - id].notify();
            })
        });
        loops.hog(0, steps);
        for sleeper in sleepers {
            sleeper.join().expect("a sleeper does not panic");
        }
    });
}

/// Loop 0 runs; loop 2 keeps watch and is not turned any more, as loop 0 of a program whose host is busy; loop 1
/// falls asleep.
fn the_watch_ends(end: fn(&Loops, usize)) {
    explore(move || {
        let loops = Arc::new(Loops::new());
        loops.pulses[0].beat();
        assert_eq!(loops.watch.fall_asleep(2, false, || false), Sleep::Watch);
        let sleeper = {
            let loops = Arc::clone(&loops);
            thread::spawn(move || loops.sleep_and_look(1, PRODUCTION))
        };
        end(&loops, 2);
        loops.rescued.wait();
        sleeper.join().expect("the sleeper does not panic");
    });
}

#[test]
fn one_of_two_sleepers_watches_who_begins_to_run() {
    two_sleep_while_one_begins(PRODUCTION);
}

#[test]
fn who_is_not_turned_any_more_is_followed() {
    the_watch_ends(|loops, id| {
        loops.pulses[id].rest();
        if loops.watch.is_kept_by(id) {
            loops.leave(id);
        }
    });
}

#[test]
fn who_begins_to_run_is_watched() {
    one_sleeps_while_one_begins(PRODUCTION);
}

#[test]
fn who_ends_its_watch_is_followed() {
    the_watch_is_handed_over(PRODUCTION);
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_f4_of_the_sleeper_leaves_a_loop_unwatched() {
    without_fence(Fence::F4Sleep, || one_sleeps_while_one_begins(PRODUCTION));
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_f4_of_the_runner_leaves_a_loop_unwatched() {
    without_fence(Fence::F4Leave, || one_sleeps_while_one_begins(PRODUCTION));
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_f4_hands_nothing_over() {
    without_fence(Fence::F4Leave, || the_watch_is_handed_over(PRODUCTION));
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_that_runs_before_its_pulse_says_so_is_unwatched() {
    one_sleeps_while_one_begins(Steps {
        begin: |loops, id| {
            loops.leave(id);
            loops.pulses[id].beat();
        },
        ..PRODUCTION
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_that_looks_before_it_says_that_it_sleeps_is_not_woken() {
    one_sleeps_while_one_begins(Steps {
        sleep: |loops, id| {
            let nobody_runs = loops.nobody_runs_but(id);
            loops.watch.fall_asleep(id, true, || nobody_runs)
        },
        ..PRODUCTION
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_without_f4_of_two_sleepers_leaves_a_loop_unwatched() {
    without_fence(Fence::F4Sleep, || two_sleep_while_one_begins(PRODUCTION));
}

/// A pulse that rests between two turns: who falls asleep in the gap takes the loop for one that sleeps too.
#[test]
#[should_panic(expected = "deadlock")]
fn mutant_that_rests_between_two_turns_is_unwatched() {
    one_sleeps_while_one_begins(Steps {
        begin: |loops, id| {
            (PRODUCTION.begin)(loops, id);
            loops.pulses[id].rest();
            loops.pulses[id].beat();
        },
        ..PRODUCTION
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn mutant_that_keeps_a_watch_it_does_not_stand_hands_nothing_over() {
    the_watch_ends(|loops, id| loops.pulses[id].rest());
}

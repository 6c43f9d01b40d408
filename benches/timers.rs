//! What does a timer cost, and does it matter how many others are armed?
//!
//! Servers arm a timer for nearly every request and almost none of them fires. The figure is
//! nanoseconds for one timer, on one loop.
//!
//! - `churn`: arm and cancel with no other timer about; what a `timeout` around something quick costs.
//! - `among 1 M`: the same while a million others are armed, each time a new one in the place of the
//!   oldest, with deadlines spread over an hour: what the million do to the caches and to the wheel.
//!   Once as `sleep` (the future, polled once and dropped), once as `call_later` (a boxed callback).
//! - `fire`: arm 1,000 callbacks for one moment, and let it come. The clock is turned by hand, so no
//!   waiting counts, but the loop's turns do.
//!
//! Bad answers: churn above 110 ns or, among a million, above 400 ns (tokio: 100-330 and 230-400, smol:
//! 110 and 730); `fire` above 500 ns; anything that grows with the logarithm of what is armed.
//!
//! Not measured here: how late a timer fires.

mod settings;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use criterion::Criterion;
use criterion::measurement::{Measurement, WallTime};
use fastrand::Rng;
use futures_lite::future::poll_once;
use garland::{Builder, LocalLoop, ManualClock, Runtime, Sleep, TimerHandle};

/// Timers that are armed throughout `among 1 M`.
const ARMED: usize = 1_000_000;
/// No deadline comes while the bench runs.
const DELAY_S_MIN: u64 = 600;
const DELAY_S_SPREAD: u64 = 3_600;
/// The seed of the delays: every run arms the same timers.
const SEED: u64 = 1;
/// Callbacks that `fire` lets come due at one moment.
const DUE: u64 = 1_000;

fn main() {
    let mut criterion = settings::criterion();
    churn(&mut criterion);
    among_a_million_sleeps(&mut criterion);
    among_a_million_callbacks(&mut criterion);
    fire(&mut criterion);
    criterion.final_summary();
}

fn churn(criterion: &mut Criterion) {
    let runtime = runtime_on(Builder::new());
    criterion.bench_function("timer/churn", |bencher| {
        bencher.iter_custom(|timers| {
            let timed = async {
                let mut rng = Rng::with_seed(SEED);
                let start = WallTime.start();
                for _ in 0..timers {
                    // Polled where it lies, as in a `timeout`.
                    let mut sleep = garland::sleep(delay(&mut rng));
                    assert!(poll_once(&mut sleep).await.is_none(), "it is not due");
                }
                WallTime.end(start)
            };
            runtime.block_on(timed).expect("nobody stops the loop")
        });
    });
}

fn among_a_million_sleeps(criterion: &mut Criterion) {
    let runtime = runtime_on(Builder::new());
    let mut rng = Rng::with_seed(SEED);
    let mut armed: Vec<Sleep> = Vec::new();
    criterion.bench_function("timer/among 1 M, sleep", |bencher| {
        bencher.iter_custom(|timers| {
            let timed = async {
                while armed.len() < ARMED {
                    armed.push(armed_sleep(&mut rng).await);
                }
                let start = WallTime.start();
                for oldest in round_and_round(timers) {
                    armed[oldest] = armed_sleep(&mut rng).await;
                }
                WallTime.end(start)
            };
            runtime.block_on(timed).expect("nobody stops the loop")
        });
    });
}

fn among_a_million_callbacks(criterion: &mut Criterion) {
    let runtime = runtime_on(Builder::new());
    let mut rng = Rng::with_seed(SEED);
    let mut armed: Vec<TimerHandle> = Vec::new();
    let mut arm = || {
        let delay = delay(&mut rng);
        runtime
            .local()
            .call_later(delay, || panic!("it is not due"))
    };
    criterion.bench_function("timer/among 1 M, call_later", |bencher| {
        bencher.iter_custom(|timers| {
            armed.resize_with(ARMED, &mut arm);
            let start = WallTime.start();
            for oldest in round_and_round(timers) {
                let replaced = std::mem::replace(&mut armed[oldest], arm());
                assert!(replaced.cancel(), "no timer comes due");
            }
            WallTime.end(start)
        });
    });
}

fn fire(criterion: &mut Criterion) {
    let runtime = runtime_on(Builder::new().clock(ManualClock::auto_advance()));
    criterion.bench_function("timer/fire", |bencher| {
        bencher.iter_custom(|timers| {
            let start = WallTime.start();
            let fired = Rc::new(Cell::new(0));
            let all = async {
                let home = LocalLoop::current().expect("block_on runs a loop");
                while fired.get() < timers {
                    for _ in 0..DUE.min(timers - fired.get()) {
                        let fired = Rc::clone(&fired);
                        home.call_later(Duration::from_millis(1), move || {
                            fired.set(fired.get() + 1);
                        });
                    }
                    garland::sleep(Duration::from_millis(2)).await;
                }
            };
            runtime.block_on(all).expect("nobody stops the loop");
            assert_eq!(fired.get(), timers, "each timer fires once");
            WallTime.end(start)
        });
    });
}

fn runtime_on(builder: Builder) -> Runtime {
    builder.loops(1).build().expect("a runtime can be built")
}

fn delay(rng: &mut Rng) -> Duration {
    Duration::from_nanos(1_000_000_000 * DELAY_S_MIN + rng.u64(..1_000_000_000 * DELAY_S_SPREAD))
}

async fn armed_sleep(rng: &mut Rng) -> Sleep {
    let mut sleep = garland::sleep(delay(rng));
    assert!(poll_once(&mut sleep).await.is_none(), "it is not due");
    sleep
}

/// The places of the million, oldest first, as often as asked for.
fn round_and_round(times: u64) -> impl Iterator<Item = usize> {
    (0..times).map(|nth| usize::try_from(nth).expect("64-bit only") % ARMED)
}

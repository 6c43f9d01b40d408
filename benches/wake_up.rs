//! How long does a loop that sleeps take to run what wakes it?
//!
//! The figure is the mean time from the cause to the first instruction of the task or callback.
//!
//! - `call from a thread`: `call_soon_threadsafe` on a loop that is parked. The way goes through the inbox, the
//!   wake-up descriptor and the kernel's scheduler.
//! - `thread from a thread`: the same with a plain thread that is parked: the kernel's part, as a floor.
//! - `1,000 sleeps of 1 ms`: how late sleeps end that were begun together; the mean over all of them. A line below it
//!   says how late the latest ones of a thousand are: p50, p99 and maximum, each as the median over all thousands.
//!
//! Bad answers: a call above twice the floor; sleeps above 100 us, in the mean (smol: 83-93, tokio, which counts
//! in milliseconds: 1,300-1,600) or at p99.
//!
//! Not measured here: a wake-up by a socket (`versus` does, with one connection).

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures in real time, outside of the runtime"
)]
#![expect(clippy::print_stdout, reason = "criterion shows means alone")]

mod settings;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::Criterion;
use garland::Builder;

/// From one wake-up to the next: long enough for a loop to have gone to sleep.
const PAUSE: Duration = Duration::from_micros(300);
const SLEEP: Duration = Duration::from_millis(1);
/// Sleeps that are under way at once.
const SLEEPS: u64 = 1_000;

fn main() {
    let mut criterion = settings::criterion();
    call_from_a_thread(&mut criterion);
    thread_from_a_thread(&mut criterion);
    sleeps(&mut criterion);
    criterion.final_summary();
}

fn call_from_a_thread(criterion: &mut Criterion) {
    let runtime = Builder::new().loops(1).start();
    let runtime = runtime.expect("a runtime can be started");
    criterion.bench_function("wake_up/call from a thread", |bencher| {
        bencher.iter_custom(|calls| {
            let (sender, called) = mpsc::channel();
            let latency = |_| {
                thread::sleep(PAUSE);
                let (sender, start) = (sender.clone(), Instant::now());
                let call = runtime.handle().call_soon_threadsafe(move || {
                    sender.send(start.elapsed()).expect("somebody waits for it");
                });
                let latency = called.recv().expect("the loop runs it");
                drop(call);
                latency
            };
            (0..calls).map(latency).sum()
        });
    });
}

fn thread_from_a_thread(criterion: &mut Criterion) {
    criterion.bench_function("wake_up/thread from a thread", |bencher| {
        bencher.iter_custom(|calls| {
            let (to_thread, starts) = mpsc::channel::<Instant>();
            let (sender, latencies) = mpsc::channel();
            thread::scope(|scope| {
                scope.spawn(move || {
                    for start in starts {
                        let latency = start.elapsed();
                        sender.send(latency).expect("somebody waits for it");
                    }
                });
                let latency = |_| {
                    thread::sleep(PAUSE);
                    to_thread.send(Instant::now()).expect("the thread waits");
                    latencies.recv().expect("the thread answers")
                };
                let sum = (0..calls).map(latency).sum();
                drop(to_thread);
                sum
            })
        });
    });
}

fn sleeps(criterion: &mut Criterion) {
    let runtime = Builder::new().loops(1).build();
    let runtime = runtime.expect("a runtime can be built");
    let mut thousands: Vec<[Duration; 3]> = Vec::new();
    criterion.bench_function("wake_up/1,000 sleeps of 1 ms", |bencher| {
        bencher.iter_custom(|sleeps| {
            let late = || async {
                let start = Instant::now();
                garland::sleep(SLEEP).await;
                start.elapsed().saturating_sub(SLEEP)
            };
            let mut sum = Duration::ZERO;
            let mut rest = sleeps;
            while rest > 0 {
                let batch = rest.min(SLEEPS);
                rest -= batch;
                let all: Vec<_> = (0..batch).map(|_| runtime.handle().spawn(late())).collect();
                let mut latenesses = Vec::with_capacity(all.len());
                let batch = async {
                    for one in all {
                        latenesses.push(one.await.expect("a sleeping task does not panic"));
                    }
                };
                runtime.block_on(batch).expect("nobody stops the loop");
                sum += latenesses.iter().sum::<Duration>();
                latenesses.sort_unstable();
                if latenesses.len() as u64 == SLEEPS {
                    thousands.push([500, 990, 999].map(|nth| latenesses[nth]));
                }
            }
            sum
        });
    });
    let [p50, p99, max] = [0, 1, 2].map(|nth| {
        thousands.sort_unstable_by_key(|thousand| thousand[nth]);
        thousands
            .get(thousands.len() / 2)
            .map(|thousand| thousand[nth])
    });
    if let (Some(p50), Some(p99), Some(max)) = (p50, p99, max) {
        println!("of a thousand: p50 {p50:?}, p99 {p99:?}, max {max:?} late");
    }
}

//! What does it cost to pass tasks through a loop's deque, and what does a thief make of it?
//!
//! The figure is nanoseconds for one task, of a thousand that one task spawns and detaches at once: they fill the deque
//! of its loop, and are taken from it one by one, by this loop or by another one that has nothing to do.
//!
//! - `empty`: tasks that do nothing. A second loop can only disturb: what it takes, it could not have
//!   done more cheaply than it cost to take.
//! - `of 5 us`: tasks worth a thief's while. With two loops on two free CPUs the figure should be half of that with one.
//!
//! Bad answers: empty tasks more than 1.2 times as dear on two loops as on one (the thief fights for each of them);
//! tasks of 5 us above 3.5 us on two loops (they are stolen too late, or one by one), or above 5.5 us on one.
//!
//! Not measured here: the injector (`spawn`, from outside), and stealing from a loop that is stuck.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures in real time, outside of the runtime"
)]

mod settings;

use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_channel::Sender;
use criterion::measurement::{Measurement, WallTime};
use criterion::{BenchmarkId, Criterion};
use garland::{Builder, Runtime};

/// Tasks that are in the deque at once.
const BATCH: u64 = 1_000;
const WORK: Duration = Duration::from_micros(5);
const LOOPS: [usize; 2] = [1, 2];

fn main() {
    let mut criterion = settings::criterion();
    deque(&mut criterion);
    criterion.final_summary();
}

fn deque(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("deque");
    for loops in LOOPS {
        let runtime = Builder::new().loops(loops).build();
        let runtime = runtime.expect("a runtime can be built");
        for (name, work) in [("empty", Duration::ZERO), ("of 5 us", WORK)] {
            let id = BenchmarkId::new(name, format_args!("loops = {loops}"));
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|tasks| time_of(&runtime, tasks, work));
            });
        }
    }
    group.finish();
}

/// The time from the first spawn to the end of the last task.
fn time_of(runtime: &Runtime, tasks: u64, work: Duration) -> Duration {
    let spawner = async move {
        let start = WallTime.start();
        let mut rest = tasks;
        while rest > 0 {
            let batch = rest.min(BATCH);
            rest -= batch;
            let left = Arc::new(AtomicU64::new(batch));
            let (done, is_done) = async_channel::bounded(1);
            for _ in 0..batch {
                drop(garland::spawn(step(work, Arc::clone(&left), done.clone())));
            }
            is_done.recv().await.expect("the last one sends");
        }
        WallTime.end(start)
    };
    let handle = runtime.handle().spawn(spawner);
    let timed = runtime.block_on(handle).expect("nobody stops the loop");
    timed.expect("the spawner does not panic")
}

async fn step(work: Duration, left: Arc<AtomicU64>, done: Sender<()>) {
    let start = Instant::now();
    while start.elapsed() < work {
        hint::spin_loop();
    }
    if left.fetch_sub(1, Ordering::AcqRel) == 1 {
        done.try_send(())
            .expect("there is room for the one message");
    }
}

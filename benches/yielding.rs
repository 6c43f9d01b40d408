//! What does it cost a task to let the others go first?
//!
//! The figure is nanoseconds for one `yield_now`, over all tasks: wake itself, go to the back of the
//! queue, be taken from there and polled again.
//!
//! - `tasks = 1`: nobody else is ready, so this is the shortest way round the loop.
//! - `tasks = 64`: the queue is never empty; a turn's fixed costs are shared by many steps.
//!
//! On two loops, 64 tasks are work for both: the figure is wall-clock time for a yield by either.
//!
//! Bad answers: more than 130 ns on one loop (tokio: 60-90, smol: 130); one task much dearer than 64
//! (the loop asks the kernel too often); two loops dearer than one with 64 tasks (they fight over the
//! tasks instead of sharing them; tokio: 43, smol: 240).

mod settings;

use std::time::Duration;

use criterion::measurement::{Measurement, WallTime};
use criterion::{BenchmarkId, Criterion};
use garland::{Builder, Runtime};

const MANY: u64 = 64;

fn main() {
    let mut criterion = settings::criterion();
    yielding(&mut criterion);
    criterion.final_summary();
}

fn yielding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("yield");
    for (loops, tasks) in [(1, 1), (1, MANY), (2, 1), (2, MANY)] {
        let runtime = Builder::new().loops(loops).build();
        let runtime = runtime.expect("a runtime can be built");
        let name = BenchmarkId::new(format!("tasks = {tasks}"), format_args!("loops = {loops}"));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|yields| time_of(&runtime, yields, tasks));
        });
    }
    group.finish();
}

/// The time for that many yields, dealt out evenly to the tasks.
fn time_of(runtime: &Runtime, yields: u64, tasks: u64) -> Duration {
    let start = WallTime.start();
    let share = |task| yields / tasks + u64::from(task < yields % tasks);
    let handles: Vec<_> = (0..tasks)
        .map(|task| runtime.handle().spawn(yield_often(share(task))))
        .collect();
    let all = async {
        for handle in handles {
            handle.await.expect("a yielding task does not panic");
        }
    };
    runtime.block_on(all).expect("nobody stops the loop");
    WallTime.end(start)
}

async fn yield_often(times: u64) {
    for _ in 0..times {
        garland::yield_now().await;
    }
}

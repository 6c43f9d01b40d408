//! What does a task cost, from `spawn` to its result?
//!
//! The figure is nanoseconds for one empty movable task: allocate, queue, run, hand the result over.
//!
//! - `one_by_one`: spawn, await, next; the latency of a task that is needed at once.
//! - `batches_of_100`: spawn 100, await 100; what a fan-out costs a task.
//! - `from_outside`: a thread that is no loop spawns 1,000 and waits for all of them; what the way
//!   through the injector and the wake-up of a loop cost, shared by a thousand.
//!
//! On two loops the first two also show what it costs to let the second loop take part: tasks as
//! empty as these are not worth its help.
//!
//! Bad answers: more than 650 ns one by one or 500 ns in batches (tokio: 380-650 and 230-480, smol:
//! 330-520 and 260-580); two loops more than twice as slow as one; from outside more than 1.1 us
//! (tokio: 0.7-1.1), or more with two loops than with one.
//!
//! Not measured here: tasks that do something, large futures, `spawn_local`.

mod settings;

use std::time::Duration;

use criterion::measurement::{Measurement, WallTime};
use criterion::{BenchmarkId, Criterion};
use futures_lite::future;
use garland::{Builder, JoinHandle, Runtime};

const BATCH: u64 = 100;
/// Tasks from outside that are under way at once: the bound of the injector in this bench.
const OUTSIDE_BATCH: u64 = 1_000;
const LOOPS: [usize; 2] = [1, 2];

fn main() {
    let mut criterion = settings::criterion();
    spawn(&mut criterion);
    criterion.final_summary();
}

fn spawn(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("spawn");
    for loops in LOOPS {
        let name = |what| BenchmarkId::new(what, format_args!("loops = {loops}"));
        let builder = Builder::new().loops(loops);
        let runtime = builder.clone().build().expect("a runtime can be built");
        group.bench_function(name("one_by_one"), |bencher| {
            bencher.iter_custom(|tasks| in_batches(&runtime, tasks, 1));
        });
        group.bench_function(name("batches_of_100"), |bencher| {
            bencher.iter_custom(|tasks| in_batches(&runtime, tasks, BATCH));
        });
        drop(runtime);
        let runtime = builder.start().expect("a runtime can be started");
        group.bench_function(name("from_outside"), |bencher| {
            bencher.iter_custom(|tasks| {
                let mut handles = Vec::new();
                let start = WallTime.start();
                for batch in batches(tasks, OUTSIDE_BATCH) {
                    handles.extend((0..batch).map(|_| runtime.handle().spawn(async {})));
                    future::block_on(join_all(&mut handles));
                }
                WallTime.end(start)
            });
        });
    }
    group.finish();
}

/// The time for that many tasks, spawned and awaited by a task like them.
fn in_batches(runtime: &Runtime, tasks: u64, size: u64) -> Duration {
    let spawner = async move {
        let mut handles = Vec::new();
        let start = WallTime.start();
        for batch in batches(tasks, size) {
            handles.extend((0..batch).map(|_| garland::spawn(async {})));
            join_all(&mut handles).await;
        }
        WallTime.end(start)
    };
    let spawner = runtime.handle().spawn(spawner);
    let ended = runtime.block_on(spawner).expect("nobody stops the loop");
    ended.expect("the spawner does not panic")
}

/// `total` cut into pieces of `size`; the last one holds what is left.
fn batches(total: u64, size: u64) -> impl Iterator<Item = u64> {
    (0..total.div_ceil(size)).map(move |nth| size.min(total - nth * size))
}

async fn join_all(handles: &mut Vec<JoinHandle<()>>) {
    for handle in handles.drain(..) {
        handle.await.expect("an empty task does not panic");
    }
}

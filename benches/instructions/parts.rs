//! What do the parts of the runtime cost, in instructions?
//!
//! The same questions as `spawn`, `yielding`, `ping_pong` and `timers`, answered by a count that does not jitter: each
//! bench does one thing [`TIMES`] times on one loop that stands already, under callgrind. **Divide by a thousand.** Each
//! has a hard limit, its count when it was last looked at and a tenth more; who makes one cheaper lowers its limit.
//!
//!     cargo install --locked gungraun-runner --version 0.20.0      # once; valgrind is needed too
//!     cargo bench --manifest-path benches/instructions/Cargo.toml
//!
//! The requests of a server are counted from outside, by `.ci/instructions.py`: there the client must not count.
//!
//! Not counted here: system calls and what they cost the kernel, locked instructions (each counts as one and takes
//! as long as twenty), cache misses.

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use async_channel::bounded;
use garland::{Builder, LocalLoop, ManualClock, Pin, Runtime};
use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};

/// What each bench does so many times.
const TIMES: usize = 1_000;
const BATCH: usize = 100;
const DELAY: Duration = Duration::from_secs(1);

/// `future` on a loop that stands already; the loop comes back, so that its end is not counted.
fn count<F: Future>(runtime: Runtime, future: F) -> Runtime {
    runtime.block_on(future).expect("nobody stops the loop");
    runtime
}

/// Fails where a thousand times of something have become more than `instructions`.
fn at_most(instructions: u64) -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::with_args(["--cache-sim=no"]);
    callgrind.hard_limits([(EventKind::Ir, instructions)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

/// A loop that is warm: what grows has grown.
fn runtime() -> Runtime {
    let builder = Builder::new().loops(1).pin(Pin::Off);
    // Time passes only where a bench waits for it.
    let runtime = builder.clock(ManualClock::auto_advance()).build();
    count(
        runtime.expect("a runtime can be built"),
        spawn_and_join(TIMES, 2),
    )
}

async fn spawn_and_join(batch: usize, batches: usize) {
    let mut handles = Vec::with_capacity(batch);
    for _ in 0..batches {
        handles.extend((0..batch).map(|_| garland::spawn(async {})));
        for handle in handles.drain(..) {
            handle.await.expect("an empty task does not panic");
        }
    }
}

// A task from `spawn` to its result.
#[library_benchmark]
#[bench::one_by_one(args = (runtime(), 1), config = at_most(2_190_000))]
#[bench::in_batches(args = (runtime(), BATCH), config = at_most(1_425_000))]
fn spawn(runtime: Runtime, batch: usize) -> Runtime {
    count(runtime, spawn_and_join(batch, TIMES / batch))
}

// One task that lets the others go first, of whom there are none.
#[library_benchmark]
#[bench::alone(args = (runtime()), config = at_most(330_000))]
fn yielding(runtime: Runtime) -> Runtime {
    let often = async {
        for _ in 0..TIMES {
            garland::yield_now().await;
        }
    };
    let task = runtime.handle().spawn(often);
    count(runtime, task)
}

// A message to another task and one back, two channels of capacity 1.
#[library_benchmark]
#[bench::between_tasks(args = (runtime()), config = at_most(2_730_000))]
fn round_trip(runtime: Runtime) -> Runtime {
    let (to_server, requests) = bounded(1);
    let (to_client, answers) = bounded(1);
    let server = async move {
        while let Ok(message) = requests.recv().await {
            to_client
                .send(message)
                .await
                .expect("the client waits for it");
        }
    };
    let client = async move {
        for message in 0..TIMES {
            to_server
                .send(message)
                .await
                .expect("the server waits for it");
            assert_eq!(answers.recv().await, Ok(message));
        }
    };
    drop(runtime.handle().spawn(server));
    let client = runtime.handle().spawn(client);
    count(runtime, client)
}

// A promise that is made, waited for and kept by a callback.
#[library_benchmark]
#[bench::kept(args = (runtime()), config = at_most(2_510_000))]
fn promise(runtime: Runtime) -> Runtime {
    count(runtime, async {
        for message in 0..TIMES {
            let (promise, future) = here().create_future();
            here().call_soon(move || {
                promise.set_result(message).expect("nobody else does");
            });
            assert_eq!(future.await, Ok(message));
        }
    })
}

// Callbacks that run in the next turn.
#[library_benchmark]
#[bench::soon(args = (runtime()), config = at_most(518_000))]
fn callbacks(runtime: Runtime) -> Runtime {
    count(runtime, async {
        let run = Rc::new(Cell::new(0));
        for _ in 0..TIMES {
            let run = Rc::clone(&run);
            here().call_soon(move || run.set(run.get() + 1));
        }
        garland::yield_now().await;
        assert_eq!(run.get(), TIMES);
    })
}

// Timers that are armed and never fire.
#[library_benchmark]
#[bench::cancelled(args = (runtime()), config = at_most(690_000))]
fn call_later(runtime: Runtime) -> Runtime {
    count(runtime, async {
        for _ in 0..TIMES {
            let timer = here().call_later(black_box(DELAY), || panic!("it is cancelled"));
            assert!(timer.cancel());
        }
    })
}

// Timers that come due at one moment.
#[library_benchmark]
#[bench::fired(args = (runtime()), config = at_most(1_135_000))]
fn fire(runtime: Runtime) -> Runtime {
    count(runtime, async {
        let fired = Rc::new(Cell::new(0));
        for _ in 0..TIMES {
            let fired = Rc::clone(&fired);
            here().call_later(black_box(DELAY), move || fired.set(fired.get() + 1));
        }
        garland::sleep(2 * DELAY).await;
        assert_eq!(fired.get(), TIMES);
    })
}

fn here() -> LocalLoop {
    LocalLoop::current().expect("block_on runs a loop")
}

library_benchmark_group!(
    name = parts,
    benchmarks = [
        spawn, yielding, round_trip, promise, callbacks, call_later, fire
    ]
);
main!(library_benchmark_groups = parts);

//! How fast do two tasks answer each other?
//!
//! The figure is nanoseconds for one round trip over two async-channels of capacity 1: two sends, two
//! wake-ups, two switches of task.
//!
//! - `on 1 loop`: both on the same loop; no thread sleeps, no kernel is asked.
//! - `movable on 2 loops`: the runtime decides; as only one of them is ever ready, the best it can
//!   do is to leave both where they are.
//! - `across 2 loops`: bound to different loops by `spawn_on`, so that each message crosses threads. A loop
//!   that has gone to sleep in its selector must be woken by a system call, so this measures how long
//!   it looks for work before it sleeps, too.
//! - `across 2 threads`: the same two parties as plain threads on the same two cores, blocking in the
//!   same channels: what the kernel and the machine charge for it, as a floor for the line above.
//!
//! Bad answers: more than 480 ns on one loop (tokio: 320, smol: 680); movable tasks more than twice
//! as slow on two loops as on one (tokio: 1.5 times, smol: 2 times): each wake-up drags a task over
//! to the other core; across loops more than twice the time of two threads: a loop is woken more
//! than once for a message. In absolute terms that line says more about the machine than about us.
//!
//! The channel is not ours: its share is the same in every line.

mod settings;

use std::thread;
use std::time::Duration;

use async_channel::{Receiver, Sender, bounded};
use criterion::Criterion;
use criterion::measurement::{Measurement, WallTime};
use futures_lite::future;
use garland::{Builder, Runtime};

fn main() {
    let mut criterion = settings::criterion();
    ping_pong(&mut criterion);
    criterion.final_summary();
}

fn ping_pong(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ping_pong");
    for (name, loops) in [("on 1 loop", 1), ("movable on 2 loops", 2)] {
        let runtime = runtime_of(loops);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let (to_server, requests) = bounded(1);
                let (to_client, answers) = bounded(1);
                let server = runtime.handle().spawn(answer(requests, to_client));
                let client = runtime.handle().spawn(ask(rounds, to_server, answers));
                time_of(&runtime, server, client)
            });
        });
    }
    let runtime = runtime_of(2);
    group.bench_function("across 2 loops", |bencher| {
        bencher.iter_custom(|rounds| {
            let (to_server, requests) = bounded(1);
            let (to_client, answers) = bounded(1);
            let (here, there) = (runtime.handle(), runtime.handle().on(1));
            let server = there.spawn_on(move || answer(requests, to_client));
            let client = here.spawn_on(move || ask(rounds, to_server, answers));
            time_of(&runtime, server, client)
        });
    });
    drop(runtime);
    group.bench_function("across 2 threads", |bencher| {
        bencher.iter_custom(time_of_threads);
    });
    group.finish();
}

fn runtime_of(loops: usize) -> Runtime {
    let runtime = Builder::new().loops(loops).build();
    runtime.expect("a runtime can be built")
}

/// Runs both to their end and returns the client's time.
fn time_of(
    runtime: &Runtime,
    server: garland::JoinHandle<()>,
    client: garland::JoinHandle<Duration>,
) -> Duration {
    let both = async {
        let time = client.await.expect("the client gets its answers");
        server.await.expect("the server ends with the client");
        time
    };
    runtime.block_on(both).expect("nobody stops the loop")
}

/// The same by two threads that block in their channels, pinned as loops are.
fn time_of_threads(rounds: u64) -> Duration {
    let (to_server, requests) = bounded(1);
    let (to_client, answers) = bounded(1);
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let pin = |seat: usize| {
        cores
            .get(seat)
            .is_some_and(|core| core_affinity::set_for_current(*core))
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            future::block_on(answer(requests, to_client));
        });
        // A thread of its own, too: pinning must not outlive this line of the table.
        let client = scope.spawn(|| {
            pin(0);
            future::block_on(ask(rounds, to_server, answers))
        });
        client.join().expect("the client gets its answers")
    })
}

async fn ask(rounds: u64, to_server: Sender<u64>, answers: Receiver<u64>) -> Duration {
    let start = WallTime.start();
    for round in 0..rounds {
        let sent = to_server.send(round).await;
        sent.expect("the server listens until the client ends");
        assert_eq!(
            answers.recv().await,
            Ok(round),
            "each answer is its request"
        );
    }
    WallTime.end(start)
}

/// Sends back what it gets, until the client is gone.
async fn answer(requests: Receiver<u64>, to_client: Sender<u64>) {
    while let Ok(request) = requests.recv().await {
        let sent = to_client.send(request).await;
        sent.expect("the client waits for its answer");
    }
}

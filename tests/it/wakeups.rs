//! No wake-up is ever lost (I1, MC-15): a million of them over the tests of this file, from loop to
//! loop and from outside.
//!
//! A lost one shows as a bound that runs out; then the numbers of the loops are printed.
//! `GARLAND_STRESS=10` multiplies every count.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use garland::{BackgroundRuntime, JoinHandle, LoopHandle, spawn, yield_now};

use crate::support::{
    background, end, end_background, join, lent, receive, run, stress, wait_until,
};

/// One side of a rally: passes the ball on until it has gone `limit` ways.
async fn rally(from: Receiver<u64>, to: Sender<u64>, limit: u64) {
    while let Ok(ways) = from.recv().await {
        // The other side has gone when the last way was its own.
        if to.send(ways + 1).await.is_err() || ways + 1 >= limit {
            return;
        }
    }
}

/// Waits for a rally: as long as the ball moves, it may take its time on a busy machine.
fn await_rally(handle: &LoopHandle, sides: [JoinHandle<()>; 2]) {
    for side in sides {
        join_while_steps_are_made(handle, side);
    }
}

fn join_while_steps_are_made(handle: &LoopHandle, task: JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let result = futures_lite::future::block_on(task);
        sender.send(result).unwrap_or_default();
    });
    let steps = || handle.stats().total(|one| one.tasks_run);
    let mut before = steps();
    let result = loop {
        match receiver.recv_timeout(Duration::from_secs(5)) {
            Ok(result) => break result,
            Err(error) => {
                let now = steps();
                assert_ne!(
                    before,
                    now,
                    "a lost wake-up: {error}; {:#?}",
                    handle.stats()
                );
                before = now;
            }
        }
    };
    result.expect("did not panic");
    waiter.join().expect("it has sent its only message");
}

fn channels() -> [(Sender<u64>, Receiver<u64>); 2] {
    [async_channel::bounded(1), async_channel::bounded(1)]
}

fn pinned_rally(runtime: &BackgroundRuntime, limit: u64) {
    let handle = runtime.handle();
    let [(ping, pinged), (pong, ponged)] = channels();
    ping.try_send(0).expect("it has room");
    let first = handle.on(0).spawn_on(move || rally(pinged, pong, limit));
    let second = handle.on(1).spawn_on(move || rally(ponged, ping, limit));
    await_rally(handle, [first, second]);
}

#[test]
fn mc_15_wake_ups_between_two_loops_all_arrive() {
    let runtime = background(2);
    pinned_rally(&runtime, 450_000 * u64::from(stress()));
    end_background(runtime);
}

#[test]
fn mc_15_wake_ups_of_movable_tasks_all_arrive() {
    let runtime = background(2);
    let handle = runtime.handle().clone();
    let limit = 225_000 * u64::from(stress());
    // Two rallies, so that both loops have work, lose it and find it again.
    let rallies: Vec<_> = (0..2)
        .map(|_| {
            let [(ping, pinged), (pong, ponged)] = channels();
            ping.try_send(0).expect("it has room");
            [
                handle.spawn(rally(pinged, pong, limit)),
                handle.spawn(rally(ponged, ping, limit)),
            ]
        })
        .collect();
    for sides in rallies {
        await_rally(&handle, sides);
    }
    end_background(runtime);
}

#[test]
fn mc_15_block_on_and_another_loop_wake_each_other() {
    let runtime = lent(2);
    for _ in 0..stress() {
        let [(ping, pinged), (pong, ponged)] = channels();
        let other = runtime.handle().on(1);
        let other = other.spawn_on(move || rally(pinged, pong, 50_000));
        run(&runtime, async {
            ping.send(0).await.expect("it has room");
            rally(ponged, ping, 50_000).await;
            other.await.expect("did not panic");
        });
    }
    end(runtime);
}

fn rally_of_two_runtimes(spawn: fn(&LoopHandle, Receiver<u64>, Sender<u64>) -> JoinHandle<()>) {
    let runtimes = [background(2), background(1)];
    let [(ping, pinged), (pong, ponged)] = channels();
    ping.try_send(0).expect("it has room");
    let sides = [
        spawn(runtimes[0].handle(), pinged, pong),
        spawn(runtimes[1].handle(), ponged, ping),
    ];
    await_rally(runtimes[0].handle(), sides);
    for runtime in runtimes {
        // Those of its own side, and none of the other's.
        let steps = runtime.stats().total(|one| one.tasks_run);
        assert!((10_000..30_000).contains(&steps), "of some 25,000: {steps}");
        end_background(runtime);
    }
}

#[test]
fn movable_tasks_of_two_runtimes_wake_each_other_and_stay_at_home() {
    rally_of_two_runtimes(|handle, from, to| handle.spawn(rally(from, to, 50_000)));
}

#[test]
fn bound_tasks_of_two_runtimes_wake_each_other_and_stay_at_home() {
    rally_of_two_runtimes(|handle, from, to| handle.spawn_on(move || rally(from, to, 50_000)));
}

#[test]
fn thr_02_storms_of_wake_ups_from_four_threads_arrive() {
    const THREADS: usize = 4;
    let rounds = 5_000 * u64::from(stress());
    let runtime = background(2);
    let handle = runtime.handle().clone();
    let echoes: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (ask, asked) = async_channel::bounded::<u64>(1);
            let (answer, answered) = mpsc::channel();
            let echo = async move {
                while let Ok(number) = asked.recv().await {
                    answer.send(number).expect("the thread waits");
                }
            };
            // Both kinds of tasks, on both loops.
            let task = match thread {
                0 => handle.on(0).spawn_on(move || echo),
                1 => handle.on(1).spawn_on(move || echo),
                _ => handle.spawn(echo),
            };
            let handle = handle.clone();
            thread::spawn(move || {
                for number in 0..rounds {
                    // The loops park in between: each round may find them anywhere on the way.
                    ask.try_send(number).expect("the last one was answered");
                    assert_eq!(receive(&answered, &handle), number);
                }
                drop(ask);
                join(&handle, task).expect("did not panic");
            })
        })
        .collect();
    for echo in echoes {
        echo.join().expect("no answer was lost");
    }
    end_background(runtime);
}

#[test]
fn thr_02_bursts_of_spawns_and_calls_from_four_threads_are_all_run() {
    const THREADS: u64 = 4;
    const BURST: u64 = 50;
    let bursts = 100 * u64::from(stress());
    let runtime = background(2);
    let handle = runtime.handle().clone();
    let count = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (handle, count) = (handle.clone(), Arc::clone(&count));
            thread::spawn(move || {
                for burst in 0..bursts {
                    for i in 0..BURST {
                        let count = Arc::clone(&count);
                        let add = move || {
                            count.fetch_add(1, Ordering::SeqCst);
                        };
                        let on = handle.on((i % 2) as usize);
                        match (burst + i) % 3 {
                            0 => drop(on.call_soon_threadsafe(add).expect("the loop is open")),
                            1 => drop(on.spawn(async move { add() })),
                            _ => drop(on.spawn_on(move || async move {
                                yield_now().await;
                                drop(spawn(async move { add() }));
                            })),
                        }
                    }
                    thread::yield_now();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("did not panic");
    }
    let expected = THREADS * BURST * bursts;
    wait_until("everything ran", &handle, || {
        count.load(Ordering::SeqCst) == expected
    });
    end_background(runtime);
}

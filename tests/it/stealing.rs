//! Work that moves between loops, and work that never does.
//!
//! Where a test needs a loop to be busy it blocks it on a channel that the test holds: nothing here
//! depends on how long something takes.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use garland::{LocalLoop, LoopHandle, ManualClock, Runtime, sleep, spawn, yield_now};

use crate::support::{
    LIMIT, background, builder, end, end_background, join, lent, receive, run, run_until_stopped,
    wait_until,
};

/// The threads on which something ran.
#[derive(Clone, Default)]
struct Threads(Arc<Mutex<HashSet<ThreadId>>>);

impl Threads {
    fn note(&self) {
        let mut threads = self.0.lock().expect("no test panics while noting");
        threads.insert(thread::current().id());
    }

    fn len(&self) -> usize {
        self.0.lock().expect("no test panics while noting").len()
    }
}

/// Blocks the thread until `released`, as a task that computes for long would.
fn block_until(released: &mpsc::Receiver<()>) {
    let ended = released.recv_timeout(LIMIT);
    ended.expect("another loop runs what releases this one");
}

#[test]
fn tasks_spawned_on_one_loop_run_on_both() {
    let runtime = lent(2);
    let threads = Threads::default();
    // Two tasks that meet: the meeting needs two threads, so it cannot come about on one loop.
    let barrier = Arc::new(Barrier::new(2));
    run(&runtime, async {
        let tasks: Vec<_> = (0..2)
            .map(|_| {
                let (barrier, threads) = (Arc::clone(&barrier), threads.clone());
                spawn(async move {
                    threads.note();
                    barrier.wait();
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("did not panic");
        }
    });
    assert_eq!(threads.len(), 2);
    assert!(end(runtime).total(|one| one.tasks_stolen) > 0);
}

/// What takes long is seen from the clock, not from what steps have usually taken here.
#[test]
fn a_loop_of_short_steps_is_helped_as_soon_as_its_steps_are_long() {
    const STEP: Duration = Duration::from_micros(200);
    let runtime = lent(2);
    let stolen = || runtime.stats().total(|one| one.tasks_stolen);
    // Once is enough: the machine may keep the other loop from its core.
    let is_helped = (0..50).any(|_| {
        let before = stolen();
        run(&runtime, async {
            yielding(100_000).await;
            let long = || async {
                let begin = Instant::now();
                while begin.elapsed() < STEP {}
            };
            let tasks: Vec<_> = (0..100).map(|_| spawn(long())).collect();
            for task in tasks {
                task.await.expect("did not panic");
            }
        });
        stolen() - before >= 20
    });
    end(runtime);
    assert!(is_helped);
}

/// In a task of its own: makes its loop one of short steps.
async fn yielding(times: u32) {
    let task = spawn(async move {
        for _ in 0..times {
            yield_now().await;
        }
    });
    task.await.expect("did not panic");
}

#[test]
fn a_task_alone_that_yields_between_long_steps_calls_nobody() {
    const STEPS: u64 = 200;
    let runtime = lent(2);
    let sent = || runtime.stats().total(|one| one.unparks_sent);
    let before = sent();
    let alone = runtime.handle().spawn(async {
        for _ in 0..STEPS {
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_micros(150) {}
            yield_now().await;
        }
    });
    run(&runtime, alone).expect("did not panic");
    let calls = sent() - before;
    end(runtime);
    assert!(calls < STEPS / 8, "{calls} calls for {STEPS} steps");
}

/// Nobody watches where time stands still: then each task is announced, for the code that runs may wait for it.
#[test]
fn s7_by_a_clock_turned_by_hand_a_task_that_waits_for_the_one_it_spawned_does_not_hang() {
    let runtime = builder(2).clock(ManualClock::new()).build();
    let runtime = runtime.expect("a runtime can be built");
    for _ in 0..50 {
        run(&runtime, yielding(2_000));
        let (sender, receiver) = mpsc::channel();
        let waiting = runtime.handle().spawn(async move {
            drop(spawn(async move { sender.send(()).expect("it waits") }));
            block_until(&receiver);
        });
        run(&runtime, waiting).expect("did not panic");
    }
    end(runtime);
}

#[test]
fn mc_02_tasks_that_keep_yielding_spread_over_the_loops() {
    let runtime = background(2);
    let handle = runtime.handle().clone();
    let threads = Threads::default();
    let spawned = threads.clone();
    let parent = handle.on(0).spawn_on(move || async move {
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let threads = spawned.clone();
                spawn(async move {
                    // Ends when every loop has taken part: no count of steps would be sure to do.
                    while threads.len() < 2 {
                        threads.note();
                        yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("did not panic");
        }
    });
    join(&handle, parent).expect("did not panic");
    assert_eq!(threads.len(), 2);
    let stats = end_background(runtime);
    assert!(stats.total(|one| one.tasks_stolen) > 0, "{stats:#?}");
}

#[test]
fn mc_01_loop_bound_work_never_moves_while_movable_work_does() {
    let runtime = background(2);
    let handle = runtime.handle().clone();
    let (movable, bound) = (Threads::default(), Threads::default());
    let (moved, kept) = (movable.clone(), bound.clone());
    let parent = handle.on(0).spawn_on(move || async move {
        let local = LocalLoop::current().expect("inside a loop");
        // Not Send, so the compiler knows already; the threads say that it is also true.
        let log = Rc::new(RefCell::new(0));
        let mut tasks = Vec::new();
        let mut movables = Vec::new();
        for i in 0..32 {
            let (threads, log) = (kept.clone(), Rc::clone(&log));
            local.call_soon(move || {
                threads.note();
                *log.borrow_mut() += 1;
            });
            let threads = kept.clone();
            local.call_later(Duration::from_micros(i * 10), move || threads.note());
            let threads = kept.clone();
            tasks.push(local.spawn_local(async move {
                for _ in 0..20 {
                    threads.note();
                    yield_now().await;
                    sleep(Duration::from_micros(1)).await;
                }
            }));
            let threads = moved.clone();
            movables.push(spawn(async move {
                while threads.len() < 2 {
                    threads.note();
                    yield_now().await;
                }
            }));
        }
        for task in tasks {
            task.await.expect("did not panic");
        }
        for task in movables {
            task.await.expect("did not panic");
        }
        sleep(Duration::from_millis(1)).await;
        assert_eq!(*log.borrow(), 32);
    });
    join(&handle, parent).expect("did not panic");
    assert_eq!(movable.len(), 2);
    assert_eq!(bound.len(), 1);
    let stats = end_background(runtime);
    assert!(stats.total(|one| one.tasks_stolen) > 0, "{stats:#?}");
}

#[test]
fn mc_06_a_sleeping_task_may_wake_elsewhere_and_its_timer_fires_once() {
    let runtime = background(2);
    let handle = runtime.handle().clone();
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            handle.spawn(async move {
                for step in 0..10 {
                    sleep(Duration::from_micros((i * 7 + step * 13) % 300)).await;
                    yield_now().await;
                }
            })
        })
        .collect();
    for task in tasks {
        join(&handle, task).expect("did not panic");
    }
    assert_eq!(end_background(runtime).total(|one| one.timers_fired), 2000);
}

#[test]
fn without_stealing_tasks_stay_where_they_were_spawned() {
    let runtime = builder(2)
        .steal(false)
        .start()
        .expect("a runtime can be started");
    let handle = runtime.handle().clone();
    let threads = Threads::default();
    let spawned = threads.clone();
    let parent = handle.on(1).spawn_on(move || async move {
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let threads = spawned.clone();
                spawn(async move {
                    for _ in 0..20 {
                        threads.note();
                        yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("did not panic");
        }
    });
    join(&handle, parent).expect("did not panic");
    assert_eq!(threads.len(), 1);
    let stats = end_background(runtime);
    assert_eq!(stats.total(|one| one.tasks_stolen), 0);
    assert_eq!(stats.loops[0].tasks_run, 0);
}

/// Blocks a loop from within its user code, again and again: whoever it waits for must be run by the
/// other loop, which was idle when the wait began.
fn stuck_until_the_other_loop_helps(rounds: usize, body: fn(mpsc::Sender<()>, mpsc::Receiver<()>)) {
    let runtime = background(2);
    let handle = runtime.handle().clone();
    for round in 0..rounds {
        if round < rounds / 2 {
            // The hard case: the helper sleeps already. Later rounds begin while it falls asleep.
            wait_until("both loops sleep", &handle, || {
                handle.stats().loops.iter().all(|one| one.is_parked)
            });
        }
        let (sender, receiver) = mpsc::channel();
        let task = handle
            .on(round % 2)
            .spawn_on(move || async move { body(sender, receiver) });
        join(&handle, task).expect("another loop helped");
    }
    end_background(runtime);
}

#[test]
fn s7_a_task_that_blocks_until_the_task_it_spawned_has_run_does_not_hang() {
    stuck_until_the_other_loop_helps(200, |sender, receiver| {
        drop(spawn(async move { sender.send(()).expect("it waits") }));
        block_until(&receiver);
    });
}

#[test]
fn s7_a_task_that_spawns_many_and_waits_for_the_last_does_not_hang() {
    stuck_until_the_other_loop_helps(100, |sender, receiver| {
        for _ in 0..40 {
            drop(spawn(yield_now()));
        }
        drop(spawn(async move { sender.send(()).expect("it waits") }));
        block_until(&receiver);
    });
}

#[test]
fn s7_a_callback_that_blocks_until_the_task_it_woke_has_run_does_not_hang() {
    let runtime = background(2);
    let handle = runtime.handle().clone();
    for _ in 0..200 {
        let (wake, woken) = async_channel::bounded::<()>(1);
        let (sender, receiver) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let waits = handle.spawn(async move {
            ready.send(()).expect("the test waits");
            woken.recv().await.expect("the callback sends");
            sender.send(()).expect("the callback waits");
        });
        receive(&is_ready, &handle);
        let (done, finished) = mpsc::channel();
        let callback = move || {
            wake.try_send(()).expect("it has room");
            block_until(&receiver);
            done.send(()).expect("the test waits");
        };
        handle
            .on(0)
            .call_soon_threadsafe(callback)
            .expect("the loop is open");
        receive(&finished, &handle);
        join(&handle, waits).expect("did not panic");
    }
    assert_eq!(end_background(runtime).total(|one| one.callback_panics), 0);
}

#[test]
fn s7_a_task_woken_by_a_timer_is_not_kept_behind_a_callback_that_blocks() {
    // Timer and callback come due in one turn of loop 0; the callback waits for the timer's task.
    let runtime: Runtime = lent(2);
    let local = runtime.local().clone();
    let handle = runtime.handle().clone();
    for _ in 0..50 {
        let (sender, receiver) = mpsc::channel();
        let (armed, is_armed) = async_channel::bounded(1);
        let due = handle.time() + Duration::from_millis(1);
        let stopper = local.clone();
        run(&runtime, async {
            let woken = spawn(async move {
                let mut sleep = std::pin::pin!(garland::sleep_until(due));
                std::future::poll_fn(|cx| {
                    std::task::Poll::Ready(sleep.as_mut().poll(cx).is_pending())
                })
                .await;
                armed.try_send(()).expect("it has room");
                sleep.await;
                sender.send(()).expect("the callback waits");
            });
            is_armed.recv().await.expect("the task sends");
            drop(woken);
        });
        local.call_at(due, move || {
            block_until(&receiver);
            stopper.stop();
        });
        run_until_stopped(&runtime);
    }
    assert_eq!(end(runtime).total(|one| one.callback_panics), 0);
}

#[test]
fn mc_11_movable_tasks_of_a_stopped_loop_are_finished_by_others() {
    let runtime = background(2);
    let handle = runtime.handle().clone();
    let (sender, receiver) = mpsc::channel();
    let stopping = handle.clone();
    let spawner = handle.on(1).spawn_on(move || async move {
        for i in 0..100 {
            let sender = sender.clone();
            drop(spawn(async move {
                yield_now().await;
                sender.send(i).expect("the test receives");
            }));
        }
        LoopHandle::current().expect("inside a loop").stop();
        drop(stopping);
    });
    join(&handle, spawner).expect("did not panic");
    let mut ended: Vec<_> = (0..100).map(|_| receive(&receiver, &handle)).collect();
    ended.sort_unstable();
    assert_eq!(ended, (0..100).collect::<Vec<_>>());
    end_background(runtime);
}

#[test]
fn mc_12_block_on_returns_on_its_own_thread_whoever_completed_it() {
    let runtime = lent(2);
    let here = thread::current().id();
    for _ in 0..200 {
        let there = runtime
            .handle()
            .on(1)
            .spawn_on(|| async { thread::current().id() });
        let (inside, elsewhere) = run(&runtime, async {
            let elsewhere = there.await.expect("did not panic");
            (thread::current().id(), elsewhere)
        });
        assert_eq!(inside, here);
        assert_ne!(elsewhere, here);
    }
    end(runtime);
}

//! Tasks: starting, joining, panics, cancellation, detaching, fairness.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread::{self, ThreadId};
use std::time::Duration;

use garland::{JoinHandle, LoopHandle, Runtime, sleep, spawn, timeout, yield_now};

use crate::support::{
    Trace, background, end, end_background, join, ledger, lent, on_auto_clock, receive, run, turn,
    wait_until,
};

/// Notes its own drop.
struct Noted(&'static str, Trace<&'static str>);

impl Drop for Noted {
    fn drop(&mut self) {
        self.1.note(self.0);
    }
}

async fn three_steps(name: u32, trace: Trace<u32>) {
    for _ in 0..3 {
        trace.note(name);
        yield_now().await;
    }
}

#[test]
fn task_01_bound_tasks_take_turns_round_robin() {
    let runtime = lent(1);
    let trace = Trace::new();
    let tasks: Vec<_> = (0..3)
        .map(|name| {
            runtime
                .local()
                .spawn_local(three_steps(name, trace.clone()))
        })
        .collect();
    run(&runtime, async {
        for task in tasks {
            task.await.expect("did not panic");
        }
    });
    assert_eq!(trace.take(), [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    end(runtime);
}

#[test]
fn task_01_movable_tasks_of_one_loop_take_turns_round_robin() {
    let runtime = lent(1);
    let (sender, receiver) = mpsc::channel();
    run(&runtime, async {
        let step = |name: u32| {
            let sender = sender.clone();
            spawn(async move {
                for _ in 0..3 {
                    sender.send(name).expect("the test receives");
                    yield_now().await;
                }
            })
        };
        for task in [step(0), step(1), step(2)] {
            task.await.expect("did not panic");
        }
    });
    let seen: Vec<_> = receiver.try_iter().collect();
    assert_eq!(seen, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    end(runtime);
}

#[test]
fn task_01_ids_are_unique_over_all_loops() {
    let runtime = lent(2);
    let ids = run(&runtime, async {
        let mut ids = Vec::new();
        for on in 0..100 {
            let task = runtime.handle().on(on % 2).spawn(async {});
            ids.push(task.id().expect("it was admitted"));
            task.await.expect("did not panic");
        }
        ids
    });
    let mut unique = ids.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), ids.len());
    end(runtime);
}

#[test]
fn task_02_a_pipeline_of_tasks_passes_each_item_on_in_order() {
    async fn numbers(to: async_channel::Sender<u32>) {
        for number in 0..100 {
            to.send(number).await.expect("the filter receives");
        }
    }
    async fn even(from: async_channel::Receiver<u32>, to: async_channel::Sender<u32>) {
        while let Ok(number) = from.recv().await {
            if number.is_multiple_of(2) {
                to.send(number).await.expect("the sink receives");
            }
        }
    }
    let runtime = lent(2);
    let (source, filter) = async_channel::bounded(1);
    let (filtered, sink) = async_channel::bounded(1);
    let seen = run(&runtime, async {
        drop(spawn(numbers(source)));
        drop(garland::spawn_local(even(filter, filtered)));
        let mut seen = Vec::new();
        while let Ok(number) = sink.recv().await {
            seen.push(number);
        }
        seen
    });
    assert_eq!(seen, (0..100).step_by(2).collect::<Vec<_>>());
    end(runtime);
}

#[test]
fn task_03_the_body_starts_in_a_later_step_and_in_order_of_spawning() {
    let runtime = lent(1);
    let started = Trace::new();
    run(&runtime, async {
        let local = runtime.local();
        let tasks: Vec<_> = (0..5)
            .map(|i| {
                let trace = started.clone();
                local.spawn_local(async move { trace.note(i) })
            })
            .collect();
        assert_eq!(started.len(), 0, "spawning runs nothing");
        for task in tasks {
            task.await.expect("did not panic");
        }
    });
    assert_eq!(started.take(), [0, 1, 2, 3, 4]);
    end(runtime);
}

#[test]
fn task_04_tasks_make_progress_without_being_awaited() {
    let runtime = lent(1);
    let (sender, receiver) = mpsc::channel();
    let future = async move { sender.send(1).expect("the test receives") };
    turn(&runtime);
    assert!(
        receiver.try_recv().is_err(),
        "a future that nobody spawned does nothing"
    );
    drop(runtime.handle().spawn(future));
    turn(&runtime);
    assert_eq!(receiver.try_recv(), Ok(1));
    end(runtime);
}

#[test]
fn task_05_the_handle_yields_the_output_of_every_kind_of_task() {
    let runtime = lent(2);
    let kept = Rc::new(3);
    run(&runtime, async {
        let movable = spawn(async { vec![1] });
        let bound = garland::spawn_local(async move { kept });
        let there = runtime
            .handle()
            .on(1)
            .spawn_on(|| async { Rc::new(2).to_string() });
        assert_eq!(movable.await.expect("did not panic"), [1]);
        assert_eq!(*bound.await.expect("did not panic"), 3);
        assert_eq!(there.await.expect("did not panic"), "2");
    });
    assert_eq!(end(runtime).total(|one| one.tasks_finished), 3);
}

#[test]
fn task_07_several_wake_ups_before_the_step_make_one_step() {
    let runtime = lent(1);
    let polls = Arc::new(AtomicU64::new(0));
    let (counted, waker) = (Arc::clone(&polls), Rc::new(RefCell::new(None)));
    let slot = Rc::clone(&waker);
    let task = runtime.local().spawn_local(poll_fn(move |cx| {
        slot.replace(Some(cx.waker().clone()));
        match counted.fetch_add(1, Ordering::SeqCst) {
            0 => Poll::<()>::Pending,
            _ => Poll::Ready(()),
        }
    }));
    turn(&runtime);
    let waker = waker.take().expect("it was polled");
    for _ in 0..10 {
        waker.wake_by_ref();
    }
    run(&runtime, task).expect("did not panic");
    assert_eq!(polls.load(Ordering::SeqCst), 2);
    end(runtime);
}

#[test]
fn task_08_cancel_drops_the_future_in_a_later_step_on_its_loop() {
    let runtime = lent(1);
    let dropped = Trace::new();
    run(&runtime, async {
        let (outer, inner) = (
            Noted("first", dropped.clone()),
            Noted("last", dropped.clone()),
        );
        let task = garland::spawn_local(async move {
            let _last = inner;
            let _first = outer;
            pending::<()>().await;
        });
        yield_now().await;
        assert!(task.cancel());
        assert_eq!(dropped.len(), 0, "never inline");
        assert!(!task.is_finished());
        assert!(task.cancel(), "asked again, it is still being cancelled");
        assert!(task.await.expect_err("cancelled").is_cancelled());
        assert_eq!(dropped.take(), ["first", "last"]);
    });
    assert_eq!(end(runtime).total(|one| one.tasks_cancelled), 1);
}

#[test]
fn task_08_destructors_of_a_cancelled_task_run_on_a_loop_and_may_use_it() {
    struct SpawnsInDrop(mpsc::Sender<Option<ThreadId>>);
    impl Drop for SpawnsInDrop {
        fn drop(&mut self) {
            let sender = self.0.clone();
            let here = LoopHandle::current().map(|_| thread::current().id());
            drop(spawn(async move {
                sender.send(here).expect("the test receives")
            }));
        }
    }
    let runtime = background(2);
    let handle = runtime.handle().clone();
    let (sender, receiver) = mpsc::channel();
    let (started, starts) = mpsc::channel();
    let task = handle.spawn(async move {
        let _guard = SpawnsInDrop(sender);
        started.send(()).expect("the test receives");
        pending::<()>().await;
    });
    receive(&starts, &handle);
    assert!(task.cancel());
    let here = receive(&receiver, &handle).expect("dropped on a loop");
    assert_ne!(here, thread::current().id());
    assert!(join(&handle, task).expect_err("cancelled").is_cancelled());
    end_background(runtime);
}

#[test]
fn task_09_a_task_cancelled_before_its_first_step_never_runs() {
    let runtime = lent(1);
    run(&runtime, async {
        let captured = Rc::new(());
        let held = Rc::clone(&captured);
        let bound = garland::spawn_local(async move { unreachable!("cancelled {held:?}") });
        let movable = spawn(async { unreachable!("cancelled") });
        let made = runtime
            .handle()
            .spawn_on(|| -> std::future::Ready<()> { unreachable!("so") });
        assert!(bound.cancel() && movable.cancel() && made.cancel());
        assert!(bound.await.expect_err("cancelled").is_cancelled());
        assert!(movable.await.expect_err("cancelled").is_cancelled());
        assert!(made.await.expect_err("cancelled").is_cancelled());
        assert_eq!(Rc::strong_count(&captured), 1);
    });
    assert_eq!(end(runtime).total(|one| one.tasks_cancelled), 3);
}

#[test]
fn task_09_cancel_of_an_ended_task_is_false_and_changes_nothing() {
    let runtime = lent(1);
    run(&runtime, async {
        let done = spawn(async { 4 });
        let panicked = spawn(async { panic!("first") });
        while !(done.is_finished() && panicked.is_finished()) {
            yield_now().await;
        }
        assert!(!done.cancel());
        assert_eq!(done.await.expect("did not panic"), 4);
        assert!(
            !panicked.cancel(),
            "its handle yields the panic, not Cancelled"
        );
        let error = panicked.await.expect_err("it panicked");
        assert_eq!(error.panic_message(), Some("first"));
    });
    end(runtime);
}

#[test]
fn task_12_a_cancel_during_the_last_step_wins_over_its_output() {
    let runtime = lent(1);
    let own: Rc<RefCell<Option<JoinHandle<u32>>>> = Rc::default();
    run(&runtime, async {
        let (slot, output) = (Rc::clone(&own), Rc::new(()));
        let held = Rc::clone(&output);
        let task = garland::spawn_local(async move {
            let own = slot.take().expect("put there below");
            assert!(own.cancel());
            slot.replace(Some(own));
            drop(held);
            7
        });
        own.replace(Some(task));
        yield_now().await;
        yield_now().await;
        let task = own.take().expect("put back");
        assert!(task.await.expect_err("cancelled").is_cancelled());
        assert_eq!(Rc::strong_count(&output), 1);
    });
    end(runtime);
}

#[test]
fn task_13_a_task_that_cancels_itself_goes_on_to_its_next_await() {
    let runtime = lent(1);
    let seen = Trace::new();
    let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
    run(&runtime, async {
        let (slot, trace) = (Rc::clone(&own), seen.clone());
        let task = garland::spawn_local(async move {
            assert!(slot.borrow().as_ref().expect("put there below").cancel());
            trace.note("goes on");
            yield_now().await;
            trace.note("not reached");
        });
        own.replace(Some(task));
        yield_now().await;
        let task = own.take().expect("still there");
        assert!(task.await.expect_err("cancelled").is_cancelled());
    });
    assert_eq!(seen.take(), ["goes on"]);
    end(runtime);
}

/// One race: the task's steps on one loop, the cancel on another.
async fn race_cancel(runtime: &Runtime, round: u64) -> bool {
    let steps = round % 4;
    let body = async move {
        for _ in 0..steps {
            yield_now().await;
        }
        round
    };
    let task = match round % 3 {
        0 => runtime.handle().on(1).spawn(body),
        1 => runtime.handle().on(1).spawn_on(move || body),
        _ => runtime.handle().spawn(body),
    };
    for _ in 0..round % 7 {
        std::hint::spin_loop();
    }
    if round.is_multiple_of(5) {
        yield_now().await;
    }
    let cancelled = task.cancel();
    match task.await {
        Ok(output) => {
            assert!(
                !cancelled,
                "cancel() was true in round {round}, yet it gave an output"
            );
            assert_eq!(output, round);
        }
        Err(error) => assert!(cancelled && error.is_cancelled(), "round {round}: {error}"),
    }
    cancelled
}

#[test]
fn mc_13_cancel_against_the_last_step_has_exactly_one_outcome() {
    const ROUNDS: u64 = 20_000;
    let runtime = lent(2);
    let cancelled = run(&runtime, async {
        let mut cancelled = 0;
        for round in 0..ROUNDS {
            cancelled += u64::from(race_cancel(&runtime, round).await);
        }
        cancelled
    });
    let stats = end(runtime);
    assert_eq!(stats.total(|one| one.tasks_cancelled), cancelled);
    assert_eq!(stats.total(|one| one.tasks_finished), ROUNDS - cancelled);
}

#[test]
fn task_18_dropping_the_handle_detaches_the_task() {
    let (runtime, _clock) = on_auto_clock();
    let (sender, receiver) = mpsc::channel();
    run(&runtime, async {
        for i in 0..2 {
            let sender = sender.clone();
            let task = async move {
                sleep(Duration::from_secs(1)).await;
                sender.send(i).expect("the test receives");
            };
            drop(if i == 0 {
                spawn(task)
            } else {
                garland::spawn_local(task)
            });
        }
        sleep(Duration::from_secs(2)).await;
    });
    let mut ended: Vec<_> = receiver.try_iter().collect();
    ended.sort_unstable();
    assert_eq!(ended, [0, 1]);
    end(runtime);
}

#[test]
fn cancelling_who_awaits_a_handle_detaches_the_awaited_task() {
    let (runtime, _clock) = on_auto_clock();
    let (sender, receiver) = async_channel::bounded(1);
    run(&runtime, async {
        let inner = spawn(async move {
            sleep(Duration::from_secs(1)).await;
            sender.send(5).await.expect("the test receives");
        });
        let outer = spawn(inner);
        yield_now().await;
        assert!(outer.cancel());
        assert!(outer.await.is_err_and(|error| error.is_cancelled()));
        assert_eq!(receiver.recv().await, Ok(5));
    });
    end(runtime);
}

#[test]
fn a_handle_that_was_awaited_in_vain_can_be_awaited_again() {
    let (runtime, clock) = on_auto_clock();
    run(&runtime, async {
        let mut task = spawn(async {
            sleep(Duration::from_secs(5)).await;
            "late"
        });
        for _ in 0..3 {
            assert!(timeout(Duration::from_secs(1), &mut task).await.is_err());
            assert!(!task.is_finished());
        }
        assert_eq!(task.await.expect("did not panic"), "late");
    });
    assert_eq!(clock.elapsed(), Duration::from_secs(5));
    end(runtime);
}

#[test]
fn mc_01_spawn_local_and_spawn_on_keep_to_one_thread_and_may_hold_an_rc() {
    let runtime = background(2);
    let handle = runtime.handle().clone();
    let (sender, receiver) = mpsc::channel();
    for on in 0..2 {
        let sender = sender.clone();
        let make = move || async move {
            let threads = Rc::new(RefCell::new(Vec::new()));
            let (noted, counted) = (Rc::clone(&threads), Rc::new(Cell::new(0)));
            let count = Rc::clone(&counted);
            let child = garland::spawn_local(async move {
                for _ in 0..200 {
                    noted.borrow_mut().push(thread::current().id());
                    count.set(count.get() + 1);
                    yield_now().await;
                }
            });
            child.await.expect("did not panic");
            assert_eq!(counted.get(), 200);
            let mut threads = threads.take();
            threads.push(thread::current().id());
            threads.dedup();
            sender.send((on, threads)).expect("the test receives");
        };
        drop(handle.on(on).spawn_on(make));
    }
    let mut seen = [receive(&receiver, &handle), receive(&receiver, &handle)];
    seen.sort_unstable_by_key(|(on, _)| *on);
    let [(_, first), (_, second)] = seen;
    assert_eq!((first.len(), second.len()), (1, 1), "one thread each");
    assert_ne!(first, second);
    end_background(runtime);
}

#[test]
fn thr_13_a_foreign_thread_spawns_on_a_loop_and_joins() {
    let runtime = background(2);
    let handle = runtime.handle().clone();
    let joining: Vec<_> = (0..4_usize)
        .map(|thread| {
            let handle = handle.clone();
            thread::spawn(move || {
                for i in 0..200 {
                    let on = (thread + i) % 2;
                    let make = move || async move {
                        yield_now().await;
                        (
                            Rc::new(i).to_string(),
                            LoopHandle::current().map(|l| l.id().index()),
                        )
                    };
                    let task = handle.on(on).spawn_on(make);
                    let result = futures_lite::future::block_on(task);
                    assert_eq!(result.expect("did not panic"), (i.to_string(), Some(on)));
                }
            })
        })
        .collect();
    wait_until("all are joined", &handle, || {
        joining.iter().all(thread::JoinHandle::is_finished)
    });
    for thread in joining {
        thread.join().expect("did not panic");
    }
    assert_eq!(end_background(runtime).total(|one| one.tasks_finished), 800);
}

#[test]
fn a_closed_runtime_refuses_tasks_and_their_handles_say_so() {
    let runtime = background(2);
    let handle = runtime.handle().clone();
    end_background(runtime);
    let captured = Arc::new(AtomicBool::new(false));
    let held = Arc::clone(&captured);
    let movable = handle.spawn(async move { held.store(true, Ordering::SeqCst) });
    let held = Arc::clone(&captured);
    let bound = handle
        .on(1)
        .spawn_on(move || async move { held.store(true, Ordering::SeqCst) });
    assert_eq!(
        Arc::strong_count(&captured),
        1,
        "refused futures are dropped at once"
    );
    for task in [movable, bound] {
        assert!(task.is_finished() && task.id().is_none() && !task.cancel());
        assert!(join(&handle, task).expect_err("refused").is_cancelled());
    }
    assert!(!captured.load(Ordering::SeqCst));
    ledger(&handle.stats());
}

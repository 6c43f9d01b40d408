//! The life of a loop as its user sees it: running, stopped, closed; whole programs; and what its handles say.

use std::cell::Cell;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use garland::{JoinError, LocalLoop, LoopError, LoopHandle, spawn, spawn_local, yield_now};

use crate::support::{
    Trace, background, end, end_background, join, ledger, lent, on_auto_clock, receive, run, turn,
};

/// Tells that it is gone, and where.
struct Tell(mpsc::Sender<Option<usize>>);

impl Drop for Tell {
    fn drop(&mut self) {
        let on = LoopHandle::current().map(|handle| handle.id().index());
        self.0.send(on).expect("the test listens");
    }
}

#[test]
fn loop_08_a_loop_is_running_inside_its_runs_and_nowhere_else() {
    for loops in [1, 2, 4] {
        let (runtime, other) = (lent(loops), lent(1));
        let local = runtime.local().clone();
        assert!(!local.is_running() && !local.is_closed());
        let seen = Trace::new();
        let (trace, inner) = (seen.clone(), local.clone());
        local.call_soon(move || trace.note(inner.is_running()));
        turn(&runtime);
        run(&runtime, async {
            seen.note(local.is_running());
            assert!(!other.local().is_running());
        });
        let (trace, inner) = (seen.clone(), local.clone());
        local.call_soon(move || trace.note(inner.is_running()));
        assert!(runtime.run_once(Some(Duration::ZERO)).is_ok());
        assert_eq!(seen.take(), [true; 3]);
        assert!(!local.is_running() && !runtime.handle().is_closed());
        end(runtime);
        assert!(!local.is_running() && local.is_closed());
        end(other);
    }
}

#[test]
fn loop_09_closing_drops_what_is_queued_without_running_it_and_says_that_it_is_closed() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let local = runtime.local().clone();
        let (handle, held) = (runtime.handle().clone(), Rc::new(()));
        let captured = [(); 3].map(|()| Rc::clone(&held));
        let [soon, later, task] = captured;
        let call = local.call_soon(move || unreachable!("{soon:?}"));
        let timer = local.call_later(Duration::ZERO, move || unreachable!("{later:?}"));
        let bound = local.spawn_local(async move { unreachable!("{task:?}") });
        let sent = handle.call_soon_threadsafe(|| unreachable!("closed"));
        let sent = sent.expect("it is open");
        end(runtime);
        assert_eq!(Rc::strong_count(&held), 1);
        assert!(call.cancelled() && timer.cancelled() && sent.cancelled());
        let ended = join(&handle, bound);
        assert!(ended.is_err_and(|error: JoinError| error.is_cancelled()));
        for id in 0..loops {
            assert!(handle.on(id).is_closed());
        }
    }
}

#[test]
fn loop_10_on_a_closed_loop_every_call_is_refused_in_its_own_way() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let local = runtime.local().clone();
        let handle = runtime.handle().clone();
        end(runtime);
        assert!(local.call_soon(|| unreachable!()).cancelled());
        let timer = local.call_later(Duration::ZERO, || unreachable!());
        assert!(timer.cancelled());
        assert!(local.call_at(local.time(), || unreachable!()).cancelled());
        for id in 0..loops {
            let refused = handle.on(id).call_soon_threadsafe(|| unreachable!());
            assert_eq!(refused.expect_err("closed"), LoopError::Closed);
            let tasks = [
                handle.on(id).spawn(async {}),
                handle.on(id).spawn_on(|| async {}),
            ];
            for task in tasks {
                assert!(join(&handle, task).expect_err("closed").is_cancelled());
            }
        }
        let task = local.spawn_local(async {});
        assert!(join(&handle, task).expect_err("closed").is_cancelled());
        local.stop();
        ledger(&handle.stats());
    }
}

#[test]
fn call_08_cancelled_and_when_still_answer_after_the_end() {
    let (runtime, _clock) = on_auto_clock();
    let local = runtime.local();
    let (ran, dropped) = (local.call_soon(|| ()), local.call_soon(|| unreachable!()));
    assert!(!ran.cancelled() && !dropped.cancelled());
    assert!(dropped.cancel() && dropped.cancelled());
    let when = local.time() + Duration::from_secs(5);
    let fires = local.call_at(when, || ());
    let never = local.call_at(when, || unreachable!());
    assert!(never.cancel() && never.cancelled());
    let sent = runtime.handle().call_soon_threadsafe(|| ()).expect("open");
    let unsent = runtime.handle().call_soon_threadsafe(|| unreachable!());
    let unsent = unsent.expect("open");
    assert!(unsent.cancel());
    run(&runtime, garland::sleep(Duration::from_secs(6)));
    assert!(!ran.cancel() && !ran.cancelled(), "it has run");
    assert!(!fires.cancel() && !fires.cancelled());
    assert!(!sent.cancel() && !sent.cancelled() && unsent.cancelled());
    assert_eq!((fires.when(), never.when()), (when, when));
    end(runtime);
}

#[test]
fn call_08_a_capture_that_the_end_of_its_loop_drops_sees_its_callback_cancelled() {
    struct Asks(Rc<Cell<Option<garland::CallHandle>>>, Trace<bool>);
    impl Drop for Asks {
        fn drop(&mut self) {
            let handle = self.0.take().expect("set before the cancel");
            self.1.note(handle.cancelled());
            self.1.note(handle.cancel());
        }
    }
    let (runtime, _clock) = on_auto_clock();
    let seen = Trace::new();
    let slot = Rc::new(Cell::new(None));
    let asks = Asks(Rc::clone(&slot), seen.clone());
    slot.set(Some(runtime.local().call_soon(move || drop(asks))));
    end(runtime);
    assert_eq!(seen.take(), [true, false]);
}

#[test]
fn thr_04_a_cancel_that_races_with_its_call_is_exact() {
    for loops in [1, 2, 4] {
        let runtime = background(loops);
        let handle = runtime.handle().clone();
        let (mut won, mut lost) = (0, 0);
        for round in 0..3000 {
            let begun = Arc::new(AtomicBool::new(false));
            let start = Arc::new(Barrier::new(2));
            let (flag, gate) = (Arc::clone(&begun), Arc::clone(&start));
            // Holds the loop until both are at the line.
            let held = handle.call_soon_threadsafe(move || {
                gate.wait();
            });
            held.expect("open");
            let call = handle.call_soon_threadsafe(move || flag.store(true, Ordering::SeqCst));
            let call = call.expect("open");
            start.wait();
            for _ in 0..round % 64 {
                std::hint::spin_loop();
            }
            let cancelled = call.cancel();
            assert_eq!(call.cancelled(), cancelled);
            // The answer holds from now on: behind the next call the loop has passed it for certain.
            let (done, passed) = mpsc::channel();
            let last = handle.call_soon_threadsafe(move || done.send(()).expect("the test waits"));
            last.expect("open");
            receive(&passed, &handle);
            assert_eq!(begun.load(Ordering::SeqCst), !cancelled);
            if cancelled { won += 1 } else { lost += 1 }
        }
        assert_eq!(won + lost, 3000);
        end_background(runtime);
    }
}

#[test]
fn thr_13_cancelling_what_was_spawned_from_a_thread_cancels_the_task_on_its_loop() {
    for loops in [1, 2, 4] {
        let runtime = background(loops);
        let handle = runtime.handle().on(loops - 1);
        let (sender, receiver) = mpsc::channel();
        let (began, has_begun) = mpsc::channel();
        let tell = Tell(sender);
        let task = handle.spawn_on(move || async move {
            let _keeps = tell;
            began.send(()).expect("the test waits");
            pending::<()>().await;
        });
        receive(&has_begun, &handle);
        assert!(task.cancel());
        assert_eq!(receive(&receiver, &handle), Some(loops - 1));
        assert!(join(&handle, task).expect_err("cancelled").is_cancelled());

        let failed = handle.spawn_on(|| -> std::future::Ready<()> { panic!("of the factory") });
        let error = join(&handle, failed).expect_err("it panicked");
        assert_eq!(error.panic_message(), Some("of the factory"));
        let value = handle.spawn(async { spawn(async { 5 }).await.expect("did not panic") });
        assert_eq!(join(&handle, value).expect("did not panic"), 5);
        end_background(runtime);
    }
}

#[test]
fn run_03_run_gives_the_output_cancels_the_rest_and_closes() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let handle = runtime.handle().clone();
        let (sender, receiver) = mpsc::channel();
        let outside = handle.clone();
        let output = runtime.run(async move {
            for on in 0..outside.loops() {
                let tell = Tell(sender.clone());
                let waits = outside.on(on).spawn_on(move || async move {
                    let _keeps = tell;
                    pending::<()>().await;
                });
                drop(waits);
                let (tell, begun) = (Tell(sender.clone()), outside.on(on).spawn_on(|| async {}));
                drop(spawn(async move {
                    let _keeps = tell;
                    pending::<()>().await;
                }));
                begun.await.expect("did not panic");
            }
            yield_now().await;
            7
        });
        assert_eq!(output, Ok(7));
        assert!(handle.is_closed());
        let ended: Vec<_> = receiver.iter().collect();
        assert_eq!(ended.len(), 2 * loops, "each remaining task was ended");
        assert!(ended.iter().all(Option::is_some), "on a loop: {ended:?}");
        ledger(&handle.stats());
        let cancelled = handle.stats().total(|one| one.tasks_cancelled);
        assert_eq!(cancelled, 2 * loops as u64);
    }
}

#[test]
fn run_03_what_fails_while_the_rest_is_cancelled_is_reported() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the bomb went off");
        }
    }
    let runtime = lent(1);
    let seen = Trace::new();
    let trace = seen.clone();
    runtime.local().set_exception_handler(move |_, context| {
        trace.note((
            context.panic_message().map(str::to_owned),
            context.task().is_some(),
        ));
    });
    let output = runtime.run(async {
        let bomb = Bomb;
        drop(spawn_local(async move {
            let _keeps = bomb;
            pending::<()>().await;
        }));
        yield_now().await;
        "main"
    });
    assert_eq!(output, Ok("main"));
    assert_eq!(seen.take(), [(Some("the bomb went off".to_owned()), true)]);
}

#[test]
fn run_03_a_stop_a_panic_and_a_nested_run_close_the_runtime_too() {
    let runtime = lent(2);
    let (handle, local) = (runtime.handle().clone(), runtime.local().clone());
    local.clone().call_soon(move || local.stop());
    assert_eq!(runtime.run(pending::<()>()), Err(LoopError::Stopped));
    assert!(handle.is_closed());

    let runtime = lent(2);
    let handle = runtime.handle().clone();
    let run_it = || runtime.run(async { panic!("of main") });
    let payload = catch_unwind(AssertUnwindSafe(run_it)).expect_err("it panics");
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"of main"));
    assert!(handle.is_closed());

    let outer = lent(1);
    let ran = AtomicUsize::new(0);
    run(&outer, async {
        let inner = lent(1);
        let handle = inner.handle().clone();
        let refused = inner.run(async { ran.fetch_add(1, Ordering::SeqCst) });
        assert_eq!(refused, Err(LoopError::OtherLoopRunning));
        assert!(handle.is_closed());
        assert!(LocalLoop::current().is_some(), "the outer loop goes on");
    });
    assert_eq!(ran.load(Ordering::SeqCst), 0);
    end(outer);
}

#[test]
fn run_05_any_future_runs_and_its_wakers_work_from_any_thread() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        // A future of no runtime: woken by a thread that sleeps nowhere near a loop.
        let (sender, receiver) = async_channel::bounded(1);
        let producer = thread::spawn(move || {
            for round in 0..100 {
                sender.send_blocking(round).expect("the loop receives");
            }
        });
        let sum = run(&runtime, async {
            let counted = spawn(async move {
                let mut sum = 0;
                while let Ok(round) = receiver.recv().await {
                    sum += round;
                }
                sum
            });
            futures_lite::future::or(async { counted.await.expect("did not panic") }, pending())
                .await
        });
        assert_eq!(sum, 4950);
        producer.join().expect("all was received");
        end(runtime);
    }
}

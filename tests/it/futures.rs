//! Futures of one loop, their promises and callbacks; handles that are tied, or await themselves.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::Duration;

use garland::{
    CancelOnDrop, FutError, JoinHandle, LoopFuture, Promise, sleep, spawn, spawn_local, timeout,
    yield_now,
};

use crate::support::{Trace, end, lent, on_auto_clock, run, turn};

/// What is done to a pair, and what the two sides say afterwards.
type Ending = fn(Promise<u32>, &LoopFuture<u32>);

#[test]
fn fut_01_fut_02_fut_03_an_end_is_final_and_nothing_blocks() {
    let cancelled = Err(FutError::Cancelled);
    let table: &[(&str, Ending, Result<u32, FutError>)] = &[
        (
            "a result",
            |promise, _| promise.set_result(1).expect("first"),
            Ok(1),
        ),
        (
            "cancelled from its side",
            |_promise, future| assert!(future.cancel()),
            cancelled,
        ),
        (
            "cancelled from the other",
            |promise, _| assert!(promise.cancel()),
            cancelled,
        ),
        (
            "the promise is dropped",
            |promise, _| drop(promise),
            cancelled,
        ),
        (
            "set twice",
            |promise, _| {
                promise.set_result(1).expect("first");
                assert_eq!(promise.set_result(2), Err(FutError::InvalidState));
            },
            Ok(1),
        ),
        (
            "cancelled after a result",
            |promise, future| {
                promise.set_result(1).expect("first");
                assert!(!future.cancel() && !promise.cancel());
            },
            Ok(1),
        ),
        (
            "a result after a cancel",
            |promise, future| {
                assert!(future.cancel() && !future.cancel() && promise.done());
                assert_eq!(promise.set_result(2), Err(FutError::InvalidState));
            },
            cancelled,
        ),
    ];
    let runtime = lent(1);
    for (what, ending, result) in table {
        let (promise, future) = runtime.local().create_future();
        assert_eq!(future.result(), Err(FutError::InvalidState), "{what}");
        assert!(!future.done() && !future.cancelled() && !promise.done());
        ending(promise, &future);
        assert!(future.done(), "{what}");
        assert_eq!(future.cancelled(), result.is_err(), "{what}");
        assert_eq!(future.result(), *result, "{what}");
        assert_eq!(run(&runtime, future), *result, "{what}");
    }
    end(runtime);
}

#[test]
fn fut_02_a_refused_result_is_dropped_and_may_use_the_future() {
    struct Looks(RefCell<Option<LoopFuture<Rc<Looks>>>>, Rc<Cell<u32>>);
    impl Drop for Looks {
        fn drop(&mut self) {
            let future = self.0.take().expect("put there below");
            self.1.set(self.1.get() + u32::from(future.done()));
        }
    }
    let runtime = lent(1);
    let (promise, future) = runtime.local().create_future();
    let seen = Rc::new(Cell::new(0));
    let looks = || Rc::new(Looks(RefCell::new(Some(future.clone())), Rc::clone(&seen)));
    assert!(future.cancel());
    assert_eq!(promise.set_result(looks()), Err(FutError::InvalidState));
    assert_eq!(seen.get(), 1);
    end(runtime);
}

#[test]
fn fut_04_callbacks_come_later_in_order_and_with_the_future() {
    let runtime = lent(1);
    let local = runtime.local();
    for how in ["a result", "cancelled", "done before"] {
        let (promise, future) = local.create_future::<&str>();
        let finish = || match how {
            "cancelled" => assert!(future.cancel()),
            _ => promise.set_result("value").expect("first"),
        };
        let trace = Trace::new();
        if how == "done before" {
            finish();
        }
        for nth in 0..3 {
            let trace = trace.clone();
            future.add_done_callback(move |future| {
                assert!(future.done());
                trace.note((nth, future.result().ok()));
            });
        }
        if how != "done before" {
            finish();
        }
        local.call_soon(trace.noting((9, None)));
        assert_eq!(trace.len(), 0, "{how}: never inline");
        turn(&runtime);
        let value = (how != "cancelled").then_some("value");
        assert_eq!(
            trace.take(),
            [(0, value), (1, value), (2, value), (9, None)],
            "{how}"
        );
    }
    end(runtime);
}

#[test]
fn fut_04_a_callback_that_panics_is_reported_and_the_next_one_runs() {
    let runtime = lent(1);
    let (promise, future) = runtime.local().create_future();
    let ran = Rc::new(Cell::new(false));
    let noted = Rc::clone(&ran);
    future.add_done_callback(|_| panic!("the first"));
    future.add_done_callback(move |_| noted.set(true));
    promise.set_result(()).expect("first");
    turn(&runtime);
    assert!(ran.get());
    assert_eq!(end(runtime).total(|one| one.callback_panics), 1);
}

#[test]
fn fut_05_a_removed_callback_does_not_run_and_a_scheduled_one_stays() {
    let runtime = lent(1);
    let (promise, future) = runtime.local().create_future();
    let trace = Trace::new();
    let noting = |what: &'static str| {
        let trace = trace.clone();
        future.add_done_callback(move |_: &LoopFuture<()>| trace.note(what))
    };
    let [_first, twice, again, _last] = ["first", "twice", "again", "last"].map(noting);
    assert!(future.remove_done_callback(twice));
    assert!(!future.remove_done_callback(twice), "it is gone");
    // A callback removes one that is scheduled already: too late, and harmless.
    let other = future.clone();
    let removed = Rc::new(Cell::new(true));
    let said = Rc::clone(&removed);
    future.add_done_callback(move |_| said.set(other.remove_done_callback(again)));
    promise.set_result(()).expect("first");
    assert!(!future.remove_done_callback(again));
    let late = noting("late");
    assert!(!future.remove_done_callback(late));
    turn(&runtime);
    assert_eq!(trace.take(), ["first", "again", "last", "late"]);
    assert!(!removed.get());
    end(runtime);
}

#[test]
fn fut_06_awaiting_waits_and_what_is_done_is_there_at_once() {
    let runtime = lent(1);
    let local = runtime.local();
    run(&runtime, async {
        let (promise, mut future) = local.create_future();
        let trace = Trace::new();
        local.call_soon(trace.noting("called"));
        promise.set_result(5).expect("first");
        assert_eq!((&mut future).await, Ok(5));
        assert_eq!(trace.len(), 0, "no turn passed");
        yield_now().await;

        let (promise, future) = local.create_future::<Result<u32, &str>>();
        local.call_soon(move || promise.set_result(Err("refused")).expect("first"));
        assert_eq!(
            future.await,
            Ok(Err("refused")),
            "an error is a value like others"
        );

        let (_promise, future) = local.create_future::<u32>();
        let canceller = future.clone();
        local.call_soon(move || assert!(canceller.cancel()));
        assert_eq!(future.await, Err(FutError::Cancelled));
    });
    end(runtime);
}

#[test]
fn fut_07_a_pending_future_of_another_loop_is_an_error_at_the_await() {
    let (first, second) = (lent(1), lent(1));
    let (promise, mut future) = first.local().create_future();
    assert_eq!(run(&second, &mut future), Err(FutError::OtherLoop));
    promise.set_result(1).expect("first");
    assert_eq!(
        run(&second, &mut future),
        Ok(1),
        "what is done needs no loop"
    );
    assert_eq!(run(&first, future), Ok(1));
    end(first);
    end(second);
}

#[test]
fn fut_08_several_tasks_and_callbacks_go_on_in_the_order_in_which_they_came() {
    let runtime = lent(1);
    let local = runtime.local();
    let (promise, future) = local.create_future();
    let trace = Trace::new();
    let waiting: Vec<JoinHandle<()>> = (0..6)
        .map(|nth| {
            let (waiter, trace) = (future.clone(), trace.clone());
            if nth == 3 {
                // It begins to wait in the same turn, between its neighbours.
                local.call_soon(move || {
                    waiter.add_done_callback(move |_| trace.note(nth));
                });
                return local.spawn_local(async {});
            }
            local.spawn_local(async move {
                assert_eq!(waiter.await, Ok("now"));
                trace.note(nth);
            })
        })
        .collect();
    turn(&runtime);
    // The second gives up.
    assert!(waiting[1].cancel());
    turn(&runtime);
    local.call_soon(move || promise.set_result("now").expect("first"));
    turn(&runtime);
    assert_eq!(trace.len(), 0, "the turn after");
    turn(&runtime);
    assert_eq!(trace.take(), [0, 2, 3, 4, 5]);
    drop(waiting);
    end(runtime);
}

#[test]
fn fut_09_a_result_of_a_thread_ends_a_future_of_each_loop_and_calls_back_there() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        run(&runtime, async {
            for on in 0..loops {
                let (sender, receiver) = garland::sync::channel::bounded::<ThreadId>(1);
                let there = runtime.handle().on(on).spawn_on(move || async move {
                    let local = garland::LocalLoop::current().expect("a loop");
                    let future = local.wrap_future(async move { receiver.recv().await });
                    let called = Rc::new(Cell::new(None));
                    let noted = Rc::clone(&called);
                    future.add_done_callback(move |_| noted.set(Some(thread::current().id())));
                    let result = future.await.expect("not cancelled").expect("sent");
                    yield_now().await;
                    assert_eq!(
                        called.get(),
                        Some(thread::current().id()),
                        "called back at home"
                    );
                    result
                });
                let thread = thread::spawn(move || sender.send_blocking(thread::current().id()));
                let seen = there.await.expect("did not panic");
                assert_eq!(seen, thread.thread().id());
                thread.join().expect("did not panic").expect("received");
            }
        });
        end(runtime);
    }
}

#[test]
fn fut_09_cancelling_goes_both_ways() {
    let runtime = lent(2);
    run(&runtime, async {
        let local = runtime.local();
        // From here to there: what was wrapped is dropped, and with it the task of another loop.
        let held = Arc::new(());
        let inside = Arc::clone(&held);
        let there = runtime.handle().on(1).spawn(async move {
            let _inside = inside;
            pending::<()>().await;
        });
        let ends = there.cancel_handle().expect("it lives");
        let wrapped = local.wrap_future(there.cancel_on_drop());
        yield_now().await;
        assert!(wrapped.cancel());
        assert!(wrapped.cancelled());
        while !ends.is_finished() {
            yield_now().await;
        }
        // From there to here: the task that was wrapped says that it was cancelled.
        let there = runtime.handle().on(1).spawn(pending::<()>());
        let cancels = there.cancel_handle().expect("it lives");
        let wrapped =
            local.wrap_future(async move { there.await.is_err_and(|e| e.is_cancelled()) });
        yield_now().await;
        assert!(cancels.cancel());
        assert_eq!(wrapped.await, Ok(true));
        // And back to a thread: the handle of a task on the future is Send.
        let (promise, future) = local.create_future();
        let for_thread = local.spawn_local(future.clone());
        let thread = thread::spawn(move || futures_lite::future::block_on(for_thread));
        promise.set_result(8).expect("first");
        while !thread.is_finished() {
            sleep(Duration::from_micros(50)).await;
        }
        let seen = thread
            .join()
            .expect("did not panic")
            .expect("did not panic");
        assert_eq!(seen, Ok(8));
        drop(held);
    });
    end(runtime);
}

#[test]
fn fut_09_a_panic_or_a_closed_loop_cancels_what_was_wrapped() {
    let runtime = lent(1);
    let local = runtime.local().clone();
    let panics = local.wrap_future(async { panic!("on purpose") });
    assert_eq!(run(&runtime, panics), Err::<(), _>(FutError::Cancelled));
    let (_promise, waits) = local.create_future::<u32>();
    let called = Rc::new(Cell::new(false));
    let noted = Rc::clone(&called);
    waits.add_done_callback(move |_| noted.set(true));
    end(runtime);
    let late = local.wrap_future(async { 1 });
    assert_eq!(late.result(), Err(FutError::Cancelled));
    assert!(waits.cancel());
    assert!(!called.get(), "a closed loop calls nobody back");
}

#[test]
fn mc_04_results_of_eight_threads_are_called_back_in_order_of_each() {
    const EACH: usize = 200;
    let runtime = lent(2);
    let local = runtime.local();
    let trace = Rc::new(RefCell::new(Vec::new()));
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let (sender, receiver) = garland::sync::channel::unbounded();
            let trace = Rc::clone(&trace);
            let taking = local.clone();
            drop(local.spawn_local(async move {
                while let Ok(nth) = receiver.recv().await {
                    let (promise, future) = taking.create_future();
                    let trace = Rc::clone(&trace);
                    future.add_done_callback(move |future| {
                        let nth: usize = future.result().expect("set below");
                        trace.borrow_mut().push((thread, nth));
                    });
                    promise.set_result(nth).expect("first");
                }
            }));
            thread::spawn(move || {
                (0..EACH).for_each(|nth| sender.send_blocking(nth).expect("received"));
            })
        })
        .collect();
    run(&runtime, async {
        while trace.borrow().len() < 8 * EACH {
            sleep(Duration::from_micros(100)).await;
        }
    });
    for (thread, handle) in threads.into_iter().enumerate() {
        handle.join().expect("did not panic");
        let trace = trace.borrow();
        let of_one = trace.iter().filter(|(by, _)| *by == thread);
        assert!(of_one.map(|(_, nth)| *nth).eq(0..EACH));
    }
    end(runtime);
}

#[test]
fn task_10_a_handle_tied_to_its_owner_cancels_with_it_and_a_plain_one_does_not() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        run(&runtime, async {
            let plain = spawn(pending::<()>());
            let plain_ends = plain.cancel_handle().expect("it lives");
            let tied = spawn(pending::<()>());
            let tied_ends = tied.cancel_handle().expect("it lives");
            let awaits_plain = spawn(plain);
            let awaits_tied = spawn(tied.cancel_on_drop());
            yield_now().await;
            assert!(awaits_plain.cancel() && awaits_tied.cancel());
            assert!(awaits_tied.await.is_err() && awaits_plain.await.is_err());
            while !tied_ends.is_finished() {
                yield_now().await;
            }
            assert!(!plain_ends.is_finished());
            assert!(plain_ends.cancel());
            let freed = CancelOnDrop::detach(spawn(async { 6 }).cancel_on_drop());
            assert_eq!(freed.await.expect("not cancelled"), 6);
        });
        end(runtime);
    }
}

#[test]
fn task_15_a_task_that_awaits_itself_panics_and_a_result_is_given_once() {
    let runtime = lent(1);
    run(&runtime, async {
        for is_movable in [true, false] {
            let (sender, receiver) = garland::sync::channel::bounded::<JoinHandle<()>>(1);
            let body = async move {
                let own = receiver.recv().await.expect("sent below");
                own.await.unwrap_or_default();
            };
            let task = if is_movable {
                spawn(body)
            } else {
                spawn_local(body)
            };
            let ends = task.cancel_handle().expect("it lives");
            sender.send(task).await.expect("received");
            while !ends.is_finished() {
                yield_now().await;
            }
            assert!(!ends.cancel(), "it has ended by itself");
        }
        let mut once = spawn(async { 1 });
        assert_eq!((&mut once).await.expect("did not panic"), 1);
        let again = spawn_local(async move { once.await.is_ok() });
        let error = again.await.expect_err("it panicked");
        let message = error.panic_message().expect("a text");
        assert!(message.contains("after it gave its result"), "{message}");
    });
    assert_eq!(end(runtime).total(|one| one.tasks_panicked), 3);
}

#[test]
fn task_22_anything_that_can_be_awaited_becomes_a_task_or_a_future_of_the_loop() {
    struct Later(u32);
    impl IntoFuture for Later {
        type Output = u32;
        type IntoFuture = std::future::Ready<u32>;
        fn into_future(self) -> Self::IntoFuture {
            std::future::ready(self.0)
        }
    }
    let (runtime, _clock) = on_auto_clock();
    let (other_promise, of_other) = lent(1).local().create_future::<u32>();
    run(&runtime, async {
        let local = runtime.local();
        assert_eq!(
            spawn_local(Later(1).into_future()).await.expect("no panic"),
            1
        );
        assert_eq!(
            local
                .wrap_future(async { spawn(async { 2 }).await.ok() })
                .await,
            Ok(Some(2))
        );
        let (promise, future) = local.create_future();
        promise.set_result(3).expect("first");
        assert_eq!(local.wrap_future(future).await, Ok(Ok(3)));
        let limit = Duration::from_secs(1);
        assert_eq!(
            timeout(limit, local.wrap_future(async { 4 })).await,
            Ok(Ok(4))
        );
        // That of a loop that is gone was cancelled by nobody: asked here, it is another loop's.
        assert_eq!(of_other.await, Err(FutError::OtherLoop));
    });
    drop(other_promise);
    end(runtime);
}

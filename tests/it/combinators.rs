//! Waiting for several tasks: what ends the wait, and what becomes of the tasks.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use garland::{
    CancelHandle, JoinError, JoinHandle, TimedOut, When, as_completed, gather, gather_all, sleep,
    spawn, spawn_local, timeout, try_gather, wait, wait_for, yield_now,
};

use crate::support::{end, lent, on_auto_clock, run};

const MS: Duration = Duration::from_millis(1);

async fn after(ms: u32) -> u32 {
    sleep(ms * MS).await;
    ms
}

/// Tasks of both kinds by turns, each ending after its milliseconds.
fn timed<const N: usize>(delays: [u32; N]) -> [JoinHandle<u32>; N] {
    delays.map(|ms| match ms % 2 {
        0 => spawn(after(ms)),
        _ => spawn_local(after(ms)),
    })
}

fn cancel_handle<T>(handle: &JoinHandle<T>) -> CancelHandle {
    handle.cancel_handle().expect("it lives")
}

/// A clock that jumps does so only when there is nothing to do: hence not `yield_now`.
async fn ended(task: &CancelHandle) {
    while !task.is_finished() {
        sleep(MS / 4).await;
    }
}

#[test]
fn comb_01_wait_ends_by_its_condition_or_its_limit_and_cancels_nothing() {
    /// Delays, limit, condition; which have ended, and when.
    type Row = (&'static [u32], Option<u32>, When, &'static [u32], u32);
    let table: &[Row] = &[
        (&[3, 1, 2], None, When::All, &[3, 1, 2], 3),
        (&[3, 1, 2], None, When::FirstCompleted, &[1], 1),
        (&[3, 1, 1], None, When::FirstCompleted, &[1, 1], 1),
        (&[3, 1, 2], None, When::FirstFailure, &[3, 1, 2], 3),
        (&[3, 1, 9], Some(2), When::All, &[1], 2),
        (&[3, 5], Some(2), When::FirstCompleted, &[], 2),
        (&[0, 4], Some(0), When::FirstCompleted, &[], 0),
    ];
    for (delays, limit, when, expected, at) in table {
        let (runtime, clock) = on_auto_clock();
        run(&runtime, async {
            let tasks = delays.iter().map(|ms| spawn(after(*ms)));
            let (done, pending) = wait(tasks, limit.map(|ms| ms * MS), *when).await;
            assert_eq!(clock.elapsed(), *at * MS, "{delays:?} {limit:?} {when:?}");
            assert_eq!(done.len() + pending.len(), delays.len());
            let done = gather(done).await.expect("none panics");
            assert_eq!(done, *expected, "{delays:?} {limit:?} {when:?}");
            assert_eq!(clock.elapsed(), *at * MS, "what is done needs no waiting");
            let left = gather(pending).await.expect("they were not cancelled");
            assert_eq!(left.len(), delays.len() - expected.len());
        });
        end(runtime);
    }
}

#[test]
fn comb_01_a_panic_is_the_first_failure_and_a_cancellation_is_none() {
    let (runtime, clock) = on_auto_clock();
    run(&runtime, async {
        let cancelled = spawn(after(50));
        assert!(cancelled.cancel());
        let fails = spawn_local(async {
            sleep(2 * MS).await;
            panic!("on purpose")
        });
        let tasks = [spawn(after(4)), cancelled, fails, spawn(after(1))];
        let (done, pending) = wait(tasks, None, When::FirstFailure).await;
        assert_eq!(clock.elapsed(), 2 * MS);
        assert_eq!((done.len(), pending.len()), (3, 1));
        let results = gather_all(done).await;
        assert!(matches!(results[0], Err(JoinError::Cancelled)));
        assert!(matches!(results[1], Err(JoinError::Panicked(_))));
        assert!(matches!(results[2], Ok(1)));
        gather(pending).await.expect("it goes on");
    });
    end(runtime);
}

#[test]
fn comb_01_wait_for_nothing_is_an_error() {
    let runtime = lent(1);
    run(&runtime, async {
        let waits = spawn_local(async {
            wait(Vec::<JoinHandle<()>>::new(), None, When::All).await;
        });
        assert!(matches!(waits.await, Err(JoinError::Panicked(_))));
    });
    end(runtime);
}

#[test]
fn comb_02_cancelling_who_waits_leaves_the_tasks_running() {
    let (runtime, clock) = on_auto_clock();
    run(&runtime, async {
        let tasks = timed([2, 5]);
        let left = [cancel_handle(&tasks[0]), cancel_handle(&tasks[1])];
        let waits = spawn(wait(tasks, None, When::All));
        yield_now().await;
        assert!(waits.cancel());
        assert!(waits.await.is_err());
        assert!(left.iter().all(|task| !task.is_finished()));
        for task in &left {
            ended(task).await;
            assert!(!task.cancel(), "it ended by itself");
        }
        assert_eq!(clock.elapsed(), 5 * MS);
    });
    assert_eq!(end(runtime).total(|one| one.tasks_cancelled), 1);
}

#[test]
fn comb_03_gather_returns_the_results_in_the_order_of_the_handles() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        run(&runtime, async {
            let tasks = (0..20_usize).map(|nth| {
                let there = runtime.handle().on(nth % loops);
                there.spawn_on(move || async move {
                    for _ in 0..(nth * 7) % 5 {
                        yield_now().await;
                    }
                    nth
                })
            });
            let gathered = gather(tasks).await.expect("none panics");
            assert!(gathered.into_iter().eq(0..20));
            assert!(
                gather(Vec::<JoinHandle<()>>::new())
                    .await
                    .is_ok_and(|none| none.is_empty())
            );
            assert!(gather_all(Vec::<JoinHandle<()>>::new()).await.is_empty());
        });
        end(runtime);
    }
}

#[test]
fn comb_04_the_first_error_goes_out_at_once_and_the_others_run_on() {
    let (runtime, clock) = on_auto_clock();
    run(&runtime, async {
        // By a panic, by a cancellation, by an error that was returned.
        let [slow, other] = timed([7, 2]);
        let left = cancel_handle(&slow);
        let panics = spawn(async {
            sleep(3 * MS).await;
            panic!("on purpose")
        });
        let error = gather([slow, other, panics]).await.expect_err("one panics");
        assert_eq!(error.panic_message(), Some("on purpose"));
        assert_eq!(clock.elapsed(), 3 * MS);
        assert!(!left.is_finished());

        let [slow, cancelled] = timed([9, 20]);
        let left_too = cancel_handle(&slow);
        assert!(cancelled.cancel());
        assert!(
            gather([slow, cancelled])
                .await
                .expect_err("one is cancelled")
                .is_cancelled()
        );
        assert!(!left_too.is_finished());

        let fails = |ms: u32| async move {
            sleep(ms * MS).await;
            if ms == 1 {
                Err(io::Error::other("one"))
            } else {
                Ok(ms)
            }
        };
        let tasks = [spawn(fails(5)), spawn_local(fails(1)), spawn(fails(2))];
        let left_again = cancel_handle(&tasks[0]);
        let error = try_gather(tasks).await.expect_err("one fails");
        assert_eq!(error.to_string(), "one");
        assert_eq!(clock.elapsed(), 4 * MS);
        let tasks = [spawn(fails(5)), spawn(async { panic!("on purpose") })];
        let error = try_gather(tasks).await.expect_err("one panics");
        assert_eq!(error.to_string(), "the task panicked: on purpose");
        assert_eq!(
            try_gather([2, 3].map(|ms| spawn(fails(ms)))).await.ok(),
            Some(vec![2, 3])
        );

        for task in [left, left_too, left_again] {
            ended(&task).await;
            assert!(!task.cancel(), "it ended by itself");
        }
    });
    end(runtime);
}

#[test]
fn comb_05_gather_all_makes_items_of_errors() {
    let (runtime, _clock) = on_auto_clock();
    run(&runtime, async {
        let panics = spawn_local(async { panic!("on purpose") });
        let cancelled = spawn(after(9));
        assert!(cancelled.cancel());
        let results = gather_all([spawn(after(2)), panics, cancelled, spawn(after(1))]).await;
        let texts: Vec<_> = results.iter().map(|result| format!("{result:?}")).collect();
        assert_eq!(
            texts,
            [
                "Ok(2)",
                "Err(Panicked(Some(\"on purpose\")))",
                "Err(Cancelled)",
                "Ok(1)"
            ]
        );
    });
    end(runtime);
}

#[test]
fn comb_06_a_gather_that_is_dropped_cancels_its_tasks_even_before_it_was_polled() {
    for loops in [1, 2, 4] {
        for polled in [true, false] {
            let runtime = lent(loops);
            run(&runtime, async {
                let tasks = [
                    spawn(pending::<u32>()),
                    spawn_local(pending()),
                    spawn(async { 1 }),
                ];
                let left = [cancel_handle(&tasks[0]), cancel_handle(&tasks[1])];
                let gathers = gather(tasks);
                let all = [spawn(pending::<u32>()), spawn(pending())];
                let of_all = cancel_handle(&all[0]);
                let gathers_all = gather_all(all);
                if polled {
                    let waits = spawn(gathers);
                    let waits_all = spawn(gathers_all);
                    yield_now().await;
                    assert!(waits.cancel() && waits_all.cancel());
                    assert!(waits.await.is_err() && waits_all.await.is_err());
                } else {
                    drop((gathers, gathers_all));
                }
                for task in left.iter().chain([&of_all]) {
                    ended(task).await;
                    assert!(!task.cancel(), "it has ended");
                }
            });
            end(runtime);
        }
    }
}

#[test]
fn comb_07_as_completed_yields_the_handles_as_they_end_and_then_what_is_late() {
    let (runtime, clock) = on_auto_clock();
    run(&runtime, async {
        let tasks = timed([5, 1, 8, 3]);
        let ids = tasks.each_ref().map(JoinHandle::id);
        let mut completed = as_completed(tasks, 6 * MS);
        for (nth, ms) in [(1, 1), (3, 3), (0, 5)] {
            // Dropped in vain, it loses nothing.
            let early = timeout(Duration::ZERO, completed.next()).await;
            assert!(early.is_err());
            let task = completed.next().await.expect("more").expect("in time");
            assert_eq!(clock.elapsed(), ms * MS);
            assert_eq!(task.id(), ids[nth], "it is the original handle");
            assert_eq!(task.await.expect("did not panic"), ms);
        }
        assert_eq!(
            completed.next().await.expect("late").err(),
            Some(TimedOut { after: 6 * MS })
        );
        assert_eq!(clock.elapsed(), 6 * MS);
        assert!(completed.next().await.is_none());
        let [late] = completed.into_pending().try_into().expect("one is left");
        assert_eq!(late.await.expect("it was not cancelled"), 8);

        let mut completed = as_completed(timed([5, 5, 4]), 1 * MS);
        for _ in 0..3 {
            assert!(completed.next().await.expect("an item each").is_err());
        }
        assert!(completed.next().await.is_none() && completed.next().await.is_none());
        for task in completed.into_pending() {
            task.await.expect("it was not cancelled");
        }
        assert!(
            as_completed(Vec::<JoinHandle<()>>::new(), None)
                .next()
                .await
                .is_none()
        );
    });
    end(runtime);
}

#[test]
fn comb_08_wait_for_cancels_what_is_late_and_waits_until_it_is_gone() {
    /// Notes that its task is gone, when it is.
    struct Gone(Arc<AtomicBool>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let (runtime, clock) = on_auto_clock();
    run(&runtime, async {
        let gone = Arc::new(AtomicBool::new(false));
        for is_movable in [true, false] {
            gone.store(false, Ordering::SeqCst);
            let guard = Gone(Arc::clone(&gone));
            let body = async move {
                let _guard = guard;
                pending::<()>().await;
            };
            let task = if is_movable {
                spawn(body)
            } else {
                spawn_local(body)
            };
            let late = wait_for(task, 3 * MS).await;
            assert_eq!(late.err(), Some(TimedOut { after: 3 * MS }));
            assert!(gone.load(Ordering::SeqCst), "not before it is gone");
        }
        assert_eq!(clock.elapsed(), 6 * MS);
        assert_eq!(
            wait_for(spawn(after(2)), 3 * MS).await.map(Result::ok),
            Ok(Some(2))
        );
        let own = wait_for(spawn(async { panic!("its own") }), 3 * MS).await;
        let own: JoinError = own.expect("in time").expect_err("it panics");
        assert_eq!(own.panic_message(), Some("its own"));
        // Its own panic wins, even while it is cancelled.
        struct PanicsInDrop;
        impl Drop for PanicsInDrop {
            fn drop(&mut self) {
                panic!("while it is cancelled");
            }
        }
        let task = spawn(async {
            let _guard = PanicsInDrop;
            pending::<()>().await;
        });
        let own = wait_for(task, MS).await.expect("no TimedOut");
        let message = own.expect_err("it panicked");
        assert_eq!(message.panic_message(), Some("while it is cancelled"));
    });
    end(runtime);
}

#[test]
fn comb_09_wait_for_zero_lets_nothing_begin_and_none_waits_for_ever() {
    let (runtime, clock) = on_auto_clock();
    run(&runtime, async {
        let began = Arc::new(AtomicBool::new(false));
        for is_movable in [true, false] {
            let noted = Arc::clone(&began);
            let body = async move { noted.store(true, Ordering::SeqCst) };
            let task = if is_movable {
                spawn(body)
            } else {
                spawn_local(body)
            };
            let late = wait_for(task, Duration::ZERO).await;
            assert_eq!(
                late.err(),
                Some(TimedOut {
                    after: Duration::ZERO
                })
            );
        }
        assert!(!began.load(Ordering::SeqCst));
        let done = spawn(async { 5 });
        while !done.is_finished() {
            yield_now().await;
        }
        assert_eq!(
            wait_for(done, Duration::ZERO).await.map(Result::ok),
            Ok(Some(5))
        );
        let month = 30 * 24 * 3600 * 1000;
        assert_eq!(
            wait_for(spawn(after(month)), None).await.map(Result::ok),
            Ok(Some(month))
        );
        assert_eq!(clock.elapsed(), month * MS);
    });
    end(runtime);
}

#[test]
fn comb_10_cancelling_who_waits_cancels_the_task_also_if_it_ends_in_the_same_turn() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        run(&runtime, async {
            for polled in [true, false] {
                let task = spawn(pending::<()>());
                let inner = cancel_handle(&task);
                let waits = wait_for(task, Duration::from_secs(3600));
                if polled {
                    let waits = spawn(waits);
                    yield_now().await;
                    assert!(waits.cancel());
                    assert!(waits.await.expect_err("cancelled").is_cancelled());
                } else {
                    drop(waits);
                }
                ended(&inner).await;
                assert!(!inner.cancel(), "it has ended");
            }
        });
        end(runtime);
    }
    let runtime = lent(1);
    run(&runtime, async {
        let local = runtime.local();
        let (promise, future) = local.create_future::<u32>();
        let task = local.spawn_local(future);
        let waits = local.spawn_local(wait_for(task, Duration::from_secs(3600)));
        yield_now().await;
        promise.set_result(1).expect("first");
        assert!(waits.cancel());
        assert!(waits.await.expect_err("cancelled").is_cancelled());
    });
    end(runtime);
}

#[test]
fn comb_11_awaiting_a_handle_is_a_shield() {
    let (runtime, clock) = on_auto_clock();
    run(&runtime, async {
        // Cancelling the outer leaves the inner running, also under a limit.
        let inner = spawn(after(5));
        let left = cancel_handle(&inner);
        let outer = spawn(inner);
        yield_now().await;
        assert!(outer.cancel());
        assert!(outer.await.expect_err("cancelled").is_cancelled());
        let mut slow = spawn(after(9));
        assert!(timeout(MS, &mut slow).await.is_err());
        assert!(!left.is_finished() && !slow.is_finished());
        assert_eq!(slow.await.expect("it went on"), 9);
        assert!(left.is_finished() && !left.cancel());
        // Cancelling the inner is seen by the outer.
        let inner = spawn(pending::<()>());
        let cancels = cancel_handle(&inner);
        let outer = spawn(inner);
        yield_now().await;
        assert!(cancels.cancel());
        let seen = outer.await.expect("it was not cancelled itself");
        assert!(seen.expect_err("cancelled").is_cancelled());
        // Done already: no turn passes.
        let done = spawn(async { 1 });
        while !done.is_finished() {
            yield_now().await;
        }
        let before = runtime.stats().total(|one| one.turns);
        assert_eq!(done.await.expect("did not panic"), 1);
        assert_eq!(runtime.stats().total(|one| one.turns), before);
        // The error of one that nobody awaits any more hurts nobody.
        let fails = spawn(async {
            sleep(MS).await;
            panic!("on purpose")
        });
        let outer = spawn(fails);
        yield_now().await;
        assert!(outer.cancel());
        sleep(2 * MS).await;
    });
    assert_eq!(clock.elapsed(), 11 * MS);
    end(runtime);
}

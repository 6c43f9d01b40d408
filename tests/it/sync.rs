//! Locks, semaphores, events, conditions and barriers: order, cancellation, and tasks of several loops.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;

use garland::sync::{
    Barrier, BrokenBarrier, Condition, Event, Lock, OverRelease, OwnedPermit, RwLock, Semaphore,
};
use garland::{JoinHandle, gather, spawn, spawn_local, yield_now};

use crate::support::{Trace, end, lent, run};

/// One step of a future, by hand.
fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Lets every task of a single loop make its steps.
async fn settle() {
    for _ in 0..10 {
        yield_now().await;
    }
}

async fn cancel<T>(task: JoinHandle<T>) {
    assert!(task.cancel());
    assert!(task.await.is_err_and(|error| error.is_cancelled()));
}

#[test]
fn sync_01_a_lock_is_handed_over_in_order_and_newcomers_do_not_overtake() {
    let runtime = lent(1);
    run(&runtime, async {
        let lock = Rc::new(Lock::new(Vec::new()));
        let held = lock.lock().await;
        let waiting: Vec<_> = (0..4)
            .map(|nth| {
                let lock = Rc::clone(&lock);
                spawn_local(async move { lock.lock().await.push(nth) })
            })
            .collect();
        settle().await;
        drop(held);
        // It is free for nobody but the first in line, who has not run yet.
        assert!(lock.locked() && lock.try_lock().is_none());
        lock.lock().await.push(9);
        assert_eq!(*lock.lock().await, [0, 1, 2, 3, 9]);
        gather(waiting).await.expect("none panics");
        assert!(!lock.locked() && lock.try_lock().is_some());
        let lock = Rc::into_inner(lock).expect("all have ended");
        assert_eq!(lock.into_inner().len(), 5);
    });
    end(runtime);
}

#[test]
fn sync_01_a_free_lock_is_taken_without_a_pause() {
    let lock = Lock::new(1);
    let guard = match poll(&mut pin!(lock.lock())) {
        Poll::Ready(guard) => *guard,
        Poll::Pending => unreachable!("it is free"),
    };
    assert_eq!((guard, lock.locked()), (1, false));
}

#[test]
fn sync_02_who_is_cancelled_after_being_chosen_passes_the_turn_on() {
    for chosen in [false, true] {
        let runtime = lent(1);
        run(&runtime, async {
            let lock = Rc::new(Lock::new(0));
            let held = lock.lock().await;
            let waits = |n: u32| {
                let lock = Rc::clone(&lock);
                spawn_local(async move { *lock.lock().await += n })
            };
            let (first, second) = (waits(1), waits(10));
            settle().await;
            if chosen {
                drop(held);
                cancel(first).await;
            } else {
                cancel(first).await;
                drop(held);
            }
            second.await.expect("it has its turn");
            assert_eq!(*lock.lock().await, 10);
        });
        end(runtime);
    }
}

#[test]
fn sync_02_cancels_against_releases_lose_no_permit() {
    const ROUNDS: u32 = 300;
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        run(&runtime, async {
            let permits = Arc::new(Semaphore::bounded(2));
            for round in 0..ROUNDS {
                let tasks: Vec<_> = (0..8)
                    .map(|_| {
                        let permits = Arc::clone(&permits);
                        spawn(async move {
                            let _permit = permits.acquire().await;
                            yield_now().await;
                        })
                    })
                    .collect();
                for (nth, task) in (0..).zip(&tasks) {
                    if (nth + round) % 3 == 0 {
                        yield_now().await;
                        task.cancel();
                    }
                }
                for task in tasks {
                    task.await.unwrap_or_default();
                }
            }
            let both = (permits.try_acquire(), permits.try_acquire());
            assert!(both.0.is_some() && both.1.is_some());
        });
        end(runtime);
    }
}

#[test]
fn sync_03_set_wakes_all_who_wait_even_if_it_is_cleared_before_they_run() {
    let runtime = lent(1);
    run(&runtime, async {
        let (event, trace) = (Rc::new(Event::new()), Trace::new());
        let waits = |nth: u32| {
            let (event, trace) = (Rc::clone(&event), trace.clone());
            spawn_local(async move {
                event.wait().await;
                trace.note(nth);
            })
        };
        let waiting = [waits(0), waits(1), waits(2)];
        settle().await;
        assert!(!event.is_set() && trace.len() == 0);
        event.set();
        event.clear();
        let late = waits(3);
        settle().await;
        assert_eq!(trace.take(), [0, 1, 2]);
        assert!(!late.is_finished(), "it waits for the next one");
        cancel(late).await;
        event.set();
        assert!(event.is_set());
        assert!(poll(&mut pin!(event.wait())).is_ready(), "without a pause");
        gather(waiting).await.expect("none panics");
    });
    end(runtime);
}

#[test]
fn sync_04_a_condition_gives_the_lock_up_and_back_in_the_order_of_waiting() {
    let runtime = lent(1);
    run(&runtime, async {
        let shared = Rc::new((Lock::new(Vec::new()), Condition::new()));
        let waits = |nth: u32| {
            let shared = Rc::clone(&shared);
            spawn_local(async move {
                let mut seen = shared.1.wait(shared.0.lock().await).await;
                seen.push(nth);
                // It has the lock across an await.
                yield_now().await;
                assert_eq!(seen.last(), Some(&nth));
            })
        };
        let waiting = [waits(0), waits(1), waits(2), waits(3)];
        settle().await;
        let held = shared.0.try_lock().expect("who waits has given it up");
        shared.1.notify(&held, 2);
        settle().await;
        assert!(held.is_empty(), "they need the lock to go on");
        drop(held);
        settle().await;
        assert_eq!(*shared.0.lock().await, [0, 1]);
        shared.1.notify(&shared.0.lock().await, 0);
        shared.1.notify_all(&shared.0.lock().await);
        gather(waiting).await.expect("none panics");
        assert_eq!(*shared.0.lock().await, [0, 1, 2, 3]);
        // With nobody there a notice is lost, and a condition that holds needs none.
        shared.1.notify(&shared.0.lock().await, 7);
        let seen = shared
            .1
            .wait_for(shared.0.lock().await, |seen| seen.len() == 4);
        assert_eq!(seen.await.len(), 4);
        let late = waits(4);
        settle().await;
        assert!(!late.is_finished());
        cancel(late).await;
        assert!(!shared.0.locked());
    });
    end(runtime);
}

#[test]
fn sync_04_who_is_cancelled_after_a_notice_passes_it_on() {
    // Cancelled while it waits for the notice, with the notice under way, and while it waits for the
    // lock.
    for stage in 0..3 {
        let runtime = lent(1);
        run(&runtime, async {
            let shared = Rc::new((Lock::new(0), Condition::new()));
            let waits = |n: u32| {
                let shared = Rc::clone(&shared);
                spawn_local(async move {
                    *shared.1.wait(shared.0.lock().await).await += n;
                })
            };
            let (first, second) = (waits(1), waits(10));
            settle().await;
            let held = shared.0.lock().await;
            match stage {
                0 => {
                    cancel(first).await;
                    shared.1.notify(&held, 1);
                }
                1 => {
                    shared.1.notify(&held, 1);
                    cancel(first).await;
                }
                _ => {
                    shared.1.notify(&held, 1);
                    settle().await;
                    cancel(first).await;
                }
            }
            drop(held);
            second.await.expect("it got the notice");
            assert_eq!(*shared.0.lock().await, 10, "stage {stage}");
        });
        end(runtime);
    }
}

#[test]
fn sync_05_permits_go_out_in_order_and_a_newcomer_waits_behind() {
    let runtime = lent(1);
    run(&runtime, async {
        let (permits, trace) = (Arc::new(Semaphore::new(2)), Trace::new());
        let mut held: Vec<OwnedPermit> = Vec::new();
        for _ in 0..2 {
            assert!(!permits.locked());
            held.push(Arc::clone(&permits).acquire_arc().await);
        }
        assert!(permits.locked() && permits.try_acquire().is_none());
        let waits = |nth: u32| {
            let (permits, trace) = (Arc::clone(&permits), trace.clone());
            spawn_local(async move {
                let _permit = permits.acquire().await;
                trace.note(nth);
                yield_now().await;
            })
        };
        let first = [waits(0), waits(1), waits(2)];
        settle().await;
        held.clear();
        // Both are on their way; who comes now, even in this very step, is behind.
        assert!(permits.locked() && permits.try_acquire().is_none());
        let later = waits(3);
        gather(first.into_iter().chain([later]))
            .await
            .expect("none panics");
        assert_eq!(trace.take(), [0, 1, 2, 3]);
        let both = (permits.try_acquire(), permits.try_acquire());
        assert!(both.0.is_some() && both.1.is_some() && permits.try_acquire().is_none());
    });
    end(runtime);
}

#[test]
fn sync_05_a_bounded_semaphore_refuses_what_it_never_gave_out() {
    let bounded = Semaphore::bounded(1);
    assert_eq!(bounded.release(), Err(OverRelease));
    bounded.try_acquire().expect("free").forget();
    assert!(bounded.locked(), "a forgotten permit is not given back");
    assert_eq!(bounded.release(), Ok(()));
    assert_eq!(bounded.release(), Err(OverRelease));
    let unbounded = Semaphore::new(0);
    assert!(unbounded.locked());
    assert_eq!(unbounded.release(), Ok(()));
    assert!(unbounded.try_acquire().is_some());
}

#[test]
fn sync_06_a_barrier_lets_rounds_through_and_numbers_them_by_arrival() {
    let runtime = lent(1);
    run(&runtime, async {
        let (barrier, trace) = (Rc::new(Barrier::new(3)), Trace::new());
        assert_eq!(barrier.parties(), 3);
        let waits = |name: u32| {
            let (barrier, trace) = (Rc::clone(&barrier), trace.clone());
            spawn_local(async move {
                for round in 0..3 {
                    let place = barrier.wait().await.expect("nobody breaks it");
                    trace.note((round, name, place));
                }
            })
        };
        let first = [waits(0), waits(1)];
        settle().await;
        assert_eq!((barrier.n_waiting(), trace.len()), (2, 0));
        let last = waits(2);
        gather(first.into_iter().chain([last]))
            .await
            .expect("none panics");
        let mut seen = trace.take();
        assert_eq!(seen.len(), 9);
        let first: Vec<_> = seen
            .iter()
            .take(3)
            .map(|(_, name, place)| (*name, *place))
            .collect();
        assert_eq!(first, [(2, 2), (0, 0), (1, 1)], "the last does not wait");
        seen.sort_by_key(|(round, _, place)| (*round, *place));
        let places: Vec<_> = seen
            .iter()
            .map(|(round, _, place)| (*round, *place))
            .collect();
        let expected = (0..3).flat_map(|round| (0..3).map(move |place| (round, place)));
        assert!(places.into_iter().eq(expected), "each place once a round");
        assert_eq!(barrier.n_waiting(), 0);
        assert!(poll(&mut pin!(Barrier::new(1).wait())).is_ready());
    });
    end(runtime);
}

#[test]
fn sync_06_who_comes_before_a_round_has_gone_on_belongs_to_the_next() {
    let barrier = Barrier::new(2);
    let mut first = pin!(barrier.wait());
    assert!(poll(&mut first).is_pending());
    assert_eq!(poll(&mut pin!(barrier.wait())), Poll::Ready(Ok(1)));
    let mut next = pin!(barrier.wait());
    assert!(
        poll(&mut next).is_pending(),
        "the first has not gone on, but its round is over"
    );
    assert_eq!(poll(&mut first), Poll::Ready(Ok(0)));
    assert!(poll(&mut next).is_pending());
    assert_eq!(barrier.n_waiting(), 1);
}

#[test]
fn sync_06_reset_and_abort_break_who_waits_and_a_cancel_frees_a_place() {
    let runtime = lent(1);
    run(&runtime, async {
        let barrier = Rc::new(Barrier::new(3));
        let waits = || {
            let barrier = Rc::clone(&barrier);
            spawn_local(async move { barrier.wait().await })
        };
        // A cancelled one does not count.
        let (first, second) = (waits(), waits());
        settle().await;
        cancel(first).await;
        assert_eq!(barrier.n_waiting(), 1);
        let places = gather([second, waits(), waits()])
            .await
            .expect("none panics");
        assert_eq!(places, [Ok(0), Ok(1), Ok(2)]);
        // Reset: who waits fails, and the barrier is as new.
        let waiting = [waits(), waits()];
        settle().await;
        barrier.reset();
        assert!(!barrier.broken() && barrier.n_waiting() == 0);
        let broken = gather(waiting).await.expect("none panics");
        assert_eq!(broken, [Err(BrokenBarrier); 2]);
        gather([waits(), waits(), waits()])
            .await
            .expect("none panics");
        // Abort: who waits fails and who comes, until a reset.
        let waiting = waits();
        settle().await;
        barrier.abort();
        assert!(barrier.broken());
        assert_eq!(waiting.await.expect("no panic"), Err(BrokenBarrier));
        assert_eq!(barrier.wait().await, Err(BrokenBarrier));
        barrier.reset();
        assert!(!barrier.broken());
        let places = gather([waits(), waits(), waits()])
            .await
            .expect("none panics");
        assert_eq!(places, [Ok(0), Ok(1), Ok(2)]);
    });
    assert!(std::panic::catch_unwind(|| Barrier::new(0)).is_err());
    end(runtime);
}

#[test]
fn sync_07_tasks_of_all_loops_and_threads_meet_at_one_primitive() {
    const EACH: u32 = 100;
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        run(&runtime, async {
            let count = Arc::new(Lock::new(0));
            let twice = Arc::new(RwLock::new(0));
            let (begin, all) = (Arc::new(Event::new()), Arc::new(Barrier::new(loops + 1)));
            let adding: Vec<_> = (0..loops)
                .map(|on| {
                    let (count, twice) = (Arc::clone(&count), Arc::clone(&twice));
                    let (begin, all) = (Arc::clone(&begin), Arc::clone(&all));
                    runtime.handle().on(on).spawn_on(move || async move {
                        begin.wait().await;
                        for _ in 0..EACH {
                            let mut count = count.lock().await;
                            let before = *count;
                            yield_now().await;
                            *count = before + 1;
                            *twice.write().await += 2;
                        }
                        all.wait().await.is_ok()
                    })
                })
                .collect();
            let there = Arc::clone(&count);
            let thread = thread::spawn(move || {
                for _ in 0..EACH {
                    *futures_lite::future::block_on(there.lock()) += 1;
                }
            });
            begin.set();
            all.wait().await.expect("nobody breaks it");
            assert_eq!(
                gather(adding).await.expect("none panics"),
                vec![true; loops]
            );
            while !thread.is_finished() {
                yield_now().await;
            }
            let loops = u32::try_from(loops).expect("a few");
            assert_eq!(*count.lock().await, (loops + 1) * EACH);
            assert_eq!(*twice.read().await, loops * 2 * EACH);
        });
        end(runtime);
    }
}

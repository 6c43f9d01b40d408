//! Queues: order, bounds, what a cancellation may not lose, counting, shutting down.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use garland::sync::{
    BaseQueue, GetError, LifoQueue, PriorityQueue, PutError, Queue, Store, TooManyDone,
};
use garland::{JoinHandle, gather, spawn, spawn_local, yield_now};

use crate::support::{Trace, end, lent, run};

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

fn order<S: Store<u32>>(queue: BaseQueue<u32, S>) -> Vec<u32> {
    for item in [3, 1, 2, 1] {
        queue.put_nowait(item).expect("there is room");
    }
    std::iter::from_fn(|| queue.get_nowait().ok()).collect()
}

#[test]
fn que_01_items_come_out_in_the_order_of_the_queue() {
    assert_eq!(order(Queue::new(0)), [3, 1, 2, 1]);
    assert_eq!(order(LifoQueue::new(0)), [1, 2, 1, 3]);
    assert_eq!(order(PriorityQueue::new(0)), [1, 1, 2, 3]);
}

#[test]
fn que_01_a_bound_is_kept_and_who_does_not_wait_is_told() {
    let bounded = Queue::new(2);
    assert_eq!(
        (bounded.maxsize(), bounded.is_empty(), bounded.is_full()),
        (2, true, false)
    );
    assert_eq!(bounded.get_nowait(), Err(GetError::Empty));
    bounded.put_nowait('a').expect("there is room");
    bounded.put_nowait('b').expect("there is room");
    assert_eq!(bounded.put_nowait('c'), Err(PutError::Full('c')));
    assert_eq!(
        (bounded.len(), bounded.is_empty(), bounded.is_full()),
        (2, false, true)
    );
    assert_eq!(bounded.get_nowait(), Ok('a'));
    bounded.put_nowait('c').expect("there is room again");
    let unbounded = Queue::new(0);
    (0..10_000).for_each(|item| unbounded.put_nowait(item).expect("no bound"));
    assert!(!unbounded.is_full());
}

#[test]
fn que_01_what_needs_no_wait_does_not_pause() {
    let queue = Queue::new(1);
    let cx = &mut Context::from_waker(Waker::noop());
    assert_eq!(std::pin::pin!(queue.put(1)).poll(cx), Poll::Ready(Ok(())));
    assert_eq!(std::pin::pin!(queue.put(2)).poll(cx), Poll::Pending);
    assert_eq!(std::pin::pin!(queue.get()).poll(cx), Poll::Ready(Ok(1)));
    assert_eq!(std::pin::pin!(queue.get()).poll(cx), Poll::Pending);
}

#[test]
fn que_01_who_waits_is_woken_in_order() {
    let runtime = lent(1);
    run(&runtime, async {
        let (queue, trace) = (Rc::new(Queue::new(1)), Trace::new());
        let gets = |nth: u32| {
            let (queue, trace) = (Rc::clone(&queue), trace.clone());
            spawn_local(async move {
                let item = queue.get().await.expect("not shut down");
                trace.note((nth, item));
            })
        };
        let getting = [gets(0), gets(1), gets(2)];
        settle().await;
        for item in 10..13 {
            queue.put(item).await.expect("not shut down");
        }
        gather(getting).await.expect("none panics");
        assert_eq!(trace.take(), [(0, 10), (1, 11), (2, 12)]);
        // The same for who waits for room.
        queue.put(20).await.expect("not shut down");
        let puts = |item: u32| {
            let queue = Rc::clone(&queue);
            spawn_local(async move { queue.put(item).await })
        };
        let putting = [puts(21), puts(22), puts(23)];
        settle().await;
        assert_eq!(queue.len(), 1);
        for item in 20..24 {
            assert_eq!(queue.get().await, Ok(item));
        }
        gather(putting).await.expect("none panics");
    });
    end(runtime);
}

#[test]
fn que_02_a_cancelled_getter_loses_no_item_and_passes_its_wake_up_on() {
    for woken in [false, true] {
        let runtime = lent(1);
        run(&runtime, async {
            let queue = Rc::new(Queue::new(0));
            let gets = || {
                let queue = Rc::clone(&queue);
                spawn_local(async move { queue.get().await })
            };
            let (first, second) = (gets(), gets());
            settle().await;
            if woken {
                queue.put_nowait(1).expect("no bound");
                cancel(first).await;
            } else {
                cancel(first).await;
                queue.put_nowait(1).expect("no bound");
            }
            assert_eq!(second.await.expect("no panic"), Ok(1));
        });
        end(runtime);
    }
}

#[test]
fn que_02_a_cancelled_putter_passes_the_room_on() {
    for woken in [false, true] {
        let runtime = lent(1);
        run(&runtime, async {
            let queue = Rc::new(Queue::new(1));
            queue.put(0).await.expect("not shut down");
            let puts = |item: u32| {
                let queue = Rc::clone(&queue);
                spawn_local(async move { queue.put(item).await })
            };
            let (first, second) = (puts(1), puts(2));
            settle().await;
            if woken {
                assert_eq!(queue.get_nowait(), Ok(0));
                cancel(first).await;
            } else {
                cancel(first).await;
                assert_eq!(queue.get_nowait(), Ok(0));
            }
            assert_eq!(second.await.expect("no panic"), Ok(()));
            assert_eq!(queue.get_nowait(), Ok(2));
            assert!(queue.is_empty());
        });
        end(runtime);
    }
}

#[test]
fn que_02_producers_and_getters_that_are_cancelled_at_random_lose_nothing() {
    const ITEMS: u64 = 2_000;
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        run(&runtime, async {
            let queue = Arc::new(Queue::new(3));
            let producers: Vec<_> = (0..2)
                .map(|on| {
                    let queue = Arc::clone(&queue);
                    runtime
                        .handle()
                        .on(on % loops)
                        .spawn_on(move || async move {
                            for item in 1..=ITEMS {
                                queue.put(item).await.expect("not shut down");
                            }
                        })
                })
                .collect();
            // A getter counts in the step in which it gets: no cancel comes between.
            let (n, sum) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
            let mut round = 0;
            while n.load(Ordering::SeqCst) < 2 * ITEMS {
                round += 1;
                let getters = [(); 4].map(|()| {
                    let (queue, n, sum) = (Arc::clone(&queue), Arc::clone(&n), Arc::clone(&sum));
                    spawn(async move {
                        let item = queue.get().await.expect("not shut down");
                        sum.fetch_add(item, Ordering::SeqCst);
                        n.fetch_add(1, Ordering::SeqCst);
                    })
                });
                for _ in 0..round % 3 {
                    yield_now().await;
                }
                getters[round % 4].cancel();
                yield_now().await;
                for getter in getters {
                    getter.cancel();
                    getter.await.unwrap_or_default();
                }
            }
            let sum = sum.load(Ordering::SeqCst);
            gather(producers).await.expect("none panics");
            assert_eq!(sum, ITEMS * (ITEMS + 1));
            queue.shutdown();
        });
        end(runtime);
    }
}

#[test]
fn que_03_join_waits_for_every_item_and_too_many_reports_are_refused() {
    let runtime = lent(1);
    run(&runtime, async {
        let queue = Rc::new(Queue::new(0));
        queue.join().await;
        assert_eq!(queue.task_done(), Err(TooManyDone));
        for item in 0..2 {
            queue.put(item).await.expect("not shut down");
        }
        let joins = || {
            let queue = Rc::clone(&queue);
            spawn_local(async move { queue.join().await })
        };
        let joining = [joins(), joins()];
        settle().await;
        queue.get().await.expect("an item");
        queue.get().await.expect("an item");
        settle().await;
        assert!(!joining[0].is_finished(), "taken out is not done");
        assert_eq!(queue.task_done(), Ok(()));
        settle().await;
        assert!(!joining[0].is_finished());
        assert_eq!(queue.task_done(), Ok(()));
        gather(joining).await.expect("none panics");
        assert_eq!(queue.task_done(), Err(TooManyDone));
    });
    end(runtime);
}

#[test]
fn que_03_join_waits_for_what_is_put_before_it_goes_on() {
    let runtime = lent(1);
    run(&runtime, async {
        let queue = Rc::new(Queue::new(0));
        queue.put_nowait(1).expect("no bound");
        let joined = Rc::clone(&queue);
        let joins = spawn_local(async move { joined.join().await });
        settle().await;
        queue.task_done().expect("one is there");
        queue.put_nowait(2).expect("no bound");
        settle().await;
        assert!(!joins.is_finished(), "as asyncio, it looks again");
        queue.task_done().expect("one is there");
        joins.await.expect("no panic");
    });
    end(runtime);
}

#[test]
fn que_04_after_a_shutdown_puts_fail_and_gets_drain_first() {
    let runtime = lent(1);
    run(&runtime, async {
        let queue = Rc::new(Queue::new(1));
        queue.put(1).await.expect("not shut down");
        let late = Rc::clone(&queue);
        let puts = spawn_local(async move { late.put(2).await });
        settle().await;
        queue.shutdown();
        assert_eq!(puts.await.expect("no panic"), Err(PutError::ShutDown(2)));
        assert_eq!(queue.put_nowait(3), Err(PutError::ShutDown(3)));
        assert_eq!(queue.put(3).await, Err(PutError::ShutDown(3)));
        assert_eq!(queue.get().await, Ok(1));
        assert_eq!(queue.get().await, Err(GetError::ShutDown));
        assert_eq!(queue.get_nowait(), Err(GetError::ShutDown));
        queue.task_done().expect("one was put");
        queue.join().await;
        // Who waits for an item of an empty queue is told, too.
        let queue = Rc::new(Queue::<u32>::new(0));
        let waiting = [(); 2].map(|()| {
            let queue = Rc::clone(&queue);
            spawn_local(async move { queue.get().await })
        });
        settle().await;
        queue.shutdown();
        queue.shutdown();
        let told = gather(waiting).await.expect("none panics");
        assert_eq!(told, [Err(GetError::ShutDown); 2]);
    });
    end(runtime);
}

#[test]
fn que_04_shutdown_now_drops_the_items_and_frees_who_joins() {
    let runtime = lent(1);
    run(&runtime, async {
        let (queue, held) = (Rc::new(Queue::new(3)), Rc::new(()));
        for _ in 0..3 {
            queue.put(Rc::clone(&held)).await.expect("not shut down");
        }
        let taken = queue.get().await.expect("an item");
        let waits = Rc::clone(&queue);
        let joins = spawn_local(async move { waits.join().await });
        settle().await;
        queue.shutdown_now();
        assert_eq!(Rc::strong_count(&held), 2, "the rest is dropped");
        assert_eq!(queue.get().await, Err(GetError::ShutDown));
        settle().await;
        assert!(
            !joins.is_finished(),
            "one was taken out before, and is not done"
        );
        drop(taken);
        queue.task_done().expect("the one");
        joins.await.expect("no panic");
        assert_eq!(queue.task_done(), Err(TooManyDone));
    });
    end(runtime);
}

//! The end of a runtime: under load, with a stuck loop, by drop, and what its handles say afterwards.
//!
//! Repeated where the moment matters: each round shuts down at another point of its load.

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use garland::{JoinHandle, LocalLoop, LoopError, LoopHandle, sleep, spawn, yield_now};

use crate::support::{
    LIMIT, background, end, end_background, join, ledger, lent, receive, run, turn, wait_until,
};

const ROUNDS: u64 = 200;

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the bomb went off");
    }
}

/// Wakers that outlive their tasks, as a foreign reactor would keep them.
#[derive(Clone, Default)]
struct Wakers(Arc<Mutex<Vec<Waker>>>);

impl Wakers {
    /// Waits for ever, and leaves a waker behind.
    async fn wait(self) {
        poll_fn(|cx| {
            self.lock().push(cx.waker().clone());
            Poll::<()>::Pending
        })
        .await;
    }

    fn wake_all(&self) {
        let wakers = std::mem::take(&mut *self.lock());
        wakers.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does in its destructor what destructors should not: spawns, sends and wakes.
struct Clings {
    handle: LoopHandle,
    wakers: Wakers,
}

impl Drop for Clings {
    fn drop(&mut self) {
        drop(self.handle.spawn(yield_now()));
        drop(self.handle.on(0).spawn_on(|| async { drop(Rc::new(())) }));
        drop(self.handle.call_soon_threadsafe(|| ()));
        if LocalLoop::current().is_some() {
            drop(spawn(sleep(Duration::from_micros(5))));
            drop(garland::spawn_local(pending::<()>()));
        }
        self.wakers.wake_all();
    }
}

/// Tasks that spawn tasks, for as long as they live.
async fn breed() {
    loop {
        let child = spawn(async {
            drop(garland::spawn_local(yield_now()));
            yield_now().await;
        });
        yield_now().await;
        drop(child);
    }
}

/// Everything at once, on both loops.
fn load(handle: &LoopHandle, wakers: &Wakers) {
    for on in 0..2 {
        let wakers = wakers.clone();
        let make = move || async move {
            let local = LocalLoop::current().expect("inside a loop");
            for i in 1..20_u64 {
                local.call_later(Duration::from_micros(i * i * 50), || ());
                drop(local.spawn_local(wakers.clone().wait()));
            }
            drop(spawn(breed()));
            for _ in 0..10 {
                let clings = Clings {
                    handle: local.handle(),
                    wakers: wakers.clone(),
                };
                let waits = wakers.clone().wait();
                drop(spawn(async move {
                    let _clings = clings;
                    waits.await;
                }));
                let clings = Clings {
                    handle: local.handle(),
                    wakers: wakers.clone(),
                };
                drop(garland::spawn_local(async move {
                    let _clings = clings;
                    sleep(Duration::from_secs(3600)).await;
                }));
            }
        };
        drop(handle.on(on).spawn_on(make));
    }
}

/// A thread that sends, spawns and wakes until it is told to stop, after the close.
fn outsider(
    handle: &LoopHandle,
    wakers: &Wakers,
    is_over: &Arc<AtomicBool>,
) -> thread::JoinHandle<u64> {
    let (handle, wakers, is_over) = (handle.clone(), wakers.clone(), Arc::clone(is_over));
    thread::spawn(move || {
        let mut refused = 0;
        while !is_over.load(Ordering::SeqCst) || refused == 0 {
            for on in 0..2 {
                let handle = handle.on(on);
                refused += u64::from(handle.call_soon_threadsafe(|| ()).is_err());
                drop(handle.spawn(yield_now()));
                drop(handle.spawn_on(yield_now));
            }
            wakers.wake_all();
            thread::yield_now();
        }
        refused
    })
}

fn shut_down_under_load(round: u64, shut_down: impl FnOnce(&LoopHandle), handle: &LoopHandle) {
    let (wakers, is_over) = (Wakers::default(), Arc::new(AtomicBool::new(false)));
    load(handle, &wakers);
    let outsider = outsider(handle, &wakers, &is_over);
    let steps = || handle.stats().total(|one| one.tasks_run);
    wait_until("the load runs", handle, || steps() > round * 3);
    shut_down(handle);
    is_over.store(true, Ordering::SeqCst);
    assert!(
        outsider.join().expect("did not panic") > 0,
        "it was refused in the end"
    );
    ledger(&handle.stats());
    // Wakers that are still held are harmless.
    wakers.wake_all();
    ledger(&handle.stats());
}

#[test]
fn mc_19_a_background_runtime_shuts_down_under_load() {
    for round in 0..ROUNDS / 2 {
        let runtime = background(2);
        let handle = runtime.handle().clone();
        let shut_down = |handle: &LoopHandle| {
            let report = runtime.shutdown(LIMIT);
            assert!(
                report.is_clean(),
                "round {round}: {report}; {:#?}",
                handle.stats()
            );
        };
        shut_down_under_load(round, shut_down, &handle);
    }
}

#[test]
fn mc_19_a_lent_runtime_shuts_down_under_load() {
    for round in 0..ROUNDS / 2 {
        let runtime = lent(2);
        let handle = runtime.handle().clone();
        let local = runtime.local().clone();
        // The load is running on loop 1; loop 0 turns a few times and rests, full of work.
        let wakers = Wakers::default();
        load(&handle, &wakers);
        local.call_later(Duration::from_secs(3600), || unreachable!("in an hour"));
        for _ in 0..round % 5 {
            turn(&runtime);
        }
        let shut_down = |handle: &LoopHandle| {
            let report = runtime.shutdown(LIMIT);
            assert!(
                report.is_clean(),
                "round {round}: {report}; {:#?}",
                handle.stats()
            );
        };
        shut_down_under_load(round, shut_down, &handle);
        wakers.wake_all();
        ledger(&handle.stats());
    }
}

#[test]
fn mc_19_a_wake_up_that_crosses_the_close_drops_a_bound_future_at_home() {
    const WAITING: usize = 50;
    for _ in 0..ROUNDS {
        let runtime = background(2);
        let handle = runtime.handle().clone();
        let wakers = Wakers::default();
        let (ready, is_ready) = mpsc::channel();
        for on in 0..2 {
            let (wakers, ready) = (wakers.clone(), ready.clone());
            let make = move || async move {
                for _ in 0..WAITING {
                    // Neither future may be dropped by another thread than this one.
                    drop(garland::spawn_local(wakers.clone().wait()));
                    let (here, wakers) = (thread::current().id(), wakers.clone());
                    let checks = DropsAt(here);
                    let current = LoopHandle::current().expect("inside a loop");
                    drop(current.spawn_on(move || async move {
                        let _checks = checks;
                        wakers.wait().await;
                    }));
                }
                ready.send(()).expect("the test waits");
            };
            drop(handle.on(on).spawn_on(make));
        }
        receive(&is_ready, &handle);
        receive(&is_ready, &handle);
        let is_over = Arc::new(AtomicBool::new(false));
        let waking: Vec<_> = (0..2)
            .map(|_| {
                let (wakers, is_over) = (wakers.clone(), Arc::clone(&is_over));
                thread::spawn(move || {
                    while !is_over.load(Ordering::SeqCst) {
                        wakers.wake_all();
                    }
                })
            })
            .collect();
        let report = runtime.shutdown(LIMIT);
        is_over.store(true, Ordering::SeqCst);
        for thread in waking {
            thread.join().expect("a waker harms nobody");
        }
        assert!(report.is_clean(), "{report}");
        let stats = handle.stats();
        ledger(&stats);
        assert_eq!(stats.total(|one| one.tasks_panicked), 0, "{stats:#?}");
    }
}

/// Panics when it is dropped on another thread.
struct DropsAt(thread::ThreadId);

impl Drop for DropsAt {
    fn drop(&mut self) {
        assert_eq!(
            thread::current().id(),
            self.0,
            "dropped on a foreign thread"
        );
    }
}

/// Starts a task on loop `on` that blocks it until the sender is used.
fn block_loop(handle: &LoopHandle, on: usize) -> (mpsc::Sender<()>, JoinHandle<()>) {
    let (release, released) = mpsc::channel();
    let (entered, is_entered) = mpsc::channel();
    let task = handle.on(on).spawn_on(move || async move {
        entered.send(()).expect("the test waits");
        released.recv_timeout(LIMIT).expect("the test releases it");
        pending::<()>().await;
    });
    receive(&is_entered, handle);
    (release, task)
}

#[test]
fn a_stuck_loop_is_named_within_the_limit_and_ends_when_it_can() {
    let runtime = background(2);
    let handle = runtime.handle().clone();
    let (release, task) = block_loop(&handle, 1);
    let limit = Duration::from_millis(50);
    let begun = Instant::now();
    let report = runtime.shutdown(limit);
    let lasted = begun.elapsed();
    assert!(lasted >= limit && lasted < LIMIT, "{lasted:?}");
    assert!(!report.is_clean());
    let stuck: Vec<_> = report.stuck.iter().map(|id| id.index()).collect();
    assert_eq!(stuck, [1]);
    assert!(report.to_string().contains("loop 1 is stuck"), "{report}");
    let live = || handle.stats().total(|one| one.tasks_live);
    assert_eq!(live(), 1, "the rest was ended all the same");
    release.send(()).expect("it waits");
    wait_until("the stuck loop has ended", &handle, || live() == 0);
    assert!(join(&handle, task).expect_err("cancelled").is_cancelled());
    wait_until("the loop is closed", &handle, || {
        handle.on(1).call_soon_threadsafe(|| ()).is_err()
    });
    ledger(&handle.stats());
}

#[test]
fn a_stuck_loop_of_a_lent_runtime_does_not_keep_loop_0_from_closing() {
    let runtime = lent(2);
    let handle = runtime.handle().clone();
    let captured = Rc::new(());
    let held = Rc::clone(&captured);
    drop(
        runtime
            .local()
            .spawn_local(async move { unreachable!("never runs {held:?}") }),
    );
    let (release, _task) = block_loop(&handle, 1);
    let report = runtime.shutdown(Duration::from_millis(20));
    assert_eq!(report.stuck.len(), 1, "{report}");
    assert_eq!(Rc::strong_count(&captured), 1);
    release.send(()).expect("it waits");
    wait_until("the stuck loop has ended", &handle, || {
        handle.stats().total(|one| one.tasks_live) == 0
    });
    ledger(&handle.stats());
}

#[test]
fn loop_15_dropping_a_runtime_shuts_it_down() {
    let dropped = Arc::new(AtomicU64::new(0));
    struct Counts(Arc<AtomicU64>);
    impl Drop for Counts {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let counts = || Counts(Arc::clone(&dropped));
    let endless = |counts: Counts| async move {
        let _counts = counts;
        pending::<()>().await;
    };
    let runtime = background(2);
    let handle = runtime.handle().clone();
    drop(handle.spawn(endless(counts())));
    drop(runtime);
    ledger(&handle.stats());
    let runtime = lent(2);
    let handle = runtime.handle().clone();
    drop(runtime.local().spawn_local(endless(counts())));
    let there = counts();
    drop(handle.on(1).spawn_on(move || endless(there)));
    run(&runtime, yield_now());
    drop(runtime);
    ledger(&handle.stats());
    assert_eq!(dropped.load(Ordering::SeqCst), 3);
}

#[test]
fn loop_09_a_runtime_that_never_ran_drops_what_was_scheduled_without_running_it() {
    let runtime = lent(1);
    let local = runtime.local();
    let captured = Rc::new(());
    let held = || {
        let held = Rc::clone(&captured);
        move || unreachable!("never runs {held:?}")
    };
    // The handles are kept: they must not keep the captures.
    let calls = [local.call_soon(held()), local.call_soon(held())];
    let timers = [
        local.call_later(Duration::ZERO, held()),
        local.call_later(LIMIT, held()),
    ];
    let sent = Arc::new(());
    let inside = Arc::clone(&sent);
    let message = runtime
        .handle()
        .call_soon_threadsafe(move || unreachable!("{inside:?}"));
    let future = held();
    let task = local.spawn_local(async move { future() });
    let handle = runtime.handle().clone();
    end(runtime);
    assert_eq!(Rc::strong_count(&captured), 1);
    assert_eq!(Arc::strong_count(&sent), 1);
    assert!(calls.iter().all(|call| !call.cancel()));
    assert!(timers.iter().all(|timer| !timer.cancel()));
    assert!(!message.expect("it was open then").cancel());
    assert!(join_here(task).is_cancelled());
    ledger(&handle.stats());
}

/// The error of a task that has ended, on the thread that may hold its output.
fn join_here<T>(task: JoinHandle<T>) -> garland::JoinError {
    assert!(task.is_finished());
    futures_lite::future::block_on(task)
        .err()
        .expect("it gave no result")
}

#[test]
fn destructors_that_panic_do_not_keep_a_runtime_from_closing() {
    let runtime = lent(1);
    let local = runtime.local();
    for _ in 0..2 {
        let [a, b, c, d, e] = [Bomb, Bomb, Bomb, Bomb, Bomb];
        local.call_soon(move || drop(a));
        local.call_later(LIMIT, move || drop(b));
        let sent = runtime.handle().call_soon_threadsafe(move || drop(c));
        sent.expect("the loop is open");
        drop(local.spawn_local(async move { drop(d) }));
        drop(runtime.handle().spawn(async move { drop(e) }));
    }
    let handle = runtime.handle().clone();
    let report = runtime.shutdown(LIMIT);
    assert!(report.is_clean(), "{report}");
    let stats = handle.stats();
    ledger(&stats);
    assert_eq!(stats.total(|one| one.tasks_panicked), 4);
    assert_eq!(stats.total(|one| one.callback_panics), 6);
}

#[test]
fn loop_10_a_loop_that_is_closed_takes_nothing_and_arms_nothing() {
    let runtime = lent(1);
    let (local, handle) = (runtime.local().clone(), runtime.handle().clone());
    end(runtime);
    let captured = Rc::new(());
    let held = || {
        let held = Rc::clone(&captured);
        move || unreachable!("never runs {held:?}")
    };
    let call = local.call_soon(held());
    let timer = local.call_later(Duration::ZERO, held());
    let body = held();
    let task = local.spawn_local(async move { body() });
    assert_eq!(Rc::strong_count(&captured), 1);
    assert!(!call.cancel() && !timer.cancel() && !task.cancel());
    assert!(join_here(task).is_cancelled());
    ledger(&handle.stats());
}

#[test]
fn a_destructor_that_runs_a_loop_during_the_close_is_refused() {
    struct RunsALoop(Rc<RefCell<Vec<Result<(), LoopError>>>>);
    impl Drop for RunsALoop {
        fn drop(&mut self) {
            let other = lent(1);
            let refused = other.block_on(async {});
            self.0.borrow_mut().push(refused);
            end(other);
        }
    }
    let runtime = lent(1);
    let seen = Rc::default();
    let (queued, waiting) = (RunsALoop(Rc::clone(&seen)), RunsALoop(Rc::clone(&seen)));
    run(&runtime, async {
        drop(garland::spawn_local(async move {
            let _waiting = waiting;
            pending::<()>().await;
        }));
        yield_now().await;
    });
    runtime.local().call_soon(move || drop(queued));
    let stats = end(runtime);
    assert_eq!(*seen.borrow(), [Err(LoopError::OtherLoopRunning); 2]);
    assert_eq!(
        stats.total(|one| one.tasks_panicked + one.callback_panics),
        0
    );
}

#[test]
fn a_runtime_can_be_shut_down_inside_a_loop_of_another() {
    let outer = lent(1);
    run(&outer, async {
        let inner = background(2);
        let task = inner.handle().spawn(async { 5 });
        assert_eq!(task.await.expect("did not panic"), 5);
        end_background(inner);
        let unused = lent(2);
        drop(unused.local().spawn_local(pending::<()>()));
        end(unused);
        assert_eq!(spawn(async { 6 }).await.expect("did not panic"), 6);
    });
    end(outer);
}

#[test]
fn the_report_counts_the_tasks_that_the_shutdown_cancelled() {
    let runtime = lent(2);
    run(&runtime, async {
        spawn(async {}).await.expect("did not panic");
        let cancelled = spawn(pending::<()>());
        assert!(cancelled.cancel());
        assert!(cancelled.await.is_err());
        for on in 0..2 {
            drop(runtime.handle().on(on).spawn_on(pending::<()>));
            drop(runtime.handle().on(on).spawn(pending::<()>()));
        }
        yield_now().await;
    });
    let handle = runtime.handle().clone();
    let report = runtime.shutdown(LIMIT);
    assert!(report.is_clean());
    assert_eq!(report.tasks_cancelled, 4, "{report}");
    assert_eq!(report.to_string(), "4 tasks cancelled");
    ledger(&handle.stats());
}

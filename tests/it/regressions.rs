//! Faults a review found in the scheduler and the runtime, each brought back by one test.
//!
//! What went wrong stands above each test. Those of sockets and servers are in `regressions_net.rs`.

use std::cell::RefCell;
use std::future::{Future, pending, poll_fn};
use std::hint::spin_loop;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use garland::{BackgroundRuntime, LoopHandle, sleep, spawn, spawn_local, yield_now};

use crate::sockets::until;
use crate::support::{
    LIMIT, background, end, join, ledger, lent, receive, run, stress, turn, wait_until,
};

/// A foreign waker that panics when it is woken, and says that it was.
#[derive(Default)]
pub(crate) struct PanickingWaker {
    pub(crate) was_woken: AtomicBool,
}

impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        self.was_woken.store(true, Ordering::SeqCst);
        panic!("of a foreign waker");
    }
}

/// The panic left `block_on`, and would have ended the process on a thread of the runtime.
#[test]
fn a_waker_of_a_timer_that_panics_does_not_end_the_run() {
    let runtime = lent(1);
    run(&runtime, async {
        let bomb = Arc::new(PanickingWaker::default());
        let waker = Waker::from(Arc::clone(&bomb));
        let mut timer = pin!(sleep(Duration::from_millis(1)));
        let polled = timer.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        until("the timer fires", || bomb.was_woken.load(Ordering::SeqCst)).await;
    });
    let stats = end(runtime);
    assert_eq!(stats.total(|one| one.callback_panics), 1, "{stats:#?}");
}

/// Its step began with a plain store, which the loads of the step could overtake: some wake-up in
/// ten thousand was lost, in an optimised build only.
#[test]
fn mc_15_no_wake_up_of_the_future_of_block_on_is_lost() {
    let rounds = 20_000 * u64::from(stress());
    let runtime = lent(1);
    let handle = runtime.handle().clone();
    let (told, seen) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut waking = None;
    let ran = runtime.block_on(poll_fn(|cx| {
        let now = told.load(Ordering::Acquire);
        seen.store(now, Ordering::Release);
        waking.get_or_insert_with(|| {
            let (told, seen) = (Arc::clone(&told), Arc::clone(&seen));
            let (handle, waker) = (handle.clone(), cx.waker().clone());
            thread::spawn(move || {
                for round in 1..=rounds {
                    wake_twice(round, &waker, &told, &seen, &handle);
                }
            })
        });
        match now == 2 * rounds + 1 {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }));
    let waking = waking.expect("the first step starts it").join();
    waking.expect("no wake-up was lost");
    ran.expect("nobody stopped the loop");
    end(runtime);
}

/// Wakes, and once more while the step that follows is under way: that step or another one must see
/// what was told last.
fn wake_twice(round: u64, waker: &Waker, told: &AtomicU64, seen: &AtomicU64, handle: &LoopHandle) {
    told.store(2 * round, Ordering::Release);
    waker.wake_by_ref();
    // Each round meets another instant of the step.
    (0..round % 512).for_each(|_| spin_loop());
    told.store(2 * round + 1, Ordering::Release);
    waker.wake_by_ref();
    let begun = Instant::now();
    while seen.load(Ordering::Acquire) != 2 * round + 1 {
        if begun.elapsed() > LIMIT {
            handle.stop();
            panic!("lost in round {round}: {:#?}", handle.stats());
        }
        spin_loop();
    }
}

/// The loop that closes last has to end it: at its own close, the home cannot reach the task.
#[test]
fn a_task_that_runs_elsewhere_while_its_home_closes_ends_with_the_runtime() {
    let runtime = lent(2);
    let home = runtime.handle().clone();
    let (started, has_started) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let captured = Arc::new(());
    let held = Arc::clone(&captured);
    // Loop 0 does not run, so loop 1 takes it.
    let task = home.spawn(async move {
        let _held = held;
        started.send(()).expect("the test waits");
        released.recv_timeout(LIMIT).expect("released");
        pending::<()>().await;
    });
    receive(&has_started, &home);
    let closing = home.clone();
    let releases = thread::spawn(move || {
        wait_until("loop 0 is closed", &closing, || {
            closing.call_soon_threadsafe(|| ()).is_err()
        });
        release.send(()).expect("the task waits");
    });
    end(runtime);
    releases.join().expect("loop 0 was closed in time");
    assert_eq!(Arc::strong_count(&captured), 1, "its future was kept");
    assert!(task.is_finished());
    assert!(join(&home, task).expect_err("cancelled").is_cancelled());
}

/// It is closed inside the loop that drops it, where another loop is the current one.
#[test]
fn a_runtime_dropped_by_a_destructor_of_another_ends_its_own_tasks() {
    let (outer, inner) = (lent(1), lent(1));
    let inner_handle = inner.handle().clone();
    let captured = Rc::new(());
    let held = Rc::clone(&captured);
    drop(inner.local().spawn_local(async move {
        let _held = held;
        pending::<()>().await;
    }));
    // Its task waits, so that no queue holds it: only the close can end it.
    turn(&inner);
    run(&outer, async {
        drop(spawn_local(async move {
            let _inner = inner;
            pending::<()>().await;
        }));
        yield_now().await;
    });
    end(outer);
    assert_eq!(
        Rc::strong_count(&captured),
        1,
        "the inner one was not ended"
    );
    ledger(&inner_handle.stats());
}

thread_local! {
    /// Dropped at the end of its thread: then the receiver hears of it.
    static END_OF_THREAD: RefCell<Option<mpsc::Sender<()>>> = const { RefCell::new(None) };
}

/// What is left of a runtime that one of its own tasks drops, and how long the drop took.
fn drop_inside(runtime: BackgroundRuntime) -> (LoopHandle, Duration, mpsc::Receiver<()>) {
    let handle = runtime.handle().clone();
    let (tell, told) = mpsc::channel();
    let (alive, has_ended) = mpsc::channel();
    drop(handle.spawn_on(move || async move {
        END_OF_THREAD.set(Some(alive));
        // Another task beside it, which the other loop may have taken.
        drop(spawn(pending::<()>()));
        let begun = Instant::now();
        drop(runtime);
        tell.send(begun.elapsed()).expect("the test waits");
        pending::<()>().await;
    }));
    let lasted = receive(&told, &handle);
    (handle, lasted, has_ended)
}

/// A drop that waited for its own loop would take all of its 5 s.
#[test]
fn a_runtime_dropped_by_its_own_task_returns_at_once_and_its_loops_end() {
    for loops in [1, 2] {
        let (handle, lasted, has_ended) = drop_inside(background(loops));
        assert!(lasted < Duration::from_secs(2), "{loops} loops: {lasted:?}");
        let ended = has_ended.recv_timeout(LIMIT);
        let stats = handle.stats();
        assert_eq!(
            ended,
            Err(mpsc::RecvTimeoutError::Disconnected),
            "the thread goes on: {stats:#?}"
        );
        assert_eq!(stats.total(|one| one.tasks_cancelled), 2, "{stats:#?}");
        ledger(&stats);
        for on in 0..loops {
            assert!(handle.on(on).call_soon_threadsafe(|| ()).is_err());
        }
    }
}

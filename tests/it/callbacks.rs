//! Callbacks of one loop: order, turns, cancellation, panics, stopping, and calls from other threads.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use garland::{CallHandle, LocalLoop, LoopError, LoopHandle, yield_now};

use crate::support::{
    Trace, background, end, end_background, lent, on_auto_clock, receive, run, run_until_stopped,
    turn,
};

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the bomb went off");
    }
}

#[test]
fn loop_01_run_forever_ends_with_stop_and_loses_nothing_between_runs() {
    let (runtime, _clock) = on_auto_clock();
    let local = runtime.local().clone();
    let seen = Trace::new();
    for run in 0..3 {
        let (trace, stopper) = (seen.clone(), local.clone());
        local.call_soon(move || {
            trace.note(run);
            stopper.stop();
            stopper.call_soon(trace.noting(run + 10));
        });
        run_until_stopped(&runtime);
    }
    assert_eq!(seen.take(), [0, 10, 1, 11, 2]);
    turn(&runtime);
    assert_eq!(seen.take(), [12]);
    end(runtime);
}

#[test]
fn loop_02_block_on_gives_the_output_of_a_borrowing_future() {
    let runtime = lent(1);
    let text = String::from("borrowed");
    let counted = Cell::new(0);
    let length = run(&runtime, async {
        for _ in 0..5 {
            yield_now().await;
            counted.set(counted.get() + 1);
        }
        text.len()
    });
    assert_eq!((length, counted.get()), (8, 5));
    end(runtime);
}

#[test]
fn loop_02_a_panic_of_the_future_reaches_the_caller_and_the_loop_runs_again() {
    let runtime = lent(1);
    let run_it = || runtime.block_on(async { panic!("of the root") });
    let payload = catch_unwind(AssertUnwindSafe(run_it)).expect_err("it panics");
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"of the root"));
    assert!(LoopHandle::current().is_none());
    assert_eq!(run(&runtime, async { 7 }), 7);
    end(runtime);
}

#[test]
fn loop_03_a_stop_before_completion_is_an_error_and_the_lent_future_stays_pending() {
    let runtime = lent(1);
    let local = runtime.local().clone();
    let (sender, receiver) = async_channel::bounded::<u32>(1);
    let mut future = pin!(receiver.recv());
    local.clone().call_soon(move || local.stop());
    let stopped = runtime.block_on(future.as_mut());
    assert_eq!(stopped.expect_err("nothing was sent"), LoopError::Stopped);
    // A wake-up of the run that is over must not disturb the next one.
    sender.try_send(5).expect("it has room");
    assert_eq!(run(&runtime, async { 1 }), 1);
    assert_eq!(run(&runtime, future), Ok(5));
    end(runtime);
}

#[test]
fn loop_04_a_nested_run_is_refused_and_leaves_no_trace() {
    let (runtime, other) = (lent(1), lent(1));
    let polled = Cell::new(false);
    let touch = || async { polled.set(true) };
    run(&runtime, async {
        let before = runtime.stats();
        let nested = runtime.block_on(touch());
        assert_eq!(nested.expect_err("this loop runs"), LoopError::Running);
        let nested = runtime.run_forever();
        assert_eq!(nested.expect_err("this loop runs"), LoopError::Running);
        let nested = other.block_on(touch());
        let refused = LoopError::OtherLoopRunning;
        assert_eq!(nested.expect_err("another loop runs"), refused);
        let nested = other.run_forever();
        assert_eq!(nested.expect_err("another loop runs"), refused);
        assert_eq!(runtime.stats(), before, "nothing was queued or run");
        yield_now().await;
        let turns = runtime.stats().loops[0].turns - before.loops[0].turns;
        assert_eq!(turns, 1);
        let current = LoopHandle::current().expect("inside a loop");
        assert_eq!(current.id(), runtime.handle().id());
    });
    assert_eq!(other.stats().total(|one| one.turns), 0);
    assert!(!polled.get());
    // A trace would end this run early, or run something twice.
    turn(&other);
    assert_eq!(other.stats().total(|one| one.turns), 1);
    assert_eq!(run(&other, async { 3 }), 3);
    end(runtime);
    end(other);
}

#[test]
fn loop_05_stop_lets_the_present_batch_run_and_keeps_what_it_schedules() {
    let (runtime, _clock) = on_auto_clock();
    let local = runtime.local().clone();
    let seen = Trace::new();
    let (trace, stopper) = (seen.clone(), local.clone());
    local.call_soon(move || {
        trace.note("stops");
        stopper.stop();
        trace.note("goes on");
        stopper.call_soon(trace.noting("next run"));
    });
    local.call_soon(seen.noting("same batch"));
    run_until_stopped(&runtime);
    assert_eq!(seen.take(), ["stops", "goes on", "same batch"]);
    turn(&runtime);
    assert_eq!(seen.take(), ["next run"]);
    end(runtime);
}

#[test]
fn loop_05_stop_through_the_handle_ends_the_same_batch() {
    let (runtime, _clock) = on_auto_clock();
    let seen = Trace::new();
    let (trace, local) = (seen.clone(), runtime.local().clone());
    runtime.local().call_soon(move || {
        local.handle().stop();
        local.call_soon(trace.noting("next run"));
    });
    runtime.local().call_soon(seen.noting("same batch"));
    run_until_stopped(&runtime);
    assert_eq!(seen.take(), ["same batch"]);
    turn(&runtime);
    assert_eq!(seen.take(), ["next run"]);
    end(runtime);
}

#[test]
fn loop_06_stop_before_a_run_makes_exactly_one_turn_without_sleeping() {
    let runtime = lent(1);
    let local = runtime.local().clone();
    let seen = Trace::new();
    local.call_soon(seen.noting("ready"));
    local.call_later(Duration::ZERO, seen.noting("due"));
    local.call_later(Duration::from_secs(3600), || unreachable!("in an hour"));
    local.stop();
    run_until_stopped(&runtime);
    assert_eq!(seen.take(), ["ready", "due"]);
    let stats = runtime.stats();
    assert_eq!((stats.loops[0].turns, stats.loops[0].parks), (1, 0));
    // The flag was used up: the next run goes on until it is stopped.
    let stopper = local.clone();
    let turns = seen.clone();
    run(&runtime, async move {
        yield_now().await;
        turns.note("not stopped");
        stopper.call_soon(|| ());
    });
    assert_eq!(seen.take(), ["not stopped"]);
    end(runtime);
}

#[test]
fn loop_07_after_stop_the_loop_does_not_sleep() {
    let runtime = lent(1);
    let local = runtime.local().clone();
    let parks = Trace::new();
    let (trace, handle) = (parks.clone(), runtime.handle().clone());
    local.clone().call_soon(move || {
        trace.note(handle.stats().loops[0].parks);
        local.stop();
    });
    run_until_stopped(&runtime);
    assert_eq!(parks.take(), [runtime.stats().loops[0].parks]);
    end(runtime);
}

#[test]
fn loop_14_a_callback_may_stop_schedule_spawn_and_cancel() {
    let (runtime, _clock) = on_auto_clock();
    let local = runtime.local().clone();
    let seen = Trace::new();
    let trace = seen.clone();
    let cancelled = local.call_later(Duration::from_millis(1), || unreachable!("cancelled"));
    local.clone().call_soon(move || {
        local.call_soon(trace.noting("soon"));
        local.call_later(Duration::ZERO, trace.noting("later"));
        assert!(cancelled.cancel());
        let task = local.spawn_local(pending::<()>());
        assert!(task.cancel());
        let (joined, stopper) = (trace.clone(), local.clone());
        local.spawn_local(async move {
            assert!(task.await.expect_err("cancelled").is_cancelled());
            joined.note("joined");
            stopper.stop();
        });
    });
    run_until_stopped(&runtime);
    assert_eq!(seen.take(), ["soon", "joined", "later"]);
    assert_eq!(end(runtime).total(|one| one.callback_panics), 0);
}

#[test]
fn call_01_call_soon_is_never_inline_and_runs_once() {
    let (runtime, _clock) = on_auto_clock();
    let seen = Trace::new();
    runtime.local().call_soon(seen.noting(1));
    assert_eq!(seen.len(), 0);
    turn(&runtime);
    turn(&runtime);
    assert_eq!(seen.take(), [1]);
    end(runtime);
}

#[test]
fn call_02_callbacks_of_all_sources_run_in_the_order_in_which_they_became_ready() {
    let (runtime, _clock) = on_auto_clock();
    let local = runtime.local().clone();
    let seen = Trace::new();
    local.call_soon(seen.noting("soon 1"));
    let trace = seen.clone();
    drop(local.spawn_local(async move { trace.note("task 2") }));
    local.call_soon(seen.noting("soon 3"));
    let trace = seen.clone();
    drop(local.spawn_local(async move { trace.note("task 4") }));
    turn(&runtime);
    assert_eq!(seen.take(), ["soon 1", "task 2", "soon 3", "task 4"]);
    end(runtime);
}

#[test]
fn call_03_callbacks_and_bound_tasks_of_a_loop_never_overlap() {
    let runtime = background(2);
    let handle = runtime.handle().clone();
    let inside = Arc::new(AtomicUsize::new(0));
    let (done, finished) = mpsc::channel();
    let enter = move |inside: &AtomicUsize| {
        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at a time");
        std::hint::spin_loop();
        inside.fetch_sub(1, Ordering::SeqCst);
    };
    for _ in 0..4 {
        let (handle, inside, done) = (handle.clone(), Arc::clone(&inside), done.clone());
        thread::spawn(move || {
            for _ in 0..500 {
                let (a, b) = (Arc::clone(&inside), Arc::clone(&inside));
                handle
                    .call_soon_threadsafe(move || enter(&a))
                    .expect("the loop is open");
                drop(handle.spawn_on(move || async move { enter(&b) }));
            }
            let last = move || done.send(()).expect("the test waits");
            handle.call_soon_threadsafe(last).expect("the loop is open");
        });
    }
    for _ in 0..4 {
        receive(&finished, &handle);
    }
    let stats = end_background(runtime);
    assert_eq!(
        stats.total(|one| one.callback_panics + one.tasks_panicked),
        0
    );
}

#[test]
fn call_04_a_callback_queued_by_a_callback_waits_for_the_next_turn() {
    fn chain(local: &LocalLoop, turns: &Trace<u64>) {
        turns.note(local.handle().stats().loops[0].turns);
        if turns.len() < 50 {
            let (again, trace) = (local.clone(), turns.clone());
            local.call_soon(move || chain(&again, &trace));
        } else {
            local.stop();
        }
    }
    let runtime = lent(1);
    let local = runtime.local().clone();
    let turns = Trace::new();
    let trace = turns.clone();
    local.clone().call_soon(move || chain(&local, &trace));
    run_until_stopped(&runtime);
    assert_eq!(turns.take(), (1..=50).collect::<Vec<u64>>());
    let stats = runtime.stats();
    assert_eq!(
        stats.loops[0].polls, 50,
        "the selector is asked in every turn"
    );
    end(runtime);
}

#[test]
fn call_04_an_endless_chain_of_callbacks_starves_no_timer_and_no_message() {
    fn chain(local: &LocalLoop, ends: &Rc<Cell<bool>>) {
        if !ends.get() {
            let (again, ends) = (local.clone(), Rc::clone(ends));
            local.call_soon(move || chain(&again, &ends));
        }
    }
    let runtime = lent(1);
    let local = runtime.local().clone();
    let ends = Rc::new(Cell::new(false));
    chain(&local, &ends);
    run(&runtime, async {
        garland::sleep(Duration::from_millis(1)).await;
        let (sender, receiver) = async_channel::bounded(1);
        let handle = local.handle();
        let sending = thread::spawn(move || {
            let send = move || sender.try_send(()).expect("it has room");
            handle.call_soon_threadsafe(send).expect("the loop is open");
        });
        receiver.recv().await.expect("the callback sends");
        ends.set(true);
        sending.join().expect("did not panic");
    });
    end(runtime);
}

#[test]
fn call_05_cancel_before_its_turn_keeps_a_callback_from_running() {
    let (runtime, _clock) = on_auto_clock();
    let local = runtime.local();
    let victim: Rc<RefCell<Option<CallHandle>>> = Rc::default();
    let slot = Rc::clone(&victim);
    let seen = Trace::new();
    let trace = seen.clone();
    local.call_soon(move || {
        let victim = slot.borrow();
        let victim = victim.as_ref().expect("put there below");
        trace.note(("in the same batch", victim.cancel()));
        trace.note(("twice", victim.cancel()));
    });
    victim.replace(Some(local.call_soon(|| unreachable!("cancelled"))));
    let ran = local.call_soon(|| ());
    turn(&runtime);
    assert_eq!(seen.take(), [("in the same batch", true), ("twice", false)]);
    assert!(!ran.cancel(), "it has run");
    assert_eq!(end(runtime).total(|one| one.callback_panics), 0);
}

#[test]
fn call_05_a_callback_cannot_cancel_itself_while_it_runs() {
    let (runtime, _clock) = on_auto_clock();
    let own: Rc<RefCell<Option<CallHandle>>> = Rc::default();
    let (slot, seen) = (Rc::clone(&own), Trace::new());
    let trace = seen.clone();
    let handle = runtime.local().call_soon(move || {
        trace.note(slot.take().expect("put there below").cancel());
    });
    own.replace(Some(handle));
    turn(&runtime);
    assert_eq!(seen.take(), [false]);
    end(runtime);
}

#[test]
fn call_06_cancel_frees_the_captures_at_once() {
    let (runtime, _clock) = on_auto_clock();
    let captured = Rc::new(());
    let held = Rc::clone(&captured);
    let handle = runtime.local().call_soon(move || drop(held));
    assert!(handle.cancel());
    assert_eq!(Rc::strong_count(&captured), 1, "before its turn has come");
    let captured = Arc::new(());
    let held = Arc::clone(&captured);
    let handle = runtime.handle().call_soon_threadsafe(move || drop(held));
    let handle = handle.expect("the loop is open");
    assert!(handle.cancel());
    assert!(!handle.cancel());
    assert_eq!(Arc::strong_count(&captured), 1);
    turn(&runtime);
    end(runtime);
}

#[test]
fn call_07_dropping_the_handle_does_not_cancel() {
    let (runtime, _clock) = on_auto_clock();
    let seen = Trace::new();
    drop(runtime.local().call_soon(seen.noting("ran")));
    turn(&runtime);
    assert_eq!(seen.take(), ["ran"]);
    end(runtime);
}

#[test]
fn call_09_a_panic_is_counted_and_the_batch_and_the_loop_go_on() {
    let (runtime, _clock) = on_auto_clock();
    let local = runtime.local();
    let seen = Trace::new();
    local.call_soon(seen.noting(1));
    local.call_soon(|| panic!("first"));
    local.call_soon(seen.noting(2));
    // A payload whose destructor panics, and captures whose destructor does.
    local.call_soon(|| std::panic::panic_any(Bomb));
    let bomb = Bomb;
    local.call_soon(move || drop(bomb));
    local.call_later(Duration::ZERO, || panic!("a timer"));
    local.call_later(Duration::ZERO, seen.noting(3));
    let sent = runtime
        .handle()
        .call_soon_threadsafe(|| panic!("from outside"));
    sent.expect("the loop is open");
    turn(&runtime);
    assert_eq!(seen.take(), [1, 2, 3]);
    assert_eq!(runtime.stats().total(|one| one.callback_panics), 5);
    assert_eq!(run(&runtime, async { 9 }), 9);
    end(runtime);
}

#[test]
fn thr_01_a_call_from_another_thread_wakes_a_sleeping_loop_and_may_come_before_the_run() {
    let runtime = lent(1);
    let handle = runtime.handle().clone();
    let early = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&early);
    let before = handle.call_soon_threadsafe(move || seen.store(true, Ordering::SeqCst));
    before.expect("the loop is open");
    let sending = thread::spawn(move || {
        crate::support::wait_until("the loop sleeps", &handle, || {
            handle.stats().loops[0].is_parked
        });
        let stop = handle.clone();
        handle
            .call_soon_threadsafe(move || stop.stop())
            .expect("the loop is open");
    });
    run_until_stopped(&runtime);
    assert!(early.load(Ordering::SeqCst));
    sending.join().expect("did not panic");
    end(runtime);
}

#[test]
fn thr_01_from_the_loops_own_thread_it_is_plain_first_in_first_out() {
    let (runtime, _clock) = on_auto_clock();
    let local = runtime.local().clone();
    let seen = Trace::new();
    let trace = seen.clone();
    local.clone().call_soon(move || {
        let (sender, receiver) = mpsc::channel();
        let send = move || sender.send(()).expect("the next callback looks");
        let sent = local.handle().call_soon_threadsafe(send);
        sent.expect("the loop is open");
        local.call_soon(move || trace.note(receiver.try_recv().is_ok()));
    });
    turn(&runtime);
    turn(&runtime);
    assert_eq!(seen.take(), [true]);
    end(runtime);
}

#[test]
fn thr_02_mc_04_calls_of_one_thread_keep_their_order_among_eight() {
    const THREADS: usize = 8;
    const CALLS: usize = 2000;
    let runtime = background(2);
    let handle = runtime.handle().on(1);
    let (sender, receiver) = mpsc::channel();
    let senders: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (handle, sender) = (handle.clone(), sender.clone());
            thread::spawn(move || {
                for call in 0..CALLS {
                    let sender = sender.clone();
                    let send = move || sender.send((thread, call)).expect("the test receives");
                    handle.call_soon_threadsafe(send).expect("the loop is open");
                }
            })
        })
        .collect();
    let mut next = [0; THREADS];
    for _ in 0..THREADS * CALLS {
        let (thread, call) = receive(&receiver, &handle);
        assert_eq!(call, next[thread], "of thread {thread}");
        next[thread] += 1;
    }
    for sender in senders {
        sender.join().expect("did not panic");
    }
    end_background(runtime);
}

#[test]
fn thr_04_after_cancel_returned_a_call_has_begun_or_never_will() {
    let runtime = background(1);
    let handle = runtime.handle().clone();
    for _ in 0..2000 {
        let ran = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ran);
        let (done, finished) = mpsc::channel();
        let call = handle.call_soon_threadsafe(move || seen.store(true, Ordering::SeqCst));
        let cancelled = call.expect("the loop is open").cancel();
        let fence = handle.call_soon_threadsafe(move || done.send(()).expect("the test waits"));
        fence.expect("the loop is open");
        receive(&finished, &handle);
        assert_eq!(ran.load(Ordering::SeqCst), !cancelled);
    }
    end_background(runtime);
}

#[test]
fn thr_05_a_closed_loop_refuses_calls_and_drops_them() {
    let runtime = background(2);
    let handle = runtime.handle().clone();
    end_background(runtime);
    let captured = Arc::new(());
    let held = Arc::clone(&captured);
    for on in 0..2 {
        let held = Arc::clone(&held);
        let refused = handle
            .on(on)
            .call_soon_threadsafe(move || unreachable!("{held:?}"));
        assert_eq!(refused.expect_err("it is closed"), LoopError::Closed);
    }
    drop(held);
    assert_eq!(Arc::strong_count(&captured), 1);
    handle.stop();
}

#[test]
fn run_01_the_current_loop_is_known_inside_and_only_there() {
    assert!(LocalLoop::current().is_none() && LoopHandle::current().is_none());
    let runtime = lent(2);
    run(&runtime, async {
        assert_eq!(LocalLoop::current().map(|l| l.id().index()), Some(0));
        let other = runtime.handle().on(1);
        let there = other.spawn_on(|| async { LocalLoop::current().map(|l| l.id().index()) });
        assert_eq!(there.await.expect("did not panic"), Some(1));
    });
    assert!(LocalLoop::current().is_none());
    assert!(catch_unwind(|| drop(garland::spawn(async {}))).is_err());
    assert!(catch_unwind(|| drop(garland::spawn_local(async {}))).is_err());
    end(runtime);
}

#[test]
fn run_05_the_root_future_is_polled_once_for_many_wake_ups() {
    let runtime = lent(1);
    let polls = Cell::new(0);
    run(&runtime, async {
        let mut pending_once = true;
        poll_fn(|cx| {
            polls.set(polls.get() + 1);
            if std::mem::take(&mut pending_once) {
                for _ in 0..10 {
                    cx.waker().wake_by_ref();
                    let own = cx.waker().clone();
                    own.wake();
                }
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    });
    assert_eq!(polls.get(), 2);
    end(runtime);
}

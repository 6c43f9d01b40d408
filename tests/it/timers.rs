//! Timers, by a clock that is turned by hand: order, cancellation, far deadlines, intervals.
//!
//! One test lives in real time, to tie the clock to the kernel's.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::Poll;
use std::time::{Duration, Instant};

use garland::{
    LocalLoop, ManualClock, Runtime, TimerHandle, interval, sleep, sleep_until, timeout,
};

use crate::support::{
    Trace, builder, end, end_background, lent, on_auto_clock, receive, run, run_until_stopped,
    turn, wait_until,
};

const MS: Duration = Duration::from_millis(1);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn on_manual_clock() -> (Runtime, ManualClock) {
    let clock = ManualClock::new();
    let runtime = builder(1).clock(clock.clone()).build();
    (runtime.expect("a runtime can be built"), clock)
}

/// Stops the loop after everything else that is scheduled.
fn stop_after(local: &LocalLoop, delay: Duration) {
    let stopper = local.clone();
    local.call_later(delay, move || stopper.stop());
}

#[test]
fn time_01_call_later_is_call_at_of_now_plus_delay_and_fires_once() {
    let (runtime, clock) = on_auto_clock();
    let local = runtime.local();
    let fired = Trace::new();
    let later = local.call_later(5 * MS, fired.noting("later"));
    let at = local.call_at(local.time() + 5 * MS, fired.noting("at"));
    assert_eq!(later.when(), at.when());
    stop_after(local, 20 * MS);
    run_until_stopped(&runtime);
    assert_eq!(fired.take(), ["later", "at"]);
    assert_eq!(clock.elapsed(), 20 * MS);
    assert!(!later.cancel(), "it has run");
    assert_eq!(later.when(), at.when(), "when() answers after the firing");
    assert_eq!(runtime.stats().total(|one| one.timers_fired), 3);
    end(runtime);
}

#[test]
fn time_02_time_advances_while_a_callback_runs() {
    let (runtime, clock) = on_manual_clock();
    let local = runtime.local().clone();
    local.clone().call_soon(move || {
        let before = local.time();
        clock.advance(3 * MS);
        assert_eq!(local.time() - before, 3 * MS);
        local.call_soon(|| ());
    });
    turn(&runtime);
    assert_eq!(end(runtime).total(|one| one.callback_panics), 0);
}

#[test]
fn time_03_no_timer_fires_a_nanosecond_early() {
    let (runtime, clock) = on_manual_clock();
    let fired = Trace::new();
    // Around the borders of the wheel's slots, where rounding would show.
    let delays = [
        1,
        999,
        65_535,
        65_536,
        65_537,
        4_194_303,
        4_194_304,
        1 << 30,
        (1 << 40) + 1,
    ];
    for nanos in delays {
        let (trace, clock) = (fired.clone(), clock.clone());
        let delay = Duration::from_nanos(nanos);
        runtime
            .local()
            .call_later(delay, move || trace.note((delay, clock.elapsed())));
    }
    for nanos in delays {
        let deadline = Duration::from_nanos(nanos);
        clock.advance(deadline - clock.elapsed() - Duration::from_nanos(1));
        turn(&runtime);
        assert_eq!(fired.take(), [], "one nanosecond before {deadline:?}");
        clock.advance(Duration::from_nanos(1));
        turn(&runtime);
        assert_eq!(fired.take(), [(deadline, deadline)]);
    }
    end(runtime);
}

#[test]
fn time_04_timers_that_come_due_together_fire_in_deadline_order() {
    let (runtime, clock) = on_manual_clock();
    let fired = Trace::new();
    let mut delays: Vec<u64> = (0..200).map(|i| (i * 7919) % 200 + 1).collect();
    for &delay in &delays {
        let delay_us = Duration::from_micros(delay * 37);
        runtime.local().call_later(delay_us, fired.noting(delay));
    }
    clock.advance(Duration::from_secs(1));
    turn(&runtime);
    delays.sort_unstable();
    assert_eq!(fired.take(), delays);
    end(runtime);
}

#[test]
fn time_04_a_storm_of_due_timers_is_in_order_over_several_turns() {
    let (runtime, clock) = on_manual_clock();
    let fired = Trace::new();
    let n = 3000_u64;
    for i in 0..n {
        let delay = (i * 1009) % n;
        runtime
            .local()
            .call_later(Duration::from_micros(delay), fired.noting(delay));
    }
    clock.advance(Duration::from_secs(1));
    let mut turns = 0;
    while fired.len() < n as usize {
        turn(&runtime);
        turns += 1;
        assert!(turns < 100, "each turn releases some");
    }
    assert!(turns > 1, "a turn releases a bounded number");
    assert_eq!(fired.take(), (0..n).collect::<Vec<_>>());
    end(runtime);
}

#[test]
fn time_05_equal_deadlines_fire_in_order_of_registration() {
    let (runtime, _clock) = on_auto_clock();
    let local = runtime.local();
    let fired = Trace::new();
    let when = local.time() + 10 * MS;
    for i in 0..100 {
        local.call_at(when, fired.noting(i));
    }
    stop_after(local, 11 * MS);
    run_until_stopped(&runtime);
    assert_eq!(fired.take(), (0..100).collect::<Vec<_>>());
    end(runtime);
}

#[test]
fn time_05_equal_deadlines_of_sleeps_and_callbacks_share_one_order() {
    let (runtime, _clock) = on_auto_clock();
    let local = runtime.local().clone();
    let fired = Trace::new();
    let trace = fired.clone();
    run(&runtime, async move {
        let when = local.time() + 10 * MS;
        let sleeper = |what| {
            let trace = trace.clone();
            local.spawn_local(async move {
                sleep_until(when).await;
                trace.note(what);
            })
        };
        let first = sleeper("sleep 1");
        garland::yield_now().await;
        local.call_at(when, trace.noting("call 2"));
        let third = sleeper("sleep 3");
        first.await.expect("did not panic");
        third.await.expect("did not panic");
    });
    assert_eq!(fired.take(), ["sleep 1", "call 2", "sleep 3"]);
    end(runtime);
}

#[test]
fn time_06_a_zero_delay_runs_behind_what_is_ready_and_never_inline() {
    let (runtime, _clock) = on_auto_clock();
    let local = runtime.local();
    let fired = Trace::new();
    local.call_later(Duration::ZERO, fired.noting("timer"));
    local.call_soon(fired.noting("soon 1"));
    local.call_soon(fired.noting("soon 2"));
    assert_eq!(fired.len(), 0, "nothing runs inline");
    turn(&runtime);
    assert_eq!(fired.take(), ["soon 1", "soon 2", "timer"]);
    end(runtime);
}

#[test]
fn time_06_deadlines_in_the_past_keep_their_order() {
    let (runtime, clock) = on_manual_clock();
    clock.advance(Duration::from_secs(10));
    let local = runtime.local();
    let fired = Trace::new();
    let now = local.time();
    local.call_at(now, fired.noting(0));
    local.call_at(now - Duration::from_secs(1), fired.noting(-1));
    local.call_at(now - Duration::from_secs(2), fired.noting(-2));
    turn(&runtime);
    assert_eq!(fired.take(), [-2, -1, 0]);
    end(runtime);
}

#[test]
fn time_07_a_timer_that_is_due_keeps_the_loop_from_sleeping() {
    // The manual clock never moves by itself: a loop that slept would sleep until the watchdog.
    let (runtime, clock) = on_manual_clock();
    let local = runtime.local().clone();
    let task_clock = clock.clone();
    run(&runtime, async move {
        let (sent, got) = async_channel::bounded(1);
        local.call_later(MS, move || sent.try_send(()).expect("has room"));
        task_clock.advance(MS);
        got.recv().await.expect("the callback sends");
    });
    assert_eq!(clock.elapsed(), MS);
    end(runtime);
}

#[test]
fn time_08_a_chain_of_tiny_sleeps_does_not_spin() {
    let runtime = lent(1);
    run(&runtime, async {
        sleep(Duration::ZERO).await;
        let before = garland::LoopHandle::current()
            .expect("inside a loop")
            .stats();
        for nanos in [10_000_000, 100_000, 1000, 10, 0] {
            sleep(Duration::from_nanos(nanos)).await;
        }
        let after = garland::LoopHandle::current()
            .expect("inside a loop")
            .stats();
        let turns = after.loops[0].turns - before.loops[0].turns;
        assert!(turns <= 20, "{turns} turns for five sleeps");
    });
    end(runtime);
}

#[test]
fn time_09_deadlines_of_years_are_kept_to_the_nanosecond() {
    let (runtime, clock) = on_auto_clock();
    let local = runtime.local();
    let fired = Trace::new();
    for years in [300_u32, 1, 40, 2] {
        let (trace, clock) = (fired.clone(), clock.clone());
        let delay = YEAR * years + Duration::from_nanos(1);
        local.call_later(delay, move || trace.note((years, clock.elapsed() == delay)));
    }
    stop_after(local, YEAR * 301);
    run_until_stopped(&runtime);
    assert_eq!(
        fired.take(),
        [(1, true), (2, true), (40, true), (300, true)]
    );
    end(runtime);
}

#[test]
fn time_09_the_longest_delay_is_accepted_and_never_fires() {
    let runtime = lent(1);
    let local = runtime.local().clone();
    let forever = local.call_later(Duration::MAX, || unreachable!("after 584 years"));
    run(&runtime, async {
        let mut long = pin!(sleep(Duration::MAX));
        let mut distant = interval(Duration::MAX);
        let mut tick = pin!(distant.tick());
        let polled = poll_fn(|cx| {
            Poll::Ready(long.as_mut().poll(cx).is_ready() || tick.as_mut().poll(cx).is_ready())
        });
        assert!(!polled.await, "neither is due");
        // The loop sleeps with all three armed, and is not confused by them.
        sleep(MS).await;
    });
    assert!(forever.cancel());
    end(runtime);
}

#[test]
fn time_09_a_loop_that_sleeps_towards_a_deadline_of_centuries_can_be_woken() {
    let runtime = lent(1);
    let distant = runtime
        .local()
        .call_later(YEAR * 500, || unreachable!("in 500 years"));
    let handle = runtime.handle().clone();
    let waking = std::thread::spawn(move || {
        let is_parked = || handle.stats().loops[0].is_parked;
        wait_until("the loop sleeps", &handle, is_parked);
        handle.stop();
    });
    run_until_stopped(&runtime);
    waking.join().expect("did not panic");
    let stats = runtime.stats();
    assert!(
        stats.loops[0].turns < 10,
        "it slept, and did not spin: {stats:#?}"
    );
    assert!(distant.cancel());
    end(runtime);
}

#[test]
fn time_10_a_cancelled_timer_never_fires_and_frees_its_entry_and_captures_at_once() {
    let (runtime, clock) = on_manual_clock();
    let local = runtime.local();
    let captured = Rc::new(());
    let handles: Vec<TimerHandle> = (0..1000)
        .map(|i| {
            let captured = Rc::clone(&captured);
            local.call_later(MS * i, move || unreachable!("cancelled {captured:?}"))
        })
        .collect();
    assert_eq!(runtime.stats().total(|one| one.timers_armed), 1000);
    for handle in &handles {
        assert!(handle.cancel());
        assert!(!handle.cancel(), "the second time nothing happens");
    }
    assert_eq!(Rc::strong_count(&captured), 1);
    assert_eq!(runtime.stats().total(|one| one.timers_armed), 0);
    clock.advance(Duration::from_secs(10));
    turn(&runtime);
    assert_eq!(end(runtime).total(|one| one.timers_fired), 0);
}

#[test]
fn time_10_dropping_a_timer_handle_does_not_cancel() {
    let (runtime, _clock) = on_auto_clock();
    let fired = Trace::new();
    drop(runtime.local().call_later(MS, fired.noting("fired")));
    stop_after(runtime.local(), 2 * MS);
    run_until_stopped(&runtime);
    assert_eq!(fired.take(), ["fired"]);
    end(runtime);
}

#[test]
fn time_11_a_timer_cancelled_by_an_earlier_callback_of_its_batch_does_not_fire() {
    let (runtime, clock) = on_manual_clock();
    let local = runtime.local();
    let captured = Rc::new(());
    let slot: Rc<RefCell<Option<TimerHandle>>> = Rc::default();
    let victim = Rc::clone(&slot);
    let held = Rc::clone(&captured);
    let outcome = Rc::new(Cell::new(false));
    let noted = Rc::clone(&outcome);
    local.call_later(MS, move || {
        let victim = victim.take().expect("put there below");
        noted.set(victim.cancel() && Rc::strong_count(&held) == 2);
    });
    let taken = Rc::clone(&captured);
    let victim = local.call_later(MS, move || unreachable!("cancelled {taken:?}"));
    slot.replace(Some(victim));
    clock.advance(MS);
    turn(&runtime);
    assert!(
        outcome.get(),
        "cancel() was in time and freed the captures at once"
    );
    assert_eq!(end(runtime).total(|one| one.callback_panics), 0);
}

#[test]
fn time_12_what_a_timer_schedules_waits_for_the_next_turn() {
    let (runtime, clock) = on_manual_clock();
    let local = runtime.local().clone();
    let fired = Trace::new();
    let trace = fired.clone();
    local.clone().call_later(MS, move || {
        trace.note("timer");
        local.call_later(Duration::ZERO, trace.noting("zero delay"));
        local.call_soon(trace.noting("soon"));
    });
    clock.advance(MS);
    turn(&runtime);
    assert_eq!(fired.take(), ["timer"]);
    turn(&runtime);
    assert_eq!(fired.take(), ["soon", "zero delay"]);
    end(runtime);
}

#[test]
fn time_13_removing_the_earliest_timer_leaves_the_next_one_on_time() {
    let (runtime, clock) = on_manual_clock();
    let local = runtime.local();
    let fired = Trace::new();
    let earliest = local.call_later(MS, || unreachable!("cancelled"));
    local.call_later(2 * MS, fired.noting("next"));
    assert!(earliest.cancel());
    clock.advance(2 * MS - Duration::from_nanos(1));
    turn(&runtime);
    assert_eq!(fired.len(), 0);
    clock.advance(Duration::from_nanos(1));
    turn(&runtime);
    assert_eq!(fired.take(), ["next"]);
    end(runtime);
}

#[test]
fn time_13_a_cancelled_timer_does_not_move_an_auto_clock() {
    let (runtime, clock) = on_auto_clock();
    assert!(
        runtime
            .local()
            .call_later(YEAR, || unreachable!("cancelled"))
            .cancel()
    );
    let handle = runtime.handle().clone();
    let waking = std::thread::spawn(move || {
        let is_parked = || handle.stats().loops[0].is_parked;
        wait_until("the loop sleeps", &handle, is_parked);
        handle.stop();
    });
    run_until_stopped(&runtime);
    waking.join().expect("did not panic");
    assert_eq!(clock.elapsed(), Duration::ZERO);
    end(runtime);
}

#[test]
fn task_06_sleep_of_zero_takes_exactly_one_turn() {
    let (runtime, _clock) = on_manual_clock();
    let stats = || {
        garland::LoopHandle::current()
            .expect("inside a loop")
            .stats()
    };
    run(&runtime, async {
        for _ in 0..10 {
            let before = stats().loops[0].turns;
            sleep(Duration::ZERO).await;
            assert_eq!(stats().loops[0].turns - before, 1);
        }
    });
    end(runtime);
}

#[test]
fn a_dropped_sleep_frees_its_timer() {
    let (runtime, _clock) = on_auto_clock();
    let armed = || {
        let handle = garland::LoopHandle::current().expect("inside a loop");
        handle.stats().total(|one| one.timers_armed)
    };
    run(&runtime, async {
        let mut sleeps: Vec<_> = (1..=100).map(|i| Box::pin(sleep(MS * i))).collect();
        poll_fn(|cx| {
            for sleep in &mut sleeps {
                assert!(sleep.as_mut().poll(cx).is_pending());
            }
            Poll::Ready(())
        })
        .await;
        assert_eq!(armed(), 100);
        sleeps.truncate(40);
        assert_eq!(armed(), 40);
        drop(sleeps);
        assert_eq!(armed(), 0);
    });
    end(runtime);
}

#[test]
fn a_sleep_outlives_the_task_that_polled_it_first() {
    let (runtime, clock) = on_auto_clock();
    run(&runtime, async {
        let (sender, receiver) = async_channel::bounded(1);
        garland::spawn(async move {
            let mut sleep = Box::pin(sleep(5 * MS));
            let is_armed = poll_fn(|cx| Poll::Ready(sleep.as_mut().poll(cx).is_pending()));
            assert!(is_armed.await);
            sender.send(sleep).await.expect("the receiver lives");
        });
        let sleep = receiver.recv().await.expect("the task sends");
        sleep.await;
    });
    assert_eq!(clock.elapsed(), 5 * MS);
    end(runtime);
}

#[test]
fn timeout_drops_what_is_late_and_keeps_what_is_in_time() {
    let (runtime, clock) = on_auto_clock();
    run(&runtime, async {
        let guard = Rc::new(());
        let held = Rc::clone(&guard);
        let late = timeout(3 * MS, async move {
            let _held = held;
            pending::<()>().await;
        });
        assert_eq!(late.await.expect_err("never completes").after, 3 * MS);
        assert_eq!(Rc::strong_count(&guard), 1, "the late future was dropped");
        assert_eq!(timeout(3 * MS, sleep(2 * MS)).await, Ok(()));
        // Complete at its last chance: the future is asked before the limit.
        assert_eq!(timeout(3 * MS, sleep(3 * MS)).await, Ok(()));
        assert_eq!(timeout(Duration::ZERO, async { 7 }).await, Ok(7));
    });
    assert_eq!(clock.elapsed(), 8 * MS);
    end(runtime);
}

#[test]
fn interval_keeps_its_timetable_and_skips_missed_ticks() {
    let (runtime, clock) = on_auto_clock();
    let turned = clock.clone();
    run(&runtime, async move {
        let start = LocalLoop::current().expect("inside a loop").time();
        let mut ticks = interval(10 * MS);
        assert_eq!(ticks.tick().await - start, 10 * MS);
        // Late by less than a period: the next tick is on the timetable all the same.
        turned.advance(13 * MS);
        assert_eq!(ticks.tick().await - start, 20 * MS);
        assert_eq!(ticks.tick().await - start, 30 * MS);
        // Late by several periods: one late tick, the missed ones are gone.
        turned.advance(45 * MS);
        assert_eq!(ticks.tick().await - start, 40 * MS);
        assert_eq!(turned.elapsed(), 75 * MS);
        assert_eq!(ticks.tick().await - start, 80 * MS);
        assert_eq!(turned.elapsed(), 80 * MS);
        // A tick that was given up half way is not lost.
        assert!(timeout(4 * MS, ticks.tick()).await.is_err());
        assert_eq!(ticks.tick().await - start, 90 * MS);
    });
    assert_eq!(clock.elapsed(), 90 * MS);
    end(runtime);
}

#[test]
fn advancing_the_clock_wakes_parked_loops_in_deadline_order() {
    let clock = ManualClock::new();
    let runtime = builder(2)
        .clock(clock.clone())
        .start()
        .expect("a runtime can be started");
    let handle = runtime.handle().clone();
    let (fired, fires) = mpsc::channel();
    for delay in [30_u32, 10, 20] {
        for on in 0..2 {
            let fired = fired.clone();
            let make = move || async move {
                sleep(MS * delay).await;
                fired.send((delay, on)).expect("the test waits for it");
            };
            drop(handle.on(on).spawn_on(make));
        }
    }
    let armed = || handle.stats().total(|one| one.timers_armed);
    wait_until("both loops have armed their timers", &handle, || {
        armed() == 6
    });
    for (step, due) in [(9, None), (1, Some(10)), (9, None), (11, Some(20 + 10))] {
        clock.advance(MS * step);
        let mut expected = match due {
            None => 0,
            Some(30) => 4,
            Some(_) => 2,
        };
        while expected > 0 {
            let (delay, _) = receive(&fires, &handle);
            assert!(
                clock.elapsed() >= MS * delay,
                "{delay} ms fired at {:?}",
                clock.elapsed()
            );
            expected -= 1;
        }
        assert!(fires.try_recv().is_err(), "nothing fires early");
    }
    end_background(runtime);
}

#[test]
fn time_03_time_08_a_real_sleep_of_200_us_lasts_200_us_and_little_more() {
    let runtime = lent(1);
    // The shortest of several: the machine may be busy, but not every time.
    let shortest = run(&runtime, async {
        let mut shortest = Duration::MAX;
        for _ in 0..20 {
            let begun = Instant::now();
            sleep(Duration::from_micros(200)).await;
            let lasted = begun.elapsed();
            assert!(lasted >= Duration::from_micros(200), "early: {lasted:?}");
            shortest = shortest.min(lasted);
        }
        shortest
    });
    assert!(shortest < Duration::from_millis(50), "late: {shortest:?}");
    end(runtime);
}

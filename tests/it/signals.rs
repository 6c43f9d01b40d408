//! Signals as callbacks of loop 0, and as futures anywhere.
//!
//! Each test runs in a process of its own: a signal hits the whole process, and would interrupt the
//! blocking calls of every other test.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use garland::{Builder, LocalLoop, Pin, Runtime};
use rustix::process::Signal;

use crate::sockets::is_alone;
use crate::support::{LIMIT, Trace, background, end, end_background, join, lent, run};
use crate::support::{run_until_stopped, turn, wait_until};

const USR1: i32 = Signal::USR1.as_raw();
const USR2: i32 = Signal::USR2.as_raw();
const HUP: i32 = Signal::HUP.as_raw();
const TERM: i32 = Signal::TERM.as_raw();

/// To this very thread, which has handled it when this returns: two signals to the process may be one if
/// the thread that is to take them is late.
pub(crate) fn send(signal: Signal) {
    signal_hook::low_level::raise(signal.as_raw()).expect("a process may signal itself");
}

fn counter() -> (Rc<Cell<u32>>, impl FnMut() + 'static) {
    let count = Rc::new(Cell::new(0));
    let mine = Rc::clone(&count);
    (count, move || mine.set(mine.get() + 1))
}

/// Turns the loop until `condition` holds: another thread may be the one that catches the signal.
fn turn_until(runtime: &Runtime, what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LIMIT, "not in time: {what}");
        turn(runtime);
    }
}

/// Set in a process that a signal is to end.
const VICTIM: &str = "GARLAND_IT_VICTIM";

pub(crate) fn is_victim() -> bool {
    std::env::var_os(VICTIM).is_some()
}

const LAST_WORDS: &str = "the next one is to end it";

/// Sends the signal that is to end this process; one that ends it before is a failure.
pub(crate) fn send_last(signal: Signal) {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{LAST_WORDS}").expect("a pipe");
    stdout.flush().expect("a pipe");
    send(signal);
}

/// The signal that ended this test in a process of its own, if one did.
pub(crate) fn killed_by(name: &str) -> Option<i32> {
    let program = std::env::current_exe().expect("a running program has a path");
    let mut child = Command::new(program)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("this program can be started again");
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            let mut output = String::new();
            let mut stdout = child.stdout.take().expect("it is piped");
            stdout.read_to_string(&mut output).expect("text");
            assert!(output.contains(LAST_WORDS), "{name} ended early: {output}");
            return status.signal();
        }
        if begun.elapsed() > LIMIT {
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
            panic!("{name} survives");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn sig_01_a_handler_is_a_callback_of_its_loop_and_may_stop_it() {
    if !is_alone("signals::sig_01_a_handler_is_a_callback_of_its_loop_and_may_stop_it") {
        return;
    }
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (local, home) = (runtime.local().clone(), thread::current().id());
        let trace = Trace::new();
        let noting = trace.clone();
        let handler = move || {
            assert_eq!(thread::current().id(), home);
            noting.note("signal");
            local.call_soon(noting.noting("scheduled by it"));
            let stop = local.clone();
            local.call_soon(move || stop.stop());
        };
        runtime
            .local()
            .add_signal_handler(USR1, handler)
            .expect("USR1");
        let noting = trace.clone();
        runtime.local().call_soon(move || {
            noting.note("begins");
            send(Signal::USR1);
            // The handler interrupts nothing, however long this takes.
            let until = Instant::now() + Duration::from_millis(20);
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            noting.note("ends");
        });
        run_until_stopped(&runtime);
        assert_eq!(
            trace.take(),
            ["begins", "ends", "signal", "scheduled by it"]
        );
        end(runtime);
    }
}

#[test]
fn sig_01_a_handler_that_panics_is_reported_and_stays() {
    if !is_alone("signals::sig_01_a_handler_that_panics_is_reported_and_stays") {
        return;
    }
    let runtime = lent(1);
    let (count, mut counting) = counter();
    let handler = move || {
        counting();
        panic!("as it should");
    };
    runtime
        .local()
        .add_signal_handler(USR1, handler)
        .expect("USR1");
    for calls in [1, 2] {
        send(Signal::USR1);
        turn_until(&runtime, "the handler runs", || count.get() == calls);
    }
    assert_eq!(end(runtime).total(|one| one.callback_panics), 2);
}

#[test]
fn sig_02_a_signal_wakes_a_parked_loop() {
    if !is_alone("signals::sig_02_a_signal_wakes_a_parked_loop") {
        return;
    }
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let local = runtime.local().clone();
        runtime
            .local()
            .add_signal_handler(USR1, move || local.stop())
            .expect("USR1");
        let handle = runtime.handle().clone();
        let sender = thread::spawn(move || {
            wait_until("loop 0 sleeps", &handle, || {
                handle.stats().loops[0].is_parked
            });
            send(Signal::USR1);
        });
        run_until_stopped(&runtime);
        sender.join().expect("it only sends");
        end(runtime);
    }
}

#[test]
fn sig_03_adding_again_replaces_the_handler() {
    if !is_alone("signals::sig_03_adding_again_replaces_the_handler") {
        return;
    }
    let runtime = lent(1);
    let local = runtime.local();
    let (old, handler) = counter();
    local.add_signal_handler(USR1, handler).expect("USR1");
    let (new, handler) = counter();
    local.add_signal_handler(USR1, handler).expect("USR1");
    assert_eq!(Rc::strong_count(&old), 1, "the old one is dropped");
    let (other, handler) = counter();
    local.add_signal_handler(USR2, handler).expect("USR2");
    send(Signal::USR1);
    turn_until(&runtime, "the new one runs", || new.get() == 1);
    send(Signal::USR2);
    turn_until(&runtime, "the other one runs", || other.get() == 1);
    assert_eq!((old.get(), new.get(), other.get()), (0, 1, 1));
    assert!(local.remove_signal_handler(USR1));
    assert!(!local.remove_signal_handler(USR1), "it is gone");
    assert!(!local.remove_signal_handler(HUP), "there never was one");
    assert_eq!(Rc::strong_count(&new), 1);
    end(runtime);
}

#[test]
fn sig_03_a_handler_may_replace_and_remove_itself() {
    if !is_alone("signals::sig_03_a_handler_may_replace_and_remove_itself") {
        return;
    }
    let runtime = lent(1);
    let local = runtime.local().clone();
    let trace = Trace::new();
    let noting = trace.clone();
    let first = move || {
        noting.note("first");
        let (noting, inner) = (noting.clone(), local.clone());
        let second = move || {
            noting.note("second");
            assert!(inner.remove_signal_handler(USR1));
        };
        local.add_signal_handler(USR1, second).expect("USR1");
    };
    runtime
        .local()
        .add_signal_handler(USR1, first)
        .expect("USR1");
    for calls in [1, 2] {
        send(Signal::USR1);
        turn_until(&runtime, "the handler runs", || trace.len() == calls);
    }
    assert_eq!(trace.take(), ["first", "second"]);
    end(runtime);
}

#[test]
fn sig_03_removal_restores_the_default_action() {
    const NAME: &str = "signals::sig_03_removal_restores_the_default_action";
    if !is_victim() {
        assert_eq!(killed_by(NAME), Some(USR1));
        return;
    }
    let runtime = lent(1);
    let (count, handler) = counter();
    runtime
        .local()
        .add_signal_handler(USR1, handler)
        .expect("USR1");
    send(Signal::USR1);
    turn_until(&runtime, "the handler runs", || count.get() == 1);
    assert!(runtime.local().remove_signal_handler(USR1));
    send_last(Signal::USR1);
    thread::sleep(LIMIT);
}

#[test]
fn sig_03_a_handler_added_after_a_removal_keeps_the_process_alive() {
    if !is_alone("signals::sig_03_a_handler_added_after_a_removal_keeps_the_process_alive") {
        return;
    }
    let runtime = lent(1);
    for _ in 0..3 {
        let (count, handler) = counter();
        runtime
            .local()
            .add_signal_handler(USR1, handler)
            .expect("USR1");
        send(Signal::USR1);
        turn_until(&runtime, "the handler runs", || count.get() == 1);
        assert!(runtime.local().remove_signal_handler(USR1));
    }
    end(runtime);
}

#[test]
fn sig_04_numbers_that_cannot_be_handled_are_refused() {
    let runtime = lent(1);
    let local = runtime.local();
    let kill = Signal::KILL.as_raw();
    let (stop, segv) = (Signal::STOP.as_raw(), Signal::SEGV.as_raw());
    for signal in [kill, stop, segv, 0, -1, 32, 34, 64, 65, 1000, i32::MAX] {
        let (count, handler) = counter();
        let refused = local.add_signal_handler(signal, handler);
        let error = refused.expect_err("it cannot be handled");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{signal}");
        assert_eq!(Rc::strong_count(&count), 1, "the callback is dropped");
        assert!(!local.remove_signal_handler(signal));
    }
    end(runtime);
}

#[test]
fn sig_04_mc_18_other_loops_refuse_and_name_loop_0() {
    for loops in [2, 4] {
        let runtime = background(loops);
        for id in 1..loops {
            let refused = runtime.handle().on(id).spawn_on(|| async {
                let local = LocalLoop::current().expect("inside a loop");
                local.add_signal_handler(USR1, || {})
            });
            let refused = join(runtime.handle(), refused).expect("did not panic");
            let error = refused.expect_err("not loop 0");
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let text = error.to_string();
            assert!(
                text.contains("loop 0") && text.contains(&format!("loop {id}")),
                "{text}"
            );
        }
        end_background(runtime);
    }
}

#[test]
fn sig_04_a_closed_loop_refuses() {
    let runtime = lent(1);
    let local = runtime.local().clone();
    end(runtime);
    let refused = local.add_signal_handler(USR1, || {});
    assert_eq!(refused.expect_err("closed").kind(), ErrorKind::NotConnected);
    assert!(!local.remove_signal_handler(USR1));
}

#[test]
fn sig_05_closing_the_loop_removes_all_handlers() {
    const NAME: &str = "signals::sig_05_closing_the_loop_removes_all_handlers";
    if !is_victim() {
        assert_eq!(killed_by(NAME), Some(HUP));
        return;
    }
    let runtime = lent(2);
    let (count, handler) = counter();
    let local = runtime.local();
    local.add_signal_handler(HUP, handler).expect("HUP");
    let (other, handler) = counter();
    local.add_signal_handler(TERM, handler).expect("TERM");
    send(Signal::HUP);
    turn_until(&runtime, "the handler runs", || count.get() == 1);
    end(runtime);
    if Rc::strong_count(&count) == 1 && Rc::strong_count(&other) == 1 {
        send_last(Signal::HUP);
    }
    thread::sleep(2 * LIMIT);
}

#[test]
fn sig_05_a_signal_of_two_runtimes_is_caught_until_both_let_go() {
    const NAME: &str = "signals::sig_05_a_signal_of_two_runtimes_is_caught_until_both_let_go";
    if !is_victim() {
        assert_eq!(killed_by(NAME), Some(USR2));
        return;
    }
    let (first, second) = (lent(1), lent(1));
    let (of_first, handler) = counter();
    first
        .local()
        .add_signal_handler(USR2, handler)
        .expect("USR2");
    let (of_second, handler) = counter();
    second
        .local()
        .add_signal_handler(USR2, handler)
        .expect("USR2");
    send(Signal::USR2);
    turn_until(&first, "the first hears of it", || of_first.get() == 1);
    turn_until(&second, "the second hears of it", || of_second.get() == 1);
    assert!(first.local().remove_signal_handler(USR2));
    send(Signal::USR2);
    turn_until(&second, "the second hears of it", || of_second.get() == 2);
    turn(&first);
    let last = second.local().remove_signal_handler(USR2);
    if last && of_first.get() == 1 {
        send_last(Signal::USR2);
    }
    thread::sleep(2 * LIMIT);
}

#[test]
fn sig_06_many_deliveries_merge_and_the_last_one_is_seen() {
    if !is_alone("signals::sig_06_many_deliveries_merge_and_the_last_one_is_seen") {
        return;
    }
    const ROUNDS: u32 = 2000;
    for loops in [1, 2, 4] {
        let runtime = background(loops);
        let (told, news) = async_channel::unbounded();
        let sent = std::sync::Arc::new(std::sync::Mutex::new(0));
        let seen = std::sync::Arc::clone(&sent);
        let added = runtime.handle().spawn_on(move || async move {
            let local = LocalLoop::current().expect("inside a loop");
            local.add_signal_handler(USR1, move || {
                let sent = *seen.lock().expect("nobody panics here");
                told.try_send(sent).expect("it has no bound");
            })
        });
        let added = join(runtime.handle(), added).expect("did not panic");
        added.expect("USR1");
        for round in 1..=ROUNDS {
            *sent.lock().expect("nobody panics here") = round;
            send(Signal::USR1);
        }
        let begun = Instant::now();
        let mut calls = 0;
        loop {
            assert!(begun.elapsed() < LIMIT, "the last one is not seen");
            match news.try_recv() {
                Ok(round) => {
                    calls += 1;
                    if round == ROUNDS {
                        break;
                    }
                }
                Err(_) => thread::yield_now(),
            }
        }
        assert!((1..=ROUNDS).contains(&calls), "{calls} calls");
        end_background(runtime);
    }
}

#[test]
fn sig_07_removal_while_one_is_pending_calls_nothing() {
    if !is_alone("signals::sig_07_removal_while_one_is_pending_calls_nothing") {
        return;
    }
    let runtime = lent(1);
    // Keeps the process alive, and tells when the signal has come.
    let (other, handler) = counter();
    let witness = lent(1);
    witness
        .local()
        .add_signal_handler(USR1, handler)
        .expect("USR1");
    for calls in 1..20 {
        let (count, handler) = counter();
        runtime
            .local()
            .add_signal_handler(USR1, handler)
            .expect("USR1");
        send(Signal::USR1);
        turn_until(&witness, "it has come", || other.get() == calls);
        assert!(runtime.local().remove_signal_handler(USR1));
        turn(&runtime);
        turn(&runtime);
        assert_eq!(count.get(), 0);
    }
    // Its turn has come, and a callback of the same turn removes it.
    let (count, handler) = counter();
    runtime
        .local()
        .add_signal_handler(USR1, handler)
        .expect("USR1");
    let local = runtime.local().clone();
    runtime.local().call_soon(move || {
        assert!(local.remove_signal_handler(USR1));
    });
    send(Signal::USR1);
    turn_until(&witness, "it has come", || other.get() == 20);
    turn(&runtime);
    turn(&runtime);
    assert_eq!(count.get(), 0);
    end(witness);
    end(runtime);
}

#[test]
fn sig_01_a_task_on_any_loop_waits_for_a_signal() {
    if !is_alone("signals::sig_01_a_task_on_any_loop_waits_for_a_signal") {
        return;
    }
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        run(&runtime, async {
            for id in 0..loops {
                let (ready, is_ready) = async_channel::bounded(1);
                let task = runtime.handle().on(id).spawn_on(move || async move {
                    let signal = garland::Signal::new(USR2).expect("USR2");
                    for _ in 0..3 {
                        ready.send(()).await.expect("the test listens");
                        signal.recv().await.expect("a socket pair");
                    }
                });
                for _ in 0..3 {
                    is_ready.recv().await.expect("the task waits");
                    send(Signal::USR2);
                }
                task.await.expect("did not panic");
            }
        });
        end(runtime);
    }
}

#[test]
fn sig_06_deliveries_between_two_waits_count_as_one() {
    if !is_alone("signals::sig_06_deliveries_between_two_waits_count_as_one") {
        return;
    }
    let runtime = lent(1);
    run(&runtime, async {
        let signal = garland::Signal::new(USR1).expect("USR1");
        let witness = garland::Signal::new(USR1).expect("USR1");
        for _ in 0..500 {
            send(Signal::USR1);
            witness.recv().await.expect("a socket pair");
        }
        signal.recv().await.expect("a socket pair");
        let again = garland::timeout(Duration::from_millis(50), signal.recv()).await;
        again.expect_err("all of them were one");
    });
    end(runtime);
}

#[test]
fn sig_03_ctrl_c_is_caught_while_somebody_waits_for_it() {
    const NAME: &str = "signals::sig_03_ctrl_c_is_caught_while_somebody_waits_for_it";
    if !is_victim() {
        assert_eq!(killed_by(NAME), Some(Signal::INT.as_raw()));
        return;
    }
    let runtime = Builder::new().loops(2).pin(Pin::Off).build();
    let runtime = runtime.expect("a runtime can be built");
    run(&runtime, async {
        let mut waiting = Box::pin(garland::ctrl_c());
        let early = futures_lite::future::poll_once(&mut waiting).await;
        assert!(early.is_none(), "nobody pressed it");
        send(Signal::INT);
        waiting.await.expect("a socket pair");
    });
    end(runtime);
    send_last(Signal::INT);
    thread::sleep(LIMIT);
}

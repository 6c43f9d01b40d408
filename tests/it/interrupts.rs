//! A program that Ctrl-C ends: the first one in order, the second at once.

use std::thread;

use garland::{LocalLoop, LoopError};
use rustix::process::Signal;

use crate::signals::{is_victim, killed_by, send, send_last};
use crate::sockets::is_alone;
use crate::support::{LIMIT, Trace, ledger, lent, wait_until};

#[test]
fn sig_08_the_first_ctrl_c_cancels_main_and_ends_with_interrupted() {
    if !is_alone("interrupts::sig_08_the_first_ctrl_c_cancels_main_and_ends_with_interrupted") {
        return;
    }
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (handle, watched) = (runtime.handle().clone(), runtime.handle().clone());
        let trace = Trace::new();
        let noting = trace.clone();
        let home = thread::current().id();
        let main = async move {
            let _guard = OnDrop(Some(move || {
                assert_eq!(thread::current().id(), home);
                assert!(LocalLoop::current().is_some(), "on the loop");
                noting.note("main is dropped");
            }));
            drop(garland::spawn(std::future::pending::<()>()));
            std::future::pending::<u8>().await
        };
        let sender = thread::spawn(move || {
            let parked = || watched.stats().loops[0].is_parked;
            wait_until("loop 0 sleeps", &watched, parked);
            send(Signal::INT);
        });
        let outcome = runtime.run_interruptible(main);
        assert_eq!(outcome, Err(LoopError::Interrupted));
        assert_eq!(trace.take(), ["main is dropped"]);
        sender.join().expect("it only sends");
        ledger(&handle.stats());
    }
}

/// Calls what it holds when it is dropped.
struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0.take().expect("dropped once")();
    }
}

#[test]
fn sig_08_without_ctrl_c_the_result_is_that_of_main() {
    if is_alone("interrupts::sig_08_without_ctrl_c_the_result_is_that_of_main") {
        for loops in [1, 2, 4] {
            assert_eq!(lent(loops).run_interruptible(async { 42 }), Ok(42));
        }
    }
}

#[test]
fn sig_08_the_second_ctrl_c_ends_the_process_though_main_is_stuck() {
    const NAME: &str = "interrupts::sig_08_the_second_ctrl_c_ends_the_process_though_main_is_stuck";
    if !is_victim() {
        assert_eq!(killed_by(NAME), Some(Signal::INT.as_raw()));
        return;
    }
    let survived = lent(1).run_interruptible(async {
        send(Signal::INT);
        // Still here: the first one only asks.
        send_last(Signal::INT);
        thread::sleep(2 * LIMIT);
    });
    survived.expect("not reached");
}

#[test]
fn sig_08_the_second_ctrl_c_ends_the_process_while_the_runtime_ends() {
    const NAME: &str =
        "interrupts::sig_08_the_second_ctrl_c_ends_the_process_while_the_runtime_ends";
    if !is_victim() {
        assert_eq!(killed_by(NAME), Some(Signal::INT.as_raw()));
        return;
    }
    let outcome = lent(1).run_interruptible(async {
        // Dropped by the end of the runtime, after main.
        let at_the_end = OnDrop(Some(|| {
            send_last(Signal::INT);
            thread::sleep(2 * LIMIT);
        }));
        drop(garland::spawn_local(async move {
            let _kept = at_the_end;
            std::future::pending::<()>().await;
        }));
        garland::yield_now().await;
        send(Signal::INT);
        std::future::pending::<()>().await;
    });
    outcome.expect("not reached");
}

#[test]
fn sig_08_after_the_run_ctrl_c_has_its_default_action() {
    const NAME: &str = "interrupts::sig_08_after_the_run_ctrl_c_has_its_default_action";
    if !is_victim() {
        assert_eq!(killed_by(NAME), Some(Signal::INT.as_raw()));
        return;
    }
    lent(1)
        .run_interruptible(async {})
        .expect("nobody pressed it");
    send_last(Signal::INT);
    thread::sleep(LIMIT);
}

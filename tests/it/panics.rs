//! Panics of tasks: in a step, in a destructor, in both, and in what a panic carries.
//!
//! Panics of callbacks are in `callbacks.rs`, those at the end of a runtime in `shutdown.rs`.

use std::future::{Future, pending, poll_fn};
use std::panic::panic_any;
use std::pin::Pin;
use std::task::{Context, Poll};

use garland::{spawn, yield_now};

use crate::support::{end, lent, run};

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the bomb went off");
    }
}

/// Panics in its first step, and again when it is dropped.
struct PanicsTwice {
    _bomb: Bomb,
}

impl Future for PanicsTwice {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        panic!("in its step");
    }
}

#[test]
fn task_05_a_panic_is_the_result_of_its_task_and_hurts_nothing_else() {
    let runtime = lent(1);
    run(&runtime, async {
        let beside = spawn(async { yield_now().await });
        let error = spawn(async { panic!("message {}", 1) }).await;
        let error = error.expect_err("it panicked");
        assert_eq!(error.panic_message(), Some("message 1"));
        assert!(!error.is_cancelled());
        let bound = garland::spawn_local(async { panic!("bound") }).await;
        assert_eq!(
            bound.expect_err("it panicked").panic_message(),
            Some("bound")
        );
        let there = runtime
            .handle()
            .spawn_on(|| -> std::future::Ready<()> { panic!("make") });
        assert_eq!(
            there.await.expect_err("it panicked").panic_message(),
            Some("make")
        );
        beside.await.expect("did not panic");
    });
    let stats = end(runtime);
    assert_eq!(stats.total(|one| one.tasks_panicked), 3);
    assert_eq!(stats.total(|one| one.callback_panics), 0);
}

#[test]
fn task_05_a_panic_of_a_destructor_is_the_result_of_its_task() {
    let runtime = lent(1);
    run(&runtime, async {
        let bomb = Bomb;
        let in_body = spawn(async move { drop(bomb) });
        let error = in_body.await.expect_err("it panicked");
        assert_eq!(error.panic_message(), Some("the bomb went off"));
        // Dropped with the future, after its output is there.
        let bomb = Bomb;
        let mut bomb = Some(bomb);
        let with_future = spawn(poll_fn(move |_| {
            let _keeps = &mut bomb;
            Poll::Ready(1)
        }));
        assert!(
            with_future
                .await
                .expect_err("it panicked")
                .panic_message()
                .is_some()
        );
        // Dropped by a cancellation.
        let bomb = Bomb;
        let cancelled = spawn(async move {
            let _keeps = bomb;
            pending::<()>().await;
        });
        yield_now().await;
        assert!(cancelled.cancel());
        assert!(
            cancelled
                .await
                .expect_err("it panicked")
                .panic_message()
                .is_some()
        );
    });
    assert_eq!(end(runtime).total(|one| one.tasks_panicked), 3);
}

#[test]
fn a_step_and_a_destructor_that_both_panic_make_one_panicked_task() {
    let runtime = lent(1);
    run(&runtime, async {
        let error = spawn(PanicsTwice { _bomb: Bomb })
            .await
            .expect_err("it panicked");
        assert_eq!(error.panic_message(), Some("in its step"));
        let error = garland::spawn_local(PanicsTwice { _bomb: Bomb }).await;
        assert_eq!(
            error.expect_err("it panicked").panic_message(),
            Some("in its step")
        );
    });
    assert_eq!(end(runtime).total(|one| one.tasks_panicked), 2);
}

#[test]
fn a_payload_or_an_output_that_panics_on_drop_kills_no_loop() {
    let runtime = lent(2);
    run(&runtime, async {
        // Detached: the loop drops what nobody takes.
        drop(spawn(async { panic_any(Bomb) }));
        drop(spawn(async { Bomb }));
        drop(garland::spawn_local(async { panic_any(Bomb) }));
        drop(garland::spawn_local(async { Bomb }));
        let there = runtime.handle().on(1);
        drop(there.spawn_on(|| async { panic_any(Bomb) }));
        let joined = there.spawn_on(|| async { panic_any(Bomb) }).await;
        match joined.expect_err("it panicked") {
            garland::JoinError::Panicked(payload) => std::mem::forget(payload),
            other => panic!("{other}"),
        }
        for on in 0..2 {
            let alive = runtime.handle().on(on).spawn_on(|| async { 1 });
            assert_eq!(alive.await.expect("did not panic"), 1);
        }
    });
    let stats = end(runtime);
    assert_eq!(stats.total(|one| one.tasks_panicked), 4);
    assert_eq!(stats.total(|one| one.tasks_finished), 4);
}

//! Scopes with a deadline: what ends them, what passes through them, and moving the deadline.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use garland::{
    FutError, JoinError, LocalLoop, TimedOut, TimeoutScope, sleep, spawn, spawn_local, timeout_at,
    yield_now,
};

use crate::support::{end, on_auto_clock, run};

const MS: Duration = Duration::from_millis(1);

async fn after(ms: u32) -> u32 {
    sleep(ms * MS).await;
    ms
}

#[test]
fn comb_12_a_scope_ends_at_its_deadline_and_not_before_its_first_step() {
    let (runtime, clock) = on_auto_clock();
    run(&runtime, async {
        let now = runtime.handle().time();
        let late = timeout_at(now + 3 * MS, pending::<()>()).await;
        assert_eq!(late, Err(TimedOut { after: 3 * MS }));
        assert_eq!(clock.elapsed(), 3 * MS);
        // A deadline that has passed: the first step is made, then the next turn ends it.
        for passed in [now, runtime.handle().time()] {
            let steps = AtomicU32::new(0);
            let body = async {
                steps.fetch_add(1, Ordering::SeqCst);
                pending::<()>().await;
            };
            assert!(timeout_at(passed, body).await.is_err());
            assert_eq!(steps.into_inner(), 1);
            assert_eq!(
                timeout_at(passed, async { 7 }).await,
                Ok(7),
                "it needs one step only"
            );
        }
        assert_eq!(clock.elapsed(), 3 * MS);
        assert_eq!(timeout_at(None, after(1000)).await, Ok(1000));
        let never = TimeoutScope::new(Duration::MAX);
        assert_eq!((never.when(), never.run(after(1)).await), (None, Ok(1)));
        let scope = TimeoutScope::new(2 * MS);
        assert_eq!(scope.when(), Some(runtime.handle().time() + 2 * MS));
        assert!(scope.run(pending::<()>()).await.is_err() && scope.expired());
    });
    end(runtime);
}

#[test]
fn comb_13_each_scope_turns_only_its_own_expiry_into_an_error() {
    let (runtime, clock) = on_auto_clock();
    run(&runtime, async {
        let (outer, inner) = (TimeoutScope::new(2 * MS), TimeoutScope::new(5 * MS));
        let body = outer.run(async {
            let seen = inner.run(pending::<()>()).await;
            unreachable!("the outer scope has dropped the inner: {seen:?}")
        });
        assert_eq!(body.await, Err::<(), _>(TimedOut { after: 2 * MS }));
        assert!(outer.expired() && !inner.expired());

        let (outer, inner) = (TimeoutScope::new(5 * MS), TimeoutScope::new(2 * MS));
        let body = outer.run(async {
            let seen = inner.run(pending::<()>()).await;
            sleep(MS).await;
            seen
        });
        assert_eq!(body.await, Ok(Err(TimedOut { after: 2 * MS })));
        assert!(!outer.expired() && inner.expired());

        // Errors of the body pass untouched; so does a cancellation from outside.
        let scope = TimeoutScope::new(5 * MS);
        assert_eq!(
            scope.run(async { Err::<(), _>("its own") }).await,
            Ok(Err("its own"))
        );
        let scope = Arc::new(TimeoutScope::new(5 * MS));
        let running = Arc::clone(&scope);
        let task = spawn(async move { running.run(pending::<()>()).await });
        yield_now().await;
        assert!(task.cancel());
        assert!(task.await.expect_err("cancelled").is_cancelled());
        assert!(!scope.expired());
        assert_eq!(
            scope.reschedule(None),
            Err(FutError::InvalidState),
            "it is over"
        );
    });
    assert_eq!(clock.elapsed(), 5 * MS);
    end(runtime);
}

#[test]
fn comb_14_a_deadline_can_be_moved_while_the_scope_runs_and_only_then() {
    let (runtime, clock) = on_auto_clock();
    run(&runtime, async {
        let now = || runtime.handle().time();
        let begun = now();
        let scope = Arc::new(TimeoutScope::new(2 * MS));
        assert_eq!(
            scope.reschedule(None),
            Err(FutError::InvalidState),
            "not yet"
        );
        // From inside, later; from another task, later still; then to never, and to the past.
        let mover = Arc::clone(&scope);
        let moves = spawn_local(async move {
            sleep(3 * MS).await;
            mover.reschedule(begun + 8 * MS).expect("it runs");
            sleep(4 * MS).await;
            mover.reschedule(None).expect("it runs");
            sleep(13 * MS).await;
            mover.reschedule(begun).expect("it runs");
            assert_eq!(mover.when(), Some(begun));
            assert!(!mover.expired(), "not inside the call");
        });
        let late = scope.run(async {
            scope.reschedule(begun + 4 * MS).expect("it runs");
            pending::<()>().await;
        });
        assert!(late.await.is_err());
        assert_eq!(clock.elapsed(), 20 * MS);
        assert!(scope.expired());
        assert_eq!(scope.when(), Some(begun), "still answers");
        assert_eq!(
            scope.reschedule(None),
            Err(FutError::InvalidState),
            "expired"
        );
        moves.await.expect("did not panic");
        let again = Arc::clone(&scope);
        let twice = spawn_local(async move { again.run(async {}).await });
        assert!(
            matches!(twice.await, Err(JoinError::Panicked(_))),
            "a scope runs once"
        );
        // A deadline brought nearer counts from then on.
        let scope = TimeoutScope::new(Duration::from_secs(10));
        let late = scope.run(async {
            scope.reschedule(now() + MS).expect("it runs");
            pending::<()>().await;
        });
        assert_eq!(late.await, Err(TimedOut { after: MS }));
        assert_eq!(clock.elapsed(), 21 * MS);
    });
    end(runtime);
    assert!(LocalLoop::current().is_none());
    let outside = std::panic::catch_unwind(|| TimeoutScope::new(MS));
    assert!(outside.is_err(), "no loop, no time");
}

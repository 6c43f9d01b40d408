//! Task groups: a scope that ends when all in it have ended, and by the first failure.

use std::cell::RefCell;
use std::future::pending;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use garland::{
    TaskError, TaskGroup, TaskGroupError, TimeoutScope, sleep, spawn, spawn_local, yield_now,
};

use crate::support::{end, lent, on_auto_clock, run};

const MS: Duration = Duration::from_millis(1);

type Group = TaskGroup<&'static str>;
type Outcome<T> = Result<T, TaskGroupError<&'static str>>;

/// Counts those that are gone.
struct Gone(Arc<AtomicU32>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A child that only a cancellation ends.
async fn stays(guard: Gone) -> Result<(), &'static str> {
    let _guard = guard;
    pending().await
}

fn texts<T: std::fmt::Debug>(outcome: Outcome<T>) -> Vec<String> {
    let errors = outcome.expect_err("something failed").errors;
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn comb_15_the_scope_ends_when_its_body_and_all_children_have_ended() {
    let (runtime, clock) = on_auto_clock();
    let ended = run(
        &runtime,
        Group::scope(|group| async move {
            let slow = group.spawn(async {
                sleep(5 * MS).await;
                Ok(5)
            });
            let bound = Rc::new(7);
            let local = group.spawn_local(async move { Ok(bound) });
            group.spawn(async { Ok(()) });
            assert_eq!(local.await.as_deref(), Some(&7));
            Ok(slow)
        }),
    );
    assert_eq!(clock.elapsed(), 5 * MS, "the body ended at once");
    let slow = ended.expect("nothing failed");
    assert!(slow.is_finished() && !slow.cancel());
    assert_eq!(run(&runtime, slow), Some(5), "its value is still there");
    assert_eq!(
        run(&runtime, Group::scope(async |_| Ok(1))).expect("no children"),
        1
    );
    let stats = end(runtime);
    assert_eq!(stats.total(|one| one.tasks_finished), 3);
}

#[test]
fn comb_15_the_first_child_that_fails_ends_its_siblings_and_the_body() {
    for loops in [1, 2, 4] {
        for panics in [false, true] {
            let runtime = lent(loops);
            let gone = Arc::new(AtomicU32::new(0));
            let guard = || Gone(Arc::clone(&gone));
            let outcome: Outcome<()> = run(
                &runtime,
                Group::scope(|group| {
                    let (body, children) = (guard(), [guard(), guard(), guard()]);
                    async move {
                        let _body = body;
                        let [first, second, third] = children;
                        group.spawn(stays(first));
                        group.spawn_local(stays(second));
                        group.spawn(stays(third));
                        group.spawn(async move {
                            yield_now().await;
                            if panics {
                                panic!("the culprit");
                            }
                            Err::<(), _>("the culprit")
                        });
                        pending().await
                    }
                }),
            );
            assert_eq!(
                gone.load(Ordering::SeqCst),
                4,
                "all are gone when the scope ends"
            );
            let errors = outcome.expect_err("one failed").errors;
            assert_eq!(
                errors.len(),
                1,
                "that the others were cancelled is no error: {errors:?}"
            );
            assert_eq!(matches!(errors[0], TaskError::Panicked(_)), panics);
            assert!(errors[0].to_string().ends_with("the culprit"));
            let stats = end(runtime);
            assert_eq!(stats.total(|one| one.tasks_cancelled), 3);
        }
    }
}

#[test]
fn comb_15_what_fails_while_the_group_ends_is_collected_in_order() {
    struct PanicsInDrop;
    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            panic!("third");
        }
    }
    let runtime = lent(1);
    let outcome: Outcome<()> = run(
        &runtime,
        Group::scope(|group| async move {
            // Bound children: all three begin before the scope hears of the first failure.
            group.spawn_local(async {
                let _guard = PanicsInDrop;
                pending().await
            }) as garland::GroupTask<()>;
            group.spawn_local(async { Err::<(), _>("first") });
            group.spawn_local(async { Err::<(), _>("second") });
            pending().await
        }),
    );
    let outcome = outcome.expect_err("all failed");
    assert_eq!(outcome.to_string(), "3 of a group failed, first: first");
    let mut texts = texts::<()>(Err(outcome));
    texts.sort();
    assert_eq!(texts, ["a panic: third", "first", "second"]);
    end(runtime);
}

#[test]
fn comb_16_a_child_cancelled_by_itself_harms_no_one() {
    let (runtime, clock) = on_auto_clock();
    let outcome = run(
        &runtime,
        Group::scope(|group| async move {
            let cancelled = group.spawn(pending::<Result<u32, _>>());
            let other = group.spawn(async {
                sleep(3 * MS).await;
                Ok(3)
            });
            yield_now().await;
            assert!(cancelled.cancel() && !cancelled.is_finished());
            assert_eq!(cancelled.await, None);
            Ok(other.await)
        }),
    );
    assert_eq!(outcome.expect("nothing failed"), Some(3));
    assert_eq!(clock.elapsed(), 3 * MS);
    end(runtime);
}

#[test]
fn comb_16_an_error_or_a_panic_of_the_body_cancels_the_children_and_waits_for_them() {
    for loops in [1, 2, 4] {
        for panics in [false, true] {
            let runtime = lent(loops);
            let gone = Arc::new(AtomicU32::new(0));
            let guards = [Gone(Arc::clone(&gone)), Gone(Arc::clone(&gone))];
            let outcome: Outcome<()> = run(
                &runtime,
                Group::scope(|group| async move {
                    for guard in guards {
                        group.spawn(stays(guard));
                    }
                    // One begins, one may not have.
                    yield_now().await;
                    assert!(!panics, "the body");
                    Err("the body")
                }),
            );
            assert_eq!(gone.load(Ordering::SeqCst), 2);
            let texts = texts(outcome);
            assert_eq!(texts.len(), 1);
            assert!(texts[0].ends_with("the body"), "{texts:?}");
            end(runtime);
        }
    }
}

#[test]
fn comb_16_cancelling_the_scope_cancels_its_children() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        run(&runtime, async {
            let gone = Arc::new(AtomicU32::new(0));
            let guards = [(); 3].map(|()| Gone(Arc::clone(&gone)));
            let kept = Arc::new(Mutex::new(None));
            let keeper = Arc::clone(&kept);
            let scope = spawn(Group::scope(|group| async move {
                let [first, second, own] = guards;
                let _own = own;
                group.spawn(stays(first));
                group.spawn(stays(second));
                *keeper.lock().expect("no panic") = Some(group);
                pending::<Result<(), _>>().await
            }));
            let group = loop {
                let kept = kept.lock().expect("no panic").take();
                match kept {
                    Some(group) => break group,
                    None => yield_now().await,
                }
            };
            assert!(scope.cancel());
            assert!(scope.await.expect_err("cancelled").is_cancelled());
            while gone.load(Ordering::SeqCst) < 3 {
                yield_now().await;
            }
            let late = group.spawn(async { Ok(1) });
            assert!(late.is_finished(), "refused after the end");
        });
        end(runtime);
    }
}

#[test]
fn comb_16_a_scope_that_failed_reports_its_errors_even_if_its_deadline_comes_meanwhile() {
    let (runtime, clock) = on_auto_clock();
    run(&runtime, async {
        let scope = TimeoutScope::new(2 * MS);
        let outcome: Result<Outcome<()>, _> = scope
            .run(Group::scope(|group| async move {
                group.spawn(async {
                    sleep(2 * MS).await;
                    Err::<(), _>("in time")
                });
                sleep(MS).await;
                Ok(())
            }))
            .await;
        // Both come due in one turn: whichever way it goes, nothing hangs and nothing is lost.
        match outcome {
            Ok(outcome) => assert_eq!(texts(outcome), ["in time"]),
            Err(late) => assert_eq!(late.after, 2 * MS),
        }
        assert_eq!(clock.elapsed(), 2 * MS);
    });
    end(runtime);
}

#[test]
fn comb_17_children_start_children_as_long_as_any_is_live() {
    type Child = Pin<Box<dyn Future<Output = Result<(), &'static str>> + Send>>;
    fn grow(group: Group, left: u32, count: Arc<AtomicU32>) -> Child {
        Box::pin(async move {
            count.fetch_add(1, Ordering::SeqCst);
            yield_now().await;
            for _ in 0..if left > 0 { 2 } else { 0 } {
                group.spawn(grow(group.clone(), left - 1, Arc::clone(&count)));
            }
            Ok(())
        })
    }
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        let outcome = run(
            &runtime,
            Group::scope(|group| async move {
                group.spawn(grow(group.clone(), 7, counted));
                // The body has ended long before the last child is made.
                Ok(())
            }),
        );
        outcome.expect("nothing failed");
        assert_eq!(count.load(Ordering::SeqCst), 255);
        assert_eq!(end(runtime).total(|one| one.tasks_finished), 255);
    }
}

#[test]
fn comb_17_a_group_that_fails_or_has_ended_refuses_children_and_drops_them_unpolled() {
    let runtime = lent(1);
    run(&runtime, async {
        let gone = Arc::new(AtomicU32::new(0));
        let kept: Rc<RefCell<Option<Group>>> = Rc::default();
        let refused: Rc<RefCell<Vec<bool>>> = Rc::default();
        /// Starts a child while the group ends.
        struct Starts(Group, Rc<RefCell<Vec<bool>>>);
        impl Drop for Starts {
            fn drop(&mut self) {
                let late = self.0.spawn_local(async { unreachable!("refused") });
                let late: garland::GroupTask<()> = late;
                self.1.borrow_mut().push(late.is_finished());
            }
        }
        let (keeper, noted) = (Rc::clone(&kept), Rc::clone(&refused));
        let outcome: Outcome<()> = Group::scope(|group| async move {
            keeper.replace(Some(group.clone()));
            let starts = Starts(group.clone(), noted);
            group.spawn_local(async move {
                let _starts = starts;
                pending::<Result<(), _>>().await
            });
            yield_now().await;
            Err("ends it")
        })
        .await;
        assert_eq!(texts(outcome), ["ends it"]);
        assert_eq!(*refused.borrow(), [true]);
        let group = kept.take().expect("kept above");
        for late in [
            group.spawn(stays(Gone(Arc::clone(&gone)))),
            group.spawn_local(stays(Gone(Arc::clone(&gone)))),
        ] {
            assert!(late.is_finished() && !late.cancel());
            assert_eq!(late.await, None);
        }
        assert_eq!(gone.load(Ordering::SeqCst), 2, "dropped at once");
    });
    assert_eq!(end(runtime).total(|one| one.tasks_spawned), 1);
}

#[test]
fn comb_15_groups_nest_and_an_inner_one_ends_with_the_outer() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let gone = Arc::new(AtomicU32::new(0));
        let guards = [(); 2].map(|()| Gone(Arc::clone(&gone)));
        let outcome: Outcome<()> = run(
            &runtime,
            Group::scope(|outer| async move {
                let [first, second] = guards;
                outer.spawn(async move {
                    let inner = Group::scope(|inner| async move {
                        inner.spawn(stays(first));
                        inner.spawn(stays(second));
                        pending::<Result<(), _>>().await
                    });
                    inner.await.map_err(|_| "the inner one failed")
                });
                yield_now().await;
                Err("the outer one")
            }),
        );
        assert_eq!(texts(outcome), ["the outer one"]);
        run(&runtime, async {
            while gone.load(Ordering::SeqCst) < 2 {
                yield_now().await;
            }
        });
        end(runtime);
    }
}

#[test]
fn comb_15_who_drops_the_handle_of_a_child_or_awaits_it_elsewhere_changes_nothing() {
    let (runtime, _clock) = on_auto_clock();
    let outcome = run(
        &runtime,
        Group::scope(|group| async move {
            let child = group.spawn(async {
                sleep(3 * MS).await;
                Ok(3)
            });
            let awaits = spawn(child);
            yield_now().await;
            assert!(awaits.cancel());
            assert!(awaits.await.is_err());
            let other = group.spawn(async {
                sleep(MS).await;
                Ok(1)
            });
            Ok(spawn_local(other).await.expect("did not panic"))
        }),
    );
    assert_eq!(outcome.expect("nothing failed"), Some(1));
    assert_eq!(end(runtime).total(|one| one.tasks_cancelled), 1);
}

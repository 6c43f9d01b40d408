//! Models of the pure protocols, which loom runs through every order of steps and every value a read may
//! return. Built only with `--cfg garland_loom`, a name of our own: loom's own `--cfg loom` switches
//! dependencies too.
//!
//! ```text
//! RUSTFLAGS="--cfg garland_loom" LOOM_MAX_PREEMPTIONS=2 LOOM_MAX_BRANCHES=10000 CARGO_TARGET_DIR=target/loom \
//!     cargo test --profile loom --lib models
//! ```
//!
//! The code under test is the production code; the models spell out only what stands around it: the caller's
//! steps, the queues, the kernel ([`stub`]). Each model has mutants, the same model with one fence or
//! one step taken away, which must fail. A model whose mutants pass shows nothing.
//!
//! A lost wake-up shows as a deadlock: a loop that sleeps for ever, or a task that waits for ever for another
//! task that nobody runs.
//!
//! The models share things by std's `Arc`: counting references is not what they are about, and loom's own
//! `Arc` turns the panic of a mutant into an abort of the test run.
//!
//! # How to write one
//!
//! - Take atomics from `atomics.rs`, and begin with `explore`: loom alone leaves executions out. It reverses two
//!   accesses only if it takes them to depend on each other, and compares with the last access alone, so a thread
//!   that loads before it changes (`fetch_update`, a compare-exchange loop) is never seen to have been first by who
//!   loads beside it. It takes a fence and the access before it for one step. `Stepwise` and `fence_at` make
//!   all of these steps (M0 shows it).
//! - Let a word that several threads write be changed by read-modify-writes alone. Next to a plain store loom does not
//!   know that nothing comes between what a read-modify-write reads and what it writes, and tries executions that no
//!   machine has: a later load may miss what a fence shows it. Such a model fails for no reason, or its mutant does.
//! - No more than six changes of a word that matter to who reads late: loom forgets all but the last seven values.
//! - [`Notify`](loom::sync::Notify) keeps one notification, as an eventfd; a wait may end once without cause, after which
//!   that thread reads no value again that a newer one has replaced. It synchronises all who notify at one time, so
//!   nothing that the model is about may hang on a bell.
//!
//! # What they do not show
//!
//! - Orders with more preemptions than `LOOM_MAX_PREEMPTIONS`, threads beyond the two or three of a model.
//! - That an unpark is worth its cost: a loop woken in vain passes every model.
//! - Load buffering, which loom does not explore, and SeqCst accesses, which it takes for AcqRel. We have none.
//! - That a SeqCst fence orders no more than C++ says: loom lets each of them synchronise with all earlier ones.
//! - crossbeam's deques and async-task: the first are replaced by [`stub::Queue`], the second by a flag.

pub(crate) mod stub;

mod m0_steps;
mod m1_post_against_park;
mod m2_leave_search;
mod m3_readiness;
mod m4_generation;
mod m5_alarm;
mod m5_stolen_timer;
mod m6_watch;
mod m7_cancel;
mod m8_shutdown;
// M9 is the mutants of all the others.
mod m10_host;
mod m11_move;

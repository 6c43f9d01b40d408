//! Work that blocks: on threads of its own, with a result or an error for whoever awaits it, and names
//! resolved meanwhile.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use garland::{Builder, Executor, ExecutorError, Pin, TimedOut, getnameinfo, resolve};
use garland::{LocalLoop, run_in_executor};
use rustix::thread::sched_getaffinity;

use crate::sockets::is_alone;
use crate::support::{
    LIMIT, background, end, end_background, join, lent, on_auto_clock, receive, run,
};

#[test]
fn thr_06_a_job_runs_beside_the_loop_and_gives_its_result() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (go, gate) = mpsc::channel();
        let answer = run(&runtime, async {
            let home = thread::current().id();
            let job = run_in_executor(move || {
                gate.recv().expect("the loop opens the gate");
                thread::current().id()
            });
            // The job blocks, the loop does not: otherwise nobody would open the gate.
            garland::yield_now().await;
            go.send(()).expect("the job waits");
            job.await.expect("the job ends") != home
        });
        assert!(answer, "the job had a thread of its own");
        end(runtime);
    }
}

#[test]
fn thr_06_a_job_begins_without_being_awaited() {
    let runtime = background(1);
    let (sender, receiver) = mpsc::channel();
    let job = runtime.handle().run_in_executor(move || sender.send(7));
    assert_eq!(receive(&receiver, runtime.handle()), 7);
    drop(job);
    end_background(runtime);
}

#[test]
fn thr_06_many_jobs_each_wake_their_own_task() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let sum = run(&runtime, async {
            let tasks = (0..200_u64).map(|n| {
                garland::spawn(async move { run_in_executor(move || n).await.expect("it ends") })
            });
            let mut sum = 0;
            for task in tasks.collect::<Vec<_>>() {
                sum += task.await.expect("did not panic");
            }
            sum
        });
        assert_eq!(sum, 199 * 100);
        end(runtime);
    }
}

#[test]
fn thr_06_a_panic_of_the_job_is_an_error_and_hurts_nobody() {
    let runtime = lent(1);
    run(&runtime, async {
        for _ in 0..10 {
            let failed = run_in_executor(|| -> u8 { panic!("no such luck") }).await;
            let error = failed.expect_err("it panicked");
            assert_eq!(error.to_string(), "the job panicked: no such luck");
        }
        assert_eq!(run_in_executor(|| 1).await.expect("the pool lives"), 1);
    });
    end(runtime);
}

/// Runs each job on a fresh thread, and keeps count.
#[derive(Clone, Default)]
struct Threads {
    started: Arc<Mutex<HashSet<thread::ThreadId>>>,
}

impl Executor for Threads {
    fn execute(&self, job: Box<dyn FnOnce() + Send>) {
        let thread = thread::spawn(job);
        let mut started = self.started.lock().expect("nobody panics here");
        started.insert(thread.thread().id());
    }
}

#[test]
fn thr_06_a_pool_can_be_set_and_gets_all_jobs() {
    let runtime = lent(2);
    let mine = Threads::default();
    runtime.handle().set_default_executor(mine.clone());
    run(&runtime, async {
        let first = run_in_executor(|| thread::current().id());
        let first = first.await.expect("it ends");
        let name = resolve("localhost", 1).await;
        name.expect("every machine knows itself");
        let started = mine.started.lock().expect("nobody panics here");
        assert!(started.contains(&first));
        assert_eq!(started.len(), 2, "the resolver used it, too");
    });
    end(runtime);
}

/// Has no room for anybody.
struct Full;

impl Executor for Full {
    fn execute(&self, job: Box<dyn FnOnce() + Send>) {
        drop(job);
    }
}

#[test]
fn thr_06_a_job_that_the_pool_drops_is_an_error() {
    let runtime = lent(1);
    runtime.handle().set_default_executor(Full);
    let refused = run(&runtime, run_in_executor_of(&runtime));
    assert!(matches!(refused, Err(ExecutorError::Dropped)));
    end(runtime);
}

fn run_in_executor_of(runtime: &garland::Runtime) -> garland::Blocking<()> {
    runtime.handle().run_in_executor(|| ())
}

/// The trap: the pool's threads are started by a loop that is pinned, and would stay on its core.
#[test]
fn thr_06_jobs_leave_the_core_of_the_loop_that_started_them() {
    if !is_alone("blocking::thr_06_jobs_leave_the_core_of_the_loop_that_started_them") {
        return;
    }
    let all = sched_getaffinity(None).expect("the kernel tells");
    if all.count() < 2 {
        eprintln!("one core: there is nothing to leave");
        return;
    }
    let runtime = Builder::new().loops(1).pin(Pin::On).start();
    let runtime = runtime.expect("two cores are enough for one loop");
    let handle = runtime.handle().clone();
    let cores = handle.spawn(async {
        let mine = sched_getaffinity(None).expect("the kernel tells");
        let job = run_in_executor(|| sched_getaffinity(None).expect("the kernel tells"));
        (mine, job.await.expect("it ends"))
    });
    let (mine, of_job) = join(&handle, cores).expect("did not panic");
    assert_eq!(mine.count(), 1, "the loop is pinned");
    assert!(of_job == all, "the job is not");
    end_background(runtime);
}

/// Says so when it is dropped.
#[derive(Debug)]
struct Late(Sender<thread::ThreadId>);

impl Drop for Late {
    fn drop(&mut self) {
        let told = self.0.send(thread::current().id());
        told.expect("the test waits for it");
    }
}

#[test]
fn thr_07_dropping_the_future_does_not_stop_the_job_and_drops_its_late_result() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let (go, gate) = mpsc::channel();
        let (dropped, drops) = mpsc::channel();
        run(&runtime, async {
            let job = run_in_executor(move || {
                gate.recv().expect("the test opens the gate");
                Late(dropped)
            });
            let task = garland::spawn(job);
            garland::yield_now().await;
            assert!(task.cancel());
            assert!(task.await.expect_err("cancelled").is_cancelled());
        });
        go.send(()).expect("the job goes on");
        let on = receive(&drops, runtime.handle());
        assert_ne!(on, thread::current().id());
        end(runtime);
    }
}

#[test]
fn thr_07_a_result_that_comes_after_the_loop_has_closed_is_dropped_silently() {
    for loops in [1, 2, 4] {
        let runtime = background(loops);
        let handle = runtime.handle().clone();
        let (go, gate) = mpsc::channel();
        let (dropped, drops) = mpsc::channel();
        let (begun, begins) = mpsc::channel();
        let waiting = handle.spawn(async move {
            run_in_executor(move || {
                begun.send(()).expect("the test waits");
                gate.recv().expect("the test opens the gate");
                Late(dropped)
            })
            .await
        });
        receive(&begins, &handle);
        end_background(runtime);
        go.send(()).expect("the job goes on");
        receive(&drops, &handle);
        let end = join(&handle, waiting).map(drop);
        assert!(end.expect_err("its loop is closed").is_cancelled());
    }
}

#[test]
fn thr_07_a_late_result_whose_destructor_panics_does_not_hurt_the_pool() {
    struct Sour(Sender<()>);
    impl Drop for Sour {
        fn drop(&mut self) {
            self.0.send(()).expect("the test waits");
            panic!("a sour end");
        }
    }
    let runtime = lent(1);
    let (go, gate) = mpsc::channel();
    let (dropped, drops) = mpsc::channel();
    let job = runtime.handle().run_in_executor(move || {
        gate.recv().expect("the test opens the gate");
        Sour(dropped)
    });
    drop(job);
    go.send(()).expect("the job goes on");
    receive(&drops, runtime.handle());
    let limit = runtime.handle().shutdown_default_executor(LIMIT);
    run(&runtime, limit).expect("the job counts as over");
    end(runtime);
}

#[test]
fn thr_09_shutting_the_executor_down_waits_for_its_jobs_without_blocking_the_loop() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let handle = runtime.handle().clone();
        let (go, gate) = mpsc::channel();
        run(&runtime, async {
            let job = run_in_executor(move || gate.recv());
            // Opens the gate while the shutdown waits: only a loop that turns can do that.
            let local = LocalLoop::current().expect("inside a loop");
            local.call_soon(move || go.send(()).expect("the job waits"));
            handle
                .shutdown_default_executor(LIMIT)
                .await
                .expect("it ends");
            assert_eq!(job.await.expect("it was waited for"), Ok(()));
            let late = handle.run_in_executor(|| 1).await;
            assert!(matches!(late, Err(ExecutorError::Closed)), "{late:?}");
            let again = handle.shutdown_default_executor(LIMIT).await;
            again.expect("nothing is left to wait for");
        });
        end(runtime);
    }
}

#[test]
fn thr_09_a_shutdown_that_is_not_in_time_says_so_and_lets_the_job_go_on() {
    let (runtime, clock) = on_auto_clock();
    let handle = runtime.handle().clone();
    let (go, gate) = mpsc::channel();
    let limit = Duration::from_secs(3);
    let job = handle.run_in_executor(move || gate.recv());
    let ended = run(&runtime, handle.shutdown_default_executor(limit));
    assert_eq!(ended, Err(TimedOut { after: limit }));
    assert_eq!(clock.elapsed(), limit);
    go.send(()).expect("the job still waits");
    assert_eq!(run(&runtime, job).expect("it goes on"), Ok(()));
    end(runtime);
}

#[test]
fn thr_09_the_set_pool_is_dropped_once_its_jobs_are_over() {
    let runtime = lent(1);
    let mine = Threads::default();
    let started = Arc::downgrade(&mine.started);
    runtime.handle().set_default_executor(mine);
    run(&runtime, async {
        run_in_executor(|| ()).await.expect("it ends");
        assert!(started.upgrade().is_some());
        let handle = runtime.handle();
        handle
            .shutdown_default_executor(LIMIT)
            .await
            .expect("no job is left");
        assert!(started.upgrade().is_none());
    });
    end(runtime);
}

#[test]
fn loop_10_a_runtime_that_is_closed_takes_no_jobs() {
    let runtime = lent(1);
    let handle = runtime.handle().clone();
    end(runtime);
    let refused = futures_lite::future::block_on(handle.run_in_executor(|| ()));
    assert!(matches!(refused, Err(ExecutorError::Closed)));
}

#[test]
fn thr_11_names_are_resolved_while_the_loop_turns() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let slow = Gated::default();
        let open = slow.gate.clone();
        runtime.handle().set_default_executor(slow);
        run(&runtime, async {
            // The lookup cannot begin before a callback of the loop has run.
            let local = LocalLoop::current().expect("inside a loop");
            local.call_soon(move || {
                let job = open
                    .lock()
                    .expect("nobody panics here")
                    .pop()
                    .expect("it waits");
                thread::spawn(job);
            });
            let found = resolve("localhost", 80)
                .await
                .expect("every machine knows itself");
            assert!(
                found
                    .iter()
                    .all(|addr| addr.ip().is_loopback() && addr.port() == 80)
            );
        });
        end(runtime);
    }
}

type Waiting = Vec<Box<dyn FnOnce() + Send>>;

/// Keeps jobs until the test runs them.
#[derive(Default)]
struct Gated {
    gate: Arc<Mutex<Waiting>>,
}

impl Executor for Gated {
    fn execute(&self, job: Box<dyn FnOnce() + Send>) {
        self.gate.lock().expect("nobody panics here").push(job);
    }
}

#[test]
fn thr_11_an_address_has_a_name_or_at_least_its_number() {
    let runtime = lent(1);
    run(&runtime, async {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let (host, _service) = getnameinfo(addr).await.expect("loopback has a name");
        let back = resolve(&host, 1).await.expect("the name leads back");
        assert!(
            back.iter().any(|addr| addr.ip().is_loopback()),
            "{host}: {back:?}"
        );
        // TEST-NET-1 and a port without a service: nobody has a name for them.
        let nobody = SocketAddr::from(([192, 0, 2, 1], 64999));
        if let Ok((host, service)) = getnameinfo(nobody).await {
            assert_eq!((host.as_str(), service.as_str()), ("192.0.2.1", "64999"));
        }
    });
    end(runtime);
}

#[test]
fn thr_11_an_unknown_name_is_an_error_that_names_it() {
    let runtime = lent(1);
    let error = run(&runtime, resolve("no-such-host.invalid", 80));
    let error = error.expect_err("reserved by RFC 2606");
    assert!(
        error.to_string().contains("no-such-host.invalid"),
        "{error}"
    );
    end(runtime);
}

#[test]
fn thr_12_a_literal_skips_the_resolver() {
    // Outside of any loop there is no executor that could be asked.
    let resolved = |host| futures_lite::future::block_on(resolve(host, 80)).expect("a literal");
    assert_eq!(
        resolved("127.0.0.1"),
        [SocketAddr::from(([127, 0, 0, 1], 80))]
    );
    let six: IpAddr = "2001:db8::1".parse().expect("an address");
    assert_eq!(resolved("2001:db8::1"), [SocketAddr::new(six, 80)]);
}

#[test]
fn thr_12_a_literal_keeps_its_scope() {
    let resolved = |host| futures_lite::future::block_on(resolve(host, 80));
    let scope = |host| match resolved(host).expect("a literal")[..] {
        [SocketAddr::V6(addr)] => (addr.ip().to_string(), addr.scope_id()),
        ref other => panic!("one IPv6 address, not {other:?}"),
    };
    assert_eq!(scope("fe80::1%7"), ("fe80::1".to_owned(), 7));
    // The loopback interface is the first of every network namespace.
    assert_eq!(scope("fe80::1%lo"), ("fe80::1".to_owned(), 1));
    let error = resolved("fe80::1%no-such-if").expect_err("no such interface");
    assert!(error.to_string().contains("fe80::1%no-such-if"), "{error}");
}

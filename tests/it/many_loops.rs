//! What holds with several loops, rows MC: what may move and what may not, and that one loop is the special case.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use garland::{
    ListenOptions, LocalLoop, LoopHandle, ManualClock, Protocol, Transport, TurnBudget, sleep,
    spawn, yield_now,
};

use crate::support::{
    Trace, background, builder, end, end_background, join, lent, receive, run, turn, wait_until,
};

#[test]
fn mc_02_a_movable_task_is_never_polled_twice_at_once_and_sees_what_it_did_before() {
    const TASKS: usize = 16;
    const STEPS: usize = 500;
    for loops in [1, 2, 4] {
        let runtime = background(loops);
        let handle = runtime.handle().clone();
        let wakers: Arc<Vec<Mutex<Option<Waker>>>> =
            Arc::new((0..TASKS).map(|_| Mutex::default()).collect());
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let wakers = Arc::clone(&wakers);
                let is_polled = AtomicBool::new(false);
                // Plain memory of the task: torn or stale if two polls overlapped or were not ordered.
                let mut steps = 0;
                handle.spawn(poll_fn(move |cx| {
                    assert!(
                        !is_polled.swap(true, Ordering::Relaxed),
                        "two polls at once"
                    );
                    steps += 1;
                    *wakers[task].lock().expect("no panic") = Some(cx.waker().clone());
                    let woken_again = steps < STEPS;
                    if woken_again && steps % 3 == 0 {
                        cx.waker().wake_by_ref();
                    }
                    assert!(is_polled.swap(false, Ordering::Relaxed));
                    if woken_again {
                        Poll::Pending
                    } else {
                        Poll::Ready(steps)
                    }
                }))
            })
            .collect();
        // Two threads wake whatever has a waker, also tasks that are being polled.
        let over = Arc::new(AtomicBool::new(false));
        let wake = |over: Arc<AtomicBool>| {
            let wakers = Arc::clone(&wakers);
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    for slot in wakers.iter() {
                        let waker = slot.lock().expect("no panic").clone();
                        waker.iter().for_each(Waker::wake_by_ref);
                    }
                    thread::yield_now();
                }
            })
        };
        let threads = [wake(Arc::clone(&over)), wake(Arc::clone(&over))];
        for task in tasks {
            assert_eq!(join(&handle, task).expect("did not panic"), STEPS);
        }
        over.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("it only wakes");
        }
        end_background(runtime);
    }
}

#[test]
fn mc_03_the_steps_of_one_movable_task_keep_their_order_wherever_they_run() {
    for loops in [1, 2, 4] {
        let runtime = background(loops);
        let handle = runtime.handle().clone();
        let tasks: Vec<_> = (0..32)
            .map(|_| {
                handle.spawn(async {
                    let mut steps = Vec::new();
                    for step in 0..100 {
                        steps.push(step);
                        yield_now().await;
                    }
                    steps
                })
            })
            .collect();
        for task in tasks {
            let steps = join(&handle, task).expect("did not panic");
            assert_eq!(steps, Vec::from_iter(0..100));
        }
        end_background(runtime);
    }
}

#[test]
fn mc_05_inside_a_movable_task_the_current_loop_is_the_one_that_polls_it() {
    for loops in [1, 2, 4] {
        let runtime = background(loops);
        let handle = runtime.handle().clone();
        // Which loop a thread turns, by the loops' own word.
        let mut threads = BTreeMap::new();
        for on in 0..loops {
            let id = handle.on(on).spawn_on(|| async { thread::current().id() });
            threads.insert(on, join(&handle, id).expect("did not panic"));
        }
        let threads = Arc::new(threads);
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let threads = Arc::clone(&threads);
                handle.spawn(async move {
                    for _ in 0..20 {
                        let current = LoopHandle::current().expect("on a loop").id();
                        let local = LocalLoop::current().map(|local| local.id());
                        assert_eq!(local, Some(current));
                        assert_eq!(threads[&current.index()], thread::current().id());
                        yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            join(&handle, task).expect("it was where it thought it was");
        }
        end_background(runtime);
    }
}

#[test]
fn mc_06_a_sleep_made_here_and_awaited_elsewhere_fires_once_on_every_number_of_loops() {
    for loops in [1, 2, 4] {
        let runtime = background(loops);
        let handle = runtime.handle().clone();
        let before = handle.stats().total(|one| one.timers_fired);
        let tasks: Vec<_> = (0..100)
            .map(|round| {
                handle.spawn(async move {
                    for _ in 0..3 {
                        sleep(Duration::from_micros(50 * (round % 7 + 1))).await;
                        yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            join(&handle, task).expect("did not panic");
        }
        let fired = handle.stats().total(|one| one.timers_fired) - before;
        assert_eq!(fired, 300, "each once");
        end_background(runtime);
    }
}

#[test]
fn mc_11_stop_stops_its_own_loop_only() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let local = runtime.local().clone();
        local.stop();
        turn(&runtime);
        // Loop 0 rests now, the others do not.
        for on in 1..loops {
            let there = runtime.handle().on(on).spawn_on(|| async { 5 });
            assert_eq!(join(runtime.handle(), there).expect("did not panic"), 5);
        }
        // A movable task that was left to loop 0 alone is not lost.
        let kept = runtime.handle().spawn(async { 6 });
        assert_eq!(run(&runtime, kept).expect("did not panic"), 6);
        end(runtime);
    }
}

#[test]
fn mc_16_between_two_polls_a_loop_runs_at_most_its_budget_of_movable_tasks() {
    for loops in [1, 2, 4] {
        let mut budget = TurnBudget::default();
        budget.tasks = 4;
        let runtime = builder(loops).budget(budget).start().expect("it starts");
        let handle = runtime.handle().clone();
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                handle.spawn(async {
                    for _ in 0..40 {
                        yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            join(&handle, task).expect("did not panic");
        }
        for one in end_background(runtime).loops {
            let bound = 4 * (one.polls + 1);
            assert!(one.tasks_run <= bound, "{one:#?}");
        }
    }
}

/// However short a turn is, the selector is not asked again while a few short steps are left.
#[test]
fn mc_16_a_backlog_of_short_steps_does_not_cost_a_poll_a_turn() {
    let mut budget = TurnBudget::default();
    // A turn ends at its first look at the clock, after two tasks.
    budget.time = Duration::ZERO;
    let runtime = builder(1).budget(budget).build().expect("it is built");
    run(&runtime, async {
        let yielding = || async {
            for _ in 0..2_000 {
                yield_now().await;
            }
        };
        let tasks: Vec<_> = (0..100).map(|_| spawn(yielding())).collect();
        for task in tasks {
            task.await.expect("did not panic");
        }
    });
    let one = &runtime.stats().loops[0];
    assert!(one.tasks_run >= 200_000, "{one:#?}");
    assert!(one.turns > one.tasks_run / 4, "{one:#?}");
    assert!(one.polls < one.tasks_run / 16, "{one:#?}");
    end(runtime);
}

/// Notes that data came.
struct Noted(Arc<Mutex<Vec<&'static str>>>);

impl Protocol for Noted {
    fn data_received(&mut self, _: &Transport, _: &[u8]) {
        self.0.lock().expect("nobody panics").push("data");
    }
}

#[test]
fn mc_16_beside_a_backlog_too_a_message_waits_for_what_the_kernel_had_before() {
    let mut budget = TurnBudget::default();
    budget.time = Duration::ZERO;
    let runtime = builder(1).budget(budget).build().expect("it is built");
    let order = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&order);
    let address: ListenOptions = "127.0.0.1:0".parse().expect("an address");
    let server = runtime.handle().create_server(address, move |_| {
        let noted = Arc::clone(&noted);
        move || Noted(Arc::clone(&noted))
    });
    let address = server.expect("a free port").local_addr();
    let handle = runtime.handle().clone();
    let task = runtime.handle().spawn(async move {
        let backlog: Vec<_> = (0..20)
            .map(|_| {
                spawn(async {
                    loop {
                        yield_now().await;
                    }
                })
            })
            .collect();
        let mut client = TcpStream::connect(address).expect("it listens");
        for round in 0..300 {
            client.write_all(b"!").expect("the kernel has room");
            if round > 0 {
                let (handle, noted) = (handle.clone(), Arc::clone(&order));
                let note = move || noted.lock().expect("nobody panics").push("call");
                let sender = thread::spawn(move || handle.call_soon_threadsafe(note).map(drop));
                let sent = sender.join().expect("it does not panic");
                sent.expect("the loop is open");
            }
            let due = if round > 0 { 2 } else { 1 };
            while order.lock().expect("nobody panics").len() < due {
                yield_now().await;
            }
            let seen = std::mem::take(&mut *order.lock().expect("nobody panics"));
            assert_eq!(seen, ["data", "call"][..due], "round {round}");
        }
        for task in backlog {
            assert!(task.cancel());
        }
    });
    run(&runtime, task).expect("did not panic");
    end(runtime);
}

/// Says that data came.
struct Notice(mpsc::Sender<()>);

impl Protocol for Notice {
    fn data_received(&mut self, _: &Transport, _: &[u8]) {
        self.0.send(()).expect("the test waits");
    }
}

#[test]
fn mc_16_sockets_are_served_while_tasks_never_stop_yielding() {
    // The second one means: so long, however many.
    let mut by_time = TurnBudget::default();
    by_time.tasks = u32::MAX;
    for (loops, budget) in [1, 2, 4].into_iter().flat_map(|loops| {
        let budgets = [TurnBudget::default(), by_time];
        budgets.map(|budget| (loops, budget))
    }) {
        let runtime = builder(loops).budget(budget).start().expect("it starts");
        let handle = runtime.handle().clone();
        let over = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = (0..loops * 100)
            .map(|_| {
                let over = Arc::clone(&over);
                handle.spawn(async move {
                    while !over.load(Ordering::Relaxed) {
                        yield_now().await;
                    }
                })
            })
            .collect();
        let (sender, received) = mpsc::channel();
        let address: ListenOptions = "127.0.0.1:0".parse().expect("an address");
        let server = handle.create_server(address, move |_| {
            let sender = sender.clone();
            move || Notice(sender.clone())
        });
        let server = server.expect("a free port");
        let mut clients = Vec::new();
        for _ in 0..8 {
            let mut client = TcpStream::connect(server.local_addr()).expect("it listens");
            client.write_all(b"!").expect("the kernel has room");
            receive(&received, &handle);
            clients.push(client);
        }
        over.store(true, Ordering::Relaxed);
        for task in tasks {
            join(&handle, task).expect("did not panic");
        }
        drop(clients);
        end_background(runtime);
    }
}

#[test]
fn mc_17_a_burst_wakes_few_and_a_thief_takes_more_than_one() {
    for loops in [2, 4] {
        let runtime = background(loops);
        let handle = runtime.handle().clone();
        wait_until("all loops sleep", &handle, || {
            handle.stats().loops.iter().all(|one| one.is_parked)
        });
        let before = handle.stats();
        const TASKS: usize = 20_000;
        let spawner = handle.spawn(async {
            for _ in 0..TASKS {
                drop(spawn(yield_now()));
            }
        });
        join(&handle, spawner).expect("did not panic");
        wait_until("all tasks have ended", &handle, || {
            handle.stats().total(|one| one.tasks_live) == 0
        });
        let stats = handle.stats();
        let count = |of: fn(&garland::LoopStats) -> u64| stats.total(of) - before.total(of);
        // Waking one a task would be 20 000 and more.
        let woken = count(|one| one.unparks_received);
        assert!(woken < TASKS as u64 / 4, "{woken} unparks: {stats:#?}");
        let stolen = count(|one| one.tasks_stolen);
        if stolen > 1000 {
            let searches = count(|one| one.searches);
            assert!(searches < stolen, "{searches} searches for {stolen} tasks");
        }
        end_background(runtime);
    }
}

#[test]
fn mc_20_a_program_of_callbacks_reads_the_same_on_one_two_and_four_loops() {
    let program = |loops| {
        let clock = ManualClock::new();
        let runtime = builder(loops)
            .clock(clock.clone())
            .build()
            .expect("it builds");
        let local = runtime.local().clone();
        let seen = Trace::new();
        let ms = Duration::from_millis;
        for i in 0..3_u64 {
            let (trace, inner) = (seen.clone(), local.clone());
            local.call_soon(move || {
                trace.note(format!("soon {i}"));
                inner.call_soon(trace.noting(format!("nested {i}")));
                inner.call_later(ms(i), trace.noting(format!("timer {i} of soon")));
            });
            local.call_later(ms(3 - i), seen.noting(format!("timer {i}")));
            let trace = seen.clone();
            drop(local.spawn_local(async move {
                for step in 0..3 {
                    trace.note(format!("task {i} step {step}"));
                    if step == 1 {
                        sleep(ms(2)).await;
                    } else {
                        yield_now().await;
                    }
                }
            }));
            let cancelled = local.call_soon(|| unreachable!("cancelled"));
            local.call_soon(move || assert!(!cancelled.cancel()));
        }
        let victim = local.call_later(ms(1), || unreachable!("cancelled"));
        local.call_soon(move || assert!(victim.cancel()));
        for _ in 0..12 {
            turn(&runtime);
            clock.advance(Duration::from_micros(500));
        }
        end(runtime);
        seen.take()
    };
    let one = program(1);
    assert_eq!(one.len(), 3 * (3 + 1 + 3));
    assert_eq!(program(2), one);
    assert_eq!(program(4), one);
}

/// What one turn ran, as seen also by what comes from another thread.
#[derive(Clone, Default)]
struct Order(Arc<Mutex<Vec<&'static str>>>);

impl Order {
    fn note(&self, what: &'static str) {
        self.0.lock().expect("no panic").push(what);
    }

    fn noting(&self, what: &'static str) -> impl FnOnce() + Send + use<> {
        let order = self.clone();
        move || order.note(what)
    }
}

/// Notes that data came.
struct InOrder(Order);

impl Protocol for InOrder {
    fn data_received(&mut self, _: &Transport, _: &[u8]) {
        self.0.note("socket");
    }
}

#[test]
fn call_02_mc_20_a_turn_takes_in_events_then_messages_then_timers_behind_what_is_ready() {
    for loops in [1, 2, 4] {
        // On a machine that stops this thread in the middle of its turn, another loop would take the event in and
        // send it here: as a message.
        let runtime = builder(loops).rescue(false).build();
        let runtime = runtime.expect("a runtime can be built");
        let local = runtime.local().clone();
        let seen = Order::default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let to = listener.local_addr().expect("it is bound");
        let trace = seen.clone();
        let made = run(
            &runtime,
            local.create_connection(to, move || InOrder(trace)),
        );
        let transport = made.expect("it is listened to");
        let (mut peer, _) = listener.accept().expect("it was connected");
        // Inside a turn: everything below is taken in by the next one.
        run(&runtime, async {
            peer.write_all(b"!").expect("the kernel has room");
            local.call_later(Duration::ZERO, seen.noting("timer"));
            let (handle, call) = (runtime.handle().clone(), seen.noting("message"));
            let sender = thread::spawn(move || {
                drop(handle.call_soon_threadsafe(call).expect("open"));
            });
            sender.join().expect("it has sent");
            local.call_soon(seen.noting("ready"));
            yield_now().await;
            yield_now().await;
        });
        let order = seen.0.lock().expect("no panic").clone();
        assert_eq!(order, ["ready", "socket", "message", "timer"]);
        transport.abort();
        end(runtime);
    }
}

#[test]
fn mc_01_a_call_from_every_loop_runs_on_the_loop_it_was_sent_to() {
    for loops in [1, 2, 4] {
        let runtime = background(loops);
        let handle = runtime.handle().clone();
        let left = Arc::new(AtomicUsize::new(loops * loops * 50));
        let (done, finished) = mpsc::channel();
        for from in 0..loops {
            let (everyone, left, done) = (handle.clone(), Arc::clone(&left), done.clone());
            let send = move || {
                for round in 0..loops * 50 {
                    let to = round % loops;
                    let (left, done) = (Arc::clone(&left), done.clone());
                    let call = move || {
                        let here = LocalLoop::current().expect("on a loop").id();
                        assert_eq!(here.index(), to);
                        if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                            done.send(()).expect("the test waits");
                        }
                    };
                    drop(everyone.on(to).call_soon_threadsafe(call).expect("open"));
                }
            };
            drop(handle.on(from).call_soon_threadsafe(send).expect("open"));
        }
        receive(&finished, &handle);
        let stats = end_background(runtime);
        assert_eq!(stats.total(|one| one.callback_panics), 0);
    }
}

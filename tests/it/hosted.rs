//! A runtime inside a foreign loop, LOOP-16: the host waits for descriptors, one of them the runtime's, and
//! has it make one turn at a time.

use std::cell::Cell;
use std::future::pending;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use garland::{
    ListenOptions, LoopError, LoopHandle, ManualClock, Protocol, Runtime, Transport, TurnBudget,
    sleep, yield_now,
};
use mio::unix::SourceFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::{LIMIT, Trace, builder, end, lent, on_auto_clock, receive, run, turn};

/// Whether the runtime asks for a turn, now or within `limit`.
fn asks(runtime: &Runtime, limit: Duration) -> bool {
    let mut fds = [PollFd::new(runtime, PollFlags::IN)];
    let limit = Timespec::try_from(limit).expect("a span of seconds");
    poll(&mut fds, Some(&limit)).expect("a descriptor of this process") == 1
}

/// The simplest host: waits for the runtime alone, until the program stops the loop. Counts its turns.
fn host(runtime: &Runtime) -> u32 {
    let mut turns = 0;
    loop {
        turns += 1;
        let turned = runtime.run_once(Some(Duration::ZERO));
        if turned.expect("no other loop runs here").is_break() {
            return turns;
        }
        assert!(asks(runtime, LIMIT), "asleep: {:#?}", runtime.stats());
    }
}

/// Nothing left to do, and the host is not asked for anything.
fn settle(runtime: &Runtime) {
    let begun = Instant::now();
    while asks(runtime, Duration::ZERO) {
        let turned = runtime.run_once(Some(Duration::ZERO));
        assert_eq!(turned, Ok(ControlFlow::Continue(())));
        assert!(begun.elapsed() < LIMIT, "{:#?}", runtime.stats());
    }
}

/// Sends back what it gets.
struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }
}

#[test]
fn loop_16_run_05_a_foreign_loop_hosts_ours_beside_sockets_of_its_own() {
    const OURS: mio::Token = mio::Token(0);
    const THEIRS: mio::Token = mio::Token(1);
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let address: ListenOptions = "127.0.0.1:0".parse().expect("an address");
        let server = runtime.handle().create_server(address, |_| || Echo);
        let server = server.expect("a free port");

        // The foreign loop: mio, with a socket that it owns.
        let mut poll = mio::Poll::new().expect("a selector");
        let mut events = mio::Events::with_capacity(8);
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let mut theirs = mio::net::TcpListener::bind(any).expect("a free port");
        let their_address = theirs.local_addr().expect("it is bound");
        let registry = poll.registry();
        let fd = runtime.as_fd().as_raw_fd();
        registry
            .register(&mut SourceFd(&fd), OURS, mio::Interest::READABLE)
            .expect("an epoll descriptor can be polled");
        registry
            .register(&mut theirs, THEIRS, mio::Interest::READABLE)
            .expect("a socket can be polled");

        // A client of both: first the hosted server, then the host's own socket.
        let ours = server.local_addr();
        let client = thread::spawn(move || {
            let mut stream = TcpStream::connect(ours).expect("our server listens");
            let sent = vec![7; 1 << 20];
            let mut writer = stream.try_clone().expect("a second handle");
            let all = sent.clone();
            let writing = thread::spawn(move || {
                writer.write_all(&all).expect("it is read");
                writer.shutdown(Shutdown::Write).expect("it is open");
            });
            let mut got = Vec::new();
            stream.read_to_end(&mut got).expect("it is written");
            writing.join().expect("as above");
            assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
            TcpStream::connect(their_address).expect("the host listens");
        });

        // mio is edge-triggered: after an event the host turns until nothing is asked for.
        let turned = runtime.run_once(Some(Duration::ZERO));
        assert!(turned.expect("no other loop").is_continue());
        settle(&runtime);
        let mut visited = false;
        while !visited {
            poll.poll(&mut events, Some(LIMIT)).expect("it polls");
            assert!(!events.is_empty(), "asleep: {:#?}", runtime.stats());
            for event in &events {
                match event.token() {
                    OURS => settle(&runtime),
                    THEIRS => visited = true,
                    other => unreachable!("{other:?}"),
                }
            }
        }
        client.join().expect("it got everything back");
        end(runtime);
    }
}

/// Starts something from outside of a turn, while the host waits: it asks for turns until it has run.
fn started_outside(
    runtime: &Runtime,
    seen: &Trace<&'static str>,
    what: &'static str,
    start: &dyn Fn(),
) {
    settle(runtime);
    assert!(!asks(runtime, Duration::ZERO), "nothing to do");
    start();
    let begun = Instant::now();
    while seen.len() == 0 {
        let stats = || runtime.stats();
        assert!(asks(runtime, LIMIT), "{what} does not ask: {:#?}", stats());
        let turned = runtime.run_once(Some(Duration::ZERO));
        assert_eq!(turned, Ok(ControlFlow::Continue(())));
        assert!(begun.elapsed() < LIMIT, "{what}: {:#?}", stats());
    }
    assert_eq!(seen.take(), [what]);
}

#[test]
fn loop_16_every_source_of_work_asks_the_host() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let local = runtime.local().clone();
        let seen = Trace::new();
        let step = |what, start: &dyn Fn()| started_outside(&runtime, &seen, what, start);
        let turned = runtime.run_once(Some(Duration::ZERO));
        assert_eq!(turned, Ok(ControlFlow::Continue(())));
        step("call_soon", &|| {
            drop(local.call_soon(seen.noting("call_soon")))
        });
        step("call_later", &|| {
            local.call_later(Duration::from_millis(2), seen.noting("call_later"));
        });
        step("call_later zero", &|| {
            local.call_later(Duration::ZERO, seen.noting("call_later zero"));
        });
        step("spawn_local", &|| {
            let trace = seen.clone();
            drop(local.spawn_local(async move {
                yield_now().await;
                sleep(Duration::from_millis(1)).await;
                trace.note("spawn_local");
            }));
        });
        // From other threads, with the answer noted by a callback.
        let (sender, receiver) = async_channel::unbounded::<&'static str>();
        let trace = seen.clone();
        drop(local.spawn_local(async move {
            while let Ok(what) = receiver.recv().await {
                trace.note(what);
            }
        }));
        let foreign = |f: Box<dyn FnOnce(LoopHandle) + Send>| {
            let handle = runtime.handle().clone();
            thread::spawn(move || f(handle))
                .join()
                .expect("it only posts");
        };
        step("threadsafe", &|| {
            let sender = sender.clone();
            foreign(Box::new(move |handle| {
                let send = move || sender.try_send("threadsafe").expect("unbounded");
                drop(handle.call_soon_threadsafe(send).expect("open"));
            }));
        });
        step("spawn", &|| {
            let sender = sender.clone();
            foreign(Box::new(move |handle| {
                let task = async move { sender.send("spawn").await.expect("open") };
                drop(handle.spawn(task));
            }));
        });
        step("wake", &|| {
            let sender = sender.clone();
            foreign(Box::new(move |_| sender.try_send("wake").expect("open")));
        });
        drop(sender);
        end(runtime);
    }
}

#[test]
fn loop_16_stop_breaks_the_hosts_loop_from_anywhere() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let local = runtime.local().clone();
        let stopper = local.clone();
        local.call_soon(move || stopper.stop());
        host(&runtime);

        let handle = runtime.handle().clone();
        let foreign = thread::spawn(move || handle.stop());
        host(&runtime);
        foreign.join().expect("it only stops");

        settle(&runtime);
        local.stop();
        assert!(asks(&runtime, LIMIT), "a stop from the host's own code");
        assert_eq!(host(&runtime), 1);
        end(runtime);
    }
}

#[test]
fn loop_16_a_turn_runs_what_is_ready_and_what_it_schedules_asks_for_the_next() {
    let (runtime, _clock) = on_auto_clock();
    let local = runtime.local().clone();
    let seen = Trace::new();
    let (trace, again) = (seen.clone(), local.clone());
    local.call_soon(move || {
        trace.note("first");
        again.call_soon(trace.noting("second"));
    });
    let once = || {
        runtime
            .run_once(Some(Duration::ZERO))
            .expect("no other loop")
    };
    assert!(once().is_continue());
    assert_eq!(seen.take(), ["first"]);
    assert!(asks(&runtime, Duration::ZERO));
    assert!(once().is_continue());
    assert_eq!(seen.take(), ["second"]);
    assert!(!asks(&runtime, Duration::ZERO));
    assert_eq!(runtime.stats().loops[0].turns, 2);
    end(runtime);
}

#[test]
fn loop_16_a_turn_waits_for_its_timeout_and_for_work_but_no_longer() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        // Nothing comes: the timeout ends it, and not early.
        let begun = Instant::now();
        let turned = runtime.run_once(Some(Duration::from_millis(5)));
        assert_eq!(turned, Ok(ControlFlow::Continue(())));
        assert!(begun.elapsed() >= Duration::from_millis(5));
        // A timer comes before the timeout.
        let fired = Rc::new(Cell::new(false));
        let flag = Rc::clone(&fired);
        let local = runtime.local();
        local.call_later(Duration::from_millis(1), move || flag.set(true));
        assert!(runtime.next_deadline().expect("one is armed") > begun);
        while !fired.get() {
            let turned = runtime.run_once(Some(LIMIT));
            assert_eq!(turned, Ok(ControlFlow::Continue(())));
        }
        assert!(begun.elapsed() < LIMIT);
        assert_eq!(runtime.next_deadline(), None);
        // No timeout: a call from elsewhere ends it.
        let handle = runtime.handle().clone();
        let caller = thread::spawn(move || handle.stop());
        while runtime.run_once(None).expect("no other loop").is_continue() {}
        caller.join().expect("it only stops");
        end(runtime);
    }
}

#[test]
fn loop_16_a_turn_without_a_timeout_ends_with_something() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let handle = runtime.handle().clone();
        let (ran, has_run) = mpsc::channel();
        // Time enough for looks at the other loops, which end a sleep but no turn.
        let caller = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            let note = move || ran.send(()).expect("the test waits");
            drop(handle.call_soon_threadsafe(note).expect("open"));
        });
        let turned = runtime.run_once(None).expect("no other loop runs here");
        assert!(turned.is_continue());
        has_run.try_recv().expect("what has ended the turn");
        caller.join().expect("it only calls");
        end(runtime);
    }
}

#[test]
fn loop_16_a_clock_turned_by_hand_asks_the_host_when_a_timer_is_due() {
    let clock = ManualClock::new();
    let runtime = builder(1).clock(clock.clone()).build().expect("it builds");
    let seen = Trace::new();
    let second = Duration::from_secs(1);
    runtime.local().call_later(second, seen.noting("due"));
    let once = || {
        runtime
            .run_once(Some(Duration::ZERO))
            .expect("no other loop")
    };
    assert!(once().is_continue());
    settle(&runtime);
    clock.advance(second / 2);
    settle(&runtime);
    assert_eq!(seen.len(), 0);
    clock.advance(second / 2);
    assert!(asks(&runtime, Duration::ZERO));
    assert!(once().is_continue());
    assert_eq!(seen.take(), ["due"]);
    end(runtime);
}

#[test]
fn loop_16_run_once_is_refused_inside_a_loop_and_mixes_with_the_other_runs() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let other = lent(1);
        run(&runtime, async {
            let nested = runtime.run_once(None);
            assert_eq!(nested, Err(LoopError::Running));
            let nested = other.run_once(None);
            assert_eq!(nested, Err(LoopError::OtherLoopRunning));
        });
        let seen = Trace::new();
        assert!(runtime.run_once(Some(Duration::ZERO)).is_ok());
        runtime.local().call_soon(seen.noting(1));
        turn(&runtime);
        assert_eq!(seen.take(), [1]);
        let slept = async {
            sleep(Duration::from_millis(1)).await;
            garland::spawn(async { 5 }).await.expect("did not panic")
        };
        assert_eq!(run(&runtime, slept), 5);
        assert!(runtime.run_once(Some(Duration::ZERO)).is_ok());
        // Ended while it rests.
        drop(runtime.local().spawn_local(pending::<()>()));
        end(runtime);
        end(other);
    }
}

#[test]
fn loop_16_the_other_loops_do_not_wait_for_a_host_that_does_not_come() {
    for loops in [2, 4] {
        let runtime = lent(loops);
        assert!(runtime.run_once(Some(Duration::ZERO)).is_ok());
        settle(&runtime);
        let (sender, receiver) = mpsc::channel();
        for round in 0..1000 {
            let sender = sender.clone();
            drop(runtime.handle().spawn(async move {
                yield_now().await;
                sender.send(round).expect("the test listens");
            }));
            // One at a time: each finds all loops asleep, or almost.
            receive(&receiver, runtime.handle());
        }
        end(runtime);
    }
}

#[test]
fn loop_16_no_wake_up_of_a_host_is_lost_among_many() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let handle = runtime.handle().clone();
        let (ack, acks) = mpsc::channel();
        let caller = thread::spawn(move || {
            for round in 0..5000 {
                let ack = ack.clone();
                let call = move || ack.send(round).expect("the caller listens");
                drop(handle.call_soon_threadsafe(call).expect("open"));
                let got = receive(&acks, &handle);
                assert_eq!(got, round);
            }
            handle.stop();
        });
        host(&runtime);
        caller.join().expect("every call was answered");
        end(runtime);
    }
}

#[test]
fn loop_13_the_selector_is_the_platforms_best_without_being_asked_for() {
    let runtime = lent(1);
    let fd = runtime.as_fd().as_raw_fd();
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("it is open");
    assert_eq!(link.to_str(), Some("anon_inode:[eventpoll]"));
    end(runtime);
}

/// A host that has it make one turn a frame would else have its sockets served every so many frames.
#[test]
fn loop_16_each_call_asks_the_selector_whatever_else_waits() {
    // Longer than it takes to be known for short steps.
    const CALLS: u64 = 500;
    let mut budget = TurnBudget::default();
    // A turn ends at its first look at the clock, after a few steps.
    budget.time = Duration::ZERO;
    let runtime = builder(1).budget(budget).build().expect("it is built");
    let yielding = runtime.handle().spawn(async {
        loop {
            yield_now().await;
        }
    });
    let polls = || runtime.stats().loops[0].polls;
    for _ in 0..CALLS {
        let before = polls();
        let turned = runtime.run_once(Some(Duration::ZERO));
        assert_eq!(turned, Ok(ControlFlow::Continue(())));
        assert!(polls() > before, "{:#?}", runtime.stats());
    }
    assert!(yielding.cancel());
    end(runtime);
}

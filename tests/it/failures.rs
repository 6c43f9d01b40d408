//! Failures that no caller sees, and the handler that hears of them: rows ERR.
//!
//! What a panic does to the thing that panicked is in `callbacks.rs`, `panics.rs` and `protocols.rs`.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::panic_any;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use garland::{ErrorContext, LocalLoop, LoopHandle, Protocol, Transport, yield_now};

use crate::log::Log;
use crate::sockets::{any_port, connect, echo_once, reset};
use crate::support::{
    LIMIT, Trace, background, end, end_background, join, lent, receive, run, turn,
};

/// Notes every failure of a loop, as its line.
fn collect(local: &LocalLoop) -> Trace<String> {
    let seen = Trace::new();
    let trace = seen.clone();
    local.set_exception_handler(move |_, context| trace.note(context.to_string()));
    seen
}

#[test]
fn err_01_a_panic_of_a_callback_comes_with_its_text_its_loop_and_its_place() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let local = runtime.local();
        let seen = Trace::new();
        let trace = seen.clone();
        local.set_exception_handler(move |local, context| {
            assert_eq!(context.loop_id(), Some(local.id()));
            assert!(context.error().is_none() && context.task().is_none());
            let text = context.panic_message().map(str::to_owned);
            let place = context.scheduled_at().expect("a callback has a place");
            assert_eq!(place.file(), file!());
            trace.note((context.message().to_owned(), text, place.line()));
        });
        let handle = runtime.handle();
        let line = line!();
        local.call_soon(|| panic!("soon {}", 1));
        local.call_later(Duration::ZERO, || panic!("later"));
        local.call_at(local.time(), || panic_any(7));
        let sent = handle.call_soon_threadsafe(|| panic!("threadsafe"));
        sent.expect("the loop is open");
        local.call_soon(|| ());
        turn(&runtime);
        let message = "a callback panicked".to_owned();
        let expected = [
            (Some("soon 1"), 1),
            (Some("later"), 2),
            (None, 3),
            (Some("threadsafe"), 4),
        ];
        let mut seen = seen.take();
        seen.sort_by_key(|(.., line)| *line);
        let expected = expected
            .map(|(text, offset)| (message.clone(), text.map(str::to_owned), line + offset));
        assert_eq!(seen, expected);
        assert_eq!(end(runtime).total(|one| one.callback_panics), 4);
    }
}

#[test]
fn err_01_a_program_may_tell_the_handler_of_its_own_failures() {
    let runtime = lent(1);
    let local = runtime.local();
    let seen = collect(local);
    let failure = ErrorContext::new("the cache").with_error(io::Error::other("disk full"));
    local.call_exception_handler(failure.with_peer("127.0.0.1:9"));
    assert_eq!(
        seen.take(),
        ["the cache: disk full; on loop 0; peer 127.0.0.1:9"]
    );
    assert_eq!(end(runtime).total(|one| one.callback_panics), 0);
}

#[test]
fn err_02_the_handler_is_what_was_set_last_and_the_default_is_the_log() {
    let runtime = lent(1);
    let local = runtime.local();
    assert!(local.exception_handler().is_none());
    let log = Log::default();
    log.during(|| {
        local.call_soon(|| panic!("to the log"));
        turn(&runtime);
    });
    let lines = log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].starts_with("ERROR a callback panicked: to the log; on loop 0; scheduled at "),
        "{lines:?}"
    );
    assert!(lines[0].contains(file!()), "{lines:?}");

    let first = collect(local);
    let got = local.exception_handler().expect("one is set");
    let second = collect(local);
    log.during(|| {
        local.call_soon(|| panic!("to the second"));
        turn(&runtime);
        got(local, &ErrorContext::new("by hand"));
    });
    assert_eq!(second.len(), 1);
    assert_eq!(first.take(), ["by hand"]);
    assert_eq!(log.take(), [""; 0], "a handler stands in place of the log");

    local.reset_exception_handler();
    assert!(local.exception_handler().is_none());
    end(runtime);
}

#[test]
fn err_02_a_handler_may_set_another_and_do_what_any_callback_may() {
    let runtime = lent(1);
    let seen = Trace::new();
    let trace = seen.clone();
    runtime.local().set_exception_handler(move |local, _| {
        trace.note("first");
        local.call_soon(trace.noting("scheduled"));
        let trace = trace.clone();
        local.set_exception_handler(move |local, context| {
            trace.note("second");
            local.default_exception_handler(context);
        });
    });
    runtime.local().call_soon(|| panic!("one"));
    runtime.local().call_soon(|| panic!("two"));
    let log = Log::default();
    log.during(|| {
        turn(&runtime);
        turn(&runtime);
    });
    assert_eq!(seen.take(), ["first", "second", "scheduled"]);
    assert_eq!(log.take().len(), 1, "the second passes on to the default");
    end(runtime);
}

#[test]
fn err_03_a_failing_handler_goes_to_the_log_with_both_errors_and_the_loop_lives() {
    let runtime = lent(1);
    let local = runtime.local();
    local.set_exception_handler(|_, _| panic!("of the handler"));
    local.call_soon(|| panic!("of the callback"));
    let ran = Rc::new(Cell::new(false));
    let flag = Rc::clone(&ran);
    local.call_soon(move || flag.set(true));
    let log = Log::default();
    log.during(|| turn(&runtime));
    let lines = log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let first = "ERROR the exception handler panicked: of the handler; on loop 0";
    let then = "; while handling: a callback panicked: of the callback; on loop 0; scheduled at ";
    assert!(lines[0].starts_with(&format!("{first}{then}")), "{lines:?}");
    assert!(ran.get(), "the rest of the batch runs");
    end(runtime);
}

#[test]
fn err_03_a_log_that_panics_does_not_kill_the_loop() {
    struct Broken;
    impl tracing::Subscriber for Broken {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn event(&self, _: &tracing::Event<'_>) {
            panic!("of the log");
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }
    let runtime = lent(1);
    let local = runtime.local();
    let ran = Rc::new(Cell::new(0));
    for failing_handler in [false, true] {
        if failing_handler {
            local.set_exception_handler(|_, _| panic!("of the handler"));
        }
        let count = Rc::clone(&ran);
        local.call_soon(|| panic!("of the callback"));
        local.call_soon(move || count.set(count.get() + 1));
        drop(local.spawn_local(async { panic!("of a detached task") }));
        tracing::subscriber::with_default(Broken, || turn(&runtime));
    }
    assert_eq!(ran.get(), 2);
    end(runtime);
}

#[test]
fn err_06_a_panic_that_nobody_asks_for_is_reported_once_and_one_that_is_taken_never() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let local = runtime.local().clone();
        let seen = collect(&local);
        run(&runtime, async {
            let taken = local.spawn_local(async { panic!("taken") });
            assert!(taken.await.is_err());
            assert_eq!(seen.take(), [""; 0]);

            let line = line!() + 1;
            drop(local.spawn_local(async { panic!("detached") }));
            yield_now().await;
            let lines = seen.take();
            assert_eq!(lines.len(), 1, "{lines:?}");
            let start = "a task panicked, and nobody took its result: detached; on loop 0; Task-";
            assert!(lines[0].starts_with(start), "{lines:?}");
            let place = format!("spawned at {}:{line}:", file!());
            assert!(lines[0].contains(&place), "{lines:?}");

            let ended = local.spawn_local(async { panic!("dropped later") });
            while !ended.is_finished() {
                yield_now().await;
            }
            assert_eq!(seen.len(), 0, "somebody may still ask");
            drop(ended);
            assert_eq!(seen.len(), 1);
            yield_now().await;
            assert_eq!(seen.take().len(), 1);
        });
        let stats = end(runtime);
        assert_eq!(stats.total(|one| one.tasks_panicked), 3);
        assert_eq!(stats.total(|one| one.callback_panics), 0);
    }
}

#[test]
fn err_06_mc_14_a_movable_task_is_reported_on_the_loop_that_polled_it() {
    for loops in [1, 2, 4] {
        let runtime = background(loops);
        let (sender, failures) = mpsc::channel();
        for id in 0..loops {
            let sender = sender.clone();
            let set = move || {
                let local = LocalLoop::current().expect("on a loop");
                local.set_exception_handler(move |local, context| {
                    let text = context.panic_message().map(str::to_owned);
                    let told = (text, local.id(), thread::current().id());
                    sender.send(told).expect("the test listens");
                });
            };
            runtime
                .handle()
                .on(id)
                .call_soon_threadsafe(set)
                .expect("open");
        }
        // Set on every loop, before any task.
        for id in 0..loops {
            let there = runtime.handle().on(id).spawn_on(|| async {});
            futures_lite::future::block_on(there).expect("did not panic");
        }
        for round in 0..100 {
            drop(runtime.handle().spawn(async move {
                yield_now().await;
                let id = LoopHandle::current().expect("on a loop").id();
                panic!("{round} {} {:?}", id.index(), thread::current().id());
            }));
        }
        let mut rounds = Vec::new();
        for _ in 0..100 {
            let (text, id, thread) = receive(&failures, runtime.handle());
            let text = text.expect("a panic with a text");
            let (round, place) = text.split_once(' ').expect("as above");
            assert_eq!(place, format!("{} {thread:?}", id.index()));
            rounds.push(round.parse::<u32>().expect("a number"));
        }
        rounds.sort_unstable();
        assert_eq!(rounds, Vec::from_iter(0..100));
        drop(sender);
        end_background(runtime);
        assert!(failures.try_recv().is_err(), "each once");
    }
}

#[test]
fn err_06_a_handle_dropped_by_a_foreign_thread_reports_on_the_loop_of_its_task() {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        let local = runtime.local().clone();
        let home = thread::current().id();
        let told = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&told);
        local.set_exception_handler(move |_, context| {
            let text = context.panic_message().map(str::to_owned);
            seen.borrow_mut().push((text, thread::current().id()));
        });
        let task = local.spawn_local(async { panic!("far away") });
        run(&runtime, async {
            while !task.is_finished() {
                yield_now().await;
            }
        });
        let dropper = thread::spawn(move || drop::<garland::JoinHandle<()>>(task));
        dropper.join().expect("it only drops");
        assert!(told.borrow().is_empty(), "not on the foreign thread");
        turn(&runtime);
        let expected = (Some("far away".to_owned()), home);
        assert_eq!(told.take(), [expected]);
        end(runtime);
    }
}

#[test]
fn err_06_after_the_close_a_panic_goes_to_the_log() {
    let runtime = lent(1);
    let local = runtime.local().clone();
    let seen = collect(&local);
    let task = local.spawn_local(async { panic!("nobody asked") });
    turn(&runtime);
    end(runtime);
    let log = Log::default();
    log.during(|| drop::<garland::JoinHandle<()>>(task));
    let lines = log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("nobody asked"), "{lines:?}");
    assert_eq!(seen.len(), 0);
}

#[test]
fn a_closed_loop_lets_its_handler_go() {
    let runtime = lent(1);
    let held = Rc::new(());
    let (kept, local) = (Rc::clone(&held), runtime.local().clone());
    // It holds the loop that holds it: the end of the loop undoes the knot.
    runtime.local().set_exception_handler(move |_, _| {
        let _keeps = (&kept, &local);
    });
    assert_eq!(Rc::strong_count(&held), 2);
    end(runtime);
    assert_eq!(Rc::strong_count(&held), 1);
}

/// Says with which kind of error its connection was lost.
struct Lost(mpsc::Sender<Option<io::ErrorKind>>);

impl Protocol for Lost {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }

    fn connection_lost(&mut self, _: &Transport, error: Option<&io::Error>) {
        let told = self.0.send(error.map(io::Error::kind));
        told.expect("the test waits");
    }
}

#[test]
fn err_05_a_reset_of_a_connection_is_no_failure() {
    for loops in [1, 2, 4] {
        let runtime = background(loops);
        let handle = runtime.handle();
        let (failed, failures) = mpsc::channel();
        for id in 0..loops {
            let failed = failed.clone();
            let set = move || async move {
                let local = LocalLoop::current().expect("on a loop");
                let tell = move |_: &LocalLoop, context: &ErrorContext| {
                    failed.send(context.to_string()).expect("the test listens");
                };
                local.set_exception_handler(tell);
            };
            join(handle, handle.on(id).spawn_on(set)).expect("did not panic");
        }
        let (lost, losses) = mpsc::channel();
        let make = move |_: &LocalLoop| {
            let lost = lost.clone();
            move || Lost(lost.clone())
        };
        let server = handle.create_server(any_port(), make);
        let server = server.expect("a free port");
        for _ in 0..8 {
            let mut client = connect(server.local_addr());
            echo_once(&mut client, b"once");
            reset(client);
            let kind = receive(&losses, handle);
            assert_eq!(kind, Some(io::ErrorKind::ConnectionReset));
        }
        drop(failed);
        let stats = end_background(runtime);
        assert_eq!(failures.try_iter().next(), None);
        assert_eq!(stats.total(|one| one.callback_panics), 0);
    }
}

#[test]
fn err_01_a_panic_of_a_protocol_comes_with_the_peer() {
    struct Fails;
    impl Protocol for Fails {
        fn data_received(&mut self, _: &Transport, _: &[u8]) {
            panic!("of the protocol");
        }
    }
    let runtime = lent(1);
    let local = runtime.local().clone();
    let seen = Trace::new();
    let trace = seen.clone();
    local.set_exception_handler(move |_, context| {
        trace.note((
            context.panic_message().map(str::to_owned),
            context.peer().map(str::to_owned),
        ));
    });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let peer = listener.local_addr().expect("it is bound");
    let made = run(&runtime, local.create_connection(peer, || Fails));
    drop(made.expect("it is listened to"));
    let (mut accepted, _) = listener.accept().expect("it was connected");
    io::Write::write_all(&mut accepted, b"!").expect("the kernel has room");
    let begun = Instant::now();
    run(&runtime, async {
        while seen.len() == 0 {
            assert!(begun.elapsed() < LIMIT);
            yield_now().await;
        }
    });
    assert_eq!(
        seen.take(),
        [(Some("of the protocol".to_owned()), Some(peer.to_string()))]
    );
    end(runtime);
}

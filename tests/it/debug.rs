//! Debug mode: rows DBG. That a call from a wrong thread does not compile (DBG-03) is shown in the documentation
//! of `LocalLoop`.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use garland::{Builder, ListenOptions, ManualClock, Protocol, Runtime, Transport, yield_now};

use crate::log::Log;
use crate::support::{LIMIT, builder, end, lent, run, turn};

const SLOW: Duration = Duration::from_millis(100);

/// One loop in debug mode, on a clock that is turned by hand: time passes in callbacks only.
fn debugged() -> (Runtime, ManualClock) {
    let clock = ManualClock::new();
    let runtime = builder(1).clock(clock.clone()).debug(true).build();
    (runtime.expect("it builds"), clock)
}

/// Set in a process that was started for its environment.
const CHILD: &str = "GARLAND_IT_DEBUG_CHILD";

/// The test runs this very test again, in a process with another environment.
fn in_child(test: &str, value: &str) -> bool {
    let myself = std::env::current_exe().expect("it was started");
    let child = Command::new(myself)
        .args([test, "--exact"])
        .env(CHILD, "1")
        .env("GARLAND_DEBUG", value)
        .output()
        .expect("it can be started again");
    child.status.success()
}

#[test]
fn dbg_01_debug_mode_is_set_by_the_builder_and_the_loop_and_off_by_default() {
    for loops in [1, 2, 4] {
        let on = builder(loops).debug(true).build().expect("it builds");
        assert!(on.local().is_debug());
        end(on);
        let off = builder(loops).debug(false).build().expect("it builds");
        assert!(!off.local().is_debug());
        off.local().set_debug(true);
        assert!(off.local().is_debug());
        end(off);
    }
}

#[test]
fn dbg_01_the_environment_turns_it_on() {
    if std::env::var_os(CHILD).is_some() {
        let runtime = Builder::new().loops(1).build().expect("it builds");
        assert!(runtime.local().is_debug());
        return;
    }
    let test = "debug::dbg_01_the_environment_turns_it_on";
    assert!(in_child(test, "1"), "1 turns it on");
    assert!(!in_child(test, "0"), "0 does not");
    assert!(!in_child(test, ""), "nothing does not");
}

#[test]
fn dbg_01_it_may_change_while_the_loop_runs() {
    let clock = ManualClock::new();
    let runtime = builder(1).clock(clock.clone()).debug(false).build();
    let runtime = runtime.expect("it builds");
    let slow = |what: bool| {
        let (clock, local) = (clock.clone(), runtime.local().clone());
        move || {
            clock.advance(SLOW);
            local.set_debug(what);
        }
    };
    runtime.local().call_soon(slow(true)); // not watched yet
    runtime.local().call_soon(slow(true));
    runtime.local().call_soon(slow(false)); // still watched
    runtime.local().call_soon(slow(false));
    let log = Log::default();
    log.during(|| turn(&runtime));
    assert_eq!(log.take().len(), 2);
    end(runtime);
}

#[test]
fn dbg_02_dbg_04_a_slow_callback_is_named_with_the_place_that_scheduled_it_and_its_time() {
    let (runtime, clock) = debugged();
    let local = runtime.local();
    let passing = |span| {
        let clock = clock.clone();
        move || clock.advance(span)
    };
    let late = passing(SLOW * 3);
    let late = move || {
        late();
        panic!("and it fails");
    };
    let line = line!();
    local.call_soon(passing(SLOW - Duration::from_nanos(1)));
    local.call_soon(passing(SLOW));
    local.call_later(Duration::ZERO, passing(SLOW * 2));
    local.call_soon(late);
    local.set_exception_handler(|_, _| ());
    let log = Log::default();
    log.during(|| turn(&runtime));
    let named = |offset: u32, took: &str| {
        let place = format!("{}:{}:11", file!(), line + offset);
        format!("WARN loop 0: a callback scheduled at {place} took {took}")
    };
    // The timer stands behind what was ready.
    let expected = [named(2, "100ms"), named(4, "300ms"), named(3, "200ms")];
    assert_eq!(log.take(), expected);
    end(runtime);
}

#[test]
fn dbg_02_a_slow_step_of_a_task_of_either_kind_is_named() {
    let (runtime, clock) = debugged();
    let local = runtime.local().clone();
    let bound = {
        let clock = clock.clone();
        local.spawn_local(async move {
            clock.advance(SLOW);
            yield_now().await;
        })
    };
    let movable = runtime.handle().spawn(async move {
        yield_now().await;
        clock.advance(SLOW * 2);
    });
    let log = Log::default();
    log.during(|| {
        run(&runtime, async {
            bound.await.expect("did not panic");
            movable.await.expect("did not panic");
        });
    });
    let lines = log.take();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, took) in lines.iter().zip(["100ms", "200ms"]) {
        assert!(
            line.starts_with("WARN loop 0: a step of Task-"),
            "{lines:?}"
        );
        assert!(
            line.contains(&format!("spawned at {}:", file!())),
            "{lines:?}"
        );
        assert!(line.ends_with(&format!("took {took}")), "{lines:?}");
    }
    end(runtime);
}

#[test]
fn dbg_02_the_limit_can_be_set_and_nothing_is_said_outside_of_debug_mode() {
    let (runtime, clock) = debugged();
    let local = runtime.local();
    local.set_slow_callback_duration(Duration::from_millis(1));
    assert_eq!(local.slow_callback_duration(), Duration::from_millis(1));
    let quick = {
        let clock = clock.clone();
        move || clock.advance(Duration::from_millis(1))
    };
    let log = Log::default();
    local.call_soon(quick.clone());
    log.during(|| turn(&runtime));
    assert_eq!(log.take().len(), 1);
    local.set_debug(false);
    local.call_soon(quick);
    log.during(|| turn(&runtime));
    assert_eq!(log.take(), [""; 0]);
    end(runtime);
}

/// Takes its time over every piece of data.
struct Slowly(ManualClock);

impl Protocol for Slowly {
    fn data_received(&mut self, transport: &Transport, _: &[u8]) {
        self.0.advance(SLOW);
        transport.write(b"!");
    }
}

#[test]
fn dbg_02_dbg_05_a_slow_protocol_is_named_and_what_is_open_at_the_end() {
    let (runtime, clock) = debugged();
    let address: ListenOptions = "127.0.0.1:0".parse().expect("an address");
    let make = move |_: &garland::LocalLoop| {
        let clock = clock.clone();
        move || Slowly(clock.clone())
    };
    let server = runtime.handle().create_server(address, make);
    let server = server.expect("a free port");
    let mut client = TcpStream::connect(server.local_addr()).expect("it listens");
    client.write_all(b"?").expect("the kernel has room");
    client.set_nonblocking(true).expect("a socket option");
    let peer = client.local_addr().expect("it is connected");
    let log = Log::default();
    log.during(|| {
        run(&runtime, async {
            let begun = std::time::Instant::now();
            let mut answer = [0];
            while std::io::Read::read(&mut client, &mut answer).is_err() {
                assert!(begun.elapsed() < LIMIT, "{:#?}", runtime.stats());
                yield_now().await;
            }
        });
    });
    let took = format!("WARN loop 0: the connection with {peer} took 100ms");
    assert_eq!(log.take(), [took]);
    log.during(|| end(runtime));
    let mut open = log.take();
    open.sort_unstable();
    let expected = [
        "WARN loop 0 closes: a server is still open".to_owned(),
        format!("WARN loop 0 closes: the connection with {peer} is still open"),
    ];
    assert_eq!(open, expected);
}

#[test]
fn dbg_05_loop_15_a_runtime_that_is_dropped_is_shut_down_and_in_debug_mode_says_so() {
    for loops in [1, 2, 4] {
        for debug in [false, true] {
            let said = usize::from(debug);
            let log = Log::default();
            let held = Rc::new(());
            let lent = builder(loops).debug(debug).build().expect("it builds");
            let handle = lent.handle().clone();
            let kept = Rc::clone(&held);
            lent.local().call_soon(move || unreachable!("{kept:?}"));
            log.during(|| drop(lent));
            assert!(handle.is_closed());
            assert_eq!(Rc::strong_count(&held), 1);
            assert_eq!(log.take().len(), said);

            let background = builder(loops).debug(debug).start().expect("it starts");
            let handle = background.handle().clone();
            log.during(|| drop(background));
            assert!(handle.is_closed());
            assert_eq!(log.take().len(), said);

            let orderly = builder(loops).debug(debug).build().expect("it builds");
            log.during(|| end(orderly));
            assert_eq!(log.take(), [""; 0]);
        }
    }
    assert!(lent(1).run(async {}).is_ok());
}

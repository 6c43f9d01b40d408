//! A loop that is stuck in user code: the others serve its sockets and timers, and accept for it.
//!
//! Each hog spins until the very thing has happened that only a rescue brings about, so no test depends on how
//! fast the machine is.

use std::io::{Read, Write};
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use garland::{BackgroundRuntime, LocalLoop, LoopHandle, StuckReport, TaskBuilder, TcpStream};

use crate::servers::Model;
use crate::sockets::{any_port, connect, echo_once};
use crate::support::{LIMIT, background, builder, end, end_background, lent, receive, wait_until};

/// Holds the loop until `done`, or too long.
fn spin_until(done: &AtomicBool) -> bool {
    let begun = Instant::now();
    while !done.load(Ordering::Acquire) {
        if begun.elapsed() > LIMIT {
            return false;
        }
        std::hint::spin_loop();
    }
    true
}

/// A movable echo task whose socket is registered with loop `home`, and its client.
pub(crate) fn echo_homed_on(home: usize, handle: &LoopHandle) -> StdStream {
    let listener = StdListener::bind("127.0.0.1:0").expect("a port is free");
    let addr = listener.local_addr().expect("bound");
    let (connected, wait) = mpsc::channel();
    drop(handle.on(home).spawn_on(move || async move {
        let stream = TcpStream::connect(addr).await.expect("it listens");
        drop(garland::spawn(async move {
            let mut buf = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut buf).await {
                stream
                    .write_all(&buf[..count])
                    .await
                    .expect("the client reads");
            }
        }));
        connected.send(()).expect("the test waits");
    }));
    receive(&wait, handle);
    let (client, _) = listener.accept().expect("it has connected");
    client
        .set_read_timeout(Some(LIMIT))
        .expect("a socket takes a limit");
    client
}

pub(crate) fn exchange(client: &mut StdStream, rounds: u32) {
    for round in 0..rounds {
        client.write_all(&round.to_le_bytes()).expect("open");
        let mut back = [0; 4];
        client.read_exact(&mut back).expect("answered in time");
        assert_eq!(back, round.to_le_bytes());
    }
}

/// Has loop `home` spin until the flag is set; true if it was set in time.
pub(crate) fn hog(
    home: usize,
    handle: &LoopHandle,
    done: &Arc<AtomicBool>,
) -> mpsc::Receiver<bool> {
    hog_after(|| (), home, handle, done)
}

/// The same, in a section that was announced.
fn announced_hog(handle: &LoopHandle, done: &Arc<AtomicBool>) -> mpsc::Receiver<bool> {
    hog_after(garland::long_section, 0, handle, done)
}

/// What `first` gives is kept while the loop is held.
fn hog_after<G>(
    first: impl FnOnce() -> G + Send + 'static,
    home: usize,
    handle: &LoopHandle,
    done: &Arc<AtomicBool>,
) -> mpsc::Receiver<bool> {
    let (begun, running) = mpsc::channel();
    let (ended, end) = mpsc::channel();
    let done = Arc::clone(done);
    let hog = move || {
        let _kept = first();
        begun.send(()).expect("the test waits");
        ended.send(spin_until(&done)).expect("the test waits");
    };
    drop(handle.on(home).call_soon_threadsafe(hog).expect("open"));
    receive(&running, handle);
    end
}

/// Waits until no loop wakes any more, not even to look at the others. Returns how often they slept.
fn come_to_rest(handle: &LoopHandle) -> u64 {
    let parks = || handle.stats().total(|one| one.parks);
    let begun = Instant::now();
    let mut before = parks();
    loop {
        thread::sleep(Duration::from_millis(100));
        let now = parks();
        if now == before {
            return now;
        }
        assert!(begun.elapsed() < LIMIT, "{:#?}", handle.stats());
        before = now;
    }
}

pub(crate) fn finish(runtime: BackgroundRuntime, done: &AtomicBool, hog: &mpsc::Receiver<bool>) {
    done.store(true, Ordering::Release);
    let in_time = receive(hog, runtime.handle());
    assert!(in_time, "the hog was let go: {:#?}", runtime.stats());
    end_background(runtime);
}

#[test]
fn sockets_of_movable_tasks_are_served_while_their_loop_is_stuck() {
    for loops in [2, 4] {
        let runtime = background(loops);
        let handle = runtime.handle().clone();
        let mut client = echo_homed_on(0, &handle);
        exchange(&mut client, 3);
        let done = Arc::new(AtomicBool::new(false));
        let hog = hog(0, &handle, &done);
        exchange(&mut client, 200);
        assert!(handle.stats().total(|one| one.rescues) > 0);
        drop(client);
        finish(runtime, &done, &hog);
    }
}

#[test]
fn timers_of_movable_tasks_fire_while_their_loop_is_stuck() {
    for loops in [2, 4] {
        let runtime = background(loops);
        let handle = runtime.handle().clone();
        let (armed, is_armed) = mpsc::channel();
        let (fired, has_fired) = mpsc::channel();
        // The sleep is armed on loop 0, by its first poll there.
        drop(handle.on(0).spawn_on(move || async move {
            let mut sleep = Box::pin(garland::sleep(Duration::from_millis(5)));
            assert!(futures_lite::future::poll_once(&mut sleep).await.is_none());
            drop(garland::spawn(async move {
                sleep.await;
                fired.send(()).expect("the test waits");
            }));
            armed.send(()).expect("the test waits");
        }));
        receive(&is_armed, &handle);
        let done = Arc::new(AtomicBool::new(false));
        let hog = hog(0, &handle, &done);
        receive(&has_fired, &handle);
        finish(runtime, &done, &hog);
    }
}

#[test]
fn what_only_another_connection_can_feed_is_fed() {
    for loops in [2, 4] {
        let runtime = background(loops);
        let handle = runtime.handle().clone();
        let mut client = echo_homed_on(0, &handle);
        // A task on loop 0 blocks its thread until the client has been answered.
        let (answered, wait) = mpsc::channel::<()>();
        let (began, begun) = mpsc::channel();
        let (resolved, result) = mpsc::channel();
        drop(handle.on(0).spawn_on(move || async move {
            began.send(()).expect("the test waits");
            resolved
                .send(wait.recv_timeout(LIMIT))
                .expect("the test waits");
        }));
        receive(&begun, &handle);
        exchange(&mut client, 1);
        answered.send(()).expect("it waits");
        assert!(receive(&result, &handle).is_ok());
        drop(client);
        end_background(runtime);
    }
}

#[test]
fn callbacks_of_a_stuck_loop_wait_for_their_home() {
    for loops in [2, 4] {
        let runtime = background(loops);
        let handle = runtime.handle().clone();
        let (threads, ran_on) = mpsc::channel();
        let home = {
            let (sender, receiver) = mpsc::channel();
            let name = move || sender.send(thread::current().id()).expect("the test waits");
            drop(handle.on(0).call_soon_threadsafe(name).expect("open"));
            receive(&receiver, &handle)
        };
        // Armed before the hog, due while it spins, run after it, on the same thread.
        let done = Arc::new(AtomicBool::new(false));
        let (due, is_due) = (Arc::clone(&done), Arc::clone(&done));
        let report = move || {
            let local = LocalLoop::current().expect("a callback runs on a loop");
            local.call_later(Duration::from_millis(2), move || {
                assert!(is_due.load(Ordering::Acquire), "not while the hog spins");
                threads
                    .send(thread::current().id())
                    .expect("the test waits");
            });
        };
        drop(handle.on(0).call_soon_threadsafe(report).expect("open"));
        let hog = hog(0, &handle, &done);
        wait_until("a rescue", &handle, || {
            handle.stats().total(|one| one.rescues) > 2
        });
        due.store(true, Ordering::Release);
        assert_eq!(receive(&ran_on, &handle), home);
        finish(runtime, &done, &hog);
    }
}

#[test]
fn without_rescue_a_stuck_loop_keeps_its_sockets_to_itself() {
    let runtime = builder(2)
        .rescue(false)
        .start()
        .expect("a runtime can be started");
    let handle = runtime.handle().clone();
    let mut client = echo_homed_on(0, &handle);
    exchange(&mut client, 3);
    let done = Arc::new(AtomicBool::new(false));
    let hog = hog(0, &handle, &done);
    client.write_all(&7u32.to_le_bytes()).expect("open");
    client
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("a socket takes a limit");
    let mut back = [0; 4];
    let nothing = client.read_exact(&mut back).expect_err("nobody answers");
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    client
        .set_read_timeout(Some(LIMIT))
        .expect("a socket takes a limit");
    done.store(true, Ordering::Release);
    client.read_exact(&mut back).expect("the loop is back");
    assert_eq!(handle.stats().total(|one| one.rescues), 0);
    drop(client);
    finish(runtime, &done, &hog);
}

#[test]
fn an_announced_section_is_served_too() {
    let runtime = background(2);
    let handle = runtime.handle().clone();
    let mut client = echo_homed_on(0, &handle);
    let done = Arc::new(AtomicBool::new(false));
    let end = announced_hog(&handle, &done);
    exchange(&mut client, 50);
    drop(client);
    finish(runtime, &done, &end);
}

#[test]
fn busy_loops_help_one_that_is_stuck() {
    let runtime = background(2);
    let handle = runtime.handle().clone();
    let mut client = echo_homed_on(0, &handle);
    // Loop 1 never sleeps: a task that is always ready.
    let done = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&done);
    drop(handle.on(1).spawn_on(move || async move {
        while !flag.load(Ordering::Acquire) {
            garland::yield_now().await;
        }
    }));
    let hog = hog(0, &handle, &done);
    exchange(&mut client, 5);
    drop(client);
    finish(runtime, &done, &hog);
}

#[test]
fn an_idle_runtime_is_woken_by_nobody() {
    for loops in [2, 4] {
        let runtime = background(loops);
        let handle = runtime.handle().clone();
        // It comes to rest by itself; then nothing moves for as long as anyone looks.
        let before = come_to_rest(&handle);
        thread::sleep(Duration::from_millis(300));
        let stats = handle.stats();
        assert_eq!(stats.total(|one| one.parks), before, "{stats:#?}");
        // And the first to run has a watcher again.
        let mut client = echo_homed_on(0, &handle);
        let done = Arc::new(AtomicBool::new(false));
        let hog = hog(0, &handle, &done);
        exchange(&mut client, 10);
        drop(client);
        finish(runtime, &done, &hog);
    }
}

/// How many clients come at once: no hash of their ports spares a loop.
const STORM: u64 = 50;

#[test]
fn new_connections_are_accepted_and_answered_while_a_loop_is_stuck() {
    for model in Model::BOTH {
        for loops in [2, 4] {
            let runtime = background(loops);
            let handle = runtime.handle().clone();
            let server = model.echo(&handle, any_port());
            let done = Arc::new(AtomicBool::new(false));
            let hog = hog(0, &handle, &done);
            let mut clients: Vec<StdStream> =
                (0..STORM).map(|_| connect(server.local_addr())).collect();
            for client in &mut clients {
                echo_once(client, b"who is there");
            }
            assert_eq!(server.stats().accepted, STORM, "{model:?}");
            assert!(handle.stats().total(|one| one.rescues) > 0);
            server.close();
            drop(clients);
            assert!(server.wait_idle(LIMIT), "{model:?}: {server:?}");
            finish(runtime, &done, &hog);
        }
    }
}

#[test]
fn without_rescue_new_connections_of_a_stuck_loop_wait_until_it_is_back() {
    for model in Model::BOTH {
        let runtime = builder(2).rescue(false).start();
        let runtime = runtime.expect("a runtime can be started");
        let handle = runtime.handle().clone();
        let server = model.echo(&handle, any_port());
        let done = Arc::new(AtomicBool::new(false));
        let hog = hog(0, &handle, &done);
        let mut clients: Vec<StdStream> =
            (0..STORM).map(|_| connect(server.local_addr())).collect();
        let mut waiting = Vec::new();
        for (number, client) in clients.iter_mut().enumerate() {
            client.write_all(b"who is there").expect("connected");
            let short = Some(Duration::from_millis(20));
            client.set_read_timeout(short).expect("not zero");
            if client.read_exact(&mut [0; 12]).is_err() {
                waiting.push(number);
            }
        }
        assert!(!waiting.is_empty(), "{model:?}");
        // The other loop has served its own meanwhile, also those that it would have given to this one.
        let accepted = server.stats().accepted;
        assert!(0 < accepted && accepted < STORM, "{model:?}: {accepted}");
        assert_eq!(handle.stats().total(|one| one.rescues), 0);
        done.store(true, Ordering::Release);
        for number in waiting {
            let client = &mut clients[number];
            client.set_read_timeout(Some(LIMIT)).expect("not zero");
            client.read_exact(&mut [0; 12]).expect("the loop is back");
        }
        assert_eq!(server.stats().accepted, STORM, "{model:?}");
        server.close();
        drop(clients);
        assert!(server.wait_idle(LIMIT), "{model:?}: {server:?}");
        finish(runtime, &done, &hog);
    }
}

#[test]
fn a_loop_whose_host_does_not_come_back_keeps_no_watch() {
    let runtime = lent(3);
    let handle = runtime.handle().clone();
    let mut client = echo_homed_on(1, &handle);
    exchange(&mut client, 1);
    come_to_rest(&handle);
    // It takes the watch, for all others sleep without a limit, and is not turned again.
    let turned = runtime.run_once(Some(Duration::from_millis(1)));
    assert!(turned.expect("no other loop runs here").is_continue());
    come_to_rest(&handle);
    let done = Arc::new(AtomicBool::new(false));
    let hog = hog(1, &handle, &done);
    exchange(&mut client, 20);
    drop(client);
    done.store(true, Ordering::Release);
    assert!(receive(&hog, &handle), "let go: {:#?}", handle.stats());
    end(runtime);
}

/// Else the tests above would show nothing.
#[test]
fn the_hog_really_holds_its_loop() {
    let runtime = background(2);
    let handle = runtime.handle().clone();
    let done = Arc::new(AtomicBool::new(false));
    let hog = hog(0, &handle, &done);
    let (ran, has_run) = mpsc::channel();
    let note = move || ran.send(()).expect("the test waits");
    drop(handle.on(0).call_soon_threadsafe(note).expect("open"));
    let early = has_run.recv_timeout(Duration::from_millis(50));
    assert_eq!(early, Err(mpsc::RecvTimeoutError::Timeout));
    finish(runtime, &done, &hog);
    has_run.recv_timeout(LIMIT).expect("after the hog");
}

/// A runtime that sends its reports of stuck loops.
fn reporting(
    loops: usize,
    stuck_after: Duration,
) -> (BackgroundRuntime, mpsc::Receiver<(ThreadId, StuckReport)>) {
    let (sender, reports) = mpsc::channel();
    let report = move |report: &StuckReport| {
        let note = (thread::current().id(), report.clone());
        sender.send(note).expect("the test waits");
    };
    let builder = builder(loops).stuck_after(stuck_after).on_stuck(report);
    (builder.start().expect("a runtime can be started"), reports)
}

fn thread_of(handle: &LoopHandle) -> ThreadId {
    let (sender, receiver) = mpsc::channel();
    let name = move || sender.send(thread::current().id()).expect("the test waits");
    drop(handle.call_soon_threadsafe(name).expect("open"));
    receive(&receiver, handle)
}

#[test]
fn a_stuck_task_is_reported_once_by_its_name() {
    for loops in [2, 4] {
        let (runtime, reports) = reporting(loops, Duration::from_millis(20));
        let handle = runtime.handle().clone();
        let threads: Vec<ThreadId> = (0..loops).map(|id| thread_of(&handle.on(id))).collect();
        let done = Arc::new(AtomicBool::new(false));
        let (ended, hog) = mpsc::channel();
        let flag = Arc::clone(&done);
        let line = line!() + 2;
        let task = TaskBuilder::new().name("hog");
        let task = task.spawn_on(&handle.on(0), move || async move {
            ended.send(spin_until(&flag)).expect("the test waits");
        });
        let (thread, report) = receive(&reports, &handle);
        assert_eq!(report.loop_id.index(), 0);
        assert_ne!(report.rescuer.index(), 0);
        assert_eq!(thread, threads[report.rescuer.index()], "on the rescuer");
        assert!(report.lasted >= Duration::from_millis(20), "{report}");
        assert_eq!(report.task_id, task.id());
        let info = report.task.clone().expect("it lives");
        assert_eq!((info.name().as_ref(), Some(info.id())), ("hog", task.id()));
        assert_eq!(info.spawned_at().line(), line, "{report}");
        let text = report.to_string();
        assert!(text.starts_with("loop 0 is stuck for "), "{text}");
        assert!(text.contains(" in a step of hog spawned at "), "{text}");
        // It goes on for long, and the others look again and again.
        let rescues = || handle.stats().total(|one| one.rescues);
        let before = rescues();
        wait_until("looks", &handle, || rescues() > before + 50);
        assert!(reports.try_recv().is_err(), "once for each stretch");
        let stats = handle.stats();
        assert_eq!(stats.loops[0].n_stuck, 1);
        assert_eq!(stats.total(|one| one.n_stuck), 1);
        drop(task);
        finish(runtime, &done, &hog);
    }
}

#[test]
fn each_stretch_of_a_callback_is_reported_as_one() {
    let (runtime, reports) = reporting(2, Duration::from_millis(5));
    let handle = runtime.handle().clone();
    for stretch in 1..=3 {
        let done = Arc::new(AtomicBool::new(false));
        let hog = hog(0, &handle, &done);
        let (_, report) = receive(&reports, &handle);
        assert_eq!((report.loop_id.index(), report.task_id), (0, None));
        assert!(report.to_string().contains(" in a callback; "), "{report}");
        assert_eq!(handle.stats().loops[0].n_stuck, stretch);
        done.store(true, Ordering::Release);
        assert!(receive(&hog, &handle));
    }
    end_background(runtime);
}

#[test]
fn what_takes_less_or_was_announced_is_not_reported() {
    let (runtime, reports) = reporting(2, LIMIT);
    let handle = runtime.handle().clone();
    let mut client = echo_homed_on(0, &handle);
    let done = Arc::new(AtomicBool::new(false));
    let short = hog(0, &handle, &done);
    exchange(&mut client, 50);
    finish_hog(&done, &short, &handle);
    drop(client);
    end_background(runtime);
    assert!(reports.try_recv().is_err());

    let (runtime, reports) = reporting(2, Duration::from_millis(1));
    let handle = runtime.handle().clone();
    let mut client = echo_homed_on(0, &handle);
    let done = Arc::new(AtomicBool::new(false));
    let end = announced_hog(&handle, &done);
    // What ran before the announcement may have taken a millisecond, on a busy machine.
    let before = handle.stats().total(|one| one.n_stuck);
    exchange(&mut client, 200);
    assert_eq!(handle.stats().loops[0].n_stuck, before);
    finish_hog(&done, &end, &handle);
    drop(client);
    end_background(runtime);
    drop(reports);
}

fn finish_hog(done: &AtomicBool, hog: &mpsc::Receiver<bool>, handle: &LoopHandle) {
    done.store(true, Ordering::Release);
    assert!(receive(hog, handle), "the hog was let go");
}

#[test]
fn in_debug_mode_what_is_slow_is_stuck() {
    let (runtime, reports) = reporting(2, LIMIT);
    let handle = runtime.handle().clone();
    let slow = || {
        let local = LocalLoop::current().expect("a callback runs on a loop");
        local.set_slow_callback_duration(Duration::from_millis(10));
        local.set_debug(true);
    };
    drop(handle.on(0).call_soon_threadsafe(slow).expect("open"));
    let done = Arc::new(AtomicBool::new(false));
    let hog = hog(0, &handle, &done);
    let (_, report) = receive(&reports, &handle);
    assert!(report.lasted >= Duration::from_millis(10), "{report}");
    finish(runtime, &done, &hog);
}

#[test]
fn a_hook_that_panics_is_told_to_the_exception_handler_and_harms_nobody() {
    let builder = builder(2).stuck_after(Duration::from_millis(5));
    let builder = builder.on_stuck(|_| panic!("the hook is broken"));
    let runtime = builder.start().expect("a runtime can be started");
    let handle = runtime.handle().clone();
    let (told, failures) = mpsc::channel();
    let listen = move || {
        let local = LocalLoop::current().expect("a callback runs on a loop");
        let tell = move |_: &LocalLoop, context: &garland::ErrorContext| {
            told.send(context.to_string()).expect("the test waits");
        };
        local.set_exception_handler(tell);
    };
    drop(handle.on(1).call_soon_threadsafe(listen).expect("open"));
    thread_of(&handle.on(1));
    let mut client = echo_homed_on(0, &handle);
    let done = Arc::new(AtomicBool::new(false));
    let hog = hog(0, &handle, &done);
    let failure = receive(&failures, &handle);
    assert!(failure.contains("the hook is broken"), "{failure}");
    exchange(&mut client, 20);
    drop(client);
    finish(runtime, &done, &hog);
}

#[test]
fn a_span_that_no_look_could_see_is_refused() {
    let error = builder(2).stuck_after(Duration::from_micros(999)).build();
    let error = error.expect_err("out of range").to_string();
    assert!(error.contains("1ms and more"), "{error}");
}

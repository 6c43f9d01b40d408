//! What the tests of the scheduler share: runtimes, bounded waits, and the ledger.
//!
//! No helper here sleeps for a fixed time; each waits for something, at most [`LIMIT`], and fails
//! with the statistics of the loops.

use std::cell::RefCell;
use std::fmt::Debug;
use std::future::Future;
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use garland::{BackgroundRuntime, Builder, LoopHandle, ManualClock, Pin, Runtime, RuntimeStats};

/// How long anything may take before a test fails: generous, for the machine may be busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// How many times more than usual to do things: the environment's `GARLAND_STRESS`.
pub(crate) fn stress() -> u32 {
    let asked = std::env::var("GARLAND_STRESS").ok();
    let asked = asked.map(|text| text.parse().expect("GARLAND_STRESS is a number"));
    asked.unwrap_or(1).max(1)
}

/// Settings that depend on no machine.
pub(crate) fn builder(loops: usize) -> Builder {
    Builder::new().loops(loops).pin(Pin::Off)
}

/// A runtime whose loop 0 runs on the test's thread.
pub(crate) fn lent(loops: usize) -> Runtime {
    builder(loops).build().expect("a runtime can be built")
}

/// A runtime whose loops run by themselves.
pub(crate) fn background(loops: usize) -> BackgroundRuntime {
    builder(loops).start().expect("a runtime can be started")
}

/// One loop, and a clock that jumps to the next deadline when there is nothing else to do.
pub(crate) fn on_auto_clock() -> (Runtime, ManualClock) {
    let clock = ManualClock::auto_advance();
    let runtime = builder(1).clock(clock.clone()).build();
    (runtime.expect("a runtime can be built"), clock)
}

/// Runs `future` on loop 0, bounded by [`LIMIT`].
pub(crate) fn run<F: Future>(runtime: &Runtime, future: F) -> F::Output {
    let _watchdog = Watchdog::new(runtime.handle());
    let output = runtime.block_on(future);
    output.expect("the future completes before the watchdog stops the loop")
}

/// Runs loop 0 until a callback stops it, bounded by [`LIMIT`].
pub(crate) fn run_until_stopped(runtime: &Runtime) {
    let watchdog = Watchdog::new(runtime.handle());
    runtime.run_forever().expect("no other loop runs here");
    assert!(
        !watchdog.has_barked(),
        "nobody but the watchdog called stop()"
    );
}

/// Runs what is ready and due on loop 0: one turn.
pub(crate) fn turn(runtime: &Runtime) {
    runtime.local().stop();
    run_until_stopped(runtime);
}

/// Stops a loop that runs too long, after it has printed what the loops did.
struct Watchdog {
    barked: Receiver<()>,
    /// Dropped to call the dog off.
    _leash: Sender<()>,
}

impl Watchdog {
    fn new(handle: &LoopHandle) -> Self {
        let handle = handle.clone();
        let (leash, held) = mpsc::channel::<()>();
        let (bark, barked) = mpsc::channel();
        thread::spawn(move || {
            if held.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                eprintln!("still running after {LIMIT:?}: {:#?}", handle.stats());
                bark.send(()).unwrap_or_default();
                handle.stop();
            }
        });
        Watchdog {
            barked,
            _leash: leash,
        }
    }

    fn has_barked(&self) -> bool {
        self.barked.try_recv().is_ok()
    }
}

/// Takes a message, or fails with the statistics.
pub(crate) fn receive<T>(receiver: &Receiver<T>, handle: &LoopHandle) -> T {
    match receiver.recv_timeout(LIMIT) {
        Ok(message) => message,
        Err(error) => panic!("no message: {error}; {:#?}", handle.stats()),
    }
}

/// Waits until `condition` holds, or fails with the statistics.
pub(crate) fn wait_until(what: &str, handle: &LoopHandle, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        let stats = || handle.stats();
        assert!(
            begun.elapsed() < LIMIT,
            "not in time: {what}; {:#?}",
            stats()
        );
        thread::sleep(Duration::from_millis(1));
    }
}

/// The result of a task, for a thread that runs no loop.
pub(crate) fn join<T: Send + 'static>(
    handle: &LoopHandle,
    task: garland::JoinHandle<T>,
) -> Result<T, garland::JoinError> {
    let (sender, receiver) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let result = futures_lite::future::block_on(task);
        sender.send(result).unwrap_or_default();
    });
    let result = receive(&receiver, handle);
    waiter.join().expect("it has sent its only message");
    result
}

/// Every task that was spawned has ended, and nothing is armed or registered any more.
#[track_caller]
pub(crate) fn ledger(stats: &RuntimeStats) {
    let spawned = stats.total(|one| one.tasks_spawned);
    let ended = stats.total(|one| one.tasks_finished + one.tasks_cancelled + one.tasks_panicked);
    assert_eq!(stats.total(|one| one.tasks_live), 0, "{stats:#?}");
    assert_eq!(spawned, ended, "{stats:#?}");
    assert_eq!(stats.total(|one| one.timers_armed), 0, "{stats:#?}");
    assert_eq!(stats.total(|one| one.sockets_registered), 0, "{stats:#?}");
}

/// Shuts down, and checks that nothing is left.
#[track_caller]
pub(crate) fn end(runtime: Runtime) -> RuntimeStats {
    let handle = runtime.handle().clone();
    let report = runtime.shutdown(LIMIT);
    assert!(report.is_clean(), "{report}; {:#?}", handle.stats());
    ledger(&handle.stats());
    handle.stats()
}

/// Shuts down, and checks that nothing is left.
#[track_caller]
pub(crate) fn end_background(runtime: BackgroundRuntime) -> RuntimeStats {
    let handle = runtime.handle().clone();
    let report = runtime.shutdown(LIMIT);
    assert!(report.is_clean(), "{report}; {:#?}", handle.stats());
    ledger(&handle.stats());
    handle.stats()
}

/// What happened on one loop, in order.
#[derive(Debug)]
pub(crate) struct Trace<T>(Rc<RefCell<Vec<T>>>);

impl<T> Clone for Trace<T> {
    fn clone(&self) -> Self {
        Trace(Rc::clone(&self.0))
    }
}

impl<T: Debug + 'static> Trace<T> {
    pub(crate) fn new() -> Self {
        Trace(Rc::default())
    }

    pub(crate) fn note(&self, what: T) {
        self.0.borrow_mut().push(what);
    }

    /// A callback that notes `what`.
    pub(crate) fn noting(&self, what: T) -> impl FnOnce() + use<T> {
        let trace = self.clone();
        move || trace.note(what)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    pub(crate) fn take(&self) -> Vec<T> {
        self.0.take()
    }
}

//! From settings to loops.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use core_affinity::CoreId;

use crate::config::{Pin, RuntimeConfig, TurnBudget};
use crate::driver::Driver;
use crate::driver::clock::{Clock, ManualClock};
use crate::driver::nest::Nest;
use crate::error::BuildError;
use crate::runtime::background::BackgroundRuntime;
use crate::runtime::lent::Runtime;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::{LoopId, affinity};
use crate::scheduler::deque::{LocalDeque, SharedQueue};
use crate::scheduler::host::Host;
use crate::scheduler::idle::Idle;
use crate::scheduler::watch::Watch;
use crate::scheduler::{Home, Offload, OnStuck, Remote, Shared, StuckReport, Worker};

/// Settings of a runtime.
///
/// ```
/// use garland::{Builder, Pin};
///
/// let runtime = Builder::new().loops(2).pin(Pin::Off).thread_name("web").start()?;
/// assert_eq!(runtime.handle().loops(), 2);
/// let report = runtime.shutdown(std::time::Duration::from_secs(5));
/// assert!(report.is_clean(), "{report}");
/// # Ok::<(), garland::BuildError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until build() or start()"]
pub struct Builder {
    config: RuntimeConfig,
    clock: Option<ManualClock>,
    on_stuck: Option<OnStuck>,
}

impl Builder {
    /// One loop for each CPU that this process may use, pinned if they can be, stealing.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many loops: 1 to 48.
    pub fn loops(mut self, loops: usize) -> Self {
        self.config.loops = loops;
        self
    }

    /// Whether each loop is pinned to a core. Default: [`Pin::Auto`].
    pub fn pin(mut self, pin: Pin) -> Self {
        self.config.pin = pin;
        self
    }

    /// Whether idle loops take movable tasks from busy ones. Default: yes. Without it a movable task
    /// still goes to the loop that wakes it.
    pub fn steal(mut self, steal: bool) -> Self {
        self.config.steal = steal;
        self
    }

    /// Whether idle loops serve the sockets and timers of one that is stuck in user code. Default: yes. What
    /// they serve are movable tasks; callbacks and loop-bound tasks wait for their home in any case.
    pub fn rescue(mut self, rescue: bool) -> Self {
        self.config.rescue = rescue;
        self
    }

    /// From when on a loop that is in one callback, or one step of a task, is reported: in the log, level `WARN`, and
    /// to [`on_stuck`](Builder::on_stuck). Default: 100 ms. Once for each stretch; not at all for one that is
    /// announced with [`long_section`](crate::long_section). At least 1 ms.
    ///
    /// It is the loops that watch each other: with one loop, without [`rescue`](Builder::rescue), and while all of them
    /// are stuck at once, nobody reports.
    pub fn stuck_after(mut self, stuck_after: Duration) -> Self {
        self.config.stuck_after = stuck_after;
        self
    }

    /// Has `hook` called for each loop that is found stuck, as a callback on the loop that found it. If it panics,
    /// that loop's exception handler hears of it.
    ///
    /// ```
    /// use std::{sync::mpsc, thread, time::Duration};
    ///
    /// let (sender, reports) = mpsc::channel();
    /// let runtime = garland::Builder::new()
    ///     .loops(2)
    ///     .pin(garland::Pin::Off)
    ///     .stuck_after(Duration::from_millis(10))
    ///     .on_stuck(move |report| sender.send(report.clone()).expect("somebody listens"))
    ///     .start()?;
    /// let task = garland::TaskBuilder::new().name("sleeper");
    /// drop(task.spawn_with(runtime.handle(), async { thread::sleep(Duration::from_millis(500)) }));
    /// let report = reports.recv().expect("the other loop looks");
    /// assert_eq!(report.task.expect("it lives").name(), "sleeper");
    /// # Ok::<(), garland::BuildError>(())
    /// ```
    pub fn on_stuck(mut self, hook: impl Fn(&StuckReport) + Send + Sync + 'static) -> Self {
        self.on_stuck = Some(OnStuck::new(hook));
        self
    }

    /// Threads are named `PREFIX-N` after their loop. Default: `garland`.
    pub fn thread_name(mut self, prefix: impl Into<String>) -> Self {
        self.config.thread_name = prefix.into();
        self
    }

    /// How much a loop does before it looks elsewhere.
    pub fn budget(mut self, budget: TurnBudget) -> Self {
        self.config.budget = budget;
        self
    }

    /// Seeds the order in which victims are tried, so that a run can be repeated. Default: random.
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = seed;
        self
    }

    /// Whether the loops start in [debug mode](crate::LocalLoop::set_debug). Default: if the environment
    /// variable `GARLAND_DEBUG` is `1`.
    pub fn debug(mut self, debug: bool) -> Self {
        self.config.debug = debug;
        self
    }

    /// Lets the loops live by a clock that is turned by hand. For tests.
    pub fn clock(mut self, clock: ManualClock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Builds a runtime whose loop 0 runs on the calling thread, inside
    /// [`block_on`](Runtime::block_on) and [`run_forever`](Runtime::run_forever); the other loops
    /// get threads of their own and run from now on. With one loop there is no thread at all.
    ///
    /// # Errors
    /// A setting out of range, or an operating system that grants no selector or thread.
    pub fn build(self) -> Result<Runtime, BuildError> {
        let mut assembly = Assembly::new(&self)?;
        let (deque, core) = assembly.take_seat(0);
        let seats = 1..assembly.shared.loops.len();
        let pinned = assembly.start_threads(seats)?;
        let worker = Worker::new(assembly.home(0), deque);
        Ok(Runtime::new_from(worker, core, assembly.shutdown, pinned))
    }

    /// Builds a runtime whose every loop has a thread of its own and runs from now on.
    ///
    /// # Errors
    /// As for [`build`](Builder::build).
    pub fn start(self) -> Result<BackgroundRuntime, BuildError> {
        let mut assembly = Assembly::new(&self)?;
        let seats = 0..assembly.shared.loops.len();
        let pinned = assembly.start_threads(seats)?;
        let home = assembly.home(0);
        Ok(BackgroundRuntime::new(home, assembly.shutdown, pinned))
    }
}

/// A runtime in the making: the shared part, and for each loop what its thread will take.
struct Assembly {
    shared: Arc<Shared>,
    seats: Vec<Option<(LocalDeque, Option<CoreId>)>>,
    shutdown: Shutdown,
}

impl Assembly {
    fn new(builder: &Builder) -> Result<Self, BuildError> {
        let config = &builder.config;
        config.validate()?;
        if config.loops > 1 && builder.clock.as_ref().is_some_and(ManualClock::is_auto) {
            return Err(BuildError::Config(format!(
                "loops = {}: a clock that advances by itself needs exactly 1",
                config.loops
            )));
        }
        let cores = affinity::plan(config)?;
        let clock = match &builder.clock {
            None => Clock::monotonic(),
            Some(manual) => Clock::manual(manual.clone()),
        };
        let mut remotes = Vec::new();
        let mut seats = Vec::new();
        for core in cores {
            let no_selector = |error| BuildError::Os("make the selector of a loop", error);
            let driver = Driver::new(clock.clone(), &config.budget).map_err(no_selector)?;
            let nest = config.is_rescuing().then(|| Nest::new(&driver));
            let nest = nest.transpose().map_err(no_selector)?;
            let driver = Arc::new(driver);
            if let Some(manual) = &builder.clock {
                let driver = Arc::downgrade(&driver);
                manual.on_advance(Box::new(move || {
                    if let Some(driver) = driver.upgrade() {
                        driver.unpark();
                    }
                }));
            }
            let deque = LocalDeque::new();
            remotes.push(Arc::new(Remote::new(driver, &deque, nest)));
            seats.push(Some((deque, core)));
        }
        let shared = Arc::new(Shared {
            config: config.clone(),
            loops: remotes.into_boxed_slice(),
            idle: Idle::new(),
            watch: Watch::default(),
            host: Host::default(),
            on_stuck: builder.on_stuck.clone(),
            injector: SharedQueue::new(),
            offload: Offload::new(affinity::current()),
        });
        Ok(Assembly {
            shutdown: Shutdown::new(Arc::clone(&shared)),
            shared,
            seats,
        })
    }

    fn home(&self, id: usize) -> Arc<Home> {
        Arc::new(Home::new(&self.shared, id))
    }

    fn take_seat(&mut self, id: usize) -> (LocalDeque, Option<CoreId>) {
        self.seats[id].take().expect("each seat is taken once")
    }

    /// Starts a thread for each of these loops and waits until they are pinned; which cores they got.
    fn start_threads(
        &mut self,
        ids: std::ops::Range<usize>,
    ) -> Result<Vec<Option<usize>>, BuildError> {
        let (report, reports) = mpsc::channel();
        let mut pinned = vec![None; self.shared.loops.len()];
        for id in ids {
            let (deque, core) = self.take_seat(id);
            let home = self.home(id);
            let gate = self.shutdown.gate();
            let report = report.clone();
            let body = move || {
                let _abort = AbortOnPanic;
                let is_pinned = core.is_some_and(affinity::pin);
                // The builder waits for this; if it has given up, it has also asked for the end.
                if report.send((id, core.filter(|_| is_pinned))).is_err() {
                    tracing::debug!(id, "the builder gave up");
                }
                drop(report);
                let worker = Worker::new(home, deque);
                worker
                    .run(&mut || {})
                    .expect("a fresh thread runs no other loop");
                gate.wait_for_request();
                worker.close();
                gate.ended(LoopId(id));
            };
            let name = format!("{}-{id}", self.shared.config.thread_name);
            let thread = std::thread::Builder::new().name(name).spawn(body);
            let thread = thread.map_err(|error| BuildError::Os("start a loop's thread", error))?;
            self.shutdown.add(LoopId(id), thread);
        }
        drop(report);
        for (id, core) in reports {
            if core.is_none() && self.shared.config.pin == Pin::On {
                return Err(BuildError::Config(format!(
                    "pin = on: the operating system refused to pin loop {id}"
                )));
            }
            pinned[id] = core.map(|core| core.id);
        }
        Ok(pinned)
    }
}

/// A panic that reaches the end of a loop's thread is the runtime's own: its promises are broken, and
/// going on with one loop less would hide it.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a loop of the runtime itself panicked: aborting");
            std::process::abort();
        }
    }
}

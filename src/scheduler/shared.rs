//! What all loops of a runtime share, and what each of them shows to the others.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use async_task::ScheduleInfo;
use crossbeam_deque::Stealer;
use crossbeam_utils::CachePadded;
use send_wrapper::SendWrapper;

use crate::atomics::{AtomicU64, Ordering};
use crate::config::RuntimeConfig;
use crate::driver::Driver;
use crate::driver::nest::Nest;
use crate::scheduler::backlog::StepTime;
use crate::scheduler::context;
use crate::scheduler::counters::Counters;
use crate::scheduler::deque::{LocalDeque, STEAL_BATCH, SharedQueue};
use crate::scheduler::failure::ErrorContext;
use crate::scheduler::host::Host;
use crate::scheduler::idle::Idle;
use crate::scheduler::inbox::Inbox;
use crate::scheduler::offload::Offload;
use crate::scheduler::pulse::Pulse;
use crate::scheduler::ready::{Handle, Message};
use crate::scheduler::stuck::OnStuck;
use crate::scheduler::watch::Watch;
use crate::scheduler::worker::Worker;
use crate::task::info::{Origin, TaskInfo, TaskKey};
use crate::task::join::JoinHandle;
use crate::task::members::{Kind, Members};
use crate::task::{Listed, Membership, Registry, Runnable, TaskId, Witness};

/// Which loop of a runtime: 0 is the one that can be lent a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LoopId(pub(crate) usize);

impl LoopId {
    /// Its place in [`RuntimeStats::loops`](crate::RuntimeStats::loops).
    pub fn index(self) -> usize {
        self.0
    }
}

impl fmt::Display for LoopId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "loop {}", self.0)
    }
}

/// One runtime.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: RuntimeConfig,
    pub(crate) loops: Box<[Arc<Remote>]>,
    pub(crate) idle: Idle,
    pub(crate) watch: Watch,
    /// Loop 0 may rest in a foreign loop.
    pub(crate) host: Host,
    /// Told of each loop that is found stuck.
    pub(crate) on_stuck: Option<OnStuck>,
    pub(crate) injector: SharedQueue,
    /// What would block a loop goes there instead.
    pub(crate) offload: Arc<Offload>,
}

/// The side of a loop that other threads may touch.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) driver: Arc<Driver>,
    pub(crate) stealer: Stealer<Runnable>,
    /// Where the loop sleeps while it watches over others. Used by the home loop only.
    pub(crate) nest: Option<Nest>,
    pub(crate) inbox: Inbox<Message>,
    pub(crate) members: Members,
    /// Written by the home loop only.
    pub(crate) counters: CachePadded<Counters>,
    /// Written by the home loop only.
    pub(crate) pulse: CachePadded<Pulse>,
    /// Unparks that others sent to this loop. Written by any thread, a plain count.
    pub(crate) unparks_received: AtomicU64,
    /// Times this loop was reported as stuck. Written by any loop, a plain count.
    pub(crate) n_stuck: AtomicU64,
    /// Tasks that other loops took from this one. Written by any loop, a plain count.
    pub(crate) n_stolen_from: AtomicU64,
    /// From when on this loop is stuck, in nanoseconds. Written by the home loop, read by any; promises nothing about other memory.
    pub(crate) patience: AtomicU64,
    pub(crate) step_time: StepTime,
}

impl Remote {
    pub(crate) fn new(driver: Arc<Driver>, deque: &LocalDeque, nest: Option<Nest>) -> Self {
        Remote {
            driver,
            stealer: deque.stealer(),
            nest,
            inbox: Inbox::new(),
            members: Members::default(),
            counters: CachePadded::default(),
            pulse: CachePadded::default(),
            unparks_received: AtomicU64::new(0),
            n_stuck: AtomicU64::new(0),
            n_stolen_from: AtomicU64::new(0),
            patience: AtomicU64::new(u64::MAX),
            step_time: StepTime::default(),
        }
    }
}

impl Shared {
    /// Whether tasks move between loops at all.
    pub(crate) fn is_stealing(&self) -> bool {
        self.config.steal && self.loops.len() > 1
    }

    /// Most tasks of outsiders that a loop takes at once: one, if the other loops could not take them
    /// from it again.
    pub(crate) fn outside_batch(&self) -> usize {
        if self.config.steal || self.loops.len() == 1 {
            STEAL_BATCH
        } else {
            1
        }
    }

    /// Whether loops help each other out at all.
    pub(crate) fn is_rescuing(&self) -> bool {
        self.config.is_rescuing()
    }

    /// The loop in whose list a task is, by the task's id.
    pub(crate) fn lister_of(&self, task: TaskId) -> &Remote {
        &self.loops[(task.0 % self.loops.len() as u64) as usize]
    }

    /// What is known of a task; `None` if it has ended.
    pub(crate) fn info_of(&self, task: TaskKey) -> Option<TaskInfo> {
        self.lister_of(task.id).members.info(task)
    }

    /// Ends the sleep of loop `id`, if it sleeps, or has its host turn it, if it rests there.
    pub(crate) fn wake(&self, id: usize) {
        if self.idle.claim(id) {
            self.unpark(id);
        } else {
            self.wake_host(id);
        }
    }

    /// After a push: has one sleeping loop come and look, unless one is on its way already.
    pub(crate) fn notify(&self) {
        match self.idle.notify() {
            Some(id) => self.unpark(id),
            None => self.wake_host(0),
        }
    }

    /// Queues a movable task from outside any loop.
    // Never: inlined, it has each wake-up on a loop save its registers (20 instructions).
    #[cold]
    #[inline(never)]
    fn inject(&self, task: Runnable) {
        self.injector.push(task);
        self.notify();
    }

    /// If loop `id` rests in a foreign loop: has that one turn it.
    fn wake_host(&self, id: usize) {
        if id == 0 && self.host.claim() {
            self.unpark(id);
        }
    }

    /// The loop's idle bit has been cleared by the caller: end its sleep.
    fn unpark(&self, id: usize) {
        let remote = &self.loops[id];
        remote.unparks_received.fetch_add(1, Ordering::Relaxed);
        remote.driver.unpark();
        context::with_current(|worker| {
            if let Some(worker) = worker {
                worker.counters().unparks_sent.add(1);
            }
        });
    }
}

/// One loop of a runtime, as anyone may hold it. Each loop counts references of its own, so that
/// spawning on one does not contend with spawning on another.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: usize,
    /// That of this loop, at hand: each step of a task asks it.
    remote: Arc<Remote>,
}

impl Home {
    pub(crate) fn new(shared: &Arc<Shared>, id: usize) -> Self {
        Home {
            remote: Arc::clone(&shared.loops[id]),
            shared: Arc::clone(shared),
            id,
        }
    }

    pub(crate) fn remote(&self) -> &Remote {
        &self.remote
    }

    pub(crate) fn now(&self) -> Instant {
        self.remote().driver.clock().now()
    }

    /// Sends to this loop and ends its sleep; a closed loop gives the message back.
    pub(crate) fn send(&self, message: Message) -> Result<(), Message> {
        self.remote().inbox.push(message)?;
        self.shared.wake(self.id);
        Ok(())
    }

    /// Calls `f` with the worker of this loop if the present thread turns it.
    pub(crate) fn if_here<T>(&self, f: impl FnOnce(Option<&Rc<Worker>>) -> T) -> T {
        context::with_current(|worker| f(worker.filter(|worker| self.is_turned_by(worker))))
    }

    fn is_turned_by(&self, worker: &Worker) -> bool {
        worker.id() == self.id && worker.is_of(&self.shared)
    }

    /// Spawns a task that may be stolen.
    pub(crate) fn spawn<F>(self: &Arc<Self>, future: F, origin: Origin) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let make = |membership| crate::task::movable(future, membership, schedule_movable);
        self.admit(Kind::Movable, origin, make, Runnable::schedule)
    }

    /// Spawns a task made by `make` on this loop, which alone will run it.
    pub(crate) fn spawn_made_here<M, F>(
        self: &Arc<Self>,
        make: M,
        origin: Origin,
    ) -> JoinHandle<F::Output>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        let future = MadeHere {
            make: Some(make),
            future: None,
        };
        let make = |membership| crate::task::movable(future, membership, schedule_bound);
        self.admit(Kind::Bound, origin, make, Runnable::schedule)
    }

    /// Spawns a loop-bound task. On the thread of this loop only: it is where the task will run. Its
    /// first step goes straight to the ready queue, also while the loop is not run: the way through
    /// the inbox would put it behind callbacks that were scheduled later (CALL-02).
    pub(crate) fn spawn_bound<F>(
        self: &Arc<Self>,
        worker: &Worker,
        future: F,
        origin: Origin,
    ) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let make = |membership| crate::task::bound(future, membership, schedule_bound);
        self.admit(Kind::Bound, origin, make, |task| {
            worker.push_ready(Handle::Task(task))
        })
    }

    fn admit<T>(
        self: &Arc<Self>,
        kind: Kind,
        origin: Origin,
        make: impl FnOnce(Membership<Home>) -> (Runnable, JoinHandle<T>),
        start: impl FnOnce(Runnable),
    ) -> JoinHandle<T> {
        let loops = self.shared.loops.len() as u64;
        let admitted = self.remote().members.admit(kind, |place| {
            let key = TaskKey {
                id: TaskId(place.number * loops + self.id as u64),
                place: place.key,
            };
            let (task, handle) = make(Membership {
                registry: Arc::clone(self),
                key,
                cancels: place.cancels,
            });
            let info = TaskInfo { key, origin };
            (task.waker(), info, (task, handle))
        });
        let Some((task, handle)) = admitted else {
            return JoinHandle::refused();
        };
        start(task);
        handle
    }
}

/// Queues a movable task: on the loop of this thread, else for all.
fn schedule_movable(task: Runnable, info: ScheduleInfo) {
    context::with_current(|worker| match worker {
        Some(worker) if is_of_runtime(&task, worker) => worker.push_movable(task, info),
        _ => {
            // It may be run, and gone with all that it holds, before the loops are told.
            let listed = task.metadata().clone();
            home_of(&listed).shared.inject(task);
        }
    });
}

/// Whether that loop may run the task. As good as always it is listed there, which is cheaper to see.
fn is_of_runtime(task: &Runnable, worker: &Worker) -> bool {
    let listed = task.metadata();
    ptr::addr_eq(Arc::as_ptr(&listed.registry), Arc::as_ptr(worker.home()))
        || worker.is_of(&home_of(listed).shared)
}

/// Queues a loop-bound task on its home.
fn schedule_bound(task: Runnable, _: ScheduleInfo) {
    context::with_current(|worker| match worker {
        Some(worker) if home_of(task.metadata()).is_turned_by(worker) => {
            worker.push_ready(Handle::Task(task));
        }
        _ => {
            // As above.
            let listed = task.metadata().clone();
            // A home waits for its bound tasks before it closes its inbox: what comes back has never
            // run, and holds nothing but what made it.
            drop(home_of(&listed).send(Message::Task(task)));
        }
    });
}

/// The loop that lists a task which is scheduled here.
fn home_of(listed: &Listed) -> &Home {
    let registry: &dyn Any = listed.registry.as_ref();
    let home = registry.downcast_ref();
    home.expect("a loop's tasks are listed by its home")
}

impl Registry for Home {
    fn members(&self) -> &Members {
        &self.remote().members
    }

    fn is_current(&self, task: TaskKey) -> bool {
        context::with_current(|worker| {
            worker.is_some_and(|w| w.is_of(&self.shared) && w.is_in_step_of(task))
        })
    }

    /// The loop that polls the task now; its home, if no loop does.
    fn witness(self: &Arc<Self>, task: TaskKey) -> Witness {
        let home = context::with_current(|worker| {
            let worker = worker.filter(|worker| worker.is_of(&self.shared));
            Arc::clone(worker.map_or(self, |worker| worker.home()))
        });
        let info = self.shared.info_of(task);
        let info = info.expect("a member is in the list until it leaves");
        Box::new(move |payload| {
            let context = ErrorContext::new("a task panicked, and nobody took its result");
            home.report(context.with_task(info).with_panic(payload));
        })
    }
}

/// A future that is made by its first step, so that it need not be `Send`: every step, and the drop,
/// happens on the loop whose `schedule_bound` queues it. `SendWrapper` panics if that is ever broken.
struct MadeHere<M, F> {
    make: Option<M>,
    future: Option<SendWrapper<Pin<Box<F>>>>,
}

/// The made future is pinned in its box, not in here.
impl<M, F> Unpin for MadeHere<M, F> {}

impl<M: FnOnce() -> F, F: Future> Future for MadeHere<M, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if let Some(make) = this.make.take() {
            this.future = Some(SendWrapper::new(Box::pin(make())));
        }
        let future = this.future.as_mut().expect("made by the first step");
        future.as_mut().poll(cx)
    }
}

//! The event loop: [`Worker::run`], and one [turn](Worker::turn) of it, to be read from top to bottom.
//!
//! A worker belongs to one thread and is never shared; what others may touch is in
//! [`Remote`]. No borrow of a table is held while user code runs (LOOP-14):
//! a callback may schedule, cancel, open, close and stop whatever it likes.
//!
//! It decides when to sleep (`park`) and knows the protocols for it; what a socket or a timer is, the
//! driver knows.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use async_task::ScheduleInfo;
use slotmap::SlotMap;

use crate::atomics::Ordering;
use crate::config::TurnBudget;
use crate::driver::alarm::NEVER;
use crate::driver::selector::Batch;
use crate::driver::wheel::TimerKey;
use crate::driver::{Driver, IoKey, LocalTimerKey, Ready, TimerTarget};
use crate::error::LoopError;
use crate::scheduler::attachments::Attachments;
use crate::scheduler::cohort::Steps;
use crate::scheduler::context;
use crate::scheduler::counters::Counters;
use crate::scheduler::debug::DebugMode;
use crate::scheduler::deque::LocalDeque;
use crate::scheduler::failure::OnError;
use crate::scheduler::idle::{LeftIdle, LeftSearch, Searching};
use crate::scheduler::intake::Intake;
use crate::scheduler::news::{News, rooms_ahead};
use crate::scheduler::read_buffer::{LentBuffer, ReadBuffer};
use crate::scheduler::ready::{Callback, Handle, IoHandler};
use crate::scheduler::rescue::Lookout;
use crate::scheduler::shared::{Home, Remote, Shared};
use crate::task::Runnable;
use crate::task::info::{TaskInfo, TaskKey};

/// With several loops, a poll that brought so many events is followed by another before a park: it
/// is likely to find more, and saves the others from seeing this loop as idle for a moment.
const EAGER_POLL_AFTER: usize = 4;

/// The event loop of one thread.
pub(crate) struct Worker {
    pub(super) home: Arc<Home>,
    /// The home's own, at hand: it is asked for several times a callback.
    remote: Arc<Remote>,
    pub(super) deque: LocalDeque,
    /// What is to run next, in order.
    pub(super) ready: RefCell<Vec<Handle>>,
    /// The room of the batch before, for what is scheduled while the next one runs.
    spare: Cell<Vec<Handle>>,
    /// What the last poll has found, as long as it stands in the ready queue.
    pub(super) news: Cell<Vec<News>>,
    /// Where several of those receive before the first is told.
    pub(super) ahead: RefCell<Vec<u8>>,
    pub(super) io: RefCell<SlotMap<IoKey, Rc<dyn IoHandler>>>,
    pub(super) timers: RefCell<CallbackTimers>,
    attachments: Attachments,
    pub(super) read_buffer: ReadBuffer,
    pub(super) intake: RefCell<Intake>,
    pub(super) lookout: Lookout,
    /// Set while this loop is counted as searching between two turns.
    searching: Cell<Option<Searching>>,
    /// Set when this loop, about to sleep, saw work and stayed awake: somebody may have relied on it
    /// while it was still a searcher, so after taking work it looks at the queues once more.
    retreated: Cell<bool>,
    /// Set while handles and tasks run: what they make ready waits until they have ended.
    in_user_code: Cell<bool>,
    /// Set while movable tasks run that are to receive before the first of them sends.
    pub(super) receives_first: Cell<bool>,
    pub(super) steps: Steps,
    /// Time has ended the last turn of movable tasks, and their steps were long.
    pub(super) was_slow: Cell<bool>,
    /// The task whose step runs just now, loop-bound or movable. What is known of it is asked for seldom.
    current_task: Cell<Option<TaskKey>>,
    /// Where the callback that runs now was scheduled; `None` while anything else runs.
    pub(super) running_place: Cell<Option<&'static Location<'static>>>,
    /// The exception handler; `None` is the default.
    pub(super) on_error: RefCell<Option<Rc<dyn OnError>>>,
    pub(super) debug: DebugMode,
    pub(super) stopping: Cell<bool>,
    pub(super) stage: Cell<Stage>,
    pub(super) last_batch: Cell<usize>,
    /// Movable tasks run since the selector was last asked.
    pub(super) tasks_since_poll: Cell<u32>,
    rng: RefCell<fastrand::Rng>,
}

/// What becomes of an entry that is pushed to the ready queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The loop turns, or will when it is run: it waits there.
    Live,
    /// A foreign loop waits for this one (see `host.rs`): it has to be woken.
    Resting,
    /// Dropped.
    Closed,
}

/// Callbacks that wait for their deadline, each beside its place in the wheel.
type CallbackTimers = SlotMap<LocalTimerKey, (TimerKey, Rc<dyn Callback>)>;

impl Worker {
    pub(crate) fn new(home: Arc<Home>, deque: LocalDeque) -> Rc<Self> {
        let seed = home.shared.config.seed ^ home.id as u64;
        let debug = home.shared.config.debug;
        let worker = Rc::new(Worker {
            remote: Arc::clone(&home.shared.loops[home.id]),
            home,
            deque,
            ready: RefCell::default(),
            spare: Cell::default(),
            news: Cell::default(),
            ahead: RefCell::new(rooms_ahead()),
            io: RefCell::default(),
            timers: RefCell::default(),
            attachments: Attachments::default(),
            read_buffer: ReadBuffer::new(),
            intake: RefCell::default(),
            lookout: Lookout::default(),
            searching: Cell::new(None),
            retreated: Cell::new(false),
            in_user_code: Cell::new(false),
            receives_first: Cell::new(false),
            steps: Steps::default(),
            was_slow: Cell::new(false),
            current_task: Cell::new(None),
            running_place: Cell::new(None),
            on_error: RefCell::default(),
            debug: DebugMode::new(debug),
            stopping: Cell::new(false),
            stage: Cell::new(Stage::Live),
            last_batch: Cell::new(0),
            tasks_since_poll: Cell::new(0),
            rng: RefCell::new(fastrand::Rng::with_seed(seed)),
        });
        worker.show_patience();
        worker
    }

    /// Turns the loop until it is stopped. `root` makes one step of the future given to `block_on`.
    pub(crate) fn run(self: &Rc<Self>, root: &mut dyn FnMut()) -> Result<(), LoopError> {
        let _entered = context::enter(self)?;
        self.leave_rest();
        loop {
            let _brought: bool = self.turn(root, NEVER);
            if self.stopping.take() {
                self.end_of_run();
                return Ok(());
            }
        }
    }

    /// Whether [`run`](Worker::run) would be refused; a refused call leaves no trace.
    pub(crate) fn check_may_run(self: &Rc<Self>) -> Result<(), LoopError> {
        if self.is_closed() {
            return Err(LoopError::Closed);
        }
        drop(context::enter(self)?);
        Ok(())
    }

    /// One turn: take in what is ready, from here or elsewhere, or sleep until something is, or until
    /// `limit`; then run what was there when the taking-in ended, and a bounded number of movable tasks. False if
    /// it brought nothing: a sleep may also end in vain, or for the sake of the other loops.
    pub(super) fn turn(self: &Rc<Self>, root: &mut dyn FnMut(), limit: u64) -> bool {
        self.counters().turns.add(1);

        // 1. Nothing to do here: look for work on the other loops.
        if !self.has_work() {
            self.look_elsewhere();
        }

        // 2. Take in events, but no more than can be run soon; sleep for them only if nothing was found anywhere.
        if self.has_work() {
            if !self.has_enough_to_do() {
                self.poll_now(Batch::Busy);
            }
        } else if self.is_stealing() && self.last_batch.get() >= EAGER_POLL_AFTER {
            self.poll_now(Batch::Idle);
        } else {
            self.park(limit);
        }

        // 3. Behind what the events made ready: messages, timers that have come due, and tasks of
        //    outsiders, one at least, so that those are not starved.
        self.append_messages();
        let has_fired = self.append_due_timers();
        let batch = self.shared().outside_batch();
        self.deque.take_from(&self.shared().injector, batch);

        // 4. Whoever has work is no longer searching, and says so before any user code runs: one slow
        //    callback must not silence every notification. What this loop cannot begin at once is
        //    announced, once for the whole batch, unless it is soon done.
        let has_work = self.has_work();
        if has_work {
            self.leave_search();
            self.begin_to_run();
        }
        let waiting = self.deque.len();
        if (waiting == 1 && !self.ready.borrow().is_empty())
            || (waiting > 1 && self.is_worth_help(self.remote(), waiting))
        {
            self.notify_thieves();
        }

        // 5. and 6. Loop-bound work that is ready now, in order; what it schedules waits for the next
        //    turn. Then movable tasks, within the budget; many of short steps receive before the first sends.
        let sample = self.begin_sample();
        self.in_user_code.set(true);
        self.run_ready(root);
        self.receives_first.set(self.is_cohort_of_tasks());
        self.catch(|| self.run_movable());
        self.receives_first.set(false);
        self.in_user_code.set(false);
        if let Some(sample) = sample {
            self.end_sample(sample);
        }
        self.help_now_and_then();
        has_work || has_fired || self.last_batch.get() > 0
    }

    /// Anything this loop could run now, or a stop to obey: it must not sleep.
    pub(super) fn has_work(&self) -> bool {
        !self.ready.borrow().is_empty()
            || !self.deque.is_empty()
            || !self.remote().inbox.is_empty()
            || !self.shared().injector.is_empty()
            || self.stopping.get()
    }

    /// Becomes a searcher, unless somebody searches already, and takes a batch from the first victim
    /// that has any. Who does not search goes straight to park, which looks at every queue again.
    fn look_elsewhere(&self) {
        if !self.is_stealing() {
            return;
        }
        let evidence = self.searching.take();
        let was_called = evidence.is_some();
        let evidence = evidence.or_else(|| self.shared().idle.try_start_search());
        if evidence.is_none() && !self.retreated.get() {
            return;
        }
        self.searching.set(evidence);
        self.counters().searches.add(1);
        let loops = &self.shared().loops;
        let first = self.rng.borrow_mut().usize(..loops.len());
        for offset in 0..loops.len() {
            let victim = (first + offset) % loops.len();
            if victim == self.id() {
                continue;
            }
            if !was_called && !self.is_worth_stealing_from(&loops[victim]) {
                continue;
            }
            let stolen = self.deque.steal_from(&loops[victim].stealer);
            if stolen > 0 {
                let stolen = stolen as u64;
                self.counters().stolen.add(stolen);
                let count = &loops[victim].n_stolen_from;
                count.fetch_add(stolen, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Before the first user code: stop counting as a searcher. The last one to leave looks at the
    /// queues of the others once more, and so does one that had retreated (I1).
    pub(super) fn leave_search(&self) {
        let retreated = self.retreated.replace(false);
        let is_last = match self.searching.take() {
            Some(searching) => self.shared().idle.leave_search(searching) == LeftSearch::Last,
            None => false,
        };
        if (is_last || retreated) && self.has_work_beside() {
            self.shared().notify();
        }
    }

    fn poll_now(self: &Rc<Self>, batch: Batch) {
        self.count_poll();
        self.take_events(|news, wakers| {
            let note = News::note(news);
            self.driver().poll_now(batch, note, wakers)
        });
    }

    /// Where a loop decides to sleep. Announce it, look at everything once more (fence F2 is between
    /// the two), and only then wait in the selector; a poster that came too late for the look has
    /// seen the announcement, and ends the wait (I1).
    fn park(self: &Rc<Self>, limit: u64) {
        let idle = &self.shared().idle;
        idle.transition_to_idle(self.id(), self.searching.take());
        let must_stay = self.has_work() || self.has_work_beside();
        let events = self.take_events(|news, wakers| {
            let events = if must_stay {
                self.retreated.set(true);
                0
            } else {
                self.sleep(limit, news, wakers)
            };
            match idle.leave_idle(self.id()) {
                LeftIdle::Retracted => {}
                LeftIdle::Claimed(searching) => self.searching.set(Some(searching)),
            }
            events
        });
        self.look_after_sleep(events);
    }

    /// The sleep itself, once it is announced.
    fn sleep(&self, limit: u64, news: &mut Vec<News>, wakers: &mut Vec<Arc<Waker>>) -> usize {
        self.counters().parks.add(1);
        self.count_poll();
        let limit = limit.min(self.sleep_limit());
        let still_idle = || self.shared().idle.is_idle(self.id());
        let nest = self.remote().nest.as_ref();
        let nest = nest.filter(|_| self.lookout.knows_stuck());
        let note = News::note(news);
        self.driver().park(limit, nest, still_idle, note, wakers)
    }

    /// Runs exactly the handles that are ready now. A panic ends its handle, not the loop.
    fn run_ready(self: &Rc<Self>, root: &mut dyn FnMut()) {
        let mut batch = self.ready.replace(self.spare.take());
        self.counters().handles_run.add(batch.len() as u64);
        self.catch_each(batch.drain(..), |handle| {
            if self.debug.is_on.get() {
                self.run_handle_watched(handle, root);
            } else {
                self.run_handle(handle, root);
            }
        });
        self.spare.set(batch);
        self.running_place.set(None);
    }

    // Always: debug mode is a second caller, for which the first must not pay with a call (30
    // instructions a request, counted by callgrind).
    #[inline(always)]
    pub(super) fn run_handle(self: &Rc<Self>, handle: Handle, root: &mut dyn FnMut()) {
        self.running_place.set(None);
        // A task has a beat of its own, with its id, and so has each of the news.
        if !matches!(handle, Handle::Task(_) | Handle::News) {
            self.remote().pulse.beat();
        }
        match handle {
            Handle::Call(callback) => callback.run(&self.running_place),
            Handle::SharedCall(callback) => callback.run(&self.running_place),
            Handle::Visit(visit) => visit(self),
            Handle::Io(key, ready) => self.run_io(key, ready),
            Handle::News => self.run_news(root),
            Handle::Task(task) => {
                self.counters().tasks_run.add(1);
                self.run_task(task);
            }
            Handle::Root => root(),
            Handle::Failure(context) => self.report(*context),
        }
    }

    /// Movable tasks of the own deque, until the budget of tasks or of time is spent.
    fn run_movable(self: &Rc<Self>) {
        let TurnBudget { tasks, time, .. } = self.shared().config.budget;
        let tasks = tasks.saturating_sub(self.tasks_since_poll.get());
        let time_ns = time.as_nanos();
        // One task alone is not timed.
        let is_timed = self.deque.len() > 1;
        let mut started = is_timed.then(|| (0, self.driver().clock().now_ns()));
        let mut run = 0;
        let mut is_slow = false;
        // The clock is read after 2, 4, 8, ... tasks: often enough to notice slow ones, seldom
        // enough to cost nothing among quick ones.
        let mut look_at_clock = 2;
        while run < tasks
            && let Some(next) = self.deque.pop()
        {
            if self.debug.is_on.get() {
                self.run_task_watched(next);
            } else {
                self.run_task(next);
            }
            run += 1;
            if run >= look_at_clock && !self.deque.is_empty() {
                look_at_clock = run * 2;
                let now = self.driver().clock().now_ns();
                let (first, started_ns) = *started.get_or_insert((run, now));
                let spent = now.saturating_sub(started_ns);
                if u128::from(spent) >= time_ns {
                    is_slow = self.judge_pace(spent, run - first);
                    break;
                }
            }
        }
        self.was_slow.set(is_slow);
        self.counters().tasks_run.add(u64::from(run));
        let since_poll = self.tasks_since_poll.get().saturating_add(run);
        self.tasks_since_poll.set(since_poll);
    }

    /// One step of a task. It does not panic: the task catches what its future does.
    pub(super) fn run_task(&self, task: Runnable) {
        let key = task.metadata().key;
        self.remote().pulse.beat_for_task(key.id.0);
        self.current_task.set(Some(key));
        task.run();
        self.current_task.set(None);
    }
}

/// What loop-bound code asks of its loop.
impl Worker {
    pub(crate) fn id(&self) -> usize {
        self.home.id
    }

    pub(crate) fn home(&self) -> &Arc<Home> {
        &self.home
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.home.shared
    }

    pub(crate) fn is_of(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.home.shared, shared)
    }

    pub(super) fn remote(&self) -> &Remote {
        &self.remote
    }

    pub(crate) fn driver(&self) -> &Arc<Driver> {
        &self.remote().driver
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.remote().counters
    }

    pub(super) fn is_stealing(&self) -> bool {
        self.shared().is_stealing()
    }

    pub(super) fn notify_thieves(&self) {
        if self.is_stealing() {
            self.shared().notify();
        }
    }

    /// Appends to the ready queue; a closed loop drops it.
    pub(crate) fn push_ready(&self, handle: Handle) {
        match self.stage.get() {
            Stage::Live => self.ready.borrow_mut().push(handle),
            Stage::Resting => self.push_at_rest(handle),
            Stage::Closed => handle.discard(),
        }
    }

    /// Appends to the own deque. What user code makes ready is announced if it is much; a task that woke itself while
    /// it ran is announced by nobody.
    pub(crate) fn push_movable(&self, task: Runnable, info: ScheduleInfo) {
        if self.is_closed() {
            return drop(task);
        }
        self.deque.push(task);
        if self.in_user_code.get()
            && !info.woken_while_running
            && self.is_worth_help(self.remote(), self.deque.len())
        {
            self.notify_thieves();
        }
    }

    /// The task whose step runs just now; none in a callback, nor in the future of `block_on`, nor in what a task
    /// leaves behind when it has ended.
    pub(crate) fn current_task(&self) -> Option<TaskInfo> {
        self.shared().info_of(self.current_task.get()?)
    }

    /// Whether the step that runs just now is one of that task.
    pub(crate) fn is_in_step_of(&self, task: TaskKey) -> bool {
        self.current_task.get() == Some(task)
    }

    pub(crate) fn stop(&self) {
        self.stopping.set(true);
        if self.stage.get() == Stage::Resting {
            self.wake_host();
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.stage.get() == Stage::Closed
    }

    pub(crate) fn insert_io(&self, handler: Rc<dyn IoHandler>) -> IoKey {
        self.io.borrow_mut().insert(handler)
    }

    /// All of them, so that nothing is borrowed while the caller tells them something.
    pub(crate) fn io_handlers(&self) -> Vec<Rc<dyn IoHandler>> {
        self.io.borrow().values().cloned().collect()
    }

    pub(crate) fn remove_io(&self, key: IoKey) {
        let removed = self.io.borrow_mut().remove(key);
        drop(removed);
    }

    /// As if the kernel had reported it: for what an edge will not say again.
    pub(crate) fn requeue_io(&self, key: IoKey, ready: Ready) {
        self.push_ready(Handle::Io(key, ready));
    }

    /// Arms a timer for a callback; a closed loop cancels the callback instead.
    pub(crate) fn arm_callback(
        &self,
        deadline: u64,
        callback: &Rc<dyn Callback>,
    ) -> Option<LocalTimerKey> {
        if self.is_closed() {
            callback.cancel();
            return None;
        }
        let key = self.timers.borrow_mut().insert_with_key(|key| {
            let target = TimerTarget::Local(key);
            let timer = self.driver().arm_timer_at_home(deadline, target);
            (timer, Rc::clone(callback))
        });
        Some(key)
    }

    /// Frees the timer of a callback, if it has not fired.
    pub(crate) fn disarm_callback(&self, key: LocalTimerKey) {
        let removed = self.timers.borrow_mut().remove(key);
        if let Some((timer, _callback)) = removed {
            // None: another loop has found it due, and sends it here in vain.
            drop(self.driver().cancel_timer(timer));
        }
    }

    /// What the layers above keep for this loop.
    pub(crate) fn attachments(&self) -> &Attachments {
        &self.attachments
    }

    /// Lends the loop's read buffer.
    pub(crate) fn with_read_buffer<T>(&self, f: impl FnOnce(&mut LentBuffer) -> T) -> T {
        self.read_buffer.with(f)
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("id", &self.id())
            .field("ready", &self.ready.borrow().len())
            .field("deque", &self.deque.len())
            .field("stage", &self.stage.get())
            .finish_non_exhaustive()
    }
}

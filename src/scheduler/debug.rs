//! Debug mode: what a loop does more, when it is asked to, to find out what is wrong with a program.
//!
//! Each callback and each step of a task is timed; one that takes long is named in the log, with the place that
//! scheduled it, for meanwhile everything else on the loop had to wait. What is still open when the
//! loop closes is named too. Outside of debug mode the price is one look at a flag.

use std::cell::Cell;
use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

use crate::atomics::Ordering;
use crate::scheduler::ready::{Handle, IoHandler};
use crate::scheduler::worker::Worker;
use crate::task::Runnable;
use crate::task::info::TaskInfo;

/// A callback that takes longer is slow, as in asyncio.
const SLOW: Duration = Duration::from_millis(100);

/// The debug mode of one loop.
#[derive(Debug)]
pub(crate) struct DebugMode {
    pub(crate) is_on: Cell<bool>,
    pub(crate) slow_callback_duration: Cell<Duration>,
}

impl DebugMode {
    pub(crate) fn new(is_on: bool) -> Self {
        DebugMode {
            is_on: Cell::new(is_on),
            slow_callback_duration: Cell::new(SLOW),
        }
    }
}

/// What runs, for the log.
enum Subject {
    /// The place is known once it runs.
    Callback,
    Task(TaskInfo),
    Socket(Rc<dyn IoHandler>),
    Other(&'static str),
}

impl Worker {
    /// As [`run_handle`](Worker::run_handle), timed.
    #[cold]
    pub(super) fn run_handle_watched(self: &Rc<Self>, handle: Handle, root: &mut dyn FnMut()) {
        let subject = match &handle {
            Handle::Call(_) | Handle::SharedCall(_) => Subject::Callback,
            Handle::Task(task) => self.subject_of(task),
            Handle::Io(key, _) => match self.io.borrow().get(*key) {
                Some(handler) => Subject::Socket(Rc::clone(handler)),
                None => Subject::Other("a socket that is closed"),
            },
            Handle::Visit(_) => Subject::Other("a call of the library"),
            Handle::Failure(_) => Subject::Other("the exception handler"),
            Handle::Root => Subject::Other("the future of block_on"),
            // Each of them is watched by itself.
            Handle::News => return self.run_handle(handle, root),
        };
        self.watch(subject, || self.run_handle(handle, root));
    }

    pub(crate) fn is_debug(&self) -> bool {
        self.debug.is_on.get()
    }

    pub(crate) fn set_debug(&self, on: bool) {
        self.debug.is_on.set(on);
        self.show_patience();
    }

    pub(crate) fn slow_callback_duration(&self) -> Duration {
        self.debug.slow_callback_duration.get()
    }

    pub(crate) fn set_slow_callback_duration(&self, duration: Duration) {
        self.debug.slow_callback_duration.set(duration);
        self.show_patience();
    }

    /// Shows the others from when on they report this loop as stuck: in debug mode what is slow is too long.
    pub(super) fn show_patience(&self) {
        let mut patience = self.shared().config.stuck_after;
        if self.is_debug() {
            patience = patience.min(self.slow_callback_duration());
        }
        let patience = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        self.remote().patience.store(patience, Ordering::Relaxed);
    }

    /// A step of a movable task, timed.
    #[cold]
    pub(super) fn run_task_watched(self: &Rc<Self>, task: Runnable) {
        let subject = self.subject_of(&task);
        self.watch(subject, || {
            self.run_task(task);
        });
    }

    fn subject_of(&self, task: &Runnable) -> Subject {
        let info = self.shared().info_of(task.metadata().key);
        info.map_or(Subject::Other("a task that has ended"), Subject::Task)
    }

    fn watch(self: &Rc<Self>, subject: Subject, f: impl FnOnce()) {
        let clock = self.driver().clock();
        let started = clock.now_ns();
        // Caught here, so that one that ends in a panic is timed as well.
        self.catch(f);
        let took = Duration::from_nanos(clock.now_ns().saturating_sub(started));
        if took < self.debug.slow_callback_duration.get() {
            return;
        }
        let place = self.running_place.get();
        let what = Slow { subject, place };
        self.warn(format_args!("loop {}: {what} took {took:?}", self.id()));
    }

    /// In debug mode, by a loop that closes: sockets of callbacks that nobody has closed.
    pub(super) fn warn_of_open(self: &Rc<Self>, handler: &Rc<dyn IoHandler>) {
        if self.debug.is_on.get() {
            let what = handler.describe();
            self.warn(format_args!(
                "loop {} closes: {what} is still open",
                self.id()
            ));
        }
    }

    /// The subscriber is foreign code, and may panic.
    fn warn(self: &Rc<Self>, text: fmt::Arguments<'_>) {
        self.catch(|| tracing::warn!("{text}"));
    }
}

struct Slow {
    subject: Subject,
    place: Option<&'static Location<'static>>,
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.subject, self.place) {
            (Subject::Callback, Some(place)) => write!(f, "a callback scheduled at {place}"),
            (Subject::Callback, None) => f.write_str("a callback that was cancelled"),
            (Subject::Task(task), _) => {
                write!(f, "a step of {task} spawned at {}", task.spawned_at())
            }
            (Subject::Socket(handler), _) => f.write_str(&handler.describe()),
            (Subject::Other(what), _) => f.write_str(what),
        }
    }
}

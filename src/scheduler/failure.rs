//! What becomes of a failure that no caller sees: one way for all of them, and it ends at the exception
//! handler of a loop.
//!
//! Every panic that is caught in a callback, a protocol or a waker comes to [`Worker::report`], and so
//! does the panic of a task whose result nobody took, on the loop that polled it. A failing handler is
//! reported to the default one, a failing default to the standard error; nothing kills the loop.
//!
//! Errors of the operating system on a connection are no failures (ERR-05): the protocol hears of them.

use std::any::Any;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::Rc;

use crate::scheduler::ready::Message;
use crate::scheduler::shared::{Home, LoopId};
use crate::scheduler::worker::Worker;
use crate::task::info::TaskInfo;
use crate::task::join::{Panic, panic_text};
use crate::task::{TaskId, drop_payload};

/// A failure, and what is known of where it came from. What an exception handler is given.
///
/// It displays as one line with all of it.
///
/// ```
/// let context = garland::ErrorContext::new("the cache could not be written")
///     .with_error(std::io::Error::other("disk full"));
/// assert_eq!(context.to_string(), "the cache could not be written: disk full");
/// ```
#[must_use = "a failure is told to a loop: see LocalLoop::call_exception_handler"]
pub struct ErrorContext {
    message: Cow<'static, str>,
    error: Option<Box<dyn Error + Send + Sync>>,
    panic: Option<Panic>,
    loop_id: Option<LoopId>,
    scheduled_at: Option<&'static Location<'static>>,
    task: Option<TaskInfo>,
    peer: Option<String>,
    while_handling: Option<Box<ErrorContext>>,
}

impl ErrorContext {
    /// A failure that is told by a sentence.
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        ErrorContext {
            message: message.into(),
            error: None,
            panic: None,
            loop_id: None,
            scheduled_at: None,
            task: None,
            peer: None,
            while_handling: None,
        }
    }

    /// Adds the error behind it.
    pub fn with_error(mut self, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.error = Some(error.into());
        self
    }

    /// Adds what the other end of the connection it is about is called.
    pub fn with_peer(mut self, peer: impl fmt::Display) -> Self {
        self.peer = Some(peer.to_string());
        self
    }

    pub(crate) fn with_panic(mut self, payload: Panic) -> Self {
        self.panic = Some(payload);
        self
    }

    pub(crate) fn with_task(mut self, task: TaskInfo) -> Self {
        self.task = Some(task);
        self
    }

    fn with_place(mut self, scheduled_at: Option<&'static Location<'static>>) -> Self {
        self.scheduled_at = scheduled_at;
        self
    }

    /// What happened, without the error.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The error behind it, if it is not a panic.
    #[doc(alias = "exception")]
    pub fn error(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.error.as_deref()
    }

    /// What a panic carried.
    pub fn panic_payload(&self) -> Option<&(dyn Any + Send)> {
        self.panic.as_deref()
    }

    /// The text of a panic, if it had one.
    pub fn panic_message(&self) -> Option<&str> {
        self.panic_payload().and_then(panic_text)
    }

    /// The loop on which it happened; none for one that a program made and has not reported yet.
    pub fn loop_id(&self) -> Option<LoopId> {
        self.loop_id
    }

    /// The line of the program that scheduled the callback.
    #[doc(alias = "handle")]
    pub fn scheduled_at(&self) -> Option<&'static Location<'static>> {
        self.scheduled_at
    }

    /// The task that failed.
    pub fn task(&self) -> Option<TaskId> {
        self.task.as_ref().map(TaskInfo::id)
    }

    /// The line of the program that spawned the task.
    pub fn spawned_at(&self) -> Option<&'static Location<'static>> {
        self.task.as_ref().map(TaskInfo::spawned_at)
    }

    /// What the other end of the connection is called: an address, or the name of a Unix socket.
    pub fn peer(&self) -> Option<&str> {
        self.peer.as_deref()
    }

    /// For a failure of the exception handler itself: what it was handling.
    pub fn while_handling(&self) -> Option<&ErrorContext> {
        self.while_handling.as_deref()
    }

    /// What is done without a handler: one line in the log, with all that is known.
    pub(crate) fn log(&self) {
        // The subscriber is foreign code too. Behind it there is nobody left but the standard error,
        // and if that is closed, nobody at all.
        let logged = catch_unwind(AssertUnwindSafe(|| tracing::error!("{self}")));
        if let Err(payload) = logged {
            let written = writeln!(io::stderr(), "the log panicked over a failure: {self}");
            drop(written);
            drop_payload(payload);
        }
    }

    /// For one that no loop can take any more.
    pub(crate) fn log_and_drop(self) {
        self.log();
        self.drop_caught();
    }

    /// Errors and payloads are made by the program: their destructors may panic.
    fn drop_caught(self) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(self))) {
            drop_payload(payload);
        }
    }
}

impl fmt::Display for ErrorContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(error) = &self.error {
            write!(f, ": {error}")?;
        }
        if self.panic.is_some() {
            write!(f, ": {}", self.panic_message().unwrap_or("(not a text)"))?;
        }
        if let Some(id) = self.loop_id {
            write!(f, "; on {id}")?;
        }
        if let Some(place) = self.scheduled_at {
            write!(f, "; scheduled at {place}")?;
        }
        if let Some(task) = &self.task {
            write!(f, "; {task} spawned at {}", task.spawned_at())?;
        }
        if let Some(peer) = &self.peer {
            write!(f, "; peer {peer}")?;
        }
        if let Some(first) = &self.while_handling {
            write!(f, "; while handling: {first}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ErrorContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ErrorContext({self})")
    }
}

/// What a loop calls for each failure. Set by the runtime, which knows what a handler is given.
pub(crate) trait OnError: Any {
    fn on_error(&self, worker: &Rc<Worker>, context: &ErrorContext);
}

impl Worker {
    /// Runs user code; a panic is reported and counted, and the loop lives.
    pub(super) fn catch(self: &Rc<Self>, f: impl FnOnce()) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
            self.report_panic(payload);
        }
    }

    /// The same for each item: a panic ends its own, and not those behind it.
    pub(super) fn catch_each<T>(
        self: &Rc<Self>,
        mut items: impl ExactSizeIterator<Item = T>,
        mut run: impl FnMut(T),
    ) {
        while items.len() > 0 {
            self.catch(|| items.by_ref().for_each(&mut run));
        }
    }

    /// Reports and counts a panic that was caught in a callback.
    pub(crate) fn report_panic(self: &Rc<Self>, payload: Panic) {
        let context = ErrorContext::new("a callback panicked").with_place(self.running_place.get());
        self.report(context.with_panic(payload));
    }

    /// Tells the exception handler of this loop; on the loop's own thread. It never panics, so it may be
    /// called from a destructor.
    pub(crate) fn report(self: &Rc<Self>, mut context: ErrorContext) {
        context.loop_id = Some(LoopId(self.id()));
        if context.panic.is_some() && context.task.is_none() {
            self.counters().callback_panics.add(1);
        }
        // Cloned: the handler may set another one.
        let handler = self.on_error.borrow().clone();
        let Some(handler) = handler else {
            return context.log_and_drop();
        };
        let handled = catch_unwind(AssertUnwindSafe(|| handler.on_error(self, &context)));
        match handled {
            Ok(()) => context.drop_caught(),
            Err(payload) => {
                let mut failed = ErrorContext::new("the exception handler panicked");
                failed.loop_id = context.loop_id;
                failed.while_handling = Some(Box::new(context));
                failed.with_panic(payload).log_and_drop();
            }
        }
        // Perhaps the last reference: the handler was replaced while it ran.
        let handler = ManuallyDrop::new(handler);
        let dropped = AssertUnwindSafe(|| drop(ManuallyDrop::into_inner(handler)));
        if let Err(payload) = catch_unwind(dropped) {
            drop_payload(payload);
        }
    }

    /// Puts a handler in the place of the one that is there; `None` is the default.
    pub(crate) fn set_on_error(&self, handler: Option<Rc<dyn OnError>>) {
        let old = self.on_error.replace(handler);
        drop(old);
    }

    pub(crate) fn on_error(&self) -> Option<Rc<dyn OnError>> {
        self.on_error.borrow().clone()
    }
}

impl Home {
    /// Tells the exception handler of this loop, from any thread; if the loop is closed, the log.
    pub(crate) fn report(&self, context: ErrorContext) {
        let here = self.if_here(|worker| worker.cloned());
        if let Some(worker) = here {
            return worker.report(context);
        }
        if let Err(message) = self.send(Message::Failure(Box::new(context))) {
            message.discard();
        }
    }
}

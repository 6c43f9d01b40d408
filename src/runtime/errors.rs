//! The exception handler of a loop: who hears of failures that no caller sees.
//!
//! What counts as one, and the way it takes, is in `scheduler/failure.rs`. Each loop has a handler of its
//! own, so that it may hold an `Rc` of that loop's state.

use std::any::Any;
use std::rc::Rc;

use crate::runtime::local::LocalLoop;
use crate::scheduler::{ErrorContext, OnError, Worker};
use crate::task::join::Panic;

/// What a loop calls for each failure.
pub type ExceptionHandler = Rc<dyn Fn(&LocalLoop, &ErrorContext)>;

/// A handler in its place in the loop.
struct Installed(ExceptionHandler);

impl OnError for Installed {
    fn on_error(&self, worker: &Rc<Worker>, context: &ErrorContext) {
        (self.0)(&LocalLoop::new(Rc::clone(worker)), context);
    }
}

/// Failures that no caller sees: a panic of a callback, of a protocol, or of a task whose result nobody
/// took.
///
/// ```
/// use std::cell::RefCell;
/// use std::rc::Rc;
///
/// let runtime = garland::Builder::new().loops(1).build()?;
/// let local = runtime.local();
/// let seen = Rc::new(RefCell::new(Vec::new()));
///
/// let log = Rc::clone(&seen);
/// local.set_exception_handler(move |local, context| {
///     log.borrow_mut().extend(context.panic_message().map(str::to_owned));
///     local.default_exception_handler(context);
/// });
/// local.call_soon(|| panic!("of a callback"));
/// drop(local.spawn_local(async { panic!("of a detached task") }));
/// runtime.block_on(garland::yield_now())?;
/// assert_eq!(*seen.borrow(), ["of a callback", "of a detached task"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl LocalLoop {
    /// Has `handler` called for each failure on this loop, in place of the one before.
    ///
    /// It runs on this loop's thread, inside what failed, and may schedule, cancel and close what it
    /// likes. If it panics, both panics go to the [default](LocalLoop::default_exception_handler). The
    /// loop drops it when it closes; failures that come later go to the log.
    pub fn set_exception_handler(&self, handler: impl Fn(&LocalLoop, &ErrorContext) + 'static) {
        let installed = Installed(Rc::new(handler));
        self.worker().set_on_error(Some(Rc::new(installed)));
    }

    /// Goes back to the [default](LocalLoop::default_exception_handler).
    pub fn reset_exception_handler(&self) {
        self.worker().set_on_error(None);
    }

    /// The handler that was set; `None` is the default.
    #[doc(alias = "get_exception_handler")]
    pub fn exception_handler(&self) -> Option<ExceptionHandler> {
        let handler: Rc<dyn Any> = self.worker().on_error()?;
        let installed = handler.downcast::<Installed>();
        let installed = installed.expect("set by set_exception_handler only");
        Some(Rc::clone(&installed.0))
    }

    /// Tells the handler of this loop about a failure, at once. Never panics.
    pub fn call_exception_handler(&self, context: ErrorContext) {
        self.report(context);
    }

    /// What is done without a handler: a line at level `ERROR` in the log (crate `tracing`), with all
    /// that is known. For handlers that only want to add something.
    pub fn default_exception_handler(&self, context: &ErrorContext) {
        context.log();
    }

    /// Reports a failure; one with a panic is counted, as [`report_panic`](Self::report_panic) does.
    pub(crate) fn report(&self, context: ErrorContext) {
        self.worker().report(context);
    }

    /// Reports and counts a panic that was caught in a callback.
    pub(crate) fn report_panic(&self, payload: Panic) {
        self.worker().report_panic(payload);
    }
}

//! The ready queue of a home loop: what runs on this loop only, first in, first out.
//!
//! Callbacks, readiness of sockets that callbacks own, steps of loop-bound tasks and the future given
//! to `block_on` stand in one line, in the order in which they became ready (CALL-02). Nothing here
//! is ever stolen.

use std::any::Any;
use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::mem;
use std::panic::Location;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::driver::{IoKey, LocalTimerKey, Ready};
use crate::scheduler::failure::ErrorContext;
use crate::scheduler::worker::Worker;
use crate::task::Runnable;

/// One entry of the ready queue.
pub(crate) enum Handle {
    /// A callback scheduled by this loop.
    Call(Rc<dyn Callback>),
    /// A callback sent to this loop.
    SharedCall(Arc<dyn SharedCallback>),
    /// Work of the library itself, sent to this loop.
    Visit(Visit),
    /// The kernel has news of a socket that a callback owns.
    Io(IoKey, Ready),
    /// The same of each socket that the last poll found: they stand in a list of their own (`news.rs`).
    News,
    /// A step of a loop-bound task.
    Task(Runnable),
    /// A step of the future given to `block_on`.
    Root,
    /// A failure for the exception handler of this loop.
    Failure(Box<ErrorContext>),
}

impl Handle {
    /// Ends it without running it. What a callback captured goes now, whoever still holds its handle.
    pub(crate) fn discard(self) {
        match self {
            Handle::Call(callback) => {
                callback.cancel();
            }
            Handle::SharedCall(callback) => {
                callback.cancel();
            }
            Handle::Failure(context) => context.log_and_drop(),
            Handle::Visit(_) | Handle::Task(_) | Handle::Root => {}
            Handle::Io(..) | Handle::News => {}
        }
    }
}

/// Runs once, on the loop it was sent to.
pub(crate) type Visit = Box<dyn FnOnce(&Rc<Worker>) + Send>;

/// What arrives from outside: the entries that may cross threads.
pub(crate) enum Message {
    SharedCall(Arc<dyn SharedCallback>),
    Visit(Visit),
    Task(Runnable),
    Root,
    /// The kernel has news of a socket of this loop, found by another.
    Io(IoKey, Ready),
    /// A timer of a callback has come due, found by another loop.
    Timer(LocalTimerKey),
    Failure(Box<ErrorContext>),
    Stop,
}

impl Message {
    /// Ends it without running it, as [`Handle::discard`].
    pub(crate) fn discard(self) {
        match self {
            Message::SharedCall(callback) => {
                callback.cancel();
            }
            Message::Failure(context) => context.log_and_drop(),
            Message::Visit(_) | Message::Task(_) | Message::Root | Message::Stop => {}
            Message::Io(..) | Message::Timer(_) => {}
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Message::SharedCall(_) => "SharedCall",
            Message::Visit(_) => "Visit",
            Message::Task(_) => "Task",
            Message::Root => "Root",
            Message::Io(..) => "Io",
            Message::Timer(_) => "Timer",
            Message::Failure(_) => "Failure",
            Message::Stop => "Stop",
        })
    }
}

/// Where a loop keeps the place that scheduled what runs now, for reports about it.
pub(crate) type Place = Cell<Option<&'static Location<'static>>>;

/// A callback that can be cancelled until it runs.
pub(crate) trait Callback {
    /// Runs the closure, after it has said in `place` where it was scheduled.
    fn run(&self, place: &Place);
    /// Drops the closure and what it captured, at once; false if it ran or was cancelled before.
    fn cancel(&self) -> bool;
    /// Whether it will never run, for it was cancelled.
    fn is_cancelled(&self) -> bool;
}

/// The closure of one `call_soon` or `call_at`, in one allocation with its reference count.
pub(crate) struct CallbackCell<F> {
    closure: Cell<Option<F>>,
    is_cancelled: Cell<bool>,
    scheduled_at: &'static Location<'static>,
}

impl<F: FnOnce()> CallbackCell<F> {
    #[track_caller]
    pub(crate) fn new(f: F) -> Self {
        CallbackCell {
            closure: Cell::new(Some(f)),
            is_cancelled: Cell::new(false),
            scheduled_at: Location::caller(),
        }
    }
}

impl<F: FnOnce()> Callback for CallbackCell<F> {
    fn run(&self, place: &Place) {
        if let Some(f) = self.closure.take() {
            place.set(Some(self.scheduled_at));
            f();
        }
    }

    fn cancel(&self) -> bool {
        let Some(closure) = self.closure.take() else {
            return false;
        };
        // First, for the drop of what it captured is user code.
        self.is_cancelled.set(true);
        drop(closure);
        true
    }

    fn is_cancelled(&self) -> bool {
        self.is_cancelled.get()
    }
}

/// A [`Callback`] that may be cancelled from another thread.
pub(crate) trait SharedCallback: Send + Sync {
    fn run(&self, place: &Place);
    fn cancel(&self) -> bool;
    fn is_cancelled(&self) -> bool;
}

/// Where a callback sent from another thread stands.
enum CallState<F> {
    Waits(F),
    Begun,
    Cancelled,
}

/// The closure of one `call_soon_threadsafe`.
pub(crate) struct SharedCallbackCell<F> {
    state: Mutex<CallState<F>>,
    scheduled_at: &'static Location<'static>,
}

impl<F: FnOnce() + Send> SharedCallbackCell<F> {
    #[track_caller]
    pub(crate) fn new(f: F) -> Self {
        SharedCallbackCell {
            state: Mutex::new(CallState::Waits(f)),
            scheduled_at: Location::caller(),
        }
    }

    /// Takes the closure, which decides for good whether it runs.
    fn take(&self, then: CallState<F>) -> Option<F> {
        let mut state = self.lock();
        if !matches!(*state, CallState::Waits(_)) {
            return None;
        }
        match mem::replace(&mut *state, then) {
            CallState::Waits(f) => Some(f),
            CallState::Begun | CallState::Cancelled => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, CallState<F>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: FnOnce() + Send> SharedCallback for SharedCallbackCell<F> {
    fn run(&self, place: &Place) {
        // Taken first: the closure runs without the lock.
        if let Some(f) = self.take(CallState::Begun) {
            place.set(Some(self.scheduled_at));
            f();
        }
    }

    fn cancel(&self) -> bool {
        self.take(CallState::Cancelled).is_some()
    }

    fn is_cancelled(&self) -> bool {
        matches!(*self.lock(), CallState::Cancelled)
    }
}

/// How many bytes a receive has brought, 0 at the end of the stream.
pub(crate) type Received = Result<usize, Errno>;

/// A socket that callbacks own, as its home loop sees it.
pub(crate) trait IoHandler: Any {
    /// The kernel has news. Runs as one handle of the ready queue.
    fn handle_ready(self: Rc<Self>, ready: Ready);
    /// The first of two steps that may stand in its place, with those of other sockets between (`news.rs`): receives into
    /// `buf`, and calls nothing of a user. `None` if that is not for this socket, or not now.
    fn receive_ahead(&self, _ready: Ready, _buf: &mut [u8]) -> Option<Received> {
        None
    }
    /// The second, with what the first has received into `buf`.
    fn handle_received(self: Rc<Self>, _ready: Ready, _received: Received, _buf: &[u8]) {
        unreachable!("it has received nothing ahead");
    }
    /// The loop closes: let go of the socket without any further callback.
    fn handle_shutdown(self: Rc<Self>);
    /// What it is, for the log of debug mode.
    fn describe(&self) -> Cow<'static, str> {
        Cow::Borrowed("a socket")
    }
}

//! Which loop this thread turns just now: the only thread-local of the library.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::rc::Rc;

use crate::error::LoopError;
use crate::scheduler::read_buffer::READ_BUFFER;
use crate::scheduler::worker::Worker;

thread_local! {
    /// Dropped by hand, by [`Entered`]: a thread-local with a destructor is looked after at each access, and is
    /// gone for what comes behind it when the thread dies.
    static CURRENT: RefCell<Option<ManuallyDrop<Rc<Worker>>>> = const { RefCell::new(None) };
}

/// Calls `f` with the worker that runs on this thread, if there is one. `f` must not enter or leave
/// a loop.
pub(crate) fn with_current<T>(f: impl FnOnce(Option<&Rc<Worker>>) -> T) -> T {
    CURRENT.with(|current| f(current.borrow().as_deref()))
}

/// Lends the read buffer of the loop that runs on this thread; one made for the purpose, if none does, or if it
/// is lent already.
pub(crate) fn with_lent_buffer<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    let worker = current();
    let lent = worker
        .as_ref()
        .and_then(|worker| worker.read_buffer.try_lend());
    match lent {
        Some(mut lent) => f(&mut **lent),
        None => f(&mut vec![0; READ_BUFFER]),
    }
}

/// Whether the step that runs on this thread is to let others receive before it sends.
pub(crate) fn receives_first() -> bool {
    with_current(|worker| worker.is_some_and(|worker| worker.receives_first()))
}

/// A clone of the worker that runs on this thread.
pub(crate) fn current() -> Option<Rc<Worker>> {
    with_current(|worker| worker.cloned())
}

/// Marks this thread as turning `worker`, until the guard is dropped.
pub(crate) fn enter(worker: &Rc<Worker>) -> Result<Entered, LoopError> {
    CURRENT.with(|current| {
        // Borrowed: a destructor that runs below `with_current` tries to run a loop.
        let Ok(mut current) = current.try_borrow_mut() else {
            return Err(LoopError::OtherLoopRunning);
        };
        match current.as_ref() {
            Some(running) if Rc::ptr_eq(running, worker) => Err(LoopError::Running),
            Some(_) => Err(LoopError::OtherLoopRunning),
            None => {
                *current = Some(ManuallyDrop::new(Rc::clone(worker)));
                Ok(Entered(()))
            }
        }
    })
}

/// Evidence that this thread turns a loop.
#[must_use]
pub(crate) struct Entered(());

impl Drop for Entered {
    fn drop(&mut self) {
        let worker = CURRENT.with(|current| current.borrow_mut().take());
        drop(worker.map(ManuallyDrop::into_inner));
    }
}

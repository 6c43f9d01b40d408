//! Which loop this thread turns just now: the only thread-local of the library.

use std::cell::RefCell;
use std::rc::Rc;

use crate::error::LoopError;
use crate::scheduler::worker::Worker;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Worker>>> = const { RefCell::new(None) };
}

/// Calls `f` with the worker that runs on this thread, if there is one. `f` must not enter or leave
/// a loop.
pub(crate) fn with_current<T>(f: impl FnOnce(Option<&Rc<Worker>>) -> T) -> T {
    let mut f = Some(f);
    let mut call = |worker: Option<&Rc<Worker>>| {
        let f = f.take().expect("called once");
        f(worker)
    };
    // While the thread dies its thread-locals go one by one; then there is no loop any more.
    match CURRENT.try_with(|current| {
        let current = current.borrow();
        call(current.as_ref())
    }) {
        Ok(value) => value,
        Err(_destroyed) => call(None),
    }
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
                *current = Some(Rc::clone(worker));
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
        drop(worker);
    }
}

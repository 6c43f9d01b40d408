//! A callback that is called many times, and may be replaced or removed by anybody meanwhile: by itself,
//! too.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::runtime::local::LocalLoop;

/// The place of one callback of a watcher or a signal.
#[derive(Default)]
pub(crate) struct Repeating(RefCell<State>);

#[derive(Default)]
enum State {
    #[default]
    Empty,
    Set(Box<dyn FnMut()>),
    /// It runs just now. Whoever replaces or removes it meanwhile puts something else here.
    Running,
}

impl Repeating {
    pub(crate) fn is_set(&self) -> bool {
        !matches!(*self.0.borrow(), State::Empty)
    }

    /// Puts `callback` in the place of the one before, which is dropped.
    pub(crate) fn set(&self, callback: Box<dyn FnMut()>) {
        let before = self.0.replace(State::Set(callback));
        drop(before);
    }

    /// Drops the callback; false if there was none.
    pub(crate) fn clear(&self) -> bool {
        let before = self.0.take();
        !matches!(before, State::Empty)
    }

    /// Calls it, if there is one. A panic is reported, and it stays. No borrow is held meanwhile.
    pub(crate) fn call(&self, local: &LocalLoop) {
        let taken = self.0.replace(State::Running);
        let State::Set(mut callback) = taken else {
            self.0.replace(taken);
            return;
        };
        let called = catch_unwind(AssertUnwindSafe(&mut callback));
        if let Err(payload) = called {
            local.report_panic(payload);
        }
        let is_kept = matches!(*self.0.borrow(), State::Running);
        if is_kept {
            self.0.replace(State::Set(callback));
        }
    }
}

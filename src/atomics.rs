//! Where the pure protocols get their atomics from: std, or loom in a build with `--cfg garland_loom`.
//!
//! This is the only file that chooses. Everything in `crate::atomics` behaves alike in both builds, save that
//! under loom nothing of it may live in a `static` or be made in a `const`, and that it may be used
//! only inside a model. Code that is not modelled takes its locks and atomics from std directly.
//!
//! The SeqCst fences of the protocols have names ([`Fence`]), for two reasons: the proofs speak of them by
//! name, and a loom model can take one of them away. A model that does not fail without the fence it is
//! about proves nothing; each model therefore has such mutants (`models/`). In a normal build
//! [`fence_at`] is a SeqCst fence and nothing else.
//!
//! Not here: any SeqCst *access*. The protocols need the order only where a thread writes one place
//! and then reads another, and a fence says exactly where that is.

#[cfg(not(garland_loom))]
#[allow(
    unused_imports,
    reason = "one vocabulary for every pure file, whichever of them are in use"
)]
pub(crate) use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};

#[cfg(garland_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{Ordering, fence},
};

#[cfg(garland_loom)]
pub(crate) use stepwise::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};

/// A flag of std's in both builds: no model has signals, and their handlers know no other.
pub(crate) use std::sync::atomic::AtomicBool as SignalFlag;

/// The SeqCst fences, named as in the proofs. Each stands between a write and a read of the same thread;
/// its partner stands between the mirrored write and read of another thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fence {
    /// Poster: push work; **F1**; read the idle word. Partners: [`Fence::F2`], [`Fence::F1LeaveSearch`].
    F1,
    /// Searcher: leave the search; **F1**; read the queues. Partner: [`Fence::F1`] of a poster that
    /// relied on this searcher.
    F1LeaveSearch,
    /// Parking loop: set the idle bit; **F2**; read the queues. Partner: [`Fence::F1`].
    F2,
    /// Parking loop: publish how long it will sleep; **F3**; read the next deadline. Partner: [`Fence::F5`].
    F3,
    /// Loop that falls asleep without a limit: set the deep bit; **F4**; read the watch and the pulses. Partner:
    /// [`Fence::F4Leave`].
    F4Sleep,
    /// Loop that begins to run: set the pulse, give the watch back; **F4**; read the deep bits. Partner:
    /// [`Fence::F4Sleep`].
    F4Leave,
    /// Inserter of a timer: publish the next deadline; **F5**; read how long the loop sleeps. Partner: [`Fence::F3`].
    F5,
    /// Closer: close the gate; fence; drain the queue. Partner: [`Fence::GatePost`].
    GateClose,
    /// Poster: push; fence; read the gate. Partner: [`Fence::GateClose`].
    GatePost,
}

/// The SeqCst fence called `name`.
#[cfg(not(garland_loom))]
#[inline(always)]
pub(crate) fn fence_at(_name: Fence) {
    fence(Ordering::SeqCst);
}

/// The SeqCst fence called `name`, unless the running model has taken it away.
///
/// loom switches threads at accesses, never at a fence: without more, each fence would stick to the access before
/// it. The store makes the order of the fences something that loom tries in every way; nobody reads it.
#[cfg(garland_loom)]
pub(crate) fn fence_at(name: Fence) {
    if let Some(order) = FENCE_ORDER.with_borrow(Clone::clone) {
        order.store(1, Ordering::Relaxed);
    }
    if REMOVED.get() != Some(name) {
        fence(Ordering::SeqCst);
    }
}

// loom runs all threads of a model on the one thread of its test, so these are settings per model.
#[cfg(garland_loom)]
std::thread_local! {
    /// The fence the running model does without.
    static REMOVED: std::cell::Cell<Option<Fence>> = const { std::cell::Cell::new(None) };
    /// What the fences of the running model store to, so that loom sees them as steps.
    static FENCE_ORDER: std::cell::RefCell<Option<std::rc::Rc<loom::sync::atomic::AtomicU8>>> =
        const { std::cell::RefCell::new(None) };
}

/// Runs `model` in every order of its accesses and of its fences.
#[cfg(all(test, garland_loom))]
pub(crate) fn explore(model: impl Fn() + Send + Sync + 'static) {
    loom::model(move || {
        FENCE_ORDER.set(Some(std::rc::Rc::new(loom::sync::atomic::AtomicU8::new(0))));
        model();
        FENCE_ORDER.set(None);
    });
}

/// Runs `model` with `name` taken out of every protocol.
#[cfg(all(test, garland_loom))]
pub(crate) fn without_fence(name: Fence, model: impl FnOnce()) {
    /// Puts the fence back although the model panics, as it should: the next test may run on this thread.
    struct PutBack;
    impl Drop for PutBack {
        fn drop(&mut self) {
            REMOVED.set(None);
            FENCE_ORDER.set(None);
        }
    }
    REMOVED.set(Some(name));
    let _put_back = PutBack;
    model();
}

/// loom's atomics, with each access made a step of its own.
///
/// loom tries two accesses the other way round only if it takes them to depend on each other, and it asks that
/// about the last access of an atomic alone. A thread that loads and then changes, as each `fetch_update` does,
/// hides behind its own load that another thread has loaded before: no execution in which that thread sees the
/// change is ever tried. The store in front of each access depends on every other such store, so that all
/// orders of the accesses are tried; nobody reads it.
#[cfg(garland_loom)]
mod stepwise {
    use std::ops::Deref;

    use loom::sync::atomic;

    use crate::atomics::Ordering;

    pub(crate) type AtomicBool = Stepwise<atomic::AtomicBool>;
    pub(crate) type AtomicU32 = Stepwise<atomic::AtomicU32>;
    pub(crate) type AtomicU64 = Stepwise<atomic::AtomicU64>;
    pub(crate) type AtomicUsize = Stepwise<atomic::AtomicUsize>;

    #[derive(Debug, Default)]
    pub(crate) struct Stepwise<A> {
        step: atomic::AtomicU8,
        atomic: A,
    }

    impl<A> Stepwise<A> {
        pub(crate) fn new<V>(value: V) -> Self
        where
            A: From<V>,
        {
            Stepwise {
                step: atomic::AtomicU8::new(0),
                atomic: A::from(value),
            }
        }
    }

    impl<A> Deref for Stepwise<A> {
        type Target = A;

        fn deref(&self) -> &A {
            self.step.store(1, Ordering::Relaxed);
            &self.atomic
        }
    }
}

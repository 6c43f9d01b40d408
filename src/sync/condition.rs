//! Waiting, without the lock, until somebody who has the lock says that something changed.

use std::sync::Mutex;

use crate::sync::line::{HasLine, Line, Place, Wake, lock};
use crate::sync::lock::LockGuard;

/// Who waits here has given its [`Lock`](crate::sync::Lock) up, and has it again when it goes on.
///
/// Several conditions may stand beside one lock, but all who wait at one use the same lock. From any
/// loop, and any thread.
///
/// ```
/// # let runtime = garland::Builder::new().loops(2).build()?;
/// use garland::sync::{Condition, Lock};
///
/// let shared = std::sync::Arc::new((Lock::new(0), Condition::new()));
/// runtime.block_on(async {
///     let other = shared.clone();
///     garland::spawn(async move {
///         let (count, changed) = &*other;
///         let mut count = count.lock().await;
///         *count += 3;
///         changed.notify_all(&count);
///     });
///     let (count, changed) = &*shared;
///     let count = changed.wait_for(count.lock().await, |count| *count >= 3).await;
///     assert_eq!(*count, 3);
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Condition {
    state: Mutex<Line<()>>,
}

impl Condition {
    /// One at which nobody waits.
    pub fn new() -> Self {
        Condition::default()
    }

    /// Unlocks, waits for a notice, and locks again.
    ///
    /// Dropping this future, wherever it waits, leaves the lock to others; a notice that it had got is
    /// passed on to the next.
    pub async fn wait<'a, T>(&self, guard: LockGuard<'a, T>) -> LockGuard<'a, T> {
        let lock_again = guard.lock;
        let place = Place::join(&self.state, &mut *lock(&self.state));
        drop(guard);
        place.await;
        let notice = Notice(self);
        let guard = lock_again.lock().await;
        std::mem::forget(notice);
        guard
    }

    /// [Waits](Condition::wait) until `holds` is true of the value; not at all if it is.
    pub async fn wait_for<'a, T>(
        &self,
        mut guard: LockGuard<'a, T>,
        mut holds: impl FnMut(&mut T) -> bool,
    ) -> LockGuard<'a, T> {
        while !holds(&mut guard) {
            guard = self.wait(guard).await;
        }
        guard
    }

    /// Gives notice to the `n` who have waited longest. They go on when they have the lock, which the
    /// caller has: `_held` is the evidence.
    pub fn notify<T>(&self, _held: &LockGuard<'_, T>, n: usize) {
        let mut line = lock(&self.state);
        let n = n.min(line.len());
        let first = (0..n).filter_map(|_| line.grant_first(()).ok());
        let wake = first.fold(Wake::nobody(), Wake::and);
        drop(line);
        wake.now();
    }

    /// Gives notice to all who wait.
    pub fn notify_all<T>(&self, _held: &LockGuard<'_, T>) {
        let wake = lock(&self.state).grant_all(|_| ());
        wake.now();
    }
}

impl HasLine<Condition> for Line<()> {
    type Grant = ();

    fn line(&mut self) -> &mut Line<()> {
        self
    }

    fn pass_on(&mut self, notice: ()) -> Wake {
        self.grant_first(notice).unwrap_or_default()
    }
}

/// A notice whose owner waits for the lock. Dropping it passes it on.
struct Notice<'a>(&'a Condition);

impl Drop for Notice<'_> {
    fn drop(&mut self) {
        let wake = lock(&self.0.state).pass_on(());
        wake.now();
    }
}

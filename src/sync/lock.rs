//! One at a time, in the order of asking.
//!
//! The turn is a permit of a [`Semaphore`] of one, which is fair; the value lies in an async-lock
//! mutex, which only who has the turn ever touches.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::sync::semaphore::{Permit, Semaphore};

/// A value that one task at a time may use, across its awaits.
///
/// Unlocking hands over to who has waited longest; nobody overtakes. Dropping a future of
/// [`lock`](Lock::lock) gives up its place and passes the turn on. From any loop, and any thread.
///
/// ```
/// # let runtime = garland::Builder::new().loops(2).build()?;
/// use garland::sync::Lock;
///
/// let count = std::sync::Arc::new(Lock::new(0));
/// runtime.block_on(async {
///     let adding = (0..10).map(|_| {
///         let count = count.clone();
///         garland::spawn(async move {
///             let mut count = count.lock().await;
///             let before = *count;
///             garland::yield_now().await;
///             *count = before + 1;
///         })
///     });
///     garland::gather(adding).await.expect("none panics");
///     assert_eq!(*count.lock().await, 10);
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "Mutex")]
pub struct Lock<T> {
    turn: Semaphore,
    value: async_lock::Mutex<T>,
}

impl<T> Lock<T> {
    /// An unlocked one.
    pub fn new(value: T) -> Self {
        Lock {
            turn: Semaphore::bounded(1),
            value: async_lock::Mutex::new(value),
        }
    }

    /// Waits for the turn. An unlocked lock is taken without a pause.
    #[doc(alias = "acquire")]
    pub async fn lock(&self) -> LockGuard<'_, T> {
        let turn = self.turn.acquire().await;
        self.open(turn)
    }

    /// The value, if nobody has it.
    pub fn try_lock(&self) -> Option<LockGuard<'_, T>> {
        self.turn.try_acquire().map(|turn| self.open(turn))
    }

    /// True if somebody has it.
    pub fn locked(&self) -> bool {
        self.turn.locked()
    }

    /// The value, without the lock around it.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }

    fn open<'a>(&'a self, turn: Permit<'a>) -> LockGuard<'a, T> {
        let value = self.value.try_lock();
        LockGuard {
            value: value.expect("who has the turn is alone"),
            lock: self,
            _turn: turn,
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lock").field(&self.value).finish()
    }
}

/// The turn at a [`Lock`], and its value. Dropping it hands over to the next.
#[must_use = "dropping it unlocks"]
pub struct LockGuard<'a, T> {
    // The order of the fields is that of their drops: the value is free when the next one comes.
    value: async_lock::MutexGuard<'a, T>,
    pub(super) lock: &'a Lock<T>,
    _turn: Permit<'a>,
}

impl<T> Deref for LockGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for LockGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for LockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LockGuard").field(&**self).finish()
    }
}

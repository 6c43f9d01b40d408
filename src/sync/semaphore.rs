//! So many at a time.
//!
//! A permit that is given back goes to who has waited longest, before anybody else can ask: as long as
//! somebody waits, no permit is free.

use std::sync::{Arc, Mutex};

use crate::sync::line::{HasLine, Line, Place, Wake, lock};

/// Gives out a number of permits, in the order of asking.
///
/// Dropping a future of [`acquire`](Semaphore::acquire) gives up its place, and passes a permit on
/// that was on its way to it. From any loop, and any thread.
///
/// ```
/// # let runtime = garland::Builder::new().loops(2).build()?;
/// use garland::sync::Semaphore;
///
/// let two = Semaphore::new(2);
/// runtime.block_on(async {
///     let _first = two.acquire().await;
///     let second = two.acquire().await;
///     assert!(two.locked() && two.try_acquire().is_none());
///     drop(second);
///     assert!(!two.locked());
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Semaphore {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Zero as long as somebody waits.
    free: usize,
    /// `free` never exceeds it.
    bound: usize,
    line: Line<()>,
}

/// More permits were given back than there had been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverRelease;

impl Semaphore {
    /// With `permits` to begin with; more may be [released](Semaphore::release).
    pub fn new(permits: usize) -> Self {
        Semaphore::with_bound(permits, usize::MAX)
    }

    /// With `permits` to begin with, and never more.
    #[doc(alias = "BoundedSemaphore")]
    pub fn bounded(permits: usize) -> Self {
        Semaphore::with_bound(permits, permits)
    }

    fn with_bound(free: usize, bound: usize) -> Self {
        let line = Line::default();
        Semaphore {
            state: Mutex::new(State { free, bound, line }),
        }
    }

    /// Waits for a permit. One that is free is taken without a pause.
    pub async fn acquire(&self) -> Permit<'_> {
        self.take().await;
        Permit { of: self }
    }

    /// [`acquire`](Semaphore::acquire) for a permit that goes into a task of its own.
    pub async fn acquire_arc(self: Arc<Self>) -> OwnedPermit {
        self.take().await;
        OwnedPermit { of: self }
    }

    /// A permit, if one is free.
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        let is_taken = lock(&self.state).try_take();
        // Not `then_some`: a permit that is made and dropped is given back.
        is_taken.then(|| Permit { of: self })
    }

    /// Adds a permit: one that was [forgotten](Permit::forget), or a new one.
    ///
    /// # Errors
    /// [`OverRelease`] if it is [bounded](Semaphore::bounded) and all its permits are back.
    pub fn release(&self) -> Result<(), OverRelease> {
        let mut state = lock(&self.state);
        if state.free == state.bound {
            return Err(OverRelease);
        }
        let wake = state.pass_on(());
        drop(state);
        wake.now();
        Ok(())
    }

    /// True if no permit is free.
    pub fn locked(&self) -> bool {
        lock(&self.state).free == 0
    }

    async fn take(&self) {
        let place = {
            let mut state = lock(&self.state);
            match state.try_take() {
                true => None,
                false => Some(Place::join(&self.state, &mut *state)),
            }
        };
        if let Some(place) = place {
            place.await;
        }
    }

    fn give_back(&self) {
        let wake = lock(&self.state).pass_on(());
        wake.now();
    }
}

impl State {
    fn try_take(&mut self) -> bool {
        let is_free = self.free > 0;
        self.free -= usize::from(is_free);
        is_free
    }
}

impl HasLine<Semaphore> for State {
    type Grant = ();

    fn line(&mut self) -> &mut Line<()> {
        &mut self.line
    }

    fn pass_on(&mut self, grant: ()) -> Wake {
        self.line.grant_first(grant).unwrap_or_else(|()| {
            self.free += 1;
            Wake::nobody()
        })
    }
}

/// One permit of a [`Semaphore`]; dropping it gives it back.
#[derive(Debug)]
#[must_use = "dropping it gives it back"]
pub struct Permit<'a> {
    of: &'a Semaphore,
}

impl Permit<'_> {
    /// Does not give it back: somebody else will [release](Semaphore::release) it, or nobody.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.of.give_back();
    }
}

/// One permit of a shared [`Semaphore`]; dropping it gives it back.
#[derive(Debug)]
#[must_use = "dropping it gives it back"]
pub struct OwnedPermit {
    of: Arc<Semaphore>,
}

impl Drop for OwnedPermit {
    fn drop(&mut self) {
        self.of.give_back();
    }
}

impl std::fmt::Display for OverRelease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("more permits were released than the semaphore has")
    }
}

impl std::error::Error for OverRelease {}

//! Nobody goes on before all are there.
//!
//! A round is complete in the moment in which the last arrives; who comes later belongs to the next
//! round, even if some of this one have not gone on yet.

use std::fmt;
use std::sync::Mutex;

use crate::sync::line::{HasLine, Line, Place, Wake, lock};

/// Lets tasks go on together, a fixed number at a time.
///
/// Dropping a future of [`wait`](Barrier::wait) frees its place in the round. From any loop, and any
/// thread.
///
/// ```
/// # let runtime = garland::Builder::new().loops(2).build()?;
/// let barrier = std::sync::Arc::new(garland::sync::Barrier::new(3));
/// let mut places = runtime.block_on(async {
///     let parties = (0..3).map(|_| {
///         let barrier = barrier.clone();
///         garland::spawn(async move { barrier.wait().await.expect("nobody breaks it") })
///     });
///     garland::gather(parties).await.expect("none panics")
/// })?;
/// places.sort();
/// assert_eq!(places, [0, 1, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Barrier {
    parties: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    broken: bool,
    /// Those of the present round; each gets its place in it.
    line: Line<Result<usize, BrokenBarrier>>,
}

/// The barrier was reset or aborted while the task waited, or has been aborted before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(alias = "BrokenBarrierError")]
pub struct BrokenBarrier;

impl Barrier {
    /// For `parties` at a time.
    ///
    /// # Panics
    /// If `parties` is zero.
    #[track_caller]
    pub fn new(parties: usize) -> Self {
        assert!(parties > 0, "a barrier is for one at least");
        Barrier {
            parties,
            state: Mutex::default(),
        }
    }

    /// Waits until the round is complete; the last to arrive does not wait. Returns the place in the
    /// order of arrival, from 0: each exactly once in a round.
    ///
    /// # Errors
    /// [`BrokenBarrier`] after an [`abort`](Barrier::abort), and if there is a
    /// [`reset`](Barrier::reset) meanwhile.
    pub async fn wait(&self) -> Result<usize, BrokenBarrier> {
        let place = {
            let mut state = lock(&self.state);
            if state.broken {
                return Err(BrokenBarrier);
            }
            let before = state.line.len();
            if before + 1 == self.parties {
                let wake = state.line.grant_all(Ok);
                drop(state);
                wake.now();
                return Ok(before);
            }
            Place::join(&self.state, &mut *state)
        };
        place.await
    }

    /// Fails all who wait, and begins anew; an aborted barrier is whole again.
    pub fn reset(&self) {
        self.fail_all(false);
    }

    /// Fails all who wait, and all who come, until a [`reset`](Barrier::reset).
    pub fn abort(&self) {
        self.fail_all(true);
    }

    /// How many make a round.
    pub fn parties(&self) -> usize {
        self.parties
    }

    /// How many wait for the present round to be complete.
    pub fn n_waiting(&self) -> usize {
        lock(&self.state).line.len()
    }

    /// True after an [`abort`](Barrier::abort).
    pub fn broken(&self) -> bool {
        lock(&self.state).broken
    }

    fn fail_all(&self, broken: bool) {
        let mut state = lock(&self.state);
        state.broken = broken;
        let wake = state.line.grant_all(|_| Err(BrokenBarrier));
        drop(state);
        wake.now();
    }
}

impl HasLine<Barrier> for State {
    type Grant = Result<usize, BrokenBarrier>;

    fn line(&mut self) -> &mut Line<Self::Grant> {
        &mut self.line
    }

    /// The round is over, whether its parties go on or not.
    fn pass_on(&mut self, _: Self::Grant) -> Wake {
        Wake::nobody()
    }
}

impl fmt::Display for BrokenBarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the barrier is broken")
    }
}

impl std::error::Error for BrokenBarrier {}

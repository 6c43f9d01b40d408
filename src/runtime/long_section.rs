//! Announcing a stretch of code that holds its loop for long.

use std::marker::PhantomData;
use std::rc::Rc;

use crate::scheduler::{self, Worker};

/// Says that what follows will hold this loop for long: a parked loop serves its sockets and timers from now on, without
/// waiting until it is found stuck. Ends when the guard is dropped; hold it over code that computes, not over an
/// `.await`.
///
/// It is a hint. A loop that is stuck unannounced is found after half a millisecond, and served alike, but
/// [reported](crate::Builder::stuck_after) if that lasts; with
/// [`Builder::rescue`](crate::Builder::rescue) off, with one loop, or outside of a loop, it does nothing.
///
/// ```
/// # let runtime = garland::Builder::new().loops(2).pin(garland::Pin::Off).build()?;
/// let digest = runtime.block_on(async {
///     let _long = garland::long_section();
///     (0..1_000_000u64).fold(7, |digest, n| digest ^ n.rotate_left(13))
/// })?;
/// # assert_ne!(digest, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn long_section() -> LongSection {
    let worker = scheduler::current();
    if let Some(worker) = &worker {
        worker.announce_long();
    }
    LongSection {
        worker,
        _not_send: PhantomData,
    }
}

/// The stretch announced by [`long_section`]; ends when it is dropped. Not `Send`: it is about the loop on which it
/// was made.
#[derive(Debug)]
#[must_use = "the long section ends when this is dropped"]
pub struct LongSection {
    worker: Option<Rc<Worker>>,
    _not_send: PhantomData<*const ()>,
}

impl Drop for LongSection {
    fn drop(&mut self) {
        if let Some(worker) = &self.worker {
            worker.end_long();
        }
    }
}

//! A flag that tasks can wait for.

use std::sync::Mutex;

use crate::sync::line::{HasLine, Line, Place, Wake, lock};

/// Set or not; who waits for it to be set is woken in order.
///
/// From any loop, and any thread. Dropping a future of [`wait`](Event::wait) loses nothing.
///
/// ```
/// # let runtime = garland::Builder::new().loops(2).build()?;
/// let ready = std::sync::Arc::new(garland::sync::Event::new());
/// runtime.block_on(async {
///     let setter = ready.clone();
///     garland::spawn(async move { setter.set() });
///     ready.wait().await;
///     assert!(ready.is_set());
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Event {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_set: bool,
    line: Line<()>,
}

impl Event {
    /// One that is not set.
    pub fn new() -> Self {
        Event::default()
    }

    /// Sets it: all who wait now go on, even if it is cleared before they do.
    pub fn set(&self) {
        let mut state = lock(&self.state);
        state.is_set = true;
        let wake = state.line.grant_all(|_| ());
        drop(state);
        wake.now();
    }

    /// Who waits from now on waits for the next [`set`](Event::set).
    pub fn clear(&self) {
        lock(&self.state).is_set = false;
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        lock(&self.state).is_set
    }

    /// Waits until it is set; if it is, without a pause.
    pub async fn wait(&self) {
        let place = {
            let mut state = lock(&self.state);
            match state.is_set {
                true => None,
                false => Some(Place::join(&self.state, &mut *state)),
            }
        };
        if let Some(place) = place {
            place.await;
        }
    }
}

impl HasLine<Event> for State {
    type Grant = ();

    fn line(&mut self) -> &mut Line<()> {
        &mut self.line
    }

    /// All who waited have one of their own.
    fn pass_on(&mut self, (): ()) -> Wake {
        Wake::nobody()
    }
}

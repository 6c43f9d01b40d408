//! Tasks with a name.

use std::future::Future;
use std::panic::Location;
use std::sync::Arc;

use crate::runtime::handle::LoopHandle;
use crate::runtime::local::LocalLoop;
use crate::task::info::Origin;
use crate::task::join::JoinHandle;

/// Spawns tasks that are called by a name in reports, in [`current_task`](crate::current_task) and in
/// [`all_tasks`](LoopHandle::all_tasks). Without one a task is called `Task-N`.
///
/// ```
/// # let runtime = garland::Builder::new().loops(1).build()?;
/// runtime.block_on(async {
///     let _sweeper = garland::TaskBuilder::new().name("sweeper").spawn(std::future::pending::<()>());
///     let _nameless = garland::spawn(std::future::pending::<()>());
///     let names = |handle: &garland::LoopHandle| -> Vec<String> {
///         handle.all_tasks().iter().map(|task| task.to_string()).collect()
///     };
///     assert_eq!(names(runtime.handle()), ["sweeper", "Task-2"]);
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct TaskBuilder {
    name: Option<Arc<str>>,
}

impl TaskBuilder {
    /// Spawns as the plain functions do.
    pub fn new() -> Self {
        TaskBuilder::default()
    }

    /// What its tasks are called.
    #[doc(alias = "set_name")]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// As [`garland::spawn`](crate::spawn).
    ///
    /// # Panics
    /// Outside a loop: use [`spawn_with`](TaskBuilder::spawn_with) there.
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let handle = LoopHandle::current();
        let handle = handle.expect("spawn() is called inside a loop; elsewhere use spawn_with()");
        self.spawn_with(&handle, future)
    }

    /// As [`LoopHandle::spawn`].
    #[track_caller]
    pub fn spawn_with<F>(&self, handle: &LoopHandle, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        handle.home().spawn(future, self.origin(Location::caller()))
    }

    /// As [`LoopHandle::spawn_on`].
    #[track_caller]
    pub fn spawn_on<M, F>(&self, handle: &LoopHandle, make: M) -> JoinHandle<F::Output>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        let origin = self.origin(Location::caller());
        handle.home().spawn_made_here(make, origin)
    }

    /// As [`LocalLoop::spawn_local`].
    #[track_caller]
    pub fn spawn_local<F>(&self, local: &LocalLoop, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let worker = local.worker();
        let origin = self.origin(Location::caller());
        worker.home().spawn_bound(worker, future, origin)
    }

    fn origin(&self, location: &'static Location<'static>) -> Origin {
        Origin {
            location,
            name: self.name.clone(),
        }
    }
}

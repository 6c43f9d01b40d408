//! What is known of a task apart from its future: its id, its name, and where it was spawned.
//!
//! A task that was given no name costs nothing for it; it is called by its id.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use crate::task::join::TaskId;

/// Where a task was spawned, and what it is to be called.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) location: &'static Location<'static>,
    pub(crate) name: Option<Arc<str>>,
}

impl From<&'static Location<'static>> for Origin {
    fn from(location: &'static Location<'static>) -> Self {
        Origin {
            location,
            name: None,
        }
    }
}

/// Where a live task stands in the list of its home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskKey {
    pub(crate) id: TaskId,
    /// Its place there, which it leaves to another one when it ends.
    pub(crate) place: usize,
}

/// One live task, as [`current_task`](crate::current_task) and
/// [`all_tasks`](crate::LoopHandle::all_tasks) show it.
///
/// A record taken at one moment: it keeps no task alive and leads to none.
///
/// ```
/// # let runtime = garland::Builder::new().loops(1).build()?;
/// let task = garland::TaskBuilder::new().name("greeter");
/// let name = runtime.block_on(async {
///     let task = task.spawn(async { garland::current_task().map(|task| task.to_string()) });
///     task.await.expect("did not panic")
/// })?;
/// assert_eq!(name.as_deref(), Some("greeter"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct TaskInfo {
    pub(crate) key: TaskKey,
    pub(crate) origin: Origin,
}

impl TaskInfo {
    /// The id that its handle shows, too.
    pub fn id(&self) -> TaskId {
        self.key.id
    }

    /// The name it was given, or `Task-N` with the number of its id.
    #[doc(alias = "get_name")]
    pub fn name(&self) -> Cow<'_, str> {
        match &self.origin.name {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(self.id().to_string()),
        }
    }

    /// The line that spawned it.
    pub fn spawned_at(&self) -> &'static Location<'static> {
        self.origin.location
    }
}

impl fmt::Display for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

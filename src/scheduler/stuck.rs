//! A loop that is stuck is named: which one, for how long, what it runs, and who serves its sockets meanwhile.
//!
//! [`rescue`](crate::scheduler::rescue) finds it, in a look at the pulses. The report is made as an entry of the
//! finder's ready queue, because it runs foreign code: the log's subscriber, and the program's hook.
//!
//! Nothing is reported twice: a stretch belongs to the first loop that claims it. What runs is read from the pulse, the
//! rest from the list of members: a step costs its loop one plain store for it.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::atomics::Ordering;
use crate::scheduler::pulse::Beat;
use crate::scheduler::ready::Handle;
use crate::scheduler::shared::{LoopId, Remote};
use crate::scheduler::worker::Worker;
use crate::task::TaskId;
use crate::task::info::TaskInfo;

/// A loop that has been in one callback, or one step of a task, for too long. What
/// [`Builder::on_stuck`](crate::Builder::on_stuck) is told; it displays as one line.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StuckReport {
    /// The loop that is stuck.
    pub loop_id: LoopId,
    /// The loop that found it, and serves its sockets and timers.
    pub rescuer: LoopId,
    /// For how long, at least: since the first look that saw it so.
    pub lasted: Duration,
    /// The task whose step it is in; `None` if it is in a callback.
    pub task_id: Option<TaskId>,
    /// What is known of that task; `None` as well if it has given its result already, and is being dropped.
    pub task: Option<TaskInfo>,
}

impl fmt::Display for StuckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is stuck for {:?} in ", self.loop_id, self.lasted)?;
        match (&self.task, self.task_id) {
            (Some(task), _) => write!(f, "a step of {task} spawned at {}", task.spawned_at())?,
            (None, Some(id)) => write!(f, "the last step of {id}")?,
            (None, None) => f.write_str("a callback")?,
        }
        write!(f, "; {} serves its sockets and timers", self.rescuer)
    }
}

/// What a program wants to have called.
#[derive(Clone)]
pub(crate) struct OnStuck(Arc<dyn Fn(&StuckReport) + Send + Sync>);

impl OnStuck {
    pub(crate) fn new(hook: impl Fn(&StuckReport) + Send + Sync + 'static) -> Self {
        OnStuck(Arc::new(hook))
    }
}

impl fmt::Debug for OnStuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnStuck")
    }
}

impl Remote {
    /// `lasted`: nanoseconds without a beat.
    pub(super) fn is_out_of_patience(&self, lasted: u64) -> bool {
        lasted >= self.patience.load(Ordering::Relaxed)
    }
}

impl Worker {
    /// By a loop that has looked at loop `id` and seen nothing but `beat` for too long.
    #[cold]
    pub(super) fn report_stuck(&self, id: usize, beat: Beat, lasted: Duration) {
        let loops = &self.shared().loops;
        let stuck = &loops[id];
        let task_id = stuck.pulse.task(beat).map(TaskId);
        if !stuck.pulse.look().is_same(beat) || !stuck.pulse.claim_report(beat) {
            return;
        }
        stuck.n_stuck.fetch_add(1, Ordering::Relaxed);
        let report = StuckReport {
            loop_id: LoopId(id),
            rescuer: LoopId(self.id()),
            lasted,
            task_id,
            task: task_id.and_then(|task| self.shared().lister_of(task).members.find(task)),
        };
        self.push_ready(Handle::Visit(Box::new(move |worker| worker.tell(&report))));
    }

    fn tell(self: &Rc<Self>, report: &StuckReport) {
        self.catch(|| tracing::warn!("{report}"));
        if let Some(OnStuck(hook)) = &self.shared().on_stuck {
            hook(report);
        }
    }
}

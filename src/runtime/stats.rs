//! What the loops have done, as plain records taken at one moment.
//!
//! Each number is exact; numbers of different loops are read one after the other, so sums over a
//! running runtime may be a few steps apart.

use crate::atomics::Ordering;
use crate::runtime::LoopId;
use crate::scheduler::Shared;

/// The statistics of a runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuntimeStats {
    /// One record for each loop.
    pub loops: Vec<LoopStats>,
}

/// The statistics of one loop since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoopStats {
    /// Which loop.
    pub id: LoopId,
    /// Whether it sleeps in its selector now.
    pub is_parked: bool,
    /// Turns made.
    pub turns: u64,
    /// Polls of the selector: system calls.
    pub polls: u64,
    /// Readiness events taken from the selector.
    pub events: u64,
    /// Entries of the ready queue that ran: callbacks, sockets, steps of loop-bound tasks.
    pub handles_run: u64,
    /// Steps of tasks that ran here, of both kinds. A step counts twice if it lets others receive before it sends.
    pub tasks_run: u64,
    /// Panics caught in callbacks. Panics of tasks are in `tasks_panicked`.
    pub callback_panics: u64,
    /// Messages taken from the inbox.
    pub messages: u64,
    /// Timers fired.
    pub timers_fired: u64,
    /// Times the loop went to sleep in its selector.
    pub parks: u64,
    /// Times it searched the other loops for work.
    pub searches: u64,
    /// Tasks it took from other loops.
    pub tasks_stolen: u64,
    /// Tasks that other loops took from it.
    pub tasks_stolen_from: u64,
    /// Times it turned the driver of a loop that was stuck.
    pub rescues: u64,
    /// Times it was itself in one callback, or one step of a task, for longer than
    /// [`Builder::stuck_after`](crate::Builder::stuck_after), and another loop saw it.
    pub n_stuck: u64,
    /// Times it woke another loop.
    pub unparks_sent: u64,
    /// Times it was woken by another loop or thread.
    pub unparks_received: u64,
    /// Tasks spawned from this loop, or for it.
    pub tasks_spawned: u64,
    /// Of those, the ones that gave a result.
    pub tasks_finished: u64,
    /// Of those, the ones that were cancelled.
    pub tasks_cancelled: u64,
    /// Of those, the ones that panicked.
    pub tasks_panicked: u64,
    /// Of those, the ones that still live.
    pub tasks_live: u64,
    /// Sockets of movable tasks registered with its selector now.
    pub sockets_registered: u64,
    /// Timers armed now.
    pub timers_armed: u64,
}

impl RuntimeStats {
    pub(crate) fn of(shared: &Shared) -> Self {
        let ids = 0..shared.loops.len();
        RuntimeStats {
            loops: ids.map(|id| LoopStats::of(id, shared)).collect(),
        }
    }

    /// The sum of one number over all loops.
    ///
    /// ```
    /// # let runtime = garland::Builder::new().loops(1).build()?;
    /// runtime.block_on(async { garland::spawn(async {}).await })?.expect("did not panic");
    /// assert_eq!(runtime.stats().total(|one| one.tasks_finished), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn total(&self, of: impl Fn(&LoopStats) -> u64) -> u64 {
        self.loops.iter().map(of).sum()
    }
}

impl LoopStats {
    fn of(id: usize, shared: &Shared) -> Self {
        let remote = &shared.loops[id];
        let counters = &remote.counters;
        let ledger = remote.members.ledger();
        LoopStats {
            id: LoopId(id),
            is_parked: shared.idle.is_idle(id),
            turns: counters.turns.get(),
            polls: counters.polls.get(),
            events: counters.events.get(),
            handles_run: counters.handles_run.get(),
            tasks_run: counters.tasks_run.get(),
            callback_panics: counters.callback_panics.get(),
            messages: counters.messages.get(),
            timers_fired: counters.timers_fired.get(),
            parks: counters.parks.get(),
            searches: counters.searches.get(),
            tasks_stolen: counters.stolen.get(),
            tasks_stolen_from: remote.n_stolen_from.load(Ordering::Relaxed),
            rescues: counters.rescues.get(),
            n_stuck: remote.n_stuck.load(Ordering::Relaxed),
            unparks_sent: counters.unparks_sent.get(),
            unparks_received: remote.unparks_received.load(Ordering::Relaxed),
            tasks_spawned: ledger.joined,
            tasks_finished: ledger.finished,
            tasks_cancelled: ledger.cancelled,
            tasks_panicked: ledger.panicked,
            tasks_live: ledger.live,
            sockets_registered: remote.driver.slots().len() as u64,
            timers_armed: remote.driver.timers_armed() as u64,
        }
    }
}

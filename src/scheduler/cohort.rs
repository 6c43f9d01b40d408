//! Receives first: where many requests wait, several are received before the first of them is answered.
//!
//! This is cohort scheduling (Larus and Parkes, *Using Cohort Scheduling to Enhance Server Performance*, USENIX ATC 2002):
//! steps of the same kind are made one behind the other. A receive and a send go through different code of the kernel, more
//! of it than a first-level cache holds, and in turns each finds itself evicted by the other. What it is worth stands
//! in `docs/MEASURING.md`.
//!
//! - *Tasks.* The first send behind a receive goes to the end of the queue once, as by [`yield_now`](crate::yield_now)
//!   (`net/stream.rs`). Nothing is kept back: the task can be stolen and cancelled there as anywhere.
//! - *Callbacks.* The connections of a poll receive into parts of one buffer, then each is told (`news.rs`); what the first
//!   do to the others in between holds as ever (`transport/reading.rs`).
//!
//! An answer is later then by the receives of a few others, some ten microseconds, and the last of them is not
//! later at all. Steps that take longer keep their order, for there an answer would wait for the others' work. The size of a
//! cohort is bounded by [`events_idle`](crate::TurnBudget::events_idle): from 32 receives in a row on, the kernel interrupts
//! the processor that sent them to have their buffers freed, 1.2 to 1.5 per cent of the CPU time of an echo server.

use crate::scheduler::worker::Worker;

/// Fewer are not worth it. In a server in C, cohorts of 8 gained half of what cohorts of 32 did.
const COHORT: usize = 8;
/// A step that takes longer does something besides receiving and sending.
const QUICK_NS: u64 = 10_000;

impl Worker {
    /// Whether so many steps should receive before any of them sends.
    pub(super) fn is_cohort(&self, steps: usize) -> bool {
        steps >= COHORT && self.remote().step_time.is_below(QUICK_NS)
    }
}

//! L0: locks, events and queues for tasks, re-exported where a kept crate has the semantics.

//! The library as its users see it: one test binary, one module per situation.
//!
//! A test's name is a claim; where it proves a row of the conformance table it begins with the row
//! (`time_04_...`). Nothing here sleeps to be lucky: a test turns a manual clock, or waits for what
//! it needs with a bound and fails with a dump of the loops' numbers. Every test ends with the
//! ledger at zero.
#![allow(
    clippy::disallowed_methods,
    reason = "tests stand outside of the loops: they may start, stop and time threads"
)]

mod support;
mod timers;
mod tasks;
mod log;
mod panics;
mod failures;
mod callbacks;
mod stealing;
mod stuck_loop;
mod relieved;
mod stuck_storm;
mod wakeups;
mod shutdown;
mod hosted;
mod life;
mod debug;
mod many_loops;
mod regressions;
mod blocking;

mod futures;
mod identity;
mod combinators;
mod deadlines;
mod groups;
mod sync;
mod queues;

mod sockets;
mod wire;
mod tcp;
mod watch;
mod watch_refusals;
mod sock;
mod signals;
mod interrupts;
mod transports;
mod protocols;
mod buffered;
mod pipes;
mod faults;
mod streams;
mod stream_reads;
mod servers;
mod listening;
mod placement;
mod connections;
mod unix;
mod descriptors;
mod churn;
mod cohorts;
mod regressions_net;
mod udp;
mod udp_loops;
mod udp_options;

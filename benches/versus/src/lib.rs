//! What the servers and the driver of this comparison share.
//!
//! The question: how much CPU time does one echoed request cost on garland, beside tokio and beside
//! a bare mio loop on the same core at the same moment? `README.md` says how to run it and how to
//! read the answer.
//!
//! - [`serving`]: the frame of every server: pin, announce the port, end with stdin
//! - [`generator`]: the closed-loop client that verifies every byte
//! - [`datagrams`]: the same for UDP
//! - [`process`]: a server as a child process, from its first line to its exit
//! - [`usage`]: what the kernel says a process has consumed
//! - [`measure`]: one window of load on one server, and the memory of idle connections
//! - [`table`]: pure: from measured windows to medians, per-round ratios and text
//!
//! Deliberately absent: open-loop load and latency (the `loadgen` package measures those) and more
//! than one loop (stealing has its own benchmark).

pub mod datagrams;
pub mod generator;
pub mod measure;
pub mod process;
pub mod serving;
pub mod table;
pub mod usage;

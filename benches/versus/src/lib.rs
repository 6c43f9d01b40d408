//! What the servers and the driver of this comparison share.
//!
//! Two questions: how much CPU time does one echoed request cost on garland, beside other runtimes and beside
//! a bare mio loop on the same core at the same moment? And how long do the slowest requests take when
//! requests are work, or one of them holds a loop? `README.md` says how to run it and how to read the answers.
//!
//! - [`serving`]: the frame of every server: pin, announce the port, end with stdin
//! - [`spin`]: requests that ask for CPU time
//! - [`contenders`]: who is compared; [`building`]: what could not be built here
//! - [`process`]: a server as a child process, from its first line to its exit
//! - [`usage`]: what the kernel says a process has consumed
//! - [`machine`]: where, when and of what a measurement was taken
//!
//! Echo:
//! - [`generator`]: the closed-loop client that verifies every byte
//! - [`datagrams`]: the same for UDP
//! - [`measure`]: one window of load on one server, and the memory of idle connections
//! - [`table`]: pure: from measured windows to medians, per-round ratios and text
//!
//! Work:
//! - [`trace`]: pure: what is sent when, drawn beforehand
//! - [`ideal`]: pure: what a trace would see of an ideal queue
//! - [`open_loop`]: the client that sends a trace whatever the server does
//! - [`skew`]: the tail of one trace on one server; [`hog`]: one loop held for seconds
//! - [`latency_table`]: pure: their tables
//!
//! [`chart`]: pure: all of it as SVG

pub mod building;
pub mod chart;
pub mod contenders;
pub mod datagrams;
pub mod generator;
pub mod hog;
pub mod ideal;
pub mod latency_table;
pub mod machine;
pub mod measure;
pub mod open_loop;
pub mod process;
pub mod serving;
pub mod skew;
pub mod spin;
pub mod table;
pub mod trace;
pub mod usage;

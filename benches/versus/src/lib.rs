//! What the servers and the driver of this comparison share.
//!
//! Two questions above all: how much CPU time does one echoed request cost on garland, beside other runtimes and beside
//! a bare mio loop on the same core at the same moment? And how long do the slowest requests take when
//! requests are work, or one of them holds a loop? `README.md` says how to run it and how to read the answers.
//!
//! - [`serving`]: the frame of every server: pin, announce the port, end with stdin
//! - [`spin`]: requests that ask for CPU time
//! - [`contenders`]: who is compared; [`building`]: what could not be built here
//! - [`process`]: a server as a child process, from its first line to its exit
//! - [`usage`]: what the kernel says a process has consumed
//! - [`machine`]: where, when and of what a measurement was taken
//! - [`options`]: what a run is to do; [`record`]: all it has measured, as tables, chart and JSON
//! - [`table`]: pure: figures with their spread, and tables as text and as Markdown
//!
//! Echo:
//! - [`generator`]: the closed-loop client that verifies every byte
//! - [`datagrams`]: the same for UDP
//! - [`measure`]: one window of load on one server, and the memory of idle connections
//! - [`paced`]: the same client at a fixed rate; [`timetable`]: pure: when its requests are due
//! - [`echo_table`]: pure: from measured windows to medians, per-round ratios and tables
//! - [`syscalls`]: what a request costs in system calls; [`idle`]: how often a process wakes that has nothing to do
//!
//! Work:
//! - [`trace`]: pure: what is sent when, drawn beforehand
//! - [`ideal`]: pure: what a trace would see of an ideal queue
//! - [`open_loop`]: the client that sends a trace whatever the server does
//! - [`skew`]: the tail of one trace on one server; [`hog`]: one loop held for seconds
//! - [`latency_table`]: pure: their tables
//!
//! Parts:
//! - [`parts`]: the questions, what a task, a message, a timer costs; [`parties`]: the runtimes that are asked
//!
//! [`chart`]: pure: the medians of each test, as SVG and as Markdown

pub mod building;
pub mod chart;
pub mod contenders;
pub mod datagrams;
pub mod echo_table;
pub mod generator;
pub mod hog;
pub mod ideal;
pub mod idle;
pub mod latency_table;
pub mod machine;
pub mod measure;
pub mod open_loop;
pub mod options;
pub mod paced;
pub mod parties;
pub mod parts;
pub mod process;
pub mod record;
pub mod serving;
pub mod skew;
pub mod spin;
pub mod syscalls;
pub mod table;
pub mod timetable;
pub mod trace;
pub mod usage;

//! garland: a server runtime of one event loop per pinned core, strung together like a garland.
//!
//! Each loop has its own selector, timer wheel, queues and listeners; idle loops take movable tasks
//! from busy ones. The concepts are those of PEP 3156 and today's asyncio (`call_soon`, `call_later`,
//! futures, tasks, transports, protocols), kept to the letter *per loop* for loop-bound work. No
//! `unsafe` code.
#![cfg_attr(not(target_os = "linux"), allow(unused))]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!(
    "garland runs on 64-bit Linux; a port needs driver/selector.rs (timer descriptor) and \
     runtime/affinity.rs"
);

mod atomics;
mod config;
mod error;

mod driver;
mod task;

mod scheduler;

mod runtime;

mod time;

mod net;

mod transport;

#[cfg(all(test, garland_loom))]
mod models;

pub use crate::config::{Pin, TurnBudget};
pub use crate::driver::clock::ManualClock;
pub use crate::error::{BuildError, LoopError, NetError, TimedOut};
pub use crate::net::{
    ListenOptions, ReadHalf, Server, ServerStats, TcpListener, TcpStream, WriteHalf,
};
pub use crate::runtime::{
    BackgroundRuntime, Builder, CallHandle, LocalLoop, LoopHandle, LoopId, LoopStats, Runtime,
    RuntimeStats, ShutdownReport, ThreadsafeCallHandle, TimerHandle, spawn, spawn_local,
};
pub use crate::task::join::{JoinError, JoinHandle, TaskId};
pub use crate::task::yield_now::{YieldNow, yield_now};
pub use crate::time::{Interval, Sleep, Timeout, interval, sleep, sleep_until, timeout};
pub use crate::transport::{AfterEof, InvalidLimits, Protocol, Transport, WriteLimits};

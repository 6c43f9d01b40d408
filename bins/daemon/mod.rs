//! The echo daemon as a library: what `echod` runs, and what `loadgen demo` starts.
//!
//! In the order of a start: [`cli`] reads the arguments; `document`, `read` and [`settings`] make settings
//! of the file; [`lifecycle`] starts the loops, and on them the `services`, `udp_echo` and `tcp_spin`, and beside them
//! the `admin` port; and it stops them again.
//! It is a library only so that [`demo`] can measure the daemon's own echo and tests can read settings.
//!
//! Everything sees the runtime through garland's public API only.

pub mod cli;
mod document;
mod units;
pub mod settings;
mod read;
mod print;
mod machine;
mod tally;
mod services;
mod udp_echo;
mod tcp_spin;
mod http;
mod metrics;
mod admin;
pub mod lifecycle;
pub mod demo;

pub use crate::{document::Problems, units::ByteSize};

//! The echo daemon as a library: what `echod` runs, and what `loadgen demo` starts.
//!
//! In the order of a start: [`cli`] reads the arguments, `document`, `read` and [`settings`] make settings of the file.
//! Everything sees the runtime through garland's public API only.

pub mod cli;
mod document;
mod machine;
mod print;
mod read;
pub mod settings;
mod units;

pub use crate::{document::Problems, units::ByteSize};

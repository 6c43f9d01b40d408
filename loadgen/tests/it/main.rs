//! The binary `loadgen` from outside: what it prints, writes and exits with against servers whose
//! behaviour is known.
//!
//! The servers are a few lines of std threads each, written here: nothing of the runtime that
//! loadgen is there to measure.

mod demo;
mod faults;
mod compare;
mod files;
mod find_max;
mod foreign;
mod merge;
mod open_loop;
mod options;
mod page;
mod refusals;
mod results;
mod stored;
mod support;
mod udp;

//! Ctrl-C and SIGTERM: the first ends the run early and its results are reported, the second ends
//! the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Exit status of a process ended by a second signal: what shells give for one that died of SIGINT.
const KILLED: i32 = 130;

/// Set by the signal handler, read by the main thread and by every generator thread between two
/// polls.
///
/// It carries no other memory with it, so reading it needs no ordering.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes over SIGINT and SIGTERM of this process.
    pub(crate) fn install() -> io::Result<Interrupt> {
        let interrupt = Interrupt::default();
        for signal in [SIGINT, SIGTERM] {
            // Actions run in the order of registration: the first signal finds the flag unset and
            // sets it, the second finds it set. The other way round the first would already end the
            // process.
            flag::register_conditional_shutdown(signal, KILLED, Arc::clone(&interrupt.0))?;
            flag::register(signal, Arc::clone(&interrupt.0))?;
        }
        Ok(interrupt)
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

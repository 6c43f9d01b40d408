//! What to do with an error of accept, and how often to try.
//!
//! Linux hands network errors of a connection that never came to be to `accept`; they concern nobody.
//! Out of descriptors or memory, the connection stays in the kernel's queue and an edge-triggered
//! selector says nothing more about it, so the listener is tried again by a timer: 10 ms, doubling to
//! a second.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

/// Connections accepted by one listener in one turn; then the others have theirs. HAProxy takes 4,
/// nginx 1 or all, asyncio 100.
pub(crate) const ACCEPTS_PER_TURN: usize = 16;

/// How long a listener rests at the limit of connections before it looks again.
pub(crate) const FULL_PAUSE: Duration = Duration::from_millis(10);

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What an error of accept means for the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum AcceptError {
    /// Nothing is waiting.
    WouldBlock,
    /// That connection is gone; take the next.
    Next,
    /// No descriptors or no memory: wait before the next attempt.
    Pause,
    /// The listener itself is broken.
    Fatal,
}

impl AcceptError {
    pub(crate) fn of(error: &io::Error) -> Self {
        let Some(errno) = Errno::from_io_error(error) else {
            return AcceptError::Next;
        };
        match errno {
            Errno::WOULDBLOCK => AcceptError::WouldBlock,
            // Limits of the process, of the system, of the kernel's memory.
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => AcceptError::Pause,
            // Not an open descriptor, not a socket, not listening, not our memory.
            Errno::BADF | Errno::NOTSOCK | Errno::INVAL | Errno::FAULT => AcceptError::Fatal,
            // Interrupted, aborted by the client, forbidden by a firewall rule, or an error of the
            // network that was pending on the new connection (accept(2) lists them).
            _ => AcceptError::Next,
        }
    }
}

/// The errors of one server, counted by their number. They are rare: a lock costs nobody anything.
#[derive(Debug, Default)]
pub(crate) struct AcceptErrors(Mutex<BTreeMap<i32, u64>>);

impl AcceptErrors {
    pub(crate) fn count(&self, error: &io::Error) {
        // One without a number is the library's own; there is none so far.
        let errno = error.raw_os_error().unwrap_or(0);
        *self.lock().entry(errno).or_default() += 1;
    }

    pub(crate) fn by_number(&self) -> Vec<(i32, u64)> {
        let errors = self.lock();
        errors.iter().map(|(errno, n)| (*errno, *n)).collect()
    }

    pub(crate) fn sum(&self) -> u64 {
        self.lock().values().sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The growing pause between attempts while resources are short.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new() -> Self {
        Backoff { next: FIRST_PAUSE }
    }

    pub(crate) fn take(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST_PAUSE);
        pause
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }
}

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use std::io;
    use std::time::Duration;

    use rustix::io::Errno;

    use crate::net::accept::{AcceptError, Backoff};

    #[test]
    fn errors_of_a_connection_that_never_came_concern_nobody() {
        let pending = [
            Errno::NETDOWN,
            Errno::PROTO,
            Errno::NOPROTOOPT,
            Errno::HOSTDOWN,
            Errno::NONET,
            Errno::HOSTUNREACH,
            Errno::OPNOTSUPP,
            Errno::NETUNREACH,
            Errno::CONNABORTED,
            Errno::INTR,
            Errno::PERM,
        ];
        for errno in pending {
            let error = io::Error::from(errno);
            assert_eq!(AcceptError::of(&error), AcceptError::Next, "{errno}");
        }
    }

    #[test]
    fn shortage_pauses_and_a_broken_listener_is_fatal() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert_eq!(AcceptError::of(&errno.into()), AcceptError::Pause);
        }
        for errno in [Errno::BADF, Errno::NOTSOCK, Errno::FAULT] {
            assert_eq!(AcceptError::of(&errno.into()), AcceptError::Fatal);
        }
    }

    #[test]
    fn pauses_double_up_to_a_second() {
        let mut backoff = Backoff::new();
        let pauses: Vec<u128> = (0..9).map(|_| backoff.take().as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.take(), Duration::from_millis(10));
    }
}

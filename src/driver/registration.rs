//! A socket of a movable task, registered with the loop that polled the task when it was made.
//!
//! The registration never moves: the next event is found by the same loop, and the wake-up goes
//! through the task's waker to wherever the task is queued (MC-06). Dropping it deregisters and
//! then closes the socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use mio::unix::SourceFd;

use crate::driver::readiness::{Interest, Look, Readiness, Ready};
use crate::driver::slots::{Source, SourceKey, Target};
use crate::driver::{Driver, WatchWrites};

/// A socket with its slot.
#[derive(Debug)]
pub(crate) struct Registration<S: AsFd> {
    // First: a socket is deregistered before it is closed.
    slot: HeldSlot,
    io: S,
}

/// A slot with what is known of its socket. Dropping it deregisters the socket, which is open still.
#[derive(Debug)]
struct HeldSlot {
    fd: RawFd,
    key: SourceKey,
    source: Arc<Source>,
    driver: Arc<Driver>,
}

/// How much of what was asked for an operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it: there may be more.
    Full,
    /// Less: the kernel had no more just then.
    Short,
}

impl<S: AsFd> Registration<S> {
    /// Registers a non-blocking socket for both directions, edge-triggered.
    ///
    /// # Errors
    /// Those of `epoll_ctl`: no memory, or too many watches for this user.
    pub(crate) fn new(driver: &Arc<Driver>, io: S) -> io::Result<Self> {
        Self::with(driver, io, |io, target| driver.watch(io, target))
    }

    /// Registers a non-blocking socket of datagrams for reading alone, edge-triggered; see
    /// [`watch_writes`](Self::watch_writes).
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub(crate) fn for_reads(driver: &Arc<Driver>, io: S) -> io::Result<Self> {
        Self::with(driver, io, |io, target| driver.watch_reads(io, target))
    }

    fn with(
        driver: &Arc<Driver>,
        io: S,
        watch: impl FnOnce(&S, Target) -> io::Result<()>,
    ) -> io::Result<Self> {
        let (key, source) = driver.slots().insert();
        if let Err(error) = watch(&io, Target::Source(key)) {
            driver.slots().remove(key);
            return Err(error);
        }
        let slot = HeldSlot {
            fd: io.as_fd().as_raw_fd(),
            key,
            source,
            driver: Arc::clone(driver),
        };
        Ok(Registration { slot, io })
    }

    /// Has writing reported too, beginning with the present state.
    ///
    /// # Errors
    /// Those of `epoll_ctl`: no memory.
    pub(crate) fn watch_writes(&self) -> io::Result<()> {
        let target = Target::Source(self.slot.key);
        self.slot.driver.rewatch(&self.io, target, WatchWrites::Yes)
    }

    pub(crate) fn io(&self) -> &S {
        &self.io
    }

    /// Deregisters the socket and hands it out.
    pub(crate) fn into_io(self) -> S {
        let Registration { slot, io } = self;
        drop(slot);
        io
    }

    /// Tries `operation` as long as the direction is ready; would-block has the waker kept and
    /// waits for the next edge. One waker per direction: the latest caller's.
    ///
    /// A short result counts as drained (one system call less for each request), unless the peer
    /// has finished or failed: then no further edge comes and only would-block is proof (S10).
    // Always, and without the rare cases: then it saves no registers (14 instructions a call).
    #[inline(always)]
    pub(crate) fn poll_io<T>(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
        mut operation: impl FnMut(&S) -> io::Result<(T, Extent)>,
    ) -> Poll<io::Result<T>> {
        match self.attempt(cx, interest, &mut operation) {
            Attempt::Over(outcome) => outcome,
            attempt => self.poll_io_on(cx, interest, operation, attempt),
        }
    }

    /// The rest of [`poll_io`](Self::poll_io), behind an attempt that was in vain.
    #[cold]
    #[inline(never)]
    fn poll_io_on<T>(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
        mut operation: impl FnMut(&S) -> io::Result<(T, Extent)>,
        mut attempt: Attempt<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match attempt {
                Attempt::Over(outcome) => return outcome,
                Attempt::Unsettled => self.slot.keep(interest, cx.waker()),
                Attempt::Failed(seen, error) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.readiness().clear(interest, seen),
                    io::ErrorKind::Interrupted => {}
                    _ => return Poll::Ready(Err(error)),
                },
            }
            attempt = self.attempt(cx, interest, &mut operation);
        }
    }

    #[inline(always)]
    fn attempt<T>(
        &self,
        cx: &Context<'_>,
        interest: Interest,
        operation: &mut impl FnMut(&S) -> io::Result<(T, Extent)>,
    ) -> Attempt<T> {
        let seen = self.readiness().look(interest);
        let Some(ready) = seen.ready() else {
            let waits = self.slot.source.keeps(interest, cx.waker())
                && self.readiness().wait(interest, seen);
            return if waits {
                Attempt::Over(Poll::Pending)
            } else {
                Attempt::Unsettled
            };
        };
        match operation(&self.io) {
            Ok((value, extent)) => {
                if extent == Extent::Short && !ready.is_final() {
                    self.readiness().clear(interest, seen);
                }
                Attempt::Over(Poll::Ready(Ok(value)))
            }
            Err(error) => Attempt::Failed(seen, error),
        }
    }

    /// Waits until the direction is ready, without an operation.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>, interest: Interest) -> Poll<Ready> {
        loop {
            let seen = self.readiness().look(interest);
            if let Some(ready) = seen.ready() {
                return Poll::Ready(ready);
            }
            self.slot.keep(interest, cx.waker());
            if self.readiness().wait(interest, seen) {
                return Poll::Pending;
            }
        }
    }

    fn readiness(&self) -> &Readiness {
        &self.slot.source.readiness
    }
}

/// What one attempt at an operation has come to.
enum Attempt<T> {
    Over(Poll<io::Result<T>>),
    Failed(Look, io::Error),
    /// There was nothing to try, and the wait was not to be: an event has come, or another task has waited here.
    Unsettled,
}

impl HeldSlot {
    /// Has an event wake `waker`, if somebody waits by then.
    fn keep(&self, interest: Interest, waker: &Waker) {
        if !self.source.keeps(interest, waker) {
            self.driver.slots().keep(self.key, interest, waker);
        }
    }
}

impl Drop for HeldSlot {
    fn drop(&mut self) {
        let fd = self.fd;
        match self.driver.registry.deregister(&mut SourceFd(&fd)) {
            Ok(()) => self.driver.slots().remove(self.key),
            // The kernel still knows the descriptor under this token, so the slot must never have
            // another tenant: it is left behind, and seen in the ledger.
            Err(error) => tracing::error!(%error, fd, "a socket could not be deregistered"),
        }
    }
}

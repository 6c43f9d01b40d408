//! A socket of a movable task, registered with the loop that polled the task when it was made.
//!
//! The registration never moves: the next event is found by the same loop, and the wake-up goes
//! through the task's waker to wherever the task is queued (MC-06). Dropping it deregisters and
//! then closes the socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use mio::unix::SourceFd;

use crate::driver::readiness::{Interest, Look, Ready};
use crate::driver::slots::{Source, SourceKey, Target};
use crate::driver::{Driver, WatchWrites};

/// A socket with its slot.
#[derive(Debug)]
pub(crate) struct Registration<S: AsFd> {
    /// There until `into_io` takes it.
    io: Option<S>,
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
        Ok(Registration {
            io: Some(io),
            key,
            source,
            driver: Arc::clone(driver),
        })
    }

    /// Has writing reported too, beginning with the present state.
    ///
    /// # Errors
    /// Those of `epoll_ctl`: no memory.
    pub(crate) fn watch_writes(&self) -> io::Result<()> {
        let target = Target::Source(self.key);
        self.driver.rewatch(self.io(), target, WatchWrites::Yes)
    }

    pub(crate) fn io(&self) -> &S {
        self.io
            .as_ref()
            .expect("taken only by into_io, which consumes")
    }

    /// Deregisters the socket and hands it out.
    pub(crate) fn into_io(mut self) -> S {
        self.deregister();
        self.io.take().expect("taken only once")
    }

    fn deregister(&self) {
        let fd = self.io().as_fd().as_raw_fd();
        match self.driver.registry.deregister(&mut SourceFd(&fd)) {
            Ok(()) => self.driver.slots().remove(self.key),
            // The kernel still knows the descriptor under this token, so the slot must never have
            // another tenant: it is left behind, and seen in the ledger.
            Err(error) => tracing::error!(%error, fd, "a socket could not be deregistered"),
        }
    }

    /// Tries `operation` as long as the direction is ready; would-block has the waker kept and
    /// waits for the next edge. One waker per direction: the latest caller's.
    ///
    /// A short result counts as drained (one system call less for each request), unless the peer
    /// has finished or failed: then no further edge comes and only would-block is proof (S10).
    pub(crate) fn poll_io<T>(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
        mut operation: impl FnMut(&S) -> io::Result<(T, Extent)>,
    ) -> Poll<io::Result<T>> {
        loop {
            let seen = self.source.readiness.look(interest);
            let Some(ready) = seen.ready() else {
                if self.wait(cx, interest, seen) {
                    return Poll::Pending;
                }
                continue;
            };
            match operation(self.io()) {
                Ok((value, extent)) => {
                    if extent == Extent::Short && !ready.is_final() {
                        self.source.readiness.clear(interest, seen);
                    }
                    return Poll::Ready(Ok(value));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.source.readiness.clear(interest, seen);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Waits until the direction is ready, without an operation.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>, interest: Interest) -> Poll<Ready> {
        loop {
            let seen = self.source.readiness.look(interest);
            match seen.ready() {
                Some(ready) => return Poll::Ready(ready),
                None if self.wait(cx, interest, seen) => return Poll::Pending,
                None => {}
            }
        }
    }

    /// True: the next event wakes the caller. False: something has changed since the look.
    fn wait(&self, cx: &Context<'_>, interest: Interest, seen: Look) -> bool {
        if !self.source.keeps(interest, cx.waker()) {
            self.keep(interest, cx.waker());
        }
        self.source.readiness.wait(interest, seen)
    }

    // Cold: it happens once a task, and what it needs is not loaded at each poll (8 instructions).
    #[cold]
    #[inline(never)]
    fn keep(&self, interest: Interest, waker: &Waker) {
        self.driver.slots().keep(self.key, interest, waker);
    }
}

impl<S: AsFd> Drop for Registration<S> {
    fn drop(&mut self) {
        if self.io.is_some() {
            self.deregister();
        }
    }
}

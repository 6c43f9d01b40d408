//! A socket of a movable task, registered with the loop that polled the task when it was made.
//!
//! The next event is found by the same loop, and the wake-up goes through the task's waker to wherever the task is
//! queued (MC-06). Dropping it deregisters and then closes the socket.
//!
//! A registration moves for one reason only: its loop was stuck when an event came, and another one has served it and
//! goes on doing so ([`Registration::follow`]). For a moment both loops watch the socket, the new one from before the
//! old one ends; and being watched anew reports what is ready, so no edge falls between (I3). Who fetched an event
//! for the old slot finds it gone, or records it once more than needed. The model is `models/m11_move.rs`.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use mio::unix::SourceFd;

use crate::driver::footprint::{Footprint, Reader};
use crate::driver::readiness::{Interest, Look, Readiness, Ready};
use crate::driver::slots::{Slot, Source, SourceKey, Target, ToKeep};
use crate::driver::{Driver, WatchWrites};

/// A socket with its slot.
// In this order: what each operation needs, source and socket, stands together.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Registration<S: AsFd> {
    // First: a socket is deregistered before it is closed.
    place: Mutex<Place>,
    source: Arc<Source>,
    io: S,
}

/// Which loop watches a socket, and by which of its slots. Locked to change that, and to put a waker there; no
/// request does either. Dropping it deregisters the socket, which is open still.
#[derive(Debug)]
struct Place {
    fd: RawFd,
    key: SourceKey,
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
        let slot = Slot::default();
        let source = Arc::clone(&slot.source);
        let place = Place::taken(driver, slot, &io, |target| watch(&io, target))?;
        Ok(Registration {
            place: Mutex::new(place),
            source,
            io,
        })
    }

    /// Has writing reported too, beginning with the present state.
    ///
    /// # Errors
    /// Those of `epoll_ctl`: no memory.
    pub(crate) fn watch_writes(&self) -> io::Result<()> {
        let place = self.place();
        let target = Target::Source(place.key);
        place.driver.rewatch(&self.io, target, WatchWrites::Yes)
    }

    /// Whether a loop that served this socket for its own, which was stuck, would take it over.
    pub(crate) fn is_offered(&self) -> bool {
        self.source.is_offered()
    }

    /// Takes the offer: from now on `driver` watches the socket, in both directions. It stays where it is if that is
    /// not of a kind with `driver`, or if the system refuses.
    pub(crate) fn follow(&self, driver: &Arc<Driver>, is_kin: impl FnOnce(&Arc<Driver>) -> bool) {
        self.source.decline();
        let mut place = self.place();
        if Arc::ptr_eq(&place.driver, driver) || !is_kin(&place.driver) {
            return;
        }
        let slot = place.driver.slots().copy(place.key);
        let taken = Place::taken(driver, slot, &self.io, |target| {
            driver.watch(&self.io, target)
        });
        let before = taken.map(|there| mem::replace(&mut *place, there));
        // Leaving the old place may have to be logged, which is foreign code: not under the lock.
        drop(place);
        if let Err(error) = before {
            tracing::debug!(%error, "a socket stays with a loop that was stuck");
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn io(&self) -> &S {
        &self.io
    }

    /// Deregisters the socket and hands it out.
    pub(crate) fn into_io(self) -> S {
        let Registration { place, io, .. } = self;
        drop(place);
        io
    }

    /// Tries `operation` as long as the direction is ready; would-block has the waker kept and
    /// waits for the next edge. One waker per direction: the latest caller's.
    ///
    /// A short result counts as drained (one system call less for each request), unless the peer
    /// has finished or failed: then no further edge comes and only would-block is proof (S10).
    // Always, as below.
    #[inline(always)]
    pub(crate) fn poll_io<T>(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
        operation: impl FnMut(&S) -> io::Result<(T, Extent)>,
    ) -> Poll<io::Result<T>> {
        self.poll_io_foreseen(cx, interest, Reader::default(), operation)
    }

    /// As [`poll_io`](Self::poll_io); an event that comes for `reader` has fetched what that will touch.
    // Always, and without the rare cases: then it saves no registers (14 instructions a call).
    #[inline(always)]
    pub(crate) fn poll_io_foreseen<T>(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
        reader: Reader,
        mut operation: impl FnMut(&S) -> io::Result<(T, Extent)>,
    ) -> Poll<io::Result<T>> {
        match self.attempt(cx, interest, &mut operation) {
            Attempt::Over(outcome) => outcome,
            attempt => self.poll_io_on(cx, interest, reader, operation, attempt),
        }
    }

    /// The rest of [`poll_io`](Self::poll_io), behind an attempt that was in vain.
    #[cold]
    #[inline(never)]
    fn poll_io_on<T>(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
        reader: Reader,
        mut operation: impl FnMut(&S) -> io::Result<(T, Extent)>,
        mut attempt: Attempt<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match attempt {
                Attempt::Over(outcome) => return outcome,
                Attempt::Unsettled(seen) => {
                    if self.wait(interest, seen, cx.waker(), reader) {
                        return Poll::Pending;
                    }
                }
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
            let waits =
                self.source.keeps(interest, cx.waker()) && self.readiness().wait(interest, seen);
            return if waits {
                Attempt::Over(Poll::Pending)
            } else {
                Attempt::Unsettled(seen)
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
            if self.wait(interest, seen, cx.waker(), Reader::default()) {
                return Poll::Pending;
            }
        }
    }

    fn readiness(&self) -> &Readiness {
        &self.source.readiness
    }

    /// Has the next event wake `waker` (O2): it is kept first, then waited. False if an event has come since `seen`.
    fn wait(&self, interest: Interest, seen: Look, waker: &Waker, reader: Reader) -> bool {
        if !self.source.keeps(interest, waker) {
            let to_keep = ToKeep::new(waker);
            let footprint = Footprint::new(waker, &self.source, reader);
            let place = self.place();
            let slots = place.driver.slots();
            let before = slots.keep(place.key, interest, to_keep, footprint);
            drop(place);
            drop(before);
        }
        self.readiness().wait(interest, seen)
    }
}

/// What one attempt at an operation has come to.
enum Attempt<T> {
    Over(Poll<io::Result<T>>),
    Failed(Look, io::Error),
    /// There was nothing to try, and the wait was not to be: an event has come, or another task has waited here.
    Unsettled(Look),
}

impl Place {
    /// Puts `slot` among those of `driver`, and has its selector know the socket by it.
    fn taken(
        driver: &Arc<Driver>,
        slot: Slot,
        io: &impl AsFd,
        watch: impl FnOnce(Target) -> io::Result<()>,
    ) -> io::Result<Self> {
        let key = driver.slots().insert(slot);
        if let Err(error) = watch(Target::Source(key)) {
            driver.slots().remove(key);
            return Err(error);
        }
        Ok(Place {
            fd: io.as_fd().as_raw_fd(),
            key,
            driver: Arc::clone(driver),
        })
    }
}

impl Drop for Place {
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

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use crate::config::TurnBudget;
    use crate::driver::Driver;
    use crate::driver::clock::Clock;
    use crate::driver::readiness::Interest;
    use crate::driver::registration::Registration;
    use crate::driver::selector::Batch;

    fn driver() -> Arc<Driver> {
        let driver = Driver::new(Clock::monotonic(), &TurnBudget::default());
        Arc::new(driver.expect("a selector can be made"))
    }

    fn poll(driver: &Driver) -> usize {
        driver.poll_now(Batch::Idle, |_, _| {}, &mut Vec::new())
    }

    fn is_readable(registration: &Registration<UnixStream>) -> bool {
        let seen = registration.source.readiness.look(Interest::Read);
        seen.ready().is_some()
    }

    fn registered(at: &Arc<Driver>) -> (Registration<UnixStream>, UnixStream) {
        let (here, there) = UnixStream::pair().expect("a pair can be made");
        here.set_nonblocking(true).expect("a socket takes it");
        let registration = Registration::new(at, here).expect("it can be watched");
        (registration, there)
    }

    #[test]
    fn what_came_before_the_move_is_reported_by_the_loop_that_takes_over() {
        let (old, new) = (driver(), driver());
        let (registration, mut peer) = registered(&old);
        peer.write_all(b"x").expect("there is room");
        registration.follow(&new, |_| true);
        assert_eq!((old.slots().len(), new.slots().len()), (0, 1));
        assert_eq!((poll(&old), is_readable(&registration)), (0, false));
        assert_eq!((poll(&new), is_readable(&registration)), (1, true));
        drop(registration);
        assert_eq!(new.slots().len(), 0);
    }

    #[test]
    fn a_socket_stays_within_its_runtime() {
        let (old, new) = (driver(), driver());
        let (registration, _peer) = registered(&old);
        registration.follow(&new, |_| false);
        assert_eq!((old.slots().len(), new.slots().len()), (1, 0));
    }
}

//! L1: what the kernel and the clock tell one loop.
//!
//! A [`Driver`] is the selector, the slots of registered sockets, the timer wheel and the clock of
//! one loop, as one thing that is *turned*. It knows no tasks: it hands out [`Waker`]s and keys, and
//! what they mean is decided above. Everything but the selector itself may be used from any thread;
//! the selector is behind a lock, so that another loop can turn the driver of one that is stuck.
//!
//! Lock order: selector before slots, selector before wheel; slots and wheel are never held
//! together, and no user code and no foreign waker runs under any of them (I7).

pub(crate) mod alarm;
pub(crate) mod clock;
pub(crate) mod footprint;
pub(crate) mod nest;
pub(crate) mod readiness;
pub(crate) mod registration;
pub(crate) mod selector;
pub(crate) mod slots;
pub(crate) mod timer;
pub(crate) mod wheel;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::Waker;

use mio::unix::SourceFd;

use crate::config::TurnBudget;
use crate::driver::alarm::{Alarm, NEVER};
use crate::driver::clock::Clock;
use crate::driver::nest::Nest;
use crate::driver::selector::{Batch, Deliver, Selector, UNPARK};
use crate::driver::slots::{Delivery, Slots, SourceKey, token_of};
use crate::driver::wheel::{TimerKey, Wheel};

pub(crate) use crate::driver::footprint::Reader;
pub(crate) use crate::driver::readiness::{Interest, Ready};
pub(crate) use crate::driver::registration::{Extent, Registration};
pub(crate) use crate::driver::slots::{IoKey, Source, Target};
pub(crate) use crate::driver::timer::TimerEntry;

/// Timers released in one go; the rest follows in the next turn, so that a storm of deadlines does
/// not keep a loop from its sockets. Guessed, as the selector's larger batch.
const DUE_PER_TURN: usize = 256;

const BOTH_DIRECTIONS: mio::Interest = mio::Interest::READABLE
    .add(mio::Interest::WRITABLE)
    .add(mio::Interest::PRIORITY);

/// Whether a socket of datagrams is watched for writing too: only while it is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchWrites {
    Yes,
    No,
}

/// What a timer does when its deadline has come.
#[derive(Debug)]
pub(crate) enum TimerTarget {
    /// Wakes a task.
    Task(Waker),
    /// Runs a callback of the home loop, which knows it by this key.
    Local(LocalTimerKey),
}

slotmap::new_key_type! {
    /// A scheduled callback in the table of its home loop.
    pub(crate) struct LocalTimerKey;
}

/// Selector, slots, wheel and clock of one loop.
pub(crate) struct Driver {
    /// Locked by the home loop while it polls or sleeps, tried by others.
    selector: Mutex<Selector>,
    registry: mio::Registry,
    unpark: mio::Waker,
    slots: Slots,
    wheel: Mutex<Wheel<TimerTarget>>,
    alarm: Alarm,
    clock: Clock,
}

impl Driver {
    pub(crate) fn new(clock: Clock, budget: &TurnBudget) -> io::Result<Self> {
        let (selector, registry, unpark) = Selector::new(budget)?;
        Ok(Driver {
            selector: Mutex::new(selector),
            registry,
            unpark,
            slots: Slots::default(),
            wheel: Mutex::new(Wheel::new(clock.now_ns())),
            alarm: Alarm::new(),
            clock,
        })
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Has the selector report `fd` under `target`, in both directions, at each edge.
    ///
    /// # Errors
    /// Those of `epoll_ctl`: no memory, or too many watches for this user.
    pub(crate) fn watch(&self, fd: impl AsFd, target: Target) -> io::Result<()> {
        self.registry.register(
            &mut SourceFd(&fd.as_fd().as_raw_fd()),
            token_of(target),
            BOTH_DIRECTIONS,
        )
    }

    /// Like [`watch`](Self::watch), but for reading alone.
    ///
    /// For datagrams: their socket is announced as writable again with every datagram that leaves
    /// it, though it was never full, and each of these edges would cost a turn.
    pub(crate) fn watch_reads(&self, fd: impl AsFd, target: Target) -> io::Result<()> {
        self.registry.register(
            &mut SourceFd(&fd.as_fd().as_raw_fd()),
            token_of(target),
            mio::Interest::READABLE,
        )
    }

    /// Changes what [`watch_reads`](Self::watch_reads) began: reading alone, or both directions. What
    /// is ready at this moment is reported as a new edge.
    pub(crate) fn rewatch(
        &self,
        fd: impl AsFd,
        target: Target,
        writes: WatchWrites,
    ) -> io::Result<()> {
        let interests = match writes {
            WatchWrites::Yes => BOTH_DIRECTIONS,
            WatchWrites::No => mio::Interest::READABLE,
        };
        self.registry.reregister(
            &mut SourceFd(&fd.as_fd().as_raw_fd()),
            token_of(target),
            interests,
        )
    }

    /// Whether the selector watches `fd`. The kernel is asked by trying: it refuses a second watch.
    ///
    /// # Errors
    /// As for [`watch`](Driver::watch), and what cannot be watched at all, as a regular file.
    pub(crate) fn is_watched(&self, fd: impl AsFd) -> io::Result<bool> {
        let fd = fd.as_fd().as_raw_fd();
        let mut source = SourceFd(&fd);
        // What the trial reports is taken for an unpark: at worst the loop wakes once for nothing.
        let tried = self
            .registry
            .register(&mut source, UNPARK, mio::Interest::PRIORITY);
        match tried {
            Ok(()) => self.registry.deregister(&mut source).map(|()| false),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(true),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Ends the sleep of the loop in its selector, or keeps its next one from beginning.
    pub(crate) fn unpark(&self) {
        self.unpark
            .wake()
            .expect("an eventfd of this process accepts a write");
    }

    /// Takes what the kernel has, without waiting; nothing if another loop turns this driver just
    /// now. `note_local` is called for each event of a socket of callbacks, under the selector's lock: it
    /// may only note it. Wakers of movable tasks are appended to `wakers`.
    pub(crate) fn poll_now(
        &self,
        batch: Batch,
        note_local: impl FnMut(IoKey, Ready),
        wakers: &mut Vec<Arc<Waker>>,
    ) -> usize {
        let Some(mut selector) = self.try_selector() else {
            return 0;
        };
        selector.poll_now(batch, &mut self.post(note_local, wakers))
    }

    fn try_selector(&self) -> Option<MutexGuard<'_, Selector>> {
        match self.selector.try_lock() {
            Ok(selector) => Some(selector),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Like [`poll_now`](Self::poll_now), by another loop than the home; also hands out the first socket of a movable
    /// task that has news.
    pub(crate) fn poll_for_other(
        &self,
        note_local: impl FnMut(IoKey, Ready),
        wakers: &mut Vec<Arc<Waker>>,
    ) -> (usize, Option<Arc<Source>>) {
        let Some(mut selector) = self.try_selector() else {
            return (0, None);
        };
        let mut post = self.post(note_local, wakers);
        let events = selector.poll_now(Batch::Rescue, &mut post);
        let first = post.first_source;
        // It holds the lock of the slots.
        drop(post);
        (events, first.and_then(|key| self.slots.source(key)))
    }

    /// Sleeps until an event, an unpark, the next deadline or `limit`; with a nest, also until an event of another
    /// loop in it. `still_idle` is asked once more under
    /// the lock: whoever turned this driver in between may have eaten the edge of an unpark.
    pub(crate) fn park(
        &self,
        limit: u64,
        nest: Option<&Nest>,
        still_idle: impl FnOnce() -> bool,
        note_local: impl FnMut(IoKey, Ready),
        wakers: &mut Vec<Arc<Waker>>,
    ) -> usize {
        let mut selector = self.selector.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = self.alarm.park().min(limit);
        let sleeps = still_idle() && self.may_sleep_until(deadline, limit, &mut selector);
        let mut post = self.post(note_local, wakers);
        let count = match nest {
            None if sleeps => selector.wait(&mut post),
            Some(nest) if sleeps => {
                nest.wait();
                selector.poll_now(Batch::Idle, &mut post)
            }
            _ => selector.poll_now(Batch::Idle, &mut post),
        };
        // It holds the lock of the slots.
        drop(post);
        self.alarm.unpark();
        drop(selector);
        count
    }

    /// Arms the timer descriptor; false if the deadline has come already.
    fn may_sleep_until(&self, deadline: u64, limit: u64, selector: &mut Selector) -> bool {
        if deadline == NEVER {
            return true;
        }
        if let Some(manual) = self.clock.as_manual() {
            if manual.is_auto() {
                // The published deadline may be that of a cancelled timer: no reason to jump there.
                let earliest = self.lock_wheel().next_deadline().unwrap_or(NEVER);
                match earliest.min(limit) {
                    NEVER => return true,
                    earliest => manual.jump_to(earliest),
                }
            }
            return self.clock.now_ns() < deadline;
        }
        self.arm(deadline, selector)
    }

    /// Has the timer descriptor end a sleep at `deadline`; false if it has come already.
    fn arm(&self, deadline: u64, selector: &mut Selector) -> bool {
        if selector.is_armed_until(deadline) {
            // It ends the sleep, at once if it has fired already.
            return true;
        }
        let now = self.clock.now_ns();
        if deadline <= now {
            return false;
        }
        // Refused only for a span that is out of range, which `arm` never passes on.
        selector
            .arm(now, deadline)
            .expect("a timer descriptor accepts a positive span");
        true
    }

    /// As [`park`](Self::park) without the sleep, for a foreign loop that waits for [`as_fd`](Driver::as_fd): a
    /// deadline, also one that is armed meanwhile, makes it readable. False if one has come already.
    pub(crate) fn watch_deadline(&self) -> bool {
        let mut selector = self.selector.lock().unwrap_or_else(PoisonError::into_inner);
        match self.alarm.park() {
            NEVER => true,
            // Turned by hand, which unparks the loop.
            deadline if self.clock.as_manual().is_some() => self.clock.now_ns() < deadline,
            deadline => self.arm(deadline, &mut selector),
        }
    }

    pub(crate) fn leave_watch(&self) {
        self.alarm.unpark();
    }

    /// The earliest deadline of a timer.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.lock_wheel().next_deadline()
    }

    fn post<'a, F>(&'a self, note_local: F, wakers: &'a mut Vec<Arc<Waker>>) -> Post<'a, F> {
        Post {
            slots: &self.slots,
            locked: None,
            first_source: None,
            note_local,
            wakers,
        }
    }

    /// True if [`take_due`](Self::take_due) could find something; reads the clock only if a timer is
    /// armed at all.
    pub(crate) fn is_timer_due(&self) -> bool {
        let next = self.alarm.next_deadline();
        next != NEVER && next <= self.clock.now_ns()
    }

    /// Moves the timers that have come due into `due`, earliest first, at most [`DUE_PER_TURN`].
    pub(crate) fn take_due(&self, due: &mut Vec<TimerTarget>) {
        let now = self.clock.now_ns();
        let mut wheel = self.lock_wheel();
        // What is beyond the limit is announced by the published deadline, which then is not later
        // than `now`.
        let _more_are_due: bool = wheel.advance_to(now, DUE_PER_TURN, due);
        self.alarm.publish(wheel.next_deadline().unwrap_or(NEVER));
    }

    /// Arms a timer, from any thread. A loop that sleeps past `deadline` is woken.
    pub(crate) fn arm_timer(&self, deadline: u64, target: TimerTarget) -> TimerKey {
        let key = self.insert_timer(deadline, target);
        if self.alarm.sleeps_past(deadline) {
            self.unpark();
        }
        key
    }

    /// As [`arm_timer`](Self::arm_timer), on the thread of the loop.
    pub(crate) fn arm_timer_at_home(&self, deadline: u64, target: TimerTarget) -> TimerKey {
        let key = self.insert_timer(deadline, target);
        if self.alarm.rests_past(deadline) {
            self.unpark();
        }
        key
    }

    fn insert_timer(&self, deadline: u64, target: TimerTarget) -> TimerKey {
        let mut wheel = self.lock_wheel();
        let key = wheel.insert(deadline, target);
        if deadline < self.alarm.next_deadline() {
            self.alarm.publish(deadline);
        }
        key
    }

    /// Cancels a timer; `None` if it has fired already. The published deadline stays: at worst the
    /// loop wakes once for nothing.
    pub(crate) fn cancel_timer(&self, key: TimerKey) -> Option<TimerTarget> {
        self.lock_wheel().cancel(key)
    }

    /// Puts `waker` in the place of the one that waits; false if the timer has fired.
    pub(crate) fn update_timer(&self, key: TimerKey, waker: &Waker) -> bool {
        let is_same = match self.lock_wheel().get_mut(key) {
            Some(TimerTarget::Task(old)) => old.will_wake(waker),
            Some(TimerTarget::Local(_)) => true,
            None => return false,
        };
        if is_same {
            return true;
        }
        // A foreign waker's clone and drop are foreign code: not under the lock.
        let mut replacement = TimerTarget::Task(waker.clone());
        match self.lock_wheel().get_mut(key) {
            Some(target) => std::mem::swap(target, &mut replacement),
            None => return false,
        }
        true
    }

    /// Timers armed and neither fired nor cancelled.
    pub(crate) fn timers_armed(&self) -> usize {
        self.lock_wheel().len()
    }

    fn lock_wheel(&self) -> MutexGuard<'_, Wheel<TimerTarget>> {
        self.wheel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the events of a poll go. The slots are locked from the first that is for them, foreseen or delivered, to the end.
struct Post<'a, F> {
    slots: &'a Slots,
    locked: Option<Delivery<'a>>,
    first_source: Option<SourceKey>,
    note_local: F,
    wakers: &'a mut Vec<Arc<Waker>>,
}

impl<F: FnMut(IoKey, Ready)> Deliver for Post<'_, F> {
    fn foresees(&self) -> bool {
        self.slots.are_many()
    }

    fn foresee(&mut self, key: SourceKey) {
        let slots = self.locked.get_or_insert_with(|| self.slots.begin());
        slots.foresee(key);
    }

    // Always: it is what the loop over the events does (10 instructions each).
    #[inline(always)]
    fn deliver(&mut self, target: Target, ready: Ready) {
        match target {
            Target::Local(key) => (self.note_local)(key, ready),
            Target::Source(key) => {
                self.first_source.get_or_insert(key);
                let slots = self.locked.get_or_insert_with(|| self.slots.begin());
                slots.deliver(key, ready, self.wakers);
            }
        }
    }
}

/// The selector's own descriptor, readable when a poll would bring something.
impl AsFd for Driver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.registry.as_fd()
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("alarm", &self.alarm)
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

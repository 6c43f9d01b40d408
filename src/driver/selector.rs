//! The platform's selector: mio's poll, the wake-up descriptor, and a timer descriptor for deadlines
//! finer than the millisecond that the poll itself rounds up to.
//!
//! Edge-triggered throughout. The timer descriptor is armed lazily and left armed across parks: an
//! armed deadline that is earlier than needed costs one early wake-up, re-arming costs a system call
//! at every park.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::config::TurnBudget;
use crate::driver::alarm::NEVER;
use crate::driver::readiness::Ready;
use crate::driver::slots::{SourceKey, Target, target_of};

/// mio's waker; a key never looks like this, because its [`Target`] bit would be set on index 2^32-1.
pub(crate) const UNPARK: Token = Token(usize::MAX);
/// The least of the two: what is smaller is a socket's.
const TIMER: Token = Token(usize::MAX - 1);

/// How many events a poll may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Batch {
    /// Work is waiting: take few, another loop could still have the rest.
    Busy,
    Idle,
    /// By another loop than the selector's.
    Rescue,
}

/// Who is told of the events of a poll while the selector is locked: it may note them, and nothing of a
/// user's may run in it.
pub(crate) trait Deliver {
    /// Whether it pays to look ahead.
    fn foresees(&self) -> bool;
    /// Of several events, before the first is delivered: those for sockets of tasks.
    fn foresee(&mut self, key: SourceKey);
    fn deliver(&mut self, target: Target, ready: Ready);
}

/// Events that a rescuer takes at once: it holds a lock that the other loop will want.
const RESCUE_EVENTS: usize = 64;

#[derive(Debug)]
pub(crate) struct Selector {
    poll: Poll,
    busy: Events,
    idle: Events,
    rescue: Events,
    timer: OwnedFd,
    /// When the timer descriptor fires; [`NEVER`] when it is not armed.
    armed_until: u64,
}

impl Selector {
    pub(crate) fn new(budget: &TurnBudget) -> io::Result<(Self, mio::Registry, Waker)> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = Waker::new(poll.registry(), UNPARK)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let selector = Selector {
            poll,
            busy: Events::with_capacity(budget.events_busy),
            idle: Events::with_capacity(budget.events_idle),
            rescue: Events::with_capacity(RESCUE_EVENTS),
            timer,
            armed_until: NEVER,
        };
        Ok((selector, registry, waker))
    }

    /// Takes what is there, without waiting.
    pub(crate) fn poll_now(&mut self, batch: Batch, deliver: &mut impl Deliver) -> usize {
        self.poll(batch, Some(Duration::ZERO), deliver)
    }

    /// Waits for an event or an unpark; no limit but the one given to [`arm`](Self::arm).
    pub(crate) fn wait(&mut self, deliver: &mut impl Deliver) -> usize {
        self.poll(Batch::Idle, None, deliver)
    }

    /// Whether a `wait` ends at `deadline` at the latest without anything being done.
    pub(crate) fn is_armed_until(&self, deadline: u64) -> bool {
        self.armed_until <= deadline
    }

    /// Makes sure that `wait` ends at `deadline`, both in nanoseconds of the loop's clock.
    pub(crate) fn arm(&mut self, now: u64, deadline: u64) -> io::Result<()> {
        if self.armed_until <= deadline {
            return Ok(());
        }
        let span = deadline.saturating_sub(now).max(1);
        let value = Timespec {
            tv_sec: i64::try_from(span / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: (span % 1_000_000_000) as i64,
        };
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: value,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        self.armed_until = deadline;
        Ok(())
    }

    fn poll(&mut self, batch: Batch, wait: Option<Duration>, deliver: &mut impl Deliver) -> usize {
        let events = match batch {
            Batch::Busy => &mut self.busy,
            Batch::Idle => &mut self.idle,
            Batch::Rescue => &mut self.rescue,
        };
        match self.poll.poll(events, wait) {
            Ok(()) => {}
            // A signal handler ran: as if nothing had happened.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return 0,
            // EBADF, EFAULT or EINVAL: the descriptor is not what this code believes it is.
            Err(error) => panic!("the selector of a loop failed: {error}"),
        }
        if deliver.foresees() {
            foresee(events, deliver);
        }
        let mut count = 0;
        let mut of_this_loop = 0;
        for event in events.iter() {
            count += 1;
            let token = event.token();
            if token < TIMER {
                deliver.deliver(target_of(token), ready_of(event));
                continue;
            }
            of_this_loop += 1;
            if token == TIMER {
                // An expired one-shot timer descriptor is disarmed; its edge needs no read.
                self.armed_until = NEVER;
            }
        }
        count - of_this_loop
    }
}

/// One event alone is delivered at once.
fn foresee(events: &Events, deliver: &mut impl Deliver) {
    if events.iter().nth(1).is_none() {
        return;
    }
    for event in events {
        let token = event.token();
        if token < TIMER
            && let Target::Source(key) = target_of(token)
        {
            deliver.foresee(key);
        }
    }
}

fn ready_of(event: &mio::event::Event) -> Ready {
    let ready = Ready::NONE
        .or_if(event.is_readable(), Ready::READABLE)
        .or_if(event.is_writable(), Ready::WRITABLE)
        .or_if(event.is_priority(), Ready::URGENT);
    // Nor is writing closed, then: that is by an error, or together with reading.
    if !event.is_error() && !event.is_read_closed() {
        return ready;
    }
    ready.or(ended(event))
}

/// What closes a direction.
#[cold]
fn ended(event: &mio::event::Event) -> Ready {
    Ready::NONE
        .or_if(event.is_error(), Ready::ERROR)
        .or_if(event.is_read_closed(), Ready::READ_CLOSED)
        .or_if(event.is_write_closed(), Ready::WRITE_CLOSED)
}

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use mio::Interest;
    use mio::unix::SourceFd;
    use slotmap::SlotMap;

    use crate::config::TurnBudget;
    use crate::driver::readiness::Ready;
    use crate::driver::selector::{Batch, Deliver, Selector};
    use crate::driver::slots::{SourceKey, Target, token_of};

    /// What a poll told, in order: a key is foreseen, or delivered.
    #[derive(Debug, Default)]
    struct Log {
        foreseen: Vec<SourceKey>,
        delivered: Vec<SourceKey>,
    }

    impl Deliver for Log {
        fn foresee(&mut self, key: SourceKey) {
            assert!(self.delivered.is_empty(), "all of them before the first");
            self.foreseen.push(key);
        }

        fn deliver(&mut self, target: Target, _: Ready) {
            if let Target::Source(key) = target {
                self.delivered.push(key);
            }
        }

        fn foresees(&self) -> bool {
            true
        }
    }

    #[test]
    fn several_events_for_tasks_are_foreseen_and_one_is_not() {
        let (mut selector, registry, _unpark) =
            Selector::new(&TurnBudget::default()).expect("a selector can be made");
        let mut keys = SlotMap::<SourceKey, ()>::with_key();
        let mut peers = Vec::new();
        let mut here = Vec::new();
        for _ in 0..2 {
            let (near, far) = UnixStream::pair().expect("a pair can be made");
            let token = token_of(Target::Source(keys.insert(())));
            let watched =
                registry.register(&mut SourceFd(&near.as_raw_fd()), token, Interest::READABLE);
            watched.expect("it can be watched");
            here.push(near);
            peers.push(far);
        }
        let mut poll = |peers: &mut [UnixStream]| {
            for peer in peers {
                peer.write_all(b"x").expect("there is room");
            }
            let mut log = Log::default();
            let events = selector.poll_now(Batch::Idle, &mut log);
            assert_eq!(events, log.delivered.len());
            (log.foreseen.len(), log.delivered.len())
        };
        assert_eq!(poll(&mut peers), (2, 2));
        assert_eq!(poll(&mut peers[..1]), (0, 1));
        assert_eq!(poll(&mut []), (0, 0));
    }
}

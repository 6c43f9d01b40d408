//! How a thread waits for the moment of the next send: asleep, spinning, or asleep until shortly
//! before.
//!
//! The timeout of a poll has milliseconds, so a sleep is ended by a timer descriptor in the same
//! selector: answers end it too.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use serde::{Deserialize, Serialize};

/// A sleep ends this much before the send: what waking up takes, with room to spare.
const SPIN_SPAN: Duration = Duration::from_micros(50);
/// The token of the timer; lanes have smaller ones.
const ALARM: Token = Token(usize::MAX);

/// How to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pace {
    /// Never sleep: most exact, and the thread fills its CPU
    Spin,
    /// Sleep until the send is due: sends are late by what waking up takes
    Sleep,
    /// Sleep until 50 us before the send, then spin
    Hybrid,
}

/// What to do until the next send; the caller must act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Wait {
    /// Look for events without sleeping, and come back.
    Spin,
    /// Sleep; events and the alarm end it.
    Sleep,
}

impl Pace {
    /// The wait at `now` for a send at `due`, and when the alarm must ring.
    fn wait(self, now: Instant, due: Instant) -> (Wait, Instant) {
        let ring = match self {
            Pace::Spin => return (Wait::Spin, now),
            Pace::Sleep => due,
            Pace::Hybrid => due.checked_sub(SPIN_SPAN).unwrap_or(due),
        };
        if ring <= now {
            (Wait::Spin, now)
        } else {
            (Wait::Sleep, ring)
        }
    }
}

/// Waits as a [`Pace`] says, with a timer in the thread's selector.
#[derive(Debug)]
pub(crate) struct Pacer {
    pace: Pace,
    timer: OwnedFd,
    set_to: Option<Instant>,
}

impl Pacer {
    pub(crate) fn new(pace: Pace, poll: &Poll) -> io::Result<Pacer> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let fd = timer.as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&fd), ALARM, Interest::READABLE)?;
        Ok(Pacer {
            pace,
            timer,
            set_to: None,
        })
    }

    /// Prepares the wait at `now` for a send at `due`.
    pub(crate) fn wait(&mut self, now: Instant, due: Instant) -> io::Result<Wait> {
        let (wait, ring) = self.pace.wait(now, due);
        // Setting it again makes a new edge, so nothing need be read from it.
        if wait == Wait::Sleep && self.set_to.replace(ring) != Some(ring) {
            let delay = ring.saturating_duration_since(now);
            timerfd_settime(
                &self.timer,
                TimerfdTimerFlags::empty(),
                &Itimerspec {
                    it_interval: Timespec::default(),
                    it_value: Timespec {
                        tv_sec: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
                        tv_nsec: delay.subsec_nanos().into(),
                    },
                },
            )?;
        }
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use mio::{Events, Poll};

    use super::{Pace, Pacer, SPIN_SPAN, Wait};

    #[test]
    fn each_pace_sleeps_and_spins_where_it_says() {
        let now = Instant::now();
        let far = now + SPIN_SPAN * 10;
        let near = now + SPIN_SPAN / 2;
        assert_eq!(Pace::Spin.wait(now, far).0, Wait::Spin);
        assert_eq!(Pace::Sleep.wait(now, near), (Wait::Sleep, near));
        assert_eq!(Pace::Hybrid.wait(now, far), (Wait::Sleep, far - SPIN_SPAN));
        assert_eq!(Pace::Hybrid.wait(now, near).0, Wait::Spin);
        assert_eq!(Pace::Sleep.wait(far, now).0, Wait::Spin, "due already");
    }

    /// The timer wakes the poll again and again though nobody reads it, and never early.
    #[test]
    fn alarm_ends_a_sleep_not_before_its_time() {
        let mut poll = Poll::new().expect("a selector");
        let mut pacer = Pacer::new(Pace::Sleep, &poll).expect("a timer");
        let mut events = Events::with_capacity(4);
        for _ in 0..3 {
            let due = Instant::now() + Duration::from_micros(700);
            let wait = pacer
                .wait(Instant::now(), due)
                .expect("a timer that can be set");
            assert_eq!(wait, Wait::Sleep);
            poll.poll(&mut events, Some(Duration::from_secs(5)))
                .expect("a poll");
            assert!(!events.is_empty(), "the alarm rings");
            assert!(Instant::now() >= due);
        }
    }
}

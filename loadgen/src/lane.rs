//! What a generator thread drives: a TCP connection or a UDP sender, each with a bounded number of
//! requests in flight.
//!
//! A lane sends and receives; it neither decides when to send nor records anything:
//! [`crate::worker`] does. Sockets are edge-triggered, so each method goes as far as it can.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Poll, Token};

use crate::failure::{Failure, Tally};
use crate::interrupt::Interrupt;
use crate::ledger::Datagrams;
use crate::pattern::Pattern;
use crate::plan::Verify;

/// What is the same for all lanes of a run.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) pattern: Pattern,
    pub(crate) verify: Verify,
    /// Requests in flight on a lane, at most.
    pub(crate) depth: usize,
    /// Requests after which a TCP connection is closed and opened anew.
    pub(crate) churn: Option<u64>,
    /// How long a datagram's answer is waited for.
    pub(crate) settle: Duration,
    /// Names this run in every datagram.
    pub(crate) epoch: u64,
}

/// The moments of an answered request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) intended: Instant,
    pub(crate) sent_at: Instant,
    pub(crate) at: Instant,
}

/// What became of a lane's datagrams; nothing for one without.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub(crate) warmup: Datagrams,
    pub(crate) measured: Datagrams,
    /// What went wrong without costing the lane.
    pub(crate) tally: Tally,
}

/// One connection or sender. An error of any method costs the lane: it is dropped.
pub(crate) trait Lane: Sized {
    /// Whether requests are datagrams: they may be lost, and answers may come twice.
    const DATAGRAMS: bool;

    /// Opens `n` lanes, numbered from `first` on over all threads, and registers each with its
    /// index as token.
    fn open_all(
        poll: &mut Poll,
        load: &Load,
        first: u64,
        n: usize,
        interrupt: &Interrupt,
    ) -> Result<Vec<Self>, Failure>;

    /// Called once, before the first request: what is sent from `measured_from` on counts.
    fn start(&mut self, load: &Load, measured_from: Instant);

    /// Requests whose answers are waited for.
    fn n_in_flight(&self) -> usize;

    /// Whether a request may begin now.
    fn can_begin(&self, load: &Load) -> bool;

    /// Begins a request, sending as much of it as the kernel takes. Returns the bytes sent.
    fn begin(&mut self, intended: Instant, sent_at: Instant, load: &Load)
    -> Result<usize, Failure>;

    /// Sends what the kernel did not take before. Returns the bytes sent.
    fn send_rest(&mut self, load: &Load) -> Result<usize, Failure>;

    /// Reads what is there, as far as answers are waited for, and tells of each. Returns the bytes
    /// received.
    fn receive(
        &mut self,
        buffer: &mut [u8],
        load: &Load,
        on_answer: impl FnMut(Answer),
    ) -> Result<usize, Failure>;

    /// The failure of a stream whose requests in flight were given up at the end of the run.
    fn timed_out(&self) -> Option<Failure> {
        None
    }

    /// Whether the lane has carried all it may and must be opened anew.
    fn is_worn(&self, _load: &Load) -> bool {
        false
    }

    /// Begins to open a worn lane anew, under the same token.
    fn reopen(&mut self, _poll: &Poll, _load: &Load, _token: Token) -> Result<(), Failure> {
        Ok(())
    }

    /// Whether it is being opened anew.
    fn is_opening(&self) -> bool {
        false
    }

    /// Looks whether a lane that is being opened is open now; if so, since when it was being opened.
    fn opened(&mut self, _load: &Load) -> Result<Option<Instant>, Failure> {
        Ok(None)
    }

    /// Waits no longer for answers that are overdue at `now`; the lane may send again.
    fn give_up(&mut self, _now: Instant) {}

    /// Whether an answer may still come to what was given up.
    fn is_owed(&self) -> bool {
        self.n_in_flight() > 0
    }

    /// Answers to `lanes` that reached this machine and were dropped by it.
    fn n_dropped(_lanes: &[Option<Self>]) -> u64 {
        0
    }

    /// Closes the lane.
    fn finish(self) -> Settled {
        Settled::default()
    }
}

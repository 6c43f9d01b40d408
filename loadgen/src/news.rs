//! What a generator thread tells the main thread, and its end of the channel.
//!
//! The order of one thread's news is fixed: [`News::Ready`] or [`News::NotReady`]; intervals;
//! [`News::Finished`].

use std::sync::mpsc::Sender;
use std::time::Duration;

use crate::failure::{Failure, Tally};
use crate::interval::Interval;
use crate::ledger::Datagrams;
use crate::recorder::Recorded;
use crate::usage::Usage;

/// One piece of news.
#[derive(Debug)]
pub(crate) enum News {
    /// All connections of the thread are open.
    Ready,
    /// They could not be opened; the thread has ended.
    NotReady(Failure),
    /// An interval has ended.
    Interval(Box<Interval>),
    /// The thread has ended.
    Finished(Box<Summary>),
}

/// What a thread knows only when it ends.
#[derive(Debug)]
pub(crate) struct Summary {
    /// How long the measured phase really was.
    pub(crate) measured: Duration,
    /// How long the warm-up really was.
    pub(crate) warmed_up: Duration,
    pub(crate) recorded: Recorded,
    /// Requests of the measured time that were due and never sent.
    pub(crate) n_missed: u64,
    /// Answers that this machine dropped.
    pub(crate) n_dropped: u64,
    /// What became of the datagrams, if that is what the requests were.
    pub(crate) datagrams: Option<[Datagrams; 2]>,
    /// Each failure of a stream is a connection lost.
    pub(crate) tally: Tally,
    /// The core it was pinned to.
    pub(crate) core: Option<usize>,
    /// None when the measured phase never began.
    pub(crate) usage: Option<Usage>,
}

/// A thread's end of the channel to the main thread.
#[derive(Clone, Debug)]
pub(crate) struct Outlet {
    thread: usize,
    sender: Sender<(usize, News)>,
}

impl Outlet {
    pub(crate) fn new(thread: usize, sender: Sender<(usize, News)>) -> Outlet {
        Outlet { thread, sender }
    }

    /// Sends, unless the main thread has gone.
    pub(crate) fn send(&self, news: News) {
        if self.sender.send((self.thread, news)).is_err() {
            // The receiver is dropped only after the main thread gave the run up: nobody is left to
            // tell.
        }
    }
}

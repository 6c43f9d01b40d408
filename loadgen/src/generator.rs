//! The life of a generator thread: open the lanes, say so, wait for the schedule, work, sum up.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use core_affinity::CoreId;
use mio::Poll;

use crate::failure::{Failure, Kind};
use crate::interrupt::Interrupt;
use crate::interval::{SampleKinds, Samples};
use crate::lane::{Lane, Load};
use crate::news::{News, Outlet};
use crate::pace::Pace;
use crate::recorder::Schedule;
use crate::timetable::Share;
use crate::worker::Worker;

/// What a thread is started with.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) load: Arc<Load>,
    /// Number of the first lane; the thread's lanes are numbered on from there.
    pub(crate) first_lane: u64,
    pub(crate) n_lanes: usize,
    pub(crate) core: Option<usize>,
    pub(crate) drain: Duration,
    /// The thread's part of the timetable of an open loop.
    pub(crate) open: Option<(Share, Pace)>,
    pub(crate) kinds: SampleKinds,
    pub(crate) interrupt: Interrupt,
    pub(crate) outlet: Outlet,
    /// Brings the schedule once every thread is ready.
    pub(crate) start: Receiver<Schedule>,
    /// Brings used histograms back.
    pub(crate) empty: Receiver<Samples>,
}

/// The body of a generator thread, from opening its lanes to its summary.
pub(crate) fn run<L: Lane>(assignment: Assignment) {
    let outlet = assignment.outlet.clone();
    let (poll, lanes) = match prepare::<L>(&assignment) {
        Ok(prepared) => prepared,
        Err(failure) => {
            outlet.send(News::NotReady(failure));
            return;
        }
    };
    outlet.send(News::Ready);
    // No schedule comes when another thread was not ready.
    let Ok(schedule) = assignment.start.recv() else {
        return;
    };
    match Worker::new(assignment, schedule, poll, lanes) {
        Ok(worker) => outlet.send(News::Finished(Box::new(worker.run()))),
        Err(failure) => outlet.send(News::NotReady(failure)),
    }
}

fn prepare<L: Lane>(assignment: &Assignment) -> Result<(Poll, Vec<L>), Failure> {
    if let Some(core) = assignment.core
        && !core_affinity::set_for_current(CoreId { id: core })
    {
        return Err(Failure::new(
            Kind::Other,
            format!("cannot pin a generator thread to CPU {core}"),
        ));
    }
    let mut poll = Poll::new().map_err(|e| Failure::from_io("making a selector", &e))?;
    let lanes = L::open_all(
        &mut poll,
        &assignment.load,
        assignment.first_lane,
        assignment.n_lanes,
        &assignment.interrupt,
    )?;
    Ok((poll, lanes))
}

//! One run from the first connection to the outcome: starts the generator threads together, gathers
//! their intervals.
//!
//! The main thread sleeps while the load runs; it wakes for the news of the threads, a few times an
//! interval.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::generator::{self, Assignment};
use crate::interrupt::Interrupt;
use crate::interval::{Interval, SampleKinds, Samples};
use crate::lane::Load;
use crate::news::{News, Outlet, Summary};
use crate::outcome::{CutShort, Outcome};
use crate::pattern::Pattern;
use crate::plan::RunPlan;
use crate::recorder::Schedule;
use crate::target::Protocol;
use crate::tcp::Connection;
use crate::timetable::Timetable;
use crate::udp::Sender;

/// From the decision to start until the start: time for the schedule to reach every thread, even if
/// the main thread loses its CPU in between.
const LEAD: Duration = Duration::from_millis(10);
/// Spare histograms a thread: one to switch to, one for when the main thread is late with the last.
const N_SPARES: usize = 2;

/// What the main thread holds of one generator thread.
struct Generator {
    thread: JoinHandle<()>,
    start: mpsc::Sender<Schedule>,
    empty: mpsc::Sender<Samples>,
    /// Intervals that other threads have not reached yet.
    ahead: VecDeque<Interval>,
    summary: Option<Summary>,
}

/// Drives the load of `plan`; `observe` sees every interval, in order, summed over the threads.
pub(crate) fn run(
    plan: &RunPlan,
    interrupt: &Interrupt,
    mut observe: impl FnMut(&Interval),
) -> Result<Outcome, String> {
    let (sender, news) = channel();
    let mut generators = spawn(plan, interrupt, sender)?;
    wait_until_ready(&mut generators, &news)?;
    let start = match plan.start_at {
        Some(moment) => moment.wait(interrupt)?,
        None => Instant::now() + LEAD,
    };
    let measured_from = start + plan.warmup;
    let end = measured_from + plan.duration;
    let schedule = Schedule {
        start,
        measured_from,
        end,
        interval: plan.interval,
    };
    for generator in &generators {
        generator.start.send(schedule.clone()).map_err(|_| died())?;
    }
    let kinds = sample_kinds(plan);
    let mut outcome = Outcome::new(kinds);
    outcome.started = wall_clock(start);
    while generators.iter().any(|g| g.summary.is_none()) {
        match news.recv().map_err(|_| died())? {
            (thread, News::Interval(interval)) => generators[thread].ahead.push_back(*interval),
            (thread, News::Finished(summary)) => generators[thread].summary = Some(*summary),
            (_, News::NotReady(failure)) => return Err(failure.message),
            (_, News::Ready) => return Err("a generator thread began twice".to_owned()),
        }
        while let Some(interval) = take_complete(&mut generators, kinds) {
            observe(&interval);
            outcome.add(&interval, start);
        }
    }
    for generator in generators {
        generator.thread.join().map_err(|_| died())?;
        outcome.finish(generator.summary.ok_or_else(died)?);
    }
    outcome.cut_short = (outcome.measured.span < plan.duration).then(|| {
        if interrupt.is_raised() {
            CutShort::Interrupted
        } else {
            CutShort::NoneLeft
        }
    });
    Ok(outcome)
}

fn spawn(
    plan: &RunPlan,
    interrupt: &Interrupt,
    sender: mpsc::Sender<(usize, News)>,
) -> Result<Vec<Generator>, String> {
    let kinds = sample_kinds(plan);
    let load = Arc::new(Load {
        address: plan.address,
        pattern: Pattern::new(plan.sizes, plan.service_time, plan.seed),
        verify: plan.verify,
        depth: plan.depth,
        churn: plan.churn,
        settle: plan.settle,
        epoch: epoch(),
    });
    let mut generators = Vec::with_capacity(plan.threads);
    let mut first_lane = 0;
    for index in 0..plan.threads {
        let (start, start_receiver) = channel();
        let (empty, empty_receiver) = channel();
        for _ in 0..N_SPARES {
            empty.send(Samples::new(kinds)).map_err(|_| died())?;
        }
        let n_lanes =
            plan.connections / plan.threads + usize::from(index < plan.connections % plan.threads);
        let assignment = Assignment {
            load: Arc::clone(&load),
            first_lane,
            n_lanes,
            core: plan.pin.get(index).copied(),
            drain: plan.drain,
            open: plan.open.as_ref().map(|open| {
                let timetable = Timetable::new(open.arrivals, open.rate, plan.seed);
                (timetable.share(index, plan.threads), open.pace)
            }),
            kinds,
            interrupt: interrupt.clone(),
            outlet: Outlet::new(index, sender.clone()),
            start: start_receiver,
            empty: empty_receiver,
        };
        first_lane += n_lanes as u64;
        let protocol = plan.target.protocol;
        let thread = thread::Builder::new()
            .name(format!("loadgen-{index}"))
            .spawn(move || match protocol {
                Protocol::Tcp => generator::run::<Connection>(assignment),
                Protocol::Udp => generator::run::<Sender>(assignment),
            })
            .map_err(|e| format!("cannot start generator thread {index}: {e}"))?;
        generators.push(Generator {
            thread,
            start,
            empty,
            ahead: VecDeque::new(),
            summary: None,
        });
    }
    // The threads hold the only senders now: when all of them have died, the main thread hears it.
    drop(sender);
    Ok(generators)
}

/// Every thread says once whether its connections are open; the first that could not open them ends
/// the run.
fn wait_until_ready(
    generators: &mut [Generator],
    news: &Receiver<(usize, News)>,
) -> Result<(), String> {
    for _ in generators {
        match news.recv().map_err(|_| died())? {
            (_, News::Ready) => {}
            (_, News::NotReady(failure)) => return Err(failure.message),
            (_, News::Interval(_) | News::Finished(_)) => {
                return Err("a generator thread began before it was told to".to_owned());
            }
        }
    }
    Ok(())
}

/// Takes the oldest interval once every thread has either delivered it or ended before it.
fn take_complete(generators: &mut [Generator], kinds: SampleKinds) -> Option<Interval> {
    if generators
        .iter()
        .any(|g| g.ahead.is_empty() && g.summary.is_none())
    {
        return None;
    }
    let mut sum: Option<Interval> = None;
    for generator in generators {
        let Some(mut interval) = generator.ahead.pop_front() else {
            continue;
        };
        sum.get_or_insert_with(|| {
            Interval::new(interval.phase, interval.from, Samples::new(kinds))
        })
        .merge(&interval);
        interval.samples.reset();
        if generator.empty.send(interval.samples).is_err() {
            // The thread has ended and needs no histogram any more.
        }
    }
    sum
}

/// A moment of this process as time since 1970.
fn wall_clock(moment: Instant) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 tells nothing worth keeping.
    let now = now.unwrap_or_default();
    let (ahead, behind) = (
        moment.saturating_duration_since(Instant::now()),
        moment.elapsed(),
    );
    (now + ahead).saturating_sub(behind)
}

fn sample_kinds(plan: &RunPlan) -> SampleKinds {
    SampleKinds {
        open: plan.open.is_some(),
        connect: plan.churn.is_some(),
    }
}

/// Tells the datagrams of this run from those of any other.
fn epoch() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64) ^ u64::from(std::process::id())
}

fn died() -> String {
    "a generator thread panicked: its message stands above; this is a bug of loadgen".to_owned()
}

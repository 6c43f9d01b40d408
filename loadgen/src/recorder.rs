//! One thread's record of its requests: which phase a request belongs to, and histograms cut at the
//! interval.
//!
//! A request belongs to the phase in which it was **sent**. So the requests that are slow at the
//! end of the run are waited for and counted, and those sent during the warm-up never reach the
//! result, however late they end. Intervals are cut where requests **end**; the last one stays open
//! until everything sent has ended. Nothing is allocated for a request: histograms have a fixed
//! size and come back from the main thread to be used again.
//!
//! It reads no clock: time is an argument.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::interval::{Interval, Phase, new_histogram};
use crate::lane::Answer;
use crate::news::{News, Outlet};

/// When the phases begin and end; the same for all threads.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) start: Instant,
    pub(crate) measured_from: Instant,
    pub(crate) end: Instant,
    pub(crate) interval: Duration,
}

/// The record of one thread.
#[derive(Debug)]
pub(crate) struct Recorder {
    schedule: Schedule,
    current: Interval,
    /// When [`Recorder::current`] is cut; none once it is the last one.
    next_edge: Option<Instant>,
    /// Requests of the warm-up that ended after it.
    late_warmup: Histogram<u64>,
    sent: [u64; 2],
    outlet: Outlet,
    /// Used histograms, cleared by the main thread.
    empty: Receiver<Histogram<u64>>,
}

impl Recorder {
    pub(crate) fn new(
        schedule: Schedule,
        outlet: Outlet,
        empty: Receiver<Histogram<u64>>,
    ) -> Recorder {
        let start = schedule.start;
        let phase = if schedule.measured_from > start {
            Phase::WarmUp
        } else {
            Phase::Measured
        };
        let mut recorder = Recorder {
            current: Interval::new(phase, start, new_histogram()),
            next_edge: None,
            late_warmup: new_histogram(),
            sent: [0; 2],
            schedule,
            outlet,
            empty,
        };
        recorder.next_edge = recorder.edge_after(start);
        recorder
    }

    /// A request is being sent.
    pub(crate) fn began(&mut self, sent: Instant) {
        self.sent[usize::from(sent >= self.schedule.measured_from)] += 1;
    }

    /// Requests sent in the warm-up, and in the measured time.
    pub(crate) fn sent(&self) -> [u64; 2] {
        self.sent
    }

    /// A request was answered in full.
    pub(crate) fn answered(&mut self, answer: &Answer) {
        let (sent, at) = (answer.sent_at, answer.at);
        self.advance_to(at);
        let nanos =
            u64::try_from(at.saturating_duration_since(sent).as_nanos()).unwrap_or(u64::MAX);
        if sent < self.schedule.measured_from && self.current.phase == Phase::Measured {
            self.late_warmup.saturating_record(nanos);
        } else {
            self.current.latency.saturating_record(nanos);
        }
    }

    pub(crate) fn sent_bytes(&mut self, n: usize) {
        self.current.bytes_out += n as u64;
    }

    pub(crate) fn received_bytes(&mut self, n: usize) {
        self.current.bytes_in += n as u64;
    }

    pub(crate) fn failed(&mut self) {
        self.current.errors += 1;
    }

    /// Cuts every interval that has ended by `now`.
    pub(crate) fn advance_to(&mut self, now: Instant) {
        while let Some(edge) = self.next_edge.filter(|edge| now >= *edge) {
            let phase = if edge >= self.schedule.measured_from {
                Phase::Measured
            } else {
                Phase::WarmUp
            };
            self.cut(edge, phase);
            self.next_edge = self.edge_after(edge);
        }
    }

    /// Whether a request may still be sent at `now`.
    pub(crate) fn may_send(&self, now: Instant) -> bool {
        now < self.schedule.end
    }

    /// When the run ends, or ended.
    pub(crate) fn end(&self) -> Instant {
        self.schedule.end
    }

    /// Ends the run at `now` if it would have gone on longer.
    pub(crate) fn end_by(&mut self, now: Instant) {
        self.advance_to(now);
        self.schedule.end = self.schedule.end.min(now);
        self.next_edge = None;
    }

    /// When [`Recorder::advance_to`] has something to do next.
    pub(crate) fn next_edge(&self) -> Option<Instant> {
        self.next_edge
    }

    /// Hands over the last interval; what is left are the late requests of the warm-up.
    pub(crate) fn finish(mut self, now: Instant) -> Histogram<u64> {
        self.advance_to(now);
        let phase = self.current.phase;
        self.cut(now, phase);
        self.late_warmup
    }

    fn cut(&mut self, edge: Instant, next_phase: Phase) {
        let spare = self.empty.try_recv().unwrap_or_else(|_| new_histogram());
        let mut full = std::mem::replace(&mut self.current, Interval::new(next_phase, edge, spare));
        full.to = edge;
        self.outlet.send(News::Interval(full));
    }

    fn edge_after(&self, last: Instant) -> Option<Instant> {
        let next = last + self.schedule.interval;
        if last < self.schedule.measured_from {
            Some(next.min(self.schedule.measured_from))
        } else {
            Some(next).filter(|edge| *edge < self.schedule.end)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::time::{Duration, Instant};

    use super::{Recorder, Schedule};
    use crate::interval::{Interval, Phase};
    use crate::lane::Answer;
    use crate::news::{News, Outlet};

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    fn answer(sent_at: Instant, at: Instant) -> Answer {
        Answer {
            intended: sent_at,
            sent_at,
            at,
        }
    }

    /// Warm-up of 100 ms, 250 ms measured, an edge every 100 ms.
    fn recorder(start: Instant) -> (Recorder, Receiver<(usize, News)>) {
        let (sender, receiver) = channel();
        // No histogram ever comes back: each interval gets a new one.
        let (_, empty) = channel();
        let schedule = Schedule {
            start,
            measured_from: at(start, 100),
            end: at(start, 350),
            interval: Duration::from_millis(100),
        };
        (
            Recorder::new(schedule, Outlet::new(0, sender), empty),
            receiver,
        )
    }

    fn intervals(receiver: &Receiver<(usize, News)>) -> Vec<Interval> {
        receiver
            .iter()
            .map(|(_, news)| match news {
                News::Interval(interval) => interval,
                other => panic!("a recorder sends intervals only, not {other:?}"),
            })
            .collect()
    }

    #[test]
    fn intervals_are_cut_at_the_edges_and_the_last_stays_open() {
        let start = Instant::now();
        let (mut recorder, receiver) = recorder(start);
        for ms in [50, 150, 250, 340, 400] {
            recorder.answered(&answer(at(start, ms - 1), at(start, ms)));
        }
        assert_eq!(recorder.finish(at(start, 420)).len(), 0);
        let seen: Vec<_> = intervals(&receiver)
            .iter()
            .map(|i| {
                let ms = |t: Instant| t.duration_since(start).as_millis();
                (i.phase, ms(i.from), ms(i.to), i.latency.len())
            })
            .collect();
        assert_eq!(
            seen,
            [
                (Phase::WarmUp, 0, 100, 1),
                (Phase::Measured, 100, 200, 1),
                (Phase::Measured, 200, 300, 1),
                (Phase::Measured, 300, 420, 2),
            ]
        );
    }

    #[test]
    fn request_sent_in_the_warm_up_never_reaches_the_result() {
        let start = Instant::now();
        let (mut recorder, receiver) = recorder(start);
        recorder.answered(&answer(at(start, 99), at(start, 180)));
        recorder.answered(&answer(at(start, 100), at(start, 181)));
        assert_eq!(recorder.finish(at(start, 350)).len(), 1);
        let measured: u64 = intervals(&receiver)
            .iter()
            .filter(|i| i.phase == Phase::Measured)
            .map(|i| i.latency.len())
            .sum();
        assert_eq!(measured, 1);
    }

    #[test]
    fn ending_early_stops_sending_and_cuts_once() {
        let start = Instant::now();
        let (mut recorder, receiver) = recorder(start);
        recorder.end_by(at(start, 150));
        assert!(!recorder.may_send(at(start, 150)));
        assert_eq!(recorder.next_edge(), None);
        recorder.finish(at(start, 160));
        assert_eq!(intervals(&receiver).len(), 2);
    }

    #[test]
    fn latency_beyond_the_longest_counts_as_the_longest() {
        let start = Instant::now();
        let (mut recorder, receiver) = recorder(start);
        recorder.end_by(start);
        recorder.answered(&answer(start, start + Duration::from_secs(7200)));
        recorder.finish(at(start, 1));
        let max = intervals(&receiver)
            .iter()
            .map(|i| i.latency.max())
            .max()
            .unwrap_or(0);
        assert!(max >= Duration::from_secs(3600).as_nanos() as u64, "{max}");
    }
}

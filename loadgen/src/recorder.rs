//! One thread's record of its requests: which phase a request belongs to, and histograms cut at the
//! interval.
//!
//! A request belongs to the phase in which it was **due**; in a closed loop that is when it was
//! sent. So the requests that are slow at the end of the run are waited for and counted, and those
//! of the warm-up never reach the result, however late they end. Intervals are cut where requests
//! **end**; what comes after the end of the run is one interval more. Nothing is allocated for a
//! request: histograms have a fixed size and come back from the main thread to be used again.
//!
//! It reads no clock: time is an argument.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use crate::gaps::Gaps;
use crate::interval::{Interval, Phase, SampleKinds, Samples, nanos};
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
    kinds: SampleKinds,
    current: Interval,
    /// When [`Recorder::current`] is cut; none once the run has ended.
    next_edge: Option<Instant>,
    /// Requests of the warm-up that ended after it.
    late_warmup: Samples,
    sent: [u64; 2],
    gaps: Gaps,
    n_held: u64,
    outlet: Outlet,
    /// Used histograms, cleared by the main thread.
    empty: Receiver<Samples>,
}

/// What a recorder knows beside its intervals.
#[derive(Debug)]
pub(crate) struct Recorded {
    /// Requests of the warm-up that ended after it.
    pub(crate) late_warmup: Samples,
    /// Requests sent in the warm-up, and in the measured time.
    pub(crate) sent: [u64; 2],
    /// The arrival process of an open loop.
    pub(crate) gaps: Gaps,
    /// Requests of the measured time that were due before a connection was free.
    pub(crate) n_held: u64,
}

impl Recorder {
    pub(crate) fn new(
        schedule: Schedule,
        kinds: SampleKinds,
        outlet: Outlet,
        empty: Receiver<Samples>,
    ) -> Recorder {
        let start = schedule.start;
        let phase = if schedule.measured_from > start {
            Phase::WarmUp
        } else {
            Phase::Measured
        };
        let mut recorder = Recorder {
            current: Interval::new(phase, start, Samples::new(kinds)),
            next_edge: None,
            late_warmup: Samples::new(kinds),
            sent: [0; 2],
            gaps: Gaps::default(),
            n_held: 0,
            schedule,
            kinds,
            outlet,
            empty,
        };
        recorder.next_edge = recorder.edge_after(start);
        recorder
    }

    /// A request that was due at `intended` is being sent.
    pub(crate) fn began(&mut self, intended: Instant) {
        self.sent[usize::from(intended >= self.schedule.measured_from)] += 1;
    }

    /// The same for an open loop: `free_at` is since when there was room for it.
    pub(crate) fn began_open(&mut self, intended: Instant, sent_at: Instant, free_at: Instant) {
        self.began(intended);
        let is_measured = intended >= self.schedule.measured_from;
        let Some(open) = self.current.samples.open.as_mut().filter(|_| is_measured) else {
            return;
        };
        open.send_lag.saturating_record(nanos(intended, sent_at));
        open.own_lag
            .saturating_record(nanos(intended.max(free_at), sent_at));
        self.n_held += u64::from(free_at > intended);
        self.gaps.sent(intended, sent_at);
    }

    /// A request was answered in full.
    pub(crate) fn answered(&mut self, answer: &Answer) {
        self.advance_to(answer.at);
        let samples = if answer.intended >= self.schedule.measured_from
            || self.current.phase == Phase::WarmUp
        {
            &mut self.current.samples
        } else {
            self.current.carried_over += 1;
            &mut self.late_warmup
        };
        samples
            .latency
            .saturating_record(nanos(answer.intended, answer.at));
        if let Some(open) = &mut samples.open {
            open.from_send
                .saturating_record(nanos(answer.sent_at, answer.at));
        }
    }

    /// A connection was opened anew, begun at `from`.
    pub(crate) fn connected(&mut self, from: Instant, at: Instant) {
        self.advance_to(at);
        let samples = if from >= self.schedule.measured_from || self.current.phase == Phase::WarmUp
        {
            &mut self.current.samples
        } else {
            &mut self.late_warmup
        };
        if let Some(connect) = &mut samples.connect {
            connect.saturating_record(nanos(from, at));
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
            self.cut(edge);
            self.next_edge = self.edge_after(edge);
        }
    }

    /// Whether a request that is due at `intended` belongs to the run.
    pub(crate) fn may_send(&self, intended: Instant) -> bool {
        intended < self.schedule.end
    }

    /// When the run ends, or ended.
    pub(crate) fn end(&self) -> Instant {
        self.schedule.end
    }

    /// Ends the run at `now` if it would have gone on longer.
    pub(crate) fn end_by(&mut self, now: Instant) {
        self.advance_to(now);
        if now < self.schedule.end {
            self.schedule.end = now;
            self.cut(now);
        }
        self.next_edge = None;
    }

    /// When [`Recorder::advance_to`] has something to do next.
    pub(crate) fn next_edge(&self) -> Option<Instant> {
        self.next_edge
    }

    /// Hands over the last interval, if anything happened in it.
    pub(crate) fn finish(mut self, now: Instant) -> Recorded {
        self.end_by(now);
        if !self.current.is_empty() {
            self.cut(now);
        }
        Recorded {
            late_warmup: self.late_warmup,
            sent: self.sent,
            gaps: self.gaps,
            n_held: self.n_held,
        }
    }

    fn cut(&mut self, edge: Instant) {
        let phase = if edge >= self.schedule.end {
            Phase::Drain
        } else if edge >= self.schedule.measured_from {
            Phase::Measured
        } else {
            Phase::WarmUp
        };
        let spare = self
            .empty
            .try_recv()
            .unwrap_or_else(|_| Samples::new(self.kinds));
        let mut full = std::mem::replace(&mut self.current, Interval::new(phase, edge, spare));
        full.to = edge;
        self.outlet.send(News::Interval(Box::new(full)));
    }

    fn edge_after(&self, last: Instant) -> Option<Instant> {
        let Schedule {
            measured_from,
            end,
            interval,
            ..
        } = self.schedule;
        let next = last + interval;
        if last < measured_from {
            Some(next.min(measured_from))
        } else if last < end {
            Some(next.min(end))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::time::{Duration, Instant};

    use super::{Recorder, Schedule};
    use crate::interval::{Interval, Phase, SampleKinds};
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
            Recorder::new(
                schedule,
                SampleKinds::default(),
                Outlet::new(0, sender),
                empty,
            ),
            receiver,
        )
    }

    fn intervals(receiver: &Receiver<(usize, News)>) -> Vec<Interval> {
        receiver
            .iter()
            .map(|(_, news)| match news {
                News::Interval(interval) => *interval,
                other => panic!("a recorder sends intervals only, not {other:?}"),
            })
            .collect()
    }

    #[test]
    fn intervals_are_cut_at_the_edges_and_one_more_after_the_end() {
        let start = Instant::now();
        let (mut recorder, receiver) = recorder(start);
        for ms in [50, 150, 250, 340, 400] {
            recorder.answered(&answer(at(start, ms - 1), at(start, ms)));
        }
        assert!(
            recorder
                .finish(at(start, 420))
                .late_warmup
                .latency
                .is_empty()
        );
        let seen: Vec<_> = intervals(&receiver)
            .iter()
            .map(|i| {
                let ms = |t: Instant| t.duration_since(start).as_millis();
                (i.phase, ms(i.from), ms(i.to), i.samples.latency.len())
            })
            .collect();
        assert_eq!(
            seen,
            [
                (Phase::WarmUp, 0, 100, 1),
                (Phase::Measured, 100, 200, 1),
                (Phase::Measured, 200, 300, 1),
                (Phase::Measured, 300, 350, 1),
                (Phase::Drain, 350, 420, 1),
            ]
        );
    }

    #[test]
    fn request_sent_in_the_warm_up_never_reaches_the_result() {
        let start = Instant::now();
        let (mut recorder, receiver) = recorder(start);
        recorder.answered(&answer(at(start, 99), at(start, 180)));
        recorder.answered(&answer(at(start, 100), at(start, 181)));
        assert_eq!(recorder.finish(at(start, 350)).late_warmup.latency.len(), 1);
        let measured: u64 = intervals(&receiver)
            .iter()
            .filter(|i| i.phase == Phase::Measured)
            .map(|i| i.samples.latency.len())
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
        // Sent in the warm-up, which ended with the run.
        let max = recorder.finish(at(start, 1)).late_warmup.latency.max();
        assert!(
            intervals(&receiver)
                .iter()
                .all(|i| i.samples.latency.is_empty())
        );
        assert!(max >= Duration::from_secs(3600).as_nanos() as u64, "{max}");
    }

    /// Due at 200, free at 210, sent at 211: 11 ms behind, of which the generator made 1.
    #[test]
    fn lag_of_the_generator_begins_when_there_is_room() {
        let start = Instant::now();
        let (sender, receiver) = channel();
        let (_, empty) = channel();
        let schedule = Schedule {
            start,
            measured_from: start,
            end: at(start, 1000),
            interval: Duration::from_secs(1),
        };
        let kinds = SampleKinds {
            open: true,
            connect: false,
        };
        let mut recorder = Recorder::new(schedule, kinds, Outlet::new(0, sender), empty);
        recorder.began_open(at(start, 100), at(start, 102), start);
        recorder.began_open(at(start, 200), at(start, 211), at(start, 210));
        recorder.answered(&Answer {
            intended: at(start, 200),
            sent_at: at(start, 211),
            at: at(start, 231),
        });
        let recorded = recorder.finish(at(start, 1000));
        assert_eq!((recorded.n_held, recorded.sent), (1, [0, 2]));
        assert_eq!(recorded.gaps.realised.n(), 1);
        let interval = intervals(&receiver).remove(0);
        let open = interval.samples.open.expect("an open loop");
        let ms = |h: &hdrhistogram::Histogram<u64>| (h.max() as f64 / 1e6).round() as u64;
        assert_eq!((ms(&open.send_lag), ms(&open.own_lag)), (11, 2));
        assert_eq!(ms(&interval.samples.latency), 31);
        assert_eq!(ms(&open.from_send), 20);
    }
}

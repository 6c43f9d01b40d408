//! Echo at a fixed rate: the generator's connections, driven by a timetable instead of by their answers.
//!
//! Each request goes out on the connection that has been idle longest. If none is idle it waits, and leaves as soon as
//! one is: a connection still has one request under way. Latency counts from the moment a request was due, so waiting for
//! a connection is the server's. Between two requests the generator spins: it has a CPU of its own, sleeping would make
//! it late, and so the server's sends never have to wake it.
//!
//! It ends with its duration, or 5 s later at most if nothing was answered by then.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::generator::{ANSWER_LIMIT, Generator, LoadError, Progress};
use crate::open_loop::nanoseconds;
use crate::skew::Percentiles;
use crate::timetable::Timetable;

/// How long requests took that came at a fixed rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pace {
    /// Requests that fell due.
    pub due: u64,
    /// Median latency from the intended moment.
    pub p50_us: f64,
    /// 90 of 100 were at least as fast.
    pub p90_us: f64,
    /// 99 of 100 were at least as fast.
    pub p99_us: f64,
    /// How late requests were sent: the 99th percentile. With idle connections this is the generator's fault.
    pub late_p99_us: f64,
}

impl Generator {
    /// Sends by the timetable for `duration`.
    ///
    /// The requests under way at its end stay so, those that were due and not sent are forgotten; as latency of the latter
    /// counts how long they have waited by then.
    ///
    /// # Errors
    /// As [`Generator::run`].
    pub fn run_by(
        &mut self,
        mut timetable: Timetable,
        duration: Duration,
    ) -> Result<Progress, LoadError> {
        let mut latencies_ns = Vec::new();
        let mut late_ns = Vec::new();
        let before = self.fleet.answered;
        self.fleet.repeat = false;
        let start = Instant::now();
        let mut now = start;
        let mut due = start + timetable.next_due();
        while now < start + duration || self.fleet.answered == before {
            if now >= start + duration + ANSWER_LIMIT {
                return Err(self.fleet.stalled(now - start));
            }
            while due <= now
                && let Some(index) = self.fleet.idle.pop_front()
            {
                late_ns.push(nanoseconds(now - due));
                self.fleet.connections[index].due = due;
                self.fleet.request(index)?;
                due = start + timetable.next_due();
            }
            self.wait(Duration::ZERO)?;
            // Whatever is handled now was there by now, and an answer makes its connection idle.
            now = Instant::now();
            let idle_before = self.fleet.idle.len();
            self.handle()?;
            let answered = self.fleet.idle.range(idle_before..);
            let due_of = |index: &usize| self.fleet.connections[*index].due;
            latencies_ns.extend(answered.map(|index| nanoseconds(now - due_of(index))));
        }
        let sent = late_ns.len() as u64;
        let mut unsent = 0;
        while due <= now {
            latencies_ns.push(nanoseconds(now - due));
            unsent += 1;
            due = start + timetable.next_due();
        }
        let [latencies, late] = [latencies_ns, late_ns].map(Percentiles::of);
        Ok(Progress {
            requests: self.fleet.answered - before,
            elapsed: now - start,
            pace: Some(Pace {
                due: sent + unsent,
                p50_us: latencies.us(0.5),
                p90_us: latencies.us(0.9),
                p99_us: latencies.us(0.99),
                late_p99_us: late.us(0.99),
            }),
        })
    }
}

//! What the loops and the services have done, as OpenMetrics text.
//!
//! Everything is read when somebody asks, from counters that are there anyway: metrics cost the loops nothing. Reading
//! waits for no loop.

use std::{fmt, sync::Arc};

use garland::{LoopHandle, LoopStats};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use crate::{
    lifecycle::{Running, Serving},
    machine,
    tally::{REASONS, Tally},
    udp_echo::Counts,
};

/// One sample: its labels, its value.
type Sample<T> = (Vec<(&'static str, String)>, T);

type LoopNumber = (&'static str, &'static str, fn(&LoopStats) -> u64);

/// Numbers of a loop that only grow: name, meaning, value.
const LOOP_COUNTERS: &[LoopNumber] = &[
    ("turns", "Turns made", |one| one.turns),
    ("polls", "Polls of the selector: system calls", |one| {
        one.polls
    }),
    (
        "events",
        "Readiness events taken from the selector",
        |one| one.events,
    ),
    (
        "callbacks_run",
        "Entries of the ready queue that ran",
        |one| one.handles_run,
    ),
    ("tasks_run", "Steps of tasks that ran here", |one| {
        one.tasks_run
    }),
    ("tasks_stolen", "Tasks it took from other loops", |one| {
        one.tasks_stolen
    }),
    (
        "tasks_stolen_from",
        "Tasks that other loops took from it",
        |one| one.tasks_stolen_from,
    ),
    (
        "rescues",
        "Times it turned the driver of a stuck loop",
        |one| one.rescues,
    ),
    ("stuck", "Times it was itself found stuck for long", |one| {
        one.n_stuck
    }),
    ("parks", "Times it went to sleep in its selector", |one| {
        one.parks
    }),
    ("wakeups_sent", "Times it woke another loop", |one| {
        one.unparks_sent
    }),
    (
        "wakeups_received",
        "Times it was woken by another thread",
        |one| one.unparks_received,
    ),
    ("timers_fired", "Timers fired", |one| one.timers_fired),
    ("callback_panics", "Panics caught in callbacks", |one| {
        one.callback_panics
    }),
    ("task_panics", "Tasks that panicked", |one| {
        one.tasks_panicked
    }),
];

/// Numbers of a loop that go up and down.
const LOOP_GAUGES: &[LoopNumber] = &[
    ("parked", "Whether it sleeps now", |one| {
        u64::from(one.is_parked)
    }),
    ("tasks_live", "Tasks that live now", |one| one.tasks_live),
    ("timers_armed", "Timers armed now", |one| one.timers_armed),
];

type Outcome = (&'static str, fn(&Counts) -> u64);

/// What becomes of a datagram: label, value.
const OUTCOMES: &[Outcome] = &[
    ("echoed", |counts| counts.echoed),
    ("refused", |counts| counts.refused),
    ("dropped", |counts| counts.dropped),
];

/// Where the numbers come from.
#[derive(Clone)]
pub(crate) struct Metrics {
    handle: LoopHandle,
    services: Arc<[Running]>,
}

impl Metrics {
    pub(crate) fn new(handle: LoopHandle, services: Arc<[Running]>) -> Metrics {
        Metrics { handle, services }
    }

    /// All of them, as they are now.
    pub(crate) fn to_text(&self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        let encoded = encode(&mut text, &registry);
        encoded.expect("a string takes any text");
        text
    }

    fn encode_loops(&self, out: &mut Encoder<'_>) -> fmt::Result {
        let stats = self.handle.stats();
        let samples = |of: &dyn Fn(&LoopStats) -> u64| {
            let samples = stats.loops.iter();
            samples
                .map(|one| (vec![label_of(one.id.index())], of(one)))
                .collect()
        };
        for (name, help, of) in LOOP_COUNTERS {
            out.counter(&format!("garland_loop_{name}"), help, samples(of))?;
        }
        for (name, help, of) in LOOP_GAUGES {
            out.gauge(&format!("garland_loop_{name}"), help, samples(of))?;
        }
        let busy = machine::loop_cpu_times(stats.loops.len()).into_iter();
        let busy = busy.map(|(id, time)| (vec![label_of(id)], time.as_secs_f64()));
        out.seconds(
            "garland_loop_busy",
            "CPU time of its thread",
            busy.collect(),
        )
    }

    fn encode_tcp(&self, out: &mut Encoder<'_>) -> fmt::Result {
        out.gauge(
            "echod_connections_open",
            "Connections open now, by the loop that accepted them",
            self.of_tallies(Tally::open),
        )?;
        out.counter(
            "echod_connections_accepted",
            "Connections accepted",
            self.of_tallies(Tally::accepted),
        )?;
        let mut closed = Vec::new();
        for (reason, name) in REASONS {
            let samples = self.of_tallies(|tally| tally.closed(reason));
            let reason = ("reason", name.to_owned());
            let labelled =
                |(labels, value): Sample<u64>| ([labels, vec![reason.clone()]].concat(), value);
            closed.extend(samples.into_iter().map(labelled));
        }
        let help = "Connections that have ended, by reason";
        out.counter("echod_connections_closed", help, closed)?;
        let servers = self.tcp().map(|(name, serving)| (name, &serving.server));
        let mut errors = Vec::new();
        let mut pauses = Vec::new();
        for (name, server) in servers {
            let service = ("service", name.to_owned());
            for (errno, count) in server.accept_errors() {
                let labels = vec![service.clone(), ("errno", name_of_errno(errno))];
                errors.push((labels, count));
            }
            pauses.push((vec![service], server.stats().accept_pauses));
        }
        out.counter("echod_accept_errors", "Errors of accept, by errno", errors)?;
        let help = "Times a listener paused: no descriptors, or max_connections";
        out.counter("echod_accept_pauses", help, pauses)
    }

    fn encode_udp(&self, out: &mut Encoder<'_>) -> fmt::Result {
        let mut datagrams = Vec::new();
        for (labels, counts) in self.of_datagrams() {
            for (outcome, of) in OUTCOMES {
                let outcome = vec![("outcome", (*outcome).to_owned())];
                datagrams.push(([labels.clone(), outcome].concat(), of(&counts)));
            }
        }
        let help = "Datagrams received, by what became of them";
        out.counter("echod_datagrams", help, datagrams)
    }

    fn encode_bytes(&self, out: &mut Encoder<'_>) -> fmt::Result {
        let mut bytes = self.of_tallies(Tally::bytes);
        let datagrams = self.of_datagrams();
        bytes.extend(datagrams.map(|(labels, counts)| (labels, counts.bytes)));
        out.counter("echod_answered_bytes", "Bytes answered", bytes)
    }

    fn tcp(&self) -> impl Iterator<Item = (&str, &crate::services::TcpServing)> {
        self.services
            .iter()
            .filter_map(|service| match &service.serving {
                Serving::Tcp(serving) => Some((service.name.as_str(), serving)),
                Serving::Udp(_) => None,
            })
    }

    /// A number of each TCP service and loop.
    fn of_tallies(&self, of: impl Fn(&Tally) -> u64) -> Vec<Sample<u64>> {
        let mut samples = Vec::new();
        for (name, serving) in self.tcp() {
            for (id, tally) in serving.tallies.iter().enumerate() {
                let labels = vec![("service", name.to_owned()), label_of(id)];
                samples.push((labels, of(tally)));
            }
        }
        samples
    }

    /// What each UDP service has counted on each loop.
    fn of_datagrams(&self) -> impl Iterator<Item = Sample<Counts>> {
        let loops = self.handle.loops();
        self.services.iter().flat_map(move |service| {
            let serving = match &service.serving {
                Serving::Udp(serving) => Some(serving),
                Serving::Tcp(_) => None,
            };
            serving.into_iter().flat_map(move |serving| {
                (0..loops).map(move |id| {
                    let labels = vec![("service", service.name.clone()), label_of(id)];
                    (labels, serving.counts_of(id))
                })
            })
        })
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Encoder(encoder);
        self.encode_loops(&mut out)?;
        self.encode_tcp(&mut out)?;
        self.encode_udp(&mut out)?;
        self.encode_bytes(&mut out)
    }
}

/// Writes one metric at a time, with all its samples.
struct Encoder<'a>(DescriptorEncoder<'a>);

impl Encoder<'_> {
    fn counter(&mut self, name: &str, help: &str, samples: Vec<Sample<u64>>) -> fmt::Result {
        let samples = samples
            .into_iter()
            .map(|(labels, value)| (labels, ConstCounter::new(value)));
        self.family(name, help, None, MetricType::Counter, samples)
    }

    fn seconds(&mut self, name: &str, help: &str, samples: Vec<Sample<f64>>) -> fmt::Result {
        let samples = samples
            .into_iter()
            .map(|(labels, value)| (labels, ConstCounter::new(value)));
        let unit = Some(&Unit::Seconds);
        self.family(name, help, unit, MetricType::Counter, samples)
    }

    fn gauge(&mut self, name: &str, help: &str, samples: Vec<Sample<u64>>) -> fmt::Result {
        let samples = samples
            .into_iter()
            .map(|(labels, value)| (labels, ConstGauge::new(value)));
        self.family(name, help, None, MetricType::Gauge, samples)
    }

    fn family<M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        kind: MetricType,
        samples: impl Iterator<Item = Sample<M>>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, kind)?;
        for (labels, metric) in samples {
            metric.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn label_of(id: usize) -> (&'static str, String) {
    ("loop", id.to_string())
}

/// The usual errors of accept by name, others by number.
fn name_of_errno(errno: i32) -> String {
    use rustix::io::Errno;
    let known = [
        (Errno::MFILE, "EMFILE"),
        (Errno::NFILE, "ENFILE"),
        (Errno::NOBUFS, "ENOBUFS"),
        (Errno::NOMEM, "ENOMEM"),
        (Errno::CONNABORTED, "ECONNABORTED"),
        (Errno::INTR, "EINTR"),
        (Errno::PERM, "EPERM"),
        (Errno::PROTO, "EPROTO"),
        (Errno::NOTCONN, "ENOTCONN"),
    ];
    let name = known.iter().find(|(one, _)| one.raw_os_error() == errno);
    name.map_or_else(|| errno.to_string(), |(_, name)| (*name).to_owned())
}

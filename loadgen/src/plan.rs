//! A run that makes sense: every number in its range, every CPU there, the target resolved.
//!
//! Whoever holds a [`RunPlan`] need not check again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::assertion::Assertion;
use crate::cli::ProgressStyle;
use crate::header::HEADER_BYTES;
use crate::options::Options;
use crate::pace::Pace;
use crate::quantity::{self, Rate, Sizes, Span};
use crate::random;
use crate::service_time::{self, ServiceTime};
use crate::start_at::StartAt;
use crate::stored;
use crate::target::{Protocol, Target};
use crate::timetable::Arrivals;

/// More than one address pair can carry; with several addresses another process can add to it.
const MAX_CONNECTIONS: usize = 100_000;
/// More generator threads than any machine of today has CPUs.
const MAX_THREADS: usize = 1024;
/// More in flight on one connection measures the queue, not the target.
const MAX_DEPTH: usize = 4096;
/// Datagrams in flight on a sender of an open loop, unless asked otherwise: with the usual 64 senders
/// and settle time, 20,000 a second stay without an answer before any send waits.
const OPEN_UDP_DEPTH: usize = 64;
/// A connection that lives longer is not reopened in any run.
const MAX_CHURN: usize = 1 << 40;
/// One request in 1,000 s, and more than any machine of today can send.
const MIN_RATE: f64 = 0.001;
const MAX_RATE: f64 = 100e6;
/// Larger requests measure bandwidth, not latency; each thread's pattern is as large.
const MAX_SIZE: usize = 64 << 20;
/// Longest payload of a datagram over IPv4; IPv6 takes 20 bytes more, which nobody needs.
const MAX_DATAGRAM: usize = 65_507;
/// A shorter wait would give up datagrams because this machine was busy.
const MIN_SETTLE: Duration = Duration::from_millis(1);
/// Shorter intervals would cost the generator more than the load.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// Longest of all spans: beyond it sums of moments could overflow.
const MAX_SPAN: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is checked of an echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verify {
    /// Every byte, against a pattern that varies by connection and request
    Full,
    /// As many bytes as were sent
    Length,
    /// Nothing: an echo ends where its length says
    Off,
}

/// The timetable of an open loop.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OpenPlan {
    /// Requests a second, over all threads.
    pub(crate) rate: f64,
    #[serde(with = "stored::text")]
    pub(crate) arrivals: Arrivals,
    pub(crate) pace: Pace,
}

/// A validated run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunPlan {
    #[serde(with = "stored::text")]
    pub(crate) target: Target,
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    /// Requests in flight on each connection, at most.
    pub(crate) depth: usize,
    pub(crate) sizes: Sizes,
    /// None for a closed loop.
    pub(crate) open: Option<OpenPlan>,
    pub(crate) seed: u64,
    pub(crate) churn: Option<u64>,
    #[serde(with = "stored::text_option")]
    pub(crate) service_time: Option<ServiceTime>,
    #[serde(with = "stored::seconds")]
    pub(crate) duration: Duration,
    #[serde(with = "stored::seconds")]
    pub(crate) warmup: Duration,
    #[serde(with = "stored::seconds")]
    pub(crate) drain: Duration,
    /// How long a datagram's answer is waited for.
    #[serde(with = "stored::seconds")]
    pub(crate) settle: Duration,
    #[serde(with = "stored::seconds")]
    pub(crate) interval: Duration,
    pub(crate) verify: Verify,
    /// Empty, or one CPU a thread.
    pub(crate) pin: Vec<usize>,
    /// When the load begins; none for at once.
    #[serde(skip)]
    pub(crate) start_at: Option<StartAt>,
    #[serde(skip)]
    pub(crate) assertions: Vec<Assertion>,
    #[serde(skip)]
    pub(crate) out: Option<PathBuf>,
    #[serde(skip)]
    pub(crate) json: bool,
    /// None: no progress at all.
    #[serde(skip)]
    pub(crate) progress: Option<ProgressStyle>,
}

impl RunPlan {
    /// Checks what was asked for and fills in what was not; `cpus` are those this process may use.
    pub(crate) fn new(options: Options, cpus: &[usize]) -> Result<RunPlan, String> {
        let target = options.target.clone().ok_or(
            "no target: name one, as in `loadgen run tcp://HOST:PORT`, or in the plan, as in \
             `target = \"tcp://HOST:PORT\"`",
        )?;
        let span = |span: Option<Span>, default| span.map_or(default, |Span(span)| span);
        let plan = RunPlan {
            connections: options.connections.unwrap_or(64),
            threads: options.threads.unwrap_or(1),
            depth: options.depth.unwrap_or_else(|| depth(&options, &target)),
            sizes: sizes(&options),
            open: open(&options)?,
            seed: options.seed.unwrap_or_else(seed_of_this_moment),
            churn: options.churn,
            service_time: options.service_time,
            duration: span(options.duration, Duration::from_secs(10)),
            warmup: span(options.warmup, Duration::from_secs(1)),
            drain: span(options.drain, Duration::from_secs(2)),
            settle: span(options.settle, Duration::from_millis(200)),
            interval: span(options.interval, Duration::from_secs(1)),
            verify: options.verify.unwrap_or(Verify::Full),
            pin: options.pin,
            start_at: options.start_at,
            assertions: options.assert,
            out: options.out,
            json: options.json,
            progress: (!options.quiet).then_some(options.progress.unwrap_or(ProgressStyle::Auto)),
            // Resolving may take long: only once all else is right.
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            target,
        };
        plan.check_numbers()?;
        plan.check_combinations(options.service_time.is_some() && options.size.is_some())?;
        check_pins(&plan.pin, plan.threads, cpus)?;
        Ok(RunPlan {
            address: plan.target.resolve()?,
            ..plan
        })
    }

    fn check_numbers(&self) -> Result<(), String> {
        in_range("--connections", self.connections, 1, MAX_CONNECTIONS)?;
        in_range(
            "--threads",
            self.threads,
            1,
            MAX_THREADS.min(self.connections),
        )?;
        in_range("--depth", self.depth, 1, MAX_DEPTH)?;
        let (least, most) = match self.target.protocol {
            Protocol::Tcp => (1, MAX_SIZE),
            Protocol::Udp => (HEADER_BYTES, MAX_DATAGRAM),
        };
        in_range("--size", self.sizes.least, least, most)?;
        in_range("--size", self.sizes.most, least, most)?;
        if let Some(churn) = self.churn {
            in_range(
                "--churn",
                usize::try_from(churn).unwrap_or(usize::MAX),
                1,
                MAX_CHURN,
            )?;
        }
        if let Some(open) = &self.open
            && !(MIN_RATE..=MAX_RATE).contains(&open.rate)
        {
            let rate = open.rate;
            return Err(format!(
                "--rate is {rate}; allowed: {MIN_RATE} to {MAX_RATE}"
            ));
        }
        let spans = [
            ("--duration", self.duration, Duration::from_millis(1)),
            ("--warmup", self.warmup, Duration::ZERO),
            ("--drain", self.drain, Duration::ZERO),
            ("--settle", self.settle, MIN_SETTLE),
            ("--interval", self.interval, MIN_INTERVAL),
        ];
        for (name, span, least) in spans {
            if span < least || span > MAX_SPAN {
                return Err(format!("{name} is {span:?}; allowed: {least:?} to 30 days"));
            }
        }
        Ok(())
    }

    fn check_combinations(&self, sized_work: bool) -> Result<(), String> {
        if sized_work {
            return Err(
                "--size has no meaning with --service-time: such requests are 16 bytes".into(),
            );
        }
        if self.target.protocol == Protocol::Tcp {
            if let Some(assertion) = self.assertions.iter().find(|a| a.is_of_datagrams()) {
                return Err(format!("{assertion} can be held only against udp targets"));
            }
            return Ok(());
        }
        for (name, is_used) in [
            ("--churn", self.churn.is_some()),
            ("--service-time", self.service_time.is_some()),
        ] {
            if is_used {
                return Err(format!(
                    "{name} is for tcp targets, and this is {}",
                    self.target
                ));
            }
        }
        if self.drain < self.settle {
            return Err(format!(
                "--drain is {:?}, less than --settle {:?}: datagrams of the last moment would be \
                 lost before their time",
                self.drain, self.settle
            ));
        }
        Ok(())
    }

    /// The load in words.
    pub(crate) fn describe(&self) -> String {
        let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let lanes = self.target.protocol.lane();
        let mut text = match &self.open {
            None => "closed loop, ".to_owned(),
            Some(open) => format!(
                "open loop of {:.1}/s ({}, pace {}), ",
                open.rate,
                open.arrivals,
                format!("{:?}", open.pace).to_lowercase()
            ),
        };
        text.push_str(&plural(self.connections, lanes));
        if self.depth > 1 {
            text.push_str(&format!(" of depth {}", self.depth));
        }
        if let Some(churn) = self.churn {
            text.push_str(&format!(
                " reopened after {}",
                plural(churn as usize, "request")
            ));
        }
        text.push_str(&format!(", {}, ", plural(self.threads, "generator thread")));
        match &self.service_time {
            Some(law) => text.push_str(&format!(
                "requests for work of {law} (mean {})",
                quantity::duration(law.mean())
            )),
            None => text.push_str(&format!("requests of {}", self.sizes)),
        }
        let verify = format!("{:?}", self.verify).to_lowercase();
        text.push_str(&format!(", verify {verify}"));
        text
    }
}

fn sizes(options: &Options) -> Sizes {
    match options.service_time {
        Some(_) => Sizes::exactly(service_time::REQUEST_BYTES),
        None => options.size.unwrap_or(Sizes::exactly(64)),
    }
}

/// Datagrams of an open loop do not wait for each other: a lost one would hold up the rest for its
/// settle time, and one at a time cannot be overtaken. A stream, or a closed loop, that pipelines
/// is another load, so it must be asked for.
fn depth(options: &Options, target: &Target) -> usize {
    match target.protocol {
        Protocol::Udp if options.rate.is_some() => OPEN_UDP_DEPTH,
        _ => 1,
    }
}

fn open(options: &Options) -> Result<Option<OpenPlan>, String> {
    let Some(Rate(rate)) = options.rate else {
        let name = match (options.arrivals, options.pace) {
            (None, None) => return Ok(None),
            (Some(_), _) => "--arrivals",
            (None, Some(_)) => "--pace",
        };
        return Err(format!(
            "{name} has no meaning in a closed loop: give a --rate"
        ));
    };
    Ok(Some(OpenPlan {
        rate,
        arrivals: options.arrivals.unwrap_or(Arrivals::Poisson),
        pace: options.pace.unwrap_or(Pace::Hybrid),
    }))
}

/// Two runs at the same time must not keep step with each other.
fn seed_of_this_moment() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // Short enough to be typed again.
    random::at(since.map_or(0, |s| s.as_nanos() as u64), 0, 0) >> 32
}

fn in_range(name: &str, value: usize, least: usize, most: usize) -> Result<(), String> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(format!("{name} is {value}; allowed: {least} to {most}"))
}

fn check_pins(pin: &[usize], threads: usize, cpus: &[usize]) -> Result<(), String> {
    if !pin.is_empty() && pin.len() != threads {
        return Err(format!(
            "--pin names {} CPUs for {threads} threads; name one for each",
            pin.len()
        ));
    }
    match pin.iter().find(|cpu| !cpus.contains(cpu)) {
        Some(cpu) => Err(format!(
            "--pin names CPU {cpu}; this process may use {cpus:?}"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::RunPlan;
    use crate::cli::{Cli, Command};
    use crate::options::Options;
    use crate::pace::Pace;
    use crate::quantity::Sizes;
    use crate::timetable::Arrivals;

    fn options(options: &[&str]) -> Options {
        let line = ["loadgen", "run", "tcp://127.0.0.1:9"]
            .iter()
            .chain(options);
        match Cli::try_parse_from(line)
            .expect("options that clap accepts")
            .command
        {
            Command::Run(args) => args.options,
            other => panic!("run was parsed as {other:?}"),
        }
    }

    fn plan(more: &[&str]) -> Result<RunPlan, String> {
        RunPlan::new(options(more), &[0, 2])
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let plan = plan(&[]).expect("the defaults are valid");
        assert_eq!((plan.connections, plan.threads), (64, 1));
        assert_eq!(plan.sizes, Sizes::exactly(64));
        assert_eq!((plan.duration.as_secs(), plan.warmup.as_secs()), (10, 1));
        assert_eq!(plan.verify, super::Verify::Full);
        assert!(plan.open.is_none(), "a closed loop");
        assert_eq!(plan.depth, 1);
    }

    #[test]
    fn datagrams_of_an_open_loop_do_not_wait_for_each_other() {
        let depth = |options: &[&str]| plan(options).expect("a valid plan").depth;
        let udp = |more: &[&str]| {
            let options = Options {
                target: Some("udp://127.0.0.1:9".parse().expect("a target")),
                ..options(more)
            };
            RunPlan::new(options, &[0, 2]).expect("a valid plan").depth
        };
        assert_eq!((depth(&["--rate", "1k"]), udp(&[])), (1, 1));
        assert_eq!(udp(&["--rate", "1k"]), 64);
        assert_eq!(udp(&["--rate", "1k", "--depth", "3"]), 3);
    }

    #[test]
    fn rate_makes_an_open_loop_of_poisson_arrivals() {
        let plan = plan(&["--rate", "50k", "--seed", "7"]).expect("a valid plan");
        let open = plan.open.expect("an open loop");
        assert_eq!(
            (open.rate, open.arrivals, open.pace),
            (50e3, Arrivals::Poisson, Pace::Hybrid)
        );
        assert_eq!(plan.seed, 7);
    }

    #[test]
    fn values_out_of_range_are_refused_with_what_is_allowed() {
        for (options, part) in [
            (
                ["--connections", "0"].as_slice(),
                "--connections is 0; allowed: 1 to",
            ),
            (&["--threads", "65"], "--threads is 65; allowed: 1 to 64"),
            (&["--size", "0"], "--size is 0; allowed: 1 to"),
            (&["--duration", "0s"], "--duration is 0ns; allowed: 1ms to"),
            (
                &["--interval", "1ms"],
                "--interval is 1ms; allowed: 10ms to",
            ),
            (&["--warmup", "1year"], "--warmup"),
            (&["--rate", "0"], "--rate is 0; allowed: 0.001 to"),
            (
                &["--pace", "spin"],
                "--pace has no meaning in a closed loop",
            ),
            (&["--arrivals", "poisson"], "--arrivals has no meaning"),
            (&["--churn", "0"], "--churn is 0; allowed: 1 to"),
            (&["--depth", "5000"], "--depth is 5000; allowed: 1 to 4096"),
            (
                &["--assert", "loss==0"],
                "loss==0 can be held only against udp",
            ),
            (
                &["--service-time", "1ms", "--size", "64"],
                "--size has no meaning with --service-time",
            ),
            (&["--pin", "0,2"], "--pin names 2 CPUs for 1 threads"),
            (
                &["--pin", "1"],
                "--pin names CPU 1; this process may use [0, 2]",
            ),
        ] {
            let error = plan(options).expect_err(part);
            assert!(error.contains(part), "{options:?}: {error}");
        }
    }
}

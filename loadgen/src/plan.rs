//! A run that makes sense: every number in its range, every CPU there, the target resolved.
//!
//! Whoever holds a [`RunPlan`] need not check again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use crate::cli::{ProgressStyle, RunArgs};
use crate::header::HEADER_BYTES;
use crate::quantity::Sizes;
use crate::target::{Protocol, Target};

/// More than one address pair can carry; with several addresses another process can add to it.
const MAX_CONNECTIONS: usize = 100_000;
/// More generator threads than any machine of today has CPUs.
const MAX_THREADS: usize = 1024;
/// More in flight on one connection measures the queue, not the target.
const MAX_DEPTH: usize = 4096;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Verify {
    /// Every byte, against a pattern that varies by connection and request
    Full,
    /// As many bytes as were sent
    Length,
    /// Nothing: an echo ends where its length says
    Off,
}

/// A validated run.
#[derive(Clone, Debug)]
pub(crate) struct RunPlan {
    pub(crate) target: Target,
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    /// Requests in flight on each connection, at most.
    pub(crate) depth: usize,
    pub(crate) sizes: Sizes,
    pub(crate) duration: Duration,
    pub(crate) warmup: Duration,
    pub(crate) drain: Duration,
    /// How long a datagram's answer is waited for.
    pub(crate) settle: Duration,
    pub(crate) interval: Duration,
    pub(crate) verify: Verify,
    /// Empty, or one CPU a thread.
    pub(crate) pin: Vec<usize>,
    pub(crate) out: Option<PathBuf>,
    /// None: no progress at all.
    pub(crate) progress: Option<ProgressStyle>,
}

impl RunPlan {
    /// Checks what was asked for; `cpus` are those this process may use.
    pub(crate) fn new(args: RunArgs, cpus: &[usize]) -> Result<RunPlan, String> {
        in_range("--connections", args.connections, 1, MAX_CONNECTIONS)?;
        in_range(
            "--threads",
            args.threads,
            1,
            MAX_THREADS.min(args.connections),
        )?;
        in_range("--depth", args.depth, 1, MAX_DEPTH)?;
        let (least, most) = match args.target.protocol {
            Protocol::Tcp => (1, MAX_SIZE),
            Protocol::Udp => (HEADER_BYTES, MAX_DATAGRAM),
        };
        in_range("--size", args.size.least, least, most)?;
        in_range("--size", args.size.most, least, most)?;
        let spans = [
            ("--duration", args.duration, Duration::from_millis(1)),
            ("--warmup", args.warmup, Duration::ZERO),
            ("--drain", args.drain, Duration::ZERO),
            ("--settle", args.settle, MIN_SETTLE),
            ("--interval", args.interval, MIN_INTERVAL),
        ];
        for (name, span, least) in spans {
            if span < least || span > MAX_SPAN {
                return Err(format!("{name} is {span:?}; allowed: {least:?} to 30 days"));
            }
        }
        if args.target.protocol == Protocol::Udp && args.drain < args.settle {
            return Err(format!(
                "--drain is {:?}, less than --settle {:?}: datagrams of the last moment would be \
                 lost before their time",
                args.drain, args.settle
            ));
        }
        check_pins(&args.pin, args.threads, cpus)?;
        Ok(RunPlan {
            address: args.target.resolve()?,
            target: args.target,
            connections: args.connections,
            threads: args.threads,
            depth: args.depth,
            sizes: args.size,
            duration: args.duration,
            warmup: args.warmup,
            drain: args.drain,
            settle: args.settle,
            interval: args.interval,
            verify: args.verify,
            pin: args.pin,
            out: args.out,
            progress: (!args.quiet).then_some(args.progress),
        })
    }

    /// The load in words.
    pub(crate) fn describe(&self) -> String {
        let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let lanes = match self.target.protocol {
            Protocol::Tcp => "connection",
            Protocol::Udp => "sender",
        };
        format!(
            "{}{}, {}, requests of {}, verify {}",
            plural(self.connections, lanes),
            match self.depth {
                1 => String::new(),
                depth => format!(" of depth {depth}"),
            },
            plural(self.threads, "generator thread"),
            self.sizes,
            match self.verify {
                Verify::Full => "full",
                Verify::Length => "length",
                Verify::Off => "off",
            }
        )
    }
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
    use crate::quantity::Sizes;

    fn plan(options: &[&str]) -> Result<RunPlan, String> {
        let line = ["loadgen", "run", "tcp://127.0.0.1:9"]
            .iter()
            .chain(options);
        match Cli::try_parse_from(line)
            .expect("options that clap accepts")
            .command
        {
            Command::Run(args) => RunPlan::new(args, &[0, 2]),
            other => panic!("run was parsed as {other:?}"),
        }
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let plan = plan(&[]).expect("the defaults are valid");
        assert_eq!((plan.connections, plan.threads), (64, 1));
        assert_eq!(plan.sizes, Sizes::exactly(64));
        assert_eq!((plan.duration.as_secs(), plan.warmup.as_secs()), (10, 1));
        assert_eq!(plan.verify, super::Verify::Full);
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

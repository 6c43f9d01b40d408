//! The command line: what can be written. What makes sense is decided in [`crate::plan`].

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::assertion::Assertion;
use crate::options::Options;
use crate::quantity::{Rate, Sizes, Span};

/// Load generator for TCP and UDP servers: drives an echo server and measures the latency of every request.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  loadgen demo                                      try it: starts its own server, drives it, reports
  loadgen run tcp://127.0.0.1:7007                  64 connections for 10 s after 1 s of warm-up
  loadgen run tcp://127.0.0.1:7007 --rate 20k       open loop: 20,000 requests a second, come what may
  loadgen run udp://127.0.0.1:7007 --rate 5k --assert 'loss==0' --assert 'p99<2ms'
  loadgen run --plan configs/loadgen-tcp.toml --duration 1m
  loadgen find-max tcp://127.0.0.1:7007 --slo 'p99<1ms'

Exit status:  0 ok; 1 wrong usage, no connection, failed requests; 3 an assertion failed;
              4 INVALID, the generator was the bottleneck. demo exits with 0 once it has reported.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Drive a server and report its latency
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Search the highest rate at which a server keeps an objective
    #[command(after_help = FIND_MAX_EXAMPLES)]
    FindMax(Box<FindMaxArgs>),
    /// Start an echo server in a process of its own, drive it over loopback, report
    Demo(DemoArgs),
    /// The server of `demo`
    #[command(name = "__serve", hide = true)]
    Serve(ServeArgs),
}

const RUN_EXAMPLES: &str = "\
Examples:
  loadgen run tcp://127.0.0.1:7007
  loadgen run tcp://127.0.0.1:7007 --connections 1 --duration 30s     latency of an idle server
  loadgen run tcp://[::1]:7007 --threads 2 --pin 2,3 --out results    generator threads on CPUs 2 and 3
  loadgen run tcp://127.0.0.1:7007 --rate 20k --connections 256       users who do not wait for each other
  loadgen run udp://127.0.0.1:7007 --rate 5k --size 64..1200 --settle 500ms
  loadgen run tcp://127.0.0.1:7007 --churn 100                        100 requests a connection
  loadgen run tcp://127.0.0.1:7008 --service-time exp:500us           for services of kind tcp-spin

Without --rate the load is a closed loop: each connection sends its next request when the last one
was answered, and a server that stalls is sent nothing meanwhile. With --rate requests are due when
the timetable says; latency counts from then, even if no connection was free.
Ctrl-C ends the run early and reports what was measured; a second Ctrl-C exits at once.";

const FIND_MAX_EXAMPLES: &str = "\
Examples:
  loadgen find-max tcp://127.0.0.1:7007 --slo 'p99<1ms'
  loadgen find-max udp://127.0.0.1:7007 --slo 'p99.9<5ms' --slo 'loss==0' --from 10k --duration 5s

The rate is doubled until an objective fails or less than 90 % of it is achieved, then bisected; the
answer is confirmed by a window twice as long. --duration and --warmup are those of one window
[default: 2s and 500ms].";

/// What `run` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// A file with the same options, one `key = value` a line; what stands on the command line wins
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) options: Options,
}

/// What `find-max` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct FindMaxArgs {
    /// What the target must keep at a rate for the rate to count (repeatable): 'p99<1ms', 'loss==0'
    #[arg(long, value_name = "CONDITION", required = true)]
    pub(crate) slo: Vec<Assertion>,
    /// The rate to begin with [default: 1000]
    #[arg(long, value_name = "RATE")]
    pub(crate) from: Option<Rate>,
    /// The highest rate to try [default: 10M]
    #[arg(long, value_name = "RATE")]
    pub(crate) up_to: Option<Rate>,
    /// How near the answer must be to the true maximum, in per cent [default: 5]
    #[arg(long, value_name = "PERCENT")]
    pub(crate) precision: Option<f64>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProgressStyle {
    /// A line kept up to date on a terminal, nothing elsewhere
    Auto,
    /// One line an interval
    Plain,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// Connections, one request in flight on each
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) connections: usize,
    /// Bytes of a request: 64, 4KiB, 1MiB
    #[arg(long, value_name = "BYTES", default_value = "64")]
    pub(crate) size: Sizes,
    /// How long to measure, after 1 s of warm-up
    #[arg(long, value_name = "TIME", default_value = "5s")]
    pub(crate) duration: Span,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ServeArgs {
    /// Event loops of the server
    #[arg(long)]
    pub(crate) loops: usize,
}

//! The command line: what can be written. What makes sense is decided in [`crate::plan`].

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use humantime::parse_duration;

use crate::plan::Verify;
use crate::quantity::Sizes;
use crate::target::Target;

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
  loadgen run tcp://10.0.0.2:7007 --connections 1000 --threads 2 --size 4KiB --duration 1m
  loadgen run tcp://127.0.0.1:7007 --out results    also writes results/run.hgrm and results/run.hlog

Exit status of run:  0 every request was answered correctly; 1 wrong usage, no connection, failed requests.
Exit status of demo: 0 the report was printed, whatever it says; 1 wrong usage, no server, no connection.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Drive a server and report its latency
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
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

The load is a closed loop: each connection sends its next request when the last one was answered.
Ctrl-C ends the run early and reports what was measured; a second Ctrl-C exits at once.";

/// What `run` takes; checked by [`crate::plan::RunPlan::new`].
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// Where the server listens: tcp://HOST:PORT or udp://HOST:PORT
    pub(crate) target: Target,
    /// Connections (udp: sockets), over all threads
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) connections: usize,
    /// Requests in flight on each connection, at most
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) depth: usize,
    /// Generator threads
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) threads: usize,
    /// Bytes of a request: 64, 4KiB, 1MiB, or a range 64..4096 from which each is drawn; udp: at
    /// least 24
    #[arg(long, value_name = "BYTES", default_value = "64")]
    pub(crate) size: Sizes,
    /// How long to measure: 10s, 500ms, 2m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub(crate) duration: Duration,
    /// Load before the measurement: shown, left out of the result
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub(crate) warmup: Duration,
    /// How long to wait for answers still outstanding at the end
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    pub(crate) drain: Duration,
    /// udp: how long a datagram's answer is waited for before the socket sends the next one. An
    /// answer after that counts as late, none as lost; nothing is sent twice
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = parse_duration)]
    pub(crate) settle: Duration,
    /// What is checked of an echo: all its bytes, its length, nothing
    #[arg(long, value_enum, default_value_t = Verify::Full)]
    pub(crate) verify: Verify,
    /// Time between two progress lines, and between two lines of run.hlog
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub(crate) interval: Duration,
    /// CPUs to pin the generator threads to, one for each thread
    #[arg(long, value_name = "CPU", value_delimiter = ',')]
    pub(crate) pin: Vec<usize>,
    /// Folder for run.hgrm and run.hlog (made if missing, files overwritten)
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Progress on standard error: a line kept up to date on a terminal, or one line an interval
    /// anywhere
    #[arg(long, value_enum, default_value_t = ProgressStyle::Auto)]
    pub(crate) progress: ProgressStyle,
    /// No progress, only the report
    #[arg(long, conflicts_with = "progress")]
    pub(crate) quiet: bool,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
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
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub(crate) duration: Duration,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ServeArgs {
    /// Event loops of the server
    #[arg(long)]
    pub(crate) loops: usize,
}

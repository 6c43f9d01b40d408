//! The command line: what can be written. What makes sense is decided in [`crate::plan`].

use std::path::PathBuf;

use clap::{Arg, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
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
  loadgen compare before/run.json after/run.json

Exit status:  0 ok; 1 wrong usage, no connection, failed requests; 3 an assertion failed, or runs
              that are compared differ; 4 INVALID, the generator was the bottleneck. demo exits
              with 0 once it has reported.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Drive a server and report its latency
    #[command(after_help = RUN_EXAMPLES, allow_negative_numbers = true)]
    Run(Box<RunArgs>),
    /// Search the highest rate at which a server keeps an objective
    #[command(after_help = FIND_MAX_EXAMPLES, allow_negative_numbers = true)]
    #[command(mut_args(options_of_a_search))]
    FindMax(Box<FindMaxArgs>),
    /// Tell whether two stored runs differ by more than their noise
    #[command(after_help = COMPARE_EXAMPLES, allow_negative_numbers = true)]
    Compare(CompareArgs),
    /// Put the histograms of several generators or machines into one log
    #[command(after_help = MERGE_EXAMPLES)]
    Merge(MergeArgs),
    /// Show a stored run again: text, pictures, page
    #[command(after_help = REPORT_EXAMPLES)]
    Report(ReportArgs),
    /// Start an echo server in a process of its own, drive it over loopback, report
    Demo(DemoArgs),
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
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
  loadgen run tcp://127.0.0.1:7007 --service-time exp:500us           echod -c configs/tcp-spin.toml

Without --rate the load is a closed loop: each connection sends its next request when the last one
was answered, and a server that stalls is sent nothing meanwhile. With --rate requests are due when
the timetable says; latency counts from then, even if no connection was free.
Ctrl-C ends the run early and reports what was measured; a second Ctrl-C exits at once.

Exit status:  0 ok; 1 wrong usage, no connection, failed requests, nothing measured; 3 an assertion
              failed; 4 INVALID, the generator was the bottleneck. Lost datagrams are a result and
              no failure: --assert 'loss==0'.";

const FIND_MAX_EXAMPLES: &str = "\
Examples:
  loadgen find-max tcp://127.0.0.1:7007 --slo 'p99<1ms'
  loadgen find-max udp://127.0.0.1:7007 --slo 'p99.9<5ms' --slo 'loss==0' --from 10k --duration 5s

The rate is doubled until an objective fails or less than 90 % of it is achieved, then bisected; the
answer is confirmed by a window twice as long.

Exit status:  0 a rate holds; 1 wrong usage, no connection, interrupted before a rate held; 3 no
              rate holds; 4 the generator was the bottleneck: what held is a lower bound.";

const COMPARE_EXAMPLES: &str = "\
Examples:
  loadgen run tcp://127.0.0.1:7007 --rate 10k --duration 30s --out before
  loadgen run tcp://127.0.0.1:7008 --rate 10k --duration 30s --out after
  loadgen compare before/run.json after/run.json
  loadgen compare before/run.json after/run.json -o difference     also as a page and a picture
  loadgen compare before/run.json after/run.json --least 20        on a noisy machine

Compared are the intervals of both runs, by Welch's test, each run counted as its effective sample
size. A difference is more than chance and at least --least per cent large. Noise that changes more
slowly than a run lasts is in neither run: compare runs that were made in turn.

Exit status:  0 no difference seen; 1 a file cannot be used; 3 a difference; 4 a run is not valid.";

const MERGE_EXAMPLES: &str = "\
Examples:
  loadgen merge all.hlog one/run.hlog two/run.hlog

Generators that began at the same moment (run --start-at) have a common timeline:
  at=@$(($(date +%s) + 10))
  ssh one loadgen run tcp://target:7007 --rate 50k --start-at $at --out one &
  ssh two loadgen run tcp://target:7007 --rate 50k --start-at $at --out two &";

const REPORT_EXAMPLES: &str = "\
Examples:
  loadgen report results/run.json               the text that the run printed
  loadgen report results/run.json -o shown      also report.html, latency.svg and timeline.svg";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  loadgen completions bash > ~/.local/share/bash-completion/completions/loadgen
  loadgen completions zsh > ~/.zfunc/_loadgen           with ~/.zfunc in $fpath
  loadgen completions fish > ~/.config/fish/completions/loadgen.fish";

/// Options of a run that mean something else to `find-max`, and those that it refuses.
fn options_of_a_search(option: Arg) -> Arg {
    match option.get_id().as_str() {
        "rate" | "assert" | "start_at" => option.hide(true),
        "duration" => option.help("How long to measure in one window [default: 2s]"),
        "warmup" => option.help("Load before each window, left out of its result [default: 500ms]"),
        "drain" => {
            option.help("How long to wait for answers at the end of a window [default: 500ms]")
        }
        "out" => option
            .help("Folder for find-max.json: the search and its confirming run (made if missing)"),
        "json" => option.help("Print the search (what find-max.json holds) instead of the report"),
        _ => option,
    }
}

/// What `compare` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompareArgs {
    /// The first run: a run.json of `run --out`
    #[arg(value_name = "A.json")]
    pub(crate) first: PathBuf,
    /// The second run
    #[arg(value_name = "B.json")]
    pub(crate) second: PathBuf,
    /// The smallest difference that matters, in per cent
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
    pub(crate) least: f64,
    /// Folder for compare.html and compare.svg (made if missing)
    #[arg(short, long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// What `merge` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct MergeArgs {
    /// The log to write; it must not be there yet
    #[arg(value_name = "OUT.hlog")]
    pub(crate) out: PathBuf,
    /// The logs to merge: run.hlog of `run --out`
    #[arg(value_name = "IN.hlog", required = true)]
    pub(crate) logs: Vec<PathBuf>,
}

/// What `report` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReportArgs {
    /// The run: a run.json of `run --out`
    #[arg(value_name = "RUN.json")]
    pub(crate) run: PathBuf,
    /// Folder for report.html, latency.svg and timeline.svg (made if missing)
    #[arg(short, long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// What `completions` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// What `run` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// A file with the same options, one `key = value` a line; what stands on the command line wins, --assert is added,
    /// and json or quiet in the file stay on
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
    /// Requests a second over all connections: 20k, 1M
    #[arg(
        long,
        value_name = "RATE",
        default_value = "20k",
        conflicts_with = "closed"
    )]
    pub(crate) rate: Rate,
    /// As fast as it goes: a connection sends again when it has its answer (a closed loop)
    #[arg(long)]
    pub(crate) closed: bool,
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

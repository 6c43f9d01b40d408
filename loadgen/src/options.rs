//! The options of a run, as they can be written: on the command line and in a plan file alike.
//!
//! One list serves both, so that neither knows a word the other does not. Nothing is filled in
//! here; what makes sense, and what is meant by an option left out, is decided in [`crate::plan`].

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

use crate::assertion::Assertion;
use crate::cli::ProgressStyle;
use crate::pace::Pace;
use crate::plan::Verify;
use crate::quantity::{Rate, Sizes, Span};
use crate::service_time::ServiceTime;
use crate::start_at::StartAt;
use crate::target::Target;
use crate::timetable::Arrivals;

/// The headings of `--help`.
const LOAD: &str = "Load";
const TIME: &str = "Time";
const GENERATOR: &str = "Generator";
const RESULT: &str = "Result";

/// All that can be asked of a run.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Options {
    /// Where the server listens: tcp://HOST:PORT or udp://HOST:PORT
    #[serde(deserialize_with = "text")]
    pub(crate) target: Option<Target>,
    /// Connections (udp: sockets), over all threads [default: 64]
    #[arg(help_heading = LOAD, long, value_name = "N")]
    pub(crate) connections: Option<usize>,
    /// Bytes of a request: 64, 4KiB, 1MiB, or a range 64..4096 from which each is drawn; udp: at
    /// least 24 [default: 64]
    #[arg(help_heading = LOAD, long, value_name = "BYTES")]
    #[serde(deserialize_with = "text")]
    pub(crate) size: Option<Sizes>,
    /// Requests in flight on each connection, at most [default: 1; udp with --rate: 64]
    #[arg(help_heading = LOAD, long, value_name = "N")]
    pub(crate) depth: Option<usize>,
    /// Open loop at this many requests a second in total: 200, 50k, 1.5M; without it a closed loop
    #[arg(help_heading = LOAD, long, value_name = "RATE")]
    #[serde(deserialize_with = "text")]
    pub(crate) rate: Option<Rate>,
    /// When the requests of an open loop are due: constant, poisson, burst:N [default: poisson]
    #[arg(help_heading = LOAD, long, value_name = "PROCESS")]
    #[serde(deserialize_with = "text")]
    pub(crate) arrivals: Option<Arrivals>,
    /// tcp: close and reopen each connection after N requests
    #[arg(help_heading = LOAD, long, value_name = "N")]
    pub(crate) churn: Option<u64>,
    /// For services of kind tcp-spin, how long they work on a request: 500us, exp:500us,
    /// bimodal:100us,20ms,0.01; requests are then 16 bytes (an echo answers them too, without the work)
    #[arg(help_heading = LOAD, long, value_name = "LAW")]
    #[serde(deserialize_with = "text")]
    pub(crate) service_time: Option<ServiceTime>,
    /// Seed of arrivals, sizes and service times [default: another one each run; reports name it]
    #[arg(help_heading = LOAD, long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// How long to measure: 10s, 500ms, 2m [default: 10s]
    #[arg(help_heading = TIME, long, value_name = "TIME")]
    #[serde(deserialize_with = "text")]
    pub(crate) duration: Option<Span>,
    /// Load before the measurement: shown, left out of the result [default: 1s]
    #[arg(help_heading = TIME, long, value_name = "TIME")]
    #[serde(deserialize_with = "text")]
    pub(crate) warmup: Option<Span>,
    /// Length of the intervals: lines of progress and of run.hlog, points of the timeline, what
    /// compare takes [default: 1s]
    #[arg(help_heading = TIME, long, value_name = "TIME")]
    #[serde(deserialize_with = "text")]
    pub(crate) interval: Option<Span>,
    /// udp: how long a datagram without an answer holds its place in --depth. An answer after that
    /// counts as late, no answer as lost; nothing is sent twice [default: 200ms]
    #[arg(help_heading = TIME, long, value_name = "TIME")]
    #[serde(deserialize_with = "text")]
    pub(crate) settle: Option<Span>,
    /// How long to wait for answers still outstanding at the end [default: 2s]
    #[arg(help_heading = TIME, long, value_name = "TIME")]
    #[serde(deserialize_with = "text")]
    pub(crate) drain: Option<Span>,
    /// When the load begins, so that several generators begin together: 2026-01-31T12:00:00Z, or @ and
    /// seconds since 1970 [default: at once]
    #[arg(help_heading = TIME, long, value_name = "MOMENT")]
    #[serde(deserialize_with = "text")]
    pub(crate) start_at: Option<StartAt>,
    /// Generator threads [default: 1]
    #[arg(help_heading = GENERATOR, long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// CPUs to pin the generator threads to, one for each thread: 2,3
    #[arg(help_heading = GENERATOR, long, value_name = "CPU", value_delimiter = ',')]
    pub(crate) pin: Vec<usize>,
    /// How an open loop waits for the next send [default: hybrid]
    #[arg(help_heading = GENERATOR, long, value_enum)]
    pub(crate) pace: Option<Pace>,
    /// What is checked of an echo: all its bytes, its length, nothing [default: full]
    #[arg(help_heading = GENERATOR, long, value_enum)]
    pub(crate) verify: Option<Verify>,
    /// A condition on the result, such as 'p99.9<2ms', 'rate>=45k' or 'loss<0.1%' (repeatable): min
    /// mean pNN max rate errors loss late dup reorder; exit code 3 if one fails
    #[arg(help_heading = RESULT, long, value_name = "CONDITION")]
    #[serde(deserialize_with = "texts")]
    pub(crate) assert: Vec<Assertion>,
    /// Folder for run.json, run.hgrm, run.hlog, latency.svg, timeline.svg and report.html (made if
    /// missing, files overwritten)
    #[arg(help_heading = RESULT, short, long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Print the record of the run (what run.json holds) instead of the report
    #[arg(help_heading = RESULT, long)]
    pub(crate) json: bool,
    /// Progress on standard error: a line kept up to date on a terminal, or one line an interval
    /// anywhere [default: auto]
    #[arg(help_heading = RESULT, long, value_enum)]
    pub(crate) progress: Option<ProgressStyle>,
    /// No progress, only the report
    #[arg(help_heading = RESULT, long, conflicts_with = "progress")]
    pub(crate) quiet: bool,
}

impl Options {
    /// Reads a plan file. An error names the place: `FILE:LINE:COLUMN: what is wrong`.
    pub(crate) fn read(path: &Path) -> Result<Options, String> {
        let name = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|e| format!("--plan {name}: cannot read the file: {e}"))?;
        Options::parse(&text)
            .map_err(|(line, column, what)| format!("{name}:{line}:{column}: {what}"))
    }

    /// Reads the text of a plan; an error comes with its line and column, from 1.
    fn parse(text: &str) -> Result<Options, (usize, usize, String)> {
        toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start).min(text.len());
            let before = &text[..offset];
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            (line, column, error.message().to_owned())
        })
    }

    /// Takes from `other` what is not said here.
    pub(crate) fn or(self, other: Options) -> Options {
        let first = |mine: Vec<usize>, others| if mine.is_empty() { others } else { mine };
        Options {
            target: self.target.or(other.target),
            connections: self.connections.or(other.connections),
            threads: self.threads.or(other.threads),
            size: self.size.or(other.size),
            depth: self.depth.or(other.depth),
            duration: self.duration.or(other.duration),
            warmup: self.warmup.or(other.warmup),
            start_at: self.start_at.or(other.start_at),
            drain: self.drain.or(other.drain),
            settle: self.settle.or(other.settle),
            rate: self.rate.or(other.rate),
            arrivals: self.arrivals.or(other.arrivals),
            pace: self.pace.or(other.pace),
            seed: self.seed.or(other.seed),
            churn: self.churn.or(other.churn),
            service_time: self.service_time.or(other.service_time),
            verify: self.verify.or(other.verify),
            interval: self.interval.or(other.interval),
            pin: first(self.pin, other.pin),
            out: self.out.or(other.out),
            assert: [other.assert, self.assert].concat(),
            json: self.json || other.json,
            progress: self.progress.or(other.progress),
            quiet: self.quiet || other.quiet,
        }
    }
}

/// A value that is written as on the command line: a string, or a number where it is one.
fn text<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    deserializer.deserialize_any(Text(PhantomData)).map(Some)
}

/// A list of such values.
fn texts<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let words = Vec::<String>::deserialize(deserializer)?;
    let parsed = words
        .iter()
        .map(|word| word.parse().map_err(D::Error::custom));
    parsed.collect()
}

struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err: Display>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string as on the command line, or a number")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::Options;
    use crate::plan::RunPlan;
    use crate::quantity::{Rate, Sizes};

    #[test]
    fn plan_takes_what_the_command_line_takes() {
        let options = Options::parse(
            "# a comment\n\
             target = \"udp://127.0.0.1:7007\"\n\
             size = \"64..4KiB\"\n\
             rate = 50000\n\
             pin = [0, 1]\n\
             service-time = \"exp:500us\"\n\
             assert = ['p99<1ms', 'loss==0']\n",
        )
        .expect("a good plan");
        assert_eq!(options.rate, Some(Rate(50_000.0)));
        assert_eq!(options.size.map(|s| s.most), Some(4096));
        assert_eq!((options.pin, options.assert.len()), (vec![0, 1], 2));
    }

    /// The first profile shows every key there is, as it is or behind a #.
    #[test]
    fn shipped_profiles_load_and_the_first_names_every_key() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
        let mut n = 0;
        for entry in fs::read_dir(folder).expect("configs/ is part of the repository") {
            let path = entry.expect("the folder can be listed").path();
            let name = path
                .file_name()
                .and_then(|n| n.to_str())
                .unwrap_or_default();
            if name.starts_with("loadgen-") {
                let options = Options::read(&path).unwrap_or_else(|e| panic!("{e}"));
                RunPlan::new(options, &[0, 1]).unwrap_or_else(|e| panic!("{name}: {e}"));
                n += 1;
            }
        }
        assert!(n >= 2, "{n} profiles");
        let first = include_str!("../../configs/loadgen-tcp.toml");
        let unknown = Options::parse("x = 1").expect_err("no such key").2;
        let keys = unknown.split('`').skip(3).step_by(2);
        let mut n_keys = 0;
        for key in keys {
            let shown = first.lines().any(|line| {
                let line = line.strip_prefix("# ").unwrap_or(line);
                line.starts_with(&format!("{key} = "))
            });
            assert!(shown || key == "settle", "{key} is not shown");
            n_keys += 1;
        }
        assert!(n_keys >= 20, "{n_keys} keys: {unknown}");
    }

    #[test]
    fn errors_of_a_plan_name_line_and_column() {
        for (text, place, part) in [
            (
                "depth = 2\nconections = 3\n",
                (2, 1),
                "unknown field `conections`",
            ),
            ("depth = 2\nsize = \"many\"\n", (2, 8), "is not a size"),
            (
                "\n  rate = true\n",
                (2, 10),
                "a string as on the command line",
            ),
            ("assert = ['p99']", (1, 10), "compares nothing"),
            ("depth = -1", (1, 9), "expected usize"),
            ("depth 1", (1, 7), "="),
            ("[tcp]\ndepth = 1", (1, 2), "unknown field `tcp`"),
        ] {
            let (line, column, message) = Options::parse(text).expect_err(text);
            assert!(message.contains(part), "{text:?}: {message}");
            assert_eq!((line, column), place, "{text:?}: {message}");
        }
    }

    #[test]
    fn command_line_wins_over_the_plan() {
        let cli = Options::parse("size = 128\nassert = ['max<1s']").expect("good options");
        let plan =
            Options::parse("size = 64\nrate = 10\nassert = ['p50<1s']").expect("good options");
        let both = cli.or(plan);
        assert_eq!(both.size, Some(Sizes::exactly(128)));
        assert_eq!(both.rate, Some(Rate(10.0)));
        assert_eq!(both.assert.len(), 2, "conditions add up");
    }
}

//! The driver: starts the servers, runs the rounds, prints the tables.
//!
//! Per test and round every shape of load, per shape every server, in an order that is rotated by one
//! server per round. So windows that are compared lie seconds apart, and no server always runs first. It
//! deliberately judges nothing: what would be a bad answer stands in `README.md`.
//!
//! Exit code 0 only if every server that can run here answered everything correctly.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use garland_versus::building::{self, NotBuilt};
use garland_versus::chart::{self, Group};
use garland_versus::contenders::{self, Contender, Test};
use garland_versus::hog::{self, HogWindow};
use garland_versus::machine::Machine;
use garland_versus::measure::{self, Memory, Protocol, Shape, Traffic, Window};
use garland_versus::process::{Refused, ServerProcess};
use garland_versus::serving;
use garland_versus::skew::{self, SkewWindow};
use garland_versus::table::Spread;
use garland_versus::trace::COLUMNS;
use garland_versus::{latency_table, table};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;

/// So many datagrams of this size, with what the kernel adds, fit into a socket's buffer of the usual size.
const UDP_SOCKETS_MAX: usize = 64;
const UDP_SIZE_MAX: usize = 1024;

/// Compares servers on several runtimes, interleaved and pinned
#[derive(Parser, Serialize)]
struct Options {
    /// What to compare [default: all]
    #[arg(value_enum)]
    tests: Vec<Test>,
    /// How often everything is run; ratios are taken within a round [default: 8, spin and hog 3]
    #[arg(long)]
    rounds: Option<usize>,
    /// Time of one window; echo warms up for a fifth of it before [default: 2, spin 4, hog 3]
    #[arg(long)]
    seconds: Option<f64>,
    /// Few short rounds, unless said otherwise: shows that all works, proves nothing
    #[arg(long)]
    quick: bool,
    /// Echo: open connections, each with one request under way [default: 1,64,1024; for UDP 1,64]
    #[arg(long, value_delimiter = ',')]
    connections: Vec<usize>,
    /// Echo: bytes of a request; UDP carries at most 1024
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Spin: which columns, like `exp .5` [default: all]
    #[arg(long, value_delimiter = ',')]
    columns: Vec<String>,
    /// Servers to compare [default: all but `mio-again`, the floor a second time, to see the noise]
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// TCP: also measure the memory of idle connections, on servers started for it
    #[arg(long)]
    idle: bool,
    /// As --idle, and once more after one echo on each connection
    #[arg(long)]
    idle_echo: bool,
    /// How many idle connections
    #[arg(long, default_value_t = 5000)]
    idle_connections: usize,
    /// CPU of the servers that echo; those with work have both CPUs
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// CPU of the generator for echo; must be another one
    #[arg(long, default_value_t = 1)]
    generator_cpu: usize,
    /// Write all single windows to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draw the medians into this file
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Use the server programs as they are instead of building them first
    #[arg(long)]
    no_build: bool,
}

impl Options {
    fn tests(&self) -> &[Test] {
        if self.tests.is_empty() {
            &Test::ALL
        } else {
            &self.tests
        }
    }

    fn rounds(&self, test: Test) -> usize {
        self.rounds.unwrap_or(match test {
            Test::Tcp | Test::Udp if !self.quick => 8,
            Test::Spin | Test::Hog if !self.quick => 3,
            Test::Tcp | Test::Udp => 2,
            Test::Spin | Test::Hog => 1,
        })
    }

    fn seconds(&self, test: Test) -> f64 {
        self.seconds.unwrap_or(match test {
            _ if self.quick => 1.0,
            Test::Tcp | Test::Udp => 2.0,
            Test::Spin => 4.0,
            Test::Hog => 3.0,
        })
    }

    fn connections(&self, protocol: Protocol) -> Vec<usize> {
        let most = match protocol {
            Protocol::Tcp => usize::MAX,
            Protocol::Udp => UDP_SOCKETS_MAX,
        };
        let wanted = if self.connections.is_empty() {
            &[1, 64, 1024]
        } else {
            self.connections.as_slice()
        };
        wanted
            .iter()
            .copied()
            .filter(|count| *count <= most)
            .collect()
    }

    fn shape(&self, protocol: Protocol, connections: usize) -> Shape {
        let (size, seconds) = match protocol {
            Protocol::Tcp => (self.size, self.seconds(Test::Tcp)),
            Protocol::Udp => (self.size.min(UDP_SIZE_MAX), self.seconds(Test::Udp)),
        };
        Shape {
            protocol,
            connections,
            size,
            seconds,
        }
    }

    /// The columns to run, by their place.
    fn columns(&self) -> Vec<usize> {
        let wanted = |name| self.columns.is_empty() || self.columns.iter().any(|one| one == name);
        (0..COLUMNS.len())
            .filter(|index| wanted(COLUMNS[*index].name))
            .collect()
    }

    /// Echo has one CPU, and the generator another one; work has both, and so has its generator.
    fn server_cpus(&self, test: Test) -> Vec<usize> {
        match test {
            Test::Tcp | Test::Udp => vec![self.server_cpu],
            Test::Spin | Test::Hog => vec![self.server_cpu, self.generator_cpu],
        }
    }

    fn generator_cpus(&self, test: Test) -> Vec<usize> {
        match test {
            Test::Tcp | Test::Udp => vec![self.generator_cpu],
            Test::Spin | Test::Hog => vec![self.server_cpu, self.generator_cpu],
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.rounds
                .is_none_or(|rounds| (1..=1000).contains(&rounds)),
            "--rounds must be 1 to 1000"
        );
        ensure!(
            self.seconds
                .is_none_or(|seconds| (0.05..=60.0).contains(&seconds)),
            "--seconds must be 0.05 to 60"
        );
        ensure!(
            (1..=1 << 20).contains(&self.size),
            "--size must be 1 to 1048576"
        );
        ensure!(
            self.server_cpu != self.generator_cpu,
            "servers and generator need a CPU each"
        );
        let counts = self.connections.iter().chain([&self.idle_connections]);
        for count in counts {
            ensure!(
                (1..=20_000).contains(count),
                "{count} connections: must be 1 to 20000"
            );
        }
        known("server", &self.servers, contenders::names().collect())?;
        let columns = COLUMNS.iter().map(|column| column.name);
        known("column", &self.columns, columns.collect())
    }
}

fn known(what: &str, wanted: &[String], mut names: Vec<&str>) -> anyhow::Result<()> {
    if let Some(unknown) = wanted.iter().find(|name| !names.contains(&name.as_str())) {
        names.dedup();
        bail!("no {what} {unknown:?}, there are: {}", names.join(", "));
    }
    Ok(())
}

fn main() -> ExitCode {
    match compare(&Options::parse()) {
        Ok(record) if record.failures.is_empty() => ExitCode::SUCCESS,
        Ok(record) => {
            for (server, failure) in &record.failures {
                eprintln!("versus: {server} failed and was left out from then on: {failure}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("versus: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> anyhow::Result<Record<'_>> {
    options.check()?;
    let machine = Machine::here();
    let here = env::current_exe().context("where is this program?")?;
    let programs = here.parent().context("this program is in no directory")?;
    let not_built = if options.no_build {
        NotBuilt::new()
    } else {
        building::build(programs)?
    };
    raise_descriptor_limit()?;
    show(&format!("{machine}\n"));
    let mut record = Record::new(options, machine);
    let stage = Stage {
        options,
        programs,
        not_built,
    };
    for &test in options.tests() {
        // Only now: the build may use all CPUs.
        serving::pin_to(&options.generator_cpus(test))?;
        stage.run(test, &mut record)?;
        record.save()?;
    }
    Ok(record)
}

/// What all tests need.
struct Stage<'o> {
    options: &'o Options,
    programs: &'o Path,
    not_built: NotBuilt,
}

/// The servers of a test that run.
type Running = Vec<(&'static Contender, ServerProcess)>;

impl Stage<'_> {
    fn run(&self, test: Test, record: &mut Record<'_>) -> anyhow::Result<()> {
        let contenders = contenders::of(test, &self.options.servers);
        let mut running = Running::new();
        for contender in &contenders {
            match self.start(contender, test) {
                Ok(server) => running.push((contender, server)),
                Err(error) => record.miss(test, contender.name, &error),
            }
        }
        let rounds = self.options.rounds(test);
        for round in 0..rounds {
            match test {
                Test::Tcp => self.echo_round(test, Protocol::Tcp, round, &mut running, record),
                Test::Udp => self.echo_round(test, Protocol::Udp, round, &mut running, record),
                Test::Spin => self.spin_round(round, &mut running, record),
                Test::Hog => self.hog_round(round, &mut running, record),
            }
            if !running.is_empty() {
                running.rotate_left(1);
            }
            eprintln!("{test:?}: round {} of {rounds} done", round + 1);
        }
        for (contender, server) in running {
            if let Err(error) = server.end() {
                record.fail(test, contender.name, &error);
            }
        }
        let is_idle_wanted = self.options.idle || self.options.idle_echo;
        if test == Test::Tcp && is_idle_wanted {
            self.memory(&contenders, record);
        }
        let names: Vec<&str> = contenders.iter().map(|contender| contender.name).collect();
        record.show(test, &names);
        Ok(())
    }

    fn start(&self, contender: &Contender, test: Test) -> anyhow::Result<ServerProcess> {
        let cpus = self.options.server_cpus(test);
        contender.start(test, self.programs, &self.not_built, &cpus)
    }

    fn echo_round(
        &self,
        test: Test,
        protocol: Protocol,
        round: usize,
        running: &mut Running,
        record: &mut Record<'_>,
    ) {
        for connections in self.options.connections(protocol) {
            let shape = self.options.shape(protocol, connections);
            each(test, running, record, |server, name, record| {
                let windows = match protocol {
                    Protocol::Tcp => &mut record.tcp,
                    Protocol::Udp => &mut record.udp,
                };
                windows.push(measure::window(server, name, round, &shape)?);
                Ok(())
            });
        }
    }

    fn spin_round(&self, round: usize, running: &mut Running, record: &mut Record<'_>) {
        let seconds = self.options.seconds(Test::Spin);
        for column in self.options.columns() {
            each(Test::Spin, running, record, |server, name, record| {
                let window = skew::window(server, name, round, column, seconds)?;
                record.spin.push(window);
                Ok(())
            });
        }
    }

    fn hog_round(&self, round: usize, running: &mut Running, record: &mut Record<'_>) {
        let seconds = self.options.seconds(Test::Hog);
        each(Test::Hog, running, record, |server, name, record| {
            record.hog.push(hog::window(server, name, round, seconds)?);
            Ok(())
        });
    }

    /// One server at a time: each needs as many descriptors as there are connections.
    fn memory(&self, contenders: &[&'static Contender], record: &mut Record<'_>) {
        let traffic = if self.options.idle_echo {
            Traffic::OneEcho
        } else {
            Traffic::None
        };
        let shape = self
            .options
            .shape(Protocol::Tcp, self.options.idle_connections);
        for contender in contenders {
            let measured = self.start(contender, Test::Tcp).and_then(|mut server| {
                let memory = measure::memory(&mut server, contender.name, &shape, traffic)?;
                server.end()?;
                Ok(memory)
            });
            match measured {
                Ok(memory) => record.memory.push(memory),
                Err(error) => record.miss(Test::Tcp, contender.name, &error),
            }
        }
    }
}

/// Measures every server once; one that fails is left out from then on.
fn each(
    test: Test,
    running: &mut Running,
    record: &mut Record<'_>,
    mut window: impl FnMut(&mut ServerProcess, &str, &mut Record<'_>) -> anyhow::Result<()>,
) {
    running.retain_mut(|(contender, server)| {
        let measured = window(server, contender.name, record);
        if let Err(error) = &measured {
            record.fail(test, contender.name, error);
        }
        measured.is_ok()
    });
}

/// Lets the generator, and the servers that inherit it, have as many connections as is allowed.
fn raise_descriptor_limit() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of files")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        .with_context(|| format!("cannot raise the limit of open files to {hard}"))
}

/// Everything a claim needs: machine, commit, command, and the single windows.
#[derive(Serialize)]
struct Record<'o> {
    machine: Machine,
    options: &'o Options,
    tcp: Vec<Window>,
    udp: Vec<Window>,
    memory: Vec<Memory>,
    spin: Vec<SkewWindow>,
    hog: Vec<HogWindow>,
    /// By test and server: why it cannot run here.
    not_here: BTreeMap<String, String>,
    /// By test and server: what it did wrong.
    failures: BTreeMap<String, String>,
}

impl<'o> Record<'o> {
    fn new(options: &'o Options, machine: Machine) -> Self {
        Self {
            machine,
            options,
            tcp: Vec::new(),
            udp: Vec::new(),
            memory: Vec::new(),
            spin: Vec::new(),
            hog: Vec::new(),
            not_here: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    /// A server that did not start: because it cannot, or because something is wrong.
    fn miss(&mut self, test: Test, server: &str, error: &anyhow::Error) {
        match error.downcast_ref::<Refused>() {
            Some(Refused(reason)) => {
                let reason = reason.clone();
                self.not_here.insert(format!("{test:?} {server}"), reason);
            }
            None => self.fail(test, server, error),
        }
    }

    fn fail(&mut self, test: Test, server: &str, error: &anyhow::Error) {
        self.failures
            .entry(format!("{test:?} {server}"))
            .or_insert_with(|| format!("{error:#}"));
    }

    fn show(&self, test: Test, names: &[&str]) {
        match test {
            Test::Tcp => self.show_echo(Protocol::Tcp, &self.tcp, names),
            Test::Udp => self.show_echo(Protocol::Udp, &self.udp, names),
            Test::Spin => {
                let columns: Vec<&str> = self.columns();
                for column in &columns {
                    let text = latency_table::skew(&self.spin, names, column);
                    show(&format!(
                        "requests with work, 8 connections, 2 CPUs: {column}\n{text}"
                    ));
                }
                show(&latency_table::summary(&self.spin, names, &columns));
            }
            Test::Hog => {
                let text = latency_table::hog(&self.hog, names);
                show(&format!("a loop held by one request, 2 CPUs\n{text}"));
            }
        }
        for (server, reason) in &self.not_here {
            if let Some(server) = server.strip_prefix(&format!("{test:?} ")) {
                show(&format!("not here: {server}: {reason}"));
            }
        }
        show("");
    }

    fn show_echo(&self, protocol: Protocol, windows: &[Window], names: &[&str]) {
        for connections in self.options.connections(protocol) {
            let size = self.options.shape(protocol, connections).size;
            let text = table::speed(windows, names, connections);
            show(&format!(
                "{protocol:?} echo, {connections} connections, {size} B, closed loop\n{text}"
            ));
        }
        if protocol == Protocol::Tcp && !self.memory.is_empty() {
            let count = self.options.idle_connections;
            let text = table::memory(&self.memory);
            show(&format!("{count} idle connections\n{text}"));
        }
    }

    fn columns(&self) -> Vec<&'static str> {
        let columns = self.options.columns().into_iter();
        columns.map(|index| COLUMNS[index].name).collect()
    }

    /// After each test, so that a run that is cut short leaves what it has.
    fn save(&self) -> anyhow::Result<()> {
        if let Some(path) = &self.options.json {
            let text = serde_json::to_string_pretty(self).context("cannot write JSON")?;
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        if let Some(path) = &self.options.svg {
            let text = chart::svg(
                "garland and others",
                &self.machine.to_string(),
                &self.groups(),
            );
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// The medians that are drawn: a chart for each shape of load that was run.
    fn groups(&self) -> Vec<Group> {
        let mut groups = Vec::new();
        for (protocol, windows) in [(Protocol::Tcp, &self.tcp), (Protocol::Udp, &self.udp)] {
            for connections in self.options.connections(protocol) {
                groups.push(Group::of(
                    format!("{protocol:?} echo, {connections} connections: CPU per request / mio"),
                    windows.iter().map(|window| window.server.as_str()),
                    |server| table::ratio(windows, server, "mio", connections),
                ));
            }
        }
        for column in self.columns() {
            groups.push(Group::of(
                format!("requests with work, {column}: p99 / ideal"),
                self.spin.iter().map(|window| window.server.as_str()),
                |server| latency_table::against_ideal(&self.spin, server, column),
            ));
        }
        groups.push(Group::of(
            "a loop held by one request: p99 of the others, ms".into(),
            self.hog.iter().map(|window| window.server.as_str()),
            |server| {
                let own = self.hog.iter().filter(|window| window.server == server);
                Spread::of(own.map(|window| window.p99_us / 1e3))
            },
        ));
        groups.retain(|group| !group.bars.is_empty());
        groups
    }
}

#[expect(clippy::print_stdout, reason = "the tables are this program's output")]
fn show(text: &str) {
    println!("{text}");
}

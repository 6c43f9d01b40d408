//! The driver: starts the servers, runs the rounds, prints the tables.
//!
//! Per round every connection count, per connection count every server, in an order that is rotated
//! by one server per round. So windows that are compared lie seconds apart, and no server always
//! runs first. It deliberately judges nothing: what would be a bad answer stands in `README.md`.
//!
//! Exit code 0 only if every server answered everything correctly.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use garland_versus::measure::{self, Memory, Protocol, Shape, Traffic, Window};
use garland_versus::process::ServerProcess;
use garland_versus::serving::Placement;
use garland_versus::table;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;

/// A server to compare: its name in tables, its program, how to call it.
struct Contender {
    protocol: Protocol,
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
}

/// So many datagrams of 1024 bytes, with what the kernel adds, fit into a socket's buffer of the usual size.
const UDP_SOCKETS_MAX: usize = 64;

/// All there are; `--servers` chooses among them.
const CONTENDERS: &[Contender] = &[
    Contender {
        protocol: Protocol::Tcp,
        name: "mio",
        program: "serve_mio",
        arguments: &[],
    },
    // The floor against itself shows how far ratios can be trusted on this machine at this time.
    Contender {
        protocol: Protocol::Tcp,
        name: "mio-again",
        program: "serve_mio",
        arguments: &[],
    },
    Contender {
        protocol: Protocol::Tcp,
        name: "tokio",
        program: "serve_tokio",
        arguments: &[],
    },
    Contender {
        protocol: Protocol::Tcp,
        name: "garland-callback",
        program: "serve_garland",
        arguments: &["callback"],
    },
    Contender {
        protocol: Protocol::Tcp,
        name: "garland-task",
        program: "serve_garland",
        arguments: &["task"],
    },
    Contender {
        protocol: Protocol::Udp,
        name: "mio",
        program: "serve_udp",
        arguments: &["mio"],
    },
    Contender {
        protocol: Protocol::Udp,
        name: "mio-again",
        program: "serve_udp",
        arguments: &["mio"],
    },
    Contender {
        protocol: Protocol::Udp,
        name: "mio-batch",
        program: "serve_udp",
        arguments: &["mio-batch"],
    },
    Contender {
        protocol: Protocol::Udp,
        name: "tokio",
        program: "serve_udp",
        arguments: &["tokio"],
    },
    Contender {
        protocol: Protocol::Udp,
        name: "garland-callback",
        program: "serve_udp",
        arguments: &["garland-callback"],
    },
    Contender {
        protocol: Protocol::Udp,
        name: "garland-task",
        program: "serve_udp",
        arguments: &["garland-task"],
    },
];

/// Compares echo servers: CPU time per request, interleaved, beside a bare mio loop
#[derive(Parser, Serialize)]
struct Options {
    /// How often everything is run; ratios are taken within a round [default: 8]
    #[arg(long)]
    rounds: Option<usize>,
    /// Counted time of one window; a fifth of it is added for warming up [default: 2]
    #[arg(long)]
    seconds: Option<f64>,
    /// Two rounds of one second, unless said otherwise: shows that all works, proves nothing
    #[arg(long)]
    quick: bool,
    /// Open connections, each with one request under way [default: 1,64,1024; for UDP 1,64]
    #[arg(long, value_delimiter = ',')]
    connections: Vec<usize>,
    /// Bytes of a request
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// What the requests travel in
    #[arg(long, value_enum, default_value = "tcp")]
    protocol: Protocol,
    /// Servers to compare [default: all but `mio-again`, the floor a second time, to see the noise]
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// Also measure the memory of idle connections, on servers started for it
    #[arg(long)]
    idle: bool,
    /// As --idle, and once more after one echo on each connection
    #[arg(long)]
    idle_echo: bool,
    /// How many idle connections
    #[arg(long, default_value_t = 5000)]
    idle_connections: usize,
    /// CPU of the servers
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// CPU of the generator; must be another one
    #[arg(long, default_value_t = 1)]
    generator_cpu: usize,
    /// Write all single windows to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Use the server programs as they are instead of building them first
    #[arg(long)]
    no_build: bool,
}

impl Options {
    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 2 } else { 8 })
    }

    fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.quick { 1.0 } else { 2.0 })
    }

    fn connections(&self) -> &[usize] {
        match self.protocol {
            _ if !self.connections.is_empty() => &self.connections,
            Protocol::Tcp => &[1, 64, 1024],
            Protocol::Udp => &[1, 64],
        }
    }

    fn shape(&self, connections: usize) -> Shape {
        Shape {
            protocol: self.protocol,
            connections,
            size: self.size,
            seconds: self.seconds(),
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (1..=1000).contains(&self.rounds()),
            "--rounds must be 1 to 1000"
        );
        ensure!(
            (0.05..=60.0).contains(&self.seconds()),
            "--seconds must be 0.05 to 60"
        );
        ensure!(
            (1..=1 << 20).contains(&self.size),
            "--size must be 1 to 1048576"
        );
        ensure!(
            self.protocol == Protocol::Tcp || (self.size <= 1024 && !self.idle && !self.idle_echo),
            "for UDP --size is at most 1024, and there are no idle connections"
        );
        let most = self.connections().iter().max();
        ensure!(
            self.protocol == Protocol::Tcp || most.is_none_or(|most| *most <= UDP_SOCKETS_MAX),
            "--connections: at most {UDP_SOCKETS_MAX} for UDP, or a server's socket overflows"
        );
        ensure!(
            self.server_cpu != self.generator_cpu,
            "servers and generator need a CPU each"
        );
        let counts = self.connections().iter().chain([&self.idle_connections]);
        for count in counts {
            ensure!(
                (1..=20_000).contains(count),
                "{count} connections: must be 1 to 20000"
            );
        }
        Ok(())
    }

    fn contenders(&self) -> anyhow::Result<Vec<&'static Contender>> {
        let all = CONTENDERS
            .iter()
            .filter(|one| one.protocol == self.protocol);
        if self.servers.is_empty() {
            return Ok(all.filter(|one| one.name != "mio-again").collect());
        }
        let find = |name: &String| match all.clone().find(|known| known.name == name) {
            Some(contender) => Ok(contender),
            None => {
                let known: Vec<&str> = all.clone().map(|known| known.name).collect();
                bail!("no server {name:?}, there are {}", known.join(", "))
            }
        };
        self.servers.iter().map(find).collect()
    }
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
    let contenders = options.contenders()?;
    let here = env::current_exe().context("where is this program?")?;
    let programs = here.parent().context("this program is in no directory")?;
    if !options.no_build {
        build(programs)?;
    }
    raise_descriptor_limit()?;
    // Only now: the build may use all CPUs. Servers inherit this, and pin themselves elsewhere.
    Placement {
        cpu: options.generator_cpu,
    }
    .pin()?;

    let mut record = Record::new(options);
    run_rounds(options, &contenders, programs, &mut record)?;
    let names: Vec<&str> = contenders.iter().map(|contender| contender.name).collect();
    for &connections in options.connections() {
        let text = table::speed(&record.windows, &names, connections);
        show(&format!(
            "{connections} connections, {} B, closed loop\n{text}",
            options.size
        ));
    }
    if options.idle || options.idle_echo {
        run_memory(options, &contenders, programs, &mut record);
        let count = options.idle_connections;
        show(&format!(
            "{count} idle connections\n{}",
            table::memory(&record.memory)
        ));
    }
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&record).context("cannot write JSON")?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(record)
}

fn run_rounds<'c>(
    options: &Options,
    contenders: &[&'c Contender],
    programs: &Path,
    record: &mut Record<'_>,
) -> anyhow::Result<()> {
    let mut running: Vec<(&'c Contender, ServerProcess)> = Vec::new();
    for contender in contenders {
        match start(contender, programs, options) {
            Ok(server) => running.push((contender, server)),
            Err(error) => record.fail(contender.name, &error),
        }
    }
    ensure!(
        !running.is_empty(),
        "no server could be started: {:?}",
        record.failures
    );
    for round in 0..options.rounds() {
        for &connections in options.connections() {
            let shape = options.shape(connections);
            for (contender, server) in &mut running {
                match measure::window(server, contender.name, round, &shape) {
                    Ok(window) => record.windows.push(window),
                    Err(error) => record.fail(contender.name, &error),
                }
            }
            running.retain(|(contender, _)| !record.failures.contains_key(contender.name));
        }
        if !running.is_empty() {
            running.rotate_left(1);
        }
        eprintln!("round {} of {} done", round + 1, options.rounds());
    }
    for (contender, server) in running {
        if let Err(error) = server.end() {
            record.fail(contender.name, &error);
        }
    }
    Ok(())
}

/// One server at a time: each needs as many descriptors as there are connections.
fn run_memory(
    options: &Options,
    contenders: &[&Contender],
    programs: &Path,
    record: &mut Record<'_>,
) {
    let traffic = if options.idle_echo {
        Traffic::OneEcho
    } else {
        Traffic::None
    };
    let shape = options.shape(options.idle_connections);
    for contender in contenders {
        let measured = start(contender, programs, options).and_then(|mut server| {
            let memory = measure::memory(&mut server, contender.name, &shape, traffic)?;
            server.end()?;
            Ok(memory)
        });
        match measured {
            Ok(memory) => record.memory.push(memory),
            Err(error) => record.fail(contender.name, &error),
        }
    }
}

fn start(
    contender: &Contender,
    programs: &Path,
    options: &Options,
) -> anyhow::Result<ServerProcess> {
    let program = programs.join(contender.program);
    ServerProcess::start(&program, contender.arguments, options.server_cpu)
        .with_context(|| format!("{} did not start", contender.name))
}

/// Builds the servers with the cargo that started this program.
///
/// `cargo run` builds only the program it runs, so without this the servers would be missing, or,
/// worse, older than the library they are meant to measure.
fn build(programs: &Path) -> anyhow::Result<()> {
    let Some(cargo) = env::var_os("CARGO") else {
        return Ok(()); // Started by hand: the programs beside this one are meant.
    };
    let target = programs
        .parent()
        .context("the programs' directory has no parent")?;
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--locked", "--bins"]);
    command
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    command.arg("--target-dir").arg(target);
    if cfg!(debug_assertions) {
        eprintln!("versus: this is a debug build, its figures mean nothing; use --release");
    } else {
        command.arg("--release");
    }
    let status = command
        .status()
        .context("cannot start cargo to build the servers")?;
    ensure!(status.success(), "the servers cannot be built: {status}");
    Ok(())
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
    processor: String,
    kernel: String,
    commit: Option<String>,
    rounds: usize,
    seconds: f64,
    options: &'o Options,
    windows: Vec<Window>,
    memory: Vec<Memory>,
    failures: BTreeMap<&'static str, String>,
}

impl<'o> Record<'o> {
    fn new(options: &'o Options) -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = processors
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: model
                .unwrap_or("unknown")
                .trim_start_matches([' ', '\t', ':'])
                .into(),
            kernel: kernel.trim().into(),
            commit: commit(),
            rounds: options.rounds(),
            seconds: options.seconds(),
            options,
            windows: Vec::new(),
            memory: Vec::new(),
            failures: BTreeMap::new(),
        }
    }

    fn fail(&mut self, server: &'static str, error: &anyhow::Error) {
        self.failures
            .entry(server)
            .or_insert_with(|| format!("{error:#}"));
    }
}

/// What is measured, if this is a git checkout; `-dirty` if it has changes.
fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args([
        "-C",
        env!("CARGO_MANIFEST_DIR"),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
    ]);
    let output = git.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().into())
}

#[expect(clippy::print_stdout, reason = "the tables are this program's output")]
fn show(text: &str) {
    println!("{text}");
}

//! The driver: starts the servers, runs the rounds, prints the tables.
//!
//! Per test and round every shape of load, per shape every server, in an order that is rotated by one
//! server per round. So windows that are compared lie seconds apart, and no server always runs first. It
//! deliberately judges nothing: what would be a bad answer stands in `README.md`.
//!
//! Exit code 0 only if every server that can run here answered everything correctly.

use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use garland_versus::building::{self, NotBuilt};
use garland_versus::contenders::{self, Contender, Test};
use garland_versus::generator::Load;
use garland_versus::hog;
use garland_versus::idle;
use garland_versus::machine::Machine;
use garland_versus::measure::{self, Traffic};
use garland_versus::options::{Options, SYSCALL_CONNECTIONS};
use garland_versus::process::{Refused, ServerProcess};
use garland_versus::record::Record;
use garland_versus::serving;
use garland_versus::skew;
use garland_versus::syscalls;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// How long idle servers are watched, and how long if it only has to be shown that this works.
const IDLE: Duration = Duration::from_secs(10);
const IDLE_QUICK: Duration = Duration::from_secs(2);

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
        show(&record.text(test));
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
        let rounds = self.options.rounds(test);
        if rounds > 0 {
            let mut running = self.start_all(test, &self.options.server_cpus(test), record);
            for round in 0..rounds {
                match test {
                    Test::Tcp | Test::Udp | Test::Rate | Test::Price => {
                        self.echo_round(test, round, &mut running, record);
                    }
                    Test::Spin => self.spin_round(round, &mut running, record),
                    Test::Hog => self.hog_round(round, &mut running, record),
                }
                if !running.is_empty() {
                    running.rotate_left(1);
                }
                eprintln!("{test:?}: round {} of {rounds} done", round + 1);
            }
            end_all(test, running, record);
        }
        if test == Test::Tcp {
            self.counts(record);
        }
        Ok(())
    }

    fn start_all(&self, test: Test, cpus: &[usize], record: &mut Record<'_>) -> Running {
        let mut running = Running::new();
        for contender in contenders::of(test, &self.options.servers) {
            match self.start(contender, test, cpus) {
                Ok(server) => running.push((contender, server)),
                Err(error) => record.miss(test, contender.name, &error),
            }
        }
        running
    }

    fn start(
        &self,
        contender: &Contender,
        test: Test,
        cpus: &[usize],
    ) -> anyhow::Result<ServerProcess> {
        contender.start(test, self.programs, &self.not_built, cpus)
    }

    fn echo_round(&self, test: Test, round: usize, running: &mut Running, record: &mut Record<'_>) {
        for connections in self.options.connections(test) {
            let shape = self.options.shape(test, connections);
            each(test, running, record, |server, name, record| {
                record.add(test, measure::window(server, name, round, &shape)?);
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

    /// What is measured once for each server, if it was asked for.
    fn counts(&self, record: &mut Record<'_>) {
        if self.options.idle || self.options.idle_echo {
            self.memory(record);
        }
        if self.options.syscalls {
            self.syscalls(record);
        }
        if self.options.idle_wakeups {
            self.wakeups(record);
        }
    }

    /// One server at a time: each needs as many descriptors as there are connections.
    fn memory(&self, record: &mut Record<'_>) {
        let traffic = if self.options.idle_echo {
            Traffic::OneEcho
        } else {
            Traffic::None
        };
        let connections = self.options.idle_connections;
        let shape = self.options.shape(Test::Tcp, connections);
        let cpus = self.options.server_cpus(Test::Tcp);
        for contender in contenders::of(Test::Tcp, &self.options.servers) {
            let started = self.start(contender, Test::Tcp, &cpus);
            let measured = started.and_then(|mut server| {
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

    /// Without `strace` it goes on without counts.
    fn syscalls(&self, record: &mut Record<'_>) {
        let mut running = self.start_all(Test::Tcp, &self.options.server_cpus(Test::Tcp), record);
        let mut refused = None;
        for connections in SYSCALL_CONNECTIONS {
            each(Test::Tcp, &mut running, record, |server, name, record| {
                if refused.is_some() {
                    return Ok(());
                }
                let load = Load {
                    server: server.address(),
                    connections,
                    size: self.options.size,
                };
                match syscalls::count(server, name, &load) {
                    Ok(counted) => record.syscalls.push(counted),
                    Err(error) if error.is::<Refused>() => refused = Some(error),
                    Err(error) => return Err(server.explain(error)),
                }
                Ok(())
            });
        }
        if let Some(error) = refused {
            record.miss(Test::Tcp, "counts of system calls", &error);
        }
        end_all(Test::Tcp, running, record);
    }

    fn wakeups(&self, record: &mut Record<'_>) {
        let running = self.start_all(Test::Tcp, &self.options.both_cpus(), record);
        let span = if self.options.quick { IDLE_QUICK } else { IDLE };
        let servers = running
            .iter()
            .map(|(contender, server)| (contender.name, server));
        for (name, idle) in idle::watch(servers, span) {
            match idle {
                Ok(idle) => record.idle.push(idle),
                Err(error) => record.fail(Test::Tcp, name, &error),
            }
        }
        end_all(Test::Tcp, running, record);
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

fn end_all(test: Test, running: Running, record: &mut Record<'_>) {
    for (contender, server) in running {
        if let Err(error) = server.end() {
            record.fail(test, contender.name, &error);
        }
    }
}

/// Lets the generator, and the servers that inherit it, have as many connections as is allowed.
fn raise_descriptor_limit() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of files")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        .with_context(|| format!("cannot raise the limit of open files to {hard}"))
}

#[expect(clippy::print_stdout, reason = "the tables are this program's output")]
fn show(text: &str) {
    println!("{text}");
}

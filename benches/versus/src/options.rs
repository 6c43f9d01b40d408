//! What a run is to do: the options of the driver, and what follows from them for each test.

use std::path::PathBuf;

use anyhow::{bail, ensure};
use clap::Parser;
use serde::Serialize;

use crate::contenders::{self, Test};
use crate::measure::{Protocol, Shape};
use crate::trace::COLUMNS;

/// So many datagrams of this size, with what the kernel adds, fit into a socket's buffer of the usual size.
const UDP_SOCKETS_MAX: usize = 64;
const UDP_SIZE_MAX: usize = 1024;
/// System calls are counted with so many connections.
pub const SYSCALL_CONNECTIONS: [usize; 2] = [1, 64];

/// Compares servers on several runtimes, interleaved and pinned
#[derive(Debug, Parser, Serialize)]
pub struct Options {
    /// What to compare [default: all]
    #[arg(value_enum)]
    pub tests: Vec<Test>,
    /// How often everything is run; ratios are taken within a round; 0 for --idle and its like alone [default: 8, price
    /// 30, spin and hog 3]
    #[arg(long)]
    pub rounds: Option<usize>,
    /// Time of one window; echo warms up for a fifth of it before [default: 2, price 0.5, spin 4, hog 3]
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Few short rounds, unless said otherwise: shows that all works, proves nothing
    #[arg(long)]
    pub quick: bool,
    /// Echo: open connections, each with one request under way [default: 1,64,1024; udp 1,64; rate and price 64,1024]
    #[arg(long, value_delimiter = ',')]
    pub connections: Vec<usize>,
    /// Echo: bytes of a request; UDP carries at most 1024
    #[arg(long, default_value_t = 64)]
    pub size: usize,
    /// Rate: requests a second, of all connections together
    #[arg(long, default_value_t = 100_000.0)]
    pub rate: f64,
    /// Spin: which columns, like `exp .5` [default: all]
    #[arg(long, value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Servers to compare [default: all but `mio-again`, the floor a second time, to see the noise]
    #[arg(long, value_delimiter = ',')]
    pub servers: Vec<String>,
    /// TCP: also measure the memory of idle connections, on servers started for it
    #[arg(long)]
    pub idle: bool,
    /// As --idle, and once more after one echo on each connection
    #[arg(long)]
    pub idle_echo: bool,
    /// How many idle connections
    #[arg(long, default_value_t = 5000)]
    pub idle_connections: usize,
    /// TCP: also count how often idle servers wake up, on servers with two CPUs started for it
    #[arg(long)]
    pub idle_wakeups: bool,
    /// TCP: also count system calls per request, on servers started for it; needs `strace`
    #[arg(long)]
    pub syscalls: bool,
    /// CPU of the servers that echo; those of price, spin and hog have both CPUs
    #[arg(long, default_value_t = 0)]
    pub server_cpu: usize,
    /// CPU of the generator for echo; must be another one
    #[arg(long, default_value_t = 1)]
    pub generator_cpu: usize,
    /// Write all single windows to this file
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Draw the medians into this file
    #[arg(long)]
    pub svg: Option<PathBuf>,
    /// Write the medians to this file as Markdown, one table a test
    #[arg(long)]
    pub markdown: Option<PathBuf>,
    /// Use the server programs as they are instead of building them first
    #[arg(long)]
    pub no_build: bool,
}

impl Options {
    /// What is to be compared.
    #[must_use]
    pub fn tests(&self) -> &[Test] {
        if self.tests.is_empty() {
            &Test::ALL
        } else {
            &self.tests
        }
    }

    /// How often.
    #[must_use]
    pub fn rounds(&self, test: Test) -> usize {
        self.rounds.unwrap_or(match test {
            Test::Spin | Test::Hog if self.quick => 1,
            _ if self.quick => 2,
            Test::Tcp | Test::Udp | Test::Rate => 8,
            Test::Price => 30,
            Test::Spin | Test::Hog => 3,
        })
    }

    /// How long a window is.
    #[must_use]
    pub fn seconds(&self, test: Test) -> f64 {
        self.seconds.unwrap_or(match test {
            Test::Price => 0.5,
            _ if self.quick => 1.0,
            Test::Tcp | Test::Udp | Test::Rate => 2.0,
            Test::Spin => 4.0,
            Test::Hog => 3.0,
        })
    }

    /// The numbers of connections of a test that echoes.
    #[must_use]
    pub fn connections(&self, test: Test) -> Vec<usize> {
        let usual: &[usize] = match test {
            Test::Tcp => &[1, 64, 1024],
            Test::Udp => &[1, UDP_SOCKETS_MAX],
            // With one, the kernel decides by placing both sides on one CPU or on two.
            Test::Rate | Test::Price => &[64, 1024],
            Test::Spin | Test::Hog => &[],
        };
        if self.connections.is_empty() || usual.is_empty() {
            return usual.to_vec();
        }
        let fits = |count: &usize| test != Test::Udp || *count <= UDP_SOCKETS_MAX;
        self.connections.iter().copied().filter(fits).collect()
    }

    /// The load of a test that echoes.
    #[must_use]
    pub fn shape(&self, test: Test, connections: usize) -> Shape {
        let (protocol, size) = match test {
            Test::Udp => (Protocol::Udp, self.size.min(UDP_SIZE_MAX)),
            _ => (Protocol::Tcp, self.size),
        };
        Shape {
            protocol,
            connections,
            size,
            seconds: self.seconds(test),
            rate: (test == Test::Rate).then_some(self.rate),
        }
    }

    /// The columns to run, by their place.
    #[must_use]
    pub fn columns(&self) -> Vec<usize> {
        let wanted = |name| self.columns.is_empty() || self.columns.iter().any(|one| one == name);
        (0..COLUMNS.len())
            .filter(|index| wanted(COLUMNS[*index].name))
            .collect()
    }

    /// All there are: the generator's is shared where the server has both.
    #[must_use]
    pub fn both_cpus(&self) -> Vec<usize> {
        vec![self.server_cpu, self.generator_cpu]
    }

    /// Echo has one CPU; the price of two loops, and work, need both.
    #[must_use]
    pub fn server_cpus(&self, test: Test) -> Vec<usize> {
        match test {
            Test::Tcp | Test::Udp | Test::Rate => vec![self.server_cpu],
            Test::Price | Test::Spin | Test::Hog => self.both_cpus(),
        }
    }

    /// Another one than the server's, where there is one.
    #[must_use]
    pub fn generator_cpus(&self, test: Test) -> Vec<usize> {
        match test {
            Test::Tcp | Test::Udp | Test::Rate => vec![self.generator_cpu],
            Test::Price | Test::Spin | Test::Hog => self.both_cpus(),
        }
    }

    /// Whether all of it makes sense.
    ///
    /// # Errors
    /// Names the first option that does not.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.rounds.is_none_or(|rounds| rounds <= 1000),
            "--rounds must be 0 to 1000"
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
            (1.0..=1e7).contains(&self.rate),
            "--rate must be 1 to 10000000"
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
        names.sort_unstable();
        names.dedup();
        bail!("no {what} {unknown:?}, there are: {}", names.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::contenders::Test;
    use crate::options::Options;

    #[test]
    fn what_is_asked_for_holds_for_every_test_that_can() {
        let options = |arguments: &[&str]| {
            let words = ["versus"].into_iter().chain(arguments.iter().copied());
            Options::try_parse_from(words).expect("known options")
        };
        assert_eq!(options(&[]).tests(), Test::ALL);
        let asked = options(&["--connections", "5,100", "--rate", "2000"]);
        assert_eq!(asked.connections(Test::Udp), [5]);
        assert_eq!(asked.connections(Test::Rate), [5, 100]);
        let rate = |test| asked.shape(test, 5).rate;
        assert_eq!((rate(Test::Tcp), rate(Test::Rate)), (None, Some(2000.0)));
        assert!(options(&["--rate", "0"]).check().is_err());
        assert!(options(&["--servers", "mio,mia"]).check().is_err());
    }
}

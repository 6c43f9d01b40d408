//! Everything a run has measured: what a claim needs, as tables, as JSON, as a chart and as Markdown.
//!
//! It only collects and shows; what the figures are is said in [`echo_table`] and [`latency_table`].

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::chart::{self, Group};
use crate::contenders::{self, Test};
use crate::echo_table::{self, FLOORS, WITHOUT_EITHER};
use crate::hog::HogWindow;
use crate::idle::{self, Idle};
use crate::latency_table;
use crate::machine::Machine;
use crate::measure::{Memory, Window};
use crate::options::{Options, SYSCALL_CONNECTIONS};
use crate::paced::Pace;
use crate::process::Refused;
use crate::skew::SkewWindow;
use crate::syscalls::{self, Syscalls};
use crate::table::{Spread, Table};
use crate::trace::COLUMNS;

/// Machine, commit, command, and the single windows.
#[derive(Debug, Serialize)]
pub struct Record<'o> {
    machine: Machine,
    options: &'o Options,
    /// Echo over TCP.
    pub tcp: Vec<Window>,
    /// Echo of datagrams.
    pub udp: Vec<Window>,
    /// Echo at a fixed rate.
    pub rate: Vec<Window>,
    /// Echo on two loops, with and without stealing and rescue.
    pub price: Vec<Window>,
    /// Of idle connections.
    pub memory: Vec<Memory>,
    /// Per request.
    pub syscalls: Vec<Syscalls>,
    /// Wake-ups of processes without work.
    pub idle: Vec<Idle>,
    /// Requests with work.
    pub spin: Vec<SkewWindow>,
    /// A loop that is held.
    pub hog: Vec<HogWindow>,
    /// By test and server: why it cannot run here.
    not_here: BTreeMap<String, String>,
    /// By test and server: what it did wrong.
    pub failures: BTreeMap<String, String>,
}

impl<'o> Record<'o> {
    /// Of nothing yet.
    #[must_use]
    pub fn new(options: &'o Options, machine: Machine) -> Self {
        Self {
            machine,
            options,
            tcp: Vec::new(),
            udp: Vec::new(),
            rate: Vec::new(),
            price: Vec::new(),
            memory: Vec::new(),
            syscalls: Vec::new(),
            idle: Vec::new(),
            spin: Vec::new(),
            hog: Vec::new(),
            not_here: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    /// Adds a window of a test that echoes.
    pub fn add(&mut self, test: Test, window: Window) {
        let windows = match test {
            Test::Tcp => &mut self.tcp,
            Test::Udp => &mut self.udp,
            Test::Rate => &mut self.rate,
            Test::Price => &mut self.price,
            Test::Spin | Test::Hog => panic!("work has windows of its own"),
        };
        windows.push(window);
    }

    /// A server that did not start, or a count that was not taken: because it cannot be, or because something is wrong.
    pub fn miss(&mut self, test: Test, server: &str, error: &anyhow::Error) {
        match error.downcast_ref::<Refused>() {
            Some(Refused(reason)) => {
                let reason = reason.clone();
                self.not_here.insert(format!("{test:?} {server}"), reason);
            }
            None => self.fail(test, server, error),
        }
    }

    /// What a server did wrong; the first of it is kept.
    pub fn fail(&mut self, test: Test, server: &str, error: &anyhow::Error) {
        self.failures
            .entry(format!("{test:?} {server}"))
            .or_insert_with(|| format!("{error:#}"));
    }

    /// The tables of one test, and what is missing in them.
    #[must_use]
    pub fn text(&self, test: Test) -> String {
        let mut names: Vec<&str> = Vec::new();
        names.extend(
            contenders::of(test, &self.options.servers)
                .iter()
                .map(|one| one.name),
        );
        let mut text = String::new();
        for table in self.tables(test, &names) {
            if !table.is_empty() {
                text += &format!("{table}\n");
            }
        }
        for (server, reason) in &self.not_here {
            if let Some(server) = server.strip_prefix(&format!("{test:?} ")) {
                text += &format!("not here: {server}: {reason}\n");
            }
        }
        text
    }

    fn tables(&self, test: Test, names: &[&str]) -> Vec<Table> {
        match test {
            Test::Tcp => {
                let mut tables = self.echo(test, &self.tcp, names);
                tables.push(echo_table::memory(&self.memory));
                tables.push(syscalls::table(&self.syscalls, names, &SYSCALL_CONNECTIONS));
                tables.push(idle::table(&self.idle));
                tables
            }
            Test::Udp => self.echo(test, &self.udp, names),
            Test::Rate => self.echo(test, &self.rate, names),
            Test::Price => self.echo(test, &self.price, names),
            Test::Spin => {
                let columns = self.columns();
                let one = |column: &&str| latency_table::skew(&self.spin, names, column);
                let mut tables: Vec<Table> = columns.iter().map(one).collect();
                tables.push(latency_table::summary(&self.spin, names, &columns));
                tables
            }
            Test::Hog => vec![latency_table::hog(&self.hog, names)],
        }
    }

    fn echo(&self, test: Test, windows: &[Window], names: &[&str]) -> Vec<Table> {
        let (what, against) = match test {
            Test::Price => ("closed loop, 2 CPUs".into(), WITHOUT_EITHER),
            Test::Rate => (format!("{} requests a second", self.options.rate), FLOORS),
            _ => ("closed loop".into(), FLOORS),
        };
        let table = |connections: usize| {
            let shape = self.options.shape(test, connections);
            let (protocol, size) = (shape.protocol, shape.size);
            let title = format!(
                "{protocol:?} echo, {}, {size} B, {what}",
                counted(connections)
            );
            echo_table::speed(title, windows, names, connections, against)
        };
        let counts = self.options.connections(test);
        counts.into_iter().map(table).collect()
    }

    fn columns(&self) -> Vec<&'static str> {
        let columns = self.options.columns().into_iter();
        columns.map(|index| COLUMNS[index].name).collect()
    }

    /// After each test, so that a run that is cut short leaves what it has.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self) -> anyhow::Result<()> {
        if let Some(path) = &self.options.json {
            let text = serde_json::to_string_pretty(self).context("cannot write JSON")?;
            write(path, text)?;
        }
        let note = self.machine.to_string();
        if let Some(path) = &self.options.svg {
            write(
                path,
                chart::svg("garland and others", &note, &self.groups()),
            )?;
        }
        if let Some(path) = &self.options.markdown {
            let quoted = |word: String| match word.contains(' ') {
                true => format!("'{word}'"),
                false => word,
            };
            let command: Vec<String> = env::args().skip(1).map(quoted).collect();
            let mut text = format!(
                "# garland and others\n\n{note}; `versus {}`\n\nMedian [least-greatest] of the rounds; less is better.\n\n",
                command.join(" ")
            );
            for table in chart::tables(&self.groups(), contenders::names()) {
                text += &table.markdown();
            }
            for (server, reason) in &self.not_here {
                text += &format!("- not here: {server}: {reason}\n");
            }
            for (server, failure) in &self.failures {
                text += &format!("- failed: {server}: {failure}\n");
            }
            write(path, text)?;
        }
        Ok(())
    }

    /// The medians of all tests that were run: a chart for each shape of load, a table for each title.
    fn groups(&self) -> Vec<Group> {
        let mut groups = self.cost_groups(Test::Tcp, &self.tcp);
        groups.extend(self.idle_groups());
        groups.extend(self.cost_groups(Test::Udp, &self.udp));
        groups.extend(self.cost_groups(Test::Rate, &self.rate));
        groups.extend(self.rate_groups());
        groups.extend(self.cost_groups(Test::Price, &self.price));
        groups.extend(self.columns().into_iter().map(|column| {
            Group::of(
                "Requests with work, 2 CPUs: p99 / ideal",
                column.into(),
                self.spin.iter().map(|window| window.server.as_str()),
                |server| latency_table::against_ideal(&self.spin, server, column),
            )
        }));
        groups.push(self.hog_group("p99, ms", |window| window.p99_us / 1e3));
        groups.push(self.hog_group("max, ms", |window| window.max_us / 1e3));
        groups.retain(|group| !group.bars.is_empty());
        groups
    }

    fn cost_groups(&self, test: Test, windows: &[Window]) -> Vec<Group> {
        let (title, against) = match test {
            Test::Udp => ("UDP echo: CPU per request / mio's".into(), FLOORS),
            Test::Rate => {
                let rate = self.options.rate;
                let title = format!("TCP echo, {rate} requests a second: CPU per request / mio's");
                (title, FLOORS)
            }
            Test::Price => {
                let title = "TCP echo, 2 CPUs: CPU per request / without stealing and rescue";
                (title.into(), WITHOUT_EITHER)
            }
            _ => ("TCP echo: CPU per request / mio's".to_owned(), FLOORS),
        };
        let (_, baseline) = against[0];
        let counts = self.options.connections(test).into_iter();
        let group = counts.map(|connections| {
            Group::of(
                &title,
                counted(connections),
                windows.iter().map(|window| window.server.as_str()),
                |server| echo_table::ratio(windows, server, baseline(server), connections),
            )
        });
        group.collect()
    }

    /// Latencies at a fixed rate, of the servers that keep it.
    fn rate_groups(&self) -> Vec<Group> {
        let rate = self.options.rate;
        let title =
            format!("TCP echo, {rate} requests a second: latency in us, of those that keep it");
        let of = |connections, name: &str, value: fn(Pace) -> f64| {
            Group::of(
                &title,
                format!("{}, {name}", counted(connections)),
                self.rate.iter().map(|window| window.server.as_str()),
                |server| {
                    let same = |window: &&Window| {
                        window.server == server && window.connections == connections
                    };
                    let own: Vec<&Window> = self.rate.iter().filter(same).collect();
                    let values = own.iter().filter_map(|window| window.pace).map(value);
                    Spread::of(values).filter(|_| !echo_table::is_too_slow(&own))
                },
            )
        };
        let counts = self.options.connections(Test::Rate).into_iter();
        let groups = counts.flat_map(|connections| {
            [
                of(connections, "p50", |pace| pace.p50_us),
                of(connections, "p99", |pace| pace.p99_us),
            ]
        });
        groups.collect()
    }

    fn hog_group(&self, column: &str, value: fn(&HogWindow) -> f64) -> Group {
        Group::of(
            "A loop held by one request, 2 CPUs: latency of the others",
            column.into(),
            self.hog.iter().map(|window| window.server.as_str()),
            |server| {
                let own = self.hog.iter().filter(|window| window.server == server);
                Spread::of(own.map(value))
            },
        )
    }

    /// Counts that were taken once, or on idle servers.
    fn idle_groups(&self) -> Vec<Group> {
        let mut groups: Vec<Group> = SYSCALL_CONNECTIONS
            .into_iter()
            .map(|connections| {
                let own = self
                    .syscalls
                    .iter()
                    .filter(|one| one.connections == connections);
                single(
                    "System calls per request",
                    counted(connections),
                    own.map(|one| (one.server.as_str(), one.per_request())),
                )
            })
            .collect();
        groups.push(single(
            "An idle process, 2 CPUs",
            "wake-ups a second".into(),
            self.idle
                .iter()
                .map(|one| (one.server.as_str(), one.wakeups_per_second())),
        ));
        let grown = |one: &Memory, bytes: u64| {
            (bytes as f64 - one.before_bytes as f64) / one.connections as f64
        };
        groups.push(single(
            "Memory of a connection, bytes",
            "idle".into(),
            self.memory
                .iter()
                .map(|one| (one.server.as_str(), grown(one, one.idle_bytes))),
        ));
        let echoed = self
            .memory
            .iter()
            .filter_map(|one| Some((one, one.echoed_bytes?)));
        groups.push(single(
            "Memory of a connection, bytes",
            "idle after one echo".into(),
            echoed.map(|(one, bytes)| (one.server.as_str(), grown(one, bytes))),
        ));
        groups
    }
}

/// A group of values that were taken once.
fn single<'n>(title: &str, column: String, values: impl Iterator<Item = (&'n str, f64)>) -> Group {
    let values: BTreeMap<&str, f64> = values.collect();
    let servers = values.keys().copied();
    Group::of(title, column, servers, |server| {
        Spread::of(values.get(server).copied())
    })
}

fn counted(connections: usize) -> String {
    let plural = if connections == 1 { "" } else { "s" };
    format!("{connections} connection{plural}")
}

fn write(path: &Path, text: String) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

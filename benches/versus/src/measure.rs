//! One window of load on one server, and the memory that idle connections cost it.
//!
//! A window: open the connections, warm up, read the server's counters, load it, read them again,
//! collect the last answers, close, wait until the server has closed too. Connecting, warming up and
//! closing are outside of the counted part.

use std::process;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;

use crate::datagrams::Datagrams;
use crate::generator::{Generator, Load, LoadError, Progress};
use crate::open_loop::nanoseconds;
use crate::paced::Pace;
use crate::process::ServerProcess;
use crate::timetable::Timetable;
use crate::usage::{self, Usage};

/// Part of the counted time that is spent on warming up before it.
const WARM_UP_PART: f64 = 0.2;

/// What one server did in one window.
#[derive(Clone, Debug, Serialize)]
pub struct Window {
    /// Round, from 0; only windows of one round and one connection count are compared.
    pub round: usize,
    /// Name of the server.
    pub server: String,
    /// Open connections.
    pub connections: usize,
    /// Verified answers.
    pub requests: u64,
    /// Wall time.
    pub elapsed_ns: u64,
    /// CPU time of the server's process.
    pub cpu_ns: u64,
    /// Share of that spent in user mode, estimated from 10 ms ticks.
    pub user_ticks: u64,
    /// The rest of the ticks.
    pub system_ticks: u64,
    /// CPU time of the generator: near `elapsed_ns`, it is the generator that limits the rate.
    pub generator_cpu_ns: u64,
    /// How often the server's threads went to sleep.
    pub voluntary_switches: u64,
    /// How often they were interrupted: many mean that CPU 0 was shared with other work.
    pub involuntary_switches: u64,
    /// Latency, if the requests came at a fixed rate.
    pub pace: Option<Pace>,
}

/// What the requests travel in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
pub enum Protocol {
    /// One stream a connection.
    Tcp,
    /// Datagrams, one socket of its own for each "connection".
    Udp,
}

/// How to load a server.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// What the requests travel in.
    pub protocol: Protocol,
    /// Open connections.
    pub connections: usize,
    /// Bytes of a request.
    pub size: usize,
    /// The counted time.
    pub seconds: f64,
    /// Requests a second of all connections together; none: each answer is followed by the next request. TCP only.
    pub rate: Option<f64>,
}

/// Measures one window.
///
/// # Errors
/// When the server gives a wrong answer or none, dies, or keeps connections open.
pub fn window(
    server: &mut ServerProcess,
    name: &str,
    round: usize,
    shape: &Shape,
) -> anyhow::Result<Window> {
    match load(server, shape, round as u64) {
        Ok(Loaded {
            progress,
            server,
            generator,
        }) => Ok(Window {
            round,
            server: name.into(),
            connections: shape.connections,
            requests: progress.requests,
            elapsed_ns: nanoseconds(progress.elapsed),
            cpu_ns: nanoseconds(server.cpu),
            user_ticks: server.user_ticks,
            system_ticks: server.system_ticks,
            generator_cpu_ns: nanoseconds(generator.cpu),
            voluntary_switches: server.voluntary_switches,
            involuntary_switches: server.involuntary_switches,
            pace: progress.pace,
        }),
        Err(error) => Err(server.explain(error)),
    }
}

/// What the counted part of a window brought, and took from either side.
struct Loaded {
    progress: Progress,
    server: Usage,
    generator: Usage,
}

/// The seed is the round's: its servers get their requests at the same moments.
fn load(server: &ServerProcess, shape: &Shape, seed: u64) -> anyhow::Result<Loaded> {
    let counted = Duration::from_secs_f64(shape.seconds);
    let load = Load {
        server: server.address(),
        connections: shape.connections,
        size: shape.size,
    };
    let mut generator = match (shape.protocol, shape.rate) {
        (Protocol::Udp, _) => Client::Udp(Datagrams::connect(&load)?),
        (Protocol::Tcp, None) => Client::Tcp(Generator::connect(&load)?),
        (Protocol::Tcp, Some(rate)) => {
            Client::Paced(Generator::connect(&load)?, Timetable::new(rate, seed))
        }
    };
    generator
        .run(counted.mul_f64(WARM_UP_PART))
        .context("while warming up")?;
    // The server's counters are the innermost: what is read outside of them costs them nothing.
    let own = Usage::of(process::id())?;
    let before = Usage::of(server.pid())?;
    let progress = generator.run(counted)?;
    let after = Usage::of(server.pid())?;
    let own = Usage::of(process::id())?.since(&own);
    generator.finish().context("after the load")?;
    drop(generator);
    server.wait_closed()?;
    Ok(Loaded {
        progress,
        server: after.since(&before),
        generator: own,
    })
}

/// The closed loop of either protocol, or a rate.
enum Client {
    Tcp(Generator),
    Paced(Generator, Timetable),
    Udp(Datagrams),
}

impl Client {
    fn run(&mut self, duration: Duration) -> Result<Progress, LoadError> {
        match self {
            Client::Tcp(generator) => generator.run(duration),
            Client::Paced(generator, timetable) => generator.run_by(timetable.clone(), duration),
            Client::Udp(datagrams) => datagrams.run(duration),
        }
    }

    fn finish(&mut self) -> Result<(), LoadError> {
        match self {
            Client::Tcp(generator) | Client::Paced(generator, _) => generator.finish(),
            Client::Udp(datagrams) => datagrams.finish(),
        }
    }
}

/// What open connections cost a server in memory.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// Name of the server.
    pub server: String,
    /// How many were opened.
    pub connections: usize,
    /// Resident before the first of them.
    pub before_bytes: u64,
    /// Resident with all of them open, before any byte was sent.
    pub idle_bytes: u64,
    /// Resident after one echo on each, all idle again; only if that was asked for.
    pub echoed_bytes: Option<u64>,
}

/// What happens to the connections before their memory is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Nothing is ever sent.
    None,
    /// Memory is read a second time after one echo on each.
    OneEcho,
}

/// Measures the growth of a server that was started for this and has served nothing before.
///
/// # Errors
/// As [`window`].
pub fn memory(
    server: &mut ServerProcess,
    name: &str,
    shape: &Shape,
    traffic: Traffic,
) -> anyhow::Result<Memory> {
    match grow(server, name, shape, traffic) {
        Ok(memory) => Ok(memory),
        Err(error) => Err(server.explain(error)),
    }
}

fn grow(
    server: &ServerProcess,
    name: &str,
    shape: &Shape,
    traffic: Traffic,
) -> anyhow::Result<Memory> {
    let one = Load {
        server: server.address(),
        connections: 1,
        size: shape.size,
    };
    // One connection first: what a runtime allocates once is no cost of a connection.
    let mut probe = Generator::connect(&one)?;
    probe.echo_once()?;
    let before_bytes = usage::resident_bytes(server.pid())?;

    let mut idle = Generator::connect(&Load {
        connections: shape.connections,
        ..one
    })?;
    server.wait_accepted(shape.connections + one.connections)?;
    // The answer to this one comes after the server has set up all the others.
    probe.echo_once()?;
    let idle_bytes = usage::resident_bytes(server.pid())?;

    let echoed_bytes = match traffic {
        Traffic::None => None,
        Traffic::OneEcho => {
            idle.echo_once()?;
            Some(usage::resident_bytes(server.pid())?)
        }
    };
    Ok(Memory {
        server: name.into(),
        connections: shape.connections,
        before_bytes,
        idle_bytes,
        echoed_bytes,
    })
}

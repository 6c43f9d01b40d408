//! From settings to a running daemon and back: start, announce, wait for signals, drain, stop.
//!
//! ```text
//! signals caught -> log -> file limit -> loops -> every listener bound -> announced
//!      |  SIGTERM or SIGINT
//!      v
//! accepting stops -> connections finish --------------------------> stopped, Drained
//!                        |  grace period over, or a second signal
//!                        v
//!                    connections cut -----------------------------> stopped, Cut
//! ```
//!
//! Signals are caught before anything is announced, so whoever has read a `listening` line may send one.
//! A failure before the announcement leaves nothing behind. The lines of the contract (`listening`,
//! `started`, `stopping`, `stopped`) are plain text in every log format, because scripts wait for them.
//!
//! The main thread runs no loop: a loop that is stuck can hold up neither the drain nor the exit.

use std::{
    fmt,
    io::{self, IsTerminal},
    sync::Arc,
    thread,
    time::Duration,
};

use garland::{BackgroundRuntime, Builder, Server};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use tracing::level_filters::LevelFilter;

use crate::{
    admin::{self, Admin},
    machine,
    metrics::Metrics,
    services::{self, TcpServing},
    settings::{
        Kind, LogFormat, LogLevel, LogSettings, Pin, RuntimeSettings, ServiceSettings, Settings,
    },
    tcp_spin,
    udp_echo::{self, UdpServing},
};

/// Files a loop needs for itself, with a margin: selector, waker, timer, listeners, datagram sockets.
const FILES_PER_LOOP: u64 = 16;
/// Bound on stopping the loops, which closes what connections are left; a loop takes longer only if it
/// is stuck.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// How a run of the daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every connection finished in the grace period.
    Drained,
    /// The grace period ran out, or a second signal came.
    Cut,
}

/// Why the daemon did not start: what was tried, and what the system said.
#[derive(Debug)]
pub struct StartError(String);

impl StartError {
    pub(crate) fn new(message: String) -> StartError {
        StartError(message)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// A service that runs.
pub(crate) struct Running {
    pub(crate) name: String,
    pub(crate) serving: Serving,
}

/// What a service runs on.
pub(crate) enum Serving {
    Tcp(TcpServing),
    Udp(UdpServing),
}

impl Serving {
    /// TCP has one for all its addresses, UDP one for each.
    fn servers(&self) -> &[Server] {
        match self {
            Serving::Tcp(serving) => std::slice::from_ref(&serving.server),
            Serving::Udp(serving) => &serving.servers,
        }
    }

    fn transport(&self) -> &'static str {
        match self {
            Serving::Tcp(_) => "tcp",
            Serving::Udp(_) => "udp",
        }
    }

    /// What it has done, for the last line.
    fn counts(&self) -> String {
        match self {
            Serving::Tcp(serving) => {
                let stats = serving.server.stats();
                format!(
                    "{} accepted, {} finished, {} cut",
                    stats.accepted, stats.closed, stats.open
                )
            }
            Serving::Udp(serving) => serving.counts().to_string(),
        }
    }
}

/// All that runs.
struct Daemon {
    runtime: BackgroundRuntime,
    running: Arc<[Running]>,
    admin: Option<Admin>,
}

/// Runs the daemon until a signal ends it.
pub fn run(settings: &Settings) -> Result<Ended, StartError> {
    let signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|error| StartError::new(format!("cannot catch SIGTERM and SIGINT: {error}")))?;
    start_log(&settings.log)?;
    let files = raise_file_limit(settings)?;
    let admin = settings.admin.as_ref().map(admin::Bound::new).transpose()?;
    let runtime = start_loops(&settings.runtime)?;
    let running: Arc<[Running]> = start_services(&runtime, settings)?.into();
    let metrics = Metrics::new(runtime.handle().clone(), Arc::clone(&running));
    let admin = admin.map(|bound| bound.start(metrics)).transpose()?;
    let daemon = Daemon {
        runtime,
        running,
        admin,
    };
    announce(&daemon, settings, files);
    Ok(serve(signals, daemon, settings.shutdown.grace))
}

fn start_log(settings: &LogSettings) -> Result<(), StartError> {
    let level = match settings.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr);
    match settings.format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().try_init(),
    }
    .map_err(|error| StartError::new(format!("cannot start the log: {error}")))
}

/// Gives back the limit that holds; `None` is none.
fn raise_file_limit(settings: &Settings) -> Result<Option<u64>, StartError> {
    let wanted = settings.runtime.file_limit;
    machine::raise_file_limit(wanted).map_err(|error| {
        let wanted = wanted.map_or("max".to_owned(), |limit| limit.to_string());
        StartError::new(format!(
            "cannot set the limit on open files to {wanted}: {error}; \
             give runtime.file_limit = \"max\" or raise the hard limit"
        ))
    })
}

fn start_loops(settings: &RuntimeSettings) -> Result<BackgroundRuntime, StartError> {
    let pin = match settings.pin {
        Pin::Auto => garland::Pin::Auto,
        Pin::On => garland::Pin::On,
        Pin::Off => garland::Pin::Off,
    };
    let mut builder = Builder::new()
        .pin(pin)
        .steal(settings.steal)
        .rescue(settings.rescue)
        .thread_name(machine::LOOP_THREADS);
    if let Some(loops) = settings.loops {
        builder = builder.loops(loops);
    }
    builder
        .start()
        .map_err(|error| StartError::new(format!("cannot start the loops: {error}")))
}

fn start_services(
    runtime: &BackgroundRuntime,
    settings: &Settings,
) -> Result<Vec<Running>, StartError> {
    let start = |service: &ServiceSettings| {
        let (handle, bind) = (runtime.handle(), &service.bind);
        let started = match &service.kind {
            Kind::TcpEcho(echo) => services::listen(handle, bind, echo).map(Serving::Tcp),
            Kind::UdpEcho(echo) => udp_echo::serve(handle, bind, echo).map(Serving::Udp),
            Kind::TcpSpin(spin) => tcp_spin::listen(handle, bind, spin).map(Serving::Tcp),
        };
        let serving = started.map_err(|error| {
            let advice = advice_for(error.kind());
            StartError::new(format!(
                "cannot start service {}: {error}; {advice}",
                service.name
            ))
        })?;
        Ok(Running {
            name: service.name.clone(),
            serving,
        })
    };
    settings.services.iter().map(start).collect()
}

/// What an operator can do about an address that cannot be bound.
fn advice_for(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => "another process listens there: stop it or change bind",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: change bind",
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: change bind",
        _ => "look at bind and at the limits of this process",
    }
}

/// Says what listens and on what it runs, in the words of the contract.
fn announce(daemon: &Daemon, settings: &Settings, files: Option<u64>) {
    let runtime = &daemon.runtime;
    let loops = runtime.handle().loops();
    for service in &*daemon.running {
        let transport = service.serving.transport();
        let servers = service.serving.servers();
        for address in servers.iter().flat_map(Server::local_addrs) {
            eprintln!(
                "listening {} {transport} {address} ({loops} loops)",
                service.name
            );
        }
    }
    if let Some(admin) = &daemon.admin {
        eprintln!("listening admin tcp {} (no loop)", admin.addr);
    }
    let quota = machine::cpu_quota();
    let quota_text = quota.map_or("no CPU quota".to_owned(), |cpus| {
        format!("a CPU quota of {cpus:.2} CPUs")
    });
    let files_text = files.map_or("no limit on files".to_owned(), |files| {
        format!("up to {files} open files")
    });
    let pinning = pinning_text(runtime.pinning(), settings.runtime.pin, quota);
    eprintln!("started {loops} loops, {pinning}, {quota_text}, {files_text}");
    warn_of_few_files(settings, loops, files);
}

/// Which cores the loops are pinned to, or why to none.
fn pinning_text(cores: &[Option<usize>], wanted: Pin, quota: Option<f64>) -> String {
    let pinned: Vec<String> = cores.iter().flatten().map(usize::to_string).collect();
    if !pinned.is_empty() {
        return format!("pinned to cores {}", pinned.join(" "));
    }
    let (loops, available) = (cores.len(), machine::cores());
    match (wanted, quota) {
        (Pin::Off, _) => "not pinned (pin = false)".to_owned(),
        (_, Some(cpus)) if cpus < available as f64 => "not pinned (a CPU quota is set)".to_owned(),
        _ if loops > available => format!("not pinned (more loops than the {available} cores)"),
        _ => "not pinned (the kernel refused it)".to_owned(),
    }
}

/// Accepting beyond the file limit fails over and over; better to hear of it before it happens.
fn warn_of_few_files(settings: &Settings, loops: usize, files: Option<u64>) {
    let Some(files) = files else { return };
    let connections: usize = settings
        .services
        .iter()
        .map(|service| match &service.kind {
            Kind::TcpEcho(echo) => echo.listener.max_connections,
            Kind::TcpSpin(spin) => spin.listener.max_connections,
            Kind::UdpEcho(_) => 0,
        })
        .sum();
    let needed = connections as u64 + loops as u64 * FILES_PER_LOOP;
    if needed > files {
        tracing::warn!(
            files,
            needed,
            "fewer open files than max_connections needs: lower max_connections or raise the limit"
        );
    }
}

/// Waits for the first signal, drains, stops.
fn serve(mut signals: Signals, daemon: Daemon, grace: Duration) -> Ended {
    let Daemon {
        runtime,
        running,
        admin,
    } = daemon;
    let running = &running[..];
    let first = signals.forever().next();
    if let Some(admin) = &admin {
        admin.drain();
    }
    eprintln!(
        "stopping on {}, grace period {}",
        name_of(first),
        humantime::format_duration(grace)
    );
    for server in running.iter().flat_map(|service| service.serving.servers()) {
        server.close();
    }
    let ended = drain(signals, running, grace);
    let counts = counts_of(running);
    let report = runtime.shutdown(STOP_LIMIT);
    if !report.stuck.is_empty() {
        tracing::warn!(loops = ?report.stuck, "loops are stuck and were left behind");
    }
    eprintln!("stopped {counts}");
    ended
}

/// Waits until no service has a connection, the grace period is over or a second signal comes.
///
/// A thread waits for the services and then closes `signals`, which ends the main thread's own wait; so
/// there is one place to wait at for both. The thread is left behind when a signal was first.
fn drain(mut signals: Signals, running: &[Running], grace: Duration) -> Ended {
    let servers: Vec<Server> = running
        .iter()
        .flat_map(|service| service.serving.servers().iter().cloned())
        .collect();
    let handle = signals.handle();
    let waiting = thread::Builder::new()
        .name("echod-drain".to_owned())
        .spawn(move || {
            let idle = wait_idle(&servers, grace);
            handle.close();
            idle
        });
    let waiting = match waiting {
        Ok(waiting) => waiting,
        Err(error) => {
            tracing::error!(%error, "cannot start a thread to wait for connections; cutting them");
            return Ended::Cut;
        }
    };
    if let Some(second) = signals.forever().next() {
        eprintln!("cutting connections on {}", name_of(Some(second)));
        return Ended::Cut;
    }
    match waiting.join() {
        Ok(true) => Ended::Drained,
        Ok(false) => Ended::Cut,
        Err(_panic) => {
            tracing::error!("waiting for connections panicked; cutting them");
            Ended::Cut
        }
    }
}

/// Whether all became idle; each has a waiter of its own, so that the grace period counts once.
fn wait_idle(servers: &[Server], grace: Duration) -> bool {
    thread::scope(|scope| {
        let wait = |server| scope.spawn(move || Server::wait_idle(server, grace));
        let waiters: Vec<_> = servers.iter().map(wait).collect();
        waiters
            .into_iter()
            .map(|waiter| waiter.join())
            .all(|idle| matches!(idle, Ok(true)))
    })
}

fn counts_of(running: &[Running]) -> String {
    let count = |service: &Running| format!("{}: {}", service.name, service.serving.counts());
    let counts: Vec<String> = running.iter().map(count).collect();
    counts.join("; ")
}

fn name_of(signal: Option<i32>) -> &'static str {
    signal
        .and_then(signal_hook::low_level::signal_name)
        .unwrap_or("a signal")
}

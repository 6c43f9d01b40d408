//! The daemon's configuration: its keys, their defaults, and what each value means.
//!
//! [`Settings`] is what the rest of the daemon sees: plain data that has been checked. The only way to
//! one is [`Settings::load`] or [`Settings::parse`], which report every mistake at its place and give
//! nothing back when there is one: nothing is ever half started. Printing a [`Settings`] gives TOML with
//! every default filled in, which reads back as the same settings.
//!
//! Not here: what is allowed and how it is read (`read`), how the text becomes a tree with places
//! (`document`), and anything that acts on a setting.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use crate::{
    document::{self, Place, Problem, Problems},
    machine, read,
    units::ByteSize,
};

pub(crate) const LOG_LEVELS: [(&str, LogLevel); 5] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];
pub(crate) const LOG_FORMATS: [(&str, LogFormat); 2] =
    [("text", LogFormat::Text), ("json", LogFormat::Json)];
pub(crate) const MODELS: [(&str, Model); 2] =
    [("protocol", Model::Protocol), ("task", Model::Task)];

/// One checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `[runtime]`
    pub runtime: RuntimeSettings,
    /// `[shutdown]`
    pub shutdown: ShutdownSettings,
    /// `[log]`
    pub log: LogSettings,
    /// `[admin]`; without the table there is no admin port.
    pub admin: Option<AdminSettings>,
    /// Each `[[service]]`; never empty, names and addresses differ.
    pub services: Vec<ServiceSettings>,
}

/// `[runtime]`: the loops and what the process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeSettings {
    /// How many loops; `None` is "auto": the CPUs this process may use.
    pub loops: Option<usize>,
    /// Whether each loop stays on one core.
    pub pin: Pin,
    /// Whether idle loops steal movable tasks.
    pub steal: bool,
    /// Whether idle loops serve the sockets and timers of one that is stuck.
    pub rescue: bool,
    /// The soft limit on open files; `None` is "max": as much as the hard limit allows.
    pub file_limit: Option<u64>,
}

impl Default for RuntimeSettings {
    fn default() -> RuntimeSettings {
        RuntimeSettings {
            loops: None,
            pin: Pin::Auto,
            steal: true,
            rescue: true,
            file_limit: None,
        }
    }
}

/// `runtime.pin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Pin when no CPU quota is set and there is a core for each loop.
    Auto,
    /// Pin; start-up fails when it is impossible.
    On,
    /// Leave it to the kernel's scheduler.
    Off,
}

/// `[shutdown]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutdownSettings {
    /// How long connections may take to finish after the first signal.
    pub grace: Duration,
}

impl Default for ShutdownSettings {
    fn default() -> ShutdownSettings {
        ShutdownSettings {
            grace: Duration::from_secs(10),
        }
    }
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// The least severe events that are written.
    pub level: LogLevel,
    /// How they are written.
    pub format: LogFormat,
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings {
            level: LogLevel::Info,
            format: LogFormat::Text,
        }
    }
}

/// `log.level`, most severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the five names every log has")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One line an event, for people.
    Text,
    /// One JSON object an event, for machines.
    Json,
}

/// `[admin]`: metrics and health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// Where it listens; of the addresses of a host name, the first.
    pub bind: SocketAddr,
}

impl Default for AdminSettings {
    fn default() -> AdminSettings {
        AdminSettings {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 9107)),
        }
    }
}

/// One `[[service]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Unique; letters, digits, `-` and `_`, a letter first.
    pub name: String,
    /// Where it listens; never empty, resolved when the file was read.
    pub bind: Vec<SocketAddr>,
    /// What it does there.
    pub kind: Kind,
}

/// `service.kind`, with the keys that belong to the kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RFC 862 over TCP.
    TcpEcho(TcpEcho),
    /// RFC 862 over UDP.
    UdpEcho(UdpEcho),
    /// Requests that cost as much CPU time as they say.
    TcpSpin(TcpSpin),
}

/// The keys of every TCP service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Connections the kernel may hold that were not accepted yet, per listener.
    pub backlog: u32,
    /// `TCP_NODELAY` on every connection.
    pub nodelay: bool,
    /// Open connections over all loops at which accepting pauses.
    pub max_connections: usize,
}

impl Default for Listener {
    fn default() -> Listener {
        Listener {
            backlog: 1024,
            nodelay: true,
            max_connections: 100_000,
        }
    }
}

/// The keys of a `tcp-echo` service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpEcho {
    /// `backlog`, `nodelay`, `max_connections`.
    pub listener: Listener,
    /// How long a connection may be without any progress; `None` is "off".
    pub idle_timeout: Option<Duration>,
    /// Unsent bytes of a connection at which reading from it stops.
    pub high_water: ByteSize,
    /// Which of garland's two ways of writing a server echoes.
    pub model: Model,
}

impl Default for TcpEcho {
    fn default() -> TcpEcho {
        TcpEcho {
            listener: Listener::default(),
            idle_timeout: None,
            high_water: ByteSize(64 << 10),
            model: Model::Protocol,
        }
    }
}

/// The keys of a `tcp-spin` service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpSpin {
    /// `backlog`, `nodelay`, `max_connections`.
    pub listener: Listener,
    /// How long a connection may be without any progress; `None` is "off".
    pub idle_timeout: Option<Duration>,
    /// What one request may burn; one that asks for more gets this much.
    pub max_service_time: Duration,
}

impl Default for TcpSpin {
    fn default() -> TcpSpin {
        TcpSpin {
            listener: Listener::default(),
            idle_timeout: None,
            max_service_time: Duration::from_secs(1),
        }
    }
}

/// The keys of a `udp-echo` service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpEcho {
    /// Larger datagrams are dropped. Bytes.
    pub max_datagram: usize,
    /// Datagrams a loop takes from its socket in one turn.
    pub batch: usize,
    /// Datagrams from these ports are not answered; sorted.
    pub refuse_source_ports: Vec<u16>,
}

impl Default for UdpEcho {
    fn default() -> UdpEcho {
        UdpEcho {
            max_datagram: 65_507,
            batch: 32,
            // Echo, daytime, quote, chargen, time, DNS, TFTP, NTP: services that answer anything.
            refuse_source_ports: vec![7, 13, 17, 19, 37, 53, 69, 123],
        }
    }
}

/// `service.model`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// Callbacks on the connection's home loop.
    Protocol,
    /// One movable task a connection.
    Task,
}

impl Settings {
    /// Reads and checks the file, with `--set` arguments laid over it.
    pub fn load(file: &Path, sets: &[String]) -> Result<Settings, Problems> {
        let name = file.display().to_string();
        let text = fs::read_to_string(file).map_err(|error| {
            let message = format!("cannot read the configuration: {error}; give a TOML file");
            Problems::new(
                &name,
                vec![Problem {
                    place: Place::Unread,
                    message,
                }],
            )
        })?;
        Settings::parse(&name, &text, sets, machine::cores())
    }

    /// Reads and checks `text`, called `file` in messages, for a machine with that many cores.
    pub fn parse(
        file: &str,
        text: &str,
        sets: &[String],
        cores: usize,
    ) -> Result<Settings, Problems> {
        let mut root = document::parse(text).map_err(|list| Problems::new(file, list))?;
        let mut problems = Vec::new();
        for (number, argument) in sets.iter().enumerate() {
            if let Err(problem) = document::set(&mut root, number, argument) {
                problems.push(problem);
            }
        }
        match (
            read::read_root(root, cores, &mut problems),
            problems.is_empty(),
        ) {
            (Some(settings), true) => Ok(settings),
            _ => Err(Problems::new(file, problems)),
        }
    }
}

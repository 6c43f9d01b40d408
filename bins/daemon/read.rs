//! From the tree of a configuration file to checked [`Settings`]: what is allowed for each key.
//!
//! Reading goes on after a mistake, with the default in its place, so that one run reports them all; the
//! caller throws the result away if there was any.
//!
//! The only thing it does beyond computing is to resolve host names.

use std::{
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs},
    ops::RangeInclusive,
    time::Duration,
};

use crate::{
    document::{Fields, Node, Problem, Value},
    settings::{
        AdminSettings, Kind, LOG_FORMATS, LOG_LEVELS, Listener, LogSettings, MODELS, Pin,
        RuntimeSettings, ServiceSettings, Settings, ShutdownSettings, TcpEcho, TcpSpin, UdpEcho,
    },
    units::ByteSize,
};

/// The library's bound on loops.
const LOOPS: RangeInclusive<u64> = 1..=48;
/// Below, the daemon cannot even listen; above, Linux refuses (`NR_OPEN` can be no larger).
const FILE_LIMIT: RangeInclusive<u64> = 64..=1_073_741_816;
/// The kernel cuts a larger backlog to `net.core.somaxconn` in silence; 16 bits are its own bound.
const BACKLOG: RangeInclusive<u64> = 1..=65_535;
/// Ten million connections are far beyond one machine's memory at any buffer size.
const MAX_CONNECTIONS: RangeInclusive<u64> = 1..=10_000_000;
/// A page is too little to be worth a system call; a gibibyte a connection is a mistake.
const HIGH_WATER: RangeInclusive<u64> = 1024..=1 << 30;
/// What fits into one datagram, at most: 65,527 bytes over IPv6, 65,507 over IPv4.
const MAX_DATAGRAM: RangeInclusive<u64> = 1..=65_527;
/// The library takes no more at once.
const BATCH: RangeInclusive<u64> = 1..=32;
/// Less than a clock can tell is nothing; an hour holds up a loop for longer than anybody waits.
const SERVICE_TIME: RangeInclusive<Duration> = Duration::from_micros(1)..=Duration::from_secs(3600);
const PORT: RangeInclusive<u64> = 1..=65_535;
/// Shorter cannot be told from the timer's own resolution; longer than a year is "off".
const IDLE_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(365 * 24 * 3600);
/// Zero cuts at once; a service manager has lost patience long before a day.
const GRACE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3600);
/// Longest service name: it is a column in reports and a label of metrics.
const NAME_LEN_MAX: usize = 64;

const KINDS: [&str; 3] = ["tcp-echo", "udp-echo", "tcp-spin"];

const SERVICE_BIND: &str =
    "give ADDRESS:PORT like \"127.0.0.1:7007\" or \"[::1]:7007\", or a list of them";
const ADMIN_BIND: &str = "give ADDRESS:PORT like \"127.0.0.1:9107\" or \"[::1]:9107\"";
const NO_SERVICE: &str = "no service: add a [[service]] table with a kind";

/// Reads the whole file, for a machine with that many cores.
pub(crate) fn read_root(root: Node, cores: usize, problems: &mut Vec<Problem>) -> Option<Settings> {
    let mut root = Section::open(root, "the file", problems)?;
    let runtime = root.fields.take("runtime");
    let shutdown = root.fields.take("shutdown");
    let log = root.fields.take("log");
    let admin = root.fields.take("admin");
    let services = root.fields.take("service");
    if services.is_none() {
        root.problems.push(root.fields.problem(NO_SERVICE));
    }
    root.finish();
    let mut taken = Taken::default();
    Some(Settings {
        runtime: read_runtime(runtime, cores, problems),
        shutdown: read_shutdown(shutdown, problems),
        log: read_log(log, problems),
        admin: admin.map(|node| read_admin(node, &mut taken, problems)),
        services: services
            .map(|node| read_services(node, &mut taken, problems))
            .unwrap_or_default(),
    })
}

fn read_runtime(node: Option<Node>, cores: usize, problems: &mut Vec<Problem>) -> RuntimeSettings {
    let mut read = RuntimeSettings::default();
    let Some(mut section) = node.and_then(|node| Section::open(node, "runtime", problems)) else {
        return read;
    };
    section.read(
        "loops",
        &mut read.loops,
        "\"auto\" or a whole number 1..=48",
        |value| text_or("auto", value, |value| whole_number(value, LOOPS)),
    );
    let pin_place = section.fields.place_of("pin");
    section.read(
        "pin",
        &mut read.pin,
        "\"auto\", true or false",
        |value| match value {
            Value::Boolean(true) => Some(Pin::On),
            Value::Boolean(false) => Some(Pin::Off),
            value => choice(value, &[("auto", Pin::Auto)]),
        },
    );
    if let (Pin::On, Some(loops), Some(place)) = (read.pin, read.loops, pin_place)
        && loops > cores
    {
        let message = format!(
            "pin = true is not possible for {loops} loops: this process may use {cores} cores; \
             give loops = {cores} or less, or pin = \"auto\""
        );
        section.problems.push(Problem { place, message });
    }
    section.read("steal", &mut read.steal, "true or false", boolean);
    section.read("rescue", &mut read.rescue, "true or false", boolean);
    section.read(
        "file_limit",
        &mut read.file_limit,
        "\"max\" or a whole number 64..=1073741816",
        |value| text_or("max", value, |value| whole_number(value, FILE_LIMIT)),
    );
    section.finish();
    read
}

fn read_shutdown(node: Option<Node>, problems: &mut Vec<Problem>) -> ShutdownSettings {
    let mut read = ShutdownSettings::default();
    if let Some(mut section) = node.and_then(|node| Section::open(node, "shutdown", problems)) {
        section.read(
            "grace",
            &mut read.grace,
            "a duration like \"10s\", at most a day",
            |value| duration(value, GRACE),
        );
        section.finish();
    }
    read
}

fn read_log(node: Option<Node>, problems: &mut Vec<Problem>) -> LogSettings {
    let mut read = LogSettings::default();
    if let Some(mut section) = node.and_then(|node| Section::open(node, "log", problems)) {
        let levels = "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
        section.read("level", &mut read.level, levels, |value| {
            choice(value, &LOG_LEVELS)
        });
        section.read(
            "format",
            &mut read.format,
            "\"text\" or \"json\"",
            |value| choice(value, &LOG_FORMATS),
        );
        section.finish();
    }
    read
}

fn read_admin(node: Node, taken: &mut Taken, problems: &mut Vec<Problem>) -> AdminSettings {
    let mut read = AdminSettings::default();
    let Some(mut section) = Section::open(node, "admin", problems) else {
        return read;
    };
    if let Some(node) = section.fields.take("bind") {
        match resolve(&node, ADMIN_BIND).map(|addresses| addresses[0]) {
            Ok(address) => read.bind = address,
            Err(problem) => section.problems.push(problem),
        }
    }
    taken.tcp.push(read.bind);
    section.finish();
    read
}

fn read_services(
    node: Node,
    taken: &mut Taken,
    problems: &mut Vec<Problem>,
) -> Vec<ServiceSettings> {
    match node.value {
        Value::Array(items) if !items.is_empty() => items
            .into_iter()
            .filter_map(|item| read_service(item, taken, problems))
            .collect(),
        Value::Array(_) => {
            problems.push(node.problem(NO_SERVICE));
            Vec::new()
        }
        _ => {
            let shown = node.shown();
            let message =
                format!("service = {shown} is not allowed: give a list of tables, [[service]]");
            problems.push(node.problem(message));
            Vec::new()
        }
    }
}

/// Names and addresses of the services read so far: no two may share any. TCP and UDP have their ports
/// each for itself.
#[derive(Default)]
struct Taken {
    names: Vec<String>,
    tcp: Vec<SocketAddr>,
    udp: Vec<SocketAddr>,
}

fn read_service(
    node: Node,
    taken: &mut Taken,
    problems: &mut Vec<Problem>,
) -> Option<ServiceSettings> {
    let mut section = Section::open(node, "service", problems)?;
    let kind = section.read_kind()?;
    let name = section.read_name(kind, taken);
    let bound = match kind {
        "udp-echo" => &mut taken.udp,
        _ => &mut taken.tcp,
    };
    let bind = section.read_bind(bound);
    let kind = match kind {
        "udp-echo" => Kind::UdpEcho(section.read_udp_echo()),
        "tcp-spin" => Kind::TcpSpin(section.read_tcp_spin()),
        _ => Kind::TcpEcho(section.read_tcp_echo()),
    };
    section.finish();
    Some(ServiceSettings { name, bind, kind })
}

/// A table being read, and where its problems go.
struct Section<'a> {
    fields: Fields,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Section<'a> {
    fn open(node: Node, what: &str, problems: &'a mut Vec<Problem>) -> Option<Section<'a>> {
        match Fields::open(node, what) {
            Ok(fields) => Some(Section { fields, problems }),
            Err(problem) => {
                problems.push(problem);
                None
            }
        }
    }

    /// Reads `key` into `slot`, which holds the default, if the key was written and is `allowed`.
    fn read<T>(
        &mut self,
        key: &'static str,
        slot: &mut T,
        allowed: &str,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) {
        let Some(node) = self.fields.take(key) else {
            return;
        };
        match parse(&node.value) {
            Some(value) => *slot = value,
            None => {
                let shown = node.shown();
                let message = format!("{key} = {shown} is not allowed: give {allowed}");
                self.problems.push(node.problem(message));
            }
        }
    }

    /// The kind, which has no default: without it nothing else of the service can be judged.
    fn read_kind(&mut self) -> Option<&'static str> {
        let give = "give \"tcp-echo\", \"udp-echo\" or \"tcp-spin\"";
        let Some(node) = self.fields.take("kind") else {
            let message = format!("the service has no kind: {give}");
            self.problems.push(self.fields.problem(message));
            return None;
        };
        let known = KINDS.map(|kind| (kind, kind));
        if let Some(kind) = choice(&node.value, &known) {
            return Some(kind);
        }
        let message = format!("kind = {} is not allowed: {give}", node.shown());
        self.problems.push(node.problem(message));
        None
    }

    fn read_tcp_echo(&mut self) -> TcpEcho {
        let mut read = TcpEcho::default();
        self.read_listener(&mut read.listener);
        self.read_idle_timeout(&mut read.idle_timeout);
        self.read(
            "high_water",
            &mut read.high_water,
            "a size like \"64KiB\", 1KiB to 1GiB",
            |value| match value {
                Value::Text(text) => {
                    ByteSize::parse(text).filter(|size| HIGH_WATER.contains(&size.0))
                }
                _ => None,
            },
        );
        self.read(
            "model",
            &mut read.model,
            "\"protocol\" or \"task\"",
            |value| choice(value, &MODELS),
        );
        read
    }

    fn read_tcp_spin(&mut self) -> TcpSpin {
        let mut read = TcpSpin::default();
        self.read_listener(&mut read.listener);
        self.read_idle_timeout(&mut read.idle_timeout);
        self.read(
            "max_service_time",
            &mut read.max_service_time,
            "a duration like \"100ms\", 1us to 1h",
            |value| duration(value, SERVICE_TIME),
        );
        read
    }

    /// The keys that all TCP services have.
    fn read_listener(&mut self, read: &mut Listener) {
        self.read(
            "backlog",
            &mut read.backlog,
            "a whole number 1..=65535",
            |value| whole_number(value, BACKLOG),
        );
        self.read("nodelay", &mut read.nodelay, "true or false", boolean);
        self.read(
            "max_connections",
            &mut read.max_connections,
            "a whole number 1..=10000000",
            |value| whole_number(value, MAX_CONNECTIONS),
        );
    }

    fn read_idle_timeout(&mut self, read: &mut Option<Duration>) {
        self.read(
            "idle_timeout",
            read,
            "\"off\" or a duration like \"30s\", 10ms to 365days",
            |value| text_or("off", value, |value| duration(value, IDLE_TIMEOUT)),
        );
    }

    fn read_udp_echo(&mut self) -> UdpEcho {
        let mut read = UdpEcho::default();
        self.read(
            "max_datagram",
            &mut read.max_datagram,
            "a whole number 1..=65527, in bytes",
            |value| whole_number(value, MAX_DATAGRAM),
        );
        self.read("batch", &mut read.batch, "a whole number 1..=32", |value| {
            whole_number(value, BATCH)
        });
        self.read(
            "refuse_source_ports",
            &mut read.refuse_source_ports,
            "a list of whole numbers 1..=65535; port 0 and the service's own are always refused",
            ports,
        );
        read
    }

    /// The name, the kind if none is written; it must be new.
    fn read_name(&mut self, kind: &str, taken: &mut Taken) -> String {
        let place = self
            .fields
            .place_of("name")
            .unwrap_or_else(|| self.fields.place());
        let mut name = kind.to_owned();
        let allowed = "letters, digits, '-' and '_', a letter first, at most 64";
        let problems_before = self.problems.len();
        self.read("name", &mut name, allowed, service_name);
        if self.problems.len() > problems_before {
            // The default in its place would only be reported as taken, which nobody wrote.
            return name;
        }
        if taken.names.contains(&name) {
            let message = format!("name = {name:?} is taken by another service: give another name");
            self.problems.push(Problem { place, message });
        }
        taken.names.push(name.clone());
        name
    }

    /// The addresses, all of them free of those that are taken.
    fn read_bind(&mut self, taken: &mut Vec<SocketAddr>) -> Vec<SocketAddr> {
        let nodes = match self.fields.take("bind") {
            None => {
                let value = Value::Text(SocketAddr::from((Ipv4Addr::LOCALHOST, 7007)).to_string());
                vec![Node {
                    place: self.fields.place(),
                    value,
                }]
            }
            Some(Node {
                value: Value::Array(nodes),
                ..
            }) if !nodes.is_empty() => nodes,
            Some(node) => vec![node],
        };
        let mut bind = Vec::new();
        for node in nodes {
            match resolve(&node, SERVICE_BIND) {
                Err(problem) => self.problems.push(problem),
                Ok(addresses) => {
                    for address in addresses {
                        if let Some(other) = taken.iter().find(|o| overlap(**o, address)) {
                            self.problems.push(node.problem(format!(
                                "bind: {address} overlaps {other}, which is bound already: \
                                 give another address or port"
                            )));
                        }
                        taken.push(address);
                        bind.push(address);
                    }
                }
            }
        }
        bind
    }

    fn finish(self) {
        self.fields.finish(self.problems);
    }
}

/// Every address behind one `HOST:PORT`; never empty.
fn resolve(node: &Node, allowed: &str) -> Result<Vec<SocketAddr>, Problem> {
    let Value::Text(text) = &node.value else {
        return Err(node.problem(format!("bind = {} is not allowed: {allowed}", node.shown())));
    };
    let mut addresses: Vec<SocketAddr> = text
        .to_socket_addrs()
        .map_err(|error| {
            node.problem(format!(
                "bind: cannot resolve {text:?} ({error}): {allowed}"
            ))
        })?
        .collect();
    // A resolver may name an address more than once (several lines of /etc/hosts).
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(node.problem(format!("bind: {text:?} has no address: {allowed}")));
    }
    Ok(addresses)
}

/// Whether two listeners would compete for connections; port 0 never does.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_family = one.is_ipv4() == other.is_ipv4();
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && same_family && (any || one.ip() == other.ip())
}

fn service_name(value: &Value) -> Option<String> {
    let Value::Text(name) = value else {
        return None;
    };
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let fits = name.len() <= NAME_LEN_MAX
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    (starts_well && fits).then(|| name.clone())
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Boolean(flag) => Some(*flag),
        _ => None,
    }
}

fn whole_number<T: TryFrom<u64>>(value: &Value, range: RangeInclusive<u64>) -> Option<T> {
    let Value::Integer(number) = value else {
        return None;
    };
    let number = u64::try_from(*number)
        .ok()
        .filter(|number| range.contains(number))?;
    T::try_from(number).ok()
}

fn duration(value: &Value, range: RangeInclusive<Duration>) -> Option<Duration> {
    let Value::Text(text) = value else {
        return None;
    };
    humantime::parse_duration(text)
        .ok()
        .filter(|duration| range.contains(duration))
}

/// Sorted, each once.
fn ports(value: &Value) -> Option<Vec<u16>> {
    let Value::Array(nodes) = value else {
        return None;
    };
    let port = |node: &Node| whole_number(&node.value, PORT);
    let mut ports: Vec<u16> = nodes.iter().map(port).collect::<Option<_>>()?;
    ports.sort_unstable();
    ports.dedup();
    Some(ports)
}

/// `None` for the word that stands for no value, else the value.
fn text_or<T>(
    word: &str,
    value: &Value,
    parse: impl FnOnce(&Value) -> Option<T>,
) -> Option<Option<T>> {
    match value {
        Value::Text(text) if text == word => Some(None),
        value => parse(value).map(Some),
    }
}

fn choice<T: Copy>(value: &Value, table: &[(&str, T)]) -> Option<T> {
    let Value::Text(text) = value else {
        return None;
    };
    table
        .iter()
        .find(|(name, _)| name == text)
        .map(|(_, choice)| *choice)
}

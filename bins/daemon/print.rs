//! Settings as TOML: what `--print-config` prints.
//!
//! Every key of the contract that is supported is written, whether it was in the file or is a default,
//! in the order of the documentation. The text reads back as the same settings. No string that gets here
//! needs escaping: names are letters and digits, addresses are resolved.

use std::{fmt, net::SocketAddr, time::Duration};

use crate::settings::{
    Kind, LOG_FORMATS, LOG_LEVELS, Listener, LogSettings, MODELS, Pin, RuntimeSettings,
    ServiceSettings, Settings, TcpEcho, TcpSpin, UdpEcho,
};

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_runtime(f, &self.runtime)?;
        let grace = humantime::format_duration(self.shutdown.grace);
        writeln!(f, "\n[shutdown]\ngrace = \"{grace}\"")?;
        print_log(f, &self.log)?;
        if let Some(admin) = &self.admin {
            writeln!(f, "\n[admin]\nbind = \"{}\"", admin.bind)?;
        }
        self.services
            .iter()
            .try_for_each(|service| print_service(f, service))
    }
}

fn print_runtime(f: &mut fmt::Formatter<'_>, runtime: &RuntimeSettings) -> fmt::Result {
    writeln!(f, "[runtime]")?;
    match runtime.loops {
        Some(loops) => writeln!(f, "loops = {loops}")?,
        None => writeln!(f, "loops = \"auto\"")?,
    }
    match runtime.pin {
        Pin::Auto => writeln!(f, "pin = \"auto\"")?,
        Pin::On => writeln!(f, "pin = true")?,
        Pin::Off => writeln!(f, "pin = false")?,
    }
    writeln!(f, "steal = {}\nrescue = {}", runtime.steal, runtime.rescue)?;
    match runtime.file_limit {
        Some(limit) => writeln!(f, "file_limit = {limit}"),
        None => writeln!(f, "file_limit = \"max\""),
    }
}

fn print_log(f: &mut fmt::Formatter<'_>, log: &LogSettings) -> fmt::Result {
    let level = name_in(&LOG_LEVELS, log.level);
    let format = name_in(&LOG_FORMATS, log.format);
    writeln!(f, "\n[log]\nlevel = \"{level}\"\nformat = \"{format}\"")
}

fn print_service(f: &mut fmt::Formatter<'_>, service: &ServiceSettings) -> fmt::Result {
    let kind = match service.kind {
        Kind::TcpEcho(_) => "tcp-echo",
        Kind::UdpEcho(_) => "udp-echo",
        Kind::TcpSpin(_) => "tcp-spin",
    };
    writeln!(
        f,
        "\n[[service]]\nname = \"{}\"\nkind = \"{kind}\"",
        service.name
    )?;
    match service.bind.as_slice() {
        [one] => writeln!(f, "bind = \"{one}\"")?,
        many => {
            let quoted = |address: &SocketAddr| format!("\"{address}\"");
            let list: Vec<String> = many.iter().map(quoted).collect();
            writeln!(f, "bind = [{}]", list.join(", "))?;
        }
    }
    match &service.kind {
        Kind::TcpEcho(echo) => print_tcp_echo(f, echo),
        Kind::UdpEcho(echo) => print_udp_echo(f, echo),
        Kind::TcpSpin(spin) => print_tcp_spin(f, spin),
    }
}

fn print_tcp_echo(f: &mut fmt::Formatter<'_>, echo: &TcpEcho) -> fmt::Result {
    print_listener(f, &echo.listener)?;
    print_idle_timeout(f, echo.idle_timeout)?;
    writeln!(f, "high_water = \"{}\"", echo.high_water)?;
    writeln!(f, "model = \"{}\"", name_in(&MODELS, echo.model))
}

fn print_tcp_spin(f: &mut fmt::Formatter<'_>, spin: &TcpSpin) -> fmt::Result {
    print_listener(f, &spin.listener)?;
    print_idle_timeout(f, spin.idle_timeout)?;
    let time = humantime::format_duration(spin.max_service_time);
    writeln!(f, "max_service_time = \"{time}\"")
}

fn print_listener(f: &mut fmt::Formatter<'_>, listener: &Listener) -> fmt::Result {
    writeln!(f, "backlog = {}", listener.backlog)?;
    writeln!(f, "nodelay = {}", listener.nodelay)?;
    writeln!(f, "max_connections = {}", listener.max_connections)
}

fn print_idle_timeout(f: &mut fmt::Formatter<'_>, limit: Option<Duration>) -> fmt::Result {
    match limit {
        Some(limit) => {
            let limit = humantime::format_duration(limit);
            writeln!(f, "idle_timeout = \"{limit}\"")
        }
        None => writeln!(f, "idle_timeout = \"off\""),
    }
}

fn print_udp_echo(f: &mut fmt::Formatter<'_>, echo: &UdpEcho) -> fmt::Result {
    writeln!(f, "max_datagram = {}", echo.max_datagram)?;
    writeln!(f, "batch = {}", echo.batch)?;
    writeln!(f, "refuse_source_ports = {:?}", echo.refuse_source_ports)
}

/// The name of a choice; each value is in its table.
fn name_in<T: PartialEq>(table: &[(&'static str, T)], value: T) -> &'static str {
    let named = table.iter().find(|(_, choice)| *choice == value);
    named.expect("every value of a choice is in its table").0
}

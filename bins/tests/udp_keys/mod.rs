//! The keys of `udp-echo`: defaults, ranges, and ports that TCP and UDP have each for itself.

use std::net::SocketAddr;

use garland_echod::settings::{Kind, Settings, UdpEcho};

use crate::{MINIMAL, accepted, refused};

const UDP: &str = "[[service]]\nkind = \"udp-echo\"\n";

fn udp_echo(settings: &Settings) -> &UdpEcho {
    match &settings.services[0].kind {
        Kind::UdpEcho(echo) => echo,
        other => panic!("another kind: {other:?}"),
    }
}

#[test]
fn udp_echo_has_the_defaults_of_the_contract() {
    let settings = accepted(UDP, &[]);
    assert_eq!(settings.services[0].name, "udp-echo");
    assert_eq!(
        settings.services[0].bind,
        [SocketAddr::from(([127, 0, 0, 1], 7007))]
    );
    let echo = udp_echo(&settings);
    assert_eq!((echo.max_datagram, echo.batch), (65_507, 32));
    assert_eq!(echo.refuse_source_ports, [7, 13, 17, 19, 37, 53, 69, 123]);
}

#[test]
fn keys_of_udp_echo_can_be_given_and_print_back() {
    let text = format!("{UDP}max_datagram = 512\nbatch = 1\nrefuse_source_ports = [9, 7, 9]\n");
    let settings = accepted(&text, &["service.0.batch=8"]);
    let echo = udp_echo(&settings);
    assert_eq!((echo.max_datagram, echo.batch), (512, 8));
    assert_eq!(echo.refuse_source_ports, [7, 9], "sorted, each once");
    assert_eq!(accepted(&settings.to_string(), &[]), settings);
    let none = accepted(&format!("{UDP}refuse_source_ports = []\n"), &[]);
    assert!(udp_echo(&none).refuse_source_ports.is_empty());
    assert_eq!(accepted(&none.to_string(), &[]), none);
}

#[test]
fn keys_of_udp_echo_have_ranges() {
    let wrong = |line: &str, expected: &str| refused(&format!("{UDP}{line}\n"), &[], expected);
    for (value, shown) in [("0", "0"), ("65528", "65528"), ("\"1KiB\"", "\"1KiB\"")] {
        wrong(
            &format!("max_datagram = {value}"),
            &format!(
                "echo.toml:3:16: max_datagram = {shown} is not allowed: give a whole number \
                 1..=65527, in bytes"
            ),
        );
    }
    for value in ["0", "33"] {
        wrong(
            &format!("batch = {value}"),
            &format!("echo.toml:3:9: batch = {value} is not allowed: give a whole number 1..=32"),
        );
    }
    let ports =
        "a list of whole numbers 1..=65535; port 0 and the service's own are always refused";
    for (value, shown) in [("7", "7"), ("[0]", "a list"), ("[65536]", "a list")] {
        wrong(
            &format!("refuse_source_ports = {value}"),
            &format!("echo.toml:3:23: refuse_source_ports = {shown} is not allowed: give {ports}"),
        );
    }
    wrong(
        "backlog = 1",
        "echo.toml:3:1: unknown key \"backlog\": allowed are kind, name, bind, max_datagram, batch, \
         refuse_source_ports",
    );
}

#[test]
fn tcp_and_udp_have_their_ports_each_for_itself() {
    let both = format!("{MINIMAL}{UDP}");
    assert_eq!(accepted(&both, &[]).services.len(), 2);
    let twice = format!("{both}[[service]]\nname = \"b\"\nkind = \"udp-echo\"\n");
    refused(
        &twice,
        &[],
        "echo.toml:5:1: bind: 127.0.0.1:7007 overlaps 127.0.0.1:7007, which is bound already: give \
         another address or port",
    );
}

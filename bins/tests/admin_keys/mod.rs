//! `[admin]`: absent by default, one address, which no TCP service may have.

use std::net::SocketAddr;

use crate::{MINIMAL, accepted, refused, refused_line};

#[test]
fn the_admin_port_has_its_default_only_if_the_table_is_there() {
    assert_eq!(accepted(MINIMAL, &[]).admin, None);
    let settings = accepted(&format!("[admin]\n{MINIMAL}"), &[]);
    let admin = settings.admin.as_ref().expect("the table is there");
    assert_eq!(admin.bind, SocketAddr::from(([127, 0, 0, 1], 9107)));
    let printed = settings.to_string();
    assert!(
        printed.contains("\n[admin]\nbind = \"127.0.0.1:9107\"\n"),
        "{printed}"
    );
    assert_eq!(accepted(&printed, &[]), settings);
    let settings = accepted(MINIMAL, &["admin.bind=[::1]:0"]);
    let admin = settings.admin.expect("it was given as an argument");
    assert_eq!(admin.bind, "[::1]:0".parse().expect("an address"));
}

#[test]
fn mistakes_of_the_admin_table_are_reported_at_their_place() {
    let give = "give ADDRESS:PORT like \"127.0.0.1:9107\" or \"[::1]:9107\"";
    refused_line(
        "admin.bind = 9107",
        &format!("echo.toml:1:14: bind = 9107 is not allowed: {give}"),
    );
    refused_line(
        "admin.bind = [\"127.0.0.1:9107\"]",
        &format!("echo.toml:1:14: bind = a list is not allowed: {give}"),
    );
    refused_line(
        "admin.port = 9107",
        "echo.toml:1:7: unknown key \"port\": allowed are bind",
    );
    refused_line(
        "admin = true",
        "echo.toml:1:9: admin = true is not allowed: give a table",
    );
}

#[test]
fn the_admin_port_and_a_tcp_service_cannot_have_the_same_address() {
    let text = format!("admin.bind = \"127.0.0.1:7007\"\n{MINIMAL}");
    refused(
        &text,
        &[],
        "echo.toml:2:1: bind: 127.0.0.1:7007 overlaps 127.0.0.1:7007, which is bound already: give \
         another address or port",
    );
    // UDP has ports of its own.
    accepted(&text.replace("tcp-echo", "udp-echo"), &[]);
}

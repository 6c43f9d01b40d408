//! The keys of `tcp-spin`: defaults and ranges.

use std::time::Duration;

use garland_echod::settings::{Kind, Settings, TcpSpin};

use crate::{accepted, listener, refused};

const SPIN: &str = "[[service]]\nkind = \"tcp-spin\"\n";

fn spin(settings: &Settings) -> &TcpSpin {
    match &settings.services[0].kind {
        Kind::TcpSpin(spin) => spin,
        other => panic!("another kind: {other:?}"),
    }
}

#[test]
fn tcp_spin_has_its_defaults() {
    let settings = accepted(SPIN, &[]);
    assert_eq!(settings.services[0].name, "tcp-spin");
    let spin = spin(&settings);
    assert_eq!(listener(&spin.listener), (1024, true, 100_000));
    assert_eq!(spin.idle_timeout, None);
    assert_eq!(spin.max_service_time, Duration::from_secs(1));
}

#[test]
fn keys_of_tcp_spin_can_be_given_and_print_back() {
    let text = format!("{SPIN}max_service_time = \"250us\"\nbacklog = 7\nidle_timeout = \"1s\"\n");
    let settings = accepted(&text, &["service.0.nodelay=false"]);
    let spin = spin(&settings);
    assert_eq!(listener(&spin.listener), (7, false, 100_000));
    assert_eq!(spin.idle_timeout, Some(Duration::from_secs(1)));
    assert_eq!(spin.max_service_time, Duration::from_micros(250));
    assert_eq!(accepted(&settings.to_string(), &[]), settings);
}

#[test]
fn keys_of_tcp_spin_have_ranges() {
    for value in ["\"0s\"", "\"999ns\"", "\"61m\"", "\"off\"", "5"] {
        refused(
            &format!("{SPIN}max_service_time = {value}\n"),
            &[],
            &format!(
                "echo.toml:3:20: max_service_time = {value} is not allowed: give a duration like \
                 \"100ms\", 1us to 1h"
            ),
        );
    }
    refused(
        &format!("{SPIN}model = \"task\"\n"),
        &[],
        "echo.toml:3:1: unknown key \"model\": allowed are kind, name, bind, backlog, nodelay, \
         max_connections, idle_timeout, max_service_time",
    );
}

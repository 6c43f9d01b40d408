//! Configuration: each mistake is reported at its exact place, and what is right reads back the same.
//!
//! These tests call the library's reader; `cli.rs` does the same through the binary.

use std::{net::SocketAddr, time::Duration};

use garland_echod::{
    ByteSize,
    settings::{Kind, Listener, LogFormat, LogLevel, Model, Pin, Settings},
};

mod admin_keys;
mod spin_keys;
mod udp_keys;

/// A machine with room for the tests' loops, whatever it is that they run on.
const CORES: usize = 4;

/// The shortest file that is right.
const MINIMAL: &str = "[[service]]\nkind = \"tcp-echo\"\n";

fn parse(text: &str, sets: &[&str]) -> Result<Settings, String> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Settings::parse("echo.toml", text, &sets, CORES).map_err(|problems| problems.to_string())
}

#[track_caller]
fn accepted(text: &str, sets: &[&str]) -> Settings {
    match parse(text, sets) {
        Ok(settings) => settings,
        Err(problems) => panic!("refused:\n{problems}\n--- text:\n{text}"),
    }
}

/// The complete message, of one or more lines.
#[track_caller]
fn refused(text: &str, sets: &[&str], expected: &str) {
    match parse(text, sets) {
        Ok(settings) => panic!("accepted as:\n{settings}\n--- text:\n{text}"),
        Err(problems) => assert_eq!(problems, expected, "--- text:\n{text}"),
    }
}

/// A mistake in line 1 of a file whose service is right.
#[track_caller]
fn refused_line(line: &str, expected: &str) {
    refused(&format!("{line}\n{MINIMAL}"), &[], expected);
}

/// A mistake in line 3, a key of the service.
#[track_caller]
fn refused_key(line: &str, expected: &str) {
    refused(&format!("{MINIMAL}{line}\n"), &[], expected);
}

fn listener(keys: &Listener) -> (u32, bool, usize) {
    (keys.backlog, keys.nodelay, keys.max_connections)
}

fn echo(settings: &Settings) -> &garland_echod::settings::TcpEcho {
    match &settings.services[0].kind {
        Kind::TcpEcho(echo) => echo,
        other => panic!("another kind: {other:?}"),
    }
}

#[test]
fn minimal_file_has_the_defaults_of_the_contract() {
    let settings = accepted(MINIMAL, &[]);
    assert_eq!(settings.runtime.loops, None);
    assert_eq!(settings.runtime.pin, Pin::Auto);
    assert!(settings.runtime.steal && settings.runtime.rescue);
    assert_eq!(settings.admin, None);
    assert_eq!(settings.runtime.file_limit, None);
    assert_eq!(settings.shutdown.grace, Duration::from_secs(10));
    assert_eq!(settings.log.level, LogLevel::Info);
    assert_eq!(settings.log.format, LogFormat::Text);
    assert_eq!(settings.services.len(), 1);
    assert_eq!(settings.services[0].name, "tcp-echo");
    assert_eq!(
        settings.services[0].bind,
        [SocketAddr::from(([127, 0, 0, 1], 7007))]
    );
    let echo = echo(&settings);
    assert_eq!(listener(&echo.listener), (1024, true, 100_000));
    assert_eq!(
        (echo.idle_timeout, echo.high_water),
        (None, ByteSize(65_536))
    );
    assert_eq!(echo.model, Model::Protocol);
}

#[test]
fn every_key_can_be_given() {
    let text = r#"
[runtime]
loops = 3
pin = true
steal = false
rescue = false
file_limit = 4096
[shutdown]
grace = "1m 30s"
[log]
level = "trace"
format = "json"
[[service]]
name = "one"
kind = "tcp-echo"
bind = ["127.0.0.1:0", "[::1]:7007", "127.0.0.2:7007"]
backlog = 1
nodelay = false
max_connections = 10000000
idle_timeout = "250ms"
high_water = "1 MiB"
model = "task"
"#;
    let settings = accepted(text, &[]);
    assert_eq!(
        (settings.runtime.loops, settings.runtime.pin),
        (Some(3), Pin::On)
    );
    assert_eq!(
        (settings.runtime.steal, settings.runtime.file_limit),
        (false, Some(4096))
    );
    assert!(!settings.runtime.rescue);
    assert_eq!(settings.shutdown.grace, Duration::from_secs(90));
    assert_eq!(
        (settings.log.level, settings.log.format),
        (LogLevel::Trace, LogFormat::Json)
    );
    assert_eq!(settings.services[0].bind.len(), 3);
    let echo = echo(&settings);
    assert_eq!(listener(&echo.listener), (1, false, 10_000_000));
    assert_eq!(echo.idle_timeout, Some(Duration::from_millis(250)));
    assert_eq!(
        (echo.high_water, echo.model),
        (ByteSize(1 << 20), Model::Task)
    );
}

#[test]
fn runtime_out_of_range_is_refused_at_its_value() {
    for value in [
        "0",
        "49",
        "-1",
        "1.5",
        "\"many\"",
        "true",
        "99999999999999999999999",
    ] {
        refused_line(
            &format!("runtime.loops = {value}"),
            &format!(
                "echo.toml:1:17: loops = {value} is not allowed: give \"auto\" or a whole number 1..=48"
            ),
        );
    }
    refused_line(
        "runtime.pin = \"yes\"",
        "echo.toml:1:15: pin = \"yes\" is not allowed: give \"auto\", true or false",
    );
    refused_line(
        "runtime.steal = 1",
        "echo.toml:1:17: steal = 1 is not allowed: give true or false",
    );
    refused_line(
        "runtime.rescue = \"on\"",
        "echo.toml:1:18: rescue = \"on\" is not allowed: give true or false",
    );
    refused_line(
        "runtime.file_limit = 63",
        "echo.toml:1:22: file_limit = 63 is not allowed: give \"max\" or a whole number \
         64..=1073741816",
    );
    refused_line(
        "runtime = 5",
        "echo.toml:1:11: runtime = 5 is not allowed: give a table",
    );
}

#[test]
fn more_pinned_loops_than_cores_are_refused() {
    refused_line(
        "runtime = { loops = 5, pin = true }",
        "echo.toml:1:30: pin = true is not possible for 5 loops: this process may use 4 cores; \
         give loops = 4 or less, or pin = \"auto\"",
    );
    accepted(
        &format!("runtime = {{ loops = 5, pin = false }}\n{MINIMAL}"),
        &[],
    );
    accepted(&format!("runtime = {{ loops = 5 }}\n{MINIMAL}"), &[]);
    accepted(
        &format!("runtime = {{ loops = 4, pin = true }}\n{MINIMAL}"),
        &[],
    );
}

#[test]
fn durations_and_sizes_need_units_and_bounds() {
    for value in ["10", "\"10\"", "\"25h\"", "\"-1s\"", "\"soon\""] {
        refused_line(
            &format!("shutdown.grace = {value}"),
            &format!(
                "echo.toml:1:18: grace = {value} is not allowed: give a duration like \"10s\", at most \
                 a day"
            ),
        );
    }
    for value in ["\"on\"", "\"9ms\"", "\"366days\"", "false"] {
        refused_key(
            &format!("idle_timeout = {value}"),
            &format!(
                "echo.toml:3:16: idle_timeout = {value} is not allowed: give \"off\" or a duration like \
                 \"30s\", 10ms to 365days"
            ),
        );
    }
    for value in [
        "65536",
        "\"64\"",
        "\"64kB\"",
        "\"1023B\"",
        "\"2GiB\"",
        "\"99999999999GiB\"",
    ] {
        refused_key(
            &format!("high_water = {value}"),
            &format!(
                "echo.toml:3:14: high_water = {value} is not allowed: give a size like \"64KiB\", 1KiB \
                 to 1GiB"
            ),
        );
    }
}

#[test]
fn log_and_service_values_are_checked() {
    refused_line(
        "log.level = \"loud\"",
        "echo.toml:1:13: level = \"loud\" is not allowed: give \"error\", \"warn\", \"info\", \
         \"debug\" or \"trace\"",
    );
    refused_line(
        "log.format = \"xml\"",
        "echo.toml:1:14: format = \"xml\" is not allowed: give \"text\" or \"json\"",
    );
    for value in ["0", "65536", "\"1\""] {
        refused_key(
            &format!("backlog = {value}"),
            &format!(
                "echo.toml:3:11: backlog = {value} is not allowed: give a whole number 1..=65535"
            ),
        );
    }
    refused_key(
        "max_connections = 0",
        "echo.toml:3:19: max_connections = 0 is not allowed: give a whole number 1..=10000000",
    );
    refused_key(
        "nodelay = \"no\"",
        "echo.toml:3:11: nodelay = \"no\" is not allowed: give true or false",
    );
    refused_key(
        "model = \"thread\"",
        "echo.toml:3:9: model = \"thread\" is not allowed: give \"protocol\" or \"task\"",
    );
    for name in ["", "7up", "a b", "a.b", "käse"] {
        refused_key(
            &format!("name = \"{name}\""),
            &format!(
                "echo.toml:3:8: name = \"{name}\" is not allowed: give letters, digits, '-' and '_', a \
                 letter first, at most 64"
            ),
        );
    }
}

#[test]
fn unknown_keys_are_errors_with_a_proposal() {
    let runtime = "loops, pin, steal, rescue, file_limit";
    refused_line(
        "runtime.lopps = 2",
        &format!(
            "echo.toml:1:9: unknown key \"lopps\": did you mean \"loops\"? Allowed are {runtime}"
        ),
    );
    refused_line(
        "[runtime]\n  color = \"red\"",
        &format!("echo.toml:2:3: unknown key \"color\": allowed are {runtime}"),
    );
    refused_line(
        "[services]",
        "echo.toml:1:2: unknown key \"services\": did you mean \"service\"? Allowed are runtime, \
         shutdown, log, admin, service",
    );
    refused_key(
        "nodeley = true",
        "echo.toml:3:1: unknown key \"nodeley\": did you mean \"nodelay\"? Allowed are kind, name, bind, \
         backlog, nodelay, max_connections, idle_timeout, high_water, model",
    );
}

#[test]
fn service_must_be_there_and_have_a_kind() {
    refused(
        "[runtime]\nloops = 2\n",
        &[],
        "echo.toml:1:1: no service: add a [[service]] table with a kind",
    );
    refused(
        "",
        &[],
        "echo.toml:1:1: no service: add a [[service]] table with a kind",
    );
    refused(
        "service = []\n",
        &[],
        "echo.toml:1:11: no service: add a [[service]] table with a kind",
    );
    refused(
        "[service]\nkind = \"tcp-echo\"\n",
        &[],
        "echo.toml:1:1: service = a table is not allowed: give a list of tables, [[service]]",
    );
    refused(
        "\n[[service]]\nname = \"a\"\n",
        &[],
        "echo.toml:2:1: the service has no kind: give \"tcp-echo\", \"udp-echo\" or \"tcp-spin\"",
    );
    refused(
        "[[service]]\nkind = \"http\"\n",
        &[],
        "echo.toml:2:8: kind = \"http\" is not allowed: give \"tcp-echo\", \"udp-echo\" or \"tcp-spin\"",
    );
}

#[test]
fn names_and_addresses_must_not_collide() {
    let two = |second: &str| {
        format!(
            "[[service]]\nname = \"a\"\nkind = \"tcp-echo\"\nbind = \"127.0.0.1:7007\"\n\
             [[service]]\nkind = \"tcp-echo\"\n{second}\n"
        )
    };
    refused(
        &two("name = \"a\"\nbind = \"127.0.0.1:7008\""),
        &[],
        "echo.toml:7:8: name = \"a\" is taken by another service: give another name",
    );
    refused(
        &two(""),
        &[],
        "echo.toml:5:1: bind: 127.0.0.1:7007 overlaps 127.0.0.1:7007, which is bound already: give \
         another address or port",
    );
    refused(
        &two("bind = [\"127.0.0.1:7008\", \"0.0.0.0:7007\"]"),
        &[],
        "echo.toml:7:27: bind: 0.0.0.0:7007 overlaps 127.0.0.1:7007, which is bound already: give \
         another address or port",
    );
    accepted(
        &two("bind = [\"127.0.0.1:0\", \"127.0.0.1:0\", \"[::1]:7007\"]"),
        &[],
    );
}

#[test]
fn addresses_must_resolve() {
    let allowed = "give ADDRESS:PORT like \"127.0.0.1:7007\" or \"[::1]:7007\", or a list of them";
    refused_key(
        "bind = 7007",
        &format!("echo.toml:3:8: bind = 7007 is not allowed: {allowed}"),
    );
    refused_key(
        "bind = []",
        &format!("echo.toml:3:8: bind = a list is not allowed: {allowed}"),
    );
    refused_key(
        "bind = [\"127.0.0.1:0\", true]",
        &format!("echo.toml:3:24: bind = true is not allowed: {allowed}"),
    );
    // The reasons are the resolver's words, so only their frame is compared.
    for address in ["127.0.0.1", "127.0.0.1:70000", "no.such.host.invalid:1"] {
        let text = format!("{MINIMAL}bind = \"{address}\"\n");
        let message = parse(&text, &[]).expect_err("the address has no meaning");
        let start = format!("echo.toml:3:8: bind: cannot resolve \"{address}\" (");
        assert!(message.starts_with(&start), "{message}");
        assert!(message.ends_with(&format!("): {allowed}")), "{message}");
    }
}

#[test]
fn every_mistake_of_a_file_is_reported_in_its_order() {
    refused(
        "[runtime]\nloops = 0\n[log]\nlevel = 1\n[[service]]\nkind = \"tcp-echo\"\ncolour = 1\n",
        &["log.format=xml"],
        "echo.toml:2:9: loops = 0 is not allowed: give \"auto\" or a whole number 1..=48\n\
         echo.toml:4:9: level = 1 is not allowed: give \"error\", \"warn\", \"info\", \"debug\" or \
         \"trace\"\n\
         echo.toml:7:1: unknown key \"colour\": allowed are kind, name, bind, backlog, nodelay, \
         max_connections, idle_timeout, high_water, model\n\
         --set log.format=xml: format = \"xml\" is not allowed: give \"text\" or \"json\"",
    );
}

#[test]
fn syntax_errors_have_places() {
    for (text, place) in [
        ("[runtime\nloops = 2\n", "echo.toml:1:9: "),
        (
            "[log]\nlevel = \"info\"\nlevel = \"warn\"\n",
            "echo.toml:3:1: ",
        ),
        ("[log]\nlevel = \"info\n", "echo.toml:2:14: "),
        ("[runtime]\nloops = \n", "echo.toml:2:9: "),
    ] {
        let message = parse(text, &[]).expect_err("this is no TOML");
        assert!(
            message.starts_with(place),
            "{place} expected, got {message}"
        );
        assert_eq!(
            message.lines().count(),
            1,
            "one mistake, one line: {message}"
        );
    }
}

#[test]
fn columns_count_characters_and_not_bytes() {
    refused_line(
        "runtime = { \"löops\" = 1, loops = 0 }",
        "echo.toml:1:13: unknown key \"löops\": did you mean \"loops\"? Allowed are loops, pin, steal, \
         rescue, file_limit\n\
         echo.toml:1:34: loops = 0 is not allowed: give \"auto\" or a whole number 1..=48",
    );
}

#[test]
fn set_lays_values_over_the_file() {
    let text = "[runtime]\nloops = 1\n[[service]]\nname = \"a\"\nkind = \"tcp-echo\"\n";
    let sets = [
        "runtime.loops=2",
        "shutdown.grace=5s",
        "log.level=debug",
        "service.a.idle_timeout=1m",
        "service.0.bind=[\"127.0.0.1:0\", \"[::1]:0\"]",
        "service.a.nodelay=false",
        "service.a.backlog=7",
        "service.a.backlog=8",
    ];
    let settings = accepted(text, &sets);
    assert_eq!(settings.runtime.loops, Some(2));
    assert_eq!(settings.shutdown.grace, Duration::from_secs(5));
    assert_eq!(settings.log.level, LogLevel::Debug);
    assert_eq!(settings.services[0].bind.len(), 2);
    let echo = echo(&settings);
    assert_eq!(echo.idle_timeout, Some(Duration::from_secs(60)));
    assert_eq!(
        (echo.listener.nodelay, echo.listener.backlog),
        (false, 8),
        "the last one of a key counts"
    );
}

#[test]
fn set_errors_name_the_argument() {
    for (set, message) in [
        (
            "runtime.loops",
            "there is no '=': give KEY=VALUE, like runtime.loops=2",
        ),
        (
            "=2",
            "a part of the key is empty: give KEY=VALUE, like log.level=debug",
        ),
        (
            "runtime..loops=2",
            "a part of the key is empty: give KEY=VALUE, like log.level=debug",
        ),
        (
            "runtime.loops=0",
            "loops = 0 is not allowed: give \"auto\" or a whole number 1..=48",
        ),
        (
            "runtime.lops=2",
            "unknown key \"lops\": did you mean \"loops\"? Allowed are loops, pin, steal, rescue, \
             file_limit",
        ),
        (
            "service.b.backlog=1",
            "there is no entry \"b\": give 0..=0 or a name of [\"a\"]",
        ),
        (
            "service.1.backlog=1",
            "there is no entry \"1\": give 0..=0 or a name of [\"a\"]",
        ),
        (
            "service.a.kind.x=1",
            "what holds \"x\" is \"tcp-echo\", not a table",
        ),
        (
            "service.a.kind.x.y=1",
            "cannot look for \"x\" inside \"tcp-echo\"",
        ),
        ("admin.port=1", "unknown key \"port\": allowed are bind"),
    ] {
        let text = "[[service]]\nname = \"a\"\nkind = \"tcp-echo\"\n";
        refused(text, &[set], &format!("--set {set}: {message}"));
    }
}

#[test]
fn printed_settings_read_back_as_the_same() {
    let rich = "runtime.loops = 2\nruntime.pin = false\nruntime.file_limit = 1000\nshutdown.grace = \
                \"1h 2m 3s 4ms\"\nlog.format = \"json\"\n[[service]]\nkind = \"tcp-echo\"\nbind = \
                [\"127.0.0.1:1\", \"[::1]:2\"]\nidle_timeout = \"90s\"\nhigh_water = \
                \"65537B\"\n[[service]]\nname = \"b\"\nkind = \"tcp-echo\"\nbind = \
                \"127.0.0.1:0\"\nmodel = \"task\"\n";
    let pinned = format!("runtime = {{ loops = 4, pin = true, steal = false }}\n{MINIMAL}");
    for text in [MINIMAL, rich, &pinned] {
        let settings = accepted(text, &[]);
        let printed = settings.to_string();
        assert_eq!(accepted(&printed, &[]), settings, "printed:\n{printed}");
    }
}

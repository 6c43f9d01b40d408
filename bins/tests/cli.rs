//! The command line without a server: exit codes, and what goes to which stream.
//!
//! Nothing here starts a runtime; `daemon.rs` does.

use std::process::{Command, Output};

use garland_echod::settings::{LogFormat, Settings};

fn echod(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_echod"))
        .args(arguments)
        .output()
        .expect("the binary was built with this test")
}

fn shipped(name: &str) -> String {
    format!("{}/../configs/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn check_config_says_yes_with_0_and_no_with_2() {
    let file = shipped("echo.toml");
    let good = echod(&["--check-config", "-c", &file]);
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    assert!(good.stdout.is_empty() && good.stderr.is_empty(), "{good:?}");

    let bad = echod(&[
        "--check-config",
        "-c",
        &file,
        "--set",
        "service.task-echo.bind=127.0.0.1:7007",
    ]);
    assert_eq!(bad.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&bad.stderr),
        "--set service.task-echo.bind=127.0.0.1:7007: bind: 127.0.0.1:7007 overlaps 127.0.0.1:7007, \
         which is bound already: give another address or port\n"
    );
}

#[test]
fn bad_file_ends_with_2_before_anything_starts() {
    let file = format!("{}/no-such-file.toml", env!("CARGO_TARGET_TMPDIR"));
    let missing = echod(&["-c", &file]);
    assert_eq!(missing.status.code(), Some(2));
    let message = String::from_utf8_lossy(&missing.stderr);
    assert!(
        message.starts_with(&format!("{file}: cannot read the configuration: ")),
        "{message}"
    );

    let bad = echod(&["-c", &shipped("echo.toml"), "--set", "runtime.loops=0"]);
    assert_eq!(bad.status.code(), Some(2));
    let message = String::from_utf8_lossy(&bad.stderr);
    assert!(message.starts_with("--set runtime.loops=0: "), "{message}");
    assert!(!message.contains("listening"), "{message}");
}

#[test]
fn bad_usage_ends_with_2_and_help_with_0() {
    assert_eq!(echod(&[]).status.code(), Some(2));
    assert_eq!(echod(&["--config"]).status.code(), Some(2));
    assert_eq!(
        echod(&["-c", "x", "--log-format", "xml"]).status.code(),
        Some(2)
    );
    let help = echod(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(
        text.contains("Examples:") && text.contains("Exit codes:"),
        "{text}"
    );
    let version = echod(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(
        String::from_utf8_lossy(&version.stdout),
        format!("echod {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn print_config_prints_what_reads_back_the_same() {
    let file = shipped("echo.toml");
    let sets = ["--set", "runtime.loops=2", "--log-format", "json"];
    let first = echod(&[&["--print-config", "-c", &file], &sets[..]].concat());
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    let printed = String::from_utf8(first.stdout).expect("the configuration is text");
    let settings = read_back(&printed);
    assert_eq!(settings.runtime.loops, Some(2));
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!(settings.to_string(), printed);
}

#[track_caller]
fn read_back(printed: &str) -> Settings {
    match Settings::parse("printed", printed, &[], 2) {
        Ok(settings) => settings,
        Err(problems) => panic!("what was printed is refused:\n{problems}\n---\n{printed}"),
    }
}

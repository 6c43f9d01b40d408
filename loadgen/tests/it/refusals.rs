//! The command line: what is refused, with which words, and always with exit code 1.

use crate::support::loadgen;

#[test]
fn wrong_usage_exits_with_1_and_says_why() {
    for (arguments, part) in [
        ([].as_slice(), "Usage"),
        (&["run"], "no target"),
        (
            &["run", "udp://127.0.0.1:7", "--size", "23"],
            "--size is 23; allowed: 24 to 65507",
        ),
        (
            &["run", "udp://127.0.0.1:7", "--settle", "3s"],
            "--drain is 2s, less than --settle 3s",
        ),
        (&["run", "127.0.0.1:7"], "no scheme"),
        (
            &["run", "tcp://127.0.0.1:7", "--size", "many"],
            "\"many\" is not a size",
        ),
        (
            &["run", "tcp://127.0.0.1:7", "--duration", "soon"],
            "--duration",
        ),
        (
            &["run", "tcp://127.0.0.1:7", "--verify", "maybe"],
            "[possible values: full, length, off]",
        ),
        (
            &["run", "tcp://127.0.0.1:7", "--rate", "fast"],
            "\"fast\" is no rate",
        ),
        (
            &["run", "tcp://127.0.0.1:7", "--rate", "-5"],
            "\"-5\" is no rate",
        ),
        (
            &[
                "run",
                "tcp://127.0.0.1:7",
                "--threads",
                "2",
                "--connections",
                "1",
            ],
            "--threads is 2; allowed: 1 to 1",
        ),
        (
            &["run", "tcp://127.0.0.1:7", "--pin", "99999"],
            "--pin names CPU 99999",
        ),
        (
            &["run", "tcp://127.0.0.1:7", "--quiet", "--progress", "plain"],
            "cannot be used with",
        ),
        (&["find-max", "tcp://127.0.0.1:7"], "--slo"),
    ] {
        let ran = loadgen(arguments);
        assert_eq!(ran.code, Some(1), "{arguments:?}: {ran:#?}");
        assert!(ran.stderr.contains(part), "{arguments:?}: {ran:#?}");
        assert_eq!(ran.stdout, "", "{arguments:?}");
    }
}

#[test]
fn help_and_version_go_to_standard_output_and_exit_with_0() {
    for arguments in [
        ["--help"].as_slice(),
        &["run", "--help"],
        &["demo", "--help"],
        &["--version"],
    ] {
        let ran = loadgen(arguments);
        assert_eq!(
            (ran.code, ran.stderr.as_str()),
            (Some(0), ""),
            "{arguments:?}: {ran:#?}"
        );
        assert!(
            !ran.stdout.contains("__serve"),
            "the server of the demo is no command of users: {ran:#?}"
        );
    }
    assert!(loadgen(&["run", "--help"]).stdout.contains("Examples:"));
}

/// One list of options serves both commands; each shows what it takes.
#[test]
fn find_max_shows_no_option_that_it_refuses() {
    let shows = |command: &str, option: &str| {
        let ran = loadgen(&[command, "--help"]);
        ran.stdout
            .lines()
            .any(|line| line.trim_start().starts_with(option))
    };
    for option in ["--rate <", "--assert <", "--start-at <"] {
        assert!(
            shows("run", option) && !shows("find-max", option),
            "{option}"
        );
    }
    assert!(shows("find-max", "Folder for find-max.json"));
    assert!(shows("run", "Folder for run.json"));
}

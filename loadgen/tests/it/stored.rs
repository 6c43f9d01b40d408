//! Commands on stored runs: the report again, files that are none, and the completions.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Ran, echo_server, fresh_folder, loadgen, run, skipped};

fn text(path: &Path) -> &str {
    path.to_str().expect("ASCII")
}

fn measured(out: &Path) -> Ran {
    let ran = run(
        echo_server(),
        &[
            "--rate",
            "400",
            "--warmup",
            "100ms",
            "--duration",
            "500ms",
            "--interval",
            "50ms",
            "--out",
            text(out),
        ],
    );
    assert!(ran.is_ok(), "{ran:#?}");
    ran
}

#[test]
fn stored_run_gives_the_report_it_gave_when_it_was_new() {
    let folder = fresh_folder("again");
    let (out, again) = (folder.join("run"), folder.join("again"));
    let ran = measured(&out);
    let run = out.join("run.json");
    let shown = loadgen(&["report", text(&run)]);
    assert_eq!(shown.code, Some(0), "{shown:#?}");
    assert_eq!(
        ran.stdout.split("file  ").next(),
        Some(shown.stdout.as_str())
    );
    let shown = loadgen(&["report", text(&run), "-o", text(&again)]);
    assert_eq!(shown.code, Some(0), "{shown:#?}");
    for name in ["report.html", "latency.svg", "timeline.svg"] {
        let [first, second] = [&out, &again].map(|folder| fs::read_to_string(folder.join(name)));
        assert_eq!(
            first.expect("of the run"),
            second.expect("of the report"),
            "{name}"
        );
    }
    let files = fs::read_dir(&out).expect("the folder of the run").count();
    assert_eq!(files, 6, "no temporary file is left");
    fs::remove_dir_all(&folder).expect("ours");
}

#[test]
fn files_that_are_no_runs_are_refused_with_the_reason() {
    let folder = fresh_folder("no-runs");
    fs::create_dir_all(&folder).expect("writable");
    let missing = folder.join("missing.json");
    let written = |name: &str, content: &str| {
        let path = folder.join(name);
        fs::write(&path, content).expect("writable");
        path
    };
    let newer = r#"{"format": "loadgen-run", "schema": 9}"#;
    let damaged = r#"{"format": "loadgen-run", "schema": 1, "plan": {}}"#;
    for (path, part) in [
        (missing, "cannot read"),
        (written("text.json", "not JSON"), "is not JSON"),
        (written("empty.json", ""), "is not JSON"),
        (
            written("other.json", "{\"a\": 1}"),
            "is no run record of loadgen",
        ),
        (
            written("newer.json", newer),
            "has schema 9; this loadgen reads 1",
        ),
        (written("damaged.json", damaged), "is damaged"),
        (folder.clone(), "cannot read"),
    ] {
        let out = folder.join("out");
        for command in [
            vec!["report", text(&path), "-o", text(&out)],
            vec!["compare", text(&path), text(&path), "-o", text(&out)],
        ] {
            let ran = loadgen(&command);
            assert_eq!(ran.code, Some(1), "{ran:#?}");
            assert!(ran.stderr.contains(part), "{part}: {ran:#?}");
            assert!(ran.stderr.contains(text(&path)), "{ran:#?}");
            assert_eq!(ran.stdout, "");
            assert!(!out.exists(), "nothing was written");
        }
    }
    let ran = loadgen(&[
        "merge",
        text(&folder.join("out.hlog")),
        text(&folder.join("text.json")),
    ]);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(!folder.join("out.hlog").exists());
    fs::remove_dir_all(&folder).expect("ours");
}

/// A folder below a file can be made by nobody, not even by root; a folder in the place of a file
/// can be replaced by none.
#[test]
fn unwritable_places_are_named_and_leave_nothing_behind() {
    let folder = fresh_folder("places");
    let out = folder.join("run");
    measured(&out);
    let run = out.join("run.json");
    let below = run.join("below");
    let ran = loadgen(&["report", text(&run), "-o", text(&below)]);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(ran.stderr.contains("cannot make the folder"), "{ran:#?}");
    let taken = folder.join("taken");
    fs::create_dir_all(taken.join("report.html")).expect("ours");
    let ran = loadgen(&["report", text(&run), "-o", text(&taken)]);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(
        ran.stderr.contains("report.html: it is a folder"),
        "{ran:#?}"
    );
    fs::create_dir_all(taken.join("run.json")).expect("ours");
    let refused = crate::support::run(echo_server(), &["--out", text(&taken)]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(
        refused.took.as_secs_f64() < 3.0,
        "before the run: {refused:#?}"
    );
    let hidden = fs::read_dir(&taken).expect("ours").filter(|entry| {
        let name = entry.as_ref().expect("it can be listed").file_name();
        name.to_string_lossy().starts_with('.')
    });
    assert_eq!(hidden.count(), 0);
    fs::remove_dir_all(&folder).expect("ours");
}

#[test]
fn every_command_has_help_with_examples() {
    for command in [
        "run",
        "find-max",
        "compare",
        "merge",
        "report",
        "completions",
    ] {
        let ran = loadgen(&[command, "--help"]);
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        let (_, examples) = ran.stdout.split_once("\nExamples:\n").expect("examples");
        assert!(
            examples.contains(&format!("  loadgen {command} ")),
            "{ran:#?}"
        );
    }
}

#[test]
fn completions_know_every_command_and_the_shell_takes_them() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = loadgen(&["completions", shell]);
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        for word in ["find-max", "compare", "start-at", "completions"] {
            assert!(ran.stdout.contains(word), "{shell}: {word}");
        }
        let checked = Command::new(shell)
            .arg("-n")
            .arg("-c")
            .arg(&ran.stdout)
            .output();
        match checked {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(why) => skipped(&format!("{shell} cannot be asked: {why}")),
        }
    }
    assert_eq!(loadgen(&["completions", "cmd"]).code, Some(1));
}

//! Checks on the source text what the compiler cannot: the import table and the countable rules.
//!
//! Data first: a rule is changed in the tables below, in the same commit as docs/ARCHITECTURE.md
//! or docs/STYLE.md. `rules` judges one source and returns every offence in it; `planted` shows
//! that each rule is able to fail; `text` reads paths out of Rust without being a Rust parser.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

mod conformance;
mod planted;
mod rules;
mod text;

use crate::rules::Rule;
use crate::text::Source;

/// Level, module, what it may know besides itself and L0, and a sentence for those who want more.
#[rustfmt::skip]
const TABLE: &[(&str, &str, &[&str], &str)] = &[
    ("L0",  "atomics",   &[], "L0 knows only std"),
    ("L0",  "error",     &[], "L0 knows only std"),
    ("L0",  "config",    &["error"], "L0 knows only std, and how to fail"),
    ("L0",  "sync",      &[], "L0 knows only std, and the crates it passes on"),
    ("L1",  "task",      &[], "they meet through Waker"),
    ("L1",  "driver",    &[], "they meet through Waker"),
    ("L2",  "scheduler", &["task", "driver"], "it knows what it runs, not who asked for it"),
    ("L3",  "runtime",   &["scheduler", "task", "driver"], "what users hold knows no sockets"),
    ("L4a", "time",      L4A, "it stands on the runtime and on what a driver hands out"),
    ("L4a", "blocking",  L4A, "it stands on the runtime and on what a driver hands out"),
    ("L4b", "net",       L4B, "it stands on the runtime and on what a driver hands out"),
    ("L4b", "future",    L4B, "it stands on the runtime and on what a driver hands out"),
    ("L4b", "signal",    L4B, "it stands on the runtime and on what a driver hands out"),
    ("L5",  "transport", &["net", "time", "runtime"], "it stands on sockets, time and loops"),
    ("L6",  "streams",   &["transport", "net", "runtime"], "they stand on transports and loops"),
];
#[rustfmt::skip]
const L4A: &[&str] = &["runtime", "driver::TimerEntry"];
#[rustfmt::skip]
const L4B: &[&str] = &[
    "time", "blocking", "runtime",
    "driver::Registration", "driver::Interest", "driver::Extent", "driver::Reader", "driver::TimerEntry",
];
/// The crate's root names every module; the models look into all of them.
const SEES_EVERYTHING: &[&str] = &["lib", "models"];

/// No I/O, no clock, no thread: these run under loom. Their tests, which stand last, are free.
#[rustfmt::skip]
const PURE: &[&str] = &[
    "src/scheduler/idle.rs", "src/scheduler/gate.rs", "src/scheduler/inbox.rs",
    "src/driver/alarm.rs", "src/driver/readiness.rs", "src/driver/wheel.rs",
    "src/transport/flow.rs",
];
#[rustfmt::skip]
const PURE_MAY: &[&str] = &[
    "core", "alloc", "std::collections", "std::mem", "std::cmp", "std::fmt", "std::ops",
    "std::num", "std::error::Error", "std::task", "std::sync::Arc", "std::time::Duration", "std::time::Instant",
    "crossbeam_utils::CachePadded", "crate::atomics", "crate::error", "crate::config",
    "self", "clippy", "bool", "char", "str", "u8", "u16", "u32", "u64", "u128", "usize", "i32", "i64",
];

/// In src/: what only one file may name, that file, and why.
const ONLY_IN: &[(&str, &str, &str)] = &[
    (
        "Instant::now",
        "src/driver/clock.rs",
        "a test turns the clock by hand",
    ),
    (
        "std::sync::atomic",
        "src/atomics.rs",
        "the models run on loom's atomics",
    ),
];

const LINES_MAX: usize = 600;
const OPEN_ENDS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];
const SOURCES: &[&str] = &["src", "bins", "loadgen", "tests", "benches", "examples"];
/// What the tree in docs/ARCHITECTURE.md lists. Of benches/ only the files directly in it:
/// benches/versus is a package of its own.
const TREE: &[&str] = &[
    "src",
    "bins",
    "loadgen/src",
    "tests",
    "benches",
    "examples",
    "configs",
];

#[test]
fn modules_import_lower_layers_only() {
    everywhere(rules::imports);
}

#[test]
fn pure_files_know_no_world() {
    everywhere(rules::pure);
}

#[test]
fn clock_and_atomics_have_one_home() {
    everywhere(rules::only_in);
}

#[test]
fn every_file_opens_with_a_page() {
    everywhere(rules::page);
}

#[test]
fn no_file_exceeds_the_cap() {
    everywhere(rules::size);
}

#[test]
fn sources_are_one_folder_deep() {
    everywhere(rules::depth);
}

#[test]
fn imports_stand_in_three_groups() {
    everywhere(rules::import_groups);
}

#[test]
fn open_ends_name_an_issue() {
    everywhere(rules::open_ends);
}

#[test]
fn no_code_is_unsafe() {
    everywhere(rules::no_unsafe);
}

#[test]
fn architecture_tree_matches_the_disk() {
    let mut disk = files_under(TREE);
    disk.retain(|path| !path.starts_with("benches/") || path.matches('/').count() == 1);
    assert_none(&rules::tree(&read("docs/ARCHITECTURE.md"), &disk));
}

#[test]
fn conformance_names_tests_that_exist() {
    let mut tests = BTreeSet::new();
    for path in files_under(&["src", "bins", "tests"]) {
        if path.ends_with(".rs") {
            tests.extend(conformance::functions(&read(&path)));
        }
    }
    assert_none(&conformance::offences(&read("docs/CONFORMANCE.md"), &tests));
}

/// Holds every source file against a rule and fails with all offences at once.
fn everywhere(rule: Rule) {
    let paths = files_under(SOURCES);
    assert!(
        paths.contains("src/lib.rs"),
        "the walk does not find the library"
    );
    let mut offences = Vec::new();
    for path in paths.iter().filter(|path| path.ends_with(".rs")) {
        for (line, what) in rule(&Source::new(path, &read(path))) {
            offences.push(format!("{path}:{line}: {what}"));
        }
    }
    assert_none(&offences);
}

fn assert_none(offences: &[String]) {
    let all = offences.join("\n");
    assert!(offences.is_empty(), "{} offences:\n{all}", offences.len());
}

fn read(path: &str) -> String {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(full).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

fn files_under(folders: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in folders {
        walk(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
            &mut found,
        );
    }
    found
}

/// A folder that does not exist holds nothing; build output and hidden files do not count.
fn walk(folder: &Path, found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("a folder of the project can be listed").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && name != "target" {
            walk(&path, found);
        } else if path.is_file() && !name.starts_with('.') {
            let root = env!("CARGO_MANIFEST_DIR");
            let inside = path
                .strip_prefix(root)
                .expect("every walk begins at the root");
            found.insert(inside.to_string_lossy().into_owned());
        }
    }
}

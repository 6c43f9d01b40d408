//! A rule that cannot fail is worth nothing: each must catch an offence planted for it, and leave
//! a twin alone that only looks like one.

use std::collections::BTreeSet;

use crate::LINES_MAX;
use crate::rules::{self, Rule};
use crate::text::Source;

struct Planted(Rule, &'static str, &'static str, usize, &'static str);

/// Rule, path, text, line of the one offence, and what the rule says of it.
#[rustfmt::skip]
const OFFENCES: &[Planted] = &[
    Planted(rules::imports, "src/driver/x.rs", "\nuse crate::{config, task::Task};", 2, "L1 driver may not know L1 task::Task: they meet through Waker"),
    Planted(rules::imports, "src/task/x.rs", "let a = crate::driver::Driver::new();", 1, "L1 task may not know L1 driver::Driver::new"),
    Planted(rules::imports, "src/net/x.rs", "use crate::driver::{\n    Interest,\n    slots::{Slot},\n};", 3, "L4b net may not know L1 driver::slots"),
    Planted(rules::imports, "src/net/x.rs", "use crate::driver::*;", 1, "L4b net may not know L1 driver::*"),
    Planted(rules::imports, "src/error.rs", "use crate::config::Config;", 1, "L0 error may not know L0 config::Config: L0"),
    Planted(rules::imports, "src/net/x.rs", "use crate::spawn;", 1, "name the module that holds it"),
    Planted(rules::imports, "src/magic.rs", "", 1, "magic has no line in the import table"),
    Planted(rules::pure, "src/driver/wheel.rs", "use std::{mem, thread};", 1, "may not know std::thread"),
    Planted(rules::pure, "src/driver/wheel.rs", "fn f() { mio::Poll::new() }", 1, "may not know mio::Poll::new"),
    Planted(rules::only_in, "src/net/x.rs", "let t = Instant::now();", 1, "only in src/driver/clock.rs"),
    Planted(rules::only_in, "src/net/x.rs", "use std::{io, sync::atomic::AtomicBool};", 1, "only in src/atomics.rs"),
    Planted(rules::page, "src/x.rs", "use std::io;\n//! late", 1, "opens with a `//!` page"),
    Planted(rules::depth, "src/a/b/c.rs", "", 1, "one folder deep"),
    Planted(rules::import_groups, "src/x.rs", "use mio::Poll;\n\nuse std::io;", 3, "the order std, crates, crate"),
    Planted(rules::import_groups, "src/x.rs", "use std::io;\nuse mio::Poll;", 2, "a blank line stands between"),
    Planted(rules::import_groups, "src/x.rs", "pub use a::{\n    b::*,\n};", 2, "no globs"),
    Planted(rules::import_groups, "src/x.rs", "mod tests {\n    use super::*;\n}", 2, "no globs"),
    Planted(rules::import_groups, "src/x.rs", "use super::a;", 1, "not `super`"),
    Planted(rules::open_ends, "src/x.rs", concat!("\n// TO", "DO: later"), 2, "names its issue"),
    Planted(rules::no_unsafe, "src/x.rs", "fn f<'a>() { unsafe { g() } }", 1, "no unsafe code"),
];

/// Rule, path, and a text that the rule must not mind.
#[rustfmt::skip]
const HARMLESS: &[(Rule, &str, &str)] = &[
    (rules::imports, "src/driver/x.rs", "use crate::{config::A, driver::B};\n// crate::task\nlet a = \"\\\"crate::task\";"),
    (rules::imports, "src/net/x.rs", "use crate::driver::{Interest, Registration,};\nuse crate::error;"),
    (rules::imports, "src/models/x.rs", "use crate::task::Task;"),
    (rules::imports, "tests/it/x.rs", "use crate::support::Pair;"),
    (rules::pure, "src/driver/wheel.rs", "use std::mem;\nfn f() { mem::take(x); u64::MAX; Self::g() }\n#[cfg(test)]\nuse std::thread;"),
    (rules::pure, "src/driver/selector.rs", "use std::thread;"),
    (rules::only_in, "src/driver/clock.rs", "Instant::now()"),
    (rules::only_in, "src/net/x.rs", "let c = ['\"', '\\'', 'x']; // Instant::now()"),
    (rules::only_in, "tests/it/x.rs", "use std::sync::atomic::AtomicBool;"),
    (rules::page, "src/x.rs", "//! A page.\n"),
    (rules::depth, "src/a/b.rs", ""),
    (rules::import_groups, "src/x.rs", "use std::{\n    io,\n};\n\n#[cfg(test)]\nuse mio::Poll;\n\nuse crate::a;\n\nmod tests {\n    use super::a;\n}"),
    (rules::import_groups, "src/x.rs", "use crate::a;\nfn f() { a * b }\nuse std::io;"),
    (rules::open_ends, "src/x.rs", concat!("// TO", "DO(#12): later")),
    (rules::no_unsafe, "src/x.rs", "// unsafe\n#![forbid(unsafe_code)]\nr#\"\"unsafe\"#; 'a'; /* unsafe */"),
];

#[test]
fn each_rule_catches_its_planted_offence() {
    for Planted(rule, path, text, line, says) in OFFENCES {
        let found = rule(&Source::new(path, text));
        let caught = found.len() == 1 && found[0].0 == *line && found[0].1.contains(says);
        assert!(
            caught,
            "{text:?} in {path} gave {found:?}, not line {line}: {says:?}"
        );
    }
}

#[test]
fn no_rule_minds_a_harmless_twin() {
    for (rule, path, text) in HARMLESS {
        let found = rule(&Source::new(path, text));
        assert!(found.is_empty(), "{text:?} in {path} gave {found:?}");
    }
}

#[test]
fn cap_on_lines_counts_exactly() {
    let size = |n: usize| rules::size(&Source::new("x.rs", &"\n".repeat(n))).len();
    assert_eq!((size(LINES_MAX), size(LINES_MAX + 1)), (0, 1));
}

#[test]
fn tree_is_compared_in_both_directions() {
    let disk = BTreeSet::from(["src/a.rs".to_owned(), "src/b.rs".to_owned()]);
    let said = |rows: &str| {
        let page = format!("# A\n<!-- tree -->\n```text\n{rows}\n```\n<!-- /tree -->\nrest");
        rules::tree(&page, &disk).join("\n")
    };
    assert_eq!(said("src/a.rs — one\nsrc/b.rs — two"), "");
    assert!(said("src/a.rs — one").contains("src/b.rs is on disk, not in the tree"));
    assert!(said("src/a.rs — 1\nsrc/b.rs — 2\nsrc/c.rs — 3").contains("src/c.rs is gone"));
    assert!(said("src/a.rs — one\nsrc/b.rs").contains("a row of the tree is"));
    assert!(said("src/a.rs — one\nsrc/b.rs — two\nsrc/b.rs — two").contains("twice"));
    assert_eq!(rules::tree("# A", &disk).len(), 1);
}

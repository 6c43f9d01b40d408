//! The rules: each judges one source and returns every offence as (line, sentence).
//!
//! They hold no names of files or modules: those are the tables in `main.rs`.

use std::collections::BTreeSet;

use crate::text::{Source, is_in, is_word};
use crate::{LINES_MAX, ONLY_IN, OPEN_ENDS, PURE, PURE_MAY, SEES_EVERYTHING, TABLE};

pub(crate) type Offences = Vec<(usize, String)>;
pub(crate) type Rule = fn(&Source<'_>) -> Offences;

pub(crate) fn imports(source: &Source<'_>) -> Offences {
    let mut offences = Vec::new();
    let Some(module) = source
        .module()
        .filter(|name| !SEES_EVERYTHING.contains(name))
    else {
        return offences;
    };
    let row = |name: &str| TABLE.iter().find(|row| row.1 == name);
    let Some((level, _, may, why)) = row(module) else {
        return vec![(
            1,
            format!("{module} has no line in the import table of tests/tidy"),
        )];
    };
    for (line, path) in &source.paths {
        let Some(path) = path.strip_prefix("crate::") else {
            continue;
        };
        let other = path.split("::").next().unwrap_or(path);
        let Some((theirs, ..)) = row(other) else {
            offences.push((
                *line,
                format!("crate::{path}: name the module that holds it"),
            ));
            continue;
        };
        // L0 is open to all above it; its own modules do not know each other.
        let open = *theirs == "L0" && *level != "L0";
        if other != module && !open && !may.iter().any(|root| is_in(path, root)) {
            offences.push((
                *line,
                format!("{level} {module} may not know {theirs} {path}: {why}"),
            ));
        }
    }
    offences
}

pub(crate) fn pure(source: &Source<'_>) -> Offences {
    let mut offences = Vec::new();
    if !PURE.contains(&source.path) {
        return offences;
    }
    // Style rule 5: tests stand last.
    let is_test = |line: &str| line.starts_with("#[cfg(test") || line.starts_with("#[cfg(all(test");
    let mut lines = source.code.lines();
    let last = lines.position(is_test).unwrap_or(usize::MAX);
    // `use std::mem` lets the rest of the file say `mem::take`.
    let mut heads = BTreeSet::new();
    for (_, path) in source.paths.iter().take_while(|(line, _)| *line <= last) {
        if PURE_MAY.iter().any(|root| is_in(path, root)) {
            heads.extend(path.rsplit("::").next());
        }
    }
    for (line, path) in source.paths.iter().take_while(|(line, _)| *line <= last) {
        let head = path.split("::").next().unwrap_or(path);
        let known = heads.contains(head) || head.starts_with(char::is_uppercase);
        if !known && !PURE_MAY.iter().any(|root| is_in(path, root)) {
            offences.push((*line, format!("a pure file may not know {path}")));
        }
    }
    offences
}

pub(crate) fn only_in(source: &Source<'_>) -> Offences {
    let mut offences = Vec::new();
    for (line, path) in source.paths.iter().filter(|_| source.module().is_some()) {
        for (what, home, why) in ONLY_IN {
            if *home != source.path && path.contains(what) {
                offences.push((*line, format!("{what} only in {home}: {why}")));
            }
        }
    }
    offences
}

pub(crate) fn page(source: &Source<'_>) -> Offences {
    if source.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![(
        1,
        "a file opens with a `//!` page: what for, what not, invariants".to_owned(),
    )]
}

pub(crate) fn size(source: &Source<'_>) -> Offences {
    let n = source.text.lines().count();
    if n <= LINES_MAX {
        return Vec::new();
    }
    vec![(n, format!("{n} lines, the cap is {LINES_MAX}"))]
}

pub(crate) fn depth(source: &Source<'_>) -> Offences {
    if source.module().is_none() || source.path.split('/').count() <= 3 {
        return Vec::new();
    }
    vec![(1, "src/ is never more than one folder deep".to_owned())]
}

/// std, crates, crate: in this order, a blank line between two groups, no globs.
pub(crate) fn import_groups(source: &Source<'_>) -> Offences {
    let mut offences = Vec::new();
    let (mut last, mut blank, mut inside) = (0, false, false);
    for (n, line) in source.code.lines().enumerate() {
        let item = line.trim();
        let starts = item.starts_with("use ") || item.starts_with("pub") && item.contains(" use ");
        let mut say = |what: &str| offences.push((n + 1, format!("{what}: {item}")));
        if line.starts_with("use super") || item.contains("super::super") {
            say("name it from `crate`, not `super`");
        }
        if (starts || inside) && item.contains('*') {
            say("no globs");
        }
        if let Some(rest) = item.strip_prefix("use ") {
            let group = match rest.split(|c| !is_word(c)).next() {
                Some("std" | "core" | "alloc") => 1,
                Some("crate" | "self" | "super") => 3,
                _ => 2,
            };
            if group < last {
                say("imports stand in the order std, crates, crate");
            } else if group > last && last != 0 && !blank {
                say("a blank line stands between std, crates and crate");
            }
            last = group;
        } else if !inside && !item.is_empty() && !item.starts_with("#[") {
            last = 0;
        }
        inside = (starts || inside) && !item.ends_with(';');
        blank = item.is_empty() || blank && item.starts_with("#[");
    }
    offences
}

pub(crate) fn open_ends(source: &Source<'_>) -> Offences {
    let mut offences = Vec::new();
    for (n, line) in source.text.lines().enumerate() {
        let open = line
            .split(|c| !is_word(c))
            .any(|word| OPEN_ENDS.contains(&word));
        let mut after_hash = line.split('#').skip(1);
        let numbered = after_hash.any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        if open && !numbered {
            offences.push((
                n + 1,
                format!("an open end names its issue, `#N`: {}", line.trim()),
            ));
        }
    }
    offences
}

pub(crate) fn no_unsafe(source: &Source<'_>) -> Offences {
    let mut offences = Vec::new();
    for (n, line) in source.code.lines().enumerate() {
        if line.split(|c| !is_word(c)).any(|word| word == "unsafe") {
            offences.push((
                n + 1,
                "no unsafe code: a crate known for it does that".to_owned(),
            ));
        }
    }
    offences
}

/// Compares the rows `path — what` between `<!-- tree -->` and `<!-- /tree -->` with the disk.
pub(crate) fn tree(architecture: &str, disk: &BTreeSet<String>) -> Vec<String> {
    let after = architecture
        .split_once("<!-- tree -->")
        .map_or("", |(_, after)| after);
    let Some((block, _)) = after.split_once("<!-- /tree -->") else {
        return vec!["no block between <!-- tree --> and <!-- /tree -->".to_owned()];
    };
    let (mut offences, mut listed) = (Vec::new(), BTreeSet::new());
    for row in block.lines().map(str::trim) {
        if row.is_empty() || row.starts_with("```") {
            continue;
        }
        let (path, what) = row.split_once(" — ").unwrap_or((row, ""));
        if what.trim().is_empty() {
            offences.push(format!("a row of the tree is `path — what`, not `{row}`"));
        }
        if !listed.insert(path.trim().to_owned()) {
            offences.push(format!("{path} is in the tree twice"));
        }
    }
    for path in disk.symmetric_difference(&listed) {
        let place = if disk.contains(path) {
            "on disk, not in"
        } else {
            "gone from disk, but in"
        };
        offences.push(format!(
            "{path} is {place} the tree of docs/ARCHITECTURE.md"
        ));
    }
    offences
}

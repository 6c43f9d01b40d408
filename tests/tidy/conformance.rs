//! docs/CONFORMANCE.md against the tests: what it names as proof exists, and each row has a proof or a reason.

use std::collections::BTreeSet;

/// What a row may say instead of naming a test.
const REASONS: &[&str] = &[
    "open: ",
    "not taken over: ",
    "promises nothing",
    "`compile_fail`",
];

/// The offences of the table `text`, where `tests` are the names of all functions in the tests.
pub(crate) fn offences(text: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut rows = BTreeSet::new();
    for (number, line) in text.lines().enumerate() {
        let Some((row, proof)) = row(line) else {
            continue;
        };
        let mut complain = |what: String| {
            found.push(format!("docs/CONFORMANCE.md:{}: {row}: {what}", number + 1));
        };
        if !rows.insert(row) {
            complain("has two lines".to_owned());
        }
        let names: Vec<&str> = proof.split('`').skip(1).step_by(2).collect();
        for name in &names {
            if name.contains('_') && *name != "compile_fail" && !tests.contains(*name) {
                complain(format!("no test is called {name}"));
            }
        }
        let is_reason = REASONS.iter().any(|reason| proof.starts_with(reason));
        if names.is_empty() && !is_reason {
            complain("neither a test nor a reason".to_owned());
        }
    }
    if rows.is_empty() {
        found.push("docs/CONFORMANCE.md: holds no rows".to_owned());
    }
    found
}

/// The row and its proof, if the line is one: `| LOOP-01 | says | name | proof |`.
fn row(line: &str) -> Option<(&str, &str)> {
    let cells: Vec<&str> = line
        .strip_prefix("| ")?
        .strip_suffix(" |")?
        .split(" | ")
        .collect();
    let (row, proof) = (*cells.first()?, *cells.last()?);
    let (group, number) = row.split_once('-')?;
    let is_row = cells.len() == 4
        && group.bytes().all(|byte| byte.is_ascii_uppercase())
        && number.starts_with(|first: char| first.is_ascii_digit());
    is_row.then_some((row, proof))
}

/// The names of the functions in a source.
pub(crate) fn functions(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines().filter_map(|line| {
        let line = line.trim_start();
        let line = line.strip_prefix("async ").unwrap_or(line);
        let name = line.strip_prefix("fn ")?;
        Some(name.split(['(', '<']).next()?.to_owned())
    })
}

#[test]
fn a_proof_that_does_not_exist_is_caught() {
    let tests = functions("#[test]\nfn loop_01_it_runs() {\n").collect();
    let table = "| LOOP-01 | says | `run` | `loop_01_it_runs` |\n\
                 | LOOP-02 | says | `run` | `loop_02_gone` |\n\
                 | LOOP-03 | says | `run` | soon |\n\
                 | LOOP-04 | says | `run` | open: later |\n\
                 | LOOP-04 | says | `run` | open: later |";
    let found = offences(table, &tests);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].contains("no test is called loop_02_gone"));
    assert!(found[1].contains("neither a test nor a reason"));
    assert!(found[2].contains("has two lines"));
    assert_eq!(offences("nothing", &tests).len(), 1);
}

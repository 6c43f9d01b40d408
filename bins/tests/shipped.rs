//! The files in `configs/`: they load, and they explain every key.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use garland_echod::settings::Settings;

#[track_caller]
fn accepted(text: &str) -> Settings {
    match Settings::parse("shipped", text, &[], 1) {
        Ok(settings) => settings,
        Err(problems) => panic!("refused:\n{problems}\n---\n{text}"),
    }
}

fn config_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let entries = fs::read_dir(&folder).expect("configs/ is part of the repository");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    files
}

/// Load profiles live in the same folder; a daemon's file is one with a service.
fn is_daemon_file(text: &str) -> bool {
    text.lines().any(|line| line.trim() == "[[service]]")
}

#[test]
fn shipped_files_load_and_explain_every_key() {
    let mut names = BTreeSet::new();
    for path in config_files() {
        let text = fs::read_to_string(&path).expect("a shipped file can be read");
        if !is_daemon_file(&text) {
            continue;
        }
        names.insert(path.file_name().expect("a file has a name").to_owned());
        let settings = accepted(&text);
        // Whatever is printed is a key or a table; all of them must be in the file, in comments' reach.
        for line in settings.to_string().lines().filter(|line| !line.is_empty()) {
            let key = line
                .split(" = ")
                .next()
                .expect("split gives at least one part");
            assert!(
                text.lines().any(|own| own.starts_with(key)),
                "{} does not show {key:?}",
                path.display()
            );
        }
    }
    for expected in [
        "echo.toml",
        "tcp-echo.toml",
        "udp-echo.toml",
        "tcp-spin.toml",
    ] {
        assert!(
            names.iter().any(|name| name == expected),
            "{expected} is missing in {names:?}"
        );
    }
}

#[test]
fn reference_files_show_the_defaults() {
    for kind in ["tcp-echo", "udp-echo", "tcp-spin"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../configs/{kind}.toml"));
        let text = fs::read_to_string(file).expect("the reference file is shipped");
        assert_eq!(
            accepted(&text),
            accepted(&format!("[[service]]\nkind = \"{kind}\"\n"))
        );
    }
}

//! Builds the servers: those of this package with the cargo that started the driver, and the foreign ones where
//! their compilers and libraries are installed.

use std::collections::BTreeMap;
use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

/// Programs that could not be built here, and why.
pub type NotBuilt = BTreeMap<&'static str, String>;

/// Builds everything into the directory `programs`.
///
/// `cargo run` builds only the program it runs, so without this the servers would be missing, or,
/// worse, older than the library they are meant to measure.
///
/// # Errors
/// When a server of this package cannot be built.
pub fn build(programs: &Path) -> anyhow::Result<NotBuilt> {
    let Some(cargo) = env::var_os("CARGO") else {
        return Ok(NotBuilt::new()); // Started by hand: the programs beside this one are meant.
    };
    let target = programs
        .parent()
        .context("the programs' directory has no parent")?;
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--locked", "--bins"]);
    command
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    command.arg("--target-dir").arg(target);
    if cfg!(feature = "peers") {
        command.args(["--features", "peers"]);
    }
    if cfg!(debug_assertions) {
        eprintln!("versus: this is a debug build, its figures mean nothing; use --release");
    } else {
        command.arg("--release");
    }
    let status = command
        .status()
        .context("cannot start cargo to build the servers")?;
    ensure!(status.success(), "the servers cannot be built: {status}");
    Ok(build_foreign(programs))
}

fn build_foreign(programs: &Path) -> NotBuilt {
    let sources = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/peers"));
    let mut go = Command::new("go");
    go.env("GO111MODULE", "off").args(["build", "-o"]);
    go.arg(programs.join("serve_go"));
    go.arg(sources.join("go/main.go"));
    let mut libuv = Command::new("cc");
    libuv.args(["-O2", "-o"]).arg(programs.join("serve_libuv"));
    libuv.arg(sources.join("libuv/server.c")).arg("-luv");
    let mut epoll = Command::new("cc");
    epoll.args(["-O2", "-pthread", "-o"]);
    epoll.arg(programs.join("serve_epoll"));
    epoll.arg(sources.join("epoll/server.c"));
    let tried = [
        ("serve_go", compile(go)),
        ("serve_libuv", compile(libuv)),
        ("serve_epoll", compile(epoll)),
    ];
    let failed = tried
        .into_iter()
        .filter_map(|(program, built)| Some((program, built.err()?)));
    failed.collect()
}

/// The error is the first line of what the compiler says that names an error, or that there is none.
fn compile(mut compiler: Command) -> Result<(), String> {
    let name = compiler.get_program().to_string_lossy().into_owned();
    match compiler.output() {
        Err(error) => Err(format!("not built: no `{name}` here ({error})")),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let telling = text.lines().find(|line| line.contains("error"));
            let line = telling
                .or_else(|| text.lines().next())
                .unwrap_or("no reason");
            Err(format!("not built: {}", line.trim()))
        }
    }
}

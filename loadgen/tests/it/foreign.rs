//! The files of a run against readers that are not ours: HdrHistogram's Python package for log and
//! table, jsonschema for the record.
//!
//! The packages live in an environment of their own under the target's folder, made by the first
//! test that needs it; where Python or the registry cannot be reached the test says so and passes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::support::{echo_server, fresh_folder, loadgen, skipped};
use crate::udp::lossy_server;

/// What `foreign.py` imports.
const PACKAGES: [&str; 2] = ["hdrhistogram>=0.10", "jsonschema>=4.18"];

/// The Python that has the packages, or why there is none.
fn python() -> Result<&'static Path, &'static str> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = PYTHON.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("foreign-readers");
        let python = folder.join("bin/python");
        let imports = ["-c", "import hdrh.log, jsonschema"];
        if quietly(Command::new(&python).args(imports)).is_ok() {
            return Ok(python);
        }
        quietly(
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&folder),
        )?;
        let mut install = Command::new(&python);
        install.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--timeout",
            "15",
            "--retries",
            "1",
        ]);
        quietly(install.args(PACKAGES))?;
        quietly(Command::new(&python).args(imports))?;
        Ok(python)
    });
    match made {
        Ok(python) => Ok(python),
        Err(why) => Err(why),
    }
}

fn quietly(command: &mut Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.trim().lines().last().unwrap_or_default();
    Err(format!("{command:?}: {last}"))
}

/// A closed loop with churn, an open one, one over UDP with losses: every part of the schema.
#[test]
fn foreign_readers_find_the_same_percentiles_and_a_valid_record() {
    let python = match python() {
        Ok(python) => python,
        Err(why) => return skipped(&format!("no foreign readers here: {why}")),
    };
    let folder = fresh_folder("foreign");
    let out = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let fixed = [
        "--warmup",
        "100ms",
        "--duration",
        "600ms",
        "--interval",
        "50ms",
    ];
    let (tcp, udp) = (
        format!("tcp://{}", echo_server()),
        format!("udp://{}", lossy_server()),
    );
    for (name, target, more) in [
        (
            "closed",
            &tcp,
            ["--churn", "50", "--connections", "4"].as_slice(),
        ),
        ("open", &tcp, &["--rate", "800", "--assert", "p99<1h"]),
        ("udp", &udp, &["--rate", "300", "--settle", "50ms"]),
    ] {
        let out = out(name);
        let start = ["run", target, "--out", &out];
        let ran = loadgen(&[&start, fixed.as_slice(), more].concat());
        assert!(ran.is_ok(), "{ran:#?}");
    }
    let checked = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/foreign.py"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/run-1.json"))
        .args(["closed", "open", "udp"].map(out))
        .output()
        .expect("Python has just been run");
    let (said, errors) = (
        String::from_utf8_lossy(&checked.stdout),
        String::from_utf8_lossy(&checked.stderr),
    );
    assert!(checked.status.success(), "{said}{errors}");
    assert_eq!(said.lines().count(), 3, "{said}");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
}

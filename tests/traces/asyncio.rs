//! asyncio's traces: one run of the system's `python3` plays all scenarios of the files it is given.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The oldest Python that can play: it has `asyncio.timeout` and says whether a task is being cancelled.
pub(crate) const OLDEST: (u32, u32) = (3, 11);

/// For all scenarios together; the runner bounds each of them by itself.
const LIMIT: Duration = Duration::from_secs(300);

/// What asyncio did in each scenario, by its name.
pub(crate) struct Asyncio {
    pub(crate) python: (u32, u32),
    pub(crate) traces: HashMap<String, Vec<String>>,
}

impl Asyncio {
    /// Plays them all. `None`: no Python that can.
    ///
    /// # Errors
    /// The runner failed, or took too long.
    pub(crate) fn play(files: &[PathBuf]) -> io::Result<Option<Self>> {
        let Some(python) = version() else {
            return Ok(None);
        };
        let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces/asyncio_runner.py");
        let mut child = Command::new("python3")
            .arg(runner)
            .args(files)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut output = child.stdout.take().expect("it is piped");
        let (done, read) = mpsc::channel();
        let reading = thread::Builder::new().spawn(move || {
            let mut text = String::new();
            let result = output.read_to_string(&mut text).map(|_count| text);
            done.send(result).unwrap_or_default();
        })?;
        let text = read.recv_timeout(LIMIT);
        if text.is_err() {
            child.kill()?;
        }
        let status = child.wait()?;
        reading.join().expect("it only reads");
        let text = text.map_err(|_error| io::Error::other(format!("no end after {LIMIT:?}")))??;
        if !status.success() {
            return Err(io::Error::other(format!(
                "asyncio_runner.py: {status}\n{text}"
            )));
        }
        let traces = traces(&text);
        Ok(Some(Asyncio { python, traces }))
    }
}

fn version() -> Option<(u32, u32)> {
    let said = Command::new("python3").arg("--version").output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let mut numbers = said.trim().strip_prefix("Python ")?.split('.');
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?)).filter(|version| *version >= OLDEST)
}

/// `[NAME]`, and the lines below it.
fn traces(text: &str) -> HashMap<String, Vec<String>> {
    let mut traces = HashMap::new();
    let mut name = None;
    for line in text.lines() {
        if let Some(new) = line.strip_prefix('[') {
            let new = new.trim_end_matches(']').to_owned();
            traces.insert(new.clone(), Vec::new());
            name = Some(new);
        } else if let Some(trace) = name.as_ref().and_then(|name| traces.get_mut(name)) {
            trace.push(line.to_owned());
        }
    }
    traces
}

//! Differential traces: each scenario is played on asyncio and on garland, and what happened must be the
//! same, line for line, or differ as the file says.
//!
//! ```text
//! cargo test --test traces                      all scenarios in tests/traces/scenarios
//! cargo test --test traces -- FLOW-02           those with FLOW-02 in their names
//! cargo test --test traces -- my.trace          those of this file, with both traces side by side
//! ```
//!
//! # A scenario
//!
//! ```text
//! [TRN-07: close() sends what is buffered, then the connection is lost]
//! side server
//! once data: write "answer"; close
//!
//! peer send "question"
//! wait lost
//! peer read all
//! ```
//!
//! Its name is a claim, with the row it is about. Then come, in any order, one a line:
//!
//! - `side WHAT`: which end the loop has. `server` (a TCP connection it accepted; the default), `client`,
//!   `unix`, `unix-client`, `read-pipe`, `write-pipe`, `udp` (a bound socket), `udp-to` (a connected one),
//!   `stream` (a reader and a writer of `open_connection`; a number behind it is the reader's limit),
//!   `loop` (no connection). `side server buffered`: with a buffered protocol.
//! - `on EVENT: actions`: what is done inside each such call-back; `once EVENT:` inside the first.
//!   With `on factory:`, which is no line of a trace, the script does not wait for the connection.
//! - `task NAME: actions`: what a task of this name does, when it is spawned.
//! - `differs ROW: why`, and garland's trace in lines that begin with `|`: here the two must differ.
//!   `since 3.12 ROW: why`: with an older Python they must differ, else not.
//! - every other line is the script, a task of the loop. It begins when the connection is made. Actions
//!   on one line are separated by `;`. Data is `"text"` or a number of bytes, as in `64k` or `16M`. The
//!   latter is more than any kernel takes; with less than that, whether `pause` comes is the kernel's affair.
//!
//! | actions on the connection | |
//! |---|---|
//! | `write D`, `write_lines D D`, `write_eof`, `close`, `abort` | as in asyncio |
//! | `pause_reading`, `resume_reading`, `limits HIGH LOW` | `LOW` may be left out |
//! | `keep_open` | from now on `eof_received` asks for that |
//! | `switch NAME` | another protocol, whose events are `NAME.data` and so on |
//! | `show is_closing` | or `is_reading`, `can_write_eof`, `limits`, `buffered`, `peername` |
//! | `send D`, `send D nobody` | a datagram to the peer, or to where nobody listens |
//!
//! | actions on the loop | |
//! |---|---|
//! | `soon NAME`, `later MS NAME`, `at MS NAME`, `cancel NAME` | a callback, which is the event `NAME`; `at` counts from the beginning |
//! | `threadsafe NAME`, `thread NAME NAME` | `call_soon_threadsafe` from here, or from a thread |
//! | `watch_reader NAME`, `watch_writer NAME`, `unwatch_reader`, `unwatch_writer` | `add_reader` and so on, for the peer's descriptor |
//! | `stop`, `block MS`, `note TEXT`, `fail` | `block` holds the loop up, `fail` raises or panics |
//! | `future NAME`, `set NAME VALUE`, `result NAME`, `cancel NAME`, `done NAME` | |
//! | `callback FUTURE NAME`, `uncallback FUTURE NAME` | done-callbacks |
//! | `spawn NAME`, `cancel NAME`, `done NAME` | tasks |
//! | `semaphore NAME N`, `release`, `event NAME`, `event_set`, `event_clear`, `queue NAME SIZE` | |
//!
//! | actions of the script and of tasks, which wait | |
//! |---|---|
//! | `wait EVENT N` | until it has come so often; `wait data 5`: so many bytes |
//! | `peer send D`, `peer read N`, `peer read all`, `peer shutdown`, `peer close`, `peer reset` | the other end, a plain socket |
//! | `yield`, `turns N`, `sleep MS` | |
//! | `await NAME`, `gather`, `gather_all`, `wait_first`, `wait_exception`, `as_completed NAMES` | each task is awaited once |
//! | `group NAMES` | starts these tasks in a group, and waits for it |
//! | `wait_all MS NAMES`, `wait_for MS NAME` | |
//! | `acquire`, `event_wait`, `put QUEUE VALUE`, `get QUEUE` | |
//! | `read N`, `read_all`, `readline`, `readexactly N`, `readuntil D`, `drain`, `wait_closed`, `at_eof` | streams |
//! | `return VALUE`, `guard NAME` | in tasks: the event `NAME` when the task is left, however |
//!
//! # A trace
//!
//! The events `made`, `data`, `eof`, `lost REASON`, `pause`, `resume`, `datagram`, `error REASON` and
//! those with names of their own, `reported` for the exception handler, and what actions say. Data that
//! arrives in pieces is one line. What the peer saw comes last: between the two ends there is no order.
//! A line that begins with `!` is a mistake of the scenario, or one that took too long.
//!
//! Everything runs on the loop, the script too, and waits for events, never for time. garland plays each
//! scenario with one loop and with two. Without a Python of at least 3.11 garland's traces are only
//! compared with those in the file, and that is said.

#![expect(clippy::print_stdout, reason = "the report of a test without libtest")]
#![expect(
    clippy::disallowed_methods,
    reason = "holding a loop up is one of the actions"
)]

mod actor;
mod asyncio;
mod callbacks;
mod ends;
mod futures;
mod peer;
mod scenario;
mod stage;
mod verdict;

use std::collections::HashSet;
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use garland::{Builder, Pin, yield_now};

use crate::asyncio::{Asyncio, OLDEST};
use crate::scenario::{Scenario, parse};
use crate::stage::{Stage, keep_panics};
use crate::verdict::Traces;

/// For one scenario; the trace of one that takes longer says so.
const LIMIT: Duration = Duration::from_secs(10);

/// Turns after the script, for what must not come.
const SETTLE: usize = 4;

fn main() -> ExitCode {
    verdict::catches_what_is_planted();
    match run(std::env::args().skip(1).collect()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_wrong) => ExitCode::FAILURE,
        Err(error) => {
            println!("traces: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How many scenarios are wrong. libtest's own options change nothing, but `--list`.
fn run(args: Vec<String>) -> Result<usize, Box<dyn Error>> {
    let is_list = args.iter().any(|arg| arg == "--list");
    let words = args.into_iter().filter(|arg| !arg.starts_with('-'));
    let (given, names): (Vec<_>, Vec<_>) = words.partition(|arg| Path::new(arg).is_file());
    if let Some(missing) = names.iter().find(|name| name.ends_with(".trace")) {
        return Err(format!("there is no file {missing}").into());
    }
    let is_shown = !given.is_empty();
    let files = match is_shown {
        true => given.into_iter().map(PathBuf::from).collect(),
        false => all_files()?,
    };
    let mut scenarios = Vec::new();
    for file in &files {
        scenarios.extend(parse(&file.to_string_lossy(), &fs::read_to_string(file)?)?);
    }
    let mut seen = HashSet::new();
    if let Some(twice) = scenarios.iter().find(|one| !seen.insert(one.name.clone())) {
        return Err(format!("{}: the name is taken", twice.place).into());
    }
    scenarios.retain(|one| names.is_empty() || names.iter().any(|name| one.name.contains(name)));
    if is_list {
        scenarios
            .iter()
            .for_each(|one| println!("{}: test", one.name));
        return Ok(0);
    }
    if scenarios.is_empty() {
        return Ok(0);
    }
    let asyncio = Asyncio::play(&files)?;
    match &asyncio {
        Some(asyncio) => println!(
            "asyncio of Python {}.{}",
            asyncio.python.0, asyncio.python.1
        ),
        None => {
            let (major, minor) = OLDEST;
            println!("SKIPPED: no python3 of at least {major}.{minor}: garland plays alone");
        }
    }
    keep_panics();
    let mut n_wrong = 0;
    for scenario in &scenarios {
        n_wrong += usize::from(!compare(scenario, asyncio.as_ref(), is_shown)?);
    }
    println!("{} scenarios, {n_wrong} wrong", scenarios.len());
    Ok(n_wrong)
}

fn all_files() -> io::Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces/scenarios");
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut files = entries.collect::<io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// Plays one scenario, and says whether all is well.
fn compare(scenario: &Scenario, asyncio: Option<&Asyncio>, is_shown: bool) -> io::Result<bool> {
    let shared = Rc::new(scenario.clone());
    let traces = Traces {
        garland: [play(&shared, 1)?, play(&shared, 2)?],
        asyncio: asyncio.map(|asyncio| match asyncio.traces.get(&scenario.name) {
            Some(trace) => trace.as_slice(),
            None => &[],
        }),
    };
    let python = asyncio.map_or(OLDEST, |asyncio| asyncio.python);
    let verdict = traces.judge(scenario, python);
    let said = match &verdict {
        Ok(()) if scenario.is_different(python) => "ok, they differ".to_owned(),
        Ok(()) => "ok".to_owned(),
        Err(what) => format!("FAILED, {}: {what}", scenario.place),
    };
    println!("{} ... {said}", scenario.name);
    if is_shown || verdict.is_err() {
        print!("{}", traces.side_by_side());
    }
    if is_shown && let Some(differs) = &scenario.differs {
        println!("    expected: {differs}");
    }
    Ok(verdict.is_ok())
}

/// Plays a scenario on garland.
fn play(scenario: &Rc<Scenario>, loops: usize) -> io::Result<Vec<String>> {
    let runtime = Builder::new().loops(loops).pin(Pin::Off).build();
    let runtime = runtime.map_err(io::Error::other)?;
    let local = runtime.local();
    let stage = Stage::new(local, scenario);
    let reported = Rc::clone(&stage);
    local.set_exception_handler(move |_local, _context| reported.event("reported", ""));

    let script = Rc::clone(&stage);
    let mut script = local.spawn_local(async move {
        let played = garland::timeout(LIMIT, script.play()).await;
        if played.is_err() {
            script.log(&format!(
                "! after {LIMIT:?} still at: {}",
                script.at.borrow()
            ));
        }
    });
    while !script.is_finished() {
        match runtime.block_on(&mut script) {
            // It has panicked, and the trace says so.
            Ok(Ok(()) | Err(_)) => break,
            Err(_stopped) => stage.log("stopped"),
        }
    }
    let trace = stage.finish();
    let cleaned = runtime.block_on(async {
        yield_now().await;
        yield_now().await;
    });
    cleaned.map_err(io::Error::other)?;
    local.reset_exception_handler();
    drop(stage);
    let handle = runtime.handle().clone();
    let report = runtime.shutdown(LIMIT);
    assert!(report.is_clean(), "{}: {report}", scenario.name);
    let n_sockets = handle.stats().total(|one| one.sockets_registered);
    assert_eq!(n_sockets, 0, "{}: sockets are left", scenario.name);
    Ok(trace)
}

impl Stage {
    /// Sets the connection up, plays the script, and waits a little for what must not come.
    async fn play(self: &Rc<Self>) {
        let server = match self.set_up().await {
            Ok(server) => server,
            Err(error) => return self.log(&format!("! {error}")),
        };
        let scenario = Rc::clone(&self.scenario);
        for action in &scenario.script {
            *self.at.borrow_mut() = action.join(" ");
            if self.step(action).await.is_err() {
                return self.log("! the script failed");
            }
        }
        for _ in 0..SETTLE {
            yield_now().await;
        }
        if let Some(server) = server {
            server.close();
        }
    }
}

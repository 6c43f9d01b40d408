//! The load generator `loadgen`: drives a TCP or UDP server and measures the latency of every
//! request.
//!
//! A measuring instrument, so its measuring code shares nothing with the runtime it measures; only
//! the server that `demo` starts, in a process of its own, comes from there.
//!
//! From the command line to the report: [`cli`] and [`options`] read, [`plan`] validates, [`run`]
//! starts threads, each a [`generator`] with a [`worker`], [`lane`]s of [`tcp`] or [`udp`], a
//! [`recorder`], and in an open loop a part of the [`timetable`]; intervals come back as [`news`],
//! add up to an [`outcome`], are judged in a [`record`], and are shown by [`progress`], [`report`]
//! and the files of [`folder`]. This file turns errors into exit codes.

mod assertion;
mod chart;
mod cli;
mod compare;
mod confidence;
mod connect;
mod demo;
mod drops;
mod environment;
mod failure;
mod find_max;
mod folder;
mod gaps;
mod generator;
mod header;
mod hgrm;
mod hlog;
mod html;
mod interrupt;
mod interval;
mod lane;
mod ledger;
mod limits;
mod merge;
mod new_file;
mod news;
mod open_loop;
mod options;
mod outcome;
mod pace;
mod pattern;
mod plan;
mod progress;
mod quantity;
mod random;
mod record;
mod recorder;
mod report;
mod run;
mod search;
mod service_time;
mod start_at;
mod stored;
mod student;
mod summary;
mod target;
mod tcp;
mod timetable;
mod udp;
mod usage;
mod verdict;
mod worker;

use std::fmt::Display;
use std::io::{self, StdoutLock, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use clap_complete::Shell;

use crate::assertion::Checked;
use crate::cli::{
    Cli, Command, CompareArgs, DemoArgs, FindMaxArgs, MergeArgs, ReportArgs, RunArgs,
};
use crate::compare::Comparison;
use crate::demo::DemoServer;
use crate::environment::Environment;
use crate::folder::Folder;
use crate::interrupt::Interrupt;
use crate::new_file::{NewFile, make_folder};
use crate::options::Options;
use crate::plan::RunPlan;
use crate::progress::Progress;
use crate::record::RunRecord;
use crate::report::Report;

/// Exit code of a run of which an assertion failed.
const ASSERTION_FAILED: u8 = 3;
/// Exit code of a comparison that saw a difference.
const DIFFERENCE: u8 = 3;
/// Exit code of a run whose figures are the generator's own.
const INVALID: u8 = 4;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap would exit with 2; the contract says 1, and 0 for --help and --version.
            let code = if error.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
            return if error.print().is_ok() {
                code
            } else {
                ExitCode::FAILURE
            };
        }
    };
    let result = match cli.command {
        Command::Serve(args) => return garland_echod::demo::serve(args.loops),
        Command::Run(args) => run_command(*args),
        Command::FindMax(args) => find_max_command(*args),
        Command::Demo(args) => demo_command(&args),
        Command::Compare(args) => compare_command(&args),
        Command::Merge(args) => merge_command(&args),
        Command::Report(args) => report_command(&args),
        Command::Completions(args) => completions_command(args.shell),
    };
    result.unwrap_or_else(|message| {
        eprintln!("loadgen: {message}");
        ExitCode::FAILURE
    })
}

fn run_command(args: RunArgs) -> Result<ExitCode, String> {
    let environment = Environment::read();
    let plan = RunPlan::new(complete(args)?, &environment.allowed)?;
    Ok(exit_code(&measure(&plan, &environment)?))
}

/// What stands on the command line, completed from the plan file.
fn complete(args: RunArgs) -> Result<Options, String> {
    match args.plan {
        Some(path) => Ok(args.options.or(Options::read(&path)?)),
        None => Ok(args.options),
    }
}

/// What a run is worth, with the reasons on standard error. Failed requests weigh most: such a run
/// was not the one asked for. Figures that are not valid fulfil no assertion.
fn exit_code(record: &RunRecord) -> ExitCode {
    let failures = record.outcome.reasons_against();
    for reason in failures.iter().chain(&record.generator_bound) {
        eprintln!("loadgen: {reason}");
    }
    let failed = record.assertions.iter().filter(|checked| !checked.holds);
    let mut all_hold = true;
    for Checked {
        condition,
        measured,
        ..
    } in failed
    {
        eprintln!("loadgen: assertion {condition} fails: {measured}");
        all_hold = false;
    }
    if !failures.is_empty() {
        ExitCode::FAILURE
    } else if !record.generator_bound.is_empty() {
        ExitCode::from(INVALID)
    } else if !all_hold {
        ExitCode::from(ASSERTION_FAILED)
    } else {
        ExitCode::SUCCESS
    }
}

fn find_max_command(args: FindMaxArgs) -> Result<ExitCode, String> {
    let environment = Environment::read();
    let options = complete(args.run.clone())?;
    let plan = find_max::Plan::new(&args, options, &environment.allowed)?;
    let window = plan.window().clone();
    // Opened before the search, so that none is lost for want of a place to keep it.
    let stored = window.out.as_deref().map(|folder| {
        make_folder("--out", folder)?;
        NewFile::begin(&folder.join("find-max.json")).map_err(|e| format!("--out: {e}"))
    });
    let stored = stored.transpose()?;
    limits::make_room_for(window.connections, window.threads)?;
    let interrupt = Interrupt::install().map_err(|e| format!("cannot take over Ctrl-C: {e}"))?;
    let mut progress = Progress::new(window.progress);
    let found = plan.search(&environment, &interrupt, |trial| progress.show_line(trial))?;
    if let Some(mut file) = stored {
        found.write(&mut file).map_err(|e| file.failed(&e))?;
        file.complete()?;
    }
    if window.json {
        print(|out| found.write(out))?;
    } else {
        say(&found)?;
    }
    if found.is_interrupted && found.best().is_none() {
        return Err("interrupted before a rate held".to_owned());
    }
    if let Some(failure) = found.failure {
        return Err(failure);
    }
    Ok(match found.rate {
        _ if found.is_generator_bound => ExitCode::from(INVALID),
        None if !found.is_interrupted => ExitCode::from(ASSERTION_FAILED),
        _ => ExitCode::SUCCESS,
    })
}

fn demo_command(args: &DemoArgs) -> Result<ExitCode, String> {
    let environment = Environment::read();
    let cpus = &environment.allowed;
    let server = DemoServer::start(cpus)?;
    say(format_args!("{}\n\n", demo::introduction(&server, cpus)))?;
    let record = RunPlan::new(demo::load(args, server.target.clone(), cpus), cpus)
        .and_then(|plan| measure(&plan, &environment));
    server.stop();
    for reason in record?.outcome.reasons_against() {
        eprintln!("loadgen: {reason}");
    }
    say(format_args!("\n{}\n", demo::WHAT_NEXT))?;
    Ok(ExitCode::SUCCESS)
}

fn compare_command(args: &CompareArgs) -> Result<ExitCode, String> {
    if !(0.0..=1000.0).contains(&args.least) {
        return Err(format!("--least is {}; allowed: 0 to 1000", args.least));
    }
    let paths = [&args.first, &args.second];
    let (first, second) = (RunRecord::read(paths[0])?, RunRecord::read(paths[1])?);
    let names = paths.map(|path| path.display().to_string());
    let comparison = Comparison::of(names, [&first, &second], args.least / 100.0)?;
    say(&comparison)?;
    if let Some(folder) = &args.out {
        make_folder("--out", folder)?;
        let picture = chart::file(&comparison.picture(chart::WIDE));
        for (name, content) in [
            ("compare.html", compare::page(&comparison)),
            ("compare.svg", picture),
        ] {
            say_file(&NewFile::write_all_to(&folder.join(name), &content)?)?;
        }
    }
    Ok(if !comparison.invalid().is_empty() {
        ExitCode::from(INVALID)
    } else if comparison.differences().next().is_some() {
        ExitCode::from(DIFFERENCE)
    } else {
        ExitCode::SUCCESS
    })
}

fn merge_command(args: &MergeArgs) -> Result<ExitCode, String> {
    let merged = merge::merge(&args.out, &args.logs)?;
    say(&merged)?;
    say_file(&args.out)?;
    Ok(ExitCode::SUCCESS)
}

fn report_command(args: &ReportArgs) -> Result<ExitCode, String> {
    let record = RunRecord::read(&args.run)?;
    say(Report(&record))?;
    if let Some(folder) = &args.out {
        make_folder("--out", folder)?;
        for path in folder::draw(&record, folder)? {
            say_file(&path)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn completions_command(shell: Shell) -> Result<ExitCode, String> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "loadgen", &mut script);
    print(|out| out.write_all(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// Drives the load, prints the report, writes the files.
fn measure(plan: &RunPlan, environment: &Environment) -> Result<RunRecord, String> {
    let mut folder = plan.out.as_deref().map(Folder::open).transpose()?;
    limits::make_room_for(plan.connections, plan.threads)?;
    let interrupt = Interrupt::install().map_err(|e| format!("cannot take over Ctrl-C: {e}"))?;
    let mut progress = Progress::new(plan.progress);
    let mut log_error = None;
    let outcome = run::run(plan, &interrupt, |interval| {
        progress.show(interval);
        if let Some(Err(error)) = folder.as_mut().map(|folder| folder.add(interval)) {
            // The run goes on: what is measured can still be printed.
            log_error.get_or_insert(error);
        }
    });
    progress.finish();
    let record = RunRecord::new(plan, environment, outcome?);
    let files = folder.map(|folder| folder.finish(&record)).transpose();
    if plan.json {
        print(|out| record.write(out))?;
        files?;
    } else {
        say(Report(&record))?;
        for path in files?.into_iter().flatten() {
            say_file(&path)?;
        }
    }
    match log_error {
        Some(error) => Err(error),
        None => Ok(record),
    }
}

fn say_file(path: &Path) -> Result<(), String> {
    say(format_args!("{:<13}{}\n", "file", path.display()))
}

fn say(text: impl Display) -> Result<(), String> {
    print(|out| write!(out, "{text}"))
}

/// Prints on standard output. A reader that has gone, as in `loadgen demo | head`, is no error: it
/// has read enough.
fn print(write: impl FnOnce(&mut StdoutLock<'_>) -> io::Result<()>) -> Result<(), String> {
    match write(&mut io::stdout().lock()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write the report: {e}"))
        }
        _ => Ok(()),
    }
}

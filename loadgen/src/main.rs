//! The load generator `loadgen`: drives a TCP or UDP server and measures the latency of every request.
//!
//! A measuring instrument, so its measuring code shares nothing with the runtime it measures; only
//! the server that `demo` starts, in a process of its own, comes from there.
//!
//! From the command line to the report: [`cli`] reads, [`plan`] validates, [`run`] starts the
//! threads of [`worker`], each with connections of [`tcp`] and a [`recorder`]; intervals come back
//! as [`news`], add up to an [`outcome`], and are shown by [`progress`], [`report`] and the files
//! of [`folder`]. This file turns errors into exit codes.

mod cli;
mod connect;
mod demo;
mod environment;
mod failure;
mod folder;
mod header;
mod hgrm;
mod hlog;
mod interrupt;
mod interval;
mod lane;
mod ledger;
mod limits;
mod news;
mod outcome;
mod pattern;
mod plan;
mod progress;
mod quantity;
mod random;
mod recorder;
mod report;
mod run;
mod service_time;
mod target;
mod tcp;
mod udp;
mod usage;
mod worker;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command, DemoArgs, RunArgs};
use crate::demo::DemoServer;
use crate::environment::Environment;
use crate::folder::Folder;
use crate::interrupt::Interrupt;
use crate::outcome::Outcome;
use crate::plan::RunPlan;
use crate::progress::Progress;
use crate::report::Report;

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
        Command::Run(args) => run_command(args),
        Command::Demo(args) => demo_command(&args),
    };
    result.unwrap_or_else(|message| {
        eprintln!("loadgen: {message}");
        ExitCode::FAILURE
    })
}

fn run_command(args: RunArgs) -> Result<ExitCode, String> {
    let environment = Environment::read();
    let plan = RunPlan::new(args, &environment.allowed)?;
    let outcome = measure(&plan, &environment)?;
    let reasons = outcome.reasons_against();
    for reason in &reasons {
        eprintln!("loadgen: {reason}");
    }
    Ok(if reasons.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn demo_command(args: &DemoArgs) -> Result<ExitCode, String> {
    let environment = Environment::read();
    let cpus = &environment.allowed;
    let server = DemoServer::start(cpus)?;
    say(format_args!("{}\n\n", demo::introduction(&server, cpus)))?;
    let outcome = RunPlan::new(demo::load(args, server.target.clone(), cpus), cpus)
        .and_then(|plan| measure(&plan, &environment));
    server.stop();
    for reason in outcome?.reasons_against() {
        eprintln!("loadgen: {reason}");
    }
    say(format_args!("\n{}\n", demo::WHAT_NEXT))?;
    Ok(ExitCode::SUCCESS)
}

/// Drives the load, prints the report, writes the files.
fn measure(plan: &RunPlan, environment: &Environment) -> Result<Outcome, String> {
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
    let outcome = outcome?;
    let files = folder
        .map(|folder| folder.finish(&outcome.measured.latency))
        .transpose();
    say(Report {
        plan,
        environment,
        outcome: &outcome,
    })?;
    for path in files?.into_iter().flatten() {
        say(format_args!("{:<13}{}\n", "file", path.display()))?;
    }
    match log_error {
        Some(error) => Err(error),
        None => Ok(outcome),
    }
}

/// Prints on standard output. A reader that has gone, as in `loadgen demo | head`, is no error: it
/// has read enough.
fn say(text: impl Display) -> Result<(), String> {
    match write!(io::stdout().lock(), "{text}") {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write the report: {e}"))
        }
        _ => Ok(()),
    }
}

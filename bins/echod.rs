//! `echod`: arguments -> settings -> run -> exit code.
//!
//! The one place that turns outcomes into exit codes; what each means is in `echod --help`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use garland_echod::{
    cli::Arguments,
    lifecycle::{self, Ended},
    settings::Settings,
};

/// Exit code for a bad configuration; clap uses the same one for bad usage.
const EXIT_CONFIG: u8 = 2;
/// Exit code when connections had to be cut.
const EXIT_CUT: u8 = 3;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut settings = match Settings::load(&arguments.config, &arguments.sets) {
        Ok(settings) => settings,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if let Some(format) = arguments.log_format {
        settings.log.format = format.into();
    }
    if arguments.check_config {
        return ExitCode::SUCCESS;
    }
    if arguments.print_config {
        return print(&settings);
    }
    match lifecycle::run(&settings) {
        Ok(Ended::Drained) => ExitCode::SUCCESS,
        Ok(Ended::Cut) => ExitCode::from(EXIT_CUT),
        Err(error) => {
            eprintln!("echod: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print(settings: &Settings) -> ExitCode {
    match write!(io::stdout(), "{settings}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echod: cannot print the configuration: {error}");
            ExitCode::FAILURE
        }
    }
}

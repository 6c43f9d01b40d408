//! The command line of `echod`.
//!
//! Reads arguments and nothing else: no file is opened here. Usage errors are clap's, with exit code 2,
//! the same as for a bad configuration.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::settings::LogFormat;

/// Examples that `--help` ends with.
const EXAMPLES: &str = "\
Examples:
  echod -c configs/echo.toml                        serve until SIGTERM or SIGINT
  echod -c configs/echo.toml --check-config         name each mistake, start nothing
  echod -c configs/echo.toml --print-config         every setting, defaults filled in
  echod -c configs/tcp-echo.toml --set runtime.loops=2 --set service.tcp-echo.bind=127.0.0.1:0

Exit codes:
  0  drained in the grace period (or the check passed)
  1  start-up error: an address in use, a core that cannot be had
  2  bad configuration or bad usage; nothing was started
  3  the grace period ran out, or a second signal came: connections were cut";

/// TCP and UDP echo services on the garland runtime, run from one TOML file.
#[derive(Debug, Parser)]
#[command(name = "echod", version, after_help = EXAMPLES)]
pub struct Arguments {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,

    /// Read and check the configuration, start nothing
    #[arg(long, conflicts_with = "print_config")]
    pub check_config: bool,

    /// Print the effective configuration as TOML, start nothing
    #[arg(long)]
    pub print_config: bool,

    /// Lay a setting over the file, like runtime.loops=2 or service.NAME.backlog=64; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,

    /// Write the log in this format, whatever the file says
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormatArgument>,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormatArgument {
    /// One line an event, for people
    Text,
    /// One JSON object an event, for machines
    Json,
}

impl From<LogFormatArgument> for LogFormat {
    fn from(argument: LogFormatArgument) -> LogFormat {
        match argument {
            LogFormatArgument::Text => LogFormat::Text,
            LogFormatArgument::Json => LogFormat::Json,
        }
    }
}

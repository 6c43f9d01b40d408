//! What spawning, yielding, messages and timers cost on each runtime, asked in turn.
//!
//! For each figure this program starts itself once more, with as many CPUs as there are workers. Runtimes that are
//! compared are asked one right after the other, in an order that is rotated; ratios are taken within a round.

use std::env;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use garland_versus::machine::Machine;
use garland_versus::parties::{Garland, Name, Tokio};
use garland_versus::parts::Question;
use garland_versus::serving;
use garland_versus::table::{Spread, Table};

/// Compares what the parts of runtimes cost, interleaved and pinned
#[derive(Debug, Parser)]
struct Options {
    /// What to ask [default: all]
    #[arg(value_enum)]
    questions: Vec<Question>,
    /// How often everything is asked; ratios are taken within a round
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// With how many workers, a CPU for each
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    workers: Vec<usize>,
    /// Which runtimes [default: all that were built]
    #[arg(long, value_delimiter = ',', value_enum)]
    runtimes: Vec<Name>,
    /// Asks one runtime one question, and prints the figure alone
    #[arg(long, hide = true, value_enum)]
    only: Option<Name>,
}

/// One figure.
struct Answer {
    round: usize,
    workers: usize,
    question: Question,
    runtime: Name,
    value: f64,
}

fn main() -> anyhow::Result<()> {
    let mut options = Options::parse();
    if options.questions.is_empty() {
        options.questions = Question::ALL.to_vec();
    }
    if options.runtimes.is_empty() {
        options.runtimes = Name::ALL.to_vec();
    }
    if let Some(runtime) = options.only {
        // One figure: the next would find this process pinned.
        let (&[question], &[workers]) = (&options.questions[..], &options.workers[..]) else {
            bail!("--only asks one question, with one number of --workers");
        };
        show(&ask(runtime, question, workers)?.to_string());
        return Ok(());
    }
    for &workers in &options.workers {
        ensure!(
            (1..=num_cpus()).contains(&workers),
            "--workers {workers}: each gets a CPU, and this machine has {}",
            num_cpus()
        );
    }
    show(&format!("{}\n", Machine::here()));
    let answers = ask_all(&options)?;
    for &workers in &options.workers {
        show(&table(&options, workers, &answers).to_string());
    }
    Ok(())
}

fn ask_all(options: &Options) -> anyhow::Result<Vec<Answer>> {
    let mut answers = Vec::new();
    let mut runtimes = options.runtimes.clone();
    for round in 0..options.rounds {
        for &workers in &options.workers {
            for &question in &options.questions {
                for &runtime in &runtimes {
                    let value = ask_in_a_process(runtime, question, workers)?;
                    answers.push(Answer {
                        round,
                        workers,
                        question,
                        runtime,
                        value,
                    });
                }
            }
        }
        runtimes.rotate_left(1);
        eprintln!("parts: round {} of {} done", round + 1, options.rounds);
    }
    Ok(answers)
}

fn ask_in_a_process(runtime: Name, question: Question, workers: usize) -> anyhow::Result<f64> {
    let here = env::current_exe().context("where is this program?")?;
    let mut command = Command::new(here);
    command.args(["--only", runtime.text(), "--workers", &workers.to_string()]);
    command.arg(format!("{question:?}").to_lowercase());
    let output = command
        .output()
        .context("cannot start this program again")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {said}");
    let figure = String::from_utf8_lossy(&output.stdout);
    let figure = figure.trim();
    figure
        .parse()
        .with_context(|| format!("{figure:?} is no figure"))
}

fn ask(runtime: Name, question: Question, workers: usize) -> anyhow::Result<f64> {
    let cpus = workers + usize::from(question.is_from_outside());
    // With all of them at work the asking thread shares one.
    let cpus: Vec<usize> = (0..cpus.min(num_cpus())).collect();
    serving::pin_to(&cpus)?;
    match runtime {
        Name::Garland => question.ask::<Garland>(workers),
        Name::Tokio => question.ask::<Tokio>(workers),
        #[cfg(feature = "peers")]
        Name::Smol => question.ask::<garland_versus::parties::Smol>(workers),
        #[cfg(not(feature = "peers"))]
        Name::Smol => bail!("smol was not built: give cargo `--features peers`"),
    }
}

fn num_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A line a question: each runtime's figure, and garland's beside each of the others in the same round.
fn table(options: &Options, workers: usize, answers: &[Answer]) -> Table {
    let others = || {
        let runtimes = options.runtimes.iter().copied();
        runtimes.filter(|&runtime| runtime != Name::Garland)
    };
    let ratios: Vec<String> = others()
        .map(|other| format!("/ {}", other.text()))
        .collect();
    let names = options.runtimes.iter().map(|runtime| runtime.text());
    let head = ["question"].into_iter().chain(names);
    let head = head.chain(ratios.iter().map(String::as_str));
    let mut table = Table::new(format!("workers: {workers}"), head);
    for &question in &options.questions {
        let of = |runtime| {
            let answers = answers.iter();
            answers.filter(move |one| {
                (one.workers, one.question, one.runtime) == (workers, question, runtime)
            })
        };
        let figures = options.runtimes.iter().map(|&runtime| {
            let figures = of(runtime).map(|one| one.value);
            Spread::text(Spread::of(figures))
        });
        let ratios = others().map(|other| {
            let ratios = of(Name::Garland).filter_map(|one| {
                let beside = of(other).find(|other| other.round == one.round)?;
                Some(one.value / beside.value)
            });
            Spread::text(Spread::of(ratios))
        });
        table.row(question.text(), figures.chain(ratios));
    }
    table
}

#[expect(clippy::print_stdout, reason = "the figures are this program's output")]
fn show(text: &str) {
    println!("{text}");
}

//! `loadgen find-max`: the highest rate at which the target keeps an objective.
//!
//! Each rate is a run of its own, with fresh connections, so that no window inherits the queue of
//! the one before. A rate does not hold when an objective fails, when requests fail, or when less
//! than [`SATURATED_BELOW`] of what was due was answered in the window. A window in which the
//! generator was the bottleneck says nothing about the target and is repeated; if that does not
//! help, its rate counts as one that does not hold, and the answer is a lower bound.

use std::fmt::{self, Display, Formatter};
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::assertion::{Assertion, Checked};
use crate::cli::FindMaxArgs;
use crate::environment::Environment;
use crate::interrupt::Interrupt;
use crate::options::Options;
use crate::outcome::Outcome;
use crate::plan::RunPlan;
use crate::quantity::{Rate, Span, span};
use crate::record::{RunRecord, SCHEMA};
use crate::run;
use crate::search::{Search, Step};

/// Below this part of what was due the target is saturated, whatever its latency.
const SATURATED_BELOW: f64 = 0.9;
/// One window, unless options say otherwise.
const WINDOW: Duration = Duration::from_secs(2);
const WARMUP: Duration = Duration::from_millis(500);
const DRAIN: Duration = Duration::from_millis(500);
/// Windows tried at one rate when the generator spoils them: they say nothing about the target.
const ATTEMPTS: usize = 3;
/// The confirming window is so many times longer.
const CONFIRMATION: u32 = 2;

/// What the search starts from.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// One window.
    window: RunPlan,
    objectives: Vec<Assertion>,
    up_to: f64,
    search: Search,
}

/// How one rate went.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Trial {
    pub(crate) asked: f64,
    pub(crate) achieved: f64,
    /// Seconds.
    pub(crate) window: f64,
    /// None if nothing was answered.
    pub(crate) p50: Option<u64>,
    pub(crate) p99: Option<u64>,
    pub(crate) checks: Vec<Checked>,
    /// Why the rate does not hold; empty if it does.
    pub(crate) against: Vec<String>,
    /// The generator was the bottleneck.
    pub(crate) is_invalid: bool,
    pub(crate) is_confirmation: bool,
}

/// What the search came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Found {
    schema: u32,
    target: String,
    objectives: Vec<String>,
    /// The highest rate to try.
    up_to: f64,
    pub(crate) trials: Vec<Trial>,
    /// The highest rate that held and was confirmed.
    pub(crate) rate: Option<f64>,
    /// The rate above it could not be judged, because the generator was the bottleneck.
    pub(crate) is_generator_bound: bool,
    pub(crate) is_interrupted: bool,
    /// What ended the search early.
    pub(crate) failure: Option<String>,
    /// The record of the confirming window.
    confirmation: Option<RunRecord>,
}

impl Plan {
    /// Checks what was asked for; `options` are those of the command line and the plan file.
    pub(crate) fn new(
        args: &FindMaxArgs,
        options: Options,
        cpus: &[usize],
    ) -> Result<Plan, String> {
        if options.rate.is_some() {
            return Err("find-max sets the --rate itself; use --from and --up-to".to_owned());
        }
        if !options.assert.is_empty() {
            return Err("find-max takes its conditions from --slo, not from --assert".to_owned());
        }
        if options.start_at.is_some() {
            return Err("--start-at is for run: find-max makes many runs".to_owned());
        }
        let rate = |rate: &Option<Rate>, default| rate.map_or(default, |Rate(rate)| rate);
        let (from, up_to) = (rate(&args.from, 1000.0), rate(&args.up_to, 10e6));
        if !(1.0..=up_to).contains(&from) {
            return Err(format!(
                "--from is {from}; allowed: 1 to --up-to, which is {up_to}"
            ));
        }
        let precision = args.precision.unwrap_or(5.0);
        if !(0.1..=50.0).contains(&precision) {
            return Err(format!(
                "--precision is {precision}; allowed: 0.1 to 50 per cent"
            ));
        }
        let settle = options.settle.map_or(DRAIN, |Span(settle)| settle);
        let window = Options {
            rate: Some(Rate(from)),
            duration: options.duration.or(Some(Span(WINDOW))),
            warmup: options.warmup.or(Some(Span(WARMUP))),
            drain: options.drain.or(Some(Span(DRAIN.max(settle)))),
            // The plan checks that each can be held against the target.
            assert: args.slo.clone(),
            ..options
        };
        Ok(Plan {
            window: RunPlan::new(window, cpus)?,
            objectives: args.slo.clone(),
            up_to,
            search: Search::new(from, up_to, precision / 100.0),
        })
    }

    pub(crate) fn window(&self) -> &RunPlan {
        &self.window
    }

    /// Searches; `observe` sees each trial.
    pub(crate) fn search(
        mut self,
        environment: &Environment,
        interrupt: &Interrupt,
        mut observe: impl FnMut(&Trial),
    ) -> Result<Found, String> {
        let mut found = Found {
            schema: SCHEMA,
            target: self.window.target.to_string(),
            objectives: self.objectives.iter().map(Assertion::to_string).collect(),
            up_to: self.up_to,
            trials: Vec::new(),
            rate: None,
            is_generator_bound: false,
            is_interrupted: false,
            failure: None,
            confirmation: None,
        };
        loop {
            let (rate, is_confirmation) = match self.search.step() {
                Step::Try(rate) => (rate, false),
                Step::Confirm(rate) => (rate, true),
                Step::Done(rate) => {
                    found.conclude(rate);
                    return Ok(found);
                }
            };
            for attempt in 1..=ATTEMPTS {
                let plan = self.at(rate, is_confirmation, found.trials.len());
                let ran = run::run(&plan, interrupt, |_| {});
                if interrupt.is_raised() {
                    found.is_interrupted = true;
                    return Ok(found);
                }
                let outcome = match ran {
                    Ok(outcome) => outcome,
                    // Nothing to keep yet: the same message as from `run`.
                    Err(failure) if found.trials.is_empty() => return Err(failure),
                    Err(failure) => {
                        found.failure = Some(failure);
                        return Ok(found);
                    }
                };
                let record = RunRecord::new(&plan, environment, outcome);
                let trial = Trial::new(&record, rate, is_confirmation);
                let (holds, is_invalid) = (trial.against.is_empty(), trial.is_invalid);
                observe(&trial);
                found.trials.push(trial);
                if is_invalid && attempt < ATTEMPTS {
                    continue;
                }
                if is_confirmation && holds {
                    found.confirmation = Some(record);
                }
                self.search.handle_result(holds);
                break;
            }
        }
    }

    fn at(&self, rate: f64, is_confirmation: bool, n_before: usize) -> RunPlan {
        let mut plan = self.window.clone();
        if let Some(open) = &mut plan.open {
            open.rate = rate;
        }
        // Another timetable each time, so that one unlucky draw does not decide twice.
        plan.seed = plan.seed.wrapping_add(n_before as u64);
        if is_confirmation {
            plan.duration *= CONFIRMATION;
        }
        plan
    }
}

impl Trial {
    fn new(record: &RunRecord, asked: f64, is_confirmation: bool) -> Trial {
        let outcome = &record.outcome;
        let mut against = outcome.reasons_against();
        let failed = record.assertions.iter().filter(|checked| !checked.holds);
        against.extend(failed.map(|c| format!("{} fails: {}", c.condition, c.measured)));
        let share = answered_share(outcome);
        if share < SATURATED_BELOW {
            against.push(format!(
                "saturated: {:.1} % of what was due was answered",
                share * 100.0
            ));
        }
        let latency = outcome.latency();
        let at =
            |percentile| (!latency.is_empty()).then(|| latency.value_at_percentile(percentile));
        let is_invalid = !record.generator_bound.is_empty();
        against.extend(record.generator_bound.iter().cloned());
        Trial {
            asked,
            achieved: outcome.measured.rate(),
            window: outcome.measured.span.as_secs_f64(),
            p50: at(50.0),
            p99: at(99.0),
            checks: record.assertions.clone(),
            against,
            is_invalid,
            is_confirmation,
        }
    }
}

/// Of the requests that were due in the window, the part that was answered in it. It is the
/// achieved rate divided by the asked one, without the chance of how many a Poisson process has.
fn answered_share(outcome: &Outcome) -> f64 {
    let due = outcome.measured.sent + outcome.n_missed;
    outcome.measured.answered_in_time as f64 / (due as f64).max(1.0)
}

impl Found {
    /// Writes the search as JSON.
    pub(crate) fn write(&self, mut out: impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut out, self)?;
        writeln!(out)?;
        out.flush()
    }

    /// The highest rate that held, confirmed or not.
    pub(crate) fn best(&self) -> Option<f64> {
        let held = self.trials.iter().filter(|trial| trial.against.is_empty());
        held.map(|trial| trial.asked).max_by(f64::total_cmp)
    }

    fn conclude(&mut self, rate: Option<f64>) {
        self.rate = rate;
        let bad = self.trials.iter().filter(|trial| !trial.against.is_empty());
        // Of several windows at one rate the last decided.
        let least = bad
            .rev()
            .filter(|trial| rate.is_none_or(|rate| trial.asked > rate))
            .min_by(|a, b| a.asked.total_cmp(&b.asked));
        self.is_generator_bound = least.is_some_and(|trial| trial.is_invalid);
    }
}

impl Display for Trial {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let shown =
            |latency: Option<u64>| latency.map_or("-".to_owned(), |nanos| span(nanos as f64));
        write!(
            f,
            "{:>10.0}/s asked {:>10.0}/s achieved  p50 {:>9}  p99 {:>9}  {}{}",
            self.asked,
            self.achieved,
            shown(self.p50),
            shown(self.p99),
            if self.is_confirmation {
                "confirmation "
            } else {
                ""
            },
            match self.against.first() {
                None => "holds",
                Some(reason) => reason,
            }
        )
    }
}

impl Display for Found {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "target       {}", self.target)?;
        writeln!(f, "objective    {}", self.objectives.join(", "))?;
        writeln!(f, "trajectory   {} windows", self.trials.len())?;
        for trial in &self.trials {
            writeln!(f, "  {trial}")?;
        }
        let early = match &self.failure {
            Some(failure) => Some(failure.as_str()),
            None => self.is_interrupted.then_some("interrupted"),
        };
        if let Some(why) = early {
            let so_far = match self.best() {
                Some(best) => format!("{best:.0}/s held so far, unconfirmed"),
                None => "no rate held so far".to_owned(),
            };
            return writeln!(f, "result       {why}; {so_far}");
        }
        match self.rate {
            Some(rate) if self.is_generator_bound => writeln!(
                f,
                "result       at least {rate:.0}/s; INVALID as a maximum: generator-bound above it"
            ),
            Some(rate) if rate >= self.up_to => writeln!(
                f,
                "result       at least {rate:.0}/s holds, and none above it was tried (--up-to)"
            ),
            Some(rate) => writeln!(f, "result       {rate:.0}/s is the highest rate that holds"),
            None if self.is_generator_bound => {
                writeln!(f, "result       INVALID: generator-bound")
            }
            None => writeln!(f, "result       no rate holds"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::find_max::Found;
    use crate::record::SCHEMA;

    fn found(rate: f64, up_to: f64) -> String {
        let found = Found {
            schema: SCHEMA,
            target: "tcp://127.0.0.1:7007".to_owned(),
            objectives: vec!["p50<1h".to_owned()],
            up_to,
            trials: Vec::new(),
            rate: Some(rate),
            is_generator_bound: false,
            is_interrupted: false,
            failure: None,
            confirmation: None,
        };
        let text = found.to_string();
        let result = text.lines().last().expect("it says how it ended");
        result.trim_start_matches("result").trim().to_owned()
    }

    #[test]
    fn rate_that_holds_at_the_limit_is_a_lower_bound() {
        let at_limit = "at least 40/s holds, and none above it was tried (--up-to)";
        assert_eq!(found(40.0, 40.0), at_limit);
        assert_eq!(found(40.0, 80.0), "40/s is the highest rate that holds");
    }
}

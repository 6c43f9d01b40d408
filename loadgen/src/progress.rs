//! Progress on standard error while the load runs: a line kept up to date on a terminal, or one
//! line an interval.
//!
//! Never on standard output, which holds the report alone.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use crate::cli::ProgressStyle;
use crate::interval::{Interval, Phase};
use crate::quantity::{per_second, span};

/// Back to the first column, and everything after the cursor erased.
const START_OVER: &str = "\r\x1b[K";

/// Where progress goes.
#[derive(Debug)]
pub(crate) struct Progress {
    style: Style,
    begun: Option<Instant>,
    errors: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Style {
    Silent,
    OneLine,
    Lines,
}

impl Progress {
    pub(crate) fn new(asked: Option<ProgressStyle>) -> Progress {
        let style = match asked {
            Some(ProgressStyle::Plain) => Style::Lines,
            Some(ProgressStyle::Auto) if io::stderr().is_terminal() => Style::OneLine,
            Some(ProgressStyle::Auto) | None => Style::Silent,
        };
        Progress {
            style,
            begun: None,
            errors: 0,
        }
    }

    /// Shows an interval that has just ended.
    pub(crate) fn show(&mut self, interval: &Interval) {
        let begun = *self.begun.get_or_insert(interval.from);
        self.errors += interval.errors;
        if self.style == Style::Silent {
            return;
        }
        let text = describe(interval, begun, self.errors);
        let mut stderr = io::stderr();
        let shown = match self.style {
            Style::OneLine => write!(stderr, "{START_OVER}{text}").and_then(|()| stderr.flush()),
            Style::Lines | Style::Silent => writeln!(stderr, "{text}"),
        };
        if shown.is_err() {
            // Nobody reads it any more; the measurement goes on.
            self.style = Style::Silent;
        }
    }

    /// Shows a line that stays.
    pub(crate) fn show_line(&mut self, line: impl Display) {
        if self.style != Style::Silent && writeln!(io::stderr(), "{line}").is_err() {
            // As above: nobody reads it any more.
            self.style = Style::Silent;
        }
    }

    /// Clears the line for what comes next.
    pub(crate) fn finish(self) {
        if self.style == Style::OneLine && write!(io::stderr(), "{START_OVER}").is_err() {
            // As in `show`: the terminal is gone.
        }
    }
}

fn describe(interval: &Interval, begun: Instant, errors: u64) -> String {
    let latency = &interval.samples.latency;
    let at = |percentile| {
        if latency.is_empty() {
            "-".to_owned()
        } else {
            span(latency.value_at_percentile(percentile) as f64)
        }
    };
    format!(
        "{:>7.1} s{}  {:>10.0}/s  p50 {}  p99 {}  errors {errors}",
        interval.to.saturating_duration_since(begun).as_secs_f64(),
        match interval.phase {
            Phase::WarmUp => "  warm-up",
            Phase::Measured => "",
            Phase::Drain => "  drain",
        },
        per_second(latency.len(), interval.span()),
        at(50.0),
        at(99.0),
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::describe;
    use crate::interval::{Interval, Phase, SampleKinds, Samples};

    #[test]
    fn line_tells_elapsed_rate_percentiles_and_errors() {
        let begun = Instant::now();
        let mut interval = Interval::new(
            Phase::Measured,
            begun + Duration::from_secs(2),
            Samples::new(SampleKinds::default()),
        );
        interval.to = begun + Duration::from_secs(4);
        interval
            .samples
            .latency
            .record_n(1000, 100)
            .expect("within the bounds");
        let text = describe(&interval, begun, 3);
        assert_eq!(
            text,
            "    4.0 s          50/s  p50 1.000 us  p99 1.000 us  errors 3"
        );
    }

    #[test]
    fn interval_without_an_answer_has_no_percentiles() {
        let begun = Instant::now();
        let interval = Interval::new(Phase::WarmUp, begun, Samples::new(SampleKinds::default()));
        assert_eq!(
            describe(&interval, begun, 0),
            "    0.0 s  warm-up           0/s  p50 -  p99 -  errors 0"
        );
    }
}

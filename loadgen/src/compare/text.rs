//! A comparison as text, and the sentences that page and text share.

use std::fmt::{self, Display, Formatter};

use crate::compare::{Comparison, Row, Unit};
use crate::quantity::{count, span};
use crate::report::latency_rows;

impl Row {
    /// A value of the row with its unit.
    pub(crate) fn value(&self, value: f64) -> String {
        match self.unit {
            Unit::Nanoseconds => span(value),
            Unit::PerSecond => format!("{}/s", count(value.round() as u64)),
        }
    }

    /// The difference and how far it may be off.
    pub(crate) fn change(&self) -> String {
        format!(
            "{:+.1} % ± {:.1} %",
            self.share * 100.0,
            self.share_off * 100.0
        )
    }

    pub(crate) fn finding(&self) -> &'static str {
        match (self.differs, self.share > 0.0) {
            (false, _) => "no difference seen",
            (true, true) => "higher in B",
            (true, false) => "lower in B",
        }
    }
}

impl Comparison<'_> {
    /// The answer.
    pub(crate) fn verdict(&self) -> String {
        if !self.invalid().is_empty() {
            return "INVALID: figures of a generator are not compared".to_owned();
        }
        let found: Vec<String> = self
            .differences()
            .map(|row| {
                format!(
                    "{} is {} by {:.1} %",
                    row.name,
                    row.finding(),
                    row.share.abs() * 100.0
                )
            })
            .collect();
        if found.is_empty() {
            "no difference seen".to_owned()
        } else {
            format!("difference: {}", found.join(", "))
        }
    }

    /// What the answer means.
    pub(crate) fn meaning(&self) -> Vec<String> {
        let mut lines = self.invalid();
        if lines.is_empty() && self.differences().next().is_none() {
            let mean = &self.rows[0];
            lines.push(format!(
                "what there is lies within the noise of the two runs, or below {:.0} % (--least); a \
                 change of the mean by more than about {:.1} % would have been seen",
                self.least * 100.0,
                (mean.share_off * 2.0).max(self.least) * 100.0
            ));
        }
        for (name, run) in self.names.iter().zip(self.runs) {
            let n_failed = run.outcome.tally.total();
            if n_failed > 0 {
                lines.push(format!(
                    "{name}: {} requests failed, so it was not the load that was asked for",
                    count(n_failed)
                ));
            }
        }
        lines.extend(self.unlike.iter().cloned());
        lines
    }
}

impl Display for Comparison<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (letter, (name, run)) in ["A", "B"].iter().zip(self.names.iter().zip(self.runs)) {
            let (target, load) = (&run.plan.target, run.plan.describe());
            writeln!(f, "{letter}            {name}: {target}, {load}")?;
        }
        let [a, b] = self.runs.map(|run| run.outcome.latency());
        writeln!(f, "latency      from the intended send, all requests")?;
        writeln!(f, "  {:<8}{:>15}{:>15}{:>12}", "", "A", "B", "B - A")?;
        for (name, a, b) in latency_rows([a, b]) {
            let change = if a > 0.0 { (b / a - 1.0) * 100.0 } else { 0.0 };
            let (a, b) = (span(a), span(b));
            writeln!(f, "  {name:<8}{a:>15}{b:>15}{change:>+10.1} %")?;
        }
        writeln!(
            f,
            "intervals    means, with the difference at 95 % and the probability of chance"
        )?;
        for row in &self.rows {
            let [a, b] = row.means.map(|mean| row.value(mean));
            let [n_a, n_b] = row.n_effective;
            writeln!(
                f,
                "  {:<8}{a:>15}{b:>15}   {:<20} p {:.4}, {n_a:.1} and {n_b:.1} effective: {}",
                row.name,
                row.change(),
                row.p,
                row.finding()
            )?;
        }
        writeln!(f, "verdict      {}", self.verdict())?;
        for line in self.meaning() {
            writeln!(f, "note         {line}")?;
        }
        Ok(())
    }
}

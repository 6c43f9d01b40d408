//! The search for the highest rate that holds: doubling, bisection, confirmation.
//!
//! Pure: it says which rate to try next and is told how it went. A rate is sought between the
//! highest that held and the lowest that did not; a confirmation that fails makes a rate one that
//! does not hold, and the next candidate lies a precision below it.

/// A search that goes down gives up below this rate.
const LEAST_RATE: f64 = 1.0;
/// Confirmations tried: a target that holds no rate twice has no highest one.
const CONFIRMATIONS_MAX: usize = 5;

/// What to do next; the caller must act on it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub(crate) enum Step {
    /// Try a rate in a window of the usual length.
    Try(f64),
    /// Try a rate in a longer window: it is the answer if it holds.
    Confirm(f64),
    /// The search is over: the highest rate that held, confirmed; or none.
    Done(Option<f64>),
}

/// A search under way.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    up_to: f64,
    /// Good and bad may differ by this part in the end.
    precision: f64,
    /// The highest rate that held.
    good: Option<f64>,
    /// The lowest rate that did not.
    bad: Option<f64>,
    n_confirmations: usize,
    step: Step,
}

impl Search {
    pub(crate) fn new(from: f64, up_to: f64, precision: f64) -> Search {
        Search {
            up_to,
            precision,
            good: None,
            bad: None,
            n_confirmations: 0,
            step: Step::Try(from.min(up_to)),
        }
    }

    pub(crate) fn step(&self) -> Step {
        self.step
    }

    /// The rate of the present step held, or did not.
    pub(crate) fn handle_result(&mut self, holds: bool) {
        self.step = match self.step {
            Step::Try(rate) if holds => {
                self.good = Some(rate);
                self.between()
            }
            Step::Try(rate) => {
                self.bad = Some(rate);
                self.between()
            }
            Step::Confirm(rate) if holds => Step::Done(Some(rate)),
            Step::Confirm(rate) => self.below(rate),
            Step::Done(found) => Step::Done(found),
        };
    }

    /// The next rate between the highest good and the lowest bad one.
    fn between(&self) -> Step {
        match (self.good, self.bad) {
            (Some(good), None) if good >= self.up_to => Step::Confirm(good),
            (Some(good), None) => Step::Try((good * 2.0).min(self.up_to)),
            (None, Some(bad)) if bad <= LEAST_RATE => Step::Done(None),
            (None, Some(bad)) => Step::Try((bad / 2.0).max(LEAST_RATE)),
            (Some(good), Some(bad)) if bad <= good * (1.0 + self.precision) => Step::Confirm(good),
            (Some(good), Some(bad)) => Step::Try((good + bad) / 2.0),
            (None, None) => unreachable!("a result was good or bad"),
        }
    }

    /// After a confirmation that failed.
    fn below(&mut self, rate: f64) -> Step {
        self.bad = Some(rate);
        self.n_confirmations += 1;
        let lower = rate * (1.0 - self.precision);
        if self.n_confirmations == CONFIRMATIONS_MAX || lower < LEAST_RATE {
            Step::Done(None)
        } else {
            Step::Confirm(lower)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Search, Step};

    /// Searches with a target that holds up to `limit`; the answer, and the rates tried.
    fn search(from: f64, up_to: f64, holds: impl Fn(Step) -> bool) -> (Option<f64>, Vec<f64>) {
        let mut search = Search::new(from, up_to, 0.05);
        let mut tried = Vec::new();
        loop {
            match search.step() {
                Step::Done(found) => return (found, tried),
                step @ (Step::Try(rate) | Step::Confirm(rate)) => {
                    tried.push(rate);
                    assert!(tried.len() < 100, "a search ends: {tried:?}");
                    search.handle_result(holds(step));
                }
            }
        }
    }

    fn up_to(limit: f64) -> impl Fn(Step) -> bool {
        move |step| matches!(step, Step::Try(rate) | Step::Confirm(rate) if rate <= limit)
    }

    #[test]
    fn answer_is_within_the_precision_below_the_limit() {
        for limit in [1.5, 999.0, 1000.0, 12_345.0, 800_000.0] {
            let (found, tried) = search(1000.0, 1e7, up_to(limit));
            let found = found.expect("a rate that holds");
            assert!(
                found <= limit && found * 1.051 > limit,
                "{found} of {limit}: {tried:?}"
            );
        }
    }

    #[test]
    fn rates_are_doubled_then_bisected_then_confirmed() {
        let (found, tried) = search(1000.0, 1e7, up_to(3100.0));
        assert_eq!(
            tried,
            [
                1000.0, 2000.0, 4000.0, 3000.0, 3500.0, 3250.0, 3125.0, 3000.0
            ]
        );
        assert_eq!(found, Some(3000.0));
    }

    #[test]
    fn search_stops_at_the_highest_rate_allowed() {
        let (found, tried) = search(1000.0, 5000.0, up_to(1e9));
        assert_eq!(
            (found, tried),
            (Some(5000.0), vec![1000.0, 2000.0, 4000.0, 5000.0, 5000.0])
        );
    }

    #[test]
    fn target_that_holds_nothing_has_no_answer() {
        assert_eq!(search(1000.0, 1e7, |_| false).0, None);
    }

    #[test]
    fn failed_confirmation_looks_lower_and_not_for_ever() {
        let steady = |step| match step {
            Step::Try(rate) => rate <= 2000.0,
            Step::Confirm(rate) => rate <= 1850.0,
            Step::Done(_) => false,
        };
        let (found, _) = search(1000.0, 1e7, steady);
        assert!(
            found.is_some_and(|rate| (1750.0..=1850.0).contains(&rate)),
            "{found:?}"
        );
        let never_twice = |step| matches!(step, Step::Try(rate) if rate <= 2000.0);
        assert_eq!(search(1000.0, 1e7, never_twice).0, None);
    }
}

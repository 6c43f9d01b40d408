//! `--start-at`: a moment of the wall clock at which the load begins, so that generators on several
//! machines begin together.
//!
//! How well together is up to the machines' clocks; loadgen does not set or compare them.

use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::interrupt::Interrupt;

/// How soon a wait sees an [`Interrupt`].
const LOOK_UP: Duration = Duration::from_millis(20);

/// A moment, written as `2026-01-31T12:00:00Z` or as seconds since 1970 behind an `@`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StartAt(pub(crate) SystemTime);

impl StartAt {
    /// Waits until less than a look-up is left, and says when it is; an error if the moment was past
    /// when the wait began, or the wait was interrupted.
    pub(crate) fn wait(self, interrupt: &Interrupt) -> Result<Instant, String> {
        self.0.duration_since(SystemTime::now()).map_err(|e| {
            format!(
                "--start-at was {:.3} s ago when the connections were open: choose a later time",
                e.duration().as_secs_f64()
            )
        })?;
        loop {
            let (now, clock) = (Instant::now(), SystemTime::now());
            // None left: this thread was woken late, by no more than a busy machine takes.
            let left = self.0.duration_since(clock).unwrap_or_default();
            if interrupt.is_raised() {
                return Err("interrupted before --start-at".to_owned());
            }
            if left <= LOOK_UP {
                return Ok(now + left);
            }
            // Not longer: the wall clock may be set meanwhile.
            thread::sleep((left - LOOK_UP / 2).min(LOOK_UP));
        }
    }
}

impl FromStr for StartAt {
    type Err = String;

    fn from_str(text: &str) -> Result<StartAt, String> {
        let moment = match text.strip_prefix('@') {
            Some(seconds) => seconds
                .parse()
                .ok()
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .and_then(|since| UNIX_EPOCH.checked_add(since)),
            None => humantime::parse_rfc3339(text).ok(),
        };
        moment.map(StartAt).ok_or_else(|| {
            format!(
                "{text:?} is no moment; use 2026-01-31T12:00:00Z, or @ and seconds since 1970, as \
                 in @$(($(date +%s) + 10))"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    use super::StartAt;
    use crate::interrupt::Interrupt;

    #[test]
    fn moments_are_read_in_both_forms() {
        let expected = StartAt(UNIX_EPOCH + Duration::from_millis(1_769_860_800_500));
        assert_eq!("2026-01-31T12:00:00.5Z".parse(), Ok(expected));
        assert_eq!("@1769860800.5".parse(), Ok(expected));
        for text in ["", "@", "@-1", "12:00", "2026-01-31", "tomorrow", "@1e300"] {
            let error = text.parse::<StartAt>().expect_err(text);
            assert!(error.contains("is no moment"), "{error}");
        }
    }

    #[test]
    fn wait_ends_at_the_moment_and_the_past_is_refused() {
        let from = Instant::now();
        let soon = SystemTime::now() + Duration::from_millis(400);
        let start = StartAt(soon).wait(&Interrupt::default()).expect("to come");
        assert!(start >= from + Duration::from_millis(380), "not before it");
        assert!(start < from + Duration::from_secs(5), "and soon after it");
        let past = SystemTime::now() - Duration::from_secs(1);
        let error = StartAt(past)
            .wait(&Interrupt::default())
            .expect_err("it is past");
        assert!(error.contains("choose a later time"), "{error}");
    }
}

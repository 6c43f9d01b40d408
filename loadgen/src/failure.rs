//! What can go wrong between the generator and its target: the kinds, one failure, and the count of
//! each kind.
//!
//! Every failure costs its connection: a stream that broke, lied or fell silent carries no more
//! requests, so that whatever is measured afterwards comes from connections that never failed. It
//! does not decide whether a run is worth anything; [`crate::outcome`] does.

use std::io;

use serde::{Deserialize, Serialize};

/// Why a request or a connection was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Refused,
    Reset,
    ClosedEarly,
    Corrupted,
    TimedOut,
    Other,
}

impl Kind {
    /// In the order in which reports name them, and in which [`Tally`] counts them.
    pub(crate) const ALL: [Kind; 6] = [
        Kind::Refused,
        Kind::Reset,
        Kind::ClosedEarly,
        Kind::Corrupted,
        Kind::TimedOut,
        Kind::Other,
    ];

    /// The words of the report.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Kind::Refused => "connect refused",
            Kind::Reset => "reset",
            Kind::ClosedEarly => "closed early",
            Kind::Corrupted => "corrupted",
            Kind::TimedOut => "timed out",
            Kind::Other => "other",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// One thing that went wrong, in words a user can act on.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: String) -> Failure {
        Failure { kind, message }
    }

    /// Sorts an error of the operating system into its [`Kind`]; `tried` says what was being done.
    pub(crate) fn from_io(tried: &str, error: &io::Error) -> Failure {
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused => Kind::Refused,
            // A write after the peer's RST gives EPIPE: the same event, seen a moment later.
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Kind::Reset,
            io::ErrorKind::TimedOut => Kind::TimedOut,
            _ => Kind::Other,
        };
        Failure {
            kind,
            message: format!("{tried}: {error}"),
        }
    }
}

/// How often each [`Kind`] happened, with the first message of each: the first is the cause, the
/// rest are often echoes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Counted>", into = "Vec<Counted>")]
pub(crate) struct Tally {
    counts: [u64; Kind::ALL.len()],
    first: [Option<String>; Kind::ALL.len()],
}

/// One kind of a [`Tally`] as it is stored; kinds that never happened are left out.
#[derive(Serialize, Deserialize)]
struct Counted {
    kind: Kind,
    count: u64,
    first: Option<String>,
}

impl From<Tally> for Vec<Counted> {
    fn from(tally: Tally) -> Vec<Counted> {
        let counted = Kind::ALL.into_iter().map(|kind| Counted {
            kind,
            count: tally.count(kind),
            first: tally.first(kind).map(str::to_owned),
        });
        counted.filter(|counted| counted.count > 0).collect()
    }
}

impl From<Vec<Counted>> for Tally {
    fn from(stored: Vec<Counted>) -> Tally {
        let mut tally = Tally::default();
        for counted in stored {
            let index = counted.kind.index();
            tally.counts[index] += counted.count;
            tally.first[index] = counted.first;
        }
        tally
    }
}

impl Tally {
    pub(crate) fn add(&mut self, failure: Failure) {
        let index = failure.kind.index();
        self.counts[index] += 1;
        self.first[index].get_or_insert(failure.message);
    }

    pub(crate) fn merge(&mut self, other: Tally) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        for (mine, theirs) in self.first.iter_mut().zip(other.first) {
            if mine.is_none() {
                *mine = theirs;
            }
        }
    }

    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.counts[kind.index()]
    }

    pub(crate) fn first(&self, kind: Kind) -> Option<&str> {
        self.first[kind.index()].as_deref()
    }

    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{Failure, Kind, Tally};

    #[test]
    fn every_kind_is_counted_at_its_own_place() {
        for kind in Kind::ALL {
            let mut tally = Tally::default();
            tally.add(Failure::new(kind, "what happened".to_owned()));
            for other in Kind::ALL {
                assert_eq!(
                    tally.count(other),
                    u64::from(other == kind),
                    "{kind:?} {other:?}"
                );
            }
        }
    }

    #[test]
    fn tally_is_stored_by_the_names_of_its_kinds() {
        let mut tally = Tally::default();
        for message in ["one", "two"] {
            tally.add(Failure::new(Kind::ClosedEarly, message.to_owned()));
        }
        let text = serde_json::to_string(&tally).expect("plain data");
        assert_eq!(text, r#"[{"kind":"closed-early","count":2,"first":"one"}]"#);
        let read: Tally = serde_json::from_str(&text).expect("what was just written");
        assert_eq!(
            (read.total(), read.first(Kind::ClosedEarly)),
            (2, Some("one"))
        );
    }

    #[test]
    fn merging_adds_counts_and_keeps_the_first_message() {
        let mut tally = Tally::default();
        tally.add(Failure::new(Kind::Reset, "one".to_owned()));
        let mut other = Tally::default();
        other.add(Failure::new(Kind::Reset, "two".to_owned()));
        other.add(Failure::new(Kind::Corrupted, "three".to_owned()));
        tally.merge(other);
        assert_eq!((tally.count(Kind::Reset), tally.total()), (2, 3));
        assert_eq!(tally.first(Kind::Reset), Some("one"));
        assert_eq!(tally.first(Kind::Corrupted), Some("three"));
    }
}

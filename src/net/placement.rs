//! Which loop becomes the home of a connection, before anything is made for it.
//!
//! The kernel spreads connections over the listeners of a port by a hash of the client's address: even over thousands,
//! and far from it over a few (MC-09). So the loop that has accepted one compares itself with others, and gives it
//! away if it would have clearly more. It asks two others, drawn at random: that is nearly as even as asking
//! all, and a loop that has just become empty is not overrun.
//!
//! A connection with callbacks never moves once it has begun (MC-07). That of a task may, from a loop that was found stuck
//! (`scheduler/rescue.rs`); it is still counted where it began.
//!
//! Connections are counted by the server, and moved by its listeners.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use crate::atomics::{AtomicU64, Ordering};
use crate::net::server::ServerCore;

/// How many connections more a loop may have than another: one, and this part of the other's, in percent. Giving away
/// costs a wake-up, so a difference that nobody feels is left alone.
const SLACK_PERCENT: u64 = 12;

/// What one loop has of a server. Counted by reference, for each loop apart.
#[derive(Debug)]
pub(crate) struct Share {
    pub(super) core: Arc<ServerCore>,
    /// Connections open. Written by any loop, a plain count; read by those that accept.
    pub(super) open: CachePadded<AtomicU64>,
}

/// The shares of all loops that a server has connections on.
#[derive(Debug)]
pub(crate) struct Shares(Box<[Arc<Share>]>);

impl Shares {
    pub(crate) fn new(core: &Arc<ServerCore>, loops: usize) -> Self {
        let share = |_| {
            Arc::new(Share {
                core: Arc::clone(core),
                open: CachePadded::default(),
            })
        };
        Shares((0..loops).map(share).collect())
    }

    /// A server of one loop has one share, whatever the number of that loop.
    pub(crate) fn of(&self, id: usize) -> &Arc<Share> {
        &self.0[id % self.0.len()]
    }

    /// S11: the loop that should have the connection which loop `here` has accepted and counted; `None` if it may
    /// keep it.
    pub(crate) fn better_home(&self, here: usize, rng: &mut fastrand::Rng) -> Option<usize> {
        let is_balancing = self.0.len() > 1 && self.0[0].core.is_balancing;
        let load = |id: usize| self.0[id].open.load(Ordering::Relaxed);
        is_balancing
            .then(|| better_home(here, self.0.len(), load, rng))
            .flatten()
    }
}

/// The loop that should have the connection which `here` has accepted and counted as its own; `None` if it may keep it.
/// `load` says how many connections a loop has; an old value places one connection less well.
fn better_home(
    here: usize,
    loops: usize,
    load: impl Fn(usize) -> u64,
    rng: &mut fastrand::Rng,
) -> Option<usize> {
    let own = load(here);
    let others = loops - 1;
    if own <= 1 || others == 0 {
        return None;
    }
    let other = |place: usize| (here + 1 + place) % loops;
    let first = rng.usize(..others);
    let mut lesser = (load(other(first)), other(first));
    if others > 1 {
        // Another than the first.
        let second = other((first + 1 + rng.usize(..others - 1)) % others);
        lesser = lesser.min((load(second), second));
    }
    let (least, there) = lesser;
    (!is_fair(own, least)).then_some(there)
}

/// Whether a loop with `own` connections need not give one to a loop with `other`.
fn is_fair(own: u64, other: u64) -> bool {
    100 * own <= (100 + SLACK_PERCENT) * other + 100
}

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use crate::net::placement::{better_home, is_fair};

    #[test]
    fn one_and_twelve_percent_more_is_fair() {
        let most = |other| (0..).take_while(|own| is_fair(*own, other)).last();
        let expected = [(0, 1), (1, 2), (8, 9), (9, 11), (25, 29), (100, 113)];
        for (other, own) in expected {
            assert_eq!(most(other), Some(own), "against {other}");
        }
    }

    #[test]
    fn connections_that_all_come_to_one_loop_end_evenly_spread() {
        for loops in [1, 2, 3, 8, 64] {
            let mut loads = vec![0; loops];
            let mut rng = fastrand::Rng::with_seed(7);
            for _ in 0..32 * loops {
                loads[0] += 1;
                if let Some(home) = better_home(0, loops, |id| loads[id], &mut rng) {
                    assert_ne!(home, 0);
                    loads[0] -= 1;
                    loads[home] += 1;
                }
            }
            assert_eq!(loads.iter().sum::<u64>(), 32 * loops as u64);
            let (least, most) = (loads.iter().min(), loads.iter().max());
            let is_far = 100 * most.expect("a loop") > 150 * least.expect("a loop");
            assert!(!is_far, "{loads:?}");
        }
    }

    #[test]
    fn loops_that_are_even_keep_what_they_accept() {
        let mut loads = [0; 4];
        let mut rng = fastrand::Rng::with_seed(7);
        for round in 0..100 {
            for id in 0..4 {
                loads[id] += 1;
                let home = better_home(id, 4, |id| loads[id], &mut rng);
                assert_eq!(home, None, "round {round}");
            }
        }
    }
}

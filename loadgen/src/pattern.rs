//! The bytes of the requests: one random strip, of which each request is a window.
//!
//! Where the window begins depends on the connection and on the request, so an echo of another
//! request, of another connection or of a stale buffer differs from what was sent. Sending needs no
//! copy and comparing needs no second buffer, whatever the size: that keeps the generator cheap.
//!
//! It cannot tell apart what does not differ: with requests of a few bytes two windows may look the
//! same.

use crate::failure::{Failure, Kind};

/// Distinct windows. A prime, so that steps of any other size visit all of them; and small enough
/// for the L2 cache.
const N_WINDOWS: usize = 65_521;
/// Window step from one request of a connection to the next: consecutive requests never share a
/// window.
const REQUEST_STEP: u64 = 7_919;
/// Window step from one connection to the next, for requests of the same number.
const CONNECTION_STEP: u64 = 104_729;

/// The strip, shared by all threads of a run and never changed.
#[derive(Debug)]
pub(crate) struct Pattern {
    strip: Vec<u8>,
    size: usize,
}

impl Pattern {
    /// A strip for requests of `size` bytes.
    pub(crate) fn new(size: usize) -> Pattern {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let strip = (0..size + N_WINDOWS)
            .map(|_| random_byte(&mut state))
            .collect();
        Pattern { strip, size }
    }

    /// Bytes of one request.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Where the window of request `request` of connection `connection` begins.
    pub(crate) fn window(&self, connection: u64, request: u64) -> usize {
        let step = connection
            .wrapping_mul(CONNECTION_STEP)
            .wrapping_add(request.wrapping_mul(REQUEST_STEP));
        (step % N_WINDOWS as u64) as usize
    }

    /// The whole request that begins at `window`.
    pub(crate) fn request(&self, window: usize) -> &[u8] {
        &self.strip[window..window + self.size]
    }

    /// Compares `echoed`, received from byte `at` of the request on, with what was sent.
    pub(crate) fn compare(&self, window: usize, at: usize, echoed: &[u8]) -> Result<(), Failure> {
        let sent = &self.request(window)[at..at + echoed.len()];
        if sent == echoed {
            return Ok(());
        }
        let wrong = sent.iter().zip(echoed).take_while(|(a, b)| a == b).count();
        Err(Failure::new(
            Kind::Corrupted,
            format!(
                "byte {} of {} came back as {:#04x}, sent was {:#04x}: the target does not echo \
                 what it receives",
                at + wrong,
                self.size,
                echoed[wrong],
                sent[wrong]
            ),
        ))
    }
}

/// SplitMix64, one byte a step: fixed seed, so that two runs send the same bytes.
fn random_byte(state: &mut u64) -> u8 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed >> 56) as u8
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn requests_of_one_connection_and_of_neighbours_differ() {
        let pattern = Pattern::new(64);
        let bytes = |connection, request| pattern.request(pattern.window(connection, request));
        for request in 0..1000 {
            assert_ne!(bytes(3, request), bytes(3, request + 1));
            assert_ne!(bytes(3, request), bytes(4, request));
        }
    }

    #[test]
    fn one_wrong_byte_is_found_and_named() {
        let pattern = Pattern::new(64);
        let window = pattern.window(1, 9);
        let mut echoed = pattern.request(window)[10..].to_vec();
        assert!(pattern.compare(window, 10, &echoed).is_ok());
        echoed[5] ^= 1;
        let failure = pattern
            .compare(window, 10, &echoed)
            .expect_err("a byte was changed");
        assert!(
            failure.message.starts_with("byte 15 of 64"),
            "{}",
            failure.message
        );
    }

    #[test]
    fn last_window_lies_inside_the_strip() {
        let pattern = Pattern::new(1);
        for request in 0..70_000 {
            assert_eq!(pattern.request(pattern.window(u64::MAX, request)).len(), 1);
        }
    }
}

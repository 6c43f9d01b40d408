//! The bytes of the requests: one random strip, of which each request is a window, or, for servers
//! that work, the 16 bytes of [`service_time`].
//!
//! Where the window begins depends on the connection and on the request, so an echo of another
//! request, of another connection or of a stale buffer differs from what was sent. Sending needs no
//! copy and comparing needs no second buffer, whatever the size: that keeps the generator cheap.
//! Sizes and service times are drawn from the seed and the request's place, so that nothing about a
//! request need be kept to know it again.
//!
//! It cannot tell apart what does not differ: with requests of a few bytes two windows may look the
//! same.

use crate::failure::{Failure, Kind};
use crate::quantity::Sizes;
use crate::random::{self, Random};
use crate::service_time::{self, ServiceTime};

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
    sizes: Sizes,
    service_time: Option<ServiceTime>,
    seed: u64,
}

/// What one request looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    window: usize,
    pub(crate) len: usize,
    /// The bytes, when the pattern asks for work.
    work: [u8; service_time::REQUEST_BYTES],
}

impl Pattern {
    /// A pattern for requests of `sizes`; with a service time they are
    /// [`service_time::REQUEST_BYTES`] long whatever `sizes` says.
    pub(crate) fn new(sizes: Sizes, service_time: Option<ServiceTime>, seed: u64) -> Pattern {
        let sizes = match service_time {
            Some(_) => Sizes::exactly(service_time::REQUEST_BYTES),
            None => sizes,
        };
        // The same bytes whatever the seed of the run.
        let mut random = Random::new(0);
        Pattern {
            strip: (0..sizes.most + N_WINDOWS)
                .map(|_| random.next() as u8)
                .collect(),
            sizes,
            service_time,
            seed,
        }
    }

    /// Bytes of the largest request.
    pub(crate) fn size_max(&self) -> usize {
        self.sizes.most
    }

    /// Request `number` of connection `connection`.
    pub(crate) fn request(&self, connection: u64, number: u64) -> Request {
        let step = connection
            .wrapping_mul(CONNECTION_STEP)
            .wrapping_add(number.wrapping_mul(REQUEST_STEP));
        let mut request = Request {
            window: (step % N_WINDOWS as u64) as usize,
            len: self.sizes.most,
            work: [0; service_time::REQUEST_BYTES],
        };
        if self.sizes.least < self.sizes.most {
            let n_sizes = (self.sizes.most - self.sizes.least + 1) as u64;
            let drawn = random::at(self.seed, connection, number) % n_sizes;
            request.len = self.sizes.least + drawn as usize;
        }
        if let Some(law) = &self.service_time {
            let work = law.draw(random::at(self.seed, connection, number));
            // Connections are fewer than 2^24 and make fewer than 2^40 requests.
            request.work = service_time::request((connection << 40) | number, work);
        }
        request
    }

    /// All bytes of a request.
    pub(crate) fn bytes<'a>(&'a self, request: &'a Request) -> &'a [u8] {
        if self.service_time.is_some() {
            &request.work
        } else {
            &self.strip[request.window..request.window + request.len]
        }
    }

    /// Compares `echoed`, received from byte `at` of the request on, with what was sent.
    pub(crate) fn compare(
        &self,
        request: &Request,
        at: usize,
        echoed: &[u8],
    ) -> Result<(), Failure> {
        let sent = &self.bytes(request)[at..at + echoed.len()];
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
                request.len,
                echoed[wrong],
                sent[wrong]
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;
    use crate::quantity::Sizes;

    fn pattern(size: usize) -> Pattern {
        Pattern::new(Sizes::exactly(size), None, 1)
    }

    #[test]
    fn requests_of_one_connection_and_of_neighbours_differ() {
        let pattern = pattern(64);
        let bytes = |connection, number| {
            let request = pattern.request(connection, number);
            pattern.bytes(&request).to_vec()
        };
        for number in 0..1000 {
            assert_ne!(bytes(3, number), bytes(3, number + 1));
            assert_ne!(bytes(3, number), bytes(4, number));
        }
    }

    #[test]
    fn one_wrong_byte_is_found_and_named() {
        let pattern = pattern(64);
        let request = pattern.request(1, 9);
        let mut echoed = pattern.bytes(&request)[10..].to_vec();
        assert!(pattern.compare(&request, 10, &echoed).is_ok());
        echoed[5] ^= 1;
        let failure = pattern
            .compare(&request, 10, &echoed)
            .expect_err("a byte was changed");
        assert!(
            failure.message.starts_with("byte 15 of 64"),
            "{}",
            failure.message
        );
    }

    #[test]
    fn last_window_lies_inside_the_strip() {
        let pattern = pattern(1);
        for number in 0..70_000 {
            let request = pattern.request(u64::MAX, number);
            assert_eq!(pattern.bytes(&request).len(), 1);
        }
    }

    /// 20,000 draws from 100 sizes: the mean of a uniform law is known to 0.6 % with four standard
    /// errors.
    #[test]
    fn sizes_of_a_range_reach_both_ends_and_are_spread_evenly() {
        let sizes = Sizes {
            least: 1,
            most: 100,
        };
        let pattern = Pattern::new(sizes, None, 5);
        let lens: Vec<usize> = (0..20_000).map(|n| pattern.request(2, n).len).collect();
        assert_eq!(
            (lens.iter().min(), lens.iter().max()),
            (Some(&1), Some(&100))
        );
        let mean = lens.iter().sum::<usize>() as f64 / lens.len() as f64;
        assert!((mean - 50.5).abs() < 0.9, "{mean}");
    }

    #[test]
    fn request_for_work_is_16_bytes_with_its_own_number() {
        let law = "exp:500us".parse().expect("a law");
        let pattern = Pattern::new(Sizes::exactly(64), Some(law), 1);
        assert_eq!(pattern.size_max(), 16);
        let (one, two) = (pattern.request(1, 1), pattern.request(1, 2));
        assert_eq!(pattern.bytes(&one)[..8], ((1_u64 << 40) | 1).to_le_bytes());
        assert_ne!(pattern.bytes(&one), pattern.bytes(&two));
    }
}

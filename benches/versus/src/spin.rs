//! Requests that ask for CPU time: what servers and generator of the tests with work agree on.
//!
//! A request has 16 bytes: a number, and how many nanoseconds of CPU time it takes (u64 each, little
//! endian). It is answered with the same 16 bytes after that time was burnt. CPU time, not time: on two
//! CPUs the generator competes with the server, and what a server is kept from doing must not count as
//! done.
//!
//! One service time is special: [`ASK_HOME`] asks which loop has accepted the connection, so that a
//! generator can load connections of one loop only.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Bytes of a request and of an answer.
pub const SIZE: usize = 16;

/// The service time of a request that is answered with the accepting loop's number in its place.
pub const ASK_HOME: u64 = u64::MAX;

/// The request with this number that takes `service`.
#[must_use]
pub fn request(number: u64, service: u64) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..].copy_from_slice(&service.to_le_bytes());
    bytes
}

/// The second half of a request or an answer: the service time, or the home.
#[must_use]
pub fn service_of(bytes: &[u8; SIZE]) -> u64 {
    let (_, service) = bytes.split_at(8);
    u64::from_le_bytes(service.try_into().expect("the second half has 8 bytes"))
}

/// What every server does with a request, in place: burns its time, or fills in `home`.
///
/// `home` is the loop that accepted the connection, or 0 where connections have none.
pub fn answer(bytes: &mut [u8; SIZE], home: usize) {
    match service_of(bytes) {
        ASK_HOME => bytes[8..].copy_from_slice(&(home as u64).to_le_bytes()),
        service => burn(Duration::from_nanos(service)),
    }
}

/// Uses that much CPU time of the calling thread.
fn burn(time: Duration) {
    if time.is_zero() {
        return;
    }
    let end = cpu_time() + time;
    while cpu_time() < end {
        std::hint::spin_loop();
    }
}

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(now).expect("no thread has run for a negative time")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::spin::{ASK_HOME, answer, cpu_time, request, service_of};

    #[test]
    fn an_answer_is_the_request_after_its_time() {
        let (started, before) = (Instant::now(), cpu_time());
        let mut bytes = request(7, 3_000_000);
        answer(&mut bytes, 5);
        assert_eq!(bytes, request(7, 3_000_000));
        let burnt = cpu_time() - before;
        assert!(burnt >= Duration::from_millis(3), "{burnt:?}");
        assert!(started.elapsed() >= Duration::from_millis(3));
    }

    #[test]
    fn a_question_for_the_home_is_answered_at_once() {
        let mut bytes = request(1, ASK_HOME);
        answer(&mut bytes, 1);
        assert_eq!(service_of(&bytes), 1);
    }
}

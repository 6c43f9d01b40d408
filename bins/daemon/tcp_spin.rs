//! The service for measuring schedulers: each request says how much CPU time its answer has to cost.
//!
//! A request is 16 bytes, two little-endian `u64`: an id, and a service time in nanoseconds. It is burnt in one step of
//! the connection's task, which any loop may run, and then the same 16 bytes are sent back. Requests of one
//! connection are answered in order, one a step; those of different connections compete for the loops. What comes
//! before the caller's end of stream is answered; a rest that is no whole request is not.
//!
//! What is burnt is time of the thread's CPU clock, not of the wall: a loop that is kept off its core has to
//! do all of its work afterwards, as with real work. That clock costs a system call, so the burning overshoots by about
//! that, well under a microsecond.

use std::{hint::black_box, io, net::SocketAddr, time::Duration};

use garland::{LoopHandle, NetError, TcpStream};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::{
    services::{self, TcpServing, within},
    settings::TcpSpin,
    tally::{Counted, Tally},
};

/// Bytes of a request, and of its answer.
const REQUEST: usize = 16;
/// Requests that are received at once, at most.
const BATCH: usize = 64;
/// Steps of work between two looks at the clock: some ten nanoseconds, little beside the look itself.
const STEPS: u64 = 32;

/// Starts one service: its listeners are bound on every loop when this comes back.
pub(crate) fn listen(
    handle: &LoopHandle,
    bind: &[SocketAddr],
    settings: &TcpSpin,
) -> Result<TcpServing, NetError> {
    let options = services::options(bind, &settings.listener);
    let settings = settings.clone();
    let tallies = Tally::for_loops(handle.loops());
    let counting = tallies.clone();
    let server = handle.serve(options, move |stream| {
        serve(stream, settings.clone(), Counted::begin(&counting))
    })?;
    Ok(TcpServing { server, tallies })
}

async fn serve(stream: TcpStream, settings: TcpSpin, mut counted: Counted) {
    let ended = answer_all(&stream, &settings, &counted).await;
    counted.ends_by(services::reason_of(&stream, &ended));
}

async fn answer_all(stream: &TcpStream, settings: &TcpSpin, counted: &Counted) -> io::Result<()> {
    let mut buffer = [0; BATCH * REQUEST];
    let mut filled = 0;
    let mut has_warned = false;
    loop {
        let n_read = within(settings.idle_timeout, stream.read(&mut buffer[filled..])).await?;
        if n_read == 0 {
            return Ok(());
        }
        filled += n_read;
        let (requests, rest) = buffer[..filled].as_chunks::<REQUEST>();
        for request in requests {
            let asked = service_time(request);
            if asked > settings.max_service_time && !has_warned {
                has_warned = true;
                let allowed = settings.max_service_time;
                tracing::warn!(
                    ?asked,
                    ?allowed,
                    "a service time was cut to max_service_time"
                );
            }
            burn(asked.min(settings.max_service_time));
            within(settings.idle_timeout, stream.write_all(request)).await?;
            counted.answered(REQUEST);
            // The next one is a step of its own: another loop may take it, and other tasks of this one come first.
            garland::yield_now().await;
        }
        let n_left = rest.len();
        buffer.copy_within(filled - n_left..filled, 0);
        filled = n_left;
    }
}

fn service_time(request: &[u8; REQUEST]) -> Duration {
    let [_id, time] = request.as_chunks::<8>().0 else {
        unreachable!("a request is two numbers");
    };
    Duration::from_nanos(u64::from_le_bytes(*time))
}

/// Keeps this thread's CPU busy for that much of its time.
fn burn(time: Duration) {
    if time.is_zero() {
        return;
    }
    let end = cpu_time() + time;
    let mut work = 1;
    while cpu_time() < end {
        work = (0..STEPS).fold(work, |work: u64, step| {
            black_box(work.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ step)
        });
    }
}

/// What this thread has had of its CPU so far.
fn cpu_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    let whole = u64::try_from(tv_sec).expect("a thread's time begins at zero");
    let part = u32::try_from(tv_nsec).expect("a second has a thousand million of them");
    Duration::new(whole, part)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::tcp_spin::{burn, cpu_time, service_time};

    #[test]
    fn the_service_time_is_the_second_number() {
        let mut request = [0; 16];
        request[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        request[8..].copy_from_slice(&1_500_000_000_u64.to_le_bytes());
        assert_eq!(service_time(&request), Duration::from_millis(1500));
    }

    #[test]
    fn as_much_cpu_time_is_burnt_as_was_asked_for() {
        for asked in [0, 1, 50, 3000, 20_000].map(Duration::from_micros) {
            let begun = cpu_time();
            burn(asked);
            let burnt = cpu_time() - begun;
            // The clock of the thread does not run while others have the CPU.
            let limit = asked + Duration::from_millis(2);
            assert!(burnt >= asked && burnt < limit, "{asked:?}: {burnt:?}");
        }
    }
}

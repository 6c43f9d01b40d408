//! Open loop against arithmetic: known delays, a server that stalls, more load than can be carried.

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Ran, echo, echo_server, eventually, loadgen, run, server};

/// Answers at once, except in the first 100 ms of each second: what arrives then is answered at
/// their end.
fn stalling_server() -> SocketAddr {
    let zero = Instant::now();
    server(move |stream| {
        echo(stream, move |_| {
            let into = zero.elapsed().subsec_nanos();
            if let Some(rest) = 100_000_000_u32.checked_sub(into) {
                thread::sleep(Duration::from_nanos(rest.into()));
            }
            true
        });
    })
}

/// A tenth of the requests are due in a stall and wait between 0 and 100 ms, evenly spread: 1 % of
/// all wait more than 90 ms. The window of 3 s holds three stalls wherever it begins. There is one
/// connection, so nearly all of that wait is in the generator: it is in the latency from the
/// intended send, and not in that from the real one.
#[test]
fn stall_shows_in_p99_as_arithmetic_says() {
    let address = stalling_server();
    let options = [
        "--connections",
        "1",
        "--rate",
        "500",
        "--arrivals",
        "constant",
        "--warmup",
        "100ms",
        "--duration",
        "3s",
    ];
    let ran = eventually(
        || run(address, &options),
        |ran| {
            let [intended, real] = ran.both_nanos("p99");
            (85.5e6..94.5e6).contains(&intended) && real < 20e6
        },
    );
    assert!(ran.is_ok(), "{ran:#?}");
    assert_eq!(ran.answered("measured"), 1500, "{ran:#?}");
    assert!(
        ran.both_nanos("max")[1] > 60e6,
        "one request met each stall: {ran:#?}"
    );
}

/// The same stall in a closed loop: one request meets it, thousands do not.
#[test]
fn closed_loop_hardly_sees_the_stall() {
    let address = stalling_server();
    let options = ["--connections", "1", "--warmup", "0s", "--duration", "2s"];
    let ran = eventually(|| run(address, &options), |ran| ran.nanos("p99") < 20e6);
    let [intended, real] = ran.both_nanos("max");
    assert!(intended > 60e6 && intended == real, "{ran:#?}");
    assert!(
        ran.stdout.contains("closed loop: a target that stalls"),
        "{ran:#?}"
    );
}

#[test]
fn known_delay_of_the_server_is_the_latency_from_both_moments() {
    let delayed = |delay: Duration| {
        server(move |stream| {
            echo(stream, move |_| {
                thread::sleep(delay);
                true
            });
        })
    };
    let options = [
        "--connections",
        "8",
        "--rate",
        "300",
        "--warmup",
        "0s",
        "--duration",
        "700ms",
    ];
    let at_once = echo_server();
    eventually(|| run(at_once, &options), |ran| ran.nanos("p50") < 0.6e6);
    let after_1_ms = delayed(Duration::from_millis(1));
    eventually(
        || run(after_1_ms, &options),
        |ran| {
            assert!(ran.nanos("min") >= 1e6, "faster than the server: {ran:#?}");
            let [intended, real] = ran.both_nanos("p50");
            (1e6..1.6e6).contains(&intended) && (1e6..1.6e6).contains(&real)
        },
    );
}

/// Due are 500 requests, one each millisecond; one connection carries one in 10 ms. The rest waits
/// in the generator until the drain is over, and is told.
#[test]
fn more_than_the_target_carries_is_held_back_and_counted() {
    let address = server(|stream| {
        echo(stream, |_| {
            thread::sleep(Duration::from_millis(10));
            true
        });
    });
    let options = [
        "--connections",
        "1",
        "--rate",
        "1k",
        "--arrivals",
        "constant",
        "--warmup",
        "0s",
        "--duration",
        "500ms",
        "--drain",
        "200ms",
    ];
    let ran = run(address, &options);
    let (answered, missed) = (ran.answered("measured"), counts(&ran, "sends")[1]);
    let timed_out = u64::from(ran.stdout.contains("timed out 1"));
    assert_eq!(answered + missed + timed_out, 500, "{ran:#?}");
    assert!((20..=70).contains(&answered), "{ran:#?}");
    assert!(
        ran.stdout.contains("were due before a connection was free"),
        "{ran:#?}"
    );
    assert!(
        ran.stdout.contains("percentiles are better than the truth"),
        "{ran:#?}"
    );
    let [intended, real] = ran.both_nanos("p90");
    assert!(
        intended > 4.0 * real,
        "the wait is in the latency: {ran:#?}"
    );
}

/// The last request is due long before the end: the run lasts as long as it was asked to.
#[test]
fn run_with_little_to_do_lasts_to_its_end() {
    let options = [
        "--connections",
        "1",
        "--rate",
        "5",
        "--arrivals",
        "constant",
        "--warmup",
        "0s",
        "--duration",
        "390ms",
    ];
    let ran = run(echo_server(), &options);
    assert!(ran.is_ok(), "{ran:#?}");
    assert!(
        ran.line("measured").starts_with("390.0 ms, 2 requests"),
        "{ran:#?}"
    );
    assert!(!ran.stdout.contains("ended early"), "{ran:#?}");
}

/// The whole numbers of a line.
fn counts(ran: &Ran, label: &str) -> Vec<u64> {
    let words = ran.line(label).split(' ');
    words.filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn timetable_depends_on_the_seed_alone_and_is_one_for_all_threads() {
    let address = echo_server();
    let sent = |threads, seed| {
        let options = [
            "--connections",
            "4",
            "--rate",
            "2k",
            "--warmup",
            "0s",
            "--duration",
            "400ms",
            "--threads",
            threads,
            "--seed",
            seed,
        ];
        let ran = run(address, &options);
        assert!(ran.is_ok(), "{ran:#?}");
        assert!(
            ran.line("load").ends_with(&format!("seed {seed}")),
            "{ran:#?}"
        );
        ran.answered("measured")
    };
    assert_eq!(sent("1", "5"), sent("2", "5"));
    let others: Vec<u64> = ["6", "7", "8"].map(|seed| sent("1", seed)).to_vec();
    assert!(others.iter().any(|n| *n != others[0]), "{others:?}");
    // Of 800 requests: four standard deviations.
    assert!(others.iter().all(|n| (687..=913).contains(n)), "{others:?}");
}

#[test]
fn realised_gaps_stand_beside_those_asked_for() {
    let address = echo_server();
    let options = [
        "--connections",
        "16",
        "--rate",
        "1k",
        "--arrivals",
        "burst:5",
        "--warmup",
        "0s",
        "--duration",
        "500ms",
    ];
    // Of five gaps one is five times the mean: a variation of 2, less the cut at the end.
    eventually(
        || run(address, &options),
        |ran| {
            let [done, asked] = variations(ran);
            assert!((1.95..2.05).contains(&asked), "{ran:#?}");
            (1.8..2.2).contains(&done)
        },
    );
}

/// The variations of the gaps, realised and asked for.
fn variations(ran: &Ran) -> [f64; 2] {
    let parts = ran.line("arrivals").split("; asked: ");
    let numbers = parts.map(|part| {
        let (_, rest) = part.split_once("variation ").expect("a variation");
        let number = rest.split(' ').next().expect("split gives a part at least");
        number.parse().expect("a number")
    });
    let both: Vec<f64> = numbers.collect();
    both.try_into().expect("realised and asked")
}

/// The promise is for a free core: it is held against the runs that had one. Where none had, as on
/// a machine that others fill, at least half of the sends must keep it.
#[test]
fn send_lag_at_20k_a_second_stays_below_100_us() {
    let address = echo_server();
    let options = [
        "--connections",
        "16",
        "--rate",
        "20k",
        "--arrivals",
        "constant",
        "--pace",
        "spin",
        "--warmup",
        "5ms",
        "--duration",
        "50ms",
    ];
    let (mut with_a_core, mut without) = (f64::INFINITY, f64::INFINITY);
    let mut n_with_a_core = 0;
    for _ in 0..30 {
        let ran = run(address, &options);
        let waiting = ran
            .line("thread 0")
            .split(", ")
            .find_map(|figure| figure.strip_suffix(" % waiting for a CPU"))
            .expect("Linux tells it");
        if waiting.parse::<f64>().expect("a number") < 1.0 {
            n_with_a_core += 1;
            with_a_core = with_a_core.min(ran.percentile("send lag", "p99"));
        } else {
            without = without.min(ran.percentile("send lag", "p50"));
        }
        if with_a_core < 100e3 {
            return;
        }
    }
    // Of a few runs each may have begun late, because another thread of the process had to wait.
    assert!(
        n_with_a_core < 5,
        "p99 with a free core: {with_a_core} ns, the least of {n_with_a_core}"
    );
    assert!(without < 100e3, "p50 without one: {without} ns");
}

/// No program sends 50 million datagrams a second, nor a quarter of a million in 200 ms, after which
/// it would have to wait for the target: the generator says that the figures are its own.
#[test]
fn generator_that_cannot_keep_up_declares_its_figures_invalid() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("a bound socket has an address");
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((n, peer)) = socket.recv_from(&mut buffer) {
            socket
                .send_to(&buffer[..n], peer)
                .expect("loopback takes it");
        }
    });
    let ran = loadgen(&[
        "run",
        &format!("udp://{address}"),
        "--connections",
        "64",
        "--depth",
        "4096",
        "--rate",
        "50M",
        "--warmup",
        "0s",
        "--duration",
        "200ms",
        "--drain",
        "500ms",
        "--assert",
        "max<1ns",
    ]);
    assert_eq!(
        ran.code,
        Some(4),
        "not even the failed assertion counts: {ran:#?}"
    );
    assert!(
        ran.stdout
            .ends_with("verdict      INVALID: generator-bound\n"),
        "{ran:#?}"
    );
    assert!(ran.stderr.contains("generator"), "{ran:#?}");
}

#[test]
fn server_that_works_gets_16_bytes_and_is_measured_with_its_work() {
    let address = server(|mut stream| {
        let mut request = [0; 16];
        while stream.read_exact(&mut request).is_ok() {
            let nanos = u64::from_le_bytes(request[8..].try_into().expect("eight bytes"));
            let until = Instant::now() + Duration::from_nanos(nanos);
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            if stream.write_all(&request).is_err() {
                return;
            }
        }
    });
    let options = [
        "--connections",
        "4",
        "--rate",
        "100",
        "--service-time",
        "bimodal:100us,20ms,0.1",
        "--warmup",
        "0s",
        "--duration",
        "1s",
        "--seed",
        "3",
    ];
    let ran = run(address, &options);
    assert!(ran.is_ok(), "{ran:#?}");
    assert!(
        ran.nanos("min") >= 100e3 && ran.nanos("max") >= 20e6,
        "{ran:#?}"
    );
    assert!(
        ran.line("load").contains("bimodal:100us,20ms,0.1"),
        "{ran:#?}"
    );
}

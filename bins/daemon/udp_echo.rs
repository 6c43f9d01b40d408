//! RFC 862 echo over UDP: each datagram is answered once, byte for byte, or not at all.
//!
//! Two echo services that are made to answer each other never stop (CVE-2024-2169): one datagram with a
//! forged source is enough. So what may come from a service is not answered; see [`is_refused`]. An
//! answer is never larger than its question, so nobody's flood is amplified.
//!
//! One socket a loop and address; each counts for itself.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use garland::{DatagramProtocol, DatagramTransport, EndpointOptions, LoopHandle, NetError, Server};

use crate::settings::UdpEcho;

/// A UDP service that runs.
pub(crate) struct UdpServing {
    /// One for each address.
    pub(crate) servers: Vec<Server>,
    tallies: Tallies,
}

/// What the sockets of one service have counted, each for itself.
type Tallies = Arc<Mutex<Vec<Arc<Tally>>>>;

/// What one socket has counted. Written by its loop alone, read by anybody at any time.
#[derive(Default)]
struct Tally {
    home: usize,
    answered: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
    too_large: AtomicU64,
    failed: AtomicU64,
}

/// What a service has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) echoed: u64,
    /// Sent back, those that failed included.
    pub(crate) bytes: u64,
    /// By their source.
    pub(crate) refused: u64,
    /// Larger than allowed, or the system did not take the answer.
    pub(crate) dropped: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            echoed,
            refused,
            dropped,
            bytes: _,
        } = self;
        write!(f, "{echoed} echoed, {refused} refused, {dropped} dropped")
    }
}

/// Starts one service: its sockets are bound on every loop when this comes back.
pub(crate) fn serve(
    handle: &LoopHandle,
    bind: &[SocketAddr],
    settings: &UdpEcho,
) -> Result<UdpServing, NetError> {
    let mut serving = UdpServing {
        servers: Vec::new(),
        tallies: Tallies::default(),
    };
    for address in bind {
        let options = EndpointOptions::from(*address).batch(settings.batch);
        let (settings, tallies) = (settings.clone(), Arc::clone(&serving.tallies));
        let server = handle.create_datagram_endpoint(options, move |local| {
            let tally = Arc::new(Tally {
                home: local.id().index(),
                ..Tally::default()
            });
            let mut all = tallies.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(Arc::clone(&tally));
            Echo {
                settings: settings.clone(),
                tally,
            }
        })?;
        serving.servers.push(server);
    }
    Ok(serving)
}

impl UdpServing {
    /// Of all loops together.
    pub(crate) fn counts(&self) -> Counts {
        self.sum(|_| true)
    }

    /// Of one loop, on all its sockets of the service.
    pub(crate) fn counts_of(&self, home: usize) -> Counts {
        self.sum(|tally| tally.home == home)
    }

    fn sum(&self, which: impl Fn(&Tally) -> bool) -> Counts {
        let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut sum = Counts::default();
        for tally in tallies.iter().filter(|tally| which(tally)) {
            let failed = read(&tally.failed);
            // An answer is counted when it is given to the socket, and it may fail later.
            sum.echoed += read(&tally.answered).saturating_sub(failed);
            sum.bytes += read(&tally.bytes);
            sum.refused += read(&tally.refused);
            sum.dropped += read(&tally.too_large) + failed;
        }
        sum
    }
}

/// The echo on one socket.
struct Echo {
    settings: UdpEcho,
    tally: Arc<Tally>,
}

impl DatagramProtocol for Echo {
    fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], addr: SocketAddr) {
        let ports = &self.settings.refuse_source_ports;
        if is_refused(addr, transport.local_addr().port(), ports) {
            tracing::debug!(%addr, "a datagram was refused by its source");
            return count(&self.tally.refused);
        }
        if data.len() > self.settings.max_datagram {
            return count(&self.tally.too_large);
        }
        count(&self.tally.answered);
        add(&self.tally.bytes, data.len());
        transport.send_to(data, addr);
    }

    fn error_received(&mut self, _transport: &DatagramTransport, error: &io::Error) {
        // Nothing is known of errors on the way: sockets without a fixed peer do not hear of them.
        tracing::debug!(%error, "an answer was not sent");
        count(&self.tally.failed);
    }
}

fn count(counter: &AtomicU64) {
    add(counter, 1);
}

/// So many more; no other thread writes.
fn add(counter: &AtomicU64, n: usize) {
    counter.store(
        counter.load(Ordering::Relaxed) + n as u64,
        Ordering::Relaxed,
    );
}

/// Whether a datagram from `source` is not answered by the service at `own_port`.
///
/// Never: port 0, to which nothing can be sent; multicast and broadcast addresses, from which nothing
/// comes; the own port, from whatever address: that is this service, or one like it elsewhere.
fn is_refused(source: SocketAddr, own_port: u16, ports: &[u16]) -> bool {
    let is_nobody = match source.ip() {
        IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast() || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_multicast() || ip.is_unspecified(),
    };
    let port = source.port();
    is_nobody || port == 0 || port == own_port || ports.contains(&port)
}

#[cfg(test)]
mod tests {
    use crate::udp_echo::is_refused;

    #[track_caller]
    fn judged(source: &str) -> bool {
        let source = source.parse().expect("an address");
        is_refused(source, 7007, &[7, 19])
    }

    #[test]
    fn r20_whatever_may_be_a_service_is_refused() {
        for source in [
            "127.0.0.1:7",
            "192.0.2.1:19",
            "[::1]:7",
            "127.0.0.1:7007",
            "192.0.2.1:7007",
            "192.0.2.1:0",
            "255.255.255.255:5000",
            "224.0.0.1:5000",
            "0.0.0.0:5000",
            "[ff02::1]:5000",
            "[::]:5000",
        ] {
            assert!(judged(source), "{source}");
        }
    }

    #[test]
    fn ordinary_sources_are_answered() {
        for source in ["127.0.0.1:5000", "192.0.2.255:8", "[2001:db8::1]:65535"] {
            assert!(!judged(source), "{source}");
        }
    }
}

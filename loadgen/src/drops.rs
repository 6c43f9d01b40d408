//! Answers that reached this machine and were dropped because a socket's receive buffer was full:
//! the kernel's own count, from `/proc/self/net/udp`.
//!
//! Without it a generator that is too slow would report its own loss as the target's. Where the
//! kernel does not tell, none are counted.

use std::collections::BTreeSet;
use std::fs;

/// Sums the drops of the sockets on the local `ports`.
pub(crate) fn dropped(ports: &BTreeSet<u16>) -> u64 {
    ["/proc/self/net/udp", "/proc/self/net/udp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .map(|table| sum(&table, ports))
        .sum()
}

/// Second column: `ADDRESS:PORT` in hexadecimal; last column: drops.
fn sum(table: &str, ports: &BTreeSet<u16>) -> u64 {
    let drops = |line: &str| {
        let mut words = line.split_whitespace();
        let (_, port) = words.nth(1)?.rsplit_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        ports
            .contains(&port)
            .then(|| words.next_back()?.parse::<u64>().ok())?
    };
    table.lines().filter_map(drops).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::UdpSocket;

    use super::{dropped, sum};

    #[test]
    fn drops_of_the_named_ports_are_added() {
        let table = "\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  219: 0100007F:1B5F 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 12345 2 0000000000000000 7
  220: 00000000:1B60 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 12346 2 0000000000000000 5
";
        assert_eq!(sum(table, &BTreeSet::from([7007])), 7);
        assert_eq!(sum(table, &BTreeSet::from([7007, 7008])), 12);
        assert_eq!(sum(table, &BTreeSet::new()), 0);
    }

    /// The kernel drops what does not fit: more is sent to a socket than any default buffer holds.
    #[test]
    fn kernel_counts_what_a_full_socket_drops() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("a bound socket has an address");
        let ports = BTreeSet::from([address.port()]);
        assert_eq!(dropped(&ports), 0);
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        for _ in 0..2000 {
            sender
                .send_to(&[0; 60_000], address)
                .expect("loopback takes it");
        }
        assert!(dropped(&ports) > 0);
    }
}

//! What a run is aimed at: `tcp://HOST:PORT` or `udp://HOST:PORT`, read, resolved, and tried once
//! where a name has several addresses.
//!
//! All connections of a run go to one address: a figure mixed from two hosts would describe
//! neither.

use std::fmt;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

/// How long one address of a name with several may take to answer the trial connection.
const TRIAL_LIMIT: Duration = Duration::from_secs(2);

/// What carries the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// The word for what carries the requests one after the other.
    pub(crate) fn lane(self) -> &'static str {
        match self {
            Protocol::Tcp => "connection",
            Protocol::Udp => "sender",
        }
    }
}

/// A target as the user wrote it: not yet resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) protocol: Protocol,
    host: String,
    port: u16,
}

impl Target {
    /// The one address of the whole run.
    pub(crate) fn resolve(&self) -> Result<SocketAddr, String> {
        let addresses: Vec<SocketAddr> = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|e| format!("cannot resolve host {:?}: {e}; check the name", self.host))?
            .collect();
        match addresses.as_slice() {
            [] => Err(format!(
                "host {:?} has no address; check the name",
                self.host
            )),
            [only] => Ok(*only),
            several if self.protocol == Protocol::Tcp => first_that_answers(several),
            // A datagram tells nothing about who would answer it.
            [first, ..] => Ok(*first),
        }
    }
}

/// `localhost` is often `::1` and `127.0.0.1`, and the server listens on one of them: the first
/// that accepts is taken.
fn first_that_answers(addresses: &[SocketAddr]) -> Result<SocketAddr, String> {
    let mut failures = Vec::new();
    for address in addresses {
        match TcpStream::connect_timeout(address, TRIAL_LIMIT) {
            Ok(_) => return Ok(*address),
            Err(error) => failures.push(format!("connect to {address}: {error}")),
        }
    }
    Err(format!("{}; is the server listening?", failures.join(", ")))
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        let form = "use tcp://HOST:PORT or udp://HOST:PORT";
        let (protocol, rest) = match text.split_once("://") {
            Some(("tcp", rest)) => (Protocol::Tcp, rest),
            Some(("udp", rest)) => (Protocol::Udp, rest),
            Some((scheme, _)) => return Err(format!("unknown scheme {scheme}://; {form}")),
            None => return Err(format!("no scheme in {text:?}; {form}")),
        };
        let (host, port) = rest
            .trim_end_matches('/')
            .rsplit_once(':')
            .ok_or_else(|| format!("no port in {text:?}; {form}"))?;
        let port: u16 = port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| format!("{port:?} is not a port; allowed: 1 to 65535"))?;
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        if host.is_empty() {
            return Err(format!("no host in {text:?}; {form}"));
        }
        Ok(Target {
            protocol,
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn good_targets_are_read_and_written_back() {
        for text in [
            "tcp://127.0.0.1:7007",
            "tcp://localhost:1",
            "tcp://[::1]:65535",
            "udp://127.0.0.1:7007",
        ] {
            let target: Target = text.parse().expect(text);
            assert_eq!(target.to_string(), text);
        }
    }

    #[test]
    fn bad_targets_say_what_is_allowed() {
        for (text, part) in [
            ("http://127.0.0.1:80", "unknown scheme http://"),
            ("127.0.0.1:80", "no scheme"),
            ("tcp://127.0.0.1", "no port"),
            ("tcp://127.0.0.1:0", "not a port"),
            ("tcp://127.0.0.1:70000", "not a port"),
            ("tcp://:80", "no host"),
            ("udp://[]:80", "no host"),
        ] {
            let error = text.parse::<Target>().expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn ipv6_literal_resolves_without_its_brackets() {
        let target: Target = "tcp://[::1]:7".parse().expect("a good target");
        assert_eq!(target.resolve(), Ok("[::1]:7".parse().expect("an address")));
    }
}

//! Outgoing connections: addresses are tried in order, one after another or one before the other has
//! failed. The one connector behind [`TcpStream::connect`](crate::TcpStream::connect) and
//! [`create_connection`](crate::LocalLoop::create_connection).
//!
//! Dropping a connect drops every attempt, and each attempt owns its socket: it is closed once,
//! whichever way the connect ends (CONN-06).

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, Socket};

use crate::blocking::resolve;
use crate::error::{At, NetError};
use crate::net::name::SocketName;
use crate::net::socket;
use crate::net::stream::Stream;
use crate::time::{Sleep, sleep};

/// What to connect to, and how.
///
/// Made from an address, several of them, `"host:port"`, a host and a port, or a socket that is
/// connected already.
///
/// ```
/// use std::time::Duration;
///
/// use garland::{ConnectOptions, TcpStream};
///
/// # let runtime = garland::Builder::new().loops(1).build()?;
/// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let port = listener.local_addr()?.port();
/// let to = ConnectOptions::from(("localhost", port))
///     .local_addr(([127, 0, 0, 1], 0).into())
///     .happy_eyeballs_delay(Duration::from_millis(250));
/// let stream = runtime.block_on(TcpStream::connect(to))??;
/// assert_eq!(stream.peer_addr()?.port(), port);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ConnectOptions {
    to: To,
    local_addrs: Vec<SocketAddr>,
    happy_eyeballs_delay: Option<Duration>,
    interleave: Option<usize>,
}

#[derive(Debug)]
enum To {
    Addrs(Vec<SocketAddr>),
    Host(String, u16),
    /// A host, a colon and a port.
    Text(String),
    Socket(OwnedFd),
}

impl ConnectOptions {
    /// Takes a stream socket that is connected already, TCP or Unix; it becomes non-blocking. The
    /// other options do not apply to it.
    #[doc(alias = "sock")]
    pub fn socket(socket: impl Into<OwnedFd>) -> Self {
        ConnectOptions::to(To::Socket(socket.into()))
    }

    /// Refuses a socket that is no TCP socket.
    pub(crate) fn for_tcp(self) -> Result<Self, NetError> {
        if let To::Socket(fd) = &self.to
            && socket::local_addr(fd).is_err()
        {
            let what = "not a TCP socket: give other streams to create_connection";
            let error = io::Error::new(io::ErrorKind::InvalidInput, what);
            return Err(NetError::new("use the socket given", At::Nowhere, error));
        }
        Ok(self)
    }

    fn to(to: To) -> Self {
        ConnectOptions {
            to,
            local_addrs: Vec::new(),
            happy_eyeballs_delay: None,
            interleave: None,
        }
    }

    /// Connects from this address of this machine. May be called for each family: an address is used
    /// for targets of its family only, the first one that can be bound.
    #[must_use]
    pub fn local_addr(mut self, addr: SocketAddr) -> Self {
        self.local_addrs.push(addr);
        self
    }

    /// Tries the next address when the one before it has not answered for so long, without giving
    /// it up; the first answer wins. A quarter of a second is usual. Default: an address is given up
    /// before the next is tried.
    #[must_use]
    pub fn happy_eyeballs_delay(mut self, delay: Duration) -> Self {
        self.happy_eyeballs_delay = Some(delay);
        self
    }

    /// Tries families by turns, after the first `count` addresses of the family that comes first; 0
    /// keeps the order of the addresses. Default: 1 with a
    /// [delay](ConnectOptions::happy_eyeballs_delay), else 0.
    #[must_use]
    pub fn interleave(mut self, count: usize) -> Self {
        self.interleave = Some(count);
        self
    }
}

impl From<SocketAddr> for ConnectOptions {
    fn from(addr: SocketAddr) -> Self {
        ConnectOptions::to(To::Addrs(vec![addr]))
    }
}

impl From<Vec<SocketAddr>> for ConnectOptions {
    fn from(addrs: Vec<SocketAddr>) -> Self {
        ConnectOptions::to(To::Addrs(addrs))
    }
}

impl From<&[SocketAddr]> for ConnectOptions {
    fn from(addrs: &[SocketAddr]) -> Self {
        addrs.to_vec().into()
    }
}

impl From<&str> for ConnectOptions {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<String> for ConnectOptions {
    fn from(text: String) -> Self {
        ConnectOptions::to(To::Text(text))
    }
}

impl From<(&str, u16)> for ConnectOptions {
    fn from((host, port): (&str, u16)) -> Self {
        ConnectOptions::to(To::Host(host.to_owned(), port))
    }
}

impl From<(String, u16)> for ConnectOptions {
    fn from((host, port): (String, u16)) -> Self {
        ConnectOptions::to(To::Host(host, port))
    }
}

impl From<(IpAddr, u16)> for ConnectOptions {
    fn from(addr: (IpAddr, u16)) -> Self {
        SocketAddr::from(addr).into()
    }
}

impl From<std::net::TcpStream> for ConnectOptions {
    fn from(stream: std::net::TcpStream) -> Self {
        ConnectOptions::socket(stream)
    }
}

/// Connects; the stream is registered with the loop that runs on this thread.
pub(crate) async fn connect(options: ConnectOptions) -> Result<Stream, NetError> {
    let addrs = match options.to {
        To::Addrs(addrs) => addrs,
        To::Host(host, port) => look_up("connect to", &host, port).await?,
        To::Text(text) => match text.parse() {
            Ok(addr) => vec![addr],
            Err(_a_name) => {
                let (host, port) = split(&text)?;
                look_up("connect to", host, port).await?
            }
        },
        To::Socket(fd) => {
            let (fd, peer) = adopt(fd)?;
            let registered = Stream::register(fd);
            return registered.map_err(|error| NetError::new("register", &peer, error));
        }
    };
    let default = usize::from(options.happy_eyeballs_delay.is_some());
    let addrs = interleave(addrs, options.interleave.unwrap_or(default));
    let mut race = Race {
        waiting: addrs.into_iter(),
        locals: &options.local_addrs,
        delay: options.happy_eyeballs_delay,
        attempts: Vec::new(),
        failures: Vec::new(),
        next_due: None,
    };
    poll_fn(|cx| race.poll(cx)).await
}

/// Makes a connected socket of somebody else one of ours.
pub(crate) fn adopt(fd: OwnedFd) -> Result<(OwnedFd, SocketName), NetError> {
    let tried = |error| NetError::new("use the socket given", At::Nowhere, error);
    let prepare = || -> io::Result<SocketName> {
        socket::check_stream(&fd)?;
        rustix::io::ioctl_fionbio(&fd, true)?;
        let peer = SocketName::of_peer(&fd)?;
        if let SocketName::Inet(_) = peer {
            SockRef::from(&fd).set_tcp_nodelay(true)?;
        }
        Ok(peer)
    };
    let peer = prepare().map_err(tried)?;
    Ok((fd, peer))
}

/// The addresses of a host: at least one.
pub(crate) async fn look_up(
    tried: &'static str,
    host: &str,
    port: u16,
) -> Result<Vec<SocketAddr>, NetError> {
    let found = resolve(host, port).await;
    found.map_err(|error| NetError::new(tried, At::Name(format!("{host}:{port}")), error))
}

fn split(text: &str) -> Result<(&str, u16), NetError> {
    let parts = text.rsplit_once(':');
    let parts = parts.and_then(|(host, port)| Some((host, port.parse().ok()?)));
    parts.ok_or_else(|| {
        let what = "neither an address nor a host and a port, as in `localhost:80`";
        let error = io::Error::new(io::ErrorKind::InvalidInput, what);
        NetError::new("connect to", At::Name(format!("`{text}`")), error)
    })
}

/// CONN-08: families by turns, after the first `count` addresses of the family that comes first.
fn interleave(addrs: Vec<SocketAddr>, count: usize) -> Vec<SocketAddr> {
    let (Some(first), 1..) = (addrs.first(), count) else {
        return addrs;
    };
    let is_first = |addr: &SocketAddr| addr.is_ipv6() == first.is_ipv6();
    let (mut ours, theirs): (Vec<_>, Vec<_>) = addrs.iter().partition(|addr| is_first(addr));
    let mut turns = ours.split_off(count.min(ours.len())).into_iter();
    for addr in theirs {
        ours.push(addr);
        ours.extend(turns.next());
    }
    ours.extend(turns);
    ours
}

type Attempt<'a> = Pin<Box<dyn Future<Output = Result<Stream, NetError>> + Send + 'a>>;

/// Attempts at several addresses. The next one begins when the latest one has failed, or has had
/// `delay`.
struct Race<'a> {
    waiting: std::vec::IntoIter<SocketAddr>,
    locals: &'a [SocketAddr],
    delay: Option<Duration>,
    /// In the order of the addresses; `None` when it has failed.
    attempts: Vec<Option<Attempt<'a>>>,
    /// With their places among the attempts.
    failures: Vec<(usize, NetError)>,
    next_due: Option<Pin<Box<Sleep>>>,
}

impl Race<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, NetError>> {
        loop {
            for (place, slot) in self.attempts.iter_mut().enumerate() {
                let Some(attempt) = slot else {
                    continue;
                };
                match attempt.as_mut().poll(cx) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Ok(stream)),
                    Poll::Ready(Err(error)) => {
                        *slot = None;
                        self.failures.push((place, error));
                    }
                }
            }
            let has_failed = matches!(self.attempts.last(), None | Some(None));
            if (has_failed || self.is_next_due(cx)) && self.start_next() {
                continue;
            }
            if self.failures.len() == self.attempts.len() {
                let mut failures = std::mem::take(&mut self.failures);
                failures.sort_by_key(|(place, _)| *place);
                let attempts = failures.into_iter().map(|(_, error)| error).collect();
                return Poll::Ready(Err(NetError::of_attempts(
                    "connect to any address",
                    attempts,
                )));
            }
            return Poll::Pending;
        }
    }

    fn is_next_due(&mut self, cx: &mut Context<'_>) -> bool {
        let timer = self.next_due.as_mut();
        timer.is_some_and(|timer| timer.as_mut().poll(cx).is_ready())
    }

    /// False if there is no address left.
    fn start_next(&mut self) -> bool {
        self.next_due = None;
        let Some(addr) = self.waiting.next() else {
            return false;
        };
        self.attempts
            .push(Some(Box::pin(attempt(addr, self.locals))));
        self.next_due = self.delay.map(|delay| Box::pin(sleep(delay)));
        true
    }
}

async fn attempt(addr: SocketAddr, locals: &[SocketAddr]) -> Result<Stream, NetError> {
    let tried = |error| NetError::new("connect to", Some(addr), error);
    let socket = socket::new_stream(addr).map_err(tried)?;
    bind_local(&socket, addr, locals)?;
    socket::start_connecting(&socket, addr).map_err(tried)?;
    let stream = Stream::register(socket.into()).map_err(tried)?;
    stream.connected().await.map_err(tried)?;
    Ok(stream)
}

/// CONN-04: the first local address of the family that can be bound.
fn bind_local(socket: &Socket, to: SocketAddr, locals: &[SocketAddr]) -> Result<(), NetError> {
    let mut failure = None;
    for local in locals.iter().filter(|one| one.is_ipv6() == to.is_ipv6()) {
        match socket.bind(&(*local).into()) {
            Ok(()) => return Ok(()),
            Err(error) => failure = Some(NetError::new("connect from", Some(*local), error)),
        }
    }
    match failure {
        Some(failure) => Err(failure),
        None if locals.is_empty() => Ok(()),
        None => {
            let what = format!("no local address of its family was given, only {locals:?}");
            let error = io::Error::new(io::ErrorKind::InvalidInput, what);
            Err(NetError::new("connect to", Some(to), error))
        }
    }
}

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use std::net::SocketAddr;

    use crate::net::connect::interleave;

    fn addrs(list: &str) -> Vec<SocketAddr> {
        let addr = |name: char| match name.is_lowercase() {
            true => SocketAddr::from(([127, 0, 0, 1], name as u16)),
            false => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], name as u16)),
        };
        list.chars().map(addr).collect()
    }

    #[test]
    fn conn_08_families_take_turns_after_the_first_of_the_first_one() {
        // Lower case is IPv4. What asyncio's staggered start makes of the same lists.
        let cases = [
            (1, "ABCab", "AaBbC"),
            (1, "abAB", "aAbB"),
            (1, "Aabc", "Aabc"),
            (2, "ABCab", "ABaCb"),
            (9, "ABab", "ABab"),
            (0, "ABab", "ABab"),
            (1, "AB", "AB"),
            (1, "", ""),
        ];
        for (count, given, expected) in cases {
            let got = interleave(addrs(given), count);
            assert_eq!(got, addrs(expected), "{count} of {given}");
        }
    }
}

//! Many datagrams, one system call: receiving with `recvmmsg`, sending with `sendmmsg`.
//!
//! Receiving is quinn-udp's. What it asks of a socket when its state is made is asked of a socket that
//! is thrown away: it would forbid fragmentation (and IPv6's part of that cannot be put back with any
//! safe crate), and have the kernel attach a time stamp and two addresses to each datagram, which
//! nobody here reads. So a datagram larger than the path may take is fragmented as on any other
//! socket, and the kernel hands datagrams out one by one (no `UDP_GRO`: it joins what one sender
//! sends in bulk, and a server's batch comes from many).
//!
//! Each place of a batch has room for the largest datagram there is, because a truncated one would
//! not be told from a whole one (R21).

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsFd;

use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny};

use crate::net::socket;

/// Datagrams of one system call, and so of one turn and endpoint.
pub(crate) const BATCH_MAX: usize = 32;
const _: () = assert!(BATCH_MAX <= quinn_udp::BATCH_SIZE, "it takes no more");

/// From one place of a batch to the next, in bytes. Above 65,535, the largest datagram; and not a
/// power of two, or the beginnings of all places would compete for the same lines of the cache.
const STRIDE: usize = 65_536 + 3 * 64;

/// The buffer that a batch of `count` is received into, in bytes. Of a place nobody sent much to,
/// only the first page ever becomes resident.
pub(crate) const fn buffer_len(count: usize) -> usize {
    count * STRIDE
}

/// What the endpoints of one loop receive into: one buffer for all, empty until the first batch.
#[derive(Debug, Default)]
pub(crate) struct BatchBuffer(RefCell<Vec<u8>>);

impl BatchBuffer {
    /// Lends room for `count` datagrams. Not reentrant, and need not be: one handle runs at a time.
    pub(crate) fn lend<T>(&self, count: usize, f: impl FnOnce(&mut [u8]) -> T) -> T {
        let len = buffer_len(count);
        let mut buffer = self.0.borrow_mut();
        if buffer.len() < len {
            // Fresh pages of the system, zero already: only what is received becomes resident.
            *buffer = vec![0; len];
        }
        f(&mut buffer)
    }
}

/// Receives batches.
#[derive(Debug)]
pub(crate) struct Receiver {
    state: UdpSocketState,
    /// Kept from batch to batch: to write defaults into it costs as much as to receive.
    meta: RefCell<Box<[RecvMeta]>>,
}

impl Receiver {
    /// For sockets of the family of `addr`, and batches of at most `limit`.
    pub(crate) fn new(addr: SocketAddr, limit: usize) -> io::Result<Self> {
        assert!((1..=BATCH_MAX).contains(&limit), "a batch of {limit}");
        let thrown_away = socket::new_datagram_socket(addr)?;
        let state = UdpSocketState::new(UdpSockRef::from(&thrown_away))?;
        let meta = RefCell::new(vec![RecvMeta::default(); limit].into_boxed_slice());
        Ok(Receiver { state, meta })
    }

    /// Datagrams in a full batch.
    pub(crate) fn limit(&self) -> usize {
        self.meta.borrow().len()
    }

    /// Receives what is there already, at most a batch, into a buffer of
    /// [`buffer_len`]`(self.limit())`. Not reentrant: one batch at a time.
    pub(crate) fn recv<'b>(
        &'b self,
        socket: impl AsFd,
        buf: &'b mut [u8],
    ) -> io::Result<Arrived<'b>> {
        let mut meta = self.meta.borrow_mut();
        let limit = meta.len();
        let mut places = buf.chunks_exact_mut(STRIDE);
        let mut bufs: [IoSliceMut<'_>; BATCH_MAX] =
            std::array::from_fn(|_| IoSliceMut::new(places.next().unwrap_or_default()));
        let socket = UdpSockRef::from(&socket);
        let count = self.state.recv(socket, &mut bufs[..limit], &mut meta)?;
        Ok(Arrived { buf, meta, count })
    }
}

/// A batch of datagrams in its buffer.
#[derive(Debug)]
pub(crate) struct Arrived<'b> {
    buf: &'b [u8],
    meta: RefMut<'b, Box<[RecvMeta]>>,
    count: usize,
}

impl Arrived<'_> {
    /// As many as could be: there may be more.
    pub(crate) fn is_full(&self) -> bool {
        self.count == self.meta.len()
    }

    /// Each datagram and its sender, in the order of arrival.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], SocketAddr)> {
        let places = self.buf.chunks_exact(STRIDE);
        let received = places.zip(&self.meta[..self.count]);
        received.map(|(place, meta)| (&place[..meta.len], meta.addr))
    }
}

/// What each waiting datagram counts beside its payload, in bytes: asyncio's number (UDP-08), so that
/// empty ones fill the outbox too.
const OVERHEAD: usize = 8;

/// An empty outbox keeps at most this much memory for what comes next, in bytes: the replies to a
/// batch of ordinary datagrams fit.
const KEPT_MAX: usize = 64 * 1024;

/// Datagrams that wait to be sent, in order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    /// Where the payload of the first one begins; before it is what has been sent.
    start: usize,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    len: usize,
    /// None: the socket has a fixed peer.
    to: Option<SocketAddrAny>,
}

impl Outbox {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What they count, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len() - self.start + OVERHEAD * self.waiting.len()
    }

    pub(crate) fn push(&mut self, data: &[u8], to: Option<SocketAddr>) {
        // Room that was sent is used again before the memory grows; only if it is half of it, so that
        // each byte is moved once on average.
        let is_full = self.bytes.len() + data.len() > self.bytes.capacity();
        if is_full && self.start > 0 && self.start >= self.bytes.len() - self.start {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(data);
        self.waiting.push_back(Waiting {
            len: data.len(),
            to: to.map(|to| to.as_any()),
        });
    }

    /// Sends some of the first ones with one system call, and lets go of those that were sent. At
    /// least one of them was if this is `Ok`; none, and the first one failed, if not.
    pub(crate) fn send(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let count = self.len().min(BATCH_MAX);
        let mut iovs = [IoSlice::new(&[]); BATCH_MAX];
        let mut rest = &self.bytes[self.start..];
        for (iov, waiting) in iovs.iter_mut().zip(&self.waiting) {
            let (data, behind) = rest.split_at(waiting.len);
            *iov = IoSlice::new(data);
            rest = behind;
        }
        // No control messages; but each header wants a buffer of its own for them.
        let mut controls: [SendAncillaryBuffer<'_, '_, '_>; BATCH_MAX] = Default::default();
        let mut messages = Vec::with_capacity(count);
        for ((iov, control), waiting) in iovs.iter().zip(&mut controls).zip(&self.waiting) {
            let iov = std::slice::from_ref(iov);
            messages.push(match &waiting.to {
                Some(to) => MMsgHdr::new_with_addr(to, iov, control),
                None => MMsgHdr::new(iov, control),
            });
        }
        let sent = rustix::net::sendmmsg(socket, &mut messages, SendFlags::NOSIGNAL)?;
        self.remove_first(sent);
        Ok(sent)
    }

    /// Lets go of the first `count`.
    pub(crate) fn remove_first(&mut self, count: usize) {
        self.start += self
            .waiting
            .drain(..count)
            .map(|one| one.len)
            .sum::<usize>();
        if self.waiting.is_empty() {
            self.clear();
        }
    }

    /// Throws everything away.
    pub(crate) fn clear(&mut self) {
        self.start = 0;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_MAX);
        self.waiting.clear();
        self.waiting.shrink_to(BATCH_MAX);
    }
}

#[cfg(all(test, not(garland_loom)))]
mod tests {
    use std::net::UdpSocket;

    use crate::net::batch::{BATCH_MAX, KEPT_MAX, OVERHEAD, Outbox, Receiver, buffer_len};

    fn pair() -> (UdpSocket, UdpSocket) {
        let one = UdpSocket::bind("127.0.0.1:0").expect("a free port exists");
        let other = UdpSocket::bind("127.0.0.1:0").expect("a free port exists");
        (one, other)
    }

    #[test]
    fn udp_08_an_outbox_counts_payload_and_overhead_both_ways() {
        let mut outbox = Outbox::default();
        for round in 0..3_usize {
            outbox.push(&vec![0; round], None);
            assert_eq!(
                outbox.size(),
                (0..=round).sum::<usize>() + OVERHEAD * (round + 1)
            );
        }
        outbox.remove_first(2);
        assert_eq!((outbox.len(), outbox.size()), (1, 2 + OVERHEAD));
        outbox.remove_first(1);
        assert_eq!((outbox.len(), outbox.size()), (0, 0));
    }

    #[test]
    fn what_was_pushed_is_sent_in_order_at_most_a_batch_at_a_time() {
        let (from, to) = pair();
        let addr = to.local_addr().expect("bound");
        let mut outbox = Outbox::default();
        for number in 0..40_u8 {
            outbox.push(&vec![number; usize::from(number)], Some(addr));
        }
        assert_eq!(outbox.send(&from).expect("loopback takes it"), BATCH_MAX);
        outbox.push(b"last", Some(addr));
        assert_eq!(outbox.send(&from).expect("loopback takes it"), 9);
        assert!(outbox.is_empty());

        let mut buf = [0; 100];
        for number in 0..40_u8 {
            let len = to.recv(&mut buf).expect("sent");
            assert_eq!(&buf[..len], vec![number; usize::from(number)]);
        }
        let len = to.recv(&mut buf).expect("sent");
        assert_eq!(&buf[..len], b"last");
    }

    #[test]
    fn an_outbox_that_is_sent_keeps_little_memory_and_uses_its_room_again() {
        let mut outbox = Outbox::default();
        for _ in 0..1000 {
            outbox.push(&[0; 1000], None);
            outbox.push(&[0; 1000], None);
            outbox.remove_first(1);
            if outbox.len() > 4 {
                outbox.remove_first(2);
            }
        }
        assert!(outbox.bytes.capacity() < 8 * outbox.bytes.len().max(KEPT_MAX));
        outbox.push(&vec![0; 4 * KEPT_MAX], None);
        outbox.clear();
        assert!(outbox.bytes.capacity() <= KEPT_MAX);
    }

    #[test]
    fn udp_12_a_batch_is_received_with_each_sender_and_length() {
        let (from, to) = pair();
        to.set_nonblocking(true).expect("a socket");
        let addr = to.local_addr().expect("bound");
        for len in [0, 1, 1500, 60_000] {
            from.send_to(&vec![7; len], addr)
                .expect("loopback takes it");
        }
        let receiver = Receiver::new(addr, 3).expect("a socket can be made");
        let mut buf = vec![0; buffer_len(receiver.limit())];
        let sender = from.local_addr().expect("bound");
        let first = receiver.recv(&to, &mut buf).expect("four are there");
        let seen: Vec<_> = first
            .iter()
            .map(|(data, addr)| (data.len(), addr))
            .collect();
        assert_eq!(seen, [(0, sender), (1, sender), (1500, sender)]);
        assert!(first.is_full());
        drop(first);
        let rest = receiver.recv(&to, &mut buf).expect("one is there");
        assert_eq!(
            rest.iter().map(|(data, _)| data.len()).sum::<usize>(),
            60_000
        );
        assert!(!rest.is_full());
    }
}

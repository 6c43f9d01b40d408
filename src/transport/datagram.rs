//! A datagram endpoint as its users see it: [`DatagramTransport`], and `create_datagram_endpoint`.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::error::NetError;
use crate::net::endpoint::EndpointOptions;
use crate::net::listen::Bound;
use crate::net::server::{Server, ServerCore};
use crate::runtime::{LocalLoop, LoopHandle, Ready};
use crate::transport::flow::{InvalidLimits, WriteLimits};
use crate::transport::protocol::DatagramProtocol;
use crate::transport::udp::{CLOSING, Endpoint};

/// A datagram endpoint, as its protocol sees it. Clones are the same endpoint; one may be kept after
/// the endpoint is closed and then does nothing.
///
/// Not `Send`: an endpoint stays on its loop. Dropping it does not close the endpoint.
#[derive(Clone)]
pub struct DatagramTransport {
    pub(super) endpoint: Rc<Endpoint>,
}

impl DatagramTransport {
    /// Sends `data` to `addr` as one datagram; empty ones are sent too. Never blocks and never fails:
    /// [`error_received`](DatagramProtocol::error_received) tells what the system says of it.
    ///
    /// Inside [`datagram_received`](DatagramProtocol::datagram_received) it is kept until the batch
    /// ends, and then sent with all others by one system call. Elsewhere it is sent at once, unless
    /// others wait before it. The bytes are copied where needed. After
    /// [`close`](DatagramTransport::close) or [`abort`](DatagramTransport::abort) it is ignored.
    ///
    /// # Panics
    /// If the endpoint has a fixed peer and `addr` is another one.
    #[doc(alias = "sendto")]
    pub fn send_to(&self, data: &[u8], addr: SocketAddr) {
        match self.endpoint.remote {
            None => self.endpoint.send(data, Some(addr)),
            Some(remote) => {
                assert!(
                    remote == addr,
                    "send_to({addr}): this endpoint talks to {remote} alone"
                );
                self.endpoint.send(data, None);
            }
        }
    }

    /// Sends `data` to the fixed peer, otherwise as [`send_to`](DatagramTransport::send_to).
    ///
    /// # Panics
    /// If the endpoint has no fixed peer.
    #[doc(alias = "sendto")]
    pub fn send(&self, data: &[u8]) {
        assert!(
            self.endpoint.remote.is_some(),
            "send(): this endpoint has no fixed peer, give an address"
        );
        self.endpoint.send(data, None);
    }

    /// Receives no more, sends what waits, then ends the endpoint.
    pub fn close(&self) {
        self.endpoint.close();
    }

    /// Throws away what waits and ends the endpoint in the next turn.
    pub fn abort(&self) {
        self.endpoint.abort();
    }

    /// True from [`close`](DatagramTransport::close) or [`abort`](DatagramTransport::abort) on.
    pub fn is_closing(&self) -> bool {
        self.endpoint.has(CLOSING)
    }

    /// Sets the marks of what waits to be sent; may pause the protocol at once, never resumes it.
    ///
    /// # Errors
    /// A low mark above the high one; nothing is changed.
    #[doc(alias = "set_write_buffer_limits")]
    pub fn set_write_limits(&self, limits: WriteLimits) -> Result<(), InvalidLimits> {
        let size = self.write_buffer_size();
        let mut flow = self.endpoint.flow.get();
        let call = flow.set_limits(limits, size)?;
        self.endpoint.flow.set(flow);
        self.endpoint.call_flow(call);
        Ok(())
    }

    /// The marks of what waits to be sent.
    #[doc(alias = "get_write_buffer_limits")]
    pub fn write_limits(&self) -> WriteLimits {
        self.endpoint.flow.get().limits()
    }

    /// Bytes that wait to be sent, each datagram with 8 more than its payload.
    #[doc(alias = "get_write_buffer_size")]
    pub fn write_buffer_size(&self) -> usize {
        self.endpoint.outbox.borrow().size()
    }

    /// The address of this end; also after the endpoint is lost.
    #[doc(alias = "get_extra_info")]
    pub fn local_addr(&self) -> SocketAddr {
        self.endpoint.addr
    }

    /// The fixed peer, if there is one.
    #[doc(alias = "get_extra_info")]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.endpoint.remote
    }

    /// The loop it lives on.
    pub fn local_loop(&self) -> &LocalLoop {
        &self.endpoint.local
    }
}

impl fmt::Debug for DatagramTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramTransport")
            .field("local", &self.endpoint.addr)
            .field("peer", &self.endpoint.remote)
            .field("closing", &self.is_closing())
            .field("buffered", &self.write_buffer_size())
            .finish_non_exhaustive()
    }
}

impl LoopHandle {
    /// Serves datagrams in the callback model on every loop: one socket a loop, all on the same port.
    /// `make` is called once on each loop and returns that loop's protocol, which need not be `Send`.
    ///
    /// Returns once the sockets are bound. It serves until [`Server::close`], which sends what waits,
    /// or the end of the runtime; the server's numbers of connections stay at zero. The kernel chooses
    /// a socket by the addresses of a datagram: those of one sender go to one loop and keep their
    /// order while it serves, not across its start and its end.
    ///
    /// # Errors
    /// No address that can be bound; a remote address or a given socket, which are for one loop:
    /// [`LocalLoop::create_datagram_endpoint`].
    pub fn create_datagram_endpoint<M, P>(
        &self,
        options: impl Into<EndpointOptions>,
        make: M,
    ) -> Result<Server, NetError>
    where
        M: Fn(&LocalLoop) -> P + Send + Sync + 'static,
        P: DatagramProtocol,
    {
        let options = options.into();
        let mut row = options.open_row(self.loops())?;
        // It has no clients to end: nobody is connected.
        let bound = Bound::for_datagrams(row[0].addr);
        let core = ServerCore::new(&bound, Box::new(|_core, _how| {}));
        let mut guards: Vec<_> = row.iter().map(|_| core.add_listener()).collect();
        let server = Server::of(Arc::clone(&core), bound.common)?;
        let make = Arc::new(make);
        let batch = options.batch_len();
        for id in (0..self.loops()).rev() {
            let socket = row.pop().expect("one was opened for each loop");
            let guard = guards.pop().expect("one was made for each loop");
            let (core, make) = (Arc::clone(&core), Arc::clone(&make));
            let visited = self.on(id).visit(move |local| {
                let protocol = Box::new(make(local));
                let service = (Arc::clone(&core), guard);
                let addr = socket.addr;
                match Endpoint::start(local, socket, batch, protocol, Some(service)) {
                    Ok(transport) => close_with(&core, local, &transport),
                    Err(error) => tracing::error!(%error, %addr, "an endpoint could not be made"),
                }
            });
            if visited.is_err() {
                server.close();
                return Err(NetError::closed("serve on a loop", None));
            }
        }
        Ok(server)
    }
}

impl LocalLoop {
    /// Opens a datagram endpoint on this loop for the protocol that `factory` makes.
    ///
    /// Returns at once; `connection_made` is called in the next turn, before anything is received.
    ///
    /// # Errors
    /// No usable address, and then what the first one tried met; options that contradict each other.
    pub fn create_datagram_endpoint<P: DatagramProtocol>(
        &self,
        options: impl Into<EndpointOptions>,
        factory: impl FnOnce() -> P,
    ) -> Result<DatagramTransport, NetError> {
        if self.worker().is_closed() {
            return Err(NetError::closed("open a datagram endpoint", None));
        }
        let options = options.into();
        let batch = options.batch_len();
        let socket = options.open()?;
        let addr = socket.addr;
        let started = Endpoint::start(self, socket, batch, Box::new(factory()), None);
        started.map_err(|error| NetError::new("open a datagram endpoint on", Some(addr), error))
    }
}

/// Has the endpoint look at the state of its service when that closes.
fn close_with(core: &ServerCore, local: &LocalLoop, transport: &DatagramTransport) {
    let key = transport.endpoint.key();
    let key = key.expect("it was started just now, on this loop");
    let home = local.handle();
    core.on_close(Box::new(move || {
        let told = home.visit(move |local| local.requeue_io(key, Ready::NONE));
        if told.is_err() {
            tracing::debug!("the loop of an endpoint was closed before its service");
        }
    }));
}

/// Endpoints that are full. Over loopback UDP is never full, so the sockets here are pairs of
/// `AF_UNIX`: the same calls on the same kernel, and a queue that holds a few datagrams.
#[cfg(all(test, not(garland_loom)))]
mod tests {
    use std::cell::RefCell;
    use std::io;
    use std::net::SocketAddr;
    use std::os::unix::net::UnixDatagram;
    use std::rc::Rc;

    use crate::net::endpoint::DatagramSocket;
    use crate::runtime::{Builder, Runtime, yield_now};
    use crate::transport::datagram::DatagramTransport;
    use crate::transport::flow::WriteLimits;
    use crate::transport::protocol::DatagramProtocol;
    use crate::transport::udp::Endpoint;

    type Log = Rc<RefCell<Vec<String>>>;

    struct Recorder(Log);

    impl DatagramProtocol for Recorder {
        fn datagram_received(&mut self, _: &DatagramTransport, _: &[u8], _: SocketAddr) {}

        fn error_received(&mut self, _: &DatagramTransport, error: &io::Error) {
            self.0
                .borrow_mut()
                .push(format!("error {:?}", error.kind()));
        }

        fn pause_writing(&mut self, transport: &DatagramTransport) {
            let size = transport.write_buffer_size();
            self.0.borrow_mut().push(format!("pause {size}"));
        }

        fn resume_writing(&mut self, transport: &DatagramTransport) {
            let size = transport.write_buffer_size();
            self.0.borrow_mut().push(format!("resume {size}"));
        }

        fn connection_lost(&mut self, _: &DatagramTransport, error: Option<&io::Error>) {
            self.0.borrow_mut().push(format!("lost {error:?}"));
        }
    }

    /// An endpoint whose peer takes nothing more, the peer, and how many datagrams it holds.
    fn full(runtime: &Runtime, log: &Log) -> (DatagramTransport, UnixDatagram, usize) {
        let (ours, peer) = UnixDatagram::pair().expect("descriptors are free");
        ours.set_nonblocking(true).expect("a socket");
        peer.set_nonblocking(true).expect("a socket");
        let addr = SocketAddr::from(([127, 0, 0, 1], 9));
        let opened = DatagramSocket {
            fd: ours.into(),
            addr,
            remote: Some(addr),
        };
        let protocol = Box::new(Recorder(Rc::clone(log)));
        let transport = Endpoint::start(runtime.local(), opened, 32, protocol, None);
        let transport = transport.expect("a socket can be made");
        settle(runtime);
        let mut held = 0;
        loop {
            transport.send(&[held as u8; 100]);
            if transport.write_buffer_size() > 0 {
                return (transport, peer, held);
            }
            held += 1;
        }
    }

    fn settle(runtime: &Runtime) {
        let turns = async {
            for _ in 0..5 {
                yield_now().await;
            }
        };
        runtime.block_on(turns).expect("nobody stops it");
    }

    /// Takes all that is there, and lets the endpoint send more.
    fn drain(runtime: &Runtime, peer: &UnixDatagram, seen: &mut Vec<u8>) {
        let mut buf = [0; 200];
        while let Ok(len) = peer.recv(&mut buf) {
            seen.push(if len == 0 { u8::MAX } else { buf[0] });
        }
        settle(runtime);
    }

    fn lent() -> Runtime {
        let built = Builder::new().loops(1).pin(crate::config::Pin::Off).build();
        built.expect("a runtime can be built")
    }

    #[test]
    fn flow_02_flow_03_udp_08_pause_above_the_high_mark_and_resume_at_the_low_one() {
        let runtime = lent();
        let log = Log::default();
        let (transport, peer, held) = full(&runtime, &log);
        assert_eq!(transport.write_buffer_size(), 108, "payload and 8");
        let limits = WriteLimits {
            high: 324,
            low: 108,
        };
        assert_eq!(transport.set_write_limits(limits), Ok(()));
        transport.send(&[(held + 1) as u8; 100]);
        transport.send(&[(held + 2) as u8; 100]);
        assert_eq!(log.borrow().len(), 0, "at the high mark is not above it");
        // Empty ones count too.
        transport.send(b"");
        transport.send(b"");
        assert_eq!(*log.borrow(), ["pause 332"], "inside the call, once");
        settle(&runtime);
        assert_eq!(
            transport.write_buffer_size(),
            340,
            "nothing goes before there is room"
        );

        let mut seen = Vec::new();
        while seen.len() < held + 5 {
            drain(&runtime, &peer, &mut seen);
        }
        let numbers = (0..held + 3).map(|number| number as u8);
        let in_order: Vec<u8> = numbers.chain([u8::MAX, u8::MAX]).collect();
        assert_eq!(seen, in_order);
        assert_eq!(*log.borrow(), ["pause 332", "resume 0"]);
        assert_eq!(transport.write_buffer_size(), 0);
        // Nothing waits: it is sent at once again, and no longer watched for room.
        transport.send(b"x");
        assert_eq!(peer.recv(&mut [0; 9]).expect("sent"), 1);
        assert!(!transport.endpoint.is_full());
    }

    #[test]
    fn udp_07_an_error_while_the_queue_is_flushed_drops_one_and_the_rest_goes_out() {
        let runtime = lent();
        let log = Log::default();
        let (transport, peer, held) = full(&runtime, &log);
        assert_eq!(transport.set_write_limits(WriteLimits::high(150)), Ok(()));
        // More than such a socket ever takes, behind one datagram and before two.
        transport.send(&vec![0; 4 << 20]);
        transport.send(&[(held + 1) as u8; 100]);
        transport.send(&[(held + 2) as u8; 100]);
        let mut seen = Vec::new();
        while seen.len() < held + 3 {
            drain(&runtime, &peer, &mut seen);
        }
        let numbers = (0..held + 3).map(|number| number as u8);
        assert_eq!(seen, numbers.collect::<Vec<_>>());
        let log = log.borrow();
        assert!(log[0].starts_with("pause"), "{log:?}");
        assert!(log[1].starts_with("error"), "{log:?}");
        assert_eq!(log[2..], ["resume 0"]);
    }

    #[test]
    fn udp_09_close_sends_what_waits_first_and_abort_throws_it_away() {
        for is_abort in [false, true] {
            let runtime = lent();
            let log = Log::default();
            let (transport, peer, held) = full(&runtime, &log);
            transport.close();
            transport.send(b"ignored");
            settle(&runtime);
            assert_eq!(log.borrow().len(), 0, "it waits for room");
            if is_abort {
                transport.abort();
                assert_eq!(transport.write_buffer_size(), 0);
                settle(&runtime);
                assert_eq!(*log.borrow(), ["lost None"]);
            }
            let mut seen = Vec::new();
            drain(&runtime, &peer, &mut seen);
            drain(&runtime, &peer, &mut seen);
            assert_eq!(seen.len(), held + usize::from(!is_abort));
            assert_eq!(*log.borrow(), ["lost None"]);
        }
    }

    #[test]
    fn flow_05_lower_marks_pause_at_once_and_higher_ones_do_not_resume() {
        let runtime = lent();
        let log = Log::default();
        let (transport, _peer, _held) = full(&runtime, &log);
        assert_eq!(transport.set_write_limits(WriteLimits::high(100)), Ok(()));
        assert_eq!(*log.borrow(), ["pause 108"]);
        assert_eq!(transport.set_write_limits(WriteLimits::high(9000)), Ok(()));
        settle(&runtime);
        assert_eq!(*log.borrow(), ["pause 108"]);
    }
}

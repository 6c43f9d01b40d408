//! Garland's end of the connection: making it, and the actions on it.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use garland::{
    Buffered, EndpointOptions, ListenOptions, Protocol, ReadError, Server, UnixListenOptions,
    WriteLimits, open_connection, sleep,
};

use crate::actor::{Actor, BufferedActor, reason};
use crate::peer::{POLL, Peer};
use crate::scenario::{Action, data, number, show};
use crate::stage::{self, End, Left, Stage};

/// What the system chooses the port of.
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

impl Stage {
    /// Makes the connection; what comes back has to live as long as the scenario.
    pub(crate) async fn set_up(self: &Rc<Self>) -> io::Result<Option<Server>> {
        match self.scenario.side.get(1).map(String::as_str) {
            Some("buffered") => {
                self.set_up_with(|stage| Buffered(BufferedActor(Actor::new(stage), [0; 16])))
                    .await
            }
            _ => self.set_up_with(Actor::new).await,
        }
    }

    async fn set_up_with<P: Protocol>(
        self: &Rc<Self>,
        make: fn(&Rc<Stage>) -> P,
    ) -> io::Result<Option<Server>> {
        let (local, stage) = (&self.local, Rc::clone(self));
        let factory = move || {
            stage.happened("factory", 1);
            make(&stage)
        };
        let mut server = None;
        let socket_file = std::env::temp_dir().join(format!(
            "garland-traces-{}-{:p}",
            std::process::id(),
            Rc::as_ptr(self)
        ));
        let peer = match self.scenario.side[0].as_str() {
            "server" => {
                let served = local.create_server(ListenOptions::new(ANY), factory)?;
                let peer = TcpStream::connect(served.local_addr())?;
                server = Some(served);
                Peer::new(peer, None)?
            }
            "client" => {
                let listener = TcpListener::bind(ANY)?;
                local
                    .create_connection(listener.local_addr()?, factory)
                    .await?;
                Peer::new(listener.accept()?.0, None)?
            }
            "unix" => {
                let listen = UnixListenOptions::new(&socket_file);
                server = Some(local.create_unix_server(listen, factory)?);
                Peer::new(UnixStream::connect(&socket_file)?, None)?
            }
            "unix-client" => {
                let listener = UnixListener::bind(&socket_file)?;
                let connected = local.create_unix_connection(&socket_file, factory).await;
                std::fs::remove_file(&socket_file)?;
                connected?;
                Peer::new(listener.accept()?.0, None)?
            }
            "read-pipe" => {
                let (reader, writer) = io::pipe()?;
                local.connect_read_pipe(reader, factory).await?;
                Peer::new(writer, None)?
            }
            "write-pipe" => {
                let (reader, writer) = io::pipe()?;
                local.connect_write_pipe(writer, factory).await?;
                Peer::new(reader, None)?
            }
            "udp" | "udp-to" => self.set_up_datagrams()?,
            "stream" => self.set_up_stream().await?,
            "loop" => return Ok(None),
            other => return Err(io::Error::other(format!("no side is called {other}"))),
        };
        *self.peer.borrow_mut() = Some(peer);
        let mut reactions = self.scenario.reactions.iter();
        let is_made = !reactions.any(|reaction| reaction.event == "factory");
        if is_made && self.scenario.side[0] != "stream" {
            self.until("made", 1).await;
        }
        Ok(server)
    }

    fn set_up_datagrams(self: &Rc<Self>) -> io::Result<Peer> {
        let socket = UdpSocket::bind(ANY)?;
        let options = match self.scenario.side[0].as_str() {
            "udp" => EndpointOptions::from(ANY),
            _ => EndpointOptions::new().remote(socket.local_addr()?),
        };
        let made = self
            .local
            .create_datagram_endpoint(options, || Actor::new(self))?;
        Peer::new(socket, Some(made.local_addr()))
    }

    async fn set_up_stream(&self) -> io::Result<Peer> {
        let listener = TcpListener::bind(ANY)?;
        let (mut reader, writer) = open_connection(listener.local_addr()?).await?;
        if let Some(limit) = self.scenario.side.get(1) {
            reader.set_limit(number(limit));
        }
        self.enters(End::Stream(writer.transport().clone()));
        *self.reader.borrow_mut() = Some(reader);
        *self.writer.borrow_mut() = Some(Rc::new(writer));
        Peer::new(listener.accept()?.0, None)
    }

    /// Waits until an event has come so many times, or so many bytes have.
    async fn until(&self, event: &str, count: usize) {
        while self.count(event) < count {
            sleep(POLL).await;
        }
    }

    /// False: it is not an action on a connection.
    pub(crate) fn act_on_end(self: &Rc<Self>, action: &[&str]) -> bool {
        if *action == ["keep_open"] {
            self.keeps_open.set(true);
            return true;
        }
        let end = self.end.borrow().clone();
        match (action, end) {
            (["at_eof"], _) => {
                let reader = self.reader.borrow();
                let reader = reader.as_ref().expect("nobody reads just now");
                self.log(&format!("at_eof {}", reader.at_eof()));
            }
            (["show", what], Some(end)) => {
                let answer = answer(&end, what);
                self.log(&format!("{what} {answer}"));
            }
            (["close"], Some(End::Stream(transport))) => transport.close(),
            (["close"], Some(End::Datagram(transport))) => transport.close(),
            (["abort"], Some(End::Stream(transport))) => transport.abort(),
            (["abort"], Some(End::Datagram(transport))) => transport.abort(),
            (["limits", high], Some(end)) => {
                self.set_limits(&end, WriteLimits::high(number(high)));
            }
            (["limits", high, low], Some(end)) => {
                let (high, low) = (number(high), number(low));
                self.set_limits(&end, WriteLimits { high, low });
            }
            (["send", bytes, to @ ..], Some(End::Datagram(transport))) => {
                let bytes = data(bytes);
                self.refusable("send", || match (transport.peer_addr(), to) {
                    (Some(_), []) => transport.send(&bytes),
                    (_, to) => transport.send_to(&bytes, self.receiver(to.is_empty())),
                });
            }
            (["write", bytes], Some(End::Stream(transport))) => {
                let bytes = data(bytes);
                self.refusable("write", || transport.write(&bytes));
            }
            (["write_lines", pieces @ ..], Some(End::Stream(transport))) => {
                let pieces: Vec<_> = pieces.iter().map(|piece| data(piece)).collect();
                let pieces = pieces.iter().map(Vec::as_slice);
                self.refusable("write_lines", || transport.write_lines(pieces));
            }
            (["write_eof"], Some(End::Stream(transport))) => transport.write_eof(),
            (["pause_reading"], Some(End::Stream(transport))) => transport.pause_reading(),
            (["resume_reading"], Some(End::Stream(transport))) => transport.resume_reading(),
            (["switch", name], Some(End::Stream(transport))) => {
                let (stage, prefix) = (Rc::clone(self), format!("{name}."));
                transport.set_protocol(Actor { stage, prefix });
            }
            _ => return false,
        }
        true
    }

    fn set_limits(&self, end: &End, limits: WriteLimits) {
        let set = match end {
            End::Stream(transport) => transport.set_write_limits(limits),
            End::Datagram(transport) => transport.set_write_limits(limits),
        };
        if set.is_err() {
            self.log("limits refused");
        }
    }

    /// The peer's address, or one where nobody listens.
    fn receiver(&self, is_peer: bool) -> SocketAddr {
        let peer = self.peer.borrow();
        match &*peer {
            Some(peer) if is_peer => {
                let addr = socket2::SockRef::from(&peer.fd).local_addr();
                let addr = addr.expect("it is bound").as_socket();
                addr.expect("it is IPv4")
            }
            _ => {
                let socket = UdpSocket::bind(ANY).expect("a free port exists");
                socket.local_addr().expect("it is bound")
            }
        }
    }

    /// Makes a call that garland may refuse by a panic.
    fn refusable(&self, what: &str, call: impl FnOnce()) {
        let called = catch_unwind(AssertUnwindSafe(call));
        if called.is_err() {
            stage::take_panics();
            self.log(&format!("{what} refused"));
        }
    }

    /// Plays an action that may wait.
    pub(crate) async fn step(self: &Rc<Self>, action: &Action) -> Result<(), Left> {
        let words: Vec<&str> = action.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["wait", event] => self.until(event, 1).await,
            ["wait", event, count] => self.until(event, number(count)).await,
            ["peer", words @ ..] => {
                let peer = self.peer.borrow_mut().take();
                match peer {
                    Some(peer) => match peer.act(self, words).await {
                        Ok(peer) => *self.peer.borrow_mut() = peer,
                        Err(error) => self.log(&format!("! peer: {error}")),
                    },
                    None => self.log("! the peer is gone"),
                }
            }
            words => {
                if !self.step_on_stream(words).await && !self.step_on_future(words).await {
                    return self.act(action);
                }
            }
        }
        Ok(())
    }

    /// False: it is not an action that waits for a stream.
    async fn step_on_stream(&self, action: &[&str]) -> bool {
        if let ["drain" | "wait_closed"] = action {
            let writer = self.writer.borrow().clone().expect("side stream");
            let done = match action[0] {
                "drain" => writer.drain().await,
                _ => writer.wait_closed().await,
            };
            match done {
                Ok(()) => self.log(action[0]),
                Err(error) => self.log(&format!("{} {}", action[0], reason(Some(&error)))),
            }
            return true;
        }
        let Some(mut reader) = self.reader.take() else {
            return false;
        };
        let result = match action {
            ["read", count] => Some(reader.read(number(count)).await.map_err(ReadError::from)),
            ["read_all"] => Some(reader.read_to_end().await.map_err(ReadError::from)),
            ["readline"] => Some(reader.readline().await),
            ["readexactly", count] => Some(reader.readexactly(number(count)).await),
            ["readuntil", separator] => Some(reader.readuntil(&data(separator)).await),
            _ => None,
        };
        *self.reader.borrow_mut() = Some(reader);
        let what = action[0];
        match result {
            None => return false,
            Some(Ok(bytes)) => self.log(&format!("{what} {}", show(&bytes))),
            Some(Err(ReadError::Incomplete { partial, .. })) => {
                self.log(&format!("{what} incomplete {}", show(&partial)));
            }
            Some(Err(ReadError::LimitOverrun { .. })) => {
                self.log(&format!("{what} over the limit"))
            }
            Some(Err(error)) => {
                let error = io::Error::from(error);
                self.log(&format!("{what} {}", reason(Some(&error))));
            }
        }
        true
    }
}

fn answer(end: &End, what: &str) -> String {
    let limits = |limits: WriteLimits| format!("high {} low {}", limits.high, limits.low);
    let buffered = |size| if size > 0 { "some" } else { "none" }.to_owned();
    match (end, what) {
        (End::Stream(transport), "is_closing") => transport.is_closing().to_string(),
        (End::Stream(transport), "is_reading") => transport.is_reading().to_string(),
        (End::Stream(transport), "can_write_eof") => transport.can_write_eof().to_string(),
        (End::Stream(transport), "limits") => limits(transport.write_limits()),
        (End::Stream(transport), "buffered") => buffered(transport.write_buffer_size()),
        (End::Stream(transport), "peername") => match transport.peer_addr() {
            Some(_) => "known".to_owned(),
            None => "unknown".to_owned(),
        },
        (End::Datagram(transport), "is_closing") => transport.is_closing().to_string(),
        (End::Datagram(transport), "limits") => limits(transport.write_limits()),
        (End::Datagram(transport), "buffered") => buffered(transport.write_buffer_size()),
        _ => "! cannot be shown".to_owned(),
    }
}

//! The protocol of a scenario: tells the stage of every call-back.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use garland::{
    AfterEof, BufferedProtocol, DatagramProtocol, DatagramTransport, Protocol, Transport,
};
use rustix::io::Errno;

use crate::scenario::show;
use crate::stage::{End, Stage};

/// One actor; `prefix` tells it from the one whose place it took.
pub(crate) struct Actor {
    pub(crate) stage: Rc<Stage>,
    pub(crate) prefix: String,
}

impl Actor {
    pub(crate) fn new(stage: &Rc<Stage>) -> Self {
        Actor {
            stage: Rc::clone(stage),
            prefix: String::new(),
        }
    }

    fn event(&self, name: &str, detail: &str) {
        self.stage.event(&format!("{}{name}", self.prefix), detail);
    }
}

impl Protocol for Actor {
    fn connection_made(&mut self, transport: &Transport) {
        self.stage.enters(End::Stream(transport.clone()));
        self.event("made", "");
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) {
        self.stage.data(&format!("{}data", self.prefix), data);
    }

    fn eof_received(&mut self, _transport: &Transport) -> AfterEof {
        self.event("eof", "");
        match self.stage.keeps_open() {
            true => AfterEof::KeepOpen,
            false => AfterEof::Close,
        }
    }

    fn pause_writing(&mut self, _transport: &Transport) {
        self.event("pause", "");
    }

    fn resume_writing(&mut self, _transport: &Transport) {
        self.event("resume", "");
    }

    fn connection_lost(&mut self, _transport: &Transport, error: Option<&io::Error>) {
        self.event("lost", &reason(error));
    }
}

impl DatagramProtocol for Actor {
    fn connection_made(&mut self, transport: &DatagramTransport) {
        self.stage.enters(End::Datagram(transport.clone()));
        self.event("made", "");
    }

    fn datagram_received(&mut self, _: &DatagramTransport, data: &[u8], _from: SocketAddr) {
        self.event("datagram", &show(data));
    }

    fn error_received(&mut self, _transport: &DatagramTransport, error: &io::Error) {
        self.event("error", &reason(Some(error)));
    }

    fn pause_writing(&mut self, _transport: &DatagramTransport) {
        self.event("pause", "");
    }

    fn resume_writing(&mut self, _transport: &DatagramTransport) {
        self.event("resume", "");
    }

    fn connection_lost(&mut self, _transport: &DatagramTransport, error: Option<&io::Error>) {
        self.event("lost", &reason(error));
    }
}

/// The same, read into a buffer of its own.
pub(crate) struct BufferedActor(pub(crate) Actor, pub(crate) [u8; 16]);

impl BufferedProtocol for BufferedActor {
    fn connection_made(&mut self, transport: &Transport) {
        Protocol::connection_made(&mut self.0, transport);
    }

    fn get_buffer(&mut self, _transport: &Transport, _hint: usize) -> &mut [u8] {
        &mut self.1
    }

    fn buffer_updated(&mut self, transport: &Transport, count: usize) {
        self.0.data_received(transport, &self.1[..count]);
    }

    fn eof_received(&mut self, transport: &Transport) -> AfterEof {
        self.0.eof_received(transport)
    }

    fn pause_writing(&mut self, transport: &Transport) {
        Protocol::pause_writing(&mut self.0, transport);
    }

    fn resume_writing(&mut self, transport: &Transport) {
        Protocol::resume_writing(&mut self.0, transport);
    }

    fn connection_lost(&mut self, transport: &Transport, error: Option<&io::Error>) {
        Protocol::connection_lost(&mut self.0, transport, error);
    }
}

/// The name of an error that both sides know.
pub(crate) fn reason(error: Option<&io::Error>) -> String {
    let Some(error) = error else {
        return "none".to_owned();
    };
    if error.raw_os_error() == Some(Errno::MSGSIZE.raw_os_error()) {
        return "too long".to_owned();
    }
    match error.kind() {
        io::ErrorKind::ConnectionReset => "reset".to_owned(),
        io::ErrorKind::BrokenPipe => "broken pipe".to_owned(),
        io::ErrorKind::ConnectionRefused => "refused".to_owned(),
        // What a panic of the protocol becomes.
        io::ErrorKind::Other => "failure".to_owned(),
        kind => format!("{kind:?}"),
    }
}

//! A UDP echo server and its client in one program, which runs until Ctrl-C.
//!
//! ```python
//! class EchoServer(asyncio.DatagramProtocol):
//!     def connection_made(self, transport):
//!         self.transport = transport
//!     def datagram_received(self, data, addr):
//!         print("received", data.decode(), "from", addr)
//!         self.transport.sendto(data, addr)
//!
//! class EchoClient(asyncio.DatagramProtocol):
//!     def connection_made(self, transport):
//!         self.transport = transport
//!         transport.sendto(b"This is the message.")
//!     def datagram_received(self, data, addr):
//!         print("received", data.decode())
//!         self.transport.close()
//!     def error_received(self, exc):
//!         print("error", exc)
//!
//! loop.add_signal_handler(signal.SIGINT, loop.stop)
//! loop.run_until_complete(
//!     loop.create_datagram_endpoint(EchoServer, local_addr=addr))
//! loop.run_until_complete(
//!     loop.create_datagram_endpoint(EchoClient, remote_addr=addr))
//! loop.run_forever()
//! ```
//!
//! A datagram arrives whole or not at all, and nobody says so when it does not: where it matters, the
//! client asks again. Over loopback it arrives.
//!
//! `cargo run --example echo_udp [-- --server ADDR | --client ADDR]`; without arguments both, on a free
//! port.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::io;
use std::net::SocketAddr;

use garland::{Builder, DatagramProtocol, DatagramTransport, EndpointOptions, LocalLoop, NetError};
use signal_hook::consts::SIGINT;

struct EchoServer;

impl DatagramProtocol for EchoServer {
    fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], addr: SocketAddr) {
        let text = String::from_utf8_lossy(data);
        println!("server: received {text:?} from {addr}");
        transport.send_to(data, addr);
    }
}

struct EchoClient;

impl DatagramProtocol for EchoClient {
    fn connection_made(&mut self, transport: &DatagramTransport) {
        println!("client: sending from {}", transport.local_addr());
        transport.send(b"This is the message.");
    }

    fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], _: SocketAddr) {
        println!("client: received {:?}", String::from_utf8_lossy(data));
        transport.close();
    }

    fn error_received(&mut self, _transport: &DatagramTransport, error: &io::Error) {
        println!("client: {error}");
    }

    fn connection_lost(&mut self, _transport: &DatagramTransport, _error: Option<&io::Error>) {
        println!("client: closed");
    }
}

fn start_server(local: &LocalLoop, addr: SocketAddr) -> Result<SocketAddr, NetError> {
    let server = local.create_datagram_endpoint(addr, || EchoServer)?;
    println!("server: listening on {}", server.local_addr());
    Ok(server.local_addr())
}

fn start_client(local: &LocalLoop, addr: SocketAddr) -> Result<(), NetError> {
    let to_server = EndpointOptions::new().remote(addr);
    local.create_datagram_endpoint(to_server, || EchoClient)?;
    Ok(())
}

/// Has Ctrl-C end the run of the loop.
fn stop_on_interrupt(local: &LocalLoop) -> io::Result<()> {
    let stop = local.clone();
    local.add_signal_handler(SIGINT, move || {
        println!("interrupted");
        stop.stop();
    })
}

/// Takes the arguments of the program: a mode and an address, or none.
pub(crate) fn run(args: &[&str]) -> Result<(), Box<dyn Error>> {
    let runtime = Builder::new().loops(1).build()?;
    let local = runtime.local();
    stop_on_interrupt(local)?;
    match args {
        [] => start_client(local, start_server(local, "127.0.0.1:0".parse()?)?)?,
        ["--server", addr] => drop(start_server(local, addr.parse()?)?),
        ["--client", addr] => start_client(local, addr.parse()?)?,
        _ => return Err("usage: echo_udp [--server ADDR | --client ADDR]".into()),
    }
    runtime.run_forever()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    run(&args)
}

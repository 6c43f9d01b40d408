//! A TCP echo server and its client in one program, which runs until Ctrl-C.
//!
//! ```python
//! class EchoServer(asyncio.Protocol):
//!     def connection_made(self, transport):
//!         print("connection from", transport.get_extra_info("peername"))
//!         self.transport = transport
//!     def data_received(self, data):
//!         print("received", data.decode())
//!         self.transport.write(b"Re: " + data)
//!     def connection_lost(self, exc):
//!         print("connection lost")
//!
//! class EchoClient(asyncio.Protocol):
//!     def connection_made(self, transport):
//!         self.transport = transport
//!         transport.write(b"This is the message.")
//!     def data_received(self, data):
//!         print("received", data.decode())
//!         self.transport.close()
//!
//! loop.add_signal_handler(signal.SIGINT, loop.stop)
//! loop.run_until_complete(loop.create_server(EchoServer, host, port))
//! loop.run_until_complete(loop.create_connection(EchoClient, host, port))
//! loop.run_forever()
//! ```
//!
//! The server listens on every loop of the runtime; its protocol is the same as for one. `stop` is for
//! loop 0, to which signals belong; dropping the runtime ends the others.
//!
//! `cargo run --example echo_tcp [-- --server ADDR | --client ADDR]`; without arguments both, on a free
//! port.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::io;
use std::net::SocketAddr;

use garland::{Builder, LocalLoop, Protocol, Runtime, Transport};
use signal_hook::consts::SIGINT;

struct EchoServer;

impl Protocol for EchoServer {
    fn connection_made(&mut self, transport: &Transport) {
        println!("server: connection from {}", transport.peer_name());
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        println!("server: received {:?}", String::from_utf8_lossy(data));
        transport.write_lines([b"Re: ", data]);
    }

    fn connection_lost(&mut self, transport: &Transport, _error: Option<&io::Error>) {
        println!("server: lost {}", transport.peer_name());
    }
}

struct EchoClient;

impl Protocol for EchoClient {
    fn connection_made(&mut self, transport: &Transport) {
        println!("client: connected to {}", transport.peer_name());
        transport.write(b"This is the message.");
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        println!("client: received {:?}", String::from_utf8_lossy(data));
        transport.close();
    }
}

fn start_server(runtime: &Runtime, addr: SocketAddr) -> Result<SocketAddr, Box<dyn Error>> {
    let server = runtime
        .handle()
        .create_server(addr, |_local| || EchoServer)?;
    println!("server: listening on {}", server.local_addr());
    Ok(server.local_addr())
}

fn start_client(runtime: &Runtime, addr: SocketAddr) -> Result<(), Box<dyn Error>> {
    runtime.block_on(runtime.local().create_connection(addr, || EchoClient))??;
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
    let runtime = Builder::new().build()?;
    stop_on_interrupt(runtime.local())?;
    match args {
        [] => {
            let addr = start_server(&runtime, "127.0.0.1:0".parse()?)?;
            start_client(&runtime, addr)?;
        }
        ["--server", addr] => drop(start_server(&runtime, addr.parse()?)?),
        ["--client", addr] => start_client(&runtime, addr.parse()?)?,
        _ => return Err("usage: echo_tcp [--server ADDR | --client ADDR]".into()),
    }
    runtime.run_forever()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    run(&args)
}

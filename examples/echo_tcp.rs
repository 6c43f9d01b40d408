//! One echo protocol, served on every loop, and a client that talks to it.
//!
//! `cargo run --example echo_tcp` serves on a free port, sends three lines and prints what comes
//! back; `cargo run --example echo_tcp -- 127.0.0.1:7007` serves there until it is ended.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::net::SocketAddr;

use garland::{Builder, ListenOptions, Protocol, TcpStream, Transport};

/// Sends back what it receives, and closes when the peer has finished.
struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Builder::new().build()?;
    match std::env::args().nth(1) {
        Some(addr) => {
            let listen: ListenOptions = addr.parse()?;
            let server = runtime.handle().create_server(listen, |_| || Echo)?;
            println!("serving on {}", server.local_addr());
            runtime.run_forever()?;
        }
        None => {
            let listen: ListenOptions = "127.0.0.1:0".parse()?;
            let server = runtime.handle().create_server(listen, |_| || Echo)?;
            runtime.block_on(talk(server.local_addr()))??;
        }
    }
    Ok(())
}

async fn talk(addr: SocketAddr) -> std::io::Result<()> {
    let stream = TcpStream::connect(addr).await?;
    for line in ["one loop", "many loops", "no lost wake-up"] {
        stream.write_all(line.as_bytes()).await?;
        let mut echo = vec![0; line.len()];
        let mut filled = 0;
        while filled < echo.len() {
            match stream.read(&mut echo[filled..]).await? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                n => filled += n,
            }
        }
        println!("{}", String::from_utf8_lossy(&echo));
    }
    Ok(())
}

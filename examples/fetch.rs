//! `get_url`: an HTTP page fetched over a stream, line by line.
//!
//! ```python
//! async def get_url(host, port, path):
//!     reader, writer = await asyncio.open_connection(host, port)
//!     writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
//!     while line := (await reader.readline()).strip():
//!         print("header>", line.decode())
//!     body = await reader.read()
//!     writer.close()
//!     return body
//! ```
//!
//! Without an argument the page comes from a small server in the same program, which is written with
//! streams as well. Both run on one loop: where one of them waits, the other goes on.
//!
//! `cargo run --example fetch [-- http://HOST[:PORT]/PATH]`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::io;

use garland::{Builder, ListenOptions, StreamReader, StreamWriter, open_connection, resolve};

async fn get_url(host: &str, port: u16, path: &str) -> io::Result<Vec<u8>> {
    let (mut reader, writer) = open_connection(&resolve(host, port).await?[..]).await?;
    writer.write(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes());
    loop {
        let line = reader.readline().await?;
        let line = String::from_utf8_lossy(line.trim_ascii_end());
        if line.is_empty() {
            break;
        }
        println!("header> {line}");
    }
    let body = reader.read_to_end().await?;
    writer.close();
    Ok(body)
}

/// Answers every request with what was asked for.
async fn page(mut reader: StreamReader, writer: StreamWriter) -> io::Result<()> {
    let request = reader.readline().await?;
    let request = String::from_utf8_lossy(request.trim_ascii_end());
    while !reader.readline().await?.trim_ascii_end().is_empty() {}
    let body = format!("You asked: {request}\n");
    let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    writer.write_lines([head.as_bytes(), body.as_bytes()]);
    writer.close();
    writer.wait_closed().await
}

/// `http://HOST[:PORT][/PATH]`, taken apart.
fn split(url: &str) -> Option<(&str, u16, &str)> {
    let rest = url.strip_prefix("http://")?;
    let slash = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at(slash);
    let path = if path.is_empty() { "/" } else { path };
    match host.rsplit_once(':') {
        Some((host, port)) => Some((host, port.parse().ok()?, path)),
        None => Some((host, 80, path)),
    }
}

/// Prints what is behind `url`, or the page of a server of its own.
pub(crate) fn run(url: Option<&str>) -> Result<(), Box<dyn Error>> {
    let runtime = Builder::new().loops(1).build()?;
    let listen: ListenOptions = "127.0.0.1:0".parse()?;
    let server = runtime.local().start_server(listen, page)?;
    let own = format!("http://{}/index.html", server.local_addr());
    let (host, port, path) = split(url.unwrap_or(&own)).ok_or("not an http:// address")?;
    let body = runtime.block_on(get_url(host, port, path))??;
    print!("{}", String::from_utf8_lossy(&body));
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    run(std::env::args().nth(1).as_deref())
}

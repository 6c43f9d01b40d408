//! The server that `loadgen demo` measures: one echo service, no file, no signals.
//!
//! It lives in the daemon's library so that what is measured is the daemon's own echo, and it runs in a
//! process of its own so that nothing is shared with the measuring side. Whoever started it holds its
//! standard input; when that closes, for whatever reason, the server ends: none is left behind.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use garland::Builder;

use crate::{lifecycle::StartError, services, settings::TcpEcho};

/// Bound on ending: who measures has closed its connections by then.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// Serves on `127.0.0.1`, a free port, with that many loops until standard input ends.
///
/// The line `listening demo tcp 127.0.0.1:PORT (N loops)` on standard error says that it is ready. Loops
/// are pinned as [`garland::Pin::Auto`] decides, to the first CPUs.
#[must_use]
pub fn serve(loops: usize) -> ExitCode {
    match run(loops) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(loops: usize) -> Result<(), StartError> {
    let runtime = Builder::new()
        .loops(loops)
        .thread_name("demo")
        .start()
        .map_err(|error| StartError::new(format!("cannot start {loops} loops: {error}")))?;
    let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let serving = services::listen(runtime.handle(), &[bind], &TcpEcho::default())
        .map_err(|error| StartError::new(format!("cannot serve on {bind}: {error}")))?;
    let server = serving.server;
    eprintln!("listening demo tcp {} ({loops} loops)", server.local_addr());
    let ended = io::copy(&mut io::stdin().lock(), &mut io::sink());
    server.close();
    runtime.shutdown(STOP_LIMIT);
    match ended {
        Ok(_bytes) => Ok(()),
        Err(error) => Err(StartError::new(format!(
            "cannot read standard input: {error}"
        ))),
    }
}

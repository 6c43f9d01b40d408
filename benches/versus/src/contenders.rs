//! Who is compared: for each test the servers, their programs, and how to call them.
//!
//! A server whose program was not built, or that says it cannot run on this machine, is not here: it is listed with the
//! reason and never silently missing.

use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;

use crate::building::NotBuilt;
use crate::process::{Refused, ServerProcess};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Test {
    /// Echo over TCP: CPU time per request
    Tcp,
    /// Echo of datagrams: CPU time per request
    Udp,
    /// Echo over TCP at a fixed rate: CPU time per request, and latency
    Rate,
    /// Echo over TCP on two CPUs: what stealing and rescue cost where there is nothing for them to do
    Price,
    /// Requests with work: the tail of the latency, two CPUs
    Spin,
    /// One request that holds a loop for seconds: what becomes of the others, two CPUs
    Hog,
}

impl Test {
    /// All of them.
    pub const ALL: [Test; 6] = [
        Test::Tcp,
        Test::Udp,
        Test::Rate,
        Test::Price,
        Test::Spin,
        Test::Hog,
    ];

    /// As its servers' option.
    fn service(self) -> &'static str {
        match self {
            Test::Tcp | Test::Rate | Test::Price => "--service=echo",
            Test::Udp => "--service=udp",
            Test::Spin | Test::Hog => "--service=spin",
        }
    }
}

/// A server to compare.
#[derive(Debug)]
pub struct Contender {
    /// As it stands in tables.
    pub name: &'static str,
    /// Its program, beside the driver's.
    program: &'static str,
    /// Besides the service.
    arguments: &'static [&'static str],
    /// What it takes part in.
    tests: &'static [Test],
}

const fn contender(
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    tests: &'static [Test],
) -> Contender {
    Contender {
        name,
        program,
        arguments,
        tests,
    }
}

/// The floor a second time: how far ratios can be trusted here and now. Only by name.
const AGAIN: &str = "mio-again";

const TCP: &[Test] = &[Test::Tcp, Test::Rate];
const UDP: &[Test] = &[Test::Udp];
const ECHO: &[Test] = &[Test::Tcp, Test::Rate, Test::Udp];
const PRICE: &[Test] = &[Test::Price];
const WORK: &[Test] = &[Test::Spin, Test::Hog];
const PRICE_AND_WORK: &[Test] = &[Test::Price, Test::Spin, Test::Hog];
const STREAMS: &[Test] = &[Test::Tcp, Test::Rate, Test::Spin, Test::Hog];
const EVERYBODY: &[Test] = &[Test::Tcp, Test::Rate, Test::Udp, Test::Spin, Test::Hog];

const NO_RESCUE: &[&str] = &["task", "--no-rescue"];
const NEITHER: &[&str] = &["task", "--no-rescue", "--no-steal"];
const CALLBACK_NEITHER: &[&str] = &["callback", "--no-rescue", "--no-steal"];

/// All there are.
const CONTENDERS: &[Contender] = &[
    contender("mio", "serve_mio", &[], TCP),
    contender(AGAIN, "serve_mio", &[], TCP),
    contender("c-epoll", "serve_epoll", &[], TCP),
    contender("mio", "serve_udp", &["mio"], UDP),
    contender(AGAIN, "serve_udp", &["mio"], UDP),
    contender("mio-batch", "serve_udp", &["mio-batch"], UDP),
    contender("oracle", "serve_oracle", &[], WORK),
    contender("garland-callback", "serve_garland", &["callback"], TCP),
    contender("garland-task", "serve_garland", &["task"], TCP),
    contender("garland-lent", "serve_garland", &["lent"], TCP),
    contender("garland-callback", "serve_udp", &["garland-callback"], UDP),
    contender("garland-task", "serve_udp", &["garland-task"], UDP),
    contender("garland", "serve_garland", &["task"], PRICE_AND_WORK),
    contender(
        "garland-no-rescue",
        "serve_garland",
        NO_RESCUE,
        PRICE_AND_WORK,
    ),
    contender("garland-neither", "serve_garland", NEITHER, PRICE_AND_WORK),
    // The same a second time: a price below its distance from 1 cannot be seen.
    contender("garland-neither-again", "serve_garland", NEITHER, PRICE),
    contender("garland-callback", "serve_garland", &["callback"], PRICE),
    contender(
        "garland-callback-neither",
        "serve_garland",
        CALLBACK_NEITHER,
        PRICE,
    ),
    contender("tokio", "serve_tokio", &["multi-thread"], EVERYBODY),
    contender("tokio-per-core", "serve_tokio", &["per-core"], STREAMS),
    contender("smol", "serve_smol", &[], EVERYBODY),
    contender("monoio-epoll", "serve_monoio", &["epoll"], EVERYBODY),
    contender("monoio-uring", "serve_monoio", &["uring"], EVERYBODY),
    contender("glommio", "serve_glommio", &[], EVERYBODY),
    contender("compio", "serve_compio", &[], EVERYBODY),
    contender("go", "serve_go", &[], EVERYBODY),
    contender("libuv", "serve_libuv", &[], ECHO),
];

/// Those of one test: all but the floor's double, or the ones that are named.
pub fn of(test: Test, names: &[String]) -> Vec<&'static Contender> {
    let all = CONTENDERS.iter().filter(|one| one.tests.contains(&test));
    if names.is_empty() {
        return all.filter(|one| one.name != AGAIN).collect();
    }
    all.filter(|one| names.iter().any(|name| name == one.name))
        .collect()
}

/// Every name there is.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    CONTENDERS.iter().map(|contender| contender.name)
}

impl Contender {
    /// Starts it for `test` on `cpus`.
    ///
    /// # Errors
    /// [`Refused`] with the reason when it cannot run here, others when it fails.
    pub fn start(
        &self,
        test: Test,
        programs: &Path,
        not_built: &NotBuilt,
        cpus: &[usize],
    ) -> anyhow::Result<ServerProcess> {
        if let Some(reason) = not_built.get(self.program) {
            return Err(Refused(reason.clone()).into());
        }
        let program = programs.join(self.program);
        if !program.exists() {
            return Err(Refused("not built: give cargo `--features peers`".into()).into());
        }
        let mut arguments = self.arguments.to_vec();
        // The one program that takes nothing but datagrams has no such option.
        if self.program != "serve_udp" && self.program != "serve_mio" {
            arguments.push(test.service());
        }
        ServerProcess::start(&program, &arguments, cpus)
            .with_context(|| format!("{} did not start", self.name))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use crate::contenders::{AGAIN, Test, of};

    #[test]
    fn within_a_test_a_name_means_one_server() {
        for test in Test::ALL {
            let servers = of(test, &[]);
            let names: HashSet<&str> = servers.iter().map(|one| one.name).collect();
            assert_eq!(names.len(), servers.len(), "{test:?}");
            assert!(names.contains("tokio") != (test == Test::Price), "{test:?}");
            assert!(!names.contains(AGAIN), "{test:?}");
        }
        assert_eq!(of(Test::Tcp, &[AGAIN.into()]).len(), 1);
    }
}

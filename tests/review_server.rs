//! Servers at their limits.
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use garland::{Builder, Pin, Protocol, Server, Transport};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

struct Nothing;
impl Protocol for Nothing {
    fn data_received(&mut self, _: &Transport, _: &[u8]) {}
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

fn survives(name: &str) {
    let exe = std::env::current_exe().expect("known");
    let out = Command::new(exe)
        .args(["--ignored", "--exact", name])
        .output()
        .expect("started");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{}: {text}", out.status);
}

fn closes_without_descriptors(server: &Server) {
    let client =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("made");
    let before = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(3),
            maximum: before.maximum,
        },
    )
    .expect("lowered");
    client
        .connect(&server.local_addr().into())
        .expect("the kernel accepts");
    let until = Instant::now() + Duration::from_secs(2);
    while server.stats().accept_pauses < 2 {
        assert!(Instant::now() < until, "no pause: {:?}", server.stats());
        std::thread::sleep(Duration::from_millis(1));
    }
    server.close();
    let idle = server.wait_idle(Duration::from_secs(5));
    setrlimit(Resource::Nofile, before).expect("put back");
    assert!(idle, "{:?}", server.stats());
}

#[test]
fn a_callback_server_without_descriptors_can_be_closed() {
    survives("child_callback");
}

#[test]
#[ignore = "changes limits of its process"]
fn child_callback() {
    let runtime = Builder::new()
        .loops(1)
        .pin(Pin::Off)
        .start()
        .expect("started");
    let server = runtime
        .handle()
        .create_server(any(), |_| || Nothing)
        .expect("listens");
    std::thread::sleep(Duration::from_millis(50));
    closes_without_descriptors(&server);
}

#[test]
fn a_task_server_without_descriptors_can_be_closed() {
    survives("child_task");
}

#[test]
#[ignore = "changes limits of its process"]
fn child_task() {
    let runtime = Builder::new()
        .loops(1)
        .pin(Pin::Off)
        .start()
        .expect("started");
    let server = runtime
        .handle()
        .serve(any(), |_stream| async {})
        .expect("listens");
    std::thread::sleep(Duration::from_millis(50));
    closes_without_descriptors(&server);
}

#[test]
fn a_closed_runtime_refuses_to_serve() {
    let runtime = Builder::new()
        .loops(1)
        .pin(Pin::Off)
        .build()
        .expect("built");
    let handle = runtime.handle().clone();
    drop(runtime);
    assert!(handle.create_server(any(), |_| || Nothing).is_err());
    assert!(handle.serve(any(), |_stream| async {}).is_err());
}

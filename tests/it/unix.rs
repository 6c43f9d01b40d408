//! Rows UNIX: Unix stream sockets, of both models.
//!
//! The other end is a plain socket of `std::os::unix::net`.

use std::fs;
use std::future::{Future, poll_fn};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener as RawListener, UnixStream as RawStream};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use garland::{
    AfterEof, ConnectOptions, LocalLoop, LoopHandle, NetError, Server, SocketName,
    UnixListenOptions, UnixListener, UnixStream,
};

use crate::servers::Model;
use crate::sockets::{Echo, LIMIT, Log, Recorder, eventually, until};
use crate::support::{background, end, end_background, lent, run};

/// A directory of its own, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("garland-it-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("nobody else uses this name");
        Folder(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// Both models, with one loop, two and four.
fn each(test: impl Fn(Model, &LoopHandle, &Folder)) {
    for model in Model::BOTH {
        for loops in [1, 2, 4] {
            let runtime = background(loops);
            test(model, runtime.handle(), &Folder::new());
            end_background(runtime);
        }
    }
}

/// On a loop, with one of them, two and four.
fn each_local(test: impl AsyncFn(&LocalLoop, &Folder)) {
    for loops in [1, 2, 4] {
        let runtime = lent(loops);
        run(&runtime, test(runtime.local(), &Folder::new()));
        end(runtime);
    }
}

fn try_echo(
    model: Model,
    handle: &LoopHandle,
    listen: impl Into<UnixListenOptions>,
) -> Result<Server, NetError> {
    match model {
        Model::Callbacks => handle.create_unix_server(listen, |_local| || Echo),
        Model::Tasks => handle.serve_unix(listen, |stream| async move {
            let mut buf = vec![0; 16 * 1024];
            while let Ok(count @ 1..) = stream.read(&mut buf).await {
                stream.write_all(&buf[..count]).await.expect("it reads");
            }
        }),
    }
}

fn echo(model: Model, handle: &LoopHandle, listen: impl Into<UnixListenOptions>) -> Server {
    try_echo(model, handle, listen).expect("it can be bound")
}

fn connect(path: &Path) -> RawStream {
    let client = RawStream::connect(path).expect("it listens");
    client.set_read_timeout(Some(LIMIT)).expect("not zero");
    client
}

fn echo_once(client: &mut RawStream, data: &[u8]) {
    client.write_all(data).expect("the server reads");
    let mut echoed = vec![0; data.len()];
    client.read_exact(&mut echoed).expect("the bytes arrive");
    assert_eq!(echoed, data);
}

fn close(server: &Server) {
    server.close();
    assert!(server.wait_idle(LIMIT), "{server:?}");
}

#[test]
fn unix_01_every_loop_accepts_from_one_queue() {
    each(|model, handle, folder| {
        let path = folder.path("echo");
        let server = echo(model, handle, path.as_path());
        assert_eq!(server.local_name().as_path(), Some(path.as_path()));
        assert!(server.local_addrs().is_empty());
        assert_eq!(server.stats().listeners, handle.loops() as u64);
        let mut clients: Vec<_> = (0..40).map(|_| connect(&path)).collect();
        for client in &mut clients {
            echo_once(client, b"hello");
        }
        assert_eq!(server.stats().accepted, 40);
        server.close();
        eventually("no listener", || server.stats().listeners == 0);
        for client in &mut clients {
            echo_once(client, b"left alone by the close");
        }
        RawStream::connect(&path).expect_err("nobody listens");
        drop(clients);
        assert!(server.wait_idle(LIMIT));
    });
}

#[test]
fn unix_01_close_serves_the_queue_and_clients_can_be_ended() {
    each(|model, handle, folder| {
        let path = folder.path("echo");
        let server = echo(model, handle, path.as_path());
        let release: Vec<_> = (0..handle.loops())
            .map(|id| crate::servers::block_loop(&handle.on(id)))
            .collect();
        // A connection stands when `connect` returns: all of them are in the queue.
        let mut clients: Vec<_> = (0..30).map(|_| connect(&path)).collect();
        server.close();
        drop(release);
        for client in &mut clients {
            echo_once(client, b"hello");
        }
        server.close_clients();
        for client in &mut clients {
            assert_eq!(client.read(&mut [0; 1]).expect("orderly"), 0);
        }
        assert!(server.wait_idle(LIMIT));
    });
}

#[test]
fn unix_01_start_serving_and_limits_are_those_of_tcp() {
    each(|model, handle, folder| {
        let path = folder.path("echo");
        let listen = UnixListenOptions::new(&path).start_serving(false);
        let server = echo(model, handle, listen.max_connections(1));
        let refused = RawStream::connect(&path).expect_err("bound, not listening");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        server.start_serving().expect("not closed");
        let mut first = connect(&path);
        echo_once(&mut first, b"hello");
        let mut second = connect(&path);
        second.write_all(b"waits").expect("the kernel takes it");
        eventually("a pause", || server.stats().accept_pauses > 0);
        assert_eq!(server.stats().open, 1);
        drop(first);
        let mut echoed = [0; 5];
        second.read_exact(&mut echoed).expect("there is room now");
        drop(second);
        close(&server);
    });
}

#[test]
fn unix_01_a_stale_socket_file_is_replaced() {
    each(|model, handle, folder| {
        let path = folder.path("stale");
        drop(RawListener::bind(&path).expect("a new name"));
        assert!(path.exists(), "nobody has removed it");
        let server = echo(model, handle, path.as_path());
        echo_once(&mut connect(&path), b"hello");
        close(&server);
    });
}

#[test]
fn unix_01_another_file_or_a_live_server_is_address_in_use() {
    each(|model, handle, folder| {
        let file = folder.path("file");
        fs::write(&file, "precious").expect("a new name");
        let link = folder.path("link");
        std::os::unix::fs::symlink(&file, &link).expect("a new name");
        let live = folder.path("live");
        let live_server = echo(model, handle, live.as_path());
        let mut client = connect(&live);
        echo_once(&mut client, b"hello");
        for path in [&file, &link, &live] {
            let refused = try_echo(model, handle, path.as_path());
            let error = refused.expect_err("it is in use");
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            assert_eq!(error.path(), Some(path.as_path()));
            assert_eq!(error.addr(), None);
            let text = error.to_string();
            assert!(text.contains(&path.display().to_string()), "{text}");
        }
        assert_eq!(fs::read(&file).expect("it is there"), b"precious");
        echo_once(&mut client, b"not disturbed");
        echo_once(&mut connect(&live), b"and not robbed of its name");
        drop(client);
        close(&live_server);
    });
}

#[test]
fn unix_01_a_full_queue_is_a_live_server() {
    each(|model, handle, folder| {
        let path = folder.path("full");
        let listen = UnixListenOptions::new(&path).backlog(0);
        let server = echo(model, handle, listen);
        let release: Vec<_> = (0..handle.loops())
            .map(|id| crate::servers::block_loop(&handle.on(id)))
            .collect();
        let mut first = connect(&path);
        let error = try_connect(&path);
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "the queue is full");
        let thief = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let runtime = lent(1);
                let refused = try_echo(model, runtime.handle(), path.as_path());
                end(runtime);
                refused.map(drop).map_err(|error| error.kind())
            });
            other.join().expect("no panic")
        });
        assert_eq!(thief, Err(ErrorKind::AddrInUse));
        drop(release);
        echo_once(&mut first, b"hello");
        drop(first);
        close(&server);
    });
}

/// What the kernel says when it is not asked to wait, as `std` asks it.
fn try_connect(path: &Path) -> std::io::Error {
    let kind = socket2::Type::STREAM.nonblocking();
    let socket = socket2::Socket::new(socket2::Domain::UNIX, kind, None);
    let addr = socket2::SockAddr::unix(path).expect("short enough");
    let connected = socket.expect("a descriptor is free").connect(&addr);
    connected.expect_err("full")
}

#[test]
fn unix_01_abstract_names_have_no_file() {
    each(|model, handle, folder| {
        let name = format!("\0{}", folder.0.display());
        let server = echo(model, handle, name.as_str());
        let bytes = &name.as_bytes()[1..];
        assert_eq!(*server.local_name(), SocketName::Abstract(bytes.into()));
        let refused = try_echo(model, handle, name.as_str()).expect_err("it is taken");
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
        let readable = format!("@{}", folder.0.display());
        assert!(refused.to_string().contains(&readable), "{refused}");
        let task = handle.spawn({
            let name = name.clone();
            async move {
                let stream = UnixStream::connect(name).await.expect("it listens");
                stream.write_all(b"hello").await.expect("it reads");
                let mut buf = [0; 5];
                stream.read(&mut buf).await.expect("it echoes");
                buf
            }
        });
        let echoed = futures_lite::future::block_on(task);
        assert_eq!(&echoed.expect("did not panic"), b"hello");
        close(&server);
        close(&echo(model, handle, name.as_str()));
    });
}

#[test]
fn unix_01_a_socket_may_be_given_and_must_be_a_unix_stream() {
    each(|model, handle, folder| {
        let path = folder.path("given");
        let given = RawListener::bind(&path).expect("a new name");
        let server = echo(model, handle, given);
        let mut clients: Vec<_> = (0..20).map(|_| connect(&path)).collect();
        for client in &mut clients {
            echo_once(client, b"hello");
        }
        drop(clients);
        close(&server);
        assert!(!path.exists(), "UNIX-02 holds for it as well");

        let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port exists");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port exists");
        let datagram = UnixDatagram::unbound().expect("a descriptor is free");
        let bad: [(OwnedFd, &str); 3] = [
            (tcp.into(), "create_server"),
            (udp.into(), "a stream socket is needed"),
            (datagram.into(), "a stream socket is needed"),
        ];
        for (socket, hint) in bad {
            let refused = try_echo(model, handle, UnixListenOptions::socket(socket));
            let error = refused.expect_err(hint).to_string();
            assert!(error.contains(hint), "{error}");
        }
    });
}

#[test]
fn unix_01_a_client_protocol_is_made_and_told_as_with_tcp() {
    each_local(async |local, folder| {
        let path = folder.path("raw");
        let listener = RawListener::bind(&path).expect("a new name");
        let log = Log::default();
        let factory = || {
            log.add("factory");
            let log = log.clone();
            Recorder {
                log,
                reaction: Rc::new(|_, _| {}),
                after_eof: AfterEof::Close,
            }
        };
        let connecting = local.create_unix_connection(&path, &factory);
        let transport = connecting.await.expect("it listens");
        assert_eq!(log.lines(), ["factory", "made"]);
        assert_eq!(transport.peer_name().as_path(), Some(path.as_path()));
        let (mut peer, _) = listener.accept().expect("it is waiting");
        peer.write_all(b"hello").expect("connected");
        until("data", || log.has("data 5")).await;
        transport.write(b"world");
        let mut buf = [0; 5];
        peer.read_exact(&mut buf).expect("connected");
        drop(peer);
        until("connection_lost", || log.is_lost()).await;
        let lines = ["factory", "made", "data 5", "eof", "lost none"];
        assert_eq!(log.lines(), lines);

        // By a socket instead of a path.
        let given = ConnectOptions::socket(connect(&path));
        let transport = local.create_connection(given, &factory).await;
        transport.expect("it is connected").abort();
        drop(listener.accept().expect("the one given"));
    });
}

#[test]
fn unix_01_connecting_fails_with_the_path() {
    each_local(async |local, folder| {
        let missing = folder.path("missing");
        let stale = folder.path("stale");
        drop(RawListener::bind(&stale).expect("a new name"));
        let cases = [
            (&missing, ErrorKind::NotFound),
            (&stale, ErrorKind::ConnectionRefused),
        ];
        for (path, kind) in cases {
            let never = || -> Echo { unreachable!("nobody listens") };
            let error = local.create_unix_connection(path, never).await;
            let error = error.expect_err("nobody listens");
            assert_eq!((error.kind(), error.path()), (kind, Some(path.as_path())));
            let error = UnixStream::connect(path).await.expect_err("nobody listens");
            assert_eq!((error.kind(), error.path()), (kind, Some(path.as_path())));
        }
        let long = "x".repeat(200);
        let error = UnixStream::connect(&long).await.expect_err("too long");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&long), "{error}");
    });
}

#[test]
fn unix_01_a_client_waits_for_room_in_the_queue() {
    each_local(async |_local, folder| {
        let path = folder.path("full");
        let listen = UnixListenOptions::new(&path).backlog(0);
        let listener = UnixListener::bind(listen).expect("a new name");
        let _first = connect(&path);
        let mut second = pin!(UnixStream::connect(&path));
        poll_fn(|cx| {
            assert!(second.as_mut().poll(cx).is_pending(), "there is no room");
            Poll::Ready(())
        })
        .await;
        let (_served, peer) = listener.accept().await.expect("it is waiting");
        assert_eq!(peer, SocketName::Unnamed);
        let second = garland::timeout(LIMIT, second).await.expect("in time");
        assert_eq!(
            second
                .expect("there is room")
                .peer_name()
                .expect("connected")
                .as_path(),
            Some(path.as_path())
        );
    });
}

#[test]
fn unix_01_streams_of_tasks_read_write_and_half_close() {
    each_local(async |_local, _folder| {
        let (one, other) = UnixStream::pair().expect("descriptors are free");
        assert_eq!(one.local_name().expect("open"), SocketName::Unnamed);
        let echo = garland::spawn(async move {
            let copied = futures_lite::io::copy(&other, &other).await;
            (&other).close().await.expect("connected");
            copied.expect("orderly")
        });
        let data = crate::sockets::pattern(1_000_000);
        let (mut heard, sent) = (Vec::new(), data.clone());
        let one = std::sync::Arc::new(one);
        let writing = garland::spawn({
            let one = one.clone();
            async move {
                one.write_all(&sent).await.expect("it reads");
                one.shutdown(Shutdown::Write).expect("connected");
            }
        });
        (&*one).read_to_end(&mut heard).await.expect("orderly");
        writing.await.expect("did not panic");
        assert!(heard == data);
        assert_eq!(echo.await.expect("did not panic"), data.len() as u64);
        let late = one.write(b"late").await.expect_err("ended");
        assert_eq!(late.kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn unix_02_the_file_is_removed_with_the_last_listener() {
    each(|model, handle, folder| {
        let path = folder.path("own");
        let server = echo(model, handle, path.as_path());
        let mut client = connect(&path);
        echo_once(&mut client, b"hello");
        server.close();
        eventually("no listener", || server.stats().listeners == 0);
        assert!(
            !path.exists(),
            "the listeners are closed, the client is not"
        );
        drop(client);
        close(&server);

        // Also if it never served, and if nobody has closed it.
        let listen = UnixListenOptions::new(&path).start_serving(false);
        drop(echo(model, handle, listen));
        assert!(!path.exists());
    });
}

#[test]
fn unix_02_the_end_of_the_runtime_removes_the_file() {
    for model in Model::BOTH {
        for loops in [1, 2, 4] {
            let folder = Folder::new();
            let path = folder.path("own");
            let runtime = background(loops);
            let server = echo(model, runtime.handle(), path.as_path());
            echo_once(&mut connect(&path), b"hello");
            end_background(runtime);
            assert!(!path.exists());
            assert!(server.wait_idle(Duration::ZERO), "{server:?}");
        }
    }
}

#[test]
fn unix_02_a_file_that_has_taken_its_place_stays() {
    each(|model, handle, folder| {
        let path = folder.path("own");
        let server = echo(model, handle, path.as_path());
        fs::rename(&path, folder.path("moved")).expect("it is there");
        let successor = echo(model, handle, path.as_path());
        close(&server);
        assert!(path.exists(), "it is the successor's");
        echo_once(&mut connect(&path), b"hello");
        close(&successor);
        assert!(!path.exists());

        let server = echo(model, handle, path.as_path());
        fs::remove_file(&path).expect("it is there");
        fs::write(&path, "precious").expect("a new name");
        close(&server);
        assert_eq!(fs::read(&path).expect("it is there"), b"precious");
    });
}

#[test]
fn unix_02_removing_can_be_turned_off() {
    each(|model, handle, folder| {
        let path = folder.path("kept");
        let listen = UnixListenOptions::new(&path).cleanup_socket(false);
        close(&echo(model, handle, listen.clone()));
        assert!(path.exists());
        close(&echo(model, handle, listen));
    });
}

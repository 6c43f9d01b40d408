//! What the socket tests share: raw clients of `std::net`, a protocol that keeps a log, the ledger of
//! what must come back, and tests that need a process of their own.
//!
//! Nothing here uses garland for the client's side: an error in the library must not hide itself.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use garland::ListenOptions;
use garland::{AfterEof, Protocol, Transport};
use garland::{BackgroundRuntime, Builder, LoopHandle, Pin, Runtime};
use socket2::SockRef;

/// How long anything may take before a test fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Set in a process that runs one test alone.
const CHILD: &str = "GARLAND_IT_CHILD";

pub(crate) fn lent(loops: usize) -> Runtime {
    let builder = Builder::new().loops(loops).pin(Pin::Off);
    builder.build().expect("a runtime can be built")
}

pub(crate) fn background(loops: usize) -> BackgroundRuntime {
    let builder = Builder::new().loops(loops).pin(Pin::Off);
    builder.start().expect("a runtime can be started")
}

/// Shuts down and checks the ledger.
pub(crate) fn finish(runtime: BackgroundRuntime) {
    let handle = runtime.handle().clone();
    let report = runtime.shutdown(LIMIT);
    assert!(report.is_clean(), "{report}");
    assert_ledger_is_zero(&handle);
}

/// Shuts down and checks the ledger.
pub(crate) fn finish_lent(runtime: Runtime) {
    let handle = runtime.handle().clone();
    let report = runtime.shutdown(LIMIT);
    assert!(report.is_clean(), "{report}");
    assert_ledger_is_zero(&handle);
}

pub(crate) fn assert_ledger_is_zero(handle: &LoopHandle) {
    let stats = handle.stats();
    assert_eq!(stats.total(|one| one.tasks_live), 0, "tasks: {stats:#?}");
    assert_eq!(stats.total(|one| one.timers_armed), 0, "timers: {stats:#?}");
    let sockets = stats.total(|one| one.sockets_registered);
    assert_eq!(sockets, 0, "sockets: {stats:#?}");
}

/// Loopback, a port chosen by the system.
pub(crate) fn any_port() -> ListenOptions {
    ListenOptions::new(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// An address at which nobody listens, and nobody else will: the socket returned holds the port.
pub(crate) fn refusing_addr() -> (SocketAddr, socket2::Socket) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .expect("a socket can be made");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a free port exists");
    let addr = socket.local_addr().expect("a bound socket has an address");
    (addr.as_socket().expect("it is IPv4"), socket)
}

/// A blocking client whose every call is bounded.
pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let client = TcpStream::connect_timeout(&addr, LIMIT).expect("the server listens");
    client.set_read_timeout(Some(LIMIT)).expect("not zero");
    client.set_write_timeout(Some(LIMIT)).expect("not zero");
    client.set_nodelay(true).expect("a TCP socket");
    client
}

/// A blocking listener for tests in which garland is the client.
pub(crate) fn raw_listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port exists");
    let addr = listener.local_addr().expect("it is bound");
    (listener, addr)
}

/// Ends the connection by a reset instead of an orderly end.
pub(crate) fn reset(client: TcpStream) {
    SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .expect("a connected socket has a linger time");
    drop(client);
}

pub(crate) fn read_exactly(client: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut buf = vec![0; count];
    client.read_exact(&mut buf).expect("the bytes arrive");
    buf
}

/// Sends `data` and expects it back.
pub(crate) fn echo_once(client: &mut TcpStream, data: &[u8]) {
    client.write_all(data).expect("the server reads");
    assert_eq!(read_exactly(client, data.len()), data);
}

/// Bytes that do not repeat in step with any buffer.
pub(crate) fn pattern(count: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..count).map(next).collect()
}

/// Waits until `condition` holds; fails with `what` when the limit is over.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The same on a loop, which goes on meanwhile.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "not in time: {what}");
        garland::sleep(Duration::from_millis(1)).await;
    }
}

/// Reads a non-blocking client to its end, on a loop, which goes on meanwhile.
pub(crate) async fn read_to_end(mut client: &TcpStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut buf = vec![0; 256 * 1024];
    let start = Instant::now();
    loop {
        match client.read(&mut buf) {
            Ok(0) => return Ok(all),
            Ok(count) => all.extend_from_slice(&buf[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                assert!(start.elapsed() < LIMIT, "no end after {} bytes", all.len());
                garland::sleep(Duration::from_micros(200)).await;
            }
            Err(error) => return Err(error),
        }
        garland::yield_now().await;
    }
}

/// Reads `count` bytes of a non-blocking client, on a loop.
pub(crate) async fn read_some(mut client: &TcpStream, count: usize) -> Vec<u8> {
    let mut buf = vec![0; count];
    let mut filled = 0;
    let start = Instant::now();
    while filled < count {
        match client.read(&mut buf[filled..]) {
            Ok(0) => panic!("the end after {filled} of {count} bytes"),
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                assert!(start.elapsed() < LIMIT, "{filled} of {count} bytes");
                garland::sleep(Duration::from_micros(200)).await;
            }
            Err(error) => panic!("after {filled} of {count} bytes: {error}"),
        }
    }
    buf
}

/// Descriptors of this process; means something only in a process of one test.
pub(crate) fn open_fds() -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").expect("Linux has it");
    entries.count()
}

/// Runs the test `name` again in a process of its own, where it may count descriptors and change
/// limits. True there; false in the first process, which then has nothing left to do.
pub(crate) fn is_alone(name: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("a running program has a path");
    let mut child = Command::new(program)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program can be started again");
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        if start.elapsed() > 4 * LIMIT {
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
            panic!("{name} hangs in its own process");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut output = String::new();
    let mut stdout = child.stdout.take().expect("it is piped");
    stdout.read_to_string(&mut output).expect("text");
    assert!(status.success(), "{name} in its own process: {output}");
    assert!(output.contains("1 passed"), "no test is called {name}");
    false
}

/// What a protocol was told.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    Made,
    Data(&'a [u8]),
    Eof,
    Pause,
    Resume,
    Lost(Option<&'a io::Error>),
}

/// The log of one protocol; adjacent data is joined, for its cutting means nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.borrow().clone()
    }

    pub(crate) fn has(&self, line: &str) -> bool {
        self.count(line) > 0
    }

    pub(crate) fn count(&self, line: &str) -> usize {
        let lines = self.0.borrow();
        lines.iter().filter(|have| *have == line).count()
    }

    pub(crate) fn is_lost(&self) -> bool {
        let lines = self.0.borrow();
        lines.iter().any(|line| line.starts_with("lost"))
    }

    pub(crate) fn add(&self, line: impl Into<String>) {
        self.0.borrow_mut().push(line.into());
    }

    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    fn add_event(&self, event: &Event<'_>) {
        match event {
            Event::Made => self.add("made"),
            Event::Data(data) => self.add_data(data.len()),
            Event::Eof => self.add("eof"),
            Event::Pause => self.add("pause"),
            Event::Resume => self.add("resume"),
            Event::Lost(None) => self.add("lost none"),
            Event::Lost(Some(error)) => self.add(format!("lost {:?}", error.kind())),
        }
    }

    fn add_data(&self, count: usize) {
        let mut lines = self.0.borrow_mut();
        let last = lines.last().and_then(|line| line.strip_prefix("data "));
        match last.and_then(|number| number.parse::<usize>().ok()) {
            Some(before) => {
                lines.pop();
                lines.push(format!("data {}", before + count));
            }
            None => lines.push(format!("data {count}")),
        }
    }
}

/// How a recorder reacts to what it is told.
pub(crate) type Reaction = Rc<dyn Fn(&Event<'_>, &Transport)>;

/// A protocol that writes down what it is told, and then reacts.
pub(crate) struct Recorder {
    pub(crate) log: Log,
    pub(crate) reaction: Reaction,
    pub(crate) after_eof: AfterEof,
}

impl Recorder {
    fn tell(&self, event: Event<'_>, transport: &Transport) {
        self.log.add_event(&event);
        (self.reaction)(&event, transport);
    }
}

impl Protocol for Recorder {
    fn connection_made(&mut self, transport: &Transport) {
        self.tell(Event::Made, transport);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        assert!(!data.is_empty(), "PROTO-02");
        self.tell(Event::Data(data), transport);
    }

    fn eof_received(&mut self, transport: &Transport) -> AfterEof {
        self.tell(Event::Eof, transport);
        self.after_eof
    }

    fn pause_writing(&mut self, transport: &Transport) {
        self.tell(Event::Pause, transport);
    }

    fn resume_writing(&mut self, transport: &Transport) {
        self.tell(Event::Resume, transport);
    }

    fn connection_lost(&mut self, transport: &Transport, error: Option<&io::Error>) {
        self.tell(Event::Lost(error), transport);
    }
}

/// Echoes, and reads no more than the peer takes.
#[derive(Debug, Default)]
pub(crate) struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }

    fn pause_writing(&mut self, transport: &Transport) {
        transport.pause_reading();
    }

    fn resume_writing(&mut self, transport: &Transport) {
        transport.resume_reading();
    }
}

/// Echoes in the task model, until the end or an error.
pub(crate) async fn echo_task(stream: garland::TcpStream) {
    let mut buf = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buf).await {
        if stream.write_all(&buf[..count]).await.is_err() {
            return;
        }
    }
}

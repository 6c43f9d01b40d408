//! As much of HTTP/1.1 as a metrics scraper and a health check need: one GET or HEAD a connection.
//!
//! No body is read, no connection is kept, nothing is decoded. Whatever a caller does, one request takes no
//! more than twice [`TIME_LIMIT`] and a moment, and [`HEAD_MAX`] bytes.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

/// For the request to come in, and again for the answer to go out.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(5);
/// Request line and headers. Bytes; browsers send two kibibytes at most.
const HEAD_MAX: usize = 8 << 10;
/// What is still read of a caller that was answered, and for how long, so that a reset does not overtake the answer.
/// Bytes.
const REST_MAX: usize = 64 << 10;
const REST_TIME: Duration = Duration::from_millis(500);

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Without a query.
    pub(crate) path: String,
    /// HEAD: the answer has no body.
    pub(crate) is_head: bool,
}

/// The answers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    HeadTooLarge,
    Unavailable,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Status::Ok => "200 OK",
            Status::BadRequest => "400 Bad Request",
            Status::NotFound => "404 Not Found",
            Status::MethodNotAllowed => "405 Method Not Allowed",
            Status::RequestTimeout => "408 Request Timeout",
            Status::HeadTooLarge => "431 Request Header Fields Too Large",
            Status::Unavailable => "503 Service Unavailable",
        }
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: Status,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn text(status: Status, body: &str) -> Response {
        Response {
            status,
            content_type: "text/plain; charset=utf-8",
            body: format!("{body}\n"),
        }
    }

    fn to_bytes(&self, is_head: bool) -> Vec<u8> {
        let allow = match self.status {
            Status::MethodNotAllowed => "Allow: GET, HEAD\r\n",
            _ => "",
        };
        let head = format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}Connection: close\r\n\r\n",
            self.status.line(),
            self.content_type,
            self.body.len()
        );
        let body = if is_head { "" } else { &self.body };
        [head.as_bytes(), body.as_bytes()].concat()
    }
}

/// Reads one request, answers it with what `route` says, and closes.
pub(crate) fn serve(
    mut stream: TcpStream,
    route: impl FnOnce(&Request) -> Response,
) -> io::Result<()> {
    let come_by = Instant::now() + TIME_LIMIT;
    let (response, is_head) = match read_head(&mut stream, come_by)? {
        None => return Ok(()),
        Some(Ok(request)) => (route(&request), request.is_head),
        Some(Err(status)) => (Response::text(status, status.line()), false),
    };
    let deadline = Instant::now() + TIME_LIMIT;
    write_all(&mut stream, &response.to_bytes(is_head), deadline)?;
    stream.shutdown(Shutdown::Write)?;
    discard_rest(&mut stream, Instant::now() + REST_TIME)
}

/// `None` for a caller that left without a word, as a port check does.
fn read_head(
    stream: &mut TcpStream,
    deadline: Instant,
) -> io::Result<Option<Result<Request, Status>>> {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let n_read = match read(stream, &mut chunk, deadline) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Ok(Some(Err(Status::RequestTimeout)));
            }
            n_read => n_read?,
        };
        if n_read == 0 {
            return Ok((!head.is_empty()).then_some(Err(Status::BadRequest)));
        }
        head.extend_from_slice(&chunk[..n_read]);
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            return Ok(Some(parse(&head[..end])));
        }
        if head.len() > HEAD_MAX {
            return Ok(Some(Err(Status::HeadTooLarge)));
        }
    }
}

/// Request line and headers, without the empty line behind them.
fn parse(head: &[u8]) -> Result<Request, Status> {
    let head = std::str::from_utf8(head).map_err(|_| Status::BadRequest)?;
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = parts[..] else {
        return Err(Status::BadRequest);
    };
    let is_token = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    let mut has_host = false;
    for line in lines {
        let (name, _value) = line.split_once(':').ok_or(Status::BadRequest)?;
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(Status::BadRequest);
        }
        has_host |= name.eq_ignore_ascii_case("host");
    }
    let is_complete = match version {
        "HTTP/1.1" => has_host,
        "HTTP/1.0" => true,
        _ => false,
    };
    if !is_token || !target.starts_with('/') || !is_complete {
        return Err(Status::BadRequest);
    }
    if method != "GET" && method != "HEAD" {
        return Err(Status::MethodNotAllowed);
    }
    let path = target.split(['?', '#']).next().unwrap_or_default();
    Ok(Request {
        path: path.to_owned(),
        is_head: method == "HEAD",
    })
}

fn write_all(stream: &mut TcpStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(bytes) {
            Ok(n_written) => bytes = &bytes[n_written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn discard_rest(stream: &mut TcpStream, deadline: Instant) -> io::Result<()> {
    let mut chunk = [0; 1024];
    let mut n_left = REST_MAX;
    while n_left > 0 {
        match read(stream, &mut chunk, deadline)? {
            0 => return Ok(()),
            n_read => n_left = n_left.saturating_sub(n_read),
        }
    }
    Ok(())
}

/// One read, by the deadline: after it the error is `TimedOut`.
fn read(stream: &mut TcpStream, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The time is over: the next round says so.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            n_read => return n_read,
        }
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use crate::http::{Request, Response, Status, parse};

    fn asked(path: &str, is_head: bool) -> Result<Request, Status> {
        Ok(Request {
            path: path.to_owned(),
            is_head,
        })
    }

    #[test]
    fn what_a_scraper_sends_is_understood() {
        let get = b"GET /metrics HTTP/1.1\r\nHost: localhost:9107\r\nAccept: */*";
        assert_eq!(parse(get), asked("/metrics", false));
        assert_eq!(parse(b"HEAD /live HTTP/1.0"), asked("/live", true));
        let query = b"GET /ready?verbose=1 HTTP/1.1\r\nhOST:";
        assert_eq!(parse(query), asked("/ready", false));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for head in [
            "",
            "GET /metrics",
            "GET  /metrics HTTP/1.1\r\nHost: a",
            "GET /metrics HTTP/1.1",
            "GET /metrics HTTP/2\r\nHost: a",
            "GET metrics HTTP/1.1\r\nHost: a",
            "get /metrics HTTP/1.1\r\nHost: a",
            "GET /metrics HTTP/1.1\r\nHost: a\r\nno colon",
            "GET /metrics HTTP/1.1\r\nHost : a",
            "GET /metrics HTTP/1.1\r\n: a\r\nHost: a",
        ] {
            assert_eq!(parse(head.as_bytes()), Err(Status::BadRequest), "{head:?}");
        }
        assert_eq!(parse(b"GET /\xff HTTP/1.0"), Err(Status::BadRequest));
        assert_eq!(
            parse(b"POST /metrics HTTP/1.1\r\nHost: a"),
            Err(Status::MethodNotAllowed)
        );
    }

    #[test]
    fn an_answer_to_head_has_the_length_and_no_body() {
        let response = Response::text(Status::MethodNotAllowed, "no");
        let full = String::from_utf8(response.to_bytes(false)).expect("text");
        assert!(
            full.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"),
            "{full}"
        );
        assert!(full.contains("\r\nAllow: GET, HEAD\r\n"), "{full}");
        assert!(
            full.ends_with("\r\nConnection: close\r\n\r\nno\n"),
            "{full}"
        );
        let head = String::from_utf8(response.to_bytes(true)).expect("text");
        assert!(head.contains("\r\nContent-Length: 3\r\n"), "{head}");
        assert_eq!(format!("{head}no\n"), full);
    }
}

//! The handler against servers that do odd things. Each is a listener of its own; what it does with a request is the
//! test's.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use socket2::{Domain, SockRef, Socket, Type};

use super::handler::{HttpHandler, MAX_ANSWER_BYTES};
use super::target::Target;
use crate::base::id::MessageId;
use crate::consumer::{Delivery, Handler, HandlerError, Outcome};
use crate::programs::consumer::trace::Tracing;

/// A limit that no test should meet.
const AMPLE: Duration = Duration::from_secs(60);
/// A limit that a test means to meet, and what it may take on a busy machine.
const SHORT: Duration = Duration::from_millis(300);
const SHORT_AT_MOST: Duration = Duration::from_secs(20);

/// A request as the server read it.
struct Request {
    head: String,
    body: Vec<u8>,
}

impl Request {
    /// `None` at the end of the connection.
    fn read(stream: &mut impl BufRead) -> io::Result<Option<Request>> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Ok(None);
            }
        }
        let mut request = Request { head, body: Vec::new() };
        let length = request.header("content-length").map_or(0, |length| length.parse().expect("a length"));
        request.body.resize(length, 0);
        stream.read_exact(&mut request.body)?;
        Ok(Some(request))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// A server of a test.
struct Site {
    address: SocketAddr,
    requests: Receiver<Request>,
    /// Connections that brought a request.
    used: Arc<AtomicUsize>,
}

/// Answers each request with what `respond` writes, given the number of the request on its connection, from 1. An error
/// of `respond` closes the connection.
fn site(respond: impl Fn(&mut TcpStream, usize) -> io::Result<()> + Send + Sync + 'static) -> Site {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (seen, requests) = unbounded();
    let used = Arc::new(AtomicUsize::new(0));
    let (respond, connections) = (Arc::new(respond), used.clone());
    // Ends with the test's process.
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (respond, seen, connections) = (respond.clone(), seen.clone(), connections.clone());
            thread::spawn(move || -> io::Result<()> {
                let mut reader = BufReader::new(stream.try_clone()?);
                let mut stream = stream;
                for number in 1.. {
                    let Some(request) = Request::read(&mut reader)? else { break };
                    connections.fetch_add(usize::from(number == 1), Ordering::SeqCst);
                    let _ = seen.send(request);
                    respond(&mut stream, number)?;
                }
                Ok(())
            });
        }
    });
    Site { address, requests, used }
}

/// A server that answers each request with these bytes.
fn answers(bytes: &'static [u8]) -> Site {
    site(|stream, _| stream.write_all(bytes))
}

impl Site {
    fn handler(&self, limit: Duration) -> HttpHandler {
        handler(self.address, limit)
    }

    /// The result of one message.
    fn outcome(&self, limit: Duration) -> Result<Outcome, HandlerError> {
        self.handler(limit).handle(&Delivery::new("x"))
    }

    fn failure(&self, limit: Duration) -> HandlerError {
        self.outcome(limit).expect_err("no outcome")
    }
}

fn handler(address: SocketAddr, limit: Duration) -> HttpHandler {
    let target = Target::parse(&format!("http://me:secret@{address}/job?q=1")).expect("a URL");
    HttpHandler::start(target, "orders 100%", 4, limit, Tracing(true)).expect("a thread")
}

/// The end of a connection, for `respond`.
fn end() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

fn is_retry(error: &HandlerError) -> bool {
    error.to_string().starts_with("retry: ")
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}";

#[test]
fn a_request_has_the_message_and_what_is_known_about_it() {
    let site = answers(OK);
    let payload: Vec<u8> = (0..=255).collect();
    let delivery = Delivery::new(&payload).with_id(MessageId(0x2f)).with_number(3).with_channel("é/x");
    let handler = site.handler(AMPLE);
    assert_eq!(handler.handle(&delivery), Ok(Outcome::new().field("a", "1")));
    let request = site.requests.recv().expect("it came");
    assert!(request.head.starts_with("POST /job?q=1 HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.body, payload);
    let host = site.address.to_string();
    for (name, value) in [
        ("host", host.as_str()),
        ("content-type", "application/octet-stream"),
        ("oncecast-id", "000000000000002f"),
        ("oncecast-delivery", "3"),
        ("oncecast-channel", "%C3%A9/x"),
        ("oncecast-group", "orders%20100%25"),
        ("idempotency-key", "orders%20100%25:000000000000002f"),
        ("authorization", "Basic bWU6c2VjcmV0"),
    ] {
        assert_eq!(request.header(name), Some(value), "{name}");
    }
    handler.handle(&Delivery::new("")).expect("an answer");
    let request = site.requests.recv().expect("it came");
    assert_eq!((request.header("content-length"), request.header("oncecast-channel")), (Some("0"), None));
    assert_eq!(request.header("oncecast-lane"), None);
    handler.handle(&delivery.with_lane(3)).expect("an answer");
    let request = site.requests.recv().expect("it came");
    assert_eq!(request.header("oncecast-lane"), Some("3"));
    assert_eq!(request.header("idempotency-key"), Some("orders%20100%25:3/000000000000002f"));
}

#[test]
fn answers_of_any_form_and_size_are_read() {
    for (answer, body) in [
        (&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"[..], "abcde"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", "ab"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", "ab"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab", "ab"),
    ] {
        assert_eq!(answers(answer).outcome(AMPLE), Ok(Outcome::new().field("body", body)), "{answer:?}");
    }
    assert_eq!(answers(b"HTTP/1.1 204 No Content\r\n\r\n").outcome(AMPLE), Ok(Outcome::new()));
    let until_the_end = site(|stream, _| {
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nall of it")?;
        Err(end())
    });
    assert_eq!(until_the_end.outcome(AMPLE), Ok(Outcome::new().field("body", "all of it")));

    let large = vec![0xfe; 10 << 20];
    let echo = site(move |stream, _| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 10 << 20)?;
        stream.write_all(&vec![0xfe; 10 << 20])
    });
    let outcome = echo.handler(AMPLE).handle(&Delivery::new(&large));
    assert!(outcome == Ok(Outcome::new().field("body", &large)), "10 MiB there and back");
    assert_eq!(echo.requests.recv().expect("it came").body.len(), 10 << 20);
}

#[test]
fn the_status_decides() {
    let busy = answers(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 4\r\n\r\nbusy");
    assert_eq!(busy.failure(AMPLE).to_string(), "retry after 2000 ms: HTTP 503 Service Unavailable: busy");
    let unknown = answers(b"HTTP/1.1 404 Not Found\r\nContent-Length: 8\r\n\r\nno order");
    assert_eq!(unknown.failure(AMPLE), HandlerError::reject("HTTP 404 Not Found: no order"));
    let broken = answers(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(broken.failure(AMPLE), HandlerError::retry("HTTP 500 Internal Server Error"));
    // The beginning of a body is enough, and so is none.
    let endless = site(|stream, _| {
        stream.write_all(b"HTTP/1.1 422 Unprocessable Entity\r\n\r\n")?;
        while stream.write_all(&[b'x'; 4_096]).is_ok() {}
        Err(end())
    });
    let error = endless.failure(AMPLE);
    assert!(error.is_reject() && error.reason().len() < 1_100, "{error}");
    let cut = site(|stream, _| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 100\r\n\r\nbad")?;
        Err(end())
    });
    assert_eq!(cut.failure(AMPLE), HandlerError::reject("HTTP 400 Bad Request: bad"));
}

#[test]
fn redirects_are_not_followed() {
    for status in ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect"] {
        let site = site(move |stream, _| {
            let location = format!("http://{}/other", stream.local_addr()?);
            write!(stream, "HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
        });
        let error = site.failure(AMPLE);
        let begin = format!("HTTP {status}: a redirect to http://{}/other, which is not followed", site.address);
        assert!(is_retry(&error) && error.reason().starts_with(&begin), "{error}");
        assert_eq!(site.requests.try_iter().count(), 1);
    }
}

#[test]
fn slow_servers_meet_the_time_limit() {
    fn drip(stream: &mut TcpStream) -> io::Result<()> {
        loop {
            stream.write_all(b"x")?;
            thread::sleep(Duration::from_millis(20));
        }
    }
    let silent = site(|stream, _| stream.read(&mut [0]).map(drop));
    let slow_headers = site(|stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nA: ")?;
        drip(stream)
    });
    let slow_body = site(|stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")?;
        drip(stream)
    });
    for site in [silent, slow_headers, slow_body] {
        let began = Instant::now();
        assert_eq!(site.failure(SHORT), HandlerError::retry("no answer within 300 ms"));
        assert!((SHORT..SHORT_AT_MOST).contains(&began.elapsed()), "{:?}", began.elapsed());
    }
    let slow_refusal = site(|stream, _| {
        stream.write_all(b"HTTP/1.1 500 Oh\r\n\r\n")?;
        drip(stream)
    });
    let error = slow_refusal.failure(SHORT);
    assert!(is_retry(&error) && error.reason().starts_with("HTTP 500 Internal Server Error: xx"), "{error}");

    // A server that reads nothing, or a byte now and then.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        let streams: Vec<TcpStream> = listener.incoming().map_while(Result::ok).take(2).collect();
        while (&streams[1]).read(&mut [0; 512]).is_ok_and(|count| count > 0) {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let handler = handler(address, SHORT);
    let began = Instant::now();
    let error = handler.handle(&Delivery::new(&vec![0; 10 << 20])).expect_err("it reads too slowly");
    assert_eq!(error, HandlerError::retry("no answer within 300 ms"));
    assert!(began.elapsed() < SHORT_AT_MOST, "{:?}", began.elapsed());
}

#[test]
fn answers_without_end_are_cut_off() {
    let body = site(|stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        while stream.write_all(&[b'x'; 65_536]).is_ok() {}
        Err(end())
    });
    let error = body.failure(AMPLE);
    assert!(is_retry(&error) && error.reason().contains(&format!("over {MAX_ANSWER_BYTES} bytes")), "{error}");
    let headers = site(|stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
        while stream.write_all(b"X-More: 0123456789012345678901234567890123456789\r\n").is_ok() {}
        Err(end())
    });
    let error = headers.failure(AMPLE);
    assert!(is_retry(&error) && error.reason().starts_with("no answer that can be used: "), "{error}");
    let header = site(|stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nX-Long: ")?;
        stream.write_all(&vec![b'x'; 4 << 20])?;
        stream.write_all(b"\r\n\r\n")
    });
    let error = header.failure(AMPLE);
    assert!(is_retry(&error) && error.reason().contains("headers are over 16384 bytes"), "{error}");
}

#[test]
fn broken_answers_are_failures() {
    for answer in [
        &b"SSH-2.0-OpenSSH_9.6\r\n"[..],
        b"\x16\x03\x01\x00\x05hello\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"",
    ] {
        let site = site(|stream, _| {
            stream.write_all(answer)?;
            stream.shutdown(Shutdown::Write)?;
            // Until the handler has seen it.
            stream.read(&mut [0]).map(drop)?;
            Err(end())
        });
        let error = site.failure(AMPLE);
        let begin = "no answer that can be used: ";
        assert!(is_retry(&error) && error.reason().starts_with(begin), "{answer:?}: {error}");
        assert_eq!(site.requests.try_iter().count(), 1, "{answer:?}");
    }
}

#[test]
fn a_reset_is_no_end_of_an_answer() {
    let site = site(|stream, _| {
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhalf of")?;
        // Until the handler has read that.
        thread::sleep(Duration::from_millis(100));
        SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
        Err(end())
    });
    let error = site.failure(AMPLE);
    assert!(is_retry(&error) && error.reason().contains("connection reset"), "{error}");
}

#[test]
fn connections_are_kept_and_as_many_as_threads() {
    let site = answers(OK);
    let handler = site.handler(AMPLE);
    for _ in 0..50 {
        handler.handle(&Delivery::new("x")).expect("an answer");
    }
    assert_eq!(site.used.load(Ordering::SeqCst), 1);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| drop(handler.handle(&Delivery::new("x")).expect("an answer"))));
        }
    });
    assert!(site.used.load(Ordering::SeqCst) <= 4, "{:?}", site.used);
    assert_eq!(site.requests.try_iter().count(), 250);
    // A refusal keeps the connection, too.
    let refusing = answers(b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno");
    let handler = refusing.handler(AMPLE);
    for _ in 0..10 {
        handler.handle(&Delivery::new("x")).expect_err("a refusal");
    }
    assert_eq!(refusing.used.load(Ordering::SeqCst), 1);
}

#[test]
fn a_kept_connection_that_is_closed_costs_nothing() {
    // The close arrives with the next request: that is sent again, over a new connection.
    let site = site(|stream, number| match number {
        1 => stream.write_all(OK),
        _ => Err(end()),
    });
    let handler = site.handler(AMPLE);
    for _ in 0..3 {
        assert_eq!(handler.handle(&Delivery::new("x")), Ok(Outcome::new().field("a", "1")));
    }
    // The new connections are not kept, so the second message met the close and the third did not.
    let ids = site.requests.try_iter().count();
    assert_eq!((ids, site.used.load(Ordering::SeqCst)), (4, 3));
}

#[test]
fn a_kept_connection_that_was_closed_before_is_not_used() {
    let site = site(|stream, _| {
        stream.write_all(OK)?;
        Err(end())
    });
    let handler = site.handler(AMPLE);
    for number in 1..=5 {
        assert_eq!(handler.handle(&Delivery::new("x")), Ok(Outcome::new().field("a", "1")));
        // Until the close has arrived.
        thread::sleep(Duration::from_millis(50));
        assert_eq!(site.requests.try_iter().count(), 1, "message {number} was sent once");
    }
}

#[test]
fn a_server_that_worked_on_a_request_before_it_failed_is_not_asked_again() {
    let site = site(|stream, number| match number {
        1 => stream.write_all(OK),
        _ => {
            thread::sleep(super::connection::STALE_WITHIN + Duration::from_millis(100));
            Err(end())
        }
    });
    let handler = site.handler(AMPLE);
    handler.handle(&Delivery::new("x")).expect("an answer");
    let error = handler.handle(&Delivery::new("x")).expect_err("no answer");
    assert!(is_retry(&error) && error.reason().contains("ended early"), "{error}");
    assert_eq!(site.requests.try_iter().count(), 2);
}

#[test]
fn a_message_that_kills_the_server_counts() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let server = thread::spawn(move || {
        let mut looked = listener.accept().expect("the look").0;
        assert_eq!(looked.read(&mut [0]).expect("it ends"), 0, "a look sends nothing");
        let stream = listener.accept().expect("a request").0;
        let mut reader = BufReader::new(stream);
        Request::read(&mut reader).expect("a request");
        reader.get_mut().write_all(OK).expect("it reads");
        Request::read(&mut reader).expect("a request");
    });
    let handler = handler(address, AMPLE);
    handler.handle(&Delivery::new("x")).expect("an answer");
    let error = handler.handle(&Delivery::new("x")).expect_err("it is gone");
    server.join().expect("no panic");
    assert!(is_retry(&error) && error.reason().contains("and then: "), "{error}");
    // The next one was not sent.
    let error = handler.handle(&Delivery::new("x")).expect_err("it is gone");
    assert!(error.is_not_ready() && error.reason().contains("refused"), "{error}");
    assert!(handler.ready().is_err());
}

/// An address that answers no attempt to connect: its queue is full. It is silent until the sockets are dropped.
fn silent_address() -> (SocketAddr, Vec<Socket>) {
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let listener = socket();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    listener.listen(0).expect("it is bound");
    let address = listener.local_addr().expect("it is bound").as_socket().expect("an IP address");
    let mut sockets = vec![listener];
    for _ in 0..16 {
        let next = socket();
        let full = next.connect_timeout(&address.into(), Duration::from_millis(200)).is_err();
        sockets.push(next);
        if full {
            return (address, sockets);
        }
    }
    panic!("the queue of {address} takes any number of connections");
}

#[test]
fn silent_addresses_leave_time_for_the_request() {
    let site = answers(OK);
    let limit = Duration::from_secs(2);
    let handler = site.handler(limit);
    let silent = [silent_address(), silent_address()];
    let [first, second] = [silent[0].0, silent[1].0];
    handler.server.set_addresses(vec![first, second, site.address]);
    assert_eq!(handler.handle(&Delivery::new("x")), Ok(Outcome::new().field("a", "1")));
    let found = handler.server.addresses().expect("it listens");
    assert_eq!(found, [site.address, first, second], "the one that answered is the first to be tried");

    // A delivery that reached nobody is not used up.
    let handler = site.handler(limit);
    handler.server.set_addresses(vec![first, second]);
    let error = handler.handle(&Delivery::new("x")).expect_err("nobody answers");
    assert!(error.is_not_ready() && error.reason().contains(&first.to_string()), "{error}");
}

#[test]
fn an_answer_before_the_whole_request_was_read_counts() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            if stream.read(&mut [0; 1_024]).is_ok_and(|count| count > 0) {
                let _ = stream.write_all(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\r\n");
                // Closed with unread bytes: a reset follows the answer.
            }
        }
    });
    let handler = handler(address, AMPLE);
    let error = handler.handle(&Delivery::new(&vec![0; 10 << 20])).expect_err("too large");
    assert_eq!(error, HandlerError::reject("HTTP 413 Payload Too Large"));
}

#[test]
fn the_trace_context_is_a_header_if_it_is_valid() {
    let site = answers(OK);
    let handler = site.handler(AMPLE);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = format!(r#"{{"traceparent":"{parent}","tracestate":"a=1, b=\"2\""}}"#);
    handler.handle(&Delivery::new(&traced)).expect("a result");
    let request = site.requests.recv().expect("it came");
    assert_eq!(request.header("traceparent"), Some(parent));
    assert_eq!(request.header("tracestate"), Some("a=1, b=\"2\""));
    assert_eq!(request.body, traced.as_bytes());
    let injecting = r#"{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nX: y"}"#;
    handler.handle(&Delivery::new(injecting)).expect("a result");
    assert_eq!(site.requests.recv().expect("it came").header("traceparent"), None);
}

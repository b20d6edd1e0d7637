//! The server over real sockets: what it serves, and what it survives.

mod access;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::base::histogram::LatencyHistogram;
use crate::net::closed::wait_until_closed;

/// Longer than any answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

fn serve(metrics: Metrics) -> MetricsServer {
    MetricsServer::start(&MetricsPlace::at("127.0.0.1:0"), Site::new(metrics, || Ok(()))).unwrap()
}

fn connect(server: &MetricsServer) -> TcpStream {
    let socket = TcpStream::connect(server.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Everything that arrives until the server closes the connection.
fn rest(mut socket: TcpStream) -> String {
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

fn ask(server: &MetricsServer, request: &[u8]) -> String {
    let mut socket = connect(server);
    socket.write_all(request).unwrap();
    rest(socket)
}

fn get(server: &MetricsServer, path: &str) -> String {
    ask(server, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
}

fn status(answer: &str) -> &str {
    answer.strip_prefix("HTTP/1.1 ").unwrap_or(answer).get(..3).unwrap_or(answer)
}

#[test]
fn metrics_are_read_at_each_scrape() {
    let seen = Arc::new(AtomicU64::new(1));
    let mut metrics = Metrics::new();
    let read = seen.clone();
    metrics.counter("messages_seen", "Messages seen", move || read.load(Ordering::Relaxed));
    let read = seen.clone();
    metrics.gauge("pending", "Messages pending", move || read.load(Ordering::Relaxed));
    metrics.series(MetricKind::Gauge, "in_flight", "In flight", || {
        [("a:1", 3), ("b\"\n", 0)].map(|(name, n)| (vec![("consumer", name.to_owned())], Number::Whole(n))).into()
    });
    let times = Arc::new(LatencyHistogram::default());
    let read = times.clone();
    metrics.histogram("delivery_seconds", "Intake to ACK", move || read.read());
    times.observe(Duration::from_micros(100));
    times.observe_many(Duration::from_micros(101), 2);
    times.observe(Duration::from_secs(3_600));
    seen.store(42, Ordering::Relaxed);
    let text = metrics.text().unwrap();
    for line in [
        "# TYPE oncecast_messages_seen counter",
        "# HELP oncecast_messages_seen Messages seen",
        "oncecast_messages_seen_total 42",
        "oncecast_pending 42",
        "oncecast_in_flight{consumer=\"a:1\"} 3",
        "oncecast_in_flight{consumer=\"b\\\"\\\\n\"} 0",
        "oncecast_delivery_seconds_count 4",
        "oncecast_delivery_seconds_bucket{le=\"0.0001\"} 1",
        "oncecast_delivery_seconds_bucket{le=\"0.00025\"} 3",
        "oncecast_delivery_seconds_bucket{le=\"60.0\"} 3",
        "oncecast_delivery_seconds_bucket{le=\"+Inf\"} 4",
        concat!("oncecast_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        "# TYPE process_cpu_seconds counter",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    for name in [
        "process_cpu_seconds_total ",
        "process_resident_memory_bytes ",
        "process_open_fds ",
        "process_start_time_seconds ",
    ] {
        assert!(text.lines().any(|found| found.starts_with(name)), "{name} is missing in\n{text}");
    }
}

#[test]
fn the_three_pages_and_their_types() {
    let ready = Arc::new(AtomicBool::new(false));
    let asked = ready.clone();
    let answer = move || match asked.load(Ordering::Relaxed) {
        true => Ok(()),
        false => Err("redis is not connected".to_owned()),
    };
    let site = Site::new(Metrics::new(), answer).page("/page", "text/html", || "<p>".to_owned());
    let server = MetricsServer::start(&MetricsPlace::at("127.0.0.1:0"), site).unwrap();
    let answer = get(&server, "/metrics?name=x");
    assert_eq!(status(&answer), "200");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains("\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
        "{head}"
    );
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    assert!(head.ends_with("\r\nConnection: close") && body.ends_with("# EOF\n"), "{answer}");
    assert!(get(&server, "/healthz").ends_with("\r\n\r\nok\n"));
    let answer = get(&server, "/readyz");
    assert!(status(&answer) == "503" && answer.ends_with("\r\n\r\nredis is not connected\n"), "{answer}");
    ready.store(true, Ordering::Relaxed);
    assert_eq!(status(&get(&server, "/readyz")), "200");
    let page = get(&server, "/page?theme=dark");
    assert!(page.contains("\r\nContent-Type: text/html\r\n") && page.ends_with("\r\n\r\n<p>"), "{page}");
    assert!(page.contains("\r\nContent-Security-Policy: default-src 'none';"), "{page}");
    assert!(get(&server, "/").ends_with("there is /metrics, /healthz, /readyz, /page\n"));
    for path in ["/", "/metrics/", "/../healthz", "*", "http://", "ftp://x/healthz", "http://x?/healthz", "é"] {
        assert!(["404", "403", "400"].contains(&status(&get(&server, path))), "{path}");
    }
}

/// The form of a request to a proxy, which a server must understand as well.
#[test]
fn a_target_may_name_the_host() {
    let server = serve(Metrics::new());
    for target in ["http://localhost/healthz", "HTTP://127.0.0.1:9100/healthz?a=http://y/", "https://[::1]/healthz"] {
        assert!(get(&server, target).ends_with("\r\n\r\nok\n"), "{target}");
    }
    for target in ["http://localhost", "http://localhost/", "http://localhost?name=y"] {
        assert!(get(&server, target).ends_with("there is /metrics, /healthz, /readyz\n"), "{target}");
    }
}

#[test]
fn head_answers_like_get_without_the_body() {
    let server = serve(Metrics::new());
    for path in ["/healthz", "/readyz", "/nowhere"] {
        let (head, body) =
            get(&server, path).split_once("\r\n\r\n").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert!(!body.is_empty() && head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
        assert_eq!(
            ask(&server, format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()),
            head + "\r\n\r\n"
        );
    }
    assert_eq!(status(&ask(&server, b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")), "200");
}

#[test]
fn anything_but_a_small_get_is_refused() {
    let server = serve(Metrics::new());
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = ask(
            &server,
            format!("{method} /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc").as_bytes(),
        );
        assert!(status(&answer) == "405" && answer.contains("\r\nAllow: GET, HEAD\r\n"), "{answer}");
    }
    for garbage in [&b"\0\x01\x02"[..], b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\xff\xfe"]
    {
        assert_eq!(status(&ask(&server, garbage)), "400", "{garbage:?}");
    }
    let long_path = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(MAX_REQUEST_BYTES));
    let long_header = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(200 << 10));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65));
    for request in [long_path, long_header, many_headers] {
        assert_eq!(status(&ask(&server, request.as_bytes())), "431");
    }
    let fitting = format!("GET /healthz HTTP/1.0\r\nA: {}\r\n\r\n", "x".repeat(MAX_REQUEST_BYTES - 30));
    assert_eq!((fitting.len(), status(&ask(&server, fitting.as_bytes()))), (MAX_REQUEST_BYTES, "200"));
}

#[test]
fn pipelined_requests_get_one_answer_and_a_close() {
    let server = serve(Metrics::new());
    let answer = ask(&server, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(50).as_bytes());
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 1, "{answer}");
}

#[test]
fn a_request_in_pieces_is_answered() {
    let server = serve(Metrics::new());
    let mut socket = connect(&server);
    for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" {
        socket.write_all(&[*byte]).unwrap();
    }
    assert_eq!(status(&rest(socket)), "200");
}

#[test]
fn peers_that_never_finish_make_room_for_others() {
    let server = serve(Metrics::new());
    let begin = Instant::now();
    // Three times as many peers as there are places: some send a little, some send nothing, and some are gone.
    let slow: Vec<TcpStream> = (0..3 * MAX_CONNECTIONS)
        .map(|number| {
            let mut socket = connect(&server);
            socket.write_all(&b"GET /healthz HTTP/1.1\r\nHost: localhost"[..number % 20]).unwrap();
            if number % 3 == 0 {
                socket.shutdown(Shutdown::Write).unwrap();
            }
            socket
        })
        .collect();
    assert_eq!(status(&get(&server, "/healthz")), "200");
    let waited = begin.elapsed();
    assert!(waited < 2 * REQUEST_TIME, "{waited:?}: it has waited for the time of two rounds to be over");
    for mut socket in slow {
        // Closed or reset.
        assert_eq!(socket.read(&mut [0]).unwrap_or(0), 0);
    }
}

#[test]
fn peers_that_do_not_read_make_room_for_others() {
    let server = serve(Metrics::new());
    // The server waits for the peer whether or not the answer fits into the sockets' buffers.
    let unread: Vec<TcpStream> = (0..MAX_CONNECTIONS)
        .map(|_| {
            let mut socket = connect(&server);
            socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            // The server has answered, or begun to.
            socket.peek(&mut [0]).unwrap();
            socket
        })
        .collect();
    let begin = Instant::now();
    assert_eq!(status(&get(&server, "/healthz")), "200");
    assert!(begin.elapsed() < REQUEST_TIME, "{:?}: it has waited for their time to be over", begin.elapsed());
    drop(unread);
}

#[test]
fn a_peer_that_does_not_read_costs_its_time_alone() {
    let mut metrics = Metrics::new();
    // More than the sockets' buffers hold.
    metrics.series(MetricKind::Gauge, "many", "Many", || {
        (0..500_000).map(|n| (vec![("n", format!("{n:0>40}"))], Number::Whole(n))).collect()
    });
    let server = serve(metrics);
    let mut unread = connect(&server);
    unread.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(status(&get(&server, "/healthz")), "200");
    let begin = Instant::now();
    drop(server);
    assert!(begin.elapsed() < REQUEST_TIME + Duration::from_secs(3), "{:?}", begin.elapsed());
}

#[test]
fn many_at_once_are_all_answered() {
    let server = serve(Metrics::new());
    thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(status(&get(&server, "/metrics")), "200");
                }
            });
        }
    });
}

#[test]
fn a_panic_in_the_program_s_closure_costs_one_answer() {
    let mut metrics = Metrics::new();
    metrics.counter("bad", "Bad", || panic!("a mistake in a closure"));
    let server = serve(metrics);
    assert_eq!(status(&get(&server, "/metrics")), "500");
    assert_eq!(status(&get(&server, "/healthz")), "200");
}

#[test]
fn it_stops_at_once_and_frees_its_address() {
    let server = serve(Metrics::new());
    let address = server.address().to_string();
    let taken = MetricsServer::start(&MetricsPlace::at(&address), Site::new(Metrics::new(), || Ok(())))
        .unwrap_err()
        .to_string();
    assert!(taken.contains("--metrics-addr") && taken.contains(&address), "{taken}");
    let begin = Instant::now();
    drop(server);
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    wait_until_closed(address.parse::<std::net::SocketAddr>().expect("an address").port());
    drop(MetricsServer::start(&MetricsPlace::at(&address), Site::new(Metrics::new(), || Ok(()))).unwrap());
    let wildcard = MetricsServer::start(&MetricsPlace::at("0.0.0.0:0"), Site::new(Metrics::new(), || Ok(()))).unwrap();
    drop(wildcard);
}

//! Who gets an answer, over real sockets: each form of a host, each form of a token.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::BASE64;

use crate::process::metrics::access::is_local;
use crate::process::metrics::*;

const OLD: &str = "an-old-token-of-32-bytes:with.it";
const NEW: &str = "a-new-token-of-16";

fn site() -> Site {
    let site = Site::new(Metrics::new(), || Ok(()));
    site.page("/", "text/html", || "<p>".to_owned()).page("/status.json", "application/json", || "{}".to_owned())
}

fn serve(place: &MetricsPlace) -> MetricsServer {
    MetricsServer::start(place, site()).expect("a free port")
}

/// The answer to a request line and headers.
fn ask(server: &MetricsServer, line: &str, headers: &[&str]) -> String {
    let mut socket = TcpStream::connect(server.address()).expect("it listens");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    socket.write_all(format!("{line}\r\n{headers}\r\n").as_bytes()).expect("it reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("it answers");
    answer
}

fn code(answer: &str) -> u16 {
    answer["HTTP/1.1 ".len()..][..3].parse().expect("a status")
}

/// A folder for token files, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("oncecast-token-{name}-{}", std::process::id()));
        fs::create_dir(&path).expect("a new folder");
        Folder(path)
    }

    fn write(&self, content: &str) -> PathBuf {
        let path = self.0.join("token");
        fs::write(&path, content).expect("a file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn with_token(file: &Path) -> MetricsPlace {
    MetricsPlace { token_file: Some(file.to_owned()), ..MetricsPlace::at("127.0.0.1:0") }
}

#[test]
fn only_names_of_this_server_are_answered() {
    let hosts = vec!["Metrics.example".to_owned(), "dispatcher-0".to_owned()];
    let server = serve(&MetricsPlace { hosts, ..MetricsPlace::at("127.0.0.1:0") });
    let of_host = |host: &str| code(&ask(&server, "GET /metrics HTTP/1.1", &[&format!("Host: {host}")]));
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").expect("Linux").trim().to_owned();
    let machine_port = format!("{}:80", machine.to_uppercase());
    for host in [
        "127.0.0.1",
        "127.0.0.1:9464",
        "10.1.2.3",
        "[::1]",
        "[::1]:9464",
        "[2001:db8::1]",
        "localhost",
        "LOCALHOST:1",
        "localhost.",
        "metrics.example",
        "METRICS.EXAMPLE.:9464",
        "dispatcher-0:9464",
        "localhost:",
        &machine,
        &machine_port,
    ] {
        assert_eq!(of_host(host), 200, "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:9464",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "example",
        "metrics",
        "127.1",
        "0x7f000001",
        "2130706433",
        "::1",
        "[::1",
        "[::1].evil.example",
        "[localhost]",
        "localhost:9464:1",
        "localhost:x",
        "localhost:999999",
        "user@localhost",
        "localhost/",
        "localhost,evil.example",
        "localhost..",
        "",
        ":9464",
        ".",
        "*",
        "xn--e1afmkfd",
        "[fe80::1%eth0]",
    ] {
        assert_eq!(of_host(host), 403, "{host}");
    }
    let answer = ask(&server, "GET / HTTP/1.1", &["Host: evil.example"]);
    assert!(
        answer.contains("\"evil.example\"") && answer.contains("--metrics-host (ONCECAST_METRICS_HOST)"),
        "{answer}"
    );
    for path in ["/", "/metrics", "/status.json", "/healthz", "/readyz", "/nowhere"] {
        assert_eq!(code(&ask(&server, &format!("GET {path} HTTP/1.1"), &["Host: evil.example"])), 403, "{path}");
    }
}

#[test]
fn a_refused_name_is_shown_escaped_and_cut() {
    let server = serve(&MetricsPlace::at("127.0.0.1:0"));
    let answer = ask(&server, "GET / HTTP/1.1", &[&format!("Host: <b>\u{202e}\u{9b}2J{}", "x".repeat(5_000))]);
    assert!(code(&answer) == 403 && answer.len() < 1_200, "{answer}");
    assert!(answer.contains("\\u{202e}\\u{9b}2J") && !answer.contains(['\u{202e}', '\u{9b}']), "{answer}");
    assert!(answer.contains("\r\nContent-Type: text/plain;") && answer.contains("nosniff"), "{answer}");
}

#[test]
fn a_host_that_is_missing_or_there_twice() {
    let server = serve(&MetricsPlace::at("127.0.0.1:0"));
    assert_eq!(code(&ask(&server, "GET /metrics HTTP/1.1", &[])), 400);
    assert_eq!(code(&ask(&server, "GET /metrics HTTP/1.0", &[])), 200, "no browser sends such a request");
    assert_eq!(code(&ask(&server, "GET /metrics HTTP/1.0", &["Host: evil.example"])), 403);
    for second in ["localhost", "evil.example"] {
        assert_eq!(code(&ask(&server, "GET / HTTP/1.1", &["Host: localhost", &format!("host: {second}")])), 400);
    }
    // A request for a proxy names the host twice.
    assert_eq!(code(&ask(&server, "GET http://localhost/ HTTP/1.1", &["Host: localhost"])), 200);
    assert_eq!(code(&ask(&server, "GET http://evil.example/ HTTP/1.1", &["Host: localhost"])), 403);
    assert_eq!(code(&ask(&server, "GET http://localhost/ HTTP/1.1", &["Host: evil.example"])), 403);
    assert_eq!(code(&ask(&server, "GET http://localhost@evil.example/ HTTP/1.1", &["Host: localhost"])), 403);
}

#[test]
fn the_token_is_needed_for_all_but_the_health_of_this_machine() {
    let folder = Folder::new("needed");
    let server = serve(&with_token(&folder.write(&format!("{OLD}\n"))));
    let host = "Host: localhost";
    for path in ["/", "/metrics", "/status.json", "/nowhere", "/healthz/", "//healthz"] {
        let answer = ask(&server, &format!("GET {path} HTTP/1.1"), &[host]);
        assert!(code(&answer) == 401 && answer.contains("--metrics-token-file"), "{path}: {answer}");
        assert!(answer.contains("\r\nWWW-Authenticate: Bearer realm=\"oncecast\"\r\n"), "{answer}");
        assert!(answer.contains("\r\nWWW-Authenticate: Basic realm=\"oncecast\""), "{answer}");
        assert!(!answer.contains(OLD), "{answer}");
    }
    for path in ["/healthz", "/readyz", "/healthz?a=b"] {
        assert_eq!(code(&ask(&server, &format!("GET {path} HTTP/1.1"), &[host])), 200, "{path}");
    }
    let basic = |login: &str| format!("Authorization: Basic {}", BASE64.encode(login.as_bytes()));
    let with = |value: &str| code(&ask(&server, "GET /metrics HTTP/1.1", &[host, value]));
    for value in [
        format!("Authorization: Bearer {OLD}"),
        format!("authorization: bEARER   {OLD}  "),
        basic(&format!("anyone:{OLD}")),
        basic(&format!(":{OLD}")),
    ] {
        assert_eq!(with(&value), 200, "{value}");
    }
    for value in [
        format!("Authorization: {OLD}"),
        format!("Authorization: Token {OLD}"),
        format!("Authorization: Bearer{OLD}"),
        format!("Authorization: Bearer {OLD}x"),
        format!("Authorization: Bearer {}", &OLD[1..]),
        format!("Authorization: Bearer {}", OLD.to_uppercase()),
        format!("Authorization: Bearer {OLD} {OLD}"),
        format!("Proxy-Authorization: Bearer {OLD}"),
        "Authorization: Bearer".to_owned(),
        "Authorization: Bearer ".to_owned(),
        "Authorization:".to_owned(),
        "Authorization: Basic ****".to_owned(),
        basic(OLD.split(':').next().expect("a part")),
        basic(&format!("{OLD}:")),
        basic("anyone:"),
    ] {
        assert_eq!(with(&value), 401, "{value}");
    }
    let right = format!("Authorization: Bearer {OLD}");
    assert_eq!(code(&ask(&server, "GET / HTTP/1.1", &[host, &right, &right])), 401, "twice");
    assert_eq!(code(&ask(&server, "GET / HTTP/1.1", &["Host: evil.example", &right])), 403, "the host comes first");
    assert_eq!(code(&ask(&server, "HEAD /metrics HTTP/1.1", &[host])), 401);
    // What follows the first request is never answered.
    let answer = ask(&server, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /metrics HTTP/1.1", &[host, &right]);
    assert!(answer.matches("HTTP/1.1").count() == 1 && answer.ends_with("\r\n\r\nok\n"), "{answer}");
}

#[test]
fn a_peer_of_another_machine_is_not_local() {
    let local = |peer: &str, own: &str| is_local(peer.parse().expect("an address"), own.parse().expect("an address"));
    assert!(local("127.0.0.1", "0.0.0.0") && local("::1", "::") && local("::ffff:127.0.0.1", "::"));
    assert!(local("10.0.0.1", "10.0.0.1") && local("::ffff:10.0.0.1", "10.0.0.1"));
    assert!(!local("10.0.0.2", "10.0.0.1") && !local("10.0.0.1", "0.0.0.0") && !local("::2", "::"));
}

#[test]
fn a_token_is_replaced_without_a_restart() {
    let folder = Folder::new("replaced");
    let server = serve(&with_token(&folder.write(OLD)));
    let accepted = || {
        [OLD, NEW].map(|token| {
            let header = format!("Authorization: Bearer {token}");
            code(&ask(&server, "GET /metrics HTTP/1.1", &["Host: localhost", &header])) == 200
        })
    };
    assert_eq!(accepted(), [true, false]);
    folder.write(&format!("{NEW}\r\n{OLD}\r\n"));
    assert_eq!(accepted(), [true, true]);
    folder.write(&format!("{NEW}\n"));
    assert_eq!(accepted(), [false, true]);
    // A mistake keeps the last.
    for mistake in ["", "short\n"] {
        folder.write(mistake);
        assert_eq!(accepted(), [false, true], "{mistake:?}");
    }
    fs::remove_file(folder.0.join("token")).expect("our own");
    assert_eq!(accepted(), [false, true]);
    folder.write(OLD);
    assert_eq!(accepted(), [true, false]);
}

#[test]
fn a_token_that_is_no_protection_is_refused_at_start() {
    let folder = Folder::new("refused");
    let error = |file: &Path| MetricsServer::start(&with_token(file), site()).expect_err("it is refused").to_string();
    let long = "x".repeat(1_025);
    for (content, part) in [
        ("", "0 lines"),
        ("\n", "line 1 has 0 bytes"),
        ("fifteen-bytes-x\n", "line 1 has 15 bytes"),
        (&format!("{OLD}\nshort\n"), "line 2 has 5 bytes"),
        (&format!("{OLD}\n\n"), "line 2 has 0 bytes"),
        (&format!("{OLD}\n{NEW}\n{NEW}3\n"), "3 lines"),
        ("a token with several spaces\n", "space"),
        ("a-token-with-an-\u{e9}\n", "visible ASCII"),
        (&long, "1025 bytes"),
        (&long.repeat(9), "more than"),
    ] {
        let shown = error(&folder.write(content));
        assert!(
            shown.contains(part) && shown.contains("--metrics-token-file (ONCECAST_METRICS_TOKEN_FILE)"),
            "{shown}"
        );
        assert!(!shown.contains("several") && !shown.contains("fifteen"), "no token is shown: {shown}");
    }
    assert!(error(&folder.0.join("nowhere")).contains("nowhere"));
    assert!(error(&folder.0).contains("not a file"));
    symlink("/dev/zero", folder.0.join("endless")).expect("a link");
    assert!(error(&folder.0.join("endless")).contains("not a file"));
}

#[test]
fn every_answer_has_the_headers_that_protect_a_page() {
    let server = serve(&MetricsPlace::at("127.0.0.1:0"));
    for path in ["/", "/status.json", "/metrics", "/healthz", "/nowhere"] {
        let answer = ask(&server, &format!("GET {path} HTTP/1.1"), &["Host: localhost"]);
        for header in [
            "Content-Security-Policy: default-src 'none'; ",
            "X-Content-Type-Options: nosniff\r\n",
            "Referrer-Policy: no-referrer\r\n",
            "Cache-Control: no-store\r\n",
        ] {
            assert!(answer.contains(&format!("\r\n{header}")), "{path}: {answer}");
        }
        assert!(answer.contains("frame-ancestors 'none'"), "{answer}");
    }
}

#[test]
fn an_address_beyond_loopback_without_a_token_is_open() {
    for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "metrics.example:1", "[::ffff:10.0.0.1]:1"] {
        assert!(MetricsPlace::at(address).is_open(), "{address}");
        let token_file = Some("/t".into());
        assert!(!MetricsPlace { token_file, ..MetricsPlace::at(address) }.is_open(), "{address}");
    }
    for address in ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "localhost:1", "LocalHost:1"] {
        assert!(!MetricsPlace::at(address).is_open(), "{address}");
    }
}

//! Who may read the metrics and pages of the programs: with a token, under which names, and from where.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use oncecast::lab::folder::PrivateFolder;
use oncecast::lab::{ChildProcess, RedisServer, ports};

use crate::support::browser::Browser;
use crate::support::certificates::Authority;
use crate::support::{DEADLINE, programs, redis_server, skipped, status, wait_until};

const OLD: &str = "the-old-token-of-this-group";
const NEW: &str = "the-new-token-of-this-group";
const NAME: &str = "Metrics.example";

/// The programs that serve metrics for long, with what else they need.
const PROGRAMS: [(&str, &[&str]); 2] =
    [("oncecast-dispatcher", &["--consumers", "127.0.0.1:1"]), ("oncecast-consumer", &["--listen", "127.0.0.1:0"])];

/// Starts a program whose metrics are on all addresses of this machine; with its port.
fn start(redis: &RedisServer, (program, more): (&str, &[&str]), args: &[&str]) -> (ChildProcess, u16) {
    let port = ports::free_port().expect("a free port");
    let mut command = programs().command(program).expect("the program is built");
    command.args(["--redis-url", &redis.url(), "--metrics-addr", &format!("0.0.0.0:{port}")]).args(more).args(args);
    let process = ChildProcess::spawn(program, command).expect("it starts");
    process.wait_for_line("event=metrics-listening", DEADLINE).expect("it serves");
    (process, port)
}

/// The whole answer to a request with these headers.
fn ask(address: SocketAddr, path: &str, headers: &[&str]) -> String {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout above zero");
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    write!(stream, "GET {path} HTTP/1.1\r\n{headers}\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

fn code(answer: &str) -> u16 {
    answer["HTTP/1.1 ".len()..][..3].parse().expect("a status")
}

/// An address of this machine that is not loopback. Nothing is sent: a socket that is connected has one.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_loopback())
}

fn write(path: &Path, content: &str) {
    fs::write(path, content).expect("the folder can be written to");
}

#[test]
fn a_program_with_a_token_answers_only_those_who_have_it() {
    let redis = redis_server();
    for program in PROGRAMS {
        let folder = PrivateFolder::create("token").expect("a folder");
        let file = folder.path().join("token");
        write(&file, &format!("{OLD}\n"));
        let path = file.to_str().expect("text");
        let (process, port) = start(&redis, program, &["--metrics-token-file", path, "--metrics-host", NAME]);
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let with =
            |token: &str| code(&ask(here, "/metrics", &["Host: localhost", &format!("Authorization: Bearer {token}")]));
        for headers in [&["Host: localhost"][..], &["Host: localhost", "Authorization: Bearer the-wrong-token-of-it"]] {
            let answer = ask(here, "/metrics", headers);
            assert!(code(&answer) == 401 && answer.contains("\r\nWWW-Authenticate: Bearer realm="), "{answer}");
            assert!(!answer.contains(OLD) && answer.contains("--metrics-token-file"), "{answer}");
        }
        // The new one is added, and the old one removed later, without a restart.
        assert_eq!([with(OLD), with(NEW)], [200, 401]);
        write(&file, &format!("{NEW}\n{OLD}\n"));
        assert_eq!([with(OLD), with(NEW)], [200, 200]);
        write(&file, &format!("{NEW}\n"));
        assert_eq!([with(OLD), with(NEW)], [401, 200]);

        let token = format!("Authorization: Bearer {NEW}");
        for (host, expected) in [(NAME, 200), ("metrics.example:9464", 200), ("evil.example", 403)] {
            assert_eq!(code(&ask(here, "/metrics", &[&format!("Host: {host}"), &token])), expected, "{host}");
        }
        // Whether it is ready does not matter here.
        assert_eq!(code(&ask(here, "/healthz", &["Host: localhost"])), 200);
        assert_ne!(code(&ask(here, "/readyz", &["Host: localhost"])), 401);
        match own_address() {
            Some(own) => {
                let there = SocketAddr::from((own, port));
                for path in ["/healthz", "/readyz"] {
                    assert_eq!(code(&ask(there, path, &[&format!("Host: {there}")])), 401, "{path}, {}", program.0);
                }
                assert_eq!(code(&ask(there, "/healthz", &[&format!("Host: {there}"), &token])), 200);
            }
            None => skipped("probes from another address: this machine has only loopback"),
        }
        assert!(!process.stderr().all().iter().any(|line| line.contains("metrics-open")), "{}", program.0);
    }
}

#[test]
fn an_open_address_is_logged_once_and_noted_by_status() {
    let redis = redis_server();
    for program in PROGRAMS {
        let (process, port) = start(&redis, program, &[]);
        process.wait_for_line("event=metrics-open", DEADLINE).expect("it is logged");
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        (0..3).for_each(|_| assert_eq!(code(&ask(here, "/metrics", &["Host: localhost"])), 200));
        let lines = process.stderr().all();
        let open: Vec<_> = lines.iter().filter(|line| line.contains("event=metrics-open")).collect();
        assert!(open.len() == 1 && open[0].contains("level=warn"), "{lines:?}");
        if program.0 == "oncecast-dispatcher" {
            let note = format!("serves its metrics and the status page at 0.0.0.0:{port} without a token");
            wait_until("the note", || status(&redis.url()).0.contains(&note).then_some(()));
        }
    }
}

/// A folder that every user can enter, for what is exposed; removed on drop.
struct OpenFolder(PathBuf);

impl OpenFolder {
    fn create() -> OpenFolder {
        let path = std::env::temp_dir().join(format!("oncecast-open-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o755).create(&path).expect("a new folder");
        OpenFolder(path)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        write(&path, content);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("our own");
        path.to_str().expect("text").to_owned()
    }
}

impl Drop for OpenFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Every file of a secret that all can read is logged in the same way, and used.
#[test]
fn a_secret_that_every_user_can_read_is_logged() {
    let (redis, folder) = (redis_server(), OpenFolder::create());
    let pair = Authority::new("authority").sign(&["127.0.0.1"]);
    let [token, url, certificate, key] =
        [("token", format!("{OLD}\n")), ("url", redis.url()), ("certificate", pair.certificate), ("key", pair.key)]
            .map(|(name, content)| folder.file(name, &content));
    let port = ports::free_port().expect("a free port");
    let mut command = programs().command("oncecast-consumer").expect("the program is built");
    command.args(["--listen", "127.0.0.1:0", "--metrics-addr", &format!("127.0.0.1:{port}")]);
    command.args(["--metrics-token-file", &token, "--tls-cert", &certificate, "--tls-key", &key]);
    command.env("ONCECAST_REDIS_URL_FILE", &url);
    let process = ChildProcess::spawn("consumer", command).expect("it starts");
    process.wait_for_line("event=listening", DEADLINE).expect("it works all the same");
    let lines = process.stderr().all();
    let exposed: Vec<&String> = lines.iter().filter(|line| line.contains("event=secret-exposed")).collect();
    for (source, path) in
        [("setting=metrics-token-file", &token), ("variable=ONCECAST_REDIS_URL_FILE", &url), ("setting=tls-key", &key)]
    {
        let is_it = |line: &&&String| line.contains(source);
        let line = exposed.iter().find(is_it).unwrap_or_else(|| panic!("{source}: {lines:?}"));
        assert!(line.contains("level=warn") && line.contains(&format!("chmod o-r {path}")), "{line}");
    }
    assert_eq!(exposed.len(), 3, "a certificate is no secret: {exposed:?}");
}

/// A browser asks for a user and a password; here they are in the address, as a bookmark may have them.
#[test]
fn the_page_works_in_a_browser_with_a_token() {
    let Some(mut browser) = Browser::start() else { return };
    let redis = redis_server();
    let folder = PrivateFolder::create("token").expect("a folder");
    let file = folder.path().join("token");
    write(&file, &format!("{OLD}\n"));
    let (_process, port) = start(&redis, PROGRAMS[0], &["--metrics-token-file", file.to_str().expect("text")]);
    let mut page = browser.page();
    page.open(&format!("http://anyone:{OLD}@127.0.0.1:{port}/"));
    page.wait_for("document.getElementById('leader-id')?.textContent.includes('-')");
    page.wait_for("document.getElementById('results')?.textContent === '0'");
    // Later requests send it as well.
    let clock = page.text("clock");
    page.wait_for(&format!("document.getElementById('clock').textContent !== '{clock}'"));
    assert_eq!(page.complaints(), [] as [String; 0]);
}

//! Each failure of TLS has its own sentence, which names what to do.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::slice::from_ref;
use std::thread;

use oncecast::lab::folder::PrivateFolder;
use oncecast::lab::{ChildProcess, PemPair, RedisOptions, RedisServer, RedisTls};

use crate::support::certificates::Authority;
use crate::support::{DEADLINE, programs};

/// A way to fail: the arguments, and what is said.
struct Case {
    url: String,
    files: Vec<(&'static str, PathBuf)>,
    parts: &'static [&'static str],
}

struct Site {
    folder: PrivateFolder,
    servers: Vec<RedisServer>,
}

impl Site {
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path
    }

    fn server(&mut self, authority: &Authority, server: PemPair, clients: Option<PemPair>) -> String {
        let tls = RedisTls { authority: authority.pem(), server, client: clients, only: false };
        let server = RedisServer::start(RedisOptions { tls: Some(tls), ..RedisOptions::default() });
        let server = server.expect("a private Redis with TLS starts");
        let port = server.tls_port().expect("it has TLS");
        self.servers.push(server);
        format!("rediss://127.0.0.1:{port}")
    }
}

/// A server that accepts and never says anything.
fn silent() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || listener.incoming().flatten().collect::<Vec<_>>());
    format!("rediss://{address}")
}

fn cases(site: &mut Site) -> Vec<Case> {
    let authority = Authority::new("authority");
    let ca = ("--redis-ca", site.file("ca.pem", &authority.pem()));
    let other = ("--redis-ca", site.file("other.pem", &Authority::new("other").pem()));
    let foreign = Authority::new("foreign").sign(&[]);
    let own = [
        ("--redis-cert", site.file("foreign.pem", &foreign.certificate)),
        ("--redis-key", site.file("foreign.key", &foreign.key)),
    ];
    let good = site.server(&authority, authority.sign(&["127.0.0.1"]), None);
    let plain = site.servers[0].url().replace("redis://", "rediss://");
    let expired = site.server(&authority, authority.sign_expired(&["127.0.0.1"]), None);
    let wrong = site.server(&authority, authority.sign(&["redis.example"]), None);
    let strict = site.server(&authority, authority.sign(&["127.0.0.1"]), Some(authority.sign(&[])));
    let case = |url: &str, files: &[(&'static str, PathBuf)], parts| Case {
        url: url.to_owned(),
        files: files.to_vec(),
        parts,
    };
    vec![
        case(&plain, from_ref(&ca), &["it speaks no TLS on this port", "--redis-url / ONCECAST_REDIS_URL"]),
        case(&good, &[other], &["was not signed by an authority in", "other.pem", "--redis-ca"]),
        case(&good, &[], &["was not signed by an authority in this system's list", "--redis-ca"]),
        case(&expired, from_ref(&ca), &["its certificate expired", "days ago", "renew"]),
        case(&wrong, from_ref(&ca), &["not for 127.0.0.1, but for redis.example", "--redis-url"]),
        case(&strict, from_ref(&ca), &["it requires a certificate from us", "--redis-cert"]),
        case(&strict, &[&[ca.clone()][..], &own].concat(), &["it refuses our certificate", "--redis-cert"]),
        case(&silent(), &[ca], &["did not complete the TLS handshake in time", "--redis-url"]),
        case(&good.replace("rediss://", "redis://"), &[], &["is this a port for TLS?", "rediss://"]),
    ]
}

#[test]
fn each_failure_has_its_own_sentence() {
    let mut site = Site { folder: PrivateFolder::create("tls").expect("a folder"), servers: Vec::new() };
    let cases = cases(&mut site);
    thread::scope(|scope| {
        for Case { url, files, parts } in &cases {
            scope.spawn(move || {
                let arguments = |command: &mut std::process::Command| {
                    command.args(["--redis-url", url]);
                    for (flag, path) in files {
                        command.arg(flag).arg(path);
                    }
                };
                let mut status = programs().command("oncecast").expect("it is built");
                status.arg("status");
                arguments(&mut status);
                let output = status.output().expect("it starts");
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(output.status.code(), Some(1), "{url} {files:?}: {said}");
                let mut dispatcher = programs().command("oncecast-dispatcher").expect("it is built");
                dispatcher.args(["--consumers", "127.0.0.1:1"]);
                arguments(&mut dispatcher);
                let dispatcher = ChildProcess::spawn("dispatcher", dispatcher).expect("it starts");
                let line = dispatcher.wait_for_line("event=redis-trouble", DEADLINE).expect("it is logged");
                for part in *parts {
                    assert!(said.contains(part), "no {part} in: {said}");
                    assert!(line.contains(part), "no {part} in: {line}");
                }
            });
        }
    });
}

#[test]
fn a_consumer_and_a_publisher_say_it_too() {
    let mut site = Site { folder: PrivateFolder::create("tls").expect("a folder"), servers: Vec::new() };
    let authority = Authority::new("authority");
    let url = site.server(&authority, authority.sign(&["redis.example"]), None);
    let ca = site.file("ca.pem", &authority.pem());
    for (program, more) in
        [("oncecast-consumer", ["--listen", "127.0.0.1:0"]), ("oncecast-publisher", ["--count", "1"])]
    {
        let mut command = programs().command(program).expect("it is built");
        command.args(["--redis-url", &url]).args(more).arg("--redis-ca").arg(&ca);
        let process = ChildProcess::spawn(program, command).expect("it starts");
        let line = process.wait_for_line("event=redis-trouble", DEADLINE).expect("it is logged");
        assert!(line.contains("not for 127.0.0.1, but for redis.example"), "{line}");
    }
}

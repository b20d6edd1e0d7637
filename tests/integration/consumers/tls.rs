//! TLS on the links between dispatchers and consumers.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;

use oncecast::lab::folder::PrivateFolder;
use oncecast::lab::{ChildProcess, Cluster, PemPair, Signal, ports};

use crate::support::certificates::Authority;
use crate::support::load::Load;
use crate::support::{
    DEADLINE, bare_cluster, client_of, dispatcher, programs, recorded_ids, stream, wait_until, wait_until_done,
};

/// A cluster with only a Redis, and certificates.
pub struct Site {
    pub cluster: Cluster,
    folder: PrivateFolder,
    pub authority: Authority,
}

impl Site {
    pub fn new() -> Site {
        let site = Site {
            cluster: bare_cluster(),
            folder: PrivateFolder::create("links").expect("a folder"),
            authority: Authority::new("authority"),
        };
        site.write("ca.pem", &site.authority.pem());
        site.keep("consumer", &site.authority.sign(&["127.0.0.1"]));
        site.keep("dispatcher", &site.authority.sign(&[]));
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces a file in one step.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.path("new"), text).expect("a file");
        fs::rename(self.path("new"), self.path(name)).expect("a file");
    }

    pub fn keep(&self, name: &str, pair: &PemPair) {
        self.write(&format!("{name}.pem"), &pair.certificate);
        self.write(&format!("{name}.key"), &pair.key);
    }

    /// Arguments with the folder in the place of `@`.
    fn args(&self, args: &str) -> String {
        args.replace('@', &format!("{}/", self.folder.path().display()))
    }

    /// A consumer, and where it listens.
    pub fn consumer(&self, name: &str, args: &str) -> (ChildProcess, String) {
        let address = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
        let mut command = self.cluster.command("oncecast-consumer").expect("it is built");
        command.args(["--listen", &address, "--consumer-id", name]).args(self.args(args).split_whitespace());
        let consumer = ChildProcess::spawn(name, command).expect("it starts");
        consumer.wait_for_line("event=listening", DEADLINE).expect("it listens");
        (consumer, address)
    }

    pub fn dispatcher(&self, name: &str, addresses: &[String], args: &str) -> ChildProcess {
        dispatcher(&self.cluster, name, addresses, &self.args(args))
    }
}

pub const CONSUMER: &str = "--tls-cert @consumer.pem --tls-key @consumer.key --tls-client-ca @ca.pem";
pub const DISPATCHER: &str = "--tls-ca @ca.pem --tls-cert @dispatcher.pem --tls-key @dispatcher.key";

pub fn secure(address: &str) -> String {
    format!("wss://{address}")
}

#[test]
fn messages_go_over_tls_and_survive_the_death_of_the_leader() {
    let mut site = Site::new();
    let (consumers, addresses): (Vec<_>, Vec<_>) =
        ["c0", "c1"].map(|name| site.consumer(name, CONSUMER)).into_iter().unzip();
    let addresses: Vec<String> = addresses.iter().map(|address| secure(address)).collect();
    let args = format!("{DISPATCHER} --lease-ttl-ms 60000");
    let mut first = site.dispatcher("d0", &addresses, &args);
    for consumer in &consumers {
        consumer.wait_for_line("event=dispatcher-rules", DEADLINE).expect("the link is up");
    }
    let mut second = site.dispatcher("d1", &addresses, &args);
    second.wait_for_line("event=subscribed", DEADLINE).expect("it listens");
    let connection = &mut client_of(&mut site.cluster);
    crate::support::wait_until_in_sync(connection, 2);
    let load = Load::start(&site.cluster.redis_url(), "m", 2_000);
    load.wait_for_more(2_000);
    first.kill().expect("it runs");
    load.wait_for_more(2_000);
    let sent = load.stop();
    assert!(sent.unheard.is_empty() && sent.uncertain.is_empty(), "one was in sync all the time");
    wait_until_done(connection, sent.owed.len());
    let mut recorded = recorded_ids(connection);
    recorded.sort();
    let mut owed = sent.owed.clone();
    owed.sort();
    assert!(recorded == owed, "{} recorded of {}", recorded.len(), owed.len());
    assert_eq!(stream(connection, "messages:gaps"), []);
    drop(consumers);
    assert!(second.stop(DEADLINE).expect("it ends").success());
}

#[test]
fn ends_that_do_not_fit_are_named_on_both_sides() {
    let site = Site::new();
    let other = Authority::new("other");
    site.write("other.pem", &other.pem());
    site.keep("wrong", &site.authority.sign(&["consumer.example"]));
    site.keep("expired", &site.authority.sign_expired(&["127.0.0.1"]));
    let of = |name: &str| format!("--tls-cert @{name}.pem --tls-key @{name}.key");
    for (number, (consumer_args, is_secure, dispatcher_args, at_dispatcher, at_consumer)) in [
        (CONSUMER.to_owned(), false, "", "must begin with wss://", "event=tls-failed"),
        (
            String::new(),
            true,
            "--tls-ca @ca.pem",
            "it speaks no TLS on this port",
            "begins TLS, and this consumer has none",
        ),
        (CONSUMER.to_owned(), true, "--tls-ca @ca.pem", "it requires a certificate from us", "event=tls-failed"),
        (of("consumer"), true, "--tls-ca @other.pem", "not signed by an authority in", "event=tls-failed"),
        (of("wrong"), true, "--tls-ca @ca.pem", "not for 127.0.0.1, but for consumer.example", "event=tls-failed"),
        (of("expired"), true, "--tls-ca @ca.pem", "its certificate expired", "refuses our certificate: it has expired"),
    ]
    .into_iter()
    .enumerate()
    {
        let (consumer, address) = site.consumer(&format!("c{number}"), &consumer_args);
        let address = if is_secure { secure(&address) } else { address };
        let dispatcher = site.dispatcher(&format!("d{number}"), &[address], dispatcher_args);
        let line = dispatcher.wait_for_line("event=consumer-unreachable", DEADLINE).expect("it is logged");
        assert!(line.contains(at_dispatcher), "no {at_dispatcher} in: {line}");
        consumer.wait_for_line(at_consumer, DEADLINE).expect("it is logged there, too");
    }
}

/// Of `dns:wss://name:port` the certificate must be for the name, not for the address that was found.
#[test]
fn a_consumer_that_is_found_by_its_name_proves_that_name() {
    let mut site = Site::new();
    site.keep("named", &site.authority.sign(&["localhost"]));
    let by_name = |address: &str| format!("dns:wss://localhost:{}", address.rsplit(':').next().expect("a port"));

    let (_stranger, address) = site.consumer("c0", CONSUMER);
    let dispatcher = site.dispatcher("d0", &[by_name(&address)], DISPATCHER);
    let line = dispatcher.wait_for_line("event=consumer-unreachable", DEADLINE).expect("it is logged");
    assert!(line.contains("not for localhost, but for 127.0.0.1"), "{line}");
    drop(dispatcher);

    let (consumer, address) = site.consumer("c1", &CONSUMER.replace("@consumer.", "@named."));
    let _dispatcher = site.dispatcher("d1", &[by_name(&address)], DISPATCHER);
    consumer.wait_for_line("event=dispatcher-rules", DEADLINE).expect("the link is up");
    let connection = &mut client_of(&mut site.cluster);
    crate::support::wait_until_in_sync(connection, 1);
    crate::support::publish(connection, "m", 0..10);
    wait_until_done(connection, 10);
}

/// They count as silent strangers, as without TLS.
#[test]
fn a_thousand_silent_sockets_keep_no_dispatcher_out() {
    let site = Site::new();
    let (consumer, address) = site.consumer("c0", CONSUMER);
    let sockets: Vec<TcpStream> = (0..1_000).filter_map(|_| TcpStream::connect(&address).ok()).collect();
    let _dispatcher = site.dispatcher("d0", &[secure(&address)], DISPATCHER);
    consumer.wait_for_line("event=dispatcher-rules", DEADLINE).expect("the link is up");
    drop(sockets);
}

fn metric(address: &str) -> Option<u64> {
    let (_, text) = crate::support::http::get(address.parse().expect("an address"), "/metrics")?;
    let name = "oncecast_certificate_expiry_timestamp_seconds{use=\"links\"}";
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[test]
fn a_renewed_certificate_is_used_without_a_restart_and_its_end_is_a_metric() {
    let site = Site::new();
    let metrics = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    let (mut consumer, address) = site.consumer("c0", &format!("{CONSUMER} --metrics-addr {metrics}"));
    let before = wait_until("the metric", || metric(&metrics));
    let soon = site.authority.sign_until(&["127.0.0.1"], 2040);
    site.keep("consumer", &soon);
    consumer.signal(Signal::SIGHUP).expect("it runs");
    let after = wait_until("the new certificate", || metric(&metrics).filter(|end| *end != before));
    assert!(after < before, "{after} {before}");
    let mut dispatcher = site.dispatcher("d0", &[secure(&address)], DISPATCHER);
    consumer.wait_for_line("event=dispatcher-rules", DEADLINE).expect("the link is up, after SIGHUP");
    dispatcher.signal(Signal::SIGHUP).expect("it runs");
    assert!(dispatcher.stop(DEADLINE).expect("it was still there").success());
    assert!(consumer.stop(DEADLINE).expect("it was still there").success());
}

#[test]
fn files_that_would_have_no_effect_are_refused() {
    for (program, args, said) in [
        ("oncecast-consumer", "--tls-client-ca /x", "--tls-client-ca (ONCECAST_TLS_CLIENT_CA)"),
        ("oncecast-consumer", "--tls-cert /x", "--tls-key (ONCECAST_TLS_KEY): is required"),
        ("oncecast-consumer", "--tls-cert /nowhere --tls-key /x", "/nowhere: No such file"),
        ("oncecast-dispatcher", "--consumers h:1 --tls-ca /x", "no address has TLS"),
        ("oncecast-dispatcher", "--consumers wss://h:1 --tls-ca /nowhere", "--tls-ca (ONCECAST_TLS_CA): got /nowhere"),
        ("oncecast-dispatcher", "--consumers wss://h:1,h:1 --tls-ca /x", "twice"),
    ] {
        let mut command = programs().command(program).expect("it is built");
        let output = command.args(args.split_whitespace()).output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args}: {text}");
        assert!(text.contains(said), "{args}: {text}");
    }
}

#[test]
fn conform_tests_a_consumer_with_tls() {
    let site = Site::new();
    let (_consumer, address) = site.consumer("c0", CONSUMER);
    let mut command = programs().command("oncecast").expect("it is built");
    command.args(["conform", &secure(&address), "--only", "ready-form"]);
    command.args(["--redis-url", &site.cluster.redis_url()]).args(site.args(DISPATCHER).split_whitespace());
    let output = command.output().expect("it starts");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
}

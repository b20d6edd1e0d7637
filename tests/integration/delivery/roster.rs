//! Consumers that come and go: a dispatcher follows a file, and a name that a name server of the test answers.
//!
//! The name server needs root, for port 53 and a `/etc/resolv.conf` of the dispatcher's own, in a mount namespace;
//! without, its test says that it is skipped. How a lane drains consumers is tested in `src/lane/discovery/tests.rs`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use oncecast::lab::{ChildProcess, Cluster, ports};
use oncecast::{Consumer, Delivery, Outcome};
use parking_lot::Mutex;

use crate::support::{
    DEADLINE, RunningConsumer, bare_cluster, client_of, dispatcher, programs, publish_payloads, redis_server, skipped,
    state, status, wait_until, wait_until_done, wait_until_in_sync,
};

/// A file of the test's own; removed on drop.
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn new(name: &str) -> TemporaryFile {
        TemporaryFile(std::env::temp_dir().join(format!("oncecast-{name}-{}", std::process::id())))
    }

    /// Replaces it by a new file, as it should be done.
    fn write(&self, text: &str) {
        let new = self.0.with_extension("new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, &self.0)).expect("a folder for temporary files");
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // A leftover file in the folder for temporary files is harmless.
        let _ = fs::remove_file(&self.0);
    }
}

/// Consumers that count the runs of their handlers, together.
struct Site {
    consumers: Vec<RunningConsumer>,
    runs: Arc<AtomicU64>,
    url: String,
}

impl Site {
    fn new(url: String) -> Site {
        Site { consumers: Vec::new(), runs: Arc::default(), url }
    }

    fn add(&mut self, listen: &str) -> String {
        let runs = self.runs.clone();
        let handler = move |delivery: &Delivery<'_>| {
            runs.fetch_add(1, Ordering::Relaxed);
            Ok(Outcome::new().field("body", delivery.payload()))
        };
        let name = format!("c{}", self.consumers.len());
        let builder = Consumer::builder().redis_url(&self.url).listen(listen).consumer_id(name);
        self.consumers.push(RunningConsumer::start(builder.concurrency(1).handler(handler)));
        self.consumers[self.consumers.len() - 1].address.to_string()
    }
}

fn wait_for_lines(dispatcher: &ChildProcess, event: &str, count: usize) {
    wait_until(format!("{count} times {event}"), || {
        let lines = dispatcher.stderr().all();
        (lines.iter().filter(|line| line.contains(event)).count() >= count).then_some(())
    });
}

fn following(cluster: &Cluster, source: &str) -> ChildProcess {
    dispatcher(cluster, "d0", &[source.to_owned()], "")
}

#[test]
fn a_file_with_addresses_is_followed() {
    let mut cluster = bare_cluster();
    let mut site = Site::new(cluster.redis_url());
    let list = TemporaryFile::new("consumers");
    let dispatcher = following(&cluster, &format!("file:{}", list.0.display()));
    dispatcher.wait_for_line("event=source-failed", DEADLINE).expect("there is no file yet");
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 1);
    let (first, second) = (site.add("127.0.0.1:0"), site.add("127.0.0.1:0"));
    list.write(&format!("# consumers\n{first}\n"));
    wait_for_lines(&dispatcher, "event=consumer-linked", 1);
    publish_payloads(connection, (0..50).map(|n| n.to_string()));
    wait_until_done(connection, 50);

    list.write(&format!("{first}\n{second} # new\n"));
    wait_for_lines(&dispatcher, "event=consumer-linked", 2);
    // A list that can't be used changes nothing, and is reported with its line.
    list.write(&format!("{first}\nnonsense\n"));
    let line = dispatcher.stderr().wait_for("line 2", DEADLINE).expect("it is reported");
    assert!(line.contains("event=source-failed"), "{line}");
    wait_until("the mistake in the status", || {
        let (text, _) = status(&cluster.redis_url());
        (text.contains("2 addresses") && text.contains("line 2")).then_some(())
    });
    publish_payloads(connection, (50..100).map(|n| n.to_string()));
    wait_until_done(connection, 100);

    list.write(&format!("{second}\n"));
    wait_for_lines(&dispatcher, "event=consumer-drained", 1);
    wait_for_lines(&dispatcher, "event=consumer-removed", 1);
    publish_payloads(connection, (100..150).map(|n| n.to_string()));
    wait_until_done(connection, 150);
    assert_eq!((state(connection), site.runs.load(Ordering::Relaxed)), ((0, 150, 0), 150));
    let lines = dispatcher.stderr().all();
    assert!(!lines.iter().any(|line| line.contains("event=consumer-lost")), "{lines:#?}");
}

/// Answers each question for an IPv4 address with these, and every other one with nothing.
fn answer(server: &UdpSocket, addresses: &Mutex<Vec<Ipv4Addr>>) {
    const HEADER_BYTES: usize = 12;
    const A_RECORD: [u8; 2] = [0, 1];
    let mut question = [0; 512];
    while let Ok((length, asker)) = server.recv_from(&mut question) {
        let name_end = question[HEADER_BYTES..length].iter().position(|byte| *byte == 0).expect("a name ends with 0");
        let end = HEADER_BYTES + name_end + 1 + 4;
        let found = if question[end - 4..end - 2] == A_RECORD { addresses.lock().clone() } else { Vec::new() };
        let mut answer = question[..end].to_vec();
        // A response without an error; one question; the answers; no other records.
        answer[2..4].copy_from_slice(&[0x81, 0x80]);
        answer[4..12].copy_from_slice(&[0, 1, 0, found.len() as u8, 0, 0, 0, 0]);
        for address in found {
            // The question's name, an IPv4 address of the internet, valid for 1 s, of 4 bytes.
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
            answer.extend(address.octets());
        }
        server.send_to(&answer, asker).expect("the resolver waits");
    }
}

#[test]
fn each_address_of_a_name_is_a_consumer() {
    let unshared = Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    let server = UdpSocket::bind("127.0.0.61:53").ok().filter(|_| unshared);
    let Some(server) = server else { return skipped("it needs root") };
    let redis = redis_server();
    let mut site = Site::new(redis.url());
    let port = ports::free_port().expect("a free port");
    let host = |last: u8| Ipv4Addr::new(127, 0, 61, last);
    (1..=3).for_each(|last| drop(site.add(&format!("{}:{port}", IpAddr::from(host(last))))));
    let addresses = Arc::new(Mutex::new(vec![host(1)]));
    let answered = addresses.clone();
    // Ends with the process.
    thread::spawn(move || answer(&server, &answered));

    let resolver = TemporaryFile::new("resolver");
    resolver.write("nameserver 127.0.0.61\noptions timeout:1 attempts:1\n");
    let program = programs().command("oncecast-dispatcher").expect("the program is built");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\""]).arg(&resolver.0);
    command.arg(program.get_program()).args(["--redis-url", &redis.url()]);
    command.args(["--consumers", &format!("dns:consumers.example:{port}")]);
    let dispatcher = ChildProcess::spawn("d0", command).expect("it starts");
    wait_for_lines(&dispatcher, "event=consumer-linked", 1);
    *addresses.lock() = vec![host(3), host(1), host(2)];
    wait_for_lines(&dispatcher, "event=consumer-linked", 3);
    let connection = &mut crate::support::client(&redis.url());
    wait_until_in_sync(connection, 1);
    publish_payloads(connection, (0..300).map(|n| n.to_string()));
    wait_until_done(connection, 300);
    assert_eq!(site.runs.load(Ordering::Relaxed), 300);
    for consumer in &site.consumers {
        let text = format!("{:?}", dispatcher.stderr().all());
        assert!(text.contains(&format!("address={}", consumer.address)), "{} is linked: {text}", consumer.address);
    }
}

//! Groups that deliver into a stream: exactly one entry for each message, in order, whatever happens to leaders,
//! connections, scripts and rights.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use oncecast::lab::{ChildProcess, Cluster, ClusterOptions, Lease, Node, Signal};

use crate::support::load::{Load, number};
use crate::support::{
    DEADLINE, client, client_of, options, programs, run, status, stream, wait_for_another_leader, wait_for_intake,
    wait_until,
};

const STREAM: &str = "messages:messages";
const CHANNELS: [&str; 3] = ["orders.eu", "orders.us", "orders.@1:x"];

/// Dispatchers that add to a stream. All are ready when this returns.
fn bridge(arguments: &str) -> Cluster {
    let arguments = format!("--deliver stream --lease-ttl-ms 500 {arguments}");
    let options = ClusterOptions { readiness: true, ..options(2, 0, &arguments, "") };
    let mut cluster = Cluster::start(options).expect("it starts");
    cluster.wait_for_leader(DEADLINE).expect("a dispatcher leads");
    wait_until_ready(&mut cluster);
    cluster
}

fn wait_until_ready(cluster: &mut Cluster) {
    let ready = cluster.wait_for(DEADLINE, "all to be ready", |cluster, _| cluster.is_ready().then_some(()));
    ready.expect("they become ready");
}

fn leader(cluster: &mut Cluster) -> (Node, Lease) {
    cluster.wait_for_leader(DEADLINE).expect("a dispatcher leads")
}

/// An entry as a worker reads it: its id and its fields.
type Entry = (String, HashMap<String, String>);

/// A worker in a group of the stream, which deletes every other entry that it has read.
struct StreamWorker {
    stop: Arc<AtomicBool>,
    read: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<Entry>>,
}

impl StreamWorker {
    fn start(cluster: &mut Cluster) -> StreamWorker {
        let connection = client_of(cluster);
        let (stop, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (stop.clone(), read.clone());
        StreamWorker { stop, read, thread: thread::spawn(move || work(connection, &stopped, &count)) }
    }

    /// What it has read, when nothing is left.
    fn stop(self) -> Vec<Entry> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the worker does not panic")
    }
}

fn work(mut connection: redis::Connection, stopped: &AtomicBool, count: &AtomicUsize) -> Vec<Entry> {
    let connection = &mut connection;
    let () = run(connection, &["XGROUP", "CREATE", STREAM, "workers", "0", "MKSTREAM"]);
    let mut read: Vec<Entry> = Vec::new();
    loop {
        let is_last = stopped.load(Ordering::Relaxed);
        let words = ["XREADGROUP", "GROUP", "workers", "w0", "COUNT", "500", "STREAMS", STREAM, ">"];
        let found: Option<Vec<(String, Vec<Entry>)>> = run(connection, &words);
        let Some(entries) = found.and_then(|mut streams| streams.pop()).map(|(_, entries)| entries) else {
            if is_last {
                return read;
            }
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        let mut pipeline = redis::pipe();
        for (at, (id, _)) in entries.iter().enumerate() {
            pipeline.cmd("XACK").arg(STREAM).arg("workers").arg(id).ignore();
            if at % 2 == 0 {
                pipeline.cmd("XDEL").arg(STREAM).arg(id).ignore();
            }
        }
        let () = pipeline.query(connection).expect("Redis answers");
        read.extend(entries);
        count.store(read.len(), Ordering::Relaxed);
    }
}

/// Closes every connection on which a script was called last: those of elections and intakes.
fn cut_connections(connection: &mut redis::Connection) {
    let list: String = run(connection, &["CLIENT", "LIST", "TYPE", "NORMAL"]);
    for line in list.lines().filter(|line| line.contains(" cmd=evalsha ")) {
        let id = line.split_whitespace().find_map(|word| word.strip_prefix("id=")).expect("each has an id");
        let _: i64 = run(connection, &["CLIENT", "KILL", "ID", id]);
    }
}

#[test]
fn each_message_is_one_entry_whatever_happens_to_leaders_and_connections() {
    let mut cluster = bridge("--channel orders.eu --pattern orders.* --pattern *.eu");
    let connection = &mut client_of(&mut cluster);
    let worker = StreamWorker::start(&mut cluster);
    let load = Load::start_on(&cluster.redis_url(), "m", 4_000, &CHANNELS);
    for round in 0..3 {
        load.wait_for_more(1_000);
        let (killed, lease) = leader(&mut cluster);
        cluster.kill_node(killed).expect("it is killed");
        wait_for_another_leader(&mut cluster, &lease);
        cluster.start_node(killed).expect("it starts");
        wait_until_ready(&mut cluster);

        load.wait_for_more(500);
        let () = run(connection, &["SCRIPT", "FLUSH"]);
        for _ in 0..20 {
            load.wait_for_more(50);
            cut_connections(connection);
        }
        wait_until_ready(&mut cluster);

        let (paused, lease) = leader(&mut cluster);
        cluster.signal(paused, Signal::SIGSTOP).expect("it runs");
        wait_for_another_leader(&mut cluster, &lease);
        load.wait_for_more(500);
        cluster.signal(paused, Signal::SIGCONT).expect("it runs");
        let right = if round % 2 == 0 { "-multi" } else { "+multi" };
        let () = run(connection, &["ACL", "SETUSER", "default", right]);
        load.wait_for_more(500);
        wait_until_ready(&mut cluster);

        let (stopped, lease) = leader(&mut cluster);
        cluster.stop_node(stopped, DEADLINE).expect("it ends in order");
        wait_for_another_leader(&mut cluster, &lease);
        cluster.start_node(stopped).expect("it starts");
        wait_until_ready(&mut cluster);
    }
    let sent = load.stop();
    wait_until("all to be read", || (worker.read.load(Ordering::Relaxed) >= sent.owed.len()).then_some(()));
    for node in cluster.running() {
        cluster.stop_node(node, DEADLINE).expect("it ends in order");
    }
    let entries = worker.stop();

    assert!(sent.uncertain.is_empty() && sent.unheard.is_empty(), "each was received");
    let id_of = |entry: &Entry| entry.1["payload"].replace("{\"message_id\":\"", "").replace("\"}", "");
    let found: Vec<String> = entries.iter().map(id_of).collect();
    let (wanted, once): (BTreeSet<&String>, BTreeSet<&String>) = (sent.owed.iter().collect(), found.iter().collect());
    let lost: Vec<_> = wanted.difference(&once).take(5).collect();
    assert_eq!((lost, once.len(), found.len()), (vec![], wanted.len(), wanted.len()), "each once, none lost");
    assert!(found.iter().is_sorted_by_key(|id| number(id)), "in order");
    for (entry, id) in entries.iter().zip(&found) {
        let channel = CHANNELS[number(id) as usize % CHANNELS.len()];
        assert_eq!(entry.1, HashMap::from([("channel", channel), ("payload", &entry.1["payload"])].map(owned)));
    }
    assert_eq!(stream(connection, "messages:gaps"), []);
    let existing: i64 = run(connection, &["EXISTS", "messages:pending", "messages:processed", "messages:dead"]);
    assert_eq!(existing, 0);
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn a_group_without_consumers_is_ready_and_healthy() {
    let mut cluster = bridge("--stream shared:jobs");
    let connection = &mut client_of(&mut cluster);
    let _: Vec<u64> = redis::pipe()
        .publish("messages:published", "a")
        .publish("messages:published", "b")
        .query(connection)
        .expect("they are published");
    wait_for_intake(connection);
    let entries = stream(connection, "shared:jobs");
    // One exact channel need not be recorded.
    assert_eq!(entries, ["a", "b"].map(|payload| HashMap::from([owned(("payload", payload))])));
    let mut audit = programs().command("oncecast").expect("the program is built");
    let audit = audit.args(["audit", "--redis-url", &cluster.redis_url(), "--stream", "shared:jobs"]);
    let audit = audit.args(["--id-field", "payload", "--expect", "2"]);
    let audit = audit.output().expect("it runs");
    println!("{}", String::from_utf8_lossy(&audit.stdout));
    assert_eq!(audit.status.code(), Some(0), "{audit:?}");
    wait_until("the status to be good", || {
        let (shown, code) = status(&cluster.redis_url());
        (code == 0 && shown.contains("shared:jobs, 2 entries") && !shown.contains("consumer")).then_some(())
    });
}

#[test]
fn ids_continue_above_entries_of_others_and_wait_for_a_stream_that_can_be_written() {
    let mut cluster = bridge("");
    let connection = &mut client_of(&mut cluster);
    let publish = |connection: &mut redis::Connection, payload: &str| {
        let _: u64 = run(connection, &["PUBLISH", "messages:published", payload]);
    };
    let (seconds, _): (u64, u64) = run(connection, &["TIME"]);
    let ahead = format!("{}-7", (seconds + 3_600) * 1_000);
    let _: String = run(connection, &["XADD", STREAM, &ahead, "payload", "foreign"]);
    publish(connection, "a");
    wait_for_intake(connection);
    let payloads = |connection: &mut redis::Connection| {
        stream(connection, STREAM).into_iter().map(|mut fields| fields.remove("payload")).collect::<Option<Vec<_>>>()
    };
    assert_eq!(payloads(connection), Some(["foreign", "a"].map(str::to_owned).to_vec()));

    let () = run(connection, &["RENAME", STREAM, "aside"]);
    let () = run(connection, &["SET", STREAM, "mine"]);
    publish(connection, "b");
    cluster
        .wait_for(DEADLINE, "the leader not to be ready", |cluster, _| (!cluster.is_ready()).then_some(()))
        .expect("it");
    let () = run(connection, &["RENAME", "aside", STREAM]);
    wait_until_ready(&mut cluster);
    wait_for_intake(connection);
    assert_eq!(payloads(connection), Some(["foreign", "a", "b"].map(str::to_owned).to_vec()));
}

#[test]
fn events_of_the_stream_itself_are_no_messages() {
    let mut cluster = bridge("--keyevent xadd --stream jobs");
    let connection = &mut client_of(&mut cluster);
    let () = run(connection, &["CONFIG", "SET", "notify-keyspace-events", "KEA"]);
    for other in 0..3 {
        let _: String = run(connection, &["XADD", &format!("other{other}"), "*", "a", "b"]);
        wait_until("the event to be stored", || (stream(connection, "jobs").len() > other).then_some(()));
    }
    // In order, so that everything they have received is stored.
    for node in cluster.running() {
        cluster.stop_node(node, DEADLINE).expect("it ends in order");
    }
    let entry = |other: u32| HashMap::from([owned(("payload", &format!("other{other}")))]);
    assert_eq!(stream(connection, "jobs"), [0, 1, 2].map(entry));
}

#[test]
fn a_stream_without_ids_is_named_in_the_log() {
    let cluster = Cluster::start(options(0, 0, "", "")).expect("it starts");
    let connection = &mut client(&cluster.redis_url());
    let _: String =
        run(connection, &["XADD", STREAM, "18446744073709551615-18446744073709551615", "payload", "foreign"]);
    let mut command = cluster.command("oncecast-dispatcher").expect("the program is built");
    command.args(["--dispatcher-id", "d0", "--deliver", "stream"]);
    let process = ChildProcess::spawn("d0", command).expect("it starts");
    process.wait_for_line("event=taken-over", DEADLINE).expect("it leads");
    let _: u64 = run(connection, &["PUBLISH", "messages:published", "a"]);
    process.wait_for_line("the stream messages:messages has run out of ids", DEADLINE).expect("it is named");
    assert_eq!(stream(connection, STREAM).len(), 1);
}

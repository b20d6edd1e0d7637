//! What the integration tests share: a cluster of the programs under test, publishing, reading results, waiting.
//!
//! Everything stops when it is dropped. Waits have a deadline and say what they waited for.

// Each test file uses a part of it.
#![allow(dead_code)]

pub mod browser;
pub mod load;
pub mod peer;
pub mod proxy;
pub mod running_consumer;
pub mod scripted_dispatcher;
pub mod scripted_group;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use oncecast::base::id::DispatcherId;
use oncecast::base::shutdown::ShutdownHandle;
use oncecast::lab::{self, ChildProcess, Cluster, ClusterOptions, Lease, Node, Programs, RedisOptions, RedisServer};
use oncecast::ledger::Marker;
use oncecast::ledger::subscription::Notice;
use oncecast::{ConsumerBuilder, ConsumerStats};
use redis::{ConnectionLike, FromRedisValue};

/// How long something that must happen may take on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// The channel that users publish on.
pub const CHANNEL: &str = "messages:published";

/// The programs under test.
pub fn programs() -> Programs {
    let this = Path::new(env!("CARGO_BIN_EXE_oncecast"));
    Programs::in_folder(this.parent().expect("a program lies in a folder"))
}

/// A private server without a file.
pub fn redis_server() -> RedisServer {
    RedisServer::start(RedisOptions::default()).expect("a private Redis starts")
}

/// A private server that has written out what it has acknowledged, so that killing it loses nothing.
pub fn lasting_redis_server() -> RedisServer {
    // Written before the reply, though not synced: it is the process that dies here, not the machine.
    let config = vec![("appendfsync".to_owned(), "no".to_owned())];
    let options = RedisOptions { append_only: true, config, ..RedisOptions::default() };
    RedisServer::start(options).expect("a private Redis starts")
}

/// A cluster whose leader is connected to all consumers.
pub fn cluster(dispatchers: usize, consumers: usize) -> Cluster {
    cluster_of(ClusterOptions { dispatchers, consumers, ..ClusterOptions::new(programs()) })
}

/// A cluster with options of one's own, whose leader is connected to all consumers.
///
/// Tried again if another program on this machine took one of its ports: that says nothing about us.
pub fn cluster_of(options: ClusterOptions) -> Cluster {
    let start = || {
        let mut cluster = Cluster::start(options.clone())?;
        cluster.wait_for_leader(DEADLINE)?;
        cluster.wait_for_consumers(DEADLINE)?;
        Ok(cluster)
    };
    let mut attempt = start();
    for _ in 0..2 {
        match &attempt {
            Err(error @ oncecast::base::error::Error::Failed(_))
                if error.to_string().contains("Address already in use") =>
            {
                attempt = start();
            }
            _ => break,
        }
    }
    attempt.expect("the cluster starts and a dispatcher leads")
}

/// A connection of the client library's own, with a deadline for each reply.
pub fn client(url: &str) -> redis::Connection {
    let client = redis::Client::open(url).expect("a valid URL");
    let connection = client.get_connection_with_timeout(DEADLINE).expect("Redis takes connections");
    connection.set_read_timeout(Some(DEADLINE)).expect("a timeout above zero");
    connection.set_write_timeout(Some(DEADLINE)).expect("a timeout above zero");
    connection
}

/// Runs one command on a connection of its own.
pub fn run_on<T: FromRedisValue>(server: &RedisServer, words: &[&str]) -> T {
    run(&mut client(&server.url()), words)
}

/// Makes this the newest epoch of the group `messages`, as a dispatcher does that is elected: consumers believe no other.
pub fn elect(server: &RedisServer, epoch: u64) {
    run_on::<()>(server, &["SET", "messages:epoch", &epoch.to_string()]);
}

/// Makes a message of the group `messages` pending.
pub fn pend(server: &RedisServer, id: u64, payload: &str) {
    let member = format!("{id:016x}:{payload}");
    run_on::<i64>(server, &["ZADD", "messages:pending", &id.to_string(), &member]);
}

/// Publishes `{"message_id":"<prefix><n>"}` for each `n` of `numbers`, in one go; gives the fewest receivers one had.
pub fn publish(connection: &mut redis::Connection, prefix: &str, numbers: std::ops::Range<u64>) -> u64 {
    let payloads = numbers.map(|n| format!("{{\"message_id\":\"{prefix}{n}\"}}"));
    publish_payloads(connection, payloads)
}

/// Publishes payloads in one go; gives the fewest receivers one had.
pub fn publish_payloads<P: AsRef<[u8]>>(
    connection: &mut redis::Connection,
    payloads: impl IntoIterator<Item = P>,
) -> u64 {
    let mut pipeline = redis::pipe();
    for payload in payloads {
        pipeline.publish(CHANNEL, payload.as_ref());
    }
    let receivers: Vec<u64> = pipeline.query(connection).expect("PUBLISH is answered");
    receivers.into_iter().min().unwrap_or(0)
}

/// The entries of a stream in order, each as its fields.
pub fn stream(connection: &mut redis::Connection, key: &str) -> Vec<HashMap<String, String>> {
    let range = redis::cmd("XRANGE").arg(key).arg("-").arg("+").query(connection);
    let entries: Vec<(String, HashMap<String, String>)> = range.expect("the stream can be read");
    entries.into_iter().map(|(_, fields)| fields).collect()
}

/// How often each value of a field occurs in a stream's entries; entries without the field are left out.
pub fn occurrences(entries: &[HashMap<String, String>], field: &str) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    for value in entries.iter().filter_map(|entry| entry.get(field)) {
        *found.entry(value.clone()).or_insert(0) += 1;
    }
    found
}

/// Looks at `condition` until it gives a value; panics after [`DEADLINE`] saying what did not happen.
pub fn wait_until<T>(what: impl fmt::Display, mut condition: impl FnMut() -> Option<T>) -> T {
    match lab::wait_until(DEADLINE, what, || Ok(condition())) {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

/// A connection to a cluster's server.
pub fn client_of(cluster: &mut Cluster) -> redis::Connection {
    client(&cluster.redis().url())
}

/// A cluster's options with more arguments for its dispatchers and consumers, separated by spaces.
pub fn options(dispatchers: usize, consumers: usize, dispatcher_args: &str, consumer_args: &str) -> ClusterOptions {
    let words = |args: &str| args.split_whitespace().map(str::to_owned).collect();
    ClusterOptions {
        dispatchers,
        consumers,
        dispatcher_args: words(dispatcher_args),
        consumer_args: words(consumer_args),
        ..ClusterOptions::new(programs())
    }
}

/// Runs a command given as words; its reply must be of the type asked for.
pub fn run<T: redis::FromRedisValue>(connection: &mut redis::Connection, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    words[1..].iter().for_each(|word| {
        command.arg(*word);
    });
    command.query(connection).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// The fields of a stream's entry, in order.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// A stream's entries in order, each as its fields in order, whatever bytes they hold.
pub fn raw_stream(connection: &mut redis::Connection, key: &str) -> Vec<Fields> {
    let range = redis::cmd("XRANGE").arg(key).arg("-").arg("+").query(connection);
    let entries: Vec<(String, Fields)> = range.expect("the stream can be read");
    entries.into_iter().map(|(_, fields)| fields).collect()
}

/// The field `message_id` of each result, in the order in which they were recorded.
pub fn recorded_ids(connection: &mut redis::Connection) -> Vec<String> {
    recorded_ids_of("messages", connection)
}

/// The same for a group by its name.
pub fn recorded_ids_of(group: &str, connection: &mut redis::Connection) -> Vec<String> {
    let entries = stream(connection, &format!("{group}:processed"));
    entries.into_iter().filter_map(|mut entry| entry.remove("message_id")).collect()
}

/// Fails unless each of `owed` was recorded exactly once and nothing else was, with names of what is wrong.
pub fn assert_each_once<'a>(connection: &mut redis::Connection, owed: impl IntoIterator<Item = &'a String>) {
    assert_each_once_but(connection, owed, &BTreeSet::new());
}

/// The same, where of `uncertain` each may have been recorded, but not twice.
pub fn assert_each_once_but<'a>(
    connection: &mut redis::Connection,
    owed: impl IntoIterator<Item = &'a String>,
    uncertain: &BTreeSet<String>,
) {
    let owed: BTreeSet<&String> = owed.into_iter().collect();
    let mut recorded: BTreeMap<String, usize> = BTreeMap::new();
    for id in recorded_ids(connection) {
        *recorded.entry(id).or_default() += 1;
    }
    let some = |ids: Vec<&String>| (ids.len(), ids.into_iter().take(5).cloned().collect::<Vec<_>>());
    let lost = some(owed.iter().copied().filter(|id| !recorded.contains_key(*id)).collect());
    let twice = some(recorded.iter().filter(|(_, count)| **count > 1).map(|(id, _)| id).collect());
    let foreign = some(recorded.keys().filter(|id| !owed.contains(*id) && !uncertain.contains(*id)).collect());
    let none = (0, Vec::new());
    assert!(
        lost == none && twice == none && foreign == none,
        "of {} messages: lost {lost:?}, recorded twice {twice:?}, never published {foreign:?}; dead letters {:?}; gaps {:?}",
        owed.len(),
        stream(connection, "messages:dead").into_iter().take(3).collect::<Vec<_>>(),
        stream(connection, "messages:gaps"),
    );
}

/// Waits until nothing is pending and at least `messages` are recorded or buried.
pub fn wait_until_done(connection: &mut redis::Connection, messages: usize) {
    let mut seen = (0, 0, 0);
    let what = format!("{messages} messages to be done and none pending");
    let done = lab::wait_until(DEADLINE, &what, || {
        seen = state(connection);
        let (pending, processed, dead) = seen;
        Ok((pending == 0 && processed + dead >= messages).then_some(()))
    });
    assert!(done.is_ok(), "waited in vain for {what}: pending, processed, dead letters: {seen:?}");
}

/// How many messages are pending, recorded and buried.
pub fn state(connection: &mut redis::Connection) -> (usize, usize, usize) {
    state_of("messages", connection)
}

/// The same for a group by its name.
pub fn state_of(group: &str, connection: &mut redis::Connection) -> (usize, usize, usize) {
    let mut pipeline = redis::pipe();
    for (command, key) in [("ZCARD", "pending"), ("XLEN", "processed"), ("XLEN", "dead")] {
        pipeline.cmd(command).arg(format!("{group}:{key}"));
    }
    pipeline.query(connection).expect("Redis answers")
}

/// What `oncecast status` shows, and its exit code: 0, or 3 if something needs attention.
pub fn status(redis_url: &str) -> (String, i32) {
    let mut command = programs().command("oncecast").expect("the program is built");
    let output = command.args(["status", "--redis-url", redis_url]).output().expect("it runs");
    match output.status.code() {
        Some(code @ (0 | 3)) => (String::from_utf8_lossy(&output.stdout).into_owned(), code),
        _ => panic!("oncecast status: {output:?}"),
    }
}

/// Fails unless `oncecast status` shows a gap with this reason, and this count.
pub fn assert_status_shows_gap(cluster: &Cluster, reason: &str, count: &str) {
    // Whether something needs attention just now is another matter.
    let (shown, _) = status(&cluster.redis_url());
    let is_it = |line: &str| line.contains(&format!(" {reason}, ")) && line.ends_with(&format!("messages: {count}"));
    assert!(shown.lines().any(is_it), "{reason} {count} is not in\n{shown}");
}

/// How many connections are subscribed to the channel.
pub fn subscribers(connection: &mut redis::Connection) -> u64 {
    let found: HashMap<String, u64> = run(connection, &["PUBSUB", "NUMSUB", CHANNEL]);
    found[CHANNEL]
}

/// Waits until everything that was published before on any connection has been taken in.
///
/// Publishes markers as a joining dispatcher does: all dispatchers see each at the same place among the messages, and
/// the leader's cursor comes by it.
pub fn wait_for_intake(connection: &mut redis::Connection) {
    wait_for_intake_of("messages", connection);
}

/// The same for a group by its name, in the connection's database.
pub fn wait_for_intake_of(group: &str, connection: &mut redis::Connection) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let onlooker = DispatcherId::generate("onlooker");
    let mut channels = vec![format!("{group}:control")];
    // Pub/Sub knows no databases, so groups in others than the first may say theirs.
    if connection.get_db() != 0 {
        channels.push(format!("{group}@{}:control", connection.get_db()));
    }
    wait_until("the cursor to come by a new marker", || {
        let marker = Marker::of_join(&onlooker, NUMBER.fetch_add(1, Ordering::Relaxed));
        let notice = Notice::Marker(marker.clone(), CHANNEL.to_owned()).to_string();
        channels.iter().for_each(|channel| run(connection, &["PUBLISH", channel, &notice]));
        let until = Instant::now() + Duration::from_millis(90);
        while Instant::now() < until {
            let cursor: Option<String> = run(connection, &["GET", &format!("{group}:cursor")]);
            if cursor.is_some_and(|cursor| cursor.starts_with(&format!("{marker} "))) {
                return Some(());
            }
            thread::sleep(Duration::from_millis(1));
        }
        None
    });
}

/// Waits until so many dispatchers are subscribed and each holds everything that comes after the cursor.
pub fn wait_until_in_sync(connection: &mut redis::Connection, dispatchers: u64) {
    wait_until(format!("{dispatchers} dispatchers to be subscribed"), || {
        (subscribers(connection) == dispatchers).then_some(())
    });
    // All of them see this marker, and the cursor comes by it.
    wait_for_intake(connection);
}

/// Waits until somebody else than `before` leads; gives who, and the lease.
pub fn wait_for_another_leader(cluster: &mut Cluster, before: &Lease) -> (Node, Lease) {
    let other = cluster.wait_for(DEADLINE, "another dispatcher to lead", |cluster, snapshot| {
        let lease = snapshot.lease.clone().filter(|lease| lease.holder != before.holder)?;
        Some((cluster.leader(snapshot)?, lease))
    });
    let (member, lease) = other.expect("another dispatcher leads");
    assert!(lease.epoch > before.epoch, "epochs must rise: {lease:?} after {before:?}");
    (member, lease)
}

/// The threads of a process by name. Two of one name are shown as one.
pub fn threads(pid: u32) -> BTreeMap<String, u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let tasks = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let name = |task: u32| std::fs::read_to_string(format!("/proc/{pid}/task/{task}/comm")).ok();
    tasks.filter_map(|task| Some((name(task)?.trim().to_owned(), task))).collect()
}

/// The client id of a dispatcher's subscription, by its process.
pub fn subscription_of(connection: &mut redis::Connection, pid: u32) -> String {
    let own = local_ports(pid);
    let list: String = run(connection, &["CLIENT", "LIST", "TYPE", "PUBSUB"]);
    let field = |line: &str, name: &str| {
        line.split(' ').find_map(|word| word.strip_prefix(name)).expect("each line has it").to_owned()
    };
    let is_own = |line: &&str| {
        let port = field(line, "addr=").rsplit(':').next().and_then(|port| port.parse().ok());
        port.is_some_and(|port: u16| own.contains(&port))
    };
    let ids: Vec<String> = list.lines().filter(is_own).map(|line| field(line, "id=")).collect();
    assert_eq!(ids.len(), 1, "a dispatcher has one subscription: {list}");
    ids.into_iter().next().expect("one")
}

/// The local ports of a process's TCP connections.
pub fn local_ports(pid: u32) -> Vec<u16> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs");
    let files = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    let sockets = files.filter_map(|file| {
        let inode = file.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        Some(inode.to_owned())
    });
    let sockets: Vec<String> = sockets.collect();
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).expect("Linux has it");
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    let own = rows.filter(|row| sockets.iter().any(|inode| inode == row[9]));
    own.filter_map(|row| u16::from_str_radix(row[1].rsplit(':').next()?, 16).ok()).collect()
}

/// The memory a process has now.
pub fn resident_bytes(pid: u32) -> u64 {
    status_bytes(pid, "VmRSS:")
}

/// The most memory a process has had at a time.
pub fn most_resident_bytes(pid: u32) -> u64 {
    status_bytes(pid, "VmHWM:")
}

fn status_bytes(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a process has memory");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
    kib << 10
}

/// A dispatcher that is told addresses of our own choice.
pub fn dispatcher(cluster: &Cluster, name: &str, addresses: &[String], args: &str) -> ChildProcess {
    let mut command = cluster.command("oncecast-dispatcher").expect("the program is built");
    command.args(["--dispatcher-id", name, "--consumers", &addresses.join(",")]).args(args.split_whitespace());
    ChildProcess::spawn(name, command).expect("the dispatcher starts")
}

/// A cluster of a server alone; dispatchers and consumers come from the test.
pub fn bare_cluster() -> Cluster {
    Cluster::start(options(0, 0, "", "")).expect("a private Redis starts")
}

/// A consumer of the library's that runs in the test's own process; stopped at once and joined on drop.
pub struct OwnConsumer {
    pub address: String,
    pub stats: Arc<ConsumerStats>,
    handle: ShutdownHandle,
    thread: Option<JoinHandle<()>>,
}

impl OwnConsumer {
    pub fn start(builder: ConsumerBuilder) -> OwnConsumer {
        let consumer = builder.bind().expect("the consumer listens");
        let (address, stats, handle) =
            (consumer.local_addr().to_string(), consumer.stats(), consumer.shutdown_handle());
        let thread = thread::spawn(move || consumer.run().expect("the consumer runs"));
        OwnConsumer { address, stats, handle, thread: Some(thread) }
    }
}

impl Drop for OwnConsumer {
    fn drop(&mut self) {
        self.handle.shutdown();
        self.handle.shutdown();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

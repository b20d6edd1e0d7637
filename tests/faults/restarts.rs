//! Rows 12 and 13: Redis dies and comes back, with all its data or without its last second.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use oncecast::lab::{Cluster, Signal};

use crate::dispatchers::Watched;
use crate::mode::{Mode, in_both_modes, in_mixed_mode, in_tls_mode};
use crate::run::{Run, assert_l0};
use crate::support::load::{Load, Sent};
use crate::support::{
    self, DEADLINE, client_of, cluster_of, programs, publish, run, state, stream, subscribers, wait_until,
    wait_until_done, wait_until_in_sync,
};

use crate::redis::{configured, heard, leader_of, with_redis};

/// Row 12: under load. No message that reached a dispatcher is lost: the rings hold what Redis had not written yet, and
/// after a restart the dispatcher that has received most leads.
fn row_12_redis_killed_and_restarted(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_12_redis_killed_and_restarted");
    let mut cluster = cluster_of(with_redis(configured(true, &[]), mode.options(2, 3, "--lease-ttl-ms 600")));
    wait_until_in_sync(&mut client_of(&mut cluster), 2);
    let load = Load::start(&cluster.redis().url(), "m", 3_000);
    for _ in 0..this.scale(2, 10) {
        load.wait_for_more(this.random.u64(100..4_000));
        cluster.redis().kill().unwrap();
        // The length of the outage is part of the fault.
        thread::sleep(Duration::from_millis(this.random.u64(0..800)));
        cluster.redis().start_again().unwrap();
        let connection = &mut client_of(&mut cluster);
        cluster.wait_for_leader(DEADLINE).unwrap();
        wait_until_in_sync(connection, 2);
    }
    load.wait_for_more(1_000);
    let sent = load.stop();
    println!("row 12: {} owed, {} uncertain, {} unheard", sent.owed.len(), sent.uncertain.len(), sent.unheard.len());
    let connection = &mut client_of(&mut cluster);
    assert_l0(connection, &sent);
    // What was published while no dispatcher was subscribed is unknown, which must be recorded.
    assert!(!stream(connection, "messages:gaps").is_empty(), "each break is recorded as a gap");
}

/// Two dispatchers, one of which can be made to miss something: it reaches Redis through a proxy.
struct Unequal {
    more: Watched,
    less: Watched,
    proxy: support::proxy::Proxy,
    cluster: Cluster,
}

impl Unequal {
    fn start(mode: Mode) -> Unequal {
        // The longest time that dispatchers wait for each other, for a busy machine.
        let args = mode.args("--lease-ttl-ms 20000");
        let redis = configured(true, &[("appendfsync", "no")]);
        let mut cluster = Cluster::start(with_redis(redis, mode.options(0, 2, ""))).expect("Redis and consumers start");
        let proxy = support::proxy::Proxy::to(&format!("127.0.0.1:{}", cluster.redis().port()));
        let addresses: Vec<String> =
            (0..cluster.consumers()).map(|number| cluster.address(number).to_string()).collect();
        let more = Watched::start(&mut cluster, "more", &args);
        let command = programs().command("oncecast-dispatcher").expect("the program is built");
        let url = format!("redis://{}", proxy.address);
        let less = Watched::spawn(command, "less", &url, &addresses, "127.0.0.1", &args);
        wait_until_in_sync(&mut client_of(&mut cluster), 2);
        Unequal { more, less, proxy, cluster }
    }

    /// From here on nothing is stored, since intake needs memory.
    fn fill_memory(&mut self) {
        let () = run(&mut client_of(&mut self.cluster), &["CONFIG", "SET", "maxmemory", "1"]);
    }

    /// Closes the connections of one dispatcher and prevents new ones.
    fn cut(&mut self) {
        self.less.process.signal(Signal::SIGSTOP).unwrap();
        self.proxy.cut();
        self.wait_for_subscribers(1);
    }

    fn wait_for_subscribers(&mut self, count: u64) {
        let connection = &mut client_of(&mut self.cluster);
        wait_until(format!("{count} to be subscribed"), || (subscribers(connection) == count).then_some(()));
    }

    /// Publishes messages that so many dispatchers receive, and waits until they have read them.
    fn publish(&mut self, prefix: &str, messages: u64, hear: u64) {
        let seen = |dispatcher: &Watched| dispatcher.figure("oncecast_messages_published_total").expect("it answers");
        let hearing = if hear == 2 { vec![&self.more, &self.less] } else { vec![&self.more] };
        let goals: Vec<u64> = hearing.iter().map(|dispatcher| seen(dispatcher) + messages).collect();
        assert_eq!(publish(&mut client_of(&mut self.cluster), prefix, 0..messages), hear);
        wait_until(format!("{prefix} to be received"), || {
            hearing.iter().zip(&goals).all(|(dispatcher, goal)| seen(dispatcher) >= *goal).then_some(())
        });
    }

    /// Kills Redis, and lets the dispatcher that received less come back first.
    fn restart_redis(&mut self) {
        self.cluster.redis().kill().unwrap();
        self.more.process.signal(Signal::SIGSTOP).unwrap();
        self.cluster.redis().start_again().unwrap();
        self.less.process.signal(Signal::SIGCONT).unwrap();
        self.wait_for_subscribers(1);
    }

    /// Lets the other come back as well, and fails unless all of these were processed.
    fn assert_l0(mut self, prefixes: &[&str], messages: u64) {
        self.more.process.signal(Signal::SIGCONT).unwrap();
        self.wait_for_subscribers(2);
        let owed = prefixes.iter().flat_map(|prefix| (0..messages).map(move |n| format!("{prefix}{n}")));
        assert_l0(&mut client_of(&mut self.cluster), &Sent { owed: owed.collect(), ..Sent::default() });
    }
}

/// Row 12: one dispatcher has read less of the channel than the other when Redis dies, and is back first. It stores
/// what it has, but must not continue beyond its break before the other has stored the rest.
fn row_12_redis_killed_when_one_had_heard_more(mode: Mode) {
    let this = Run::in_mode(mode, "row_12_redis_killed_when_one_had_heard_more");
    let messages = this.scale(200, 5_000);
    let mut unequal = Unequal::start(mode);
    unequal.fill_memory();
    unequal.publish("both", messages, 2);
    unequal.cut();
    unequal.publish("more", messages, 1);
    unequal.restart_redis();
    let connection = &mut client_of(&mut unequal.cluster);
    // Before the results are there: it may not have found the consumers yet, and the other is not waited for for long.
    wait_until("the first to store its own", || {
        let (pending, recorded, _) = state(connection);
        (pending + recorded >= messages as usize).then_some(())
    });
    unequal.assert_l0(&["both", "more"], messages);
}

/// Row 12: one dispatcher has missed a part of the channel and is back first. What it received after that part must not
/// be stored before the other has stored the part.
fn row_12_redis_killed_when_one_had_missed_a_stretch(mode: Mode) {
    let this = Run::in_mode(mode, "row_12_redis_killed_when_one_had_missed_a_stretch");
    let messages = this.scale(200, 5_000);
    let mut unequal = Unequal::start(mode);
    unequal.cut();
    unequal.publish("missed", messages, 1);
    wait_until_done(&mut client_of(&mut unequal.cluster), messages as usize);
    unequal.fill_memory();
    unequal.publish("heard-by-one", messages, 1);
    unequal.less.process.signal(Signal::SIGCONT).unwrap();
    unequal.wait_for_subscribers(2);
    unequal.publish("heard-by-both", messages, 2);
    unequal.restart_redis();
    // The length of the outage is part of the fault: half the time that dispatchers wait for each other.
    thread::sleep(Duration::from_secs(1));
    unequal.assert_l0(&["missed", "heard-by-one", "heard-by-both"], messages);
}

/// Row 12: messages that only the standby received and that were not stored when Redis dies are only in its ring.
fn row_12_redis_killed_before_the_intake(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_12_redis_killed_before_the_intake");
    let options = with_redis(configured(true, &[("appendfsync", "no")]), mode.options(0, 3, ""));
    let mut cluster = Cluster::start(options).unwrap();
    let mut dispatchers = ["d0", "d1"].map(|name| Watched::start(&mut cluster, name, &mode.args("")));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    if leader_of(&mut cluster, &dispatchers) == 1 {
        dispatchers.swap(0, 1);
    }
    let [leader, standby] = &mut dispatchers;
    let before = this.random.u64(0..2_000);
    publish(connection, "m", 0..before);
    leader.process.signal(Signal::SIGSTOP).unwrap();
    let end = before + this.random.u64(1..2_000);
    publish(connection, "m", before..end);
    wait_until("the standby to have received all", || (heard(standby)? >= end).then_some(()));
    let pending = state(connection);
    assert!(pending.0 + pending.1 < end as usize, "the leader took everything in, so this shows nothing: {pending:?}");
    cluster.redis().kill().unwrap();
    leader.process.signal(Signal::SIGCONT).unwrap();
    cluster.redis().start_again().unwrap();
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    publish(connection, "m", end..end + 100);
    let sent = Sent { owed: (0..end + 100).map(|n| format!("m{n}")).collect(), ..Sent::default() };
    assert_l0(connection, &sent);
}

/// Notes how long the append-only file is, from time to time.
struct FileSizes {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(Instant, u64)>>,
}

impl FileSizes {
    fn start(file: PathBuf) -> FileSizes {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut sizes = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let at = Instant::now();
                sizes.push((at, fs::metadata(&file).expect("the file is there").len()));
                thread::sleep(Duration::from_millis(5));
            }
            sizes
        });
        FileSizes { stop, thread }
    }

    fn stop(self) -> Vec<(Instant, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the file can be looked at")
    }
}

/// The file that Redis appends to.
fn appended_file(folder: &Path) -> PathBuf {
    // Before Redis 7 there was one file.
    let Ok(parts) = fs::read_dir(folder.join("appendonlydir")) else { return folder.join("appendonly.aof") };
    let parts = parts.map(|part| part.expect("it can be listed").path());
    let appended = parts.filter(|path| path.to_string_lossy().ends_with(".incr.aof"));
    appended.max_by_key(|path| fs::metadata(path).and_then(|file| file.modified()).ok()).expect("there is one")
}

/// Notes the entries of the stream, of which workers may know any. Fails if the id of one that was seen before now has
/// another message, since workers could take it for done.
fn note_entries(mode: Mode, connection: &mut redis::Connection, seen: &mut HashMap<String, String>) {
    if mode != Mode::Stream {
        return;
    }
    let range = redis::cmd("XRANGE").arg(mode.records()).arg("-").arg("+").query(connection);
    let entries: Vec<(String, HashMap<String, String>)> = range.expect("the stream can be read");
    for (id, mut fields) in entries {
        let payload = fields.remove("payload").expect("each has a payload");
        let before = seen.entry(id.clone()).or_insert_with(|| payload.clone());
        assert_eq!(*before, payload, "the message of the entry {id}");
    }
}

/// Row 13: Redis comes back without its last second. The rings still hold the lost intakes, and messages whose results
/// were lost are pending again.
fn row_13_end_of_the_append_only_file_lost(mode: Mode) {
    // Less than the three seconds for which rings keep stored messages.
    const LOST_AT_MOST: Duration = Duration::from_millis(1_500);
    let mut this = Run::in_mode(mode, "row_13");
    let config = configured(true, &[("appendfsync", "no"), ("aof-load-truncated", "yes")]);
    let mut cluster = cluster_of(with_redis(config, mode.options(2, 3, "--lease-ttl-ms 600")));
    wait_until_in_sync(&mut client_of(&mut cluster), 2);
    let load = Load::start(&cluster.redis().url(), "m", 3_000);
    let mut seen = HashMap::new();
    for _ in 0..this.scale(2, 10) {
        load.wait_for_more(this.random.u64(100..2_000));
        let file = appended_file(cluster.redis().folder());
        let sizes = FileSizes::start(file.clone());
        load.wait_for_more(this.random.u64(600..3_000));
        note_entries(mode, &mut client_of(&mut cluster), &mut seen);
        cluster.redis().kill().unwrap();
        let killed = Instant::now();
        let sizes = sizes.stop();
        let whole = fs::metadata(&file).unwrap().len();
        let recent = |(at, size): &&(Instant, u64)| killed.duration_since(*at) <= LOST_AT_MOST && *size < whole;
        let recent: Vec<u64> = sizes.iter().filter(recent).map(|(_, size)| *size).collect();
        // Redis writes whole commands, and truncates a file that ends in the middle of one by itself.
        let torn = this.random.bool();
        let cut = *this.random.choice(&recent).expect("the file grew") - if torn { this.random.u64(1..200) } else { 0 };
        println!("row 13: {} of {whole} bytes lost, {}", whole - cut, if torn { "torn" } else { "whole" });
        fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(cut).unwrap();
        cluster.redis().start_again().unwrap();
        cluster.wait_for_leader(DEADLINE).unwrap();
        let connection = &mut client_of(&mut cluster);
        wait_until_in_sync(connection, 2);
    }
    load.wait_for_more(1_000);
    let sent = load.stop();
    let connection = &mut client_of(&mut cluster);
    assert_l0(connection, &sent);
    note_entries(mode, connection, &mut seen);
}

in_both_modes! {
    row_12_redis_killed_and_restarted,
    row_12_redis_killed_when_one_had_heard_more,
    row_12_redis_killed_when_one_had_missed_a_stretch,
    row_12_redis_killed_before_the_intake,
    row_13_end_of_the_append_only_file_lost,
}

in_mixed_mode! {
    row_12_redis_killed_and_restarted,
}

in_tls_mode! {
    row_12_redis_killed_and_restarted,
}

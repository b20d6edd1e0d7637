//! Rows about Redis itself: it dies, loses data, stalls, forgets scripts, is full, or its answer is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use oncecast::lab::{ChildProcess, Cluster, ClusterOptions, Lease, Node, RedisOptions, Signal};

use crate::dispatchers::Watched;
use crate::proxy::Proxy;
use crate::run::{Run, assert_l0};
use crate::support::load::{Load, Sent};
use crate::support::{
    self, DEADLINE, client_of, cluster_of, options, programs, publish, redis_server, run, state, stream, subscribers,
    wait_for_intake, wait_until, wait_until_done, wait_until_in_sync,
};
use crate::watch::Watch;

const DISPATCHERS: [Node; 2] = [Node::Dispatcher(0), Node::Dispatcher(1)];

fn with_redis(redis: RedisOptions, options: ClusterOptions) -> ClusterOptions {
    ClusterOptions { redis, ..options }
}

fn configured(append_only: bool, config: &[(&str, &str)]) -> RedisOptions {
    let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    RedisOptions { append_only, config, ..RedisOptions::default() }
}

fn witness(cluster: &mut Cluster) -> Watch {
    Watch::start(&format!("127.0.0.1:{}", cluster.redis().port()))
}

/// Waits until a lease of a later epoch stands.
fn next_lease(cluster: &mut Cluster, before: &Lease) -> Lease {
    let next = cluster.wait_for(DEADLINE, "a lease of a later epoch", |_, snapshot| {
        snapshot.lease.clone().filter(|next| next.epoch > before.epoch)
    });
    next.unwrap()
}

/// Row 12: under load. Nothing is lost of what reached a dispatcher, before or after: what Redis had not written yet,
/// their rings hold, and after a restart the one that has heard most leads.
#[test]
fn row_12_redis_killed_and_restarted() {
    let mut this = Run::of("row_12_redis_killed_and_restarted");
    let mut cluster = cluster_of(with_redis(configured(true, &[]), options(2, 3, "--lease-ttl-ms 600", "")));
    wait_until_in_sync(&mut client_of(&mut cluster), 2);
    let load = Load::start(&cluster.redis().url(), "m", 3_000);
    for _ in 0..this.scale(2, 10) {
        load.wait_for_more(this.random.u64(100..4_000));
        cluster.redis().kill().unwrap();
        // How long it is away is part of the fault.
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
    // Nobody can say what was published while no dispatcher was subscribed: that must be told.
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
    fn start() -> Unequal {
        // The longest time that others are waited for, however busy the machine is.
        const ARGS: &str = "--lease-ttl-ms 20000";
        let redis = configured(true, &[("appendfsync", "no")]);
        let mut cluster = Cluster::start(with_redis(redis, options(0, 2, "", ""))).expect("Redis and consumers start");
        let proxy = support::proxy::Proxy::to(&format!("127.0.0.1:{}", cluster.redis().port()));
        let addresses = [0, 1].map(|number| cluster.address(number).to_string());
        let more = Watched::start(&mut cluster, "more", 2, ARGS);
        let command = programs().command("oncecast-dispatcher").expect("the program is built");
        let url = format!("redis://{}", proxy.address);
        let less = Watched::spawn(command, "less", &url, &addresses, "127.0.0.1", ARGS);
        wait_until_in_sync(&mut client_of(&mut cluster), 2);
        Unequal { more, less, proxy, cluster }
    }

    /// From here on nothing is taken in, since that needs memory.
    fn fill_memory(&mut self) {
        let () = run(&mut client_of(&mut self.cluster), &["CONFIG", "SET", "maxmemory", "1"]);
    }

    /// Breaks the connections of the one, and keeps it from making new ones.
    fn cut(&mut self) {
        self.less.process.signal(Signal::SIGSTOP).unwrap();
        self.proxy.cut();
        self.wait_for_subscribers(1);
    }

    fn wait_for_subscribers(&mut self, count: u64) {
        let connection = &mut client_of(&mut self.cluster);
        wait_until(format!("{count} to be subscribed"), || (subscribers(connection) == count).then_some(()));
    }

    /// Publishes messages that so many hear, and waits until they have: what Redis has sent need not have been read.
    fn publish(&mut self, prefix: &str, messages: u64, hear: u64) {
        let seen = |dispatcher: &Watched| dispatcher.figure("oncecast_messages_published_total").expect("it answers");
        let hearing = if hear == 2 { vec![&self.more, &self.less] } else { vec![&self.more] };
        let goals: Vec<u64> = hearing.iter().map(|dispatcher| seen(dispatcher) + messages).collect();
        assert_eq!(publish(&mut client_of(&mut self.cluster), prefix, 0..messages), hear);
        wait_until(format!("{prefix} to be heard"), || {
            hearing.iter().zip(&goals).all(|(dispatcher, goal)| seen(dispatcher) >= *goal).then_some(())
        });
    }

    /// Kills Redis, and has the one that heard less come back alone at first.
    fn restart_redis(&mut self) {
        self.cluster.redis().kill().unwrap();
        self.more.process.signal(Signal::SIGSTOP).unwrap();
        self.cluster.redis().start_again().unwrap();
        self.less.process.signal(Signal::SIGCONT).unwrap();
        self.wait_for_subscribers(1);
    }

    /// Has the other come back, too, and fails unless all of these were processed.
    fn assert_l0(mut self, prefixes: &[&str], messages: u64) {
        self.more.process.signal(Signal::SIGCONT).unwrap();
        self.wait_for_subscribers(2);
        let owed = prefixes.iter().flat_map(|prefix| (0..messages).map(move |n| format!("{prefix}{n}")));
        assert_l0(&mut client_of(&mut self.cluster), &Sent { owed: owed.collect(), ..Sent::default() });
    }
}

/// Row 12: one dispatcher has read less of the channel than the other when Redis dies, and is back first. It takes in what it
/// has, but must not go on over its break before the other has taken in the rest.
#[test]
fn row_12_redis_killed_when_one_had_heard_more() {
    let this = Run::of("row_12_redis_killed_when_one_had_heard_more");
    let messages = this.scale(200, 5_000);
    let mut unequal = Unequal::start();
    unequal.fill_memory();
    unequal.publish("both", messages, 2);
    unequal.cut();
    unequal.publish("more", messages, 1);
    unequal.restart_redis();
    let connection = &mut client_of(&mut unequal.cluster);
    wait_until("the first to take its own in", || (state(connection).1 as u64 >= messages).then_some(()));
    unequal.assert_l0(&["both", "more"], messages);
}

/// Row 12: one dispatcher has missed a stretch of the channel and is back first. What it has heard after that stretch must not
/// be taken in before what the other has heard of it.
#[test]
fn row_12_redis_killed_when_one_had_missed_a_stretch() {
    let this = Run::of("row_12_redis_killed_when_one_had_missed_a_stretch");
    let messages = this.scale(200, 5_000);
    let mut unequal = Unequal::start();
    unequal.cut();
    unequal.publish("missed", messages, 1);
    wait_until_done(&mut client_of(&mut unequal.cluster), messages as usize);
    unequal.fill_memory();
    unequal.publish("heard-by-one", messages, 1);
    unequal.less.process.signal(Signal::SIGCONT).unwrap();
    unequal.wait_for_subscribers(2);
    unequal.publish("heard-by-both", messages, 2);
    unequal.restart_redis();
    // How long it is away is part of the fault: long for one that would not wait, and half the time that it is waited for.
    thread::sleep(Duration::from_secs(1));
    unequal.assert_l0(&["missed", "heard-by-one", "heard-by-both"], messages);
}

/// Row 12: messages that the standby has heard and nobody has taken in when Redis dies are in its ring alone.
#[test]
fn row_12_redis_killed_before_the_intake() {
    let mut this = Run::of("row_12_redis_killed_before_the_intake");
    let options = with_redis(configured(true, &[("appendfsync", "no")]), options(0, 3, "", ""));
    let mut cluster = Cluster::start(options).unwrap();
    let mut dispatchers = ["d0", "d1"].map(|name| Watched::start(&mut cluster, name, 3, ""));
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
    wait_until("the standby to have heard all", || (heard(standby)? >= end).then_some(()));
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

/// Redis has its append-only file written anew.
///
/// Where a file ends in the middle of a transaction's command, Redis forgets the transaction but leaves its beginning in
/// the file, and carries it out when it loads the file a second time (valkey-io/valkey#4342): results would come
/// back that were lost before and have been recorded again since.
fn rewrite_file(connection: &mut redis::Connection) {
    let () = run(connection, &["BGREWRITEAOF"]);
    wait_until("the append-only file to be rewritten", || {
        let info: String = run(connection, &["INFO", "persistence"]);
        let is = |field: &str| info.lines().any(|line| line == field);
        let done = ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0", "aof_last_bgrewrite_status:ok"];
        done.into_iter().all(is).then_some(())
    });
}

/// Row 13: Redis comes back without its last second. What it lost of the intake, the rings still hold; what it lost of
/// the results is pending again.
#[test]
fn row_13_end_of_the_append_only_file_lost() {
    // Less than the three seconds for which rings keep what was taken in.
    const LOST_AT_MOST: Duration = Duration::from_millis(1_500);
    let mut this = Run::of("row_13");
    let config = configured(true, &[("appendfsync", "no"), ("aof-load-truncated", "yes")]);
    let mut cluster = cluster_of(with_redis(config, options(2, 3, "--lease-ttl-ms 600", "")));
    wait_until_in_sync(&mut client_of(&mut cluster), 2);
    let load = Load::start(&cluster.redis().url(), "m", 3_000);
    for _ in 0..this.scale(2, 10) {
        load.wait_for_more(this.random.u64(100..2_000));
        let file = appended_file(cluster.redis().folder());
        let sizes = FileSizes::start(file.clone());
        load.wait_for_more(this.random.u64(600..3_000));
        cluster.redis().kill().unwrap();
        let killed = Instant::now();
        let sizes = sizes.stop();
        let whole = fs::metadata(&file).unwrap().len();
        let recent = |(at, size): &&(Instant, u64)| killed.duration_since(*at) <= LOST_AT_MOST && *size < whole;
        let recent: Vec<u64> = sizes.iter().filter(recent).map(|(_, size)| *size).collect();
        // Redis writes whole commands. A file that ends in the middle of one it cuts back by itself.
        let torn = this.random.bool();
        let cut = *this.random.choice(&recent).expect("the file grew") - if torn { this.random.u64(1..200) } else { 0 };
        println!("row 13: {} of {whole} bytes lost, {}", whole - cut, if torn { "torn" } else { "whole" });
        fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(cut).unwrap();
        cluster.redis().start_again().unwrap();
        cluster.wait_for_leader(DEADLINE).unwrap();
        let connection = &mut client_of(&mut cluster);
        if torn {
            rewrite_file(connection);
        }
        wait_until_in_sync(connection, 2);
    }
    load.wait_for_more(1_000);
    let sent = load.stop();
    let connection = &mut client_of(&mut cluster);
    assert_l0(connection, &sent);
}

/// Row 14: with the data set goes the count of epochs. It must go on above all that were given out, even where those
/// are ahead of the clock: consumers refuse a lower one.
#[test]
fn row_14_data_set_wiped() {
    let mut this = Run::of("row_14");
    let mut cluster = cluster_of(options(2, 3, "--lease-ttl-ms 1000", ""));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let witness = witness(&mut cluster);
    let (_, mut lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    let load = Load::start(&cluster.redis().url(), "m", 2_000);
    load.wait_for_more(200);
    let ahead = lease.epoch.0 + 3_600_000;
    let () = run(connection, &["SET", "messages:epoch", &ahead.to_string()]);
    let mut wiped_before = 0;
    for _ in 0..this.scale(3, 20) {
        lease = next_lease(&mut cluster, &lease);
        assert!(lease.epoch.0 > ahead, "{lease:?}");
        wait_until_in_sync(connection, 2);
        load.wait_for_more(this.random.u64(50..1_000));
        let held = load.hold();
        let () = run(connection, &[*this.random.choice(&["FLUSHALL", "FLUSHDB"]).unwrap()]);
        wiped_before = *held;
    }
    next_lease(&mut cluster, &lease);
    load.wait_for_more(1_000);
    let mut sent = load.stop();
    sent.forgive(&(0..wiped_before));
    assert!(sent.unheard.is_empty());
    assert_l0(connection, &sent);
    witness.finish(connection);
    let epoch: u64 = run(connection, &["GET", "messages:epoch"]);
    println!("row 14: {} owed after the last wipe, epoch {}", sent.owed.len(), epoch - ahead);
}

/// Row 15: the leader steps down by its own clock, and what it had sent before is refused if another leads by then.
#[test]
fn row_15_redis_stalls_longer_than_the_lease() {
    let mut this = Run::of("row_15");
    // Before Redis 7 there was no such setting, and no need for it.
    let old = redis_server().version().unwrap().starts_with("redis 6");
    let redis = if old { configured(false, &[]) } else { configured(false, &[("enable-debug-command", "yes")]) };
    let mut cluster = cluster_of(with_redis(redis, options(2, 3, "--lease-ttl-ms 500", "")));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let witness = witness(&mut cluster);
    let (_, mut lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    let load = Load::start(&cluster.redis().url(), "m", 1_500);
    let mut ways = ["pause", "sleep"].repeat(this.scale(1, 5) as usize);
    this.random.shuffle(&mut ways);
    for way in ways {
        load.wait_for_more(this.random.u64(100..600));
        let seen = DISPATCHERS.map(|member| cluster.process(member).unwrap().stderr().count());
        // Shorter than what makes a listener give its connection up.
        let stall_ms = this.random.u64(1_000..1_800);
        if way == "pause" {
            let () = run(connection, &["CLIENT", "PAUSE", &stall_ms.to_string(), "ALL"]);
        } else {
            let () = run(connection, &["DEBUG", "SLEEP", &format!("{:.3}", stall_ms as f64 / 1e3)]);
        }
        let leader = DISPATCHERS.iter().position(|member| member.to_string() == lease.name()).expect("one leads");
        let log = cluster.process(DISPATCHERS[leader]).unwrap().stderr().clone();
        let ended = log.wait_for_after(seen[leader], "event=term-ended", DEADLINE).expect("the term ends");
        let reasons = ["lease-expired", "lease-lost", "fenced"];
        assert!(reasons.iter().any(|reason| ended.contains(&format!("reason={reason}"))), "{ended}");
        lease = next_lease(&mut cluster, &lease);
    }
    load.wait_for_more(300);
    let sent = load.stop();
    assert!(sent.unheard.is_empty() && sent.uncertain.is_empty(), "both were subscribed all the time");
    assert_l0(connection, &sent);
    let witness = witness.finish(connection);
    println!("row 15: {} writes by {} later epochs, none by two at once", witness.writes, witness.epochs.len());
    assert!(witness.writes > 0 && !witness.epochs.is_empty());
    assert_eq!(stream(connection, "messages:gaps"), []);
}

/// Row 16: Redis forgets its scripts again and again. Whoever calls one loads it, and nothing shows.
#[test]
fn row_16_scripts_gone() {
    let mut this = Run::of("row_16");
    let mut cluster = cluster_of(options(2, 3, "--lease-ttl-ms 6000", ""));
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    let (_, lease) = cluster.wait_for_leader(DEADLINE).unwrap();
    let members = cluster.running();
    let seen: Vec<u64> = members.iter().map(|member| cluster.process(*member).unwrap().stderr().count()).collect();
    let load = Load::start(&cluster.redis().url(), "m", 3_000);
    for _ in 0..this.scale(1_000, 20_000) {
        let () = run(connection, &["SCRIPT", "FLUSH", *this.random.choice(&["SYNC", "ASYNC"]).unwrap()]);
        // The pace of the fault: between the calls of each member, and sometimes within one.
        thread::sleep(Duration::from_micros(this.random.u64(0..4_000)));
    }
    load.wait_for_more(300);
    let sent = load.stop();
    assert!(sent.unheard.is_empty() && sent.uncertain.is_empty());
    assert_l0(connection, &sent);
    assert_eq!(cluster.wait_for_leader(DEADLINE).unwrap().1, lease, "the same leader in the same epoch");
    for (member, seen) in members.into_iter().zip(seen) {
        let log = cluster.process(member).unwrap().stderr();
        for part in ["redis-trouble", "renewal-failed", "NoScript", "term-ended"] {
            let noticed = log.wait_for_after(seen, part, Duration::ZERO);
            assert!(noticed.is_err(), "{member}: {}", noticed.unwrap_or_default());
        }
    }
}

/// Row 17: a full Redis refuses the intake. That shows, what is pending is still recorded, a dead leader is still
/// replaced, and when there is room again it goes on by itself.
#[test]
fn row_17_memory_full() {
    let mut this = Run::of("row_17");
    let mut cluster = Cluster::start(options(0, 2, "", "")).unwrap();
    let connection = &mut client_of(&mut cluster);
    let mut dispatchers: Vec<Watched> =
        ["d0", "d1"].map(|name| Watched::start(&mut cluster, name, 2, "--lease-ttl-ms 1000")).into();
    let consumers = [Node::Consumer(0), Node::Consumer(1)];
    let mut end = 0;
    for _ in 0..this.scale(2, 10) {
        wait_until_in_sync(connection, 2);
        // These are taken in and wait for a consumer.
        consumers.iter().for_each(|consumer| cluster.kill_node(*consumer).unwrap());
        let (begin, pending) = (end, end + this.random.u64(1..2_000));
        publish(connection, "m", begin..pending);
        wait_for_intake(connection);
        let () = run(connection, &["CONFIG", "SET", "maxmemory", "1"]);
        let seen: Vec<u64> = dispatchers.iter().map(|dispatcher| dispatcher.process.stderr().count()).collect();
        let before: Vec<u64> = dispatchers.iter().map(|dispatcher| heard(dispatcher).unwrap()).collect();
        let cursor: String = run(connection, &["GET", "messages:cursor"]);
        end = pending + this.random.u64(1..2_000);
        publish(connection, "m", pending..end);

        let mut leader = leader_of(&mut cluster, &dispatchers);
        let told = |dispatcher: &Watched, seen| {
            let line = dispatcher.process.stderr().wait_for_after(seen, "event=redis-trouble worker=ingest", DEADLINE);
            assert!(line.as_ref().is_ok_and(|line| line.contains("maxmemory")), "{line:?}");
        };
        told(&dispatchers[leader], seen[leader]);
        let taken = taken_in(&dispatchers[leader]);
        wait_until("the figures to show what waits", || {
            (heard(&dispatchers[leader])? >= before[leader] + end - pending).then_some(())
        });
        assert_eq!(taken_in(&dispatchers[leader]), taken);
        if this.random.bool() {
            let name = dispatchers[leader].name().to_owned();
            dispatchers[leader].process.kill().unwrap();
            let other = 1 - leader;
            wait_until("the other to lead in spite of it", || {
                (dispatchers[other].figure("oncecast_leader")? == 1).then_some(())
            });
            told(&dispatchers[other], seen[other]);
            dispatchers[leader] = Watched::start(&mut cluster, &name, 2, "--lease-ttl-ms 1000");
            leader = other;
        }
        consumers.iter().for_each(|consumer| cluster.start_node(*consumer).unwrap());
        wait_until("what is pending to be recorded in spite of it", || {
            (state(connection) == (0, pending as usize, 0)).then_some(())
        });
        assert_eq!(run::<String>(connection, &["GET", "messages:cursor"]), cursor, "nothing more was taken in");
        let seen = dispatchers[leader].process.stderr().count();
        let () = run(connection, &["CONFIG", "SET", "maxmemory", "0"]);
        let recovered = dispatchers[leader].process.stderr().wait_for_after(seen, "redis-recovered", DEADLINE);
        recovered.expect("it says that it goes on");
    }
    let sent = Sent { owed: (0..end).map(|n| format!("m{n}")).collect(), ..Sent::default() };
    assert_l0(connection, &sent);
    assert_eq!(stream(connection, "messages:gaps"), []);
}

fn taken_in(dispatcher: &Watched) -> Option<u64> {
    dispatcher.figure("oncecast_messages_taken_in_total")
}

fn heard(dispatcher: &Watched) -> Option<u64> {
    dispatcher.figure("oncecast_messages_published_total")
}

/// Which of them leads.
fn leader_of(cluster: &mut Cluster, dispatchers: &[Watched]) -> usize {
    let found = cluster.wait_for(DEADLINE, "one of them to lead", |_, snapshot| {
        let lease = snapshot.lease.clone()?;
        dispatchers.iter().position(|dispatcher| dispatcher.name() == lease.name())
    });
    found.unwrap()
}

/// The keys of the script that takes messages in, as they stand in a call.
const INTAKE_KEYS: &[u8] = b"messages:cursor\r\n$16\r\nmessages:pending\r\n$13\r\nmessages:dead\r\n";
/// The end of a transaction; dispatchers take in with it, and consumers record.
const EXEC: &[u8] = b"$4\r\nEXEC\r\n";
/// The keys of the script that records results.
const COMMIT_KEYS: &[u8] = b"messages:pending\r\n$18\r\nmessages:processed\r\n";

/// Row 22: Redis took a batch in and its answer was lost. The same batch is offered again, and is not taken twice; also
/// if the leader dies before it can ask, or the other takes over.
#[test]
fn row_22_reply_to_the_intake_lost() {
    let mut this = Run::of("row_22_reply_to_the_intake_lost");
    let mut cluster = Cluster::start(options(0, 3, "", "")).unwrap();
    let connection = &mut client_of(&mut cluster);
    let address = format!("127.0.0.1:{}", cluster.redis().port());
    let proxy = Proxy::start(&address, [INTAKE_KEYS, EXEC], fastrand::Rng::with_seed(this.random.u64(..)), 5);
    let addresses: Vec<String> = (0..3).map(|number| cluster.address(number).to_string()).collect();
    let behind_the_proxy = |name: &str| {
        let command = programs().command("oncecast-dispatcher").expect("the program is built");
        Watched::spawn(command, name, &proxy.url(), &addresses, "127.0.0.1", "")
    };
    let mut unlucky = behind_the_proxy("unlucky");
    wait_until("it to lead", || (unlucky.figure("oncecast_leader")? == 1).then_some(()));
    let mut other = Watched::start(&mut cluster, "other", 3, "");
    wait_until_in_sync(connection, 2);
    let load = Load::start(&cluster.redis().url(), "m", 2_000);
    for round in 0..this.scale(2, 10) {
        let lost = proxy.lost();
        let enough = lost + this.random.u64(5..20);
        wait_until("replies to be lost", || (proxy.lost() >= enough).then_some(()));
        // As soon as one more was lost, so that nobody knows whether that batch was taken in.
        let before = proxy.lost();
        wait_until("one more to be lost", || (proxy.lost() > before).then_some(()));
        unlucky.process.kill().unwrap();
        wait_until("the other to lead", || (other.figure("oncecast_leader")? == 1).then_some(()));
        unlucky = behind_the_proxy(&format!("unlucky{round}"));
        wait_until_in_sync(connection, 2);
        // And back.
        assert!(other.process.stop(DEADLINE).unwrap().success());
        wait_until("the unlucky one to lead again", || (unlucky.figure("oncecast_leader")? == 1).then_some(()));
        other = Watched::start(&mut cluster, "other", 3, "");
    }
    let sent = load.stop();
    println!("row 22: {} replies to the intake lost", proxy.lost());
    assert_l0(connection, &sent);
    assert_eq!(stream(connection, "messages:gaps"), []);
}

/// Row 22: a consumer's results were recorded and Redis's answer was lost. They are offered again, and not stored twice.
#[test]
fn row_22_reply_to_the_commit_lost() {
    let mut this = Run::of("row_22_reply_to_the_commit_lost");
    let mut cluster = Cluster::start(options(0, 1, "", "")).unwrap();
    let connection = &mut client_of(&mut cluster);
    let address = format!("127.0.0.1:{}", cluster.redis().port());
    let proxy = Proxy::start(&address, [COMMIT_KEYS, EXEC], fastrand::Rng::with_seed(this.random.u64(..)), 5);
    let listen = format!("127.0.0.1:{}", oncecast::lab::ports::free_port().unwrap());
    let mut command = programs().command("oncecast-consumer").expect("the program is built");
    command.args(["--redis-url", &proxy.url(), "--listen", &listen, "--consumer-id", "unlucky"]);
    let consumer = ChildProcess::spawn("unlucky", command).unwrap();
    consumer.wait_for_line("event=listening", DEADLINE).unwrap();
    let command = programs().command("oncecast-dispatcher").expect("the program is built");
    let addresses = [listen, cluster.address(0).to_string()];
    let _dispatcher = Watched::spawn(command, "d0", &cluster.redis().url(), &addresses, "127.0.0.1", "");
    wait_until_in_sync(connection, 1);
    let load = Load::start(&cluster.redis().url(), "m", 2_000);
    let enough = this.random.u64(10..20) * this.scale(1, 20);
    wait_until("replies to be lost", || (proxy.lost() >= enough).then_some(()));
    load.wait_for_more(300);
    let sent = load.stop();
    println!("row 22: {} replies to a commit lost", proxy.lost());
    proxy.heal();
    assert_l0(connection, &sent);
    let by_it =
        stream(connection, "messages:processed").iter().filter(|entry| entry["consumer_id"] == "unlucky").count();
    assert!(by_it > 0, "the one behind the proxy recorded nothing, so this shows nothing");
}

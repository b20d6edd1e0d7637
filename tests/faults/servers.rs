//! Rows about which server, and which of its databases, each connection leads to.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use oncecast::lab::folder::PrivateFolder;
use oncecast::lab::{ChildProcess, Cluster, RedisOptions, RedisServer, ports};

use crate::dispatchers::Watched;
use crate::mode::{Mode, in_both_modes};
use crate::router::{Kind, Router};
use crate::run::{Run, assert_l0, assert_l0_of};
use crate::support::load::{Load, Sent};
use crate::support::{
    DEADLINE, bare_cluster, client, client_of, programs, publish, publish_payloads, redis_server, run, state, stream,
    subscribers, subscription_of, wait_for_intake, wait_for_intake_of, wait_until, wait_until_in_sync,
};
use crate::workers::Workers;

const LEASE_TTL: Duration = Duration::from_millis(1_000);
const ARGS: &str = "--lease-ttl-ms 1000";

fn address_of(server: &RedisServer) -> String {
    format!("127.0.0.1:{}", server.port())
}

fn dispatcher(name: &str, url: &str, addresses: &[String], args: &str) -> Watched {
    let command = programs().command("oncecast-dispatcher").expect("the program is built");
    Watched::spawn(command, name, url, addresses, "127.0.0.1", args)
}

/// The number of terms so far, of all dispatchers together.
fn terms(dispatchers: &[Watched]) -> usize {
    let begun = |one: &Watched| one.process.stderr().all().iter().filter(|line| line.contains("event=elected")).count();
    dispatchers.iter().map(begun).sum()
}

/// The dispatcher that leads, by its lease.
fn leader_of(connection: &mut redis::Connection, group: &str, dispatchers: &[Watched]) -> usize {
    wait_until("one of the dispatchers to lead", || {
        let lease: Option<String> = run(connection, &["GET", &format!("{group}:leader")]);
        let lease = lease?;
        dispatchers.iter().position(|one| lease.starts_with(&format!("{}-", one.name())))
    })
}

/// Row 30: an address now leads to another, empty server. Commands reach it, since their connections were cut. The
/// subscriptions stay at the old server, where nothing is published any more.
fn moved_to_another_server(mode: Mode, row: &str, count: usize) {
    let mut this = Run::in_mode(mode, row);
    let mut cluster = bare_cluster();
    let other = redis_server();
    let router = Router::to(&address_of(cluster.redis()));
    let mut workers = Workers::of(&router.url(), cluster.redis().folder(), mode.consumers(2), 2);
    workers.start_all();
    let args = mode.args(ARGS);
    let start = |number: usize| dispatcher(&format!("d{number}"), &router.url(), &workers.addresses, &args);
    let dispatchers: Vec<Watched> = (0..count).map(start).collect();
    let before = &mut client_of(&mut cluster);
    wait_until_in_sync(before, count as u64);
    let load = Load::start(&cluster.redis().url(), "before", 1_000);
    load.wait_for_more(this.random.u64(200..1_000));
    let earlier = load.stop();
    assert_l0(before, &earlier);

    let begun = terms(&dispatchers);
    [Kind::Commands, Kind::Subscription].into_iter().for_each(|kind| router.route(kind, &address_of(&other)));
    router.cut(Kind::Commands);
    let moved = Instant::now();
    let after = &mut client(&other.url());
    let load = Load::start(&other.url(), "after", this.scale(1_000, 3_000));
    wait_until("all dispatchers to be subscribed where messages are published", || {
        (subscribers(after) == count as u64).then_some(())
    });
    let healed = moved.elapsed();
    wait_until_in_sync(after, count as u64);
    load.wait_for_more(this.random.u64(500..1_000));
    let (begun, took) = (terms(&dispatchers) - begun, moved.elapsed());
    let mut sent = load.stop();
    // For dispatchers still subscribed to the old server, the new one has lost its data: they may store old messages
    // there.
    sent.uncertain.extend(earlier.owed);
    this.say(format_args!(
        "subscribed there after {} ms; {begun} terms in {} ms; {} unheard",
        healed.as_millis(),
        took.as_millis(),
        sent.unheard.len()
    ));
    assert_l0(after, &sent);
    // Each dispatcher may lead once without receiving, and each may have to resign once.
    let most = 2 * count + took.as_secs() as usize;
    assert!(begun <= most, "{begun} terms in {took:?} are a storm; the lease lasts {LEASE_TTL:?}");
    workers.must_run();
}

fn row_30_moved_to_another_server_one_dispatcher(mode: Mode) {
    moved_to_another_server(mode, "row_30_moved_to_another_server_one_dispatcher", 1);
}

fn row_30_moved_to_another_server_two_dispatchers(mode: Mode) {
    moved_to_another_server(mode, "row_30_moved_to_another_server_two_dispatchers", 2);
}

/// A primary and a replica that follows it.
fn pair() -> (RedisServer, RedisServer) {
    let configured = |config: &[(&str, &str)]| {
        let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        RedisServer::start(RedisOptions { config, ..RedisOptions::default() }).expect("a private Redis starts")
    };
    let primary = configured(&[("repl-diskless-sync-delay", "0")]);
    let replica = configured(&[("replicaof", &format!("127.0.0.1 {}", primary.port()))]);
    wait_until("the replica to follow", || has(&mut client(&replica.url()), "master_link_status:up"));
    (primary, replica)
}

/// Whether a server's INFO replication contains this.
fn has(connection: &mut redis::Connection, line: &str) -> Option<()> {
    let info: String = run(connection, &["INFO", "replication"]);
    info.lines().any(|said| said == line).then_some(())
}

/// Row 30: commands go to a primary, subscriptions to its replica, which forwards what is published on the primary. So
/// the server with the lease counts no subscribers.
fn row_30_subscribed_at_a_replica(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_30_subscribed_at_a_replica");
    let (primary, replica) = pair();
    let (connection, hearing) = (&mut client(&primary.url()), &mut client(&replica.url()));
    let router = Router::to(&address_of(&primary));
    router.route(Kind::Subscription, &address_of(&replica));
    let mut workers = Workers::of(&primary.url(), primary.folder(), mode.consumers(2), 2);
    workers.start_all();
    let args = mode.args("--lease-ttl-ms 1500");
    let start = |name: &str| dispatcher(name, &router.url(), &workers.addresses, &args);
    let mut dispatchers: Vec<Watched> = ["d0", "d1"].map(start).into();
    wait_until("both to be subscribed", || (subscribers(hearing) == 2).then_some(()));
    wait_for_intake(connection);

    let load = Load::start(&primary.url(), "m", 1_000);
    // The first term may have begun before its dispatcher knew its position.
    let begun = terms(&dispatchers);
    load.wait_for_more(4_000);
    let storm = terms(&dispatchers) - begun;
    assert!(storm <= 2, "{storm} terms within some seconds, although nothing happened");
    for round in 0..this.scale(1, 10) {
        let leader = leader_of(connection, "messages", &dispatchers);
        let lease: String = run(connection, &["GET", "messages:leader"]);
        load.wait_for_more(this.random.u64(100..500));
        dispatchers[leader].process.kill().unwrap();
        let killed = Instant::now();
        wait_until("the other to lead", || {
            let now: Option<String> = run(connection, &["GET", "messages:leader"]);
            (now? != lease).then_some(())
        });
        this.say(format_args!("the next leader came {} ms after the kill", killed.elapsed().as_millis()));
        dispatchers[leader] = start(&format!("d{}", round + 2));
        wait_until("both to be subscribed", || (subscribers(hearing) == 2).then_some(()));
        wait_for_intake(connection);
    }
    let mut sent = load.stop();
    // The primary does not count the subscribers of the replica.
    sent.owed.append(&mut sent.unheard);
    assert_l0(connection, &sent);
    workers.must_run();
}

/// Row 30: primary and replica swap roles, and no connection is cut. The old primary refuses writes, so commands move
/// to the new one. The subscriptions stay.
fn row_30_failover_that_cuts_nothing(mode: Mode) {
    let mut this = Run::in_mode(mode, "row_30_failover_that_cuts_nothing");
    let (old, new) = pair();
    let (before, after) = (&mut client(&old.url()), &mut client(&new.url()));
    let router = Router::to(&address_of(&old));
    let mut workers = Workers::of(&router.url(), old.folder(), mode.consumers(2), 2);
    workers.start_all();
    let args = mode.args(ARGS);
    let dispatchers: Vec<Watched> =
        ["d0", "d1"].map(|name| dispatcher(name, &router.url(), &workers.addresses, &args)).into();
    wait_until_in_sync(before, 2);
    let load = Load::start(&old.url(), "before", 1_000);
    load.wait_for_more(this.random.u64(200..1_000));
    let earlier = load.stop();
    assert_l0(before, &earlier);

    let begun = terms(&dispatchers);
    let moved = Instant::now();
    [Kind::Commands, Kind::Subscription].into_iter().for_each(|kind| router.route(kind, &address_of(&new)));
    let () = run(before, &["FAILOVER"]);
    wait_until("the replica to be the primary", || has(after, "role:master"));
    wait_until("the primary to follow it", || has(before, "master_link_status:up"));
    let load = Load::start(&new.url(), "after", this.scale(1_000, 3_000));
    wait_for_intake(after);
    load.wait_for_more(this.random.u64(2_000..3_000));
    let (begun, took) = (terms(&dispatchers) - begun, moved.elapsed());
    let sent = load.stop();
    this.say(format_args!(
        "{begun} terms in {} ms; {} unheard at the new primary",
        took.as_millis(),
        sent.unheard.len()
    ));
    let most = 4 + took.as_secs() as usize;
    assert!(begun <= most, "{begun} terms in {took:?} are a storm");
    // From here on a dispatcher receives every message, whichever server it is published on.
    wait_for_intake(after);
    publish(after, "last", 0..300);
    let mut all = sent;
    all.owed.extend(earlier.owed);
    all.owed.extend((0..300).map(|n| format!("last{n}")));
    assert_l0(after, &all);
    workers.must_run();
}

/// Row 31: one of two consumers records its results in another place.
fn consumer_elsewhere(row: &'static str, elsewhere: impl FnOnce(&RedisServer) -> String) {
    let mut this = Run::of(row);
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let apart = PrivateFolder::create("worker").expect("a folder");
    let mut workers = Workers::new(&mut cluster, 1, 2);
    workers.start(0);
    // Only one of its two dispatchers runs, since names must differ.
    let mut wrong = Workers::of(&elsewhere(cluster.redis()), apart.path(), 2, 2);
    wrong.start(1);
    let addresses = [workers.addresses[0].clone(), wrong.addresses[1].clone()];
    let url = cluster.redis().url();
    let dispatchers = ["d0", "d1"].map(|name| dispatcher(name, &url, &addresses, ARGS));
    wait_until_in_sync(connection, 2);
    let load = Load::start(&url, "m", this.scale(1_000, 3_000));
    load.wait_for_more(this.random.u64(1_000..2_000));
    let sent = load.stop();
    assert!(sent.uncertain.is_empty() && sent.unheard.is_empty());
    // A message delivered to the wrong consumer would be pending for ever.
    let runs = wrong.runs();
    assert!(runs.is_empty(), "{} messages were run for nothing", runs.len());
    assert_l0(connection, &sent);
    let is_told =
        |line: &String| line.contains("messages:epoch") && (line.contains("w1") || line.contains(&wrong.addresses[1]));
    wait_until("the leader to log what the consumer has found, and in which key", || {
        dispatchers.iter().any(|one| one.process.stderr().all().iter().any(is_told)).then_some(())
    });
    wrong.must_run();
}

#[test]
fn row_31_consumer_in_another_database() {
    consumer_elsewhere("row_31_consumer_in_another_database", |server| format!("{}/5", server.url()));
}

#[test]
fn row_31_consumer_at_another_server() {
    let other = redis_server();
    consumer_elsewhere("row_31_consumer_at_another_server", |_| other.url());
}

/// One of two groups that listen to one channel of one server.
struct Group {
    name: &'static str,
    mode: Mode,
    dispatchers: Vec<Watched>,
    /// None with a stream.
    consumer: Option<ChildProcess>,
    addresses: Vec<String>,
    url: String,
    connection: redis::Connection,
}

impl Group {
    fn start(mode: Mode, cluster: &mut Cluster, name: &'static str, database: u8, members: [&str; 2]) -> Group {
        let url = format!("{}/{database}", cluster.redis().url());
        let mut addresses = Vec::new();
        let consumer = (mode == Mode::Consumers).then(|| {
            let listen = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
            let mut command = programs().command("oncecast-consumer").expect("the program is built");
            command.args(["--redis-url", &url, "--group", name, "--listen", &listen, "--consumer-id", "c0"]);
            let consumer = ChildProcess::spawn("c0", command).expect("the consumer starts");
            consumer.wait_for_line("event=listening", DEADLINE).expect("it listens");
            addresses.push(listen);
            consumer
        });
        let connection = client(&url);
        let mut group = Group { name, mode, dispatchers: Vec::new(), consumer, addresses, url, connection };
        group.dispatchers = members.map(|member| group.dispatcher(member)).into();
        wait_for_intake_of(name, &mut group.connection);
        group
    }

    fn dispatcher(&self, member: &str) -> Watched {
        // Only the end of the lease or a cut connection lets another dispatcher lead.
        let args = self.mode.args(&format!("--group {} --lease-ttl-ms 5000", self.name));
        dispatcher(member, &self.url, &self.addresses, &args)
    }

    fn epoch(&mut self) -> String {
        run(&mut self.connection, &["GET", &format!("{}:epoch", self.name)])
    }

    /// The names of the dispatchers that `oncecast status` shows.
    fn shown(&self) -> Vec<String> {
        let mut command = programs().command("oncecast").expect("the program is built");
        command.args(["status", "--json", "--redis-url", &self.url, "--group", self.name]);
        let output = command.output().expect("it runs");
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let members = status["dispatchers"].as_array().expect("a list").iter();
        let mut names: Vec<String> =
            members.map(|one| one["name"].as_str().expect("each has a name").to_owned()).collect();
        names.sort();
        names
    }
}

/// Row 32: faults in one of two groups do not affect the other.
fn side_by_side(mode: Mode, row: &str, troubled: (&'static str, u8), quiet: (&'static str, u8)) {
    let mut this = Run::in_mode(mode, row);
    let mut cluster = bare_cluster();
    let mut quiet = Group::start(mode, &mut cluster, quiet.0, quiet.1, ["e0", "e1"]);
    let mut troubled = Group::start(mode, &mut cluster, troubled.0, troubled.1, ["d0", "d1"]);
    let admin = &mut client_of(&mut cluster);
    let all_subscribed = |admin: &mut redis::Connection| {
        wait_until("all to be subscribed", || (subscribers(admin) == 4).then_some(()));
    };
    all_subscribed(admin);
    let epoch = quiet.epoch();
    let load = Load::start(&cluster.redis().url(), "m", 1_000);
    let mut members = BTreeMap::from([("e", vec!["e0".to_owned(), "e1".to_owned()])]);
    for round in 0..this.scale(2, 10) {
        wait_for_intake_of(troubled.name, &mut troubled.connection);
        load.wait_for_more(this.random.u64(100..400));
        let leader = leader_of(&mut troubled.connection, troubled.name, &troubled.dispatchers);
        let id = subscription_of(admin, troubled.dispatchers[leader].process.pid());
        assert_eq!(run::<usize>(admin, &["CLIENT", "KILL", "ID", &id]), 1);
        all_subscribed(admin);
        wait_for_intake_of(troubled.name, &mut troubled.connection);
        load.wait_for_more(this.random.u64(100..400));
        let leader = leader_of(&mut troubled.connection, troubled.name, &troubled.dispatchers);
        troubled.dispatchers[leader].process.kill().unwrap();
        let name = format!("d{}", round + 2);
        troubled.dispatchers[leader] = troubled.dispatcher(&name);
        all_subscribed(admin);
    }
    let mut names: Vec<String> = troubled.dispatchers.iter().map(|one| one.name().to_owned()).collect();
    names.sort();
    members.insert("d", names);
    load.wait_for_more(300);
    let sent = load.stop();
    assert!(sent.uncertain.is_empty() && sent.unheard.is_empty());
    for group in [&mut quiet, &mut troubled] {
        assert_l0_of(group.name, &mut group.connection, &sent);
        group.consumer.iter_mut().for_each(|consumer| consumer.must_run().unwrap());
        assert_eq!(stream(&mut group.connection, &format!("{}:gaps", group.name)), [], "one in sync was there");
    }
    assert_eq!(quiet.epoch(), epoch, "the other group's leader leads on in its epoch");
    assert_eq!(quiet.shown(), members["e"], "its own dispatchers and no others");
    // A killed dispatcher may still be shown until its report expires.
    wait_until("the group's own dispatchers alone to be shown", || (troubled.shown() == members["d"]).then_some(()));

    // All its subscriptions at once: the eldest dispatcher of this group continues, and waits for none of the other
    // group.
    let ids: Vec<String> = troubled.dispatchers.iter().map(|one| subscription_of(admin, one.process.pid())).collect();
    for id in &ids {
        assert_eq!(run::<usize>(admin, &["CLIENT", "KILL", "ID", id]), 1);
    }
    all_subscribed(admin);
    wait_for_intake_of(troubled.name, &mut troubled.connection);
    publish(admin, "last", 0..200);
    let mut owed = sent;
    owed.owed.extend((0..200).map(|n| format!("last{n}")));
    for group in [&mut quiet, &mut troubled] {
        assert_l0_of(group.name, &mut group.connection, &owed);
    }
    assert_eq!(quiet.epoch(), epoch);
}

fn row_32_one_name_in_two_databases(mode: Mode) {
    side_by_side(mode, "row_32_one_name_in_two_databases", ("messages", 3), ("messages", 4));
}

fn row_32_a_name_that_begins_with_the_other(mode: Mode) {
    side_by_side(mode, "row_32_a_name_that_begins_with_the_other", ("messages", 0), ("messages:alive", 0));
}

/// Row 30: subscriptions that are slower than the load are behind, not at another server. Redis buffers the rest, which
/// would be lost if they subscribed again.
fn row_30_subscriptions_that_lag(mode: Mode) {
    /// The rate of a subscription.
    const BYTES_PER_S: u64 = 1_000_000;
    /// How far the subscriptions are behind: longer than markers may stay unheard.
    const LAG_S: u64 = 6;
    let this = Run::in_mode(mode, "row_30_subscriptions_that_lag");
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let router = Router::to(&address_of(cluster.redis()));
    let mut workers = Workers::new(&mut cluster, mode.consumers(1), 2);
    workers.start_all();
    let args = mode.args(ARGS);
    let dispatchers = ["d0", "d1"].map(|name| dispatcher(name, &router.url(), &workers.addresses, &args));
    wait_until_in_sync(connection, 2);
    router.slow_subscriptions_down(BYTES_PER_S);
    let payload = |n| format!("{{\"message_id\":\"m{n}\",\"pad\":\"{}\"}}", "x".repeat(1_000));
    let messages = this.scale(LAG_S, 2 * LAG_S) * BYTES_PER_S / 1_000;
    for begin in (0..messages).step_by(100) {
        let receivers = publish_payloads(connection, (begin..begin + 100).map(payload));
        assert_eq!(receivers, 2, "both are subscribed");
    }
    let owed: Vec<String> = (0..messages).map(|n| format!("m{n}")).collect();
    wait_until("all to be done", || (state(connection).1 >= owed.len()).then_some(()));
    assert_l0(connection, &Sent { owed, ..Sent::default() });
    assert_eq!(stream(connection, "messages:gaps"), []);
    for mut one in dispatchers {
        // Once it has ended, its whole log has been read.
        one.process.kill().unwrap();
        let log = one.process.stderr().all();
        assert_eq!(log.iter().find(|line| line.contains("event=not-receiving")), None);
    }
}

in_both_modes! {
    row_30_moved_to_another_server_one_dispatcher,
    row_30_moved_to_another_server_two_dispatchers,
    row_30_subscribed_at_a_replica,
    row_30_failover_that_cuts_nothing,
    row_32_one_name_in_two_databases,
    row_32_a_name_that_begins_with_the_other,
    row_30_subscriptions_that_lag,
}

//! A group that is paused, or limited, while it runs: what goes out to consumers, and when.

use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use oncecast::lab::{ChildProcess, Cluster};
use oncecast::wire::Frame;
use oncecast::{Consumer, Delivery, Outcome};
use parking_lot::Mutex;
use serde_json::Value;

use crate::support::peer::{Heard, Peer};
use crate::support::scripted_group::{Scripted, wait_until_listed};
use crate::support::{
    DEADLINE, RunningConsumer, assert_each_once, bare_cluster, client_of, dispatcher, most_resident_bytes, programs,
    publish_payloads, run, state, status, subscribers, wait_for_intake, wait_until, wait_until_done,
    wait_until_in_sync,
};

/// What the handlers of a group have seen.
#[derive(Default)]
struct Seen {
    /// When each run began.
    begun: Mutex<Vec<Instant>>,
    /// Runs that have begun and not ended, and the most that ever were.
    running: AtomicUsize,
    most: AtomicUsize,
    /// Handlers wait while this is set.
    is_closed: AtomicBool,
}

impl Seen {
    fn count(&self) -> usize {
        self.begun.lock().len()
    }

    fn handle(&self, delivery: &Delivery<'_>, time: Duration) -> Outcome {
        self.begun.lock().push(Instant::now());
        let running = 1 + self.running.fetch_add(1, Ordering::SeqCst);
        self.most.fetch_max(running, Ordering::SeqCst);
        thread::sleep(time);
        while self.is_closed.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
        let name: Vec<u8> = delivery.payload().iter().copied().take(64).collect();
        Outcome::new().field("message_id", name)
    }
}

/// A server, consumers in this process, and dispatchers. Fields are in the order in which they must be dropped.
struct Group {
    dispatchers: Vec<ChildProcess>,
    consumers: Vec<RunningConsumer>,
    seen: Arc<Seen>,
    args: String,
    cluster: Cluster,
}

impl Group {
    fn start(dispatchers: usize, consumers: usize, args: &str, handler_time: Duration) -> (Group, redis::Connection) {
        let mut cluster = bare_cluster();
        let seen = Arc::new(Seen::default());
        let url = cluster.redis().url();
        let consumer = |number: usize| {
            let seen = seen.clone();
            let builder = Consumer::builder().redis_url(&url).listen("127.0.0.1:0").consumer_id(format!("c{number}"));
            let handler = move |delivery: &Delivery<'_>| Ok(seen.handle(delivery, handler_time));
            RunningConsumer::start(builder.concurrency(4).prefetch(32).handler(handler))
        };
        let consumers: Vec<RunningConsumer> = (0..consumers).map(consumer).collect();
        let mut connection = client_of(&mut cluster);
        let mut group = Group { dispatchers: Vec::new(), consumers, seen, args: args.to_owned(), cluster };
        (0..dispatchers).for_each(|number| group.start_dispatcher(&format!("d{number}")));
        wait_until_in_sync(&mut connection, dispatchers as u64);
        group.wait_for_links(&mut connection);
        (group, connection)
    }

    fn start_dispatcher(&mut self, name: &str) {
        let addresses: Vec<String> = self.consumers.iter().map(|consumer| consumer.address.to_string()).collect();
        self.dispatchers.push(dispatcher(&self.cluster, name, &addresses, &self.args));
    }

    fn wait_for_links(&self, connection: &mut redis::Connection) {
        wait_until("the consumers to be linked", || {
            let linked: Vec<String> = run(connection, &["LRANGE", "messages:consumers", "0", "-1"]);
            (linked.len() == self.consumers.len()).then_some(())
        });
    }

    /// Runs a subcommand of the tool. Fails unless it ends with 0, having seen the leader keep to it.
    fn tool(&self, arguments: &[&str]) -> Value {
        let Output { status, stdout, stderr } = output(&self.cluster, &[arguments, &["--json"]].concat());
        let text = String::from_utf8_lossy(&stdout).into_owned();
        assert!(status.success(), "{arguments:?}: {status} {text} {}", String::from_utf8_lossy(&stderr));
        let told: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(told["confirmed"], true, "{arguments:?}: {told}");
        told
    }

    fn kill_leader(&mut self, connection: &mut redis::Connection) {
        let lease: String = run(connection, &["GET", "messages:leader"]);
        let leads = |dispatcher: &ChildProcess| lease.starts_with(&format!("{}-", dispatcher.name()));
        let leader = self.dispatchers.iter().position(leads).expect("one of them leads");
        self.dispatchers.remove(leader).kill().expect("it is ours");
        wait_until("another leader", || {
            let now: Option<String> = run(connection, &["GET", "messages:leader"]);
            now.filter(|now| *now != lease).map(drop)
        });
    }
}

fn output(cluster: &Cluster, arguments: &[&str]) -> Output {
    let mut command = programs().command("oncecast").expect("the program is built");
    command.args(arguments).args(["--redis-url", &cluster.redis_url()]).stdin(Stdio::null());
    command.output().expect("it runs")
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n}")).collect()
}

#[test]
fn while_a_group_is_paused_its_messages_are_stored_and_not_delivered() {
    let (group, mut connection) = Group::start(1, 2, "", Duration::ZERO);
    let connection = &mut connection;
    group.seen.is_closed.store(true, Ordering::SeqCst);
    let before = names("before", 5);
    publish_payloads(connection, &before);
    wait_until("all to be at work", || (group.seen.count() == 5).then_some(()));
    let told = group.tool(&["pause", "--by", "the test"]);
    assert_eq!((&told["in_flight"], &told["paused"]["by"]), (&5.into(), &"the test".into()), "{told}");
    let meanwhile = names("meanwhile", 200);
    publish_payloads(connection, &meanwhile);
    wait_for_intake(connection);
    assert_eq!(state(connection), (205, 0, 0), "they are stored");
    // What consumers have is finished.
    group.seen.is_closed.store(false, Ordering::SeqCst);
    wait_until("what was in flight to be recorded", || (state(connection) == (200, 5, 0)).then_some(()));
    let (shown, code) = status(&group.cluster.redis_url());
    assert!(shown.contains("PAUSED since ") && shown.contains("until oncecast resume, by \"the test\""), "{shown}");
    assert_eq!(code, 0, "a pause is intended: {shown}");
    assert_eq!(group.seen.count(), 5, "nothing else was handed out");
    let told = group.tool(&["resume"]);
    assert_eq!(told["paused"], Value::Null);
    wait_until_done(connection, 205);
    assert_each_once(connection, &[before, meanwhile].concat());
    assert_eq!(group.seen.count(), 205, "each was delivered once");
    let keys: u64 = run(connection, &["EXISTS", "messages:settings"]);
    assert_eq!(keys, 0);
}

#[test]
fn a_long_pause_takes_no_memory_of_the_leader() {
    const MESSAGES: usize = 300;
    // The smallest values allowed.
    let limits = "--ready-bytes 16777216 --ring-bytes 33554432";
    let (group, mut connection) = Group::start(1, 2, limits, Duration::ZERO);
    let connection = &mut connection;
    group.tool(&["pause"]);
    let all: Vec<String> = (0..MESSAGES).map(|n| format!("{n:03}{}", "x".repeat(512 << 10))).collect();
    for chunk in all.chunks(30) {
        publish_payloads(connection, chunk);
        wait_for_intake(connection);
    }
    assert_eq!(state(connection), (MESSAGES, 0, 0));
    let most = most_resident_bytes(group.dispatchers[0].pid());
    assert!(most < 130 << 20, "the dispatcher took {most} bytes of memory for {MESSAGES} messages of 512 KiB");
    group.tool(&["resume"]);
    wait_until_done(connection, MESSAGES);
    assert_eq!(group.seen.count(), MESSAGES);
}

#[test]
fn a_pause_outlasts_its_leader_and_a_restart_of_all() {
    let (mut group, mut connection) = Group::start(2, 2, "--lease-ttl-ms 600", Duration::ZERO);
    let connection = &mut connection;
    group.tool(&["pause"]);
    publish_payloads(connection, names("a", 50));
    wait_for_intake(connection);
    group.kill_leader(connection);
    publish_payloads(connection, names("b", 50));
    wait_for_intake(connection);
    group.dispatchers.clear();
    wait_until("no dispatcher to be left", || (subscribers(connection) == 0).then_some(()));
    ["d2", "d3"].iter().for_each(|name| group.start_dispatcher(name));
    wait_until_in_sync(connection, 2);
    group.wait_for_links(connection);
    publish_payloads(connection, names("c", 50));
    wait_for_intake(connection);
    // It reports what it keeps to.
    assert_eq!(group.tool(&["set"])["paused"]["until_ms"], Value::Null);
    assert_eq!((state(connection), group.seen.count()), ((150, 0, 0), 0));
    group.tool(&["resume"]);
    wait_until_done(connection, 150);
    assert_each_once(connection, &[names("a", 50), names("b", 50), names("c", 50)].concat());
}

#[test]
fn a_pause_ends_by_itself_also_under_another_leader() {
    let (mut group, mut connection) = Group::start(2, 1, "--lease-ttl-ms 600", Duration::ZERO);
    let connection = &mut connection;
    for kills in [false, true] {
        let seen = group.seen.count();
        let before = Instant::now();
        const PAUSE: Duration = Duration::from_millis(2_500);
        let told = group.tool(&["pause", "--for", "2.5s"]);
        assert!(told["paused"]["until_ms"].as_u64() > told["paused"]["since_ms"].as_u64(), "{told}");
        publish_payloads(connection, names(if kills { "b" } else { "a" }, 20));
        if kills {
            group.kill_leader(connection);
        }
        wait_until_done(connection, seen + 20);
        let first = group.seen.begun.lock()[seen];
        assert!(first >= before + PAUSE, "{:?} after it began", first - before);
        wait_until("the leader to show that it is over", || {
            let shown = group.tool(&["set"]);
            (shown["delivery"]["paused"] == Value::Null).then_some(())
        });
    }
    assert_eq!(group.seen.count(), 40);
}

#[test]
fn the_rate_is_kept_and_may_change() {
    let (group, mut connection) = Group::start(1, 2, "--rate 50/s", Duration::ZERO);
    let connection = &mut connection;
    let most = |per_s: f64, time: Duration| 1.0 + per_s * (0.1 + time.as_secs_f64());
    let all = names("a", 600);
    publish_payloads(connection, &all);
    wait_until("a part to be delivered", || (group.seen.count() >= 100).then_some(()));
    let begun = group.seen.begun.lock().clone();
    // Allows for what waits between dispatcher and handler: the first may be late, and then the others seem early.
    const LATE: Duration = Duration::from_millis(300);
    assert!(begun.len() as f64 <= most(50.0, begun[begun.len() - 1] - begun[0] + LATE), "{}", begun.len());
    let told = group.tool(&["set", "--rate", "6000/m"]);
    assert_eq!((&told["delivery"]["rate"], &told["delivery"]["rate_of"]), (&"6000/m".into(), &"group".into()));
    let (first, at) = (group.seen.count(), Instant::now());
    wait_until("more to be delivered", || (group.seen.count() >= first + 200).then_some(()));
    let (count, time) = (group.seen.count() - first, at.elapsed());
    assert!(count as f64 <= most(100.0, time + LATE), "{count} in {time:?}");
    let (shown, _) = status(&group.cluster.redis_url());
    assert!(shown.contains("at most 6000/m (by oncecast set)"), "{shown}");
    // Sixteen seconds at its own rate.
    group.tool(&["set", "--rate", "100000/s"]);
    wait_until_done(connection, 600);
    assert_each_once(connection, &all);
    let told = group.tool(&["set", "--rate", "default"]);
    assert_eq!((&told["delivery"]["rate"], &told["rate"]), (&"50/s".into(), &Value::Null), "{told}");
}

#[test]
fn no_more_are_in_flight_than_allowed() {
    let (mut group, mut connection) = Group::start(2, 3, "--lease-ttl-ms 600", Duration::from_millis(3));
    let connection = &mut connection;
    group.tool(&["set", "--max-in-flight", "1"]);
    let first = names("a", 100);
    publish_payloads(connection, &first);
    wait_until_done(connection, 100);
    assert_eq!(group.seen.most.load(Ordering::SeqCst), 1, "never two handlers at once");
    // What a consumer holds from an earlier leader counts as well.
    group.seen.is_closed.store(true, Ordering::SeqCst);
    let second = names("b", 100);
    publish_payloads(connection, &second);
    wait_until("one to be at work", || (group.seen.count() == 101).then_some(()));
    group.kill_leader(connection);
    group.wait_for_links(connection);
    wait_until("the new leader to show what its consumers hold", || {
        let told = group.tool(&["set"]);
        (told["in_flight"] == 1).then_some(())
    });
    assert_eq!((group.seen.count(), group.seen.most.load(Ordering::SeqCst)), (101, 1));
    // Changed while it runs.
    group.tool(&["set", "--max-in-flight", "5"]);
    wait_until("five to be at work", || (group.seen.running.load(Ordering::SeqCst) == 5).then_some(()));
    let told = group.tool(&["set"]);
    assert_eq!((&told["in_flight"], &told["max_in_flight"]), (&5.into(), &5.into()), "{told}");
    group.seen.is_closed.store(false, Ordering::SeqCst);
    wait_until_done(connection, 200);
    assert_eq!(group.seen.most.load(Ordering::SeqCst), 5);
    group.tool(&["set", "--max-in-flight", "default"]);
    assert_each_once(connection, &[first, second].concat());
}

#[test]
fn a_message_that_its_consumer_has_lost_does_not_stop_a_limited_group() {
    let (swallower, good) = (Peer::bind("swallower"), Peer::bind("good"));
    let mut group = Scripted::start(&[&swallower, &good], "--link-timeout-ms 1000 --max-in-flight 1");
    let (mut swallowing, mut working) = (swallower.accept(2), good.accept(2));
    let connection = &mut group.client();
    wait_until_listed(connection, &["good", "swallower"]);
    publish_payloads(connection, names("m", 4));
    wait_until("all to be done", || {
        // It answers the dispatcher's pings.
        swallowing.next_within(Duration::from_millis(1));
        while let Some(Heard::Process { id, .. }) = working.next_within(Duration::from_millis(5)) {
            working.send(&[Frame::Ack(vec![id])]);
        }
        (state(connection).0 == 0).then_some(())
    });
    let line = group.dispatcher.wait_for_line("event=overdue consumer=swallower", DEADLINE);
    line.expect("it was given one");
}

#[test]
fn what_can_not_be_done_is_said() {
    let cluster = bare_cluster();
    let told = |arguments: &[&str]| {
        let Output { status, stdout, stderr } = output(&cluster, arguments);
        let text = [String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)].concat();
        (status.code().expect("it ends by itself"), text)
    };
    let (code, text) = told(&["pause", "--for", "1h"]);
    assert!(code == 0 && text.contains("PAUSED since") && text.contains("no leader: the next one"), "{text}");
    let (code, text) = told(&["set"]);
    assert!(code == 0 && text.contains("max in flight: as the leader's own"), "{text}");
    for (arguments, part) in [
        (&["pause", "--for", "soon"][..], "10m"),
        (&["pause", "--by", ""], "128 bytes"),
        (&["set", "--max-in-flight", "0"], "whole number from 1"),
        (&["set", "--rate", "5"], "5/m"),
    ] {
        let (code, text) = told(arguments);
        assert!(code == 2 && text.contains(part), "{arguments:?}: {text}");
    }
    let _dispatcher = dispatcher(&cluster, "d0", &[], "--deliver stream");
    let stream = wait_until("the leader to report", || {
        let (code, text) = told(&["pause"]);
        (code == 1).then_some(text)
    });
    assert!(stream.contains("messages:messages") && stream.contains("stop the workers"), "{stream}");
    let (code, text) = told(&["set", "--rate", "5/s"]);
    assert!(code == 1 && text.contains("nothing was changed"), "{text}");
}

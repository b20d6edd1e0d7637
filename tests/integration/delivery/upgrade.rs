//! The release before patterns (commit 40c41be) and this one in one group.
//!
//! The fixtures are what that release's programs left in Redis and sent over the link, byte for byte. Only times,
//! which epochs and ids are, were moved back to 2023, since what is more than a day ahead of the clock is ignored.
//! `scripts/upgrade-check.sh` does the same with the real programs under load.

use oncecast::lab::{ChildProcess, Cluster, Signal};
use oncecast::{Consumer, Delivery, Outcome};
use serde_json::Value;
use tungstenite::Message;

use crate::support::peer::{Line, Peer};
use crate::support::scripted_dispatcher::ScriptedDispatcher;
use crate::support::{
    CHANNEL, DEADLINE, RunningConsumer, bare_cluster, client, client_of, dispatcher, run, state, status, stream,
    wait_until,
};

/// Its leader was killed right after it had stored two messages; the first was to be delivered again.
const EPOCH: &str = "1700000080184";
const LEASE: &str = "old-163b61 1700000080184";
const CURSOR: &str = "1700000080184.4 1 1700000083018778";
const RECALL: &str = "1700000080184 87e0fa32651366add68d79f58dfbd29e88f8bf7c 0";
const ATTEMPTS: (&str, &str) = ("1700000080663304", "2");
const MEMBERS: [(u64, &[u8]); 3] = [
    (1_700_000_080_663_304, b"00060a241ced1308:{\"message_id\":\"m-1\"}"),
    (1_700_000_083_018_323, b"00060a241d110253:12@3:abc"),
    (1_700_000_083_018_778, b"00060a241d11041a:\x00\xff:bytes"),
];
const REPORT: &str = concat!(
    r#"{"version":"0.1.0","channel":"messages:published","leads":true,"epoch":1700000080184,"in_sync":true,"#,
    r#""trouble":null,"uptime_s":3.002554501,"ring_bytes":84,"oldest":1700000080663304,"ready":0,"#,
    r#""behind":false,"delayed":1,"full":false,"recent_deaths":0,"rates":{"published":0.0,"taken_in":0.0,"#,
    r#""dispatched":0.0,"acked":0.0,"redelivered":0.0},"missing":[],"agreement":"0942a97e91f4639e","#,
    r#""consumers":[{"id":"old-consumer","address":"127.0.0.1:7791","draining":false,"in_flight":0,"#,
    r#""overdue":0,"prefetch":1024,"acked_per_s":0.0}]}"#,
);

/// What its programs sent over the link.
const LEAD: &str = "010300000010 0000018bcfe6a138 6d65737361676573";
const READY: &str = "010400000011 00000400 01 6f6c642d636f6e73756d6572";
const HELD: &str = "010500000000";
const PROCESS: [&str; 3] = [
    "01000000001e 00060a241ced1308 0002 7b226d6573736167655f6964223a226d2d31227d",
    "010000000012 00060a241d110253 0001 313240333a616263",
    "010000000012 00060a241d11041a 0001 00ff3a6279746573",
];
const ACK: &str = "010100000008 00060a241ced1308";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// Puts what the old leader left into Redis.
fn restore(connection: &mut redis::Connection) {
    for (key, value) in [("epoch", EPOCH), ("cursor", CURSOR), ("recall", RECALL)] {
        let () = run(connection, &["SET", &format!("messages:{key}"), value]);
    }
    let () = run(connection, &["SET", "messages:leader", LEASE, "PX", "60000"]);
    let () = run(connection, &["SET", "messages:status:old-163b61", REPORT, "PX", "60000"]);
    let _: i64 = run(connection, &["HSET", "messages:attempts", ATTEMPTS.0, ATTEMPTS.1]);
    let _: i64 = run(connection, &["RPUSH", "messages:consumers", "old-consumer"]);
    MEMBERS.iter().for_each(|(id, member)| add(connection, *id, member));
}

fn add(connection: &mut redis::Connection, id: u64, member: &[u8]) {
    redis::cmd("ZADD").arg("messages:pending").arg(id).arg(member).exec(connection).expect("it is added");
}

/// Answers LEAD as its consumer does.
fn greet(line: &mut Line) -> Vec<u8> {
    let lead = line.next_bytes();
    for frame in [READY, HELD] {
        line.send_raw(Message::binary(bytes(frame)));
    }
    lead
}

/// As many bytes as come in the next messages.
fn read_bytes(line: &mut Line, count: usize) -> Vec<u8> {
    let mut read = Vec::new();
    while read.len() < count {
        read.extend(line.next_bytes());
    }
    read
}

#[test]
fn a_dispatcher_continues_where_one_of_the_earlier_release_was_killed() {
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    restore(connection);
    let peer = Peer::bind("old-consumer");
    // Its lease is free, since nobody subscribes to its alive channel.
    let process = dispatcher(&cluster, "d0", &[peer.address()], "");
    let mut line = peer.accept_unread();
    let lead = greet(&mut line);
    let epoch: u64 = run(connection, &["GET", "messages:epoch"]);
    assert!(epoch > EPOCH.parse().expect("a number"));
    let like_before = [&bytes(LEAD)[..6], &epoch.to_be_bytes(), b"messages"].concat();
    assert_eq!(lead, like_before);
    let expected = bytes(&PROCESS.concat());
    assert_eq!(read_bytes(&mut line, expected.len()), expected);
    process.wait_for_line("event=taken-over", DEADLINE).expect("it leads");

    // A message of now, for a consumer of then.
    let _: u64 = run(connection, &["PUBLISH", CHANNEL, "new"]);
    let process = line.next_bytes();
    assert_eq!((&process[..6], &process[14..]), (&bytes("01000000000d")[..], &b"\x00\x01new"[..]));
    let [_, _, _, member] = &members(connection)[..] else { panic!("four are pending") };
    assert_eq!(member.1, format!("{:016x}:new", member.0).into_bytes());
    assert_eq!(process[6..14], member.0.to_be_bytes());

    // It has recorded the first. An ACK frees its place, and nothing is sent again.
    let _: i64 = run(connection, &["ZREMRANGEBYSCORE", "messages:pending", ATTEMPTS.0, ATTEMPTS.0]);
    line.send_raw(Message::binary(bytes(ACK)));
    wait_until("the ACK to be read", || status(&cluster.redis_url()).0.contains("3 of 1024 in flight").then_some(()));
    let gaps = stream(connection, "messages:gaps");
    let found: Vec<[&str; 2]> = gaps.iter().map(|gap| ["reason", "begin"].map(|field| gap[field].as_str())).collect();
    assert_eq!(found, [["not-subscribed", CURSOR]], "it knows that it missed what came meanwhile");
}

/// What is pending: scores and members.
fn members(connection: &mut redis::Connection) -> Vec<(u64, Vec<u8>)> {
    let pairs = redis::cmd("ZRANGE").arg("messages:pending").arg(0).arg(-1).arg("WITHSCORES").query(connection);
    let pairs: Vec<(Vec<u8>, f64)> = pairs.expect("the set can be read");
    pairs.into_iter().map(|(member, score)| (score as u64, member)).collect()
}

/// A subscription like that of an old dispatcher. It lives as long as the value.
fn subscribe<'a>(connection: &'a mut redis::Connection, channels: &[&str]) -> redis::PubSub<'a> {
    let mut subscription = connection.as_pubsub();
    subscription.set_read_timeout(Some(DEADLINE)).expect("a timeout above zero");
    channels.iter().for_each(|channel| subscription.subscribe(channel).expect("it subscribes"));
    subscription
}

/// The next text on a subscription.
fn next_text(subscription: &mut redis::PubSub<'_>) -> String {
    subscription.get_message().expect("a message in time").get_payload().expect("a text")
}

/// An old leader beside a new standby, which follows its markers and its cursor and continues exactly there.
#[test]
fn a_standby_continues_after_a_leader_of_the_earlier_release() {
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    restore(connection);
    let listening = &mut client(&cluster.redis_url());
    let mut old = subscribe(listening, &["messages:control", "messages:alive:old-163b61"]);
    let peer = Peer::bind("old-consumer");
    let standby = dispatcher(&cluster, "d1", &[peer.address()], "");
    let join = next_text(&mut old);
    let (id, rest) = join.strip_prefix("marker d1-").and_then(|rest| rest.split_once('.')).expect("a join marker");
    assert_eq!((id.len(), rest), (6, "1 messages:published"), "{join}");

    let publish = |connection: &mut redis::Connection, channel: &str, text: &str| -> u64 {
        run(connection, &["PUBLISH", channel, text])
    };
    publish(connection, "messages:control", "marker 1700000080184.5 messages:published");
    let () = run(connection, &["SET", "messages:cursor", "1700000080184.5 0 1700000083018778"]);
    let shown = wait_until("the standby to hold what follows the cursor", || {
        Some(status(&cluster.redis_url()).0).filter(|shown| shown.contains("standby, in sync"))
    });
    for part in ["old-163b61, epoch 1700000080184", "leader, version 0.1.0", "old-consumer"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("listens to"), "it reads the other's channel: {shown}");

    for text in ["stored", "not stored"] {
        assert_eq!(publish(connection, CHANNEL, text), 1);
    }
    add(connection, 1_700_000_084_000_000, b"00060a241d1ffd00:stored");
    let () = run(connection, &["SET", "messages:cursor", "1700000080184.5 1 1700000084000000"]);
    let _: i64 = run(connection, &["DEL", "messages:leader"]);
    publish(connection, "messages:control", "released 1700000080184");
    standby.wait_for_line("event=taken-over", DEADLINE).expect("it leads");
    greet(&mut peer.accept_unread());
    wait_until("the rest to be stored", || (state(connection).0 == 5).then_some(()));
    let pending = members(connection);
    assert_eq!(pending[3].1, b"00060a241d1ffd00:stored");
    assert_eq!(pending[4].1, format!("{:016x}:not stored", pending[4].0).into_bytes());
    assert_eq!(stream(connection, "messages:gaps"), []);
}

/// A downgrade: what a leader with one channel by name leaves has the forms that the earlier release knows.
#[test]
fn what_a_leader_leaves_can_be_read_by_the_earlier_release() {
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let listening = &mut client(&cluster.redis_url());
    let mut control = subscribe(listening, &["messages:control"]);
    let process = dispatcher(&cluster, "d0", &["127.0.0.1:1".to_owned()], "");
    process.wait_for_line("event=taken-over", DEADLINE).expect("it leads");
    for payload in ["12@3:abc", "x"] {
        let _: u64 = run(connection, &["PUBLISH", CHANNEL, payload]);
    }
    wait_until("both to be stored", || (state(connection).0 == 2).then_some(()));
    let text = |connection: &mut redis::Connection, key: &str| run::<String>(connection, &["GET", key]);
    let lease = text(connection, "messages:leader");
    let (holder, epoch) = lease.split_once(' ').expect("two words");
    assert_eq!(epoch, text(connection, "messages:epoch"));
    let recall = text(connection, "messages:recall");
    assert!(recall.starts_with(&format!("{epoch} ")) && recall.split(' ').count() == 3, "{recall}");
    for ((id, member), payload) in members(connection).iter().zip(["12@3:abc", "x"]) {
        assert_eq!(*member, format!("{id:016x}:{payload}").into_bytes());
    }
    let report = wait_until("a good report of the leader", || {
        let report = json(&text(connection, &format!("messages:status:{holder}")));
        (report["leads"] == true && report["trouble"].is_null() && report["oldest"].is_u64()).then_some(report)
    });
    assert_has_fields(&report, &json(REPORT));

    stop(process);
    let last = last_of(&mut control, &format!("released {epoch}"), epoch);
    let newest = members(connection)[1].0;
    let cursor = text(connection, "messages:cursor");
    let words: Vec<&str> = cursor.split([' ', '.']).collect();
    let [of, marker, "0", id] = words[..] else { panic!("it ends at a marker: {cursor}") };
    let number = |text: &str| text.parse::<u64>().expect("a number");
    assert!(of == epoch && (1..=last).contains(&number(marker)) && number(id) >= newest, "{cursor}, {last}");
}

fn stop(mut process: ChildProcess) {
    process.signal(Signal::SIGTERM).expect("it runs");
    assert!(process.wait(DEADLINE).expect("it ends").success());
}

/// Reads the control channel up to a notice; everything before it must be a marker of the one channel. Returns the
/// number of the epoch's last marker.
fn last_of(control: &mut redis::PubSub<'_>, end: &str, epoch: &str) -> u64 {
    let mut last = None;
    loop {
        let notice = next_text(control);
        if notice == end {
            return last.expect("a leader publishes markers");
        }
        let words: Vec<&str> = notice.split(' ').collect();
        let ["marker", marker, "messages:published"] = words[..] else { panic!("{notice:?}") };
        let (of, number) = marker.rsplit_once('.').expect("a number");
        let number = number.parse().expect("a number");
        assert!(of == epoch || of.starts_with("d0-") && number == 1, "{notice}");
        last = (of == epoch).then_some(number).or(last);
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("it is JSON")
}

/// Each field of `before` must be in `now`, with a value of its kind.
fn assert_has_fields(now: &Value, before: &Value) {
    for (name, value) in before.as_object().expect("an object") {
        let found = &now[name];
        assert_eq!(std::mem::discriminant(found), std::mem::discriminant(value), "{name}: {found}, not {value}");
        if value.is_object() {
            assert_has_fields(found, value);
        }
    }
}

/// An old leader sends PROCESS to a consumer that says, by a flag that the old leader ignores, that it knows DELIVER.
#[test]
fn a_consumer_works_for_a_leader_of_the_earlier_release() {
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    restore(connection);
    let consumer = consumer(&cluster);
    let mut old = ScriptedDispatcher::connect(consumer.address);
    old.send_message(Message::binary(bytes(LEAD)));
    let mut greeting = old.next_message();
    while greeting.len() < bytes(READY).len() - 12 + 3 + bytes(HELD).len() {
        greeting.extend(old.next_message());
    }
    assert_eq!(greeting, bytes("010400000008 00000007 07 6e6577 010500000000"));
    old.send_message(Message::binary(bytes(PROCESS[0])));
    assert_eq!(old.next_message(), bytes(ACK));
    assert_eq!(stream(connection, "messages:processed")[0]["payload"], "{\"message_id\":\"m-1\"}");
    assert_eq!(state(connection), (2, 1, 0));
    assert_eq!(run::<i64>(connection, &["EXISTS", "messages:attempts"]), 0);
}

/// A consumer that records each payload without a channel.
fn consumer(cluster: &Cluster) -> RunningConsumer {
    let handler = |message: &Delivery<'_>| match message.channel() {
        None => Ok(Outcome::new().field("payload", message.payload())),
        Some(channel) => Err(format!("it has the channel {channel:?}").into()),
    };
    let builder = Consumer::builder().redis_url(cluster.redis_url()).listen("127.0.0.1:0").consumer_id("new");
    RunningConsumer::start(builder.concurrency(1).prefetch(7).handler(handler))
}

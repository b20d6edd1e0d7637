//! Shadows: they compare exactly with a running group, through deaths of its leaders, and take part in nothing.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use oncecast::lab::{ChildProcess, Cluster, Signal};
use serde_json::Value;

use crate::support::load::Load;
use crate::support::{
    CHANNEL, DEADLINE, bare_cluster, client_of, cluster_of, dispatcher, is_too_old, options, publish, publish_payloads,
    run, state, status, subscription_of, wait_for_another_leader, wait_until, wait_until_done,
};

const COMPARING: &str = "comparing";

/// A shadow that is subscribed.
fn shadow(cluster: &Cluster, args: &str) -> ChildProcess {
    let mut command = cluster.command("oncecast-dispatcher").expect("the program is built");
    command.args(["--shadow", "--dispatcher-id", "s0"]).args(args.split_whitespace());
    let process = ChildProcess::spawn("s0", command).expect("the shadow starts");
    process.wait_for_line("event=subscribed", DEADLINE).expect("it subscribes");
    process
}

fn stop(mut process: ChildProcess) {
    process.signal(Signal::SIGTERM).expect("it runs");
    assert!(process.wait(DEADLINE).expect("it ends").success());
}

/// The report of the only shadow.
fn report(connection: &mut redis::Connection) -> Option<Value> {
    let keys: Vec<String> = run(connection, &["KEYS", "messages:status:shadow:*"]);
    let report: Option<String> = run(connection, &["GET", keys.first()?]);
    Some(serde_json::from_str(&report?).expect("a report is JSON"))
}

/// Waits until the report is as wanted. Returns it.
fn wait_for_report(connection: &mut redis::Connection, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let mut last = None;
    let began = Instant::now();
    loop {
        last = report(connection).or(last);
        match last {
            Some(report) if is_it(&report) => return report,
            _ if began.elapsed() > DEADLINE => panic!("no {what}; the last report: {last:?}"),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn wait_until_comparing(connection: &mut redis::Connection) -> Value {
    wait_for_report(connection, "comparison", |report| report["state"] == COMPARING)
}

/// Waits until so many messages were compared.
fn wait_until_heard(connection: &mut redis::Connection, messages: usize) -> Value {
    wait_for_report(connection, &format!("{messages} compared"), |report| report["compared"]["heard"] == messages)
}

/// What comparing must have found in a group that has lost nothing.
fn assert_equal(report: &Value, messages: usize) {
    let compared = &report["compared"];
    assert_eq!(compared["exact"], true, "{report}");
    let found = ["heard", "stored", "difference", "gaps", "restarts"].map(|name| compared[name].as_i64());
    assert_eq!(found, [messages as i64, messages as i64, 0, 0, 0].map(Some), "{report}");
    assert_eq!((&report["messages"], &report["trouble"]), (&messages.into(), &Value::Null), "{report}");
}

/// The server counts deleted entries. If not, says that what needs it is left out.
fn is_exact(cluster: &mut Cluster) -> bool {
    !is_too_old(cluster.redis(), "doesn't count the entries that were ever added to a stream")
}

/// How the leader ends.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Killed,
    Paused,
    Stopped,
}

/// Waits until another dispatcher leads. The former leader runs again when this returns.
fn change_leader(cluster: &mut Cluster, end: End) {
    let (leader, lease) = cluster.wait_for_leader(DEADLINE).expect("a dispatcher leads");
    let began = Instant::now();
    match end {
        End::Killed => cluster.kill_node(leader).expect("it is killed"),
        End::Paused => cluster.signal(leader, Signal::SIGSTOP).expect("it is paused"),
        End::Stopped => cluster.stop_node(leader, DEADLINE).expect("it ends in order"),
    }
    wait_for_another_leader(cluster, &lease);
    match end {
        End::Paused => cluster.signal(leader, Signal::SIGCONT).expect("it runs"),
        _ => {
            assert!(began.elapsed() < Duration::from_secs(2), "the standby takes over at once");
            cluster.start_node(leader).expect("it starts");
        }
    }
}

/// Compares a group under load while its leaders end.
fn compare_while_leaders_end(mut cluster: Cluster, interests: &str, channels: &'static [&'static str], overlaps: bool) {
    if !is_exact(&mut cluster) {
        return;
    }
    let connection = &mut client_of(&mut cluster);
    let process = shadow(&cluster, interests);
    wait_until_comparing(connection);
    let load = Load::start_on(&cluster.redis().url(), "m", 4_000, channels);
    for end in [End::Killed, End::Paused, End::Stopped, End::Killed] {
        load.wait_for_more(2_000);
        change_leader(&mut cluster, end);
        let dispatchers: Vec<String> = run(connection, &["PUBSUB", "CHANNELS", "messages:alive:*"]);
        assert!(dispatchers.iter().all(|channel| !channel.contains(":s0-")), "{dispatchers:?}");
        let in_sync = |shown: &str| shown.contains("standby, in sync");
        wait_until("the other to be in sync", || in_sync(&status(&cluster.redis_url()).0).then_some(()));
        let right = if end == End::Paused { "-multi" } else { "+multi" };
        let () = run(connection, &["ACL", "SETUSER", "default", right]);
    }
    load.wait_for_more(2_000);
    let sent = load.stop();
    assert!(sent.uncertain.is_empty() && sent.unheard.is_empty());
    let report = wait_until_heard(connection, sent.owed.len());
    assert_equal(&report, sent.owed.len());
    assert_eq!(report["overlaps"].as_u64() > Some(0), overlaps, "{report}");
    let (shown, _) = status(&cluster.redis_url());
    let line = format!("heard {0}, stored {0}, difference 0, gaps 0", sent.owed.len());
    assert!(shown.contains("dispatchers   2\n") && shown.contains("shadows       1\n"), "{shown}");
    assert!(shown.contains(&line) && !shown.contains("shadow s0"), "{shown}");
    stop(process);
    assert_eq!(report_keys(connection), 0);
    wait_until("the status to forget it", || (!status(&cluster.redis_url()).0.contains("shadows")).then_some(()));
}

fn report_keys(connection: &mut redis::Connection) -> usize {
    run::<Vec<String>>(connection, &["KEYS", "messages:status:shadow:*"]).len()
}

#[test]
fn a_group_whose_leaders_die_stores_what_its_shadow_hears() {
    const INTERESTS: &str = "--channel orders.eu --pattern orders.* --pattern *.eu";
    let cluster = cluster_of(options(2, 2, INTERESTS, "--result-maxlen 1000"));
    // Another order of the same interests.
    let same = "--pattern orders.* --pattern *.eu --channel orders.eu";
    compare_while_leaders_end(cluster, same, &["orders.eu", "orders.us", "invoices.eu", "elsewhere.eu"], true);
}

#[test]
fn a_group_that_delivers_to_a_stream_stores_what_its_shadow_hears() {
    const INTERESTS: &str = "--deliver stream --stream shared:jobs";
    let mut cluster = Cluster::start(options(2, 0, &format!("{INTERESTS} --stream-maxlen 1000"), "")).expect("it");
    cluster.wait_for_leader(DEADLINE).expect("a dispatcher leads");
    compare_while_leaders_end(cluster, INTERESTS, &[CHANNEL], false);
}

#[test]
fn keyspace_events_are_compared_and_those_of_the_report_are_none() {
    let mut cluster = cluster_of(options(2, 1, "--keyevent set --keyspace-db *", ""));
    let connection = &mut client_of(&mut cluster);
    let () = run(connection, &["CONFIG", "SET", "notify-keyspace-events", "KEA"]);
    let process = shadow(&cluster, "--keyevent set --keyspace-db *");
    wait_until_comparing(connection);
    for key in 0..500 {
        let () = run(connection, &["SET", &format!("key{key}"), "x"]);
    }
    wait_until_done(connection, 500);
    // Longer than it takes to write some more reports.
    std::thread::sleep(Duration::from_millis(2_500));
    if is_exact(&mut cluster) {
        assert_equal(&wait_until_heard(connection, 500), 500);
    }
    stop(process);
}

/// A message that is too large becomes a dead letter, and workers delete what they have read.
#[test]
fn what_was_stored_counts_whatever_became_of_it() {
    let mut cluster = cluster_of(options(2, 0, "--deliver stream", ""));
    if !is_exact(&mut cluster) {
        return;
    }
    let connection = &mut client_of(&mut cluster);
    let _process = shadow(&cluster, "--deliver stream");
    wait_until_comparing(connection);
    publish(connection, "m", 0..50);
    publish_payloads(connection, [vec![b'x'; oncecast::wire::MAX_BODY_BYTES + 1]]);
    wait_until_heard(connection, 51);
    let () = run(connection, &["XTRIM", "messages:messages", "MAXLEN", "0"]);
    let () = run(connection, &["XTRIM", "messages:dead", "MAXLEN", "0"]);
    publish(connection, "m", 50..100);
    let report = wait_until_heard(connection, 101);
    assert_equal(&report, 101);
    assert_eq!(report["largest_bytes"], oncecast::wire::MAX_BODY_BYTES + 1);
    // A stream that is deleted can't be compared with what it was.
    let () = run(connection, &["DEL", "messages:messages"]);
    let report = wait_for_report(connection, "restart", |report| report["compared"]["restarts"] == 1);
    assert!(report["compared"]["last_restart"].as_str().expect("a reason").contains("deleted"), "{report}");
}

#[test]
fn messages_that_a_group_loses_are_a_difference() {
    let mut cluster = cluster_of(options(2, 1, "", ""));
    if !is_exact(&mut cluster) {
        return;
    }
    let connection = &mut client_of(&mut cluster);
    let process = shadow(&cluster, "");
    wait_until_comparing(connection);
    publish(connection, "m", 0..500);
    wait_until_done(connection, 500);
    let (_, lease) = cluster.wait_for_leader(DEADLINE).expect("a dispatcher leads");
    for node in cluster.running().into_iter().take(2) {
        cluster.kill_node(node).expect("it is killed");
    }
    assert_eq!(publish(connection, "lost", 0..70), 1, "only the shadow hears them");
    for number in 0..2 {
        cluster.start_node(oncecast::lab::Node::Dispatcher(number)).expect("it starts");
    }
    wait_for_another_leader(&mut cluster, &lease);
    publish(connection, "n", 0..100);
    wait_until_done(connection, 600);
    let report = wait_for_report(connection, "difference", |report| report["compared"]["difference"] == 70);
    assert!(report["compared"]["gaps"].as_u64() >= Some(1) && report["compared"]["restarts"] == 0, "{report}");
    process.wait_for_line("event=difference messages=70", DEADLINE).expect("it logs it");
    let (shown, _) = status(&cluster.redis_url());
    assert!(shown.contains("difference 70") && shown.contains("note          the shadow s0-"), "{shown}");
    // It stays, and grows no further.
    let heard = report["compared"]["heard"].as_u64().expect("a number");
    publish(connection, "m", 500..1_000);
    let report =
        wait_for_report(connection, "more", |report| report["compared"]["heard"].as_u64() >= Some(heard + 500));
    assert_eq!(report["compared"]["difference"], 70, "{report}");
}

#[test]
fn without_a_group_it_measures_what_is_published() {
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let process = shadow(&cluster, "--pattern messages:*");
    publish_payloads(connection, (0..50).map(|n| format!("payload {n:02}")));
    publish_payloads(connection, [vec![b'x'; 1_000]]);
    let is_measured = |report: &Value| report["messages"] == 51 && report["busiest_per_s"].as_f64() > Some(1.0);
    let report = wait_for_report(connection, "count", is_measured);
    assert_eq!((&report["bytes"], &report["largest_bytes"]), (&1_500.into(), &1_000.into()), "{report}");
    assert_eq!(report["state"], "no group has stored anything yet");
    let (shown, code) = status(&cluster.redis_url());
    assert!(shown.contains("no group has stored anything yet") && shown.contains("51 messages"), "{shown}");
    assert!(code == 3 && shown.contains("no dispatcher is subscribed") && !shown.contains("compared for"), "{shown}");
    // A group that starts is compared from there on.
    let _dispatcher = dispatcher(&cluster, "d0", &["127.0.0.1:1".to_owned()], "--pattern messages:*");
    wait_until_comparing(connection);
    publish(connection, "m", 0..100);
    let report = wait_until_heard(connection, 100);
    assert_eq!((&report["compared"]["stored"], &report["messages"]), (&100.into(), &151.into()), "{report}");
    stop(process);
}

#[test]
fn a_group_with_other_interests_is_not_compared() {
    let mut cluster = bare_cluster();
    let connection = &mut client_of(&mut cluster);
    let address = ["127.0.0.1:1".to_owned()];
    let other = dispatcher(&cluster, "d0", &address, "--channel a,c");
    other.wait_for_line("event=taken-over", DEADLINE).expect("it leads");
    let process = shadow(&cluster, "--channel a --pattern b*");
    wait_for_report(connection, "other interests", |report| report["state"] == "the group has other interests");
    process.wait_for_line("event=other-interests", DEADLINE).expect("it says so");
    process.wait_for_line("event=not-comparing", DEADLINE).expect("it says so");
    stop(other);
    let same = dispatcher(&cluster, "d1", &address, "--channel a --pattern b*");
    same.wait_for_line("event=taken-over", DEADLINE).expect("it leads");
    wait_until_comparing(connection);
    let _: Vec<u64> = redis::pipe().publish("a", "1").publish("b1", "2").query(connection).expect("it answers");
    assert_eq!(wait_until_heard(connection, 2)["compared"]["difference"], 0);
    stop(same);
    let _other = dispatcher(&cluster, "d2", &address, "--channel a,c");
    let report = wait_for_report(connection, "other interests", |report| report["state"] != COMPARING);
    assert_eq!(report["compared"]["restarts"], 1, "{report}");
    assert_eq!((&report["compared"]["heard"], &report["compared"]["difference"]), (&2.into(), &0.into()), "{report}");
}

#[test]
fn a_subscription_that_drops_begins_the_comparison_anew() {
    let mut cluster = cluster_of(options(1, 1, "", ""));
    let connection = &mut client_of(&mut cluster);
    let process = shadow(&cluster, "");
    wait_until_comparing(connection);
    let load = Load::start(&cluster.redis().url(), "m", 4_000);
    for drops in 1..=3 {
        load.wait_for_more(2_000);
        let id = subscription_of(connection, process.pid());
        let _: i64 = run(connection, &["CLIENT", "KILL", "ID", &id]);
        wait_for_report(connection, "restart", |report| report["compared"]["restarts"] == drops);
        wait_until_comparing(connection);
    }
    load.wait_for_more(4_000);
    drop(load);
    wait_until("all to be done", || (state(connection).0 == 0).then_some(()));
    let mut last = Value::Null;
    wait_for_report(connection, "end", |report| report["messages_per_s"] == 0.0);
    wait_until("two equal reports", || {
        let now = report(connection)?["compared"].clone();
        let is_same = now["heard"] == last["heard"] && now["seconds"] != last["seconds"];
        if now["seconds"] != last["seconds"] {
            last = now;
        }
        is_same.then_some(())
    });
    assert!(last["difference"] == 0 && last["heard"].as_u64() > Some(4_000), "{last}");
    assert_eq!(last["last_restart"], "its subscription dropped");
}

/// A dispatcher that has missed something waits for older ones, which a shadow is not.
#[test]
fn a_dispatcher_does_not_wait_for_an_older_shadow() {
    let mut cluster = cluster_of(options(1, 1, "--lease-ttl-ms 60000", ""));
    let connection = &mut client_of(&mut cluster);
    let _process = shadow(&cluster, "");
    wait_until_comparing(connection);
    let (leader, lease) = cluster.wait_for_leader(DEADLINE).expect("it leads");
    cluster.kill_node(leader).expect("it is killed");
    cluster.start_node(leader).expect("it starts");
    wait_for_another_leader(&mut cluster, &lease);
    let alive: HashMap<String, u64> = run(connection, &["PUBSUB", "NUMSUB", "messages:control", CHANNEL]);
    assert_eq!(alive, HashMap::from([("messages:control".to_owned(), 2), (CHANNEL.to_owned(), 2)]));
}

/// Each key with its content.
fn content(connection: &mut redis::Connection) -> BTreeMap<String, Vec<u8>> {
    let keys: Vec<String> = run(connection, &["KEYS", "*"]);
    keys.into_iter().map(|key| (key.clone(), run(connection, &["DUMP", &key]))).collect()
}

#[test]
fn it_writes_nothing_but_its_report() {
    let mut cluster = cluster_of(options(2, 1, "", ""));
    let connection = &mut client_of(&mut cluster);
    publish(connection, "m", 0..100);
    wait_until_done(connection, 100);
    for node in cluster.running() {
        cluster.stop_node(node, DEADLINE).expect("it ends in order");
    }
    let before = content(connection);
    assert!(before.len() > 3, "{before:?}");
    let process = shadow(&cluster, "");
    publish(connection, "m", 100..200);
    wait_for_report(connection, "count", |report| report["messages"] == 100 && report["uptime_s"].as_f64() > Some(2.0));
    let mut during = content(connection);
    during.retain(|key, _| !key.starts_with("messages:status:shadow:s0-"));
    assert_eq!(during, before);
    stop(process);
    assert_eq!(content(connection), before);
}

//! Delays outlive leaders, dispatchers and Redis, and a consumer may have a policy of its own.

use super::*;
use crate::support::lasting_cluster;

/// How late a redelivery may be.
const SLACK: Duration = Duration::from_secs(5);
/// The delay that the handler asks for.
const ASKED: Duration = Duration::from_secs(4);
/// The policy's wait, which jitter makes a quarter longer.
const POLICY: Duration = Duration::from_secs(3);
const FIXED: &str = "--retry fixed:3s";

/// Fails each first delivery: by the policy, or for `asked…` with a delay of its own.
fn fails_once(name: &str, delivery: u16) -> Result<(), HandlerError> {
    match delivery {
        1 if name.starts_with("asked") => Err(HandlerError::retry_after(ASKED, "not before")),
        1 => Err(HandlerError::retry("not yet")),
        _ => Ok(()),
    }
}

fn all_names() -> Vec<String> {
    [names("m", 20), names("asked", 5)].concat()
}

/// Publishes all messages, waits until each has failed once, and returns when Redis says that each is due, by id.
fn fail_all(connection: &mut redis::Connection) -> HashMap<String, u64> {
    let all = all_names();
    publish_payloads(connection, &all);
    wait_until("each to have failed", || {
        let attempts: HashMap<String, String> = run(connection, &["HGETALL", "messages:attempts"]);
        let due = |value: &String| value.split(" @").nth(1)?.split(' ').next()?.parse::<u64>().ok();
        let all_due = attempts.iter().map(|(id, value)| (id.clone(), due(value).expect("a time")));
        (attempts.len() == all.len()).then(|| all_due.collect())
    })
}

fn now_ms(connection: &mut redis::Connection) -> u64 {
    let (seconds, micros): (u64, u64) = run(connection, &["TIME"]);
    seconds * 1_000 + micros / 1_000
}

/// Each message was run twice, the second time when it was due and not much later.
fn assert_in_time(runs: &Runs) {
    let runs = runs.lock();
    assert_eq!(runs.len(), all_names().len());
    for (name, runs) in runs.iter() {
        let numbers: Vec<u16> = runs.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers, [1, 2], "{name}");
        let waited = runs[1].0 - runs[0].0;
        let (least, most) = if name.starts_with("asked") { (ASKED, ASKED) } else { (POLICY, POLICY.mul_f64(1.25)) };
        assert!(waited >= least && waited < most + SLACK, "{name} waited {waited:?}");
    }
}

/// Until the first message is due, none is done: then the time by Redis's clock is not before it.
fn wait_for_the_first(connection: &mut redis::Connection, due: &HashMap<String, u64>) {
    let first = *due.values().min().expect("there are some");
    wait_until("the first to be done", || {
        let (_, done, _) = state(connection);
        (done > 0).then_some(())
    });
    assert!(now_ms(connection) >= first, "it came before its time");
}

fn status_of(cluster: &Cluster) -> serde_json::Value {
    let mut command = crate::support::programs().command("oncecast").expect("the program is built");
    command.args(["status", "--json", "--redis-url", &cluster.redis_url()]);
    serde_json::from_slice(&command.output().expect("it runs").stdout).expect("JSON")
}

#[test]
fn a_new_leader_keeps_the_delays() {
    let (group, mut connection) = Group::start(FIXED, fails_once);
    let _second = dispatcher(&group.cluster, "d1", &[group.consumer.address.to_string()], FIXED);
    wait_until_in_sync(&mut connection, 2);
    let due = fail_all(&mut connection);
    let Group { dispatcher: mut first, runs, cluster, consumer: _consumer } = group;
    first.kill().unwrap();
    let status = wait_until("the new leader to report them", || {
        let status = status_of(&cluster);
        let is_d1 = status["leader"]["id"].as_str().is_some_and(|id| id.starts_with("d1-"));
        (is_d1 && status["delayed"] == 25).then_some(status)
    });
    let next = status["next_retry_ms"].as_u64().expect("the first is due some time");
    assert!(next <= 4_000, "{next}");
    // What arrives meanwhile does not wait with them.
    publish_payloads(&mut connection, ["asked to wait later"]);
    wait_until("it to fail as well", || runs.lock().contains_key("asked to wait later").then_some(()));
    runs.lock().remove("asked to wait later");
    wait_for_the_first(&mut connection, &due);
    wait_until_done(&mut connection, 26);
    runs.lock().remove("asked to wait later");
    assert_in_time(&runs);
    assert_eq!(run::<u64>(&mut connection, &["HLEN", "messages:attempts"]), 0);
}

#[test]
fn delays_survive_a_restart_of_all_dispatchers() {
    let (group, mut connection) = Group::start(FIXED, fails_once);
    let due = fail_all(&mut connection);
    let Group { dispatcher: mut only, runs, cluster, consumer } = group;
    only.kill().unwrap();
    let _again = dispatcher(&cluster, "d0", &[consumer.address.to_string()], "--retry fixed:10m");
    wait_for_the_first(&mut connection, &due);
    wait_until_done(&mut connection, 25);
    assert_in_time(&runs);
}

#[test]
fn what_became_due_while_no_dispatcher_ran_is_delivered_at_once() {
    let (group, mut connection) = Group::start("--retry fixed:1s", |_, delivery| match delivery {
        1 => Err(HandlerError::retry("not yet")),
        _ => Ok(()),
    });
    let due = fail_all(&mut connection);
    let Group { dispatcher: mut only, runs, cluster, consumer } = group;
    only.kill().unwrap();
    let last = *due.values().max().expect("there are some");
    wait_until("all to be due", || (now_ms(&mut connection) > last).then_some(()));
    let began = Instant::now();
    let _again = dispatcher(&cluster, "d0", &[consumer.address.to_string()], "--retry fixed:10m");
    wait_until_done(&mut connection, 25);
    assert!(began.elapsed() < 2 * SLACK);
    assert!(runs.lock().values().all(|runs| runs.len() == 2));
}

#[test]
fn delays_survive_a_restart_of_redis() {
    let (group, mut connection) = Group::start_in(lasting_cluster(), FIXED, None, fails_once);
    let due = fail_all(&mut connection);
    let Group { dispatcher: _dispatcher, runs, mut cluster, consumer: _consumer } = group;
    cluster.redis().kill().unwrap();
    cluster.redis().start_again().unwrap();
    let mut connection = client_of(&mut cluster);
    wait_for_the_first(&mut connection, &due);
    wait_until_done(&mut connection, 25);
    assert_in_time(&runs);
}

#[test]
fn a_consumer_s_policy_comes_before_the_group_s_and_after_the_handler_s_delay() {
    let judge = |name: &str, delivery| match (name, delivery) {
        ("asked", 1) => Err(HandlerError::retry_after(Duration::from_millis(20), "soon")),
        ("panics", 1) => panic!("once"),
        (_, 1..3) => Err(HandlerError::retry("not yet")),
        _ => Ok(()),
    };
    let policy = "exponential:500ms..10s*3";
    let (group, mut connection) = Group::start_in(bare_cluster(), "--retry fixed:10m", Some(policy), judge);
    publish_payloads(&mut connection, ["asked", "plain", "panics"]);
    wait_until_done(&mut connection, 3);
    for (name, least) in [("asked", [20, 1_500]), ("plain", [500, 1_500]), ("panics", [500, 1_500])] {
        let runs = group.runs_of(name);
        assert_eq!(group.numbers(name), [1, 2, 3], "{name}");
        for (pair, least) in runs.windows(2).zip(least) {
            let (waited, least) = (pair[1].0 - pair[0].0, Duration::from_millis(least));
            assert!(waited >= least && waited < least.mul_f64(1.25) + SLACK, "{name} waited {waited:?}");
        }
    }
    let waited = group.runs_of("asked");
    assert!(waited[1].0 - waited[0].0 < Duration::from_millis(500), "its own delay counts");
}

#[test]
fn a_consumer_s_policy_of_none_means_at_once() {
    let judge = |_: &str, _| Err(HandlerError::retry("never"));
    let (group, mut connection) = Group::start_in(bare_cluster(), "--retry fixed:10m", Some("none"), judge);
    publish_payloads(&mut connection, ["never"]);
    wait_until_done(&mut connection, 1);
    assert_eq!((state(&mut connection), group.runs_of("never").len()), ((0, 0, 1), 8));
}

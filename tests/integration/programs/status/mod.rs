//! `oncecast status` and the pages that a dispatcher serves show the actual state of a group.

mod looks;
mod strange;

use std::net::SocketAddr;
use std::process::Command;

use oncecast::lab::{ChildProcess, Cluster, Node, Signal, ports};
use serde_json::Value;

use crate::support::http::get;
use crate::support::{
    DEADLINE, client_of, cluster, options, pend, programs, publish, run, wait_until, wait_until_done,
    wait_until_in_sync,
};

/// The exit code and the output of `oncecast status`.
fn status(cluster: &Cluster, arguments: &[&str]) -> (i32, String) {
    let mut command = programs().command("oncecast").expect("the program is built");
    command.arg("status").args(["--redis-url", &cluster.redis_url()]).args(arguments);
    let output = command.output().expect("it runs");
    let shown = String::from_utf8(output.stdout).expect("text");
    (output.status.code().expect("it ends by itself"), shown)
}

fn status_json(cluster: &Cluster) -> Value {
    serde_json::from_str(&status(cluster, &["--json"]).1).expect("JSON")
}

/// Another dispatcher of the cluster, with a metrics address.
fn served(cluster: &mut Cluster, name: &str, consumers: usize) -> (ChildProcess, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], ports::free_port().expect("a free port")));
    let consumers: Vec<String> = (0..consumers).map(|number| cluster.address(number).to_string()).collect();
    let mut command: Command = cluster.command("oncecast-dispatcher").expect("the program is built");
    command.args(["--dispatcher-id", name, "--consumers", &consumers.join(",")]);
    command.args(["--metrics-addr", &address.to_string()]);
    (ChildProcess::spawn(name, command).expect("it starts"), address)
}

#[test]
fn a_working_group_is_shown_correctly() {
    let mut cluster = cluster(2, 2);
    let (leader, _) = cluster.wait_for_leader(DEADLINE).expect("a leader");
    cluster.wait_for_consumers(DEADLINE).expect("consumers");
    let mut redis = client_of(&mut cluster);
    wait_until_in_sync(&mut redis, 2);
    publish(&mut redis, "m", 0..500);
    wait_until_done(&mut redis, 500);
    // Reports are up to a second old.
    let json = wait_until("all of it to be shown", || {
        let json = status_json(&cluster);
        let synced = json["dispatchers"].as_array()?.iter().filter(|one| one["in_sync"] == true).count();
        let linked = json["consumers"].as_array()?.iter().filter(|one| one["state"] == "linked").count();
        (linked == 2 && synced == 2 && json["notes"].as_array()?.len() == 1).then_some(json)
    });
    assert_eq!((&json["health"], &json["problems"]), (&"ok".into(), &serde_json::json!([])), "{json}");
    assert!(json["notes"][0].as_str().is_some_and(|note| note.starts_with("appendonly is no")), "{json}");
    assert_eq!(json["leader"]["name"], leader.to_string(), "{json}");
    assert_eq!((&json["results"], &json["pending"], &json["gaps"]), (&500.into(), &0.into(), &0.into()), "{json}");
    let (code, text) = status(&cluster, &[]);
    assert!(code == 0 && text.starts_with("group         messages: ok\n"), "{code}: {text}");
    assert!(text.contains(&format!("\nleader        {leader}-")) && text.contains("standby, in sync"), "{text}");
}

#[test]
fn problems_are_listed_and_set_the_exit_code() {
    let mut cluster = cluster(1, 1);
    cluster.wait_for_leader(DEADLINE).expect("a leader");
    cluster.wait_for_consumers(DEADLINE).expect("a consumer");
    wait_until("the group to be healthy", || (status(&cluster, &[]).0 == 0).then_some(()));
    cluster.kill_node(Node::Consumer(0)).expect("it runs");
    let named = |problem: &str| {
        wait_until(problem, || {
            let (code, text) = status(&cluster, &[]);
            (code == 3 && text.contains(&format!("problem       {problem}"))).then_some(())
        });
    };
    named(&format!("no consumer is connected: {}", cluster.address(0)));
    let mut redis = client_of(&mut cluster);
    publish(&mut redis, "m", 0..1);
    wait_until("the message to be stored", || {
        (run::<u64>(&mut redis, &["ZCARD", "messages:pending"]) == 1).then_some(())
    });
    let (code, text) = status(&cluster, &["--max-age", "1ms"]);
    assert!(code == 3 && text.contains("the oldest message has been pending for"), "{text}");
    // It no longer reports, and after a while it is no longer subscribed.
    cluster.signal(Node::Dispatcher(0), Signal::SIGSTOP).expect("it runs");
    let silent = wait_until("the missing report to be shown", || {
        let (code, text) = status(&cluster, &[]);
        (code == 3 && text.contains("does not report")).then_some(text)
    });
    assert!(silent.contains("consumers     unknown"), "{silent}");
    cluster.kill_node(Node::Dispatcher(0)).expect("it runs");
    let (code, text) = status(&cluster, &[]);
    assert!(code == 3 && text.contains("problem       no dispatcher is subscribed"), "{text}");
    assert!(text.contains("leader        none; "), "{text}");
}

#[test]
fn dispatchers_with_different_settings_are_noted() {
    let mut cluster = Cluster::start(options(0, 2, "", "")).expect("it starts");
    let (_first, address) = served(&mut cluster, "d0", 2);
    wait_until("it to lead", || get(address, "/status.json")?.1.contains("\"leader\":{").then_some(()));
    let (_second, _) = served(&mut cluster, "d1", 1);
    wait_until("the difference to be noted", || {
        let (code, text) = status(&cluster, &[]);
        (code == 0 && text.contains(" and the leader differ in --consumers, --order-key, --deliver")).then_some(())
    });
}

#[test]
fn an_unreachable_redis_is_an_error() {
    let mut cluster = cluster(1, 1);
    cluster.redis().kill().expect("it runs");
    let mut command = programs().command("oncecast").expect("the program is built");
    let output = command.args(["status", "--json", "--redis-url", &cluster.redis_url()]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("--redis-url"), "{said}");
}

#[test]
fn watch_runs_until_interrupted() {
    let mut cluster = cluster(1, 1);
    cluster.wait_for_leader(DEADLINE).expect("a leader");
    let mut command = cluster.command("oncecast").expect("the program is built");
    command = {
        let mut first = Command::new(command.get_program());
        first.args(["status", "--watch", "--json"]).args(command.get_args());
        first
    };
    let mut child = ChildProcess::spawn("status", command).expect("it starts");
    wait_until("three checks", || {
        let checks = child.stdout().tail(10);
        (checks.lines().filter(|line| line.contains("\"leader\":{")).count() >= 3).then_some(())
    });
    cluster.redis().kill().expect("it runs");
    // Instead of the last figures, which would look current.
    wait_until("it to show the problem", || {
        let last = child.stdout().tail(1);
        (last.contains("\"health\":\"attention\"") && last.contains("--redis-url")).then_some(())
    });
    child.signal(Signal::SIGTERM).expect("it runs");
    assert_eq!(child.wait(DEADLINE).expect("it ends").code(), Some(1), "the exit code is that of the last check");
}

#[test]
fn each_dispatcher_serves_the_page_and_a_standby_shows_the_leader() {
    let mut cluster = Cluster::start(options(0, 1, "", "")).expect("it starts");
    let (first, first_address) = served(&mut cluster, "d0", 1);
    wait_until("it to lead", || (get(first_address, "/status.json")?.1.contains("\"leader\":{")).then_some(()));
    let (_second, address) = served(&mut cluster, "d1", 1);
    let json = wait_until("the standby to see the leader", || {
        let json: Value = serde_json::from_str(&get(address, "/status.json")?.1).ok()?;
        (json["leader"]["name"] == "d0" && json["health"] == "ok").then_some(json)
    });
    assert!(json["served_by"].as_str().is_some_and(|id| id.starts_with("d1-")), "{json}");
    let (code, page) = get(address, "/").expect("it answers");
    assert!(code == 200 && page.trim_start().to_ascii_lowercase().starts_with("<!doctype html>"), "{page}");
    drop(first);
    wait_until("the page to name the other", || {
        let json: Value = serde_json::from_str(&get(address, "/status.json")?.1).ok()?;
        (json["leader"]["name"] == "d1").then_some(())
    });
    cluster.redis().kill().expect("it runs");
    wait_until("the page to show the problem", || {
        let json: Value = serde_json::from_str(&get(address, "/status.json")?.1).ok()?;
        let said = json["problems"][0].as_str()?.contains("--redis-url");
        (json["health"] == "attention" && said && json.get("leader").is_none()).then_some(())
    });
}

#[test]
fn a_leader_whose_intake_fails_is_not_ready_and_gives_the_reason() {
    let mut cluster = Cluster::start(options(0, 1, "", "")).expect("it starts");
    let (_leader, address) = served(&mut cluster, "d0", 1);
    wait_until("it to be ready", || (get(address, "/readyz")?.0 == 200).then_some(()));
    let mut redis = client_of(&mut cluster);
    // No consumer works on this message.
    pend(cluster.redis(), 1, "from long ago");
    // Scripts that write are refused from now on, but the lease is still renewed.
    let () = run(&mut redis, &["CONFIG", "SET", "maxmemory", "1"]);
    publish(&mut redis, "m", 0..10);
    let figure = |name: &str| {
        let text = get(address, "/metrics")?.1;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.parse::<f64>().ok()
    };
    let reason = wait_until("it not to be ready", || get(address, "/readyz").filter(|(code, _)| *code == 503));
    assert!(reason.1.contains("store messages"), "{reason:?}");
    assert_eq!(get(address, "/healthz").map(|(code, _)| code), Some(200), "it is alive");
    assert_eq!(figure("oncecast_readiness"), Some(0.0));
    // It can no longer report, but still checks the group.
    let age = || figure("oncecast_oldest_pending_age_seconds");
    let before = wait_until("the age of the oldest message", age);
    wait_until("the age to rise", || (age()? > before + 2.0).then_some(()));
}

#[test]
fn a_new_leader_is_not_ready_before_its_first_intake() {
    let mut cluster = Cluster::start(options(0, 1, "", "")).expect("it starts");
    let mut redis = client_of(&mut cluster);
    // The lease can be acquired, but no message stored.
    let () = run(&mut redis, &["CONFIG", "SET", "maxmemory", "1"]);
    let (dispatcher, address) = served(&mut cluster, "d0", 1);
    dispatcher.wait_for_line("event=elected", DEADLINE).expect("it leads");
    wait_until("ingest to be in trouble", || {
        assert_ne!(get(address, "/readyz").map(|(code, _)| code), Some(200), "{}", dispatcher.stderr().tail(20));
        dispatcher.stderr().tail(20).contains("event=redis-trouble worker=ingest").then_some(())
    });
    assert_eq!(get(address, "/readyz").map(|(code, _)| code), Some(503));
    let () = run(&mut redis, &["CONFIG", "SET", "maxmemory", "0"]);
    wait_until("it to be ready", || (get(address, "/readyz")?.0 == 200).then_some(()));
}

#[test]
fn unknown_values_have_no_metric() {
    let mut cluster = Cluster::start(options(0, 1, "", "")).expect("it starts");
    cluster.redis().kill().expect("it runs");
    let (_dispatcher, address) = served(&mut cluster, "d0", 1);
    let figures = |text: &str, name: &str| text.lines().any(|line| line.starts_with(&format!("oncecast_{name} ")));
    let text =
        wait_until("it to have a lane", || Some(get(address, "/metrics")?.1).filter(|text| figures(text, "leader")));
    for name in ["pending", "recorded_gaps", "dead_letters", "results", "oldest_pending_age_seconds"] {
        assert!(!figures(&text, name), "{name} is not known yet, but\n{text}");
    }
    cluster.redis().start_again().expect("it starts again");
    wait_until("it to know them", || figures(&get(address, "/metrics")?.1, "recorded_gaps").then_some(()));
}

#[test]
fn a_consumer_id_with_control_characters_is_escaped() {
    let mut cluster = Cluster::start(options(0, 1, "", "")).expect("it starts");
    let mut redis = client_of(&mut cluster);
    let report =
        r#"{"leads":true,"consumers":[{"id":"c0\nproblem       forged\u001b[31m","in_flight":1,"prefetch":2}]}"#;
    let _subscription = {
        let () = run(&mut redis, &["SET", "messages:leader", "d0-000000 7"]);
        let () = run(&mut redis, &["SET", "messages:status:d0-000000", report]);
        let mut subscriber = client_of(&mut cluster);
        let () = run(&mut subscriber, &["SUBSCRIBE", "messages:alive:d0-000000", "messages:control"]);
        subscriber
    };
    let (_, text) = status(&cluster, &[]);
    assert!(text.contains("forged") && !text.contains("\nproblem       forged"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn a_dispatcher_on_a_replica_reports_the_problem() {
    let mut cluster = Cluster::start(options(0, 1, "", "")).expect("it starts");
    let mut redis = client_of(&mut cluster);
    let primary = crate::support::redis_server();
    let () = run(&mut redis, &["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
    let (dispatcher, address) = served(&mut cluster, "d0", 1);
    let logged = dispatcher.wait_for_line("event=redis-setting", DEADLINE).expect("it is logged at the start");
    assert!(logged.contains("the server is a replica of") && logged.contains("--redis-url"), "{logged}");
    wait_until("the page to show it", || get(address, "/status.json")?.1.contains("is a replica of").then_some(()));
    assert_eq!(get(address, "/readyz").map(|(code, _)| code), Some(503));
}

#[test]
fn reports_disappear_with_their_dispatcher() {
    let mut cluster = cluster(2, 1);
    let mut redis = client_of(&mut cluster);
    let reports = |redis: &mut redis::Connection| run::<Vec<String>>(redis, &["KEYS", "messages:status:*"]).len();
    wait_until("both to report", || (reports(&mut redis) == 2).then_some(()));
    cluster.stop_node(Node::Dispatcher(0), DEADLINE).expect("it stops");
    assert_eq!(reports(&mut redis), 1, "a dispatcher that stops deletes its report");
    cluster.kill_node(Node::Dispatcher(1)).expect("it runs");
    wait_until("the other report to expire", || (reports(&mut redis) == 0).then_some(()));
}

#[test]
fn dangerous_redis_settings_are_logged_and_shown() {
    let mut cluster = Cluster::start(options(0, 1, "", "")).expect("it starts");
    let mut redis = client_of(&mut cluster);
    let () = run(&mut redis, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let () = run(&mut redis, &["CONFIG", "SET", "client-output-buffer-limit", "pubsub 32mb 8mb 60"]);
    let (dispatcher, address) = served(&mut cluster, "d0", 1);
    for setting in ["maxmemory-policy is allkeys-lru", "client-output-buffer-limit pubsub is"] {
        let logged = dispatcher.wait_for_line(setting, DEADLINE).expect("it is logged at the start");
        assert!(logged.contains("level=warn") && logged.contains("event=redis-setting"), "{logged}");
        let (_, text) = status(&cluster, &[]);
        assert!(text.contains(&format!("redis         {setting}")), "{text}");
        wait_until("the page to show it", || get(address, "/status.json")?.1.contains(setting).then_some(()));
    }
    assert_eq!(status_json(&cluster)["redis_warnings"].as_array().map(Vec::len), Some(2));
    let metric = wait_until("the number of warnings", || {
        get(address, "/metrics")?.1.lines().find(|line| line.starts_with("oncecast_redis_warnings ")).map(str::to_owned)
    });
    assert!(metric.starts_with("oncecast_redis_warnings 2"), "{metric}");
}

/// Observers don't know what the group listens to; its leader tells them.
#[test]
fn keyspace_events_that_redis_does_not_publish_are_shown() {
    let cluster = Cluster::start(options(0, 1, "", "")).expect("it starts");
    let mut command: Command = cluster.command("oncecast-dispatcher").expect("the program is built");
    let consumer = cluster.address(0).to_string();
    command.args(["--dispatcher-id", "d0", "--consumers", &consumer]);
    command.args(["--keyevent", "expired,expierd", "--keyspace-db", "99"]);
    let dispatcher = ChildProcess::spawn("d0", command).expect("it starts");
    let logged = dispatcher.wait_for_line("check the spelling", DEADLINE).expect("it is logged at the start");
    assert!(logged.contains("event=redis-setting note=") && logged.contains("named expierd"), "{logged}");
    let shown = |words: &str| {
        wait_until("the status to show it", || {
            let (code, text) = status(&cluster, &[]);
            (code != 0 && text.lines().any(|line| line.starts_with("redis ") && line.contains(words))).then_some(())
        });
    };
    shown("CONFIG SET notify-keyspace-events Ex");
    shown("database 99, and the server has 16 databases");
}

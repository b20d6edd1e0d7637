//! `oncecast pending` lists and shows pending messages, and says where each of them is.

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use oncecast::wire::{Frame, NackDelay};
use serde_json::{Value, json};

use crate::support::peer::Peer;
use crate::support::scripted_group::Scripted;
use crate::support::{client, pend, programs, publish_payloads, redis_server, run, run_on, state, wait_until};

/// Runs the tool.
fn output(url: &str, arguments: &[&str]) -> Output {
    let mut command = programs().command("oncecast").expect("the program is built");
    let (action, rest) = arguments.split_first().expect("what to do");
    command.args(["pending", action, "--redis-url", url]).args(rest).stdin(Stdio::null());
    command.output().expect("it runs")
}

/// Its exit code and what it printed.
fn pending(url: &str, arguments: &[&str]) -> (i32, String) {
    let Output { status, stdout, .. } = output(url, arguments);
    (status.code().expect("it ends by itself"), String::from_utf8(stdout).expect("text"))
}

fn objects(url: &str, arguments: &[&str]) -> Vec<Value> {
    let (code, text) = pending(url, &[arguments, &["--json"]].concat());
    assert_eq!(code, 0, "{text}");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn id(number: u64) -> String {
    format!("{number:016x}")
}

#[test]
fn a_group_that_does_not_exist_is_named() {
    let Output { status, stdout, stderr } = output(&redis_server().url(), &["list", "--group", "oders"]);
    let log = String::from_utf8_lossy(&stderr);
    assert_eq!((status.code(), stdout), (Some(0), Vec::new()));
    assert!(log.contains("event=no-such-group group=oders database=0 missing=oders:pending,oders:recall"), "{log}");
}

#[test]
fn without_a_leader_messages_are_listed_oldest_first_and_their_place_is_unknown() {
    let redis = redis_server();
    let url = redis.url();
    let (seconds, _): (u64, u64) = run_on(&redis, &["TIME"]);
    for (age_s, payload) in [(1, "new"), (3_600, "old"), (60, "middle")] {
        pend(&redis, (seconds - age_s) * 1_000_000, payload);
    }
    let begin = Instant::now();
    let Output { status, stdout, stderr } = output(&url, &["list"]);
    let (text, log) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    let shown: Vec<&str> = text.lines().collect();
    assert!(status.success() && begin.elapsed() < Duration::from_secs(2), "no answer is awaited: {log}");
    assert_eq!((shown.len(), shown[4]), (5, "3 listed, 3 pending in messages:pending"), "{text}");
    assert!(shown[1].starts_with(&id((seconds - 3_600) * 1_000_000)) && shown[1].contains("1h 0m"), "{text}");
    assert!(shown[1].contains("  ?  "), "{text}");
    assert!(log.contains("event=where-unknown reason=\"no dispatcher leads\""), "{log}");
    let ages = |arguments: &[&str]| -> Vec<u64> {
        let listed = objects(&url, &[&["list"], arguments].concat());
        listed.iter().map(|one| one["age_s"].as_f64().expect("a number") as u64 / 60).collect()
    };
    assert_eq!(ages(&[]), [60, 1, 0]);
    assert_eq!(ages(&["--older-than", "50s"]), [60, 1]);
    assert_eq!(ages(&["--older-than", "2h"]), [0; 0]);
    assert_eq!(ages(&["--limit", "1"]), [60]);
    let (_, text) = pending(&url, &["list", "--limit", "2", "--no-ask"]);
    assert!(text.ends_with("2 listed, 3 pending in messages:pending; --limit 0 lists all\n"), "{text}");
}

#[test]
fn a_message_is_shown_with_its_payload() {
    let redis = redis_server();
    let url = redis.url();
    pend(&redis, 7, "{\"a\":1}");
    run_on::<i64>(&redis, &["ZADD", "messages:pending", "8", "0000000000000008@4:eu.1\u{1b}[31m"]);
    run_on::<i64>(&redis, &["HSET", "messages:attempts", "8", "3 2 9 1000 why"]);
    let shown = objects(&url, &["show", &id(7).to_uppercase(), &id(8)]);
    assert_eq!((&shown[0]["payload"], &shown[0]["channel"]), (&json!("{\"a\":1}"), &Value::Null));
    let second = ["channel", "payload", "bytes", "delivery", "replays"].map(|field| shown[1][field].clone());
    assert_eq!(second, [json!("eu.1"), json!("\u{1b}[31m"), json!(5), json!(3), json!(2)]);
    let (code, text) = pending(&url, &["show", &id(8)]);
    assert!(code == 0 && text.contains("payload           \\u{1b}[31m\n"), "{text:?}");
    let Output { status, stderr, .. } = output(&url, &["show", &id(9)]);
    let log = String::from_utf8_lossy(&stderr);
    assert!(status.code() == Some(3) && log.contains("event=not-pending ids=0000000000000009"), "{log}");
}

#[test]
fn the_leader_says_where_each_message_is() {
    let peer = Peer::bind("c0");
    let mut group = Scripted::start(&[&peer], "");
    let url = group.cluster.redis_url();
    let mut line = peer.accept(2);
    let connection = &mut group.client();
    publish_payloads(connection, ["1", "2", "3"]);
    let (first, ..) = line.next_message();
    let (second, ..) = line.next_message();
    wait_until("three to be stored", || (state(connection).0 == 3).then_some(()));
    let places = |url: &str| -> Vec<(String, Value)> {
        let listed = objects(url, &["list"]);
        listed.iter().map(|one| (one["id"].as_str().expect("an id").to_owned(), one["where"].clone())).collect()
    };
    let told = places(&url);
    let [(one, at_one), (two, at_two), (_, third)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((one, two), (&first.to_string(), &second.to_string()));
    for at in [at_one, at_two] {
        assert_eq!((&at["state"], &at["consumer"], &at["delivery"]), (&json!("at"), &json!("c0"), &json!(1)), "{at}");
        assert!(at["for_ms"].is_u64(), "{at}");
    }
    assert_eq!(third, &json!({ "state": "waiting" }));
    line.send(&[Frame::Nack { id: first, delay: NackDelay::AfterMs(3_600_000), reason: "later" }]);
    // The third message takes its place.
    line.next_message();
    let delayed = wait_until("the first one waits for its time", || {
        let due = &objects(&url, &["show", &first.to_string()])[0];
        // A look is no snapshot: the count may be from before the NACK.
        (due["where"]["state"] == "delayed" && due["delivery"] == 2).then(|| due.clone())
    });
    let due_ms = delayed["where"]["due_in_ms"].as_u64().expect("a time");
    assert!((3_000_000..=3_600_000).contains(&due_ms), "{delayed}");
    let () = run(connection, &["ZADD", "messages:pending", "5", &format!("{}:added by a stranger", id(5))]);
    assert_eq!(places(&url)[0], (id(5), json!({ "state": "unknown" })));
    let (_, text) = pending(&url, &["list"]);
    assert!(text.contains("  at c0 for ") && text.contains("waits for its time, in 59m "), "{text}");
    let keys: Vec<String> = run(connection, &["KEYS", "messages:status:where:*"]);
    assert!(!keys.is_empty(), "an answer stays for a while");
    let ttl: i64 = run(connection, &["PTTL", &keys[0]]);
    assert!(ttl > 0, "{ttl}");
}

#[test]
fn a_stopped_leader_is_not_waited_for_longer_than_said() {
    let redis = redis_server();
    pend(&redis, 1, "x");
    run_on::<()>(&redis, &["SET", "messages:leader", "d0-000000 5", "PX", "60000"]);
    let begin = Instant::now();
    let Output { status, stdout, stderr } = output(&redis.url(), &["list"]);
    let (text, log) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success() && text.contains("  ?  "), "{text}");
    assert!(log.contains("did not answer within 2 s"), "{log}");
    assert!(begin.elapsed() >= Duration::from_secs(2));
}

#[test]
fn thousands_are_paged_and_a_closed_pipe_ends_the_list() {
    const MESSAGES: usize = 30_000;
    let redis = redis_server();
    let add = "for i = 1, tonumber(ARGV[1]) do redis.call('ZADD', 'messages:pending', i, string.format('%016x', i) .. \
               ':' .. string.rep('x', 100)) end";
    let () = run_on(&redis, &["EVAL", add, "0", &MESSAGES.to_string()]);
    let (code, text) = pending(&redis.url(), &["list", "--limit", "0"]);
    let last = text.lines().last().expect("a line");
    assert_eq!((code, last), (0, "30000 listed, 30000 pending in messages:pending"));
    assert_eq!(text.lines().count(), MESSAGES + 2);
    let shell = programs().command("oncecast").expect("the program is built");
    let program = shell.get_program().to_string_lossy().into_owned();
    let line = format!("'{program}' pending list --limit 0 --redis-url {} | head -2", redis.url());
    let out = std::process::Command::new("bash").args(["-o", "pipefail", "-c", &line]).output().expect("it runs");
    assert!(out.status.success() && out.stdout.split(|byte| *byte == b'\n').count() == 3, "{out:?}");
}

#[test]
fn mistakes_are_named() {
    let redis = redis_server();
    let url = redis.url();
    for (arguments, part) in [
        (&["show"][..], "<ID>"),
        (&["show", "12"], "16 hexadecimal digits"),
        (&["list", "--older-than", "soon"], "--older-than"),
    ] {
        let Output { status, stderr, .. } = output(&url, arguments);
        let problem = String::from_utf8_lossy(&stderr);
        assert!(status.code() == Some(2) && problem.contains(part), "{arguments:?}: {problem}");
    }
    let () = run(&mut client(&url), &["SET", "messages:pending", "x"]);
    let Output { status, stderr, .. } = output(&url, &["list"]);
    let problem = String::from_utf8_lossy(&stderr);
    assert!(status.code() == Some(1) && problem.contains("messages:pending is a string"), "{problem}");
}

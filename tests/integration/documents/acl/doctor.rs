//! `oncecast doctor` names each right of the document that a user lacks, and its line grants it.

use oncecast::lab::RedisServer;
use serde_json::Value;

use super::users::{CONSUMER, DISPATCHER, OPERATOR, PUBLISHER, User, server_with, stream_user, url_of, users};
use crate::support::{client, programs, run};

/// The exit code, and what `oncecast doctor` says.
fn doctor(server: &RedisServer, name: &str, user: &User, args: &[&str]) -> (Option<i32>, Value) {
    let mut command = programs().command("oncecast").expect("the program is built");
    command.args(["doctor", "--json", "--redis-url", &url_of(server, name, user)]).args(args);
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), report)
}

/// Whether nothing at all is missing.
fn is_well(report: &Value) -> bool {
    let programs = report["programs"].as_array().expect("a list");
    programs.iter().all(|program| program["verdict"] == "works")
}

/// Takes each right away in turn. `cannot_be_tried` are those that no trial can find.
fn each_right_is_named(name: &str, user: &User, args: &[&str], cannot_be_tried: &[&str]) {
    let server = server_with([user]);
    let admin = &mut client(&server.url());
    let () = run(admin, &["SET", "somebody else's", "1"]);
    let (code, report) = doctor(&server, name, user, args);
    assert!(code == Some(0) && is_well(&report), "{report:#}");
    let rights = user.line[3..].iter().filter(|word| word.starts_with(['+', '~', '&']));
    for right in rights.filter(|right| !cannot_be_tried.contains(right)) {
        let without: Vec<&str> = user.line.iter().copied().filter(|word| word != right).collect();
        let () = run(admin, &without);
        let (code, report) = doctor(&server, name, user, args);
        let lines: Vec<&str> = report["programs"]
            .as_array()
            .expect("a list")
            .iter()
            .flat_map(|program| program["type"].as_array().expect("a list"))
            .filter_map(Value::as_str)
            .collect();
        assert!(!is_well(&report), "{name} lacks {right}, which is not found: {report:#}");
        assert_eq!(code, Some(if report["ok"] == true { 0 } else { 3 }), "{report:#}");
        let mut lines = lines.into_iter().peekable();
        assert!(lines.peek().is_some_and(|line| line.contains(right)), "{name} lacks {right}: {report:#}");
        for line in lines {
            let () = run(admin, &line.split(' ').collect::<Vec<_>>());
        }
        let (code, report) = doctor(&server, name, user, args);
        assert!(code == Some(0) && is_well(&report), "{name} was given {right} as it said: {report:#}");
        let keys: Vec<String> = run(admin, &["KEYS", "*"]);
        assert_eq!(keys, ["somebody else's"], "{name} lacks {right}");
    }
}

#[test]
fn each_right_of_a_dispatcher_is_named() {
    each_right_is_named(DISPATCHER, &users()[DISPATCHER], &["--program", "dispatcher"], &[]);
}

#[test]
fn each_right_of_a_dispatcher_into_a_stream_is_named() {
    each_right_is_named(DISPATCHER, &stream_user(), &["--program", "dispatcher", "--deliver", "stream"], &[]);
}

#[test]
fn each_right_of_a_consumer_is_named() {
    each_right_is_named(CONSUMER, &users()[CONSUMER], &["--program", "consumer"], &[]);
}

#[test]
fn each_right_of_a_publisher_but_that_to_the_channel_is_named() {
    let (user, args) = (&users()[PUBLISHER], ["--program", "publisher"]);
    each_right_is_named(PUBLISHER, user, &args, &["&messages:published"]);
    let (_, report) = doctor(&server_with([user]), PUBLISHER, user, &args);
    let note = report["programs"][0]["notes"][0].as_str().expect("a note");
    assert!(note.contains("ACL DRYRUN oncecast-publisher PUBLISH messages:published x"), "{note}");
}

#[test]
fn each_right_of_an_operator_is_named() {
    each_right_is_named(OPERATOR, &users()[OPERATOR], &["--program", "status,audit"], &[]);
}

//! `oncecast dead` lists, shows, replays and drops dead letters.

use std::process::{Output, Stdio};

use oncecast::lab::RedisServer;
use serde_json::{Value, json};

use crate::support::{client, pend, programs, redis_server, run, run_on, state, stream};

/// Runs the tool. Returns its exit code and what it printed.
fn dead(redis: &RedisServer, arguments: &[&str]) -> (i32, String) {
    let Output { status, stdout, .. } = output(redis, arguments);
    (status.code().expect("it ends by itself"), String::from_utf8(stdout).expect("text"))
}

fn output(redis: &RedisServer, arguments: &[&str]) -> Output {
    let mut command = programs().command("oncecast").expect("the program is built");
    let (action, rest) = arguments.split_first().expect("what to do");
    command.args(["dead", action, "--redis-url", &redis.url()]).args(rest).stdin(Stdio::null());
    command.output().expect("it runs")
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn id(number: u64) -> String {
    format!("{number:016x}")
}

/// Adds a letter. `entry`: the id of its entry.
fn add(redis: &RedisServer, entry: &str, number: u64, reason: &str, consumer: &str) {
    let (id, payload) = (id(number), format!("{{\"message_id\":\"m{number}\"}}"));
    let letter = ["XADD", "messages:dead", entry, "id", &id, "payload", &payload, "reason", reason];
    run_on::<String>(redis, &[&letter[..], &["deliveries", "8", "consumer", consumer]].concat());
}

/// Three letters: two old ones and one of now.
fn with_letters() -> RedisServer {
    let redis = redis_server();
    add(&redis, "1000-1", 1, "timeout after 5 s", "c0");
    add(&redis, "2000-1", 2, "no such customer", "c1");
    add(&redis, "*", 3, "timeout after 9 s", "c1");
    redis
}

#[test]
fn a_group_that_does_not_exist_is_named() {
    let redis = redis_server();
    let heard = |arguments: &[&str]| {
        let Output { status, stdout, stderr } = output(&redis, arguments);
        (status.code(), String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
    };
    for arguments in [&["list"][..], &["list", "--json"], &["replay", "--all", "--yes"]] {
        let (code, text, log) = heard(&[arguments, &["--group", "oders"]].concat());
        assert_eq!((code, text.contains("died")), (Some(0), false), "{text}");
        let named = "event=no-such-group group=oders database=0 missing=oders:dead,oders:recall";
        assert!(log.contains(named), "{arguments:?}: {log}");
    }
    // One that is led and well.
    let () = run_on(&redis, &["SET", "messages:recall", "5 R 0"]);
    let (code, text, log) = heard(&["list"]);
    assert!(code == Some(0) && text.ends_with("0 listed, 0 dead letters in messages:dead\n"), "{text}");
    assert_eq!(log, "");
}

#[test]
fn letters_are_listed_and_selected() {
    let redis = with_letters();
    let (code, text) = dead(&redis, &["list"]);
    let shown: Vec<&str> = text.lines().collect();
    assert_eq!((code, shown.len()), (0, 5), "{text}");
    assert!(shown[1].starts_with(&format!("{}  1970-01-01T00:00:01.000Z ", id(1))), "{text}");
    assert!(shown[1].ends_with("8        0        19  c0                timeout after 5 s"), "{text}");
    assert_eq!(shown[4], "3 listed, 3 dead letters in messages:dead");
    let (_, text) = dead(&redis, &["list", "--limit", "2"]);
    assert!(text.ends_with("2 listed, 3 dead letters in messages:dead; --limit 0 lists all\n"), "{text}");
    let selected = |arguments: &[&str]| -> Vec<u64> {
        let (code, text) = dead(&redis, &[&["list", "--json"], arguments].concat());
        assert_eq!(code, 0);
        let id = |letter: &Value| u64::from_str_radix(letter["id"].as_str().expect("an id"), 16).expect("a number");
        lines(&text).iter().map(id).collect()
    };
    assert_eq!(selected(&[]), [1, 2, 3]);
    assert_eq!(selected(&["--reason", "timeout*"]), [1, 3]);
    assert_eq!(selected(&["--reason", "*customer*"]), [2]);
    assert_eq!(selected(&["--consumer", "c1"]), [2, 3]);
    assert_eq!(selected(&["--since", "1h"]), [3]);
    assert_eq!(selected(&["--since", "1h", "--consumer", "c0"]), [0; 0]);
    assert_eq!(selected(&["--limit", "1"]), [1]);
}

#[test]
fn a_letter_is_shown_with_its_payload() {
    let redis = with_letters();
    let (code, text) = dead(&redis, &["show", &id(2)]);
    assert_eq!(code, 0);
    for line in
        ["reason            no such customer", "payload           {\"message_id\":\"m2\"}", "deliveries        8"]
    {
        assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
    }
    let (code, text) = dead(&redis, &["show", &id(1).to_uppercase(), &id(2), "--json"]);
    assert_eq!((code, lines(&text).len(), &lines(&text)[1]["payload"]), (0, 2, &json!("{\"message_id\":\"m2\"}")));
    let Output { status, stderr, .. } = output(&redis, &["show", &id(9)]);
    let log = String::from_utf8_lossy(&stderr);
    assert!(status.code() == Some(3) && log.contains("event=no-such-letter ids=0000000000000009"), "{log}");
}

#[test]
fn what_strangers_wrote_is_shown_escaped() {
    let redis = redis_server();
    let strange = "\x1b[31m<b>\r\nforged \u{202e} line \u{9b}1m";
    let letter = ["XADD", "messages:dead", "*", "id", strange, "payload", strange, "reason", strange];
    run_on::<String>(&redis, &[&letter[..], &["consumer", strange, "channel", strange, "deliveries", "1"]].concat());
    for arguments in [&["list"][..], &["list", "--json"]] {
        let (_, text) = dead(&redis, arguments);
        let plain = text.lines().all(|line| !line.chars().any(|c| c.is_control() || c == '\u{202e}'));
        assert!(plain && !text.lines().any(|line| line.starts_with("forged")), "{text:?}");
    }
}

#[test]
fn letters_are_replayed_by_condition_and_those_that_can_not_be_are_left() {
    let redis = with_letters();
    let connection = &mut client(&redis.url());
    let truncated = ["id", &id(4), "payload", "beg", "reason", "timeout", "deliveries", "0", "consumer", ""];
    run_on::<String>(&redis, &[&["XADD", "messages:dead", "*"], &truncated[..]].concat());
    let before = stream(connection, "messages:dead");
    let (code, text) = dead(&redis, &["replay", "--reason", "timeout*", "--dry-run"]);
    assert_eq!((code, text.as_str()), (0, "3 dead letters match; they would be replayed\n"));
    assert_eq!(stream(connection, "messages:dead"), before, "nothing was changed");
    let refused = output(&redis, &["replay", "--reason", "timeout*"]);
    let problem = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && problem.contains("--yes to agree"), "{problem}");
    let (code, text) = dead(&redis, &["replay", "--reason", "timeout*", "--yes", "--json"]);
    let counts = json!({"lane":0,"matching":3,"replayed":2,"gone":0,"pending":0,"truncated":1,"foreign":0});
    assert_eq!((code, lines(&text)), (3, vec![counts]));
    assert_eq!(state(connection), (2, 0, 2));
    // Without a leader they wait for the next.
    let members: Vec<String> = run(connection, &["ZRANGE", "messages:pending", "0", "-1"]);
    assert_eq!(members, [1, 3].map(|number| format!("{}:{{\"message_id\":\"m{number}\"}}", id(number))));
}

#[test]
fn letters_are_dropped() {
    let redis = with_letters();
    let connection = &mut client(&redis.url());
    assert_eq!(dead(&redis, &["drop", &id(2), &id(7), "--yes"]), (3, "1 of 1 matching dead letters dropped\n".into()));
    assert_eq!(state(connection), (0, 0, 2));
    assert_eq!(dead(&redis, &["drop", "--all", "--yes"]).0, 0);
    assert_eq!(dead(&redis, &["drop", "--all", "--yes"]), (0, "0 of 0 matching dead letters dropped\n".into()));
    assert_eq!(state(connection), (0, 0, 0));
}

#[test]
fn mistakes_are_named() {
    let redis = redis_server();
    for (arguments, part) in [
        (&["replay"][..], "--reason, --consumer or --since, or --all"),
        (&["drop", "--all", "--reason", "x"], "beside other conditions"),
        (&["show"], "<ID>"),
        (&["show", "12"], "16 hexadecimal digits"),
        (&["list", "--since", "soon"], "--since"),
    ] {
        let Output { status, stderr, .. } = output(&redis, arguments);
        let problem = String::from_utf8_lossy(&stderr);
        assert!(status.code() == Some(2) && problem.contains(part), "{arguments:?}: {problem}");
    }
    run_on::<()>(&redis, &["SET", "messages:dead", "x"]);
    let Output { status, stderr, .. } = output(&redis, &["drop", "--all", "--yes"]);
    let problem = String::from_utf8_lossy(&stderr);
    assert!(status.code() == Some(1) && problem.contains("messages:dead is a string"), "{problem}");
}

#[test]
fn many_letters_are_replayed_page_by_page() {
    const LETTERS: usize = 30_000;
    let redis = redis_server();
    let connection = &mut client(&redis.url());
    pend(&redis, 1, "x");
    let add = "for i = 1, tonumber(ARGV[1]) do redis.call('XADD', 'messages:dead', '*', 'id', \
               string.format('%016x', i), 'payload', string.rep('x', 100), 'deliveries', '8') end";
    let () = run(connection, &["EVAL", add, "0", &LETTERS.to_string()]);
    let (code, text) = dead(&redis, &["replay", "--all", "--yes"]);
    assert!(code == 3 && text.starts_with(&format!("{} of {LETTERS} matching", LETTERS - 1)), "{text}");
    assert!(text.contains("1 left: a message with this id is pending already"), "{text}");
    assert_eq!(state(connection), (LETTERS, 0, 1));
}

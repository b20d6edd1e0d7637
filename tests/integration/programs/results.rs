//! `oncecast results tail` follows the results.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oncecast::lab::RedisServer;
use serde_json::{Value, json};

use crate::support::{lasting_redis_server, programs, redis_server, run_on, wait_until};

/// A running tool. Killed when dropped.
struct Tail {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Tail {
    fn start(redis: &RedisServer, arguments: &[&str]) -> Tail {
        let mut command = programs().command("oncecast").expect("the program is built");
        command.args(["results", "tail", "--redis-url", &redis.url()]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let out = child.stdout.take().map(BufReader::new);
        Tail { child, out }
    }

    /// The next line's field `n`.
    fn next(&mut self) -> u64 {
        self.next_json()["fields"]["n"].as_str().expect("a field").parse().expect("a number")
    }

    fn next_json(&mut self) -> Value {
        let mut line = String::new();
        self.out.as_mut().expect("it is open").read_line(&mut line).expect("it is UTF-8");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
    }

    /// Waits until it has ended. Returns its exit code, what is left of its output, and its log.
    fn end(mut self) -> (Option<i32>, String, String) {
        let (mut rest, mut log) = (String::new(), String::new());
        self.out.take().expect("it is open").read_to_string(&mut rest).expect("text");
        self.child.stderr.take().expect("it is piped").read_to_string(&mut log).expect("text");
        (self.child.wait().expect("it ends").code(), rest, log)
    }
}

fn add(redis: &RedisServer, numbers: std::ops::Range<u64>) {
    numbers.for_each(|n| drop(run_on::<String>(redis, &["XADD", "messages:processed", "*", "n", &n.to_string()])));
}

/// Waits until a tool waits for entries.
fn wait_until_it_waits(redis: &RedisServer) {
    wait_until("the tool to wait", || {
        let clients: String = run_on(redis, &["CLIENT", "LIST"]);
        clients.lines().any(|client| client.contains("cmd=xread")).then_some(())
    });
}

#[test]
fn results_are_printed_as_they_come() {
    let redis = redis_server();
    add(&redis, 0..2);
    let mut tail = Tail::start(&redis, &[]);
    wait_until_it_waits(&redis);
    add(&redis, 2..4);
    assert_eq!((tail.next(), tail.next()), (2, 3));
    tail.signal(Signal::SIGINT);
    assert_eq!(tail.end(), (Some(0), String::new(), String::new()));
}

#[test]
fn it_waits_for_a_group_that_does_not_exist_and_names_it() {
    let redis = redis_server();
    let mut tail = Tail::start(&redis, &["--count", "1"]);
    wait_until_it_waits(&redis);
    add(&redis, 7..8);
    assert_eq!(tail.next(), 7);
    let (code, _, log) = tail.end();
    let named = "event=no-such-group group=messages database=0 missing=messages:processed,messages:recall";
    assert!(code == Some(0) && log.contains(named), "{log}");
}

#[test]
fn it_begins_where_it_is_told_and_ends_after_so_many() {
    let redis = redis_server();
    run_on::<String>(&redis, &["XADD", "messages:processed", "1000-1", "n", "0", "name", "x"]);
    add(&redis, 1..3);
    let begun = |arguments: &[&str]| -> Vec<String> {
        let (code, text, log) = Tail::start(&redis, arguments).end();
        assert_eq!((code, log.as_str()), (Some(0), ""));
        text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["fields"]["n"].to_string()).collect()
    };
    assert_eq!(begun(&["--from-start", "--count", "2"]), ["\"0\"", "\"1\""]);
    assert_eq!(begun(&["--since", "1h", "--count", "2"]), ["\"1\"", "\"2\""]);
    let first = Tail::start(&redis, &["--from-start", "--count", "1"]).next_json();
    let expected =
        json!({"lane": 0, "entry": "1000-1", "at": "1970-01-01T00:00:01.000Z", "fields": {"n": "0", "name": "x"}});
    assert_eq!(first, expected);
    run_on::<String>(&redis, &["XADD", "orders:messages", "*", "n", "9"]);
    let stream = ["--stream", "orders:messages", "--from-start", "--count", "1"];
    assert_eq!(begun(&stream), ["\"9\""]);
}

#[test]
fn it_survives_a_restart_of_redis_and_tells_what_was_trimmed() {
    let mut redis = lasting_redis_server();
    add(&redis, 0..2);
    let mut tail = Tail::start(&redis, &["--from-start"]);
    assert_eq!((tail.next(), tail.next()), (0, 1));
    redis.kill().expect("it runs");
    redis.start_again().expect("it starts again");
    add(&redis, 2..4);
    assert_eq!((tail.next(), tail.next()), (2, 3));
    // Stopped, it does not read what comes and goes.
    tail.signal(Signal::SIGSTOP);
    add(&redis, 4..14);
    run_on::<i64>(&redis, &["XTRIM", "messages:processed", "MAXLEN", "2"]);
    tail.signal(Signal::SIGCONT);
    let mut seen = tail.next();
    while seen != 13 {
        let next = tail.next();
        assert!(next > seen, "{next} after {seen}");
        seen = next;
    }
    tail.signal(Signal::SIGTERM);
    let (code, rest, log) = tail.end();
    assert!(code == Some(0) && rest.is_empty(), "{code:?} {rest}");
    assert!(log.contains("event=redis-recovered"), "{log}");
    let version: String = run_on(&redis, &["INFO", "server"]);
    assert!(version.contains("redis_version:6.") || log.contains("event=skipped entries="), "{log}");
}

#[test]
fn it_ends_when_its_reader_has_gone_although_nothing_comes() {
    let redis = redis_server();
    let mut tail = Tail::start(&redis, &[]);
    wait_until_it_waits(&redis);
    let Tail { child, out } = &mut tail;
    // Closes the pipe.
    *out = None;
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn mistakes_are_named() {
    let redis = redis_server();
    run_on::<()>(&redis, &["SET", "messages:processed", "x"]);
    for (arguments, code, part) in [
        (&["--since", "1m", "--from-start"][..], 2, "one of the two"),
        (&["--count", "0"], 2, "--count"),
        (&[], 1, "messages:processed is a string"),
    ] {
        let (ended, _, log) = Tail::start(&redis, arguments).end();
        assert!(ended == Some(code) && log.contains(part), "{arguments:?}: {log}");
    }
}

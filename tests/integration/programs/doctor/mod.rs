//! `oncecast doctor` on servers that lack something, and on none. It leaves nothing behind on any.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Output;
use std::thread;

use oncecast::lab::{RedisOptions, RedisServer, ports};
use serde_json::Value;

use crate::support::{programs, redis_server, run_on, wait_until};

mod clusters;
mod nodes;
mod places;
mod states;
mod users;

fn server_with(config: &[(&str, &str)]) -> RedisServer {
    let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    RedisServer::start(RedisOptions { config, ..RedisOptions::default() }).expect("a private Redis starts")
}

fn output_of(url: &str, args: &[&str]) -> Output {
    let mut command = programs().command("oncecast").expect("the program is built");
    command.args(["doctor", "--redis-url", url]).args(args).output().expect("it runs")
}

/// What is said of each program, by name.
fn report(url: &str, args: &[&str]) -> (Option<i32>, Value) {
    let output = output_of(url, &[&["--json"], args].concat());
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), report)
}

fn program<'a>(report: &'a Value, name: &str) -> &'a Value {
    let programs = report["programs"].as_array().expect("a list");
    programs.iter().find(|program| program["program"] == name).unwrap_or_else(|| panic!("no {name}: {report:#}"))
}

fn verdict<'a>(report: &'a Value, name: &str) -> &'a str {
    program(report, name)["verdict"].as_str().expect("a text")
}

/// The lines to type for a program.
fn lines(report: &Value, name: &str) -> Vec<String> {
    let lines = program(report, name)["type"].as_array().expect("a list");
    lines.iter().map(|line| line.as_str().expect("a text").to_owned()).collect()
}

/// Types a line as an administrator does, with quotes around words that have spaces.
fn type_line(server: &RedisServer, line: &str) {
    let parts = line.split('\'').enumerate();
    let words = parts.flat_map(|(at, part)| if at % 2 == 1 { vec![part] } else { part.split_whitespace().collect() });
    let () = run_on(server, &words.collect::<Vec<_>>());
}

/// Fails unless the server can't be examined, for this reason.
fn assert_unusable(url: &str, says: &str) {
    let output = output_of(url, &[]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && text.contains(says), "{url}: {output:?}");
    assert!(output.stdout.is_empty() && !text.contains("oncecast doctor"), "{output:?}");
}

fn keys(server: &RedisServer) -> Vec<String> {
    run_on(server, &["KEYS", "*"])
}

#[test]
fn every_program_works_with_a_plain_server_and_nothing_is_left() {
    let server = redis_server();
    for args in [&[][..], &["--deliver", "stream"], &["--pattern", "a.*", "--group", "[x]*"]] {
        let output = output_of(&server.url(), args);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert!(text.contains("dispatcher") && !text.contains("does not work"), "{text}");
        assert_eq!(keys(&server), [""; 0], "{args:?}");
    }
    let url = format!("{}/3", server.url());
    assert_eq!(report(&url, &[]).0, Some(0));
    assert!(run_on::<String>(&server, &["INFO", "keyspace"]).lines().all(|line| !line.starts_with("db")));
}

#[test]
fn a_renamed_command_is_named() {
    // Each is missed by the programs that need it, and is none of the command that tests need.
    for (command, needed_by, effect) in [
        ("ZADD", "dispatcher", "does not work"),
        ("EVAL", "consumer", "does not work"),
        ("EVALSHA", "dispatcher", "does not work"),
        ("PUBLISH", "publisher", "does not work"),
        ("SUBSCRIBE", "dispatcher", "does not work"),
        ("HELLO", "dispatcher", "does not work"),
        ("XADD", "consumer", "does not work"),
        ("PEXPIRE", "dispatcher", "does not work"),
        ("DEL", "dispatcher", "does not work"),
        ("MULTI", "consumer", "works slower"),
        ("WATCH", "dispatcher", "works slower"),
        ("MGET", "status", "works in part"),
        ("CONFIG", "dispatcher", "works"),
    ] {
        let server = server_with(&[("rename-command", &format!("{command} renamed-{command}"))]);
        let (code, report) = report(&server.url(), &[]);
        assert_eq!(verdict(&report, needed_by), effect, "{command}: {report:#}");
        assert_eq!(code, Some(if effect == "does not work" { 3 } else { 0 }), "{command}");
        assert!(report.to_string().contains(command), "{command}: {report:#}");
        assert_eq!(keys(&server), [""; 0], "{command}");
    }
}

#[test]
fn a_replica_is_named_with_its_primary() {
    let primary = redis_server();
    let replica = server_with(&[("replicaof", &format!("127.0.0.1 {}", primary.port()))]);
    wait_until("the replica to follow", || {
        let info: String = run_on(&replica, &["INFO", "replication"]);
        info.contains("master_link_status:up").then_some(())
    });
    let (code, report) = report(&replica.url(), &[]);
    assert_eq!(code, Some(3));
    assert!(["dispatcher", "consumer", "publisher"].iter().all(|name| verdict(&report, name) == "does not work"));
    let address = format!("a replica of 127.0.0.1:{}", primary.port());
    assert!(program(&report, "dispatcher").to_string().contains(&address), "{report:#}");
    assert_eq!(verdict(&report, "status"), "works in part");
    assert_eq!(keys(&primary), [""; 0]);
}

#[test]
fn a_full_server_is_named_with_the_line_that_helps() {
    let server = redis_server();
    let () = run_on(&server, &["CONFIG", "SET", "maxmemory", "1"]);
    let (code, report) = report(&server.url(), &[]);
    assert_eq!(
        (code, verdict(&report, "dispatcher"), verdict(&report, "consumer")),
        (Some(3), "does not work", "does not work")
    );
    assert_eq!(verdict(&report, "publisher"), "works");
    assert!(program(&report, "consumer")["type"].to_string().contains("CONFIG SET maxmemory 2"), "{report:#}");
    assert_eq!(keys(&server), [""; 0]);
}

#[test]
fn keyspace_events_that_are_off_are_named_and_the_line_helps() {
    let server = redis_server();
    let args = ["--keyevent", "expired", "--program", "dispatcher"];
    let (code, found) = report(&server.url(), &args);
    assert_eq!(code, Some(3), "{found:#}");
    let line = program(&found, "dispatcher")["type"][0].as_str().expect("a line").to_owned();
    let () = run_on(&server, &line.split(' ').collect::<Vec<_>>());
    assert_eq!(report(&server.url(), &args).0, Some(0));
}

#[test]
fn a_database_that_the_user_may_not_select_is_named() {
    let server = redis_server();
    let () = run_on(&server, &["ACL", "SETUSER", "u", "on", ">p", "allkeys", "allchannels", "+@all", "-select"]);
    let url = server.url().replace("redis://", "redis://u:p@") + "/3";
    let (code, found) = report(&url, &[]);
    assert_eq!(code, Some(3));
    let line = program(&found, "consumer")["type"][0].as_str().expect("a line").to_owned();
    let () = run_on(&server, &line.split(' ').collect::<Vec<_>>());
    assert_eq!(report(&url, &[]).0, Some(0));
}

#[test]
fn a_server_that_can_not_be_used_at_all_is_an_error() {
    let server = RedisServer::start(RedisOptions { password: Some("secret".to_owned()), ..RedisOptions::default() });
    let server = server.expect("a private Redis starts");
    let port = server.port();
    let nothing = ports::free_port().expect("a free port");
    let http = not_redis();
    for (url, says) in [
        (format!("redis://127.0.0.1:{nothing}"), "is Redis running there"),
        (format!("redis://127.0.0.1:{http}"), "this is not Redis"),
        (format!("redis://127.0.0.1:{port}"), "it requires a password"),
        (format!("redis://:wrong@127.0.0.1:{port}"), "check user and password"),
        (format!("{}/99", server.url()), "does not have"),
    ] {
        assert_unusable(&url, says);
    }
    let output = output_of(&server.url(), &["--program", "cook"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

/// The port of a web server.
fn not_redis() -> u16 {
    answering("HTTP/1.1 400 Bad Request\r\n\r\n")
}

/// The port of a server that answers this, whatever it is asked, and closes.
fn answering(text: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut received = [0; 4096];
            // It may be closed already.
            let _ = stream.read(&mut received);
            let _ = stream.write_all(text.as_bytes());
        }
    });
    port
}

/// Names and files of `--consumers` are followed by dispatchers, so the doctor tries what they lead to.
#[test]
fn the_consumers_of_a_dispatcher_are_tried() {
    let redis = redis_server();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let there = listener.local_addr().expect("it is bound");
    let nowhere = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    let file = redis.folder().join("consumers");
    std::fs::write(&file, format!("{there}\n{nowhere} # not started\n")).expect("the folder is ours");
    let file = format!("file:{}", file.display());

    let (code, found) = report(&redis.url(), &["--consumers", &format!("dns:localhost:{}", there.port())]);
    assert_eq!((code, &found["consumers"][0]["works"]), (Some(0), &Value::Bool(true)), "{found:#}");
    let (code, found) = report(&redis.url(), &["--consumers", &format!("{there},{file}")]);
    let [plain, listed] = [&found["consumers"][0], &found["consumers"][1]];
    assert_eq!((code, &plain["works"], &listed["works"]), (Some(3), &Value::Bool(true), &Value::Bool(false)));
    assert_eq!(listed["addresses"][0]["error"], Value::Null);
    assert!(listed["addresses"][1]["error"].as_str().is_some_and(|error| error.contains("refused")), "{listed:#}");

    let text = |args: &[&str]| String::from_utf8_lossy(&output_of(&redis.url(), args).stdout).into_owned();
    let shown = text(&["--consumers", &file]);
    assert!(shown.contains(&format!("\nconsumers:\n- {file}: 1 of 2 addresses reached; {nowhere}: ")), "{shown}");
    let shown = text(&["--consumers", "file:/nowhere/consumers,dns:name.invalid:1"]);
    assert!(shown.contains("- file:/nowhere/consumers: /nowhere/consumers: No such file"), "{shown}");
    assert!(shown.contains("- dns:name.invalid:1: failed to lookup"), "{shown}");
}

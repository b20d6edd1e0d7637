//! The user of `oncecast pending` and `oncecast results`: with its rights they work, and it can change nothing.

use std::collections::BTreeSet;

use oncecast::lab::ChildProcess;

use super::calls::Calls;
use super::needed::{DISPENSABLE, EVERYBODYS};
use super::users::{LOOK, OPERATOR, look_user, server_with, url_of};
use crate::support::{CHANNEL, DEADLINE, client, pend, programs, publish, run, skipped, state, wait_until};

#[test]
fn looking_needs_its_rights_and_no_others() {
    let user = look_user();
    let server = crate::support::redis_server();
    if server.version().expect("it answers").starts_with("redis 6.") {
        return skipped("Redis 6.2 has neither rights to only read a key nor scripts that only read");
    }
    drop(server);
    let server = server_with([&user]);
    let admin = &mut client(&server.url());
    let mut command = programs().command("oncecast-dispatcher").expect("the program is built");
    command.args(["--redis-url", &server.url(), "--dispatcher-id", "d0", "--consumers", "127.0.0.1:1"]);
    let dispatcher = ChildProcess::spawn("d0", command).expect("it starts");
    dispatcher.wait_for_line("event=taken-over", DEADLINE).expect("it leads");
    publish(admin, "m", 0..3);
    wait_until("three to wait", || (state(admin).0 == 3).then_some(()));
    let () = run(admin, &["HSET", "messages:attempts", "1", "2"]);
    pend(&server, 1, "x");
    let _: String = run(admin, &["XADD", "messages:processed", "*", "a", "b"]);
    let calls = Calls::watch(&server);
    let tool = |arguments: &[&str]| {
        let mut command = programs().command("oncecast").expect("the program is built");
        command.args(arguments).args(["--redis-url", &url_of(&server, LOOK, &user)]);
        let output = command.output().expect("it runs");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!log.contains("NOPERM") && !log.contains("where-unknown"), "{arguments:?}: {log}");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = tool(&["pending", "list", "--older-than", "1ms"]);
    assert!(code == Some(0) && text.contains("waits for a consumer"), "{text}");
    assert_eq!(tool(&["pending", "show", "0000000000000001"]).0, Some(0));
    assert_eq!(tool(&["results", "tail", "--since", "1h", "--count", "1"]).0, Some(0));
    // Nothing comes, so it waits in Redis.
    let mut command = programs().command("oncecast").expect("the program is built");
    command.args(["results", "tail", "--count", "1", "--redis-url", &url_of(&server, LOOK, &user)]);
    let mut tail = ChildProcess::spawn("tail", command).expect("it starts");
    wait_until("it to wait", || {
        let clients: String = run(admin, &["CLIENT", "LIST"]);
        clients.lines().any(|client| client.contains("cmd=xread")).then_some(())
    });
    let _: String = run(admin, &["XADD", "messages:processed", "*", "a", "b"]);
    assert!(tail.wait(DEADLINE).expect("it ends").success());
    // The key's type is named.
    let () = run(admin, &["SET", "messages:processed", "x"]);
    assert_eq!(tool(&["results", "tail", "--from-start"]).0, Some(1));

    calls.catch_up(admin);
    // A tool that has ended before its user is looked up counts as the operator's, and no other runs here.
    let mut by_user = calls.end(admin);
    let called = [LOOK, OPERATOR].into_iter().filter_map(|user| by_user.remove(user)).flatten();
    let called: BTreeSet<String> = called.map(|call| call.replace("xinfo", "xinfo|stream")).collect();
    // `EVAL_RO` is sent only if the script was forgotten.
    let missing: Vec<_> = user.may.difference(&called).filter(|command| *command != "eval_ro").collect();
    assert!(missing.is_empty(), "it needs no right to {missing:?}: {called:?}");
    let known: BTreeSet<&str> = DISPENSABLE.into_iter().chain(EVERYBODYS).collect();
    let beyond: Vec<_> = called.difference(&user.may).filter(|call| !known.contains(call.as_str())).collect();
    assert!(beyond.is_empty(), "{beyond:?}");

    let connection = &mut client(&url_of(&server, LOOK, &user));
    for words in [
        &["SET", "messages:leader", "x"][..],
        &["ZADD", "messages:pending", "1", "x"],
        &["XADD", "messages:processed", "*", "a", "b"],
        &["EVAL_RO", "return redis.call('DEL', KEYS[1])", "1", "messages:pending"],
        &["XRANGE", "messages:dead", "-", "+"],
        &["GET", "messages:epoch"],
        &["PUBLISH", CHANNEL, "x"],
        &["SUBSCRIBE", "messages:control"],
    ] {
        let reply: redis::RedisResult<redis::Value> = redis::cmd(words[0]).arg(&words[1..]).query(connection);
        assert!(reply.is_err(), "it may {words:?}: {reply:?}");
    }
}

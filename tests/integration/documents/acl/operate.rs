//! The user of `oncecast pause`, `resume` and `set`: its rights suffice, and each is needed.

use std::collections::BTreeSet;

use super::calls::Calls;
use super::needed::{DISPENSABLE, EVERYBODYS};
use super::users::{OPERATE, OPERATOR, operate_user, server_with, url_of};
use crate::support::{CHANNEL, client, programs, run, skipped};

#[test]
fn a_pause_needs_its_rights_and_no_others() {
    let user = operate_user();
    let server = crate::support::redis_server();
    if server.version().expect("it answers").starts_with("redis 6.") {
        return skipped("Redis 6.2 has no rights to only read a key");
    }
    drop(server);
    let server = server_with([&user]);
    let admin = &mut client(&server.url());
    // A leader that never reports.
    let () = run(admin, &["SET", "messages:leader", "d0-5f3a9c 5"]);
    let calls = Calls::watch(&server);
    let tool = |arguments: &[&str]| {
        let mut command = programs().command("oncecast").expect("the program is built");
        command.args(arguments).args(["--redis-url", &url_of(&server, OPERATE, &user)]);
        let output = command.output().expect("it runs");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!log.contains("NOPERM"), "{arguments:?}: {log}");
        output.status.code()
    };
    assert_eq!(tool(&["pause"]), Some(3), "the leader does not confirm it");
    let () = run(admin, &["DEL", "messages:leader"]);
    assert_eq!(tool(&["set", "--max-in-flight", "5"]), Some(0));
    assert_eq!(tool(&["resume"]), Some(0));
    let left: Vec<String> = run(admin, &["HKEYS", "messages:settings"]);
    assert_eq!(left, ["max_in_flight"]);
    // The key's type is named.
    let () = run(admin, &["SET", "messages:settings", "x"]);
    assert_eq!(tool(&["set"]), Some(1));

    calls.catch_up(admin);
    // A tool that has ended before its user is looked up counts as the operator's, and no other runs here.
    let mut by_user = calls.end(admin);
    let called = [OPERATE, OPERATOR].into_iter().filter_map(|user| by_user.remove(user)).flatten();
    let called: BTreeSet<String> = called.collect();
    // `EVAL` is sent only if the script was forgotten.
    let missing: Vec<_> = user.may.difference(&called).filter(|command| *command != "eval").collect();
    assert!(missing.is_empty(), "it needs no right to {missing:?}: {called:?}");
    let known: BTreeSet<&str> = DISPENSABLE.into_iter().chain(EVERYBODYS).collect();
    let beyond: Vec<_> = called.difference(&user.may).filter(|call| !known.contains(call.as_str())).collect();
    assert!(beyond.is_empty(), "{beyond:?}");

    let connection = &mut client(&url_of(&server, OPERATE, &user));
    for words in [
        &["SET", "messages:cursor", "x"][..],
        &["HSET", "messages:leader", "a", "b"],
        &["HDEL", "messages:attempts", "1"],
        &["GET", "messages:epoch"],
        &["XRANGE", "messages:processed", "-", "+"],
        &["PUBLISH", CHANNEL, "x"],
        &["SUBSCRIBE", "messages:control"],
    ] {
        let reply: redis::RedisResult<redis::Value> = redis::cmd(words[0]).arg(&words[1..]).query(connection);
        assert!(reply.is_err(), "it may {words:?}: {reply:?}");
    }
}

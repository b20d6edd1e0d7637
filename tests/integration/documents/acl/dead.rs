//! The user of `oncecast dead`: its rights suffice, and each is needed.

use std::collections::BTreeSet;

use super::calls::Calls;
use super::needed::{DISPENSABLE, EVERYBODYS};
use super::users::{DEAD, OPERATOR, dead_user, server_with, url_of};
use crate::support::{CHANNEL, client, programs, run, state};

#[test]
fn dead_letters_need_their_rights_and_no_others() {
    let user = dead_user();
    let server = server_with([&user]);
    let admin = &mut client(&server.url());
    let () = run(admin, &["SET", "messages:recall", "5 R 0"]);
    let add = |admin: &mut redis::Connection, id: &str| -> String {
        run(admin, &["XADD", "messages:dead", "*", "id", id, "payload", "x", "deliveries", "8"])
    };
    for id in ["0000000000000001", "0000000000000002"] {
        add(admin, id);
    }
    let calls = Calls::watch(&server);
    let tool = |arguments: &[&str]| {
        let mut command = programs().command("oncecast").expect("the program is built");
        command.arg("dead").args(arguments).args(["--redis-url", &url_of(&server, DEAD, &user)]);
        let output = command.output().expect("it runs");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!log.contains("NOPERM"), "{arguments:?}: {log}");
        output.status.code()
    };
    assert_eq!(tool(&["list", "--since", "1h"]), Some(0));
    assert_eq!(tool(&["show", "0000000000000001"]), Some(0));
    assert_eq!(tool(&["replay", "0000000000000001", "--yes"]), Some(0));
    assert_eq!(tool(&["drop", "--all", "--yes"]), Some(0));
    assert_eq!(state(admin), (1, 0, 0));
    // The key's type is named.
    let () = run(admin, &["SET", "messages:dead", "x"]);
    assert_eq!(tool(&["list"]), Some(1));

    calls.catch_up(admin);
    // A tool that has ended before its user is looked up counts as the operator's, and no other runs here.
    let mut by_user = calls.end(admin);
    let called = [DEAD, OPERATOR].into_iter().filter_map(|user| by_user.remove(user)).flatten();
    let called: BTreeSet<String> = called.collect();
    // `EVAL` is sent only if the script was forgotten.
    let missing: Vec<_> = user.may.difference(&called).filter(|command| *command != "eval").collect();
    assert!(missing.is_empty(), "it needs no right to {missing:?}: {called:?}");
    let known: BTreeSet<&str> = DISPENSABLE.into_iter().chain(EVERYBODYS).collect();
    let beyond: Vec<_> = called.difference(&user.may).filter(|call| !known.contains(call.as_str())).collect();
    assert!(beyond.is_empty(), "{beyond:?}");

    let connection = &mut client(&url_of(&server, DEAD, &user));
    for words in [
        &["SET", "messages:cursor", "x"][..],
        &["SET", "messages:epoch", "9"],
        &["XADD", "messages:processed", "*", "a", "b"],
        &["XRANGE", "messages:processed", "-", "+"],
        &["PUBLISH", CHANNEL, "x"],
        &["SUBSCRIBE", "messages:control"],
        &["DEL", "messages:pending"],
    ] {
        let reply: redis::RedisResult<redis::Value> = redis::cmd(words[0]).arg(&words[1..]).query(connection);
        assert!(reply.is_err(), "it may {words:?}: {reply:?}");
    }
}

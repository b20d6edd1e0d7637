//! The user of `oncecast pending` and `oncecast results`: with its rights they work, and it can change nothing.

use oncecast::lab::ChildProcess;

use super::calls::Calls;
use super::tools::ToolsUser;
use super::users::{LOOK, look_user, server_with};
use crate::support::{CHANNEL, DEADLINE, client, pend, programs, publish, run, skipped, state, wait_until};

#[test]
fn looking_needs_its_rights_and_no_others() {
    let user = look_user();
    let server = crate::support::redis_server();
    if server.version().expect("it answers").starts_with("redis 6.") {
        return skipped("Redis 6.2 has neither rights to only read a key nor scripts that only read");
    }
    drop(server);
    let server = &server_with([&user]);
    let user = ToolsUser { name: LOOK, user: &user, server };
    let admin = &mut client(&server.url());
    let mut command = programs().command("oncecast-dispatcher").expect("the program is built");
    command.args(["--redis-url", &server.url(), "--dispatcher-id", "d0", "--consumers", "127.0.0.1:1"]);
    let dispatcher = ChildProcess::spawn("d0", command).expect("it starts");
    dispatcher.wait_for_line("event=taken-over", DEADLINE).expect("it leads");
    publish(admin, "m", 0..3);
    wait_until("three to wait", || (state(admin).0 == 3).then_some(()));
    let () = run(admin, &["HSET", "messages:attempts", "1", "2"]);
    pend(server, 1, "x");
    let _: String = run(admin, &["XADD", "messages:processed", "*", "a", "b"]);
    let calls = Calls::watch(server);
    let (code, text) = user.run(&["pending", "list", "--older-than", "1ms"]);
    assert!(code == Some(0) && text.contains("waits for a consumer"), "{text}");
    assert_eq!(user.run(&["pending", "show", "0000000000000001"]).0, Some(0));
    assert_eq!(user.run(&["results", "tail", "--since", "1h", "--count", "1"]).0, Some(0));
    // Nothing comes, so it waits in Redis.
    let command = user.command(&["results", "tail", "--count", "1"]);
    let mut tail = ChildProcess::spawn("tail", command).expect("it starts");
    wait_until("it to wait", || {
        let clients: String = run(admin, &["CLIENT", "LIST"]);
        clients.lines().any(|client| client.contains("cmd=xread")).then_some(())
    });
    let _: String = run(admin, &["XADD", "messages:processed", "*", "a", "b"]);
    assert!(tail.wait(DEADLINE).expect("it ends").success());
    // The key's type is named.
    let () = run(admin, &["SET", "messages:processed", "x"]);
    assert_eq!(user.run(&["results", "tail", "--from-start"]).0, Some(1));

    user.assert_needed(calls, admin);
    user.assert_refused(&[
        &["SET", "messages:leader", "x"],
        &["ZADD", "messages:pending", "1", "x"],
        &["XADD", "messages:processed", "*", "a", "b"],
        &["EVAL_RO", "return redis.call('DEL', KEYS[1])", "1", "messages:pending"],
        &["XRANGE", "messages:dead", "-", "+"],
        &["GET", "messages:epoch"],
        &["PUBLISH", CHANNEL, "x"],
        &["SUBSCRIBE", "messages:control"],
    ]);
}

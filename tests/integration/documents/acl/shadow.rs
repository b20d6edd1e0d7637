//! The user of a shadow: with its rights a shadow compares, and it may write nothing but its report.

use std::time::Duration;

use oncecast::lab::ChildProcess;

use super::calls::Calls;
use super::tools::ToolsUser;
use super::users::{SHADOW, server_with, shadow_user, url_of};
use crate::support::{CHANNEL, DEADLINE, client, programs, publish, redis_server, run, state, wait_until};

/// What the document says to write for Redis 6.2.
fn for_redis_6(word: &'static str) -> &'static str {
    match word {
        "%R~messages:*" => "~messages:*",
        "+evalsha_ro" => "+evalsha",
        "+eval_ro" => "+eval",
        "+xinfo|stream" => "+xinfo",
        "(+set" => "+set",
        "~messages:status:shadow:*)" => "~messages:status:shadow:*",
        other => other,
    }
}

#[test]
fn a_shadow_needs_its_rights_and_may_write_only_its_report() {
    let is_old = redis_server().version().expect("it answers").starts_with("redis 6.");
    let mut user = shadow_user();
    if is_old {
        user.line = user.line.into_iter().map(for_redis_6).collect();
    }
    let server = &server_with([&user]);
    let user = ToolsUser { name: SHADOW, user: &user, server };
    let admin = &mut client(&server.url());
    let _: String = run(admin, &["XADD", "messages:dead", "*", "payload", "from before"]);
    let calls = Calls::watch(server);
    let start = |name: &str, url: &str, args: &[&str]| {
        let mut command = programs().command("oncecast-dispatcher").expect("the program is built");
        command.args(["--redis-url", url, "--dispatcher-id", name]).args(args);
        ChildProcess::spawn(name, command).expect("it starts")
    };
    let dispatcher = start("d0", &server.url(), &["--consumers", "127.0.0.1:1"]);
    dispatcher.wait_for_line("event=taken-over", DEADLINE).expect("it leads");
    let mut shadow = start("s0", &url_of(server, user.name, user.user), &["--shadow"]);
    shadow.wait_for_line("event=comparing", DEADLINE).expect("it compares");
    let report = |admin: &mut redis::Connection| {
        let keys: Vec<String> = run(admin, &["KEYS", "messages:status:shadow:s0-*"]);
        let report: Option<String> = run(admin, &["GET", keys.first()?]);
        report
    };
    publish(admin, "m", 0..100);
    wait_until("a comparison", || report(admin).filter(|report| report.contains("\"heard\":100,\"stored\":100")));
    assert_eq!(state(admin).0, 100);
    drop(dispatcher);
    // Longer than a listener waits before it pings.
    std::thread::sleep(Duration::from_millis(2_500));
    calls.catch_up(admin);
    assert!(shadow.stop(DEADLINE).expect("it ends").success());
    let log = shadow.stderr().tail(1_000);
    assert!(!log.contains("NOPERM") && !log.contains("event=redis-trouble"), "{log}");
    assert_eq!(report(admin), None, "it has removed its report");

    if is_old {
        return;
    }
    user.assert_called(calls.end(admin).remove(SHADOW).expect("it has called some"));
    let write = "return redis.call('SET', KEYS[1], '8')";
    user.assert_refused(&[
        &["SET", "messages:cursor", "x"],
        &["SET", "messages:status:d0-012345", "x"],
        &["SET", "others", "x"],
        &["DEL", "messages:pending"],
        &["EVAL_RO", write, "1", "messages:epoch"],
        &["EVAL", write, "1", "messages:epoch"],
        &["PUBLISH", "messages:control", "released 7"],
        &["PUBLISH", CHANNEL, "x"],
        &["XADD", "messages:dead", "*", "a", "b"],
        &["ZADD", "messages:pending", "1", "x"],
        &["GET", "others"],
        &["SUBSCRIBE", "messages:alive:s0-012345"],
    ]);
}

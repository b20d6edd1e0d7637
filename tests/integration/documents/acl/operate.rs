//! The user of `oncecast pause`, `resume` and `set`: its rights suffice, and each is needed.

use super::calls::Calls;
use super::tools::ToolsUser;
use super::users::{OPERATE, operate_user, server_with};
use crate::support::{CHANNEL, client, run, skipped};

#[test]
fn a_pause_needs_its_rights_and_no_others() {
    let user = operate_user();
    let server = crate::support::redis_server();
    if server.version().expect("it answers").starts_with("redis 6.") {
        return skipped("Redis 6.2 has no rights to only read a key");
    }
    drop(server);
    let server = &server_with([&user]);
    let user = ToolsUser { name: OPERATE, user: &user, server };
    let admin = &mut client(&server.url());
    // A leader that never reports.
    let () = run(admin, &["SET", "messages:leader", "d0-5f3a9c 5"]);
    let calls = Calls::watch(server);
    assert_eq!(user.run(&["pause"]).0, Some(3), "the leader does not confirm it");
    let () = run(admin, &["DEL", "messages:leader"]);
    assert_eq!(user.run(&["set", "--max-in-flight", "5"]).0, Some(0));
    assert_eq!(user.run(&["resume"]).0, Some(0));
    let left: Vec<String> = run(admin, &["HKEYS", "messages:settings"]);
    assert_eq!(left, ["max_in_flight"]);
    // The key's type is named.
    let () = run(admin, &["SET", "messages:settings", "x"]);
    assert_eq!(user.run(&["set"]).0, Some(1));

    user.assert_needed(calls, admin);
    user.assert_refused(&[
        &["SET", "messages:cursor", "x"],
        &["HSET", "messages:leader", "a", "b"],
        &["HDEL", "messages:attempts", "1"],
        &["GET", "messages:epoch"],
        &["XRANGE", "messages:processed", "-", "+"],
        &["PUBLISH", CHANNEL, "x"],
        &["SUBSCRIBE", "messages:control"],
    ]);
}

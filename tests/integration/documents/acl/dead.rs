//! The user of `oncecast dead`: its rights suffice, and each is needed.

use super::calls::Calls;
use super::tools::ToolsUser;
use super::users::{DEAD, dead_user, server_with};
use crate::support::{CHANNEL, client, run, state};

#[test]
fn dead_letters_need_their_rights_and_no_others() {
    let user = dead_user();
    let server = &server_with([&user]);
    let user = ToolsUser { name: DEAD, user: &user, server };
    let admin = &mut client(&server.url());
    let () = run(admin, &["SET", "messages:recall", "5 R 0"]);
    let add = |admin: &mut redis::Connection, id: &str| -> String {
        run(admin, &["XADD", "messages:dead", "*", "id", id, "payload", "x", "deliveries", "8"])
    };
    for id in ["0000000000000001", "0000000000000002"] {
        add(admin, id);
    }
    let calls = Calls::watch(server);
    assert_eq!(user.run(&["dead", "list", "--since", "1h"]).0, Some(0));
    assert_eq!(user.run(&["dead", "show", "0000000000000001"]).0, Some(0));
    assert_eq!(user.run(&["dead", "replay", "0000000000000001", "--yes"]).0, Some(0));
    assert_eq!(user.run(&["dead", "drop", "--all", "--yes"]).0, Some(0));
    assert_eq!(state(admin), (1, 0, 0));
    // The key's type is named.
    let () = run(admin, &["SET", "messages:dead", "x"]);
    assert_eq!(user.run(&["dead", "list"]).0, Some(1));

    user.assert_needed(calls, admin);
    user.assert_refused(&[
        &["SET", "messages:cursor", "x"],
        &["SET", "messages:epoch", "9"],
        &["XADD", "messages:processed", "*", "a", "b"],
        &["XRANGE", "messages:processed", "-", "+"],
        &["PUBLISH", CHANNEL, "x"],
        &["SUBSCRIBE", "messages:control"],
        &["DEL", "messages:pending"],
    ]);
}

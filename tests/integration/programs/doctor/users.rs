//! What the doctor says of users: of whom a server does not know, and whose rights are of another form.

use oncecast::lab::RedisServer;

use super::{assert_unusable, keys, lines, program, report, server_with, type_line, verdict};
use crate::support::{is_too_old, redis_server, run_on};

fn set_user(server: &RedisServer, rights: &str) {
    let words: Vec<&str> = ["ACL", "SETUSER"].into_iter().chain(rights.split(' ')).collect();
    let () = run_on(server, &words);
}

/// The server's URL with a user.
fn url_of(server: &RedisServer, login: &str) -> String {
    server.url().replace("redis://", &format!("redis://{login}@"))
}

#[test]
fn a_login_that_the_server_refuses_is_an_error() {
    let server = redis_server();
    set_user(&server, "u on >of-zero ~* &* +@all -select");
    // The same user as on another server, with its password there.
    assert_unusable(&url_of(&server, "u:elsewhere"), "check user and password");
    assert_unusable(&url_of(&server, "nobody:p"), "check user and password");
    // The same user in another database.
    let (code, found) = report(&format!("{}/1", url_of(&server, "u:of-zero")), &[]);
    assert_eq!((code, lines(&found, "status")), (Some(3), vec!["ACL SETUSER u +select".to_owned()]), "{found:#}");
    let admin = &mut crate::support::client(&server.url());
    let () = crate::support::run(admin, &["ACL", "SETUSER", "default", "off"]);
    assert_unusable(&server.url(), "it requires a password");
    assert_eq!(report(&url_of(&server, "u:of-zero"), &[]).0, Some(0));
    let () = crate::support::run(admin, &["ACL", "SETUSER", "u", "off"]);
    assert_unusable(&url_of(&server, "u:of-zero"), "check user and password");
}

#[test]
fn a_publisher_who_may_not_subscribe_works_and_one_with_another_channel_does_not() {
    let server = redis_server();
    let publisher = |rights: &str| {
        set_user(&server, &format!("p reset resetchannels on >p +ping +publish {rights}"));
        report(&url_of(&server, "p:p"), &["--program", "publisher"])
    };
    let (code, found) = publisher("&messages:published");
    assert_eq!((code, verdict(&found, "publisher")), (Some(0), "works"), "{found:#}");
    let note = program(&found, "publisher")["notes"][0].as_str().expect("a note").to_owned();
    let version = server.version().expect("it answers");
    // The line that the note has for this server is accepted by it.
    let line = if version.starts_with("redis 6.") {
        note.split_once("before Redis 7: ").expect("a line").1.trim_end_matches(')')
    } else {
        note.split_once("can ask: ").and_then(|(_, rest)| rest.split_once(" (before")).expect("a line").0
    };
    type_line(&server, line);
    // What it may subscribe to it may publish on.
    let (code, found) = publisher("&another +subscribe");
    assert_eq!((code, verdict(&found, "publisher")), (Some(3), "does not work"), "{found:#}");
    for line in lines(&found, "publisher") {
        type_line(&server, &line);
    }
    let (code, found) = report(&url_of(&server, "p:p"), &["--program", "publisher"]);
    assert_eq!((code, &program(&found, "publisher")["notes"]), (Some(0), &serde_json::json!([])), "{found:#}");
}

/// Commands and keys may each be there, and not together.
#[test]
fn rights_in_several_selectors_are_told_from_rights_that_fit() {
    let server = redis_server();
    if is_too_old(&server, "has no selectors") {
        return;
    }
    let url = url_of(&server, "s:p");
    set_user(&server, "s on >p (~messages:* &messages:* +@all)");
    let (code, found) = report(&url, &["--program", "dispatcher,consumer,status,audit"]);
    assert_eq!(code, Some(0), "{found:#}");
    assert!(found["programs"].as_array().expect("a list").iter().all(|program| program["verdict"] == "works"));
    set_user(&server, "s clearselectors (~messages:* &messages:* +@all -zadd) (~other:* +@all)");
    let (code, found) = report(&url, &["--program", "consumer"]);
    assert_eq!((code, verdict(&found, "consumer")), (Some(3), "does not work"), "{found:#}");
    assert!(program(&found, "consumer").to_string().contains("not together with ZADD"), "{found:#}");
    for line in lines(&found, "consumer") {
        type_line(&server, &line);
    }
    let (code, found) = report(&url, &["--program", "consumer"]);
    assert_eq!((code, verdict(&found, "consumer")), (Some(0), "works"), "{found:#}");
    assert_eq!(keys(&server), [""; 0]);
}

/// Redis 7 distinguishes reading a key from writing it.
#[test]
fn a_key_that_may_only_be_read_is_named() {
    let server = redis_server();
    if is_too_old(&server, "has no rights to read a key only") {
        return;
    }
    set_user(&server, "r on >p &* +@all ~messages:put-back:* %R~messages:*");
    let (code, found) = report(&url_of(&server, "r:p"), &["--program", "consumer,status,audit"]);
    assert_eq!((code, verdict(&found, "consumer"), verdict(&found, "status")), (Some(3), "does not work", "works"));
    assert!(program(&found, "consumer").to_string().contains("may not write messages:pending"), "{found:#}");
    for line in lines(&found, "consumer") {
        type_line(&server, &line);
    }
    assert_eq!(verdict(&report(&url_of(&server, "r:p"), &["--program", "consumer"]).1, "consumer"), "works");
}

#[test]
fn users_of_an_acl_file_are_found_and_saved_as_it_says() {
    let folder = oncecast::lab::folder::PrivateFolder::create("acl").expect("a folder");
    let file = folder.path().join("users.acl");
    let rights = "~messages:* resetchannels &messages:* +@all -zadd";
    std::fs::write(&file, format!("user default on nopass ~* &* +@all\nuser f on >p {rights}\n")).expect("a file");
    let server = server_with(&[("aclfile", &file.display().to_string())]);
    let (code, found) = report(&url_of(&server, "f:p"), &["--program", "consumer"]);
    assert_eq!((code, lines(&found, "consumer")), (Some(3), vec!["ACL SETUSER f +zadd".to_owned()]), "{found:#}");
    type_line(&server, "ACL SETUSER f +zadd");
    type_line(&server, "ACL SAVE");
    type_line(&server, "ACL LOAD");
    assert_eq!(report(&url_of(&server, "f:p"), &["--program", "consumer"]).0, Some(0));
}

/// Sharded channels need rights of their own, which the doctor names.
#[test]
fn the_rights_for_sharded_channels_are_told() {
    let server = redis_server();
    if is_too_old(&server, "has no sharded channels") {
        return;
    }
    set_user(&server, "d reset resetchannels on >p ~messages:* &messages:alive:* +@all -ssubscribe -spublish");
    set_user(&server, "p reset resetchannels on >p +ping");
    for (user, program_name) in [("d", "dispatcher"), ("p", "publisher")] {
        let url = url_of(&server, &format!("{user}:p"));
        let args = ["--program", program_name, "--sharded-channel", "orders"];
        let (code, found) = report(&url, &args);
        assert_eq!((code, verdict(&found, program_name)), (Some(3), "does not work"), "{found:#}");
        let needed = lines(&found, program_name).join(" ");
        assert!(needed.contains("+spublish"), "{needed}");
        // Rights to channels are told once the commands are allowed.
        for _ in 0..2 {
            for line in lines(&report(&url, &args).1, program_name) {
                type_line(&server, &line);
            }
        }
        let (code, found) = report(&url, &args);
        assert_eq!((code, verdict(&found, program_name)), (Some(0), "works"), "{found:#}");
    }
    assert_eq!(keys(&server), [""; 0]);
}

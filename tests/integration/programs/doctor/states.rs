//! What the doctor says of a server's state and settings.

use std::net::UdpSocket;

use oncecast::lab::{RedisOptions, RedisServer, ports};

use super::{answering, assert_unusable, output_of, report, server_with, type_line, verdict};
use crate::support::certificates::redis_tls;
use crate::support::{client, is_too_old, redis_server, run_on, skipped, wait_until};

#[test]
fn a_server_that_is_busy_or_loading_is_an_error() {
    let server = server_with(&[("lua-time-limit", "20")]);
    let url = server.url();
    let script = std::thread::spawn(move || {
        // It ends with an error, when it is killed.
        let _: redis::RedisResult<()> = redis::cmd("EVAL").arg("while true do end").arg(0).query(&mut client(&url));
    });
    let admin = &mut redis::Client::open(server.url()).expect("a URL").get_connection().expect("it accepts");
    wait_until("the script to be noticed", || {
        let pong: redis::RedisResult<String> = redis::cmd("PING").query(admin);
        pong.is_err_and(|error| error.to_string().contains("busy")).then_some(())
    });
    assert_unusable(&server.url(), "SCRIPT KILL ends it");
    let () = redis::cmd("SCRIPT").arg("KILL").query(admin).expect("it has written nothing");
    script.join().expect("it ends");
    assert_eq!(report(&server.url(), &[]).0, Some(0));
    let loading = answering("-LOADING Redis is loading the dataset in memory\r\n");
    assert_unusable(&format!("redis://127.0.0.1:{loading}"), "it reads its data after a start");
}

#[test]
fn a_replica_without_its_primary_is_an_error() {
    let nothing = ports::free_port().expect("a free port");
    let server = redis_server();
    // There the doctor reports a replica, like any other.
    if is_too_old(&server, "answers PING without the primary") {
        return;
    }
    let () = run_on(&server, &["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    let () = run_on(&server, &["REPLICAOF", "127.0.0.1", &nothing.to_string()]);
    assert_unusable(&server.url(), "names a replica; it must name the primary");
}

#[test]
fn a_server_without_a_free_connection_is_an_error() {
    let server = redis_server();
    let mut held = client(&server.url());
    let () = crate::support::run(&mut held, &["CONFIG", "SET", "maxclients", "1"]);
    assert_unusable(&server.url(), "CONFIG SET maxclients");
}

#[test]
fn protected_mode_is_an_error() {
    // Nothing is sent: this only finds out which address of this machine is used for others.
    let outside = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    let Ok(address) = outside.map(|address| address.ip()) else {
        return skipped("this machine has no address but loopback");
    };
    let server = server_with(&[("bind", "0.0.0.0")]);
    if is_too_old(&server, "has no protected mode with `bind`") {
        return;
    }
    assert_unusable(&format!("redis://{address}:{}", server.port()), "give it a password");
}

#[test]
fn tls_that_fails_is_an_error() {
    let server = RedisServer::start(RedisOptions { tls: Some(redis_tls(false)), ..RedisOptions::default() });
    // Only the server on PATH must have TLS.
    if server.is_err() && std::env::var_os("ONCECAST_TEST_SERVER").is_some() {
        return skipped("this server was built without TLS");
    }
    let server = server.expect("a private Redis starts");
    let tls = server.tls_port().expect("it has TLS");
    assert_unusable(&format!("redis://127.0.0.1:{tls}"), "must begin with rediss://");
    assert_unusable(&format!("rediss://127.0.0.1:{tls}"), "--redis-ca");
    assert_unusable(&format!("rediss://127.0.0.1:{}", server.port()), "TLS");
}

/// The server works, and each of these settings is a warning or a note with the line that corrects it.
#[test]
fn settings_that_endanger_the_guarantees_have_a_line_that_helps() {
    let server = server_with(&[
        ("maxmemory", "100mb"),
        ("maxmemory-policy", "allkeys-lru"),
        ("client-output-buffer-limit", "pubsub 1mb 1mb 10"),
        ("timeout", "100"),
        ("maxclients", "100"),
    ]);
    let mut held: Vec<_> = (0..92).map(|_| client(&server.url())).collect();
    let (code, found) = report(&server.url(), &[]);
    assert_eq!((code, verdict(&found, "dispatcher")), (Some(0), "works"), "{found:#}");
    let settings = found["server"].as_array().expect("a list");
    for (name, is_note) in [
        ("maxmemory-policy is allkeys-lru", false),
        ("client-output-buffer-limit pubsub is 1048576", false),
        ("maxclients, 100, allows", false),
        ("timeout is 100", true),
        ("appendonly is no", true),
    ] {
        let is_it = |setting: &&serde_json::Value| setting["text"].as_str().is_some_and(|text| text.contains(name));
        let setting = settings.iter().find(is_it).unwrap_or_else(|| panic!("no {name}: {found:#}"));
        assert_eq!(setting["note"], is_note, "{name}");
        type_line(&server, setting["type"].as_str().expect("a line"));
    }
    assert_eq!(settings.len(), 5, "{found:#}");
    held.truncate(50);
    let (code, found) = report(&server.url(), &[]);
    assert_eq!((code, &found["server"]), (Some(0), &serde_json::json!([])), "{found:#}");
}

/// A program has one line in the table, and each line to type stands by itself.
#[test]
fn the_text_is_a_table_and_what_to_type() {
    let server = server_with(&[("maxmemory-policy", "allkeys-lru")]);
    let () = run_on(&server, &["ACL", "SETUSER", "u", "on", ">p", "~*", "&*", "+@all", "-zadd", "-multi"]);
    let output = output_of(&server.url().replace("redis://", "redis://u:p@"), &[]);
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().collect();
    let has = |line: &str| assert!(lines.contains(&line), "no {line:?}: {text}");
    has("dispatcher                does not work");
    has("publisher                 works");
    has("- the user u may not call ZADD");
    has("  type: ACL SETUSER u +zadd +multi");
    has("  type: CONFIG SET maxmemory-policy noeviction");
    assert!(lines[0].ends_with("database 0, user u, group messages") && lines[1].is_empty(), "{text}");
    has("After ACL SETUSER type ACL SAVE, or CONFIG REWRITE without an ACL file, so that it lasts.");
    has("After CONFIG SET type CONFIG REWRITE, so that it lasts.");
    // What is everybody's is given to nobody.
    let () = run_on(&server, &["ACL", "SETUSER", "default", "-zadd"]);
    let text = String::from_utf8_lossy(&output_of(&server.url(), &[]).stdout).into_owned();
    let advice = "  this is the user default: does the URL name none? Name one that has these rights";
    assert!(text.lines().any(|line| line == advice) && !text.contains("ACL SETUSER default"), "{text}");
}

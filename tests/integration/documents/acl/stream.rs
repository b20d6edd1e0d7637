//! Dispatchers that deliver to a stream work under their user of the document, and each of its rights is needed.

use std::net::SocketAddr;
use std::time::Duration;

use oncecast::lab::{self, ChildProcess, RedisServer, Signal, ports};
use oncecast::wire::MAX_BODY_BYTES;

use super::calls::Calls;
use super::needed::{assert_called_what_it_may, wait_until_renewed};
use super::users::{DISPATCHER, User, server_with, stream_user, url_of};
use crate::support::http::get;
use crate::support::{DEADLINE, client, programs, run, stream, wait_until, wait_until_in_sync};

/// Without these a dispatcher works and says nothing: a broken subscription is noticed later, a key of another type is
/// not named, consumers, if there are any, can't tell one start of Redis from another, and are not listed.
const SILENT: [&str; 4] = ["+ping", "+type", "+info", "+lrange"];
/// How many dispatchers run at once.
const AT_ONCE: usize = 6;

fn start(server: &RedisServer, user: &User, group: &str, id: &str, more: &[&str]) -> ChildProcess {
    let name = if group == "messages" { DISPATCHER } else { group };
    let mut command = programs().command("oncecast-dispatcher").expect("the program is built");
    command.args(["--redis-url", &url_of(server, name, user), "--deliver", "stream", "--dispatcher-id", id]);
    command.args(["--group", group, "--channel", &format!("{group}:published")]).args(more);
    ChildProcess::spawn(id, command).expect("it starts")
}

/// A cursor that no dispatcher finds, which is a gap.
fn forget_the_cursor(admin: &mut redis::Connection, group: &str) {
    let () =
        run(admin, &["MSET", &format!("{group}:epoch"), "7", &format!("{group}:cursor"), "7.1 2 1700000000000000"]);
}

/// Another program adds an entry with an id that the leader has not reached.
fn add_ahead(admin: &mut redis::Connection, group: &str) {
    let (seconds, _): (u64, u64) = run(admin, &["TIME"]);
    let id = format!("{}-0", (seconds + 100) * 1_000);
    let _: String = run(admin, &["XADD", &format!("{group}:messages"), &id, "a", "b"]);
}

fn publish(admin: &mut redis::Connection, group: &str, payload: &str) {
    let _: u64 = run(admin, &["PUBLISH", &format!("{group}:published"), payload]);
}

/// A group whose user has the rights of the document but one.
struct Group {
    name: String,
    withheld: &'static str,
    dispatcher: ChildProcess,
    metrics: SocketAddr,
}

impl Group {
    fn start(server: &RedisServer, user: &User, number: usize, withheld: &'static str) -> Group {
        let name = format!("group{number}");
        let admin = &mut client(&server.url());
        let rights =
            user.line[3..].iter().filter(|word| **word != withheld).map(|word| word.replace("messages", &name));
        let line: Vec<String> = ["ACL", "SETUSER", &name].map(str::to_owned).into_iter().chain(rights).collect();
        let () = run(admin, &line.iter().map(String::as_str).collect::<Vec<_>>());
        forget_the_cursor(admin, &name);
        let metrics: SocketAddr = ([127, 0, 0, 1], ports::free_port().expect("a free port")).into();
        let dispatcher = start(server, user, &name, "d0", &["--metrics-addr", &metrics.to_string()]);
        Group { name, withheld, dispatcher, metrics }
    }

    /// Calls for every step of a leader, once it leads: scripts that Redis has forgotten, a stream that is ahead,
    /// messages, one that is too large, and a key of another type, which the leader looks for.
    fn cause_every_step(&mut self, admin: &mut redis::Connection) {
        let key = format!("{}:messages", self.name);
        let _: i64 = run(admin, &["DEL", &key]);
        let () = run(admin, &["SCRIPT", "FLUSH"]);
        add_ahead(admin, &self.name);
        publish(admin, &self.name, "a");
        publish(admin, &self.name, &"x".repeat(MAX_BODY_BYTES + 1));
        std::thread::sleep(Duration::from_millis(100));
        let () = run(admin, &["SET", &key, "a"]);
        publish(admin, &self.name, "b");
        // The step of a leader that stops.
        if self.withheld == "+del" && self.dispatcher.wait_for_line("event=taken-over", Duration::ZERO).is_ok() {
            // It may have ended already.
            let _ = self.dispatcher.signal(Signal::SIGTERM);
        }
    }

    /// Whether the dispatcher's log or its status names the right.
    fn is_named(&self) -> bool {
        let right = self.withheld.replace("messages", &self.name);
        let (_, status) = get(self.metrics, "/status.json").unwrap_or_default();
        let in_log = |parts: &[String]| {
            let lines = self.dispatcher.stderr().all();
            lines.iter().any(|line| line.contains("lacks a right") && parts.iter().any(|part| line.contains(part)))
        };
        match right.strip_prefix('+') {
            Some(command) => {
                let word = command.split('|').next().unwrap_or_default();
                // Redis 6.2 does not name the subcommand.
                let of_redis_6 = format!("'{word}' command or its subcommand");
                in_log(&[format!("'{command}'"), format!("+{word},"), of_redis_6])
                    || status.contains(&format!("Redis refuses {} ", word.to_uppercase()))
            }
            // Redis does not say which key or channel, so all of the call are named.
            None => in_log(&[right
                .strip_prefix('~')
                .map_or(right.clone(), |keys| format!("~{}", keys.trim_end_matches('*')))]),
        }
    }
}

#[test]
fn a_right_that_is_withheld_is_named() {
    let user = stream_user();
    let server = server_with([]);
    let admin = &mut client(&server.url());
    let rights = user.line.iter().copied().filter(|word| word.starts_with(['+', '~', '&']) && !SILENT.contains(word));
    let rights: Vec<(usize, &str)> = rights.enumerate().collect();
    for batch in rights.chunks(AT_ONCE) {
        let mut unnamed: Vec<Group> =
            batch.iter().map(|(number, right)| Group::start(&server, &user, *number, right)).collect();
        let all = lab::wait_until(2 * DEADLINE, "all to be named", || {
            unnamed.retain(|group| !group.is_named());
            unnamed.iter_mut().for_each(|group| group.cause_every_step(admin));
            std::thread::sleep(Duration::from_millis(300));
            Ok(unnamed.is_empty().then_some(()))
        });
        let shown = unnamed.iter().map(|group| (group.withheld, group.dispatcher.stderr().tail(10)));
        assert!(all.is_ok(), "not named: {:#?}", shown.collect::<Vec<_>>());
    }
}

#[test]
fn a_stream_is_filled_with_the_rights_of_the_document_and_needs_all_of_them() {
    let user = stream_user();
    let server = server_with([&user]);
    let admin = &mut client(&server.url());
    forget_the_cursor(admin, "messages");
    let mut calls = Calls::watch(&server);
    let entries = |admin: &mut redis::Connection, expected: usize| {
        wait_until("the entry", || (stream(admin, "messages:messages").len() == expected).then_some(()));
    };
    let first = start(&server, &user, "messages", "d0", &[]);
    first.wait_for_line("event=taken-over", DEADLINE).expect("it leads");
    publish(admin, "messages", "a");
    entries(admin, 1);
    add_ahead(admin, "messages");
    let () = run(admin, &["SCRIPT", "FLUSH"]);
    publish(admin, "messages", "b");
    entries(admin, 3);
    calls.pause(admin, |admin| publish(admin, "messages", &"x".repeat(MAX_BODY_BYTES + 1)));
    wait_until("the dead letter", || (!stream(admin, "messages:dead").is_empty()).then_some(()));

    let () = run(admin, &["RENAME", "messages:messages", "messages:aside"]);
    let () = run(admin, &["SET", "messages:messages", "a"]);
    publish(admin, "messages", "c");
    first.wait_for_line("messages:messages is a string", DEADLINE).expect("the key is named");
    let () = run(admin, &["RENAME", "messages:aside", "messages:messages"]);
    entries(admin, 4);

    let mut second = start(&server, &user, "messages", "d1", &[]);
    wait_until_in_sync(admin, 2);
    calls.catch_up(admin);
    drop(first);
    second.wait_for_line("event=taken-over", DEADLINE).expect("it leads");
    publish(admin, "messages", "d");
    entries(admin, 5);
    wait_until_renewed(admin);
    // A subscription is tested with PING after a silence. A leader's markers would break it, so another has the lease.
    let () = run(admin, &["SET", "messages:leader", "nobody-000000 1 ttl", "PX", "60000"]);
    wait_until("the subscription to be tested", || {
        run::<String>(admin, &["CLIENT", "LIST", "TYPE", "PUBSUB"]).contains(" cmd=ping ").then_some(())
    });
    calls.catch_up(admin);
    assert!(second.stop(DEADLINE).expect("it ends").success());
    let gaps = stream(admin, "messages:gaps");
    assert!(gaps.len() == 1 && gaps[0]["reason"] == "not-subscribed", "{gaps:?}");
    let calls = calls.end(admin);
    assert_called_what_it_may(DISPATCHER, &user, calls.get(DISPATCHER));
}

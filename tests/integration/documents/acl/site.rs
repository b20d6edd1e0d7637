//! A whole group that reaches Redis in one way, each program as its own user, and what servers are told meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::process::Command;

use oncecast::lab::{ChildProcess, RedisServer, ports};
use serde_json::Value;

use super::calls::Calls;
use super::needed::{DISPENSABLE, EVERYBODYS};
use super::rights::{Rights, may, set_user, without};
use super::users::{CONSUMER, DISPATCHER, OPERATOR, PUBLISHER, users};
use crate::support::{DEADLINE, client, programs, run, wait_until};

fn password(name: &str) -> &'static str {
    users()[name].password
}

/// What servers were told, and by whom.
pub struct Watched {
    calls: Vec<Calls>,
    admins: Vec<redis::Connection>,
}

impl Watched {
    pub fn new<'a>(servers: impl IntoIterator<Item = &'a RedisServer>) -> Watched {
        let (calls, admins) = servers.into_iter().map(|server| (Calls::watch(server), client(&server.url()))).unzip();
        Watched { calls, admins }
    }

    pub fn catch_up(&mut self) {
        self.calls.iter().zip(&mut self.admins).for_each(|(calls, admin)| calls.catch_up(admin));
    }

    /// Fails if something was refused, or called that is not given. Returns what each user has called.
    pub fn end(mut self, users: &BTreeMap<&'static str, Rights>) -> BTreeMap<String, BTreeSet<String>> {
        self.catch_up();
        let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (calls, admin) in self.calls.into_iter().zip(&mut self.admins) {
            let log: Vec<HashMap<String, redis::Value>> = run(admin, &["ACL", "LOG"]);
            let word = |entry: &HashMap<String, redis::Value>, name: &str| match &entry[name] {
                redis::Value::BulkString(text) => String::from_utf8_lossy(text).into_owned(),
                other => format!("{other:?}"),
            };
            let refused = log.iter().map(|entry| (word(entry, "username"), word(entry, "object")));
            let refused: Vec<_> = refused.filter(|(_, object)| !DISPENSABLE.contains(&object.as_str())).collect();
            assert!(refused.is_empty(), "refused: {refused:?}");
            calls.end(admin).into_iter().for_each(|(user, called)| all.entry(user).or_default().extend(called));
        }
        for (name, rights) in users.iter().filter(|(name, _)| **name != OPERATOR) {
            let may = may(rights);
            let is_free = |call: &&String| {
                let call = call.as_str();
                may.contains(call) || EVERYBODYS.contains(&call) || DISPENSABLE.contains(&call)
            };
            let called = all.get(*name).unwrap_or_else(|| panic!("{name} has called nothing: {all:?}"));
            let foreign: Vec<_> = called.iter().filter(|call| !is_free(call)).collect();
            assert!(foreign.is_empty(), "{name} has called what it is not given: {foreign:?}");
        }
        all
    }
}

/// Programs that reach Redis in one way, each as its own user.
pub struct Site<'a> {
    /// The URL without a login.
    pub url: String,
    pub group: &'a str,
    /// What dispatchers listen to.
    pub interests: Vec<String>,
}

impl Site<'_> {
    fn url_of(&self, name: &str) -> String {
        self.url.replace("://", &format!("://{name}:{}@", password(name)))
    }

    pub fn command(&self, program: &str, user: &str, args: &[&str]) -> Command {
        let mut command = programs().command(program).expect("the program is built");
        command.args(args).args(["--redis-url", &self.url_of(user), "--group", self.group]);
        command
    }

    pub fn spawn(&self, program: &str, name: &str, args: &[&str]) -> ChildProcess {
        ChildProcess::spawn(name, self.command(program, program, args)).expect("it starts")
    }

    fn dispatcher(&self, name: &str, consumer: &str, more: &[&str]) -> ChildProcess {
        let interests: Vec<&str> = self.interests.iter().map(String::as_str).collect();
        let own = ["--dispatcher-id", name, "--consumers", consumer, "--lease-ttl-ms", "1000"];
        self.spawn(DISPATCHER, name, &[&own[..], &interests, more].concat())
    }

    pub fn oncecast(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = self.command("oncecast", OPERATOR, args).output().expect("it runs");
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Publishes so many messages on each of these channels, of which all are to be recorded.
    fn publish(&self, channels: &[&[&str]], count: &str) {
        for channel in channels {
            let args = [channel, &["--count", count, "--rate", "300"][..]].concat();
            let output = self.command(PUBLISHER, PUBLISHER, &args).output().expect("it runs");
            assert!(output.status.success(), "{output:?}");
        }
    }

    fn wait_until_recorded(&self, expected: usize) {
        let expected = expected.to_string();
        wait_until("all to be recorded once", || {
            let (code, text) = self.oncecast(&["audit", "--expect", &expected]);
            (code == Some(0) && text.contains("nothing lost")).then_some(())
        });
    }

    /// A group works, through the death of a leader: messages are published on each of these channels.
    pub fn work(&self, channels: &[&[&str]], more: &[&str], mut caught_up: impl FnMut()) {
        let address = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
        let consumer = self.spawn(CONSUMER, "c0", &["--listen", &address]);
        consumer.wait_for_line("event=listening", DEADLINE).expect("it listens");
        let mut first = self.dispatcher("d0", &address, more);
        first.wait_for_line("event=consumer-linked", DEADLINE).expect("it leads");
        let second = self.dispatcher("d1", &address, more);
        wait_until("both to be in sync", || {
            let (_, text) = self.oncecast(&["status", "--json"]);
            (text.matches("\"in_sync\":true").count() >= 2).then_some(())
        });
        self.publish(channels, "300");
        self.wait_until_recorded(300 * channels.len());
        caught_up();
        first.kill().expect("it is killed");
        second.wait_for_line("event=consumer-linked", DEADLINE).expect("it leads");
        self.publish(channels, "300");
        self.wait_until_recorded(600 * channels.len());
        caught_up();
        for process in [&consumer, &second] {
            let log = process.stderr().all();
            let refused = |line: &&String| line.contains("NOPERM") && !line.contains("event=redis-setting");
            assert_eq!(log.iter().find(refused), None);
        }
    }

    /// What `oncecast doctor` says.
    fn doctor(&self, user: &str, args: &[&str]) -> Value {
        let program = match user {
            OPERATOR => "status,audit",
            other => other.strip_prefix("oncecast-").expect("it is named after a program"),
        };
        let interests = self.interests.iter().map(String::as_str);
        let args: Vec<&str> = ["doctor", "--json", "--program", program]
            .into_iter()
            .chain(interests)
            .chain(args.iter().copied())
            .collect();
        let output = self.command("oncecast", user, &args).output().expect("it runs");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// Takes each of these rights from a user and fails unless the doctor names it.
    pub fn each_is_named(&self, servers: &[&RedisServer], user: &str, rights: &Rights, added: &Rights, args: &[&str]) {
        let set = |rights: &[String]| servers.iter().for_each(|server| set_user(&server.url(), user, rights));
        set(rights);
        let found = self.doctor(user, args);
        let is_well = |report: &Value| {
            let programs = report["programs"].as_array().expect("a list");
            programs.iter().all(|program| program["verdict"] == "works")
        };
        assert!(is_well(&found), "{user}: {found:#}");
        // Whether a publisher may publish on a channel can't be tried.
        let is_tried =
            |word: &&String| word.starts_with(['+', '~', '&']) && (user, word.as_str()) != (PUBLISHER, "&jobs.*");
        for right in added.iter().filter(is_tried) {
            set(&without(rights, right));
            let found = self.doctor(user, args);
            // It names the channels themselves.
            let named = found["programs"].to_string().contains(right.replace("jobs.*", "jobs.").as_str());
            assert!(!is_well(&found) && named, "{user} lacks {right}: {found:#}");
        }
        set(rights);
    }
}

//! A whole group works under the users of the document, through redeliveries, dead letters, changes of leader and a
//! gap.
//!
//! Nothing may be refused, and each command that a line allows must have been called by its user.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::process::{Command, Output};
use std::sync::Arc;

use oncecast::lab::folder::PrivateFolder;
use oncecast::lab::{self, ChildProcess, RedisServer};
use oncecast::wire::{Field, Frame, MAX_BODY_BYTES};
use oncecast::{Consumer, Delivery, HandlerError, Outcome};
use parking_lot::Mutex;

use super::calls::Calls;
use super::users::{CONSUMER, DISPATCHER, OPERATOR, PUBLISHER, User, server_with, url_of, users};
use crate::support::peer::{Heard, Peer};
use crate::support::{
    DEADLINE, RunningConsumer, client, programs, publish, publish_payloads, run, state, stream, subscribers,
    wait_for_intake, wait_until, wait_until_in_sync,
};

/// The programs try these and work without them: a dispatcher then does not check Redis's settings, and since 7.2 the
/// client library does not name itself.
pub const DISPENSABLE: [&str; 4] = ["config|get", CONFIG_OF_REDIS_6, "info", "client|setinfo"];
/// Redis 6.2 logs refusals without the subcommand.
const CONFIG_OF_REDIS_6: &str = "config";
/// Consumers call these only after faults that this test does not inject: the key of the results is replaced while they
/// work, or the reply to a transaction is lost.
const AFTER_A_FAULT: [&str; 2] = ["zadd", "set"];
/// Redis lets every user call them.
pub const EVERYBODYS: [&str; 2] = ["auth", "hello"];

/// The programs of a group, each with its own user. Fields are in the order in which they must be dropped.
struct Group {
    dispatchers: BTreeMap<&'static str, ChildProcess>,
    /// While it is locked, the consumer's handler works on the message `held`, and on those that begin with `peer`.
    gate: Arc<Mutex<()>>,
    /// A consumer of the library.
    own: RunningConsumer,
    /// The default user, who may do anything.
    admin: redis::Connection,
    server: RedisServer,
    users: BTreeMap<&'static str, User>,
}

impl Group {
    /// A server with the users, and a consumer of the library.
    fn start(server: RedisServer, users: BTreeMap<&'static str, User>) -> Group {
        let gate = Arc::new(Mutex::new(()));
        let url = url_of(&server, CONSUMER, &users[CONSUMER]);
        let builder = Consumer::builder().redis_url(url).listen("127.0.0.1:0").consumer_id("own");
        let own = RunningConsumer::start(builder.concurrency(2).prefetch(64).handler(handler(gate.clone())));
        Group { dispatchers: BTreeMap::new(), gate, own, admin: client(&server.url()), server, users }
    }

    fn command(&self, program: &str, user: &str, args: &[&str]) -> Command {
        let mut command = programs().command(program).expect("the program is built");
        // A subcommand comes first.
        let (first, rest) = args.split_at(args.iter().position(|arg| arg.starts_with('-')).unwrap_or(args.len()));
        command.args(first).args(["--redis-url", &url_of(&self.server, user, &self.users[user])]).args(rest);
        command
    }

    fn spawn(&self, program: &str, name: &str, args: &[&str]) -> ChildProcess {
        ChildProcess::spawn(name, self.command(program, program, args)).expect("the program starts")
    }

    fn start_dispatcher(&mut self, name: &'static str, consumers: &str) {
        let dispatcher = self.spawn(DISPATCHER, name, &["--dispatcher-id", name, "--consumers", consumers]);
        self.dispatchers.insert(name, dispatcher);
    }

    /// Runs `oncecast`.
    fn tool(&self, args: &[&str]) -> Output {
        self.command("oncecast", OPERATOR, args).output().expect("it runs")
    }

    /// What `oncecast status` shows, which must work without a refusal.
    fn status(&self) -> String {
        let status = self.tool(&["status"]);
        assert!(status.stderr.is_empty(), "{status:?}");
        String::from_utf8_lossy(&status.stdout).into_owned()
    }

    /// The name of the dispatcher that leads, once one does.
    fn leader(&mut self) -> String {
        wait_until("a dispatcher to lead", || {
            let lease: Option<String> = run(&mut self.admin, &["GET", "messages:leader"]);
            Some(lease?.split_once('-')?.0.to_owned())
        })
    }

    /// Waits until so many are pending, recorded and dead letters.
    fn wait_for_state(&mut self, wanted: (usize, usize, usize)) {
        let mut seen = (0, 0, 0);
        let reached = lab::wait_until(DEADLINE, "it", || {
            seen = state(&mut self.admin);
            Ok((seen == wanted).then_some(()))
        });
        let gaps = stream(&mut self.admin, "messages:gaps");
        let logs = || self.dispatchers.values().map(|one| one.stderr().tail(30)).collect::<Vec<_>>().join("\n");
        assert!(
            reached.is_ok(),
            "pending, recorded and dead letters are {seen:?}, not {wanted:?}; gaps {gaps:?}; {}",
            logs()
        );
    }

    fn wait_until_nobody_is_subscribed(&mut self) {
        wait_until("no dispatcher to be subscribed", || (subscribers(&mut self.admin) == 0).then_some(()));
    }

    /// A consumer that leaves recording to the leader finishes one message, and then disconnects with another in
    /// progress, which counts as delivered and is delivered again.
    fn lose_a_consumer_without_redis(&mut self) {
        let peer = Peer::bind("peer");
        let consumers = format!("{},{}", self.own.address, peer.address());
        self.start_dispatcher("d0", &consumers);
        let admin = &mut self.admin;
        wait_until_in_sync(admin, 1);
        let mut line = peer.accept(1);
        wait_until("the leader to be linked to both", || {
            let listed: BTreeSet<String> = run(admin, &["LRANGE", "messages:consumers", "0", "-1"]);
            (listed.len() == 2).then_some(())
        });
        publish_payloads(admin, (0..20).map(|n| format!("peer{n}")));
        let (id, _, payload) = line.next_message();
        let fields = vec![Field { name: b"message_id", value: payload.as_bytes() }];
        line.send(&[Frame::Result { id, fields }]);
        self.wait_for_state((0, 20, 0));
        // While the other consumer can't finish any, this one gets one.
        let gate = self.gate.clone();
        let shut = gate.lock();
        publish_payloads(&mut self.admin, (20..40).map(|n| format!("peer{n}")));
        while !matches!(line.next(), Heard::Process { .. }) {}
        drop(shut);
        drop((line, peer));
        self.wait_for_state((0, 40, 0));
    }

    /// Redeliveries and every kind of dead letter, with scripts that Redis has forgotten.
    fn redeliver_and_dead_letter(&mut self, calls: &mut Calls) {
        let () = run(&mut self.admin, &["SCRIPT", "FLUSH"]);
        publish_payloads(&mut self.admin, ["bad", "again1", "again2"]);
        self.wait_for_state((0, 42, 1));
        calls.pause(&mut self.admin, |admin| {
            assert_eq!(publish_payloads(admin, [vec![b'x'; MAX_BODY_BYTES + 1]]), 1);
        });
        self.wait_for_state((0, 42, 2));
    }

    /// The leader dies while a consumer works, and the next one is stopped. A message is published while no dispatcher
    /// is subscribed, which is a gap.
    fn change_leaders(&mut self, consumers: &str, calls: &Calls) {
        self.start_dispatcher("d1", consumers);
        wait_until_in_sync(&mut self.admin, 2);
        let gate = self.gate.clone();
        let shut = gate.lock();
        publish_payloads(&mut self.admin, ["held"]);
        wait_for_intake(&mut self.admin);
        wait_until("the consumer to work on it", || (self.own.stats.held() > 0).then_some(()));
        assert_eq!(self.leader(), "d0");
        calls.catch_up(&mut self.admin);
        self.dispatchers.remove("d0").expect("it runs").kill().expect("it can be killed");
        let next = &self.dispatchers["d1"];
        next.wait_for_line("event=consumer-linked consumer=own", DEADLINE).expect("the next leader adopts it");
        drop(shut);
        publish(&mut self.admin, "next", 0..200);
        self.wait_for_state((0, 243, 2));
        calls.catch_up(&mut self.admin);
        let stopped = self.dispatchers.remove("d1").expect("it runs").stop(DEADLINE);
        assert!(stopped.expect("it ends").success());
        self.wait_until_nobody_is_subscribed();
        publish(&mut self.admin, "unheard", 0..1);
        ["d2", "d3"].into_iter().for_each(|name| self.start_dispatcher(name, consumers));
        wait_until_in_sync(&mut self.admin, 2);
        wait_until("the gap to be recorded", || (!stream(&mut self.admin, "messages:gaps").is_empty()).then_some(()));
    }

    /// The publisher publishes, and the operator checks the result.
    fn publish_and_audit(&mut self) {
        let folder = PrivateFolder::create("acl").expect("a folder");
        let ids = folder.path().join("ids").display().to_string();
        let mut publisher = self.spawn(PUBLISHER, "p", &["--rate", "1000", "--duration", "500ms", "--ids-file", &ids]);
        let ended = publisher.wait(DEADLINE).expect("it ends");
        assert!(ended.success(), "{}", publisher.failure("failed"));
        wait_until("nothing to be pending", || (state(&mut self.admin).0 == 0).then_some(()));
        let audit = self.tool(&["audit", "--ids", &ids]);
        assert!(audit.status.success(), "{audit:?}");
        let shown = self.status();
        assert!(shown.contains("not-subscribed"), "{shown}");
    }

    /// A subscription that was silent for a while is tested with PING. A leader would publish markers, so the lease is
    /// given to another name.
    fn have_subscriptions_tested(&mut self) {
        let () = run(&mut self.admin, &["SET", "messages:leader", "nobody-000000 1 ttl", "PX", "60000"]);
        wait_until("the subscriptions to be tested", || {
            let list: String = run(&mut self.admin, &["CLIENT", "LIST", "TYPE", "PUBSUB"]);
            (list.matches(" cmd=ping ").count() == 2).then_some(())
        });
    }

    /// Fails if a user was refused a command that it needs.
    fn assert_nothing_was_refused(&mut self) {
        // Entries of the log of refusals are lists of names and values.
        let log: Vec<HashMap<String, redis::Value>> = run(&mut self.admin, &["ACL", "LOG"]);
        let word = |entry: &HashMap<String, redis::Value>, name: &str| match &entry[name] {
            redis::Value::BulkString(text) => String::from_utf8_lossy(text).into_owned(),
            other => format!("{other:?}"),
        };
        let refused: BTreeSet<(String, String)> =
            log.iter().map(|entry| (word(entry, "username"), word(entry, "object"))).collect();
        let amiss: Vec<_> = refused.iter().filter(|(_, object)| !DISPENSABLE.contains(&object.as_str())).collect();
        assert!(amiss.is_empty(), "refused: {amiss:?}");
    }

    /// Without a dispatcher's report, `oncecast status` looks for the oldest message itself.
    fn look_without_dispatchers(&mut self) {
        self.dispatchers.clear();
        self.wait_until_nobody_is_subscribed();
        let () = run(&mut self.admin, &["ZADD", "messages:pending", "1", "0000000000000001:from long ago"]);
        let shown = self.status();
        assert!(shown.contains("the oldest message has been pending for"), "{shown}");
    }
}

/// Fails some messages in every possible way, and records the others.
fn handler(gate: Arc<Mutex<()>>) -> impl oncecast::Handler {
    move |message: &Delivery<'_>| match (message.payload(), message.number()) {
        (b"bad", _) => Err(HandlerError::reject("a test rejects it")),
        (payload, 1) if payload.starts_with(b"again") => Err(HandlerError::retry("a test fails it once")),
        (b"held", 1) => {
            drop(gate.lock());
            Err(HandlerError::retry("a test fails it under the next leader"))
        }
        (payload, _) => {
            if payload.starts_with(b"peer") {
                drop(gate.lock());
            }
            let text = String::from_utf8_lossy(payload);
            let id = text.strip_prefix("{\"message_id\":\"").and_then(|rest| rest.strip_suffix("\"}")).unwrap_or(&text);
            Ok(Outcome::new().field("message_id", id))
        }
    }
}

/// Waits until the leader renews its lease: its remaining time rises.
pub fn wait_until_renewed(admin: &mut redis::Connection) {
    let mut before = i64::MAX;
    wait_until("the lease to be renewed", || {
        let left_ms: i64 = run(admin, &["PTTL", "messages:leader"]);
        (std::mem::replace(&mut before, left_ms) < left_ms).then_some(())
    });
}

/// Fails unless a user has called exactly the commands that it may call.
pub fn assert_called_what_it_may(name: &str, user: &User, called: Option<&BTreeSet<String>>) {
    let mut called = called.cloned().unwrap_or_default();
    called.retain(|call| !EVERYBODYS.contains(&call.as_str()));
    let needed = |call: &&String| name != CONSUMER || !AFTER_A_FAULT.contains(&call.as_str());
    let unused: Vec<_> = user.may.difference(&called).filter(needed).collect();
    assert!(unused.is_empty(), "{name} is given what it has not called: {unused:?}");
    called.retain(|call| !DISPENSABLE.contains(&call.as_str()));
    let foreign: Vec<_> = called.difference(&user.may).collect();
    assert!(foreign.is_empty(), "{name} has called what it is not given: {foreign:?}");
}

#[test]
fn each_program_works_with_its_rights_and_needs_all_of_them() {
    let users = users();
    let server = server_with(users.values());
    let mut calls = Calls::watch(&server);
    let mut group = Group::start(server, users);
    group.lose_a_consumer_without_redis();
    group.redeliver_and_dead_letter(&mut calls);
    let program = group.spawn(CONSUMER, "program", &["--listen", "127.0.0.1:0", "--consumer-id", "program"]);
    let line = program.wait_for_line("event=listening address=", DEADLINE).expect("it listens");
    let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("an address");
    let consumers = format!("{},{address}", group.own.address);
    group.change_leaders(&consumers, &calls);
    group.publish_and_audit();
    wait_until_renewed(&mut group.admin);
    group.have_subscriptions_tested();
    group.assert_nothing_was_refused();
    group.look_without_dispatchers();
    calls.catch_up(&mut group.admin);
    drop(program);
    let calls = calls.end(&mut group.admin);
    for (name, user) in &group.users {
        assert_called_what_it_may(name, user, calls.get(*name));
    }
}

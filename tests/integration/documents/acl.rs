//! The users of docs/OPERATIONS.md have the rights that the programs need, and no others.
//!
//! The lines are taken from the document. A whole cluster runs under them through redeliveries, dead letters, changes of
//! leader and a gap, while Redis tells (MONITOR) who calls what: nothing may be refused, and what a line allows must have
//! been called by its user, inside scripts included.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use oncecast::lab::{ChildProcess, RedisServer};
use oncecast::wire::{Field, Frame};
use oncecast::{Consumer, Delivery, HandlerError, Outcome};
use parking_lot::Mutex;

use crate::support::peer::{Heard, Peer};
use crate::support::{
    CHANNEL, DEADLINE, RunningConsumer, client, programs, publish, publish_payloads, redis_server, run, state, stream,
    subscribers, wait_for_intake, wait_until, wait_until_in_sync,
};

const DOCUMENT: &str = include_str!("../../../docs/OPERATIONS.md");
const DISPATCHER: &str = "oncecast-dispatcher";
const CONSUMER: &str = "oncecast-consumer";
const PUBLISHER: &str = "oncecast-publisher";
const OPERATOR: &str = "oncecast-operator";

/// Asked for, and done without where it is refused: settings of Redis are not looked at then, and from 7.2 on the library
/// behind a connection is not named.
const DISPENSABLE: [&str; 3] = ["config|get", "info", "client|setinfo"];
/// Consumers call these only after a fault that this test does not make: the key of the results becomes something else
/// under way, or the reply to a transaction gets lost.
const AFTER_A_FAULT: [&str; 2] = ["zadd", "set"];
/// Redis lets everybody call them.
const EVERYBODYS: [&str; 2] = ["auth", "hello"];

/// A user, as the document makes it.
struct User {
    line: Vec<&'static str>,
    password: &'static str,
    /// The commands that it may call.
    may: BTreeSet<String>,
}

/// The users that the document makes, by name.
fn users() -> BTreeMap<&'static str, User> {
    let block = DOCUMENT.split("```acl\n").nth(1).expect("a block of kind acl").split("```").next().expect("its end");
    let users = block.lines().map(|line| {
        let line: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(line[..2], ["ACL", "SETUSER"], "{line:?}");
        let with = |sign: char| line[3..].iter().filter_map(move |word| word.strip_prefix(sign));
        let password = with('>').next().expect("each user has a password");
        let may = with('+').map(str::to_owned).collect();
        (line[2], User { line, password, may })
    });
    let users: BTreeMap<_, _> = users.collect();
    assert_eq!(users.keys().copied().collect::<Vec<_>>(), [CONSUMER, DISPATCHER, OPERATOR, PUBLISHER]);
    users
}

/// A server that knows the users; the test itself is the default user, who may do anything.
fn server_with(users: &BTreeMap<&'static str, User>) -> RedisServer {
    let server = redis_server();
    let admin = &mut client(&server.url());
    for user in users.values() {
        // Twice: a line that has been changed is given once more.
        for _ in 0..2 {
            let () = run(admin, &user.line);
        }
    }
    server
}

fn url_of(server: &RedisServer, name: &str, user: &User) -> String {
    format!("redis://{name}:{}@127.0.0.1:{}", user.password, server.port())
}

/// What each user calls, as Redis tells it.
struct Calls {
    stop: Arc<AtomicBool>,
    socket: TcpStream,
    thread: Option<JoinHandle<BTreeMap<String, BTreeSet<String>>>>,
}

impl Calls {
    fn watch(server: &RedisServer) -> Calls {
        let mut socket = TcpStream::connect(("127.0.0.1", server.port())).expect("Redis takes connections");
        socket.write_all(b"MONITOR\r\n").expect("Redis reads");
        let mut lines = BufReader::new(socket.try_clone().expect("a second handle")).lines();
        assert_eq!(lines.next().expect("an answer").expect("text"), "+OK");
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, url) = (stop.clone(), server.url());
        let thread = thread::spawn(move || {
            let mut admin = client(&url);
            let mut users: HashMap<String, String> = HashMap::new();
            let mut calls: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            let mut caller = String::new();
            while let Some(Ok(line)) = lines.next()
                && !stopped.load(Ordering::Relaxed)
            {
                let (source, call) = source_and_call(&line);
                if call == "client|list" {
                    continue;
                }
                // What a script calls follows the call of the script at once.
                if source != "lua" {
                    caller = source;
                    // A connection is the default user's until it has said whose it is.
                    if users.get(&caller).is_none_or(|user| user == "default") {
                        users.extend(addresses_and_users(&mut admin));
                    }
                }
                // Only a tool of the operator's is gone before it can be asked who it is.
                let user = users.get(&caller).map_or(OPERATOR, String::as_str);
                calls.entry(user.to_owned()).or_default().insert(call);
            }
            calls
        });
        Calls { stop, socket, thread: Some(thread) }
    }

    /// All calls until now.
    fn end(mut self) -> BTreeMap<String, BTreeSet<String>> {
        self.close();
        self.thread.take().expect("it ends once").join().expect("each line is understood")
    }

    fn close(&self) {
        self.stop.store(true, Ordering::Relaxed);
        // It may be gone already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.close();
    }
}

/// From `+1790000000.123456 [0 127.0.0.1:5000] "zadd" "key" …`: who, and which command, its subcommand included.
fn source_and_call(line: &str) -> (String, String) {
    let understood = || {
        let (_, rest) = line.split_once('[')?;
        let (source, words) = rest.split_once("] ")?;
        let source = source.split_once(' ')?.1.to_owned();
        let mut words = words.split(' ').map(|word| word.trim_matches('"').to_lowercase());
        let command = words.next()?;
        let call = match command.as_str() {
            "acl" | "client" | "config" | "pubsub" | "script" => format!("{command}|{}", words.next()?),
            _ => command,
        };
        Some((source, call))
    };
    understood().unwrap_or_else(|| panic!("MONITOR says {line:?}"))
}

fn addresses_and_users(admin: &mut redis::Connection) -> Vec<(String, String)> {
    let list: String = run(admin, &["CLIENT", "LIST"]);
    let field = |line: &str, name: &str| {
        line.split(' ').find_map(|word| word.strip_prefix(name)).map(str::to_owned).expect("each line has it")
    };
    list.lines().map(|line| (field(line, "addr="), field(line, "user="))).collect()
}

/// The programs of a cluster, each with its own user.
struct Programs {
    server: RedisServer,
    users: BTreeMap<&'static str, User>,
}

impl Programs {
    fn command(&self, program: &str, user: &str, args: &[&str]) -> std::process::Command {
        let mut command = programs().command(program).expect("the program is built");
        // First what stands for a subcommand.
        let (first, rest) = args.split_at(args.iter().position(|arg| arg.starts_with('-')).unwrap_or(args.len()));
        command.args(first).args(["--redis-url", &url_of(&self.server, user, &self.users[user])]).args(rest);
        command
    }

    fn start(&self, program: &str, name: &str, args: &[&str]) -> ChildProcess {
        ChildProcess::spawn(name, self.command(program, program, args)).expect("the program starts")
    }

    fn dispatcher(&self, name: &str, consumers: &str) -> ChildProcess {
        self.start(DISPATCHER, name, &["--dispatcher-id", name, "--consumers", consumers])
    }

    /// Runs `oncecast`.
    fn tool(&self, args: &[&str]) -> Output {
        self.command("oncecast", OPERATOR, args).output().expect("it runs")
    }
}

/// The name of the dispatcher that leads, once one does.
fn leader(admin: &mut redis::Connection) -> String {
    wait_until("somebody to lead", || {
        let lease: Option<String> = run(admin, &["GET", "messages:leader"]);
        Some(lease?.split_once('-')?.0.to_owned())
    })
}

#[test]
fn each_program_can_do_its_work_with_its_rights_and_needs_them_all() {
    let users = users();
    let server = server_with(&users);
    let calls = Calls::watch(&server);
    let programs = Programs { server, users };
    let url = programs.server.url();
    let admin = &mut client(&url);

    // Three kinds of consumers: of the library, the program, and one that leaves recording to the leader.
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.clone();
    let handler = move |message: &Delivery<'_>| match (message.payload(), message.number()) {
        (b"bad", _) => Err(HandlerError::reject("a test rejects it")),
        (payload, 1) if payload.starts_with(b"again") => Err(HandlerError::retry("a test fails it once")),
        (b"held", 1) => {
            drop(closed.lock());
            Err(HandlerError::retry("a test fails it under the next leader"))
        }
        (payload, _) => {
            let text = String::from_utf8_lossy(payload);
            let id = text.strip_prefix("{\"message_id\":\"").and_then(|rest| rest.strip_suffix("\"}")).unwrap_or(&text);
            Ok(Outcome::new().field("message_id", id))
        }
    };
    let own_url = url_of(&programs.server, CONSUMER, &programs.users[CONSUMER]);
    let builder = Consumer::builder().redis_url(own_url).listen("127.0.0.1:0").consumer_id("own");
    let own = RunningConsumer::start(builder.concurrency(2).prefetch(64).handler(handler));
    let peer = Peer::bind("peer");
    let consumers = format!("{},{}", own.address, peer.address());
    let mut dispatchers = BTreeMap::from([("d0", programs.dispatcher("d0", &consumers))]);
    wait_until_in_sync(admin, 1);

    // The peer records one, and takes another with it when it goes: that one is counted and goes out again.
    let mut line = peer.accept(1);
    wait_until("the leader to be linked to both", || {
        let listed: BTreeSet<String> = run(admin, &["LRANGE", "messages:consumers", "0", "-1"]);
        (listed.len() == 2).then_some(())
    });
    publish_payloads(admin, (0..20).map(|n| format!("peer{n}")));
    let (id, _, payload) = line.next_message();
    let fields = vec![Field { name: b"message_id", value: payload.as_bytes() }];
    line.send(&[Frame::Result { id, fields }]);
    wait_until("all of them to be done", || (state(admin) == (0, 20, 0)).then_some(()));
    publish_payloads(admin, (20..40).map(|n| format!("peer{n}")));
    while !matches!(line.next(), Heard::Process { .. }) {}
    drop((line, peer));
    wait_until("all of them to be done", || (state(admin) == (0, 40, 0)).then_some(()));

    // Redeliveries and every kind of dead letter, with scripts that Redis has forgotten meanwhile.
    let () = run(admin, &["SCRIPT", "FLUSH"]);
    publish_payloads(admin, ["bad", "again1", "again2"].map(str::to_owned));
    publish_payloads(admin, [vec![b'x'; oncecast::wire::MAX_BODY_BYTES + 1]]);
    wait_until("two results and two dead letters more", || (state(admin) == (0, 42, 2)).then_some(()));

    // The leader dies while a consumer works; the next is asked to end; nobody listens for a while, which is a gap.
    let program = programs.start(CONSUMER, "program", &["--listen", "127.0.0.1:0", "--consumer-id", "program"]);
    let said = program.wait_for_line("event=listening address=", DEADLINE).expect("it listens");
    let address = said.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("an address");
    let consumers = format!("{},{address}", own.address);
    dispatchers.insert("d1", programs.dispatcher("d1", &consumers));
    wait_until_in_sync(admin, 2);
    let shut = gate.lock();
    publish_payloads(admin, ["held"]);
    wait_for_intake(admin);
    wait_until("the consumer to work on it", || (own.stats.held() > 0).then_some(()));
    assert_eq!(leader(admin), "d0");
    dispatchers.remove("d0").expect("it runs").kill().expect("it can be killed");
    dispatchers["d1"].wait_for_line("event=consumer-linked consumer=own", DEADLINE).expect("the next leader adopts it");
    drop(shut);
    publish(admin, "next", 0..200);
    wait_until("the next leader to have all done", || (state(admin) == (0, 243, 2)).then_some(()));
    let stopped = dispatchers.remove("d1").expect("it runs").stop(DEADLINE);
    assert!(stopped.expect("it ends").success());
    wait_until("nobody to be subscribed", || (subscribers(admin) == 0).then_some(()));
    publish(admin, "unheard", 0..1);
    for name in ["d2", "d3"] {
        dispatchers.insert(name, programs.dispatcher(name, &consumers));
    }
    wait_until_in_sync(admin, 2);
    wait_until("the gap to be recorded", || (!stream(admin, "messages:gaps").is_empty()).then_some(()));

    // Load by the publisher, looked at by the operator.
    let folder = oncecast::lab::folder::PrivateFolder::create("acl").expect("a folder");
    let ids = folder.path().join("ids").display().to_string();
    let mut publisher = programs.start(PUBLISHER, "p", &["--rate", "1000", "--duration", "2s", "--ids-file", &ids]);
    let ended = publisher.wait(DEADLINE).expect("it ends");
    assert!(ended.success(), "{}", publisher.failure("failed"));
    wait_until("nothing to be pending", || (state(admin).0 == 0).then_some(()));
    let audit = programs.tool(&["audit", "--ids", &ids]);
    assert!(audit.status.success(), "{audit:?}");
    let status = programs.tool(&["status"]);
    let shown = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(shown.contains("not-subscribed") && status.stderr.is_empty(), "{status:?}");

    // A subscription over which nothing has come for a while is asked whether it still stands. While a leader leads its
    // markers come, so the lease is somebody else's.
    let () = run(admin, &["SET", "messages:leader", "nobody-000000 1 ttl", "PX", "60000"]);
    wait_until("the subscriptions to be asked", || {
        let list: String = run(admin, &["CLIENT", "LIST", "TYPE", "PUBSUB"]);
        (list.matches(" cmd=ping ").count() == 2).then_some(())
    });

    // Entries of the log of refusals are lists of names and values.
    let log: Vec<HashMap<String, redis::Value>> = run(admin, &["ACL", "LOG"]);
    let word = |entry: &HashMap<String, redis::Value>, name: &str| match &entry[name] {
        redis::Value::BulkString(text) => String::from_utf8_lossy(text).into_owned(),
        other => format!("{other:?}"),
    };
    let refused: BTreeSet<(String, String)> =
        log.iter().map(|entry| (word(entry, "username"), word(entry, "object"))).collect();
    let amiss: Vec<_> = refused.iter().filter(|(_, object)| !DISPENSABLE.contains(&object.as_str())).collect();
    assert!(amiss.is_empty(), "refused: {amiss:?}");

    drop((dispatchers, program));
    // Without a dispatcher's report the oldest message is looked for by the tool itself.
    wait_until("nobody to be subscribed", || (subscribers(admin) == 0).then_some(()));
    let () = run(admin, &["ZADD", "messages:pending", "1", "0000000000000001:from long ago"]);
    let status = programs.tool(&["status"]);
    let shown = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(shown.contains("the oldest message is pending for") && status.stderr.is_empty(), "{status:?}");
    let calls = calls.end();
    for (name, user) in &programs.users {
        let mut called = calls.get(*name).cloned().unwrap_or_default();
        called.retain(|call| !EVERYBODYS.contains(&call.as_str()));
        let needed = |call: &&String| *name != CONSUMER || !AFTER_A_FAULT.contains(&call.as_str());
        let unused: Vec<_> = user.may.difference(&called).filter(needed).collect();
        assert!(unused.is_empty(), "{name} is given what it has not called: {unused:?}");
        called.retain(|call| !DISPENSABLE.contains(&call.as_str()));
        let foreign: Vec<_> = called.difference(&user.may).collect();
        assert!(foreign.is_empty(), "{name} has called what it is not given: {foreign:?}");
    }
}

#[test]
fn nobody_may_do_the_work_of_another() {
    let users = users();
    let server = server_with(&users);
    let admin = &mut client(&server.url());
    let () = run(admin, &["SET", "messages:epoch", "7"]);
    let leaders_work = "return redis.call('SET', KEYS[1], '8')";
    let refusals: [(&str, &[&[&str]]); 4] = [
        (
            CONSUMER,
            &[
                &["PUBLISH", "messages:control", "released 7"],
                &["PUBLISH", CHANNEL, "x"],
                &["SUBSCRIBE", CHANNEL],
                &["EVAL", "return redis.call('TYPE', KEYS[1])", "1", "messages:leader"],
                &["XADD", "messages:dead", "*", "a", "b"],
                &["DEL", "messages:pending"],
                &["ZRANGE", "messages:pending", "0", "-1"],
                &["XRANGE", "messages:processed", "-", "+"],
            ],
        ),
        (
            DISPATCHER,
            &[
                &["SET", "others", "x"],
                &["SUBSCRIBE", "others"],
                &["PUBLISH", "others", "x"],
                &["KEYS", "*"],
                &["FLUSHALL"],
                &["CONFIG", "SET", "maxmemory", "1"],
                &["CONFIG", "GET", "requirepass"],
                &["ACL", "LIST"],
            ],
        ),
        (
            PUBLISHER,
            &[
                &["PUBLISH", "messages:control", "released 7"],
                &["SUBSCRIBE", CHANNEL],
                &["GET", "messages:epoch"],
                &["ZADD", "messages:pending", "1", "x"],
            ],
        ),
        (
            OPERATOR,
            &[
                &["SET", "messages:epoch", "8"],
                &["DEL", "messages:pending"],
                &["XDEL", "messages:dead", "1-1"],
                &["PUBLISH", "messages:control", "released 7"],
                &["EVAL", leaders_work, "1", "messages:epoch"],
                &["GET", "others"],
                &["CONFIG", "GET", "requirepass"],
            ],
        ),
    ];
    for (name, attempts) in refusals {
        let connection = &mut client(&url_of(&server, name, &users[name]));
        for words in attempts {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            let reply: redis::RedisResult<redis::Value> = command.query(connection);
            assert!(reply.is_err(), "{name} may {words:?}: {reply:?}");
        }
    }
    let epoch: String = run(admin, &["GET", "messages:epoch"]);
    assert_eq!(epoch, "7");
}

/// What the document recommends where Redis can tell reading a key from writing it.
#[test]
fn from_redis_7_on_consumers_need_not_be_able_to_write_the_epoch() {
    const READ: &str = "%R~messages:epoch";
    assert!(DOCUMENT.contains(&format!("`{READ}` for `~messages:epoch`")));
    let users = users();
    let server = server_with(&users);
    if server.version().expect("it answers").starts_with("redis 6.") {
        return;
    }
    let admin = &mut client(&server.url());
    let () = run(admin, &["SET", "messages:epoch", "7"]);
    let narrow = |word: &&'static str| if *word == "~messages:epoch" { READ } else { word };
    let () = run(admin, &users[CONSUMER].line.iter().map(narrow).collect::<Vec<_>>());
    let connection = &mut client(&url_of(&server, CONSUMER, &users[CONSUMER]));
    let epoch: String = run(connection, &["GETRANGE", "messages:epoch", "0", "-1"]);
    assert_eq!(epoch, "7");
    let script = "return redis.call('SET', KEYS[1], '8')";
    for words in [&["SET", "messages:epoch", "8"][..], &["EVAL", script, "1", "messages:epoch"]] {
        let reply: redis::RedisResult<redis::Value> = redis::cmd(words[0]).arg(&words[1..]).query(connection);
        assert!(reply.is_err(), "{words:?}: {reply:?}");
    }
}

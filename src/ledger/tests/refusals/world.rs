//! A private server with a group in a known state, and everything that it holds as one comparable value.

use std::collections::{BTreeMap, BTreeSet};

use super::steps::Step;
use super::*;

/// The keys of a group whose leader has stored six messages and nothing else has happened.
const BARE: &[&[&str]] = &[
    &["SET", "messages:epoch", "5"],
    &["SET", "messages:cursor", "m 6 6"],
    &["SET", "messages:recall", "5 R 0"],
    &["ZADD", "messages:pending", "1", "0000000000000001:x1", "2", "0000000000000002:x2"],
    &["ZADD", "messages:pending", "3", "0000000000000003:x3", "4", "0000000000000004:x4"],
    &["ZADD", "messages:pending", "5", "0000000000000005:x5", "6", "0000000000000006:x6"],
    &["SET", "somebody else's", "1"],
];

/// The other keys of a group that has been used for a while.
const USED: &[&[&str]] = &[
    &["XADD", "messages:processed", "1-1", "message_id", "900"],
    &["XADD", "messages:dead", "1-1", "id", "0000000000000385", "reason", "because"],
    &["XADD", "messages:gaps", "1-1", "reason", "another", "epoch", "4"],
    &["XADD", STREAM, "0-5", "payload", "x"],
    &["RPUSH", "messages:consumers", "c8", "c9"],
    &["HSET", "messages:attempts", "1", "2", "2", "3", "4", "2"],
    &["HSET", "messages:settings", "paused_until", "9999999999999", "paused_since", "900", "rate", "5/s"],
];

/// The state in which a step begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    /// Only the keys that a new group has.
    Bare,
    /// All keys exist.
    Used,
}

pub(super) const STATES: [State; 2] = [State::Bare, State::Used];

/// See the module's text.
pub(super) struct World {
    pub(super) redis: RedisServer,
    pub(super) admin: Connection,
    pub(super) keys: Keys,
    pub(super) id: DispatcherId,
    /// Whether users can have rights to commands on some keys only, as from 7.0 on.
    pub(super) has_selectors: bool,
    /// The commands that write, in capitals.
    pub(super) writing: BTreeSet<String>,
    /// All that the server has.
    pub(super) commands: BTreeSet<String>,
    run_id: String,
}

impl World {
    pub(super) fn start(id: &DispatcherId, config: &[(&str, &str)]) -> World {
        let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let redis = RedisServer::start(RedisOptions { config, ..RedisOptions::default() });
        let redis = redis.expect("a private server starts");
        let mut admin = redis.connection();
        let user = ["ACL", "SETUSER", "u", "on", ">p", "allkeys", "allchannels", "+@all"];
        admin.query("testing", Command::of(&user)).expect("the administrator may make a user");
        let selector = ["ACL", "SETUSER", "selected", "(+get ~key)"];
        let has_selectors = admin.query("testing", Command::of(&selector)).is_ok();
        let commands = admin.query("testing", Command::of(&["COMMAND"])).expect("redis tells its commands");
        let writing = parts(&commands).iter().map(parts).filter(|of| texts(&of[2]).iter().any(|flag| flag == "write"));
        let writing = writing.filter_map(|of| text(&of[0]).map(str::to_uppercase)).collect();
        let all = parts(&commands).iter().map(parts).filter_map(|of| text(&of[0]).map(str::to_uppercase));
        let all = all.collect();
        let info = admin.query("testing", Command::of(&["INFO", "server"])).expect("redis answers");
        let run_id = text(&info).and_then(|info| info.split_once("run_id:")?.1.lines().next().map(str::to_owned));
        let run_id = run_id.expect("a server has a run id");
        World {
            redis,
            admin,
            keys: Keys::new("messages").with_stream(STREAM),
            id: id.clone(),
            has_selectors,
            writing,
            commands: all,
            run_id,
        }
    }

    /// Executes a command with all rights.
    pub(super) fn run(&mut self, words: &[&str]) -> Value {
        let carried_out = self.admin.query("testing", Command::of(words));
        carried_out.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    fn run_all(&mut self, commands: Vec<Command>) -> Vec<Value> {
        self.admin.pipeline("testing", commands).expect("the administrator may do everything")
    }

    /// Clears the server and sets up the state in which the step begins.
    pub(super) fn set_up(&mut self, step: &Step, state: State) {
        let lease = format!("{} 5", self.id);
        let status = self.keys.report_of(self.id.as_str());
        let used = if matches!(state, State::Used) { USED } else { &[] };
        let mut commands =
            vec![Command::of(&["FLUSHALL"]), Command::of(&["SET", &self.keys.leader, &lease, "PX", "60000"])];
        if !used.is_empty() {
            commands.push(Command::of(&["SET", &status, "idle", "PX", "60000"]));
        }
        commands.extend([BARE, used, step.begins_with].concat().into_iter().map(Command::of));
        self.run_all(commands);
    }

    /// A caller of the ledger, as a user whose rights can be revoked.
    pub(super) fn caller(&self) -> Caller {
        let url = self.redis.url().replace("redis://", "redis://u:p@");
        let server = Server::parse(&url).expect("it is a URL");
        let ledger = Ledger::new(server, Arc::new(self.keys.clone()), Duration::from_secs(10));
        Caller::new(ledger, self.id.clone())
    }

    /// The keys for which a right can be missing.
    pub(super) fn all_keys(&self) -> Vec<String> {
        let status = self.keys.report_of(self.id.as_str());
        let put_back = format!("{}{:016x}", self.keys.put_back_prefix, steps::NONCE);
        let answer = self.keys.answer_to(RequestId(steps::NONCE));
        self.keys.types().map(|(key, _)| key.to_owned()).chain([status, put_back, answer]).collect()
    }

    /// The type that a key of the group must have.
    pub(super) fn type_of(&self, key: &str) -> &'static str {
        let kind = self.keys.types().find_map(|(name, kind)| (name == key).then_some(kind));
        kind.expect("it is one of the group's keys")
    }

    /// Makes a save fail, which Redis remembers until one succeeds: a folder is in the place of the file.
    pub(super) fn fail_to_save(&mut self) {
        std::fs::create_dir_all(self.redis.folder().join("dump.rdb/in the way")).expect("it is a folder of ours");
        self.run(&["BGSAVE"]);
        let failed = wait_until(Duration::from_secs(10), "a save has failed", || {
            let info = self.run(&["INFO", "persistence"]);
            Ok(text(&info).is_some_and(|info| info.contains("rdb_last_bgsave_status:err")).then_some(()))
        });
        failed.expect("redis can't replace a folder by a file");
    }

    /// The value of a key; `None` if it does not exist.
    pub(super) fn held(&mut self, key: &str) -> Option<KeyContent> {
        self.all_held(vec![key.to_owned()]).0.remove(key)
    }

    /// What the server holds.
    pub(super) fn snapshot(&mut self) -> Keyspace {
        let keys = texts(&self.run(&["KEYS", "*"]));
        self.all_held(keys)
    }

    fn all_held(&mut self, keys: Vec<String>) -> Keyspace {
        let asked = keys.iter().flat_map(|key| [Command::of(&["TYPE", key]), Command::of(&["PTTL", key])]);
        let told = self.run_all(asked.collect());
        let there: Vec<(String, &str, bool)> = keys
            .into_iter()
            .zip(told.chunks_exact(2))
            .map(|(key, told)| (key, text(&told[0]).expect("a type"), told[1] != Value::Int(-1)))
            .filter(|(_, kind, _)| *kind != "none")
            .collect();
        let read = there.iter().map(|(key, kind, _)| match *kind {
            "string" => Command::of(&["GET", key]),
            "list" => Command::of(&["LRANGE", key, "0", "-1"]),
            "zset" => Command::of(&["ZRANGE", key, "0", "-1", "WITHSCORES"]),
            "hash" => Command::of(&["HGETALL", key]),
            "stream" => Command::of(&["XRANGE", key, "-", "+"]),
            other => panic!("unexpected type {other}"),
        });
        let contents = self.run_all(read.collect());
        let held = there.into_iter().zip(&contents).map(|((key, kind, expires), content)| {
            (key, KeyContent { kind: kind.to_owned(), expires, items: self.items(kind, content) })
        });
        Keyspace(held.collect())
    }

    /// The parts of a key's value, without what differs from run to run.
    fn items(&self, kind: &str, content: &Value) -> Vec<Vec<String>> {
        let pairs = |words: Vec<String>| words.chunks_exact(2).map(<[_]>::to_vec).collect::<Vec<_>>();
        match (kind, content) {
            ("string", value) => {
                vec![text(value).expect("a text").split(' ').map(|word| self.timeless(word)).collect()]
            }
            ("list", list) => vec![texts(list)],
            ("stream", Value::Array(entries)) => entries.iter().map(|entry| texts(&parts(entry)[1])).collect(),
            (_, words) => {
                let mut pairs = pairs(texts(words));
                if kind == "zset" {
                    pairs = pairs.into_iter().flat_map(taken_apart).collect();
                }
                if kind == "hash" {
                    let timeless = |value: &str| value.split(' ').map(|word| self.timeless(word)).collect::<Vec<_>>();
                    pairs.iter_mut().for_each(|pair| pair[1] = timeless(&pair[1]).join(" "));
                }
                pairs.sort();
                pairs
            }
        }
    }

    /// Replaces what differs from run to run: epochs follow the clock, and run ids are random.
    fn timeless(&self, word: &str) -> String {
        let is_time = word.len() == 13 && word.bytes().all(|byte| byte.is_ascii_digit());
        // When a delivery is due.
        if let Some(due) = word.strip_prefix('@') {
            return format!("@{}", self.timeless(due));
        }
        let is_run = word == "unknown" || word == self.run_id;
        if is_time {
            "<epoch>".to_owned()
        } else if is_run {
            "<run>".to_owned()
        } else {
            word.to_owned()
        }
    }

    /// Copies all keys of another server.
    pub(super) fn take_over(&mut self, from: &mut World) {
        let keys = texts(&from.run(&["KEYS", "*"]));
        let asked = keys.iter().flat_map(|key| [Command::of(&["DUMP", key]), Command::of(&["PTTL", key])]);
        let told = from.run_all(asked.collect());
        let mut commands = vec![Command::of(&["FLUSHALL"])];
        for (key, told) in keys.iter().zip(told.chunks_exact(2)) {
            let [Value::BulkString(dump), Value::Int(left)] = told else { panic!("{key}: {told:?}") };
            let left = (*left).max(0).to_string();
            commands.push(Command::new(4).arg("RESTORE").arg(key).arg(left).arg(dump));
        }
        self.run_all(commands);
    }
}

/// The value of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyContent {
    pub(super) kind: String,
    expires: bool,
    /// Members with their scores, fields with their values, entries, …
    items: Vec<Vec<String>>,
}

/// What a server holds, by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keyspace(BTreeMap<String, KeyContent>);

impl Keyspace {
    /// Splits off what there is of some messages, each by itself, from the rest.
    pub(super) fn split(mut self, messages: &[u64]) -> (Vec<Vec<Vec<String>>>, Keyspace) {
        let of_each = messages.iter().map(|id| self.take(*id)).collect();
        self.0.retain(|_, held| !held.items.is_empty());
        (of_each, self)
    }

    /// Takes out what there is of a message: its member, its count, its results and dead letters.
    fn take(&mut self, id: u64) -> Vec<Vec<String>> {
        let (decimal, hex) = (id.to_string(), format!("{id:016x}"));
        let mut taken = Vec::new();
        for (key, held) in &mut self.0 {
            let kind = held.kind.clone();
            let is_its = |item: &Vec<String>| match kind.as_str() {
                "zset" => item[1] == decimal,
                "hash" => item[0] == decimal,
                "stream" => item[..2] == ["message_id", &decimal] || item[..2] == ["id", &hex],
                _ => false,
            };
            let its: Vec<Vec<String>>;
            (its, held.items) = std::mem::take(&mut held.items).into_iter().partition(is_its);
            taken.extend(its.into_iter().map(|item| [vec![key.clone()], item].concat()));
        }
        taken
    }

    /// In how many places each of these messages is: pending, with a result, or a dead letter.
    pub(super) fn places(&self, messages: &[u64]) -> Vec<usize> {
        let (of_each, _) = self.clone().split(messages);
        of_each.iter().map(|items| items.iter().filter(|item| !item[0].ends_with(":attempts")).count()).collect()
    }

    /// Everything except the recall and the marks of messages put back, which may change harmlessly when something is
    /// undone.
    pub(super) fn without_precautions(mut self) -> Keyspace {
        self.0.retain(|key, _| !key.ends_with(":recall") && !key.contains(":put-back:"));
        self
    }
}

/// A bundle as its messages, since taking it apart changes nothing; another member as it is.
fn taken_apart(pair: Vec<String>) -> Vec<Vec<String>> {
    let Some(messages) = bundle::decode(pair[0].as_bytes()) else { return vec![pair] };
    let mut member = Vec::new();
    let mut alone = |(id, body): (MessageId, Body)| {
        let member = member::encode(id, &body, &mut member);
        vec![String::from_utf8_lossy(member).into_owned(), id.0.to_string()]
    };
    messages.into_iter().map(&mut alone).collect()
}

fn parts(value: &Value) -> &[Value] {
    match value {
        Value::Array(parts) => parts,
        other => panic!("not a list: {other:?}"),
    }
}

fn texts(value: &Value) -> Vec<String> {
    parts(value).iter().map(|part| text(part).expect("a text").to_owned()).collect()
}

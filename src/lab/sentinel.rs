//! A primary with replicas, and Sentinels that watch them: private processes on free ports of 127.0.0.1.
//!
//! Any server and any Sentinel can be killed, paused and started again. A server that is started again is what its
//! first configuration said; the Sentinels make it a replica if another one is the primary by then. Dropping a
//! [`SentinelSet`] stops everything.

use std::time::Duration;

use redis::Value;

use super::redis::{RedisOptions, RedisServer};
use super::wait::wait_until;
use crate::base::error::Result;
use crate::ledger::Command;

/// The name of the primary.
pub const PRIMARY: &str = "main";

/// How long the set may take to get ready.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a server may be silent before the Sentinels replace it.
const DOWN_AFTER_MS: u64 = 1_000;
/// How long a step of a failover may take before it is tried again.
const FAILOVER_LIMIT_MS: u64 = 3_000;
/// A user of the servers by which the Sentinels log in, if there is one.
const SENTINEL_USER: &str = "sentinel";
const SENTINELS: usize = 3;
const QUORUM: usize = 2;

/// See the module's text.
pub struct SentinelSet {
    // In drop order.
    sentinels: Vec<RedisServer>,
    servers: Vec<RedisServer>,
    /// What precedes the addresses in the URL.
    login: String,
}

impl SentinelSet {
    /// Starts a primary, which is server 0, this many replicas, and three Sentinels. Waits until all know each other.
    pub fn start(options: &RedisOptions, replicas: usize) -> Result<SentinelSet> {
        let primary = RedisServer::start(with(options, &[("repl-diskless-sync-delay", "0".to_owned())]))?;
        let port = primary.port();
        let copy =
            with(options, &[("replicaof", format!("127.0.0.1 {port}")), ("repl-diskless-sync-delay", "0".to_owned())]);
        let mut servers = vec![primary];
        for _ in 0..replicas {
            servers.push(RedisServer::start(copy.clone())?);
        }
        let watching = RedisOptions { program: options.program.clone(), sentinel: true, ..RedisOptions::default() };
        let watching = with(
            &watching,
            &[
                ("sentinel monitor", format!("{PRIMARY} 127.0.0.1 {port} {QUORUM}")),
                ("sentinel down-after-milliseconds", format!("{PRIMARY} {DOWN_AFTER_MS}")),
                ("sentinel failover-timeout", format!("{PRIMARY} {FAILOVER_LIMIT_MS}")),
            ],
        );
        // Sentinels use this user if the servers have it.
        let has_user = options.config.iter().any(|(name, value)| name == "user" && value.starts_with(SENTINEL_USER));
        let login = [
            ("sentinel auth-user", format!("{PRIMARY} {SENTINEL_USER}")),
            ("sentinel auth-pass", format!("{PRIMARY} any")),
        ];
        let watching = if has_user { with(&watching, &login) } else { watching };
        let sentinels = (0..SENTINELS).map(|_| RedisServer::start(watching.clone())).collect::<Result<_>>()?;
        let login = options.password.as_ref().map_or(String::new(), |password| format!(":{password}@"));
        let set = SentinelSet { sentinels, servers, login };
        set.wait_until_complete()?;
        Ok(set)
    }

    /// The URL of the primary, for our programs.
    pub fn url(&self) -> String {
        let hosts: Vec<String> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port())).collect();
        format!("redis+sentinel://{}{}/{PRIMARY}", self.login, hosts.join(","))
    }

    /// A server, whether it runs or not.
    pub fn server(&mut self, number: usize) -> &mut RedisServer {
        &mut self.servers[number]
    }

    /// A server's port.
    pub fn port(&self, number: usize) -> u16 {
        self.servers[number].port()
    }

    /// A Sentinel, whether it runs or not.
    pub fn sentinel(&mut self, number: usize) -> &mut RedisServer {
        &mut self.sentinels[number]
    }

    /// The server that a Sentinel names; `None` if it does not answer.
    pub fn primary_by(&self, sentinel: usize) -> Option<usize> {
        let question = Command::of(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", PRIMARY]);
        let answer = self.sentinels[sentinel].connection().query("asking for the primary", question).ok()?;
        let port: u16 = words(&answer).get(1)?.parse().ok()?;
        self.servers.iter().position(|server| server.port() == port)
    }

    /// Waits until one Sentinel names another server than this one, and returns that.
    pub fn wait_for_another(&self, sentinel: usize, than: usize, within: Duration) -> Result<usize> {
        wait_until(within, "a Sentinel to name another primary".to_owned(), || {
            Ok(self.primary_by(sentinel).filter(|primary| *primary != than))
        })
    }

    /// Makes a Sentinel replace the primary, which still runs. Returns at once.
    pub fn fail_over(&self, sentinel: usize) -> Result<()> {
        let command = Command::of(&["SENTINEL", "FAILOVER", PRIMARY]);
        self.sentinels[sentinel].connection().query("failing over", command).map(drop)
    }

    /// Waits until every Sentinel knows the others and a primary with all replicas.
    pub fn wait_until_complete(&self) -> Result<()> {
        let others = (SENTINELS - 1).to_string();
        let replicas = (self.servers.len() - 1).to_string();
        for sentinel in &self.sentinels {
            let mut connection = sentinel.connection();
            wait_until(START_LIMIT, "a Sentinel to know the others and the replicas".to_owned(), || {
                let question = Command::of(&["SENTINEL", "MASTER", PRIMARY]);
                let answer = words(&connection.query("asking a Sentinel", question)?);
                let says = |name: &str, value: &str| answer.chunks(2).any(|pair| pair == [name, value]);
                let complete = says("num-other-sentinels", &others) && says("num-slaves", &replicas);
                Ok((complete && says("flags", "master")).then_some(()))
            })?;
        }
        self.wait_for_replicas()
    }

    /// Waits until the primary has so many connected replicas as there are.
    fn wait_for_replicas(&self) -> Result<()> {
        let wanted = self.servers.len() - 1;
        wait_until(START_LIMIT, "the replicas to be connected".to_owned(), || {
            let Some(primary) = self.primary_by(0) else { return Ok(None) };
            let role = self.servers[primary].connection().query("asking for the role", Command::of(&["ROLE"]))?;
            let Value::Array(parts) = role else { return Ok(None) };
            Ok(matches!(parts.get(2), Some(Value::Array(replicas)) if replicas.len() == wanted).then_some(()))
        })
    }
}

fn with(options: &RedisOptions, more: &[(&str, String)]) -> RedisOptions {
    let more = more.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    RedisOptions { config: options.config.iter().cloned().chain(more).collect(), ..options.clone() }
}

fn words(value: &Value) -> Vec<String> {
    let Value::Array(words) = value else { return Vec::new() };
    let text = |word: &Value| match word {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    };
    words.iter().map(text).collect()
}

//! A primary with replicas, and Sentinels that watch them: private processes on free ports of 127.0.0.1.
//!
//! Any server and any Sentinel can be killed, paused and started again. A server that is started again is what its
//! first configuration said; the Sentinels make it a replica if another one is the primary by then. Dropping a
//! [`SentinelSet`] stops everything.

use std::time::{Duration, Instant};

use redis::Value;

use super::child::ChildProcess;
use super::redis::{PORT_TRIES, RedisOptions, RedisServer, id_of_a_node, too_many_ports_taken};
use super::wait::wait_until;
use crate::base::error::Result;
use crate::base::text::Quoted;
use crate::ledger::Command;

/// The name of the primary.
pub const PRIMARY: &str = "main";

/// How long the set may take to get ready, and a planned failover.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a server may be silent before the Sentinels replace it.
const DOWN_AFTER_MS: u64 = 1_000;
/// How long a step of a failover may take before it is tried again.
const FAILOVER_LIMIT: Duration = Duration::from_secs(3);
/// A user of the servers by which the Sentinels log in, if there is one.
const SENTINEL_USER: &str = "sentinel";
const SENTINELS: usize = 3;
const QUORUM: usize = 2;
/// How often the Sentinels do things, in milliseconds, in place of their own times, which are for real networks: a
/// server that comes back as a primary is made a replica after ten to twenty seconds, and a Sentinel that was paused
/// for two seconds decides nothing for thirty. Needs Redis 7.0 or newer; older ones keep their times.
const PERIODS_MS: [(&str, &str); 4] =
    [("INFO-PERIOD", "1000"), ("ASK-PERIOD", "100"), ("PUBLISH-PERIOD", "250"), ("TILT-PERIOD", "1000")];

/// See the module's text. With TLS everything uses it: servers and Sentinels among each other, and programs.
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
        for _ in 0..PORT_TRIES {
            let mut set = SentinelSet::prepare(options, replicas)?;
            // The Sentinels last: what does not answer yet would count as down.
            if RedisServer::launch_all(&mut set.servers)? && RedisServer::launch_all(&mut set.sentinels)? {
                set.sentinels.iter().try_for_each(quicken)?;
                set.wait_until_complete()?;
                return Ok(set);
            }
        }
        Err(too_many_ports_taken())
    }

    /// The same before anything runs. Each Sentinel's file names all servers and the other Sentinels, which they would
    /// otherwise have to find out.
    fn prepare(options: &RedisOptions, replicas: usize) -> Result<SentinelSet> {
        // With TLS servers and Sentinels use it among each other, too.
        let by_tls: &[_] = if options.tls.is_some() { &[("tls-replication", "yes".to_owned())] } else { &[] };
        let at_once = options.with(&[("repl-diskless-sync-delay", "0".to_owned())]).with(by_tls);
        let mut servers =
            (0..=replicas).map(|_| RedisServer::prepare(at_once.clone())).collect::<Result<Vec<RedisServer>>>()?;
        let port = servers[0].main_port();
        servers[1..].iter_mut().for_each(|replica| replica.configure(&[("replicaof", format!("127.0.0.1 {port}"))]));
        let watching = RedisOptions {
            program: options.program.clone(),
            tls: options.tls.clone(),
            sentinel: true,
            ..RedisOptions::default()
        }
        .with(by_tls);
        let mut sentinels =
            (0..SENTINELS).map(|_| RedisServer::prepare(watching.clone())).collect::<Result<Vec<RedisServer>>>()?;
        let ids: Vec<String> = sentinels.iter().map(|_| id_of_a_node()).collect();
        let others: Vec<String> = sentinels
            .iter()
            .map(|sentinel| sentinel.main_port().to_string())
            .zip(&ids)
            .map(|(port, id)| format!("{PRIMARY} 127.0.0.1 {port} {id}"))
            .collect();
        // Sentinels use this user if the servers have it.
        let has_user = options.config.iter().any(|(name, value)| name == "user" && value.starts_with(SENTINEL_USER));
        for (number, sentinel) in sentinels.iter_mut().enumerate() {
            let mut lines = vec![
                ("sentinel myid", ids[number].clone()),
                ("sentinel monitor", format!("{PRIMARY} 127.0.0.1 {port} {QUORUM}")),
                ("sentinel down-after-milliseconds", format!("{PRIMARY} {DOWN_AFTER_MS}")),
                ("sentinel failover-timeout", format!("{PRIMARY} {}", FAILOVER_LIMIT.as_millis())),
            ];
            if has_user {
                lines.push(("sentinel auth-user", format!("{PRIMARY} {SENTINEL_USER}")));
                lines.push(("sentinel auth-pass", format!("{PRIMARY} any")));
            }
            let replica = |replica: &RedisServer| format!("{PRIMARY} 127.0.0.1 {}", replica.main_port());
            lines.extend(servers[1..].iter().map(|server| ("sentinel known-replica", replica(server))));
            let others = others.iter().enumerate().filter(|(other, _)| *other != number);
            lines.extend(others.map(|(_, other)| ("sentinel known-sentinel", other.clone())));
            sentinel.configure(&lines);
        }
        let login = options.password.as_ref().map_or(String::new(), |password| format!(":{password}@"));
        Ok(SentinelSet { sentinels, servers, login })
    }

    /// The URL of the primary, for our programs.
    pub fn url(&self) -> String {
        let hosts: Vec<String> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.main_port())).collect();
        let scheme = if self.servers[0].tls_port().is_some() { "rediss+sentinel" } else { "redis+sentinel" };
        format!("{scheme}://{}{}/{PRIMARY}", self.login, hosts.join(","))
    }

    /// A program's arguments for it: the URL, and the files for TLS, if it has TLS.
    pub fn arguments(&self) -> Vec<String> {
        [vec!["--redis-url".to_owned(), self.url()], self.servers[0].tls_files().0].concat()
    }

    /// A server, whether it runs or not.
    pub fn server(&mut self, number: usize) -> &mut RedisServer {
        &mut self.servers[number]
    }

    /// All servers.
    pub fn servers(&self) -> impl Iterator<Item = &RedisServer> {
        self.servers.iter()
    }

    /// All Sentinels.
    pub fn sentinels(&self) -> impl Iterator<Item = &RedisServer> {
        self.sentinels.iter()
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
        self.servers.iter().position(|server| server.main_port() == port)
    }

    /// Waits until one Sentinel names another server than this one, and returns that.
    pub fn wait_for_another(&self, sentinel: usize, than: usize, within: Duration) -> Result<usize> {
        wait_until(within, "a Sentinel to name another primary".to_owned(), || {
            Ok(self.primary_by(sentinel).filter(|primary| *primary != than))
        })
    }

    /// Makes a Sentinel replace the primary, which still runs, and waits until it names another one.
    ///
    /// It gives up if it finds no suitable replica at the moment, for instance because its news of them are too old on
    /// a busy machine. Then it is told again.
    pub fn fail_over(&self, sentinel: usize) -> Result<()> {
        let before = self.primary_by(sentinel);
        let mut told: Option<Instant> = None;
        wait_until(START_LIMIT, "a Sentinel to replace the primary".to_owned(), || {
            if told.is_none_or(|told| told.elapsed() > FAILOVER_LIMIT) {
                let command = Command::of(&["SENTINEL", "FAILOVER", PRIMARY]);
                match self.sentinels[sentinel].connection().query("failing over", command) {
                    Ok(_) => told = Some(Instant::now()),
                    // It says why not.
                    Err(error) if error.refusal().is_some() => {
                        log::debug!("event=failover-refused reason={}", Quoted(&error))
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(self.primary_by(sentinel).filter(|now| Some(*now) != before).map(drop))
        })
    }

    /// The processes that run, with their names.
    pub fn processes(&mut self) -> impl Iterator<Item = (String, &mut ChildProcess)> {
        let servers = self.servers.iter_mut().enumerate().map(|(number, server)| (format!("server {number}"), server));
        let sentinels =
            self.sentinels.iter_mut().enumerate().map(|(number, server)| (format!("sentinel {number}"), server));
        servers.chain(sentinels).filter_map(|(name, server)| Some((name, server.process()?)))
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

    /// Waits until the primary has so many connected replicas as there are, and each has confirmed something: until
    /// then it is sent nothing but the first copy.
    fn wait_for_replicas(&self) -> Result<()> {
        let wanted = self.servers.len() - 1;
        wait_until(START_LIMIT, "the replicas to be connected".to_owned(), || {
            let Some(primary) = self.primary_by(0) else { return Ok(None) };
            let role = self.servers[primary].connection().query("asking for the role", Command::of(&["ROLE"]))?;
            let Value::Array(parts) = role else { return Ok(None) };
            let Some(Value::Array(replicas)) = parts.get(2) else { return Ok(None) };
            // Host, port, and how much it has confirmed.
            let confirmed = |replica: &Value| words(replica).get(2).is_some_and(|bytes| bytes != "0");
            Ok((replicas.iter().filter(|replica| confirmed(replica)).count() == wanted).then_some(()))
        })
    }
}

/// Sets a Sentinel's times.
fn quicken(sentinel: &RedisServer) -> Result<()> {
    let words: Vec<&str> =
        ["SENTINEL", "DEBUG"].into_iter().chain(PERIODS_MS.iter().flat_map(|(name, ms)| [*name, *ms])).collect();
    match sentinel.connection().query("setting a Sentinel's times", Command::of(&words)) {
        // An unknown subcommand.
        Err(error) if error.refusal().is_none() => Err(error),
        _ => Ok(()),
    }
}

fn words(value: &Value) -> Vec<String> {
    let Value::Array(words) = value else { return Vec::new() };
    let text = |word: &Value| match word {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    };
    words.iter().map(text).collect()
}

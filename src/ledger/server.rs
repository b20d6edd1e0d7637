//! Where Redis is, and how errors of a server are told: with its address, never with its password.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redis::{Client, ConnectionAddr, IntoConnectionInfo, RedisError, Value};

use super::command::command;
use super::url::mistake_in;
use crate::base::error::{CONNECTING, Error, NO_ANSWER, reply_text};
use crate::base::refusal::{self, Refusal};
use crate::net::{self, Address, Keepalive, Stream, Wait};

/// How long opening a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A server that vanished without a word is noticed after this time and a few probes.
const KEEPALIVE: Keepalive = Keepalive { after: Duration::from_secs(5), every: Duration::from_secs(1) };

/// A Redis server, from the setting `redis-url`.
#[derive(Clone)]
pub struct Server {
    client: Client,
    address: Address,
    shown: String,
    /// Counted by all connections to it, in all clones.
    reconnects: Arc<AtomicU64>,
    /// Nobody has named it.
    is_default: bool,
    /// It was said, in any clone, that it refuses transactions.
    said_no_transactions: Arc<AtomicBool>,
}

impl Server {
    /// Reads a URL: `redis://[user:password@]host[:port][/db]` or `redis+unix:///path`.
    ///
    /// The error says what is wrong without repeating the URL, which may hold a password.
    pub fn parse(url: &str) -> std::result::Result<Server, String> {
        if let Some(mistake) = mistake_in(url) {
            return Err(mistake);
        }
        let info = url.into_connection_info().map_err(|error| error.to_string())?;
        let address = match info.addr() {
            ConnectionAddr::Tcp(host, port) => Address::Tcp { host: host.clone(), port: *port },
            ConnectionAddr::Unix(path) => Address::Unix(path.clone()),
            _ => return Err("only TCP and Unix sockets are supported".to_owned()),
        };
        let client = Client::open(info).map_err(|error| error.to_string())?;
        Ok(Server {
            client,
            shown: address.to_string(),
            address,
            reconnects: Arc::default(),
            is_default: false,
            said_no_transactions: Arc::default(),
        })
    }

    /// How often a connection was made anew after it had failed.
    pub fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    /// The address, without user and password.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Opens a socket to it, within `limit`, which each write has as well. The owner sets how long reading waits.
    pub(super) fn connect(&self, limit: Duration) -> io::Result<Stream> {
        let mut stream = net::connect(&self.address, limit)?;
        stream.set_keepalive(KEEPALIVE)?;
        stream.set_write_wait(Wait::Each(limit))?;
        Ok(stream)
    }

    /// Notes that nobody has named this server: it is the default, and no setting is to blame.
    pub(crate) fn by_default(mut self) -> Server {
        self.is_default = true;
        self
    }

    /// Appends what every connection says first: the login and the database. Gives the number of replies to it.
    pub(super) fn greet(&self, out: &mut Vec<u8>) -> usize {
        let settings = self.client.get_connection_info().redis_settings();
        let mut commands = 0;
        let login = match (settings.username(), settings.password()) {
            // A user without a password: Redis takes any, so also this one.
            (Some(user), password) => Some(vec!["AUTH", user, password.unwrap_or_default()]),
            // Not the same as naming the user `default`: that one may need no password, which is then a mistake.
            (None, Some(password)) => Some(vec!["AUTH", password]),
            (None, None) => None,
        };
        if let Some(words) = login {
            command(out, &words);
            commands += 1;
        }
        if settings.db() != 0 {
            command(out, &["SELECT", &settings.db().to_string()]);
            commands += 1;
        }
        commands
    }

    /// The number of the database.
    pub fn database(&self) -> i64 {
        self.client.get_connection_info().redis_settings().db()
    }

    /// Whether it is now said for the first time that transactions are refused.
    pub(super) fn says_no_transactions(&self) -> bool {
        !self.said_no_transactions.swap(true, Ordering::Relaxed)
    }

    /// A connection was made anew.
    pub(super) fn note_reconnect(&self) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    /// Wraps a failure of the client library, with a hint where we know what to do.
    pub(super) fn error(&self, doing: &'static str, source: RedisError) -> Error {
        let hint = self.hint(doing, &source).map_or(String::new(), |hint| format!(" ({hint})"));
        Error::Redis { server: self.shown.clone(), doing, hint, source }
    }

    /// A connection broke on which the server has never said a word.
    pub(super) fn unanswered(&self, doing: &'static str, error: io::Error) -> Error {
        let broke = matches!(
            error.kind(),
            ErrorKind::UnexpectedEof
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
        );
        if !broke && !speaks_tls(&error) {
            return self.error(doing, error.into());
        }
        Error::Redis { server: self.shown.clone(), doing, hint: NO_ANSWER.to_owned(), source: error.into() }
    }

    fn hint(&self, doing: &'static str, source: &RedisError) -> Option<String> {
        let text = reply_text(source);
        let refused = text.as_deref().and_then(|text| self.refusal_hint(text));
        let told = match source.kind() {
            _ if refused.is_some() => return refused,
            redis::ErrorKind::Io if source.is_connection_refusal() => {
                format!("is Redis running there? {}", self.named_by())
            }
            redis::ErrorKind::Io if source.is_timeout() => {
                "no answer in time: is the server hung, or far away?".to_owned()
            }
            _ if doing == CONNECTING => self.named_by().to_owned(),
            _ => return None,
        };
        Some(told)
    }

    /// What to do about an error reply.
    fn refusal_hint(&self, text: &str) -> Option<String> {
        let database = self.database();
        let hint = match Refusal::of(text) {
            Refusal::Login if text.contains("without any password") => {
                "the server has no password: leave it out of --redis-url / ONCECAST_REDIS_URL"
            }
            Refusal::Login if self.is_anonymous() => {
                "it wants a password: name it in --redis-url / ONCECAST_REDIS_URL, with the user if it is not the default one"
            }
            Refusal::Login => {
                "check user and password in --redis-url / ONCECAST_REDIS_URL; special characters in them must be \
                 percent-encoded"
            }
            Refusal::Right => "the user in --redis-url / ONCECAST_REDIS_URL lacks a right; ACL LOG shows which",
            Refusal::Memory => "Redis is at its maxmemory; raise it or make room",
            Refusal::Replica => "--redis-url / ONCECAST_REDIS_URL names a replica; it must name the primary",
            Refusal::Disk => "Redis can't write to its disk; its log says why",
            Refusal::Database => {
                return Some(format!(
                    "--redis-url / ONCECAST_REDIS_URL names database {database}, which the server does not have; a Redis \
                     Cluster has only database 0"
                ));
            }
            Refusal::Protocol => NEEDS_RESP3,
            Refusal::UnknownCommand => match refusal::unknown_command(text) {
                Some(name) if name.eq_ignore_ascii_case("HELLO") => NEEDS_RESP3,
                Some(name) => {
                    return Some(format!("the server lacks a command, {name}: it was renamed, or is older than 6.2"));
                }
                None => "the server lacks a command: it was renamed, or is older than 6.2",
            },
            Refusal::StreamExhausted => {
                "someone added an entry with the highest id there is: rename or delete that stream"
            }
            Refusal::Cluster => return cluster_hint(text),
            _ => return None,
        };
        Some(hint.to_owned())
    }

    fn is_anonymous(&self) -> bool {
        let settings = self.client.get_connection_info().redis_settings();
        settings.username().is_none() && settings.password().is_none()
    }

    fn named_by(&self) -> &'static str {
        if self.is_default {
            "it is the default; --redis-url / ONCECAST_REDIS_URL names another"
        } else {
            "the address is --redis-url / ONCECAST_REDIS_URL"
        }
    }

    pub(super) fn surprise(&self, doing: &'static str, got: &Value) -> Error {
        let mut got = format!("{got:?}");
        got.truncate(got.floor_char_boundary(200));
        Error::Answer { server: self.shown.clone(), doing, got }
    }
}

const NEEDS_RESP3: &str =
    "a subscription needs RESP3, the protocol of Redis 6 and newer: an older server or a proxy does not have it";

/// What to do about a node of a cluster that is not responsible.
fn cluster_hint(text: &str) -> Option<String> {
    const BRACES: &str = "put braces around the group's name, in every program, so that its keys share a slot: --group \
                          '{messages}'";
    if let Some(owner) = refusal::moved_to(text) {
        let owner = match owner.strip_prefix(':') {
            Some(port) => format!("port {port} of the same host"),
            None => owner.to_owned(),
        };
        return Some(format!(
            "this node of the Redis Cluster does not have the group's keys: --redis-url / ONCECAST_REDIS_URL must name \
             their owner, {owner}; if it names another each time, {BRACES}"
        ));
    }
    let hint = match refusal::code(text) {
        Some("ASK" | "TRYAGAIN") => "the cluster is moving these keys to another node",
        Some("CLUSTERDOWN") => "the Redis Cluster is incomplete; CLUSTER INFO shows why",
        _ => BRACES,
    };
    Some(hint.to_owned())
}

/// Told of bytes that are no RESP because they are TLS.
const TLS: &str = "this is TLS and no plain Redis";

/// Why these bytes are no reply of Redis.
pub(super) fn not_redis(received: &[u8]) -> io::Error {
    // An alert, the only thing that TLS says to a client that does not begin with a handshake.
    let text = if received.starts_with(&[0x15, 0x03]) { TLS } else { "this is no Redis" };
    io::Error::new(ErrorKind::InvalidData, text)
}

fn speaks_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.to_string() == TLS)
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Server").field(&self.shown).finish()
    }
}

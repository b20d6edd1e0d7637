//! Where Redis is, and how errors of a server are told: with its address, never with its password.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redis::{Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisError, Value};

use crate::error::{CONNECTING, Error, refusal_of};
use crate::refusal::Refusal;

/// How long opening a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A Redis server, from the setting `redis-url`.
#[derive(Clone)]
pub struct Server {
    client: Client,
    shown: String,
    /// Counted by all connections to it, in all clones.
    reconnects: Arc<AtomicU64>,
    /// It was said, in any clone, that it refuses transactions.
    said_no_transactions: Arc<AtomicBool>,
}

impl Server {
    /// Reads a URL: `redis://[user:password@]host[:port][/db]` or `redis+unix:///path`.
    ///
    /// The error says what is wrong without repeating the URL, which may hold a password.
    pub fn parse(url: &str) -> std::result::Result<Server, String> {
        if url.starts_with("rediss:") {
            return Err("TLS is not supported; use a tunnel on this machine".to_owned());
        }
        let info = url.into_connection_info().map_err(|error| error.to_string())?;
        let shown = match info.addr() {
            ConnectionAddr::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            ConnectionAddr::Tcp(host, port) => format!("{host}:{port}"),
            ConnectionAddr::Unix(path) => path.display().to_string(),
            _ => return Err("only TCP and Unix sockets are supported".to_owned()),
        };
        let client = Client::open(info).map_err(|error| error.to_string())?;
        Ok(Server { client, shown, reconnects: Arc::default(), said_no_transactions: Arc::default() })
    }

    /// How often a connection was made anew after it had failed.
    pub fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    /// The address, without user and password.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Host and port, or the path of a Unix socket.
    pub(super) fn address(&self) -> Address {
        match self.client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) => Address::Tcp(host.clone(), *port),
            ConnectionAddr::Unix(path) => Address::Unix(path.clone()),
            _ => unreachable!("parse() lets no other address pass"),
        }
    }

    /// The user, if one is named, and the password, if any.
    pub(super) fn credentials(&self) -> Option<(Option<&str>, &str)> {
        let settings = self.client.get_connection_info().redis_settings();
        Some((settings.username(), settings.password()?))
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
        let hint = match (source.kind(), refusal_of(&source)) {
            (_, Some(Refusal::Login)) => " (check user and password in --redis-url / ONCECAST_REDIS_URL)",
            (_, Some(Refusal::Right)) => {
                " (the user in --redis-url / ONCECAST_REDIS_URL lacks a right; ACL LOG shows which)"
            }
            (_, Some(Refusal::Memory)) => " (Redis is at its maxmemory; raise it or make room)",
            (_, Some(Refusal::Replica)) => {
                " (--redis-url / ONCECAST_REDIS_URL names a replica; it must name the primary)"
            }
            (_, Some(Refusal::Disk)) => " (Redis can't write to its disk; its log says why)",
            (_, Some(Refusal::UnknownCommand)) => " (the server lacks a command: it was renamed, or is older than 6.2)",
            (_, Some(Refusal::StreamExhausted)) => {
                " (someone added an entry with the highest id there is: rename or delete that stream)"
            }
            (ErrorKind::Io, _) if source.is_connection_refusal() => {
                " (is Redis running there? the address is --redis-url / ONCECAST_REDIS_URL)"
            }
            (ErrorKind::Io, _) if source.is_timeout() => " (no answer in time: is the server hung, or far away?)",
            _ if matches!(doing, CONNECTING | "greeting") => " (the address is --redis-url / ONCECAST_REDIS_URL)",
            _ => "",
        };
        Error::Redis { server: self.shown.clone(), doing, hint: hint.to_owned(), source }
    }

    pub(super) fn surprise(&self, doing: &'static str, got: &Value) -> Error {
        let mut got = format!("{got:?}");
        got.truncate(got.floor_char_boundary(200));
        Error::Answer { server: self.shown.clone(), doing, got }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Server").field(&self.shown).finish()
    }
}

/// Where a server listens.
#[derive(Clone, Debug)]
pub(super) enum Address {
    Tcp(String, u16),
    Unix(PathBuf),
}

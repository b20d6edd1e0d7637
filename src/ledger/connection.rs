//! A connection to Redis that is opened when needed and dropped after any failure that leaves its state unknown.
//!
//! Owned by one thread. It never repeats a command by itself, except a script that Redis said it did not have:
//! whether a command may be repeated is known only to the caller.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::{Client, ConnectionAddr, ConnectionLike, ErrorKind, IntoConnectionInfo, RedisError, Value};

use super::resp::Command;
use crate::error::{Error, Result};

/// How long opening a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A Redis server, from the setting `redis-url`.
#[derive(Clone)]
pub struct Server {
    client: Client,
    shown: String,
    /// Counted by all connections to it, in all clones.
    reconnects: Arc<AtomicU64>,
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
        // It would cost a round trip on each connection, and users with the least rights may not.
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        let info = info.set_redis_settings(settings);
        let client = Client::open(info).map_err(|error| error.to_string())?;
        Ok(Server { client, shown, reconnects: Arc::default() })
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

    /// User and password, if any.
    pub(super) fn credentials(&self) -> Option<(String, String)> {
        let settings = self.client.get_connection_info().redis_settings();
        let password = settings.password()?;
        Some((settings.username().unwrap_or("default").to_owned(), password.to_owned()))
    }

    /// Wraps a failure of the client library, with a hint where we know what to do.
    pub(super) fn error(&self, doing: &'static str, source: RedisError) -> Error {
        let hint = match (source.kind(), source.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS" | "NOAUTH")) => {
                " (check user and password in --redis-url / ONCECAST_REDIS_URL)"
            }
            (_, Some("NOPERM")) => " (the user in --redis-url / ONCECAST_REDIS_URL lacks a right)",
            (_, Some("OOM")) => " (Redis is at its maxmemory; raise it or make room)",
            (_, Some("READONLY")) => " (--redis-url / ONCECAST_REDIS_URL names a replica; it must name the primary)",
            (ErrorKind::Io, _) if source.is_connection_refusal() => {
                " (is Redis running there? the address is --redis-url / ONCECAST_REDIS_URL)"
            }
            (ErrorKind::Io, _) if source.is_timeout() => " (no answer in time: is the server hung, or far away?)",
            _ if matches!(doing, "connecting" | "greeting") => " (the address is --redis-url / ONCECAST_REDIS_URL)",
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
pub(super) enum Address {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// A Lua script, called by its digest.
pub(super) struct Script {
    text: &'static str,
    // Given by the server when the script is first loaded; the same on every server.
    digest: OnceLock<String>,
}

impl Script {
    pub(super) const fn new(text: &'static str) -> Script {
        Script { text, digest: OnceLock::new() }
    }
}

/// See the module's text.
pub struct Connection {
    server: Server,
    open: Option<redis::Connection>,
    timeout: Duration,
    /// Whether one was open before and failed.
    failed: bool,
}

impl Connection {
    /// A connection that will wait at most `timeout` for each reply. Opens nothing yet.
    pub fn new(server: Server, timeout: Duration) -> Connection {
        Connection { server, open: None, timeout, failed: false }
    }

    /// The server it talks to.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Changes how long a reply is waited for.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
        if let Some(open) = &self.open
            && open.set_read_timeout(Some(timeout)).is_err()
        {
            self.open = None;
        }
    }

    /// Sends one command and returns its reply; an error reply is an `Err`.
    pub fn query(&mut self, doing: &'static str, command: Command) -> Result<Value> {
        self.exchange(doing, &command.into_bytes(), 1).map(|mut replies| replies.remove(0))
    }

    /// Sends commands in one write and returns their replies in order; the first error reply is an `Err`.
    pub fn pipeline(&mut self, doing: &'static str, commands: Vec<Command>) -> Result<Vec<Value>> {
        let count = commands.len();
        let bytes = commands.into_iter().flat_map(Command::into_bytes).collect::<Vec<u8>>();
        self.exchange(doing, &bytes, count)
    }

    /// Calls a script; sends its text where the server does not have it, which is safe as it then did not run.
    pub(super) fn call(&mut self, doing: &'static str, script: &Script, call: ScriptCall<'_>) -> Result<Value> {
        let digest = match script.digest.get() {
            Some(digest) => digest,
            None => {
                let load = Command::new(3).arg("SCRIPT").arg("LOAD").arg(script.text);
                match self.query("loading a script", load)? {
                    Value::BulkString(digest) => {
                        script.digest.get_or_init(|| String::from_utf8_lossy(&digest).into_owned())
                    }
                    other => return Err(self.server.surprise("loading a script", &other)),
                }
            }
        };
        match self.query(doing, call.command("EVALSHA", digest)) {
            // Loaded and called in one step: between two of them it could be forgotten again.
            Err(error) if error.redis_code() == Some("NOSCRIPT") => {
                self.query(doing, call.command("EVAL", script.text))
            }
            outcome => outcome,
        }
    }

    fn exchange(&mut self, doing: &'static str, bytes: &[u8], count: usize) -> Result<Vec<Value>> {
        let connection = match &mut self.open {
            Some(open) => open,
            closed => {
                let made = open(&self.server, self.timeout)?;
                if self.failed {
                    self.server.reconnects.fetch_add(1, Ordering::Relaxed);
                }
                closed.insert(made)
            }
        };
        let outcome = connection
            .req_packed_commands(bytes, 0, count)
            .and_then(|replies| replies.into_iter().map(|reply| reply.extract_error()).collect());
        outcome.map_err(|error| {
            // After a timeout or an interruption the reply may still come: it must not meet the next command.
            // A server that is no primary any more stays one that can't be written to: behind its address may be another.
            let demoted = matches!(error.code(), Some("READONLY" | "MASTERDOWN"));
            if demoted || !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) {
                self.open = None;
                self.failed = true;
            }
            self.server.error(doing, error)
        })
    }
}

fn open(server: &Server, timeout: Duration) -> Result<redis::Connection> {
    let set_up = || {
        let connection = server.client.get_connection_with_timeout(timeout.min(CONNECT_TIMEOUT))?;
        // Connecting resets them.
        connection.set_read_timeout(Some(timeout))?;
        connection.set_write_timeout(Some(timeout))?;
        Ok(connection)
    };
    set_up().map_err(|error| server.error("connecting", error))
}

/// The keys and arguments of a script call.
pub(super) struct ScriptCall<'a> {
    keys: &'a [&'a str],
    arguments: Vec<Argument<'a>>,
}

enum Argument<'a> {
    Borrowed(&'a [u8]),
    Owned(Vec<u8>),
}

impl<'a> ScriptCall<'a> {
    pub(super) fn new(keys: &'a [&'a str]) -> ScriptCall<'a> {
        ScriptCall { keys, arguments: Vec::new() }
    }

    pub(super) fn bytes(mut self, argument: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.arguments.push(Argument::Borrowed(argument.as_ref()));
        self
    }

    pub(super) fn push_bytes(&mut self, argument: &'a [u8]) {
        self.arguments.push(Argument::Borrowed(argument));
    }

    pub(super) fn push_owned(&mut self, argument: Vec<u8>) {
        self.arguments.push(Argument::Owned(argument));
    }

    pub(super) fn show(mut self, argument: impl ToString) -> Self {
        self.push_shown(argument);
        self
    }

    pub(super) fn push_shown(&mut self, argument: impl ToString) {
        self.arguments.push(Argument::Owned(argument.to_string().into_bytes()));
    }

    /// `EVALSHA` with the script's digest, or `EVAL` with its text.
    fn command(&self, name: &str, script: &str) -> Command {
        let mut command = Command::new(3 + self.keys.len() + self.arguments.len())
            .arg(name)
            .arg(script)
            .arg(self.keys.len().to_string());
        for key in self.keys {
            command = command.arg(key);
        }
        for argument in &self.arguments {
            command = match argument {
                Argument::Borrowed(bytes) => command.arg(bytes),
                Argument::Owned(bytes) => command.arg(bytes),
            };
        }
        command
    }
}

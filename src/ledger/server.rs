//! The address of Redis, and how its errors are reported: with the address, never with the password.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redis::{Client, ConnectionAddr, IntoConnectionInfo, Value};

use super::command::command;
use super::secure::Secure;
use super::url::{mistake_in, without_tls};
use crate::base::error::{Error, Step};
use crate::base::failure::Failure;
use crate::base::hint::{ChosenBy, Hint, UrlSetting};
use crate::base::refusal::{self, Refusal};
use crate::base::text::beginning;
use crate::base::tls::TlsSettings;
use crate::net::{self, Address, ClientFiles, ClientTls, FileProblem, Keepalive, PemFile, Stream, Wait};

/// How long opening a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A server that vanished without closing is noticed after this time and a few probes.
const KEEPALIVE: Keepalive = Keepalive { after: Duration::from_secs(5), every: Duration::from_secs(1) };

/// Why the settings of a server can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// The URL has this mistake.
    #[error("{0}")]
    Url(String),
    /// One of the files for TLS can't be used.
    #[error("{0}")]
    File(#[from] FileProblem),
}

fn unused(file: PemFile) -> Mistake {
    Mistake::File(FileProblem { file, text: "a file, and the Redis URL is not rediss://".to_owned() })
}

/// A Redis server, from the setting `redis-url`.
#[derive(Clone)]
pub struct Server {
    client: Client,
    address: Address,
    secure: Option<Secure>,
    shown: String,
    /// Counted by all connections to it, in all clones.
    reconnects: Arc<AtomicU64>,
    chosen: ChosenBy,
    /// Whether it was logged, by any clone, that it refuses transactions.
    logged_no_transactions: Arc<AtomicBool>,
}

impl Server {
    /// Reads a URL: `redis://[user:password@]host[:port][/db]`, `rediss://…` for TLS, or `redis+unix:///path`.
    ///
    /// The error says what is wrong without repeating the URL, which may hold a password.
    pub fn parse(url: &str) -> std::result::Result<Server, String> {
        Server::with_files(url, ClientFiles::default()).map_err(|mistake| mistake.to_string())
    }

    /// Like [`parse`](Server::parse), with files for TLS, which are read here for the first time.
    pub fn with_files(url: &str, files: ClientFiles) -> std::result::Result<Server, Mistake> {
        if let Some(mistake) = mistake_in(url) {
            return Err(Mistake::Url(mistake));
        }
        let plain = without_tls(url);
        let secure = match plain {
            Some(_) => Some(Secure::new(ClientTls::load(files)?)),
            None => match (&files.roots, &files.identity) {
                (Some(_), _) => return Err(unused(PemFile::Roots)),
                (None, Some(_)) => return Err(unused(PemFile::Certificate)),
                (None, None) => None,
            },
        };
        let url = plain.as_deref().unwrap_or(url);
        let info = url.into_connection_info().map_err(|error| Mistake::Url(error.to_string()))?;
        let address = match info.addr() {
            ConnectionAddr::Tcp(host, port) => Address::Tcp { host: host.clone(), port: *port },
            ConnectionAddr::Unix(path) => Address::Unix(path.clone()),
            _ => return Err(Mistake::Url("only TCP and Unix sockets are supported".to_owned())),
        };
        let client = Client::open(info).map_err(|error| Mistake::Url(error.to_string()))?;
        Ok(Server {
            client,
            shown: address.to_string(),
            address,
            secure,
            reconnects: Arc::default(),
            chosen: ChosenBy::Setting("the Redis URL"),
            logged_no_transactions: Arc::default(),
        })
    }

    /// How often a connection was reopened after a failure.
    pub fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    /// The address, without user and password.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Opens a socket to the server within `limit`, which is also the limit of the TLS handshake and of each write. The
    /// owner sets the limit for reads.
    pub(super) fn connect(&self, limit: Duration) -> io::Result<Stream> {
        let mut stream = net::connect(&self.address, limit)?;
        stream.set_keepalive(KEEPALIVE)?;
        if let Some(secure) = &self.secure {
            secure.secure(&mut stream, &self.address, limit)?;
        }
        stream.set_write_wait(Wait::Each(limit))?;
        Ok(stream)
    }

    /// Notes how this server was chosen, for errors that say what to change.
    pub fn chosen(self, by: ChosenBy) -> Server {
        Server { chosen: by, ..self }
    }

    /// Whether it is reached with TLS.
    pub fn is_secure(&self) -> bool {
        self.secure.is_some()
    }

    /// When our own certificate for it ends, in seconds since 1970, if there is one.
    pub fn certificate_end(&self) -> Option<u64> {
        self.secure.as_ref()?.certificate_end()
    }

    /// What its settings for TLS are called, for the same errors.
    pub fn tls_settings(self, tls_settings: TlsSettings) -> Server {
        Server { secure: self.secure.map(|secure| secure.with_settings(tls_settings)), ..self }
    }

    /// Appends the commands that begin every connection: the login and the database. Returns the number of replies.
    pub(super) fn greet(&self, out: &mut Vec<u8>) -> usize {
        let settings = self.client.get_connection_info().redis_settings();
        let mut commands = 0;
        let login = match (settings.username(), settings.password()) {
            // A user without a password. Redis accepts any password for it, so also an empty one.
            (Some(user), password) => Some(vec!["AUTH", user, password.unwrap_or_default()]),
            // Not the same as naming the user `default`: if that user needs no password, Redis reports this form as a
            // mistake.
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

    /// The name of the user.
    pub(super) fn user(&self) -> &str {
        self.client.get_connection_info().redis_settings().username().unwrap_or("default")
    }

    /// The number of the database.
    pub fn database(&self) -> i64 {
        self.client.get_connection_info().redis_settings().db()
    }

    /// Whether to log that transactions are refused: `true` only for the first call in all clones.
    pub(super) fn should_log_no_transactions(&self) -> bool {
        !self.logged_no_transactions.swap(true, Ordering::Relaxed)
    }

    /// A connection was reopened.
    pub(super) fn note_reconnect(&self) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    /// A failure as an error, with a hint if there is one.
    pub(super) fn error(&self, step: impl Into<Step>, cause: impl Into<Failure>) -> Error {
        let (step, cause) = (step.into(), cause.into());
        let hint = self.hint(step, &cause).map(Box::new);
        Error::Redis { server: self.shown.clone(), step, hint, cause }
    }

    /// The error for a connection that broke before the server had answered anything.
    pub(super) fn unanswered(&self, step: impl Into<Step>, error: io::Error) -> Error {
        let broke = matches!(
            error.kind(),
            ErrorKind::UnexpectedEof
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
        );
        if self.secure.is_some() || !broke && !speaks_tls(&error) {
            return self.error(step, error);
        }
        let (server, step, hint) = (self.shown.clone(), step.into(), Hint::NoAnswer(self.setting()));
        Error::Redis { server, step, hint: Some(Box::new(hint)), cause: error.into() }
    }

    fn hint(&self, step: Step, cause: &Failure) -> Option<Hint> {
        let refused = cause.reply_text().and_then(|text| self.hint_about_refusal(&text));
        if let Some(problem) = cause.tls_problem() {
            return self.secure.as_ref()?.hint(problem, self.setting());
        }
        refused.or_else(|| match () {
            () if cause.is_connection_refused() => Some(Hint::IsItRunning(self.chosen)),
            () if cause.is_timeout() => Some(Hint::Slow),
            () if step == Step::Connecting => Some(Hint::Address(self.chosen)),
            () => None,
        })
    }

    /// What to do about an error reply.
    fn hint_about_refusal(&self, text: &str) -> Option<Hint> {
        let setting = self.setting();
        Some(match Refusal::of(text) {
            Refusal::Login if refusal::is_needless_password(text) => Hint::NoPassword(setting),
            Refusal::Login if self.is_anonymous() => Hint::Password(setting),
            Refusal::Login => Hint::Login(setting),
            Refusal::Right => Hint::Right(setting, None),
            Refusal::Memory => Hint::Memory,
            Refusal::Replica => Hint::Replica(setting),
            Refusal::Disk => Hint::Disk,
            Refusal::Database => Hint::Database(setting, self.database()),
            Refusal::Protocol => Hint::Resp3,
            Refusal::UnknownCommand => match refusal::unknown_command(text) {
                Some(name) if name.eq_ignore_ascii_case("HELLO") => Hint::Resp3,
                name => Hint::Command(name.map(str::to_owned)),
            },
            Refusal::NotNow if refusal::code(text) == Some("BUSY") => Hint::Busy,
            Refusal::NotNow => Hint::Loading,
            Refusal::Clients => Hint::Clients,
            Refusal::Protected => Hint::Protected,
            Refusal::StreamExhausted => Hint::StreamExhausted(None),
            Refusal::Cluster => match (refusal::moved_to(text), refusal::code(text)) {
                (Some(owner), _) => Hint::Moved { setting, owner: owner.to_owned() },
                (None, Some("ASK" | "TRYAGAIN")) => Hint::Moving,
                (None, Some("CLUSTERDOWN")) => Hint::ClusterDown,
                (None, _) => Hint::Slots,
            },
            _ => return None,
        })
    }

    /// What its URL is called where it was set.
    pub(super) fn setting(&self) -> UrlSetting {
        self.chosen.setting()
    }

    fn is_anonymous(&self) -> bool {
        let settings = self.client.get_connection_info().redis_settings();
        settings.username().is_none() && settings.password().is_none()
    }

    /// The error for a reply of an unexpected form.
    pub(super) fn unexpected_reply(&self, step: impl Into<Step>, got: &Value) -> Error {
        let mut got = format!("{got:?}");
        got.truncate(beginning(&got, 200).len());
        Error::Answer { server: self.shown.clone(), step: step.into(), got }
    }
}

/// Names in the error the rights of which the user lacks one, if Redis only says that it lacks a key or a channel.
pub(super) fn name_the_rights(error: Error, rights: impl FnOnce() -> String) -> Error {
    let is_about_names = error.refusal() == Some(Refusal::Right) && error.to_string().contains("to access ");
    match error {
        Error::Redis { server, step, cause, hint: Some(hint) } if is_about_names => {
            let hint = match *hint {
                Hint::Right(setting, None) => Hint::Right(setting, Some(rights())),
                other => other,
            };
            Error::Redis { server, step, cause, hint: Some(Box::new(hint)) }
        }
        error => error,
    }
}

/// The error text for bytes that are TLS instead of RESP.
const TLS: &str = "this is TLS, not plain Redis";

/// Why these bytes are no reply of Redis.
pub(super) fn not_redis(received: &[u8]) -> io::Error {
    // A TLS alert, the answer to a client that does not begin with a handshake.
    let text = if received.starts_with(&[0x15, 0x03]) { TLS } else { "this is not Redis" };
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

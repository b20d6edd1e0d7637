//! Errors, sorted by what they make us do.
//!
//! | error | what its owner does |
//! |---|---|
//! | [`Error::Redis`] | drops the connection and tries again, with backoff |
//! | [`Error::Fenced`] | stops leading: another dispatcher has the group now |
//! | [`Error::Config`] | stops the program with exit code 2 |
//! | [`Error::Io`], [`Error::Failed`] | stops the program with exit code 1 |
//!
//! A mistake on a link between dispatcher and consumer is a [`WireError`](crate::wire::WireError) and costs that link.

use std::fmt;
use std::io;

use thiserror::Error;

use crate::base::id::Epoch;
use crate::base::refusal::Refusal;
use crate::base::setting::ConfigError;

/// What went wrong, by what it makes us do.
#[derive(Error)]
pub enum Error {
    /// Redis cannot be reached or refuses for now. The outcome of a command in flight is unknown.
    #[error("redis {server}: {doing}: {source}{hint}")]
    Redis {
        /// The server's address, without its password.
        server: String,
        /// What was being done.
        doing: &'static str,
        /// What to do about it; empty or starting with a space.
        hint: String,
        /// The client library's error.
        source: redis::RedisError,
    },
    /// Redis answered with something this version does not understand.
    #[error("redis {server}: {doing}: unexpected answer {got}")]
    Answer {
        /// The server's address, without its password.
        server: String,
        /// What was being done.
        doing: &'static str,
        /// The answer, shortened.
        got: String,
    },
    /// A script was refused: its caller does not lead any more.
    #[error("epoch {mine} is over, redis says {found:?}")]
    Fenced {
        /// The caller's epoch.
        mine: Epoch,
        /// What the epoch's key holds; empty if it is gone.
        found: String,
    },
    /// A setting is missing or wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The operating system refused something we cannot do without.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, and to what.
        what: String,
        /// The system's error.
        source: io::Error,
    },
    /// Anything else that ends a program.
    #[error("{0}")]
    Failed(String),
}

/// The same as its text: that is what a `main` prints that returns it.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    /// An [`Error::Io`] that says what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { what: what.into(), source }
    }

    /// The exit code of a program that ends with this error.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Error::Config(_)) { 2 } else { 1 }
    }

    /// Whether trying again later, on a new connection, may help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Redis { .. } | Error::Answer { .. })
    }

    /// Whether Redis lets this user do nothing of the kind: trying again helps only after its rights have changed.
    pub fn is_denied(&self) -> bool {
        self.refusal().is_some_and(Refusal::is_denial)
    }

    /// Why Redis refused, if it answered with an error.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Error::Redis { source, .. } => refusal_of(source),
            _ => None,
        }
    }

    /// Whether there was no connection to send a command over, or its script could not be loaded: so it was not carried out.
    pub fn is_unsent(&self) -> bool {
        matches!(self, Error::Redis { doing, .. } if [CONNECTING, LOADING_A_SCRIPT].contains(doing))
    }

    /// Whether the server ended the connection before it had said a word.
    pub fn is_unanswered(&self) -> bool {
        matches!(self, Error::Redis { hint, .. } if hint == NO_ANSWER)
    }

    /// Whether the connection ended while a command was under way, without a reply.
    pub fn is_broken_off(&self) -> bool {
        let Error::Redis { source, .. } = self else { return false };
        !self.is_unsent() && source.is_io_error() && source.is_connection_dropped()
    }
}

/// What is said of a server that ends a connection before it has said a word.
pub(crate) const NO_ANSWER: &str = " (it answers nothing to plain Redis commands: is this a port for TLS? TLS is not supported; use a \
                             tunnel on this machine)";

/// What is being done while a connection is opened, as an [`Error::Redis`] says it.
pub const CONNECTING: &str = "connecting";

/// What is being done before a script is called for the first time, as an [`Error::Redis`] says it.
pub const LOADING_A_SCRIPT: &str = "loading a script";

/// Why Redis refused, if this is an error reply.
pub fn refusal_of(error: &redis::RedisError) -> Option<Refusal> {
    reply_text(error).map(|text| Refusal::of(&text))
}

/// The text of an error reply, if this is one.
pub fn reply_text(error: &redis::RedisError) -> Option<String> {
    Some(format!("{} {}", error.code()?, error.detail().unwrap_or_default()))
}

/// The library's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

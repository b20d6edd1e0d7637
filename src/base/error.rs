//! Errors, sorted by what the program does about them.
//!
//! | error | what its owner does |
//! |---|---|
//! | [`Error::Redis`], [`Error::Answer`] | tries again, with backoff, on a new connection if necessary |
//! | [`Error::Unreplicated`] | tries again, with backoff |
//! | [`Error::Fenced`] | stops leading: another dispatcher leads now |
//! | [`Error::Config`] | stops the program with exit code 2 |
//! | [`Error::Io`] | stops the program with exit code 1 |
//! | [`Error::Failed`] | the same; only the listener opens its subscription again |
//!
//! An error's text includes its cause, so `source` returns none: whoever prints the chain prints each text once.
//!
//! A malformed frame on a link is a [`WireError`](crate::wire::WireError) and closes that link.

use std::fmt;
use std::io;

use thiserror::Error;

use crate::base::failure::Failure;
use crate::base::hint::Hint;
use crate::base::id::Epoch;
use crate::base::refusal::Refusal;
use crate::base::setting::ConfigError;

/// What went wrong, sorted by what the program does about it.
#[derive(Error)]
pub enum Error {
    /// Redis can't be reached, or refuses. The outcome of a command in flight is unknown.
    #[error("redis {server}: {step}: {cause}{}", in_brackets(.hint.as_deref()))]
    Redis {
        /// The server's address, without its password.
        server: String,
        /// What was being done.
        step: Step,
        /// What to do about it.
        hint: Option<Box<Hint>>,
        /// The error reply, or what is wrong with the connection.
        cause: Failure,
    },
    /// Redis answered with something this version does not understand.
    #[error("redis {server}: {step}: unexpected answer {got}")]
    Answer {
        /// The server's address, without its password.
        server: String,
        /// What was being done.
        step: Step,
        /// The answer, shortened.
        got: String,
    },
    /// What was stored is in too few replicas, so it counts as not stored yet.
    #[error(
        "redis {server}: only {confirmed} of {wanted} replicas have confirmed what was stored (--wait-replicas): INFO \
         replication shows which are connected"
    )]
    Unreplicated {
        /// The server's address, without its password.
        server: String,
        /// How many replicas have it.
        confirmed: u32,
        /// How many must have it.
        wanted: u32,
    },
    /// A leader's write was refused, because it no longer leads.
    #[error("epoch {mine} is over, redis says {found:?}")]
    Fenced {
        /// The caller's epoch.
        mine: Epoch,
        /// The value of the epoch's key; empty if it is gone.
        found: String,
    },
    /// A setting is missing or wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The operating system refused something that the program needs.
    #[error("{what}: {cause}")]
    Io {
        /// What was being done, and to what.
        what: String,
        /// The system's error.
        cause: io::Error,
    },
    /// Anything else that ends a program, or makes the listener open its subscription again.
    #[error("{0}")]
    Failed(String),
}

/// What was being done when Redis failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A connection was being opened: no command was sent.
    Connecting,
    /// A script was being loaded and was not run yet.
    LoadingScript,
    /// A command was sent, for this purpose.
    Command(&'static str),
}

impl From<&'static str> for Step {
    fn from(purpose: &'static str) -> Step {
        Step::Command(purpose)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Connecting => "connecting",
            Step::LoadingScript => "loading a script",
            Step::Command(purpose) => purpose,
        })
    }
}

/// The same as `Display`, because a `main` that returns an error prints it by `Debug`.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    /// An [`Error::Io`] that names what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        move |cause| Error::Io { what: what.into(), cause }
    }

    /// The exit code of a program that ends with this error.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Error::Config(_)) { 2 } else { 1 }
    }

    /// Whether trying again later, on a new connection, may help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Redis { .. } | Error::Answer { .. } | Error::Unreplicated { .. })
    }

    /// Whether Redis denies this user the login, the database or the right, so that retrying helps only after its
    /// rights or the settings have changed.
    pub fn is_denied(&self) -> bool {
        self.refusal().is_some_and(Refusal::is_denial)
    }

    /// Why Redis refused, if it answered with an error.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Error::Redis { cause, .. } => cause.refusal(),
            _ => None,
        }
    }

    /// Whether the command was not executed, because there was no connection or its script could not be loaded.
    pub fn is_unsent(&self) -> bool {
        matches!(self, Error::Redis { step: Step::Connecting | Step::LoadingScript, .. })
    }

    /// Whether the server ended the connection before it had answered anything.
    pub fn is_unanswered(&self) -> bool {
        matches!(self, Error::Redis { hint: Some(hint), .. } if matches!(**hint, Hint::NoAnswer(_)))
    }

    /// Whether Redis did not reply in time.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Error::Redis { cause, .. } if cause.is_timeout())
    }

    /// Whether the connection ended while a command was in progress, without a reply.
    pub fn is_broken_off(&self) -> bool {
        !self.is_unsent() && matches!(self, Error::Redis { cause, .. } if cause.is_connection_dropped())
    }
}

fn in_brackets(hint: Option<&Hint>) -> String {
    hint.map_or(String::new(), |hint| format!(" ({hint})"))
}

/// The library's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

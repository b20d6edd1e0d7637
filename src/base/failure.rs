//! Why a command failed: an error reply, or a problem with the connection. Wraps the error of the `redis` package, so
//! that other modules don't depend on that package.

use std::error::Error;
use std::fmt;
use std::io;

use redis::{RedisError, Value};

use super::refusal::Refusal;
use super::text::Escaped;
use super::tls::TlsProblem;

/// See the module's text. Displayed in the package's words.
#[derive(Debug)]
pub struct Failure(RedisError, Option<Box<TlsProblem>>);

impl Failure {
    /// An error reply with this text, without its leading `-`.
    pub fn of_reply(text: &[u8]) -> Failure {
        let parsed = redis::parse_redis_value(&[b"-", text, b"\r\n"].concat()).and_then(Value::extract_error);
        let unnamed = || (redis::ErrorKind::UnexpectedReturnType, "an error without a text").into();
        Failure(parsed.err().unwrap_or_else(unnamed), None)
    }

    /// Wraps the package's error.
    pub(crate) fn new(error: RedisError) -> Failure {
        Failure(error, None)
    }

    /// What is wrong with TLS, if that is the problem.
    pub fn tls_problem(&self) -> Option<&TlsProblem> {
        self.1.as_deref()
    }

    /// The text of the error reply, if it is one.
    pub fn reply_text(&self) -> Option<String> {
        Some(format!("{} {}", self.0.code()?, self.0.detail().unwrap_or_default()))
    }

    /// Why Redis refused, if it is an error reply.
    pub fn refusal(&self) -> Option<Refusal> {
        self.reply_text().map(|text| Refusal::of(&text))
    }

    /// Whether no reply arrived in time.
    pub fn is_timeout(&self) -> bool {
        self.0.is_timeout()
    }

    /// Whether nothing listens at the address.
    pub fn is_connection_refused(&self) -> bool {
        self.0.is_io_error() && self.0.is_connection_refusal()
    }

    /// Whether the connection ended.
    pub fn is_connection_dropped(&self) -> bool {
        self.0.is_io_error() && self.0.is_connection_dropped()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.1 {
            Some(problem) => problem.fmt(f),
            // A reply's text is the server's, or that of whoever answers in its place.
            None => Escaped(&self.0).fmt(f),
        }
    }
}

/// Without a source: the library's error has its source's text.
impl Error for Failure {}

impl From<io::Error> for Failure {
    /// An error that carries a failure is that one: what a server answered while it was asked for something else.
    fn from(error: io::Error) -> Failure {
        let error = match error.downcast::<Failure>() {
            Ok(failure) => return failure,
            Err(error) => error,
        };
        let problem = TlsProblem::of(&error).cloned().map(Box::new);
        Failure(error.into(), problem)
    }
}

//! The errors of the library: a consumer can't be made, or can't continue.

use std::fmt;
use std::io;

use crate::base::mask::masked;

/// Why a consumer could not be made, or ended without having been asked to.
///
/// Messages name a setting as the method of [`ConsumerBuilder`](crate::ConsumerBuilder) that sets it, and show no
/// password. A message includes its cause, so [`source`](std::error::Error::source) returns none and a chain of errors
/// does not repeat it. `Debug` shows the same as `Display`, because a `main` that returns this error prints it by
/// `Debug`.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is missing or has a value that can't be used.
    #[error("{setting}: {}takes {takes}", shown(got))]
    #[non_exhaustive]
    Setting {
        /// The builder's method, such as `concurrency`.
        setting: &'static str,
        /// The value, or what is wrong with it; `None` if none was given.
        got: Option<String>,
        /// The values that the setting accepts.
        takes: String,
    },
    /// The address can't be listened on. Most often its port is in use.
    #[error("listening on {address}: {cause}")]
    #[non_exhaustive]
    Listen {
        /// The address, as it was given.
        address: String,
        /// The system's error.
        cause: io::Error,
    },
    /// The system refused something that the consumer needs to start, such as a thread.
    #[error("{doing}: {cause}")]
    #[non_exhaustive]
    Start {
        /// What was being done.
        doing: &'static str,
        /// The system's error.
        cause: io::Error,
    },
    /// A part of the consumer ended without having been asked to, which is a bug in this library.
    #[error("the consumer's {part} ended, which is a bug")]
    #[non_exhaustive]
    Failed {
        /// Which one.
        part: &'static str,
    },
}

/// What a setting, named as the builder's method, is called where the user sets it.
pub(super) type SettingName = fn(&'static str) -> String;

/// The library's result type.
pub(super) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The setting got a value that it does not accept.
    pub(super) fn setting(setting: &'static str, got: impl fmt::Display, takes: impl fmt::Display) -> Error {
        let got = masked(&got.to_string()).into_owned();
        Error::Setting { setting, got: Some(got), takes: takes.to_string() }
    }

    /// An [`Error::Start`] that says what was being done.
    pub(super) fn start(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |cause| Error::Start { doing, cause }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn shown(got: &Option<String>) -> String {
    got.as_ref().map_or("is required, ".to_owned(), |got| format!("got {got}, "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::{Error as BaseError, Step};
    use crate::base::failure::Failure;
    use crate::base::id::Epoch;
    use crate::base::setting::ConfigError;
    use crate::net::NotAccepted;

    fn cause() -> io::Error {
        io::Error::from_raw_os_error(98)
    }

    fn ours() -> Vec<Error> {
        let all = vec![
            Error::setting("prefetch", 0, "more"),
            Error::Listen { address: "127.0.0.1:1".to_owned(), cause: cause() },
            Error::start("starting a thread")(cause()),
            Error::Failed { part: "committer" },
        ];
        for error in &all {
            match error {
                // A new variant belongs in the list above.
                Error::Setting { .. } | Error::Listen { .. } | Error::Start { .. } | Error::Failed { .. } => {}
            }
        }
        all
    }

    fn base() -> Vec<BaseError> {
        let server = || "127.0.0.1:6379".to_owned();
        let redis = |cause| BaseError::Redis { server: server(), step: Step::Connecting, hint: None, cause };
        let all = vec![
            redis(cause().into()),
            redis(Failure::of_reply(b"ERR no")),
            BaseError::Answer { server: server(), step: Step::Connecting, got: "7".to_owned() },
            BaseError::Unreplicated { server: server(), confirmed: 0, wanted: 1 },
            BaseError::Fenced { mine: Epoch(1), found: "2".to_owned() },
            ConfigError::missing("prefetch", "a number").into(),
            BaseError::io("reading")(cause()),
            BaseError::Failed("no".to_owned()),
        ];
        for error in &all {
            match error {
                // A new variant belongs in the list above.
                BaseError::Redis { .. } | BaseError::Answer { .. } | BaseError::Fenced { .. } => {}
                BaseError::Unreplicated { .. } | BaseError::Config(_) | BaseError::Io { .. } | BaseError::Failed(_) => {
                }
            }
        }
        all
    }

    #[test]
    fn a_chain_of_errors_says_each_thing_once() {
        let mut all: Vec<Box<dyn std::error::Error>> = Vec::new();
        all.extend(ours().into_iter().map(Into::into));
        all.extend(base().into_iter().map(Into::into));
        all.extend([NotAccepted::Passing(cause()), NotAccepted::Exhausted(cause())].map(Into::into));
        all.push(Failure::from(cause()).into());
        for error in all {
            assert!(error.source().is_none(), "{error}: its text includes the cause");
        }
        for error in [ours()[1].to_string(), ours()[2].to_string(), base()[0].to_string(), base()[6].to_string()] {
            assert_eq!(error.matches("(os error 98)").count(), 1, "{error}");
        }
    }
}

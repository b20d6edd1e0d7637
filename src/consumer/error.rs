//! The errors of the library: a consumer can't be made, or can't continue.

use std::fmt;
use std::io;

use crate::base::mask::masked;

/// Why a consumer could not be made, or ended without having been asked to.
///
/// Messages name a setting as the method of [`ConsumerBuilder`](crate::ConsumerBuilder) that sets it, and show no
/// password. `Debug` shows the same as `Display`, because a `main` that returns this error prints it by `Debug`.
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
    #[error("listening on {address}: {source}")]
    #[non_exhaustive]
    Listen {
        /// The address, as it was given.
        address: String,
        /// The system's error.
        source: io::Error,
    },
    /// The system refused something that the consumer needs to start, such as a thread.
    #[error("{doing}: {source}")]
    #[non_exhaustive]
    Start {
        /// What was being done.
        doing: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A part of the consumer ended without having been asked to, which is a bug in this library.
    #[error("the consumer's {part} ended, which is a bug")]
    #[non_exhaustive]
    Failed {
        /// Which one.
        part: &'static str,
    },
}

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
        move |source| Error::Start { doing, source }
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

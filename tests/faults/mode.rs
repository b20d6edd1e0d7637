//! The modes of delivery. Most rows hold for consumers and a stream: they are functions of the mode, and
//! [`in_both_modes`] makes two tests of each, `consumers::row_…` and `stream::row_…`.
//!
//! With a stream there are no consumers, and the stream's entries take the place of results: L0 then means exactly one
//! entry for each owed message.
//!
//! Some rows run once more with TLS between the programs and Redis: [`in_tls_mode`] makes a test `tls::row_…` of each.
//! The test itself uses the server's port without TLS.
//!
//! Some rows run once more with [consumers in several languages](crate::languages): [`in_mixed_mode`] makes a test
//! `mixed::row_…` of each.

use std::fmt;

use oncecast::lab::{ClusterOptions, RedisOptions};

use crate::languages;
use crate::support::certificates::redis_tls;
use crate::support::options;

/// What a group's dispatchers deliver to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Consumers,
    /// `--deliver stream`.
    Stream,
    /// Consumers with handlers in several languages.
    Mixed,
    /// Consumers, and TLS to Redis.
    Tls,
}

impl Mode {
    /// How many of a row's consumers there are: with a stream none, and in several languages one of each kind.
    pub fn consumers(self, count: usize) -> usize {
        match self {
            Mode::Consumers | Mode::Tls => count,
            Mode::Stream => 0,
            Mode::Mixed => languages::CONSUMERS,
        }
    }

    /// A dispatcher's arguments.
    pub fn args(self, args: &str) -> String {
        match self {
            Mode::Consumers | Mode::Mixed | Mode::Tls => args.to_owned(),
            Mode::Stream => format!("{args} --deliver stream"),
        }
    }

    /// A cluster's options.
    pub fn options(self, dispatchers: usize, consumers: usize, args: &str) -> ClusterOptions {
        let options = options(dispatchers, self.consumers(consumers), &self.args(args), "");
        match self {
            Mode::Consumers | Mode::Stream => return options,
            Mode::Tls => return ClusterOptions { redis: self.redis(), ..options },
            Mode::Mixed => {}
        }
        ClusterOptions { consumer_program: languages::consumer_program(), ..options }
    }

    /// The settings of a private Redis.
    pub fn redis(self) -> RedisOptions {
        let tls = (self == Mode::Tls).then(|| redis_tls(false));
        RedisOptions { tls, ..RedisOptions::default() }
    }

    /// The stream in which each message is recorded.
    pub fn records(self) -> &'static str {
        match self {
            Mode::Consumers | Mode::Mixed | Mode::Tls => "messages:processed",
            Mode::Stream => "messages:messages",
        }
    }
}

impl fmt::Display for Mode {
    /// As in the names of the tests.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Consumers => "consumers",
            Mode::Stream => "stream",
            Mode::Mixed => "mixed",
            Mode::Tls => "tls",
        })
    }
}

/// Makes a test in each mode of each of these rows, which are functions of the mode.
macro_rules! in_both_modes {
    ($($row:ident),+ $(,)?) => {
        mod consumers {
            $(#[test] fn $row() { super::$row(crate::mode::Mode::Consumers); })+
        }

        mod stream {
            $(#[test] fn $row() { super::$row(crate::mode::Mode::Stream); })+
        }
    };
}

/// Makes a test of each of these rows with consumers in several languages.
macro_rules! in_mixed_mode {
    ($($row:ident),+ $(,)?) => {
        mod mixed {
            $(#[test] fn $row() {
                if crate::mixed::is_possible(stringify!($row)) {
                    super::$row(crate::mode::Mode::Mixed);
                }
            })+
        }
    };
}

/// Makes a test of each of these rows with TLS to Redis.
macro_rules! in_tls_mode {
    ($($row:ident),+ $(,)?) => {
        mod tls {
            $(#[test] fn $row() { super::$row(crate::mode::Mode::Tls); })+
        }
    };
}

pub(crate) use {in_both_modes, in_mixed_mode, in_tls_mode};

//! The modes of delivery. Most rows hold for consumers and a stream: they are functions of the mode, and
//! [`in_both_modes`] makes two tests of each, `consumers::row_…` and `stream::row_…`.
//!
//! With a stream there are no consumers, and the stream's entries take the place of results: L0 then means exactly one
//! entry for each owed message.
//!
//! Some rows run once more with [consumers in several languages](crate::languages): [`in_mixed_mode`] makes a test
//! `mixed::row_…` of each.

use std::fmt;

use oncecast::lab::ClusterOptions;

use crate::languages;
use crate::support::options;

/// What a group's dispatchers deliver to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Consumers,
    /// `--deliver stream`.
    Stream,
    /// Consumers with handlers in several languages.
    Mixed,
}

impl Mode {
    /// How many of a row's consumers there are: with a stream none, and in several languages one of each kind.
    pub fn consumers(self, count: usize) -> usize {
        match self {
            Mode::Consumers => count,
            Mode::Stream => 0,
            Mode::Mixed => languages::CONSUMERS,
        }
    }

    /// A dispatcher's arguments.
    pub fn args(self, args: &str) -> String {
        match self {
            Mode::Consumers | Mode::Mixed => args.to_owned(),
            Mode::Stream => format!("{args} --deliver stream"),
        }
    }

    /// A cluster's options.
    pub fn options(self, dispatchers: usize, consumers: usize, args: &str) -> ClusterOptions {
        let options = options(dispatchers, self.consumers(consumers), &self.args(args), "");
        if self != Mode::Mixed {
            return options;
        }
        ClusterOptions { consumer_program: languages::consumer_program(), ..options }
    }

    /// The stream in which each message is recorded.
    pub fn records(self) -> &'static str {
        match self {
            Mode::Consumers | Mode::Mixed => "messages:processed",
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

pub(crate) use {in_both_modes, in_mixed_mode};

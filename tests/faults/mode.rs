//! The two modes of delivery. Most rows hold in both: they are functions of the mode, and [`in_both_modes`] makes two
//! tests of each, `consumers::row_…` and `stream::row_…`.
//!
//! With a stream there are no consumers, and the stream's entries take the place of results: L0 then means exactly one
//! entry for each owed message.

use std::fmt;

use oncecast::lab::ClusterOptions;

use crate::support::options;

/// What a group's dispatchers deliver to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Consumers,
    /// `--deliver stream`.
    Stream,
}

impl Mode {
    /// How many of a row's consumers there are: with a stream none.
    pub fn consumers(self, count: usize) -> usize {
        if self == Mode::Consumers { count } else { 0 }
    }

    /// A dispatcher's arguments.
    pub fn args(self, args: &str) -> String {
        match self {
            Mode::Consumers => args.to_owned(),
            Mode::Stream => format!("{args} --deliver stream"),
        }
    }

    /// A cluster's options.
    pub fn options(self, dispatchers: usize, consumers: usize, args: &str) -> ClusterOptions {
        options(dispatchers, self.consumers(consumers), &self.args(args), "")
    }

    /// The stream in which each message is recorded.
    pub fn records(self) -> &'static str {
        match self {
            Mode::Consumers => "messages:processed",
            Mode::Stream => "messages:messages",
        }
    }
}

impl fmt::Display for Mode {
    /// As in the names of the tests.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Mode::Consumers { "consumers" } else { "stream" })
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

pub(crate) use in_both_modes;

//! What every measurement of a bench needs, and why one ends early.

use super::settings::BenchConfig;
use crate::base::error::Error;
use crate::base::shutdown::ShutdownRequests;
use crate::lab::console::Console;

/// The settings, the console, and requests to stop.
pub(super) struct Context<'a> {
    pub(super) config: &'a BenchConfig,
    pub(super) console: Console,
    pub(super) requests: ShutdownRequests,
}

impl Context<'_> {
    /// Writes an indented line.
    pub(super) fn line(&mut self, text: &str) {
        let indented = if text.is_empty() { String::new() } else { format!("  {text}") };
        self.console.line(&indented);
    }
}

/// Why a measurement ended early.
#[derive(Debug)]
pub(super) enum Abort {
    /// A signal asked for it.
    Interrupted,
    /// A message was lost, or a result is wrong.
    Violation(String),
    /// An error.
    Failed(Error),
}

impl From<Error> for Abort {
    fn from(error: Error) -> Abort {
        Abort::Failed(error)
    }
}

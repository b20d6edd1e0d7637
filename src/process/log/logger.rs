//! The logger: formats records as lines and puts them into the queue.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;
use simplelog::{CombinedLogger, Config, SharedLogger};

use super::line::Style;
use super::panics;
use super::queue::{Importance, Queue};
use crate::base::error::{Error, Result};
use crate::base::log_context::LogContext;
use crate::base::text::{Inert, Quoted};

/// How long an exiting program waits until its last lines are written.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Where the lines go. It is created for the first line. A process has only one, as it has only one standard error.
static OUTPUT: OnceLock<LogOutput> = OnceLock::new();

/// The name of the process in every line; set when logging starts.
static INSTANCE: OnceLock<String> = OnceLock::new();

/// Warnings from before logging started.
static HELD_BACK: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Starts logging, once per process. Only events of this crate are logged. From now on panics are logged, too. Threads
/// that have entered no [`LogContext`] of their own log with `role`.
///
/// Keep the value until the end: dropping it waits for the last lines.
pub fn init(level: LevelFilter, instance: &str, role: &'static str) -> Result<LogGuard> {
    let output = output().map_err(Error::io("starting the thread log"))?;
    let lines = LineLogger { level, style: output.style, queue: output.queue.clone() };
    CombinedLogger::init(vec![Box::new(lines)]).map_err(|error| Error::Failed(format!("starting the log: {error}")))?;
    INSTANCE.get_or_init(|| instance.to_owned());
    LogContext::of_process().set(role, None);
    panics::install();
    std::mem::take(&mut *HELD_BACK.lock()).into_iter().for_each(|warning| log::warn!("{warning}"));
    Ok(LogGuard(()))
}

/// Keeps a warning until logging starts, because problems with the settings are found before that.
pub fn hold_back(warning: String) {
    HELD_BACK.lock().push(warning);
}

/// Reports on standard error why `program` can't continue, whatever the log level is. This is the last call before the
/// program exits. A service that has started logging writes a log line. A tool, whose instance is the program itself,
/// writes plain text.
pub fn fail(program: &str, problem: impl fmt::Display) {
    let text = format!("{program}: {problem}");
    match output() {
        Ok(LogOutput { style, queue }) => {
            let message = match INSTANCE.get() {
                Some(instance) if instance != program => {
                    style.line(Level::Error, instance, format_args!("event=failed error={}", Quoted(problem)))
                }
                _ => style.message(Level::Error, &text),
            };
            queue.push(Importance::Urgent, message.into_bytes());
            queue.flush(FLUSH_LIMIT);
        }
        // Standard error may be closed, and there is no other place to report it.
        Err(_) => drop(writeln!(io::stderr(), "{}", Inert(text))),
    }
}

/// The log of a running program. Dropping it waits until all lines are written, at most [`FLUSH_LIMIT`].
#[derive(Debug)]
#[must_use = "without it the last lines may be lost"]
pub struct LogGuard(());

impl Drop for LogGuard {
    fn drop(&mut self) {
        // Bounded, so that a blocked standard error can't keep the program from exiting.
        log::logger().flush();
    }
}

struct LogOutput {
    style: Style,
    queue: Arc<Queue>,
}

fn output() -> io::Result<&'static LogOutput> {
    if let Some(output) = OUTPUT.get() {
        return Ok(output);
    }
    let file = Style::standard_error()?;
    let style = Style::of(&file);
    let dropped = move |lines| {
        let line = style.line(Level::Warn, instance(), format_args!("event=log-dropped lines={lines}"));
        line.into_bytes()
    };
    let queue = Queue::start(file, dropped)?;
    Ok(OUTPUT.get_or_init(|| LogOutput { style, queue }))
}

fn instance() -> &'static str {
    INSTANCE.get().map_or("", String::as_str)
}

/// The logger to which simplelog passes records.
struct LineLogger {
    level: LevelFilter,
    style: Style,
    queue: Arc<Queue>,
}

impl Log for LineLogger {
    /// Events of other crates are not logged. simplelog has compared the level already.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("oncecast")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let importance = if record.level() <= Level::Warn { Importance::Urgent } else { Importance::Routine };
            self.queue.push(importance, self.style.line(record.level(), instance(), *record.args()).into_bytes());
        }
    }

    /// Waits until what was logged is written, at most [`FLUSH_LIMIT`].
    fn flush(&self) {
        self.queue.flush(FLUSH_LIMIT);
    }
}

impl SharedLogger for LineLogger {
    fn level(&self) -> LevelFilter {
        self.level
    }

    fn config(&self) -> Option<&Config> {
        None
    }

    fn as_log(self: Box<Self>) -> Box<dyn Log> {
        self
    }
}

//! Log lines: `time=… level=… instance=… role=… epoch=… event=… key=value…` on standard error.
//!
//! The programs set this up. Whoever uses the library may do so, too, or install a logger of their own. simplelog does the filtering and
//! the writing, into a queue that the thread `log` empties, so logging never waits: a standard error that nobody reads
//! stalls nobody. Lines are for events that matter to an operator, never one for each message.
//!
//! Under systemd, where standard error is the journal, lines begin with their priority (`<3>` to `<7>`) in place of the
//! time, which the journal notes itself.
//!
//! In reading order: this file starts it; `style` says what a line looks like, `queue` holds the lines and writes
//! them, `panics` makes lines of panics.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use log::LevelFilter;
use log::{Level, Log, Metadata, Record};
use parking_lot::{Mutex, RwLock};
use simplelog::{ConfigBuilder, WriteLogger};

use self::queue::{Importance, Queue, QueueWriter};
use self::style::Style;
use crate::base::error::{Error, Result};
use crate::base::id::Epoch;
use crate::base::log_context::Context;

mod panics;
mod queue;
pub mod settings;
mod style;

pub use self::queue::{MAX_LINE_BYTES, MAX_QUEUED_BYTES, MAX_QUEUED_LINES};
pub use crate::base::text::{Escaped, Quoted, is_plain};

/// How long a program that ends waits for its last lines to be written.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// What every line says of the process. One for a process, like the logger itself.
static INSTANCE: RwLock<String> = RwLock::new(String::new());

/// Where the lines go; made when the first is to be written.
static OUTPUT: OnceLock<Output> = OnceLock::new();

/// Warnings from before the log began.
static HELD_BACK: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Starts logging, once for a process: lines of this library and no other. Panics are logged from here on.
///
/// Keep what this gives until the end: then the last lines are waited for.
pub fn init(level: LevelFilter, instance: &str, role: &'static str) -> Result<Running> {
    *INSTANCE.write() = instance.to_owned();
    set_role(role, Epoch::default());
    let output = output().map_err(Error::io("starting the thread log"))?;
    let lines = KeyValueLines {
        urgent: output.logger(Importance::Urgent),
        routine: output.logger(Importance::Routine),
        style: output.style,
        level,
    };
    log::set_boxed_logger(Box::new(lines)).map_err(|error| Error::Failed(format!("starting the log: {error}")))?;
    log::set_max_level(level);
    panics::install();
    std::mem::take(&mut *HELD_BACK.lock()).into_iter().for_each(|warning| log::warn!("{warning}"));
    Ok(Running(()))
}

/// Keeps a warning until the log begins: what is wrong with the settings is known before.
pub fn hold_back(warning: String) {
    HELD_BACK.lock().push(warning);
}

/// Says what the process is now; from here on each line shows it.
pub fn set_role(role: &'static str, epoch: Epoch) {
    Context::of_process().set(role, epoch);
}

/// Tells on standard error why `program` can't go on, whatever is logged; for the last thing before its end. A service whose
/// log has begun says so in a line like the others; a tool, whose instance is the program itself, in words.
pub fn fail(program: &str, problem: impl fmt::Display) {
    // A problem may have lines of its own, and hold what a server has said.
    let text = format!("{program}: {problem}");
    let text = text.split('\n').map(|line| Escaped(line).to_string()).collect::<Vec<_>>().join("\n");
    let instance = INSTANCE.read().clone();
    match output() {
        Ok(output) => {
            let message = if instance.is_empty() || instance == program {
                output.style.message(Level::Error, &text)
            } else {
                output.style.line(Level::Error, format_args!("event=failed error={}", Quoted(problem))) + "\n"
            };
            output.queue.push(Importance::Urgent, message.into_bytes());
            output.queue.flush(FLUSH_LIMIT);
        }
        // Standard error may be closed, and there is nowhere else to say it.
        Err(_) => drop(writeln!(io::stderr(), "{text}")),
    }
}

/// The log of a program that runs. Dropped: waits until all is written, at most [`FLUSH_LIMIT`].
#[derive(Debug)]
#[must_use = "without it the last lines may be lost"]
pub struct Running(());

impl Drop for Running {
    fn drop(&mut self) {
        // A standard error that nobody reads must not keep the program from ending.
        log::logger().flush();
    }
}

struct Output {
    queue: Arc<Queue>,
    style: Style,
}

fn output() -> io::Result<&'static Output> {
    if let Some(output) = OUTPUT.get() {
        return Ok(output);
    }
    let file = style::standard_error()?;
    let style = Style::of(&file);
    let told =
        move |lines| (style.line(Level::Warn, format_args!("event=log-dropped lines={lines}")) + "\n").into_bytes();
    let queue = Queue::start(file, told)?;
    Ok(OUTPUT.get_or_init(|| Output { queue, style }))
}

impl Output {
    fn logger(&self, importance: Importance) -> Box<WriteLogger<QueueWriter>> {
        // simplelog writes the bare text; the level and the rest are part of it.
        let bare = ConfigBuilder::new()
            .set_max_level(LevelFilter::Off)
            .set_time_level(LevelFilter::Off)
            .set_thread_level(LevelFilter::Off)
            .set_target_level(LevelFilter::Off)
            .set_location_level(LevelFilter::Off)
            .build();
        WriteLogger::new(LevelFilter::Trace, bare, QueueWriter::new(self.queue.clone(), importance))
    }
}

struct KeyValueLines {
    urgent: Box<WriteLogger<QueueWriter>>,
    routine: Box<WriteLogger<QueueWriter>>,
    style: Style,
    level: LevelFilter,
}

impl Log for KeyValueLines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The libraries below us log what concerns only them.
        metadata.level() <= self.level && metadata.target().starts_with("oncecast")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // Made before simplelog's lock is taken: a value that panics while it is shown must not leave it poisoned.
        let line = self.style.line(record.level(), *record.args());
        let writer = if record.level() <= Level::Warn { &self.urgent } else { &self.routine };
        writer.log(&Record::builder().level(record.level()).args(format_args!("{line}")).build());
    }

    /// Waits until what was logged is written, at most [`FLUSH_LIMIT`].
    fn flush(&self) {
        if let Some(output) = OUTPUT.get() {
            output.queue.flush(FLUSH_LIMIT);
        }
    }
}

/// A time in microseconds since 1970, shown in UTC with milliseconds by RFC 3339.
#[derive(Clone, Copy, Debug)]
pub struct Timestamp(pub u64);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, of_day) = (self.0 / 86_400_000_000, self.0 % 86_400_000_000);
        let (year, month, day) = civil(days);
        let (hour, minute) = (of_day / 3_600_000_000, of_day / 60_000_000 % 60);
        let (second, milli) = (of_day / 1_000_000 % 60, of_day / 1_000 % 1_000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

/// The Gregorian date `days` after 1970-01-01, by Howard Hinnant's `civil_from_days`.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_780), (2026, 11, 23));
    }
}

//! Log lines: `time=… level=… instance=… role=… epoch=… event=… key=value…` on standard error.
//!
//! Only the programs set this up; whoever uses the library has a logger of their own. simplelog does the writing and
//! the filtering, into a buffer that goes out line by line, so that programs may share one standard error. Lines are for events that matter to an operator, never one for each message: writing is synchronous,
//! and a blocked standard error would stall the thread that logs.

use std::fmt;
use std::io::{LineWriter, Stderr, stderr};
use std::sync::atomic::{AtomicU64, Ordering};

use log::{LevelFilter, Log, Metadata, Record};
use parking_lot::RwLock;
use simplelog::{ConfigBuilder, WriteLogger};

use crate::error::{Error, Result};
use crate::id::Epoch;

/// Lines up to this length are written at once.
const LINE_BYTES: usize = 8 << 10;

/// What every line says about the process. One for a process, like the logger itself.
static CONTEXT: Context =
    Context { instance: RwLock::new(String::new()), role: RwLock::new("starting"), epoch: AtomicU64::new(0) };

struct Context {
    instance: RwLock<String>,
    role: RwLock<&'static str>,
    epoch: AtomicU64,
}

/// Starts logging, once for a process.
pub fn init(level: LevelFilter, instance: &str, role: &'static str) -> Result<()> {
    *CONTEXT.instance.write() = instance.to_owned();
    set_role(role, Epoch::default());
    // simplelog writes the bare text; the level and the rest are part of it.
    let bare = ConfigBuilder::new()
        .set_max_level(LevelFilter::Off)
        .set_time_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .build();
    let lines = KeyValueLines {
        writer: WriteLogger::new(LevelFilter::Trace, bare, LineWriter::with_capacity(LINE_BYTES, stderr())),
        level,
    };
    log::set_boxed_logger(Box::new(lines)).map_err(|error| Error::Failed(format!("starting the log: {error}")))?;
    log::set_max_level(level);
    Ok(())
}

/// Says what the process is now; from here on each line shows it.
pub fn set_role(role: &'static str, epoch: Epoch) {
    *CONTEXT.role.write() = role;
    CONTEXT.epoch.store(epoch.0, Ordering::Relaxed);
}

struct KeyValueLines {
    writer: Box<WriteLogger<LineWriter<Stderr>>>,
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
        let level = record.level().as_str().to_ascii_lowercase();
        let context = &CONTEXT;
        self.writer.log(
            &Record::builder()
                .level(record.level())
                .args(format_args!(
                    "time={} level={level} instance={} role={} epoch={} {}",
                    Timestamp(crate::id::wall_clock_us()),
                    context.instance.read(),
                    context.role.read(),
                    context.epoch.load(Ordering::Relaxed),
                    record.args()
                ))
                .build(),
        );
    }

    fn flush(&self) {
        self.writer.flush();
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

/// A value of a log line, quoted if it has spaces or quotes in it.
pub struct Quoted<T>(pub T);

impl<T: fmt::Display> fmt::Display for Quoted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"' || c == '=') {
            write!(f, "{text:?}")
        } else {
            f.write_str(&text)
        }
    }
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

    #[test]
    fn values_with_spaces_are_quoted() {
        assert_eq!(Quoted("a:1").to_string(), "a:1");
        assert_eq!(Quoted("a \"b\"\n").to_string(), r#""a \"b\"\n""#);
        assert_eq!(Quoted("").to_string(), "\"\"");
    }
}

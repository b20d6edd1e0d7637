//! Log lines: `time=… level=… instance=… role=… epoch=… event=… key=value…` on standard error.
//!
//! The programs start logging with [`init`]. simplelog filters by level and passes records on; `logger` makes a line of
//! each and puts it into a bounded queue, which the thread `log` writes out. So logging never waits, even if standard
//! error is blocked. Lines are for events that matter to an operator, never one for each message.
//!
//! If standard error is systemd's journal, lines begin with their priority (`<3>` to `<7>`) instead of the time, which
//! the journal records itself.

mod line;
mod logger;
mod panics;
mod queue;
pub mod settings;
mod timestamp;

pub use ::log::LevelFilter;

pub use self::logger::{FLUSH_LIMIT, LogGuard, fail, hold_back, init};
pub use self::queue::{MAX_LINE_BYTES, MAX_QUEUED_BYTES, MAX_QUEUED_LINES};
pub use self::timestamp::Timestamp;

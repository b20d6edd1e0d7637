//! The format of a log line: it begins with the time for a terminal or a file, and with a priority for systemd's
//! journal.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use log::Level;

use super::queue::MAX_LINE_BYTES;
use super::timestamp::Timestamp;
use crate::base::id::wall_clock_us;
use crate::base::log_context;
use crate::base::mask::masked;
use crate::base::text::{Escaped, Inert, Quoted, beginning, is_plain};

/// The variable in which systemd names the journal stream to which it has connected a service's output: `device:inode`.
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";

/// The reader for whom lines are formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// A person, a file, a collector: each line begins with its time.
    Plain,
    /// systemd's journal, which records the time itself: each line begins with its priority, `<3>` to `<7>`.
    Journal,
}

impl Style {
    /// Standard error as a separate file handle, so that a thread that is blocked in writing to it holds no lock that
    /// other threads wait for.
    pub(super) fn standard_error() -> io::Result<File> {
        Ok(File::from(io::stderr().as_fd().try_clone_to_owned()?))
    }

    /// The style for an output.
    ///
    /// The variable alone is not enough: a program that a service has started inherits it, and its output may go
    /// elsewhere. So the stream it names is compared with the output, as systemd.exec(5) recommends.
    pub(super) fn of(output: &File) -> Style {
        let named = std::env::var(JOURNAL_STREAM).ok();
        let metadata = output.metadata().ok();
        let ours = metadata.map(|metadata| format!("{}:{}", metadata.dev(), metadata.ino()));
        if named.is_some() && named == ours { Style::Journal } else { Style::Plain }
    }

    /// Formats one line: the time or priority, the instance, role and epoch that log it, and `text`.
    pub(super) fn line(self, level: Level, instance: &str, text: fmt::Arguments<'_>) -> String {
        let name = level.as_str().to_ascii_lowercase();
        let context = log_context::current();
        let (role, epoch) = context.role();
        // A role without an epoch shows 0.
        let epoch = epoch.unwrap_or_default();
        let lane = context.lane().map_or(String::new(), |lane| format!(" lane={}", Quoted(lane)));
        let rest = format_args!("level={name} instance={instance}{lane} role={role} epoch={epoch} {text}");
        let mut line = match self {
            Style::Plain => format!("time={} {rest}", Timestamp(wall_clock_us())),
            Style::Journal => format!("<{}>{rest}", priority(level)),
        };
        if let Cow::Owned(masked) = masked(&line) {
            line = masked;
        }
        // Text after the end of a line would be a line of its own, with any fields. Values are quoted where they are
        // logged; this is for what is not.
        if !line.chars().all(is_plain) {
            line = Escaped(line).to_string();
        }
        if line.len() >= MAX_LINE_BYTES {
            line.truncate(beginning(&line, MAX_LINE_BYTES - 1 - CUT.len()).len());
            line.push_str(CUT);
        }
        line.push('\n');
        line
    }

    /// A plain text of one or more lines, for a person. All but the first are indented, so that none looks like a
    /// message of its own.
    pub(super) fn message(self, level: Level, text: &str) -> String {
        let text = Inert(masked(text)).to_string();
        let priority = match self {
            Style::Plain => String::new(),
            Style::Journal => format!("<{}>", priority(level)),
        };
        let indent = |at, line: &str| if at == 0 || line.starts_with(' ') { "" } else { INDENT };
        let lines = text.lines().enumerate();
        lines.map(|(at, line)| format!("{priority}{}{line}\n", indent(at, line))).collect()
    }
}

/// The end of a line that was truncated.
const CUT: &str = "…";
/// The beginning of a message's further lines.
const INDENT: &str = "    ";

/// syslog's number for a level.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_begins_with_its_time_or_its_priority() {
        let text = format_args!("event=x");
        let plain = Style::Plain.line(Level::Warn, "d0", text);
        assert!(plain.starts_with("time=20") && plain.contains("Z level=warn instance=d0 role="), "{plain}");
        assert!(plain.ends_with(" event=x\n"), "{plain}");
        for (level, begin) in [(Level::Error, "<3>level=error "), (Level::Warn, "<4>"), (Level::Info, "<6>")] {
            let line = Style::Journal.line(level, "d0", text);
            assert!(line.starts_with(begin) && !line.contains("time="), "{line}");
        }
        assert!(Style::Journal.line(Level::Trace, "d0", text).starts_with("<7>"));
    }

    #[test]
    fn a_line_is_one_line_and_bounded() {
        let line =
            Style::Plain.line(Level::Info, "d0", format_args!("event=x reason=a\nb{}", "ü".repeat(MAX_LINE_BYTES)));
        assert!(line.contains("reason=a\\nb") && line.ends_with("ü…\n"));
        assert!((MAX_LINE_BYTES - 3..=MAX_LINE_BYTES).contains(&line.len()), "{}", line.len());
    }

    #[test]
    fn no_text_ends_a_line_or_controls_a_terminal() {
        let strange = "a\r\nlevel=error\u{1b}[2J\u{7f}\u{85}\u{9b}\u{2028}\u{202e}\u{2066}\u{feff}b";
        for style in [Style::Plain, Style::Journal] {
            let line = style.line(Level::Info, "d0", format_args!("event=x reason={strange}"));
            assert!(line.trim_end_matches('\n').chars().all(is_plain) && line.lines().count() == 1, "{line:?}");
            assert!(line.ends_with("b\n") && line.contains("\\u{1b}[2J"), "{line}");
            let message = style.message(Level::Error, &format!("{strange}\nsecond"));
            assert!(message.chars().all(|c| c == '\n' || is_plain(c)) && message.ends_with("second\n"), "{message:?}");
        }
    }

    #[test]
    fn each_line_of_a_message_has_its_priority() {
        assert_eq!(Style::Plain.message(Level::Error, "a\nb\n  c"), "a\n    b\n  c\n");
        assert_eq!(Style::Journal.message(Level::Error, "a\nb"), "<3>a\n<3>    b\n");
    }
}

//! Bounds what unwanted connections cost: their log lines are counted together, and accepting them is slowed down.
//!
//! Any client that reaches the port can connect thousands of times a second. So each kind of event gets a few log lines
//! immediately and then one a second, which gives the number of events and shows the latest. Each useless connection
//! costs a token; when the tokens are used up, the accepting thread waits for new ones. Connections that rule cost
//! nothing, so in normal operation there is no wait.
//!
//! Any thread may note an event; the accepting thread logs those that were held back. Time is an argument.
//!
//! Limitation: while accepting is paced, a real dispatcher waits in the system's queue with the other connections.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use log::{Level, log};
use parking_lot::Mutex;

use crate::base::log_sum::{LogPace, LogSum, Sum};
use crate::base::rate_limit::RateLimit;
use crate::base::text::{Quoted, beginning};

/// How many events of one kind are logged immediately.
const LINES_AT_ONCE: u32 = 5;
/// How many log lines of one kind are written per second after that.
const LINES_PER_S: u32 = 1;
/// How many useless connections are accepted without a pause.
const USELESS_AT_ONCE: u32 = 64;
/// How many useless connections are accepted per second after that.
const USELESS_PER_S: u32 = 200;
/// The most bytes of a text from a peer that are shown, in the log or in an ERROR.
pub(super) const MAX_SHOWN_BYTES: usize = 64;

/// The kinds of events that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EventKind {
    /// A handshake was answered with this HTTP status.
    Handshake(u16),
    /// A connection was ended with an ERROR of this code.
    Refused(u16),
    /// A TLS handshake failed.
    Tls,
    /// A connection ended before LEAD.
    Stranger,
    /// A connection was not accepted.
    NotAccepted,
    /// A connection was ended so that enough files are left.
    FewFiles,
    /// A connection began to rule.
    Rules,
    /// A connection that had sent LEAD ended.
    Left,
    /// Writing to a connection failed.
    WriteFailed,
}

impl EventKind {
    fn event(self) -> &'static str {
        match self {
            EventKind::Handshake(_) => "event=handshake-refused",
            EventKind::Refused(_) => "event=connection-refused",
            EventKind::Tls => "event=tls-failed",
            EventKind::Stranger => "event=stranger-left",
            EventKind::NotAccepted => "event=accept-failed",
            EventKind::FewFiles => "event=files-short",
            EventKind::Rules => "event=dispatcher-rules",
            EventKind::Left => "event=dispatcher-left",
            EventKind::WriteFailed => "event=write-failed",
        }
    }

    fn level(self) -> Level {
        match self {
            EventKind::Rules | EventKind::Left | EventKind::Stranger => Level::Info,
            _ => Level::Warn,
        }
    }
}

/// A connection and what became of it, as a part of a log line.
pub(super) struct Example<'a> {
    pub(super) peer: SocketAddr,
    /// `key=value` pairs, or nothing.
    pub(super) details: fmt::Arguments<'a>,
    pub(super) reason: &'a str,
}

impl fmt::Display for Example<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gap = if self.details.as_str() == Some("") { "" } else { " " };
        write!(f, "peer={}{gap}{} reason={}", self.peer, self.details, Quoted(self.reason))
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Refusals {
    sums: Mutex<EventSums>,
    useless: Mutex<RateLimit>,
}

impl Refusals {
    pub(super) fn new(now: Instant) -> Refusals {
        let useless = RateLimit::new(USELESS_AT_ONCE, USELESS_PER_S, now);
        Refusals { sums: Mutex::default(), useless: Mutex::new(useless) }
    }

    /// Notes an event, and logs it unless there were too many of its kind.
    pub(super) fn note(&self, kind: EventKind, example: impl fmt::Display, now: Instant) {
        let line = self.sums.lock().note(kind, example.to_string(), now);
        line.iter().for_each(LogLine::say);
    }

    /// Logs events that were held back, for the kinds that may be logged again; or for all kinds.
    pub(super) fn log_the_rest(&self, all: bool, now: Instant) {
        let lines = self.sums.lock().rest(all, now);
        lines.iter().for_each(LogLine::say);
    }

    /// Takes a token for a useless connection.
    pub(super) fn charge(&self, now: Instant) {
        self.useless.lock().charge(now);
    }

    /// How long to accept no connections.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        Some(self.useless.lock().debt(now)).filter(|pause| !pause.is_zero())
    }
}

/// A number of events of one kind, with the latest of them.
#[derive(Debug, PartialEq, Eq)]
struct LogLine {
    kind: EventKind,
    sum: Sum<String>,
}

impl LogLine {
    fn say(&self) {
        let Sum { count, example } = &self.sum;
        log!(self.kind.level(), "{} count={count} {example}", self.kind.event());
    }
}

/// The events of each kind that were not logged yet. The kinds are few, so this is bounded.
#[derive(Debug, Default)]
struct EventSums(BTreeMap<EventKind, LogSum<String>>);

impl EventSums {
    fn note(&mut self, kind: EventKind, example: String, now: Instant) -> Option<LogLine> {
        let pace = LogPace::Lines { at_once: LINES_AT_ONCE, per_s: LINES_PER_S };
        let sum = self.0.entry(kind).or_insert_with(|| LogSum::new(pace, now));
        sum.add(example, now);
        sum.due(now).map(|sum| LogLine { kind, sum })
    }

    fn rest(&mut self, all: bool, now: Instant) -> Vec<LogLine> {
        let sums = self.0.iter_mut();
        sums.filter_map(|(kind, sum)| {
            let sum = if all { sum.rest() } else { sum.due(now) };
            sum.map(|sum| LogLine { kind: *kind, sum })
        })
        .collect()
    }
}

/// A text from a peer: quoted, control characters escaped, and cut.
pub(super) struct PeerText<'a>(pub(super) &'a str);

impl fmt::Display for PeerText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = beginning(self.0, MAX_SHOWN_BYTES);
        let cut = if shown.len() < self.0.len() { "…" } else { "" };
        write!(f, "{shown:?}{cut}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn many_events_of_a_kind_make_one_line_a_second() {
        let (mut sums, start) = (EventSums::default(), Instant::now());
        let lines: Vec<_> = (0..1_000)
            .filter_map(|number| sums.note(EventKind::Refused(6), format!("number={number}"), start))
            .collect();
        assert_eq!(lines.len(), LINES_AT_ONCE as usize);
        assert!(lines.iter().all(|line| line.sum.count == 1));
        assert_eq!(sums.rest(false, start), []);
        // Another kind is not affected.
        assert!(sums.note(EventKind::Left, "x".to_owned(), start).is_some());
        let line = |count, example: &str| LogLine {
            kind: EventKind::Refused(6),
            sum: Sum { count, example: example.to_owned() },
        };
        let rest = line(995, "number=999");
        assert_eq!(sums.rest(false, start + SECOND), [rest]);
        assert_eq!(sums.note(EventKind::Refused(6), "one more".to_owned(), start + SECOND), None);
        assert_eq!(sums.rest(true, start + SECOND), [line(1, "one more")]);
        assert_eq!(sums.rest(true, start + 2 * SECOND), []);
        // After a quiet period, several events are logged immediately again.
        let later = start + 60 * SECOND;
        assert!((0..LINES_AT_ONCE).all(|_| sums.note(EventKind::Refused(6), String::new(), later).is_some()));
    }

    #[test]
    fn useless_connections_slow_accepting_down() {
        let start = Instant::now();
        let refusals = Refusals::new(start);
        (0..USELESS_AT_ONCE).for_each(|_| refusals.charge(start));
        assert_eq!(refusals.pause(start), None);
        (0..20).for_each(|_| refusals.charge(start));
        assert_eq!(refusals.pause(start), Some(SECOND / 10));
        assert_eq!(refusals.pause(start + SECOND / 20), Some(SECOND / 20));
        assert_eq!(refusals.pause(start + SECOND / 10), None);
        // Unused tokens beyond the limit are not saved up.
        (0..=USELESS_AT_ONCE).for_each(|_| refusals.charge(start + 60 * SECOND));
        assert!(refusals.pause(start + 60 * SECOND).is_some());
    }

    #[test]
    fn texts_of_peers_are_cut_and_harmless() {
        assert_eq!(PeerText("a\"\r\n\x1b[31m").to_string(), r#""a\"\r\n\u{1b}[31m""#);
        assert_eq!(PeerText(&"é".repeat(100)).to_string(), format!("\"{}\"…", "é".repeat(32)));
        assert_eq!(PeerText(&format!("x{}", "é".repeat(100))).to_string(), format!("\"x{}\"…", "é".repeat(31)));
    }
}

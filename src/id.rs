//! The names of things: messages, epochs, dispatchers.
//!
//! Newtypes, so that an epoch is never taken for a message id. Pure values; any thread may use them.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// The largest id: sorted-set scores are doubles, which are exact up to 2^53.
pub const MAX_MESSAGE_ID: u64 = (1 << 53) - 1;

/// A message's id: the time of its intake in microseconds since 1970, made strictly increasing.
///
/// Unique within a group, ordered by intake, and below 2^53 so that it is also the message's score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

impl MessageId {
    /// The id before every other: nothing has been taken in yet.
    pub const ZERO: MessageId = MessageId(0);

    /// The next id after `self`, at the wall clock's time if that has moved on.
    ///
    /// A clock that was set back does not matter: ids go on from the last one.
    pub fn next(self, now_us: u64) -> MessageId {
        MessageId(now_us.min(MAX_MESSAGE_ID / 2).max(self.0 + 1))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A term of leadership. Higher is newer; 0 stands for "none yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A dispatcher process: its configured name and a random suffix made at each start.
///
/// The suffix keeps a restarted dispatcher from being taken for its dead self. Has no spaces, since the lease
/// and the control channel separate their words by them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DispatcherId(String);

impl DispatcherId {
    /// The id of a process that starts now.
    pub fn generate(name: &str) -> DispatcherId {
        DispatcherId(format!("{name}-{:06x}", fastrand::u32(..1 << 24)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DispatcherId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Microseconds since 1970 by this machine's wall clock; 0 for a clock before that.
pub fn wall_clock_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_even_when_the_clock_does_not() {
        let first = MessageId::ZERO.next(1_000);
        assert_eq!(first, MessageId(1_000));
        assert_eq!(first.next(1_000), MessageId(1_001));
        assert_eq!(first.next(5), MessageId(1_001));
        assert_eq!(first.next(2_000), MessageId(2_000));
    }

    #[test]
    fn a_mad_clock_does_not_leave_the_exact_range() {
        assert!(MessageId::ZERO.next(u64::MAX).0 < MAX_MESSAGE_ID);
    }

    #[test]
    fn dispatchers_with_one_name_have_different_ids() {
        assert_ne!(DispatcherId::generate("d0"), DispatcherId::generate("d0"));
    }
}

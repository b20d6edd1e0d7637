//! Markers, positions and the cursor: how a place in the channel's stream of messages is named.
//!
//! Redis delivers to all subscribers of one server in one order, so a marker published on the control channel lies
//! at the same place for every dispatcher, and "k messages after marker m" names one place for all of them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::base::id::{DispatcherId, Epoch, MAX_BELIEVED_ID, MessageId};

/// The longest marker that is accepted: a dispatcher id and a number.
pub const MAX_MARKER_BYTES: usize = 160;

/// The most digits that the epoch and the number of a leader's marker have.
const MAX_NUMBER_DIGITS: usize = 15;

/// A word published on the control channel that names a place in the stream. Unique; has no spaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Marker(Arc<str>);

impl Marker {
    /// The `number`th marker of the leader of `epoch`; number 0 opens the epoch.
    pub fn of_leader(epoch: Epoch, number: u64) -> Marker {
        Marker(format!("{epoch}.{number}").into())
    }

    /// The marker a dispatcher publishes when it has subscribed for the `number`th time.
    pub fn of_join(dispatcher: &DispatcherId, number: u64) -> Marker {
        Marker(format!("{dispatcher}.{number}").into())
    }

    /// A place that nobody has heard: no dispatcher publishes this marker.
    pub fn unheard() -> Marker {
        Marker("unheard.0".into())
    }

    /// The epoch of the leader that published it, and its number; `None` for a join marker. They rise along the stream,
    /// because a leader can't publish a marker once a newer epoch has begun.
    pub fn leader_place(&self) -> Option<(Epoch, u64)> {
        let (epoch, number) = self.0.rsplit_once('.')?;
        Some((Epoch(epoch.parse().ok()?), number.parse().ok()?))
    }

    /// The id of the dispatcher whose join marker it is; `None` for a leader's.
    pub fn joined(&self) -> Option<&str> {
        let (who, _) = self.0.rsplit_once('.')?;
        who.parse::<u64>().is_err().then_some(who)
    }

    /// The marker as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Marker {
    type Err = ();

    fn from_str(text: &str) -> Result<Marker, ()> {
        let plain = !text.is_empty() && text.len() <= MAX_MARKER_BYTES && text.bytes().all(|b| b.is_ascii_graphic());
        // No leader writes a marker with longer numbers, and `lua/steps.lua` rejects a cursor that names one.
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let long = |part: &str| part.len() > MAX_NUMBER_DIGITS;
        let made_up = text
            .rsplit_once('.')
            .is_some_and(|(epoch, number)| is_number(epoch) && is_number(number) && (long(epoch) || long(number)));
        let good = plain && !made_up;
        if good { Ok(Marker(text.into())) } else { Err(()) }
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place in the stream: after `offset` messages that follow `marker`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The marker.
    pub marker: Marker,
    /// Messages since it.
    pub offset: u64,
}

/// How far the channel has been stored: every message up to `position` is or was in the sorted set.
///
/// In Redis: `<marker> <offset> <last id>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The end of what was stored.
    pub position: Position,
    /// The highest id assigned.
    pub last_id: MessageId,
}

impl Cursor {
    /// Where a lane begins that may have missed everything published since this time, in microseconds since 1970, 0 for
    /// unknown. No dispatcher finds it, so the first leader that listens records a gap.
    pub fn unheard_since(us: u64) -> Cursor {
        let position = Position { marker: Marker::unheard(), offset: 0 };
        Cursor { position, last_id: MessageId(us.min(MAX_BELIEVED_ID)) }
    }

    /// Whether no leader has ever listened.
    pub fn is_unheard(&self) -> bool {
        self.position.marker == Marker::unheard()
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.marker, self.offset)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.position, self.last_id.0)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Cursor, ()> {
        let mut words = text.split(' ');
        let (Some(marker), Some(offset), Some(last_id), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(());
        };
        let last_id = MessageId(decimal(last_id)?);
        if last_id.0 > MAX_BELIEVED_ID {
            return Err(());
        }
        Ok(Cursor { position: Position { marker: marker.parse()?, offset: decimal(offset)? }, last_id })
    }
}

/// A number as we write it: digits alone, so that equal cursors are equal texts.
fn decimal(text: &str) -> Result<u64, ()> {
    let number: u64 = text.parse().map_err(|_| ())?;
    if number.to_string() == text { Ok(number) } else { Err(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_as_it_was_written() {
        let cursor = Cursor {
            position: Position { marker: Marker::of_leader(Epoch(17), 4), offset: 12 },
            last_id: MessageId(1_790_000_000_000_123),
        };
        assert_eq!(cursor.to_string(), "17.4 12 1790000000000123");
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }

    #[test]
    fn a_cursor_of_a_lane_that_nobody_has_heard_reads_back() {
        let cursor = Cursor::unheard_since(1_790_000_000_000_123);
        assert_eq!(cursor.to_string(), "unheard.0 0 1790000000000123");
        assert_eq!(cursor.to_string().parse(), Ok(cursor.clone()));
        assert!(cursor.is_unheard() && cursor.position.marker.leader_place().is_none());
        assert!("unheard.0 0 0".parse::<Cursor>().is_ok_and(|cursor| cursor.is_unheard()), "since an unknown time");
    }

    #[test]
    fn a_marker_names_its_publisher() {
        let dispatcher = DispatcherId::generate("7");
        let join = Marker::of_join(&dispatcher, 3);
        assert_eq!((join.joined(), join.leader_place()), (Some(dispatcher.as_str()), None));
        let leader = Marker::of_leader(Epoch(17), 4);
        assert_eq!((leader.joined(), leader.leader_place()), (None, Some((Epoch(17), 4))));
    }

    #[test]
    fn a_leaders_marker_with_impossible_numbers_is_invalid() {
        let longest = "9".repeat(MAX_NUMBER_DIGITS);
        assert!(format!("{longest}.{longest}").parse::<Marker>().is_ok());
        for made_up in [format!("{longest}9.1"), format!("1.{longest}9"), format!("1.{}", u64::MAX)] {
            assert_eq!(made_up.parse::<Marker>(), Err(()), "{made_up}");
        }
        assert!(format!("d-{longest}9.1").parse::<Marker>().is_ok(), "a dispatcher's name is free");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["", "m", "m 1", "m 1 2 3", "m  1 2", "m 01 2", "m +1 2", "m -1 2", "m 1 x", " 1 2", "m 1 6755399441055745"]
        {
            assert_eq!(text.parse::<Cursor>(), Err(()), "{text:?}");
        }
    }
}

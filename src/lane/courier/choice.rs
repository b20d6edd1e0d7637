//! Chooses the consumer for the next waiting message, and how many messages to send in a row. Pure.

use crate::lane::link::Link;
use crate::lane::table::Line;
use crate::ledger::Pending;

/// The most messages of a run.
pub(super) const MAX_RUN: usize = 64;
/// A run takes at most this part of a link's room.
const ROOM_PART: usize = 8;

/// The link with room that uses the lowest share of its prefetch; the search begins at `turn`, and the first of equals
/// is taken. A link that still holds the message is the last choice, and one that has a suspect takes no other.
pub(super) fn choose(links: &[Option<Link>], turn: usize, line: Line, message: &Pending) -> Option<usize> {
    let order = (turn..links.len()).chain(0..turn);
    let mut best: Option<(usize, &Link, bool)> = None;
    for index in order {
        let takes =
            |link: &&Link| link.has_room(message.body.len()) && !(line == Line::Suspects && link.has_suspect());
        let Some(link) = links[index].as_ref().filter(takes) else { continue };
        let again = link.has_in_hand(message);
        let better = match best {
            None => true,
            Some((_, other, other_again)) if again == other_again => link.is_freer_than(other),
            Some((_, _, other_again)) => other_again,
        };
        if better {
            best = Some((index, link, again));
        }
    }
    best.map(|(index, ..)| index)
}

/// How many messages in a row go to the link that was chosen, which has room for `room`: ids that follow each other
/// then go to one consumer, which removes them from the sorted set as one range, and each message costs less here.
///
/// `share` is what each link would get if all that waits now were dealt out evenly: a run takes no more, so that a few
/// messages that come at once are not worked on by one consumer while others are idle.
pub(super) fn run_length(line: Line, room: usize, share: usize) -> usize {
    match line {
        // One at a time.
        Line::Suspects => 1,
        Line::Common => (room / ROOM_PART).min(share).clamp(1, MAX_RUN),
    }
}

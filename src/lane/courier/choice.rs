//! Chooses the consumer for the next waiting message, and how many messages to send in a row. Pure.

use crate::lane::link::Link;
use crate::lane::table::Line;
use crate::ledger::Pending;

/// The most messages of a run.
pub(super) const MAX_RUN: usize = 64;
/// How many messages are not divided among consumers that answer soon.
pub(super) const SHORT_RUN: usize = 4;
/// A run takes at most 1/8 of the free places, but at least one.
const ROOM_PART: usize = 8;

/// Returns the link with room that uses the lowest share of its prefetch. The search begins at `turn`; of equal links
/// the first is taken. A link that still holds the message is the last choice, as is one for which the message must be
/// taken out of its bundle; without `takes_out` that is no choice. A link that has a suspect is given no other.
pub(super) fn choose(
    links: &[Option<Link>],
    turn: usize,
    line: Line,
    message: &Pending,
    takes_out: bool,
) -> Option<usize> {
    let order = (turn..links.len()).chain(0..turn);
    let mut best: Option<(usize, &Link, bool)> = None;
    for index in order {
        let takes = |link: &&Link| link.has_room_for(message) && !(line == Line::Suspects && link.has_suspect());
        let Some(link) = links[index].as_ref().filter(takes) else { continue };
        let needs_alone = link.needs_alone(message);
        if needs_alone && !takes_out {
            continue;
        }
        let again = needs_alone || link.still_holds(message);
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

/// How many consecutive messages go to the chosen link, which has `room` free places. A consumer that holds consecutive
/// ids removes them from the sorted set as one range, and each message costs the courier less.
///
/// `share` is what each link would get of the waiting messages if they were divided evenly. A run is not longer, so
/// that a few messages that arrive together don't all go to one consumer while others are idle. A consumer that
/// [answers soon](Link::answers_soon) is given a [`SHORT_RUN`] in any case: most often waking a second one takes
/// longer than the first one needs for these.
pub(super) fn run_length(line: Line, room: usize, share: usize, answers_soon: bool) -> usize {
    let share = if answers_soon { share.max(SHORT_RUN) } else { share };
    match line {
        // One at a time.
        Line::Suspects => 1,
        Line::Common => (room / ROOM_PART).min(share).clamp(1, MAX_RUN),
    }
}

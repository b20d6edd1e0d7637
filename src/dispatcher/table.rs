//! Which messages a leader has in its hands, and where each of them is.
//!
//! The truth for one term: a message that is not in the table is either done or waits in Redis alone. Pure; owned by the
//! courier. The messages that wait for a consumer are kept here with their payloads; of all others only the id, since
//! what goes out again is read from Redis again.
//!
//! A message that was delivered before and whose consumer is lost now is a *suspect*: it may be what kills consumers.
//! Suspects wait in a line of their own, so that the courier can give each consumer one of them at a time: a message that
//! kills its consumer again and again then takes no neighbour with it to the dead letters.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::id::MessageId;
use crate::ledger::Pending;

/// The most messages a leader has in its hands; beyond it they wait in Redis alone.
pub(super) const MAX_TRACKED: usize = 262_144;
/// What a waiting message costs beside its payload, about.
const ENTRY_BYTES: usize = 96;

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// Waiting for a consumer, here.
    Ready,
    /// At the consumer of this link.
    Sent(usize),
    /// With the redistributor: being settled, delayed or read again.
    Away,
}

/// The two lines that messages wait in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// All but the suspects.
    Common,
    /// The suspects.
    Suspects,
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Table {
    known: HashMap<MessageId, Whereabouts>,
    /// Of the known ones.
    suspects: HashSet<MessageId>,
    ready: VecDeque<Pending>,
    ready_suspects: VecDeque<Pending>,
    ready_bytes: usize,
}

impl Table {
    /// How many messages are known.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// How many wait for a consumer.
    pub(super) fn ready_len(&self) -> usize {
        self.ready.len() + self.ready_suspects.len()
    }

    /// The bytes they take.
    pub(super) fn ready_bytes(&self) -> usize {
        self.ready_bytes
    }

    /// Where a message is, if it is known.
    pub(super) fn whereabouts(&self, id: MessageId) -> Option<Whereabouts> {
        self.known.get(&id).copied()
    }

    /// A message that is not known yet waits from now on, behind the others. Says whether it was new.
    pub(super) fn admit(&mut self, message: Pending) -> bool {
        if self.known.contains_key(&message.id) {
            return false;
        }
        self.known.insert(message.id, Whereabouts::Ready);
        self.ready_bytes += cost(&message);
        self.ready.push_back(message);
        true
    }

    /// A message comes back from the redistributor and waits again, before the others. One that is no longer away
    /// has been acknowledged or turned up at a consumer meanwhile. Says whether it waits.
    pub(super) fn readmit(&mut self, message: Pending) -> bool {
        if self.whereabouts(message.id) != Some(Whereabouts::Away) {
            return false;
        }
        self.known.insert(message.id, Whereabouts::Ready);
        self.ready_bytes += cost(&message);
        let line = if self.suspects.contains(&message.id) { Line::Suspects } else { Line::Common };
        self.line(line).push_front(message);
        true
    }

    /// A known message is a suspect from the next time it waits, until it is done.
    pub(super) fn suspect(&mut self, id: MessageId) {
        if self.known.contains_key(&id) {
            self.suspects.insert(id);
        }
    }

    /// The message that waits first in a line.
    pub(super) fn first_ready(&mut self, line: Line) -> Option<&Pending> {
        // Those that were acknowledged or adopted while they waited are passed over.
        while let Some(first) = self.line(line).front().map(|first| first.id) {
            if self.known.get(&first) == Some(&Whereabouts::Ready) {
                break;
            }
            self.pop(line);
        }
        self.line(line).front()
    }

    /// Takes the message that waits first in a line, to send it over `link`.
    pub(super) fn send_first(&mut self, line: Line, link: usize) -> Option<Pending> {
        self.first_ready(line)?;
        let message = self.pop(line)?;
        self.known.insert(message.id, Whereabouts::Sent(link));
        Some(message)
    }

    /// A consumer says that it holds this message. Says whether it is the one that now counts as having it.
    pub(super) fn adopt(&mut self, id: MessageId, link: usize) -> bool {
        match self.whereabouts(id) {
            Some(Whereabouts::Sent(_)) => false,
            None | Some(Whereabouts::Ready | Whereabouts::Away) => {
                self.known.insert(id, Whereabouts::Sent(link));
                true
            }
        }
    }

    /// A message goes to the redistributor.
    pub(super) fn set_away(&mut self, id: MessageId) {
        self.known.insert(id, Whereabouts::Away);
    }

    /// A message is done.
    pub(super) fn forget(&mut self, id: MessageId) {
        self.known.remove(&id);
        self.suspects.remove(&id);
    }

    fn line(&mut self, line: Line) -> &mut VecDeque<Pending> {
        match line {
            Line::Common => &mut self.ready,
            Line::Suspects => &mut self.ready_suspects,
        }
    }

    fn pop(&mut self, line: Line) -> Option<Pending> {
        let message = self.line(line).pop_front()?;
        self.ready_bytes -= cost(&message);
        Some(message)
    }
}

fn cost(message: &Pending) -> usize {
    message.payload.len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: u64) -> Pending {
        Pending { id: MessageId(id), delivery: 1, payload: b"x"[..].into() }
    }

    #[test]
    fn messages_go_out_in_order_and_come_back_to_the_front() {
        let mut table = Table::default();
        assert!(table.admit(message(1)) && table.admit(message(2)) && !table.admit(message(1)));
        assert_eq!(table.send_first(Line::Common, 0).map(|sent| sent.id), Some(MessageId(1)));
        assert_eq!(table.whereabouts(MessageId(1)), Some(Whereabouts::Sent(0)));
        table.set_away(MessageId(1));
        assert!(table.readmit(message(1)));
        assert_eq!(table.send_first(Line::Common, 1).map(|sent| sent.id), Some(MessageId(1)));
        assert_eq!(table.send_first(Line::Common, 1).map(|sent| sent.id), Some(MessageId(2)));
        assert_eq!((table.send_first(Line::Common, 1), table.ready_bytes()), (None, 0));
    }

    #[test]
    fn what_was_done_or_adopted_while_it_waited_is_not_sent() {
        let mut table = Table::default();
        for id in 1..=3 {
            table.admit(message(id));
        }
        table.forget(MessageId(1));
        assert!(table.adopt(MessageId(2), 4));
        assert_eq!(table.send_first(Line::Common, 0).map(|sent| sent.id), Some(MessageId(3)));
        assert!(!table.adopt(MessageId(3), 4), "the first to have it keeps it");
    }

    #[test]
    fn what_turned_up_elsewhere_does_not_come_back() {
        let mut table = Table::default();
        table.set_away(MessageId(1));
        table.adopt(MessageId(1), 0);
        assert!(!table.readmit(message(1)));
        table.forget(MessageId(1));
        assert!(!table.readmit(message(1)));
    }

    #[test]
    fn suspects_wait_in_a_line_of_their_own_until_they_are_done() {
        let mut table = Table::default();
        for id in [1, 2] {
            table.admit(message(id));
        }
        table.suspect(MessageId(1));
        assert_eq!(table.first_ready(Line::Suspects), None, "it stands where it stood");
        for id in [1, 2] {
            table.send_first(Line::Common, 0);
            table.set_away(MessageId(id));
            assert!(table.readmit(message(id)));
        }
        assert_eq!(table.ready_len(), 2);
        assert_eq!(table.first_ready(Line::Common).map(|first| first.id), Some(MessageId(2)));
        assert_eq!(table.send_first(Line::Suspects, 0).map(|sent| sent.id), Some(MessageId(1)));
        table.forget(MessageId(1));
        table.suspect(MessageId(3));
        assert!(table.suspects.is_empty(), "only what is known is suspected");
    }
}

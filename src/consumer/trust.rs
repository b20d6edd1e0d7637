//! Decides which held messages no other consumer can hold, so that their results may be recorded without a check.
//!
//! The rule is the ledger's: a message above the recall's id, delivered by the leader that wrote the recall, is held by
//! no other consumer, unless Redis was restarted (see `ledger/commit.rs`). Pure; owned by the committer. There are
//! three further conditions, for facts that the recall does not contain:
//!
//! - The sender may be an impostor that invents message ids. A connection is *proven* once the script has found one of
//!   its messages pending, and only messages from a proven connection are recorded without a check. The proof is lost
//!   when a message turns out not to have been pending and there is no explanation.
//! - A message that was delivered before may have a delivery count in Redis, which only the script clears.
//! - When the connection to Redis is lost, it is unknown whether the last batch was recorded. So all messages received
//!   until then go through the script.

use std::collections::BTreeSet;

use super::peer::LinkId;
use crate::base::id::{Epoch, MessageId};
use crate::ledger::Recall;

/// The most proven connections that are remembered: more than can be open, because results from closed ones may still
/// wait to be recorded.
const MAX_PROVEN: usize = 128;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Trust {
    /// The run id of the connected server; `None` if the server does not give it.
    server: Option<String>,
    /// Whether there was a connection to Redis before.
    connected: bool,
    /// Messages up to this id are recorded with a check.
    floor: MessageId,
    /// The connections whose messages were found pending.
    proven: BTreeSet<LinkId>,
}

impl Trust {
    /// Notes a new connection to Redis. `received` is the highest message id received so far.
    pub fn connected(&mut self, server: Option<String>, received: MessageId) {
        if std::mem::replace(&mut self.connected, true) {
            self.floor = received;
        }
        self.server = server;
    }

    /// Notes that a message from this connection was pending. Returns whether the connection was not proven before.
    pub fn prove(&mut self, link: LinkId) -> bool {
        let news = self.proven.insert(link);
        if self.proven.len() > MAX_PROVEN {
            // This is the oldest one, since numbers rise.
            self.proven.pop_first();
        }
        news
    }

    /// Notes that a message from this connection should have been pending but was not. Returns whether the connection
    /// was proven before.
    pub(super) fn doubt(&mut self, link: LinkId) -> bool {
        self.proven.remove(&link)
    }

    /// Whether this connection is proven.
    pub(super) fn is_proven(&self, link: LinkId) -> bool {
        self.proven.contains(&link)
    }

    /// Whether no other consumer can hold this message, which the leader of `epoch` delivered on `link` as delivery
    /// `number`.
    pub fn is_alone(&self, recall: &Recall, id: MessageId, number: u16, epoch: Epoch, link: LinkId) -> bool {
        number == 1
            && self.proven.contains(&link)
            && epoch == recall.epoch
            && self.server.as_deref() == Some(&recall.server)
            && id > recall.up_to.max(self.floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: LinkId = 7;

    fn trust(server: Option<&str>) -> Trust {
        let mut trust = Trust::default();
        trust.connected(server.map(str::to_owned), MessageId(0));
        trust.prove(LINK);
        trust
    }

    /// Asks about message `id`; the recall was written by the leader of epoch 2 at server `a`, with the id 10.
    fn alone(trust: &Trust, id: u64, number: u16, epoch: u64) -> bool {
        let recall = Recall { epoch: Epoch(2), server: "a".to_owned(), up_to: MessageId(10) };
        trust.is_alone(&recall, MessageId(id), number, Epoch(epoch), LINK)
    }

    #[test]
    fn first_deliveries_by_the_leader_that_wrote_the_recall_need_no_check() {
        let trust = trust(Some("a"));
        assert!(alone(&trust, 11, 1, 2) && !alone(&trust, 10, 1, 2));
        assert!(!alone(&trust, 11, 2, 2), "it was delivered before");
        assert!(!alone(&trust, 11, 1, 1), "an earlier leader delivered it");
        assert!(!alone(&trust, 11, 1, 3), "this leader keeps no recall");
    }

    #[test]
    fn after_a_restart_of_redis_every_message_is_checked() {
        assert!(!alone(&trust(Some("b")), 11, 1, 2));
        assert!(!alone(&trust(None), 11, 1, 2));
    }

    #[test]
    fn after_a_lost_connection_earlier_messages_are_checked() {
        let mut trust = trust(Some("a"));
        trust.connected(Some("a".to_owned()), MessageId(20));
        assert!(!alone(&trust, 20, 1, 2) && alone(&trust, 21, 1, 2));
    }

    #[test]
    fn only_messages_from_a_proven_connection_need_no_check() {
        let mut trust = trust(Some("a"));
        assert!(!trust.prove(LINK) && trust.doubt(LINK) && !trust.doubt(LINK));
        assert!(!alone(&trust, 11, 1, 2));
        trust.prove(LINK + 1);
        assert!(!alone(&trust, 11, 1, 2), "that was another one");
        assert!(trust.prove(LINK) && alone(&trust, 11, 1, 2));
        (100..100 + MAX_PROVEN as u64).for_each(|link| {
            trust.prove(link);
        });
        assert!(!alone(&trust, 11, 1, 2), "old ones are forgotten");
        assert_eq!(trust.proven.len(), MAX_PROVEN);
    }
}

//! Which messages in hand are surely this consumer's alone, so that it may record their results without looking.
//!
//! The rule is the ledger's: what the leader handed over that wrote the recall, and from above it, nobody else has, as
//! long as Redis is still the one that was told (see `ledger/commit.rs`). Pure; owned by the committer. Beside the rule
//! stands what the recall can't know:
//!
//! - Whoever hands messages over may be a stranger who makes up their ids. A connection is *proven* once the script has
//!   found a message that came over it pending, and only what came over a proven one is recorded without looking. The
//!   proof is void once a message turns out not to have been pending and nothing explains it.
//! - A message that was delivered before may have its count in Redis, which has to be cleared: the script does.
//! - When the connection to Redis was lost, it is not known what became of the last batch: all that was received until
//!   then goes through the script.

use std::collections::BTreeSet;

use super::peer::LinkId;
use crate::base::id::{Epoch, MessageId};
use crate::ledger::Recall;

/// The most proven connections that are remembered: more than there can be, results of some that have ended included.
const MAX_PROVEN: usize = 128;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Trust {
    /// The run id of the server that the present connection is to; `None` if it does not tell.
    server: Option<String>,
    /// Whether there was a connection before.
    connected: bool,
    /// Messages up to here are not alone.
    floor: MessageId,
    /// The connections whose messages were found pending.
    proven: BTreeSet<LinkId>,
}

impl Trust {
    /// There is a new connection. `received` is the highest id received so far.
    pub fn connected(&mut self, server: Option<String>, received: MessageId) {
        if std::mem::replace(&mut self.connected, true) {
            self.floor = received;
        }
        self.server = server;
    }

    /// A message that came over this connection was pending. Says whether that is news.
    pub fn prove(&mut self, link: LinkId) -> bool {
        let news = self.proven.insert(link);
        if self.proven.len() > MAX_PROVEN {
            // The oldest: their numbers rise.
            self.proven.pop_first();
        }
        news
    }

    /// One was not, and should have been. Says whether that is news.
    pub(super) fn doubt(&mut self, link: LinkId) -> bool {
        self.proven.remove(&link)
    }

    /// Whether a message that came over this connection was pending, and none since that should have been was not.
    pub(super) fn is_proven(&self, link: LinkId) -> bool {
        self.proven.contains(&link)
    }

    /// Whether a message that a leader of `epoch` handed over on `link`, as delivery number so and so, is this
    /// consumer's alone.
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

    /// Message `id`, while the leader of epoch 2 has recalled up to 10 at server `a`.
    fn alone(trust: &Trust, id: u64, number: u16, epoch: u64) -> bool {
        let recall = Recall { epoch: Epoch(2), server: "a".to_owned(), up_to: MessageId(10) };
        trust.is_alone(&recall, MessageId(id), number, Epoch(epoch), LINK)
    }

    #[test]
    fn first_deliveries_by_the_leader_that_vouches_are_alone() {
        let trust = trust(Some("a"));
        assert!(alone(&trust, 11, 1, 2) && !alone(&trust, 10, 1, 2));
        assert!(!alone(&trust, 11, 2, 2), "it was delivered before");
        assert!(!alone(&trust, 11, 1, 1), "an earlier leader handed it over");
        assert!(!alone(&trust, 11, 1, 3), "this leader keeps no recall");
    }

    #[test]
    fn another_start_of_redis_has_been_told_nothing() {
        assert!(!alone(&trust(Some("b")), 11, 1, 2));
        assert!(!alone(&trust(None), 11, 1, 2));
    }

    #[test]
    fn a_lost_connection_leaves_what_was_received_in_doubt() {
        let mut trust = trust(Some("a"));
        trust.connected(Some("a".to_owned()), MessageId(20));
        assert!(!alone(&trust, 20, 1, 2) && alone(&trust, 21, 1, 2));
    }
    #[test]
    fn only_what_came_over_a_proven_connection_is_alone() {
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

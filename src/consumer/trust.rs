//! Which messages in hand are surely this consumer's alone, so that it may record their results without looking.
//!
//! The rule is the ledger's: what the leader handed over that wrote the recall, and from above it, nobody else has (see
//! `ledger/commit.rs`). Here stand the exceptions, all for what the recall can't know. Pure; owned by the committer.
//!
//! - A message that was delivered before may have its count in Redis, which has to be cleared: never alone.
//! - When the connection to Redis was lost, it is not known what became of the last batch: all that was received until
//!   then is no longer alone.
//! - A Redis that was started anew may have lost its last writes, and with them a recall, or an intake which the next
//!   leader repeats under another id. All that leaders of before hand over is no longer alone.

use crate::id::{Epoch, MessageId};
use crate::ledger::Recall;

/// Tells one start of a Redis server from another; `None` if it does not let us know.
pub(super) type Incarnation = Option<String>;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// The server, once there was a connection.
    server: Option<Incarnation>,
    /// The highest epoch known when Redis last answered.
    heard: Epoch,
    /// Messages up to here are not alone.
    floor: MessageId,
    /// Neither are those of leaders of up to this epoch.
    distrusted: Epoch,
}

impl Trust {
    /// Redis answered; `highest` is the highest epoch known.
    pub(super) fn answered(&mut self, highest: Epoch) {
        self.heard = highest;
    }

    /// There is a new connection. `received` is the highest id received so far.
    pub(super) fn connected(&mut self, server: Incarnation, received: MessageId) {
        if let Some(before) = self.server.replace(server) {
            self.floor = received;
            if self.server.as_ref().is_none_or(|server| server.is_none() || *server != before) {
                self.distrusted = self.heard;
            }
        }
    }

    /// Whether a message that came from a leader of `epoch`, as delivery number so and so, is this consumer's alone.
    pub(super) fn is_alone(&self, recall: Recall, id: MessageId, number: u16, epoch: Epoch) -> bool {
        number == 1 && epoch == recall.epoch && id > recall.up_to.max(self.floor) && epoch > self.distrusted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Option<&str> = Some("a");

    fn connected(trust: &mut Trust, server: Option<&str>, received: u64) {
        trust.connected(server.map(str::to_owned), MessageId(received));
    }

    /// A message from the leader of this epoch, which has recalled up to 10.
    fn alone(trust: &Trust, id: u64, epoch: u64) -> bool {
        let recall = Recall { epoch: Epoch(epoch), up_to: MessageId(10) };
        trust.is_alone(recall, MessageId(id), 1, Epoch(epoch))
    }

    #[test]
    fn first_deliveries_by_the_leader_that_vouches_are_alone() {
        let mut trust = Trust::default();
        connected(&mut trust, SERVER, 0);
        assert!(alone(&trust, 11, 1) && !alone(&trust, 10, 1));
        let recall = Recall { epoch: Epoch(2), up_to: MessageId(10) };
        assert!(!trust.is_alone(recall, MessageId(11), 2, Epoch(2)), "it was delivered before");
        assert!(!trust.is_alone(recall, MessageId(11), 1, Epoch(1)), "an earlier leader handed it over");
        assert!(!trust.is_alone(recall, MessageId(11), 1, Epoch(3)), "this leader keeps no recall");
    }

    #[test]
    fn a_lost_connection_leaves_what_was_received_in_doubt() {
        let mut trust = Trust::default();
        connected(&mut trust, SERVER, 0);
        trust.answered(Epoch(1));
        connected(&mut trust, SERVER, 20);
        assert!(!alone(&trust, 20, 1) && alone(&trust, 21, 1));
    }

    #[test]
    fn after_a_restart_of_redis_only_later_leaders_are_trusted() {
        for server in [Some("b"), None] {
            let mut trust = Trust::default();
            connected(&mut trust, SERVER, 0);
            trust.answered(Epoch(3));
            connected(&mut trust, server, 20);
            assert!(!alone(&trust, 21, 3) && alone(&trust, 21, 4), "{server:?}");
        }
        let mut trust = Trust::default();
        connected(&mut trust, None, 0);
        assert!(alone(&trust, 11, 1), "nothing was handed over before the first connection");
    }
}

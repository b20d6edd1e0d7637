//! The names of a group's keys and channels in Redis.

/// Every key and channel of one group.
///
/// In Redis Cluster all keys of a group must live in one slot: put braces in the group's name (`{orders}`).
#[derive(Clone, Debug)]
pub struct Keys {
    /// The group's name, from the setting `group`.
    pub group: String,
    /// Channel for markers and notices between dispatchers.
    pub control: String,
    /// Prefix of the channels that only say, by being subscribed, that a dispatcher's listener is connected.
    pub alive_prefix: String,
    /// Prefix of the keys under which dispatchers say how they are: strings that expire.
    pub status_prefix: String,
    /// Sorted set: one member for each unacknowledged message.
    pub pending: String,
    /// Stream: the results.
    pub processed: String,
    /// Stream: the dead letters.
    pub dead: String,
    /// List: the ids of the consumers now connected.
    pub consumers: String,
    /// String with expiry: the lease, `<dispatcher id> <epoch>`.
    pub leader: String,
    /// String: the highest epoch given out.
    pub epoch: String,
    /// String: how far the channel has been taken in.
    pub cursor: String,
    /// String, `<epoch> <run id of Redis> <id>`: the term that began last, and the highest id of a message that more than one
    /// consumer may have in hand.
    pub recall: String,
    /// Hash: deliveries of the messages that were delivered more than once, by decimal id.
    pub attempts: String,
    /// Stream, capped: stretches of the channel that may have been missed.
    pub gaps: String,
}

impl Keys {
    /// The keys of the group `group`.
    pub fn new(group: &str) -> Keys {
        let key = |suffix: &str| format!("{group}:{suffix}");
        Keys {
            group: group.to_owned(),
            control: key("control"),
            alive_prefix: key("alive:"),
            status_prefix: key("status:"),
            pending: key("pending"),
            processed: key("processed"),
            dead: key("dead"),
            consumers: key("consumers"),
            leader: key("leader"),
            epoch: key("epoch"),
            cursor: key("cursor"),
            recall: key("recall"),
            attempts: key("attempts"),
            gaps: key("gaps"),
        }
    }

    /// Each key with the type it must have, to name the one that has another.
    pub(super) fn types(&self) -> [(&str, &'static str); 10] {
        [
            (&self.pending, "zset"),
            (&self.processed, "stream"),
            (&self.dead, "stream"),
            (&self.consumers, "list"),
            (&self.leader, "string"),
            (&self.epoch, "string"),
            (&self.cursor, "string"),
            (&self.recall, "string"),
            (&self.attempts, "hash"),
            (&self.gaps, "stream"),
        ]
    }
}

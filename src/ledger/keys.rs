//! The names of a group's keys and channels in Redis.

use super::question::RequestId;

/// Every key and channel of one group.
///
/// In Redis Cluster all keys of a group must live in one slot: put braces in the group's name (`{orders}`).
#[derive(Clone, Debug)]
pub struct Keys {
    /// The group's name, from the setting `group`.
    pub group: String,
    /// Channel for markers and notices between dispatchers.
    pub control: String,
    /// Prefix of the alive channels. A dispatcher's listener is connected while its channel has a subscriber.
    pub alive_prefix: String,
    /// Prefix of the shadows' channels. A shadow is subscribed to its channel, on which nothing is published.
    pub shadow_prefix: String,
    /// Prefix of the keys of reports: strings that expire.
    pub status_prefix: String,
    /// Sorted set: one member for each message that is not done.
    pub pending: String,
    /// Stream: the results.
    pub processed: String,
    /// Stream: the dead letters.
    pub dead: String,
    /// List: the ids of the consumers now connected.
    pub consumers: String,
    /// String with expiry: the lease, `<dispatcher id> <epoch>`.
    pub leader: String,
    /// String: the highest epoch.
    pub epoch: String,
    /// String: how far the channel has been stored.
    pub cursor: String,
    /// String, `<epoch> <run id of Redis> <id>`: the term that began last, and the highest id of a message that more
    /// than one consumer may hold.
    pub recall: String,
    /// Prefix of strings that expire after a day: each marks messages that were put back, so that this is done once.
    pub put_back_prefix: String,
    /// Hash: deliveries of the messages that were delivered more than once, by decimal id.
    pub attempts: String,
    /// String: how many dead letters were ever replayed.
    pub replayed: String,
    /// Hash: settings that operators change while the group runs.
    pub settings: String,
    /// Stream, capped: stretches of the channel that may have been missed.
    pub gaps: String,
    /// Stream: the messages, if the group delivers to a stream instead of consumers. Need not begin with the group.
    pub stream: Option<String>,
}

/// What [`is_group`] requires, for error messages.
pub const GROUP_FORM: &str = "1 to 256 bytes without spaces, not ending in @ and a number (that names a database)";

/// Whether a group may have this name. The rules ensure that no two groups, in whatever databases, share a key or a
/// channel.
pub fn is_group(name: &str) -> bool {
    let plain = !name.chars().any(|c| c.is_whitespace() || c.is_control());
    let database = name.rsplit_once('@').is_some_and(|(_, number)| number.bytes().all(|b| b.is_ascii_digit()));
    plain && !database && (1..=256).contains(&name.len())
}

impl Keys {
    /// The keys of the group `group` in database 0.
    pub fn new(group: &str) -> Keys {
        Keys::in_database(group, 0)
    }

    /// The keys of the group `group` in a database. Pub/Sub knows no databases: the channels carry its number.
    pub fn in_database(group: &str, database: i64) -> Keys {
        let key = |suffix: &str| format!("{group}:{suffix}");
        let place = if database == 0 { group.to_owned() } else { format!("{group}@{database}") };
        Keys {
            group: group.to_owned(),
            control: format!("{place}:control"),
            alive_prefix: format!("{place}:alive:"),
            shadow_prefix: format!("{place}:shadow:"),
            status_prefix: key("status:"),
            pending: key("pending"),
            processed: key("processed"),
            dead: key("dead"),
            consumers: key("consumers"),
            leader: key("leader"),
            epoch: key("epoch"),
            cursor: key("cursor"),
            recall: key("recall"),
            put_back_prefix: key("put-back:"),
            attempts: key("attempts"),
            replayed: key("replayed"),
            settings: key("settings"),
            gaps: key("gaps"),
            stream: None,
        }
    }

    /// The same keys for a group that delivers to this stream.
    pub fn with_stream(self, stream: &str) -> Keys {
        Keys { stream: Some(stream.to_owned()), ..self }
    }

    /// The key of a dispatcher's report.
    pub fn report_of(&self, dispatcher: &str) -> String {
        format!("{}{dispatcher}", self.status_prefix)
    }

    /// The key of a shadow's report. It begins like those of dispatchers, so that all versions count keyspace events
    /// about it as the group's own.
    pub fn shadow_report_of(&self, shadow: &str) -> String {
        format!("{}shadow:{shadow}", self.status_prefix)
    }

    /// The key of the answer to a question. It begins like those of reports, for the same reason; no report is looked
    /// for here, because the id of a dispatcher or a shadow ends differently.
    pub fn answer_to(&self, request: RequestId) -> String {
        format!("{}where:{request}", self.status_prefix)
    }

    /// Whether a channel is the group's, so that it carries no users' messages.
    pub fn is_own_channel(&self, channel: &[u8]) -> bool {
        channel == self.control.as_bytes()
            || channel.starts_with(self.alive_prefix.as_bytes())
            || channel.starts_with(self.shadow_prefix.as_bytes())
    }

    /// Whether a key is the group's. If a later version adds a key, it and this version don't agree on which keyspace
    /// events to leave out (`subscription::own_events`).
    pub fn is_own(&self, key: &[u8]) -> bool {
        let begins = |prefix: &str| key.starts_with(prefix.as_bytes());
        if self.stream.as_ref().is_some_and(|stream| stream.as_bytes() == key) {
            return true;
        }
        // Most keys belong to others.
        key.starts_with(self.group.as_bytes())
            && (self.types().any(|(own, _)| own.as_bytes() == key)
                || begins(&self.status_prefix)
                || begins(&self.put_back_prefix))
    }

    /// Each key with the type it must have, so that an error can name a key of another type.
    pub(super) fn types(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let own = [
            (&self.pending, "zset"),
            (&self.processed, "stream"),
            (&self.dead, "stream"),
            (&self.consumers, "list"),
            (&self.leader, "string"),
            (&self.epoch, "string"),
            (&self.cursor, "string"),
            (&self.recall, "string"),
            (&self.attempts, "hash"),
            (&self.replayed, "string"),
            (&self.settings, "hash"),
            (&self.gaps, "stream"),
        ];
        own.into_iter()
            .map(|(key, kind)| (key.as_str(), kind))
            .chain(self.stream.iter().map(|key| (key.as_str(), "stream")))
    }
}

//! The names of a group's keys and channels in Redis.

use std::borrow::Cow;

use super::group_name::{LaneNumber, is_lane_number, lane_name, tag};
use super::question::RequestId;
use super::topology::{slot_of, tag_of};

/// Every key and channel of one group.
///
/// In Redis Cluster all keys of a group must live in one slot: put braces in the group's name (`{orders}`).
#[derive(Clone, Debug)]
pub struct Keys {
    /// The group's name, from the setting `group`.
    pub group: String,
    /// The group that this is a lane of: `group` itself, unless [`lane`](Keys::lane) made these keys.
    pub base: String,
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
    /// Set: the numbers of the group's lanes, those included that once were. Only lane 0 has it.
    pub lanes: String,
    /// Stream, capped: stretches of the channel that may have been missed.
    pub gaps: String,
    /// Stream: the messages, if the group delivers to a stream instead of consumers. Need not begin with the group.
    pub stream: Option<String>,
    pub(super) database: i64,
}

/// Why keys don't share a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotMistake {
    /// The group's name has no braces.
    Group,
    /// The stream's key does not have the group's braces.
    Stream,
}

/// What a group's name needs in a Redis Cluster, for error messages.
pub fn cluster_form(group: &str) -> String {
    let plain: String = group.chars().filter(|letter| !['{', '}'].contains(letter)).collect();
    let name = if plain.is_empty() { "orders" } else { &plain };
    format!("a name with braces in a Redis Cluster, so that the group's keys share a slot: {{{name}}}")
}

/// What a stream's key needs in a Redis Cluster, for error messages.
pub fn cluster_stream_form(group: &str) -> String {
    let tag = tag_of(group.as_bytes()).map(String::from_utf8_lossy).unwrap_or_default();
    format!("a key with the group's braces in a Redis Cluster, so that both share a slot: {{{tag}}}:NAME")
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
            base: group.to_owned(),
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
            lanes: key("lanes"),
            gaps: key("gaps"),
            stream: None,
            database,
        }
    }

    /// The keys of this group's lane `lane`, in the same database. A stream that shares the group's tag gets the lane's
    /// tag as well. `None` if the group has no such lane, see [`lane_name`].
    pub fn lane(&self, lane: LaneNumber) -> Option<Keys> {
        let keys = Keys::in_database(&lane_name(&self.group, lane)?, self.database);
        let stream = self.stream.as_ref().map(|stream| self.stream_of(stream, lane));
        Some(Keys { base: self.group.clone(), stream, ..keys })
    }

    fn stream_of(&self, stream: &str, lane: LaneNumber) -> String {
        let tag_of = |name: &str| tag(name).map(|(begin, end)| name[begin..end].to_owned());
        let shared = tag_of(stream) == tag_of(&self.group);
        let (Some((_, end)), true) = (tag(stream), shared && lane > 0) else { return stream.to_owned() };
        format!("{}/{lane}{}", &stream[..end], &stream[end..])
    }

    /// The same keys for a group that delivers to this stream.
    pub fn with_stream(self, stream: &str) -> Keys {
        Keys { stream: Some(stream.to_owned()), ..self }
    }

    /// Why these can't be the keys of a group in a Redis Cluster, where all must share a slot; `None` if they can.
    pub fn mistake_in_cluster(&self) -> Option<SlotMistake> {
        if tag_of(self.group.as_bytes()).is_none() {
            return Some(SlotMistake::Group);
        }
        let is_elsewhere = |stream: &String| slot_of(stream.as_bytes()) != slot_of(self.group.as_bytes());
        self.stream.as_ref().is_some_and(is_elsewhere).then_some(SlotMistake::Stream)
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

    /// Whether a key is the group's, of whichever lane: a node also has the keys of lanes that don't listen there. If a
    /// later version adds a key, it and this version don't agree on which keyspace events to leave out
    /// (`subscription::own_events`).
    pub fn is_own(&self, key: &[u8]) -> bool {
        let key = self.in_lane_0(key);
        if self.stream.as_ref().is_some_and(|stream| self.in_lane_0(stream.as_bytes()) == key) {
            return true;
        }
        // Most keys belong to others.
        let Some(suffix) = key.strip_prefix(self.base.as_bytes()) else { return false };
        let is = |own: &str| own.strip_prefix(&self.group).is_some_and(|own| own.as_bytes() == suffix);
        let begins = |own: &str| own.strip_prefix(&self.group).is_some_and(|own| suffix.starts_with(own.as_bytes()));
        self.types().any(|(own, _)| is(own))
            || is(&self.lanes)
            || begins(&self.status_prefix)
            || begins(&self.put_back_prefix)
    }

    /// The key that has this one's place in lane 0: without the number of a lane at the end of the group's tag.
    fn in_lane_0<'k>(&self, key: &'k [u8]) -> Cow<'k, [u8]> {
        let of_lane = || {
            let tag = tag_of(key)?;
            let number = tag.strip_prefix(tag_of(self.base.as_bytes())?)?.strip_prefix(b"/")?;
            let end = key.iter().position(|byte| *byte == b'{')? + 1 + tag.len();
            is_lane_number(number).then(|| [&key[..end - number.len() - 1], &key[end..]].concat())
        };
        of_lane().map_or(Cow::Borrowed(key), Cow::Owned)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_has_the_keys_of_the_group_of_its_name() {
        let keys = Keys::in_database("{orders}", 3).with_stream("{orders}:out");
        let lane = keys.lane(2).expect("it has a tag");
        assert_eq!((&*lane.group, &*lane.base), ("{orders/2}", "{orders}"));
        assert_eq!(&*lane.epoch, "{orders/2}:epoch");
        assert_eq!((&*lane.control, lane.stream.as_deref()), ("{orders/2}@3:control", Some("{orders/2}:out")));
        assert_eq!(keys.lane(0).and_then(|lane| lane.stream).as_deref(), Some("{orders}:out"));
        let elsewhere = Keys::new("{orders}").with_stream("out").lane(2).expect("it has a tag");
        assert_eq!(elsewhere.stream.as_deref(), Some("out"));
        assert!(Keys::new("orders").lane(1).is_none() && Keys::new("orders").lane(0).is_some());
    }
}

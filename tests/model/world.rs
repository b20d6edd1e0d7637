//! The state of a run: Redis and its disk, the dispatchers, the consumers, and the requests under way.

use crate::redis::{CursorKey, Lease, Recall, Redis, Script};
use crate::refusals::Refusal;
use crate::ring::{Cursor, Id, Marker, Message, OF_LEADER, Ring, RingPlace, Seen};
use crate::rules::{Bounds, Budget};
use crate::servers::Servers;

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub redis: Redis,
    /// What Redis comes back with when it loses its tail.
    pub disk: Redis,
    pub tick: u8,
    /// The wall clock, as far as epochs and ids are made from it: never back, and past all that was given out.
    pub last_epoch: u8,
    pub last_id: Id,
    pub last_marker: Marker,
    pub published: u8,
    pub last_nonce: u8,
    /// What Redis refuses now.
    pub refused: Option<Refusal>,
    pub servers: Servers,
    /// The most messages at a consumer.
    pub prefetch: u8,
    /// The server to which new connections lead.
    pub front: u8,
    /// The messages that lie in a gap that was recorded; `None` where gaps are not remembered.
    pub gaps: Option<u8>,
    pub dispatchers: Vec<Dispatcher>,
    pub consumers: Vec<Consumer>,
    /// Scripts on their way to Redis, sorted. They come from different connections: any may be the next.
    pub requests: Vec<Request>,
    /// For each message, the dispatchers that make it owed: they were in sync when it came, and live since.
    pub witnesses: Vec<u8>,
    /// For each message, the dispatchers that have heard it and whose subscriptions stand since.
    pub hearers: Vec<u8>,
    pub budget: Budget,
    /// The messages that Redis had taken in and forgot.
    pub forgotten: u8,
    pub seen: Sights,
}

/// What happened on the way here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sights {
    /// A script of an epoch that is over changed something.
    pub stale_write: bool,
    /// A consumer took a message of an epoch that is over.
    pub stale_delivery: bool,
    /// A stale script was refused.
    pub stale_refused: bool,
    /// A message that Redis had forgotten was taken in again.
    pub filled_in: bool,
    /// A commit found its message gone.
    pub late_commit: bool,
    /// A leader went on over a break of its subscription.
    pub passed_break: bool,
    /// A leader went on over messages that its ring had dropped.
    pub passed_overrun: bool,
    /// A batch was offered again that had been taken.
    pub answered_again: bool,
    /// A result was stored by a transaction.
    pub stored_unasked: bool,
    /// A batch was taken in by a transaction.
    pub taken_unasked: bool,
    /// A commit as a transaction did nothing.
    pub commit_void: bool,
    /// An intake as a transaction did nothing.
    pub intake_void: bool,
    /// A command was refused.
    pub refused: bool,
    /// The lease was taken although its holder lived, heard what is published, and was where it had been.
    pub usurped: bool,
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Issuer {
    /// Nobody any more: the connection is gone, the script may still arrive.
    Nobody,
    Ingest(u8),
    Redistributor(u8),
    Consumer(u8),
}

/// A script on its way to Redis.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Request {
    pub issuer: Issuer,
    pub script: Script,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Dispatcher {
    pub alive: bool,
    /// The name of this process.
    pub id: u8,
    pub subscribed: bool,
    /// The server that its subscription is on.
    pub listens: u8,
    /// The server that its commands go to.
    pub commands: u8,
    /// It has subscribed anew because it was not counted.
    pub retried: bool,
    /// What Redis has sent and the listener has not read.
    pub inbox: Vec<Seen>,
    pub ring: Ring,
    /// It saw that it may take the lease, and is about to ask for it.
    pub looked: Option<Look>,
    /// While it believes to lead.
    pub term: Option<Term>,
}

/// What a standby saw when it looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Look {
    /// The segment that was live.
    pub segment: Option<u64>,
    /// Whether it waited for those that hold more.
    pub yielded: bool,
}

/// What a dispatcher knows and does while it believes to lead.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Term {
    pub epoch: u8,
    pub cursor: Option<Cursor>,
    /// What it saw when it went for the lease.
    pub look: Look,
    pub phase: Phase,
    /// Its lease says that only time ends it.
    pub by_time: bool,
    /// Its commands go to another server than when it took the lease.
    pub moved: bool,
    /// Whether anything was taken in.
    pub advanced: bool,
    /// Whether anything was taken in since the last marker.
    pub unmarked: bool,
    /// Whether its connection watches what an intake rests on, and nothing of that was written since.
    pub armed: bool,
    /// The batch that was offered: the cursor and the place after it, and what is in it.
    pub offer: Option<Offer>,
    /// The backlog: all up to this id, until it was read.
    pub backlog: Option<Id>,
    /// The consumers it has a link to.
    pub links: u8,
    /// Those of them that have said DRAIN.
    pub drains: u8,
    /// The places of what a consumer no longer reported: taken, while the message goes elsewhere.
    pub overdue: Vec<(u8, Id)>,
    /// The messages in its hands, by id.
    pub table: Vec<(Id, Message, Whereabouts)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Offer {
    pub next: Cursor,
    pub place: RingPlace,
    pub batch: Vec<(Id, Message)>,
    /// What the cursor says if a transaction of unknown outcome has taken it in.
    pub doubt: Option<CursorKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Waits for its marker.
    TakingOver(Marker),
    Running {
        place: RingPlace,
        live_segment: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whereabouts {
    Ready,
    Sent(u8),
    /// It came back.
    Back(Return),
}

/// How a message came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Return {
    /// Whoever had it said so, and has it no longer.
    pub let_go: bool,
    /// That delivery counts.
    pub counted: bool,
}

/// The link was lost, or the consumer no longer reported it.
pub const LOST: Return = Return { let_go: false, counted: true };
/// A NACK.
pub const RETURNED: Return = Return { let_go: true, counted: true };

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Consumer {
    pub alive: bool,
    /// The highest epoch seen.
    pub epoch: u8,
    /// The dispatcher whose link rules.
    pub ruler: Option<u8>,
    /// What its connection has read of `recall` and watches since. `None`: no connection, or `recall` was written
    /// since.
    pub armed: Option<Recall>,
    /// Of leaders up to this epoch nothing is trusted: only where `RecallNamesTheTerm` is missing.
    pub distrusted: u8,
    /// It was asked to stop: it takes nothing new, and is gone when it has nothing in hand.
    pub draining: bool,
    /// In hand, by id.
    pub held: Vec<Held>,
}

/// A message in a consumer's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Held {
    pub id: Id,
    pub message: Message,
    /// Whether a commit is under way.
    pub committing: bool,
    /// The epoch of the leader it came from; 0: a script has to look whether it is still pending.
    pub from: u8,
    /// Whether it came over a link that was proven.
    pub proven: bool,
}

impl World {
    /// A group at rest: all dispatchers in sync, the first one leads, the consumers are linked to it.
    pub fn new(bounds: &Bounds) -> World {
        let redis = Redis::new(bounds.messages);
        World {
            disk: redis.clone(),
            redis,
            tick: 0,
            last_epoch: 0,
            last_id: 0,
            last_marker: 0,
            published: 0,
            last_nonce: 0,
            refused: None,
            servers: bounds.servers,
            prefetch: bounds.prefetch,
            front: 0,
            gaps: bounds.gaps.then_some(0),
            dispatchers: vec![Dispatcher::default(); bounds.dispatchers],
            consumers: vec![Consumer { alive: true, ..Consumer::default() }; bounds.consumers],
            requests: Vec::new(),
            witnesses: vec![0; bounds.messages as usize],
            hearers: vec![0; bounds.messages as usize],
            budget: bounds.budget,
            forgotten: 0,
            seen: Sights::default(),
        }
    }

    /// Puts something on the channel by this server: it goes to all that are subscribed there now.
    pub fn broadcast(&mut self, seen: Seen, server: u8) {
        for d in 0..self.dispatchers.len() as u8 {
            if self.dispatchers[d as usize].subscribed && self.hears(d, server) {
                self.dispatchers[d as usize].inbox.push(seen);
            }
        }
    }

    /// Publishes a leader's next marker.
    pub fn publish_marker(&mut self, d: u8) -> Marker {
        self.last_marker += 1;
        let marker = self.last_marker | OF_LEADER;
        self.broadcast(Seen::Marker(marker), self.dispatchers[d as usize].commands);
        marker
    }

    /// The lease a dispatcher would hold now.
    pub fn lease_of(&self, dispatcher: u8) -> Option<Lease> {
        let term = self.dispatchers[dispatcher as usize].term.as_ref();
        term.map(|term| Lease { dispatcher, dead: false, epoch: term.epoch, by_time: term.by_time })
    }

    /// Whether the holder of the lease is subscribed to its alive channel.
    pub fn holder_is_subscribed(&self, lease: Lease) -> bool {
        self.dispatchers[lease.dispatcher as usize].subscribed && !lease.dead
    }

    /// Whether a message is owed: somebody lives who was in sync when it came, or who heard it over the subscription
    /// that stands now; or Redis has taken it in.
    pub fn is_owed(&self, message: Message) -> bool {
        let known_to = self.witnesses[message as usize] | self.hearers[message as usize];
        known_to != 0 || self.redis.taken & 1 << message != 0
    }
}

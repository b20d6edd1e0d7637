//! The state of a run: Redis and its disk, the dispatchers, the consumers, and the requests on their way.

use crate::redis::{CursorKey, Lease, Recall, Redis, Script};
use crate::refusals::Refusal;
use crate::ring::{Cursor, Id, Marker, Message, OF_LEADER, Ring, RingPlace, Seen};
use crate::rules::{Bounds, Budget};
use crate::servers::Servers;

/// The whole state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub redis: Redis,
    /// What Redis comes back with when it loses its tail.
    pub disk: Redis,
    pub tick: u8,
    /// The wall clock, as far as epochs and ids are made from it: it never goes back and is past all that were
    /// assigned.
    pub last_epoch: u8,
    pub last_id: Id,
    pub last_marker: Marker,
    pub published: u8,
    pub last_nonce: u8,
    /// What Redis refuses now.
    pub refused: Option<Refusal>,
    pub servers: Servers,
    /// The most messages that a consumer may hold.
    pub prefetch: u8,
    /// The server to which new connections lead.
    pub front: u8,
    /// After a failover: the old primary, while anyone is connected to it. `front` and `redis` are the new one.
    pub old: Option<Box<Redis>>,
    /// During a step of a process that is connected to the old primary: `redis` and `old` are exchanged.
    pub at_old: bool,
    /// Whether an intake counts only once a replica has it, and then the messages that count or are delivered.
    pub acknowledged: Option<u8>,
    pub dispatchers: Vec<Dispatcher>,
    pub consumers: Vec<Consumer>,
    /// Scripts on their way to Redis, sorted. They come over different connections, so any may be the next.
    pub requests: Vec<Request>,
    /// For each message, the dispatchers that make it owed: they were in sync when it came, and have run since.
    pub witnesses: Vec<u8>,
    /// For each message, the dispatchers that received it over the subscription that they still have.
    pub hearers: Vec<u8>,
    pub budget: Budget,
    /// The messages that Redis had stored and lost.
    pub forgotten: u8,
    pub seen: Events,
}

/// What happened on the way here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Events {
    /// A script of a past epoch changed something.
    pub stale_write: bool,
    /// A consumer accepted a message of a past epoch.
    pub stale_delivery: bool,
    /// A stale script was refused.
    pub stale_refused: bool,
    /// A message that Redis had lost was stored again.
    pub filled_in: bool,
    /// A commit found its message gone.
    pub late_commit: bool,
    /// A leader continued past a break of its subscription.
    pub passed_break: bool,
    /// A leader continued past messages that its ring had dropped.
    pub passed_overrun: bool,
    /// A batch was offered again that had been stored.
    pub answered_again: bool,
    /// A result was stored by a transaction.
    pub stored_by_transaction: bool,
    /// A batch was stored by a transaction.
    pub taken_by_transaction: bool,
    /// A commit as a transaction did nothing.
    pub commit_void: bool,
    /// An intake as a transaction did nothing.
    pub intake_void: bool,
    /// A command was refused.
    pub refused: bool,
    /// A leader that had heard of a pause, or should have, delivered a message.
    pub delivered_in_pause: bool,
    /// A leader found the group paused when it acquired the lease.
    pub found_pause: bool,
    /// The lease was acquired although its holder ran, received what is published, and had not changed servers.
    pub usurped: bool,
}

/// The sender of a request, who waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Issuer {
    /// The connection is gone. The script may still arrive.
    Gone,
    Ingest(u8),
    Redistributor(u8),
    Consumer(u8),
}

/// A script on its way to Redis.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Request {
    pub issuer: Issuer,
    /// It was sent to the old server.
    pub old: bool,
    pub script: Script,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Dispatcher {
    pub alive: bool,
    /// The name of this process. A restarted dispatcher has a new one.
    pub id: u8,
    pub subscribed: bool,
    /// The server that its subscription is on.
    pub listens: u8,
    /// The server that its commands go to.
    pub commands: u8,
    /// It has subscribed again because it was not counted.
    pub retried: bool,
    /// What Redis has sent and the listener has not read yet.
    pub inbox: Vec<Seen>,
    pub ring: Ring,
    /// The replayed messages that it was told of.
    pub returned: Vec<Id>,
    /// It was told that the group's settings have changed.
    pub news: bool,
    /// It saw that it may acquire the lease, and is about to ask for it.
    pub checked: Option<Check>,
    /// While it believes that it leads.
    pub term: Option<Term>,
}

/// What a standby saw when it checked the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    /// The segment that was live.
    pub segment: Option<u64>,
    /// Whether it waited for dispatchers that may hold more.
    pub yielded: bool,
}

/// What a dispatcher knows and does while it believes that it leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Term {
    pub epoch: u8,
    pub cursor: Option<Cursor>,
    /// What it saw before it asked for the lease.
    pub check: Check,
    pub phase: Phase,
    /// Its lease says that it ends only by expiring.
    pub by_time: bool,
    /// The server at which it was elected.
    pub elected_at: u8,
    /// Since a failover: the place of its last marker in the order of epochs.
    pub last_marker: Option<Marker>,
    /// Its commands go to another server than when it acquired the lease.
    pub moved: bool,
    /// Whether anything was stored.
    pub advanced: bool,
    /// Whether anything was stored since the last marker.
    pub unmarked: bool,
    /// Whether its connection watches the keys that an intake depends on, and none was written since.
    pub armed: bool,
    /// The batch that waits for an answer.
    pub offer: Option<Offer>,
    /// It keeps to a pause.
    pub paused: bool,
    /// Until the backlog was read: its highest id.
    pub backlog: Option<Id>,
    /// The consumers it has a link to.
    pub links: u8,
    /// The linked consumers that have sent DRAIN.
    pub drains: u8,
    /// Messages that a consumer no longer reports. Each keeps its place at that consumer while it is redelivered.
    pub overdue: Vec<(u8, Id)>,
    /// The messages in progress, by id.
    pub table: Vec<(Id, Message, Whereabouts)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Offer {
    pub next: Cursor,
    pub place: RingPlace,
    pub batch: Vec<(Id, Message)>,
    /// The cursor that a transaction of unknown outcome with this batch would have written.
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
    /// The consumer that held it has given it up and said so.
    pub given_up: bool,
    /// That delivery counts.
    pub counted: bool,
}

/// The link was lost, or the consumer no longer reported it.
pub const LOST: Return = Return { given_up: false, counted: true };
/// A NACK.
pub const RETURNED: Return = Return { given_up: true, counted: true };

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Consumer {
    pub alive: bool,
    /// The highest epoch seen.
    pub epoch: u8,
    /// The dispatcher whose link is in force.
    pub ruler: Option<u8>,
    /// The `recall` that its connection has read and watches since. `None`: no connection, or `recall` was written
    /// since.
    pub armed: Option<Recall>,
    /// It is connected to the old server.
    pub old: bool,
    /// Nothing from leaders up to this epoch is trusted. Used only without `RecallNamesTheTerm`.
    pub distrusted: u8,
    /// It was asked to stop: it accepts nothing new, and is gone when it holds nothing.
    pub draining: bool,
    /// The messages it holds, by id.
    pub held: Vec<Held>,
}

/// A message that a consumer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Held {
    pub id: Id,
    pub message: Message,
    /// Whether its commit was sent.
    pub committing: bool,
    /// The epoch of the leader it came from. 0: the script has to check that it is still pending.
    pub from: u8,
    /// Whether it came over a link that was proven.
    pub proven: bool,
}

impl World {
    /// A group at rest: all dispatchers in sync, the first one leads, the consumers are linked to it.
    pub fn new(bounds: &Bounds) -> World {
        let redis = Redis::new(bounds.messages, bounds.budget.replays > 0, bounds.gaps);
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
            old: None,
            at_old: false,
            acknowledged: bounds.waits.then_some(0),
            dispatchers: vec![Dispatcher::default(); bounds.dispatchers],
            consumers: vec![Consumer { alive: true, ..Consumer::default() }; bounds.consumers],
            requests: Vec::new(),
            witnesses: vec![0; bounds.messages as usize],
            hearers: vec![0; bounds.messages as usize],
            budget: bounds.budget,
            forgotten: 0,
            seen: Events::default(),
        }
    }

    /// Publishes something through this server: it is sent to every dispatcher that is subscribed there now.
    pub fn broadcast(&mut self, seen: Seen, server: u8) {
        for d in 0..self.dispatchers.len() as u8 {
            if self.dispatchers[d as usize].subscribed && self.hears(d, server) {
                self.dispatchers[d as usize].inbox.push(seen);
            }
        }
    }

    /// Publishes a leader's next marker.
    pub fn publish_marker(&mut self, d: u8) -> Marker {
        let marker = self.next_marker(d) | OF_LEADER;
        self.broadcast(Seen::Marker(marker), self.dispatchers[d as usize].commands);
        marker
    }

    /// The lease that a dispatcher believes it holds.
    pub fn lease_of(&self, dispatcher: u8) -> Option<Lease> {
        let term = self.dispatchers[dispatcher as usize].term.as_ref();
        term.map(|term| Lease { dispatcher, dead: false, epoch: term.epoch, by_time: term.by_time })
    }

    /// Whether the holder of the lease is subscribed to its alive channel.
    pub fn holder_is_subscribed(&self, lease: Lease) -> bool {
        self.dispatchers[lease.dispatcher as usize].subscribed && !lease.dead
    }

    /// Whether a message is owed: a running dispatcher was in sync when it came, or received it over the subscription
    /// that it still has; or Redis has stored it.
    pub fn is_owed(&self, message: Message) -> bool {
        let known_to = self.witnesses[message as usize] | self.hearers[message as usize];
        known_to != 0 || self.redis.taken & 1 << message != 0
    }
}

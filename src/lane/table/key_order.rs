//! Order by key: of the messages with one key at most one is in hand, and the others wait for it, by id.
//!
//! A message is *in hand* from the moment it may be delivered until it is done or dead, so also while it waits for a
//! redelivery. Each key has a line of *parked* messages, which are kept with their payloads. The number of parked
//! messages is bounded. A key for which there is no more room is *cut*: its messages from some id on are left to Redis,
//! and [read again](rereading) once few of its parked ones are left. So a key with very many messages, or one
//! whose first message fails, takes a part of the memory and holds up no other key.
//!
//! Pure; part of the table. Keys are kept as hashes, with other seeds in each table. Two keys with one hash share an
//! order. A message that a consumer reported has no key until it is read from Redis. Several messages of one key are in
//! hand only if consumers reported them so.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault};

mod lines;
mod rereading;

use self::lines::{KeyHasher, Line, Rereading, Rest};
use super::waiting::cost;
use crate::base::id::{IdMap, MessageId};
use crate::lane::order_key::OrderKey;
use crate::ledger::Pending;

/// How many messages may be parked. Keys with more than a few share half of that.
#[derive(Clone, Copy, Debug)]
pub(in crate::lane) struct Limits {
    /// In all.
    pub(in crate::lane) messages: usize,
    /// Their memory.
    pub(in crate::lane) bytes: usize,
    /// As many each key may have while there is any room. A cut key is read again when a quarter of them is left.
    pub(in crate::lane) few: usize,
    /// For one key.
    pub(in crate::lane) per_key: usize,
}

impl Limits {
    /// Those of a dispatcher, which keeps so many bytes in memory.
    pub(in crate::lane) fn of(ready_bytes: usize) -> Limits {
        Limits { messages: 400_000, bytes: ready_bytes / 2, few: 64, per_key: 10_000 }
    }
}

/// What becomes of a message that was read.
pub(super) enum Arrived {
    /// It may be delivered, and is in hand from now on.
    Ready(Pending),
    /// It is parked. Another of its key made room for it and is left to Redis.
    Parked { evicted: Option<MessageId> },
    /// It is left to Redis.
    Left,
}

/// Whether a message that came back may be delivered.
pub(super) enum Turn {
    /// It may; it is still in hand.
    Now,
    /// It is parked. If it was the last one in hand, another one of its key is in hand instead.
    Later { instead: Option<Pending> },
}

/// Figures of the order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::lane) struct OrderFigures {
    /// Keys with messages in hand or parked, or that are cut.
    pub(in crate::lane) keys: usize,
    /// Messages that are parked.
    pub(in crate::lane) parked: usize,
    /// Keys that are cut.
    pub(in crate::lane) cut: usize,
}

/// See the module's text.
pub(in crate::lane) struct KeyOrder {
    key: OrderKey,
    hasher: RandomState,
    limits: Limits,
    /// The key of each message in hand or parked that has one.
    keys: IdMap<u64>,
    lines: HashMap<u64, Line, BuildHasherDefault<KeyHasher>>,
    parked: usize,
    parked_bytes: usize,
    cut: usize,
    /// Cut keys of which nothing is in hand, by where they are cut.
    idle: BTreeSet<(MessageId, u64)>,
    /// Other cut keys with few parked messages.
    low: BTreeSet<(MessageId, u64)>,
    rereading: Rereading,
    unkeyed: usize,
}

impl KeyOrder {
    pub(in crate::lane) fn new(key: OrderKey, limits: Limits) -> KeyOrder {
        KeyOrder {
            key,
            hasher: RandomState::new(),
            limits,
            keys: IdMap::default(),
            lines: HashMap::default(),
            parked: 0,
            parked_bytes: 0,
            cut: 0,
            idle: BTreeSet::new(),
            low: BTreeSet::new(),
            rereading: Rereading::default(),
            unkeyed: 0,
        }
    }

    /// A message was read that is not tracked. `reread`: in the page that was asked for last to read keys again.
    pub(super) fn arrive(&mut self, message: Pending, reread: bool) -> Arrived {
        let Some(key) = self.key_of(&message) else {
            self.unkeyed += 1;
            return Arrived::Ready(message);
        };
        let id = message.id;
        let cut = match self.lines.entry(key) {
            Entry::Occupied(line) => line.get().cut(),
            Entry::Vacant(line) => {
                line.insert(Line { in_hand: 1, rest: None });
                self.keys.insert(id, key);
                return Arrived::Ready(message);
            }
        };
        let beyond = cut.is_some_and(|cut| cut.from <= id);
        if beyond && !(reread && cut.is_some_and(|cut| self.rereading.is_read(&cut))) {
            return Arrived::Left;
        }
        self.unlist(key);
        let line = self.lines.entry(key).or_default();
        let arrived = if line.in_hand == 0 {
            line.in_hand = 1;
            self.keys.insert(id, key);
            Arrived::Ready(message)
        } else {
            self.park(key, message, beyond)
        };
        if beyond && !matches!(arrived, Arrived::Left) {
            self.open(key, MessageId(id.0 + 1));
        }
        self.list(key);
        arrived
    }

    /// A tracked message was read. If that is the first time, it is one that a consumer has reported.
    pub(super) fn note(&mut self, message: &Pending) {
        if self.keys.contains_key(&message.id) {
            return;
        }
        if let Some(key) = self.key_of(message) {
            self.unlist(key);
            self.keys.insert(message.id, key);
            self.lines.entry(key).or_default().in_hand += 1;
            self.list(key);
        }
    }

    /// A message comes back to be delivered again. While others of its key are in hand, and if an older one is parked,
    /// it is parked, too.
    pub(super) fn come_back(&mut self, message: &Pending) -> Turn {
        self.note(message);
        let Some(key) = self.keys.get(&message.id).copied() else { return Turn::Now };
        let Some(line) = self.lines.get_mut(&key) else { return Turn::Now };
        if line.in_hand > 1 {
            line.in_hand -= 1;
            self.insert(key, message.clone());
            return Turn::Later { instead: None };
        }
        let parked = line.rest.as_mut().map(|rest| &mut rest.parked);
        let parked = parked.filter(|parked| parked.front().is_some_and(|first| first.id < message.id));
        let Some(older) = parked.and_then(|parked| parked.pop_front()) else { return Turn::Now };
        self.parked -= 1;
        self.parked_bytes -= cost(&older);
        self.insert(key, message.clone());
        Turn::Later { instead: Some(older) }
    }

    /// A message is at a consumer, which has reported it.
    pub(super) fn take_in_hand(&mut self, id: MessageId) {
        let Some(key) = self.keys.get(&id).copied() else { return };
        self.unlist(key);
        if self.unpark(key, id).is_some() {
            self.lines.entry(key).or_default().in_hand += 1;
        }
        self.list(key);
    }

    /// A message is done. Returns the next one of its key, which is in hand from now on.
    pub(super) fn forget(&mut self, id: MessageId) -> Option<Pending> {
        self.rereading.note_end(id);
        let key = self.keys.remove(&id)?;
        let line = self.lines.get_mut(&key)?;
        if line.rest.is_none() {
            line.in_hand -= 1;
            if line.in_hand == 0 {
                self.lines.remove(&key);
            }
            return None;
        }
        self.unlist(key);
        let was_parked = self.unpark(key, id).is_some();
        let line = self.lines.get_mut(&key)?;
        line.in_hand -= u32::from(!was_parked);
        let rest = line.rest.as_mut()?;
        let next = if line.in_hand == 0 { rest.parked.pop_front() } else { None };
        if let Some(cut) = &mut rest.cut {
            cut.stalled = false;
        }
        if let Some(next) = &next {
            line.in_hand = 1;
            self.parked -= 1;
            self.parked_bytes -= cost(next);
        }
        self.list(key);
        next
    }

    /// Whether very many keys wait to be read again, of which nothing is in hand.
    pub(in crate::lane) fn has_many_idle(&self) -> bool {
        const MANY: usize = 100_000;
        self.idle.len() >= MANY
    }

    /// The memory of the parked messages.
    pub(super) fn parked_bytes(&self) -> usize {
        self.parked_bytes
    }

    pub(in crate::lane) fn figures(&self) -> OrderFigures {
        OrderFigures { keys: self.lines.len(), parked: self.parked, cut: self.cut }
    }

    /// Whether a message is parked.
    pub(super) fn is_parked(&self, id: MessageId) -> bool {
        let rest = self.keys.get(&id).and_then(|key| self.lines.get(key)?.rest.as_ref());
        rest.is_some_and(|rest| rest.parked.binary_search_by_key(&id, |message| message.id).is_ok())
    }

    /// Whether some keys are cut.
    pub(super) fn has_cut_keys(&self) -> bool {
        self.cut > 0
    }

    /// The parked messages.
    pub(super) fn parked(&self) -> impl Iterator<Item = MessageId> {
        let lines = if self.parked > 0 { Some(self.lines.values()) } else { None };
        let rests = lines.into_iter().flatten().filter_map(|line| line.rest.as_ref());
        rests.flat_map(|rest| rest.parked.iter().map(|message| message.id))
    }

    /// How many messages had no key since this was last asked.
    pub(in crate::lane) fn take_unkeyed(&mut self) -> usize {
        std::mem::take(&mut self.unkeyed)
    }

    /// Whether a good part of the room is free.
    fn has_slack(&self) -> bool {
        self.parked <= self.limits.messages / 4 * 3 && self.parked_bytes <= self.limits.bytes / 4 * 3
    }

    fn key_of(&self, message: &Pending) -> Option<u64> {
        self.key.of(&message.body).map(|key| self.hasher.hash_one(&*key))
    }

    /// Parks a message at its place. If that is too much, the last one of the key is left to Redis. `beyond`: all
    /// before it are tracked, although the key is cut before it.
    fn park(&mut self, key: u64, message: Pending, beyond: bool) -> Arrived {
        let id = message.id;
        self.insert(key, message);
        let Some(rest) = self.lines.get_mut(&key).and_then(|line| line.rest.as_mut()) else { return Arrived::Left };
        let few = rest.parked.len() <= self.limits.few;
        let share = if few { 1 } else { 2 };
        let fits = rest.parked.len() <= self.limits.per_key.max(self.limits.few)
            && self.parked <= self.limits.messages / share
            && self.parked_bytes <= self.limits.bytes / share;
        if fits {
            return Arrived::Parked { evicted: None };
        }
        let last = rest.parked.back().map_or(id, |last| last.id);
        let cut = rest.cut.filter(|_| !beyond).map_or(last, |cut| cut.from.min(last));
        self.unpark(key, last);
        self.keys.remove(&last);
        self.close(key, cut);
        if last == id { Arrived::Left } else { Arrived::Parked { evicted: Some(last) } }
    }

    fn insert(&mut self, key: u64, message: Pending) {
        self.keys.insert(message.id, key);
        self.parked += 1;
        self.parked_bytes += cost(&message);
        let parked = &mut self.lines.entry(key).or_default().rest.get_or_insert_default().parked;
        let place = match parked.back() {
            Some(last) if last.id > message.id => parked.partition_point(|other| other.id < message.id),
            _ => parked.len(),
        };
        parked.insert(place, message);
    }

    fn unpark(&mut self, key: u64, id: MessageId) -> Option<Pending> {
        let parked = &mut self.lines.get_mut(&key)?.rest.as_mut()?.parked;
        let place = parked.binary_search_by_key(&id, |message| message.id).ok()?;
        let message = parked.remove(place)?;
        self.parked -= 1;
        self.parked_bytes -= cost(&message);
        Some(message)
    }

    /// Before a change of a line.
    pub(super) fn unlist(&mut self, key: u64) {
        if let Some(cut) = self.lines.get(&key).and_then(Line::cut) {
            self.idle.remove(&(cut.from, key));
            self.low.remove(&(cut.from, key));
        }
    }

    /// After a change of a line: lists it if it is to be read again, and removes what is empty.
    pub(super) fn list(&mut self, key: u64) {
        let Some(line) = self.lines.get_mut(&key) else { return };
        line.rest.take_if(|rest| rest.cut.is_none() && rest.parked.is_empty());
        if let Some(Rest { parked, cut: Some(cut) }) = line.rest.as_deref() {
            match (cut.open, line.in_hand) {
                (true, _) => {}
                (false, 0) => _ = self.idle.insert((cut.from, key)),
                (false, _) if parked.len() <= self.limits.few / 4 && !cut.stalled => {
                    _ = self.low.insert((cut.from, key));
                }
                _ => {}
            }
        } else if line.in_hand == 0 && line.rest.is_none() {
            self.lines.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests;

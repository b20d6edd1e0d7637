//! What all clones of a server know of its place: the address that was found last, and the generation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::base::text::Quoted;
use crate::net::{Address, Closer};

/// What was found for one connection.
pub(in crate::ledger) struct Found {
    /// Where to connect.
    pub(in crate::ledger) address: Address,
    /// The generation at which it was found.
    pub(in crate::ledger) generation: u64,
}

/// Where the dispatchers of a lane may subscribe to what it listens to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Planned {
    /// Wherever the lane's keys are: it is the only lane of its group.
    #[default]
    Anywhere,
    /// On the node of this id. When the keys are on another one, other lanes may listen there, so the group's lanes
    /// must be planned anew first.
    On(String),
    /// Nowhere: the lane does not listen.
    Nowhere,
}

/// See the module's text.
#[derive(Default)]
pub(in crate::ledger) struct Known {
    generation: AtomicU64,
    last: Mutex<Option<Address>>,
    /// In a Redis Cluster, the id of the node at which the present subscription is.
    subscribed_on: Mutex<Option<String>>,
    /// Where dispatchers of this lane may subscribe.
    planned: Mutex<Planned>,
    /// The sessions that end with their generation, each with that.
    sessions: Mutex<Vec<(u64, Weak<Closer>)>>,
}

impl Known {
    /// The present generation.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The address that was found last.
    pub(in crate::ledger) fn last(&self) -> Option<Address> {
        self.last.lock().clone()
    }

    /// The node at which the present subscription is, as far as it is known.
    pub(in crate::ledger) fn subscribed_on(&self) -> Option<String> {
        self.subscribed_on.lock().clone()
    }

    /// A subscription begins at this node.
    pub(in crate::ledger) fn note_subscribed_on(&self, node: Option<String>) {
        *self.subscribed_on.lock() = node;
    }

    /// Where dispatchers of this lane may subscribe, as the last plan says.
    pub(in crate::ledger) fn planned(&self) -> Planned {
        self.planned.lock().clone()
    }

    /// There is another plan.
    pub(in crate::ledger) fn note_planned(&self, planned: Planned) {
        *self.planned.lock() = planned;
    }

    /// The server is at this address now. If it was elsewhere before, a new generation begins. Returns the generation.
    pub(super) fn note_found(&self, address: &Address) -> u64 {
        let mut last = self.last.lock();
        if last.as_ref() == Some(address) {
            return self.generation();
        }
        match last.replace(address.clone()) {
            Some(before) => {
                let (from, to) = (Quoted(before.to_string()), Quoted(address.to_string()));
                log::warn!("event=server-moved from={from} to={to}");
                let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
                self.end_sessions(generation);
                generation
            }
            None => self.generation(),
        }
    }

    /// A session of this generation has learned that its server is the wrong one. What others of the same generation
    /// learn changes nothing more.
    pub(super) fn end_generation(&self, generation: u64) {
        let next = generation + 1;
        if self.generation.compare_exchange(generation, next, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.end_sessions(next);
        }
    }

    /// Ends this session when its generation is over, so that nobody goes on waiting for a reply of a server that
    /// hangs: for as long as the caller keeps what it gets.
    pub(super) fn watch(&self, generation: u64, session: Closer) -> Arc<Closer> {
        let session = Arc::new(session);
        let mut sessions = self.sessions.lock();
        sessions.retain(|(_, session)| session.strong_count() > 0);
        sessions.push((generation, Arc::downgrade(&session)));
        // If it has ended meanwhile, whoever ended it may not have seen this session.
        if self.generation() > generation {
            session.abort();
        }
        session
    }

    fn end_sessions(&self, present: u64) {
        self.sessions.lock().retain(|(generation, session)| {
            let is_present = *generation >= present;
            if !is_present && let Some(session) = session.upgrade() {
                session.abort();
            }
            is_present
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_ends_once() {
        let known = Known::default();
        let at = |port| Address::Tcp { host: "a".to_owned(), port };
        assert_eq!((known.note_found(&at(1)), known.note_found(&at(1))), (0, 0), "the first place is no move");
        assert_eq!((known.note_found(&at(2)), known.note_found(&at(2))), (1, 1));
        known.end_generation(0);
        assert_eq!(known.generation(), 1, "a session that was outdated already");
        known.end_generation(1);
        known.end_generation(1);
        assert_eq!(known.generation(), 2);
    }
}

//! Order by key: of the messages with one key a leader has at most one in hand, the first one
//! (`src/lane/table/key_order.rs`). Message n has the key n modulo the number of keys.
//!
//! Limitations: memory is unbounded, so no key is cut; a backlog is read in one page.

use stateright::Property;

use crate::actions::Protocol;
use crate::ring::{Id, Message};
use crate::rules::{Bounds, Budget, Rule};
use crate::world::{Consumer, Term, Whereabouts, World};
use crate::{NO_FAULTS, assert_broken, assert_kept, bounds, long};

pub const ONE_AT_A_TIME: &str = "order: consumers hold at most one message of a key";
pub const IN_TURN: &str = "order: a message is recorded only after those of its key that were stored before it";

impl Bounds {
    /// The same with an order by key.
    fn in_order(self, keys: u8) -> Bounds {
        Bounds { keys, ..self }
    }
}

impl Protocol {
    /// Whether a message may be delivered: nothing before it is unread, and no other of its key goes first.
    pub fn is_its_turn(&self, term: &Term, id: Id, message: Message) -> bool {
        if self.bounds.keys == 0 {
            return true;
        }
        if term.backlog.is_some() && self.rules.has(Rule::ArrivalsQueueBehindTheBacklog) {
            return false;
        }
        let others = term.table.iter().filter(|(other, of, _)| *other != id && self.key(*of) == self.key(message));
        let is_first = |(other, _, at): &(Id, Message, Whereabouts)| match at {
            Whereabouts::Ready => *other < id,
            Whereabouts::Sent(_) => self.rules.has(Rule::OneOfAKeyInHand),
            Whereabouts::Back(_) => self.rules.has(Rule::ReturnedIsInHand),
        };
        !others.into_iter().any(is_first)
    }

    fn key(&self, message: Message) -> Message {
        message % self.bounds.keys
    }

    /// Two messages of one key, the earlier one first.
    fn pairs(&self, world: &World) -> impl Iterator<Item = (Message, Message)> {
        let (published, keys) = (world.published, self.bounds.keys);
        (0..published)
            .flat_map(move |m| (m + 1..published).map(move |n| (m, n)))
            .filter(move |(m, n)| keys > 0 && m % keys == n % keys)
    }
}

/// The order as properties of every state.
pub fn properties() -> [Property<Protocol>; 2] {
    [
        Property::always(ONE_AT_A_TIME, |protocol: &Protocol, world: &World| {
            let holds = |consumer: &Consumer, message| consumer.held.iter().any(|held| held.message == message);
            let is_held = |message| world.consumers.iter().any(|consumer| holds(consumer, message));
            !protocol.pairs(world).any(|(m, n)| is_held(m) && is_held(n))
        }),
        Property::always(IN_TURN, |protocol: &Protocol, world: &World| {
            let is_done = |m| world.redis.recorded(m) > 0;
            let was_stored = |m: Message| world.redis.taken & 1 << m != 0;
            let overtakes = |(m, n)| is_done(n) && was_stored(m) && !is_done(m);
            !protocol.pairs(world).any(overtakes)
        }),
    ]
}

/// A leader is lost.
const CHANGE: Budget = Budget { faults: 1, crashes: 1, ..NO_FAULTS };
/// A handler fails.
const FAILURE: Budget = Budget { rejections: 1, ..NO_FAULTS };

#[test]
fn keys_are_kept_in_order() {
    assert_kept("order and another leader", bounds(1, 2, CHANGE).in_order(1));
    let alone = |consumers, messages, budget| Bounds { dispatchers: 1, ..bounds(consumers, messages, budget) };
    assert_kept("order, two keys", alone(1, 3, FAILURE).in_order(2));
    let lost = Budget { faults: 1, consumer_crashes: 1, ..FAILURE };
    assert_kept("order and a lost consumer", alone(2, 2, lost).in_order(1));
    if long() {
        assert_kept("order, two consumers and another leader", bounds(2, 2, CHANGE).in_order(1));
        assert_kept("order and a paused leader", bounds(1, 2, Budget { pauses: 1, ..CHANGE }).in_order(1));
        let unanswered = Budget { timeouts: 1, ..CHANGE };
        assert_kept("order and lost answers", bounds(1, 2, unanswered).in_order(1));
        assert_kept("order, two keys, two consumers", alone(2, 3, FAILURE).in_order(2));
    }
}

#[test]
fn two_messages_of_a_key_in_hand_overlap() {
    assert_broken(Rule::OneOfAKeyInHand, ONE_AT_A_TIME, bounds(2, 2, NO_FAULTS).in_order(1));
}

#[test]
fn a_new_message_that_does_not_wait_for_the_backlog_overtakes() {
    let budget = Budget { faults: 1, crashes: 1, ..NO_FAULTS };
    assert_broken(Rule::ArrivalsQueueBehindTheBacklog, IN_TURN, bounds(1, 2, budget).in_order(1));
}

#[test]
fn a_message_that_does_not_wait_for_a_failed_one_overtakes() {
    let budget = Budget { rejections: 1, ..NO_FAULTS };
    assert_broken(Rule::ReturnedIsInHand, IN_TURN, bounds(1, 2, budget).in_order(1));
}

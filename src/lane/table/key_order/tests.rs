//! The table and the backlog with an order by key, against a Redis and consumers that are a few maps.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::base::budget::Budget;
use crate::lane::backlog::Backlog;
use crate::lane::table::{Again, Line as Queue, Loss, Table, Whereabouts};
use crate::ledger::{Body, Page};

const LINK: usize = 0;

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A message of this key is stored; `spills`: there is no room for it in memory.
    Store {
        key: u8,
        spills: bool,
    },
    /// A page of so many messages is asked for.
    Ask {
        again: bool,
    },
    /// It is read by the redistributor.
    Read {
        messages: usize,
    },
    /// It arrives.
    Arrive,
    Send,
    /// One of the messages at consumers is recorded.
    Ack(usize),
    /// Recorded, and the consumer's ACK has not arrived.
    Record(usize),
    /// A delivery of one of them failed or was lost.
    Return(usize),
    /// The redistributor gives back a message that came back.
    Back(usize),
    /// A message that came back is dead.
    Die(usize),
    /// A dead letter is replayed.
    Replay(usize),
    /// A consumer that was not linked reports a message of an earlier leader.
    Report(usize),
}

struct Group {
    table: Table,
    backlog: Backlog,
    inherited: u64,
    last: u64,
    /// The keys of all messages.
    keys: BTreeMap<u64, u8>,
    /// Redis: key by id.
    pending: BTreeMap<u64, u8>,
    dead: BTreeMap<u64, u8>,
    /// The page that was asked for: whether to read keys again, its bounds, and its content once it was read.
    asked: Option<(bool, MessageId, MessageId, Option<Page>)>,
    at_consumers: BTreeSet<u64>,
    away: BTreeSet<u64>,
    /// Reported by a consumer, so no one keeps these from being in hand together.
    reported: BTreeSet<u64>,
    /// How many ever were. They wait for each other beyond all limits.
    reports: usize,
    /// The last message of each key that was delivered for the first time, until one is replayed.
    newest: BTreeMap<u8, u64>,
    delivered: BTreeSet<u64>,
    limits: Limits,
}

fn message(id: u64, key: u8) -> Pending {
    // Key 0 is none.
    let payload = if key == 0 { "none".to_owned() } else { format!("{key}:{id}") };
    Pending { id: MessageId(id), delivery: 1, body: Body::copied(None, payload.as_bytes()) }
}

fn nth(set: &BTreeSet<u64>, n: usize) -> Option<u64> {
    set.iter().nth(n % set.len().max(1)).copied()
}

impl Group {
    /// A leader that inherits messages of these keys.
    fn new(limits: Limits, inherited: &[u8]) -> Group {
        let last = inherited.len() as u64;
        let order = KeyOrder::new("prefix::".parse().expect("a key"), limits);
        Group {
            table: Table::new(MessageId(last)).in_order(Some(order)),
            backlog: Backlog::new(MessageId(last)),
            inherited: last,
            last,
            keys: (1..).zip(inherited.iter().copied()).collect(),
            pending: (1..).zip(inherited.iter().copied()).collect(),
            dead: BTreeMap::new(),
            asked: None,
            at_consumers: BTreeSet::new(),
            away: BTreeSet::new(),
            reported: BTreeSet::new(),
            reports: 0,
            newest: BTreeMap::new(),
            delivered: BTreeSet::new(),
            limits,
        }
    }

    fn order(&mut self) -> &mut KeyOrder {
        self.table.order().expect("there is one")
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Store { key, spills } => self.store(key, spills),
            Step::Ask { again } => self.ask(again),
            Step::Read { messages } => self.read(messages),
            Step::Arrive => self.arrive(),
            Step::Send => drop(self.send()),
            Step::Ack(n) => {
                if let Some(id) = nth(&self.at_consumers, n) {
                    self.pending.remove(&id);
                    self.end(id);
                }
            }
            Step::Record(n) => {
                if let Some(id) = nth(&self.at_consumers, n) {
                    self.pending.remove(&id);
                }
            }
            Step::Return(n) => {
                if let Some(id) = nth(&self.at_consumers, n) {
                    self.at_consumers.remove(&id);
                    self.away.insert(id);
                    self.table.set_away(MessageId(id));
                }
            }
            Step::Back(n) => {
                if let Some(id) = nth(&self.away, n) {
                    self.back(id);
                }
            }
            Step::Die(n) => {
                self.arrive();
                if let Some(id) = nth(&self.away, n)
                    && let Some(key) = self.pending.remove(&id)
                {
                    self.dead.insert(id, key);
                    self.away.remove(&id);
                    self.reported.remove(&id);
                    self.table.forget(MessageId(id));
                }
            }
            Step::Replay(n) => self.replay(n),
            Step::Report(n) => {
                let unknown = (1..=self.inherited).filter(|id| {
                    let at = self.table.whereabouts(MessageId(*id));
                    self.pending.contains_key(id) && matches!(at, None | Some(Whereabouts::Ready | Whereabouts::Parked))
                });
                if let Some(id) = nth(&unknown.collect(), n) {
                    self.table.adopt(MessageId(id), LINK);
                    self.reported.insert(id);
                    self.reports += 1;
                    self.at_consumers.insert(id);
                    self.delivered.insert(id);
                }
            }
        }
    }

    fn store(&mut self, key: u8, spills: bool) {
        self.last += 1;
        let id = MessageId(self.last);
        self.pending.insert(id.0, key);
        self.keys.insert(id.0, key);
        if spills || !self.backlog.is_empty() {
            self.backlog.extend(id);
        } else {
            self.backlog.pass(id);
            self.table.admit(message(id.0, key));
        }
    }

    fn replay(&mut self, n: usize) {
        let letter = self.dead.iter().nth(n % self.dead.len().max(1)).map(|(id, key)| (*id, *key));
        let Some((id, key)) = letter else { return };
        self.dead.remove(&id);
        self.pending.insert(id, key);
        self.newest.remove(&key);
        // The courier hears of it behind the pages that were read before.
        self.arrive();
        let id = MessageId(id);
        self.table.inherit(id);
        if self.table.whereabouts(id).is_none() && !self.backlog.covers(id) {
            self.backlog.read_again(id);
            self.check_frontier();
        }
    }

    fn check_frontier(&mut self) {
        let frontier = self.backlog.frontier();
        self.order().check_frontier(frontier);
    }

    fn ask(&mut self, again: bool) {
        if self.asked.is_some() {
            return;
        }
        let frontier = self.backlog.frontier();
        let bounds = match again {
            true => self.order().next_page(frontier),
            false => self.backlog.request(1 << 20).map(|request| (request.after, request.up_to)),
        };
        self.asked = bounds.map(|(after, up_to)| (again, after, up_to, None));
    }

    fn read(&mut self, most: usize) {
        let Some((_, after, up_to, page @ None)) = &mut self.asked else { return };
        let found = self.pending.range(after.0 + 1..=up_to.0).take(most);
        let messages: Vec<Pending> = found.map(|(id, key)| message(*id, *key)).collect();
        *page = Some(Page { read_up_to: messages.last().map(|message| message.id), messages, delayed: Vec::new() });
    }

    fn arrive(&mut self) {
        let Some((again, .., Some(page))) = self.asked.take_if(|(.., page)| page.is_some()) else { return };
        if again {
            let frontier = self.backlog.frontier();
            let Some(ended) = self.order().begin_page() else { return };
            for message in page.messages.into_iter().filter(|message| !ended.contains(&message.id)) {
                self.table.admit_reread(message);
            }
            self.order().end_page(page.read_up_to, frontier);
        } else {
            let (messages, _) = self.backlog.arrived(page);
            messages.into_iter().for_each(|message| {
                self.table.admit(message);
            });
            self.check_frontier();
        }
    }

    /// The redistributor replies in order, so a page that was read before arrives before.
    fn back(&mut self, id: u64) {
        self.arrive();
        self.away.remove(&id);
        match self.pending.get(&id) {
            Some(key) => {
                let loss = Loss { consumer: "c0".into(), reason: "lost".into() };
                let again = Again::new(message(id, *key), Some(loss), &Budget::new(0));
                assert!(self.table.readmit(again));
            }
            None => self.end(id),
        }
    }

    fn end(&mut self, id: u64) {
        self.at_consumers.remove(&id);
        self.away.remove(&id);
        self.reported.remove(&id);
        self.table.forget(MessageId(id));
        self.backlog.acked(MessageId(id));
    }

    fn send(&mut self) -> Option<u64> {
        let next = Queue::BOTH.into_iter().find_map(|line| self.table.send_first(line, LINK, |_| true))?;
        let id = next.message.id.0;
        let key = self.keys[&id];
        assert!(self.at_consumers.insert(id), "{id} is at a consumer already");
        self.reported.remove(&id);
        let first = self.delivered.insert(id);
        if key == 0 {
            return Some(id);
        }
        let in_hand = self.at_consumers.iter().chain(&self.away).filter(|other| self.keys[*other] == key);
        let others: Vec<_> = in_hand.filter(|other| **other != id && !self.reported.contains(other)).collect();
        assert!(others.is_empty(), "{id} of key {key} is sent while {others:?} are in hand");
        if first && !next.again {
            let newest = self.newest.insert(key, id);
            assert!(newest.is_none_or(|newest| newest < id), "{id} of key {key} is sent after {newest:?}");
        }
        Some(id)
    }

    fn check_bounds(&mut self) {
        let Limits { messages, bytes, .. } = self.limits;
        let reports = self.reports;
        let order = self.order();
        let lines = order.lines.values().filter_map(|line| line.rest.as_ref());
        let parked: Vec<&Pending> = lines.flat_map(|rest| &rest.parked).collect();
        assert_eq!(order.parked, parked.len());
        assert_eq!(order.parked_bytes, parked.iter().map(|message| cost(message)).sum::<usize>());
        assert!(order.parked <= messages + reports && order.parked_bytes <= bytes + reports * 200);
        assert_eq!(order.cut, order.lines.values().filter(|line| line.cut().is_some()).count());
        let in_hand: usize = order.lines.values().map(|line| line.in_hand as usize).sum();
        assert_eq!(order.keys.len(), in_hand + parked.len());
        assert!(order.lines.values().all(|line| line.in_hand > 0 || line.cut().is_some()));
    }

    /// Everything is delivered and recorded without further faults.
    fn finish(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "these are parked for ever: {:?}", self.pending);
            while self.send().is_some() {}
            while let Some(id) = nth(&self.away, 0) {
                self.back(id);
            }
            while self.send().is_some() {}
            while let Some(id) = nth(&self.at_consumers, 0) {
                self.pending.remove(&id);
                self.end(id);
            }
            self.ask(round % 2 == 0);
            self.ask(round % 2 == 1);
            self.read(100);
            self.arrive();
            self.check_bounds();
            if self.pending.is_empty() && self.asked.is_none() {
                break;
            }
        }
        assert!(self.backlog.is_empty() || self.pending.is_empty());
        assert_eq!(self.table.len(), 0);
    }
}

fn step() -> impl Strategy<Value = Step> {
    let n = || 0_usize..64;
    let store = || {
        let key = prop_oneof![1 => Just(0_u8), 6 => 1_u8..3, 3 => 1_u8..20];
        (key, prop::bool::weighted(0.05)).prop_map(|(key, spills)| Step::Store { key, spills })
    };
    prop_oneof![
        30 => store(),
        6 => any::<bool>().prop_map(|again| Step::Ask { again }),
        6 => (1_usize..20).prop_map(|messages| Step::Read { messages }),
        6 => Just(Step::Arrive),
        16 => Just(Step::Send),
        12 => n().prop_map(Step::Ack),
        1 => n().prop_map(Step::Record),
        4 => n().prop_map(Step::Return),
        4 => n().prop_map(Step::Back),
        1 => n().prop_map(Step::Die),
        1 => n().prop_map(Step::Replay),
        1 => n().prop_map(Step::Report),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Of one key never two are in hand, they are released in order, none waits for ever, and memory is bounded.
    #[test]
    fn keys_are_kept_in_order(
        inherited in prop::collection::vec(0_u8..6, 0..60),
        few in 1_usize..20,
        per_key in 1_usize..40,
        messages in prop_oneof![1_usize..60, Just(400)],
        bytes in prop_oneof![100_usize..5_000, Just(1 << 20)],
        steps in prop::collection::vec(step(), 0..400),
    ) {
        let mut group = Group::new(Limits { messages, bytes, few, per_key }, &inherited);
        for step in steps {
            group.take(step);
            group.check_bounds();
        }
        group.finish();
    }
}

/// A consumer had them before there was an order, and is lost.
#[test]
fn several_of_one_key_that_come_back_are_delivered_one_by_one_in_order() {
    let limits = Limits { messages: 9, bytes: 1 << 20, few: 9, per_key: 9 };
    let order = KeyOrder::new("prefix::".parse().expect("a key"), limits);
    let mut table = Table::new(MessageId(9)).in_order(Some(order));
    let budget = Budget::new(1 << 20);
    let ids = [6, 7, 8].map(MessageId);
    for id in ids {
        table.adopt(id, LINK);
        assert!(!table.admit(message(id.0, 1)), "it is known");
        table.set_away(id);
    }
    let loss = || Loss { consumer: "c0".into(), reason: "its link was lost".into() };
    for id in ids {
        assert!(table.readmit(Again::new(message(id.0, 1), Some(loss()), &budget)));
    }
    for id in ids {
        let next = table.send_first(Queue::Common, LINK, |_| true).expect("its turn has come");
        assert_eq!((next.message.id, next.again, next.loss.is_some()), (id, true, true));
        assert!(table.send_first(Queue::Common, LINK, |_| true).is_none(), "one at a time");
        table.forget(id);
    }
    assert_eq!(table.len(), 0);
}

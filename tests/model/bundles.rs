//! Bundles: messages with consecutive ids that Redis keeps as one member. Here a bundle has two, A and B, and C is a
//! member of its own.
//!
//! A small search of its own, which begins when the messages are stored and nothing is delivered. A request that gets
//! no answer is repeated, and the lost attempt may arrive at any later time or never. Redis may restart without its
//! last writes. Its leader finds that out later, and goes on delivering until then.
//!
//! Requests are executed in any order. Where no program has anything left to do, the promises hold whether or not a
//! lost attempt still arrives. [`redis`] has the steps of Redis and the rules, [`proofs`] the tests.
//!
//! Limitations: how bundles are stored is left out. There is one server, and all links are proven. No leader adopts
//! what a consumer lists in HELD; it delivers it again. A consumer is not sent what it holds already. Consumers do not
//! die, but the leader may give up a delivery at any time. Dead letters are left out: they are removed like what is
//! recorded.

use stateright::{Model, Property};

mod proofs;
mod redis;

use redis::{Answer, BUNDLE, Call, Recall, Redis, Rule, Rules, Set, Situation, each, up_to};

const ONE_RESULT: &str = "each message has at most one result";
const DRAINED: &str = "at rest each message has a result and is not pending";
const ONE_FORM: &str = "no message is in a bundle and a member of its own";
const PROMISES: [&str; 3] = [ONE_RESULT, DRAINED, ONE_FORM];
const SEEN: &str = "the situation occurs";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fault {
    /// A request gets no answer.
    Timeout,
    /// A handler fails.
    Failure,
    /// A consumer that drains returns a message that it has not begun.
    Return,
    /// The leader gives up a delivery, as when the link is lost. The consumer works on.
    Loss,
    Election,
    /// Redis comes back without its last writes.
    Restart,
    /// Results are refused inside a transaction.
    Refusal,
    /// A script takes the bundle apart and does no more, as when a dead letter with the id of one of its messages is
    /// replayed. Without this no transaction would meet a bundle that was taken apart.
    Question,
}

/// How many of its last writes Redis may lose.
const TAIL: usize = 2;

/// The consumer's number; `None` for the leader.
type Issuer = Option<usize>;

/// What Redis has not executed yet. Late: nobody waits for the answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Request {
    issuer: Issuer,
    call: Call,
    late: bool,
}

/// Where a message is for the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    Ready { first: bool, bundled: bool },
    Sent(usize),
    Away,
    Done,
}

/// A delivery. It says whether it is the first one, and whether the message is in the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Held {
    epoch: u8,
    first: bool,
    bundled: bool,
    /// Whether the leader waits for this consumer's answer.
    awaited: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Consumer {
    held: [Option<Held>; 3],
    /// What is being recorded, and what of it is for the script.
    batch: Set,
    rest: Set,
    /// All messages up to the highest received, now and when the connection to Redis was opened.
    received: Set,
    floor: Set,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    redis: Redis,
    server: u8,
    /// Redis before its last writes, while it may lose them.
    before: Vec<Redis>,
    epoch: u8,
    /// Whether the leader has read what is pending, and whether it can't go on after a restart.
    has_read: bool,
    is_over: bool,
    places: [Place; 3],
    consumers: [Consumer; 2],
    requests: Vec<Request>,
    nonces: u8,
    faults: u8,
    seen: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Elect,
    Read,
    Deliver {
        id: usize,
        consumer: usize,
    },
    /// Any of the messages that a consumer holds have their results, and are recorded together.
    Record {
        consumer: usize,
        ids: Set,
    },
    Serve {
        request: Request,
        refused: Set,
    },
    /// No answer comes. The request may be executed before it is repeated, later, or never.
    GiveUp(Request),
    ComeBack {
        id: usize,
        consumer: usize,
        kind: Fault,
    },
    Ask,
    Restart {
        writes: usize,
    },
}

struct Search {
    rules: Rules,
    messages: usize,
    consumers: usize,
    faults: u8,
    kinds: &'static [Fault],
    wanted: Option<Situation>,
}

impl World {
    fn send(&mut self, issuer: Issuer, call: Call) {
        self.requests.push(Request { issuer, call, late: false });
        self.requests.sort_unstable();
    }

    fn take(&mut self, request: Request) {
        let at = self.requests.iter().position(|sent| *sent == request).expect("it was sent");
        self.requests.remove(at);
    }

    /// What the issuer does next. A consumer first puts back what was removed in vain, then the script records what the
    /// transaction did not.
    fn answer(&mut self, Request { issuer, call, .. }: Request, Answer { left, removed, .. }: Answer) {
        if let Call::Settle { id, first, .. } = call {
            // A redelivery does not say that its message is in a bundle.
            self.places[id] = if left == 0 { Place::Done } else { Place::Ready { first, bundled: false } };
        }
        let Some(c) = issuer else { return };
        let consumer = &mut self.consumers[c];
        consumer.rest = if matches!(call, Call::Commit { .. }) { 0 } else { consumer.rest | left | removed };
        if removed != 0 {
            self.nonces += 1;
            self.send(issuer, Call::PutBack { ids: removed, nonce: self.nonces });
        } else if consumer.rest != 0 {
            let ids = consumer.rest;
            self.send(issuer, Call::Commit { ids, raise: 0 });
        } else {
            for id in each(std::mem::take(&mut consumer.batch)) {
                if consumer.held[id].take().is_some_and(|held| held.awaited) {
                    self.places[id] = Place::Done;
                }
            }
        }
    }

    /// The connection is lost, and the issuer does not know whether the request is executed. What a consumer has
    /// received until then is checked, and so is the batch: the transaction may still arrive.
    fn repeat(&mut self, Request { issuer, mut call, .. }: Request) {
        if let Some(c) = issuer {
            let consumer = &mut self.consumers[c];
            consumer.floor = consumer.received;
            if let Call::Transaction { ids, .. } = call {
                consumer.rest |= ids;
                call = Call::Commit { ids: consumer.rest, raise: up_to(ids) };
            }
        }
        self.send(issuer, call);
    }

    fn elect(&mut self, all: Set) {
        self.epoch += 1;
        (self.has_read, self.is_over, self.places) = (false, false, [Place::Done; 3]);
        self.redis.epoch = self.epoch;
        self.redis.recall = Recall { epoch: self.epoch, server: self.server, up_to: all };
        self.consumers.iter_mut().flat_map(|of| of.held.iter_mut().flatten()).for_each(|held| held.awaited = false);
        self.requests.iter_mut().for_each(|sent| sent.late |= sent.issuer.is_none());
        self.requests.sort_unstable();
    }

    /// What was sent and is not executed is gone with its connection.
    fn restart(&mut self, writes: usize) {
        self.before.truncate(self.before.len() + 1 - writes);
        self.redis = self.before.pop().expect("a state before");
        self.server += 1;
        self.is_over = true;
        self.consumers.iter_mut().for_each(|consumer| consumer.floor = consumer.received);
        let lost = std::mem::take(&mut self.requests);
        lost.into_iter().filter(|sent| !sent.late).for_each(|sent| self.repeat(sent));
    }
}

impl Search {
    fn all(&self) -> Set {
        up_to(1 << (self.messages - 1))
    }

    /// What of a batch goes into a transaction, and whether a bundle does. The rest is for the script.
    fn sort_out(&self, world: &World, consumer: &Consumer, batch: Set) -> (Set, bool) {
        let Recall { epoch, server, up_to } = world.redis.recall;
        let checks = self.rules.has(Rule::RestartChecks);
        let below = up_to | if checks { consumer.floor } else { 0 };
        let trusts = server == world.server || !checks;
        let those = |such: &dyn Fn(&Held) -> bool| -> Set {
            each(batch).filter(|id| consumer.held[*id].as_ref().is_some_and(such)).map(|id| 1 << id).sum()
        };
        let bundled = those(&|held| held.bundled);
        let sole = those(&|held| trusts && held.first && held.epoch == epoch);
        let above = sole & !below;
        let is_whole = bundled == BUNDLE || bundled != 0 && !self.rules.has(Rule::AllResults);
        let some_above = bundled & !sole == 0 && bundled & above != 0;
        let together = is_whole && (bundled & !above == 0 || some_above && !self.rules.has(Rule::AllAboveRecall));
        (above & !bundled | if together { bundled } else { 0 }, together)
    }

    /// What the programs do. With nothing to do they are at rest.
    fn work(&self, world: &World, actions: &mut Vec<Action>) {
        let awaited = world.requests.iter().filter(|sent| !sent.late);
        actions.extend(awaited.map(|request| Action::Serve { request: *request, refused: 0 }));
        actions.extend(world.is_over.then_some(Action::Elect));
        actions.extend((!world.has_read && world.redis.epoch == world.epoch).then_some(Action::Read));
        for (c, consumer) in world.consumers.iter().enumerate().take(self.consumers) {
            let ready = |id: &usize| matches!(world.places[*id], Place::Ready { .. }) && consumer.held[*id].is_none();
            actions.extend(each(self.all()).filter(ready).map(|id| Action::Deliver { id, consumer: c }));
            let recordable = |ids: &Set| consumer.batch == 0 && each(*ids).all(|id| consumer.held[id].is_some());
            actions.extend((1..=self.all()).filter(recordable).map(|ids| Action::Record { consumer: c, ids }));
        }
    }

    fn faults(&self, world: &World, kind: Fault, actions: &mut Vec<Action>) {
        let awaited = world.requests.iter().filter(|sent| !sent.late).copied();
        match kind {
            Fault::Timeout => actions.extend(awaited.map(Action::GiveUp)),
            Fault::Failure | Fault::Return | Fault::Loss => {
                for (c, consumer) in world.consumers.iter().enumerate() {
                    let idle = self.all() & if kind == Fault::Loss { Set::MAX } else { !consumer.batch };
                    let back = each(idle).filter(|id| consumer.held[*id].is_some_and(|held| held.awaited));
                    actions.extend(back.map(|id| Action::ComeBack { id, consumer: c, kind }));
                }
            }
            Fault::Election => actions.push(Action::Elect),
            Fault::Restart => actions.extend((1..=world.before.len()).map(|writes| Action::Restart { writes })),
            Fault::Refusal => {
                for request in awaited {
                    let Call::Transaction { ids, .. } = request.call else { continue };
                    let refused = (1..=ids).filter(|refused| refused & !ids == 0);
                    actions.extend(refused.map(|refused| Action::Serve { request, refused }));
                }
            }
            Fault::Question => actions.push(Action::Ask),
        }
    }

    fn carry_out(&self, world: &mut World, action: Action) {
        match action {
            Action::Elect => world.elect(self.all()),
            Action::Read => {
                world.has_read = true;
                for id in each(self.all()).filter(|id| world.redis.has(*id)) {
                    world.places[id] = Place::Ready { first: true, bundled: world.redis.single & 1 << id == 0 };
                }
            }
            Action::Deliver { id, consumer: c } => {
                let Place::Ready { first, bundled } = world.places[id] else { unreachable!("it is ready") };
                world.places[id] = Place::Sent(c);
                let consumer = &mut world.consumers[c];
                consumer.held[id] = Some(Held { epoch: world.epoch, first, bundled, awaited: true });
                consumer.received |= up_to(1 << id);
            }
            Action::Record { consumer: c, ids: batch } => {
                let (ids, bundled) = self.sort_out(world, &world.consumers[c], batch);
                let rest = batch & !ids;
                (world.consumers[c].batch, world.consumers[c].rest) = (batch, rest);
                let transaction = Call::Transaction { ids, bundled, recall: world.redis.recall };
                world.send(Some(c), if ids == 0 { Call::Commit { ids: rest, raise: 0 } } else { transaction });
            }
            Action::Serve { request, refused } => {
                world.take(request);
                let answer = world.redis.execute(request.call, refused, request.late, self.rules);
                world.seen |= self.wanted.is_some() && answer.situation == self.wanted;
                if !request.late {
                    world.answer(request, answer);
                }
            }
            Action::GiveUp(request) => {
                world.take(request);
                world.requests.push(Request { late: true, ..request });
                world.repeat(request);
            }
            Action::ComeBack { id, consumer: c, kind } => {
                let held = world.consumers[c].held[id].take().expect("it is held");
                let is_lost = kind == Fault::Loss;
                world.consumers[c].held[id] = is_lost.then_some(Held { awaited: false, ..held });
                world.places[id] = Place::Away;
                let first = held.first && kind == Fault::Return;
                world.send(None, Call::Settle { epoch: world.epoch, id, held: is_lost, first });
            }
            Action::Ask => drop(world.redis.split(BUNDLE, self.rules)),
            Action::Restart { writes } => world.restart(writes),
        }
    }
}

impl Model for Search {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let recall = Recall { epoch: 1, server: 0, up_to: 0 };
        let mut world = World {
            redis: Redis { whole: true, single: self.all() & !BUNDLE, results: [0; 3], epoch: 1, recall, put_back: 0 },
            server: 0,
            before: Vec::new(),
            epoch: 1,
            has_read: true,
            is_over: false,
            places: [Place::Done; 3],
            consumers: Default::default(),
            requests: Vec::new(),
            nonces: 0,
            faults: self.faults,
            seen: false,
        };
        self.carry_out(&mut world, Action::Read);
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.work(world, actions);
        let late = world.requests.iter().filter(|sent| sent.late);
        actions.extend(late.map(|request| Action::Serve { request: *request, refused: 0 }));
        let kinds = self.kinds.iter().filter(|_| world.faults > 0);
        kinds.for_each(|kind| self.faults(world, *kind, actions));
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        next.faults -= match action {
            Action::Serve { refused, .. } => u8::from(refused != 0),
            Action::Read | Action::Deliver { .. } | Action::Record { .. } => 0,
            Action::Elect => u8::from(!world.is_over),
            _ => 1,
        };
        self.carry_out(&mut next, action);
        if next.faults == 0 || !self.kinds.contains(&Fault::Restart) {
            next.before.clear();
        } else if next.redis != world.redis && !matches!(action, Action::Restart { .. }) {
            next.before.push(world.redis.clone());
            next.before.drain(..next.before.len().saturating_sub(TAIL));
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Search>> {
        vec![
            Property::always(ONE_RESULT, |_, world: &World| world.redis.results.iter().all(|results| *results <= 1)),
            Property::always(DRAINED, |search: &Search, world: &World| {
                let mut work = Vec::new();
                search.work(world, &mut work);
                let is_done = |id| world.redis.results[id] > 0 && !world.redis.has(id);
                !work.is_empty() || each(search.all()).all(is_done)
            }),
            Property::always(ONE_FORM, |_, world: &World| !world.redis.whole || world.redis.single & BUNDLE == 0),
            Property::sometimes(SEEN, |_, world: &World| world.seen),
        ]
    }
}

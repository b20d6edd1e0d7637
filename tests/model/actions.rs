//! What can happen next, and its effect.
//!
//! There are three kinds: *inputs* (a message is published, time passes), *faults*, each paid for from the budget, and
//! *progress*, which the programs make by themselves. A state is at rest if no progress is possible.

use stateright::{Model, Property};

use crate::faults::pay;
use crate::liars::Lie;
use crate::promises;
use crate::redis::Script;
use crate::refusals::Refusal;
use crate::ring::{Id, Message, Seen};
use crate::rules::{Bounds, Rules};
use crate::servers::Servers;
use crate::world::{Events, Issuer, Phase, Return, Term, Whereabouts, World};

/// Something that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    // Inputs.
    Publish,
    Tick,
    Poll(u8),
    Reject { consumer: u8, id: Id },
    Drain(u8),
    Stop(u8),
    Replay(Id),
    Hold,
    Copy,
    PublishAtOld,
    // Faults.
    Crash(u8),
    Cut(u8),
    Pause,
    TimeOut(usize),
    LoseTail,
    CrashConsumer(u8),
    Silence { dispatcher: u8, consumer: u8 },
    PageEarly(u8),
    Refuse(Refusal),
    Switch,
    FailOver,
    PauseAtOld,
    Overrun(u8),
    Name { dispatcher: u8, consumer: u8, id: Id, message: Message },
    Answer { lie: Lie, dispatcher: u8, consumer: u8, id: Id, message: Message },
    Forget { consumer: u8, id: Id },
    Forge { consumer: u8, id: Id, message: Message },
    // Progress.
    Allow,
    Subscribe(u8),
    SubscribeAt(u8, u8),
    MoveCommands(u8),
    MoveConsumer(u8),
    Uncounted(u8),
    NotReceivingLeader(u8),
    NotReceivingStandby(u8),
    Read(u8),
    Check(u8),
    Acquire(u8),
    TakeOver(u8),
    Take(u8),
    Mark(u8),
    Renew(u8),
    ExpireAbandoned,
    ExpireAtOld,
    Serve(usize),
    Vanish(usize),
    StartConsumer(u8),
    Link { dispatcher: u8, consumer: u8 },
    Page(u8),
    Deliver { dispatcher: u8, consumer: u8, id: Id, message: Message },
    Redeliver { dispatcher: u8, id: Id },
    DeadLetter { dispatcher: u8, id: Id },
    Arm(u8),
    Finish { consumer: u8, id: Id },
    HearDrain { dispatcher: u8, consumer: u8 },
    GiveBack { consumer: u8, id: Id },
    Leave(u8),
    Overdue { dispatcher: u8, consumer: u8, id: Id },
    Hear { dispatcher: u8, id: Id },
    HearSettings(u8),
}

impl Action {
    /// Whether it can be without effect. Every other action that is possible changes the state.
    fn may_do_nothing(&self) -> bool {
        use Action::{Answer, Link, Name, Page, PageEarly, Poll, Serve, Take, TakeOver};
        matches!(
            self,
            Answer { .. }
                | Link { .. }
                | Name { .. }
                | Page(_)
                | PageEarly(_)
                | Poll(_)
                | Serve(_)
                | Take(_)
                | TakeOver(_)
        )
    }
}

/// The protocol under some rules, within some bounds.
#[derive(Clone, Debug)]
pub struct Protocol {
    pub bounds: Bounds,
    pub rules: Rules,
    /// Whether to remember events. That multiplies the states.
    pub watched: bool,
    /// What has happened before the search begins.
    pub after: &'static [Action],
}

impl Protocol {
    /// A group at rest: all dispatchers in sync, the first one leads, the consumers are linked to it, all of it on
    /// disk.
    pub fn at_rest(&self) -> World {
        let mut world = World::new(&self.bounds);
        world.budget = Default::default();
        for d in 0..self.bounds.dispatchers {
            world = self.next_state(&world, Action::Subscribe(d as u8)).expect("a dispatcher starts");
        }
        let mut progress = Vec::new();
        loop {
            self.progress(&world, &mut progress);
            // The first dispatcher is to lead.
            let next = progress.drain(..).find_map(|action| self.next_state(&world, action));
            match next {
                Some(next) => world = next,
                None => break,
            }
        }
        world.disk = world.redis.clone();
        world.budget = self.bounds.budget;
        world.seen = Default::default();
        world
    }

    /// Whether no program has anything left to do.
    pub fn is_at_rest(&self, world: &World) -> bool {
        let mut actions = Vec::new();
        self.progress(world, &mut actions);
        // Asked in nearly every state: most answers need no next state.
        actions.iter().all(Action::may_do_nothing)
            && actions.into_iter().all(|action| self.next_state(world, action).is_none())
    }

    /// The states that the programs reach next by themselves.
    pub fn progress_from(&self, world: &World) -> Vec<World> {
        let mut actions = Vec::new();
        self.progress(world, &mut actions);
        actions.into_iter().filter_map(|action| self.next_state(world, action)).collect()
    }

    fn inputs(&self, world: &World, actions: &mut Vec<Action>) {
        actions.extend((world.published < self.bounds.messages).then_some(Action::Publish));
        actions.extend((world.budget.ticks > 0).then_some(Action::Tick));
        self.inputs_of_failovers(world, actions);
        // If time never passes, nothing is trimmed, and a poll has no effect.
        if self.bounds.budget.ticks > 0 {
            let standbys = (0..).zip(&world.dispatchers).filter(|(_, standby)| standby.alive && standby.term.is_none());
            actions.extend(standbys.map(|(d, _)| Action::Poll(d)));
        }
        self.stops(world, actions);
        self.replays(world, actions);
        self.holds(world, actions);
        if world.budget.rejections > 0 {
            for (c, consumer) in (0..).zip(&world.consumers) {
                let running = consumer.held.iter().filter(|held| !held.committing);
                let heard = consumer.ruler.and_then(|d| world.dispatchers[d as usize].term.as_ref());
                if heard.is_some_and(|term| term.links & 1 << c != 0) {
                    actions.extend(running.map(|held| Action::Reject { consumer: c, id: held.id }));
                }
            }
        }
    }

    /// What the programs do by themselves.
    pub fn progress(&self, world: &World, actions: &mut Vec<Action>) {
        for (index, request) in world.requests.iter().enumerate() {
            actions.push(Action::Serve(index));
            actions.extend((request.issuer == Issuer::Gone).then_some(Action::Vanish(index)));
        }
        actions.extend(world.refused.map(|_| Action::Allow));
        let at_old = world.seen_from_old();
        self.moves(world, at_old.as_ref(), actions);
        for (d, dispatcher) in (0..).zip(&world.dispatchers) {
            match world.servers {
                _ if dispatcher.subscribed => {}
                Servers::One | Servers::Failover | Servers::Split | Servers::Moved => {
                    actions.push(Action::Subscribe(d))
                }
                Servers::Forwarding => actions.extend([Action::SubscribeAt(d, 0), Action::SubscribeAt(d, 1)]),
            }
            actions.extend((!dispatcher.inbox.is_empty()).then_some(Action::Read(d)));
            actions.extend((dispatcher.alive && dispatcher.commands != world.front).then_some(Action::MoveCommands(d)));
            let world = at_old.as_ref().filter(|_| world.is_stuck(d)).unwrap_or(world);
            if world.is_stuck(d) {
                continue;
            }
            actions.extend(world.is_to_subscribe_anew(d, self.rules).then_some(Action::Uncounted(d)));
            actions.extend(world.leader_is_not_receiving(d, self.rules).then_some(Action::NotReceivingLeader(d)));
            actions.extend(world.standby_is_not_receiving(d, self.rules).then_some(Action::NotReceivingStandby(d)));
            actions.extend(world.may_acquire(d, self.rules).then_some(Action::Check(d)));
            actions.extend(dispatcher.checked.map(|_| Action::Acquire(d)));
            if let Some(term) = &dispatcher.term {
                self.progress_of_leader(world, d, term, actions);
            }
        }
        for (c, consumer) in (0..).zip(&world.consumers) {
            actions.extend((!consumer.alive && !consumer.draining).then_some(Action::StartConsumer(c)));
            let running = consumer.held.iter().filter(|held| !held.committing);
            actions.extend(running.map(|held| Action::Finish { consumer: c, id: held.id }));
            // Its connection carries one request at a time.
            let waits = world.requests.iter().any(|sent| sent.issuer == Issuer::Consumer(c));
            let is_refused = consumer.old && world.old.is_none();
            let arms = consumer.alive && consumer.armed.is_none() && !waits && !is_refused;
            actions.extend(arms.then_some(Action::Arm(c)));
        }
        self.drained(world, actions);
        self.overdue(world, actions);
        self.heard(world, actions);
        self.held(world, actions);
        let stands = |lease: &_| world.holder_is_subscribed(*lease) || world.servers != Servers::One;
        let abandoned = world.redis.lease.filter(stands);
        let abandoned = abandoned.is_some_and(|lease| world.lease_of(lease.dispatcher) != Some(lease));
        actions.extend(abandoned.then_some(Action::ExpireAbandoned));
    }

    /// What a leader does by itself.
    fn progress_of_leader(&self, world: &World, d: u8, term: &Term, actions: &mut Vec<Action>) {
        match term.phase {
            Phase::TakingOver(_) => actions.push(Action::TakeOver(d)),
            Phase::Running { .. } => {
                actions.extend(term.offer.is_none().then_some(Action::Take(d)));
                actions.extend(term.unmarked.then_some(Action::Mark(d)));
            }
        }
        actions.extend((world.redis.lease != world.lease_of(d)).then_some(Action::Renew(d)));
        let mut unlinked = 0;
        for (c, consumer) in (0..).zip(&world.consumers).filter(|(_, consumer)| consumer.alive) {
            if term.links & 1 << c == 0 {
                if consumer.answers(self.rules) {
                    unlinked += 1;
                    actions.push(Action::Link { dispatcher: d, consumer: c });
                }
                continue;
            }
            for (id, message, at) in &term.table {
                let may_go = *at == Whereabouts::Ready && !term.paused && self.is_its_turn(term, *id, *message);
                if may_go && self.may_be_given(term, c) {
                    actions.push(Action::Deliver { dispatcher: d, consumer: c, id: *id, message: *message });
                }
            }
            debug_assert!(consumer.held.len() <= world.last_id as usize);
        }
        actions.extend((term.backlog.is_some() && unlinked == 0).then_some(Action::Page(d)));
        let asked = |id: Id| {
            let mut mine = world.requests.iter().filter(|sent| sent.issuer == Issuer::Redistributor(d));
            mine.any(|sent| match sent.script {
                Script::DeadLetter { id: asked, .. } | Script::Record { id: asked, .. } => asked == id,
                _ => false,
            })
        };
        for (id, _, at) in term.table.iter().filter(|(id, ..)| !asked(*id)) {
            let Whereabouts::Back(Return { counted, .. }) = at else { continue };
            actions.push(Action::Redeliver { dispatcher: d, id: *id });
            let dead_letters = *counted && self.bounds.budget.rejections > 0;
            actions.extend(dead_letters.then_some(Action::DeadLetter { dispatcher: d, id: *id }));
        }
    }

    /// Applies an input or a fault. `false`: it had no effect.
    fn carry_out(&self, world: &mut World, action: Action) -> bool {
        let rules = self.rules;
        match action {
            Action::Copy => world.copy(),
            Action::PublishAtOld => {
                world.broadcast(Seen::Message(world.published), 1 - world.front);
                world.published += 1;
            }
            Action::FailOver => world.fail_over(rules),
            Action::PauseAtOld => world.old.as_mut().expect("there is one").lease = None,
            Action::Publish => {
                world.broadcast(Seen::Message(world.published), world.front);
                world.published += 1;
            }
            Action::Tick => {
                world.tick += 1;
                world.disk = world.redis.clone();
            }
            Action::Poll(d) => {
                let before = world.dispatchers[d as usize].ring.clone();
                world.poll(d, rules);
                return world.dispatchers[d as usize].ring != before;
            }
            Action::Reject { consumer, id } => {
                let ruler = world.consumers[consumer as usize].ruler.expect("only with a ruler");
                world.reject(ruler, consumer, id);
            }
            Action::Drain(c) => world.consumers[c as usize].draining = true,
            Action::Stop(d) => world.stop(d),
            Action::Replay(id) => world.replay(id, rules),
            Action::Hold => world.hold(rules),
            Action::Crash(d) => world.crash(d),
            Action::Cut(d) => world.cut(d),
            Action::Pause => world.redis.lease = None,
            Action::TimeOut(index) => world.time_out(index, rules),
            Action::LoseTail => world.lose_tail(rules),
            Action::CrashConsumer(c) => world.crash_consumer(c),
            Action::Silence { dispatcher, consumer } => world.drop_link(dispatcher, consumer),
            Action::Refuse(refusal) => world.refused = Some(refusal),
            Action::Switch => {
                world.front = 1 - world.front;
                world.move_keys(rules);
            }
            Action::Overrun(d) => world.overrun(d),
            Action::Name { dispatcher, consumer, id, message } => {
                return world.name(dispatcher, consumer, id, message, rules);
            }
            Action::Answer { lie, dispatcher, consumer, id, message } => {
                return world.answer(lie, dispatcher, consumer, id, message, rules);
            }
            Action::Forget { consumer, id } => world.consumers[consumer as usize].held.retain(|held| held.id != id),
            Action::Forge { consumer, id, message } => world.forge(consumer, id, message, rules),
            Action::PageEarly(d) => return world.page(d, rules),
            progress => return self.advance(world, progress),
        }
        true
    }

    /// Applies progress. `false`: it had no effect.
    fn advance(&self, world: &mut World, action: Action) -> bool {
        let rules = self.rules;
        match action {
            Action::Allow => world.refused = None,
            Action::ExpireAbandoned => world.redis.lease = None,
            Action::ExpireAtOld => world.old.as_mut().expect("there is one").lease = None,
            Action::MoveConsumer(c) => world.move_consumer(c, rules),
            Action::Subscribe(d) => world.subscribe(d, world.front, rules),
            Action::SubscribeAt(d, server) => world.subscribe(d, server, rules),
            Action::MoveCommands(d) => world.move_commands(d, rules),
            Action::Uncounted(d) => world.subscribe_anew(d),
            Action::NotReceivingLeader(d) => {
                world.end_term(d);
                world.cut(d);
            }
            Action::NotReceivingStandby(d) => world.cut(d),
            Action::Read(d) => world.read(d, rules),
            Action::Check(d) => world.check(d),
            Action::Acquire(d) => world.acquire(d, rules),
            Action::TakeOver(d) => return world.take_over(d, rules),
            Action::Take(d) => return world.take(d, rules),
            Action::Mark(d) => world.mark(d),
            Action::Renew(d) => world.end_term(d),
            Action::Serve(index) if world.requests[index].old && world.old.is_none() => return false,
            Action::Serve(index) => {
                let waits = world.refused.is_some() || world.acknowledged.is_some() && world.at_old;
                let before = waits.then(|| world.clone());
                world.serve(index, rules);
                // A refused request that has changed nothing waits.
                return before.is_none_or(|before| World { seen: world.seen, ..before } != *world);
            }
            Action::Vanish(index) => drop(world.requests.remove(index)),
            Action::StartConsumer(c) => world.consumers[c as usize].alive = true,
            Action::Link { dispatcher, consumer } => return world.link(dispatcher, consumer, rules),
            Action::Page(d) => return world.page(d, rules),
            Action::Deliver { dispatcher, consumer, id, message } => {
                world.note_delivery(dispatcher);
                world.deliver(dispatcher, consumer, id, message);
            }
            Action::Redeliver { dispatcher, id } => world.redeliver(dispatcher, id, rules),
            Action::DeadLetter { dispatcher, id } => world.dead_letter(dispatcher, id, rules),
            Action::Arm(c) => world.arm(c),
            Action::Finish { consumer, id } => world.finish(consumer, id, rules),
            Action::HearDrain { dispatcher, consumer } => world.hear_drain(dispatcher, consumer),
            Action::GiveBack { consumer, id } => world.give_back(consumer, id, rules),
            Action::Leave(c) => world.leave(c, rules),
            Action::Overdue { dispatcher, consumer, id } => world.overdue(dispatcher, consumer, id),
            Action::Hear { dispatcher, id } => world.hear(dispatcher, id),
            Action::HearSettings(d) => world.hear_settings(d),
            other => unreachable!("{other:?} is an input or a fault"),
        }
        true
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let happens =
            |world, action: &Action| self.next_state(&world, *action).expect("the first actions are possible");
        vec![self.after.iter().fold(self.at_rest(), happens)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.inputs(world, actions);
        self.faults(world, actions);
        self.progress(world, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        pay(&mut next, action);
        let at_old = next.is_step_at_old(action);
        if at_old {
            next.change_sides();
        }
        if !self.carry_out(&mut next, action) {
            debug_assert!(action.may_do_nothing(), "{action:?} has done nothing");
            return None;
        }
        if at_old {
            next.change_sides();
        }
        next.end_split();
        next.rename(self.rules);
        if !self.watched {
            next.seen = Events {
                stale_write: next.seen.stale_write,
                stale_delivery: next.seen.stale_delivery,
                usurped: next.seen.usurped,
                delivered_in_pause: next.seen.delivered_in_pause,
                ..Events::default()
            };
            next.forgotten = 0;
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        promises::all()
    }
}

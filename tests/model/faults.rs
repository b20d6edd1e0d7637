//! Which faults can happen next, and what each costs.

use crate::actions::{Action, Protocol};
use crate::world::{Issuer, Term, World};

impl Protocol {
    /// The faults that the budget still allows.
    pub fn faults(&self, world: &World, actions: &mut Vec<Action>) {
        let budget = &world.budget;
        if budget.faults == 0 {
            return;
        }
        for (d, dispatcher) in (0..).zip(&world.dispatchers).filter(|(_, dispatcher)| dispatcher.alive) {
            actions.extend((budget.overruns > 0 && !dispatcher.ring.is_empty()).then_some(Action::Overrun(d)));
            actions.extend((budget.crashes > 0).then_some(Action::Crash(d)));
            actions.extend((budget.cuts > 0 && dispatcher.subscribed).then_some(Action::Cut(d)));
            for c in (0..world.consumers.len() as u8).filter(|_| budget.silences > 0) {
                let linked = dispatcher.term.as_ref().is_some_and(|term| term.links & 1 << c != 0);
                actions.extend(linked.then_some(Action::Silence { dispatcher: d, consumer: c }));
            }
        }
        let links = |term: &Term| term.links.count_ones() as usize;
        for (d, dispatcher) in (0..).zip(&world.dispatchers).filter(|_| budget.silences > 0) {
            let early = |term: &Term| term.backlog.is_some() && links(term) < world.consumers.len();
            actions.extend(dispatcher.term.as_ref().is_some_and(early).then_some(Action::PageEarly(d)));
        }
        let leads = world.redis.lease.is_some_and(|lease| world.lease_of(lease.dispatcher) == Some(lease));
        actions.extend((budget.pauses > 0 && leads).then_some(Action::Pause));
        if budget.timeouts > 0 {
            let waited_for = world.requests.iter().enumerate().filter(|(_, sent)| sent.issuer != Issuer::Gone);
            actions.extend(waited_for.map(|(index, _)| Action::TimeOut(index)));
        }
        actions.extend((budget.tail_losses > 0).then_some(Action::LoseTail));
        if budget.consumer_crashes > 0 {
            let alive = (0..).zip(&world.consumers).filter(|(_, consumer)| consumer.alive);
            actions.extend(alive.map(|(c, _)| Action::CrashConsumer(c)));
        }
        if budget.refusals > 0 && world.refused.is_none() {
            actions.extend(self.bounds.refusals.iter().copied().map(Action::Refuse));
        }
        actions.extend((budget.switches > 0).then_some(Action::Switch));
        actions.extend((budget.failovers > 0 && world.old.is_none()).then_some(Action::FailOver));
        let leads_at_old = world.old.as_ref().and_then(|old| old.lease);
        let leads_at_old = leads_at_old.is_some_and(|lease| world.lease_of(lease.dispatcher) == Some(lease));
        actions.extend((budget.pauses > 0 && leads_at_old).then_some(Action::PauseAtOld));
        self.lies(world, actions);
    }
}

/// Takes the price of a fault from the budget.
pub fn pay(world: &mut World, action: Action) {
    let budget = &mut world.budget;
    let price = match action {
        Action::Crash(_) => &mut budget.crashes,
        Action::Cut(_) => &mut budget.cuts,
        Action::Pause | Action::PauseAtOld => &mut budget.pauses,
        Action::TimeOut(_) => &mut budget.timeouts,
        Action::LoseTail => &mut budget.tail_losses,
        Action::CrashConsumer(_) => &mut budget.consumer_crashes,
        Action::Refuse(_) => &mut budget.refusals,
        Action::Switch => &mut budget.switches,
        Action::FailOver => &mut budget.failovers,
        Action::Overrun(_) => &mut budget.overruns,
        Action::Silence { .. } | Action::PageEarly(_) => &mut budget.silences,
        Action::Name { .. } | Action::Answer { .. } | Action::Forget { .. } | Action::Forge { .. } => &mut budget.lies,
        Action::Drain(_) => return budget.drains -= 1,
        Action::Stop(_) => return budget.stops -= 1,
        Action::Reject { .. } => return budget.rejections -= 1,
        Action::Replay(_) => return budget.replays -= 1,
        Action::Hold => return budget.holds -= 1,
        Action::Copy => return budget.copies -= 1,
        Action::Tick => return budget.ticks -= 1,
        _ => return,
    };
    *price -= 1;
    budget.faults -= 1;
}

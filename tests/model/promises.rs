//! The promises as properties of every state, and the events that a search must come across.

use stateright::Property;

use crate::actions::Protocol;
use crate::order::{self, IN_TURN, ONE_AT_A_TIME};
use crate::redis::Script;
use crate::ring::Message;
use crate::rules::Budget;
use crate::servers::Servers;
use crate::world::{Consumer, Issuer, Phase, World};

pub const ONE_RESULT: &str = "P1: no message is recorded twice";
pub const NONE_LOST: &str =
    "P2: an owed message is recorded, pending, or in the ring of a dispatcher ahead of the cursor";
pub const FENCED: &str = "P4: nothing stale takes effect";
pub const DRAINED: &str = "at rest all owed messages are recorded";
pub const LEASE_STANDS: &str =
    "a lease is acquired only if it has expired, or its holder is gone, receives nothing or has moved";
pub const NOT_SILENT: &str = "P6: at rest what was not stored lies in a recorded gap";
pub const NOT_TWICE: &str = "P3: no two consumers hold the same message when the leader changes";
pub const NOT_DEAD_UNUSED: &str = "a message is dead only if a handler rejected it or a consumer was lost with it";
pub const ALL_HEAR: &str = "at rest every dispatcher receives what is published";
pub const HELD_BACK: &str = "a leader that has heard all it was sent delivers nothing while its group is paused";
pub const COUNTED_STAYS: &str = "an intake that counts, because a replica has it, survives a failover";
/// All that must hold in every state.
pub const PROMISES: [&str; 13] = [
    HELD_BACK,
    ONE_AT_A_TIME,
    IN_TURN,
    ONE_RESULT,
    NONE_LOST,
    NOT_TWICE,
    FENCED,
    DRAINED,
    NOT_DEAD_UNUSED,
    LEASE_STANDS,
    NOT_SILENT,
    ALL_HEAR,
    COUNTED_STAYS,
];

pub const TAKEOVER: &str = "another dispatcher has taken over and stored a message";
pub const FILLED_IN: &str = "a ring has filled in what Redis had lost";
pub const LATE_COMMIT: &str = "a late commit was dropped";
pub const STALE_REFUSED: &str = "a stale script was refused";
pub const PASSED_BREAK: &str = "a leader continued past a break";
pub const ANSWERED_AGAIN: &str = "a batch was offered again after its answer was lost";
pub const STORED_BY_TRANSACTION: &str = "a result was stored by a transaction";
pub const TAKEN_BY_TRANSACTION: &str = "a batch was stored by a transaction";
pub const COMMIT_VOID: &str = "a commit as a transaction did nothing";
pub const INTAKE_VOID: &str = "an intake as a transaction did nothing";
pub const PUT_BACK: &str = "a removed message was put back";
pub const REFUSED: &str = "a command was refused";
pub const PASSED_OVERRUN: &str = "a leader continued past messages that its ring had dropped";
pub const GAP: &str = "a gap was recorded";
pub const DEAD_LETTERED: &str = "a message was dead-lettered";
pub const REPLAYED: &str = "a dead letter was replayed and its message recorded";
pub const RESUMED: &str = "a message was recorded after a pause that a new leader had found";
pub const DRAINED_AWAY: &str = "a consumer has drained and is gone while another dispatcher leads";

/// The promises, which hold in every state, and the events, each of which some state shows.
pub fn all() -> Vec<Property<Protocol>> {
    let mut all = Vec::from(order::properties());
    all.extend([
        Property::always(ONE_RESULT, |_, world: &World| messages(world).all(|message| world.redis.times(message) <= 1)),
        Property::always(NONE_LOST, |_, world: &World| {
            // In a split a dispatcher at the old primary can't be waited for: there the promise is NOT_SILENT.
            world.servers == Servers::Split || messages(world).all(|message| is_safe(world, message))
        }),
        Property::always(NOT_TWICE, |protocol, world| is_twice_allowed(protocol) || !is_run_twice(world)),
        Property::always(NOT_DEAD_UNUSED, |protocol, world: &World| {
            !world.redis.dead.contains(&1) || is_failed(protocol, world)
        }),
        Property::always(FENCED, |_, world: &World| !world.seen.stale_write && !world.seen.stale_delivery),
        Property::always(HELD_BACK, |_, world: &World| !world.seen.delivered_in_pause),
        Property::always(DRAINED, |protocol, world| {
            is_drained(world) || world.redis.paused || !protocol.is_at_rest(world)
        }),
        Property::always(LEASE_STANDS, |_, world: &World| !world.seen.usurped),
        Property::always(NOT_SILENT, |protocol, world| is_accounted_for(world) || !protocol.is_at_rest(world)),
        Property::always(ALL_HEAR, |protocol, world| all_hear(world) || !protocol.is_at_rest(world)),
        Property::always(COUNTED_STAYS, |_, world: &World| {
            let counts = |message: &Message| world.acknowledged.is_some_and(|counts| counts & 1 << *message != 0);
            messages(world).filter(counts).all(|message| world.redis.has(message))
        }),
        Property::sometimes(TAKEOVER, |_, world: &World| {
            let leader = world.dispatchers.iter().skip(1).find_map(|dispatcher| dispatcher.term.as_ref());
            leader.is_some_and(|term| matches!(term.phase, Phase::Running { .. }) && term.advanced && term.unmarked)
        }),
        Property::sometimes(FILLED_IN, |_, world: &World| world.seen.filled_in),
        Property::sometimes(LATE_COMMIT, |_, world: &World| world.seen.late_commit),
        Property::sometimes(STALE_REFUSED, |_, world: &World| world.seen.stale_refused),
        Property::sometimes(PASSED_BREAK, |_, world: &World| world.seen.passed_break),
        Property::sometimes(ANSWERED_AGAIN, |_, world: &World| world.seen.answered_again),
        Property::sometimes(STORED_BY_TRANSACTION, |_, world: &World| world.seen.stored_by_transaction),
        Property::sometimes(TAKEN_BY_TRANSACTION, |_, world: &World| world.seen.taken_by_transaction),
        Property::sometimes(COMMIT_VOID, |_, world: &World| world.seen.commit_void),
        Property::sometimes(INTAKE_VOID, |_, world: &World| world.seen.intake_void),
        Property::sometimes(PUT_BACK, |_, world: &World| !world.redis.put_back.is_empty()),
        Property::sometimes(REFUSED, |_, world: &World| world.seen.refused),
        Property::sometimes(PASSED_OVERRUN, |_, world: &World| world.seen.passed_overrun),
        Property::sometimes(GAP, |_, world: &World| world.redis.gaps.is_some_and(|gaps| gaps != 0)),
        Property::sometimes(DRAINED_AWAY, |_, world: &World| {
            let gone = world.consumers.iter().any(|consumer| consumer.draining && !consumer.alive);
            gone && world.redis.lease.is_some_and(|lease| lease.dispatcher == 1)
        }),
        Property::sometimes(RESUMED, |_, world: &World| {
            world.seen.found_pause && world.budget.holds == 0 && world.redis.results.contains(&1)
        }),
        Property::sometimes(REPLAYED, |protocol, world: &World| {
            world.budget.replays < protocol.bounds.budget.replays && world.redis.results.contains(&1)
        }),
        Property::sometimes(DEAD_LETTERED, |_, world: &World| world.redis.dead.contains(&1)),
    ]);
    all
}

fn messages(world: &World) -> impl Iterator<Item = Message> {
    0..world.published
}

/// What was stored, Redis still has in some form. Every other owed message is in the ring of a running dispatcher,
/// where the next leader will find it. Or the process that learned of a refusal is about to undo the rest of the step.
fn is_safe(world: &World, message: Message) -> bool {
    if world.redis.has(message) || is_set_right(world, message) {
        return true;
    }
    let taken = world.redis.taken & 1 << message != 0;
    let ahead = |d: u8| {
        let place = world.dispatchers[d as usize].ring.find(message);
        place.zip(world.place_of(d)).is_some_and(|(place, from)| from <= place)
    };
    !taken && (!world.is_owed(message) || (0..world.dispatchers.len() as u8).any(ahead))
}

fn is_set_right(world: &World, message: Message) -> bool {
    let is_in = |batch: &[(_, Message)]| batch.iter().any(|(_, of)| *of == message);
    let sets_right = |script: &Script| match script {
        Script::PutBack { message: of, .. } => *of == message,
        Script::Rewind { batch, .. } | Script::Intake { batch, doubt: Some(_), .. } => is_in(batch),
        _ => false,
    };
    world.requests.iter().any(|sent| sent.issuer != Issuer::Gone && sets_right(&sent.script))
}

fn is_run_twice(world: &World) -> bool {
    let holders = |message| {
        let has = |consumer: &&Consumer| consumer.held.iter().any(|held| held.message == message);
        world.consumers.iter().filter(has).count()
    };
    messages(world).any(|message| holders(message) > 1)
}

/// Nothing is promised if a leader gives up a consumer that still works, a consumer lies, or Redis loses data.
fn is_twice_allowed(protocol: &Protocol) -> bool {
    let budget = protocol.bounds.budget;
    budget.silences + budget.lies + budget.tail_losses + budget.failovers > 0
}

/// Whether a handler has rejected something, or a leader may have lost a consumer.
fn is_failed(protocol: &Protocol, world: &World) -> bool {
    let (had, has) = (protocol.bounds.budget, world.budget);
    let spent = |of: fn(&Budget) -> u8| of(&had) - of(&has);
    spent(|budget| budget.rejections + budget.consumer_crashes + budget.silences + budget.lies) > 0
}

fn is_accounted_for(world: &World) -> bool {
    let Some(gaps) = world.redis.gaps else { return true };
    messages(world).all(|message| world.redis.has(message) || gaps & 1 << message != 0)
}

fn all_hear(world: &World) -> bool {
    (0..).zip(&world.dispatchers).all(|(d, dispatcher)| dispatcher.subscribed && world.hears(d, world.front))
}

fn is_drained(world: &World) -> bool {
    let is_done = |message| match world.consumers.len() {
        // Without consumers a message ends in the sorted set.
        0 => world.redis.has(message),
        _ => world.redis.recorded(message) > 0,
    };
    let is_named = |message: Message| world.redis.gaps.is_some_and(|gaps| gaps & 1 << message != 0);
    let is_excused = |message| world.servers == Servers::Split && is_named(message);
    messages(world).all(|message| is_done(message) || !world.is_owed(message) || is_excused(message))
}

//! The protocol as a state machine. A checker visits every state that a few messages, faults and processes can lead to.
//!
//! The tests with real processes show that the code was right in the runs that happened. This shows that the *rules*
//! are right in all runs, within bounds: leases and epochs, markers, positions and the cursor, takeover, intake,
//! delivery, commit and acknowledgement. Intake and commit exist as scripts and as transactions without a condition.
//! Dispatchers and consumers die, leaders hang and do not know that they were replaced, scripts and transactions arrive
//! late, answers get lost, subscriptions break, and Redis comes back without its last seconds. Smaller state spaces add
//! commands that are refused ([`refusals`]), two servers ([`servers`]), failovers and moves to another node
//! ([`failovers`]), rings that are full ([`overruns`]), stops ([`draining`]), dead letters that are replayed
//! ([`replays`]), pauses of the group ([`holds`]), lies ([`liars`]), interests that change ([`interests`]) and bundles
//! ([`bundles`]). The module [`promises`] lists what must hold in every state.
//!
//! Each rule can be removed ([`rules::Rule`]), and a test for each shows that a promise then breaks. A model in which
//! no missing rule breaks anything would prove nothing.
//!
//! *Drained* is judged in states at rest: where no program has anything left to do, all owed messages must be recorded.
//! That is sounder here than stateright's `eventually`, which follows one path to each state and ignores a path that
//! ends in a cycle. [`rest`] checks that the programs do come to rest.
//!
//! What is shared with the programs, and what is written here a second time:
//!
//! | rules of | in the model |
//! |---|---|
//! | `src/lane/ring` | `Timeline` is called: segments, markers, finding a cursor, reading, dropping. Rest: [`ring`] |
//! | `src/lane/precedence.rs` | called |
//! | `src/ledger/interests.rs` | `Interests::owner` is called, in [`interests`] |
//! | `src/consumer/trust.rs` | called, with one server and one proven connection |
//! | the rest of `src/lane` | copied by hand in [`dispatcher`], [`intake`], [`courier`] |
//! | `src/ledger`, with its scripts | copied by hand in [`redis`], [`requests`], [`bundles`] |
//! | the consumer's desk and committer | copied by hand in [`courier`], [`bundles`] |
//!
//! Limitations: time is abstracted. A lease expires when the budget says so, "three seconds" are a tick, and the
//! dispatcher that goes first for a free lease is connected and does go first. A dispatcher's threads are one. There
//! are no byte limits. Batches and pages are as large as what is there, but each message is committed by itself.
//! Nothing spills from memory. A frame between leader and consumer is one step. Delays and counts of redeliveries are
//! left out: whether a returned message is delivered again or dead-lettered is open each time. Redis is never wiped,
//! clocks never go back, and consumers without Redis exist only as senders of RESULT ([`liars`]). A consumer remembers
//! which messages it held over a broken connection, not the highest id it ever received; so it uses the script less
//! often here than in the code.
//!
//! The state of a run is [`world::World`]. [`actions`] lists what can happen; the effects are in [`dispatcher`],
//! [`intake`], [`courier`], [`requests`] and [`redis`]. [`transactions`] tests the rules that transactions depend on.
//!
//! ```text
//! cargo test --test model -- --nocapture                     with the number of states
//! ONCECAST_LONG=1 cargo test --release --test model          larger bounds: minutes, and gigabytes of memory
//! ```

use std::collections::BTreeSet;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

mod actions;
mod bundles;
mod courier;
mod dispatcher;
mod draining;
mod failovers;
mod faults;
mod holds;
mod intake;
mod interests;
mod liars;
mod names;
mod order;
mod overruns;
mod promises;
mod redis;
mod refusals;
mod replays;
mod requests;
mod rest;
mod ring;
mod rules;
mod servers;
mod transactions;
mod world;

use actions::{Action, Protocol};
use promises::*;
use rules::{Bounds, Budget, Rule, Rules};
use servers::Servers;

/// Set: larger bounds.
const LONG: &str = "ONCECAST_LONG";

/// Two dispatchers. Without consumers a message ends in the sorted set.
fn bounds(consumers: usize, messages: u8, budget: Budget) -> Bounds {
    let (refusals, servers, gaps) = (&[] as &[_], Servers::One, false);
    let prefetch = u8::MAX;
    Bounds {
        dispatchers: 2,
        consumers,
        messages,
        budget,
        refusals,
        servers,
        lies: &[],
        prefetch,
        gaps,
        keys: 0,
        waits: false,
    }
}

/// Faults of dispatchers and of their connections.
const LEADERS: Budget = Budget { faults: 1, crashes: 2, cuts: 2, pauses: 2, timeouts: 2, ..NO_FAULTS };
/// Faults on the way from the leader to the result.
const DELIVERY: Budget = Budget {
    faults: 1,
    crashes: 1,
    pauses: 1,
    timeouts: 1,
    consumer_crashes: 1,
    silences: 1,
    rejections: 1,
    ..NO_FAULTS
};
/// Redis comes back without its last seconds.
const TAIL_LOSS: Budget = Budget { faults: 1, tail_losses: 2, ..NO_FAULTS };
const NO_FAULTS: Budget = Budget {
    faults: 0,
    crashes: 0,
    cuts: 0,
    pauses: 0,
    timeouts: 0,
    tail_losses: 0,
    consumer_crashes: 0,
    silences: 0,
    refusals: 0,
    switches: 0,
    failovers: 0,
    copies: 0,
    overruns: 0,
    lies: 0,
    rejections: 0,
    drains: 0,
    stops: 0,
    replays: 0,
    holds: 0,
    ticks: 0,
};

/// Visits all states under all rules. Fails if a promise breaks.
fn assert_kept(name: &str, bounds: Bounds) {
    assert_kept_after(&[], name, bounds);
}

/// The same, for state spaces that would be too large: begins after these actions.
fn assert_kept_after(after: &'static [Action], name: &str, bounds: Bounds) {
    let began = Instant::now();
    let protocol = Protocol { bounds, rules: Rules::ALL, watched: false, after };
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    println!(
        "{name}: {} unique states, {} in all, up to {} steps, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth() - 1,
        began.elapsed().as_secs_f64()
    );
    for promise in PROMISES {
        if let Some(path) = checker.discovery(promise) {
            let steps: Vec<String> = path.into_actions().iter().map(|action| format!("    {action:?}\n")).collect();
            panic!("{name}: \"{promise}\" is broken by\n{}", steps.concat());
        }
    }
    // Only the budget bounds the search: it ended because no state was left.
    assert!(checker.is_done(), "{name}: the search was cut short");
}

/// Removes a rule and fails unless that promise breaks.
fn assert_broken(rule: Rule, promise: &'static str, bounds: Bounds) {
    find_broken(&[], Rules::without(rule), promise, bounds);
}

/// The same, for long paths: begins after these actions.
fn assert_broken_after(after: &'static [Action], rule: Rule, promise: &'static str, bounds: Bounds) {
    find_broken(after, Rules::without(rule), promise, bounds);
}

fn find_broken(after: &'static [Action], rules: Rules, promise: &'static str, bounds: Bounds) {
    let protocol = Protocol { bounds, rules, watched: false, after };
    let found = HasDiscoveries::AnyOf(BTreeSet::from([promise]));
    let checker = protocol.checker().finish_when(found).spawn_bfs().join();
    let states = checker.unique_state_count();
    let path = checker.discovery(promise).unwrap_or_else(|| panic!("{rules:?}: nothing broke in {states} states"));
    println!("{rules:?}, after {states} states: {promise}");
    for action in path.into_actions() {
        println!("    {action:?}");
    }
}

/// Fails unless each of these happens in some state.
fn assert_seen(events: &[&'static str], bounds: Bounds) {
    let protocol = Protocol { bounds, rules: Rules::ALL, watched: true, after: &[] };
    let all = HasDiscoveries::AllOf(events.iter().copied().collect());
    let checker = protocol.checker().threads(2).finish_when(all).spawn_bfs().join();
    for event in events {
        let path = checker.discovery(event).unwrap_or_else(|| panic!("never seen: {event}"));
        println!("seen after {} steps: {event}", path.into_actions().len());
    }
}

fn long() -> bool {
    std::env::var_os(LONG).is_some()
}

#[test]
fn promises_are_kept_when_leaders_change() {
    assert_kept("one fault, two messages", bounds(0, 2, LEADERS));
    assert_kept("two faults", bounds(0, 1, Budget { faults: 2, ..LEADERS }));
    if long() {
        let three = Bounds { dispatchers: 3, ..bounds(0, 1, LEADERS) };
        assert_kept("three dispatchers", three);
        assert_kept("two faults, two messages", bounds(0, 2, Budget { faults: 2, timeouts: 0, ..LEADERS }));
    }
}

#[test]
fn promises_are_kept_on_the_way_to_the_result() {
    assert_kept("one fault on the way to the result", bounds(2, 1, DELIVERY));
    assert_kept("three answers lost", bounds(1, 1, Budget { faults: 3, timeouts: 3, ..NO_FAULTS }));
    if long() {
        assert_kept("two faults on the way to the result", bounds(1, 1, Budget { faults: 2, ..DELIVERY }));
    }
}

#[test]
fn promises_are_kept_when_redis_loses_its_tail() {
    let budget = Budget { crashes: 1, ticks: 1, ..TAIL_LOSS };
    assert_kept("a lost tail", bounds(1, 1, Budget { ticks: 0, ..budget }));
    assert_kept("a lost tail, with time", bounds(0, 1, budget));
    assert_kept("a lost tail, two messages", bounds(0, 2, TAIL_LOSS));
    if long() {
        assert_kept("a lost tail, two messages, with time", bounds(0, 2, budget));
        assert_kept("two lost tails", bounds(0, 1, Budget { faults: 2, crashes: 0, ..budget }));
        let budget = Budget { faults: 2, tail_losses: 1, pauses: 1, ..NO_FAULTS };
        assert_kept_after(transactions::TAKES_IN, "a lost tail after a change of leaders", bounds(1, 1, budget));
        let budget = Budget { rejections: 1, ticks: 1, ..TAIL_LOSS };
        let alone = Bounds { dispatchers: 1, ..bounds(2, 1, budget) };
        assert_kept("a lost tail on the way to the result", alone);
    }
}

#[test]
fn without_the_fence_a_stale_leader_writes() {
    assert_broken(Rule::Fence, FENCED, bounds(0, 1, LEADERS));
}

/// The first attempt may be a transaction, which another attempt stops. So here a script gets no answer, too.
#[test]
fn without_the_compared_cursor_a_retry_is_stored_twice() {
    assert_broken(Rule::CursorCompare, ONE_RESULT, bounds(1, 1, Budget { faults: 2, timeouts: 2, ..NO_FAULTS }));
}

/// Either rule alone prevents this: a term also ends if it was in sync when it acquired the lease and is not when it
/// takes over.
#[test]
fn without_the_marker_barrier_a_new_leader_stores_a_message_again() {
    let rules = Rules::without(Rule::MarkerBarrier).and_without(Rule::RestBeforeBreaks);
    let budget = Budget { faults: 2, pauses: 2, ..NO_FAULTS };
    find_broken(&[], rules, ONE_RESULT, bounds(0, 1, budget));
}

#[test]
fn a_result_without_its_removal_is_recorded_twice() {
    assert_broken(Rule::RemovalGatesResult, ONE_RESULT, bounds(2, 1, Budget { faults: 1, silences: 1, ..NO_FAULTS }));
}

#[test]
fn a_ring_trimmed_by_a_recent_cursor_cannot_fill_in() {
    assert_broken(Rule::OnlyAnOldCursorTrims, NONE_LOST, bounds(0, 1, Budget { ticks: 1, ..TAIL_LOSS }));
}

/// Also the dispatcher that connects first after a restart of Redis and does not wait for the others.
#[test]
fn a_dispatcher_that_is_not_in_sync_and_does_not_wait_loses_messages() {
    assert_broken(Rule::OthersFirst, NONE_LOST, bounds(0, 1, TAIL_LOSS));
}

/// A consumer works on a message that Redis and all rings have lost. The next message must not get its id.
#[test]
fn an_id_assigned_twice_records_the_wrong_message() {
    const FORGOTTEN: &[Action] = &[
        Action::Publish,
        Action::Read(0),
        Action::Take(0),
        Action::Serve(0),
        Action::Deliver { dispatcher: 0, consumer: 0, id: 1, message: 0 },
        Action::LoseTail,
        Action::Crash(0),
    ];
    let budget = Budget { faults: 2, crashes: 1, tail_losses: 1, ..NO_FAULTS };
    assert_broken_after(FORGOTTEN, Rule::IdsFollowTheClock, NONE_LOST, bounds(1, 2, budget));
}

#[test]
fn a_consumer_without_the_fence_obeys_a_stale_leader() {
    assert_broken(Rule::ConsumersFence, FENCED, bounds(1, 1, Budget { faults: 1, pauses: 1, ..NO_FAULTS }));
}

#[test]
fn the_age_of_a_cursor_before_a_break_says_nothing_after_it() {
    let budget = Budget { faults: 2, ticks: 1, ..TAIL_LOSS };
    assert_broken(Rule::NotesEndWithTheSubscription, NONE_LOST, bounds(0, 1, budget));
}

#[test]
fn continuing_past_a_break_loses_what_others_hold_before_it() {
    assert_broken(Rule::RestBeforeBreaks, NONE_LOST, bounds(0, 2, TAIL_LOSS));
}

#[test]
fn continuing_past_a_break_loses_what_elders_received() {
    assert_broken(Rule::EldestPassesBreaks, NONE_LOST, bounds(0, 1, TAIL_LOSS));
}

/// Redis restarts twice, once of it between election and takeover. A consumer has acknowledged what Redis then loses.
#[test]
fn a_term_that_outlives_its_subscription_leaves_a_message_pending() {
    const HOLDS: &[Action] = &[
        Action::Publish,
        Action::Read(0),
        Action::Take(0),
        Action::Serve(0),
        Action::Deliver { dispatcher: 0, consumer: 0, id: 1, message: 0 },
        Action::Read(1),
        Action::Tick,
        Action::LoseTail,
    ];
    let budget = Budget { faults: 2, ticks: 2, ..TAIL_LOSS };
    assert_broken_after(HOLDS, Rule::TermEndsWithItsSubscription, DRAINED, bounds(1, 1, budget));
}

/// A documented limit: a dispatcher that joins just before Redis loses its tail may not find the older cursor.
#[test]
fn a_dispatcher_that_has_just_joined_makes_nothing_owed() {
    let budget = Budget { faults: 2, crashes: 1, ..TAIL_LOSS };
    assert_broken(Rule::OwedOnceSettled, NONE_LOST, bounds(0, 1, budget));
}

#[test]
fn events_happen() {
    assert_seen(
        &[TAKEOVER, STALE_REFUSED, ANSWERED_AGAIN, PASSED_BREAK],
        bounds(0, 1, Budget { faults: 2, ..LEADERS }),
    );
    assert_seen(&[LATE_COMMIT, DEAD_LETTERED], bounds(2, 1, DELIVERY));
    assert_seen(&[STORED_BY_TRANSACTION, TAKEN_BY_TRANSACTION, COMMIT_VOID, INTAKE_VOID], bounds(2, 1, DELIVERY));
    assert_seen(&[FILLED_IN], bounds(0, 1, TAIL_LOSS));
}

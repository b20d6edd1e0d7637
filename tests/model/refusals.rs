//! Refusals: Redis refuses a command, and the step that it belongs to must happen whole or not at all (P7).
//!
//! One kind of command is refused at a time, from any moment until it is allowed again. That is soon enough for a
//! single step and long enough for many, and rest is judged with all commands allowed. What a script did before the
//! refused command stays done. A transaction learns of a missing right while its commands are queued, and does nothing;
//! of a key of a wrong type or of an exhausted stream id only while it is executed, and then its other commands are
//! carried out.
//!
//! Not here: refusals of what reads, of the lease and its renewal, of markers, and of the recall; the scripts prove
//! those writes before they begin. A script that is refused is sent again at once.

use crate::actions::Action;
use crate::promises::*;
use crate::rest::goes_in_circles;
use crate::rules::{Bounds, Budget, Rule, Rules};
use crate::{
    NO_FAULTS, assert_broken, assert_broken_after, assert_kept, assert_kept_after, assert_seen, bounds, find_broken,
};

/// A command that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Stores a result or a dead letter.
    XAdd,
    /// Removes a message from the pending set.
    ZRem,
    /// Adds messages to the pending set.
    ZAdd,
    /// Moves the cursor.
    Set,
    /// Opens a transaction.
    Multi,
}

/// What Redis refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    pub command: Command,
    /// Whether a transaction learns of it only while it is executed.
    pub inside: bool,
}

/// Refused for a right, a full memory or a demoted server.
const fn outright(command: Command) -> Refusal {
    Refusal { command, inside: false }
}

/// Refused for what the key holds.
const fn inside(command: Command) -> Refusal {
    Refusal { command, inside: true }
}

const OUTRIGHT: &[Refusal] = &[
    outright(Command::XAdd),
    outright(Command::ZRem),
    outright(Command::ZAdd),
    outright(Command::Set),
    outright(Command::Multi),
];
const MULTI: &[Refusal] = &[outright(Command::Multi)];
const INSIDE: &[Refusal] = &[inside(Command::XAdd), inside(Command::ZAdd)];

/// One refusal, and as many other faults as `budget` says.
fn refusing(refusals: &'static [Refusal], consumers: usize, budget: Budget) -> Bounds {
    let budget = Budget { faults: budget.faults + 1, refusals: 1, ..budget };
    Bounds { refusals, ..bounds(consumers, 1, budget) }
}

/// The result of a message was refused inside the transaction that removed it.
const REMOVED: &[Action] = &[
    Action::Publish,
    Action::Read(0),
    Action::Take(0),
    Action::Serve(0),
    Action::HandOut { dispatcher: 0, consumer: 0, id: 1, message: 0 },
    Action::Finish { consumer: 0, id: 1 },
    Action::Refuse(inside(Command::XAdd)),
    Action::Serve(0),
];

/// A handler has rejected a message.
const REJECTED: &[Action] = &[
    Action::Publish,
    Action::Read(0),
    Action::Take(0),
    Action::Serve(0),
    Action::HandOut { dispatcher: 0, consumer: 0, id: 1, message: 0 },
    Action::Reject { consumer: 0, id: 1 },
    Action::Bury { dispatcher: 0, id: 1 },
];

/// The cursor moved over a message inside a transaction, and its member was refused.
const PASSED: &[Action] =
    &[Action::Publish, Action::Read(0), Action::Take(0), Action::Refuse(inside(Command::ZAdd)), Action::Serve(0)];

#[test]
fn a_refused_step_is_whole_or_not_at_all() {
    let budget = Budget { faults: 1, crashes: 1, pauses: 1, timeouts: 1, ..NO_FAULTS };
    assert_kept("a refusal and a fault of leaders", refusing(OUTRIGHT, 0, budget));
    let budget = Budget { faults: 1, consumer_crashes: 1, timeouts: 1, silences: 1, rejections: 1, ..NO_FAULTS };
    assert_kept("a refusal and a fault on the way to the result", refusing(OUTRIGHT, 1, budget));
}

#[test]
fn what_is_refused_inside_a_transaction_is_set_right() {
    assert_kept("a refusal inside a transaction", refusing(INSIDE, 1, NO_FAULTS));
    let budget = Budget { faults: 3, refusals: 1, timeouts: 2, pauses: 1, ..NO_FAULTS };
    let bounds = Bounds { refusals: INSIDE, ..bounds(1, 1, budget) };
    assert_kept_after(REMOVED, "a put-back with lost answers", bounds);
    let budget = Budget { faults: 3, refusals: 1, timeouts: 2, ..NO_FAULTS };
    let bounds = Bounds { budget, ..bounds };
    assert_kept_after(PASSED, "a rewind with lost answers", bounds);
}

#[test]
fn the_programs_come_to_rest_after_refusals() {
    assert!(!goes_in_circles(refusing(OUTRIGHT, 1, NO_FAULTS), Rules::ALL));
    assert!(!goes_in_circles(refusing(INSIDE, 1, NO_FAULTS), Rules::ALL));
}

#[test]
fn a_removal_before_its_result_loses_the_message() {
    assert_broken(Rule::ResultBeforeRemoval, NONE_LOST, refusing(OUTRIGHT, 1, NO_FAULTS));
}

/// That takes a message which is buried without a consumer's result.
#[test]
fn a_removal_before_its_dead_letter_loses_the_message() {
    let bounds = refusing(const { &[outright(Command::XAdd)] }, 1, Budget { rejections: 1, ..NO_FAULTS });
    assert_broken_after(REJECTED, Rule::ResultBeforeRemoval, NONE_LOST, bounds);
}

#[test]
fn a_result_before_a_removal_that_is_refused_is_recorded_twice() {
    assert_broken(Rule::RemovalProven, ONE_RESULT, refusing(OUTRIGHT, 1, NO_FAULTS));
}

/// The leader dies, and the next one takes the same messages in again.
#[test]
fn members_before_a_cursor_that_is_refused_are_taken_in_twice() {
    assert_broken(Rule::CursorProven, ONE_RESULT, refusing(OUTRIGHT, 0, Budget { faults: 1, crashes: 1, ..NO_FAULTS }));
}

#[test]
fn a_cursor_before_members_that_are_refused_passes_over_them() {
    assert_broken(Rule::CursorMovedLast, NONE_LOST, refusing(OUTRIGHT, 0, NO_FAULTS));
}

#[test]
fn commands_of_a_transaction_without_multi_are_not_watched() {
    let rule = Rule::MultiConfirmed;
    assert_broken(rule, FENCED, refusing(MULTI, 0, Budget { faults: 1, pauses: 1, ..NO_FAULTS }));
    assert_broken(rule, ONE_RESULT, refusing(MULTI, 0, Budget { faults: 1, pauses: 1, ..NO_FAULTS }));
    assert_broken(rule, ONE_RESULT, refusing(MULTI, 2, Budget { faults: 1, silences: 1, ..NO_FAULTS }));
}

#[test]
fn a_put_back_that_comes_late_makes_a_recorded_message_pending() {
    let budget = Budget { faults: 1, refusals: 1, timeouts: 1, ..NO_FAULTS };
    let budget = Budget { faults: 2, ..budget };
    assert_broken_after(REMOVED, Rule::PutBackOnce, ONE_RESULT, Bounds { refusals: INSIDE, ..bounds(1, 1, budget) });
}

#[test]
fn a_rewind_that_comes_late_moves_the_cursor_back_over_what_was_taken_in() {
    let bounds = refusing(INSIDE, 0, Budget { faults: 2, timeouts: 1, crashes: 1, ..NO_FAULTS });
    assert_broken_after(PASSED, Rule::RewindEndsTerm, ONE_RESULT, bounds);
}

/// Nobody has to refuse anything: the script finds its own cursor and no member, which a consumer has recorded since.
#[test]
fn an_intake_that_looks_for_members_under_its_own_cursor_is_taken_in_twice() {
    let budget = Budget { faults: 2, timeouts: 2, ..NO_FAULTS };
    assert_broken(Rule::DoubtNamesItsOwnCursor, ONE_RESULT, bounds(1, 1, budget));
}

#[test]
fn an_intake_that_does_not_look_for_members_passes_over_what_was_refused() {
    let budget = Budget { faults: 1, timeouts: 1, ..NO_FAULTS };
    assert_broken(Rule::DoubtLooksForMembers, NONE_LOST, refusing(INSIDE, 0, budget));
}

/// Limits, which the documentation names: a refusal inside a transaction, and at the same time whoever was to hear of
/// it dies, or does not hear of it.
#[test]
fn a_refusal_inside_a_transaction_that_nobody_hears_of() {
    let limit = |refusals, consumers, promise, budget| {
        let budget = Budget { faults: 1, ..budget };
        find_broken(&[], Rules::ALL, promise, refusing(refusals, consumers, budget));
    };
    limit(const { &[inside(Command::XAdd)] }, 1, NONE_LOST, Budget { consumer_crashes: 1, ..NO_FAULTS });
    limit(const { &[inside(Command::XAdd)] }, 1, NONE_LOST, Budget { timeouts: 1, ..NO_FAULTS });
    limit(const { &[inside(Command::ZAdd)] }, 0, NONE_LOST, Budget { pauses: 1, ..NO_FAULTS });
    limit(const { &[inside(Command::Set)] }, 0, ONE_RESULT, Budget { crashes: 1, ..NO_FAULTS });
}

/// A limit: the right to remove is taken away while a transaction waits for its EXEC.
#[test]
fn a_removal_refused_inside_a_transaction() {
    find_broken(&[], Rules::ALL, ONE_RESULT, refusing(const { &[inside(Command::ZRem)] }, 1, NO_FAULTS));
}

#[test]
fn what_is_seen_of_refusals() {
    assert_seen(&[PUT_BACK], refusing(INSIDE, 1, NO_FAULTS));
    assert_seen(&[REFUSED], refusing(OUTRIGHT, 1, NO_FAULTS));
}

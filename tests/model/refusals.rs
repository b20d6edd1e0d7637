//! Refusals: Redis refuses a command, and the step with that command must happen completely or not at all (P7).
//!
//! One kind of command is refused at a time, from any moment until it is allowed again, which may be one step or many.
//! States at rest are judged with all commands allowed. What a script did before the refused command stays done. If a
//! right is missing, Redis refuses the command when it is queued, and the transaction does nothing. If a key has a
//! wrong type or a stream id is exhausted, Redis refuses the command when it is executed, and executes the others.
//!
//! Limitations: commands that read are never refused, nor those that write the lease, a marker or the recall. The
//! scripts prove those writes before they begin. A refused script is sent again at once.

use crate::actions::Action;
use crate::promises::*;
use crate::rest::can_loop;
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
    /// Begins a transaction.
    Multi,
}

/// What Redis refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    pub command: Command,
    /// Whether a transaction is refused the command only when it is executed.
    pub inside: bool,
}

/// Refused because of a missing right, full memory or a demoted server.
const fn outright(command: Command) -> Refusal {
    Refusal { command, inside: false }
}

/// Refused because of what the key holds.
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

/// One refusal, and the other faults in `budget`.
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
    Action::Deliver { dispatcher: 0, consumer: 0, id: 1, message: 0 },
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
    Action::Deliver { dispatcher: 0, consumer: 0, id: 1, message: 0 },
    Action::Reject { consumer: 0, id: 1 },
    Action::DeadLetter { dispatcher: 0, id: 1 },
];

/// The cursor moved over a message inside a transaction, and its member was refused.
const PASSED: &[Action] =
    &[Action::Publish, Action::Read(0), Action::Take(0), Action::Refuse(inside(Command::ZAdd)), Action::Serve(0)];

#[test]
fn a_refused_step_happens_completely_or_not_at_all() {
    let budget = Budget { faults: 1, crashes: 1, pauses: 1, timeouts: 1, ..NO_FAULTS };
    assert_kept("a refusal and a fault of leaders", refusing(OUTRIGHT, 0, budget));
    let budget = Budget { faults: 1, consumer_crashes: 1, timeouts: 1, silences: 1, rejections: 1, ..NO_FAULTS };
    assert_kept("a refusal and a fault on the way to the result", refusing(OUTRIGHT, 1, budget));
}

#[test]
fn a_refusal_inside_a_transaction_is_undone() {
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
    assert!(!can_loop(refusing(OUTRIGHT, 1, NO_FAULTS), Rules::ALL));
    assert!(!can_loop(refusing(INSIDE, 1, NO_FAULTS), Rules::ALL));
}

#[test]
fn a_removal_before_its_result_loses_the_message() {
    assert_broken(Rule::ResultBeforeRemoval, NONE_LOST, refusing(OUTRIGHT, 1, NO_FAULTS));
}

/// The message is dead-lettered without a consumer's result.
#[test]
fn a_removal_before_its_dead_letter_loses_the_message() {
    let bounds = refusing(const { &[outright(Command::XAdd)] }, 1, Budget { rejections: 1, ..NO_FAULTS });
    assert_broken_after(REJECTED, Rule::ResultBeforeRemoval, NONE_LOST, bounds);
}

#[test]
fn a_result_before_a_removal_that_is_refused_is_recorded_twice() {
    assert_broken(Rule::RemovalProven, ONE_RESULT, refusing(OUTRIGHT, 1, NO_FAULTS));
}

/// The leader dies, and the next one stores the same messages again.
#[test]
fn members_before_a_refused_cursor_are_stored_twice() {
    assert_broken(Rule::CursorProven, ONE_RESULT, refusing(OUTRIGHT, 0, Budget { faults: 1, crashes: 1, ..NO_FAULTS }));
}

#[test]
fn a_cursor_before_refused_members_skips_them() {
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
fn a_late_put_back_makes_a_recorded_message_pending() {
    let budget = Budget { faults: 1, refusals: 1, timeouts: 1, ..NO_FAULTS };
    let budget = Budget { faults: 2, ..budget };
    assert_broken_after(REMOVED, Rule::PutBackOnce, ONE_RESULT, Bounds { refusals: INSIDE, ..bounds(1, 1, budget) });
}

#[test]
fn a_late_rewind_moves_the_cursor_back_past_stored_messages() {
    let bounds = refusing(INSIDE, 0, Budget { faults: 2, timeouts: 1, crashes: 1, ..NO_FAULTS });
    assert_broken_after(PASSED, Rule::RewindEndsTerm, ONE_RESULT, bounds);
}

/// No refusal is needed: the script finds its own cursor but no member, since a consumer has recorded the message.
#[test]
fn an_intake_that_checks_members_under_its_own_cursor_is_stored_twice() {
    let budget = Budget { faults: 2, timeouts: 2, ..NO_FAULTS };
    assert_broken(Rule::DoubtNamesItsOwnCursor, ONE_RESULT, bounds(1, 1, budget));
}

#[test]
fn an_intake_that_does_not_check_members_skips_what_was_refused() {
    let budget = Budget { faults: 1, timeouts: 1, ..NO_FAULTS };
    assert_broken(Rule::DoubtChecksMembers, NONE_LOST, refusing(INSIDE, 0, budget));
}

/// Documented limits: a command is refused inside a transaction, and at the same time the process that would undo the
/// rest dies, or gets no answer.
#[test]
fn a_refusal_inside_a_transaction_that_no_process_learns_of() {
    let limit = |refusals, consumers, promise, budget| {
        let budget = Budget { faults: 1, ..budget };
        find_broken(&[], Rules::ALL, promise, refusing(refusals, consumers, budget));
    };
    limit(const { &[inside(Command::XAdd)] }, 1, NONE_LOST, Budget { consumer_crashes: 1, ..NO_FAULTS });
    limit(const { &[inside(Command::XAdd)] }, 1, NONE_LOST, Budget { timeouts: 1, ..NO_FAULTS });
    limit(const { &[inside(Command::ZAdd)] }, 0, NONE_LOST, Budget { pauses: 1, ..NO_FAULTS });
    limit(const { &[inside(Command::Set)] }, 0, ONE_RESULT, Budget { crashes: 1, ..NO_FAULTS });
}

/// A documented limit: the right to remove is withdrawn while a transaction waits for its EXEC.
#[test]
fn a_removal_refused_inside_a_transaction() {
    find_broken(&[], Rules::ALL, ONE_RESULT, refusing(const { &[inside(Command::ZRem)] }, 1, NO_FAULTS));
}

#[test]
fn events_of_refusals_happen() {
    assert_seen(&[PUT_BACK], refusing(INSIDE, 1, NO_FAULTS));
    assert_seen(&[REFUSED], refusing(OUTRIGHT, 1, NO_FAULTS));
}

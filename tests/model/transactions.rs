//! The rules that let commit and intake run as transactions without a condition, removed one by one.
//!
//! A commit need not check that its message is pending if no other consumer can hold the message, now or later, without
//! a write to `recall` first. An intake need not compare the cursor if no other dispatcher leads, and if no other
//! attempt at the same batch can succeed before it or after it.
//!
//! The code never commits a second delivery by a transaction. That rule is not in the model, and nothing breaks: a
//! consumer that sent NACK no longer holds the message, and every other redelivery raises `recall`.

use crate::actions::Action;
use crate::promises::*;
use crate::rules::{Budget, Rule, Rules};
use crate::{LEADERS, NO_FAULTS, TAIL_LOSS, assert_broken, assert_broken_after, bounds, find_broken};

/// A message is published. The leader hangs, and the other dispatcher is elected and stores the message.
pub const TAKES_IN: &[Action] = &[
    Action::Publish,
    Action::Pause,
    Action::Read(0),
    Action::Read(1),
    Action::Check(1),
    Action::Acquire(1),
    Action::Read(1),
    Action::TakeOver(1),
    Action::Take(1),
    Action::Serve(0),
];

/// As when a consumer sends HELD too late: the new leader has already read the backlog.
#[test]
fn a_backlog_above_recall_is_recorded_twice() {
    let budget = Budget { faults: 2, pauses: 1, silences: 1, ..NO_FAULTS };
    assert_broken(Rule::AcquireRaisesRecall, ONE_RESULT, bounds(2, 1, budget));
}

#[test]
fn a_redelivery_above_recall_is_recorded_twice() {
    assert_broken(Rule::SettleRaisesRecall, ONE_RESULT, bounds(2, 1, Budget { faults: 1, silences: 1, ..NO_FAULTS }));
}

/// As with a message that is overdue at its last delivery: its consumer may still work on it.
#[test]
fn a_dead_letter_above_recall_is_recorded_as_well() {
    let budget = Budget { faults: 1, silences: 1, rejections: 1, ..NO_FAULTS };
    assert_broken(Rule::SettleRaisesRecall, ONE_RESULT, bounds(1, 1, budget));
}

#[test]
fn a_commit_that_does_not_watch_recall_is_recorded_twice() {
    assert_broken(Rule::CommitWatchesRecall, ONE_RESULT, bounds(2, 1, Budget { faults: 1, silences: 1, ..NO_FAULTS }));
}

#[test]
fn a_commit_of_unknown_outcome_repeated_as_a_transaction_is_recorded_twice() {
    let budget = Budget { faults: 1, timeouts: 1, ..NO_FAULTS };
    assert_broken(Rule::ScriptAfterLostConnection, ONE_RESULT, bounds(1, 1, budget));
}

/// What a client sent over a connection that it gave up may reach Redis after everything that it sends over the next
/// one. It does not help that no other consumer holds the message: the consumer itself records it twice.
#[test]
fn a_commit_that_arrives_after_the_script_that_repeats_it_is_recorded_twice() {
    assert_broken(Rule::RetryRaisesRecall, ONE_RESULT, bounds(1, 1, Budget { faults: 1, timeouts: 1, ..NO_FAULTS }));
}

/// A leader that has stored a message connects to a consumer only after Redis has lost it. The consumer did not know
/// the leader's epoch before, and Redis may have lost it, too.
#[test]
fn distrust_of_known_epochs_alone_records_what_redis_lost() {
    let budget = Budget { faults: 2, tail_losses: 1, pauses: 1, ..NO_FAULTS };
    assert_broken_after(TAKES_IN, Rule::RecallNamesTheTerm, ONE_RESULT, bounds(1, 1, budget));
}

#[test]
fn trust_in_old_leaders_after_a_restart_records_what_redis_lost() {
    let rules = Rules::without(Rule::RecallNamesTheTerm).and_without(Rule::KnownEpochsDistrusted);
    find_broken(&[], rules, ONE_RESULT, bounds(1, 1, TAIL_LOSS));
}

#[test]
fn an_intake_that_does_not_watch_the_epoch_writes_when_it_is_stale() {
    assert_broken(Rule::IntakeWatchesEpoch, FENCED, bounds(0, 1, LEADERS));
}

/// The script that repeats a batch writes the cursor and not the epoch.
#[test]
fn an_intake_that_does_not_watch_the_cursor_is_stored_twice() {
    assert_broken(Rule::IntakeWatchesCursor, ONE_RESULT, bounds(1, 1, Budget { faults: 1, timeouts: 1, ..NO_FAULTS }));
}

/// Redis has gone back to an older cursor, and the batch was not stored.
#[test]
fn an_intake_of_unknown_outcome_repeated_as_a_transaction_skips_what_redis_lost() {
    assert_broken(Rule::RetriedIntakeCompares, NONE_LOST, bounds(0, 2, TAIL_LOSS));
}

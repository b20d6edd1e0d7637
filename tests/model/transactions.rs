//! What commit and intake as transactions rest on: the rules that let both do without a condition, taken away one by
//! one.
//!
//! A commit may go without asking whether its message is pending if nobody else can have that message in hand, now or
//! later, without writing `recall` first. An intake may go without comparing if nobody else leads, and if no other
//! attempt at the same batch can take place before it or after it.
//!
//! That a second delivery is never committed by a transaction is a rule of the code that is missing here, and nothing
//! breaks: whoever gave a message back with a NACK has let go of it, and of all else that goes out again `recall`
//! tells.

use crate::actions::Action;
use crate::promises::*;
use crate::rules::{Budget, Rule, Rules};
use crate::{LEADERS, NO_FAULTS, TAIL_LOSS, assert_broken, assert_broken_after, bounds, find_broken};

/// A message is published; the leader hangs, and the other dispatcher has been elected and takes the message in.
pub const TAKES_IN: &[Action] = &[
    Action::Publish,
    Action::Pause,
    Action::Read(0),
    Action::Read(1),
    Action::Look(1),
    Action::Acquire(1),
    Action::Read(1),
    Action::TakeOver(1),
    Action::Take(1),
    Action::Serve(0),
];

/// As when a consumer says too late what it holds: the new leader has read the backlog by then.
#[test]
fn a_backlog_above_recall_is_recorded_twice() {
    let budget = Budget { faults: 2, pauses: 1, silences: 1, ..NO_FAULTS };
    assert_broken(Rule::AcquireRaisesRecall, ONE_RESULT, bounds(2, 1, budget));
}

#[test]
fn what_goes_out_again_above_recall_is_recorded_twice() {
    assert_broken(Rule::SettleRaisesRecall, ONE_RESULT, bounds(2, 1, Budget { faults: 1, silences: 1, ..NO_FAULTS }));
}

/// As of what is overdue at its last delivery: its consumer may still be at it.
#[test]
fn what_is_buried_above_recall_is_recorded_as_well() {
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

/// What a client sent before it gave the connection up may come to Redis after all that it sends over the next one.
/// That nobody else has the message is no help: the consumer itself records it twice.
#[test]
fn a_commit_that_arrives_after_the_script_that_repeats_it_is_recorded_twice() {
    assert_broken(Rule::RetryRaisesRecall, ONE_RESULT, bounds(1, 1, Budget { faults: 1, timeouts: 1, ..NO_FAULTS }));
}

/// A leader that has taken a message in links to a consumer only after Redis has forgotten that: of its epoch the
/// consumer did not know before, and Redis may have forgotten it, too.
#[test]
fn who_distrusts_only_epochs_it_knew_records_what_redis_forgot() {
    let budget = Budget { faults: 2, tail_losses: 1, pauses: 1, ..NO_FAULTS };
    assert_broken_after(TAKES_IN, Rule::RecallNamesTheTerm, ONE_RESULT, bounds(1, 1, budget));
}

#[test]
fn who_trusts_old_leaders_after_a_restart_records_what_redis_forgot() {
    let rules = Rules::without(Rule::RecallNamesTheTerm).and_without(Rule::KnownEpochsDistrusted);
    find_broken(&[], rules, ONE_RESULT, bounds(1, 1, TAIL_LOSS));
}

#[test]
fn an_intake_that_does_not_watch_the_epoch_writes_when_it_is_stale() {
    assert_broken(Rule::IntakeWatchesEpoch, FENCED, bounds(0, 1, LEADERS));
}

/// The script that repeats a batch writes the cursor and not the epoch.
#[test]
fn an_intake_that_does_not_watch_the_cursor_is_taken_in_twice() {
    assert_broken(Rule::IntakeWatchesCursor, ONE_RESULT, bounds(1, 1, Budget { faults: 1, timeouts: 1, ..NO_FAULTS }));
}

/// Redis has gone back to an older cursor, and to nothing newer.
#[test]
fn an_intake_of_unknown_outcome_repeated_as_a_transaction_passes_over_what_redis_lost() {
    assert_broken(Rule::RetriedIntakeCompares, NONE_LOST, bounds(0, 2, TAIL_LOSS));
}

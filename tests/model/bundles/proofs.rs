//! That bundles keep the promises, what breaks without each rule, and that what is unusual does occur.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use super::Fault::*;
use super::redis::{Rule, Rules, Situation};
use super::*;
use crate::long;

/// All faults, but Redis accepts all results, or does not restart.
const ACCEPTED: &[Fault] = &[Timeout, Failure, Return, Loss, Election, Question, Restart];
const RUNNING: &[Fault] = &[Timeout, Failure, Return, Loss, Election, Question, Refusal];
const ALL: &[Fault] = &[Timeout, Failure, Return, Loss, Election, Question, Restart, Refusal];
const UNDONE: &[Fault] = &[Refusal, Restart];

fn search(messages: usize, faults: u8, kinds: &'static [Fault]) -> Search {
    Search { rules: Rules { missing: None }, messages, consumers: 2, faults, kinds, wanted: None }
}

fn kept(name: &str, promises: &[&'static str], search: Search) {
    let began = Instant::now();
    let checker = search.checker().threads(2).spawn_bfs().join();
    println!("bundles, {name}: {} states, {:.1} s", checker.unique_state_count(), began.elapsed().as_secs_f64());
    assert!(checker.is_done(), "bundles, {name}: the search was cut short");
    for promise in promises {
        if let Some(path) = checker.discovery(promise) {
            let steps: Vec<String> = path.into_actions().iter().map(|action| format!("    {action:?}\n")).collect();
            panic!("bundles, {name}: \"{promise}\" is broken by\n{}", steps.concat());
        }
    }
}

fn found(search: Search, what: &'static str) {
    let name = format!("without {:?}, wanted {:?}, {what}", search.rules.missing, search.wanted);
    let checker = search.checker().finish_when(HasDiscoveries::AnyOf([what].into())).spawn_bfs().join();
    let path = checker.discovery(what).unwrap_or_else(|| panic!("{name}: never"));
    println!("{name}, after {} states", checker.unique_state_count());
    path.into_actions().iter().for_each(|action| println!("    {action:?}"));
}

fn broken(rule: Rule, promise: &'static str, faults: u8, kinds: &'static [Fault]) {
    found(Search { rules: Rules { missing: Some(rule) }, ..search(2, faults, kinds) }, promise);
}

#[test]
fn bundled_messages_are_recorded_once_whatever_fails() {
    kept("one fault, three messages", &PROMISES, search(3, 1, ACCEPTED));
    kept("one refusal, three messages", &PROMISES, search(3, 1, RUNNING));
    kept("two faults", &PROMISES, search(2, 2, ACCEPTED));
    kept("three faults without a restart", &PROMISES, search(2, 3, RUNNING));
    if long() {
        kept("two faults, three messages", &PROMISES, search(3, 2, ACCEPTED));
        kept("two faults without a restart, three messages", &PROMISES, search(3, 2, RUNNING));
        kept("three faults", &PROMISES, search(2, 3, ACCEPTED));
    }
}

/// A transaction removes a bundle and its results are refused. Redis restarts and has the bundle again.
#[test]
fn messages_put_back_beside_their_bundle_are_recorded_twice() {
    broken(Rule::PutBackSplits, ONE_FORM, 2, UNDONE);
    let alone = || Search { consumers: 1, ..search(2, 3, ALL) };
    found(
        Search { rules: Rules { missing: Some(Rule::PutBackSplits) }, faults: 2, kinds: UNDONE, ..alone() },
        ONE_RESULT,
    );
    kept("one consumer, any faults", &[ONE_RESULT, ONE_FORM], alone());
    kept("two consumers, refused and undone", &[ONE_FORM], search(2, 3, UNDONE));
}

/// Limits, also without bundles: Redis restarts after results were refused. Before a consumer puts its message back, a
/// new leader has delivered it elsewhere, and it is recorded there. Or Redis loses the putting back.
#[test]
fn a_restart_after_a_refusal_duplicates_a_message_or_loses_it() {
    found(search(2, 2, UNDONE), ONE_RESULT);
    found(Search { consumers: 1, ..search(2, 2, UNDONE) }, DRAINED);
}

#[test]
fn a_bundle_removed_in_one_form_leaves_its_messages() {
    broken(Rule::BothForms, DRAINED, 1, &[Question]);
}

#[test]
fn a_bundle_removed_with_one_result_loses_the_other_message() {
    broken(Rule::AllResults, DRAINED, 1, &[Failure]);
}

/// Its first message was lost with a link, and another consumer has it.
#[test]
fn a_bundle_that_is_partly_below_the_recall_is_recorded_twice() {
    broken(Rule::AllAboveRecall, ONE_RESULT, 1, &[Loss]);
}

#[test]
fn a_transaction_that_does_not_watch_the_recall_records_a_bundle_twice() {
    broken(Rule::CommitWatchesRecall, ONE_RESULT, 1, &[Loss]);
}

#[test]
fn a_late_transaction_records_a_bundle_twice() {
    broken(Rule::RetryRaisesRecall, ONE_RESULT, 1, &[Timeout]);
}

#[test]
fn a_script_that_looks_for_members_alone_drops_the_results_of_bundled_messages() {
    broken(Rule::BundledIsPending, DRAINED, 0, &[]);
}

#[test]
fn a_script_that_removes_the_whole_bundle_loses_the_other_message() {
    broken(Rule::CommitSplits, DRAINED, 0, &[]);
}

/// A draining consumer returns a message. The next one removes it as a member of its own.
#[test]
fn a_message_delivered_again_while_it_is_in_a_bundle_stays_pending() {
    broken(Rule::SettleSplits, DRAINED, 1, &[Return]);
    broken(Rule::SettleSplits, ONE_RESULT, 2, &[Return, Election]);
}

#[test]
fn a_bundle_that_stays_when_it_is_taken_apart_is_recorded_twice() {
    broken(Rule::SplitRemoves, ONE_RESULT, 1, &[Election]);
}

#[test]
fn a_late_put_back_of_bundled_messages_makes_them_pending() {
    broken(Rule::PutBackOnce, DRAINED, 2, &[Refusal, Timeout]);
}

#[test]
fn trust_after_a_restart_records_a_bundle_twice() {
    broken(Rule::RestartChecks, ONE_RESULT, 2, &[Loss, Restart]);
}

#[test]
fn bundles_come_into_each_situation() {
    let occurs = |wanted, faults, kinds| found(Search { wanted: Some(wanted), ..search(2, faults, kinds) }, SEEN);
    occurs(Situation::RemovedWhole, 0, &[]);
    occurs(Situation::MetSplit, 1, &[Question]);
    occurs(Situation::CommitSplit, 0, &[]);
    occurs(Situation::SettleSplit, 1, &[Loss]);
    occurs(Situation::LateIsVoid, 1, &[Timeout]);
    occurs(Situation::PutBack, 1, &[Refusal]);
    occurs(Situation::PutBackSplit, 2, UNDONE);
}

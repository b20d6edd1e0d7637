//! All or nothing: any command of a step may be refused, for any reason, and then the step has not happened.
//!
//! Two tables are multiplied: the [`steps`], each in two states of the group, and the [`causes`] of a refusal, which
//! are generated from the commands of the step and the keys of the group. For each pair the test asserts:
//!
//! - A refused step has changed nothing. If it carries several messages, each message's part is either done or not
//!   begun.
//! - The error is recognised, and says what to do.
//! - Once the cause is gone, the same call leads to the state of an undisturbed run.
//! - A step that succeeds in spite of the cause has happened as a whole.
//!
//! A transaction can't check before it writes. If an open transaction was executed in part, another step undoes that
//! part, and may itself be refused; see [`pairs`]. A new step is one row in [`steps::steps`], a new cause one variant
//! of [`Cause`].
//!
//! Limitations: published messages are not checked. If the pending set is replaced while a commit's transaction is
//! open, the results are stored and nothing is removed; the test accepts that the ledger reports it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::script::{Script, ScriptCall};
use super::*;
use crate::base::refusal::Refusal;

mod causes;
mod pairs;
mod renamed;
mod steps;
mod world;

use self::causes::Cause;
use self::steps::{Caller, Came, NO_RESULT, Step, steps};
use self::world::{Keyspace, STATES, State, World};

/// The stream of the steps that add to one.
const STREAM: &str = "messages:messages";

/// The course of a step if nothing is refused.
struct Undisturbed {
    answer: String,
    before: Keyspace,
    after: Keyspace,
}

impl Undisturbed {
    fn of(world: &mut World, step: &Step, state: State) -> Undisturbed {
        let mut caller = begin(world, step, state);
        let before = world.snapshot();
        let Came::Done(answer) = (step.call)(&mut caller) else { panic!("nothing is refused") };
        let after = world.snapshot();
        let places = before.places(step.messages).into_iter().zip(after.places(step.messages));
        for (id, (before, after)) in step.messages.iter().zip(places) {
            assert!(
                before == after || *id == NO_RESULT && after == 0,
                "{}: message {id} is in {after} places",
                step.name
            );
        }
        Undisturbed { answer, before, after }
    }

    fn without_precautions(&self) -> Undisturbed {
        let [before, after] = [&self.before, &self.after].map(|snapshot| snapshot.clone().without_precautions());
        Undisturbed { answer: self.answer.clone(), before, after }
    }

    /// Asserts that a refused step has not happened, or that each message's part has happened as a whole or not at all.
    fn assert_whole(&self, step: &Step, now: &Keyspace, case: &str) {
        let [before, now, after] =
            [&self.before, now, &self.after].map(|snapshot| snapshot.clone().split(step.messages));
        let mut any_done = false;
        for (at, id) in step.messages.iter().enumerate() {
            let (before, now, after) = (&before.0[at], &now.0[at], &after.0[at]);
            assert!(now == before || now == after, "{case}: message {id}: {before:?} became {now:?}, not {after:?}");
            any_done |= now != before;
        }
        // The recall is raised before the messages' parts. It may stay raised without them, but never the reverse.
        let may_stay = !any_done && now.1 == before.1 || !step.messages.is_empty() && now.1 == after.1;
        assert!(may_stay, "{case}: the rest: {:#?} became {:#?}, not {:#?}", before.1, now.1, after.1);
    }
}

/// Sets up the step's state, and returns the caller.
fn begin(world: &mut World, step: &Step, state: State) -> Caller {
    world.set_up(step, state);
    let mut caller = world.caller();
    (step.warm_up)(&mut caller).unwrap_or_else(|error| panic!("{}: {error}", step.name));
    caller
}

/// Checks one pair. Returns whether the step was refused.
fn check(world: &mut World, step: &Step, state: State, cause: &Cause, undisturbed: &Undisturbed) -> bool {
    let case = format!("{} ({state:?}), {cause:?}", step.name);
    let mut caller = begin(world, step, state);
    let begun = cause.begin(world);
    let came = (step.call)(&mut caller);
    begun.end(world);
    let now = world.snapshot();
    if let Came::Done(answer) = came {
        assert_eq!(answer, undisturbed.answer, "{case}");
        assert_eq!(now, undisturbed.after, "{case}");
        return false;
    }
    if let Came::Breach = came {
        // Removing the pending messages while a transaction is open can't be distinguished from settling them.
        assert!(step.is_open && *cause == Cause::Type(world.keys.pending.clone()), "{case}: it could have been seen");
        return true;
    }
    let is_taken_back = if let Came::TakenBack(reason) = &came {
        let code = match cause {
            Cause::Type(_) if step.is_open => "WRONGTYPE",
            // That a stream has no higher id shows only when an entry is added.
            Cause::Exhausted(_) => "exhausted",
            _ => panic!("{case}: it could have been seen"),
        };
        assert!(reason.contains(code), "{case}: {reason}");
        true
    } else {
        false
    };
    if let Came::Refused(error) = came {
        let (refusal, text) = cause.recognised(world);
        assert_eq!(error.refusal(), Some(refusal), "{case}: {error}");
        assert!(error.to_string().contains(&text), "{case}: {error}");
    }
    if is_taken_back {
        undisturbed.without_precautions().assert_whole(step, &now.clone().without_precautions(), &case);
    } else {
        undisturbed.assert_whole(step, &now, &case);
    }
    let Came::Done(answer) = (step.again)(&mut caller) else { panic!("{case}: it is refused when the cause has gone") };
    if now == undisturbed.before {
        assert_eq!(answer, undisturbed.answer, "{case}: repeated");
    }
    let mut ends = [world.snapshot(), undisturbed.after.clone()];
    if is_taken_back {
        ends = ends.map(Keyspace::without_precautions);
    }
    assert_eq!(ends[0], ends[1], "{case}: repeated");
    true
}

/// Tries each step with each cause that `causes` generates for it. Returns the causes that refused no step.
fn check_all(causes: fn(&Step, &World) -> Vec<Cause>, prepare: fn(&mut World)) -> BTreeSet<Cause> {
    let world = &mut World::start(&DispatcherId::generate("a"), &[]);
    prepare(world);
    let (mut pairs, mut refusals) = (0, BTreeMap::<Cause, u32>::new());
    for (step, state) in steps().iter().flat_map(|step| STATES.map(|state| (step, state))) {
        let undisturbed = Undisturbed::of(world, step, state);
        for cause in causes(step, world) {
            let is_refused = check(world, step, state, &cause, &undisturbed);
            if let Some(must) = cause.refuses(step) {
                assert_eq!(is_refused, must, "{} ({state:?}), {cause:?}", step.name);
            }
            pairs += 1;
            *refusals.entry(cause).or_default() += u32::from(is_refused);
        }
    }
    println!("of {pairs} pairs, refused by each cause: {refusals:?}");
    refusals.into_iter().filter_map(|(cause, count)| (count == 0).then_some(cause)).collect()
}

#[test]
fn without_a_right_to_a_command() {
    let needless = check_all(causes::commands, |_| ());
    // The run id may stay unknown, a watch also ends with its transaction, and this group has no sharded channels.
    let known = World::start(&DispatcherId::generate("a"), &[]).commands;
    let names = ["INFO", "SPUBLISH", "UNWATCH"].into_iter().filter(|name| known.contains(*name));
    assert_eq!(needless, names.map(|name| Cause::Command(name.to_owned())).collect());
}

#[test]
fn without_a_right_to_a_key() {
    assert_eq!(check_all(causes::keys, |_| ()), [].into());
}

#[test]
fn without_a_right_to_a_command_on_a_key() {
    if !World::start(&DispatcherId::generate("a"), &[]).has_selectors {
        return skipped("Redis 6.2 has no rights to a command on some keys only");
    }
    let needless = check_all(causes::commands_by_key, |_| ());
    // Few commands are given on each key. These two tell a step's own keys apart.
    for key in ["messages:epoch", "messages:recall"] {
        assert!(!needless.contains(&Cause::CommandOn("SET".to_owned(), key.to_owned())), "{key}");
    }
}

#[test]
fn with_a_key_that_holds_something_else() {
    assert_eq!(check_all(causes::types, |_| ()), [].into());
}

#[test]
fn on_a_server_that_takes_no_writes() {
    assert_eq!(check_all(causes::conditions, World::fail_to_save), [].into());
}

#[test]
fn without_the_right_to_load_a_script() {
    let mut world = World::start(&DispatcherId::generate("a"), &[]);
    let steps = steps();
    let renew = steps.iter().find(|step| step.name == "renew").expect("it is in the table");
    let mut caller = begin(&mut world, renew, State::Used);
    let before = world.snapshot();
    let lease = Lease { holder: world.id.to_string(), epoch: Epoch(5), by_time: false };
    // A script that was never loaded in this process.
    static SCRIPT: Script = Script::new(include_str!("../lua/renew.lua"));
    let mut renewal = ScriptCall::new(&SCRIPT, &["messages:leader"]);
    renewal.push((&lease, 9_000));
    let mut call = || caller.ledger.connection.call("testing", &renewal, None).map(|(reply, _)| reply);
    world.run(&["ACL", "SETUSER", "u", "-script"]);
    assert_eq!(call().expect_err("it may not").refusal(), Some(Refusal::Right));
    assert_eq!(world.snapshot(), before);
    world.run(&["ACL", "SETUSER", "u", "+@all"]);
    assert_eq!(call().expect("it may"), Value::Int(1));
}

/// A new script without a row in the table would not be tested.
#[test]
fn every_script_has_a_step() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/ledger/lua");
    for entry in std::fs::read_dir(folder).expect("the scripts' folder") {
        let path = entry.expect("it is read").path();
        let text = std::fs::read_to_string(&path).expect("it is a text");
        let is_called = steps().iter().any(|step| step.calls(&text));
        // The beginning of others; and one that no running group calls.
        let needs_none = ["steps.lua", "bundles.lua", "trial.lua"].iter().any(|name| path.ends_with(name));
        assert!(is_called || needs_none, "{} has no row in the table of steps", path.display());
    }
}

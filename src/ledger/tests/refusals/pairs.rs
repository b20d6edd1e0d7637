//! Two causes at once: a key is replaced while a transaction is open, so that only a part of the transaction takes
//! effect and must be undone, and another cause may refuse the undoing.
//!
//! The caller remembers what it must undo. Once both causes are gone, the same call leads to the state of an
//! undisturbed run.

use super::*;

#[test]
fn the_effects_of_an_open_transaction_are_undone_however_late() {
    let world = &mut World::start(&DispatcherId::generate("a"), &[]);
    world.fail_to_save();
    let Keys { pending, processed, .. } = world.keys.clone();
    let mut owed = 0;
    for step in steps().iter().filter(|step| step.is_open) {
        let firsts = if step.messages.is_empty() {
            vec![Cause::Type(pending.clone())]
        } else {
            vec![Cause::Type(processed.clone()), Cause::Exhausted(processed.clone())]
        };
        for (first, state) in firsts.iter().flat_map(|first| STATES.map(|state| (first, state))) {
            let undisturbed = Undisturbed::of(world, step, state);
            let others = [causes::commands, causes::keys, causes::conditions];
            for other in others.iter().flat_map(|causes| causes(step, world)).collect::<Vec<_>>() {
                owed += u32::from(check(world, step, state, [first, &other], &undisturbed));
            }
        }
    }
    assert!(owed > 10, "of some pairs one refuses the taking back: {owed}");
}

/// Whether something was still to be undone when the causes ended.
fn check(world: &mut World, step: &Step, state: State, causes: [&Cause; 2], undisturbed: &Undisturbed) -> bool {
    let case = format!("{} ({state:?}), {causes:?}", step.name);
    let mut caller = begin(world, step, state);
    let [first, other] = causes.map(|cause| cause.begin(world));
    let came = (step.call)(&mut caller);
    other.end(world);
    first.end(world);
    let now = world.snapshot();
    let is_owed = caller.owes();
    match came {
        Came::Done(_) => assert_eq!(now, undisturbed.after, "{case}"),
        Came::Breach => panic!("{case}: what is pending was never touched"),
        _ if is_owed => {}
        _ => undisturbed.without_precautions().assert_whole(step, &now.without_precautions(), &case),
    }
    // An intake first moves its cursor back, and reports that.
    let mut again = (step.again)(&mut caller);
    if let Came::TakenBack(_) = again {
        assert_eq!(world.snapshot(), undisturbed.before, "{case}");
        again = (step.again)(&mut caller);
    }
    assert!(matches!(again, Came::Done(_)), "{case}: it is refused when the causes have gone");
    let ends = [world.snapshot(), undisturbed.after.clone()].map(Keyspace::without_precautions);
    assert_eq!(ends[0], ends[1], "{case}: repeated");
    is_owed
}

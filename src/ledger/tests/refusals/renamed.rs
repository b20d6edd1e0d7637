//! Servers that lack a command because it was renamed, as some services do: one server for each command that writes.
//!
//! A running server can't get the command back. So the state after a refused step is copied to a server that has the
//! command, and the call is repeated there.

use super::*;

#[test]
fn on_a_server_that_lacks_a_command() {
    let id = DispatcherId::generate("a");
    let mut whole = World::start(&id, &[]);
    let steps = steps();
    let rows = steps.iter().flat_map(|step| STATES.map(|state| (step, state)));
    let rows: Vec<_> = rows.map(|(step, state)| (step, state, Undisturbed::of(&mut whole, step, state))).collect();
    let commands: BTreeSet<_> = steps.iter().flat_map(Step::all_commands).collect();
    for command in commands.into_iter().filter(|name| whole.writing.contains(*name)).collect::<Vec<_>>() {
        let mut lacking = World::start(&id, &[("rename-command", &format!("{command} \"\""))]);
        let mut refused = 0;
        for (step, state, undisturbed) in &rows {
            whole.set_up(step, *state);
            lacking.take_over(&mut whole);
            refused += u32::from(check(
                &mut lacking,
                &mut whole,
                step,
                undisturbed,
                &format!("without {command}, {} ({state:?})", step.name),
            ));
        }
        assert!(refused > 0, "{command} is renamed");
    }
}

/// Whether the step was refused.
fn check(lacking: &mut World, whole: &mut World, step: &Step, undisturbed: &Undisturbed, case: &str) -> bool {
    let mut caller = lacking.caller();
    if (step.warm_up)(&mut caller).is_err() {
        // There was no transaction.
        return false;
    }
    assert_eq!(lacking.snapshot(), undisturbed.before, "{case}");
    let error = match (step.call)(&mut caller) {
        Came::Done(answer) => {
            assert_eq!((answer, lacking.snapshot()), (undisturbed.answer.clone(), undisturbed.after.clone()), "{case}");
            return false;
        }
        Came::Refused(error) => error,
        Came::Nothing | Came::TakenBack(_) | Came::Breach => panic!("{case}: there was a transaction"),
    };
    assert_eq!(error.refusal(), Some(Refusal::UnknownCommand), "{case}: {error}");
    assert!(error.to_string().contains("the server lacks a command"), "{case}: {error}");
    undisturbed.assert_whole(step, &lacking.snapshot(), case);
    whole.take_over(lacking);
    assert!(
        matches!((step.again)(&mut whole.caller()), Came::Done(_)),
        "{case}: it is refused where the command is there"
    );
    assert_eq!(whole.snapshot(), undisturbed.after, "{case}: repeated");
    true
}

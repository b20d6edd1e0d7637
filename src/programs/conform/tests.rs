//! The file of cases: every rule of the protocol has one, and all of them can be played.

use std::collections::BTreeSet;

use super::case::Step;
use super::parse::parse;
use super::*;

const DOCUMENT: &str = include_str!("../../../docs/PROTOCOL.md");

/// The numbers of the sections, without those that only hold others.
fn sections() -> BTreeSet<String> {
    let headings = DOCUMENT.lines().filter(|line| line.starts_with("## ") || line.starts_with("### "));
    let words = headings.filter_map(|line| line.trim_start_matches('#').split_whitespace().next());
    let numbers: BTreeSet<String> = words.map(|word| word.trim_end_matches('.').to_owned()).collect();
    let holds_others = |number: &String| numbers.iter().any(|other| other.starts_with(&format!("{number}.")));
    numbers.iter().filter(|number| !holds_others(number)).cloned().collect()
}

#[test]
fn every_section_has_a_case_or_a_reason() {
    let Cases { cases, uncovered } = cases().expect("the file is correct");
    let sections = sections();
    assert!(sections.len() > 15, "the headings are read: {sections:?}");
    let covered: BTreeSet<String> = cases.iter().map(|case| case.section.clone()).collect();
    for named in covered.iter().chain(uncovered.keys()) {
        assert!(sections.contains(named), "docs/PROTOCOL.md has no section {named}");
    }
    for section in &sections {
        assert!(
            covered.contains(section) != uncovered.contains_key(section),
            "section {section} of docs/PROTOCOL.md needs a case in cases.json, or a reason there, not both"
        );
    }
}

/// The connections that a step uses, and whether it makes them.
fn link_of(step: &Step) -> Option<(&str, bool)> {
    match step {
        Step::Connect { link, .. } => Some((link, true)),
        Step::Deliver(deliver) => Some((&deliver.link, false)),
        Step::Lead { link, .. }
        | Step::Greeted { link, .. }
        | Step::ReadyForm { link }
        | Step::Send { link, .. }
        | Step::Ping { link }
        | Step::Answer { link, .. }
        | Step::AnswerOrError { link, .. }
        | Step::Progress { link, .. }
        | Step::Silence { link, .. }
        | Step::Error { link, .. }
        | Step::End { link }
        | Step::Drain { link }
        | Step::Confirm { link, .. }
        | Step::Drop { link }
        | Step::Freeze { link }
        | Step::Proofs { link }
        | Step::Replay { link, .. } => Some((link, false)),
        Step::NoAnswer { .. }
        | Step::Wait { .. }
        | Step::Elect { .. }
        | Step::Recorded { .. }
        | Step::NotRecorded { .. }
        | Step::Terminate => None,
    }
}

/// The messages that a step expects to be delivered before.
fn named_by(step: &Step) -> Vec<u32> {
    let of = |amount: &case::Amount| match amount {
        case::Amount::These(locals) => locals.clone(),
        case::Amount::Prefetch(_) => Vec::new(),
    };
    match step {
        Step::Greeted { held, may_hold, .. } => [&held[..], may_hold].concat(),
        Step::Answer { amount, .. } | Step::AnswerOrError { amount, .. } => of(amount),
        Step::NoAnswer { ids, .. } | Step::Progress { ids, .. } | Step::Confirm { ids, .. } => ids.clone(),
        Step::Recorded { id } | Step::NotRecorded { id } => vec![*id],
        _ => Vec::new(),
    }
}

#[test]
fn steps_use_what_was_made_before() {
    for case in cases().expect("the file is correct").cases {
        let (mut made, mut delivered) = (BTreeSet::new(), BTreeSet::new());
        for step in &case.steps {
            if let Some((link, makes)) = link_of(step) {
                let refused = matches!(step, Step::Connect { refused, .. } if !refused.is_empty());
                assert!(made.contains(link) != makes, "{}: {link} is connected just once", case.name);
                if makes && !refused {
                    made.insert(link.to_owned());
                }
            }
            if let Step::Deliver(case::Deliver { amount: case::Amount::These(locals), .. }) = step {
                delivered.extend(locals.iter().copied());
            }
            for local in named_by(step) {
                assert!(delivered.contains(&local), "{}: message {local} is delivered first", case.name);
            }
            if let Step::Lead { epoch, .. } = step {
                // An epoch of the far future must not be remembered, so it does not matter to the next case.
                let far = *epoch > 24 * 3_600_000;
                assert!(*epoch < 32 || far, "{}: the next case begins 64 epochs later", case.name);
            }
        }
        assert!(case.bodies.keys().all(|local| delivered.contains(local)), "{}: a body is not used", case.name);
        let conforms = case.bodies.values().any(|body| body.conform.is_some());
        assert_eq!(conforms, case.needs.contains(&case::Need::Handler), "{}: needs of the handler", case.name);
    }
}

#[test]
fn mistakes_in_the_file_are_named() {
    let file = |case: &str| format!(r#"{{"cases": [{case}]}}"#);
    let of = |steps: &str| {
        let case = format!(r#"{{"name": "x", "section": "1", "rule": "r", "steps": [{steps}]}}"#);
        parse(&file(&case)).map(|_| ()).expect_err(steps)
    };
    for (steps, part) in [
        (r#"{"greets": "a"}"#, "case x: step 1: greets: unknown step"),
        (r#"{"greet": "a", "epochs": 1}"#, "greet: unknown members: epochs"),
        (r#"{"connect": "a"}, {"send": "a", "hex": "0"}"#, "step 2: send: an odd number of digits"),
        (r#"{"send": "a", "hex": "0x"}"#, "is not hexadecimal"),
        (r#"{"deliver": "a"}"#, "no ids"),
        (r#"{"answer": "a", "ids": [1], "is": "good"}"#, "unknown answer"),
        (r#"{"wait": -1}"#, "not a number of the right size"),
        (r#"{"deliver": "a", "ids": [1], "delivery": 65536}"#, "not a number of the right size"),
        ("{}", "it is empty"),
        ("7", "is not an object"),
    ] {
        let error = of(steps);
        assert!(error.contains(part), "{steps}: {error}");
    }
    let case = r#"{"name": "x", "section": "1", "rule": "r", "needs": ["luck"], "steps": []}"#;
    assert!(parse(&file(case)).map(|_| ()).expect_err("a need").contains("unknown need"));
    let case = r#"{"name": "x", "section": "1", "rule": "r", "steps": []}"#;
    assert!(parse(&file(&format!("{case}, {case}"))).map(|_| ()).expect_err("twice").contains("two cases"));
    assert!(parse("[]").is_err() && parse("{").is_err());
}

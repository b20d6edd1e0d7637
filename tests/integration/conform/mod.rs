//! `oncecast conform`: against correct consumers, consumers that violate one rule each, and servers that are no
//! consumers.

mod consumer;
mod desk;
mod garbage;
mod gate;
mod library;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::thread;

use oncecast::base::error::Result;
use oncecast::cli::{self, Parsed, ToolConfig};
use oncecast::programs::conform::{Case, Report, Verdict, cases, conform};

use self::consumer::{Fault, ScriptedConsumer};
use self::gate::SECRET;
use crate::support::secret::SecretFile;

/// Runs the cases with these settings; the group is `conform` unless they name another.
fn run(address: SocketAddr, settings: &str) -> Result<Report> {
    let group = if settings.contains("--group") { "" } else { "--group conform" };
    let line = format!("oncecast conform ws://{address}/ {group} {settings}");
    match cli::TOOL.parse(line.split_whitespace().map(OsString::from), &|_| None).expect("correct settings") {
        Parsed::Run(ToolConfig::Conform(config)) => conform(&config, |_| Ok(())),
        other => panic!("{other:?}"),
    }
}

fn all_cases() -> Vec<Case> {
    cases().expect("the file is correct").cases
}

/// The failures, for a test that expects none.
fn failures(report: &Report) -> String {
    let failed = report.cases.iter().filter(|case| matches!(case.verdict, Verdict::Failed(_)));
    failed.map(ToString::to_string).collect()
}

/// The cases that were skipped.
fn skipped(report: &Report) -> Vec<&str> {
    let skipped = report.cases.iter().filter(|case| matches!(case.verdict, Verdict::Skipped(_)));
    skipped.map(|case| case.name.as_str()).collect()
}

/// Whether a case needs a consumer with a link secret.
fn needs_secret(name: &str) -> bool {
    let cases = all_cases();
    let case = cases.iter().find(|case| case.name == name).expect("a case");
    case.section == "5.10" && name != "proof-without-a-secret"
}

#[test]
fn a_correct_consumer_without_redis_fails_nothing() {
    let consumer = ScriptedConsumer::start(None);
    let report = run(consumer.address, "--conformance-handler").expect("it runs");
    assert_eq!(failures(&report), "");
    assert_eq!(report.exit_code(), 0);
    assert_eq!(report.cases.len(), all_cases().len());
    let records = ["same-epoch-proven-stays", "same-epoch-half-open", "epoch-that-redis-does-not-have"];
    let records = records.into_iter().chain(["lower-epoch-that-redis-has", "record-while-no-link"]);
    let records = records.chain(["message-that-is-not-pending", "recorded-in-one-step", "drain"]);
    let (secret, others): (Vec<_>, Vec<_>) = skipped(&report).into_iter().partition(|name| needs_secret(name));
    assert_eq!(others, records.collect::<Vec<_>>());
    assert_eq!(secret.len(), all_cases().iter().filter(|case| needs_secret(&case.name)).count());
    assert!(report.summary().starts_with("scripted (prefetch=8 flags=2 oncecast.2): "), "{}", report.summary());
}

/// The cases that each fault fails, with their handler; all others must pass.
const FAULTS: &[(Fault, &[&str])] = &[
    (Fault::AcceptsAnyEpoch, &["epoch-of-the-far-future"]),
    (Fault::AcceptsLowerEpochs, &["lower-epoch-is-refused", "lower-epoch-after-a-lost-link"]),
    (Fault::AcceptsOrigins, &["origin-is-refused"]),
    (
        Fault::AnswersWhereDelivered,
        &[
            "answer-on-the-active-connection",
            "held-after-a-lost-link",
            "result-while-no-link",
            "failure-while-no-link",
            "progress-for-waiting-messages",
        ],
    ),
    (Fault::BadConsumerId, &["ready-form"]),
    (Fault::ForgetsEpochWithLink, &["lower-epoch-after-a-lost-link"]),
    (Fault::ForgetsFailures, &["failure-while-no-link"]),
    (Fault::ForgetsSentResults, &["unconfirmed-result-is-kept", "recorded-on-a-replaced-connection"]),
    (
        Fault::IgnoresRecorded,
        &["held-after-a-lost-link", "confirmed-result-is-not-kept", "same-id-after-the-answer", "hello"],
    ),
    (
        Fault::KeepsReplacedConnections,
        &["higher-epoch-replaces", "same-epoch-latest-wins", "process-on-a-replaced-connection"],
    ),
    (Fault::NoProgress, &["progress", "progress-for-waiting-messages"]),
    (Fault::RunsTwice, &["same-id-while-held"]),
    (Fault::ServesAnyGroup, &["another-group"]),
    (Fault::SmallMessagesOnly, &["largest-message", "largest-deliver"]),
    (Fault::ToleratesSecondLead, &["second-lead"]),
    (Fault::VersionOneOnly, &[]),
    (Fault::WrongErrorCode, &["split-frame", "text-message", "short-frame", "short-payload", "text-that-is-not-utf-8"]),
];

/// Most of a run is waiting, so all faults are tried at the same time.
#[test]
fn each_fault_fails_the_cases_that_it_should() {
    let mut wrong = Vec::new();
    thread::scope(|scope| {
        let runs: Vec<_> = FAULTS
            .iter()
            .map(|(fault, expected)| {
                let run = scope.spawn(|| {
                    let consumer = ScriptedConsumer::start(Some(*fault));
                    run(consumer.address, "--conformance-handler").expect("it runs")
                });
                (fault, expected, run)
            })
            .collect();
        for (fault, expected, run) in runs {
            let report = run.join().expect("no panic");
            let (failed, expected): (BTreeSet<_>, BTreeSet<_>) =
                (report.failed().into_iter().collect(), expected.iter().copied().collect());
            if failed != expected {
                wrong.push(format!("{fault:?}: failed {failed:?}, not {expected:?}\n{}", failures(&report)));
            }
            assert_eq!(report.exit_code(), if expected.is_empty() { 0 } else { 3 }, "{fault:?}");
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The cases about the link secret that consumers fail that do not check what they should.
const SECRET_FAULTS: &[(Fault, &[&str])] = &[
    (
        Fault::IgnoresProof,
        &[
            "lead-without-proof",
            "process-without-proof",
            "forged-proof",
            "reflected-proof",
            "proof-for-another-group",
            "proof-for-another-epoch",
            "replayed-proof",
            "replayed-connection",
            "two-proofs",
            "handshake-without-nonce",
        ],
    ),
    (Fault::ProofForAnyEpoch, &["proof-for-another-epoch"]),
    (Fault::RemembersUnproven, &["lead-without-proof", "forged-proof", "proof-for-another-epoch"]),
];

/// As above, all at the same time.
#[test]
fn a_consumer_with_a_secret_is_tested_and_each_fault_fails_the_cases_that_it_should() {
    let file = SecretFile::new("conform", &[SECRET]);
    let settings = format!("--conformance-handler --link-secret-file {}", file.path().display());
    let only: String = all_cases()
        .iter()
        .filter(|case| case.section == "5.10" && !case.name.starts_with("proof-w"))
        .map(|case| format!(" --only {}", case.name))
        .collect();
    let run_with = |fault: Option<Fault>, more: &str| {
        let consumer = ScriptedConsumer::start_with_secret(fault);
        run(consumer.address, &format!("{settings} {more}")).expect("it runs")
    };
    let (run_with, only) = (&run_with, &only);
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(failures(&run_with(None, "")), ""));
        for (fault, expected) in SECRET_FAULTS {
            scope.spawn(move || {
                let report = run_with(Some(*fault), &format!("--timeout 1s{only}"));
                assert_eq!(report.failed(), *expected, "{fault:?}: {}", failures(&report));
            });
        }
        scope.spawn(|| {
            let text = failures(&run_with(Some(Fault::ReusesNonce), "--only ready-form"));
            assert!(text.contains("a nonce that the consumer has not used before"), "{text}");
        });
    });
}

#[test]
fn a_secret_that_only_one_side_has_is_named() {
    let file = SecretFile::new("one-side", &["quite another secret"]);
    let settings = format!("--link-secret-file {}", file.path().display());
    let error = |consumer: &ScriptedConsumer, settings: &str| {
        run(consumer.address, settings).expect_err("they do not know each other").to_string()
    };
    let with = ScriptedConsumer::start_with_secret(None);
    let text = error(&with, "");
    assert!(text.contains("has a link secret: ERROR code=11") && text.contains("--link-secret-file"), "{text}");
    let text = error(&with, &settings);
    assert!(text.contains("made with the link secret") && text.contains("--link-secret-file"), "{text}");
    let text = error(&ScriptedConsumer::start(None), &settings);
    assert!(text.contains("got neither"), "{text}");
}

/// A consumer that dispatchers can't work with at all fails every case that greets it, and no other.
#[test]
fn without_held_every_case_that_greets_fails() {
    let only = "--timeout 1s --only silent-before-lead --only result --only another-version --only origin-is-refused \
                --only text-that-is-not-utf-8 --conformance-handler";
    let consumer = ScriptedConsumer::start(Some(Fault::NoHeld));
    let report = run(consumer.address, only).expect("READY came, so it is tested");
    let greeting = ["origin-is-refused", "silent-before-lead", "result", "another-version"];
    assert_eq!(report.failed(), greeting);
    let text = failures(&report);
    assert!(text.contains("expected: READY and HELD within 3 s of the connection"), "{text}");
    assert!(text.contains("| a D→C LEAD epoch=") && text.contains("| a C→D READY prefetch=8 flags=2"), "{text}");
    let consumer = ScriptedConsumer::start(Some(Fault::HeldBeforeReady));
    let error = run(consumer.address, only).expect_err("there is no greeting").to_string();
    assert!(error.contains("not a consumer that can be tested") && error.contains("READY is expected"), "{error}");
}

#[test]
fn only_some_cases_are_run_or_listed_and_wrong_names_are_named() {
    let consumer = ScriptedConsumer::start(None);
    let report = run(consumer.address, "--only result --only ping-is-answered").expect("it runs");
    let verdicts: Vec<_> = report.cases.iter().map(|case| (case.name.as_str(), &case.verdict)).collect();
    let needs = Verdict::Skipped("--conformance-handler".to_owned());
    assert_eq!(verdicts, [("ping-is-answered", &Verdict::Ok), ("result", &needs)]);
    assert_eq!(report.to_json()["cases"][0]["verdict"], "ok");
    assert_eq!((&report.to_json()["skipped"], &report.to_json()["failed"]), (&1.into(), &0.into()));
    let error = run(consumer.address, "--only results").expect_err("there is no such case");
    assert!(error.exit_code() == 2 && error.to_string().contains("\"results\""), "{error}");
    for wrong in ["oncecast conform", "oncecast conform 127.0.0.1", "oncecast conform ftp://a:1"] {
        let parsed = cli::TOOL.parse(wrong.split_whitespace().map(OsString::from), &|_| None);
        assert!(parsed.is_err(), "{wrong}");
    }
    let list = cli::TOOL.parse(["oncecast", "conform", "--list"].map(OsString::from), &|_| None);
    assert!(list.is_ok(), "no address is needed: {list:?}");
}

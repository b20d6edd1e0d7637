use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::delivery::DeliveryReport;
use super::report::{ConsumerReport, Rates, Report, SourceReport};
use super::*;
use crate::base::id::{Epoch, MessageId};
use crate::lane::DeliveryState;
use crate::ledger::overview::{Part, Snapshot};
use crate::ledger::reading::RecordedGap;
use crate::ledger::server_check::Warning;
use crate::ledger::{Lease, Pause, PauseEnd};

/// A status checked two seconds after the beginning of 1970.
fn status() -> Status {
    let snapshot = Snapshot {
        lease: Some(Lease { holder: "d0-5f3a9c".into(), epoch: Epoch(17), by_time: false }),
        lease_left: Some(Duration::from_millis(1_400)),
        epoch: Epoch(17),
        subscribers: 2,
        consumers: vec!["c0".into(), "c1".into()],
        pending: 30,
        oldest: Some(MessageId(500_000)),
        processed: 40,
        gaps: 12,
        ..Snapshot::default()
    };
    let gap = RecordedGap {
        at_ms: 1_000,
        reason: "ring-overrun".into(),
        dispatcher: "d0-5f3a9c".into(),
        begin: "17.1 0 500000".into(),
        end: "17.1 0 5".into(),
        count: "7".into(),
    };
    let consumer = |id: &str, in_flight| ConsumerReport {
        id: id.into(),
        address: format!("{id}.example:6969"),
        draining: id == "c1",
        leaving: false,
        in_flight,
        overdue: 0,
        prefetch: 64,
        acked_per_s: 10.0,
    };
    let standby = Report {
        version: "0.1.0".into(),
        channel: "orders".into(),
        in_sync: true,
        uptime_s: 2.0,
        ring_bytes: 64,
        ..Report::default()
    };
    let leader = Report {
        leads: true,
        epoch: 17,
        ready: 4,
        behind: true,
        rates: Rates { published: 21.0, acked: 20.0, ..Rates::default() },
        consumers: vec![consumer("c0", 3), consumer("c1", 5)],
        ..standby.clone()
    };
    let member = |id: &str, report| Member { id: id.into(), report: Some(report) };
    Status {
        group: "messages".into(),
        now_us: 2_000_000,
        snapshot,
        refused: BTreeSet::new(),
        members: vec![member("d0-5f3a9c", leader), member("d1-77aa01", standby)],
        shadows: Vec::new(),
        gaps: vec![gap],
        letters: None,
        stream_entries: None,
        settings: Vec::new(),
        max_age: MAX_AGE,
    }
}

fn leaders_report(status: &mut Status) -> &mut Report {
    status.members[0].report.as_mut().expect("it reports")
}

#[test]
fn it_reads_well() {
    let expected = "\
group         messages: ok
note          gaps in the last hour, messages may be missing: 1 (docs/OPERATIONS.md, OncecastGapRecorded: how to tell)
channel       orders
leader        d0-5f3a9c, epoch 17, lease expires in 1400 ms
dispatchers   2
  d0-5f3a9c   leader, version 0.1.0, up for 2 s, ring 64 bytes
  d1-77aa01   standby, in sync, version 0.1.0, up for 2 s, ring 64 bytes
consumers     2
  c0          c0.example:6969 linked, 3 of 64 in flight, 10 per second
  c1          c1.example:6969 draining, 5 of 64 in flight, 10 per second
pending       30, the oldest for 1.5 s, about 18 in Redis only
per second    published 21, stored 0, delivered 0, acknowledged 20, redelivered 0
results       40
dead letters  0
gaps          12
  1970-01-01T00:00:01.000Z ring-overrun, found by d0-5f3a9c: published since 1970-01-01T00:00:00.500Z, messages: 7
  and 2 older ones in the stream messages:gaps
";
    assert_eq!(status().to_string(), expected);
}

/// Ids are ahead of the clock after Redis lost data, and by up to a millisecond after its run id has changed.
#[test]
fn a_gap_never_begins_after_it_was_found() {
    let mut status = status();
    status.gaps[0].begin = "17.1 0 11000000".into();
    let text = status.to_string();
    assert!(text.contains("published since 1970-01-01T00:00:01.000Z, messages"), "{text}");
    let json = records::gaps(&status.gaps);
    assert_eq!((&json[0]["since"], &json[0]["time"]), (&json[0]["time"], &"1970-01-01T00:00:01.000Z".into()));
}

#[test]
fn json_and_text_agree() {
    let json = status().to_json();
    assert_eq!(json["health"], "ok");
    assert_eq!(
        json["leader"],
        serde_json::json!({"id": "d0-5f3a9c", "name": "d0", "epoch": 17, "by_time": false, "lease_left_ms": 1400})
    );
    assert_eq!(json["dispatchers"][1]["role"], "standby");
    assert_eq!(json["dispatchers"][1]["in_sync"], true);
    assert_eq!(json["channel"], "orders");
    let consumer = |id: &str, state, in_flight, draining| {
        serde_json::json!({
            "id": id, "address": format!("{id}.example:6969"), "state": state, "draining": draining, "leaving": false,
            "in_flight": in_flight, "overdue": 0, "prefetch": 64, "acked_per_s": 10.0,
        })
    };
    assert_eq!(
        json["consumers"],
        Value::from(vec![consumer("c0", "linked", 3, false), consumer("c1", "draining", 5, true)])
    );
    assert_eq!((&json["pending"], &json["spilled"], &json["oldest_age_s"]), (&30.into(), &18.into(), &1.5.into()));
    assert_eq!(json["rates"]["acked"], 20.0);
    assert_eq!(json["recent_gaps"][0]["reason"], "ring-overrun");
    assert_eq!(json["time"], "1970-01-01T00:00:02.000Z");
}

#[test]
fn an_address_without_a_consumer_is_shown_with_its_state() {
    let mut status = status();
    leaders_report(&mut status).missing.push("a:1".to_owned());
    assert!(status.to_string().contains("\n  -           a:1 unreachable\n"), "{status}");
    assert_eq!(status.to_json()["consumers"][2], serde_json::json!({"address": "a:1", "state": "unreachable"}));
}

#[test]
fn links_without_a_proof_are_noted() {
    let mut status = status();
    let report = leaders_report(&mut status);
    report.open_consumers.push("c0".to_owned());
    report.unauthenticated.push("a:1".to_owned());
    let text = status.to_string();
    assert!(text.contains("note          the link secret of the leader and of consumers differs"), "{text}");
    assert!(text.contains("may claim to be the dispatcher (--link-secret-file on both sides): c0\n"), "{text}");
    assert_eq!(status.exit_code(), 0, "messages go on where they can");
}

#[test]
fn text_from_redis_stays_in_its_line_and_controls_no_terminal() {
    const HOSTILE: &str = "x\u{1b}[2J\nproblem       forged\u{202e}\u{2028}\u{9b}";
    let clean = status().to_string().lines().count();
    let mut status = status();
    let holder = format!("{HOSTILE}-5f3a9c");
    status.snapshot.lease.as_mut().expect("a dispatcher leads").holder = holder.clone();
    status.members[0].id = holder;
    status.gaps[0].reason = HOSTILE.to_owned();
    status.gaps[0].dispatcher = HOSTILE.to_owned();
    status.gaps[0].count = HOSTILE.to_owned();
    let report = leaders_report(&mut status);
    report.consumers[0].address = HOSTILE.to_owned();
    for text in [&mut report.version, &mut report.channel, &mut report.consumers[0].id] {
        *text = HOSTILE.to_owned();
    }
    report.trouble = Some(HOSTILE.to_owned());
    report.missing = vec![HOSTILE.to_owned()];
    status.settings.push(Warning::OldVersion { version: HOSTILE.to_owned() });
    let steering = |c: char| c != '\n' && !crate::base::text::is_plain(c);
    let text = status.to_string();
    // Five more lines: the problem, the problem of the channels, the problem of consumers that are not connected, the
    // missing address, and the warning. The dispatchers disagree about nothing else.
    assert_eq!((text.lines().count(), text.contains(steering)), (clean + 5, false), "{text}");
    let json = json_text(&status.to_json());
    assert!(!json.contains(|c| !crate::base::text::is_plain(c)), "{json}");
    assert_eq!(serde_json::from_str::<Value>(&json).expect("it is JSON"), status.to_json());
}

#[test]
fn long_ids_are_cut_in_the_middle_and_keep_the_columns() {
    let mut status = status();
    let id = format!("worker-{}-eu-1", "x".repeat(200));
    leaders_report(&mut status).consumers[0].id = id;
    let text = status.to_string();
    let lines = text.lines().filter(|line| line.contains(" in flight, ") || line.contains(", version "));
    let columns: BTreeSet<_> = lines
        .map(|line| {
            let at = line.find(".example").map(|at| line[..at].rfind(' ').expect("a column") + 1);
            let at = at.or_else(|| line.find("leader, ")).or_else(|| line.find("standby, ")).expect("what it is");
            line[..at].chars().count()
        })
        .collect();
    assert_eq!(columns.len(), 1, "{text}");
    assert!(text.contains("\n  worker-xxxxxxxxxxxx…xxxxxxxxxxxxxx-eu-1 c0.example:6969 "), "{text}");
}

#[test]
fn refused_figures_are_left_out_and_noted() {
    let mut status = status();
    status.refused = BTreeSet::from([Part::Pending, Part::Gaps, Part::Results, Part::LeaseLeft, Part::Consumers]);
    let json = status.to_json();
    for name in ["pending", "gaps", "results", "spilled"] {
        assert!(json[name].is_null(), "{name}: {json}");
    }
    assert!(json["leader"]["lease_left_ms"].is_null() && json["dead_letters"] == 0, "{json}");
    let note = "Redis refuses XLEN (no right, no such command, or a key of another type); left out: the number of \
                results, the number of gaps";
    assert!(status.notes().iter().any(|told| told == note), "{:?}", status.notes());
    assert!(status.to_string().contains("\npending       unknown, see the note above\n"), "{status}");
    assert_eq!(status.exit_code(), 0);
    status.refused = BTreeSet::from([Part::Lease]);
    status.snapshot.lease = None;
    assert_eq!(status.exit_code(), NEEDS_ATTENTION, "{status}");
}

#[test]
fn problems_are_named_and_change_the_exit_code() {
    type Break = fn(&mut Status);
    let cases: [(&str, Break); 7] = [
        ("no dispatcher is subscribed", |status| status.members.clear()),
        ("no dispatcher leads", |status| {
            leaders_report(status).leads = false;
            status.snapshot.lease = None;
        }),
        ("no dispatcher leads", |status| drop(status.members.remove(0))),
        (
            "the leader d0-5f3a9c does not report: it has just started, or hangs, or Redis refuses its report (is \
             Redis full, or short of replicas?)",
            |status| status.members[0].report = None,
        ),
        ("no consumer is connected: a:1", |status| {
            leaders_report(status).consumers.clear();
            leaders_report(status).missing.push("a:1".to_owned());
        }),
        (
            "no consumer accepts messages: each is stopping or no longer listed, its handler can't work, or Redis \
             takes no results from it (its log says which: event=unable)",
            |status| leaders_report(status).consumers.iter_mut().for_each(|consumer| consumer.draining = true),
        ),
        ("the oldest message has been pending for 1.5 s, more than 1.0 s", |status| {
            status.max_age = Duration::from_secs(1)
        }),
    ];
    assert_eq!((status().problems(), status().exit_code()), (Vec::<String>::new(), 0));
    for (expected, make) in cases {
        let mut status = status();
        make(&mut status);
        assert_eq!((status.problems(), status.exit_code()), (vec![expected.to_owned()], NEEDS_ATTENTION));
    }
    let mut unable = status();
    leaders_report(&mut unable).consumers.iter_mut().for_each(|consumer| consumer.draining = true);
    unable.snapshot.pending = 0;
    assert_eq!(unable.exit_code(), 0, "no message waits");
    assert!(unable.notes().iter().any(|note| note.starts_with("no consumer accepts messages")), "{unable}");
    let mut dying = status();
    leaders_report(&mut dying).recent_deaths = MANY_DEATHS - 1;
    assert_eq!(dying.exit_code(), 0, "a few are no problem");
    dying.members[1].report.as_mut().expect("it reports").recent_deaths = 1;
    let expected = "messages that became dead letters in the last 10 minutes: 10, with those that were replayed or \
                    dropped since; oncecast dead list --since 10m shows the reasons of the others";
    assert_eq!(dying.problems(), [expected], "a former leader's count, too");
    let mut full = status();
    leaders_report(&mut full).full = true;
    leaders_report(&mut full).delayed = 20;
    let expected = "the leader tracks as many messages as it can, and 20 of them wait for another delivery: new ones \
                    wait in Redis until some are done (event=table-full)";
    assert_eq!(full.problems(), [expected]);
    assert_eq!(full.spilled(), Some(0), "the leader knows of those that wait");
    full.max_age = Duration::from_secs(1);
    let last = full.problems().pop().expect("it is old");
    assert!(last.ends_with("more than 1.0 s (20 failed and wait for another delivery)"), "{last}");
    assert!(
        full.to_string().contains("\npending       30, the oldest for 1.5 s, 20 waiting for another delivery\n"),
        "{full}"
    );
    assert_eq!(full.to_json()["next_retry_ms"], serde_json::Value::Null, "an older dispatcher does not tell");
    leaders_report(&mut full).next_retry_ms = Some(65_432);
    assert!(full.to_string().contains(", 20 waiting for another delivery, the next in 65.4 s\n"), "{full}");
    assert_eq!((&full.to_json()["delayed"], &full.to_json()["next_retry_ms"]), (&20.into(), &65_432.into()));
    let mut stuck = status();
    leaders_report(&mut stuck).trouble = Some("it takes nothing in".to_owned());
    assert_eq!(stuck.problems(), ["d0-5f3a9c: it takes nothing in"]);
}

#[test]
fn without_a_leader_what_dispatchers_report_is_named() {
    let mut status = status();
    status.snapshot.lease = None;
    let problem = status.problems().remove(0);
    assert!(problem.starts_with("no dispatcher holds the lease, though d0-5f3a9c reported a moment ago"), "{problem}");
    let reports = status.members.iter_mut().filter_map(|member| member.report.as_mut());
    for (report, trouble) in reports.zip(["NOREPLICAS, a", "NOREPLICAS, b"]) {
        (report.leads, report.trouble) = (false, Some(trouble.to_owned()));
    }
    let expected = ["no dispatcher leads", "d0-5f3a9c: NOREPLICAS, a", "d1-77aa01: NOREPLICAS, b"];
    assert_eq!(status.problems(), expected);
    status.settings.push(Warning::TooFewReplicas { good: 0, least: Some(1), refuses_all: true });
    let problem = status.problems().remove(0);
    assert!(problem.starts_with("Redis refuses all writes (NOREPLICAS): 0 replicas"), "{problem}");
    assert!(!status.redis_warnings().concat().contains("NOREPLICAS"), "it is said once");
}

#[test]
fn reports_that_redis_refuses_to_write_are_not_missing_for_an_unknown_reason() {
    let mut status = status();
    let note = "Redis refuses to write reports now (NOREPLICAS)";
    assert!(!status.notes().concat().contains(note));
    status.settings.push(Warning::TooFewReplicas { good: 0, least: Some(1), refuses_all: false });
    assert!(status.notes().concat().contains(note), "{:?}", status.notes());
    status.members.iter_mut().for_each(|member| member.report = None);
    let shown = status.to_string();
    assert!(shown.contains("problem       the leader d0-5f3a9c can't report now"), "{shown}");
    assert!(!shown.contains("does not report"), "{shown}");
}

#[test]
fn figures_of_the_leader_are_unknown_without_one() {
    let mut status = status();
    status.members.remove(0);
    let json = status.to_json();
    assert!(json["rates"].is_null() && json["spilled"].is_null(), "{json}");
    assert!(status.to_string().contains("per second    unknown, since no leader reports\n"), "{status}");
}

#[test]
fn dispatchers_of_two_channels_are_a_problem() {
    let mut status = status();
    leaders_report(&mut status).channel = "invoices".to_owned();
    let problems = status.problems();
    assert!(problems[0].starts_with("d1-77aa01 listens to orders, but the leader to invoices"), "{problems:?}");
    // A dispatcher of an older version does not report it.
    leaders_report(&mut status).channel = "orders".to_owned();
    status.members[1].report.as_mut().expect("it reports").channel = String::new();
    assert_eq!(status.problems(), [""; 0]);
}

#[test]
fn a_group_that_delivers_to_a_stream_needs_no_consumers() {
    let mut status = status();
    leaders_report(&mut status).consumers.clear();
    assert!(status.problems().concat().contains("no consumer is connected"));
    leaders_report(&mut status).stream = "orders:messages".to_owned();
    status.stream_entries = Some(7);
    assert!(!status.problems().concat().contains("consumer"), "{:?}", status.problems());
    assert!(
        status.notes().concat().contains("stored for consumers before the leader added to a stream"),
        "{:?}",
        status.notes()
    );
    assert!(status.to_string().contains("orders:messages, 7 entries"), "{status}");
    assert_eq!(status.to_json()["stream_entries"], 7);
}

#[test]
fn notes_are_no_problems() {
    let mut status = status();
    status.snapshot.dead = 2;
    status.now_us += 2 * 3_600_000_000;
    status.max_age = Duration::MAX;
    status.members[1].report.as_mut().expect("it reports").in_sync = false;
    status.settings.push(Warning::OldVersion { version: "6.0".to_owned() });
    status.settings.push(Warning::NoAppendOnlyFile);
    leaders_report(&mut status).missing.push("a:1".to_owned());
    leaders_report(&mut status).agreement = "another".to_owned();
    let notes = status.notes();
    let expected = [
        "no standby is in sync: none could take over at once",
        "consumers that are not connected: a:1",
        "d1-77aa01 and the leader differ in --consumers, --order-key, --deliver, --stream, --stream-maxlen, --channel, \
         --pattern or --keyevent",
        &Warning::NoAppendOnlyFile.to_string(),
        "dead letters: 2, in the stream messages:dead",
    ];
    assert_eq!(notes, expected);
    assert!(status.to_string().contains("\nredis         the server's version is 6.0: "), "{status}");
    assert_eq!(status.to_json()["redis_warnings"].as_array().map(Vec::len), Some(1));
    assert_eq!(status.exit_code(), 0);
}

#[test]
fn a_lease_that_ends_by_its_time_alone_is_noted() {
    let mut status = status();
    status.snapshot.lease.as_mut().expect("a dispatcher leads").by_time = true;
    assert!(status.problems().is_empty(), "it works");
    assert!(status.notes().iter().any(|note| note.contains("event=not-counted")), "{:?}", status.notes());
}

#[test]
fn a_pause_is_shown_and_a_problem_only_when_it_lasts() {
    let mut status = status();
    status.max_age = Duration::from_secs(1);
    assert_eq!(status.problems().len(), 1, "the oldest message is too old");
    let pause = Pause { until: PauseEnd::Never, since_ms: Some(1_000), by: "me".into() };
    let delivery = DeliveryState { pause: Some(pause), ..DeliveryState::default() };
    leaders_report(&mut status).delivery = Some(DeliveryReport(delivery));
    assert_eq!((status.problems(), status.exit_code()), (Vec::<String>::new(), 0), "its messages wait by intention");
    let words = "PAUSED since 1970-01-01T00:00:01.000Z, until oncecast resume, by me";
    let text = status.to_string();
    assert!(text.lines().any(|line| line.starts_with("delivery ") && line.ends_with(words)), "{text}");
    assert!(status.notes().contains(&format!("{words}: messages are stored and not delivered")));
    assert_eq!(status.to_json()["delivery"]["paused"]["since_ms"], 1_000);
    status.now_us += 2 * 3_600 * 1_000_000;
    let problem = "the group has been paused for 2.0 h: nothing is delivered (oncecast resume)";
    assert_eq!((status.problems(), status.exit_code()), (vec![problem.to_owned()], NEEDS_ATTENTION));
}

#[test]
fn lists_of_consumers_are_shown_and_their_failures_noted() {
    let mut status = status();
    let report = leaders_report(&mut status);
    report.consumers[0].leaving = true;
    let source = |source: &str, error: &str| SourceReport {
        source: source.to_owned(),
        addresses: if error.is_empty() { 2 } else { 1 },
        answer_age_s: error.is_empty().then_some(3.0),
        error: error.to_owned(),
    };
    report.sources = vec![source("dns:c:1", ""), source("file:/c", "line 2: \"x\"")];
    let text = status.to_string();
    for line in [
        "  c0          c0.example:6969 leaving, 3 of 64 in flight",
        "found by      dns:c:1: 2 addresses, answered 3 s ago\n",
        "found by      file:/c: 1 address, answered never, now: line 2",
        "note          file:/c can't be followed, so its last reading is kept (1 address): line 2",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let json = status.to_json();
    assert_eq!(json["sources"][0]["answer_age_s"], 3.0);
    assert_eq!(json["consumers"][0]["state"], "leaving");
}

//! The subprotocol oncecast.2, with scripted consumers that keep each result until a RECORDED names it.

use std::collections::BTreeSet;
use std::time::Duration;

use oncecast::base::id::MessageId;
use oncecast::lab::{Signal, ports};
use oncecast::wire::{ErrorCode, Field, Frame, MessageResult, NackDelay, ReadyFlags, SUBPROTOCOL_1, SUBPROTOCOL_2};
use redis::Connection;

use crate::support::http::get;
use crate::support::peer::{Heard, Line, Peer};
use crate::support::scripted_group::{Scripted, wait_until_listed};
use crate::support::{DEADLINE, dispatcher, publish_payloads, run, state, status, stream, wait_until, wait_until_done};

/// No answer of Redis may be needed to keep the lease while it is paused.
const PATIENT: &str = "--lease-ttl-ms 20000";
/// Long enough for an answer that should not come.
const WHILE: Duration = Duration::from_millis(500);

fn result(id: MessageId, text: &str) -> Frame<'_> {
    Frame::Result { id, fields: vec![Field { name: b"by", value: text.as_bytes() }] }
}

fn results<'a>(ids: &[MessageId], text: &'a str) -> Frame<'a> {
    let result =
        |id: &MessageId| MessageResult { id: *id, fields: vec![Field { name: b"by", value: text.as_bytes() }] };
    Frame::Results(ids.iter().map(result).collect())
}

fn sorted(mut ids: Vec<MessageId>) -> Vec<MessageId> {
    ids.sort();
    ids
}

fn signal_redis(group: &mut Scripted, signal: Signal) {
    group.cluster.redis().process().expect("it runs").signal(signal).expect("it runs");
}

/// A group with a consumer that has received so many messages.
fn group_with(peer: &Peer, args: &str, messages: usize) -> (Scripted, Connection, Line, Vec<MessageId>) {
    let mut group = Scripted::start(&[peer], args);
    let mut line = peer.accept_2(100, &[], &[]);
    let mut connection = group.client();
    publish_payloads(&mut connection, (0..messages).map(|n| n.to_string()));
    let ids = (0..messages).map(|_| line.next_message().0).collect();
    (group, connection, line, ids)
}

#[test]
fn each_answer_is_confirmed_once() {
    let peer = Peer::bind("keeper");
    let metrics = format!("127.0.0.1:{}", ports::free_port().expect("a free port"));
    let args = format!("--metrics-addr {metrics}");
    let (_group, ref mut connection, mut line, ids) = group_with(&peer, &args, 6);
    line.send(&[results(&ids[..2], "RESULTS"), result(ids[2], "RESULT"), Frame::Ack(vec![ids[3]])]);
    assert_eq!(sorted(line.next_recorded(4)), ids[..4]);
    assert_eq!(state(connection), (2, 3, 0), "an ACK removes the message and stores nothing");
    let by: BTreeSet<String> =
        stream(connection, "messages:processed").iter().map(|entry| entry["by"].clone()).collect();
    assert_eq!(by, ["RESULT", "RESULTS"].map(str::to_owned).into());
    // A NACK needs no confirmation, but a result that counts as one does.
    let fields = vec![Field { name: b"", value: b"" }; 3_901];
    line.send(&[
        Frame::Nack { id: ids[4], delay: NackDelay::Never, reason: "never" },
        Frame::Results(vec![MessageResult { id: ids[5], fields }]),
    ]);
    assert_eq!(line.next_recorded(1), [ids[5]]);
    wait_until("two dead letters", || (state(connection) == (0, 3, 2)).then_some(()));
    // What is done or unknown has no effect, which is known at once.
    line.send(&[results(&[ids[0], MessageId(7)], "again"), Frame::Ack(vec![ids[1]])]);
    assert_eq!(line.next_recorded(3), [ids[0], MessageId(7), ids[1]]);
    assert_eq!(line.next_within(WHILE), None);
    assert_eq!(state(connection), (0, 3, 2));
    let metrics = get(metrics.parse().expect("an address"), "/metrics").expect("it serves them").1;
    assert!(metrics.contains("oncecast_answers_confirmed_total 8"), "{metrics}");
}

/// A confirmation before Redis has answered would be a promise that a crash breaks.
#[test]
fn nothing_is_confirmed_before_redis_has_answered() {
    let peer = Peer::bind("keeper");
    let (mut group, ref mut connection, mut line, ids) = group_with(&peer, PATIENT, 3);
    signal_redis(&mut group, Signal::SIGSTOP);
    // The second answers for the same message must not be confirmed before the first ones are recorded.
    line.send(&[results(&ids[..2], "one"), Frame::Ack(vec![ids[2]])]);
    line.send(&[results(&ids, "two"), result(ids[0], "three"), Frame::Ack(vec![ids[1]])]);
    assert_eq!(line.next_within(2 * WHILE), None);
    // Without a place the answer of Redis is not needed.
    line.send(&[result(MessageId(7), "unknown")]);
    assert_eq!(line.next_recorded(1), [MessageId(7)]);
    signal_redis(&mut group, Signal::SIGCONT);
    assert_eq!(sorted(line.next_recorded(3)), ids);
    assert_eq!(state(connection), (0, 2, 0));
    assert_eq!(line.next_within(WHILE), None, "each is named once");
}

#[test]
fn results_that_redis_refuses_are_confirmed_when_it_no_longer_does() {
    let peer = Peer::bind("keeper");
    let (group, ref mut connection, mut line, ids) = group_with(&peer, PATIENT, 2);
    run::<()>(connection, &["SET", "messages:processed", "of another type"]);
    line.send(&[results(&ids, "one")]);
    group.dispatcher.wait_for_line("event=redis-trouble worker=redistributor", DEADLINE).unwrap();
    assert_eq!(line.next_within(WHILE), None);
    run::<()>(connection, &["DEL", "messages:processed"]);
    assert_eq!(sorted(line.next_recorded(2)), ids);
    assert_eq!(state(connection), (0, 2, 0));
}

#[test]
fn results_kept_over_a_lost_link_are_recorded_once_and_confirmed_after_the_second_sending() {
    let peer = Peer::bind("keeper");
    let (mut group, ref mut connection, mut line, ids) = group_with(&peer, PATIENT, 4);
    // Recorded, but the confirmation is not read.
    line.send(&[result(ids[0], "first")]);
    wait_until("one to be recorded", || (state(connection) == (3, 1, 0)).then_some(()));
    signal_redis(&mut group, Signal::SIGSTOP);
    line.send(&[results(&ids[1..3], "first")]);
    let heard = line.next_within(WHILE);
    assert!(heard.is_none() || heard == Some(Heard::Ids("RECORDED", vec![ids[0]])), "{heard:?}");
    assert_eq!(line.next_within(WHILE), None);
    drop(line);
    let mut line = peer.accept_2(100, &ids, &[results(&ids[..3], "second")]);
    // The leader knows that the first one is done.
    assert_eq!(line.next_recorded(1), [ids[0]]);
    assert_eq!(line.next_within(WHILE), None, "Redis has not answered");
    signal_redis(&mut group, Signal::SIGCONT);
    assert_eq!(sorted(line.next_recorded(2)), ids[1..3]);
    // It still holds the last one.
    line.send(&[result(ids[3], "second")]);
    assert_eq!(line.next_recorded(1), [ids[3]]);
    assert_eq!(state(connection), (0, 4, 0));
    let results = stream(connection, "messages:processed");
    assert!(results[..3].iter().all(|entry| entry["by"] == "first"), "{results:?}");
}

#[test]
fn results_kept_over_a_change_of_leader_are_recorded_once_and_confirmed_by_the_new_one() {
    let peer = Peer::bind("keeper");
    let (mut group, ref mut connection, mut line, ids) = group_with(&peer, "", 3);
    line.send(&[result(ids[0], "first")]);
    assert_eq!(line.next_recorded(1), [ids[0]]);
    signal_redis(&mut group, Signal::SIGSTOP);
    line.send(&[results(&ids[1..], "first")]);
    assert_eq!(line.next_within(WHILE), None);
    group.dispatcher.kill().expect("it runs");
    signal_redis(&mut group, Signal::SIGCONT);
    // What the dead leader had sent may still have been executed.
    let _next = dispatcher(&group.cluster, "d1", &[peer.address()], "");
    let mut line = peer.accept_2(100, &ids[1..], &[results(&ids[1..], "second")]);
    assert_eq!(sorted(line.next_recorded(2)), ids[1..]);
    assert_eq!(state(connection), (0, 3, 0));
    publish_payloads(connection, ["more"]);
    let (id, ..) = line.next_message();
    line.send(&[result(id, "second")]);
    assert_eq!(line.next_recorded(1), [id]);
}

/// The consumer counts what it holds and the results that it keeps: never more than its prefetch, also after the loss
/// of a connection, whose last confirmations it has not read.
#[test]
fn a_confirmation_comes_before_the_messages_that_take_its_place() {
    const MESSAGES: usize = 500;
    const PREFETCH: usize = 7;
    let peer = Peer::bind("keeper");
    let mut group = Scripted::start(&[&peer], "");
    let mut line = peer.accept_2(PREFETCH as u32, &[], &[]);
    let connection = &mut group.client();
    publish_payloads(connection, (0..MESSAGES).map(|n| n.to_string()));
    let (mut kept, mut confirmed, mut processed) = (BTreeSet::new(), 0, 0);
    while confirmed < MESSAGES {
        match line.next() {
            Heard::Process { id, .. } => {
                assert!(kept.insert(id) && kept.len() <= PREFETCH);
                line.send(&[result(id, "keeper")]);
                processed += 1;
                if processed % 50 == 0 {
                    let held: Vec<_> = kept.iter().copied().collect();
                    // Until the leader has recorded them.
                    std::thread::sleep(Duration::from_millis(50));
                    drop(line);
                    line = peer.accept_2(PREFETCH as u32, &held, &[]);
                    // The results come later than HELD, and the leader may deliver something meanwhile.
                    std::thread::sleep(Duration::from_millis(50));
                    line.send(&[results(&held, "again")]);
                }
            }
            Heard::Ids("RECORDED", ids) => {
                ids.iter().for_each(|id| assert!(kept.remove(id), "{id} was confirmed before"));
                confirmed += ids.len();
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(state(connection), (0, MESSAGES, 0));
}

#[test]
fn credit_replaces_the_prefetch() {
    let peer = Peer::bind("pausing");
    let mut group = Scripted::start(&[&peer], "");
    let mut line = peer.accept_2(0, &[], &[]);
    let connection = &mut group.client();
    wait_until_listed(connection, &["pausing"]);
    publish_payloads(connection, (0..9).map(|n| n.to_string()));
    assert_eq!(line.next_within(WHILE), None, "READY paused it");
    line.send(&[Frame::Credit { prefetch: 2 }]);
    let ids = [line.next_message().0, line.next_message().0];
    assert_eq!(line.next_within(WHILE), None);
    let url = group.cluster.redis_url();
    wait_until("the status to show it", || status(&url).0.contains("2 of 2 in flight").then_some(()));
    line.send(&[Frame::Credit { prefetch: 0 }, results(&ids, "pausing")]);
    assert_eq!(line.next_recorded(2), ids);
    assert_eq!(line.next_within(WHILE), None, "it is paused");
    // More than what counts, then less than it holds.
    line.send(&[Frame::Credit { prefetch: u32::MAX }]);
    let ids: Vec<_> = (0..7).map(|_| line.next_message().0).collect();
    wait_until("the status to show it", || status(&url).0.contains("7 of 65536 in flight").then_some(()));
    publish_payloads(connection, ["more"]);
    let more = line.next_message().0;
    line.send(&[Frame::Credit { prefetch: 3 }]);
    publish_payloads(connection, ["even more"]);
    line.send(&[results(&ids[..5], "pausing")]);
    assert_eq!(line.next_recorded(5), ids[..5]);
    assert_eq!(line.next_within(WHILE), None, "three are held");
    line.send(&[result(more, "pausing"), Frame::Drain, Frame::Credit { prefetch: 100 }]);
    assert_eq!(line.next_recorded(1), [more]);
    assert_eq!(line.next_within(WHILE), None, "after DRAIN it has no effect");
}

/// As if it were absent: others get the messages, also those that wait for free places.
#[test]
fn a_paused_consumer_holds_up_no_other() {
    let (paused, working) = (Peer::bind("paused"), Peer::bind("working"));
    let mut group = Scripted::start(&[&paused, &working], "--link-timeout-ms 500");
    let (mut paused_line, mut line) = (paused.accept_2(1, &[], &[]), working.accept_2(1, &[], &[]));
    let connection = &mut group.client();
    wait_until_listed(connection, &["paused", "working"]);
    publish_payloads(connection, ["1", "2"]);
    let (kept, first) = (paused_line.next_message().0, line.next_message().0);
    paused_line.send(&[Frame::Credit { prefetch: 0 }]);
    line.send(&[result(first, "working")]);
    assert_eq!(line.next_recorded(1), [first]);
    // What the paused one no longer reports goes to the other. Its place stays, so its late result has no effect.
    let (id, delivery, _) = loop {
        paused_line.next_within(Duration::from_millis(10));
        if let Some(Heard::Process { id, delivery, body }) = line.next_within(Duration::from_millis(10)) {
            break (id, delivery, body);
        }
    };
    assert_eq!((id, delivery), (kept, 2));
    line.send(&[result(id, "working")]);
    assert_eq!(line.next_recorded(1), [id]);
    paused_line.send(&[result(kept, "paused")]);
    assert_eq!(paused_line.next_recorded(1), [kept]);
    assert_eq!(state(connection), (0, 2, 0));
    assert!(stream(connection, "messages:processed").iter().all(|entry| entry["by"] == "working"));
}

#[test]
fn kept_results_that_were_recorded_long_ago_are_no_mistake() {
    let peer = Peer::bind("keeper");
    let mut group = Scripted::start(&[&peer], "");
    let ids: Vec<_> = (1..=6_000).map(MessageId).collect();
    // Each time as many as the limit of answers without a place allows only once.
    for _ in 0..4 {
        let mut line = peer.accept_2(10, &ids, &[results(&ids, "old")]);
        assert_eq!(sorted(line.next_recorded(ids.len())), ids);
    }
    // Each listed id excuses its first answer.
    let mut line = peer.accept_2(10, &ids, &[results(&ids, "old"), results(&ids, "again")]);
    let rest = line.rest();
    assert!(rest.iter().any(|heard| matches!(heard, Heard::Error(ErrorCode::Unexpected, _))), "{rest:?}");
    group.dispatcher.must_run().unwrap();
}

#[test]
fn without_the_subprotocol_its_frames_are_refused() {
    let cases: [(Option<&'static str>, Frame<'_>); 8] = [
        (None, results(&[MessageId(1)], "x")),
        (None, Frame::Credit { prefetch: 1 }),
        (Some(SUBPROTOCOL_1), results(&[MessageId(1)], "x")),
        (Some(SUBPROTOCOL_1), Frame::Credit { prefetch: 1 }),
        (None, Frame::Recorded(Vec::new())),
        (None, Frame::Hello("{}")),
        (Some(SUBPROTOCOL_2), Frame::Recorded(Vec::new())),
        (Some(SUBPROTOCOL_2), Frame::Hello("{}")),
    ];
    let peer = Peer::bind("wrong");
    let mut group = Scripted::start(&[&peer], "");
    for (subprotocol, frame) in cases {
        let mut line = peer.accept_unread_with(subprotocol);
        let ready = Frame::Ready { prefetch: 1, flags: ReadyFlags(0), consumer: "wrong" };
        let name = frame.name();
        line.send(&[ready, Frame::Held(Vec::new()), frame]);
        let rest = line.rest();
        let refused = |heard: &Heard| matches!(heard, Heard::Error(ErrorCode::Unexpected, text) if text.contains(name));
        assert!(rest.iter().any(refused), "{rest:?}");
    }
    for subprotocol in [None, Some(SUBPROTOCOL_1)] {
        let mut line = peer.accept_unread_with(subprotocol);
        line.send(&[Frame::Ready { prefetch: 0, flags: ReadyFlags(0), consumer: "wrong" }, Frame::Held(Vec::new())]);
        assert!(line.rest().iter().any(|heard| matches!(heard, Heard::Error(ErrorCode::Malformed, _))));
    }
    group.dispatcher.must_run().unwrap();
}

#[test]
fn hello_follows_lead_in_the_same_message() {
    let peer = Peer::bind("keeper");
    let _group = Scripted::start(&[&peer], "--link-timeout-ms 1234 --max-deliveries 5");
    let mut line = peer.accept_unread_with(Some(SUBPROTOCOL_2));
    let message = line.next_bytes();
    let frames: Vec<_> = oncecast::wire::frames(&message).collect::<Result<_, _>>().expect("frames");
    let hello = concat!(
        r#"{"version":""#,
        env!("CARGO_PKG_VERSION"),
        r#"","link_timeout_ms":1234,"max_deliveries":5,"lane":""}"#
    );
    assert!(matches!(frames[..], [Frame::Lead { group: "messages", .. }, Frame::Hello(text)] if text == hello));
    drop(line);
    for subprotocol in [None, Some(SUBPROTOCOL_1)] {
        let mut line = peer.accept_unread_with(subprotocol);
        let message = line.next_bytes();
        let frames: Vec<_> = oncecast::wire::frames(&message).collect::<Result<_, _>>().expect("frames");
        assert!(matches!(frames[..], [Frame::Lead { group: "messages", .. }]));
    }
}

#[test]
fn a_consumer_that_selects_what_was_not_offered_is_refused() {
    let peer = Peer::bind("wrong");
    let mut group = Scripted::start(&[&peer], "");
    assert_eq!(peer.accept_unread_with(Some("mqtt")).rest(), [], "not even a LEAD");
    let line = group.dispatcher.wait_for_line("event=consumer-unreachable", DEADLINE).unwrap();
    let problem = r#"error="WebSocket handshake: the server selects the subprotocol"#;
    assert!(line.contains(problem) && line.contains("mqtt") && line.contains("oncecast.1, oncecast.2"), "{line}");
    // It is tried again.
    peer.accept_2(1, &[], &[]);
    group.dispatcher.must_run().unwrap();
}

#[test]
fn a_consumer_of_version_1_gets_no_confirmation() {
    let peer = Peer::bind("old");
    let mut group = Scripted::start(&[&peer], "");
    let mut line = peer.accept(4);
    let connection = &mut group.client();
    publish_payloads(connection, ["1", "2"]);
    let (one, two) = (line.next_message().0, line.next_message().0);
    line.send(&[result(one, "old"), Frame::Ack(vec![two]), result(one, "again")]);
    wait_until_done(connection, 1);
    assert_eq!(line.next_within(WHILE), None);
    assert_eq!(state(connection), (0, 1, 0));
}

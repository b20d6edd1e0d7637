//! Only the consumer that holds a message, according to the leader, may answer for it. Scripted consumers answer for
//! messages that another holds, that still wait, or that were never delivered, or list them in HELD. Some never answer.

use std::collections::BTreeSet;
use std::time::Duration;

use oncecast::base::id::MessageId;
use oncecast::wire::{ErrorCode, Field, Frame, NackDelay, ReadyFlags};
use redis::Connection;

use crate::support::peer::{Heard, Line, Peer};
use crate::support::scripted_group::{Scripted, wait_until_listed};
use crate::support::{DEADLINE, publish_payloads, run, state, status, stream, wait_until, wait_until_done};

/// A message that its consumer does not report for twice this time is overdue.
const QUICK: &str = "--link-timeout-ms 500";

fn pending(connection: &mut Connection) -> BTreeSet<MessageId> {
    let entries: Vec<(redis::Value, f64)> = run(connection, &["ZRANGE", "messages:pending", "0", "-1", "WITHSCORES"]);
    entries.into_iter().map(|(_, score)| MessageId(score as u64)).collect()
}

fn result(id: MessageId, text: &str) -> Frame<'_> {
    Frame::Result { id, fields: vec![Field { name: b"by", value: text.as_bytes() }] }
}

/// Every kind of answer for a message.
fn answers(id: MessageId) -> Vec<Frame<'static>> {
    vec![
        Frame::Ack(vec![id]),
        Frame::Progress(vec![id]),
        Frame::Nack { id, delay: NackDelay::ByBackoff, reason: "mine" },
        Frame::Nack { id, delay: NackDelay::Never, reason: "mine" },
        result(id, "thief"),
    ]
}

/// Publishes one message, which arrives on this line.
fn publish_to(line: &mut Line, connection: &mut Connection, text: &str) -> MessageId {
    publish_payloads(connection, [text]);
    let (id, _, body) = line.next_message();
    assert_eq!(body, text);
    id
}

/// Waits until the dispatcher has read all frames sent so far: it refuses the last one, and the consumer reconnects.
fn wait_until_all_read(line: &mut Line, peer: &Peer, prefetch: u32, flags: ReadyFlags) -> Line {
    line.send(&[Frame::Held(Vec::new())]);
    let rest = line.rest();
    let refused = |heard: &Heard| matches!(heard, Heard::Error(ErrorCode::Unexpected, text) if text.contains("HELD"));
    assert!(rest.iter().any(refused), "{rest:?}");
    peer.accept_with(prefetch, flags, &[])
}

#[test]
fn only_the_consumer_that_holds_a_message_may_answer_for_it() {
    for flags in [ReadyFlags(0), ReadyFlags::COMMITS] {
        let (thief, owner) = (Peer::bind("thief"), Peer::bind("owner"));
        let mut group = Scripted::start(&[&thief, &owner], "");
        let (mut thiefs, mut owners) = (thief.accept_with(1, flags, &[]), owner.accept(1));
        let connection = &mut group.client();
        wait_until_listed(connection, &["owner", "thief"]);
        publish_payloads(connection, ["1", "2", "3", "4"]);
        let (at_thief, ..) = thiefs.next_message();
        let (at_owner, ..) = owners.next_message();
        wait_until("two to wait", || (state(connection).0 == 4).then_some(()));
        for id in pending(connection).into_iter().filter(|id| *id != at_thief) {
            thiefs.send(&answers(id));
        }
        let mut thiefs = wait_until_all_read(&mut thiefs, &thief, 1, flags);
        // The message that it held returned to the leader and is delivered again.
        assert_eq!(thiefs.next_message().0, at_thief);
        assert_eq!(
            state(connection),
            (4, 0, 0),
            "{flags:?}: nothing was recorded, removed or moved to the dead letters"
        );
        // The leader has lost none of them.
        drop(thiefs);
        let mut done = BTreeSet::new();
        owners.send(&[result(at_owner, "owner")]);
        while done.len() < 3 {
            let (id, ..) = owners.next_message();
            done.insert(id);
            owners.send(&[result(id, "owner")]);
        }
        wait_until_done(connection, 4);
        assert!(stream(connection, "messages:processed").iter().all(|entry| entry["by"] == "owner"));
        group.dispatcher.wait_for_line("event=stray-answers consumer=thief", DEADLINE).unwrap();
    }
}

#[test]
fn each_place_accepts_one_answer() {
    let peer = Peer::bind("twice");
    let mut group = Scripted::start(&[&peer], "");
    let mut line = peer.accept(8);
    let connection = &mut group.client();
    let id = publish_to(&mut line, connection, "one");
    line.send(&[
        result(id, "first"),
        result(id, "second"),
        Frame::Ack(vec![id]),
        Frame::Nack { id, delay: NackDelay::Never, reason: "after all" },
    ]);
    wait_until_done(connection, 1);
    let id = publish_to(&mut line, connection, "two");
    line.send(&[result(id, "first")]);
    wait_until_done(connection, 2);
    assert!(stream(connection, "messages:processed").iter().all(|entry| entry["by"] == "first"));
    group.dispatcher.wait_for_line("event=stray-answers consumer=twice", DEADLINE).unwrap();
}

#[test]
fn held_messages_that_are_not_pending_take_no_places() {
    let peer = Peer::bind("liar");
    let mut group = Scripted::start(&[&peer], QUICK);
    let now = MessageId(oncecast::base::id::wall_clock_us());
    let far = |id: u64| MessageId(now.0 + 3_600_000_000 + id);
    let held: Vec<MessageId> = (1..=4).map(MessageId).chain((1..=4).map(far)).collect();
    // First to a new leader, then to one that has led for a while.
    for round in 0..2 {
        let mut line = peer.accept_with(8, ReadyFlags(0), &held);
        let connection = &mut group.client();
        publish_payloads(connection, (0..8).map(|n| format!("{round} {n}")));
        for _ in 0..8 {
            let (id, ..) = line.next_message();
            line.send(&[Frame::Progress(held.clone()), result(id, "liar")]);
        }
        wait_until_done(connection, 8 * (round + 1));
    }
}

#[test]
fn listing_a_message_in_held_does_not_take_it_from_its_consumer() {
    for flags in [ReadyFlags(0), ReadyFlags::COMMITS] {
        let (owner, thief) = (Peer::bind("owner"), Peer::bind("thief"));
        let mut group = Scripted::start(&[&owner, &thief], "");
        let mut owners = owner.accept(1);
        let connection = &mut group.client();
        wait_until_listed(connection, &["owner"]);
        publish_payloads(connection, ["at work", "waits"]);
        let (at_work, ..) = owners.next_message();
        wait_until("one to wait", || (state(connection).0 == 2).then_some(()));
        let held: Vec<MessageId> = pending(connection).into_iter().collect();
        let mut thiefs = thief.accept_with(2, flags, &held);
        wait_until_listed(connection, &["owner", "thief"]);
        thiefs.send(&answers(at_work));
        // The waiting message was delivered to no consumer, so the thief gets it. Its other place is taken by the
        // message that the owner works on.
        let (waiting, ..) = thiefs.next_message();
        assert_ne!(waiting, at_work);
        assert_eq!(state(connection), (2, 0, 0), "{flags:?}");
        owners.send(&[result(at_work, "owner")]);
        wait_until("the owner's result", || (state(connection) == (1, 1, 0)).then_some(()));
        drop(thiefs);
        assert_eq!(owners.next_message().0, waiting);
        owners.send(&[result(waiting, "owner")]);
        wait_until_done(connection, 2);
        assert!(stream(connection, "messages:processed").iter().all(|entry| entry["by"] == "owner"));
    }
}

/// The consumer acknowledges a message that it listed in HELD, but the message is still pending in Redis.
#[test]
fn a_false_ack_does_not_settle_a_pending_message() {
    let peer = Peer::bind("liar");
    let mut group = Scripted::start(&[&peer], "--lease-ttl-ms 1000");
    let mut line = peer.accept_with(2, ReadyFlags::COMMITS, &[]);
    let connection = &mut group.client();
    let id = publish_to(&mut line, connection, "one");
    // Listed after a lost link, and after a change of leader.
    for _ in 0..2 {
        drop(line);
        line = peer.accept_with(2, ReadyFlags::COMMITS, &[id]);
        line.send(&[Frame::Ack(vec![id])]);
        assert_eq!(line.next_message().0, id, "it is delivered again");
        run::<()>(connection, &["DEL", "messages:leader"]);
        while line.next_within(DEADLINE) != Some(Heard::Closed) {}
        line = peer.accept_with(2, ReadyFlags::COMMITS, &[id]);
    }
    line.send(&[Frame::Ack(vec![id])]);
    assert_eq!(line.next_message().0, id);
    assert_eq!(state(connection).0, 1);
}

#[test]
fn messages_that_the_only_consumer_swallows_become_dead_letters() {
    let become_dead_letters = |prefetch| {
        let peer = Peer::bind("swallower");
        let mut group = Scripted::start(&[&peer], &format!("{QUICK} --max-deliveries 2"));
        let mut line = peer.accept(prefetch);
        let connection = &mut group.client();
        publish_payloads(connection, (0..4).map(|n| n.to_string()));
        let mut deliveries = Vec::new();
        while deliveries.len() < 8 {
            let heard = line.next_within(DEADLINE).expect("the link stands, and another delivery follows");
            if let Heard::Process { id, delivery, .. } = heard {
                deliveries.push((id, delivery));
            }
        }
        deliveries.sort_unstable();
        assert!(deliveries.chunks(2).all(|pair| pair[0].0 == pair[1].0), "each twice: {deliveries:?}");
        // Reading answers the dispatcher's pings.
        wait_until("all to be dead letters", || {
            line.next_within(Duration::from_millis(1));
            (state(connection) == (0, 0, 4)).then_some(())
        });
        let letters = stream(connection, "messages:dead");
        assert!(letters.iter().all(|letter| letter["reason"].contains("no longer reported it")), "{letters:?}");
        let (shown, code) = status(&group.cluster.redis_url());
        assert!(shown.contains("consumer swallower no longer reports") && code == 3, "{shown}");
    };
    std::thread::scope(|scope| [1, 3].map(|prefetch| drop(scope.spawn(move || become_dead_letters(prefetch)))));
}

#[test]
fn a_consumer_that_swallows_messages_loses_at_most_its_prefetch() {
    let (swallower, good) = (Peer::bind("swallower"), Peer::bind("good"));
    let mut group = Scripted::start(&[&swallower, &good], QUICK);
    let (mut swallowing, mut working) = (swallower.accept(2), good.accept(2));
    let connection = &mut group.client();
    wait_until_listed(connection, &["good", "swallower"]);
    let mut swallowed = BTreeSet::new();
    // As many as both have places for.
    publish_payloads(connection, (0..4).map(|n| n.to_string()));
    let mut published = 4;
    // Until long after the messages it swallowed are overdue.
    let overdue = std::time::Instant::now() + Duration::from_secs(3);
    while std::time::Instant::now() < overdue {
        publish_payloads(connection, [published.to_string()]);
        published += 1;
        while let Some(Heard::Process { id, .. }) = swallowing.next_within(Duration::from_millis(5)) {
            swallowed.insert(id);
        }
        while let Some(Heard::Process { id, .. }) = working.next_within(Duration::from_millis(5)) {
            working.send(&[result(id, "good")]);
        }
    }
    assert_eq!(swallowed.len(), 2);
    let mut finish = || {
        swallowing.next_within(Duration::from_millis(1));
        while let Some(Heard::Process { id, .. }) = working.next_within(Duration::from_millis(5)) {
            working.send(&[result(id, "good")]);
        }
        (state(connection) == (0, published, 0)).then_some(())
    };
    wait_until("all to be done", &mut finish);
    // After its late answer it gets messages again.
    swallowing.send(&[Frame::Ack(swallowed.into_iter().collect())]);
    publish_payloads(connection, ["1", "2"]);
    swallowing.next_message();
    group.dispatcher.wait_for_line("event=overdue consumer=swallower", DEADLINE).unwrap();
}

#[test]
fn too_many_invalid_answers_close_their_link() {
    let kinds: [fn(Vec<MessageId>) -> Vec<Frame<'static>>; 4] = [
        |ids| vec![Frame::Ack(ids)],
        |ids| ids.into_iter().map(|id| result(id, "junk")).collect(),
        |ids| ids.into_iter().map(|id| Frame::Nack { id, delay: NackDelay::ByBackoff, reason: "junk" }).collect(),
        |ids| ids.into_iter().flat_map(answers).collect(),
    ];
    let ends_the_link = |kind: fn(Vec<MessageId>) -> Vec<Frame<'static>>| {
        let (junk, good) = (Peer::bind("junk"), Peer::bind("good"));
        let mut group = Scripted::start(&[&junk, &good], "");
        let (mut junk_line, mut good_line) = (junk.accept(8), good.accept(8));
        let connection = &mut group.client();
        wait_until_listed(connection, &["good", "junk"]);
        // A few are tolerated.
        junk_line.send(&kind((1..=100).map(MessageId).collect()));
        assert_eq!(junk_line.next_within(Duration::from_millis(50)), None);
        // Too many end the link. The same holds for the next link.
        for _ in 0..2 {
            junk_line.send(&kind((1..=2_000).map(MessageId).collect()));
            let rest = junk_line.rest();
            let too_many = "more than 100 a second";
            let is_refusal =
                |heard: &Heard| matches!(heard, Heard::Error(ErrorCode::Unexpected, text) if text.contains(too_many));
            assert!(rest.iter().any(is_refusal), "{rest:?}");
            junk_line = junk.accept(8);
        }
        publish_payloads(connection, ["1"]);
        let (id, ..) = good_line.next_message();
        good_line.send(&[result(id, "good")]);
        wait_until_done(connection, 1);
    };
    std::thread::scope(|scope| kinds.into_iter().for_each(|kind| drop(scope.spawn(move || ends_the_link(kind)))));
}

/// Listing ids in HELD that are not pending has a limit, which reconnecting does not reset.
#[test]
fn a_consumer_that_keeps_listing_unknown_messages_is_refused() {
    let (liar, good) = (Peer::bind("liar"), Peer::bind("good"));
    let mut group = Scripted::start(&[&liar, &good], "");
    let mut good_line = good.accept(8);
    let mut refused = false;
    let mut first = 1;
    while !refused {
        let held: Vec<MessageId> = (first..first + 900).map(MessageId).collect();
        first += 900;
        let mut line = liar.accept_with(8, ReadyFlags(0), &held);
        // By then the leader has looked the ids up, or refused them.
        refused = matches!(line.next_within(Duration::from_millis(300)), Some(Heard::Error(ErrorCode::Unexpected, _)));
    }
    let connection = &mut group.client();
    publish_payloads(connection, ["1"]);
    let (id, ..) = good_line.next_message();
    good_line.send(&[result(id, "good")]);
    wait_until_done(connection, 1);
}

/// The first consumer may still work on the message. Without the raised recall it would record it in a transaction,
/// which does not check whether the message is pending.
#[test]
fn an_answer_from_a_second_holder_raises_the_recall() {
    let settle: [fn(&mut Line, MessageId); 3] = [
        |line, id| line.send(&[result(id, "second")]),
        |line, id| line.send(&[Frame::Nack { id, delay: NackDelay::ByBackoff, reason: "no" }]),
        |line, id| line.send(&[Frame::Ack(vec![id])]),
    ];
    for settle in settle {
        let (first, second) = (Peer::bind("first"), Peer::bind("second"));
        let mut group = Scripted::start(&[&first, &second], "");
        let mut firsts = first.accept_with(1, ReadyFlags::COMMITS, &[]);
        let connection = &mut group.client();
        wait_until_listed(connection, &["first"]);
        let id = publish_to(&mut firsts, connection, "one");
        let mut seconds = second.accept_with(1, ReadyFlags::COMMITS, &[id]);
        wait_until_listed(connection, &["first", "second"]);
        drop(firsts);
        wait_until_listed(connection, &["second"]);
        let up_to = |connection: &mut Connection| {
            let recall: String = run(connection, &["GET", "messages:recall"]);
            recall.rsplit(' ').next().and_then(|up_to| up_to.parse().ok()).unwrap_or(0_u64)
        };
        assert!(up_to(connection) < id.0);
        settle(&mut seconds, id);
        wait_until("the recall to be raised", || (up_to(connection) >= id.0).then_some(()));
    }
}

#[test]
fn messages_a_draining_consumer_has_not_started_return_uncounted() {
    let (leaving, staying) = (Peer::bind("leaving"), Peer::bind("staying"));
    let mut group = Scripted::start(&[&leaving, &staying], "--max-deliveries 1");
    let (mut leaving_line, mut staying_line) = (leaving.accept(2), staying.accept(1));
    let connection = &mut group.client();
    wait_until_listed(connection, &["leaving", "staying"]);
    publish_payloads(connection, ["1", "2", "3"]);
    let not_started: Vec<_> = (0..2).map(|_| leaving_line.next_message().0).collect();
    let (started, ..) = staying_line.next_message();
    leaving_line.send(&[Frame::Drain]);
    for id in &not_started {
        leaving_line.send(&[Frame::Nack { id: *id, delay: NackDelay::ByBackoff, reason: "" }]);
    }
    staying_line.send(&[result(started, "staying")]);
    for _ in 0..2 {
        let (id, delivery, _) = staying_line.next_message();
        assert!(not_started.contains(&id));
        assert_eq!(delivery, 1);
        staying_line.send(&[result(id, "staying")]);
    }
    wait_until_done(connection, 3);
    assert_eq!(state(connection).2, 0);
}

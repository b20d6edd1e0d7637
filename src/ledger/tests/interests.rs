//! What a subscription to several interests brings, from a real Redis.

use std::collections::HashSet;

use super::*;

const NAMES: usize = 400;
const PATTERNS: usize = 1_500;

/// Random bytes, mostly those that mean something in patterns.
fn random_text(random: &mut fastrand::Rng, most_bytes: usize) -> Vec<u8> {
    const USUAL: &[u8] = b"aabbc**?[]^-\\";
    let bytes = random.usize(1..=most_bytes);
    let mut byte = || if random.u8(..8) == 0 { random.u8(..) } else { USUAL[random.usize(..USUAL.len())] };
    (0..bytes).map(|_| byte()).collect()
}

fn globs(patterns: &[&str]) -> Vec<Glob> {
    patterns.iter().map(|pattern| Glob::parse(pattern.as_bytes()).expect(pattern)).collect()
}

fn named(channels: &[&str]) -> Vec<Vec<u8>> {
    channels.iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// The messages that come before the first on this channel, with their channels.
pub fn messages_until(subscription: &mut Subscription, end: &str) -> Vec<(Option<String>, String)> {
    let mut all = Vec::new();
    while all.last().is_none_or(|(channel, _): &(Option<String>, String)| channel.as_deref() != Some(end)) {
        all.extend(messages(subscription, 1));
    }
    all.pop();
    all
}

/// The messages that come until as many have come, with their channels.
fn messages(subscription: &mut Subscription, count: usize) -> Vec<(Option<String>, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut messages = Vec::new();
    while messages.len() < count {
        for seen in subscription.read().expect("it is read").expect("something comes").seen {
            let Seen::Published(Published::Message(body)) = seen else { continue };
            messages.push((body.channel().map(text), text(body.payload())));
        }
    }
    messages
}

#[test]
fn patterns_match_what_redis_matches() {
    let mut f = fixture();
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let names: HashSet<Vec<u8>> = (0..NAMES).map(|_| random_text(&mut random, 6)).collect();
    let interests = Interests::of(names.iter().cloned().collect(), Vec::new()).expect("few names");
    let _subscribed = f.listen_to(interests, &DispatcherId::generate("d0"));
    let (mut parsed, mut pairs) = (0, 0);
    for _ in 0..PATTERNS {
        let pattern = random_text(&mut random, 8);
        let Ok(glob) = Glob::parse(&pattern) else { continue };
        let command = Command::new(3).arg("PUBSUB").arg("CHANNELS").arg(&pattern);
        let reply = f.ledger.connection.query("testing", command).expect("it is carried out");
        let Value::Array(found) = reply else { panic!("a list: {reply:?}") };
        let found =
            found.into_iter().filter_map(|name| if let Value::BulkString(name) = name { Some(name) } else { None });
        let matched: HashSet<Vec<u8>> = found.filter(|name| names.contains(name)).collect();
        let ours: HashSet<Vec<u8>> = names.iter().filter(|name| glob.matches(name)).cloned().collect();
        assert_eq!(ours, matched, "seed {seed}, pattern {}", pattern.escape_ascii());
        (parsed, pairs) = (parsed + 1, pairs + matched.len());
    }
    assert!(parsed > PATTERNS / 2 && pairs > PATTERNS, "{parsed} patterns with {pairs} matches test little");
}

#[test]
fn a_message_that_several_interests_match_comes_once_with_its_channel() {
    let mut f = fixture();
    let interests = Interests::of(named(&["orders.eu"]), globs(&["orders.*", "*.eu", "*"])).expect("good ones");
    let mut subscription = f.listen_to(interests, &DispatcherId::generate("d0"));
    let channels = ["orders.eu", "orders.us", "invoices.eu", "x"];
    for channel in channels {
        assert!(f.number(&["PUBLISH", channel, &format!("on {channel}")]) >= 1);
    }
    let expected = channels.map(|channel| (Some(channel.to_owned()), format!("on {channel}")));
    assert_eq!(messages(&mut subscription, 4), expected);
}

#[test]
fn neither_its_own_channels_nor_events_of_its_own_keys_are_messages() {
    let mut f = fixture();
    f.run(&["CONFIG", "SET", "notify-keyspace-events", "KEA"]);
    let interests = Interests::of(named(&[]), globs(&["*"])).expect("good ones");
    let mut subscription = f.listen_to(interests, &DispatcherId::generate("d0"));
    let epoch = f.epoch(7);
    f.pend(epoch, &[11, 12]);
    f.run(&["PUBLISH", "messages:control", "released 1"]);
    f.run(&["SET", "shop", "open"]);
    let event = |channel: &str, payload: &str| (Some(channel.to_owned()), payload.to_owned());
    let expected = [event("__keyspace@0__:shop", "set"), event("__keyevent@0__:set", "shop")];
    assert_eq!(messages(&mut subscription, 2), expected);
}

#[test]
fn a_message_over_the_limit_keeps_its_channel() {
    let mut f = fixture();
    let mut subscription =
        f.listen_to(Interests::of(named(&[]), globs(&["big*"])).expect("good"), &DispatcherId::generate("d0"));
    f.run(&["PUBLISH", "bigger", &"x".repeat(crate::wire::MAX_BODY_BYTES + 1)]);
    let seen = loop {
        let seen = subscription.read().expect("it is read").expect("something comes").seen;
        if let Some(Seen::Published(published)) = seen.into_iter().next() {
            break published;
        }
    };
    let Published::Oversize { excerpt, .. } = seen else { panic!("{seen:?}") };
    assert_eq!(excerpt.channel(), Some(&b"bigger"[..]));
}

/// Any client may publish on a channel that a pattern matches, however long its name.
#[test]
fn a_channel_over_the_limit_is_cut_and_its_message_kept_apart() {
    let mut f = fixture();
    let interests = Interests::of(named(&[]), globs(&["c*"])).expect("good");
    let mut subscription = f.listen_to(interests, &DispatcherId::generate("d0"));
    let longest = "c".repeat(crate::wire::MAX_CHANNEL_BYTES);
    f.run(&["PUBLISH", &longest, "fits"]);
    assert_eq!(messages(&mut subscription, 1), [(Some(longest.clone()), "fits".to_owned())]);
    f.run(&["PUBLISH", &format!("{longest}c"), "payload"]);
    let seen = loop {
        if let Some(seen) = subscription.read().expect("it is read").expect("something comes").seen.pop() {
            break seen;
        }
    };
    let excerpt = Body::copied(Some(longest.as_bytes()), b"payload");
    assert_eq!(seen, Seen::Published(Published::Oversize { excerpt, length: Length::Channel(4_097) }));
}

/// Such a message is no message to any dispatcher, and what follows it is read as if it had not been there.
#[test]
fn a_channel_longer_than_is_read_is_passed_over() {
    let mut f = fixture();
    let interests = Interests::of(named(&[]), globs(&["c*"])).expect("good");
    let mut subscription = f.listen_to(interests, &DispatcherId::generate("d0"));
    let huge = "c".repeat(9 << 20);
    for payload in ["small", &huge] {
        f.run(&["PUBLISH", &huge, payload]);
        f.run(&["PUBLISH", "c", "next"]);
        assert_eq!(messages(&mut subscription, 1), [(Some("c".to_owned()), "next".to_owned())]);
    }
    subscription.ping(5).expect("it is sent");
    while subscription.read().expect("it is read").is_none_or(|batch| batch.answered != Some(5)) {}
}

/// Whatever its form, a member that becomes a dead letter leaves its id, payload and channel there.
#[test]
fn a_dead_letter_tells_the_channel() {
    let mut f = fixture();
    let epoch = f.epoch(7);
    let before = f.ledger.cursor().expect("the cursor is read");
    let bodies =
        [Body::copied(None, b"a@1:b"), Body::copied(Some(b"3:eu"), b"pay:load"), Body::copied(Some(b"e"), b"")];
    let batch: Vec<Arrival> = bodies
        .iter()
        .zip(11..)
        .map(|(body, id)| Arrival { id: MessageId(id), body: body.clone(), refused: None })
        .collect();
    f.ledger.intake(epoch, before.as_ref(), &cursor("m", 3, 13), &batch).expect("it is taken in");
    let returned: Vec<Returned> = (11..=13).map(|id| returned(id, Verdict::Rejected)).collect();
    let batch: Vec<Settling<'_>> = returned.iter().map(|returned| settling(returned, 1)).collect();
    f.ledger.settle(epoch, 8, &batch).expect("they are settled");
    let reply = f.run(&["XRANGE", "messages:dead", "-", "+"]);
    let Value::Array(letters) = reply else { panic!("{reply:?}") };
    let fields = |letter: &Value| -> Vec<String> {
        let Value::Array(parts) = letter else { panic!("{letter:?}") };
        let Value::Array(words) = &parts[1] else { panic!("{letter:?}") };
        words.iter().map(|word| text(word).expect("text").to_owned()).collect()
    };
    let channels = ["", "3:eu", "e"];
    for ((letter, body), channel) in letters.iter().zip(&bodies).zip(channels) {
        let fields = fields(letter);
        assert_eq!(fields[..4], ["id", &fields[1], "payload", &String::from_utf8_lossy(body.payload())]);
        let told = fields.iter().skip_while(|field| *field != "channel").nth(1);
        assert_eq!(told.map_or("", String::as_str), channel);
    }
    assert_eq!(letters.len(), 3);
}

/// A sharded channel needs a server that has them: 7.0 or newer.
fn sharded(f: &mut Fixture, names: &[&str]) -> Option<Interests> {
    let interests = Interests::of_sharded(named(names)).expect("good names");
    match f.ledger.connection.query("testing", Command::of(&["SPUBLISH", "x", "y"])) {
        Ok(_) => Some(interests),
        Err(error) => {
            skipped(&format!("sharded channels: {error}"));
            None
        }
    }
}

#[test]
fn sharded_channels_and_markers_come_in_one_order_and_plain_ones_are_others() {
    let mut f = fixture();
    let Some(interests) = sharded(&mut f, &["orders", "mails"]) else { return };
    let mut subscription = f.listen_to(interests.clone(), &DispatcherId::generate("d0"));
    let epoch = f.epoch(7);
    let marker = Marker::of_leader(epoch, 1);
    f.run(&["PUBLISH", "orders", "not for it"]);
    assert_eq!(f.number(&["SPUBLISH", "orders", "one"]), 1);
    f.ledger.publish_marker(epoch, &marker, &interests).expect("it is published");
    assert_eq!(f.number(&["SPUBLISH", "mails", "two"]), 1);
    // What operators' tools and a leader that ends publish comes by PUBLISH.
    f.run(&["PUBLISH", "messages:control", "settings"]);
    let (mut seen, mut settings) = (Vec::new(), false);
    while seen.len() < 3 || !settings {
        let batch = subscription.read().expect("it is read").expect("something comes");
        seen.extend(batch.seen);
        settings |= batch.settings;
    }
    let message = |channel: &str, text: &str| {
        Seen::Published(Published::Message(Body::copied(Some(channel.as_bytes()), text.as_bytes())))
    };
    assert_eq!(seen, [message("orders", "one"), Seen::Marker(marker), message("mails", "two")]);
    subscription.ping(5).expect("it is sent");
    while subscription.read().expect("it is read").is_none_or(|batch| batch.answered != Some(5)) {}
}

/// Else two dispatchers, of which one has `--channel` by mistake, would store different messages under one cursor.
#[test]
fn a_dispatcher_that_listens_to_the_plain_channel_of_the_name_has_other_interests() {
    let mut f = fixture();
    let Some(interests) = sharded(&mut f, &["orders"]) else { return };
    let mut subscription = f.listen_to(interests, &DispatcherId::generate("d0"));
    let _plain = f.listen_to(Interests::in_channel("orders"), &DispatcherId::generate("d1"));
    let seen = loop {
        if let Some(seen) = subscription.read().expect("it is read").expect("something comes").seen.pop() {
            break seen;
        }
    };
    assert!(matches!(seen, Seen::OtherInterests(..)), "{seen:?}");
}

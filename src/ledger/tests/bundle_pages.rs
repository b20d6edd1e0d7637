//! Pages of the backlog where some or most messages are in bundles.

use super::bundles::{bundled, bundles, store, without};
use super::transactions::other;
use super::*;
use crate::base::bundle::BUNDLE_MESSAGES;
use crate::base::refusal::Refusal;
use crate::ledger::resp::MAX_REPLY_BYTES;

/// Single messages, bundles, and members of strangers among them, whose scores may be fractions; the ids of the
/// messages.
fn stored_at_random(f: &mut Fixture, epoch: Epoch, random: &mut fastrand::Rng) -> Vec<u64> {
    f.run(&["DEL", "messages:pending", "messages:cursor"]);
    let (mut next, mut ids) = (1_000, Vec::new());
    for stranger in 0..random.u64(1..20) {
        next += random.u64(1..40);
        let length = match random.u8(0..4) {
            0 => random.u64(1..4),
            1 | 2 => 16 * random.u64(1..5),
            _ => {
                let below = if random.bool() { (1_i64 << 53) as f64 } else { 0.0 };
                let score = next as f64 + [0.0, 0.5][random.usize(0..2)] - below;
                f.run(&["ZADD", "messages:pending", &score.to_string(), &format!("stranger {stranger}")]);
                continue;
            }
        };
        ids.extend(next..next + length);
        next += length;
    }
    if !ids.is_empty() {
        store(f, epoch, &ids);
    }
    ids
}

#[test]
fn pages_of_any_size_give_each_message_once_and_in_order() {
    let mut f = fixture();
    let epoch = f.acquire(&DispatcherId::generate("a"), Epoch(0)).epoch;
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let ids = stored_at_random(&mut f, epoch, &mut random);
        for (most, bytes) in [(1, 1), (5, 1 << 20), (17, 300), (40, 1 << 20), (1_000, 2_000), (1_000, 1 << 20)] {
            let (mut found, mut after, end) = (Vec::new(), MessageId(random.u64(0..1_100)), MessageId(1 << 40));
            let expected: Vec<u64> = ids.iter().copied().filter(|id| *id > after.0).collect();
            let first = f.ledger.page_without_payloads(epoch, after, end).expect("it leads").read_up_to;
            assert!(first.is_some() || expected.is_empty(), "seed {seed}");
            loop {
                let page = f.ledger.page(epoch, part(after, end, most, bytes)).expect("it leads");
                found.extend(page.messages.iter().map(|message| message.id.0));
                let Some(up_to) = page.read_up_to else { break };
                assert!(up_to > after || page.messages.is_empty(), "seed {seed}, {most} {bytes}: {up_to} {after}");
                after = up_to;
            }
            assert_eq!(found, expected, "seed {seed}, {most} messages, {bytes} bytes");
        }
        for most in [1, 3, 1_000] {
            let (mut found, mut after) = (Vec::new(), MessageId::ZERO);
            while let page = f.ledger.look(after, MessageId(1 << 40), most).expect("they are looked at")
                && let Some(up_to) = page.read_up_to
            {
                found.extend(page.messages.iter().map(|message| message.id.0));
                after = up_to;
            }
            assert_eq!(found, ids, "seed {seed}, {most} at a time");
        }
    }
}

#[test]
fn a_page_of_bundles_is_what_the_script_would_read_alone() {
    let mut f = fixture();
    let epoch = f.acquire(&DispatcherId::generate("a"), Epoch(0)).epoch;
    let all: Vec<u64> = (1_000..1_000 + 16 * 100).collect();
    store(&mut f, epoch, &all);
    let end = MessageId(1 << 40);
    // How many messages there are in the page from here on, which the script must read alike if it reads alone.
    let read = |f: &mut Fixture, from: u64, up_to, most, bytes| {
        let after = MessageId(from - 1);
        let page = f.ledger.page_of_bundles(epoch, part(after, up_to, most, bytes)).expect("it is read")?;
        let count = page.messages.len();
        let script = f.ledger.read_page(epoch, part(after, up_to, count, 1 << 20)).expect("it leads");
        assert_eq!(page, script);
        Some(count)
    };
    assert_eq!(read(&mut f, 1_000, end, 1_000, 1 << 20), Some(1_008));
    assert_eq!(read(&mut f, 1_000, end, 1_000, 1 << 18), Some(256), "as many as fit");
    assert_eq!(read(&mut f, 1_010, end, 1_000, 1 << 20), Some(998), "from the middle of a bundle on");
    assert_eq!(read(&mut f, 1_000, MessageId(1_500), 1_000, 1 << 20), Some(501), "to the middle of one");
    assert_eq!(
        [(100, 1 << 20), (1, 1)].map(|(most, bytes)| read(&mut f, 1_000, end, most, bytes)),
        [112, 16].map(Some)
    );
    assert_eq!(read(&mut f, 1_000 + 16 * 93, end, 1_000, 1 << 20), Some(112), "to the end");
    f.ledger.reads_bundles = true;
    let stale = Epoch(epoch.0 + 1);
    let refused = f.ledger.page(stale, part(MessageId(999), end, 1_000, 1 << 20)).err();
    assert!(matches!(refused, Some(Error::Fenced { mine, .. }) if mine == stale), "{refused:?}");

    // Three are taken apart. What is left of them is read with the others, one of them in its second delivery.
    f.ledger.commit(None, None, Raise::Nothing, &(1_112..1_123).map(commit).collect::<Vec<_>>()).expect("recorded");
    f.ledger.fetch(epoch, &[9, 11].map(|bundle| MessageId(1_000 + bundle * 16)), 1 << 20).expect("it leads");
    f.run(&["HSET", "messages:attempts", "1125", "2"]);
    assert_eq!(bundles(&mut f), 97);
    assert_eq!(read(&mut f, 1_000, end, 1_000, 1 << 20), Some(7 * 16 + 5 + 4 * 16 + 52 * 16));
    assert_eq!(read(&mut f, 1_000, end, 130, 1 << 20), Some(7 * 16 + 5 + 16), "only whole bundles");
    assert_eq!(read(&mut f, 1_112, end, 1_000, 1), Some(1), "as far as the others were read");
    let large = format!("{:016x}:{}", 1_128 - 16, "x".repeat(2 << 20));
    f.run(&["ZADD", "messages:pending", "1112", &large]);
    assert_eq!(read(&mut f, 1_000, end, 1_000, 1 << 20), Some(7 * 16 + 1), "a large one ends the page");
    f.run(&["ZREM", "messages:pending", &large]);

    // What strangers have put there.
    f.run(&["ZADD", "messages:pending", "1050.5", "a stranger"]);
    assert_eq!(read(&mut f, 1_000, end, 1_000, 1 << 20), Some(7 * 16 + 5 + 4 * 16 + 52 * 16));
    let copy = format!("{:016x}:x", 1_300);
    f.run(&["ZADD", "messages:pending", "1300", &copy]);
    assert_eq!(read(&mut f, 1_000, end, 1_000, 1 << 20), None, "it is there twice");
    f.run(&["ZREM", "messages:pending", &copy]);
    let words = ["ZRANGEBYSCORE", "messages:pending", "-inf", "+inf", "LIMIT", "0", "1"];
    let Value::Array(first) = f.run(&words) else { panic!("a list") };
    let first = text(&first[0]).expect("it is text");
    f.run(&["ZREM", "messages:pending", first]);
    f.run(&["ZADD", "messages:pending", &((1_500 - (1_i64 << 53)).to_string()), first]);
    assert_eq!(read(&mut f, 1_016, end, 1_000, 1 << 20), None, "a bundle in the place of another one");
    let (mut found, mut after) = (Vec::new(), MessageId(999));
    while let page = f.ledger.page(epoch, part(after, end, 1_000, 1 << 20)).expect("it leads")
        && let Some(up_to) = page.read_up_to
    {
        found.extend(page.messages.iter().map(|message| message.id.0));
        after = up_to;
    }
    let gone = |id: &u64| (1_000..1_016).contains(id) || (1_112..1_123).contains(id);
    assert_eq!(found, all.into_iter().filter(|id| !gone(id)).collect::<Vec<_>>());
}

#[test]
fn a_large_member_among_the_bundles_fails_one_page() {
    let mut f = fixture();
    let epoch = f.acquire(&DispatcherId::generate("a"), Epoch(0)).epoch;
    let all: Vec<u64> = (1_000..1_000 + 16 * 200).collect();
    store(&mut f, epoch, &all);
    let score = (bundle::scores_within(MessageId(2_600), MessageId(2_615)).0 + 1).to_string();
    f.run(&["ZADD", "messages:pending", &score, &"x".repeat(MAX_REPLY_BYTES + 1)]);
    let (mut found, mut after, mut failures) = (Vec::new(), MessageId(999), 0);
    loop {
        match f.ledger.page(epoch, part(after, MessageId(1 << 40), 1_000, 1 << 20)) {
            Ok(page) => {
                found.extend(page.messages.iter().map(|message| message.id.0));
                let Some(up_to) = page.read_up_to else { break };
                after = up_to;
            }
            Err(error) => {
                assert_eq!(error.refusal(), Some(Refusal::TooLarge), "{error}");
                failures += 1;
                assert!(failures < 3, "{error}");
            }
        }
    }
    assert_eq!((found, failures), (all, 1));
}

#[test]
fn bundles_that_are_taken_apart_meanwhile_are_read_once() {
    let mut f = fixture();
    let epoch = f.acquire(&DispatcherId::generate("a"), Epoch(0)).epoch;
    let all: Vec<u64> = (1_000..1_000 + 16 * 300).collect();
    store(&mut f, epoch, &all);
    let mut other = other(&f);
    std::thread::scope(|scope| {
        let taking_apart = scope.spawn(move || {
            for id in (1_000..1_000 + 16 * 300).step_by(16) {
                other.fetch(epoch, &[MessageId(id)], 1 << 20).expect("it leads");
            }
        });
        let mut is_last = false;
        while !is_last {
            is_last = taking_apart.is_finished();
            let (mut found, mut after) = (Vec::new(), MessageId::ZERO);
            while let page = f.ledger.page(epoch, part(after, MessageId(1 << 40), 1_000, 1 << 20)).expect("it leads")
                && let Some(up_to) = page.read_up_to
            {
                found.extend(page.messages.iter().map(|message| message.id.0));
                after = up_to;
            }
            assert_eq!(found, all);
        }
    });
    assert_eq!(bundles(&mut f), 0);
}

#[test]
fn strangers_in_great_number_hide_nothing_and_make_no_page_longer() {
    const STRANGERS: u64 = 20_000;
    let (mut f, epoch) = bundled();
    f.run(&["HSET", "messages:attempts", "5", "2"]);
    // Below all ids, between two of them, and among the bundles.
    for (lowest, step) in [(0.001, 0.000_01), (6.0, 0.001), (-9_007_199_254_740_800.0, 1.0)] {
        let score = |number| (lowest + step * number as f64).to_string();
        for part in (0..STRANGERS).collect::<Vec<_>>().chunks(1_000) {
            let words = part.iter().flat_map(|number| [score(*number), format!("stranger {lowest} {number}")]);
            let words: Vec<String> = ["ZADD", "messages:pending"].map(str::to_owned).into_iter().chain(words).collect();
            f.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
    let (mut found, mut after, end) = (Vec::new(), MessageId::ZERO, MessageId(1 << 52));
    while let page = f.ledger.page(epoch, part(after, end, 100, 1 << 20)).expect("it leads")
        && let Some(up_to) = page.read_up_to
    {
        assert!(page.messages.len() < 100 + BUNDLE_MESSAGES && up_to > after);
        found.extend(page.messages.iter().map(|message| message.id.0));
        after = up_to;
    }
    assert_eq!(found, without(&[]));
    let (mut found, mut after, mut foreign) = (Vec::new(), MessageId::ZERO, 0);
    loop {
        let page = f.ledger.look(after, MessageId(crate::base::id::MAX_MESSAGE_ID), 100).expect("they are looked at");
        found.extend(page.messages.iter().map(|message| message.id.0));
        foreign += page.foreign;
        let Some(up_to) = page.read_up_to else { break };
        after = up_to;
    }
    assert_eq!(found, without(&[]));
    assert!(
        (STRANGERS..=3 * STRANGERS).contains(&foreign),
        "{foreign}: of those between two ids a part is passed over"
    );
}

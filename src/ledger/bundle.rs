//! Bundles as members of the sorted set: `<first id>*<length>,<length>,…:<message><message>…`, where each length is
//! `<payload bytes>` or, with the channel, `<channel bytes>+<payload bytes>`.
//!
//! The score is the last id minus 2^53. So all bundles are below 0, in order of their ids, before the members of single
//! messages; `ZCOUNT -inf (0` counts them, and the messages of a bundle are found by the ids that its score may have. A
//! bundle in Redis is whole: all its messages are pending. A script that is about some of them first makes each of them
//! a member of its own (`lua/bundles.lua`).

use super::command::Command;
use super::member::{self, Body, Payload};
use super::types::Arrival;
use crate::base::bundle::{BUNDLE_MESSAGES, BundlePosition, MAX_BUNDLE_BYTES, whole};
use crate::base::id::{MAX_MESSAGE_ID, MessageId};

/// Below which all scores of bundles are, and how far a bundle's score is below its last id: 2^53.
const BELOW: i64 = 1 << 53;

/// The score of a message that is a member of its own. An id beyond all that are assigned, which only a peer can name,
/// has the highest one.
pub(super) fn score_alone(id: MessageId) -> i64 {
    id.0.min(MAX_MESSAGE_ID) as i64
}

/// The score of the bundle that ends with this message.
pub(super) fn score_of(last: MessageId) -> i64 {
    score_alone(last) - BELOW
}

/// The lowest and the highest score of bundles that lie in this range of ids, ends included.
pub(super) fn scores_within(first: MessageId, last: MessageId) -> (i64, i64) {
    (score_of(first) + BUNDLE_MESSAGES as i64 - 1, score_of(last))
}

/// The lowest and the highest score that a bundle with this message has.
pub(super) fn scores_with(id: MessageId) -> (i64, i64) {
    (score_of(id), (score_of(id) + BUNDLE_MESSAGES as i64 - 1).min(-1))
}

/// Counts the bundles in the sorted set with this key.
pub(super) fn count(pending: &str) -> Command {
    Command::of(&["ZCOUNT", pending, "-inf", "(0"])
}

/// How many messages so many members are, of which so many are bundles.
pub(super) fn messages(members: u64, bundles: u64) -> u64 {
    members + bundles * (BUNDLE_MESSAGES as u64 - 1)
}

/// Divides messages that are stored together into bundles, as far as they are small and their ids follow one another.
/// The others become members of their own.
pub fn form(batch: &mut [Arrival]) {
    let mut at = 0;
    while at < batch.len() {
        let small = batch[at..].iter().scan(0, |bytes, arrival| {
            *bytes += arrival.body.bytes();
            Some(arrival.refused.is_none() && *bytes <= MAX_BUNDLE_BYTES)
        });
        let small = small.take(BUNDLE_MESSAGES).take_while(|small| *small).count();
        let follow = batch[at..].windows(2).take(BUNDLE_MESSAGES - 1);
        let follow = 1 + follow.take_while(|two| two[0].id.0 + 1 == two[1].id.0).count();
        let count = small.min(follow);
        let positions = BundlePosition::all().map(|position| Some(position).filter(|_| count == BUNDLE_MESSAGES));
        for (arrival, position) in batch[at..].iter_mut().take(count.max(1)).zip(positions) {
            arrival.body.set_position(position);
        }
        at += count.max(1);
    }
}

/// Makes each of these messages a member of its own.
pub fn dissolve(batch: &mut [Arrival]) {
    batch.iter_mut().for_each(|arrival| arrival.body.set_position(None));
}

/// The members for a batch, in order: those of whole bundles together.
pub(super) fn units(batch: &[Arrival]) -> impl Iterator<Item = &[Arrival]> {
    let mut rest = batch;
    std::iter::from_fn(move || {
        let bundled = whole(rest, |arrival| (arrival.id, arrival.body.position()));
        let (unit, others) = rest.split_at(bundled.max(1).min(rest.len()));
        rest = others;
        (!unit.is_empty()).then_some(unit)
    })
}

/// The score and the member for a unit. `out` is overwritten.
pub(super) fn encode<'a>(unit: &[Arrival], out: &'a mut Vec<u8>) -> (i64, &'a [u8]) {
    let score = encode_head(unit, out);
    bodies(unit).for_each(|body| out.extend_from_slice(body));
    (score, out)
}

/// The score of the member for a unit, and in `out`, which is overwritten, what it has in front of the bodies.
pub(super) fn encode_head(unit: &[Arrival], out: &mut Vec<u8>) -> i64 {
    if let [Arrival { id, body, .. }] = unit {
        member::encode_head(*id, body, out);
        return score_alone(*id);
    }
    out.clear();
    member::push_id(unit[0].id, out);
    for (at, Arrival { body, .. }) in unit.iter().enumerate() {
        out.push(if at == 0 { b'*' } else { b',' });
        if let Some(channel) = body.channel() {
            push_number(channel.len(), out);
            out.push(b'+');
        }
        push_number(body.payload().len(), out);
    }
    out.push(b':');
    score_of(unit[unit.len() - 1].id)
}

/// What the member for a unit has behind that.
pub(super) fn bodies(unit: &[Arrival]) -> impl Iterator<Item = &[u8]> + Clone {
    unit.iter().map(|arrival| arrival.body.joined().1)
}

fn push_number(number: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(number.to_string().as_bytes());
}

/// Takes a bundle apart; `None` if it is foreign. The messages share one allocation.
pub(super) fn decode(member: &[u8]) -> Option<Vec<(MessageId, Body)>> {
    let (first, rest) = member::split_id(member)?;
    let lengths = rest.strip_prefix(b"*")?;
    let colon = lengths.iter().position(|byte| *byte == b':')?;
    let (lengths, bodies) = (&lengths[..colon], Payload::copy_from_slice(&lengths[colon + 1..]));
    let (mut messages, mut from) = (Vec::with_capacity(BUNDLE_MESSAGES), 0_usize);
    let mut positions = BundlePosition::all();
    for length in lengths.split(|byte| *byte == b',') {
        let position = positions.next()?;
        let (channel, payload) = match length.iter().position(|byte| *byte == b'+') {
            Some(plus) => (usize::from(member::channel_length(&length[..plus])?.get()), &length[plus + 1..]),
            None => (0, length),
        };
        let to = from.checked_add(channel)?.checked_add(payload_length(payload)?)?;
        if to > bodies.len() {
            return None;
        }
        let mut body = Body::of_joined(bodies.slice(from..to), channel);
        body.set_position(Some(position));
        messages.push((MessageId(first.0.checked_add(position.number().into())?), body));
        from = to;
    }
    let is_whole = positions.next().is_none() && from == bodies.len() && from <= MAX_BUNDLE_BYTES;
    is_whole.then_some(messages)
}

/// A length as we write it.
fn payload_length(digits: &[u8]) -> Option<usize> {
    let plain = digits == b"0" || digits.first() != Some(&b'0') && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(first: u64, bodies: &[Body]) -> Vec<Arrival> {
        let arrival = |(id, body): (u64, &Body)| Arrival { id: MessageId(id), body: body.clone(), refused: None };
        (first..).zip(bodies).map(arrival).collect()
    }

    fn positions(batch: &[Arrival]) -> Vec<Option<u8>> {
        batch.iter().map(|arrival| arrival.body.position().map(BundlePosition::number)).collect()
    }

    #[test]
    fn small_messages_that_follow_one_another_are_bundled() {
        let small = Body::copied(Some(b"eu"), b"x");
        let mut all = batch(100, &vec![small.clone(); 33]);
        form(&mut all);
        let whole: Vec<Option<u8>> = (0..16).map(Some).collect();
        assert_eq!(positions(&all), [&whole[..], &whole, &[None]].concat());
        assert_eq!(units(&all).map(<[_]>::len).collect::<Vec<_>>(), [16, 16, 1]);
        dissolve(&mut all);
        assert_eq!(units(&all).count(), 33);
        // A hole in the ids, one that is refused, and one that is too large.
        for spoil in [
            |batch: &mut [Arrival]| batch[5..].iter_mut().for_each(|arrival| arrival.id.0 += 1),
            |batch: &mut [Arrival]| batch[4].refused = Some(String::new()),
            |batch: &mut [Arrival]| batch[4].body = Body::copied(None, &[0; MAX_BUNDLE_BYTES + 1]),
        ] {
            let mut all = batch(100, &vec![small.clone(); 5 + 16]);
            spoil(&mut all);
            form(&mut all);
            assert_eq!(positions(&all), [&[None; 5][..], &whole].concat());
        }
    }

    #[test]
    fn bundles_read_back() {
        let mut bodies = vec![Body::copied(None, b"a:b,c"); 14];
        bodies.push(Body::copied(Some(b"12+3"), b""));
        bodies.push(Body::copied(None, b""));
        let mut all = batch(0x6_5bfe_da27_c240, &bodies);
        form(&mut all);
        let mut member = Vec::new();
        let (score, member) = encode(&all, &mut member);
        assert_eq!(score, 0x6_5bfe_da27_c24f - (1 << 53));
        let text = format!("00065bfeda27c240*{}4+0,0:{}12+3", "5,".repeat(14), "a:b,c".repeat(14));
        assert_eq!(String::from_utf8_lossy(member), text);
        let expected: Vec<_> = all.into_iter().map(|arrival| (arrival.id, arrival.body)).collect();
        assert_eq!(decode(member), Some(expected));
        assert_eq!(member::decode(member), None);
        for foreign in [
            &text[..text.len() - 1],
            &format!("{text}x"),
            &text.replacen("5,", "", 1),
            &text.replacen("5,", "5,0,", 1),
            &text.replacen("5,", "05,", 1),
            &text.replacen("5,", "+5,", 1),
            &text.replacen("5,", "0+5,", 1),
            &text.replacen("5,", "18446744073709551615,", 1),
            &text.replacen("5,", "18446744073709551616,", 1),
            &text.replacen('*', ":", 1),
            "00065bfeda27c240*",
            "",
        ] {
            assert_eq!(decode(foreign.as_bytes()), None, "{foreign}");
        }
    }

    #[test]
    fn a_bundle_is_found_by_each_of_its_messages() {
        let score = score_of(MessageId(115));
        let has = |id: u64| {
            let (low, high) = scores_with(MessageId(id));
            (low..=high).contains(&score)
        };
        assert!((100..=115).all(has) && !has(99) && !has(116));
        let lies = |first, last| {
            let (low, high) = scores_within(MessageId(first), MessageId(last));
            (low..=high).contains(&score)
        };
        assert!(lies(100, 115) && lies(90, 120) && !lies(101, 120) && !lies(90, 114));
    }
}

//! Properties of arbitrary bytes: members, cursors, markers, notices and what a server pushes. Each yields a value that
//! is written the same again, or an error; never a panic.

use proptest::prelude::*;

use super::resp::{EXCERPT_BYTES, Received, Unreadable, receive};
use super::subscription::Notice;
use super::{
    Answer, Body, Command, Cursor, Location, MOST_ASKED, MOST_RETURNED, Marker, Position, Question, RequestId,
    decode_member, encode_member, most_member_len,
};
use crate::base::id::{Epoch, MAX_BELIEVED_ID, MessageId};

/// Small, so that oversize messages come up.
const LIMIT: u64 = 40;

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..most)
}

fn marker() -> impl Strategy<Value = Marker> {
    "[!-~]{1,160}".prop_map(|text| text.parse().expect("graphic characters make a marker"))
}

/// Texts that look enough like ours to reach deep into the parsers.
fn namelike() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("marker".to_owned()),
        Just("released".to_owned()),
        "[0-9]{1,20}",
        "[+-]?0?[0-9]{1,3}",
        "[a-z0-9.-]{0,12}",
        "\\PC{0,3}",
    ];
    prop::collection::vec((word, prop_oneof![4 => Just(" "), 1 => Just("  "), 1 => Just("")]), 0..5)
        .prop_map(|words| words.into_iter().map(|(word, gap)| word + gap).collect())
}

/// Lines and lengths of RESP in any order, most of them truthful.
fn resplike() -> impl Strategy<Value = Vec<u8>> {
    let line = |text: String| (text + "\r\n").into_bytes();
    let bulk = |text: Vec<u8>| [format!("${}\r\n", text.len()).as_bytes(), &text, b"\r\n"].concat();
    let push = bytes(60).prop_map(move |payload| [&b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n"[..], &bulk(payload)].concat());
    let piece = prop_oneof![
        3 => push,
        2 => bytes(20).prop_map(bulk),
        3 => "[-+:_#,(*~>%|$=!][0-9a-z-]{0,3}".prop_map(line),
        1 => "[*~>%|$][0-9]{1,20}".prop_map(line),
        1 => bytes(8),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// Takes all values off the front, and checks each value alone and each prefix of the whole.
fn judge(all: &[u8]) -> Result<(), TestCaseError> {
    let mut rest = all;
    while let Ok(Some((received, length))) = receive(rest, LIMIT) {
        prop_assert!(0 < length && length <= rest.len());
        match received {
            Received::Oversize { excerpt, length: whole, rest: missing, .. } => {
                prop_assert!(whole > LIMIT && excerpt.len() as u64 <= whole);
                prop_assert!(excerpt.len() >= EXCERPT_BYTES.min(whole as usize));
                prop_assert_eq!(excerpt.len() as u64 + missing, whole + 2);
            }
            received => {
                prop_assert_eq!(receive(&rest[..length], LIMIT), Ok(Some((received, length))));
                let halfway = receive(&rest[..length / 2], LIMIT);
                prop_assert_eq!(halfway, Ok(None), "half of a value is not a value");
            }
        }
        rest = &rest[length..];
    }
    Ok(())
}

/// Consumer ids have no control characters, but any other.
fn location() -> impl Strategy<Value = Location> {
    let consumer = "[a-z :.é]{0,12}";
    prop_oneof![
        (any::<u64>(), any::<u16>(), consumer).prop_map(|(for_ms, delivery, consumer)| Location::At {
            for_ms,
            delivery,
            consumer
        }),
        consumer.prop_map(|consumer| Location::Recording { consumer }),
        any::<u64>().prop_map(|due_ms| Location::Delayed { due_ms }),
        Just(Location::Waiting),
        Just(Location::Behind),
        Just(Location::Settling),
        Just(Location::Stored),
        Just(Location::Unknown),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn members_read_back(id: u64, channel in prop::option::of(bytes(20)), payload in bytes(80)) {
        let mut member = Vec::new();
        let body = Body::copied(channel.as_deref(), &payload);
        encode_member(MessageId(id), &body, &mut member);
        prop_assert!(member.len() <= most_member_len(body.bytes()));
        prop_assert_eq!(body.payload(), &payload[..]);
        prop_assert_eq!(decode_member(&member), Some((MessageId(id), body)));
    }

    #[test]
    fn any_bytes_are_a_member_or_none(
        member in prop_oneof![bytes(60), "[0-9a-fA-F]{16}(:|@[0-9]{0,3}:)?.{0,4}".prop_map(String::into_bytes)],
    ) {
        if let Some((id, body)) = decode_member(&member) {
            let mut again = Vec::new();
            encode_member(id, &body, &mut again);
            prop_assert_eq!(again, member);
        }
    }

    #[test]
    fn cursors_read_back(marker in marker(), offset: u64, last_id in 0..=MAX_BELIEVED_ID) {
        let cursor = Cursor { position: Position { marker, offset }, last_id: MessageId(last_id) };
        prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }

    #[test]
    fn notices_read_back(
        marker in marker(),
        channel in "\\PC{0,40}",
        epoch: u64,
        ids in prop::collection::vec(any::<u64>().prop_map(MessageId), 1..=MOST_RETURNED),
    ) {
        let question = Question { request: RequestId(epoch), ids: ids.clone() };
        for notice in [
            Notice::Marker(marker, channel),
            Notice::Released(Epoch(epoch)),
            Notice::Returned(ids),
            Notice::Settings,
            Notice::Where(question),
        ] {
            prop_assert_eq!(notice.to_string().parse(), Ok(notice));
        }
    }

    #[test]
    fn answers_read_back(
        located in prop::collection::vec((any::<u64>().prop_map(MessageId), location()), 0..=MOST_ASKED),
    ) {
        let answer = Answer(located);
        prop_assert_eq!(answer.to_string().parse(), Ok(answer));
    }

    #[test]
    fn any_text_is_an_answer_or_refused(
        text in prop_oneof![
            "([0-9a-f]{16} (at|delayed|waiting|recording|stored)( [0-9a-z]{0,5}){0,4}\n){0,3}",
            "[0-9a-f]{16}( [0-9a-f]{16}){0,3}",
            any::<String>(),
        ],
    ) {
        if let Ok(answer) = text.parse::<Answer>() {
            prop_assert!(answer.0.len() <= MOST_ASKED);
            prop_assert_eq!(answer.to_string().parse(), Ok(answer));
        }
        if let Ok(question) = text.parse::<Question>() {
            prop_assert_eq!(question.to_string(), &text[..]);
        }
    }

    /// The intake script compares cursors as texts: one that is accepted must be written exactly as it was read.
    #[test]
    fn any_text_is_a_name_or_refused(text in prop_oneof![namelike(), any::<String>()]) {
        if let Ok(cursor) = text.parse::<Cursor>() {
            prop_assert_eq!(cursor.to_string(), &text[..]);
        }
        if let Ok(marker) = text.parse::<Marker>() {
            prop_assert_eq!(marker.as_str(), &text[..]);
            let _ = marker.leader_place();
        }
        if let Ok(notice) = text.parse::<Notice>() {
            prop_assert_eq!(notice.to_string().parse(), Ok(notice));
        }
    }

    #[test]
    fn any_bytes_are_a_value_or_refused(all in prop_oneof![bytes(200), resplike()]) {
        judge(&all)?;
    }

    #[test]
    fn a_command_is_passed_over_whole(words in prop::collection::vec(bytes(30), 1..6)) {
        let command = words.iter().fold(Command::new(words.len()), |command, word| command.arg(word)).into_bytes();
        prop_assert_eq!(receive(&command, LIMIT), Ok(Some((Received::Other, command.len()))));
    }

    #[test]
    fn a_message_survives_being_cut_anywhere(
        channel in bytes(20),
        payload in bytes(LIMIT as usize),
        place in any::<prop::sample::Index>(),
    ) {
        let by_name: [&[u8]; 3] = [b"message", &channel, &payload];
        let by_pattern: [&[u8]; 4] = [b"pmessage", b"c*", &channel, &payload];
        for (words, pattern) in [(&by_name[..], None), (&by_pattern, Some(&b"c*"[..]))] {
            let command = words.iter().fold(Command::new(words.len()), |command, word| command.arg(word));
            let mut push = command.into_bytes();
            push[0] = b'>';
            let whole = Received::Message { pattern, channel: &channel, payload: &payload };
            prop_assert_eq!(receive(&push, LIMIT), Ok(Some((whole, push.len()))));
            prop_assert_eq!(receive(&push[..place.index(push.len())], LIMIT), Ok::<_, Unreadable>(None));
        }
    }
}

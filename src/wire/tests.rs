//! Tests of the frames: exact bytes, limits, every refusal, and totality.

use proptest::prelude::*;

use super::command::*;
use super::*;
use crate::base::bundle::BundlePosition;
use crate::base::id::{Epoch, MessageId};

mod limits;
mod proofs;
mod properties;

fn id(number: u64) -> MessageId {
    MessageId(number)
}

fn all(message: &[u8]) -> Vec<Result<Frame<'_>, WireError>> {
    frames(message).collect()
}

/// The only item of a message.
fn only(message: &[u8]) -> Result<Frame<'_>, WireError> {
    let mut items = all(message);
    assert_eq!(items.len(), 1, "{items:?}");
    items.remove(0)
}

/// A frame written byte by byte, with a correct length.
fn raw(command: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![VERSION, command];
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn malformed(command: &'static str, problem: &'static str) -> Result<Frame<'static>, WireError> {
    Err(WireError::Malformed { command, problem })
}

const TOO_SHORT: &str = "payload too short";
const LEFT_OVER: &str = "bytes are left over";
const NOT_UTF8: &str = "text is not UTF-8";
const NOT_IDS: &str = "the list of ids is not a multiple of 8 bytes";
const NO_CHANNEL: &str = "the channel's name is empty or too long";
const TOO_MANY_FIELDS: &str = "more fields announced than the payload can hold";

const NAMES: [&str; 17] = [
    "PROCESS", "ACK", "NACK", "LEAD", "READY", "HELD", "PROGRESS", "RESULT", "DRAIN", "ERROR", "DELIVER", "RESULTS",
    "HELLO", "RECORDED", "CREDIT", "PROOF", "PART",
];

/// Every command with its exact bytes.
fn examples() -> Vec<(Frame<'static>, &'static [u8])> {
    vec![
        (
            Frame::Process { id: id(0x0102_0304_0506_0708), delivery: 0x090a, body: b"hi" },
            b"\x01\x00\x00\x00\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0ahi",
        ),
        (
            Frame::Ack(vec![id(1), id(u64::MAX)]),
            b"\x01\x01\x00\x00\x00\x10\0\0\0\0\0\0\0\x01\xff\xff\xff\xff\xff\xff\xff\xff",
        ),
        (
            Frame::Nack { id: id(2), delay: NackDelay::AfterMs(0x0102_0304), reason: "é!" },
            b"\x01\x02\x00\x00\x00\x0f\0\0\0\0\0\0\0\x02\x01\x02\x03\x04\xc3\xa9!",
        ),
        (
            Frame::Lead { epoch: Epoch(0x1122), group: "messages" },
            b"\x01\x03\x00\x00\x00\x10\0\0\0\0\0\0\x11\x22messages",
        ),
        (
            Frame::Ready { prefetch: 1024, flags: ReadyFlags::COMMITS, consumer: "c:1" },
            b"\x01\x04\x00\x00\x00\x08\0\0\x04\x00\x01c:1",
        ),
        (Frame::Held(vec![]), b"\x01\x05\x00\x00\x00\x00"),
        (Frame::Progress(vec![id(3)]), b"\x01\x06\x00\x00\x00\x08\0\0\0\0\0\0\0\x03"),
        (
            Frame::Result {
                id: id(4),
                fields: vec![Field { name: b"k", value: b"\0\xff" }, Field { name: b"", value: b"" }],
            },
            b"\x01\x07\x00\x00\x00\x19\0\0\0\0\0\0\0\x04\x00\x02\x00\x01k\0\0\0\x02\0\xff\x00\x00\0\0\0\0",
        ),
        (Frame::Drain, b"\x01\x08\x00\x00\x00\x00"),
        (Frame::Error { code: ErrorCode::Stale, text: "old" }, b"\x01\x09\x00\x00\x00\x05\x00\x06old"),
        (
            Frame::Deliver { id: id(5), delivery: 2, channel_bytes: 2, joined: b"euhi" },
            b"\x01\x0a\x00\x00\x00\x10\0\0\0\0\0\0\0\x05\x00\x02\x00\x02euhi",
        ),
        (
            Frame::Results(vec![
                MessageResult { id: id(6), fields: vec![Field { name: b"k", value: b"v" }] },
                MessageResult { id: id(7), fields: vec![] },
            ]),
            b"\x01\x0b\x00\x00\x00\x1c\0\0\0\0\0\0\0\x06\x00\x01\x00\x01k\0\0\0\x01v\0\0\0\0\0\0\0\x07\x00\x00",
        ),
        (Frame::Hello("{}"), b"\x01\x0c\x00\x00\x00\x02{}"),
        (Frame::Recorded(vec![id(8)]), b"\x01\x0d\x00\x00\x00\x08\0\0\0\0\0\0\0\x08"),
        (Frame::Credit { prefetch: 0x0102_0304 }, b"\x01\x0e\x00\x00\x00\x04\x01\x02\x03\x04"),
        (Frame::Proof(Proof([0x5a; 32])), b"\x01\x0f\x00\x00\x00\x20ZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZ"),
        (
            Frame::Part { id: id(9), delivery: 2, position: position(15), channel_bytes: 2, joined: b"euhi" },
            b"\x01\x10\x00\x00\x00\x11\0\0\0\0\0\0\0\x09\x00\x02\x0f\x00\x02euhi",
        ),
    ]
}

#[test]
fn each_command_has_exactly_these_bytes() {
    for (number, (frame, bytes)) in examples().into_iter().enumerate() {
        assert_eq!(frame.to_vec(), bytes, "{}", frame.name());
        assert_eq!(frame.name(), NAMES[number]);
        assert_eq!(bytes[1] as usize, number);
        assert_eq!(only(bytes), Ok(frame));
    }
}

#[test]
fn a_message_holds_any_number_of_whole_frames() {
    assert_eq!(all(b""), vec![]);
    let mut message = b"".to_vec();
    examples().iter().for_each(|(frame, _)| frame.encode(&mut message));
    let decoded: Result<Vec<_>, _> = frames(&message).collect();
    assert_eq!(decoded.unwrap(), examples().into_iter().map(|(frame, _)| frame).collect::<Vec<_>>());
}

#[test]
fn an_error_ends_the_message_and_keeps_what_came_before() {
    let mut message = Frame::Drain.to_vec();
    message.extend(raw(ACK, &[0; 7]));
    message.extend(Frame::Drain.to_vec());
    assert_eq!(all(&message), [Ok(Frame::Drain), malformed("ACK", NOT_IDS)]);
    let mut message = Frame::Drain.to_vec();
    message.extend([VERSION, 99]);
    assert_eq!(all(&message), [Ok(Frame::Drain), Err(WireError::ShortHeader { got: 2 })]);
}

#[test]
fn every_cut_of_every_frame_is_refused() {
    for (frame, bytes) in examples() {
        for length in 1..bytes.len() {
            let expected = if length < HEADER_BYTES {
                WireError::ShortHeader { got: length }
            } else {
                let (length, got) = (bytes.len() - HEADER_BYTES, length - HEADER_BYTES);
                WireError::ShortPayload { command: frame.name(), length, got }
            };
            assert_eq!(only(&bytes[..length]), Err(expected));
        }
    }
}

#[test]
fn the_version_is_judged_before_anything_else() {
    for version in (0..=u8::MAX).filter(|version| *version != VERSION) {
        // Cut short, an unknown command, a length over the limit: these may be valid in another version.
        for rest in [&b""[..], b"\xff", b"\x08\xff\xff\xff\xff", b"\xff\xff\xff\xff\xff and more"] {
            let message = [&[version], rest].concat();
            assert_eq!(only(&message), Err(WireError::Version(version)));
        }
    }
}

#[test]
fn unknown_commands_are_refused_before_their_length_is_looked_at() {
    for command in 17..=u8::MAX {
        assert_eq!(only(&[VERSION, command, 0xff, 0xff, 0xff, 0xff]), Err(WireError::Command(command)));
        assert_eq!(only(&raw(command, b"")), Err(WireError::Command(command)));
    }
}

#[test]
fn payloads_that_are_too_short_are_refused() {
    for (command, least) in [
        (PROCESS, 10),
        (NACK, 12),
        (LEAD, 8),
        (READY, 5),
        (RESULT, 10),
        (ERROR, 2),
        (RESULTS, 10),
        (CREDIT, 4),
        (PROOF, 32),
        (PART, 13),
    ] {
        for length in 0..least {
            assert_eq!(only(&raw(command, &vec![0; length])), malformed(NAMES[command as usize], TOO_SHORT));
        }
        assert!(only(&raw(command, &vec![0; least])).is_ok());
    }
    for command in [ACK, HELD, PROGRESS, RECORDED] {
        for length in [1, 7, 9, 15] {
            assert_eq!(only(&raw(command, &vec![0; length])), malformed(NAMES[command as usize], NOT_IDS));
        }
        assert!(only(&raw(command, &[])).is_ok());
    }
}

#[test]
fn empty_bodies_texts_and_lists_are_fine() {
    for frame in [
        Frame::Process { id: id(0), delivery: 0, body: b"" },
        Frame::Nack { id: id(0), delay: NackDelay::ByBackoff, reason: "" },
        Frame::Lead { epoch: Epoch(0), group: "" },
        Frame::Ready { prefetch: 0, flags: ReadyFlags(0), consumer: "" },
        Frame::Error { code: ErrorCode::Other(0), text: "" },
        Frame::Result { id: id(0), fields: vec![] },
        Frame::Ack(vec![]),
        Frame::Held(vec![]),
        Frame::Progress(vec![]),
        Frame::Results(vec![MessageResult { id: id(0), fields: vec![] }]),
        Frame::Hello(""),
        Frame::Recorded(vec![]),
        Frame::Credit { prefetch: 0 },
    ] {
        assert_eq!(only(&frame.to_vec()), Ok(frame));
    }
}

fn position(position: u8) -> BundlePosition {
    BundlePosition::new(position).expect("a bundle has so many messages")
}

#[test]
fn a_part_has_a_position_in_its_bundle_and_perhaps_a_channel() {
    let part = |position: u8, channel_bytes: u16, joined: &[u8]| {
        raw(PART, &[&[0; 10], &[position][..], &channel_bytes.to_be_bytes(), joined].concat())
    };
    for (at, channel_bytes, joined) in [(0, 0, &b""[..]), (15, 0, b"body"), (7, 4, b"body"), (7, 1, b"cbody")] {
        let frame = Frame::Part { id: id(0), delivery: 0, position: position(at), channel_bytes, joined };
        assert_eq!(only(&part(at, channel_bytes, joined)), Ok(frame));
    }
    for at in [16, u8::MAX] {
        assert_eq!(only(&part(at, 0, b"body")), malformed("PART", "no bundle has so many messages"));
    }
    assert_eq!(only(&part(0, 3, b"ab")), malformed("PART", TOO_SHORT));
    assert_eq!(only(&part(0, 4_097, &[0; 5_000])), malformed("PART", NO_CHANNEL));
}

#[test]
fn a_channel_has_a_name_that_fits_its_frame() {
    let deliver = |channel_bytes: u16, joined: &[u8]| {
        raw(DELIVER, &[&[0; 10], &channel_bytes.to_be_bytes()[..], joined].concat())
    };
    for (channel_bytes, joined) in [(1, &b"c"[..]), (2, b"cbody"), (4_096, &[0xff; 4_096])] {
        let frame = Frame::Deliver { id: id(0), delivery: 0, channel_bytes, joined };
        assert_eq!(only(&deliver(channel_bytes, joined)), Ok(frame));
    }
    for (channel_bytes, joined) in [(0, &b"body"[..]), (4_097, &[0; 5_000]), (u16::MAX, b"")] {
        assert_eq!(only(&deliver(channel_bytes, joined)), malformed("DELIVER", NO_CHANNEL));
    }
    assert_eq!(only(&deliver(3, b"ab")), malformed("DELIVER", TOO_SHORT));
    for length in 0..12 {
        assert_eq!(only(&raw(DELIVER, &vec![0; length])), malformed("DELIVER", TOO_SHORT));
    }
}

#[test]
fn text_that_is_not_utf8_is_refused_and_a_body_may_be_anything() {
    for (command, before) in [(NACK, 12), (LEAD, 8), (READY, 5), (ERROR, 2), (HELLO, 0)] {
        for text in [&b"\xff"[..], b"ok\xc3", b"\xed\xa0\x80"] {
            let payload = [&vec![0; before], text].concat();
            assert_eq!(only(&raw(command, &payload)), malformed(NAMES[command as usize], NOT_UTF8));
        }
    }
    assert!(only(&raw(PROCESS, &[0xff; 40])).is_ok());
}

#[test]
fn leftovers_are_refused() {
    let field = b"\0\x01n\0\0\0\x01v";
    let result = |count: u16, fields: &[u8]| raw(RESULT, &[&[0; 8], &count.to_be_bytes()[..], fields].concat());
    assert!(only(&result(1, field)).is_ok());
    assert_eq!(only(&result(0, field)), malformed("RESULT", LEFT_OVER));
    assert_eq!(only(&result(1, &[&field[..], b"x"].concat())), malformed("RESULT", LEFT_OVER));
    assert_eq!(only(&result(1, &[&field[..], field].concat())), malformed("RESULT", LEFT_OVER));
    // In RESULTS another result may follow, and nothing else.
    let results = |fields: &[u8]| raw(RESULTS, &[&[0; 8], &1_u16.to_be_bytes()[..], fields].concat());
    assert!(only(&results(&[&field[..], &[0; 10]].concat())).is_ok());
    assert_eq!(only(&results(&[&field[..], &[0; 9]].concat())), malformed("RESULTS", TOO_SHORT));
    // A DRAIN has no payload at all.
    assert_eq!(only(&raw(DRAIN, b"x")), Err(WireError::TooLarge { command: "DRAIN", length: 1, limit: 0 }));
    assert_eq!(only(&raw(CREDIT, &[0; 5])), Err(WireError::TooLarge { command: "CREDIT", length: 5, limit: 4 }));
}

#[test]
fn a_result_that_lies_about_its_fields_is_refused() {
    let field = b"\0\x01n\0\0\0\x01v";
    let result = |count: u16, fields: &[u8]| raw(RESULT, &[&[0; 8], &count.to_be_bytes()[..], fields].concat());
    assert_eq!(only(&result(u16::MAX, b"")), malformed("RESULT", TOO_MANY_FIELDS));
    let second = [&[0; 10][..], &[0; 8], &u16::MAX.to_be_bytes()].concat();
    assert_eq!(only(&raw(RESULTS, &second)), malformed("RESULTS", TOO_MANY_FIELDS));
    assert_eq!(only(&result(2, field)), malformed("RESULT", TOO_MANY_FIELDS));
    // 16 bytes might hold two fields, but these do not.
    assert_eq!(only(&result(2, b"\0\x0an123456789\0\0\0\0")), malformed("RESULT", TOO_SHORT));
    for lie in [&b"\xff\xffn\0\0\0\0"[..], b"\0\x01n\xff\xff\xff\xff", b"\0\x01n\0\0\0\x02v", b"\0\x06n12345"] {
        assert_eq!(only(&result(1, lie)), malformed("RESULT", TOO_SHORT), "{lie:?}");
    }
}

#[test]
fn every_error_code_reads_back_and_each_mistake_has_its_own() {
    for number in 0..=u16::MAX {
        assert_eq!(ErrorCode::from(number).code(), number);
    }
    assert_eq!(ErrorCode::from(9), ErrorCode::Unavailable);
    assert_eq!(ErrorCode::from(10), ErrorCode::Replaced);
    assert_eq!(ErrorCode::from(11), ErrorCode::NotAuthenticated);
    assert_eq!(ErrorCode::from(12), ErrorCode::Other(12));
    assert_eq!(ErrorCode::Stale.to_string(), "Stale (6)");
    let codes = [
        (WireError::Version(2), ErrorCode::Version),
        (WireError::Command(16), ErrorCode::Command),
        (WireError::TooLarge { command: "ACK", length: 2, limit: 1 }, ErrorCode::TooLarge),
        (WireError::ShortHeader { got: 1 }, ErrorCode::Malformed),
        (WireError::ShortPayload { command: "ACK", length: 8, got: 1 }, ErrorCode::Malformed),
        (WireError::Malformed { command: "ACK", problem: NOT_IDS }, ErrorCode::Malformed),
    ];
    for (error, code) in codes {
        assert_eq!(error.code(), code);
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn flags_that_this_version_does_not_know_are_kept_apart() {
    assert!(ReadyFlags(0xff).commits() && ReadyFlags::COMMITS.commits());
    assert!(!ReadyFlags(0xfe).commits() && !ReadyFlags::default().commits());
}

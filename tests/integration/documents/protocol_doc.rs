//! docs/PROTOCOL.md agrees with the code: its tables, its frames byte by byte, its script and its values.

use std::collections::HashMap;

use oncecast::base::id::{Epoch, MessageId};
use oncecast::ledger::subscription::Notice;
use oncecast::ledger::{Body, Cursor, Keys, MAX_RESULT_FIELDS, decode_member};
use oncecast::wire::{self, ErrorCode, Frame, WireError};

use crate::support::{client, redis_server, stream};

const DOCUMENT: &str = include_str!("../../../docs/PROTOCOL.md");
const COMMIT_SCRIPT: &str = include_str!("../../../src/ledger/lua/commit.lua");

/// The contents of all code blocks of one kind, in order.
fn blocks(kind: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = DOCUMENT.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        if name == kind {
            found.push(block.join("\n"));
        }
    }
    assert!(!found.is_empty(), "no block of kind {kind}");
    found
}

/// The rows of the table with this heading, each as its cells.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let rows = DOCUMENT.lines().skip_while(|line| *line != heading).skip(2);
    let rows: Vec<Vec<_>> = rows
        .map_while(|line| line.strip_prefix("| "))
        .map(|line| line.trim_end_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    assert!(!rows.is_empty(), "no table {heading}");
    rows
}

/// The columns of the table of commands: number, name, direction, payload, largest payload.
fn commands() -> Vec<Vec<&'static str>> {
    table("| # | command | way | payload | largest payload, bytes |")
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

/// An example: one message and its description.
#[derive(Default)]
struct Example {
    /// The direction and the description of each frame.
    frames: Vec<(&'static str, String)>,
    bytes: Vec<u8>,
}

/// All examples of frames: the lines that describe the frames of one message come before its bytes.
fn examples() -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    for block in blocks("frames") {
        let mut described = false;
        for line in block.lines() {
            let way = ["D→C", "C→D"].into_iter().find(|way| line.starts_with(way));
            if way.is_some() && !described {
                found.push(Example::default());
            }
            described = way.is_some();
            let example = found.last_mut().expect("a description comes first");
            if let Some(way) = way {
                example.frames.push((way, line[way.len()..].trim().to_owned()));
            } else {
                let byte = |hex| u8::from_str_radix(hex, 16).unwrap_or_else(|_| panic!("{hex:?} in {line:?}"));
                example.bytes.extend(line.split_whitespace().map(byte));
            }
        }
    }
    found
}

#[test]
fn every_example_decodes_to_its_description() {
    let ways: HashMap<_, _> = commands().into_iter().map(|row| (row[1], row[2])).collect();
    let mut unseen: Vec<_> = ways.keys().copied().collect();
    for Example { frames: described, bytes } in examples() {
        let frames = wire::frames(&bytes).collect::<Result<Vec<_>, _>>();
        let frames = frames.unwrap_or_else(|error| panic!("{described:?}: {error}"));
        let descriptions: Vec<String> = described.iter().map(|(_, description)| description.clone()).collect();
        assert_eq!(frames.iter().map(ToString::to_string).collect::<Vec<_>>(), descriptions);
        assert_eq!(frames.iter().flat_map(Frame::to_vec).collect::<Vec<_>>(), bytes, "{descriptions:?}");
        for (frame, (way, _)) in frames.iter().zip(&described) {
            assert!([way, "both"].contains(&ways[frame.name()]), "{} goes {}", frame.name(), ways[frame.name()]);
            unseen.retain(|name| *name != frame.name());
        }
    }
    assert!(unseen.is_empty(), "without an example: {unseen:?}");
}

#[test]
fn the_table_of_commands_is_complete_and_correct() {
    let commands = commands();
    for (expected, row) in commands.iter().enumerate() {
        let (command, name, limit) = (number(row[0]), row[1], number(row[4]));
        assert_eq!(command, expected);
        // A length over the limit is refused after the header, with the name of the command.
        let header = [&[wire::VERSION, command as u8][..], &(limit as u32 + 1).to_be_bytes()].concat();
        let refusal = wire::frames(&header).next().expect("one item").expect_err("over the limit");
        assert!(
            matches!(refusal, WireError::TooLarge { command, length, limit: found }
                if command == name && length == limit + 1 && found == limit),
            "{row:?}: {refusal}"
        );
    }
    let next = [wire::VERSION, commands.len() as u8, 0, 0, 0, 0];
    assert_eq!(wire::frames(&next).next(), Some(Err(WireError::Command(commands.len() as u8))));
}

#[test]
fn the_minimum_payload_of_each_command_matches_its_fixed_fields() {
    for row in commands() {
        // For RESULT and lists, only the part before the repetition.
        let (fixed, _) = row[3].split_once("then for each").unwrap_or((row[3], ""));
        let fixed = if fixed.starts_with("any number of") { "" } else { fixed };
        let sizes = [("u8", 1), ("u16", 2), ("u32", 4), ("u64", 8), ("32", 32)];
        let size = |word: &str| sizes.iter().find(|(name, _)| *name == word).map_or(0, |(_, size)| *size);
        // A channel has at least one byte, but that of PART may be missing.
        let delivers = row[1] == "DELIVER";
        let least = fixed.split([' ', ',']).map(size).sum::<usize>() + usize::from(delivers);
        let frame = |length: usize| {
            let header = [&[wire::VERSION, number(row[0]) as u8][..], &(length as u32).to_be_bytes()].concat();
            let mut payload = vec![0; length];
            if delivers {
                payload[11] = 1;
            }
            [header, payload].concat()
        };
        let decoded = |bytes: &[u8]| wire::frames(bytes).next().expect("one item").map(|frame| frame.name().to_owned());
        assert_eq!(decoded(&frame(least)), Ok(row[1].to_owned()), "{row:?}");
        if let Some(short) = least.checked_sub(1) {
            assert!(decoded(&frame(short)).is_err(), "{row:?}");
        }
    }
}

#[test]
fn the_limits_match_the_code() {
    let limits: HashMap<_, _> = [table("| limit | bytes |"), table("| limit | number |")]
        .concat()
        .into_iter()
        .map(|row| (row[0], number(row[1])))
        .collect();
    let expected = HashMap::from([
        ("header", wire::HEADER_BYTES),
        ("body of one message", wire::MAX_BODY_BYTES),
        ("payload of any frame", wire::MAX_PAYLOAD_BYTES),
        ("WebSocket message, either way", wire::MAX_WS_MESSAGE_BYTES),
        ("group name, consumer id, reason or error text, channel of a DELIVER, HELLO", wire::MAX_TEXT_BYTES),
        ("ids in one ACK, HELD, PROGRESS or RECORDED; results in one RESULTS", wire::MAX_IDS),
        ("prefetch; a larger one counts as this", wire::MAX_IDS),
        ("fields in one result", MAX_RESULT_FIELDS),
    ]);
    assert_eq!(limits, expected);
    // These are in the text.
    assert_eq!(wire::VERSION, 1);
    assert!(DOCUMENT.contains(&format!("`Sec-WebSocket-Protocol: {}, {}`", wire::SUBPROTOCOL_1, wire::SUBPROTOCOL_2)));
    assert!(DOCUMENT.contains("The version is 1.") && DOCUMENT.contains("This is version 1;"));
    assert_eq!(wire::NackDelay::Never.to_wire(), 0xFFFF_FFFF);
    let largest_process = Frame::Process { id: MessageId(1), delivery: 1, body: &vec![0; wire::MAX_BODY_BYTES] };
    assert_eq!(largest_process.to_vec().len(), 8_388_624);
    assert!(DOCUMENT.contains("8,388,624 bytes"));
    assert_eq!(wire::MAX_CHANNEL_BYTES, wire::MAX_TEXT_BYTES);
    let joined = &vec![0; wire::MAX_CHANNEL_BYTES + wire::MAX_BODY_BYTES];
    let channel_bytes = wire::MAX_CHANNEL_BYTES as u16;
    let largest_deliver = Frame::Deliver { id: MessageId(1), delivery: 1, channel_bytes, joined };
    assert_eq!(largest_deliver.to_vec().len(), 8_392_722);
    assert!(DOCUMENT.contains("8,392,722"));
}

#[test]
fn the_error_codes_match_the_code() {
    let codes = table("| code | name | meaning | sent by |");
    for (expected, row) in (1..).zip(&codes) {
        let code = ErrorCode::from(expected);
        assert_eq!((row[0], row[1]), (expected.to_string().as_str(), format!("{code:?}").as_str()));
    }
    assert_eq!(ErrorCode::from(codes.len() as u16 + 1), ErrorCode::Other(codes.len() as u16 + 1));
}

#[test]
fn the_script_is_the_consumer_s_own_and_works_as_described() {
    let scripts = blocks("lua");
    let [beginning, rest] = &scripts[..] else { panic!("{scripts:?}") };
    assert_eq!(rest, COMMIT_SCRIPT.trim_end());
    let script = format!("{beginning}\n{rest}");
    let redis = redis_server();
    let mut connection = client(&redis.url());
    let keys = Keys::new("messages");
    let call = blocks("redis").remove(0);
    let call: Vec<&str> = call
        .split_whitespace()
        .map(|word| match word {
            "<script>" => script.as_str(),
            "''" => "",
            word => word,
        })
        .collect();
    assert_eq!(call[3..6], [&keys.pending, &keys.processed, &keys.attempts]);
    let mut run = |words: &[&str]| {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(word);
        }
        match command.query(&mut connection).expect("Redis answers") {
            redis::Value::Int(number) => vec![number],
            list => redis::from_redis_value::<Vec<i64>>(list).expect("a list of numbers"),
        }
    };
    // The first message is pending and was delivered before. The second is not pending.
    run(&["ZADD", &keys.pending, "1790000000123456", "00065bfeda27c240:body"]);
    run(&["HSET", &keys.attempts, "1790000000123456", "2"]);
    let (pending, other) = (1_790_000_000_123_456, 1_790_000_000_123_457);
    assert_eq!(run(&call), [1, other], "one is recorded");
    assert_eq!(run(&call), [0, pending, other], "a repetition changes nothing");
    assert_eq!([run(&["ZCARD", &keys.pending]), run(&["EXISTS", &keys.attempts])], [[0], [0]]);
    let results = stream(&mut connection, &keys.processed);
    let expected = [("message_id", "m-1"), ("ok", "yes")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(results, [HashMap::from(expected)]);
}

#[test]
fn the_values_shared_by_dispatchers_can_be_parsed() {
    let values = blocks("values").remove(0);
    let values: Vec<(&str, &str)> =
        values.lines().map(|line| line.split_once(' ').expect("a kind and a value")).collect();
    let (mut epochs, mut kinds) = (Vec::new(), Vec::new());
    for (kind, value) in values {
        let value = value.trim_start();
        match kind {
            "notice" => match value.parse::<Notice>().expect("a notice") {
                Notice::Marker(marker, channel) => {
                    assert_eq!(Notice::Marker(marker.clone(), channel).to_string(), value);
                    epochs.extend(marker.leader_place().map(|(epoch, _)| epoch));
                }
                Notice::Released(epoch) => {
                    assert_eq!(Notice::Released(epoch).to_string(), value);
                    epochs.push(epoch);
                }
                notice @ (Notice::Returned(_) | Notice::Settings) => assert_eq!(notice.to_string(), value),
                Notice::Where(question) => assert_eq!(Notice::Where(question).to_string(), value),
            },
            "lease" => {
                let (holder, epoch) = value.split_once(' ').expect("two words");
                assert!(holder.starts_with("d0-"));
                epochs.push(Epoch(epoch.parse().expect("an epoch")));
            }
            "cursor" => {
                let cursor: Cursor = value.parse().expect("a cursor");
                assert_eq!((cursor.to_string().as_str(), cursor.position.offset), (value, 12));
                assert_eq!(cursor.last_id, MessageId(1_790_000_000_123_456));
                epochs.extend(cursor.position.marker.leader_place().map(|(epoch, _)| epoch));
            }
            "member" => {
                let member = decode_member(value.as_bytes());
                let channel = value.contains('@').then_some(&b"orders.eu"[..]);
                let body = Body::copied(channel, br#"{"message_id":"m-1"}"#);
                assert_eq!(member, Some((MessageId(1_790_000_000_123_456), body)));
            }
            other => panic!("an unknown kind of value: {other}"),
        }
        kinds.push(kind);
    }
    assert_eq!(kinds, ["notice", "notice", "notice", "notice", "notice", "notice", "lease", "cursor", "member"]);
    assert_eq!(epochs, [Epoch(1_790_000_000_123); 4], "all but the join marker's");
}

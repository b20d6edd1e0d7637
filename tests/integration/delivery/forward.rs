//! The built-in handler `forward`: the result stream is a copy of what was published, one entry per message.

use std::collections::BTreeSet;

use crate::support::{CHANNEL, Fields, client_of, cluster_of, options, raw_stream, run, state, wait_until_done};

const PAYLOADS: [&[u8]; 5] = [b"", b"\0\xff\r\n", b"plain", b"{\"message_id\":\"m\",\"id\":\"thief\"}", b"a@1:b"];

/// The entries without their ids, of which each must be one of ours and different.
fn without_ids(entries: Vec<Fields>) -> BTreeSet<Fields> {
    let mut ids = BTreeSet::new();
    let rest = entries.into_iter().map(|mut fields| {
        let (name, id) = fields.remove(0);
        assert_eq!((name.as_slice(), id.len()), (&b"id"[..], 16));
        assert!(id.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')), "{}", id.escape_ascii());
        assert!(ids.insert(id), "an id twice");
        fields
    });
    rest.collect()
}

fn fields(all: &[(&str, &[u8])]) -> Fields {
    all.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect()
}

#[test]
fn messages_are_recorded_as_they_are_with_their_channel() {
    const CHANNELS: [&[u8]; 3] = [b"f.eu", b"f.\0\xfe", b"f."];
    let mut cluster = cluster_of(options(1, 2, "--pattern f.*", "--handler forward"));
    let connection = &mut client_of(&mut cluster);
    let letter = ["XADD", "messages:dead", "*", "id", "0000000000000001", "payload", "old", "reason", "before"];
    let _: String = run(connection, &letter);
    let mut pipeline = redis::pipe();
    for channel in CHANNELS {
        PAYLOADS.iter().for_each(|payload| {
            pipeline.publish(channel, *payload);
        });
    }
    let _: Vec<u64> = pipeline.query(connection).expect("PUBLISH is answered");
    wait_until_done(connection, CHANNELS.len() * PAYLOADS.len() + 1);
    let expected: BTreeSet<Fields> = CHANNELS
        .iter()
        .flat_map(|channel| PAYLOADS.iter().map(|payload| fields(&[("channel", *channel), ("payload", *payload)])))
        .collect();
    let entries = raw_stream(connection, "messages:processed");
    assert_eq!(entries.len(), expected.len(), "one entry for each message");
    assert_eq!(without_ids(entries), expected);
    assert_eq!(state(connection), (0, expected.len(), 1), "dead letters stay as they are");
}

#[test]
fn without_a_channel_there_is_no_field_for_it() {
    let mut cluster = cluster_of(options(1, 1, "", "--handler forward"));
    let connection = &mut client_of(&mut cluster);
    let mut pipeline = redis::pipe();
    PAYLOADS.iter().for_each(|payload| {
        pipeline.publish(CHANNEL, *payload);
    });
    let _: Vec<u64> = pipeline.query(connection).expect("PUBLISH is answered");
    wait_until_done(connection, PAYLOADS.len());
    let expected: BTreeSet<Fields> = PAYLOADS.iter().map(|payload| fields(&[("payload", *payload)])).collect();
    assert_eq!(without_ids(raw_stream(connection, "messages:processed")), expected);
}

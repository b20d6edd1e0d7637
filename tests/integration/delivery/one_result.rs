//! Each stored message gets one entry in the result stream, whatever its payload is.

use std::collections::BTreeSet;

use crate::support::{
    Fields, assert_each_once, client_of, cluster, occurrences, publish, publish_payloads, raw_stream, state, stream,
    wait_until_done, wait_until_in_sync,
};

fn value<'a>(fields: &'a [(Vec<u8>, Vec<u8>)], name: &str) -> Option<&'a [u8]> {
    fields.iter().find(|(field, _)| field == name.as_bytes()).map(|(_, value)| value.as_slice())
}

#[test]
fn each_message_has_one_result_and_every_consumer_works() {
    let mut cluster = cluster(2, 3);
    let connection = &mut client_of(&mut cluster);
    wait_until_in_sync(connection, 2);
    assert_eq!(publish(connection, "m", 0..3_000), 2, "both dispatchers receive each message");
    wait_until_done(connection, 3_000);
    let owed: Vec<String> = (0..3_000).map(|n| format!("m{n}")).collect();
    // Catches a standby that stores messages as well, and a consumer that records without removing.
    assert_each_once(connection, &owed);
    let entries = stream(connection, "messages:processed");
    let consumers = occurrences(&entries, "consumer_id");
    let names: BTreeSet<&str> = consumers.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["c0", "c1", "c2"]), "all consumers are used: {consumers:?}");
    for entry in &entries {
        let random = &entry["random_property"];
        assert!(entry.len() == 3 && random.len() == 8 && random.bytes().all(|b| b.is_ascii_hexdigit()), "{entry:?}");
    }
    let randoms = occurrences(&entries, "random_property");
    assert!(randoms.len() > 2_990, "only {} random properties for 3000 messages", randoms.len());
}

#[test]
fn equal_payloads_stay_separate_messages() {
    let mut cluster = cluster(2, 3);
    let connection = &mut client_of(&mut cluster);
    // Catches a member of the sorted set, or a dispatcher, that tells messages apart by their payload.
    publish_payloads(connection, std::iter::repeat_n("{\"message_id\":\"same\"}", 50));
    wait_until_done(connection, 50);
    assert_eq!(occurrences(&stream(connection, "messages:processed"), "message_id")["same"], 50);
}

#[test]
fn payloads_of_every_kind_are_processed() {
    let mut cluster = cluster(2, 3);
    let connection = &mut client_of(&mut cluster);
    let large: Vec<u8> = (0..1_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let largest = vec![b'x'; 8 << 20];
    let stored_whole: Vec<Vec<u8>> = vec![
        Vec::new(),
        large,
        largest,
        (0..=255).collect(),
        b"plain text".to_vec(),
        b"[1, {\"message_id\":\"in an array\"}, null]".to_vec(),
        b"{\"message_id\": broken".to_vec(),
        b"\r\n*1\r\n$4\r\nPING\r\n".to_vec(),
        b"0000000000000001:looks like a member".to_vec(),
    ];
    let nested = br#"{"a": {"b": [1, {"c": null}], "d": "e f"}, "message_id": "nested"}"#;
    publish_payloads(connection, stored_whole.iter().map(Vec::as_slice).chain([nested.as_slice()]));
    wait_until_done(connection, stored_whole.len() + 1);

    let entries = raw_stream(connection, "messages:processed");
    for payload in &stored_whole {
        // Catches a payload that is cut, re-encoded or taken for something else.
        let found: Vec<&Fields> =
            entries.iter().filter(|fields| value(fields, "payload") == Some(payload.as_slice())).collect();
        let begin = String::from_utf8_lossy(&payload[..payload.len().min(20)]);
        assert_eq!(found.len(), 1, "results for the payload of {} bytes that begins with {begin:?}", payload.len());
        assert!(value(found[0], "consumer_id").is_some() && value(found[0], "random_property").is_some());
    }
    let found = entries.iter().find(|fields| value(fields, "message_id") == Some(b"nested")).expect("its result");
    assert_eq!(found[0].0, b"message_id", "the message's id comes first");
    assert_eq!(value(found, "a"), Some(&br#"{"b":[1,{"c":null}],"d":"e f"}"#[..]));
    assert_eq!(entries.len(), stored_whole.len() + 1);
}

#[test]
fn an_oversized_payload_is_a_dead_letter_and_affects_no_other_message() {
    let mut cluster = cluster(2, 3);
    let connection = &mut client_of(&mut cluster);
    publish(connection, "before", 0..10);
    publish_payloads(connection, [vec![b'y'; 9 << 20]]);
    publish(connection, "after", 0..10);
    wait_until_done(connection, 21);
    assert_eq!(state(connection), (0, 20, 1));
    let owed: Vec<String> = ["before", "after"].iter().flat_map(|p| (0..10).map(move |n| format!("{p}{n}"))).collect();
    assert_each_once(connection, &owed);
    let letter = &stream(connection, "messages:dead")[0];
    // The reason must say how long the message was and what the limit is.
    assert!(letter["reason"].contains("9437184") && letter["reason"].contains("8388608"), "{}", letter["reason"]);
    assert!(letter["payload"].starts_with("yyyy") && letter["deliveries"] == "0", "{letter:?}");
    assert_eq!(letter["id"].len(), 16);
}

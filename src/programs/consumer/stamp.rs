//! The built-in handler `stamp`: records a message's own fields, a random property and the consumer's id.
//!
//! Each member of a JSON object becomes a [field](super::fields). Any other payload is stored whole in the field
//! `payload`. The handler never fails, whatever the payload.

use super::fields::Members;
use crate::consumer::{Delivery, HandlerError, Outcome};
use crate::ledger::{MAX_RESULT_FIELDS, Words};

const RANDOM_PROPERTY: &str = "random_property";
const CONSUMER_ID: &str = "consumer_id";
const MESSAGE_ID: &str = "message_id";
const CHANNEL: &str = "channel";
/// The fields that the handler adds to each result, beside the channel.
const ADDED_FIELDS: usize = 2;
/// About how many bytes the fields of a small message take in addition to its payload and channel.
const BESIDE_BYTES: usize = 128;

/// The fields of the JSON object (`message_id` first), `channel` if it was delivered with the message,
/// `random_property` (8 random hex digits) and `consumer_id`.
pub fn stamp(delivery: &Delivery<'_>) -> Result<Outcome, HandlerError> {
    let mut outcome = with_room_for(delivery.channel(), delivery.payload());
    if let Some(channel) = delivery.channel() {
        outcome = outcome.field(CHANNEL, channel);
    }
    Ok(outcome.field(RANDOM_PROPERTY, hex_digits(fastrand::u32(..))).field(CONSUMER_ID, delivery.consumer_id()))
}

/// The fields made from a payload: the members of a JSON object, or else the whole payload in the field `payload`. The
/// audit uses this to read ids.
pub fn outcome_of(payload: &[u8]) -> Outcome {
    with_room_for(None, payload)
}

/// The same, to which the fields that the handler adds can be added. If they include a channel, it takes the place of a
/// member of this name.
fn with_room_for(channel: Option<&[u8]>, payload: &[u8]) -> Outcome {
    let whole = || ["payload".as_bytes(), payload].into_iter().collect();
    Outcome::from_words(object_fields(payload, channel).unwrap_or_else(whole))
}

/// The members of a JSON object; `None` if the payload is not one, or has more members than a result may hold beside
/// what is added.
fn object_fields(payload: &[u8], channel: Option<&[u8]>) -> Option<Words> {
    let mut members = Members::of(payload)?;
    let is_added =
        |name: &str| name == RANDOM_PROPERTY || name == CONSUMER_ID || (name == CHANNEL && channel.is_some());
    members.retain(|name, _| !is_added(name));
    if members.len() + ADDED_FIELDS + usize::from(channel.is_some()) > MAX_RESULT_FIELDS {
        return None;
    }
    members.put_first(MESSAGE_ID);
    members.into_words(payload.len() + channel.map_or(0, <[u8]>::len) + BESIDE_BYTES)
}

fn hex_digits(number: u32) -> [u8; 8] {
    std::array::from_fn(|at| b"0123456789abcdef"[(number >> (28 - 4 * at) & 0xf) as usize])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::id::MessageId;
    use crate::base::text::beginning;

    /// The fields as `name=value`, without the random one.
    fn fields(payload: impl AsRef<[u8]>) -> Vec<String> {
        let payload = payload.as_ref();
        let outcome = stamp(&Delivery::new(payload).with_id(MessageId(7)).with_consumer_id("c0")).expect("never fails");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut fields: Vec<_> = outcome.fields().map(|(name, value)| (text(name), text(value))).collect();
        let random = fields.remove(fields.len() - 2);
        assert_eq!(random.0, "random_property");
        assert_eq!(random.1.len(), 8);
        assert!(random.1.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{random:?}");
        fields.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn objects_become_fields_with_the_message_id_first() {
        assert_eq!(fields(r#"{"message_id":"m-1"}"#), ["message_id=m-1", "consumer_id=c0"]);
        assert_eq!(
            fields(r#" {"z":1, "a":"x\n\"y\"", "message_id":5, "\u0062":null, "e":""} "#),
            ["message_id=5", "z=1", "a=x\n\"y\"", "b=null", "e=", "consumer_id=c0"]
        );
        assert_eq!(fields("{}"), ["consumer_id=c0"]);
    }

    #[test]
    fn nested_values_are_compact_and_numbers_keep_their_digits() {
        assert_eq!(
            fields(r#"{"n": { "a" : [ 1 , " x \" } ", {} ] }, "big": 123456789012345678901234567890, "f": 1.10e400}"#),
            [r#"n={"a":[1," x \" } ",{}]}"#, "big=123456789012345678901234567890", "f=1.10e400", "consumer_id=c0"]
        );
    }

    #[test]
    fn our_own_fields_replace_those_of_the_payload() {
        assert_eq!(fields(r#"{"consumer_id":"thief","random_property":"x","a":1,"a":2}"#), ["a=2", "consumer_id=c0"]);
    }

    #[test]
    fn payloads_that_are_no_objects_are_stored_whole() {
        for payload in ["", "hello", "[1,2]", "17", "\"text\"", "null", "{\"a\":1} x", "{\"a\":", r#"{"a":"\ud800"}"#] {
            assert_eq!(fields(payload), [format!("payload={payload}"), "consumer_id=c0".into()]);
        }
        let outcome = stamp(&Delivery::new(b"\0\xff").with_id(MessageId(7)).with_consumer_id("c0"));
        assert_eq!(outcome.expect("never fails").fields().next(), Some((&b"payload"[..], &b"\0\xff"[..])));
    }

    #[test]
    fn the_channel_is_recorded_if_it_is_delivered() {
        let fields = |payload: &str| -> Vec<String> {
            let outcome = stamp(&Delivery::new(payload).with_channel("eu")).expect("never fails");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let fields = outcome.fields().map(|(name, value)| format!("{}={}", text(name), text(value)));
            fields.filter(|field| !field.starts_with(RANDOM_PROPERTY)).collect()
        };
        assert_eq!(fields("x"), ["payload=x", "channel=eu", "consumer_id=test"]);
        assert_eq!(fields(r#"{"channel":"made up","a":1}"#), ["a=1", "channel=eu", "consumer_id=test"]);
        let members: Vec<String> = (0..MAX_RESULT_FIELDS - 2).map(|number| format!("\"m{number}\":1")).collect();
        let full = format!("{{{}}}", members.join(","));
        assert_eq!(fields(&full).len(), 3, "as one field, so that all fit");
    }

    #[test]
    fn objects_with_more_members_than_a_result_may_hold_are_stored_whole() {
        let object = |count: usize| {
            let members: Vec<_> = (0..count).map(|i| format!("\"f{i}\":{i}")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert_eq!(fields(object(MAX_RESULT_FIELDS - 2)).len(), MAX_RESULT_FIELDS - 1);
        let over = object(MAX_RESULT_FIELDS - 1);
        assert_eq!(fields(&over), [format!("payload={over}"), "consumer_id=c0".into()]);
    }

    /// JSON values as they may be sent: numbers of any form, deep nesting, white space, escapes.
    fn json() -> impl Strategy<Value = String> {
        let number = "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?";
        let text = "\"([a-z é]|\\\\u00e9|\\\\ud800|\\\\\"|\\\\n){0,6}\"";
        let nested = (0..300_usize, prop_oneof![Just(("[", "]")), Just(("{\"a\":", "}"))])
            .prop_map(|(depth, (open, close))| format!("{}1 {}", open.repeat(depth), close.repeat(depth)));
        prop_oneof![number, text, nested, Just("null".to_owned()), Just("[1, { } ]".to_owned())]
    }

    proptest! {
        /// The audit compares what is pending with what is recorded: both must read one id of one payload.
        #[test]
        fn the_audit_reads_the_ids_that_are_recorded(
            members in prop::collection::vec(("(message_id|payload|consumer_id|a|\\\\u0061)", json()), 0..4),
            cut in 0..3_usize,
        ) {
            let members: Vec<_> = members.iter().map(|(name, value)| format!(" \"{name}\" : {value}")).collect();
            let mut object = format!("{{{}}}", members.join(","));
            object.truncate(beginning(&object, object.len() - cut).len());
            let delivery = Delivery::new(&object).with_id(MessageId(7)).with_consumer_id("c0");
            let recorded = stamp(&delivery).expect("never fails");
            for field in ["message_id", "payload", "a", "b"] {
                let id = recorded.fields().find(|(name, _)| *name == field.as_bytes()).map(|(_, id)| id.to_vec());
                let found = crate::programs::audit::id_in_payload(object.as_bytes(), field);
                prop_assert_eq!(found, id, "{} of {}", field, object);
            }
        }
    }

    #[test]
    fn deep_nesting_harms_nothing() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(fields(deep).len(), 2);
    }
}

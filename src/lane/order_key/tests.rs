use proptest::prelude::*;

use super::*;

fn key(order: &str, payload: &str) -> Option<String> {
    let body = Body::copied(None, payload.as_bytes());
    let order: OrderKey = order.parse().expect("a key");
    order.of(&body).map(|key| String::from_utf8_lossy(&key).into_owned())
}

#[test]
fn the_channel_is_a_key() {
    let of = |channel| OrderKey::Channel.of(&Body::copied(channel, b"x")).map(Cow::into_owned);
    assert_eq!([of(Some(b"eu")), of(None)], [Some(b"eu".to_vec()), Some(Vec::new())]);
}

#[test]
fn a_prefix_ends_at_the_first_separator() {
    assert_eq!(key("prefix::", "c7:order:9"), Some("c7".into()));
    assert_eq!(key("prefix:--", "a-b--c--d"), Some("a-b".into()));
    assert_eq!(key("prefix::", ":x"), Some("".into()));
    assert_eq!([key("prefix::", "x"), key("prefix::", ""), key("prefix:--", "-")], [None, None, None]);
}

#[test]
fn a_pointer_leads_to_strings_numbers_and_booleans() {
    let order = "json:/customer/id";
    for (payload, expected) in [
        (r#"{"customer":{"id":"c7"}}"#, Some("c7")),
        (r#" {"x":[{"id":1}], "customer" : {"name":"n", "id" : 17 , "z":null} } "#, Some("17")),
        (r#"{"customer":{"id":7.0}}"#, Some("7.0")),
        (r#"{"customer":{"id":true}}"#, Some("true")),
        (r#"{"customer":{"id":"\u0063\n"}}"#, Some("c\n")),
        (r#"{"\u0063ustomer":{"id":""}}"#, Some("")),
        (r#"{"customer":{"id":1,"id":2}}"#, Some("1")),
        (r#"{"customer":{"id":null}}"#, None),
        (r#"{"customer":{"id":{}}}"#, None),
        (r#"{"customer":{"id":[1]}}"#, None),
        (r#"{"customer":{"ID":1}}"#, None),
        (r#"{"customer":"id"}"#, None),
        (r#"{"customer":{"id":"c7}}"#, None),
        ("[]", None),
        ("customer", None),
        ("", None),
    ] {
        assert_eq!(key(order, payload).as_deref(), expected, "{payload}");
    }
}

#[test]
fn what_follows_the_value_does_not_matter() {
    assert_eq!(key("json:/id", r#"{"id":7,"text":"#), Some("7".into()));
}

#[test]
fn pointers_have_indexes_and_escapes() {
    let payload = r#"[10,[20,30],{"a/b":1,"m~n":2,"":3,"~1":4}]"#;
    let found = |pointer: &str| key(&format!("json:{pointer}"), payload);
    for (pointer, expected) in
        [("/0", "10"), ("/1/1", "30"), ("/2/a~1b", "1"), ("/2/m~0n", "2"), ("/2/", "3"), ("/2/~01", "4")]
    {
        assert_eq!(found(pointer).as_deref(), Some(expected), "{pointer}");
    }
    for pointer in ["/3", "/00", "/+1", "/-", "/1/2", "/1", "/x"] {
        assert_eq!(found(pointer), None, "{pointer}");
    }
}

#[test]
fn large_payloads_are_not_searched() {
    let payload = |bytes: usize| format!(r#"{{"id":7,"x":"{}"}}"#, "x".repeat(bytes - 16));
    assert_eq!(payload(MOST_JSON_BYTES).len(), MOST_JSON_BYTES - 1);
    assert_eq!(key("json:/id", &payload(MOST_JSON_BYTES)), Some("7".into()));
    assert_eq!(key("json:/id", &payload(MOST_JSON_BYTES + 2)), None);
}

#[test]
fn errors_name_the_forms() {
    for text in ["", "channels", "json", "key:x", "Channel", "channel:"] {
        assert_eq!(text.parse::<OrderKey>(), Err(FORMS), "{text}");
    }
    let long = format!("json:/{}", "x".repeat(MOST_POINTER_BYTES));
    for text in ["json:", "json:id", "json:/a~2", "json:/a~", &long] {
        assert_eq!(text.parse::<OrderKey>(), Err(POINTER), "{text}");
    }
    for text in ["prefix:", "prefix:12345678901234567"] {
        assert_eq!(text.parse::<OrderKey>(), Err(SEPARATOR), "{text}");
    }
}

proptest! {
    #[test]
    fn any_payload_is_searched(payload: Vec<u8>, json in "[\\[\\]{}\":,a0-9 \\\\n]{0,40}") {
        for order in ["channel", "json:/a", "json:/0/a", "prefix::"] {
            let order: OrderKey = order.parse().expect("a key");
            order.of(&Body::copied(None, &payload));
            order.of(&Body::copied(None, json.as_bytes()));
        }
    }

    #[test]
    fn keys_survive_being_shown(names in prop::collection::vec("[a-z~/:]{0,6}", 1..4), separator in ".{1,4}") {
        for order in [OrderKey::Json(Pointer(names)), OrderKey::Prefix(separator), OrderKey::Channel] {
            prop_assert_eq!(order.to_string().parse(), Ok(order));
        }
    }

    /// A document of any shape has the value that serde_json finds by the same pointer.
    #[test]
    fn a_pointer_finds_what_serde_json_finds(
        names in prop::collection::vec("[ab~/\"\u{e9}]{0,3}", 1..4),
        value in prop_oneof![
            any::<String>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            any::<bool>().prop_map(serde_json::Value::from),
        ],
    ) {
        let wrap = |inner, name: &String| serde_json::json!({"z": [1, {}], name.as_str(): inner});
        let document = names.iter().rev().fold(value, wrap);
        let pointer = Pointer(names);
        let expected = match document.pointer(&pointer.to_string()) {
            Some(serde_json::Value::String(text)) => text.clone(),
            other => other.expect("it is there").to_string(),
        };
        let payload = document.to_string();
        prop_assert_eq!(pointer.find(payload.as_bytes()).map(Cow::into_owned), Some(expected));
    }
}

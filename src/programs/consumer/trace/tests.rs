//! What is a trace context, and what handlers make of it.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::base::text::Quoted;
use crate::programs::consumer::{forward, stamp};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn parent(payload: impl AsRef<[u8]>) -> Option<String> {
    TraceContext::of(payload.as_ref()).map(|context| context.parent)
}

fn with_parent(value: &str) -> String {
    format!(r#"{{"traceparent":{}}}"#, serde_json::Value::from(value))
}

fn state(value: &str) -> Option<String> {
    TraceContext::of(format!(r#"{{"tracestate":{value},"traceparent":"{PARENT}"}}"#).as_bytes()).expect("valid").state
}

#[test]
fn a_valid_member_of_an_object_is_found_wherever_it_is() {
    for payload in [
        format!(r#"{{"traceparent":"{PARENT}"}}"#),
        format!(" {{ \"a\" : [1, {{\"traceparent\":5}}], \"traceparent\" :\n\"{PARENT}\" , \"b\":null }} "),
        format!(r#"{{"trace\u0070arent":"\u0030{}"}}"#, &PARENT[1..]),
        format!(r#"{{"traceparent":"invalid","traceparent":"{PARENT}"}}"#),
        format!(r#"{{"big":1e999,"deep":{}{},"traceparent":"{PARENT}"}}"#, "[".repeat(100_000), "]".repeat(100_000)),
    ] {
        assert_eq!(parent(&payload).as_deref(), Some(PARENT), "{}", &payload[..payload.len().min(200)]);
    }
}

#[test]
fn other_payloads_have_none() {
    let nested = format!(r#"{{"a":{{"traceparent":"{PARENT}"}}}}"#);
    let valid = with_parent(PARENT);
    for payload in [
        "",
        "no JSON",
        "null",
        "17",
        "{}",
        &format!("\"{PARENT}\""),
        &format!("[{valid}]"),
        &nested,
        &valid[..valid.len() - 1],
        &format!("{valid} x"),
        &format!("\u{feff}{valid}"),
        &valid.replace("parent", "Parent"),
        &format!(r#"{{"traceparent":["{PARENT}"]}}"#),
        r#"{"traceparent":null}"#,
        r#"{"traceparent":5}"#,
        &format!(r#"{{"traceparent":"{PARENT}","traceparent":"invalid"}}"#),
        &format!(r#"{{"traceparent":"{PARENT}","traceparent":null}}"#),
        &format!(r#"{{"traceparent":"\ud800{PARENT}"}}"#),
        &format!(r#"{{"\ud800":1,"traceparent":"{PARENT}"}}"#),
    ] {
        assert_eq!(parent(payload), None, "{payload}");
    }
    let mut bytes = format!(r#"{{"traceparent":"{PARENT}","a":"_"}}"#).into_bytes();
    let at = bytes.len() - 3;
    bytes[at] = 0xff;
    assert_eq!(parent(bytes), None, "JSON is UTF-8");
}

#[test]
fn only_the_form_of_the_recommendation_is_valid() {
    let later = PARENT.replacen("00", "42", 1);
    for valid in [PARENT, &later, &format!("{later}-what-is-n3w"), &format!("{later}-{}", "x".repeat(72))] {
        assert_eq!(parent(with_parent(valid)).as_deref(), Some(valid));
    }
    for invalid in [
        "",
        &PARENT[..54],
        &format!("{PARENT}-"),
        &format!("{PARENT}0"),
        &format!("{PARENT}\n"),
        &format!(" {PARENT}"),
        &format!("{later}x"),
        &format!("{later}-{}", "x".repeat(73)),
        &format!("{later}-a\r\nX-Evil: 1"),
        &format!("{later}-a\0"),
        &format!("{later}-A"),
        &format!("{later}-ü"),
        &PARENT.to_uppercase(),
        &PARENT.replacen("00", "ff", 1),
        &PARENT.replacen("00", "0g", 1),
        &PARENT.replace('-', "_"),
        &PARENT.replace("af", "ü"),
        &PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
        &PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
        // The hyphens at other places.
        "000-af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b71-69203331-01",
        &"x".repeat(10 << 20),
    ] {
        assert_eq!(parent(with_parent(invalid)), None, "{:.100}", invalid);
    }
}

#[test]
fn a_tracestate_is_printable_and_bounded_and_goes_only_with_a_traceparent() {
    for (value, expected) in [
        (r#""a=1, b=\"2\"""#, Some("a=1, b=\"2\"")),
        (r#""\u0061=1""#, Some("a=1")),
        (r#""""#, None),
        (r#"" ""#, None),
        (r#""a=\r\nX: 1""#, None),
        (r#""a=\u007f""#, None),
        (r#""é=1""#, None),
        ("5", None),
        (r#"["a=1"]"#, None),
    ] {
        assert_eq!(state(value).as_deref(), expected, "{value}");
    }
    assert_eq!(state(&format!("\"{}\"", "x".repeat(512))).map(|state| state.len()), Some(512));
    assert_eq!(state(&format!("\"{}\"", "x".repeat(513))), None);
    assert_eq!(TraceContext::of(br#"{"tracestate":"a=1"}"#), None);
}

#[test]
fn a_payload_of_10_mib_is_read_soon() {
    let begun = Instant::now();
    let filling = "\"a\":[0],".repeat((10 << 20) / 8);
    assert_eq!(parent(format!(r#"{{{filling}"traceparent":"{PARENT}"}}"#)).as_deref(), Some(PARENT));
    assert_eq!(
        parent(format!(r#"{{"a":"{}","traceparent":"{PARENT}"}}"#, "x".repeat(10 << 20))).as_deref(),
        Some(PARENT)
    );
    assert_eq!(parent("[".repeat(10 << 20)), None);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

fn fields(handler: impl Handler, payload: &str) -> Vec<String> {
    let outcome = handler.handle(&Delivery::new(payload)).expect("it never fails");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fields = outcome.fields().map(|(name, value)| format!("{}={}", text(name), text(value)));
    fields.filter(|field| !field.starts_with("random_property=")).collect()
}

#[test]
fn results_of_stamp_and_forward_have_it_once() {
    let payload = format!(r#"{{"traceparent":"{PARENT}","tracestate":"a=1"}}"#);
    let field = format!("traceparent={PARENT}");
    let stamped = vec![field.clone(), "tracestate=a=1".to_owned(), "consumer_id=test".to_owned()];
    assert_eq!(fields(Tracing(true).recorded(stamp), &payload), stamped);
    assert_eq!(fields(Tracing(false).recorded(stamp), &payload), stamped);
    let mut forwarded = vec!["id=0000000000000001".to_owned(), format!("payload={payload}")];
    assert_eq!(fields(Tracing(false).recorded(forward), &payload), forwarded);
    forwarded.extend([field.clone(), "tracestate=a=1".to_owned()]);
    assert_eq!(fields(Tracing(true).recorded(forward), &payload), forwarded);
    assert_eq!(fields(Tracing(true).recorded(forward), "x"), ["id=0000000000000001", "payload=x"]);
    // Stored whole by stamp, because it has too many members.
    let members: String = (0..4_000).map(|number| format!("\"m{number}\":1,")).collect();
    let whole = fields(Tracing(true).recorded(stamp), &format!("{{{members}{}", &payload[1..]));
    assert_eq!(whole[1..], ["consumer_id=test".to_owned(), field, "tracestate=a=1".to_owned()]);
}

#[test]
fn failures_stay_what_they_are() {
    let payload = with_parent(PARENT);
    for error in [
        HandlerError::retry("no stock"),
        HandlerError::retry_after(Duration::from_secs(5), "no stock"),
        HandlerError::reject("no stock"),
        HandlerError::not_ready("no server"),
    ] {
        let failed = |tracing: Tracing, payload: &str| {
            tracing.around(&Delivery::new(payload), |_| Err(error.clone())).expect_err("it fails")
        };
        let traced = failed(Tracing(true), &payload);
        assert_eq!(traced.to_string(), error.to_string(), "what dispatchers and dead letters get");
        assert_eq!(traced == error, error.is_not_ready(), "the log gets more");
        assert_eq!(failed(Tracing(true), "x"), error);
        assert_eq!(failed(Tracing(false), &payload), error);
    }
}

proptest! {
    #[test]
    fn whatever_is_found_is_harmless(
        parent in "(00|[0-9a-f]{2})-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[ -~]{0,4})?|\\PC{0,60}",
        state in any::<String>(),
    ) {
        let payload = serde_json::json!({ "traceparent": parent, "tracestate": state }).to_string();
        if let Some(context) = TraceContext::of(payload.as_bytes()) {
            prop_assert_eq!(&context.parent, &parent);
            prop_assert_eq!(Quoted(&context.parent).to_string(), parent);
            prop_assert!(context.members().all(|(_, value)| value.bytes().all(|byte| matches!(byte, b' '..=b'~'))));
        }
    }
}

//! A message as the line that a child reads. Pure.
//!
//! The line is a JSON object in ASCII: every other character is escaped. So it means the same whatever encoding the
//! child reads its standard input with, and no reader splits it at a character such as U+2028, at which some languages
//! end a line.

use std::fmt::Write;

use data_encoding::BASE64;

use crate::consumer::Delivery;
use crate::programs::consumer::trace::TraceContext;

/// About how many bytes a line takes in addition to payload and channel.
const BESIDE_BYTES: usize = 128;

/// The request for a delivery: one line, with its line end.
pub(super) fn line(delivery: &Delivery<'_>, context: Option<&TraceContext>) -> Vec<u8> {
    let bytes = delivery.payload().len() + delivery.channel().map_or(0, <[u8]>::len);
    let mut line = String::with_capacity(bytes + bytes / 8 + BESIDE_BYTES);
    // Writing to a string never fails.
    let _ = write!(line, "{{\"id\":\"{}\",\"delivery\":{}", delivery.id(), delivery.number());
    if delivery.lane() > 0 {
        let _ = write!(line, ",\"lane\":{}", delivery.lane());
    }
    if let Some(channel) = delivery.channel() {
        push_member(&mut line, "channel", channel);
    }
    for (name, value) in context.into_iter().flat_map(TraceContext::members) {
        push_member(&mut line, name, value.as_bytes());
    }
    push_member(&mut line, "payload", delivery.payload());
    line.push_str("}\n");
    line.into_bytes()
}

/// `,"name":"text"`, or `,"name_base64":"…"` for bytes that are not UTF-8.
fn push_member(line: &mut String, name: &str, value: &[u8]) {
    match std::str::from_utf8(value) {
        Ok(text) => {
            let _ = write!(line, ",\"{name}\":\"");
            push_escaped(line, text);
        }
        Err(_) => {
            let _ = write!(line, ",\"{name}_base64\":\"");
            BASE64.encode_append(value, line);
        }
    }
    line.push('"');
}

fn push_escaped(line: &mut String, mut text: &str) {
    let is_special = |c: char| !matches!(c, ' '..='~') || c == '"' || c == '\\';
    while let Some(at) = text.find(is_special) {
        let (plain, rest) = text.split_at(at);
        line.push_str(plain);
        let mut characters = rest.chars();
        match characters.next() {
            Some(c @ ('"' | '\\')) => line.extend(['\\', c]),
            Some('\n') => line.push_str("\\n"),
            Some('\r') => line.push_str("\\r"),
            Some('\t') => line.push_str("\\t"),
            Some(c) => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                let _ = write!(line, "\\u{unit:04x}");
            }),
            None => {}
        }
        text = characters.as_str();
    }
    line.push_str(text);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::id::MessageId;

    fn text(delivery: Delivery<'_>) -> String {
        String::from_utf8(line(&delivery, None)).expect("ASCII")
    }

    #[test]
    fn a_request_is_one_line() {
        let delivery = Delivery::new("{\"a\":\"ü\"}\n").with_id(MessageId(0x2f)).with_number(3);
        let begin = r#"{"id":"000000000000002f","delivery":3"#;
        assert_eq!(text(delivery), format!("{begin},{}\n", r#""payload":"{\"a\":\"\u00fc\"}\n"}"#));
        assert!(text(delivery.with_lane(12)).starts_with(&format!("{begin},\"lane\":12,\"payload\":\"")));
        let with_channel = text(delivery.with_channel("orders.eu"));
        assert!(with_channel.starts_with(&format!("{begin},\"channel\":\"orders.eu\",\"payload\":\"")));
        let binary = text(Delivery::new(b"\0\xff").with_channel(b"\xfe"));
        assert!(binary.ends_with(",\"channel_base64\":\"/g==\",\"payload_base64\":\"AP8=\"}\n"), "{binary}");
    }

    #[test]
    fn a_trace_context_is_a_member_of_its_own() {
        let payload =
            r#"{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","tracestate":"a=\"1\""}"#;
        let context = TraceContext::of(payload.as_bytes()).expect("valid");
        let line = line(&Delivery::new(payload), Some(&context));
        let object: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(object["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        assert_eq!((&object["tracestate"], &object["payload"]), (&"a=\"1\"".into(), &payload.into()));
    }

    proptest! {
        #[test]
        fn any_text_is_read_back_from_plain_ascii(
            payload in any::<String>(),
            special in "[\\x00-\\x20\u{2028}𝄞\"\\\\]*",
        ) {
            let payload = payload + &special;
            let line = text(Delivery::new(&payload));
            prop_assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')));
            prop_assert_eq!(line.matches('\n').count(), 1);
            let object: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            prop_assert_eq!(object["payload"].as_str(), Some(payload.as_str()));
        }
    }
}

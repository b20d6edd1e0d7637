//! The line that a child answers with. Pure.
//!
//! One of `{"ok":{…}}`, `{"ok":null}`, `{"retry":"why"}`, `{"retry":"why","after_ms":500}` and `{"reject":"why"}`. A
//! member `id` may be added; it must be that of the request. Everything else is garbage: a member that is not known, a
//! blank line, text around the object. A child that writes anything else on its standard output can't be trusted to
//! have answered the message that it was asked about.

use std::time::Duration;

use serde_json::value::RawValue;

use crate::base::id::MessageId;
use crate::base::text::beginning;
use crate::consumer::{HandlerError, Outcome};
use crate::programs::consumer::fields::{AllMembers, outcome_of_object};

/// How many bytes of a line an error shows.
const SHOWN_BYTES: usize = 100;

/// What a line says about the message with this id; an error is what is wrong with the line.
pub fn read(line: &[u8], id: MessageId) -> Result<Result<Outcome, HandlerError>, String> {
    let AllMembers(members) =
        serde_json::from_slice(line).map_err(|error| format!("{} is no JSON object: {error}", shown(line)))?;
    let (mut ok, mut retry, mut reject, mut after, mut named) = (None, None, None, None, None);
    for (name, value) in members {
        let place = match &*name {
            "ok" => &mut ok,
            "retry" => &mut retry,
            "reject" => &mut reject,
            "after_ms" => &mut after,
            "id" => &mut named,
            other => return Err(format!("no answer has a member {}", shown(other.as_bytes()))),
        };
        if place.replace(value).is_some() {
            return Err(format!("the member {name} occurs twice"));
        }
    }
    if let Some(named) = named
        && text(named).is_none_or(|text| text != id.to_string())
    {
        return Err(format!("it is for the message {}, not for {id}", shown(named.get().as_bytes())));
    }
    let after = after.map(milliseconds).transpose()?;
    match (ok, retry, reject, after) {
        (Some(value), None, None, None) => outcome(value).map(Ok),
        (None, Some(why), None, None) => Ok(Err(HandlerError::retry(reason("retry", why)?))),
        (None, Some(why), None, Some(after)) => Ok(Err(HandlerError::retry_after(after, reason("retry", why)?))),
        (None, None, Some(why), None) => Ok(Err(HandlerError::reject(reason("reject", why)?))),
        (_, None, _, Some(_)) => Err("after_ms goes with retry alone".to_owned()),
        _ => Err("an answer has one of ok, retry and reject".to_owned()),
    }
}

fn outcome(value: &RawValue) -> Result<Outcome, String> {
    if value.get() == "null" {
        return Ok(Outcome::new());
    }
    outcome_of_object(value.get().as_bytes())
        .ok_or_else(|| format!("ok takes an object or null, not {}", shown(value.get().as_bytes())))
}

fn reason(member: &str, value: &RawValue) -> Result<String, String> {
    text(value).ok_or_else(|| format!("{member} takes a text, not {}", shown(value.get().as_bytes())))
}

fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

fn milliseconds(value: &RawValue) -> Result<Duration, String> {
    let number: Result<u64, _> = serde_json::from_str(value.get());
    number
        .map(Duration::from_millis)
        .map_err(|_| format!("after_ms takes a whole number of milliseconds, not {}", shown(value.get().as_bytes())))
}

/// The beginning of what a child wrote, quoted.
pub(super) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * SHOWN_BYTES)]).into_owned();
    let text = text.trim_end();
    let begin = beginning(text, SHOWN_BYTES);
    format!("{begin:?}{}", if begin.len() < text.len() { "…" } else { "" })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: MessageId = MessageId(0x2f);

    fn answer(line: &str) -> Result<Outcome, HandlerError> {
        read(line.as_bytes(), ID).unwrap_or_else(|mistake| panic!("{line}: {mistake}"))
    }

    #[test]
    fn each_form_of_an_answer_is_understood() {
        let two = Outcome::new().field("a", "x\"").field("n", "1.50");
        for line in [
            r#"{"ok":{"a":"x\"","n":1.50}}"#,
            "  {\"id\" : \"000000000000002f\" , \"ok\":{ \"a\":\"x\\u0022\", \"n\": 1.50 } } \r",
        ] {
            assert_eq!(answer(line), Ok(two.clone()), "{line}");
        }
        assert_eq!(answer(r#"{"ok":null}"#), Ok(Outcome::new()));
        assert_eq!(answer(r#"{"ok":{}}"#), Ok(Outcome::new()));
        assert_eq!(answer(r#"{"retry":"busy"}"#), Err(HandlerError::retry("busy")));
        let after = HandlerError::retry_after(Duration::from_millis(500), "busy");
        assert_eq!(answer(r#"{"after_ms":500,"retry":"busy"}"#), Err(after));
        assert_eq!(answer(r#"{"reject":"no such user"}"#), Err(HandlerError::reject("no such user")));
    }

    #[test]
    fn everything_else_is_garbage() {
        for (line, part) in [
            ("", "no JSON object"),
            ("hello", "\"hello\" is no JSON object"),
            ("null", "no JSON object"),
            ("[]", "no JSON object"),
            (r#"{"ok":null} {"ok":null}"#, "no JSON object"),
            ("{\"ok\":\"\u{1}\"}", "no JSON object"),
            ("{}", "one of ok, retry and reject"),
            (r#"{"id":"000000000000002f"}"#, "one of ok, retry and reject"),
            (r#"{"ok":null,"retry":"x"}"#, "one of ok, retry and reject"),
            (r#"{"ok":null,"ok":null}"#, "ok occurs twice"),
            (r#"{"ok":null,"after_ms":5}"#, "after_ms goes with retry"),
            (r#"{"reject":"x","after_ms":5}"#, "after_ms goes with retry"),
            (r#"{"retry":"x","after_ms":-5}"#, "not \"-5\""),
            (r#"{"retry":"x","after_ms":"5"}"#, "whole number"),
            (r#"{"retry":7}"#, "retry takes a text, not \"7\""),
            (r#"{"reject":null}"#, "reject takes a text"),
            (r#"{"ok":"text"}"#, "an object or null"),
            (r#"{"ok":[1]}"#, "an object or null"),
            (r#"{"ok":null,"result":1}"#, "no answer has a member \"result\""),
            (r#"{"id":"0000000000000030","ok":null}"#, "not for 000000000000002f"),
            (r#"{"id":47,"ok":null}"#, "not for 000000000000002f"),
        ] {
            let mistake = read(line.as_bytes(), ID).expect_err(line);
            assert!(mistake.contains(part), "{line}: {mistake}");
        }
        assert!(read(b"{\"ok\":\"\xff\"}", ID).is_err());
        let long = read(&[b'x'; 100_000], ID).expect_err("garbage");
        assert!(long.len() < 300, "{long}");
    }

    proptest! {
        #[test]
        fn no_line_harms(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&line, ID);
        }
    }
}

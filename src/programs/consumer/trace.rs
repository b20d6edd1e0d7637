//! Trace context, as the W3C recommendation "Trace Context" defines it: the members `traceparent` and `tracestate` of
//! a payload that is a JSON object. With `--trace`, the built-in handlers pass it on, and log lines about failures have
//! it.
//!
//! Pure, and handles every input. Without `--trace` no payload is parsed.
//!
//! Guarantees: a `traceparent` consists of lower-case letters, digits and hyphens, and a `tracestate` of printable
//! ASCII; both are bounded. So they can be a header or a variable as they are, and a `traceparent` a value in the log.

use std::fmt;

use serde_core::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::Name;
use crate::consumer::{Delivery, Handler, HandlerError, Outcome};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// The length of a `traceparent` of the version 00. Later versions may add to it, after a hyphen.
const PARENT_BYTES: usize = 55;
const MAX_PARENT_BYTES: usize = 128;
const MAX_STATE_BYTES: usize = 512;

/// Whether handlers look for a trace context: the setting `--trace`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tracing(pub(super) bool);

impl Tracing {
    /// Runs a handler with the delivery's trace context, if there is one. A failure then has it for the log.
    pub(super) fn around(
        self,
        delivery: &Delivery<'_>,
        handle: impl FnOnce(Option<&TraceContext>) -> Result<Outcome, HandlerError>,
    ) -> Result<Outcome, HandlerError> {
        let Some(context) = self.0.then(|| TraceContext::of(delivery.payload())).flatten() else {
            return handle(None);
        };
        handle(Some(&context)).map_err(|error| match error.is_not_ready() {
            // This is about the consumer, not about the message.
            true => error,
            false => error.with_log_field(log_field(Some(&context))),
        })
    }

    /// A handler whose results have the trace context as fields.
    pub(super) fn recorded(
        self,
        handler: impl Fn(&Delivery<'_>) -> Result<Outcome, HandlerError> + Send + Sync + 'static,
    ) -> impl Handler {
        move |delivery: &Delivery<'_>| {
            self.around(delivery, |context| {
                let outcome = handler(delivery)?;
                Ok(match context {
                    Some(context) => context.added_to(outcome),
                    None => outcome,
                })
            })
        }
    }
}

/// A valid trace context. Displayed as a field of a log line.
#[derive(Debug, PartialEq, Eq)]
pub struct TraceContext {
    parent: String,
    state: Option<String>,
}

impl TraceContext {
    /// `None` if the payload is not a JSON object with a valid `traceparent`. Of members that occur twice, the last one
    /// counts, as in most parsers. A `tracestate` that is invalid is left out.
    pub fn of(payload: &[u8]) -> Option<TraceContext> {
        let text = std::str::from_utf8(payload).ok()?;
        let RawContext { parent, state } = serde_json::from_str(text).ok()?;
        let parent = text_of(parent?, MAX_PARENT_BYTES).filter(|text| is_traceparent(text))?;
        let state = state.and_then(|value| text_of(value, MAX_STATE_BYTES)).filter(|text| is_tracestate(text));
        Some(TraceContext { parent, state })
    }

    /// The names and values.
    pub fn members(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let state = self.state.as_deref().map(|state| (TRACESTATE, state));
        std::iter::once((TRACEPARENT, self.parent.as_str())).chain(state)
    }

    /// Adds the members as fields, except those that the result has already.
    fn added_to(&self, outcome: Outcome) -> Outcome {
        self.members().fold(outcome, |outcome, (name, value)| {
            let has = outcome.fields().any(|(field, _)| field == name.as_bytes());
            if has { outcome } else { outcome.field(name, value) }
        })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TRACEPARENT}={}", self.parent)
    }
}

/// The end of a log line: a space and the trace context, or nothing.
pub(super) fn log_field(context: Option<&TraceContext>) -> String {
    context.map_or_else(String::new, |context| format!(" {context}"))
}

/// `version-traceid-parentid-flags`, in lower-case hexadecimal digits. Neither id is zero.
fn is_traceparent(text: &str) -> bool {
    let is_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |part: &str| is_hex(part) && part.bytes().any(|byte| byte != b'0');
    if text.len() < PARENT_BYTES || !text.is_ascii() {
        return false;
    }
    let (known, added) = text.split_at(PARENT_BYTES);
    let parts: Vec<&str> = known.split('-').collect();
    let [version, trace, parent, flags] = parts[..] else { return false };
    let added_fits = match version {
        "00" => added.is_empty(),
        _ => added.is_empty() || added.starts_with('-'),
    };
    [version.len(), trace.len(), parent.len(), flags.len()] == [2, 32, 16, 2]
        && is_hex(version)
        && version != "ff"
        && is_id(trace)
        && is_id(parent)
        && is_hex(flags)
        && added_fits
        && added.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'-'))
}

fn is_tracestate(text: &str) -> bool {
    !text.trim().is_empty() && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// The text of a JSON string of at most so many bytes.
fn text_of(value: &RawValue, most_bytes: usize) -> Option<String> {
    // Escaped, a byte takes at most six: \u0041.
    if value.get().len() > 6 * most_bytes + 2 {
        return None;
    }
    serde_json::from_str::<String>(value.get()).ok().filter(|text| text.len() <= most_bytes)
}

/// The two members of an object, as JSON. All others are skipped, and take no memory.
struct RawContext<'a> {
    parent: Option<&'a RawValue>,
    state: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for RawContext<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ContextVisitor)
    }
}

struct ContextVisitor;

impl<'de> Visitor<'de> for ContextVisitor {
    type Value = RawContext<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut context = RawContext { parent: None, state: None };
        while let Some(Name(name)) = map.next_key()? {
            match &*name {
                TRACEPARENT => context.parent = Some(map.next_value()?),
                TRACESTATE => context.state = Some(map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(context)
    }
}

#[cfg(test)]
mod tests;

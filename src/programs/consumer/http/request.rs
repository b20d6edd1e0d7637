//! The headers of a request. Pure.

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use ureq::RequestBuilder;
use ureq::typestate::WithBody;

use super::target::Target;
use crate::consumer::Delivery;
use crate::programs::consumer::trace::TraceContext;

/// What is percent-encoded in a header, beside bytes that are not ASCII: with these a value would not be one, or could
/// not be decoded.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// Adds the headers for a message of this group. `group` is encoded already.
pub(super) fn with_headers(
    request: RequestBuilder<WithBody>,
    target: &Target,
    group: &str,
    delivery: &Delivery<'_>,
    context: Option<&TraceContext>,
) -> RequestBuilder<WithBody> {
    let id = delivery.id().to_string();
    let mut request = request
        .header("Content-Type", "application/octet-stream")
        .header("Oncecast-Delivery", delivery.number().to_string())
        .header("Oncecast-Group", group)
        .header("Idempotency-Key", format!("{group}:{}", delivery.key()))
        .header("Oncecast-Id", id);
    if delivery.lane() > 0 {
        request = request.header("Oncecast-Lane", delivery.lane().to_string());
    }
    if let Some(channel) = delivery.channel() {
        request = request.header("Oncecast-Channel", encoded(channel));
    }
    if let Some(authorization) = &target.authorization {
        request = request.header("Authorization", authorization);
    }
    // Valid as headers: the trace context was checked.
    for (name, value) in context.into_iter().flat_map(TraceContext::members) {
        request = request.header(name, value);
    }
    request
}

/// Any bytes as a header's value: visible ASCII as it is, everything else and `%` percent-encoded.
pub(super) fn encoded(bytes: &[u8]) -> String {
    percent_encode(bytes, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;

    use super::*;

    #[test]
    fn values_are_encoded_only_where_needed_and_decode_to_the_same_bytes() {
        assert_eq!(encoded(b"orders.eu:{1}/\"x\""), "orders.eu:{1}/\"x\"");
        assert_eq!(encoded("é 50%\r\nX: y".as_bytes()), "%C3%A9%2050%25%0D%0AX:%20y");
        let all: Vec<u8> = (0..=255).collect();
        let text = encoded(&all);
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
        assert_eq!(percent_decode_str(&text).collect::<Vec<u8>>(), all);
    }
}

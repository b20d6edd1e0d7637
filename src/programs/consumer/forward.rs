//! The built-in handler `forward`: records each message as it is.

use crate::consumer::{Delivery, HandlerError, Outcome};
use crate::ledger::Words;

/// About how many bytes the names, the id and the protocol take in addition to channel and payload.
const BESIDE_BYTES: usize = 96;

/// The fields `id` (16 hex digits, as in a dead letter), `channel` if it was delivered with the message, and `payload`.
pub fn forward(delivery: &Delivery<'_>) -> Result<Outcome, HandlerError> {
    let channel = delivery.channel();
    let bytes = channel.map_or(0, <[u8]>::len) + delivery.payload().len();
    let mut fields = Words::with_capacity(bytes + BESIDE_BYTES);
    fields.push("id");
    fields.push(delivery.id().to_string());
    if let Some(channel) = channel {
        fields.push("channel");
        fields.push(channel);
    }
    fields.push("payload");
    fields.push(delivery.payload());
    Ok(Outcome::from_words(fields))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::MessageId;

    #[test]
    fn a_message_is_recorded_as_it_is() {
        let message = Delivery::new(b"\0\xff\r\n{\"id\":1}").with_id(MessageId(0x2f));
        let id = "000000000000002f";
        let alone = Outcome::new().field("id", id).field("payload", b"\0\xff\r\n{\"id\":1}");
        assert_eq!(forward(&message), Ok(alone));
        let with_channel = Outcome::new().field("id", id).field("channel", b"a\xfe").field("payload", "");
        assert_eq!(
            forward(&Delivery::new("").with_id(MessageId(0x2f)).with_channel(b"a\xfe")),
            Ok(with_channel),
            "an empty payload is a field, too"
        );
    }
}

//! Which channels and patterns are those of keyspace events. Pure.

/// What all keyspace events' channels begin with.
const KEY_EVENTS: &[u8] = b"__key";

/// Whether a channel, or all that a pattern matches, is of keyspace events.
pub(super) fn is_key_event(channel: &[u8]) -> bool {
    channel.starts_with(KEY_EVENTS)
}

/// Whether a pattern may match the channel of a keyspace event, by its beginning up to the first special character.
pub(super) fn may_be_key_event(pattern: &[u8]) -> bool {
    let plain = pattern.split(|byte| b"*?[\\".contains(byte)).next().unwrap_or_default();
    let both = plain.len().min(KEY_EVENTS.len());
    plain[..both] == KEY_EVENTS[..both] && (plain.len() < pattern.len() || is_key_event(plain))
}

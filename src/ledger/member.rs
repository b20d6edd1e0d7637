//! Members of the sorted set: `<id as 16 hex digits>:<payload>`.
//!
//! The id in front keeps equal payloads apart and makes a member readable; it is also the score.

use crate::base::id::MessageId;

/// A message's body, shared between the ring, the intake and the courier. Payloads that arrived together share one
/// allocation.
pub type Payload = tungstenite::Bytes;

/// Bytes before the payload: 16 digits and a colon.
const PREFIX_BYTES: usize = 17;

/// Writes the member for a message, in place of what `out` held.
pub fn encode<'a>(id: MessageId, payload: &[u8], out: &'a mut Vec<u8>) -> &'a [u8] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.clear();
    out.extend((0..16).rev().map(|digit| DIGITS[(id.0 >> (4 * digit) & 0xf) as usize]));
    out.push(b':');
    out.extend_from_slice(payload);
    out
}

/// The length of the member of a payload of `payload_bytes`.
pub fn encoded_len(payload_bytes: usize) -> usize {
    PREFIX_BYTES + payload_bytes
}

/// Takes a member apart; `None` if it is foreign.
pub fn decode(member: &[u8]) -> Option<(MessageId, &[u8])> {
    let (prefix, payload) = member.split_at_checked(PREFIX_BYTES)?;
    let (digits, colon) = prefix.split_at(16);
    if colon != b":" || !digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let digits = std::str::from_utf8(digits).ok()?;
    Some((MessageId(u64::from_str_radix(digits, 16).ok()?), payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_read_back() {
        let mut member = Vec::new();
        encode(MessageId(0x65c_0123_4567_89ab), b"a:b\0\xff", &mut member);
        assert_eq!(member, b"065c0123456789ab:a:b\0\xff");
        assert_eq!(decode(&member), Some((MessageId(0x65c_0123_4567_89ab), &b"a:b\0\xff"[..])));
        assert_eq!(member.len(), encoded_len(5));
    }

    #[test]
    fn foreign_members_are_refused() {
        for member in
            [&b""[..], b"0123456789abcdef", b"0123456789ABCDEF:x", b"0123456789abcde:xx", b"+123456789abcdef:x"]
        {
            assert_eq!(decode(member), None, "{member:?}");
        }
    }
}

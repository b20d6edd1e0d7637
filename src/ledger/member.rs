//! Members of the sorted set: `<id as 16 hex digits>:<payload>`, or with the channel that the message was published on
//! `<id as 16 hex digits>@<channel length>:<channel><payload>`.
//!
//! The id in front keeps equal payloads apart and makes a member readable; it is also the score. A group that listens
//! to one channel by its name uses the short form. `bundle` is about members of several messages.

use std::fmt;
use std::num::NonZeroU16;

use crate::base::bundle::BundlePosition;
use crate::base::id::{MessageId, id_in};
use crate::wire::MAX_CHANNEL_BYTES;

/// Bytes that several owners share. Those that came together share one allocation.
pub type Payload = tungstenite::Bytes;

/// The digits of the id.
const ID_DIGITS: usize = 16;
/// Separators, and the digits of the longest channel's length.
const MOST_BESIDE_BYTES: usize = 1 + 4 + 1;

/// What is kept of a message: its payload, the channel that it was published on, if that is recorded, and its position
/// in a bundle, if it is kept in one.
#[derive(Clone, PartialEq, Eq)]
pub struct Body {
    /// The channel, if any, and behind it the payload.
    bytes: Payload,
    channel_bytes: Option<NonZeroU16>,
    position: Option<BundlePosition>,
}

impl Body {
    /// A payload whose channel is not recorded.
    pub fn of(payload: Payload) -> Body {
        Body { bytes: payload, channel_bytes: None, position: None }
    }

    /// The channel and behind it the payload, in one piece. A channel of no bytes is not recorded, and one over
    /// [`MAX_CHANNEL_BYTES`] can't be.
    pub fn of_joined(bytes: Payload, channel_bytes: usize) -> Body {
        assert!(channel_bytes <= MAX_CHANNEL_BYTES.min(bytes.len()), "a channel's name of {channel_bytes} bytes");
        Body { bytes, channel_bytes: NonZeroU16::new(channel_bytes as u16), position: None }
    }

    /// It is kept in a bundle at this position, or with `None` as a member of its own.
    pub fn set_position(&mut self, position: Option<BundlePosition>) {
        self.position = position;
    }

    /// Its position in the bundle that it was stored in, if it was. A script may have taken the bundle apart since.
    pub fn position(&self) -> Option<BundlePosition> {
        self.position
    }

    /// The length of the channel's name, if that is recorded, and the channel and behind it the payload.
    pub fn joined(&self) -> (Option<u16>, &[u8]) {
        (self.channel_bytes.map(NonZeroU16::get), &self.bytes)
    }

    /// A copy of a channel's name and a payload.
    pub fn copied(channel: Option<&[u8]>, payload: &[u8]) -> Body {
        let channel = channel.unwrap_or_default();
        Body::of_joined([channel, payload].concat().into(), channel.len())
    }

    /// The channel that the message was published on, if that is recorded.
    pub fn channel(&self) -> Option<&[u8]> {
        self.channel_bytes.map(|length| &self.bytes[..usize::from(length.get())])
    }

    /// The payload as it was published.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.channel_bytes.map_or(0, |length| length.get().into())..]
    }

    /// Bytes of channel and payload.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The same with at most so many bytes of the payload.
    pub fn cut_to(&self, payload_bytes: usize) -> Body {
        let kept = self.bytes() - self.payload().len() + self.payload().len().min(payload_bytes);
        Body { bytes: self.bytes.slice(..kept), ..*self }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let channel = self.channel().map(|channel| channel.escape_ascii().to_string());
        write!(f, "Body({channel:?}, {})", self.payload().escape_ascii())
    }
}

/// Writes the id as it begins a member.
pub(super) fn push_id(id: MessageId, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend((0..ID_DIGITS).rev().map(|digit| DIGITS[(id.0 >> (4 * digit) & 0xf) as usize]));
}

/// Writes the member for a message, in place of what `out` held.
pub fn encode<'a>(id: MessageId, body: &Body, out: &'a mut Vec<u8>) -> &'a [u8] {
    encode_head(id, body, out);
    out.extend_from_slice(&body.bytes);
    out
}

/// Writes what the member of a message has in front of the body, in place of what `out` held.
pub(super) fn encode_head(id: MessageId, body: &Body, out: &mut Vec<u8>) {
    out.clear();
    push_id(id, out);
    if let Some(length) = body.channel_bytes {
        out.push(b'@');
        out.extend_from_slice(length.to_string().as_bytes());
    }
    out.push(b':');
}

/// The most bytes that the member of a body of `body_bytes` has.
pub fn most_encoded_len(body_bytes: usize) -> usize {
    ID_DIGITS + MOST_BESIDE_BYTES + body_bytes
}

/// The id that a member begins with, and what is behind it.
pub(super) fn split_id(member: &[u8]) -> Option<(MessageId, &[u8])> {
    let (digits, rest) = member.split_at_checked(ID_DIGITS)?;
    Some((id_in(std::str::from_utf8(digits).ok()?)?, rest))
}

/// Takes the member of one message apart; `None` if it is foreign or a bundle.
pub fn decode(member: &[u8]) -> Option<(MessageId, Body)> {
    let (id, rest) = split_id(member)?;
    match rest {
        [b':', payload @ ..] => Some((id, Body::of(Payload::copy_from_slice(payload)))),
        [b'@', rest @ ..] => {
            let colon = rest.iter().take(MOST_BESIDE_BYTES).position(|byte| *byte == b':')?;
            let (length, body) = (channel_length(&rest[..colon])?, &rest[colon + 1..]);
            let fits = usize::from(length.get()) <= body.len();
            fits.then(|| (id, Body::of_joined(Payload::copy_from_slice(body), length.get().into())))
        }
        _ => None,
    }
}

/// A length as we write it: without leading zeros, so that equal messages are equal members.
pub(super) fn channel_length(digits: &[u8]) -> Option<NonZeroU16> {
    let plain = digits.first() != Some(&b'0') && digits.iter().all(u8::is_ascii_digit);
    let length: NonZeroU16 = std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()?;
    Some(length).filter(|length| usize::from(length.get()) <= MAX_CHANNEL_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, body: &Body) -> Vec<u8> {
        let mut member = Vec::new();
        encode(MessageId(id), body, &mut member);
        assert!(member.len() <= most_encoded_len(body.bytes()));
        member
    }

    #[test]
    fn members_read_back() {
        let id = 0x65c_0123_4567_89ab;
        let longest = vec![b'9'; MAX_CHANNEL_BYTES];
        let bodies = [
            (Body::copied(None, b"a:b\0\xff"), &b"065c0123456789ab:a:b\0\xff"[..]),
            (Body::copied(Some(b"eu:\xff"), b"a@b"), b"065c0123456789ab@4:eu:\xffa@b"),
            (Body::copied(Some(b"12"), b""), b"065c0123456789ab@2:12"),
            (Body::copied(Some(&longest), b"x"), &[b"065c0123456789ab@4096:", &longest[..], b"x"].concat()),
        ];
        for (body, expected) in bodies {
            assert_eq!(member(id, &body), expected);
            assert_eq!(decode(expected), Some((MessageId(id), body)));
        }
    }

    #[test]
    fn a_body_is_cut_behind_its_channel() {
        let body = Body::copied(Some(b"eu"), b"payload");
        assert_eq!(body.cut_to(3), Body::copied(Some(b"eu"), b"pay"));
        assert_eq!(body.cut_to(99), body);
    }

    #[test]
    fn foreign_members_are_refused() {
        for member in [
            &b""[..],
            b"0123456789abcdef",
            b"0123456789ABCDEF:x",
            b"0123456789abcde:xx",
            b"+123456789abcdef:x",
            b"0123456789abcdef@",
            b"0123456789abcdef@:x",
            b"0123456789abcdef@0:x",
            b"0123456789abcdef@01:x",
            b"0123456789abcdef@+1:x",
            b"0123456789abcdef@3:ab",
            b"0123456789abcdef@4097:ab",
            b"0123456789abcdef@00000000001:ab",
        ] {
            assert_eq!(decode(member), None, "{}", member.escape_ascii());
        }
    }
}

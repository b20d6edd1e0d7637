//! Reads Redis's protocol where speed matters: values are parsed in the receive buffer. Pure. More complicated values
//! are left to the `redis` package.

use std::ops::Range;

/// A complete value at the front of the bytes that a RESP3 connection with subscriptions has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A message on a subscribed channel.
    Message {
        /// The pattern that matched, of a subscription by pattern.
        pattern: Option<&'a [u8]>,
        /// The channel.
        channel: &'a [u8],
        /// The message.
        payload: &'a [u8],
    },
    /// The beginning of a message that is over the limit. `rest` more bytes belong to it and are to be skipped.
    Oversize {
        /// As above.
        pattern: Option<&'a [u8]>,
        /// The channel.
        channel: &'a [u8],
        /// The bytes received so far, at least [`EXCERPT_BYTES`].
        excerpt: &'a [u8],
        /// The length of the whole message.
        length: u64,
        /// The bytes still to come, line end included.
        rest: u64,
    },
    /// The head of a message on a channel whose name is longer than 64 KiB. `rest` bytes of the name
    /// are to be skipped, line end included; a text of [`bulk_bytes`] follows.
    LongChannel {
        /// See above.
        rest: u64,
    },
    /// The subscription to a sharded channel has ended. Redis does this when another node gets the channel's slot.
    Ended {
        /// The channel.
        channel: &'a [u8],
    },
    /// An error reply.
    Error(&'a [u8]),
    /// Anything else: a confirmation, a pong, the reply to HELLO.
    Other,
}

/// How much of a message over the limit must have arrived before it is reported.
pub const EXCERPT_BYTES: usize = 4 << 10;

/// The longest name of a channel that is read. Any client may publish on a channel that a pattern matches.
const MOST_CHANNEL_BYTES: usize = 64 << 10;

/// The most bytes of one reply. Requests are for about a megabyte and one message or result, which has at most 12 MiB.
/// A page of a stream that is too large is requested again with fewer entries.
pub const MAX_REPLY_BYTES: usize = 32 << 20;
/// The most values of one reply. Each takes about 50 bytes of memory, but may take only four in the reply.
pub const MAX_REPLY_VALUES: usize = 256 << 10;

/// Why bytes can't be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// They are not RESP3.
    NotResp,
    /// They begin a reply larger than any request expects: over [`MAX_REPLY_BYTES`] or [`MAX_REPLY_VALUES`].
    TooLarge,
}

pub use self::Unreadable::{NotResp, TooLarge};

/// Parses the first value in `bytes`. Returns the value and its length, or `None` if more bytes are needed.
///
/// A message of more than `limit` bytes is reported as soon as its beginning has arrived, so it is never held whole.
pub fn receive(bytes: &[u8], limit: u64) -> Result<Option<(Received<'_>, usize)>, Unreadable> {
    let Some((kind, text, after)) = line(bytes)? else { return Ok(None) };
    if kind == b'-' {
        return Ok(Some((Received::Error(text), after)));
    }
    // An empty push has no name.
    if kind == b'>' && number(text)? > 0 {
        let Some((name, after)) = bulk(bytes, after)? else { return Ok(None) };
        match (name, number(text)?) {
            (b"message" | b"smessage", 3) => return message(bytes, after, None, limit),
            (b"pmessage", 4) => {
                let Some((pattern, after)) = bulk(bytes, after)? else { return Ok(None) };
                return message(bytes, after, Some(pattern), limit);
            }
            (b"sunsubscribe", 3) => {
                // Without a channel nothing was subscribed to.
                let has_name = matches!(line_at(bytes, after)?, Some((b'$', text, _)) if text != b"-1");
                let named = if has_name { bulk(bytes, after)? } else { None };
                let Some((channel, _)) = named else {
                    return Ok(whole(bytes)?.map(|after| (Received::Other, after)));
                };
                return Ok(whole(bytes)?.map(|after| (Received::Ended { channel }, after)));
            }
            _ => {}
        }
    }
    Ok(whole(bytes)?.map(|after| (Received::Other, after)))
}

/// A reply without parts, or the head of one with parts, as RESP2 has them. Its text is a `T`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<T> {
    /// A text of either kind.
    Text(T),
    /// A whole number.
    Number(i64),
    /// An error.
    Error(T),
    /// A list of so many replies, which follow.
    List(usize),
    /// No text, or no list.
    Nil,
}

/// A reply whose text is a range of the bytes that it was read from.
pub type Placed = Reply<Range<usize>>;

impl Placed {
    /// The reply with its text instead of the text's range in `bytes`.
    pub fn of(self, bytes: &[u8]) -> Reply<&[u8]> {
        match self {
            Reply::Text(place) => Reply::Text(&bytes[place]),
            Reply::Error(place) => Reply::Error(&bytes[place]),
            Reply::Number(number) => Reply::Number(number),
            Reply::List(length) => Reply::List(length),
            Reply::Nil => Reply::Nil,
        }
    }
}

/// Parses the first reply, or its head, in `bytes`. Returns it and its length, or `None` if more bytes are needed.
pub fn reply(bytes: &[u8]) -> Result<Option<(Placed, usize)>, Unreadable> {
    let Some((kind, text, after)) = line(bytes)? else { return Ok(None) };
    let reply = match kind {
        b'+' => Reply::Text(1..1 + text.len()),
        b'-' => Reply::Error(1..1 + text.len()),
        b':' => match text.strip_prefix(b"-") {
            Some(digits) => Reply::Number(-(number(digits)? as i64)),
            None => Reply::Number(number(text)? as i64),
        },
        b'$' | b'*' if text == b"-1" => Reply::Nil,
        b'*' => Reply::List(limited(text, MAX_REPLY_VALUES)?),
        b'$' => {
            let end = after + limited(text, MAX_REPLY_BYTES)?;
            return Ok((bytes.len() >= end + 2).then_some((Reply::Text(after..end), end + 2)));
        }
        _ => return Err(NotResp),
    };
    Ok(Some((reply, after)))
}

/// Where the first reply ends, with all its parts; `None` if more bytes are needed.
pub fn whole(bytes: &[u8]) -> Result<Option<usize>, Unreadable> {
    skip(bytes, 0, MAX_DEPTH, &mut { MAX_REPLY_VALUES })
}

/// How deep arrays and maps may nest in a reply that is skipped.
const MAX_DEPTH: usize = 8;

/// A message's channel and payload, from `at` on.
fn message<'a>(
    bytes: &'a [u8],
    at: usize,
    pattern: Option<&'a [u8]>,
    limit: u64,
) -> Result<Option<(Received<'a>, usize)>, Unreadable> {
    if let Some((b'$', text, start)) = line_at(bytes, at)?
        && let length = number(text)?
        && length > MOST_CHANNEL_BYTES as u64
    {
        return Ok(Some((Received::LongChannel { rest: length + 2 }, start)));
    }
    let Some((channel, at)) = bulk(bytes, at)? else { return Ok(None) };
    let Some((b'$', text, start)) = line_at(bytes, at)? else {
        return if bytes.len() > at && bytes[at] != b'$' { Err(NotResp) } else { Ok(None) };
    };
    let length = number(text)?;
    if length > limit {
        let excerpt = &bytes[start..bytes.len().min(start + length as usize)];
        if excerpt.len() < EXCERPT_BYTES.min(length as usize) {
            return Ok(None);
        }
        let rest = length + 2 - (excerpt.len() as u64);
        return Ok(Some((Received::Oversize { pattern, channel, excerpt, length, rest }, start + excerpt.len())));
    }
    let end = start + length as usize;
    if bytes.len() < end + 2 {
        return Ok(None);
    }
    Ok(Some((Received::Message { pattern, channel, payload: &bytes[start..end] }, end + 2)))
}

/// The length of the text at the front with all that belongs to it, however long it is; `None` if its first line has
/// not come.
pub fn bulk_bytes(bytes: &[u8]) -> Result<Option<u64>, Unreadable> {
    match line(bytes)? {
        Some((b'$', text, start)) => Ok(Some(start as u64 + number(text)? + 2)),
        Some(_) => Err(NotResp),
        None => Ok(None),
    }
}

/// A line: its type byte, the rest of it, and where the next line begins.
type RespLine<'a> = (u8, &'a [u8], usize);

/// The first line, if it is whole.
fn line(bytes: &[u8]) -> Result<Option<RespLine<'_>>, Unreadable> {
    line_at(bytes, 0)
}

fn line_at(bytes: &[u8], at: usize) -> Result<Option<RespLine<'_>>, Unreadable> {
    /// Lengths and error texts are short; a longer line is something else.
    const MAX_LINE_BYTES: usize = 64 << 10;
    let rest = &bytes[at..];
    match rest.iter().take(MAX_LINE_BYTES).position(|b| *b == b'\n') {
        Some(end) if end >= 2 && rest[end - 1] == b'\r' => Ok(Some((rest[0], &rest[1..end - 1], at + end + 1))),
        Some(_) => Err(NotResp),
        None if rest.len() >= MAX_LINE_BYTES => Err(NotResp),
        // For example a TLS alert, after which no line end may ever follow.
        None if rest.first().is_some_and(u8::is_ascii_control) => Err(NotResp),
        None => Ok(None),
    }
}

/// Parses a length or a count. Written by hand, because each message has four of them.
fn number(text: &[u8]) -> Result<u64, Unreadable> {
    /// No Redis sends more; keeps sums from overflowing.
    const MAX_DIGITS: usize = 12;
    if text.is_empty() || text.len() > MAX_DIGITS {
        return Err(NotResp);
    }
    text.iter().try_fold(0, |number, digit| match digit {
        b'0'..=b'9' => Ok(10 * number + u64::from(digit - b'0')),
        _ => Err(NotResp),
    })
}

/// A length or count that must not be above a limit.
fn limited(text: &[u8], most: usize) -> Result<usize, Unreadable> {
    let number = number(text)?;
    if number > most as u64 { Err(TooLarge) } else { Ok(number as usize) }
}

fn bulk(bytes: &[u8], at: usize) -> Result<Option<(&[u8], usize)>, Unreadable> {
    let Some((kind, text, start)) = line_at(bytes, at)? else { return Ok(None) };
    if kind != b'$' {
        return Err(NotResp);
    }
    let end = start + limited(text, MAX_REPLY_BYTES)?;
    Ok((bytes.len() >= end + 2).then(|| (&bytes[start..end], end + 2)))
}

/// Where the value at `at` ends, whatever it is. `left` is how many values it may have.
fn skip(bytes: &[u8], at: usize, depth: usize, left: &mut usize) -> Result<Option<usize>, Unreadable> {
    let Some((kind, text, mut after)) = line_at(bytes, at)? else { return Ok(None) };
    let values = match kind {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => 0,
        b'$' | b'=' | b'!' if text != b"-1" => {
            let end = after + limited(text, MAX_REPLY_BYTES)? + 2;
            return Ok((bytes.len() >= end).then_some(end));
        }
        b'*' | b'$' if text == b"-1" => 0,
        b'*' | b'~' | b'>' => limited(text, *left)?,
        b'%' | b'|' => 2 * limited(text, *left / 2)?,
        _ => return Err(NotResp),
    };
    *left -= values;
    if values > 0 && depth == 0 {
        return Err(NotResp);
    }
    for _ in 0..values {
        match skip(bytes, after, depth - 1, left)? {
            Some(end) => after = end,
            None => return Ok(None),
        }
    }
    Ok(Some(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\na\r\nbc\r\n";

    #[test]
    fn a_message_is_given_when_it_is_whole() {
        for cut in 0..MESSAGE.len() {
            assert_eq!(receive(&MESSAGE[..cut], 100), Ok(None), "{cut}");
        }
        let whole = Received::Message { pattern: None, channel: b"c", payload: b"a\r\nbc" };
        assert_eq!(receive(MESSAGE, 100), Ok(Some((whole, MESSAGE.len()))));
        assert_eq!(receive(&[MESSAGE, b">3"].concat(), 100), Ok(Some((whole, MESSAGE.len()))));
    }

    #[test]
    fn a_message_on_a_sharded_channel_is_one_and_its_end_is_told() {
        let message = b">3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$1\r\na\r\n";
        let received = Received::Message { pattern: None, channel: b"c", payload: b"a" };
        assert_eq!(receive(message, 100), Ok(Some((received, message.len()))));
        let end = b">3\r\n$12\r\nsunsubscribe\r\n$1\r\nc\r\n:0\r\n";
        assert_eq!(receive(end, 100), Ok(Some((Received::Ended { channel: b"c" }, end.len()))));
        for cut in 0..end.len() {
            assert_eq!(receive(&end[..cut], 100), Ok(None), "{cut}");
        }
        let none = b">3\r\n$12\r\nsunsubscribe\r\n_\r\n:0\r\n";
        assert_eq!(receive(none, 100), Ok(Some((Received::Other, none.len()))));
    }

    #[test]
    fn an_oversize_message_is_given_at_its_beginning() {
        let head = b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$9000\r\n";
        let beginning = vec![b'x'; EXCERPT_BYTES];
        let bytes = [&head[..], &beginning].concat();
        assert_eq!(receive(&bytes[..bytes.len() - 1], 8_000), Ok(None));
        let rest = 9_002 - EXCERPT_BYTES as u64;
        let oversize = Received::Oversize { pattern: None, channel: b"c", excerpt: &beginning, length: 9_000, rest };
        assert_eq!(receive(&bytes, 8_000), Ok(Some((oversize, bytes.len()))));
        let oversize = Received::Oversize { pattern: None, channel: b"c", excerpt: b"a\r\nbc", length: 5, rest: 2 };
        assert_eq!(receive(MESSAGE, 4), Ok(Some((oversize, MESSAGE.len() - 2))));
    }

    #[test]
    fn other_values_are_skipped_whole() {
        for value in [
            &b"+PONG\r\n"[..],
            b":12\r\n",
            b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n",
            b">0\r\n",
            b"%1\r\n$5\r\nproto\r\n:3\r\n",
            b"%2\r\n+a\r\n*0\r\n+b\r\n*1\r\n_\r\n",
            b"$-1\r\n",
        ] {
            assert_eq!(receive(value, 100), Ok(Some((Received::Other, value.len()))), "{value:?}");
            for cut in 0..value.len() {
                assert_eq!(receive(&value[..cut], 100), Ok(None), "{value:?} {cut}");
            }
        }
        assert_eq!(receive(b"-LOADING x\r\n", 100), Ok(Some((Received::Error(b"LOADING x"), 12))));
    }

    #[test]
    fn replies_are_given_when_they_are_whole() {
        let replies: [(&[u8], Reply<&[u8]>); 8] = [
            (b"+QUEUED\r\n", Reply::Text(b"QUEUED")),
            (b"$4\r\na\r\nb\r\n", Reply::Text(b"a\r\nb")),
            (b":12\r\n", Reply::Number(12)),
            (b":-12\r\n", Reply::Number(-12)),
            (b"-ERR no\r\n", Reply::Error(b"ERR no")),
            (b"*3\r\n", Reply::List(3)),
            (b"*-1\r\n", Reply::Nil),
            (b"$-1\r\n", Reply::Nil),
        ];
        for (bytes, expected) in replies {
            for cut in 0..bytes.len() {
                assert_eq!(reply(&bytes[..cut]), Ok(None), "{expected:?} {cut}");
            }
            let more = [bytes, b"+"].concat();
            let (found, length) = reply(&more).expect("it is RESP").expect("it is whole");
            assert_eq!((found.of(&more), length), (expected, bytes.len()));
        }
        for bytes in [&b">2\r\n"[..], b":x\r\n", b"$99999999999999999999\r\n", b"*-2\r\n"] {
            assert_eq!(reply(bytes), Err(NotResp), "{bytes:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_resp_are_refused() {
        for bytes in [
            &b"hello\r\n"[..],
            b"*x\r\n",
            b"*\r\n",
            b"*-2\r\n",
            b"+a\n",
            b"$99999999999999999999\r\n",
            b"\r\n",
            b"\x15\x03\x03\x00\x02\x02\x46",
            b">3\r\n:1\r\n",
            b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$\r\n",
            b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$+5\r\na\r\nbc\r\n",
        ] {
            assert_eq!(receive(bytes, 100), Err(NotResp), "{bytes:?}");
        }
        let nested = b"*1\r\n".repeat(20);
        assert_eq!(receive(&nested, 100), Err(NotResp));
    }

    /// It is refused by its head, before its content has arrived.
    #[test]
    fn oversize_replies_are_refused() {
        let bulk = |bytes: usize| format!("${bytes}\r\n").into_bytes();
        for whole in [whole, |bytes: &[u8]| reply(bytes).map(|reply| reply.map(|(_, length)| length))] {
            assert_eq!(whole(&bulk(MAX_REPLY_BYTES)), Ok(None));
            assert_eq!(whole(&bulk(MAX_REPLY_BYTES + 1)), Err(TooLarge));
            assert_eq!(whole(&bulk(600_000_000)), Err(TooLarge));
            assert_eq!(whole(format!("*{}\r\n", MAX_REPLY_VALUES + 1).as_bytes()), Err(TooLarge));
        }
        let lists = format!("*2\r\n*{0}\r\n{1}*{0}\r\n", MAX_REPLY_VALUES / 2, "_\r\n".repeat(MAX_REPLY_VALUES / 2));
        assert_eq!(whole(lists.as_bytes()), Err(TooLarge), "all values of a reply count");
        assert_eq!(whole(format!("%{}\r\n", MAX_REPLY_VALUES).as_bytes()), Err(TooLarge));
        assert_eq!(receive(&bulk(600_000_000), 100), Err(TooLarge));
    }

    #[test]
    fn a_channel_of_any_length_is_skipped_in_two_parts() {
        let name = "c".repeat(MOST_CHANNEL_BYTES + 1);
        let push = format!(">4\r\n$8\r\npmessage\r\n$1\r\n*\r\n${}\r\n{name}\r\n$2\r\nab\r\n", name.len());
        let Ok(Some((Received::LongChannel { rest }, taken))) = receive(push.as_bytes(), 100) else {
            panic!("its head")
        };
        let payload = &push.as_bytes()[taken + rest as usize..];
        assert_eq!(bulk_bytes(payload), Ok(Some(payload.len() as u64)));
        assert_eq!(bulk_bytes(&payload[..2]), Ok(None));
        assert_eq!(bulk_bytes(b"+OK\r\n"), Err(NotResp));
    }
}

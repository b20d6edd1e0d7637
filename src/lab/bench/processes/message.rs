//! The messages of a comparison, and the results that the peers record for them: the same as the handler `stamp`. Pure.
//!
//! ```text
//!  {"message_id":"oncecast-<number, 10 digits>-<µs, 16 digits>"}                    53 bytes
//!  {"message_id":"oncecast-<number, 10 digits>-<µs, 16 digits>","pad":"xxx…"}       62 bytes and more
//!  <number>                                                                         below 53 bytes: only digits
//! ```
//!
//! The time is when the message was due, by a clock that all processes of a machine share. Peers parse only objects of
//! plain strings, and no other JSON. That is less work than `stamp` does, and in their favour.

use nix::time::{ClockId, clock_gettime};

use crate::ledger::command::{begin, word};

/// The range of message sizes.
pub(crate) const PAYLOAD_BYTES: std::ops::RangeInclusive<u64> = 16..=1 << 20;
/// The size of a message with its time and no padding: the same as `oncecast-publisher` sends with UUIDs as ids.
pub(crate) const USUAL_BYTES: usize = 53;

const OPEN: &[u8] = b"{\"message_id\":\"";
const PREFIX: &[u8] = b"oncecast-";
const CLOSE: &[u8] = b"\"}";
const PAD: &[u8] = b"\",\"pad\":\"";
const NUMBER_DIGITS: usize = 10;
const TIME_DIGITS: usize = 16;

/// The time in microseconds of a monotonic clock, which is the same for all processes of this machine.
pub(super) fn now_us() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the clock exists on every system");
    now.tv_sec().cast_unsigned() * 1_000_000 + now.tv_nsec().cast_unsigned() / 1_000
}

/// Replaces the contents of `out` by message `number` of `bytes` bytes, due at `time_us`.
pub(super) fn write(out: &mut Vec<u8>, number: u64, time_us: u64, bytes: usize) {
    out.clear();
    if bytes < USUAL_BYTES {
        push_digits(out, number, bytes);
        return;
    }
    let padded = bytes >= USUAL_BYTES + PAD.len();
    // If there is no room for the field `pad`, the number gets more digits.
    let stretch = if padded { 0 } else { bytes - USUAL_BYTES };
    out.extend_from_slice(OPEN);
    out.extend_from_slice(PREFIX);
    push_digits(out, number, NUMBER_DIGITS + stretch);
    out.push(b'-');
    push_digits(out, time_us, TIME_DIGITS);
    if padded {
        out.extend_from_slice(PAD);
        out.resize(bytes - CLOSE.len(), b'x');
    }
    out.extend_from_slice(CLOSE);
}

fn push_digits(out: &mut Vec<u8>, number: u64, width: usize) {
    let begin = out.len();
    out.resize(begin + width, b'0');
    let mut rest = number;
    for digit in out[begin..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// Parses the number and the time in a result's `message_id` or `payload`. The payload may be the message itself.
pub(crate) fn read(text: &[u8]) -> Option<(u64, Option<u64>)> {
    let id = text.strip_prefix(OPEN).and_then(|rest| rest.split(|byte| *byte == b'"').next()).unwrap_or(text);
    let Some(rest) = id.strip_prefix(PREFIX) else {
        // A short message contains no time.
        let all_digits = id.iter().all(u8::is_ascii_digit);
        return Some((digits(&id[id.len().saturating_sub(NUMBER_DIGITS)..]).filter(|_| all_digits)?, None));
    };
    let (number, time) = rest.split_at_checked(rest.len().checked_sub(TIME_DIGITS)?)?;
    Some((digits(number.strip_suffix(b"-")?)?, Some(digits(time)?)))
}

/// Parses decimal digits.
fn digits(text: &[u8]) -> Option<u64> {
    /// More might not fit into 64 bits.
    const MAX_DIGITS: usize = 19;
    if text.is_empty() || text.len() > MAX_DIGITS {
        return None;
    }
    text.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| 10 * number + u64::from(byte - b'0')))
}

/// Writes the commands with which a peer records results.
pub(super) struct ResultWriter {
    stream: String,
    consumer: String,
}

impl ResultWriter {
    pub(super) fn new(stream: &str, consumer: &str) -> ResultWriter {
        ResultWriter { stream: stream.to_owned(), consumer: consumer.to_owned() }
    }

    /// Appends `XADD stream * <the message's fields> random_property <8 hex digits> consumer_id <id>`.
    pub(super) fn append(&self, payload: &[u8], out: &mut Vec<u8>) {
        let fields = Fields::of(payload);
        begin(out, 3 + 2 * fields.count + 4);
        word(out, "XADD");
        word(out, &self.stream);
        word(out, "*");
        for (name, value) in &fields.list[..fields.count] {
            word(out, name);
            word(out, value);
        }
        word(out, "random_property");
        word(out, hex(fastrand::u32(..)));
        word(out, "consumer_id");
        word(out, &self.consumer);
    }
}

/// The fields of a message, in order.
struct Fields<'a> {
    list: [(&'a [u8], &'a [u8]); MAX_FIELDS],
    count: usize,
}

const MAX_FIELDS: usize = 4;

impl<'a> Fields<'a> {
    fn of(payload: &'a [u8]) -> Fields<'a> {
        Fields::object(payload)
            .unwrap_or(Fields { list: [(b"payload", payload), (b"", b""), (b"", b""), (b"", b"")], count: 1 })
    }

    /// The fields of an object of plain strings.
    fn object(payload: &'a [u8]) -> Option<Fields<'a>> {
        let mut fields = Fields { list: [(b"", b""); MAX_FIELDS], count: 0 };
        let mut rest = payload.strip_prefix(b"{")?.strip_suffix(b"}")?;
        loop {
            let (name, after) = string(rest)?;
            let (value, after) = string(after.strip_prefix(b":")?)?;
            *fields.list.get_mut(fields.count)? = (name, value);
            fields.count += 1;
            if after.is_empty() {
                return Some(fields);
            }
            rest = after.strip_prefix(b",")?;
        }
    }
}

/// Splits a JSON string without escapes off the front.
fn string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.strip_prefix(b"\"")?;
    let end = text.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    (text[end] == b'"').then(|| (&text[..end], &text[end + 1..]))
}

fn hex(number: u32) -> [u8; 8] {
    std::array::from_fn(|digit| b"0123456789abcdef"[(number >> (28 - 4 * digit)) as usize & 15])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_their_length_and_read_back() {
        for bytes in [16, 40, 52, 53, 58, 61, 62, 63, 1_024, 65_536] {
            let mut message = Vec::new();
            write(&mut message, 4_000_000, 1_234_567_890, bytes);
            assert_eq!(message.len(), bytes);
            let fields = Fields::of(&message);
            let (name, id) = fields.list[0];
            let (expected, time) = if bytes < 53 { ("payload", None) } else { ("message_id", Some(1_234_567_890)) };
            assert_eq!(String::from_utf8_lossy(name), expected, "{bytes}");
            assert_eq!(read(id), Some((4_000_000, time)), "{bytes}");
            assert_eq!(fields.count, if bytes >= 62 { 2 } else { 1 });
        }
        for id in [&b""[..], b"oncecast-", b"oncecast-1", b"oncecast-00000000010000000000000001", b"m-12345678901"] {
            assert_eq!(read(id), None, "{id:?}");
        }
    }

    #[test]
    fn only_digits_are_numbers() {
        assert_eq!(digits(b"0042"), Some(42));
        for text in [&b""[..], b"-1", b"4 2", b"99999999999999999999"] {
            assert_eq!(digits(text), None, "{text:?}");
        }
    }

    #[test]
    fn results_are_those_of_the_handler_stamp() {
        let mut out = Vec::new();
        ResultWriter::new("s", "w1").append(b"{\"message_id\":\"m\",\"a\":\"\"}", &mut out);
        let text = String::from_utf8(out).expect("UTF-8");
        let words: Vec<&str> = text.split("\r\n").filter(|word| !word.starts_with('$')).collect();
        let random = words[9];
        assert!(random.len() == 8 && random.bytes().all(|byte| byte.is_ascii_hexdigit()), "{random}");
        let expected =
            ["*11", "XADD", "s", "*", "message_id", "m", "a", "", "random_property", random, "consumer_id", "w1", ""];
        assert_eq!(words, expected);
    }

    #[test]
    fn anything_else_is_stored_as_the_payload() {
        for payload in ["{}", "{\"a\":1}", "{\"a\":\"\\n\"}", "[\"a\"]", "", "{\"a\":\"b\",}"] {
            let fields = Fields::of(payload.as_bytes());
            assert_eq!((fields.count, fields.list[0]), (1, (&b"payload"[..], payload.as_bytes())));
        }
        assert_eq!(hex(0x00a1_b2ff), *b"00a1b2ff");
    }
}

//! The patterns of PSUBSCRIBE, matched as Redis matches them. Pure.
//!
//! `*` stands for any bytes, `?` for one byte, `[a-c]` and `[^a-c]` for one byte of a set or outside it, and a
//! backslash makes the next byte literal. Redis's own function decides what malformed patterns mean (a set without its
//! bracket ends with the pattern), and a test compares this one with it. Two of its rules surprise: `*` does not match
//! an empty name, and the ends of a range may come in either order.
//!
//! Limitation: Redis compares the ends of a range as C's `char`, which is signed on some processors and unsigned on
//! others. A range from a byte below 0x80 to one above would match differently, so such patterns are refused.

use std::fmt;

/// The most `*` in a pattern. Redis gives up on patterns with very many; this is far below.
const MAX_STARS: usize = 64;

/// A compiled pattern.
#[derive(Clone, PartialEq, Eq)]
pub struct Glob {
    text: Vec<u8>,
    elements: Vec<Element>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Element {
    /// Any bytes, perhaps none.
    Star,
    /// One byte of a set.
    One(ByteSet),
}

/// A set of bytes, one bit each.
#[derive(Clone, Copy, PartialEq, Eq)]
struct ByteSet([u64; 4]);

impl ByteSet {
    const NONE: ByteSet = ByteSet([0; 4]);
    const ALL: ByteSet = ByteSet([u64::MAX; 4]);

    fn with(mut self, byte: u8) -> ByteSet {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
        self
    }

    fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    fn complement(self) -> ByteSet {
        ByteSet(self.0.map(|bits| !bits))
    }
}

impl Glob {
    /// Compiles a pattern. The error says what the pattern must not have.
    pub fn parse(text: &[u8]) -> Result<Glob, String> {
        let mut elements = Vec::new();
        let mut rest = text;
        while let [first, after @ ..] = rest {
            let element;
            (element, rest) = match (first, after) {
                (b'*', _) => (Element::Star, after),
                (b'?', _) => (Element::One(ByteSet::ALL), after),
                (b'[', _) => {
                    let (set, after) = set(after)?;
                    (Element::One(set), after)
                }
                (b'\\', [literal, after @ ..]) => (Element::One(ByteSet::NONE.with(*literal)), after),
                (literal, _) => (Element::One(ByteSet::NONE.with(*literal)), after),
            };
            if element != Element::Star || elements.last() != Some(&Element::Star) {
                elements.push(element);
            }
        }
        if elements.iter().filter(|element| **element == Element::Star).count() > MAX_STARS {
            return Err(format!("at most {MAX_STARS} *"));
        }
        Ok(Glob { text: text.to_vec(), elements })
    }

    /// The pattern as Redis is given it.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether Redis sends what is published on `channel` to a subscriber of this pattern.
    pub fn matches(&self, channel: &[u8]) -> bool {
        if channel.is_empty() {
            return self.elements.is_empty();
        }
        let (mut element, mut byte) = (0, 0);
        // Where the last star is, and where the bytes after those it stands for begin. Each element but a star is one
        // byte, so only the last star ever has to stand for more.
        let mut star = None;
        while byte < channel.len() {
            match self.elements.get(element) {
                Some(Element::Star) => {
                    star = Some((element, byte));
                    element += 1;
                }
                Some(Element::One(set)) if set.has(channel[byte]) => {
                    element += 1;
                    byte += 1;
                }
                _ => {
                    let Some((at, from)) = star else { return false };
                    star = Some((at, from + 1));
                    (element, byte) = (at + 1, from + 1);
                }
            }
        }
        self.elements[element..].iter().all(|element| *element == Element::Star)
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Glob({})", self.text.escape_ascii())
    }
}

/// Reads a set behind its opening bracket, and gives what follows it.
fn set(text: &[u8]) -> Result<(ByteSet, &[u8]), String> {
    let (negated, mut rest) = match text {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut set = ByteSet::NONE;
    loop {
        rest = match rest {
            [b'\\', literal, after @ ..] => {
                set = set.with(*literal);
                after
            }
            [] | [b']', ..] => break,
            [one, b'-', other, after @ ..] => {
                if one.is_ascii() != other.is_ascii() {
                    return Err("no range from a byte below 0x80 to one above".to_owned());
                }
                set = (*one.min(other)..=*one.max(other)).fold(set, ByteSet::with);
                after
            }
            [literal, after @ ..] => {
                set = set.with(*literal);
                after
            }
        }
    }
    Ok((if negated { set.complement() } else { set }, rest.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, channel: &str) -> bool {
        Glob::parse(pattern.as_bytes()).expect(pattern).matches(channel.as_bytes())
    }

    #[test]
    fn patterns_match_as_the_documentation_of_redis_says() {
        for (pattern, channel) in [
            ("orders.*", "orders.eu"),
            ("orders.*", "orders."),
            ("h?llo", "hallo"),
            ("h[ae]llo", "hello"),
            ("h[^e]llo", "hallo"),
            ("h[a-b]llo", "hbllo"),
            ("h[b-a]llo", "hallo"),
            (r"h\*llo", "h*llo"),
            ("*a*b*", "xxaxxbxx"),
            ("*.eu", "a.eu.eu"),
            ("[abc", "b"),
            ("[^", "x"),
            (r"a\", r"a\"),
        ] {
            assert!(matches(pattern, channel), "{pattern} {channel}");
        }
        for (pattern, channel) in [
            ("orders.*", "orders"),
            ("h?llo", "hllo"),
            ("h[ae]llo", "hillo"),
            ("h[^e]llo", "hello"),
            (r"h\*llo", "hallo"),
            ("*.eu", "a.eu."),
            ("*", ""),
            ("[", "["),
            ("", "a"),
        ] {
            assert!(!matches(pattern, channel), "{pattern} {channel}");
        }
    }

    #[test]
    fn what_servers_may_match_differently_is_refused() {
        assert!(Glob::parse(b"[\x7f-\x80]").is_err());
        assert!(Glob::parse(b"[\x80-\xff]").is_ok());
        assert!(Glob::parse("*a".repeat(MAX_STARS + 1).as_bytes()).is_err());
        assert!(Glob::parse("*".repeat(4_000).as_bytes()).is_ok());
    }

    /// A match takes time in proportion to the product of the lengths, whatever the pattern.
    #[test]
    fn a_pattern_made_to_be_slow_is_not() {
        let pattern = "*a".repeat(MAX_STARS) + "b";
        assert!(!matches(&pattern, &"a".repeat(4_096)));
    }
}

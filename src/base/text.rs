//! Makes text from outside harmless in a log line, in an error and on a terminal. Pure.

use std::fmt;

/// A text from outside that stays on its line and can't control a terminal: control characters, line ends of any kind
/// and marks that change the direction of writing are shown escaped, as `\n` or `\u{1b}`.
pub struct Escaped<T>(pub T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_string().chars().try_for_each(|c| match is_plain(c) {
            true => write!(f, "{c}"),
            false => write!(f, "{}", c.escape_debug()),
        })
    }
}

/// A text of several lines, or of JSON, that can't control a terminal: the same characters are escaped as JSON does it,
/// as `\u001b`, except that lines end where they did. For what leaves a program as a whole: JSON stays the same value.
pub struct Inert<T>(pub T);

impl<T: fmt::Display> fmt::Display for Inert<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_string().chars().try_for_each(|c| match c == '\n' || is_plain(c) {
            true => write!(f, "{c}"),
            false => c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(f, "\\u{unit:04x}")),
        })
    }
}

/// Whether a character is shown as itself and nothing else.
pub fn is_plain(c: char) -> bool {
    matches!(c, ' '..='~') || c.escape_debug().eq([c])
}

/// The beginning of a text, at most `most_bytes` long. No character is cut in two.
pub fn beginning(text: &str, most_bytes: usize) -> &str {
    let mut end = text.len().min(most_bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A value of a log line, quoted if it contains spaces, quotes, or anything that must be escaped.
pub struct Quoted<T>(pub T);

impl<T: fmt::Display> fmt::Display for Quoted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        if text.is_empty() || text.contains(|c: char| c.is_whitespace() || !is_plain(c) || c == '"' || c == '=') {
            write!(f, "{text:?}")
        } else {
            f.write_str(&text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_ends_between_characters() {
        let beginnings = [0, 1, 2, 3, 4, 9].map(|most_bytes| beginning("aéé", most_bytes));
        assert_eq!(beginnings, ["", "a", "a", "aé", "aé", "aéé"]);
    }

    #[test]
    fn values_with_spaces_are_quoted() {
        assert_eq!(Quoted("a:1").to_string(), "a:1");
        assert_eq!(Quoted("a \"b\"\n").to_string(), r#""a \"b\"\n""#);
        assert_eq!(Quoted("").to_string(), "\"\"");
    }

    #[test]
    fn text_from_outside_stays_on_its_line_and_controls_no_terminal() {
        let hostile = "a\u{1b}[31m\n\r\u{7f}\u{9b}2J\u{202e}\u{2028}\u{2066}\u{feff}é\"'\\";
        let escaped = r#"a\u{1b}[31m\n\r\u{7f}\u{9b}2J\u{202e}\u{2028}\u{2066}\u{feff}é"'\"#;
        assert_eq!(Escaped(hostile).to_string(), escaped);
        for c in hostile.chars().filter(|c| !c.is_ascii_graphic() && *c != 'é') {
            assert!(!Quoted(format!("a{c}b")).to_string().contains(c), "{c:?}");
        }
        assert_eq!(Escaped("c0 of \"orders\"").to_string(), "c0 of \"orders\"");
        let inert = "a\\u001b[31m\n\\u000d\\u007f\\u009b2J\\u202e\\u2028\\u2066\\ufeffé\"'\\";
        assert_eq!(Inert(hostile).to_string(), inert);
        assert_eq!(Inert("\u{e0001}").to_string(), "\\udb40\\udc01", "as JSON writes it");
    }
}

//! The name of a channel, as a setting gives it. Pure.
//!
//! A setting names one channel. A name that looks like a pattern would be subscribed to literally, and no message would
//! ever arrive. So `*`, `?` and `[` are refused unless a backslash escapes them, as in the patterns of Redis.

/// The characters that may be escaped.
const ESCAPED: [char; 5] = ['*', '?', '[', ']', '\\'];

/// The channel that a setting's text names: each backslash is removed, and the character after it is kept.
pub(super) fn exact_name(text: &str) -> Result<String, String> {
    let mut name = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next().filter(|next| ESCAPED.contains(next)) {
                Some(next) => name.push(next),
                None => return Err(r"one channel; a backslash in its name is written as \\".to_owned()),
            },
            '*' | '?' | '[' => {
                return Err(format!(
                    r"the name of one channel, not a pattern; if {letter} is a part of its name, write \{letter}"
                ));
            }
            other => name.push(other),
        }
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The text that names the channel `name`: the inverse of [`exact_name`].
    fn escaped(name: &str) -> String {
        let mut text = String::with_capacity(name.len());
        for letter in name.chars() {
            if ESCAPED.contains(&letter) {
                text.push('\\');
            }
            text.push(letter);
        }
        text
    }

    #[test]
    fn a_pattern_is_refused_unless_it_is_escaped() {
        assert_eq!(exact_name("messages:published").as_deref(), Ok("messages:published"));
        assert_eq!(exact_name("a]b c").as_deref(), Ok("a]b c"));
        assert_eq!(exact_name(r"\*\?\[a\]\\").as_deref(), Ok(r"*?[a]\"));
        for (text, says) in
            [("orders.*", r"write \*"), ("a?", r"write \?"), ("[ab]", r"write \["), (r"\\*", r"write \*")]
        {
            assert!(exact_name(text).expect_err(text).contains(says), "{text}");
        }
        for text in [r"a\b", r"a\"] {
            assert!(exact_name(text).expect_err(text).contains(r"\\"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_name_can_be_written(name in ".*") {
            prop_assert_eq!(exact_name(&escaped(&name)), Ok(name));
        }
    }
}

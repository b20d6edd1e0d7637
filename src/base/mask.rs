//! Hides what may be a password: user and password of each URL in a text. Pure.
//!
//! A URL with a password belongs in one setting, `redis-url`. In another setting it would be repeated in an error, a
//! log line or a result. So only secret settings accept such a value, and errors and log lines pass through [`masked`].
//!
//! Limitation: in running text a URL ends at the next space, so a password with a space in it is cut off and shown from
//! there.

use std::borrow::Cow;

/// What is shown instead.
const HIDDEN: &str = "***";

/// Whether a value looks like a URL that names a user or a password.
pub fn is_url_with_login(value: &str) -> bool {
    value
        .split_once("://")
        .is_some_and(|(_, rest)| rest.contains('@') || PARAMETERS.iter().any(|name| rest.contains(name)))
}

/// Where the URL of a Unix socket has its password, and one of Sentinels theirs.
const PARAMETERS: [&str; 4] = ["?pass=", "&pass=", "?sentinel_password=", "&sentinel_password="];

/// `text` without user and password of the URLs in it.
pub fn masked(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let words = text.split_inclusive(char::is_whitespace);
    Cow::Owned(words.map(masked_word).collect())
}

fn masked_word(word: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = word.split_once("://") else { return Cow::Borrowed(word) };
    let rest = match rest.rsplit_once('@') {
        Some((_, place)) => format!("{HIDDEN}@{place}"),
        None => rest.to_owned(),
    };
    let shown = match PARAMETERS.iter().filter_map(|name| Some(rest.find(name)? + name.len())).min() {
        Some(at) => format!("{}{HIDDEN}{}", &rest[..at], &rest[rest.trim_end().len()..]),
        None => rest,
    };
    Cow::Owned(format!("{scheme}://{shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn possible_passwords_are_hidden() {
        for (text, shown) in [
            ("no URL, but a@b", "no URL, but a@b"),
            ("ws://10.0.0.1:6969/ is away", "ws://10.0.0.1:6969/ is away"),
            ("redis://:pw@h:1/2", "redis://***@h:1/2"),
            ("got \"redis://pw@h\", takes more", "got \"redis://***@h\", takes more"),
            ("x=redis://u:p@:/w@h\ny=1", "x=redis://***@h\ny=1"),
            ("a redis+unix:///s?user=u&pass=pw&db=1 b", "a redis+unix:///s?user=u&pass=*** b"),
        ] {
            assert_eq!(masked(text), shown);
        }
    }

    #[test]
    fn a_url_without_a_login_is_an_ordinary_value() {
        for value in ["redis://h:1", "orders", "a@b", "https://h/p?q=1"] {
            assert!(!is_url_with_login(value), "{value}");
        }
        for value in ["redis://pw@h", "a:1,redis://:p w@h", "https://u:p@h/", "unix:///s?pass=x"] {
            assert!(is_url_with_login(value), "{value}");
        }
    }
}

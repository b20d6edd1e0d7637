//! Names and patterns as settings take them, for logs and reports. Pure.

/// A name as a setting takes it: a name that looks like a pattern is not one.
pub(super) fn shown_name(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) => {
            let escape =
                |letter: char| if "*?[]\\,".contains(letter) { format!("\\{letter}") } else { letter.to_string() };
            text.chars().map(escape).collect()
        }
        Err(_) => shown_bytes(name),
    }
}

/// A pattern as a setting takes it.
pub(super) fn shown_pattern(text: &[u8]) -> String {
    String::from_utf8(text.to_vec()).unwrap_or_else(|_| shown_bytes(text))
}

fn shown_bytes(bytes: &[u8]) -> String {
    let escape = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b':' | b'-' | b'_' => char::from(*byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    bytes.iter().map(escape).collect()
}

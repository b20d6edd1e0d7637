//! Finds out whether a server is a primary, by `ROLE`, or by `INFO` where the user may not call `ROLE`. Pure.

use redis::Value;

use super::value::text;

/// What a server says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It accepts writes.
    Primary,
    /// It copies another server, or is no server of data at all.
    Other,
    /// It does not say.
    Unknown,
}

/// Reads the reply to `ROLE` or to `INFO replication`.
pub(super) fn role(reply: &Value) -> Role {
    let word = match reply {
        Value::Array(parts) => parts.first().and_then(text),
        Value::BulkString(info) => in_info(std::str::from_utf8(info).unwrap_or_default()),
        Value::VerbatimString { text, .. } => in_info(text),
        _ => None,
    };
    match word {
        Some("master" | "primary") => Role::Primary,
        Some(_) => Role::Other,
        None => Role::Unknown,
    }
}

fn in_info(info: &str) -> Option<&str> {
    info.lines().find_map(|line| line.strip_prefix("role:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_replies_say_it() {
        let parse = |bytes: &str| role(&redis::parse_redis_value(bytes.as_bytes()).expect("a reply"));
        assert_eq!(parse("*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"), Role::Primary);
        assert_eq!(parse("*1\r\n$5\r\nslave\r\n"), Role::Other);
        assert_eq!(parse("*1\r\n$8\r\nsentinel\r\n"), Role::Other);
        assert_eq!(parse("$28\r\n# Replication\r\nrole:master\r\n\r\n"), Role::Primary);
        assert_eq!(parse("$25\r\n# Replication\r\nrole:slave\r\n"), Role::Other);
        assert_eq!(parse("=29\r\ntxt:# Replication\r\nrole:slave\r\n"), Role::Other);
        assert_eq!(parse("-NOPERM no\r\n"), Role::Unknown);
    }
}

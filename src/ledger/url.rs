//! What is wrong with a Redis URL, in words. Pure.
//!
//! The `redis` package reports most mistakes without naming them, and misreads some URLs: it ignores the user of
//! `redis://app@host`, and reads `redis://pass#word@host` as the host `pass`. Such URLs are refused here. No part of a
//! URL that may belong to a password is repeated: only a port and a parameter after the last `@`.

mod parts;
mod several;

use self::parts::{in_database, in_login, in_port, name_of};
pub(super) use self::several::{Kind, Several, read as read_several};
use crate::net::HAS_TLS;

/// The same URL for a connection without TLS; `None` if it does not ask for TLS. It has no mistake.
pub(super) fn without_tls(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let is_tls = scheme.eq_ignore_ascii_case("rediss") || scheme.eq_ignore_ascii_case("valkeys");
    is_tls.then(|| format!("redis://{rest}"))
}

/// What is wrong with `url`, if anything.
pub(super) fn mistake_in(url: &str) -> Option<String> {
    if url.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        return Some("it has a space or a line break; in a password write a space as %20 (percent-encoded)".to_owned());
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return Some(without_scheme(url));
    };
    if let Some(several) = read_several(url) {
        return several.err();
    }
    match scheme.to_ascii_lowercase().as_str() {
        "redis" | "valkey" => in_address(rest),
        "rediss" | "valkeys" if HAS_TLS => in_address(rest),
        "rediss" | "valkeys" => Some("it asks for TLS, and this was built without the feature `tls`".to_owned()),
        "unix" | "redis+unix" | "valkey+unix" => in_path(rest),
        _ if url.starts_with(['"', '\'']) => {
            Some("it begins with a quotation mark; leave out the quotation marks".to_owned())
        }
        other if other.contains("sentinel") => {
            Some("for Sentinels its scheme must be redis+sentinel://, or rediss+sentinel:// for TLS".to_owned())
        }
        other if other.contains("cluster") => {
            Some("for a Redis Cluster its scheme must be redis+cluster://, or rediss+cluster:// for TLS".to_owned())
        }
        // A scheme holds no secret, but text in its place may.
        _ => Some(
            "its scheme must be redis://, rediss://, redis+unix://, redis+sentinel:// or redis+cluster://".to_owned(),
        ),
    }
}

fn without_scheme(url: &str) -> String {
    let begins = |scheme: &str| url.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme));
    if begins("rediss:") || begins("valkeys:") {
        "two slashes must follow the scheme: rediss://".to_owned()
    } else if begins("redis:") || begins("valkey:") {
        "two slashes must follow the scheme: redis://".to_owned()
    } else if url.starts_with('/') {
        "the scheme is missing; for the path of a Unix socket put redis+unix:// before it".to_owned()
    } else {
        "the scheme is missing; put redis:// before it".to_owned()
    }
}

/// `[user:password@]host[:port][/db]`.
fn in_address(rest: &str) -> Option<String> {
    let (login, behind) = match rest.rsplit_once('@') {
        Some((login, behind)) => (Some(login), behind),
        None => (None, rest),
    };
    login.and_then(in_login).or_else(|| in_place(behind))
}

/// `host[:port][/db]`.
fn in_place(place: &str) -> Option<String> {
    if place.contains('#') {
        return Some("there is a # after the address; in a password write it as %23 (percent-encoded)".to_owned());
    }
    let (place, parameters) = place.split_once('?').unwrap_or((place, ""));
    if !parameters.is_empty() {
        return Some(format!("it has an unknown parameter, {:?}: none is known", name_of(parameters)));
    }
    let (address, database) = place.split_once('/').unwrap_or((place, ""));
    let (host, port) = match address.rsplit_once(':') {
        // The colons of an IPv6 address in brackets.
        Some((_, port)) if port.ends_with(']') => (address, None),
        Some((host, port)) => (host, Some(port)),
        None => (address, None),
    };
    if host.contains(',') {
        const SEVERAL: &str = "it has several hosts; for Sentinels it begins with redis+sentinel://, for a Redis \
                               Cluster with redis+cluster://";
        return Some(SEVERAL.to_owned());
    }
    if host.contains(':') && !host.starts_with('[') {
        return Some("the host has a colon; put an IPv6 address in brackets, as in redis://[::1]:6379".to_owned());
    }
    if host.is_empty() {
        return Some("the host is missing".to_owned());
    }
    port.and_then(in_port).or_else(|| in_database(database.trim_end_matches('/')))
}

/// `/path[?db=N&user=USER&pass=PASSWORD]`.
fn in_path(rest: &str) -> Option<String> {
    const KNOWN: [&str; 3] = ["db", "user", "pass"];
    let (path, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    if !path.starts_with('/') {
        return Some("a path must follow, as in redis+unix:///run/redis.sock".to_owned());
    }
    if rest.contains('#') {
        return Some("it has a #; write it as %23 (percent-encoded)".to_owned());
    }
    let pairs = || parameters.split('&').filter(|pair| !pair.is_empty());
    let value = |name: &str| pairs().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    if let Some(pair) = pairs().find(|pair| !KNOWN.contains(&pair.split('=').next().unwrap_or_default())) {
        // Without its value, which may be secret. An unknown one may also be the rest of a password with an & in it.
        let name = if value("pass").is_some() { "one".to_owned() } else { format!("{:?}", name_of(pair)) };
        return Some(format!("it has an unknown parameter, {name}: known are db, user and pass; write an & as %26"));
    }
    if value("user").is_some() && value("pass").is_none() {
        return Some(
            "it has a user without a password: add &pass=PASSWORD, or &pass= for a user who needs none".to_owned(),
        );
    }
    value("db").and_then(in_database).map(|_| "the database, db=, must be a number".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_named() {
        for (url, part) in [
            ("", "scheme is missing"),
            ("redis://:my secret@host", "%20"),
            ("redis://host\nredis://other", "line break"),
            ("host:6379", "put redis:// before it"),
            ("/run/redis.sock", "redis+unix://"),
            ("redis:host", "two slashes"),
            ("Redis:/host", "two slashes"),
            ("http://host", "must be redis://, rediss://, redis+unix://"),
            ("\"redis://host\"", "quotation mark"),
            ("redis+sentinels://host/main", "redis+sentinel://"),
            ("sentinel://host/main", "redis+sentinel://"),
            ("redis+sentinel://host", "name of the primary"),
            ("redis+clusters://host", "redis+cluster://"),
            ("cluster://host", "redis+cluster://"),
            ("redis+cluster://host/1", "only database 0"),
            ("redis://host1:6379,host2:6379", "redis+cluster://"),
            ("redis://host1:6379,host2:6379", "redis+sentinel://"),
            ("rediss://host#insecure", if HAS_TLS { "%23" } else { "feature `tls`" }),
            ("redis://", "host is missing"),
            ("redis:///1", "host is missing"),
            ("redis://:secret@", "host is missing"),
            ("redis://app@host", "user without a password"),
            ("redis://@host", "user without a password"),
            ("redis://:@host", "leave out the @"),
            ("redis://:pass/word@host", "%2F"),
            ("redis://:pass?word@host", "%3F"),
            ("redis://pass#word@host", "%23"),
            ("redis://:100%@host", "write % as %25"),
            ("redis://:50%zz@host", "write % as %25"),
            ("redis://host:70000", "over 65535"),
            ("redis://:pw@host:99999999999999999999/1", "over 65535"),
            ("redis://host:0", "must not be 0"),
            ("redis://host:", "port is missing"),
            ("redis://host:x", "port is not a number"),
            ("redis://pass:word", "port is not a number"),
            ("redis://::1", "brackets"),
            ("redis://host/x", "database"),
            ("redis://host/-1", "database"),
            ("redis://host/1/2", "database"),
            ("redis://host#x", "%23"),
            ("redis://host?timeout=3", "\"timeout\""),
            ("redis+unix://run/redis.sock", "path must follow"),
            ("redis+unix:///run/redis.sock?db=x", "number"),
            ("redis+unix:///run/redis.sock?user=u", "user without a password"),
            ("redis+unix:///run/redis.sock?dd=1", "\"dd\""),
            ("redis+unix:///run/redis.sock?pass=a&b", "%26"),
        ] {
            let mistake = mistake_in(url).unwrap_or_else(|| panic!("nothing is said of {url}"));
            assert!(mistake.contains(part), "{url}: {mistake}");
            assert!(
                !mistake.contains("pass#") && !mistake.contains("secret") && !mistake.contains("\"b\""),
                "{mistake}"
            );
        }
    }

    #[test]
    fn a_good_url_has_none() {
        for url in [
            "redis://host",
            "redis://host/",
            "redis://host:6379/15",
            "REDIS://10.0.0.1",
            "valkey://host",
            "redis://[::1]:6379/1",
            "redis://[::1]",
            "redis://:p@ss:word%23@host",
            "redis://app:@host",
            "redis://app:secret@host:1/2",
            "redis+unix:///run/redis.sock",
            "unix:///run/redis.sock?db=3&user=u&pass=p%26",
            "redis+unix:///run/redis.sock?user=u&pass=",
        ] {
            assert_eq!(mistake_in(url), None, "{url}");
            assert_eq!(without_tls(url), None);
        }
        for url in ["rediss://:secret@host:1/2", "VALKEYS://:secret@host:1/2"] {
            assert_eq!(mistake_in(url).is_some(), !HAS_TLS, "{url}");
            assert_eq!(without_tls(url).as_deref(), Some("redis://:secret@host:1/2"));
        }
    }
}

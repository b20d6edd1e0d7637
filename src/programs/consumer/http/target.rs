//! The URL to which messages are sent. Pure.

use std::fmt;

use percent_encoding::percent_decode_str;
use ureq::http::Uri;

use crate::base::address::mistake_in_host_port;

/// The port of a URL without one.
const HTTP_PORT: &str = "80";

/// A URL that was checked. `Debug` and `Display` show no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// The URL without user and password.
    pub(super) url: String,
    /// The host, by name or address; an IPv6 address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// The value of the header `Authorization`.
    pub(super) authorization: Option<String>,
}

impl Target {
    /// Checks a URL. The error says what is wrong and does not repeat the URL, which may have a password.
    pub fn parse(text: &str) -> Result<Target, String> {
        let Some((scheme, rest)) = text.split_once("://") else { return Err("it does not begin with http://".into()) };
        if scheme.eq_ignore_ascii_case("https") {
            return Err("TLS is not supported yet: use http:// to a server or proxy on this machine or in a trusted \
                        network"
                .into());
        }
        if !scheme.eq_ignore_ascii_case("http") {
            return Err("it does not begin with http://".into());
        }
        if rest.contains('#') {
            return Err("it has a #; write it as %23, also in a password".into());
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None if path.contains('@') && authority.contains(':') && !port_is_number(authority) => {
                return Err("there is a / or ? before the @; in user and password write them as %2F and %3F".into());
            }
            None => (None, authority),
        };
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port),
            _ => (host, HTTP_PORT),
        };
        if let Some(mistake) = mistake_in_host_port(&format!("{name}:{port}")) {
            return Err(mistake.into());
        }
        let port = port.parse().map_err(|_| "the port is not a number")?;
        let url = format!("http://{host}{}{path}", if path.starts_with('/') { "" } else { "/" });
        // The error does not repeat the text.
        url.parse::<Uri>().map_err(|error| format!("it is malformed: {error}"))?;
        let host = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        let authorization = login.map(basic).transpose()?;
        Ok(Target { url, host, port, authorization })
    }
}

/// Whether `host:port` has a number for a port.
fn port_is_number(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The header's value for `user:password` (RFC 7617).
fn basic(login: &str) -> Result<String, String> {
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let [user, password] = [user, password].map(|part| percent_decode_str(part).collect::<Vec<u8>>());
    if user.contains(&b':') {
        return Err("the user's name has a colon, which this way of logging in does not allow".into());
    }
    let pair = [&user[..], b":", &password].concat();
    Ok(format!("Basic {}", data_encoding::BASE64.encode(&pair)))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, u16) {
        let target = Target::parse(text).expect("a URL");
        (target.url, target.host, target.port)
    }

    fn own(url: &str, host: &str, port: u16) -> (String, String, u16) {
        (url.to_owned(), host.to_owned(), port)
    }

    #[test]
    fn urls_have_a_host_a_port_and_a_path() {
        assert_eq!(parts("http://h:8080/job?q=1"), own("http://h:8080/job?q=1", "h", 8080));
        assert_eq!(parts("HTTP://h"), own("http://h/", "h", 80));
        assert_eq!(parts("http://h?q=@"), own("http://h/?q=@", "h", 80));
        assert_eq!(parts("http://h:1/a@b"), own("http://h:1/a@b", "h", 1));
        assert_eq!(parts("http://[::1]:81/"), own("http://[::1]:81/", "::1", 81));
    }

    #[test]
    fn a_login_becomes_a_header_and_is_not_shown() {
        let target = Target::parse("http://Aladdin:open%20sesame@h:1/x").expect("a URL");
        // The example of RFC 7617.
        assert_eq!(target.authorization.as_deref(), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        assert_eq!(target.url, "http://h:1/x");
        assert!(!format!("{target} {target:?}").contains("QWxh"));
        let user_only = Target::parse("http://user@h").expect("a URL");
        assert_eq!(user_only.authorization.as_deref(), Some("Basic dXNlcjo="));
    }

    #[test]
    fn other_urls_are_refused_with_a_reason() {
        for (text, part) in [
            ("https://h/", "TLS is not supported yet"),
            ("HTTPS://h/", "TLS is not supported yet"),
            ("ftp://h/", "begin with http://"),
            ("h:8080/job", "begin with http://"),
            ("", "begin with http://"),
            ("http://", "host is missing"),
            ("http:///job", "host is missing"),
            ("http://h:x/", "port is not a number"),
            ("http://h:70000/", "over 65535"),
            ("http://::1/", "in brackets"),
            ("http://[x]/", "no IPv6 address"),
            ("http://h:/", "port is missing"),
            ("http://h:0/", "port must not be 0"),
            ("http://h/a b", "malformed"),
            ("http://h/#top", "%23"),
            ("http://u:p/w@h/", "%2F"),
            ("http://a%3Ab:c@h/", "colon"),
        ] {
            let error = Target::parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("p/w"), "{error}");
        }
    }
}

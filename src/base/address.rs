//! What is wrong with an address `host:port`, in words. Pure.

use std::net::Ipv6Addr;

/// What is wrong with a port to connect to. The port is not repeated: it may be a piece of a password.
pub fn mistake_in_port(port: &str) -> Option<&'static str> {
    if port.is_empty() {
        return Some("the port is missing behind the colon");
    }
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some("the port is not a number");
    }
    match port.parse::<u16>() {
        Ok(0) => Some("the port must not be 0"),
        Ok(_) => None,
        Err(_) => Some("the port is over 65535"),
    }
}

/// What is wrong with `host:port`; the host may be a name, an IPv4 address or an IPv6 address in brackets.
pub fn mistake_in_host_port(text: &str) -> Option<&'static str> {
    if text.contains("://") {
        return Some("an address is not a URL: leave out everything before the host");
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Some(if text.parse::<u16>().is_ok() { "the host is missing" } else { "the port is missing" });
    };
    let mistake_in_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) if v6.parse::<Ipv6Addr>().is_ok() => None,
        Some(_) => Some("there is no IPv6 address in the brackets"),
        None if host.is_empty() => Some("the host is missing"),
        None if host.contains(':') => Some("an IPv6 address must be in brackets: [::1]:6969"),
        None if host.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) => None,
        None => Some("a host's name has letters, digits and . _ - only"),
    };
    mistake_in_host.or_else(|| mistake_in_port(port))
}

//! Where consumers are found: the entries of `--consumers`, and the addresses that they lead to. Pure.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What the address of a consumer with TLS begins with.
pub const SECURE_SCHEME: &str = "wss://";
/// What the name of consumers that DNS lists begins with.
pub const DNS_SCHEME: &str = "dns:";
/// What the path of a file with addresses begins with.
pub const FILE_SCHEME: &str = "file:";

/// One entry of `--consumers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerSource {
    /// One consumer.
    Fixed(Target),
    /// Each address of a name is a consumer.
    Dns {
        /// The name and the port.
        host_port: String,
        /// Whether they have TLS.
        is_secure: bool,
    },
    /// Each line of a file is a consumer.
    File(PathBuf),
}

/// The address of one consumer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    host_port: String,
    /// The name in its certificate, if it has TLS.
    tls_name: Option<String>,
}

impl ConsumerSource {
    /// The source that an entry names. Whether the address in it is one is for the caller to check.
    pub fn of(entry: &str) -> ConsumerSource {
        if let Some(path) = entry.strip_prefix(FILE_SCHEME) {
            return ConsumerSource::File(path.into());
        }
        let Some(name) = entry.strip_prefix(DNS_SCHEME) else { return ConsumerSource::Fixed(Target::of(entry)) };
        let secure = name.strip_prefix(SECURE_SCHEME);
        ConsumerSource::Dns { host_port: secure.unwrap_or(name).to_owned(), is_secure: secure.is_some() }
    }

    /// The `host:port` in it, unless it is a file.
    pub fn host_port(&self) -> Option<&str> {
        match self {
            ConsumerSource::Fixed(target) => Some(&target.host_port),
            ConsumerSource::Dns { host_port, .. } => Some(host_port),
            ConsumerSource::File(_) => None,
        }
    }

    /// Whether its consumers have TLS. `None`: each line of the file says so.
    pub fn is_secure(&self) -> Option<bool> {
        match self {
            ConsumerSource::Fixed(target) => Some(target.is_secure()),
            ConsumerSource::Dns { is_secure, .. } => Some(*is_secure),
            ConsumerSource::File(_) => None,
        }
    }

    /// Whether it may lead to other addresses later.
    pub fn is_followed(&self) -> bool {
        !matches!(self, ConsumerSource::Fixed(_))
    }
}

impl fmt::Display for ConsumerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConsumerSource::Fixed(target) => target.fmt(f),
            ConsumerSource::Dns { host_port, is_secure } => {
                write!(f, "{DNS_SCHEME}{}{host_port}", if *is_secure { SECURE_SCHEME } else { "" })
            }
            ConsumerSource::File(path) => write!(f, "{FILE_SCHEME}{}", path.display()),
        }
    }
}

impl Target {
    /// `host:port` or `wss://host:port`.
    pub fn of(address: &str) -> Target {
        match address.strip_prefix(SECURE_SCHEME) {
            Some(host_port) => {
                Target { host_port: host_port.to_owned(), tls_name: Some(host_of(host_port).to_owned()) }
            }
            None => Target { host_port: address.to_owned(), tls_name: None },
        }
    }

    /// An address that a name led to. With TLS its certificate must have that name.
    pub(crate) fn found(address: SocketAddr, tls_name: Option<&str>) -> Target {
        Target { host_port: address.to_string(), tls_name: tls_name.map(str::to_owned) }
    }

    /// Where to connect.
    pub fn host_port(&self) -> &str {
        &self.host_port
    }

    /// Whether it has TLS.
    pub fn is_secure(&self) -> bool {
        self.tls_name.is_some()
    }

    /// The name in its certificate, if it has TLS.
    pub fn tls_name(&self) -> Option<&str> {
        self.tls_name.as_deref()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.is_secure() { SECURE_SCHEME } else { "" }, self.host_port)
    }
}

/// The host in `host:port`; an IPv6 address without brackets.
pub(crate) fn host_of(host_port: &str) -> &str {
    host_port.rsplit_once(':').map_or(host_port, |(host, _)| host).trim_matches(['[', ']'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_shown_as_they_were_written() {
        for entry in ["c0:1", "wss://c0:1", "[::1]:1", "dns:c0:1", "dns:wss://c0:1", "file:/etc/consumers", "file:c"] {
            assert_eq!(ConsumerSource::of(entry).to_string(), entry);
        }
        assert_eq!(ConsumerSource::of("dns:c0:1").host_port(), Some("c0:1"));
        assert_eq!(ConsumerSource::of("dns:wss://c0:1").is_secure(), Some(true));
    }

    #[test]
    fn a_certificate_has_the_name_that_led_to_the_address() {
        assert_eq!(Target::of("wss://[::1]:7").tls_name(), Some("::1"));
        assert_eq!(Target::of("c0:7").tls_name(), None);
        let found = Target::found("10.0.0.1:7".parse().expect("an address"), Some("consumer"));
        assert_eq!((found.to_string().as_str(), found.tls_name()), ("wss://10.0.0.1:7", Some("consumer")));
    }
}

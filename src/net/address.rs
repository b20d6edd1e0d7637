//! An address to connect to. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// An address to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host, by name or address, and a port.
    Tcp {
        /// The host; an IPv6 address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => path.display().fmt(f),
        }
    }
}

/// The addresses at which this machine reaches a listener on `address`: the loopback addresses if it listens on all of
/// the machine's addresses (`0.0.0.0`, `[::]`).
pub fn reachable(address: SocketAddr) -> Vec<SocketAddr> {
    let (v4, v6): (IpAddr, IpAddr) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    let hosts = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![v4],
        // A system setting decides whether such a listener accepts IPv4, too. A machine may have no IPv6 loopback.
        IpAddr::V6(ip) if ip.is_unspecified() => vec![v6, v4],
        ip => vec![ip],
    };
    hosts.into_iter().map(|host| SocketAddr::new(host, address.port())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_as_they_are_written() {
        let tcp = |host: &str| Address::Tcp { host: host.to_owned(), port: 6379 }.to_string();
        assert_eq!((tcp("redis").as_str(), tcp("::1").as_str()), ("redis:6379", "[::1]:6379"));
        assert_eq!(Address::Unix("/run/redis.sock".into()).to_string(), "/run/redis.sock");
    }

    #[test]
    fn an_unspecified_address_is_reached_at_the_loopback_one() {
        let reached = |address: &str| -> Vec<String> {
            reachable(address.parse().expect("an address")).iter().map(ToString::to_string).collect()
        };
        assert_eq!(reached("0.0.0.0:80"), ["127.0.0.1:80"]);
        assert_eq!(reached("[::]:80"), ["[::1]:80", "127.0.0.1:80"]);
        assert_eq!(reached("10.0.0.1:80"), ["10.0.0.1:80"]);
    }
}

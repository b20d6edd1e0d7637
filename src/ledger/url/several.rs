//! URLs that name several servers, of which one says where the group's server is:
//! `redis+sentinel://[user:password@]host[:port],…/NAME[/db][?sentinel_user=USER&sentinel_password=PASSWORD]` and
//! `redis+cluster://[user:password@]host[:port],…`. Pure.

use super::parts::{has_bare_percent, in_database, in_login, in_port, name_of};
use crate::net::{Address, HAS_TLS};

/// The most addresses in one URL.
const MAX_ADDRESSES: usize = 32;
/// A Sentinel's port, if the URL has none.
const SENTINEL_PORT: u16 = 26_379;

/// The port of a Redis Cluster's node, if the URL has none.
const CLUSTER_PORT: u16 = 6_379;

/// The kinds of such URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ledger) enum Kind {
    /// The servers are Sentinels.
    Sentinel,
    /// The servers are nodes of a Redis Cluster.
    Cluster,
}

/// What such a URL says.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::ledger) struct Several {
    pub(in crate::ledger) kind: Kind,
    pub(in crate::ledger) is_secure: bool,
    pub(in crate::ledger) addresses: Vec<Address>,
    /// The name of the primary.
    pub(in crate::ledger) name: String,
    /// A URL of the server itself, at a host that means nothing: the login and the database are taken from it.
    pub(in crate::ledger) server_url: String,
    /// The same for the login of the Sentinels.
    pub(in crate::ledger) sentinel_url: String,
}

/// The kind that a scheme names, and whether by TLS; `None` if it is not one of these.
fn kind(scheme: &str) -> Option<(Kind, bool)> {
    match scheme.to_ascii_lowercase().as_str() {
        "redis+sentinel" | "valkey+sentinel" => Some((Kind::Sentinel, false)),
        "rediss+sentinel" | "valkeys+sentinel" => Some((Kind::Sentinel, true)),
        "redis+cluster" | "valkey+cluster" => Some((Kind::Cluster, false)),
        "rediss+cluster" | "valkeys+cluster" => Some((Kind::Cluster, true)),
        _ => None,
    }
}

/// Reads such a URL; `None` if its scheme is another one.
pub(in crate::ledger) fn read(url: &str) -> Option<Result<Several, String>> {
    let (scheme, rest) = url.split_once("://")?;
    let (kind, is_secure) = kind(scheme)?;
    Some(read_rest(kind, is_secure, rest))
}

fn read_rest(kind: Kind, is_secure: bool, rest: &str) -> Result<Several, String> {
    if is_secure && !HAS_TLS {
        return Err("it asks for TLS, and this was built without the feature `tls`".to_owned());
    }
    let (login, behind) = rest.rsplit_once('@').map_or((None, rest), |(login, behind)| (Some(login), behind));
    let problem = login.and_then(in_login).or_else(|| {
        let hash = "it has a #; in a password write it as %23 (percent-encoded)";
        behind.contains('#').then(|| hash.to_owned())
    });
    if let Some(problem) = problem {
        return Err(problem);
    }
    let (behind, parameters) = behind.split_once('?').unwrap_or((behind, ""));
    let (hosts, path) = behind.split_once('/').unwrap_or((behind, ""));
    let addresses = addresses(hosts, if kind == Kind::Cluster { CLUSTER_PORT } else { SENTINEL_PORT })?;
    if kind == Kind::Cluster {
        return cluster(is_secure, addresses, login, path, parameters);
    }
    let (name, database) = path.trim_end_matches('/').split_once('/').unwrap_or((path.trim_end_matches('/'), ""));
    in_name(name).or_else(|| in_database(database)).map_or(Ok(()), Err)?;
    let at = |login: String| format!("redis://{login}localhost/{database}");
    let server_url = at(login.map_or(String::new(), |login| format!("{login}@")));
    let sentinel_url = format!("redis://{}localhost", sentinel_login(parameters)?);
    Ok(Several { kind, is_secure, addresses, name: name.to_owned(), server_url, sentinel_url })
}

/// A Redis Cluster has no name and no database but 0.
fn cluster(
    is_secure: bool,
    addresses: Vec<Address>,
    login: Option<&str>,
    path: &str,
    parameters: &str,
) -> Result<Several, String> {
    if !parameters.is_empty() {
        return Err(format!("it has an unknown parameter, {:?}: none is known", name_of(parameters)));
    }
    if !["", "0"].contains(&path.trim_end_matches('/')) {
        return Err("a Redis Cluster has only database 0: leave out what follows the addresses".to_owned());
    }
    let server_url = format!("redis://{}localhost", login.map_or(String::new(), |login| format!("{login}@")));
    let sentinel_url = "redis://localhost".to_owned();
    Ok(Several { kind: Kind::Cluster, is_secure, addresses, name: String::new(), server_url, sentinel_url })
}

fn addresses(hosts: &str, port: u16) -> Result<Vec<Address>, String> {
    let mut addresses = Vec::new();
    for text in hosts.split(',') {
        let address = address(text, hosts, port)?;
        if addresses.contains(&address) {
            return Err("it names the same address twice".to_owned());
        }
        addresses.push(address);
    }
    if addresses.len() > MAX_ADDRESSES {
        return Err(format!("it has more than {MAX_ADDRESSES} addresses"));
    }
    Ok(addresses)
}

fn address(text: &str, all: &str, usual_port: u16) -> Result<Address, String> {
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an IPv6 address in brackets.
        Some((_, port)) if port.ends_with(']') => (text, None),
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let problem = match host {
        "" if all.is_empty() => Some("the addresses are missing".to_owned()),
        "" if text.is_empty() => Some("an address is missing beside a comma".to_owned()),
        "" => Some("a host is missing before the port".to_owned()),
        _ if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) => {
            Some("a host has a colon; put an IPv6 address in brackets, as in [::1]:26379".to_owned())
        }
        _ => port.and_then(in_port),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = port.and_then(|port| port.parse().ok()).unwrap_or(usual_port);
    problem.map_or(Ok(Address::Tcp { host, port }), Err)
}

/// Sentinel allows these letters in a name.
fn in_name(name: &str) -> Option<String> {
    const FORM: &str = "redis+sentinel://host:26379,host:26379/NAME";
    let is_good = name.bytes().all(|letter| letter.is_ascii_alphanumeric() || b"._-".contains(&letter));
    match name {
        "" => {
            Some(format!("the name of the primary is missing, as Sentinel calls it (sentinel monitor NAME …): {FORM}"))
        }
        _ if !is_good => Some(format!("the name of the primary may have letters, digits and . _ - only: {FORM}")),
        _ => None,
    }
}

/// The login of the Sentinels, as it stands before the host in a URL.
fn sentinel_login(parameters: &str) -> Result<String, String> {
    let (mut user, mut password) = (None, None);
    for pair in parameters.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let place = match name {
            "sentinel_user" => &mut user,
            "sentinel_password" => &mut password,
            // An unknown one may also be the rest of a password with an & in it.
            _ if password.is_some() => {
                return Err("it has an unknown parameter behind sentinel_password; write an & as %26".to_owned());
            }
            _ => {
                let name = name_of(pair);
                return Err(format!(
                    "it has an unknown parameter, {name:?}: known are sentinel_user, sentinel_password"
                ));
            }
        };
        if place.replace(value).is_some() {
            return Err(format!("it has {name} twice"));
        }
    }
    if [user, password].iter().flatten().any(|value| has_bare_percent(value)) {
        return Err("a % in a parameter is not followed by two hexadecimal digits; write % as %25".to_owned());
    }
    if [user, password].iter().flatten().any(|value| value.contains([':', '/'])) {
        return Err("a parameter has a : or a /; write them as %3A %2F (percent-encoded)".to_owned());
    }
    match (user.unwrap_or_default(), password.unwrap_or_default()) {
        ("", "") => Ok(String::new()),
        (_, "") => Err("it has a sentinel_user without a sentinel_password".to_owned()),
        (user, password) => Ok(format!("{user}:{password}@")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn several(url: &str) -> Result<Several, String> {
        read(url).expect("the scheme is known")
    }

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn all_parts_are_read() {
        let url = "redis+sentinel://app:p%40@s1,s2:1,[::1]:2,[::2]/main/3?sentinel_user=u&sentinel_password=a%26";
        let read = several(url).expect("a good URL");
        assert_eq!(read.addresses, [tcp("s1", 26_379), tcp("s2", 1), tcp("::1", 2), tcp("::2", 26_379)]);
        assert_eq!((read.name.as_str(), read.is_secure), ("main", false));
        assert_eq!(read.server_url, "redis://app:p%40@localhost/3");
        assert_eq!(read.sentinel_url, "redis://u:a%26@localhost");
        let read = several("Redis+Sentinel://s1/my-main.1/?sentinel_password=x").expect("a good URL");
        assert_eq!(
            (read.server_url.as_str(), read.sentinel_url.as_str()),
            ("redis://localhost/", "redis://:x@localhost")
        );
        assert_eq!(super::read("redis://host"), None);
        for url in
            ["redis+cluster://app:x@n1,n2:1", "VALKEY+cluster://app:x@n1:6379,n2:1/", "redis+cluster://app:x@n1,n2:1/0"]
        {
            let read = several(url).expect("a good URL");
            assert_eq!((read.kind, read.addresses), (Kind::Cluster, vec![tcp("n1", 6_379), tcp("n2", 1)]));
            assert_eq!(read.server_url, "redis://app:x@localhost");
        }
    }

    #[test]
    fn a_mistake_is_named() {
        let many: Vec<String> = (0..33).map(|host| format!("h{host}")).collect();
        let many = format!("redis+sentinel://{}/main", many.join(","));
        for (url, part) in [
            ("redis+sentinel://s1,s2", "name of the primary is missing"),
            ("redis+sentinel://s1/", "name of the primary is missing"),
            ("redis+sentinel://s1//1", "name of the primary is missing"),
            ("redis+sentinel://s1/my main", "letters, digits"),
            ("redis+sentinel:///main", "addresses are missing"),
            ("redis+sentinel://s1,/main", "beside a comma"),
            ("redis+sentinel://,s1/main", "beside a comma"),
            ("redis+sentinel://s1,:5/main", "host is missing before the port"),
            ("redis+sentinel://s1:26379,s1/main", "same address twice"),
            ("redis+sentinel://s1:0/main", "must not be 0"),
            ("redis+sentinel://s1:,s2/main", "port is missing"),
            ("redis+sentinel://s1:70000/main", "over 65535"),
            ("redis+sentinel://s1:x/main", "port is not a number"),
            ("redis+sentinel://::1/main", "brackets"),
            ("redis+sentinel://s1/main/x", "database"),
            ("redis+sentinel://s1/main/1/2", "database"),
            ("redis+sentinel://secret@s1/main", "user without a password"),
            ("redis+sentinel://:sec/ret@s1/main", "%2F"),
            ("redis+sentinel://s1/main#x", "%23"),
            ("redis+sentinel://s1/main?quorum=2", "\"quorum\""),
            ("redis+sentinel://s1/main?sentinel_password=secret&ret", "%26"),
            ("redis+sentinel://s1/main?sentinel_password=a&sentinel_password=b", "twice"),
            ("redis+sentinel://s1/main?sentinel_password=50%", "%25"),
            ("redis+sentinel://s1/main?sentinel_password=sec:ret", "%3A"),
            ("redis+sentinel://s1/main?sentinel_user=u", "without a sentinel_password"),
            ("redis+cluster://", "addresses are missing"),
            ("redis+cluster://n1,n1:6379", "same address twice"),
            ("redis+cluster://n1,,n2", "beside a comma"),
            ("redis+cluster://n1:6379,n2:0", "must not be 0"),
            ("redis+cluster://n1,n2/1", "only database 0"),
            ("redis+cluster://n1,n2/main", "only database 0"),
            ("redis+cluster://n1?tls=1", "\"tls\""),
            ("redis+cluster://secret@n1", "user without a password"),
            ("redis+cluster://:sec?ret@n1", "%3F"),
            ("redis+cluster://n1#x", "%23"),
            (&many.replace("sentinel", "cluster").replace("/main", ""), "more than 32"),
            (&many, "more than 32"),
        ] {
            let mistake = several(url).expect_err("a mistake");
            assert!(mistake.contains(part), "{url}: {mistake}");
            assert!(!mistake.contains("secret") && !mistake.contains("sec:"), "{mistake}");
        }
        assert_eq!(several("rediss+sentinel://s1/main").is_ok(), HAS_TLS);
        assert_eq!(several("rediss+cluster://n1").is_ok(), HAS_TLS);
    }
}

//! Who may read a program's metrics and pages. Called by the threads of the server; a check reads a small file at most.
//!
//! Two rules. A request must name this server by an address, as `localhost`, by this machine's name or by a name from
//! `--metrics-host`: a web page elsewhere that has its own name resolve to this server (DNS rebinding) is refused. With
//! `--metrics-token-file`, a request must also have the token, except for `/healthz` and `/readyz` from this machine.
//!
//! Limitations: without TLS, whoever can read the traffic can read the token. A request of HTTP/1.0 may name no host,
//! because no browser sends one.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use data_encoding::BASE64;

use super::settings::{MetricsPlace, is_host_name};
use super::token::TokenFile;
use crate::base::error::Result;
use crate::base::setting::variable_of;
use crate::base::text::{Escaped, beginning};

/// The most bytes of a refused name that an answer repeats.
const MAX_SHOWN_BYTES: usize = 100;

/// The rules of one server. The default has no token and no further names.
#[derive(Debug, Default)]
pub struct Access {
    /// Further names, in lower case.
    names: Vec<String>,
    token: Option<TokenFile>,
}

/// Why a request gets no page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// It names its host in a way that HTTP forbids.
    Malformed(&'static str),
    /// It names a host that is not this one.
    Stranger(String),
    /// It has no token, or a wrong one.
    NoToken,
}

/// What decides whether a request is answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// The host in the request's target, which only requests to proxies have.
    pub(super) target: Option<&'a str>,
    pub(super) path: &'a str,
    /// Whether it is HTTP/1.0.
    pub(super) is_old: bool,
    pub(super) headers: &'a [httparse::Header<'a>],
    /// Whether it comes from this machine.
    pub(super) is_local: bool,
}

impl Access {
    /// The rules that the settings state. Fails if the token can't be used.
    pub fn new(place: &MetricsPlace) -> Result<Access> {
        let own = place.address.rsplit_once(':').map_or("", |(host, _)| host);
        let names = place.hosts.iter().map(String::as_str).chain([own]).filter(|name| is_host_name(name));
        Ok(Access {
            names: names.map(str::to_ascii_lowercase).collect(),
            token: place.token_file.as_deref().map(TokenFile::open).transpose()?,
        })
    }

    /// Whether a request may be answered.
    pub(super) fn check(&self, asked: Asked<'_>) -> std::result::Result<(), Denied> {
        let mut hosts = values_of(asked.headers, "host");
        match (hosts.next(), hosts.next()) {
            (_, Some(_)) => return Err(Denied::Malformed("more than one Host")),
            (Some(host), None) => self.check_host(host)?,
            (None, None) if asked.is_old => {}
            (None, None) => return Err(Denied::Malformed("a request of HTTP/1.1 needs a Host")),
        }
        if let Some(host) = asked.target {
            self.check_host(host.as_bytes())?;
        }
        let Some(token) = &self.token else { return Ok(()) };
        if asked.is_local && matches!(asked.path, "/healthz" | "/readyz") {
            return Ok(());
        }
        let mut given = values_of(asked.headers, "authorization");
        match (given.next().and_then(token_in), given.next()) {
            (Some(given), None) if token.is(&given) => Ok(()),
            _ => Err(Denied::NoToken),
        }
    }

    fn check_host(&self, host: &[u8]) -> std::result::Result<(), Denied> {
        let text = String::from_utf8_lossy(host);
        match host_of(&text) {
            Some(host) if self.is_own(host) => Ok(()),
            _ => Err(Denied::Stranger(Escaped(beginning(&text, MAX_SHOWN_BYTES)).to_string())),
        }
    }

    /// Whether a host, without its port, is this server.
    fn is_own(&self, host: &str) -> bool {
        if let Some(v6) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return v6.parse::<Ipv6Addr>().is_ok();
        }
        // A browser writes every form of an address as four numbers before it resolves it.
        if host.parse::<Ipv4Addr>().is_ok() {
            return true;
        }
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        is_host_name(&name) && (name == "localhost" || self.names.contains(&name) || is_name_of_machine(&name))
    }
}

impl Denied {
    /// The sentence for the peer.
    pub(super) fn text(&self) -> String {
        match self {
            Denied::Malformed(problem) => (*problem).to_owned(),
            Denied::Stranger(host) => format!(
                "\"{host}\" is not a name of this server: use its address, or allow the name with {}",
                flag_and_variable("metrics-host")
            ),
            Denied::NoToken => format!(
                "the token of {} is missing or wrong: send it as Authorization: Bearer, or as the password of any user",
                flag_and_variable("metrics-token-file")
            ),
        }
    }
}

/// Whether a connection from `peer` to `own` begins on this machine.
pub(super) fn is_local(peer: IpAddr, own: IpAddr) -> bool {
    peer.to_canonical().is_loopback() || peer.to_canonical() == own.to_canonical()
}

fn values_of<'a>(headers: &'a [httparse::Header<'a>], name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value.trim_ascii())
}

/// The host of `host`, `host:port` or `[address]:port`; `None` if it is something else.
fn host_of(text: &str) -> Option<&str> {
    let port =
        if text.starts_with('[') { text.find(']').map(|end| end + 1)? } else { text.find(':').unwrap_or(text.len()) };
    let (host, port) = text.split_at(port);
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(host)
}

/// Whether a name in lower case is the machine's: the whole of it, or what stands before its domain. Read each time,
/// because it may change while the program runs.
fn is_name_of_machine(name: &str) -> bool {
    let Ok(own) = fs::read_to_string("/proc/sys/kernel/hostname") else { return false };
    let own = own.trim().to_ascii_lowercase();
    !own.is_empty() && (name == own || Some(name) == own.split('.').next())
}

/// The token in the value of `Authorization`: of the scheme Bearer, or the password of the scheme Basic, which a
/// browser asks for.
fn token_in(value: &[u8]) -> Option<Vec<u8>> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = (&value[..space], value[space..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(rest.to_vec());
    }
    let login = scheme.eq_ignore_ascii_case(b"basic").then(|| BASE64.decode(rest).ok())??;
    let colon = login.iter().position(|byte| *byte == b':')?;
    Some(login[colon + 1..].to_vec())
}

fn flag_and_variable(setting: &str) -> String {
    format!("--{setting} ({})", variable_of(setting))
}

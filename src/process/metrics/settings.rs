//! Where metrics are served, and who may read them.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::base::setting::ConfigError;
use crate::process::config::Default::Found;
use crate::process::config::{Setting, Values, check_host_port, quoted};

/// The address of the metrics server.
pub const METRICS_ADDR: Setting = Setting::new(
    "metrics-addr",
    "HOST:PORT",
    Found("off"),
    "Where to serve /metrics, /healthz and /readyz; dispatchers serve the status page there, too",
);
/// Names under which it may be reached.
pub const METRICS_HOST: Setting = Setting::new(
    "metrics-host",
    "NAME",
    Found("none"),
    "A name under which the metrics are reached, beside addresses, localhost and this machine's name: requests to \
     other names are refused. A list with commas; the flag may be repeated",
)
.list();
/// The file of the token.
pub const METRICS_TOKEN_FILE: Setting = Setting::new(
    "metrics-token-file",
    "FILE",
    Found("none"),
    "The file of a token that /metrics and the pages require, as Authorization: Bearer or as a password. It may have \
     two lines, the new token and the old one, and is read again when it changes",
);

const HOST_FORM: &str = "names without a port, of letters, digits or any of . _ -, separated by commas";
const MAX_HOSTS: usize = 64;

/// Where metrics are served, and who may read them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsPlace {
    /// Where the server listens, `host:port`.
    pub address: String,
    /// Further names under which it is reached.
    pub hosts: Vec<String>,
    /// The file of the token; `None`: whoever reaches the address may read.
    pub token_file: Option<PathBuf>,
}

impl MetricsPlace {
    /// An address alone.
    pub fn at(address: impl Into<String>) -> MetricsPlace {
        MetricsPlace { address: address.into(), ..MetricsPlace::default() }
    }

    /// Whether other machines may be able to read without a token.
    pub fn is_open(&self) -> bool {
        let host = self.address.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
        let is_loopback = host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback());
        self.token_file.is_none() && !is_loopback && !host.eq_ignore_ascii_case("localhost")
    }
}

/// Reads the place; `None`: metrics are served nowhere.
pub fn metrics_place(values: &Values<'_>) -> Result<Option<MetricsPlace>, ConfigError> {
    let (hosts, token_file) = (hosts(values)?, values.path("metrics-token-file")?);
    Ok(metrics_addr(values)?.map(|address| MetricsPlace { address, hosts, token_file }))
}

/// Reads the address alone.
pub fn metrics_addr(values: &Values<'_>) -> Result<Option<String>, ConfigError> {
    match values.text("metrics-addr")?.filter(|address| address != "off") {
        Some(address) => {
            check_host_port("metrics-addr", &address, "an address, host:port, or off").map(|()| Some(address))
        }
        None => Ok(None),
    }
}

fn hosts(values: &Values<'_>) -> Result<Vec<String>, ConfigError> {
    let texts = values.texts("metrics-host")?;
    let hosts: Vec<String> = texts.iter().flat_map(|text| text.split(',')).map(|name| name.trim().to_owned()).collect();
    if let Some(bad) = hosts.iter().find(|name| !is_host_name(name)) {
        return Err(ConfigError::new("metrics-host", quoted(bad), HOST_FORM));
    }
    if hosts.len() > MAX_HOSTS {
        let takes = format_args!("at most {MAX_HOSTS}");
        return Err(ConfigError::new("metrics-host", format_args!("{} names", hosts.len()), takes));
    }
    Ok(hosts)
}

/// Whether this may be the name of a host.
pub(super) fn is_host_name(name: &str) -> bool {
    (1..=253).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

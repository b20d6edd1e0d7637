//! Tries the entries of `--consumers` from this machine: names are looked up, files are read, and each address is
//! connected to, without a word. A dispatcher on another machine may see other addresses.

use std::fmt;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::lane::roster::{ConsumerSource, read_list};
use crate::net;

/// How long connecting to one address may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Addresses that are tried at a time.
const AT_A_TIME: usize = 32;

/// What was found out about an entry.
pub struct CheckedSource {
    entry: String,
    /// Each address, and why it can't be reached, if so; or why there is none.
    addresses: Result<Vec<(String, Option<String>)>, String>,
}

/// Tries each entry.
pub fn check(sources: &[ConsumerSource]) -> Vec<CheckedSource> {
    let checked = |source: &ConsumerSource| CheckedSource {
        entry: source.to_string(),
        addresses: addresses_of(source).map(|addresses| try_all(&addresses)),
    };
    sources.iter().map(checked).collect()
}

/// Where to connect, by entry: an address of a name, a name, or a line.
fn addresses_of(source: &ConsumerSource) -> Result<Vec<String>, String> {
    match source {
        ConsumerSource::Fixed(target) => Ok(vec![target.host_port().to_owned()]),
        ConsumerSource::Dns { host_port, .. } => {
            let found = net::resolve(host_port).map_err(|error| error.to_string())?;
            let wants_ipv4 = found.iter().any(SocketAddr::is_ipv4);
            let used = found.iter().filter(|address| address.is_ipv4() == wants_ipv4);
            let used: Vec<String> = used.map(ToString::to_string).collect();
            if used.is_empty() { Err("the name has no address".to_owned()) } else { Ok(used) }
        }
        ConsumerSource::File(path) => {
            let list = read_list(path)?;
            Ok(list.iter().map(|target| target.host_port().to_owned()).collect())
        }
    }
}

fn try_all(addresses: &[String]) -> Vec<(String, Option<String>)> {
    let tried = |address: &String| (address.clone(), try_one(address).err().map(|error| error.to_string()));
    let mut all = Vec::with_capacity(addresses.len());
    for some in addresses.chunks(AT_A_TIME) {
        thread::scope(|scope| {
            let threads: Vec<_> = some.iter().map(|address| scope.spawn(move || tried(address))).collect();
            all.extend(threads.into_iter().filter_map(|thread| thread.join().ok()));
        });
    }
    all
}

fn try_one(address: &str) -> std::io::Result<()> {
    net::connect_any(&net::resolve(address)?, CONNECT_TIMEOUT).map(drop)
}

impl CheckedSource {
    /// Whether there are addresses, and all of them can be reached.
    pub fn works(&self) -> bool {
        self.addresses.as_ref().is_ok_and(|addresses| addresses.iter().all(|(_, error)| error.is_none()))
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let address = |(address, error): &(String, Option<String>)| json!({"address": address, "error": error});
        json!({
            "entry": self.entry,
            "works": self.works(),
            "error": self.addresses.as_ref().err(),
            "addresses": self.addresses.iter().flatten().map(address).collect::<Value>(),
        })
    }
}

impl fmt::Display for CheckedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = match &self.addresses {
            Err(error) => return write!(f, "{}: {error}", self.entry),
            Ok(addresses) => addresses,
        };
        let reached = addresses.iter().filter(|(_, error)| error.is_none()).count();
        write!(f, "{}: {reached} of {} addresses reached", self.entry, addresses.len())?;
        let failed = addresses.iter().filter_map(|(address, error)| Some((address, error.as_ref()?)));
        failed.into_iter().try_for_each(|(address, error)| write!(f, "; {address}: {error}"))
    }
}

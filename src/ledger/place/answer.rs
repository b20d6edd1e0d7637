//! Reads what a Sentinel says of a primary. Pure.

use std::io::{self, ErrorKind};

use redis::Value;

use crate::base::refusal::is_needless_password;
use crate::ledger::value::text;
use crate::net::Address;

/// Where a Sentinel says the primary is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// The number of the last failover; 0 if this Sentinel may not say it.
    pub(super) epoch: u64,
    /// The primary's address.
    pub(super) address: Address,
}

/// Reads the replies to `SENTINEL GET-MASTER-ADDR-BY-NAME` and `SENTINEL MASTER`.
///
/// During a failover the first one names the promoted server sooner than the second one, which has the epoch.
pub(super) fn read(replies: &[Value]) -> Result<Told, String> {
    let [place, master] = replies else { return Err("an unexpected number of replies".to_owned()) };
    let address = match place {
        Value::Array(words) => match words.as_slice() {
            [host, port] => address(host, port),
            _ => None,
        },
        Value::Nil => return Err("it knows no primary of this name: SENTINEL MASTERS lists the names".to_owned()),
        Value::ServerError(_) => return Err(refused(place)),
        _ => None,
    };
    let address = address.ok_or_else(|| "its answer has no address: is this a Sentinel?".to_owned())?;
    Ok(Told { epoch: epoch(master).unwrap_or_default(), address })
}

fn address(host: &Value, port: &Value) -> Option<Address> {
    let (host, port) = (text(host)?, text(port)?.parse().ok().filter(|port| *port != 0)?);
    (!host.is_empty()).then(|| Address::Tcp { host: host.to_owned(), port })
}

/// Pairs of names and values.
fn epoch(master: &Value) -> Option<u64> {
    let Value::Array(words) = master else { return None };
    let mut pairs = words.chunks_exact(2);
    pairs.find(|pair| text(&pair[0]) == Some("config-epoch")).and_then(|pair| text(&pair[1])?.parse().ok())
}

/// Why a Sentinel could not be asked.
pub(super) fn failed(error: &io::Error) -> String {
    let text = error.to_string();
    let small = text.to_ascii_lowercase();
    let advice = match () {
        () if is_needless_password(&text) => "it has no password: leave sentinel_password out of the Redis URL",
        () if small.contains("wrongpass") || small.contains("invalid password") => {
            "check sentinel_user and sentinel_password in the Redis URL"
        }
        () if error.kind() == ErrorKind::ConnectionRefused => "is the Sentinel running there?",
        () => return text,
    };
    format!("{text} ({advice})")
}

/// What to do about a Sentinel's refusal.
fn refused(reply: &Value) -> String {
    let text = reply.clone().extract_error().err().map(|error| error.to_string()).unwrap_or_default();
    let small = text.to_ascii_lowercase();
    match () {
        () if small.contains("noauth") || small.contains("authentication required") => {
            format!("it requires a login: add ?sentinel_user=… and &sentinel_password=… ({text})")
        }
        () if small.contains("noperm") => {
            format!("its user lacks the right +sentinel|get-master-addr-by-name ({text})")
        }
        () if small.contains("unknown command") => format!("this is no Sentinel ({text})"),
        () => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Value {
        Value::Array(words.iter().map(|word| Value::BulkString(word.as_bytes().to_vec())).collect())
    }

    #[test]
    fn the_address_and_the_epoch_are_read() {
        let master = words(&["name", "m", "ip", "10.0.0.1", "config-epoch", "7", "quorum", "2"]);
        let told = read(&[words(&["10.0.0.2", "6380"]), master]).expect("an address");
        assert_eq!(told, Told { epoch: 7, address: Address::Tcp { host: "10.0.0.2".to_owned(), port: 6380 } });
        let refused = redis::parse_redis_value(b"-NOPERM no\r\n").expect("an error");
        let told = read(&[words(&["::1", "1"]), refused.clone()]).expect("an address");
        assert_eq!((told.epoch, told.address.to_string().as_str()), (0, "[::1]:1"));
        for (reply, part) in [
            (Value::Nil, "no primary of this name"),
            (refused, "+sentinel|get-master-addr-by-name"),
            (words(&["10.0.0.2", "0"]), "is this a Sentinel"),
            (words(&["10.0.0.2"]), "is this a Sentinel"),
            (Value::Okay, "is this a Sentinel"),
        ] {
            let problem = read(&[reply, Value::Nil]).expect_err("no address");
            assert!(problem.contains(part), "{problem}");
        }
    }
}

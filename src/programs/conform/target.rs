//! The consumer under test: where it is, what it has said of itself, and which ids and epochs were used.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::case::Need;
use super::handshake::Offer;
use super::peer::{ConnectError, Peer};
use crate::base::error::{Error, Result};
use crate::net::{self, ClientTls, LinkSecret, Secret};
use crate::wire::{NONCE_BYTES, Nonce, SUBPROTOCOL_2};

/// How far apart the epochs of two cases are. A case names no epoch beyond.
const EPOCHS_PER_CASE: u64 = 64;

/// What READY has said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) consumer: String,
    pub(super) prefetch: u32,
    pub(super) records: bool,
    pub(super) channels: bool,
    pub(super) bundles: bool,
    pub(super) protocol: Option<String>,
    /// Whether it serves other lanes than lane 0; `None` if the group has none, or if that can't be told.
    pub(super) lanes: Option<bool>,
}

/// See the module's text.
pub(super) struct Target {
    pub(super) address: String,
    addresses: Vec<SocketAddr>,
    tls: Option<ClientTls>,
    pub(super) group: String,
    /// The consumer's link secret, if it has one.
    pub(super) secret: Option<LinkSecret>,
    /// The consumer's nonces of this run.
    nonces: HashSet<[u8; NONCE_BYTES]>,
    pub(super) timeout: Duration,
    pub(super) facts: Facts,
    pub(super) has_handler: bool,
    pub(super) pid: Option<i32>,
    epoch: u64,
    id: u64,
    known: HashSet<u64>,
}

impl Target {
    pub(super) fn new(address: &str, tls: Option<ClientTls>, group: &str, timeout: Duration) -> Result<Target> {
        let addresses = net::resolve(address).map_err(Error::io(format!("looking up {address}")))?;
        Ok(Target {
            address: address.to_owned(),
            addresses,
            tls,
            group: group.to_owned(),
            secret: None,
            nonces: HashSet::new(),
            timeout,
            facts: Facts::default(),
            has_handler: false,
            pid: None,
            epoch: 0,
            id: 0,
            known: HashSet::new(),
        })
    }

    pub(super) fn connect(&self, offer: &Offer<'_>) -> std::result::Result<Peer, ConnectError> {
        Peer::connect(&self.addresses, self.tls.as_ref(), &self.address, offer, self.timeout)
    }

    /// An epoch above all that were used so far, also by an earlier run: epochs follow the clock.
    pub(super) fn next_epoch(&mut self) -> u64 {
        self.epoch = (self.epoch + EPOCHS_PER_CASE).max(since_1970().as_millis() as u64);
        self.epoch
    }

    /// An id that was not used before.
    pub(super) fn next_id(&mut self) -> u64 {
        self.id = (self.id + 1).max(since_1970().as_micros() as u64);
        self.known.insert(self.id);
        self.id
    }

    /// Whether this message was delivered in this run, or held before it.
    pub(super) fn knows(&self, id: u64) -> bool {
        self.known.contains(&id)
    }

    /// Notes a message that the consumer holds from before.
    pub(super) fn learn(&mut self, id: u64) {
        self.known.insert(id);
    }

    /// The secrets of the file; none if there is no file.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        self.secret.as_ref().map(|secret| secret.current().to_vec()).unwrap_or_default()
    }

    /// Whether the consumer has not used this nonce before.
    pub(super) fn is_new(&mut self, nonce: Nonce) -> bool {
        self.nonces.insert(nonce.0)
    }

    /// The first need that this consumer does not meet.
    pub(super) fn lacks(&self, needs: &[Need]) -> Option<Need> {
        let meets = |need: &Need| match need {
            Need::Handler => self.has_handler,
            Need::Records => self.facts.records,
            Need::Sends => !self.facts.records,
            Need::Channels => self.facts.channels,
            Need::Protocol2 => self.facts.protocol.as_deref() == Some(SUBPROTOCOL_2),
            Need::Pid => self.pid.is_some(),
            Need::Secret => self.secret.is_some(),
            Need::TwoSecrets => self.secrets().len() == 2,
            Need::NoSecret => self.secret.is_none(),
            Need::Prefetch(least) => self.facts.prefetch >= *least,
            Need::SmallPrefetch(most) => self.facts.prefetch <= *most,
        };
        needs.iter().find(|need| !meets(need)).copied()
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

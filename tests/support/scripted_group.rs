//! A dispatcher, a Redis, and consumers that do what the test wants.

use std::collections::BTreeSet;

use oncecast::lab::{ChildProcess, Cluster};

use super::peer::Peer;
use super::programs::{bare_cluster, dispatcher};
use super::progress::wait_until_in_sync;
use super::redis::{client_of, run};
use super::waiting::wait_until;

/// See the module's text. Fields are in the order in which they must be dropped.
pub struct Scripted {
    pub dispatcher: ChildProcess,
    pub cluster: Cluster,
}

impl Scripted {
    /// One dispatcher with these consumers.
    pub fn start(peers: &[&Peer], args: &str) -> Scripted {
        let cluster = bare_cluster();
        let addresses: Vec<String> = peers.iter().map(|peer| peer.address()).collect();
        let dispatcher = dispatcher(&cluster, "d0", &addresses, args);
        Scripted { dispatcher, cluster }
    }

    /// A connection, once the dispatcher leads.
    pub fn client(&mut self) -> redis::Connection {
        let mut connection = client_of(&mut self.cluster);
        wait_until_in_sync(&mut connection, 1);
        connection
    }

    /// The newest epoch.
    pub fn epoch(&mut self) -> u64 {
        run(&mut client_of(&mut self.cluster), &["GET", "messages:epoch"])
    }
}

/// The consumers that are linked.
pub fn listed(connection: &mut redis::Connection) -> BTreeSet<String> {
    run(connection, &["LRANGE", "messages:consumers", "0", "-1"])
}

/// Waits until just these are linked.
pub fn wait_until_listed(connection: &mut redis::Connection, names: &[&str]) {
    let wanted: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    wait_until(format!("messages:consumers to be {wanted:?}"), || (listed(connection) == wanted).then_some(()));
}

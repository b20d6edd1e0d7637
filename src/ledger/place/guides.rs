//! What each server says that knows where the group's server is: all Sentinels, or all nodes of a Redis Cluster, asked
//! one by one, for `oncecast doctor`.

use std::thread;

use super::answer::Told;
use crate::ledger::topology::Topology;
use crate::net::Address;

/// What a Sentinel says.
#[derive(Clone, Debug)]
pub(in crate::ledger) struct Witness {
    /// Where it says the primary is.
    pub(in crate::ledger) primary: Address,
    /// The number of the last failover.
    pub(in crate::ledger) epoch: u64,
    /// Whether it refuses to say that number.
    pub(in crate::ledger) hides_epoch: bool,
}

/// What each of them says, or why it says nothing.
pub(in crate::ledger) enum Guides {
    /// Sentinels.
    Sentinels(Vec<(Address, Result<Witness, String>)>),
    /// Nodes: those that the cluster names, and those of the URL. Also whether the URL alone names it.
    Nodes(Vec<(Address, Result<Topology, String>)>),
}

impl Witness {
    pub(super) fn new(told: Told, hides_epoch: bool) -> Witness {
        Witness { primary: told.address, epoch: told.epoch, hides_epoch }
    }
}

/// The most that are asked at the same time.
const AT_ONCE: usize = 16;

/// Asks all of them, many at the same time, each on a thread of its own.
pub(in crate::ledger) fn ask_all<T: Send>(
    addresses: Vec<Address>,
    ask: impl Fn(&Address) -> Result<T, String> + Sync,
) -> Vec<(Address, Result<T, String>)> {
    let ask = &ask;
    let mut answers = Vec::new();
    for addresses in addresses.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let start = |address: &Address| {
                let question = address.clone();
                (address.clone(), thread::Builder::new().spawn_scoped(scope, move || ask(&question)))
            };
            let asked: Vec<_> = addresses.iter().map(start).collect();
            answers.extend(asked.into_iter().map(|(address, thread)| match thread {
                Ok(thread) => (address, thread.join().unwrap_or_else(|_| Err("asking it failed".to_owned()))),
                Err(error) => (address, Err(format!("no thread could be started to ask it: {error}"))),
            }));
        });
    }
    answers
}

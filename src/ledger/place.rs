//! Where a server is: looked up anew at each connection, because the server that a group uses may be another one by
//! then.
//!
//! All clones of a [`Server`](super::Server) share one place. Its *generation* rises whenever it is learned that the
//! server is elsewhere now: another address was found, or the server said so. An open session remembers the generation
//! at which it was opened; once that is outdated it is ended, and its owner opens another. So the subscription and all
//! commands move to the new server together, although nobody has closed their connections.
//!
//! Looking up runs on the thread that connects, within a time limit.

mod answer;
mod asker;
mod board;
mod cluster;
mod guides;
mod known;
mod sentinels;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use self::asker::Asker;
use self::cluster::{Cluster, ask};
pub(super) use self::guides::{Guides, Witness, ask_all};
pub(super) use self::known::Found;
use self::known::Known;
pub use self::known::Planned;
use self::sentinels::Sentinels;
use super::secure::Secure;
use super::topology::Topology;
use crate::base::refusal::{self, Refusal};
use crate::net::{Address, Closer};

/// See the module's text. Clones share what is known.
#[derive(Clone)]
pub(super) struct Place {
    whereabouts: Whereabouts,
    known: Arc<Known>,
}

/// How the address is found.
#[derive(Clone)]
enum Whereabouts {
    /// It is in the URL. A name in it is looked up at each connection, but nothing says that it leads elsewhere now.
    Fixed(Address),
    /// It is the primary that these Sentinels name.
    Sentinels(Arc<Sentinels>),
    /// It is the node of a Redis Cluster that owns this slot; without a slot, any node.
    Cluster(Arc<Cluster>, Option<u16>),
}

impl Place {
    /// A server that is always at this address.
    pub(super) fn fixed(address: Address) -> Place {
        Place { whereabouts: Whereabouts::Fixed(address), known: Arc::default() }
    }

    /// The primary of this name, by the Sentinels at these addresses. `login` is user and password for the Sentinels.
    pub(super) fn of_sentinels(
        name: &str,
        addresses: Vec<Address>,
        secure: Option<&Secure>,
        login: (Option<&str>, Option<&str>),
    ) -> Place {
        let known = Arc::<Known>::default();
        let secure = secure.cloned();
        let (user, password) = (login.0.map(str::to_owned), login.1.map(str::to_owned));
        let asker = move |sentinel: &Address| {
            Asker::new(sentinel.clone(), secure.clone(), user.as_deref(), password.as_deref())
        };
        let sentinels = Sentinels::new(name, addresses, Box::new(asker), known.clone());
        Place { whereabouts: Whereabouts::Sentinels(Arc::new(sentinels)), known }
    }

    /// A node of the Redis Cluster to which these nodes belong, with this login.
    pub(super) fn of_cluster(
        seeds: Vec<Address>,
        secure: Option<&Secure>,
        (user, password): (Option<&str>, Option<&str>),
    ) -> Place {
        let secure = secure.cloned();
        let (user, password) = (user.map(str::to_owned), password.map(str::to_owned));
        let asker =
            move |node: &Address| Asker::new(node.clone(), secure.clone(), user.as_deref(), password.as_deref());
        let cluster = Arc::new(Cluster::new(seeds, Box::new(move |node, limit| ask(&mut asker(node), limit))));
        Place { known: cluster.known(None), whereabouts: Whereabouts::Cluster(cluster, None) }
    }

    /// The same place for the keys of a slot. All that are made for one slot move together.
    pub(super) fn for_slot(&self, slot: u16) -> Place {
        match &self.whereabouts {
            Whereabouts::Cluster(cluster, _) => {
                let known = cluster.known(Some(slot));
                Place { known, whereabouts: Whereabouts::Cluster(cluster.clone(), Some(slot)) }
            }
            Whereabouts::Fixed(_) | Whereabouts::Sentinels(_) => self.clone(),
        }
    }

    /// The nodes and slots of the Redis Cluster; `None` if it is none.
    pub(super) fn topology(&self, limit: Duration) -> Option<io::Result<Topology>> {
        match &self.whereabouts {
            Whereabouts::Cluster(cluster, _) => Some(cluster.topology(limit)),
            Whereabouts::Fixed(_) | Whereabouts::Sentinels(_) => None,
        }
    }

    /// All nodes of the Redis Cluster that are known, or those of this place's shard, in both cases also some that may
    /// have left it; none if it is no cluster.
    pub(super) fn nodes(&self, of_the_shard: bool, limit: Duration) -> io::Result<Vec<Address>> {
        match &self.whereabouts {
            Whereabouts::Cluster(cluster, slot) => cluster.nodes(slot.filter(|_| of_the_shard), limit),
            Whereabouts::Fixed(_) | Whereabouts::Sentinels(_) => Ok(Vec::new()),
        }
    }

    /// What each Sentinel or node says, asked now, each within `limit`; `None` if the URL names the server itself.
    pub(super) fn guides(&self, limit: Duration) -> Option<Guides> {
        match &self.whereabouts {
            Whereabouts::Fixed(_) => None,
            Whereabouts::Sentinels(sentinels) => Some(Guides::Sentinels(sentinels.ask_each(limit))),
            Whereabouts::Cluster(cluster, _) => Some(Guides::Nodes(cluster.ask_each(limit))),
        }
    }

    /// Whether it is a node of a Redis Cluster.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.whereabouts, Whereabouts::Cluster(..))
    }

    /// What all sessions of this place share.
    pub(super) fn known(&self) -> &Known {
        &self.known
    }

    /// No connection could be opened to what was found.
    pub(super) fn note_unreachable(&self) {
        if let Whereabouts::Cluster(cluster, _) = &self.whereabouts {
            cluster.suspect();
        }
    }

    /// Where the server is now; asking may take `limit`.
    pub(super) fn find(&self, limit: Duration) -> io::Result<Found> {
        match &self.whereabouts {
            Whereabouts::Fixed(address) => Ok(Found { address: address.clone(), generation: self.known.generation() }),
            Whereabouts::Sentinels(sentinels) => sentinels.find(limit),
            Whereabouts::Cluster(cluster, slot) => cluster.find(*slot, &self.known, limit),
        }
    }

    /// Ends this session when its generation is over, for as long as the caller keeps what it gets.
    pub(super) fn watch(&self, generation: u64, session: Closer) -> Option<Arc<Closer>> {
        match &self.whereabouts {
            // It never moves.
            Whereabouts::Fixed(_) => None,
            Whereabouts::Sentinels(_) | Whereabouts::Cluster(..) => Some(self.known.watch(generation, session)),
        }
    }

    /// Whether a new session must find out that its server is a primary: others may not have noticed yet that it is one
    /// no longer.
    pub(super) fn must_be_primary(&self) -> bool {
        match &self.whereabouts {
            // A replica of a Redis Cluster refuses commands by itself, with `MOVED`.
            Whereabouts::Fixed(_) | Whereabouts::Cluster(..) => false,
            Whereabouts::Sentinels(_) => true,
        }
    }

    /// Whether a session that was opened at this generation leads to a server that is no longer the right one.
    pub(super) fn is_outdated(&self, generation: u64) -> bool {
        self.known.generation() != generation
    }

    /// Looks at an error reply on a connection that was opened at this generation. Returns whether the connection must
    /// end, because the reply shows that the server is the wrong one. That is also so at a fixed address: a name or a
    /// virtual address may lead elsewhere by now.
    pub(super) fn note_refusal(&self, generation: u64, text: &str) -> bool {
        let is_wrong = match Refusal::of(text) {
            Refusal::Replica => true,
            Refusal::Cluster => refusal::code(text) == Some("MOVED"),
            _ => false,
        };
        match &self.whereabouts {
            Whereabouts::Sentinels(_) if is_wrong => self.known.end_generation(generation),
            Whereabouts::Cluster(cluster, slot) => {
                let verdict = cluster.judge(*slot, &self.known, generation, text);
                return verdict || is_wrong;
            }
            _ => {}
        }
        is_wrong
    }

    /// For logs and errors, without secrets.
    pub(super) fn shown(&self) -> String {
        match &self.whereabouts {
            Whereabouts::Fixed(address) => address.to_string(),
            Whereabouts::Sentinels(sentinels) => match self.known.last() {
                Some(address) => format!("sentinel {} at {address}", sentinels.name()),
                None => format!("sentinel {} at {}", sentinels.name(), sentinels.shown()),
            },
            Whereabouts::Cluster(cluster, _) => match self.known.last() {
                Some(address) => format!("cluster node {address}"),
                None => format!("cluster {}", cluster.shown()),
            },
        }
    }
}

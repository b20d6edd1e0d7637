//! How lists of consumers are followed: how often, and how names are looked up. Plain values.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::net;

/// How the addresses of a name are found.
type Lookup = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// How sources are followed.
#[derive(Clone)]
pub struct Following {
    /// Finds the addresses of `host:port`.
    pub lookup: Arc<Lookup>,
    /// How often a name is looked up.
    pub lookup_every: Duration,
    /// An address is removed after answers have lacked it for this long.
    pub hold: Duration,
    /// How often a file is looked at.
    pub look_every: Duration,
    /// How long an address that was removed is kept while this dispatcher does not lead: a new leader asks such a
    /// consumer what it holds.
    pub kept_unled: Duration,
}

impl Default for Following {
    fn default() -> Following {
        Following {
            lookup: Arc::new(net::resolve),
            lookup_every: Duration::from_secs(5),
            hold: Duration::from_secs(30),
            look_every: Duration::from_secs(1),
            kept_unled: Duration::from_secs(60),
        }
    }
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Following").field("lookup_every", &self.lookup_every).field("hold", &self.hold).finish()
    }
}

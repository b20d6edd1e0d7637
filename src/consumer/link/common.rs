//! The state that all connections share.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::consumer::lane::ConsumerLane;
use crate::consumer::lanes::Lanes;
use crate::consumer::refusals::Refusals;
use crate::consumer::regulars::Regulars;
use crate::net::{LinkSecret, ServerTls};

/// How long a closed connection waits for its peer to close as well.
pub(super) const LINGER: Duration = Duration::from_millis(500);

/// The lane of a connection, once the peer's LEAD was accepted.
pub(in crate::consumer) type LinkLane = OnceLock<Arc<ConsumerLane>>;

/// See the module's text.
pub(in crate::consumer) struct Common {
    /// TLS, if dispatchers must connect with it.
    pub(in crate::consumer) tls: Option<ServerTls>,
    /// The secret that dispatchers must know, if there is one.
    pub(in crate::consumer) secret: Option<LinkSecret>,
    pub(in crate::consumer) lanes: Arc<Lanes>,
    pub(in crate::consumer) refusals: Refusals,
    pub(in crate::consumer) regulars: Regulars,
}

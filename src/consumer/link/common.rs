//! The state that all connections share.

use std::sync::Arc;
use std::time::Duration;

use crate::consumer::inlet::Permits;
use crate::consumer::lane::ConsumerLane;
use crate::consumer::refusals::Refusals;
use crate::consumer::regulars::Regulars;
use crate::net::{LinkSecret, ServerTls};

/// How long a closed connection waits for its peer to close as well.
pub(super) const LINGER: Duration = Duration::from_millis(500);

/// See the module's text.
pub(in crate::consumer) struct Common {
    /// TLS, if dispatchers must connect with it.
    pub(in crate::consumer) tls: Option<ServerTls>,
    /// The secret that dispatchers must know, if there is one.
    pub(in crate::consumer) secret: Option<LinkSecret>,
    pub(in crate::consumer) lane: Arc<ConsumerLane>,
    pub(in crate::consumer) refusals: Refusals,
    pub(in crate::consumer) permits: Permits,
    pub(in crate::consumer) regulars: Regulars,
}

//! A connection of a case: how far its greeting has come, and whether it has ended.

use std::time::Instant;

use super::peer::Peer;
use crate::wire::SUBPROTOCOL_2;

/// A connection of the case.
pub(super) struct Link {
    pub(super) peer: Option<Peer>,
    pub(super) greeting: Greeting,
    /// When it was connected.
    pub(super) since: Instant,
    /// The consumer has sent ERROR.
    pub(super) errored: bool,
    /// Not read any more.
    pub(super) frozen: bool,
    /// Why it has ended.
    pub(super) ended: Option<String>,
    pub(super) pinged: Instant,
    /// Pongs that have arrived.
    pub(super) pongs: Vec<Vec<u8>>,
}

impl Link {
    pub(super) fn new(peer: Peer) -> Link {
        let now = Instant::now();
        Link {
            peer: Some(peer),
            greeting: Greeting::NotLed,
            since: now,
            errored: false,
            frozen: false,
            ended: None,
            pinged: now,
            pongs: Vec::new(),
        }
    }

    /// Whether the consumer has selected subprotocol `oncecast.2`.
    pub(super) fn is_version_2(&self) -> bool {
        self.peer.as_ref().is_some_and(|peer| peer.protocol.as_deref() == Some(SUBPROTOCOL_2))
    }
}

/// How far the consumer has come with its greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    NotLed,
    Led,
    Ready,
    Held,
}

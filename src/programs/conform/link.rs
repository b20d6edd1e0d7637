//! A connection of a case: how far its greeting has come, and whether it has ended.

use std::time::Instant;

use super::peer::Peer;
use crate::base::text::beginning;
use crate::wire::{NONCE_HEADER, Nonce, Nonces, PROOF_HEADER, Proof, SUBPROTOCOL_2, proofs_in};

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
    /// The nonce that was sent, if it was one.
    pub(super) sent_nonce: Option<Nonce>,
    /// Both nonces, if the consumer has answered with one and with proofs.
    pub(super) nonces: Option<Nonces>,
    /// The consumer's proofs.
    pub(super) proofs: Vec<Proof>,
    /// Whether the consumer waits for PROOF.
    pub(super) awaits_proof: bool,
    /// What was sent, for a case that sends it again.
    pub(super) sent: Vec<Vec<u8>>,
    /// Pongs that have arrived.
    pub(super) pongs: Vec<Vec<u8>>,
}

impl Link {
    pub(super) fn new(peer: Peer, nonce: Option<&str>) -> Link {
        let now = Instant::now();
        let sent_nonce = nonce.and_then(|nonce| Nonce::of_header(nonce.as_bytes()));
        let (answered, proof) = &peer.proved;
        let consumer = answered.as_ref().and_then(|nonce| Nonce::of_header(nonce.as_bytes()));
        let proofs = proof.as_ref().map(|proof| proofs_in(proof.as_bytes())).unwrap_or_default();
        let nonces = sent_nonce.zip(consumer).map(|(dispatcher, consumer)| Nonces { dispatcher, consumer });
        let nonces = nonces.filter(|_| !proofs.is_empty());
        Link {
            peer: Some(peer),
            greeting: Greeting::NotLed,
            since: now,
            errored: false,
            frozen: false,
            ended: None,
            pinged: now,
            sent_nonce,
            nonces,
            awaits_proof: nonces.is_some(),
            proofs,
            sent: Vec::new(),
            pongs: Vec::new(),
        }
    }

    /// The headers of the consumer's answer about the link secret.
    pub(super) fn said_of_secret(&self) -> String {
        /// Two proofs and a comma.
        const MAX_SHOWN_BYTES: usize = 140;
        let Some(peer) = &self.peer else { return String::new() };
        let headers = [(NONCE_HEADER, &peer.proved.0), (PROOF_HEADER, &peer.proved.1)];
        let said = headers.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let said = said.map(|(name, value)| format!("{name}: {:?}", beginning(value, MAX_SHOWN_BYTES)));
        said.collect::<Vec<_>>().join(", ")
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

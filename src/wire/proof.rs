//! The proofs by which both ends of a link show that they know its secret, without showing the secret. Pure.
//!
//! Each end of a handshake chooses a nonce, 16 random bytes. A proof is an HMAC-SHA256, keyed with the secret, over who
//! proves, the group and both nonces, and for a dispatcher its epoch. So a proof is worth nothing on any other
//! connection, in any other group or epoch, or in the other direction. Comparing takes as long whatever is given.

use std::fmt;

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::base::id::Epoch;

/// The header of a handshake's request and answer with a nonce.
pub const NONCE_HEADER: &str = "Oncecast-Nonce";
/// The header of the answer with the consumer's proofs.
pub const PROOF_HEADER: &str = "Oncecast-Proof";
/// The bytes of a nonce.
pub const NONCE_BYTES: usize = 16;
/// The bytes of a proof.
pub(super) const PROOF_BYTES: usize = 32;
/// The most secrets of one end: the old one and the new one. A consumer gives a proof for each.
pub const MAX_SECRETS: usize = 2;

const BY_CONSUMER: &[u8] = b"oncecast consumer\0";
const BY_DISPATCHER: &[u8] = b"oncecast dispatcher\0";

/// What one end of a handshake has chosen at random. Shown as in its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce(pub [u8; NONCE_BYTES]);

/// A proof as it travels. Shown as in its header.
///
/// Comparing two of these tells an attacker how long their common beginning is: use [`Nonces`] to check one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof(pub [u8; PROOF_BYTES]);

/// The nonces of one handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonces {
    /// The dispatcher's.
    pub dispatcher: Nonce,
    /// The consumer's.
    pub consumer: Nonce,
}

impl Nonce {
    /// Reads a header's value; `None` if it does not have the form.
    pub fn of_header(value: &[u8]) -> Option<Nonce> {
        hexadecimal(value).map(Nonce)
    }
}

impl Nonces {
    /// What a consumer proves with a secret.
    pub fn consumer_proof(&self, secret: &[u8], group: &str) -> Proof {
        Proof(self.by_consumer(secret, group).finalize().into_bytes().into())
    }

    /// What a dispatcher proves with a secret.
    pub fn dispatcher_proof(&self, secret: &[u8], group: &str, epoch: Epoch) -> Proof {
        Proof(self.by_dispatcher(secret, group, epoch).finalize().into_bytes().into())
    }

    /// Whether one of these proofs is the consumer's with this secret.
    pub fn has_consumer_proof(&self, secret: &[u8], group: &str, given: &[Proof]) -> bool {
        let mac = self.by_consumer(secret, group);
        given.iter().fold(false, |found, proof| found | mac.clone().verify_slice(&proof.0).is_ok())
    }

    /// Whether this is the dispatcher's proof with one of these secrets.
    pub fn is_dispatcher_proof<S: AsRef<[u8]>>(&self, secrets: &[S], group: &str, epoch: Epoch, given: &Proof) -> bool {
        let is_by = |secret: &S| self.by_dispatcher(secret.as_ref(), group, epoch).verify_slice(&given.0).is_ok();
        secrets.iter().fold(false, |found, secret| found | is_by(secret))
    }

    fn by_consumer(&self, secret: &[u8], group: &str) -> Hmac<Sha256> {
        self.finish(begin(secret, BY_CONSUMER, group))
    }

    fn by_dispatcher(&self, secret: &[u8], group: &str, epoch: Epoch) -> Hmac<Sha256> {
        self.finish(begin(secret, BY_DISPATCHER, group).chain_update(epoch.0.to_be_bytes()))
    }

    fn finish(&self, mac: Hmac<Sha256>) -> Hmac<Sha256> {
        mac.chain_update(self.dispatcher.0).chain_update(self.consumer.0)
    }
}

fn begin(secret: &[u8], by: &[u8], group: &str) -> Hmac<Sha256> {
    let mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length will do");
    // A group's name is bounded.
    mac.chain_update(by).chain_update((group.len() as u32).to_be_bytes()).chain_update(group)
}

/// The proofs in a header's value: one, or [`MAX_SECRETS`] with commas between them; none if it does not have the form.
pub fn proofs_in(value: &[u8]) -> Vec<Proof> {
    let proofs = value.split(|byte| *byte == b',').map(|part| hexadecimal(part.trim_ascii()).map(Proof));
    let proofs: Option<Vec<Proof>> = proofs.take(MAX_SECRETS + 1).collect();
    proofs.filter(|proofs| proofs.len() <= MAX_SECRETS).unwrap_or_default()
}

fn hexadecimal<const BYTES: usize>(text: &[u8]) -> Option<[u8; BYTES]> {
    let bytes = (text.len() == 2 * BYTES).then(|| HEXLOWER.decode(text).ok())??;
    bytes.try_into().ok()
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

//! The link secret in a case: nonces and proofs of a dispatcher that knows it, and of peers that do not.
//!
//! With `--link-secret-file` every connection sends a nonce, and the consumer's answer must prove one of the secrets.
//! PROOF then goes before LEAD by itself, unless the case says what is wrong with it.

use super::case::{NonceRule, ProofRule};
use super::report::{Failure, Stop};
use super::stage::Stage;
use crate::base::id::Epoch;
use crate::net::random_bytes;
use crate::wire::{Frame, Nonce, Nonces, Proof};

/// A nonce that is too short.
const MALFORMED: &str = "00112233445566778899aabbccddee";
/// The most bytes of a connection that can be replayed.
const MAX_RECORDED_BYTES: usize = 64 << 10;

impl Stage<'_> {
    /// The nonce of a new connection, as its header's value.
    pub(super) fn nonce(&mut self, rule: &NonceRule) -> Option<String> {
        let fresh = || Nonce(random_bytes().expect("the system has random bytes")).to_string();
        match rule {
            NonceRule::Usual => self.target.secret.is_some().then(fresh),
            NonceRule::Given => Some(fresh()),
            NonceRule::Absent => None,
            NonceRule::Malformed => Some(MALFORMED.to_owned()),
            NonceRule::Of(other) => self.link(other).sent_nonce.map(|nonce| nonce.to_string()),
        }
    }

    /// Checks what the consumer's answer on a new connection proves.
    pub(super) fn check_answer(&mut self, name: &str) -> Result<(), Failure> {
        let (group, secrets) = (self.target.group.clone(), self.target.secrets());
        let link = self.link(name);
        let is_demanded = !secrets.is_empty() && link.sent_nonce.is_some();
        let got = link.said_of_secret();
        if !is_demanded {
            return match got.is_empty() {
                true => Ok(()),
                false => Err(Failure::new(format!("an answer without a nonce and proofs on {name}"), got)),
            };
        }
        let expected = format!("an Oncecast-Nonce, and an Oncecast-Proof made with the link secret, on {name}");
        let Some(nonces) = link.nonces else {
            let got = if got.is_empty() { "neither".to_owned() } else { got };
            return Err(Failure::new(expected, got));
        };
        let proofs = link.proofs.clone();
        if !secrets.iter().any(|secret| nonces.has_consumer_proof(secret.as_ref(), &group, &proofs)) {
            return Err(Failure::new(format!("{expected}, for the group {group:?}"), got));
        }
        if !self.target.is_new(nonces.consumer) {
            return Err(Failure::new("a nonce that the consumer has not used before", got));
        }
        Ok(())
    }

    /// The answer must have exactly one proof for each secret, in the file's order.
    pub(super) fn expect_proofs(&mut self, name: &str) -> Result<(), Stop> {
        let (group, secrets) = (self.target.group.clone(), self.target.secrets());
        let link = self.link(name);
        let wanted: Option<Vec<Proof>> = link
            .nonces
            .map(|nonces| secrets.iter().map(|secret| nonces.consumer_proof(secret.as_ref(), &group)).collect());
        if wanted.as_ref() == Some(&link.proofs) {
            return Ok(());
        }
        let (got, count) = (link.said_of_secret(), secrets.len());
        let expected = format!("a proof for each of the {count} secret(s) of the same file, in order, on {name}");
        Err(Failure::new(expected, got).into())
    }

    /// What goes before LEAD: PROOF, if the consumer has proved that it knows the secret.
    pub(super) fn proof(&mut self, name: &str, epoch: Epoch, group: &str, rule: &ProofRule) -> Vec<u8> {
        let secrets = self.target.secrets();
        let (Some(nonces), false) = (self.link(name).nonces, secrets.is_empty()) else { return Vec::new() };
        let own = self.target.group.clone();
        let proofs = self.link(name).proofs.clone();
        let common = secrets.iter().find(|secret| nonces.has_consumer_proof(secret.as_ref(), &own, &proofs));
        let usual = common.unwrap_or(&secrets[0]);
        let right = |nonces: &Nonces| nonces.dispatcher_proof(usual.as_ref(), group, epoch);
        let proof = match rule {
            ProofRule::Right | ProofRule::Twice => right(&nonces),
            ProofRule::Absent => return Vec::new(),
            ProofRule::Forged => {
                let mut proof = right(&nonces);
                proof.0[31] ^= 1;
                proof
            }
            ProofRule::Reflected => nonces.consumer_proof(usual.as_ref(), group),
            ProofRule::OtherGroup => nonces.dispatcher_proof(usual.as_ref(), &format!("{group}-2"), epoch),
            ProofRule::OtherEpoch => nonces.dispatcher_proof(usual.as_ref(), group, Epoch(epoch.0 + 1)),
            ProofRule::Line(number) => {
                let line = secrets.get(*number).unwrap_or(usual);
                nonces.dispatcher_proof(line.as_ref(), group, epoch)
            }
            ProofRule::Of(other) => right(&self.link(other).nonces.unwrap_or(nonces)),
        };
        self.link(name).awaits_proof = false;
        Frame::Proof(proof).to_vec().repeat(if *rule == ProofRule::Twice { 2 } else { 1 })
    }

    /// Keeps what was sent on a connection, so that a case can send it again.
    pub(super) fn record(&mut self, name: &str, message: &[u8]) {
        let sent = &mut self.link(name).sent;
        if sent.iter().map(Vec::len).sum::<usize>() + message.len() <= MAX_RECORDED_BYTES {
            sent.push(message.to_vec());
        }
    }

    /// Sends on a connection everything that was sent on another.
    pub(super) fn replay(&mut self, name: &str, of: &str) -> Result<(), Stop> {
        self.note(format!("{name} D→C what was sent on {of}:"));
        for message in self.link(of).sent.clone() {
            self.note_sent(name, &message);
            self.link(name).awaits_proof = false;
            // The consumer may have closed the connection before it has read all of them.
            let _ = self.send(name, |peer| peer.send(message));
        }
        Ok(())
    }
}

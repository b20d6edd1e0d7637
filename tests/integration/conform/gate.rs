//! The link secret of the scripted consumer, for one connection.

use oncecast::base::id::Epoch;
use oncecast::net::random_bytes;
use oncecast::wire::{ErrorCode, Frame, NONCE_HEADER, Nonce, Nonces, PROOF_HEADER, Proof};
use tungstenite::handshake::server::{Request, Response};

use super::consumer::Fault;
use super::desk::{GROUP, Refusal};

pub const SECRET: &str = "the scripted consumer's secret";

#[derive(Default)]
pub struct Gate {
    fault: Option<Fault>,
    has_secret: bool,
    nonces: Option<Nonces>,
    proof: Option<Proof>,
    passed: bool,
}

impl Gate {
    pub fn new(has_secret: bool, fault: Option<Fault>) -> Gate {
        Gate { fault, has_secret, ..Gate::default() }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Adds the headers of the answer.
    pub fn answer(&mut self, request: &Request, response: &mut Response) {
        let nonce = request.headers().get(NONCE_HEADER).and_then(|nonce| Nonce::of_header(nonce.as_bytes()));
        let Some(dispatcher) = nonce.filter(|_| self.has_secret) else { return };
        let own = if self.has(Fault::ReusesNonce) { [7; 16] } else { random_bytes().expect("random bytes") };
        let nonces = Nonces { dispatcher, consumer: Nonce(own) };
        let proof = nonces.consumer_proof(SECRET.as_bytes(), GROUP);
        for (name, value) in [(NONCE_HEADER, nonces.consumer.to_string()), (PROOF_HEADER, proof.to_string())] {
            response.headers_mut().insert(name, value.parse().expect("a header's value"));
        }
        self.nonces = Some(nonces);
    }

    /// Whether a frame may have an effect; LEAD also if it is only to be remembered.
    pub fn judge(&mut self, frame: &Frame<'_>) -> Result<(), Refusal> {
        if !self.has_secret || self.passed || self.has(Fault::IgnoresProof) {
            return Ok(());
        }
        let refused = Err(Some(ErrorCode::NotAuthenticated));
        match (frame, self.nonces, self.proof) {
            (_, None, _) => refused,
            (Frame::Proof(proof), Some(_), None) => {
                self.proof = Some(*proof);
                Ok(())
            }
            (Frame::Lead { epoch, group }, Some(nonces), Some(proof)) => {
                let is_right = |epoch| nonces.is_dispatcher_proof(&[SECRET], group, Epoch(epoch), &proof);
                let of_next = self.has(Fault::ProofForAnyEpoch) && is_right(epoch.0 + 1);
                self.passed = is_right(epoch.0) || of_next;
                if self.passed { Ok(()) } else { refused }
            }
            (_, Some(_), None) => refused,
            (_, Some(_), Some(_)) => Err(Some(ErrorCode::Unexpected)),
        }
    }

    /// Whether PROOF belongs here, after it was judged.
    pub fn takes_proof(&self) -> bool {
        self.has(Fault::IgnoresProof) || (self.has_secret && !self.passed)
    }

    /// Whether a handshake can be followed by anything.
    pub fn check(&self) -> Result<(), Refusal> {
        let is_refused = self.has_secret && self.nonces.is_none() && !self.has(Fault::IgnoresProof);
        if is_refused { Err(Some(ErrorCode::NotAuthenticated)) } else { Ok(()) }
    }
}

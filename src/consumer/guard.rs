//! The consumer's side of the link secret: what a connection's dispatcher must prove before its LEAD is believed.
//!
//! A [`Guard`] belongs to one connection and its reading thread. The lines of the secret's file are those of the
//! handshake: a file that changes meanwhile breaks no greeting that has begun. Without a secret nothing is demanded.

use std::io;
use std::sync::Arc;

use super::peer::CloseReason;
use crate::base::id::Epoch;
use crate::net::{LinkSecret, Secret, random_bytes};
use crate::wire::{ErrorCode, NONCE_HEADER, Nonce, Nonces, PROOF_HEADER, Proof};

/// See the module's text.
pub(super) enum Guard {
    /// There is no secret.
    Open,
    /// The handshake has not been answered.
    New(Arc<Vec<Secret>>),
    /// The dispatcher sent no nonce, so it can prove nothing.
    NoNonce,
    /// PROOF must come.
    Asked(Demand),
    /// PROOF has come, and LEAD must.
    Shown(Demand, Proof),
}

/// What makes a proof a right one.
pub(super) struct Demand {
    secrets: Arc<Vec<Secret>>,
    nonces: Nonces,
}

impl Guard {
    pub(super) fn new(secret: Option<&LinkSecret>) -> Guard {
        secret.map_or(Guard::Open, |secret| Guard::New(secret.current()))
    }

    /// What the answer to a handshake says beside the usual: the consumer's own nonce and proofs.
    pub(super) fn answer(&mut self, nonce: Option<Nonce>, group: &str) -> io::Result<String> {
        let Guard::New(secrets) = self else { return Ok(String::new()) };
        let Some(dispatcher) = nonce else {
            *self = Guard::NoNonce;
            return Ok(String::new());
        };
        let nonces = Nonces { dispatcher, consumer: Nonce(random_bytes()?) };
        let proofs = secrets.iter().map(|secret| nonces.consumer_proof(secret.as_ref(), group).to_string());
        let proofs = proofs.collect::<Vec<_>>().join(", ");
        *self = Guard::Asked(Demand { secrets: secrets.clone(), nonces });
        Ok(format!("{NONCE_HEADER}: {}\r\n{PROOF_HEADER}: {proofs}\r\n", nonces.consumer))
    }

    /// Whether the next frame must be PROOF.
    pub(super) fn wants_proof(&self) -> bool {
        matches!(self, Guard::New(_) | Guard::NoNonce | Guard::Asked(_))
    }

    /// Whether anything can follow that would be accepted.
    pub(super) fn check_handshake(&self) -> Result<(), CloseReason> {
        match self {
            Guard::NoNonce => Err(refusal(
                "this consumer has a link secret and the dispatcher none; give the dispatcher the same \
                 --link-secret-file",
            )),
            _ => Ok(()),
        }
    }

    /// Takes PROOF; `false` if it does not belong here.
    pub(super) fn take(&mut self, proof: Proof) -> bool {
        let before = std::mem::replace(self, Guard::NoNonce);
        let taken = matches!(before, Guard::Asked(_));
        *self = match before {
            Guard::Asked(demand) => Guard::Shown(demand, proof),
            other => other,
        };
        taken
    }

    /// Judges the dispatcher by its LEAD, before anything else is done about that.
    pub(super) fn admit(&self, epoch: Epoch, group: &str) -> Result<(), CloseReason> {
        match self {
            Guard::Open => Ok(()),
            Guard::Shown(Demand { secrets, nonces }, proof)
                if nonces.is_dispatcher_proof(secrets, group, epoch, proof) =>
            {
                Ok(())
            }
            Guard::Shown(..) => Err(refusal(
                "PROOF is not right for this handshake, group and epoch; --link-secret-file of both sides must have \
                 a secret in common",
            )),
            Guard::New(_) | Guard::NoNonce | Guard::Asked(_) => Err(unproven("LEAD")),
        }
    }
}

/// Another frame came where PROOF must.
pub(super) fn unproven(frame: &str) -> CloseReason {
    refusal(&format!(
        "{frame} before PROOF: this consumer has a link secret; give the dispatcher the same --link-secret-file"
    ))
}

fn refusal(text: &str) -> CloseReason {
    CloseReason::new(ErrorCode::NotAuthenticated, text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::wire::proofs_in;

    const EPOCH: Epoch = Epoch(7);
    const OLD: &str = "an old secret, no longer good";
    const NEW: &str = "a new secret, of 27 bytes..";

    fn secret(lines: &[&str]) -> LinkSecret {
        let number = fastrand::u64(..);
        let path = std::env::temp_dir().join(format!("oncecast-guard-{}-{number}", std::process::id()));
        fs::write(&path, lines.join("\n")).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our own");
        let secret = LinkSecret::load(&path).expect("a good file");
        // The lines that a guard has taken stay, whatever becomes of the file.
        fs::remove_file(&path).expect("our own");
        secret
    }

    /// A guard that has answered, with the nonces and what it proved.
    fn asked(lines: &[&str]) -> (Guard, Nonces, Vec<Proof>) {
        let mut guard = Guard::new(Some(&secret(lines)));
        let dispatcher = Nonce([3; 16]);
        let headers = guard.answer(Some(dispatcher), "g").expect("random bytes");
        let value = |name: &str| {
            let line = headers.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.expect("the header is there").as_bytes()
        };
        let consumer = Nonce::of_header(value(NONCE_HEADER)).expect("a nonce");
        (guard, Nonces { dispatcher, consumer }, proofs_in(value(PROOF_HEADER)))
    }

    fn code(outcome: Result<(), CloseReason>) -> Option<u16> {
        outcome.err().map(|reason| reason.code.code())
    }

    #[test]
    fn a_dispatcher_with_one_of_the_secrets_is_admitted() {
        for lines in [&[OLD][..], &[OLD, NEW]] {
            let (_, nonces, proofs) = asked(lines);
            assert_eq!(proofs.len(), lines.len());
            for (line, proof) in lines.iter().zip(&proofs) {
                assert!(nonces.has_consumer_proof(line.as_bytes(), "g", &[*proof]), "in the file's order");
            }
            for line in lines {
                let (mut guard, nonces, _) = asked(lines);
                assert!(guard.wants_proof());
                assert!(guard.take(nonces.dispatcher_proof(line.as_bytes(), "g", EPOCH)));
                assert!(!guard.wants_proof());
                assert_eq!(code(guard.admit(EPOCH, "g")), None);
            }
        }
    }

    #[test]
    fn what_is_missing_forged_or_replayed_is_not_admitted() {
        let (guard, nonces, proofs) = asked(&[NEW]);
        assert_eq!(code(guard.admit(EPOCH, "g")), Some(11), "LEAD without PROOF");
        let (_, elsewhere, _) = asked(&[NEW]);
        assert_ne!(nonces.consumer, elsewhere.consumer, "each handshake has its own nonce");
        for (what, proof) in [
            ("another secret", nonces.dispatcher_proof(OLD.as_bytes(), "g", EPOCH)),
            ("another handshake", elsewhere.dispatcher_proof(NEW.as_bytes(), "g", EPOCH)),
            ("another group", nonces.dispatcher_proof(NEW.as_bytes(), "h", EPOCH)),
            ("another epoch", nonces.dispatcher_proof(NEW.as_bytes(), "g", Epoch(8))),
            ("the consumer's own", proofs[0]),
            ("nothing", Proof([0; 32])),
        ] {
            let secrets = Arc::new(secret(&[NEW]).current().to_vec());
            let guard = Guard::Shown(Demand { secrets, nonces }, proof);
            assert_eq!(code(guard.admit(EPOCH, "g")), Some(11), "{what}");
        }
        let (mut guard, nonces, _) = asked(&[NEW]);
        let proof = nonces.dispatcher_proof(NEW.as_bytes(), "g", EPOCH);
        assert!(guard.take(proof) && !guard.take(proof), "a second PROOF has no place");
    }

    #[test]
    fn without_a_nonce_no_proof_can_be_right_and_without_a_secret_none_is_wanted() {
        let mut guard = Guard::new(Some(&secret(&[NEW])));
        assert_eq!(guard.answer(None, "g").expect("nothing to do"), "");
        assert_eq!(code(guard.check_handshake()), Some(11));
        assert!(guard.wants_proof() && !guard.take(Proof([0; 32])));
        let mut open = Guard::new(None);
        assert_eq!(open.answer(Some(Nonce([1; 16])), "g").expect("nothing to do"), "");
        assert!(!open.wants_proof() && !open.take(Proof([0; 32])));
        assert_eq!((code(open.check_handshake()), code(open.admit(EPOCH, "g"))), (None, None));
    }
}

//! The dispatcher's side of the link secret, for one attempt to link a consumer: its nonce, what the consumer must have
//! proved with it, and the proof in return. A dialer's thread.
//!
//! The lines of the secret's file are those of the attempt: a file that changes meanwhile breaks no greeting.

use std::io;
use std::sync::Arc;

use crate::base::id::Epoch;
use crate::base::text::Quoted;
use crate::net::{LinkSecret, Secret, random_bytes};
use crate::wire::{Nonce, Nonces, Proof};

/// See the module's text.
pub(super) struct Credentials {
    secrets: Arc<Vec<Secret>>,
    /// The nonce of this attempt's handshake.
    pub(super) nonce: Nonce,
}

impl Credentials {
    pub(super) fn new(secret: &LinkSecret) -> io::Result<Credentials> {
        Ok(Credentials { secrets: secret.current(), nonce: Nonce(random_bytes()?) })
    }

    /// The proof to send if the consumer's answer proves that it knows one of the secrets; else what is wrong. The
    /// consumer, which answers before it knows of which lane it will be told, proves it for the group `base`; the
    /// dispatcher proves it for the lane, whose name is `group`.
    pub(super) fn proof(
        &self,
        answered: Option<&(Nonce, Vec<Proof>)>,
        base: &str,
        group: &str,
        epoch: Epoch,
    ) -> Result<Proof, String> {
        let Some((consumer, proofs)) = answered else {
            return Err("the consumer proves no link secret, and this dispatcher requires it; give the consumer the \
                        same --link-secret-file"
                .to_owned());
        };
        let nonces = Nonces { dispatcher: self.nonce, consumer: *consumer };
        let common = self.secrets.iter().find(|secret| nonces.has_consumer_proof(secret.as_ref(), base, proofs));
        match common {
            Some(secret) => Ok(nonces.dispatcher_proof(secret.as_ref(), group, epoch)),
            None => Err(format!(
                "the consumer proves another link secret than this dispatcher's, or for another group than {}; \
                 --link-secret-file of both must have a secret in common",
                Quoted(base)
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &[u8] = b"an old secret, no longer good";
    const NEW: &[u8] = b"a new secret, of 27 bytes..";
    const EPOCH: Epoch = Epoch(7);
    const CONSUMER: Nonce = Nonce([2; 16]);

    fn credentials(secrets: &[&[u8]]) -> Credentials {
        let secrets = secrets.iter().map(|secret| Secret::from(*secret)).collect();
        Credentials { secrets: Arc::new(secrets), nonce: Nonce([1; 16]) }
    }

    #[test]
    fn a_consumer_with_one_of_the_secrets_gets_a_proof_made_with_that_one() {
        let nonces = Nonces { dispatcher: Nonce([1; 16]), consumer: CONSUMER };
        let proofs = |secrets: &[&[u8]]| {
            (CONSUMER, secrets.iter().map(|secret| nonces.consumer_proof(secret, "g")).collect::<Vec<_>>())
        };
        for (own, consumers, common) in [
            (&[OLD][..], &[OLD][..], OLD),
            (&[OLD], &[OLD, NEW], OLD),
            (&[OLD, NEW], &[OLD, NEW], OLD),
            (&[OLD, NEW], &[NEW], NEW),
            (&[NEW], &[OLD, NEW], NEW),
        ] {
            let proof =
                credentials(own).proof(Some(&proofs(consumers)), "g", "g/1", EPOCH).expect("they have one in common");
            assert_eq!(proof, nonces.dispatcher_proof(common, "g/1", EPOCH));
        }
        let refused = credentials(&[NEW]).proof(Some(&proofs(&[OLD])), "g", "g", EPOCH).expect_err("none in common");
        assert!(refused.contains("--link-secret-file") && refused.contains("group"), "{refused}");
    }

    #[test]
    fn an_answer_of_another_handshake_or_group_or_none_gets_no_proof() {
        let own = credentials(&[NEW]);
        let of = |dispatcher: Nonce, group: &str| {
            let nonces = Nonces { dispatcher, consumer: CONSUMER };
            Some((CONSUMER, vec![nonces.consumer_proof(NEW, group)]))
        };
        assert!(own.proof(of(own.nonce, "g").as_ref(), "g", "g", EPOCH).is_ok());
        let others = Some((Nonce([3; 16]), of(own.nonce, "g").expect("it is one").1));
        // What this dispatcher would prove, sent back to it.
        let nonces = Nonces { dispatcher: own.nonce, consumer: CONSUMER };
        let reflected = Some((CONSUMER, vec![nonces.dispatcher_proof(NEW, "g", EPOCH)]));
        for answered in [of(Nonce([9; 16]), "g"), of(own.nonce, "h"), others, reflected, None] {
            assert!(own.proof(answered.as_ref(), "g", "g", EPOCH).is_err(), "{answered:?}");
        }
    }
}

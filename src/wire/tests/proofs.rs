//! The proofs of the link secret: the vectors of docs/PROTOCOL.md, what a proof is bound to, and its form in headers.

use super::*;

const SECRET: &[u8] = b"correct horse battery staple";
const GROUP: &str = "messages";
const EPOCH: Epoch = Epoch(1_790_000_000_123);
const CONSUMER: &str = "3b46c32c4843f5e4a4426d13afb757cca6da5ee832132b695aabb852f94d96f7";
const DISPATCHER: &str = "8c24d0565e1014d6b906af99156b11b1ccf3b644c67fe569bda5317c9266b1ab";

fn nonces() -> Nonces {
    let from = |first: u8| Nonce(std::array::from_fn(|place| first + place as u8));
    Nonces { dispatcher: from(0), consumer: from(0x10) }
}

#[test]
fn the_proofs_are_those_of_the_protocol() {
    assert_eq!(nonces().consumer_proof(SECRET, GROUP).to_string(), CONSUMER);
    assert_eq!(nonces().dispatcher_proof(SECRET, GROUP, EPOCH).to_string(), DISPATCHER);
    assert!(nonces().has_consumer_proof(SECRET, GROUP, &proofs_in(CONSUMER.as_bytes())));
    let proof = proofs_in(DISPATCHER.as_bytes())[0];
    assert!(nonces().is_dispatcher_proof(&[b"another", SECRET], GROUP, EPOCH, &proof));
}

#[test]
fn a_proof_is_bound_to_everything_it_names() {
    let (own, secrets) = (nonces(), [SECRET]);
    let (by_consumer, by_dispatcher) = (own.consumer_proof(SECRET, GROUP), own.dispatcher_proof(SECRET, GROUP, EPOCH));
    let other_dispatcher = Nonces { dispatcher: Nonce([7; NONCE_BYTES]), ..own };
    let other_consumer = Nonces { consumer: Nonce([7; NONCE_BYTES]), ..own };
    let exchanged = Nonces { dispatcher: own.consumer, consumer: own.dispatcher };
    for (nonces, secret, group, epoch) in [
        (other_dispatcher, SECRET, GROUP, EPOCH),
        (other_consumer, SECRET, GROUP, EPOCH),
        (exchanged, SECRET, GROUP, EPOCH),
        (own, b"correct horse battery stapl", GROUP, EPOCH),
        (own, SECRET, "message", EPOCH),
        (own, SECRET, GROUP, Epoch(EPOCH.0 + 1)),
    ] {
        assert!(!nonces.is_dispatcher_proof(&[secret], group, epoch, &by_dispatcher), "{nonces:?} {group} {epoch}");
        let same = (nonces, secret, group) == (own, SECRET, GROUP);
        assert_eq!(nonces.has_consumer_proof(secret, group, &[by_consumer]), same, "{nonces:?} {group}");
    }
    // Neither end's proof is the other's, and none is no proof.
    assert!(!own.is_dispatcher_proof(&secrets, GROUP, EPOCH, &by_consumer));
    assert!(!own.has_consumer_proof(SECRET, GROUP, &[by_dispatcher]));
    assert!(
        !own.has_consumer_proof(SECRET, GROUP, &[]) && !own.is_dispatcher_proof(&[""; 0], GROUP, EPOCH, &by_dispatcher)
    );
    // The second of two will do.
    assert!(own.has_consumer_proof(SECRET, GROUP, &[Proof([0; 32]), by_consumer]));
    for place in 0..32 {
        let mut forged = by_dispatcher;
        forged.0[place] ^= 1;
        assert!(!own.is_dispatcher_proof(&secrets, GROUP, EPOCH, &forged));
    }
}

#[test]
fn headers_have_one_form() {
    let text = nonces().dispatcher.to_string();
    assert_eq!(text, "000102030405060708090a0b0c0d0e0f");
    assert_eq!(Nonce::of_header(text.as_bytes()), Some(nonces().dispatcher));
    for wrong in
        ["", "00", &text[1..], &text.to_uppercase(), &format!("{text}00"), &format!(" {text}"), &"é".repeat(16)]
    {
        assert_eq!(Nonce::of_header(wrong.as_bytes()), None, "{wrong}");
    }
    let count = |value: &str| proofs_in(value.as_bytes()).len();
    assert_eq!(count(CONSUMER), 1);
    assert_eq!(count(&format!(" {CONSUMER},{DISPATCHER} ")), 2);
    for wrong in ["", ",", &CONSUMER[1..], &CONSUMER.to_uppercase(), &format!("{CONSUMER},"), &[CONSUMER; 3].join(", ")]
    {
        assert_eq!(count(wrong), 0, "{wrong}");
    }
}

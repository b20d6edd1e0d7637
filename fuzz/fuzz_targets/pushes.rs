//! Whatever a server sends over a subscription: a value, a wish for more, or a refusal; and what is taken off the front
//! does not depend on how much came with it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oncecast::ledger::resp::{Received, receive};

/// Small, so that oversize messages are found.
const LIMIT: u64 = 64;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some((received, length))) = receive(rest, LIMIT) {
        assert!(0 < length && length <= rest.len());
        match received {
            Received::Oversize { length: whole, excerpt, rest: missing, .. } => {
                assert_eq!(whole + 2, excerpt.len() as u64 + missing);
                // How much of it is shown depends on what has come.
            }
            received => assert_eq!(receive(&rest[..length], LIMIT), Ok(Some((received, length)))),
        }
        rest = &rest[length..];
    }
});

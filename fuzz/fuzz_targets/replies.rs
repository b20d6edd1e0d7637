//! Whatever a server sends as a reply: a value, a wish for more, or a refusal, and never more than came.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oncecast::ledger::resp::{bulk_bytes, reply, whole};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some((placed, length))) = reply(bytes) {
        assert!(0 < length && length <= bytes.len());
        // It lies within what came.
        placed.of(bytes);
    }
    if let Ok(Some(length)) = whole(bytes) {
        assert!(0 < length && length <= bytes.len());
        assert_eq!(whole(&bytes[..length]), Ok(Some(length)), "it does not depend on what follows");
    }
    // Any answer will do.
    let _ = bulk_bytes(bytes);
});

//! Any member of the sorted set is one of ours, and then reads back, or is refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oncecast::ledger::{decode_member, encode_member};

fuzz_target!(|member: &[u8]| {
    if let Some((id, body)) = decode_member(member) {
        let mut again = Vec::new();
        encode_member(id, &body, &mut again);
        assert_eq!(again, member);
    }
});

//! Any message of a peer's is frames, or frames and an error; what was accepted is the input and nothing else.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oncecast::wire;

fuzz_target!(|message: &[u8]| {
    let mut again = Vec::new();
    let mut failed = false;
    for frame in wire::frames(message) {
        assert!(!failed, "nothing follows an error");
        match frame {
            Ok(frame) => frame.encode(&mut again),
            Err(_) => failed = true,
        }
    }
    assert!(message.starts_with(&again) && (failed || message.len() == again.len()));
});

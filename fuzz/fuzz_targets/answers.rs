//! Any line of a child, any time to wait from a server, and any payload mean something or nothing; a reason is harmless
//! when it is shown.

#![no_main]

use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use oncecast::base::id::MessageId;
use oncecast::programs::consumer::exec::read_answer;
use oncecast::programs::consumer::http::retry_after;
use oncecast::programs::consumer::{TraceContext, outcome_of};

fuzz_target!(|bytes: &[u8]| {
    if let Err(mistake) = read_answer(bytes, MessageId(0x2f)) {
        assert!(!mistake.contains(char::is_control) && mistake.len() < 2_000, "{mistake:?}");
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    assert!(retry_after(bytes, now).is_none_or(|wait| !wait.is_zero()));
    let outcome = outcome_of(bytes);
    let mut names: Vec<&[u8]> = outcome.fields().map(|(name, _)| name).collect();
    names.sort_unstable();
    assert!(!names.is_empty() || bytes.contains(&b'{'));
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "each field once");
    if let Some(context) = TraceContext::of(bytes) {
        assert!(context.members().all(|(_, value)| !value.contains(char::is_control)));
    }
});

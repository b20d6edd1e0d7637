//! Any file of ids is its lines.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oncecast::programs::audit::each_id;

fuzz_target!(|file: &[u8]| {
    let mut ids = Vec::new();
    each_id(&mut &*file, |id| {
        ids.push(id.to_vec());
        true
    })
    .expect("no line is too long");
    let lines = file.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let lines: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
    assert_eq!(ids, lines);
});

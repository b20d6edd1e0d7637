//! Any certificate has an end or none; any PEM file can be used or not, and the problem names the file.

#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use oncecast::net::{ClientFiles, ClientTls, Identity, not_after};

static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("oncecast-fuzz-pem-{}", std::process::id())));

fuzz_target!(|bytes: &[u8]| {
    if let Some(end) = not_after(bytes) {
        // The last day of the year 9999, and a time of day with any two digits.
        assert!(end < 253_402_300_800 + 100 * 3_600 + 100 * 60 + 100);
    }
    fs::write(&*FILE, bytes).expect("a file");
    let file = || Some(FILE.clone());
    let identity = Some(Identity { certificate: FILE.clone(), key: FILE.clone() });
    for files in [ClientFiles { roots: file(), identity: None }, ClientFiles { roots: file(), identity }] {
        if let Err(problem) = ClientTls::load(files) {
            assert!(problem.to_string().starts_with(&FILE.display().to_string()), "{problem}");
        }
    }
});

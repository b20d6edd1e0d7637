//! Any values of settings are accepted or refused by name; a refusal shows no control characters.

#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use libfuzzer_sys::fuzz_target;
use oncecast::cli::{CONSUMER, DISPATCHER, PUBLISHER};

/// Lines of `NAME=value` as the environment, in which a name stands for `ONCECAST_NAME`.
fn environment(lines: &[u8], variable: &str) -> Option<OsString> {
    let name = variable.strip_prefix("ONCECAST_")?;
    // Files are not for a fuzzer to choose.
    let is_file = name.ends_with("_FILE") || ["CA", "CERT", "KEY", "REPORT"].iter().any(|end| name.ends_with(end));
    let mut values = lines.split(|byte| *byte == b'\n').filter(|_| !is_file);
    values.find_map(|line| Some(OsString::from_vec(line.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?.to_vec())))
}

fuzz_target!(|lines: &[u8]| {
    let look = |variable: &str| environment(lines, variable);
    let problems = [
        CONSUMER.parse([OsString::from("-")], &look).err().map(|error| error.to_string()),
        DISPATCHER.parse([OsString::from("-")], &look).err().map(|error| error.to_string()),
        PUBLISHER.parse([OsString::from("-")], &look).err().map(|error| error.to_string()),
    ];
    for problem in problems.into_iter().flatten() {
        assert!(!problem.chars().any(|char| char.is_control() && char != '\n'), "{problem:?}");
    }
});

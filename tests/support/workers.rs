//! What consumers of the packages for Python and Node need. `scripts/ensure-workers.sh` installs it.

use std::process::Command;

/// An interpreter of Python with the package that ours needs.
pub const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/workers/bin/python");
/// Loads the package for Node, and with it what it needs.
const IMPORT: &str = concat!("await import('", env!("CARGO_MANIFEST_DIR"), "/sdk/node/src/index.js')");

/// Why a test that needs them is skipped, if something is missing. In CI that is a failure.
pub fn reason_to_skip() -> Option<String> {
    let why = format!("it needs {}: run sh scripts/ensure-workers.sh", missing()?);
    assert!(std::env::var_os("CI").is_none(), "{why}");
    Some(why)
}

fn missing() -> Option<&'static str> {
    let works = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    };
    match () {
        () if !works("python3", &["--version"]) => Some("python3"),
        () if !works(PYTHON, &["-c", "import websockets"]) => Some("the package websockets for Python"),
        () if !works("node", &["--input-type=module", "-e", IMPORT]) => Some("node with the package ws"),
        () => None,
    }
}

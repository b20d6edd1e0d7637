//! The consumers of the mode [`Mixed`](crate::mode::Mode::Mixed), whose handlers are written in several languages: `c0`
//! runs a program in Python (`--handler exec`), `c1` sends to a server in Python (`--handler http`), `c2` is a consumer
//! of the package for Python, `c3` one of the package for Node, and `c4` is `oncecast-consumer` with its own handler.

use std::path::Path;
use std::process::Command;

use oncecast::lab::ConsumerProgram;

/// How many consumers there are: one of each kind.
pub const CONSUMERS: usize = 5;
/// The settings of those that are `oncecast-consumer`; the others have the same in their sources.
pub const SETTINGS: &str = "--concurrency 2 --prefetch 256";

/// The program that becomes one of them, by its id.
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/mixed/consumer.py");
/// An interpreter of Python with the package that ours needs.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/workers/bin/python");
/// Loads the package for Node, and with it what it needs.
const IMPORT: &str = concat!("await import('", env!("CARGO_MANIFEST_DIR"), "/sdk/node/src/index.js')");

/// The program of a cluster's consumers.
pub fn consumer_program() -> ConsumerProgram {
    let folder = Path::new(env!("CARGO_BIN_EXE_oncecast")).parent().expect("a program lies in a folder");
    // A whole path stands for itself, whatever the folder of our programs is.
    ConsumerProgram { name: PROGRAM.to_owned(), arguments: vec![folder.display().to_string(), PYTHON.to_owned()] }
}

/// What is not installed and is needed, if anything.
pub fn missing() -> Option<&'static str> {
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

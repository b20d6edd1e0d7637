//! The consumers of the mode [`Mixed`](crate::mode::Mode::Mixed), whose handlers are written in several languages: `c0`
//! runs a program in Python (`--handler exec`), `c1` sends to a server in Python (`--handler http`), `c2` is a consumer
//! of the package for Python, `c3` one of the package for Node, and `c4` is `oncecast-consumer` with its own handler.

use std::ffi::OsString;

use oncecast::lab::ConsumerProgram;

use crate::support::workers::PYTHON;

/// How many consumers there are: one of each kind.
pub const CONSUMERS: usize = 5;

/// The top folder.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// One of ours; the sources of the others have the same settings.
const OURS: &str = "oncecast-consumer --concurrency 2 --prefetch 256";

/// The programs of a cluster's consumers.
pub fn consumer_program() -> ConsumerProgram {
    let commands: [String; CONSUMERS] = [
        format!("{OURS} --handler exec -- python3 {ROOT}/examples/worker.py"),
        format!("python3 {ROOT}/tests/faults/mixed/http_consumer.py {OURS}"),
        format!("{PYTHON} {ROOT}/tests/faults/mixed/worker.py"),
        format!("node {ROOT}/tests/faults/mixed/worker.mjs"),
        OURS.to_owned(),
    ];
    let words = |command: &String| command.split_whitespace().map(OsString::from).collect();
    ConsumerProgram::Commands(commands.iter().map(words).collect())
}

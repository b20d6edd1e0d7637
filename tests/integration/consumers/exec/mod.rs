//! `oncecast-consumer --handler exec` as a whole: its settings, its life, and its part in a cluster. The unit tests of
//! the handler have all that a child may do wrong.

use std::ffi::OsString;
use std::process::Command;

use oncecast::lab::ClusterOptions;

use crate::support::options;

mod examples;
mod life;
mod load;
mod settings;

/// Whether this program is on PATH. In CI it must be.
fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    assert!(found || std::env::var_os("CI").is_none(), "{program} is missing");
    if !found {
        eprintln!("left out: there is no {program}");
    }
    found
}

/// A cluster whose consumers run these words.
fn exec_options(consumers: usize, dispatcher_args: &str, consumer_args: &str, words: &[&str]) -> ClusterOptions {
    let mut options = options(1, consumers, dispatcher_args, consumer_args);
    options.handler_args = ["--handler", "exec", "--"].iter().chain(words).map(OsString::from).collect();
    options
}

/// A worker in Python. For each message `m` and its payload `p` it runs `work`, and answers with the dictionary `r` as
/// fields.
fn python(work: &str) -> String {
    let work: String = work.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "import json, os, sys, time\n\
         for line in sys.stdin:\n    m = json.loads(line); p = m['payload']; r = {{}}\n{work}    \
         print(json.dumps({{'ok': r}}), flush=True)\n"
    )
}

//! `oncecast`, the operator's tool: `audit`, `status`, `pending`, `dead`, `pause`, `resume`, `set`, `results`,
//! `doctor`, `conform`, `demo`, `chaos`, `bench`.
//!
//! Started by the name of another program, it is that program. So an image needs the code only once, with links to it.

use std::path::Path;
use std::process::ExitCode;

use oncecast::cli;
use oncecast::programs::{consumer, dispatcher, publisher};

fn main() -> ExitCode {
    let started_as = std::env::args_os().next().unwrap_or_default();
    match Path::new(&started_as).file_name().and_then(|name| name.to_str()) {
        Some("oncecast-consumer") => cli::main(&cli::CONSUMER, consumer::run),
        Some("oncecast-dispatcher") => cli::main(&cli::DISPATCHER, dispatcher::run),
        Some("oncecast-publisher") => cli::main(&cli::PUBLISHER, publisher::run),
        _ => cli::main(&cli::TOOL, cli::run_tool),
    }
}

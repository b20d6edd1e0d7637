//! `oncecast`, the operator's tool: `audit`, `status`, `conform`, `healthcheck`, `demo`, `chaos`, `bench`.

use std::process::ExitCode;

use oncecast::cli;

fn main() -> ExitCode {
    cli::main(&cli::TOOL, cli::run_tool)
}

//! The operator's tool: `oncecast audit`, `status`, `demo`, `chaos`, `bench`.

use std::process::ExitCode;

use oncecast::base::error::Result;
use oncecast::lab;
use oncecast::process::config::{self, ToolConfig};
use oncecast::process::{log, output, program};
use oncecast::programs::{audit, status};

fn main() -> ExitCode {
    program::main("oncecast", config::tool, run)
}

/// Gives the exit code of a run in which nothing failed.
fn run(config: ToolConfig) -> Result<u8> {
    match config {
        ToolConfig::Audit(config) => {
            let _log = log::init(config.common.log_level, "oncecast", "audit")?;
            let report = audit::audit(&config)?;
            output::print(&report).map(|_| report.exit_code())
        }
        ToolConfig::Status(config) => {
            let _log = log::init(config.common.log_level, "oncecast", "status")?;
            status::run(&config)
        }
        ToolConfig::Chaos(config) => {
            let _log = log::init(config.log_level, "oncecast", "chaos")?;
            lab::chaos::run(&config)
        }
        ToolConfig::Witness(config) => lab::chaos::consumer::run(*config).map(|()| 0),
        ToolConfig::BenchPart(part) => lab::bench::run_part(*part).map(|()| 0),
        ToolConfig::Bench(config) => {
            let _log = log::init(config.log_level, "oncecast", "bench")?;
            lab::bench::run(&config)
        }
        ToolConfig::Demo(config) => {
            let _log = log::init(config.log_level, "oncecast", "demo")?;
            lab::demo::run(&config)
        }
    }
}

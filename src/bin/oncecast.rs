//! The operator's tool: `oncecast audit`, `status`, `demo`, `chaos`, `bench`.

use std::process::ExitCode;

use oncecast::config::{self, Parsed, ToolConfig};
use oncecast::error::Result;
use oncecast::metrics::healthcheck;
use oncecast::{audit, local, log, status};

fn main() -> ExitCode {
    match config::tool(std::env::args_os(), &config::environment) {
        Ok(Parsed::Run(config)) => match run(config) {
            Ok(code) => ExitCode::from(code),
            Err(error) => {
                log::fail("oncecast", &error);
                ExitCode::from(error.exit_code())
            }
        },
        Ok(Parsed::Healthcheck(config)) => ExitCode::from(healthcheck::run(&config)),
        Ok(Parsed::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => error.exit(),
    }
}

/// Gives the exit code of a run in which nothing failed.
fn run(config: ToolConfig) -> Result<u8> {
    match config {
        ToolConfig::Audit(config) => {
            let _log = log::init(config.common.log_level, "oncecast", "audit")?;
            let report = audit::audit(&config)?;
            print!("{report}");
            Ok(report.exit_code())
        }
        ToolConfig::Status(config) => {
            let _log = log::init(config.common.log_level, "oncecast", "status")?;
            status::run(&config)
        }
        ToolConfig::Chaos(config) => {
            let _log = log::init(config.log_level, "oncecast", "chaos")?;
            local::chaos::run(&config)
        }
        ToolConfig::Witness(config) => local::witness::run(*config).map(|()| 0),
        ToolConfig::BenchPart(part) => local::bench::run_part(*part).map(|()| 0),
        ToolConfig::Bench(config) => {
            let _log = log::init(config.log_level, "oncecast", "bench")?;
            local::bench::run(&config)
        }
        ToolConfig::Demo(config) => {
            let _log = log::init(config.log_level, "oncecast", "demo")?;
            local::demo::run(&config)
        }
    }
}

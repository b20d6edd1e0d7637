//! The operator's tool: `oncecast audit`, `oncecast demo`.

use std::process::ExitCode;

use oncecast::config::{self, Parsed, ToolConfig};
use oncecast::error::Result;
use oncecast::{audit, local, log};

/// Something was lost or recorded twice.
const DAMAGED: u8 = 3;

fn main() -> ExitCode {
    match config::tool(std::env::args_os(), &config::environment) {
        Ok(Parsed::Run(config)) => match run(&config) {
            Ok(code) => ExitCode::from(code),
            Err(error) => {
                eprintln!("oncecast: {error}");
                ExitCode::from(error.exit_code())
            }
        },
        Ok(Parsed::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => error.exit(),
    }
}

/// Gives the exit code of a run in which nothing failed.
fn run(config: &ToolConfig) -> Result<u8> {
    match config {
        ToolConfig::Audit(config) => {
            log::init(config.common.log_level, "oncecast", "audit")?;
            let report = audit::audit(config)?;
            print!("{report}");
            Ok(if report.is_clean() { 0 } else { DAMAGED })
        }
        ToolConfig::Demo(config) => {
            log::init(config.log_level, "oncecast", "demo")?;
            Ok(local::demo::run(config)?.exit_code())
        }
    }
}

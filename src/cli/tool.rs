//! The operator's tool, `oncecast`: its subcommands.

use clap::{ArgMatches, Command};

use crate::base::error::Result;
use crate::base::setting::ConfigError;
use crate::lab::bench::process_settings::{self, BenchProcess};
use crate::lab::bench::settings::BenchConfig;
use crate::lab::chaos::consumer::settings::ChaosConsumerConfig;
use crate::lab::chaos::settings::ChaosConfig;
use crate::lab::demo::settings::DemoConfig;
use crate::lab::{bench, chaos, demo};
use crate::process::config::Environment;
use crate::process::metrics::healthcheck;
use crate::process::program::CommandLine;
use crate::programs::audit::settings::AuditConfig;
use crate::programs::conform::settings::ConformConfig;
use crate::programs::dead::settings::DeadConfig;
use crate::programs::doctor::settings::DoctorConfig;
use crate::programs::operate::settings::OperateConfig;
use crate::programs::pending::settings::PendingConfig;
use crate::programs::results::settings::ResultsConfig;
use crate::programs::status::settings::StatusConfig;
use crate::programs::{audit, conform, dead, doctor, operate, pending, results, status};

/// The tool's command line.
pub const TOOL: CommandLine<ToolConfig> = CommandLine { command, read };

/// A subcommand of `oncecast`, with its settings.
#[derive(Clone, Debug)]
pub enum ToolConfig {
    /// Count the results.
    Audit(Box<AuditConfig>),
    /// Show the state of a group.
    Status(Box<StatusConfig>),
    /// List, show, replay or drop dead letters.
    Dead(Box<DeadConfig>),
    /// Pause or resume a group, change its limits, or show them.
    Operate(Box<OperateConfig>),
    /// List or show pending messages.
    Pending(Box<PendingConfig>),
    /// Follow the results.
    Results(Box<ResultsConfig>),
    /// Say whether each program works with a server.
    Doctor(Box<DoctorConfig>),
    /// Test a consumer.
    Conform(Box<ConformConfig>),
    /// Run a whole cluster and show how it works.
    Demo(DemoConfig),
    /// Inject faults into a whole cluster.
    Chaos(Box<ChaosConfig>),
    /// Run a consumer of a chaos trial.
    ChaosConsumer(Box<ChaosConsumerConfig>),
    /// Measure.
    Bench(Box<BenchConfig>),
    /// Run one process of a comparison.
    BenchProcess(Box<BenchProcess>),
}

pub(super) fn command() -> Command {
    Command::new("oncecast")
        .about("Inspects, tests and measures Oncecast: consumer groups for Redis Pub/Sub.")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(audit::settings::command())
        .subcommand(status::settings::command())
        .subcommand(pending::settings::command())
        .subcommand(dead::settings::command())
        .subcommands(operate::settings::commands())
        .subcommand(results::settings::command())
        .subcommand(doctor::settings::command())
        .subcommand(conform::settings::command())
        .subcommand(demo::settings::command())
        .subcommand(chaos::settings::command())
        .subcommand(bench::settings::command())
        .subcommand(healthcheck::command())
        .subcommand(chaos::consumer::settings::command().hide(true))
        .subcommands(process_settings::commands())
}

fn read(matches: &ArgMatches, environment: Environment<'_>) -> Result<ToolConfig, ConfigError> {
    let (name, matches) = matches.subcommand().expect("clap demands a subcommand");
    Ok(match name {
        "audit" => ToolConfig::Audit(Box::new(audit::settings::read(matches, environment)?)),
        "status" => ToolConfig::Status(Box::new(status::settings::read(matches, environment)?)),
        "pending" => ToolConfig::Pending(Box::new(pending::settings::read(matches, environment)?)),
        "dead" => ToolConfig::Dead(Box::new(dead::settings::read(matches, environment)?)),
        name if operate::settings::NAMES.contains(&name) => {
            ToolConfig::Operate(Box::new(operate::settings::read(name, matches, environment)?))
        }
        "results" => ToolConfig::Results(Box::new(results::settings::read(matches, environment)?)),
        "doctor" => ToolConfig::Doctor(Box::new(doctor::settings::read(matches, environment)?)),
        "conform" => ToolConfig::Conform(Box::new(conform::settings::read(matches, environment)?)),
        "demo" => ToolConfig::Demo(demo::settings::read(matches, environment)?),
        "chaos" => ToolConfig::Chaos(Box::new(chaos::settings::read(matches, environment)?)),
        "chaos-consumer" => ToolConfig::ChaosConsumer(Box::new(chaos::consumer::settings::read(matches, environment)?)),
        "bench" => ToolConfig::Bench(Box::new(bench::settings::read(matches, environment)?)),
        part => {
            let part = process_settings::read(part, matches, environment)?;
            ToolConfig::BenchProcess(Box::new(part.expect("clap accepts no other subcommand")))
        }
    })
}

/// Runs a subcommand. Returns the exit code if nothing failed.
pub fn run_tool(config: ToolConfig) -> Result<u8> {
    match config {
        ToolConfig::Audit(config) => audit::run(&config),
        ToolConfig::Status(config) => status::run(&config),
        ToolConfig::Pending(config) => pending::run(&config),
        ToolConfig::Dead(config) => dead::run(&config),
        ToolConfig::Operate(config) => operate::run(&config),
        ToolConfig::Results(config) => results::run(&config),
        ToolConfig::Doctor(config) => doctor::run(&config),
        ToolConfig::Conform(config) => conform::run(&config),
        ToolConfig::Demo(config) => demo::run(&config),
        ToolConfig::Chaos(config) => chaos::run(&config),
        ToolConfig::Bench(config) => bench::run(&config),
        ToolConfig::ChaosConsumer(config) => chaos::consumer::run(*config).map(|()| 0),
        ToolConfig::BenchProcess(part) => bench::run_process(*part).map(|()| 0),
    }
}

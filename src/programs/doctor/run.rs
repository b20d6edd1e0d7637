//! Runs the subcommand.

use super::consumers::check;
use super::report::Report;
use super::settings::DoctorConfig;
use crate::base::error::Result;
use crate::ledger::doctor::{Patient, diagnose};
use crate::process::{log, output};

/// Examines the server, and shows what was found. The exit code is 3 if a program does not work.
pub fn run(config: &DoctorConfig) -> Result<u8> {
    let _log = log::init(config.common.log_level, "oncecast", "doctor")?;
    let patient = Patient::new(config.common.redis.clone(), config.common.keys.clone(), &config.interests)
        .waiting_for(config.wait_replicas);
    let diagnosis = diagnose(&patient, &config.programs)?;
    let report = Report::new(&patient, diagnosis, check(&config.consumers));
    let shown = if config.json { format!("{}\n", report.to_json()) } else { report.to_string() };
    output::print(shown).map(|_| report.exit_code())
}

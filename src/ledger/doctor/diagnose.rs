//! The examination of a server, from the first connection to the findings for each program.

use super::finding::{Effect, Finding};
use super::needs::Program;
use super::patient::Patient;
use super::place::Places;
use super::places;
use super::rights;
use super::server::{self, Condition, Written};
use super::steps;
use super::trial::Trial;
use crate::base::error::{Error, Result, Step};
use crate::base::refusal::Refusal;
use crate::ledger::connection::Connection;
use crate::ledger::server_check::Warning;

/// What was found for a program.
#[derive(Clone, Debug)]
pub struct Examined {
    /// The program.
    pub program: Program,
    /// What it lacks.
    pub findings: Vec<Finding>,
    /// What could not be tried.
    pub notes: Vec<String>,
}

impl Examined {
    /// Whether the program works.
    pub fn works(&self) -> bool {
        self.findings.iter().all(|finding| finding.effect != Effect::Stops)
    }
}

/// What was found on a server.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// Settings of the server that endanger the guarantees, and the line that corrects each.
    pub warnings: Vec<(Warning, Option<String>)>,
    /// Each program that was asked for.
    pub programs: Vec<Examined>,
    /// The servers beside it.
    pub places: Places,
}

/// Examines a server for these programs.
///
/// # Errors
///
/// If the server can't be reached, refuses the login, or is loading its data. In a Redis Cluster: if no node answers.
/// A login that may not ask nodes for the slots is a finding.
pub fn diagnose(patient: &Patient<'_>, programs: &[Program]) -> Result<Diagnosis> {
    let trial = Trial::new(&patient.keys, patient.trial_time());
    let mut connection = Connection::new(patient.server.clone(), patient.reply_time());
    if let Err(error) = server::greet(&mut connection) {
        if is_unselectable(&error, patient) {
            let finding = server::unselectable(patient.server.user(), patient.server.database());
            return Ok(nothing_works(programs, &finding, Places::default()));
        }
        if !patient.server.is_cluster() {
            return Err(error);
        }
        // No node is found, although each has accepted the login.
        if error.refusal() == Some(Refusal::Right) {
            let finding = places::no_right_to_slots(patient.server.user());
            return Ok(nothing_works(programs, &finding, Places::default()));
        }
        // What other nodes say is worth knowing now.
        let (places, _) = places::look(patient, &mut connection);
        if places.each.iter().all(|place| place.says.is_err()) {
            return Err(error);
        }
        let finding = Finding::stops(format!("the node with the group's keys: {error}"), None);
        return Ok(nothing_works(programs, &finding, places));
    }
    let condition = server::look(patient, &mut connection, &trial)?;
    let (mut places, others) = places::look(patient, &mut connection);
    let mut examined = Vec::new();
    for program in programs {
        let outcome = examine(patient, *program, &trial, &condition);
        let left = trial.remove(&mut connection);
        let mut outcome = outcome?;
        if outcome.works() {
            for other in &others {
                let Some((finding, stops)) = rights::try_elsewhere(patient, *program, &trial, other) else { continue };
                outcome.findings.push(finding);
                if stops {
                    places
                        .problems
                        .push(format!("after a failover or a move to {other}: {} would not work", program.name()));
                }
            }
        }
        for key in left? {
            outcome.notes.push(format!("the key {key} of the trial could not be removed: delete it"));
        }
        examined.push(outcome);
    }
    let warnings = condition.warnings.into_iter().map(|warning| {
        let line = server::line_for(&warning);
        (warning, line)
    });
    Ok(Diagnosis { warnings: warnings.collect(), programs: examined, places })
}

/// The diagnosis if one thing stops all programs.
fn nothing_works(programs: &[Program], finding: &Finding, places: Places) -> Diagnosis {
    let examined =
        |program: &Program| Examined { program: *program, findings: vec![finding.clone()], notes: Vec::new() };
    Diagnosis { warnings: Vec::new(), programs: programs.iter().map(examined).collect(), places }
}

fn examine(patient: &Patient<'_>, program: Program, trial: &Trial, condition: &Condition) -> Result<Examined> {
    let mut findings = condition.findings(program);
    let can_write = matches!(condition.written, Written::Yes);
    let tried = rights::try_all(patient, program, trial, can_write)?;
    findings.extend(tried.findings);
    let mut examined = Examined { program, findings, notes: tried.notes };
    // Without all rights a step fails for a reason that is known already, and might leave keys behind.
    if examined.works() {
        examined.findings.extend(steps::carry_out(patient, program, trial));
    }
    Ok(examined)
}

/// Whether the login worked and the database is refused for a missing right.
fn is_unselectable(error: &Error, patient: &Patient<'_>) -> bool {
    let connecting = matches!(error, Error::Redis { step: Step::Connecting, .. });
    connecting && error.refusal() == Some(Refusal::Right) && patient.server.database() != 0
}

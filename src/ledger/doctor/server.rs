//! What the server's settings and state mean for each program.

use redis::Value;

use super::finding::{Effect, Finding, Remedy};
use super::forms;
use super::needs::Program;
use super::patient::Patient;
use super::reply::{Said, said, told};
use super::trial::Trial;
use crate::base::error::{Error, Result};
use crate::base::refusal::Refusal;
use crate::ledger::command::Command;
use crate::ledger::connection::Connection;
use crate::ledger::server_check::{self, Warning};
use crate::ledger::value::text;

/// The state of the server.
pub(super) struct Condition {
    /// What its settings endanger.
    pub(super) warnings: Vec<Warning>,
    /// Whether a key could be written; or the kind of the refusal, and its text.
    pub(super) written: Written,
    /// The setting `maxmemory`, if it is known.
    maxmemory: Option<u64>,
}

/// What became of a key that was written.
pub(super) enum Written {
    Yes,
    /// The user may not, which the trial of its rights reports.
    NoRight,
    Refused(Refusal, String),
}

/// Connects and logs in.
pub(super) fn greet(connection: &mut Connection) -> Result<()> {
    let answer = connection.query("greeting", Command::of(&["PING"]));
    let may_ping = |error: &Error| !matches!(error.refusal(), Some(Refusal::Right | Refusal::UnknownCommand));
    match answer {
        // The login has worked.
        Err(error) if !error.is_unsent() && !may_ping(&error) => Ok(()),
        answer => answer.map(drop),
    }
}

/// Looks at the server. The key that it writes is one of the trial's, and expires by itself.
pub(super) fn look(patient: &Patient<'_>, connection: &mut Connection, trial: &Trial) -> Result<Condition> {
    const WRITING: &str = "writing a key of a trial";
    let warnings = server_check::check(connection, Some(patient.interests))?;
    let words = forms::string(trial).words;
    let reply = connection.query(WRITING, Command::of(&words.iter().map(String::as_str).collect::<Vec<_>>()));
    let written = match said(reply, None)? {
        Said::Allowed => Written::Yes,
        Said::Refused(refusal, error) => Written::Refused(refusal, told(&error)),
        _ => Written::NoRight,
    };
    let maxmemory = match written {
        Written::Refused(Refusal::Memory, _) => maxmemory(connection),
        _ => None,
    };
    Ok(Condition { warnings, written, maxmemory })
}

fn maxmemory(connection: &mut Connection) -> Option<u64> {
    let info = connection.query("asking for the memory", Command::of(&["INFO", "memory"])).ok()?;
    let text = match &info {
        Value::VerbatimString { text, .. } => text.as_str(),
        other => text(other)?,
    };
    text.lines().find_map(|line| line.strip_prefix("maxmemory:"))?.trim().parse().ok()
}

impl Condition {
    /// What stops this program, or limits it.
    pub(super) fn findings(&self, program: Program) -> Vec<Finding> {
        let mut found: Vec<Finding> = self.warnings.iter().filter_map(|warning| of_warning(warning, program)).collect();
        let is_replica = self.warnings.iter().any(|warning| matches!(warning, Warning::Replica { .. }));
        if let Written::Refused(refusal, text) = &self.written
            && program.writes()
            && !(is_replica && *refusal == Refusal::Replica)
        {
            let remedy = match refusal {
                Refusal::Memory => Some(Remedy::Type(match self.maxmemory {
                    Some(bytes) => format!("CONFIG SET maxmemory {}", 2 * bytes),
                    None => "CONFIG SET maxmemory BYTES".to_owned(),
                })),
                Refusal::Replica => Some(Remedy::Do("let --redis-url name the primary".to_owned())),
                _ => None,
            };
            found.push(Finding::stops(text.clone(), remedy));
        }
        found
    }
}

fn of_warning(warning: &Warning, program: Program) -> Option<Finding> {
    let listens = program.listens();
    match warning {
        Warning::Replica { primary, setting, .. } => {
            let remedy = Remedy::Do(format!("let {setting} name {primary}"));
            match program {
                Program::Status | Program::Audit => {
                    let late = Effect::Partly("what it shows may be behind the primary");
                    Some(Finding::new(late, format!("the server is a replica of {primary}"), remedy))
                }
                _ => Some(Finding::stops(format!("the server is a replica of {primary}"), remedy)),
            }
        }
        Warning::OldVersion { .. } => Some(Finding::stops(warning.to_string(), None)),
        Warning::KeyspaceEvents { needed, .. } if listens => {
            let line = Remedy::Type(format!("CONFIG SET notify-keyspace-events {needed}"));
            let problem = warning.to_string();
            let problem = problem.split(';').next().unwrap_or_default();
            Some(Finding::stops(problem, line))
        }
        Warning::NoSuchDatabase { .. } if listens => Some(Finding::stops(warning.to_string(), None)),
        _ => None,
    }
}

/// The line that corrects a setting, if there is one.
pub(super) fn line_for(warning: &Warning) -> Option<String> {
    match warning {
        Warning::PubSubBuffer { .. } => {
            Some("CONFIG SET client-output-buffer-limit 'pubsub 256mb 128mb 60'".to_owned())
        }
        Warning::Eviction { .. } => Some("CONFIG SET maxmemory-policy noeviction".to_owned()),
        Warning::Clients { most } => Some(format!("CONFIG SET maxclients {}", 2 * most)),
        Warning::IdleTimeout { .. } => Some("CONFIG SET timeout 0".to_owned()),
        Warning::NoAppendOnlyFile => Some("CONFIG SET appendonly yes".to_owned()),
        _ => None,
    }
}

/// The finding for a database that the user may not select.
pub(super) fn unselectable(user: &str, database: i64) -> Finding {
    Finding::stops(format!("the user {user} may not select database {database}"), Remedy::Grant("+select".to_owned()))
}
